// The fields that shape logits: penalties, logit_bias, min_tokens, bad_words, allowed_token_ids.
// Names and ranges are OpenAI's and vLLM's; kernels/sample/sampler.h says what each does, and in
// which order. Which ids and words the model has is checked against the model later.
#include "base/json.h"
#include "base/memory.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/request.h"

#include <stdio.h>
#include <string.h>

enum { MAX_WORD_BYTES = 1024 };

static bool parse_penalties(sd_api_request *r, sd_api_error *e) {
    double presence = 0, frequency = 0, repetition = 1;
    if (!sd_field_number(r->root, "presence_penalty", -2, 2, &presence, e) ||
        !sd_field_number(r->root, "frequency_penalty", -2, 2, &frequency, e) ||
        !sd_field_number(r->root, "repetition_penalty", .01, 100, &repetition, e))
        return false;
    r->shaping.presence = (float)presence;
    r->shaping.frequency = (float)frequency;
    r->shaping.repetition = (float)repetition;
    return true;
}

// A token id as a key is written: digits, no sign and no zero in front. -1: it is none.
static int32_t id_of_key(const char *key) {
    int64_t id = 0;
    if (!*key || (key[0] == '0' && key[1])) return -1;
    for (const char *c = key; *c; c++) {
        if (*c < '0' || *c > '9') return -1;
        id = id * 10 + (*c - '0');
        if (id > INT32_MAX) return -1;
    }
    return (int32_t)id;
}

static bool parse_bias(sd_api_request *r, sd_api_error *e) {
    json_t *map = json_object_get(r->root, "logit_bias"), *value;
    if (!sd_field_get(r->root, "logit_bias")) return true;
    if (!json_is_object(map) || json_object_size(map) > SD_MAX_BIAS) {
        sd_api_fail(e, 400, "logit_bias",
                    "logit_bias is not an object of at most %d token ids with a number each",
                    SD_MAX_BIAS);
        return false;
    }
    if (json_object_size(map) == 0) return true;
    r->bias = sd_alloc(json_object_size(map), sizeof *r->bias);
    if (!r->bias) {
        sd_api_fail(e, 500, "logit_bias", "out of memory");
        return false;
    }
    const char *key;
    json_object_foreach(map, key, value) {
        int32_t id = id_of_key(key);
        double x = json_is_number(value) ? json_number_value(value) : 1e9;
        if (id < 0 || !(x >= -100 && x <= 100)) {
            sd_api_fail(e, 400, "logit_bias",
                        "logit_bias: '%.40s' is not a token id with a number from -100 to 100",
                        key);
            return false;
        }
        r->bias[r->shaping.n_bias++] = (sd_token_bias){id, (float)x};
    }
    r->shaping.bias = r->bias;
    return true;
}

static bool parse_allowed(sd_api_request *r, sd_api_error *e) {
    const json_t *list = sd_field_get(r->root, "allowed_token_ids");
    size_t i, n = json_array_size(list);
    if (!list) return true;
    if (n == 0) {
        sd_api_fail(e, 400, "allowed_token_ids",
                    "allowed_token_ids is not an array of at least one token id");
        return false;
    }
    r->allowed = sd_alloc(n, sizeof *r->allowed);
    if (!r->allowed) {
        sd_api_fail(e, 500, "allowed_token_ids", "out of memory");
        return false;
    }
    json_t *v;
    json_array_foreach(list, i, v) {
        int64_t id;
        if (!sd_json_whole(v, &id) || id < 0 || id > INT32_MAX) {
            sd_api_fail(e, 400, "allowed_token_ids", "allowed_token_ids[%zu] is not a token id", i);
            return false;
        }
        r->allowed[i] = (int32_t)id;
    }
    r->shaping.allowed = r->allowed, r->shaping.n_allowed = (int)n;
    return true;
}

static bool parse_bad_words(sd_api_request *r, sd_api_error *e) {
    const json_t *list = sd_field_get(r->root, "bad_words");
    size_t i;
    json_t *v;
    if (!list) return true;
    if (!json_is_array(list) || json_array_size(list) > SD_MAX_BAD_WORDS) {
        sd_api_fail(e, 400, "bad_words", "bad_words is not an array of at most %d strings",
                    SD_MAX_BAD_WORDS);
        return false;
    }
    json_array_foreach(list, i, v) {
        size_t len = sd_json_is_text(v) ? json_string_length(v) : 0;
        if (len == 0 || len > MAX_WORD_BYTES) {
            sd_api_fail(e, 400, "bad_words", "bad_words[%zu] is not a string of 1 to %d bytes", i,
                        MAX_WORD_BYTES);
            return false;
        }
        r->bad_word[r->n_bad_words++] = v;
    }
    return true;
}

static bool parse_min_tokens(sd_api_request *r, sd_api_error *e) {
    int64_t least = 0;
    if (!sd_field_int(r->root, "min_tokens", 0, SD_MAX_MIN_TOKENS, &least, e)) return false;
    if (r->max_tokens > 0 && least > r->max_tokens) {
        sd_api_fail(e, 400, "min_tokens", "min_tokens is %lld and at most %d tokens may come",
                    (long long)least, r->max_tokens);
        return false;
    }
    r->shaping.min_tokens = (int)least;
    return true;
}

bool sd_openai_shaping_parse(sd_api_request *r, sd_api_error *e) {
    return parse_penalties(r, e) && parse_bias(r, e) && parse_allowed(r, e) &&
           parse_bad_words(r, e) && parse_min_tokens(r, e);
}
