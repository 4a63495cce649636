#include "tests/torture/lib/kinds.h"

#include "base/files/hash.h"
#include "tests/torture/lib/client.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { PROBE = 140 }; // tokens

// What all tenants' texts begin with: more than a page of a cache.
static const char beginning[] =
    "The same words stand at the beginning of each of these texts, whoever "
    "sends it, so that a cache has something to mistake. ";

uint32_t kind_roll(kind_dice *d, uint32_t n) {
    d->state = sd_mix64(d->state + 0x9E3779B97F4A7C15u);
    return (uint32_t)(d->state >> 33) % n;
}

void kind_mark(kind_tenant *t, int number) {
    kind_dice d = {(uint64_t)number * 104729 + 77};
    for (int i = 0; i < KIND_MARKER - 4; i++) t->marker[i] = (char)('a' + kind_roll(&d, 26));
    t->marker[KIND_MARKER - 4] = '\0';
}

static json_t *words(kind_dice *d, const kind_tenant *t) {
    char text[512];
    size_t n = 0;
    if (t) n = (size_t)snprintf(text, sizeof text, "%s%s ", beginning, t->marker);
    for (int w = 1 + (int)kind_roll(d, 12); w > 0 && n < sizeof text - 12; w--) {
        for (int l = 1 + (int)kind_roll(d, 6); l > 0; l--)
            text[n++] = (char)('a' + kind_roll(d, 8));
        text[n++] = ' ';
    }
    return json_stringn(text, n - 1);
}

static json_t *ids(kind_dice *d) {
    json_t *list = json_array();
    for (int n = 1 + (int)kind_roll(d, 12); n > 0; n--)
        json_array_append_new(list, json_integer(kind_roll(d, 280)));
    return list;
}

static json_t *prompt(kind_dice *d, const kind_tenant *t) {
    uint32_t shape = kind_roll(d, 5);
    if (shape == 0 && !t) return ids(d);
    if (shape > 2) return words(d, t);
    json_t *list = json_array();
    for (int n = 2 + (int)kind_roll(d, 2); n > 0; n--)
        json_array_append_new(list, shape == 1 && !t ? ids(d) : words(d, t));
    return list;
}

static json_t *messages(kind_dice *d, const kind_tenant *t) {
    json_t *list = json_array();
    if (kind_roll(d, 3) == 0)
        json_array_append_new(list,
                              json_pack("{s:s, s:o}", "role", "system", "content", words(d, t)));
    json_array_append_new(list, json_pack("{s:s, s:o}", "role", "user", "content", words(d, t)));
    return list;
}

// What the answer is held to: it says the marker.
static void constrain(json_t *b, kind_dice *d, const kind_tenant *t) {
    char pattern[64], whole[72], other[64];
    snprintf(pattern, sizeof pattern, "(%s|the %s)[a-c]{1,4}", t->marker, t->marker);
    snprintf(whole, sizeof whole, "^%s$", pattern); // a schema's pattern may stand anywhere
    snprintf(other, sizeof other, "of %s", t->marker);
    json_t *schema;
    switch (kind_roll(d, 4)) {
    case 0:
        schema = json_pack("{s:s, s:{s:{s:[s, s]}, s:{s:s, s:i, s:i}}, s:[s, s], s:b}", "type",
                           "object", "properties", "who", "enum", t->marker, other, "n", "type",
                           "integer", "minimum", 0, "maximum", 99, "required", "who", "n",
                           "additionalProperties", 0);
        json_object_set_new(b, "response_format",
                            json_pack("{s:s, s:{s:s, s:b, s:o}}", "type", "json_schema",
                                      "json_schema", "name", "answer", "strict", 1, "schema",
                                      schema));
        break;
    case 1:
        json_object_set_new(b, "structured_outputs", json_pack("{s:s}", "regex", pattern));
        break;
    case 2:
        json_object_set_new(b, "guided_choice", json_pack("[s, s]", t->marker, other));
        break;
    default:
        schema = json_pack("{s:s, s:{s:s, s:s}, s:i, s:i}", "type", "array", "items", "type",
                           "string", "pattern", whole, "minItems", 1, "maxItems", 2);
        json_object_set_new(b, "guided_json", schema);
    }
    json_object_set_new(b, "max_tokens", json_integer(60));
}

