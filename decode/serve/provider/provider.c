#include "decode/serve/provider/provider.h"

#include <string.h>

bool sd_model_card_is(const sd_model_card *c, const char *name) {
    for (int i = 0; i < c->n_alias; i++)
        if (strcmp(c->alias[i], name) == 0) return true;
    return strcmp(c->name, name) == 0;
}
