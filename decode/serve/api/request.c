#include "decode/serve/api/request.h"

#include <string.h>

void sd_api_request_drop_texts(sd_api_request *r) {
    for (int i = 0; i < SD_API_MAX_PROMPTS; i++) {
        free(r->prompt[i].ids);
        r->prompt[i] = (sd_api_prompt){0};
    }
    json_decref(r->messages);
    json_decref(r->template_arguments);
    json_decref(r->root);
    r->root = r->messages = r->template_arguments = NULL;
    r->model = r->cache_salt = NULL;
    r->n_stop = r->n_bad_words = 0;
    free(r->constraint_text);
    r->constraint_text = NULL;
    free(r->bias);
    free(r->allowed);
    r->bias = NULL, r->allowed = NULL;
    r->shaping.bias = NULL, r->shaping.allowed = NULL;
    r->shaping.n_bias = r->shaping.n_allowed = 0;
}

void sd_embed_free(sd_embed *m) {
    if (!m) return;
    for (int i = 0; i < m->n; i++) free(m->item[i].ids);
    free(m->item);
    json_decref(m->kept);
    free(m);
}

void sd_api_request_free(sd_api_request *r) {
    sd_api_request_drop_texts(r);
    json_decref(r->tools);
    sd_decide_free(r->decide);
    sd_embed_free(r->embed);
    *r = (sd_api_request){0};
}

// False when it is too large or memory is short; *out NULL when it is not JSON.
