#include "cli/shaping.h"

#include "decode/engine/bad_words.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// A token id that ends where `end` stands.
static bool read_id(int32_t *id, const char *text, char end, const char **rest) {
    char *at;
    errno = 0;
    long n = strtol(text, &at, 10);
    *id = (int32_t)n;
    *rest = at;
    return at > text && *text >= '0' && *text <= '9' && *at == end && errno == 0 && n <= INT32_MAX;
}

static sd_status read_bias(sd_token_bias *out, const char *text, sd_error *err) {
    const char *rest;
    char *end;
    int32_t id;
    double x;
    bool ok = read_id(&id, text, '=', &rest) && sd_read_decimal(&x, rest + 1, &end) &&
              *end == '\0' && x >= -100 && x <= 100;
    if (!ok)
        return sd_fail(err, SD_EINVAL,
                       "--logit-bias: '%s' is not ID=BIAS with a bias from -100 to 100", text);
    *out = (sd_token_bias){id, (float)x};
    return SD_OK;
}

sd_status sd_shaping_open(sd_shaping_options *o, const sd_shaping_args *a, const sd_model *m,
                          sd_error *err) {
    sd_status st = SD_OK;
    const char *rest;
    const int V = m->hp.V;
    for (int i = 0; i < a->bias.n; i++) {
        SD_TRY(read_bias(&o->bias[i], a->bias.item[i], err));
        SD_CHECK(o->bias[i].token < V, err, SD_EINVAL,
                 "--logit-bias: token %d is outside the vocabulary of %d", o->bias[i].token, V);
    }
    for (int i = 0; i < a->allowed.n; i++) {
        bool ok = read_id(&o->allowed[i], a->allowed.item[i], '\0', &rest) && o->allowed[i] < V;
        SD_CHECK(ok, err, SD_EINVAL, "--allow-token: '%s' is not a token id below %d",
                 a->allowed.item[i], V);
    }
    for (int i = 0; i < a->bad_words.n; i++) {
        const char *word = a->bad_words.item[i];
        sd_error why = {0};
        st = sd_bad_word_add(&o->bad_words, m, word, strlen(word), &why);
        if (st != SD_OK) sd_fail(err, st, "--bad-word '%s': %s", word, why.message);
        SD_TRY(st);
    }
    o->request = (sd_request_shaping){.presence = (float)a->presence,
                                      .frequency = (float)a->frequency,
                                      .repetition = (float)a->repetition,
                                      .bias = o->bias,
                                      .allowed = o->allowed,
                                      .bad_words = o->bad_words.id,
                                      .n_bias = a->bias.n,
                                      .n_allowed = a->allowed.n,
                                      .n_bad_words = o->bad_words.n,
                                      .min_tokens = (int)a->min_tokens};
out:
    return st;
}

void sd_shaping_close(sd_shaping_options *o) {
    sd_ids_free(&o->bad_words);
}