static void shape(json_t *b, kind_dice *d, int number) {
    static const double temperatures[] = {0, 0.7, 1, 1.5};
    json_object_set_new(b, "max_tokens", json_integer(1 + kind_roll(d, number % 8 == 0 ? 60 : 12)));
    json_object_set_new(b, "temperature", json_real(temperatures[kind_roll(d, 4)]));
    json_object_set_new(b, "seed", json_integer(number - 5));
    json_object_set_new(b, "n", json_integer(kind_roll(d, 3) ? 1 : 2 + kind_roll(d, 2)));
    json_object_set_new(b, "ignore_eos", json_boolean(kind_roll(d, 10) < 7));
    if (kind_roll(d, 3) == 0) json_object_set_new(b, "top_p", json_real(0.9));
    if (kind_roll(d, 3) == 0) json_object_set_new(b, "top_k", json_integer(5));
    if (kind_roll(d, 3) == 0) json_object_set_new(b, "min_p", json_real(0.05));
    if (kind_roll(d, 3) == 0)
        json_object_set_new(b, "stop", json_pack("[s, s]", kind_roll(d, 2) ? "a" : "e", " th"));
}

void kind_make(kind *k, int number, char *const *model, int n_models, const kind_tenant *tenant,
               int n_tenants) {
    kind_dice d = {(uint64_t)number * 7919 + 1};
    const kind_tenant *t = n_tenants > 0 ? &tenant[number % n_tenants] : NULL;
    bool chat = kind_roll(&d, 2);
    json_t *b = json_object();
    *k = (kind){.path = chat ? "/v1/chat/completions" : "/v1/completions",
                .key = t ? t->key : NULL,
                .tenant = t ? number % n_tenants : -1};
    json_object_set_new(b, "model", json_string(model[kind_roll(&d, (uint32_t)n_models)]));
    json_object_set_new(b, chat ? "messages" : "prompt", chat ? messages(&d, t) : prompt(&d, t));
    shape(b, &d, number);
    bool logprobs = kind_roll(&d, 3) == 0;
    if (logprobs && chat) {
        json_object_set_new(b, "logprobs", json_true());
        json_object_set_new(b, "top_logprobs", json_integer(kind_roll(&d, 6)));
    } else if (logprobs) {
        json_object_set_new(b, "logprobs", json_integer(kind_roll(&d, 6)));
    } else if (!chat && kind_roll(&d, 4) == 0) {
        json_object_set_new(b, "echo", json_true());
    }
    if (kind_roll(&d, 5) == 0)
        json_object_set_new(b, "speculative", json_pack("{s:b}", "enabled", 0));
    if (t && kind_roll(&d, 2)) constrain(b, &d, t);
    if (t && kind_roll(&d, 3) == 0)
        json_object_set_new(b, "cache_salt", json_string(kind_roll(&d, 2) ? "one" : "two"));
    k->whole = client_must(json_dumps(b, JSON_COMPACT));
    json_object_set_new(b, "stream", json_true());
    json_object_set_new(b, "stream_options", json_pack("{s:b}", "include_usage", 1));
    k->stream = client_must(json_dumps(b, JSON_COMPACT));
    json_decref(b);
}

char *kind_probe(int number, const char *model) {
    kind_dice d = {(uint64_t)number * 15485863 + 3};
    json_t *list = json_array();
    for (int i = 0; i < PROBE; i++) json_array_append_new(list, json_integer(kind_roll(&d, 250)));
    json_t *b = json_pack("{s:s, s:o, s:i, s:i}", "model", model, "prompt", list, "max_tokens", 2,
                          "seed", 1);
    char *text = client_must(json_dumps(b, JSON_COMPACT));
    json_decref(b);
    return text;
}
