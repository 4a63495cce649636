// Which of the provider's models a request means.
#include "decode/serve/server.h"

sd_served_model *sd_server_find_model(const sd_server *s, const char *name) {
    if (!name || !*name) return s->model;
    for (int i = 0; i < s->n_models; i++)
        if (sd_model_card_is(s->model[i].card, name)) return &s->model[i];
    return NULL;
}
