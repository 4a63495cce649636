// Which pages of other origins may read an answer.
#include "decode/serve/http/connection_private.h"

#include <string.h>

const char *sd_conn_allowed_origin(const sd_conn *c) {
    const sd_strings *list = c->listener->o.origins;
    // A head that was not understood has no fields.
    const char *origin =
        list && c->http.head.method ? sd_http_field_get(&c->http.head, "origin") : NULL;
    for (int i = 0; origin && i < list->n; i++)
        if (strcmp(list->item[i], "*") == 0 || strcmp(list->item[i], origin) == 0)
            return list->item[i];
    return NULL;
}
