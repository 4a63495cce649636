#include "economics/read/prices.h"

#include "base/json.h"
#include "base/option.h"
#include "economics/read/day.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

// A file of 5,000 models takes 70 MB as a document.
enum { MAX_DOCUMENT = 1 << 30 };

// The entry that explains the others.
static const char SAMPLE[] = "sample_spec";

struct sd_prices {
    json_t *root;
    char *path;
};

sd_status sd_prices_open(sd_prices **out, const char *text, size_t len, const char *path,
                         sd_error *err) {
    sd_status st = SD_OK;
    json_error_t why;
    sd_prices *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->path = sd_strdup(path);
    SD_CHECK_ALLOC(p->path, err);
    st = sd_json_load_within(&p->root, text, len, JSON_REJECT_DUPLICATES, MAX_DOCUMENT, &why, err);
    SD_CHECK(st != SD_ELIMIT, err, SD_ELIMIT,
             "%s: takes more than %d MB of memory; give a file of the models that are compared",
             path, MAX_DOCUMENT >> 20);
    SD_TRY(st);
    SD_CHECK(p->root, err, SD_EFORMAT, "%s: line %d: %s; give a price file in LiteLLM's format",
             path, why.line, why.text);
    SD_CHECK(json_is_object(p->root), err, SD_EFORMAT,
             "%s: is %s, where an object of models is needed", path, sd_json_type_word(p->root));
    *out = p, p = NULL;
out:
    sd_prices_close(p);
    return st;
}

void sd_prices_close(sd_prices *p) {
    if (!p) return;
    json_decref(p->root);
    free(p->path);
    free(p);
}

// ---- the rates of one model

typedef struct {
    const json_t *entry;
    const char *model, *path, *tier; // tier: "" or "_flex"
    int above_k;
} entry;

// A dollar for one token is a million for 10^6: beyond any price, and what a wrong unit gives.
static sd_status number(double *out, bool *found, const entry *e, const char *key, sd_error *err) {
    const json_t *v = json_object_get(e->entry, key);
    *found = v && !json_is_null(v);
    if (!*found) return SD_OK;
    *out = json_number_value(v);
    if (json_is_number(v) && *out >= 0 && *out <= 1) return SD_OK;
    return sd_fail(err, SD_EFORMAT, "%s: %s: %s is no price from 0 to 1 USD; correct it", e->path,
                   e->model, key);
}

// The rate that holds for the tier and the threshold; *out is left alone where there is none.
static sd_status rate(sd_usd_million *out, bool *found, const entry *e, const char *name,
                      sd_error *err) {
    char key[128];
    double usd = 0;
    sd_status st = SD_OK;
    *found = false;
    if (e->above_k) {
        snprintf(key, sizeof key, "%s_above_%dk_tokens%s", name, e->above_k, e->tier);
        st = number(&usd, found, e, key, err);
    }
    if (st == SD_OK && !*found) {
        snprintf(key, sizeof key, "%s%s", name, e->tier);
        st = number(&usd, found, e, key, err);
    }
    if (st == SD_OK && *found) out->usd = usd * 1e6;
    return st;
}

static sd_status needed(sd_usd_million *out, const entry *e, const char *name, sd_error *err) {
    bool found;
    sd_status st = rate(out, &found, e, name, err);
    if (st != SD_OK || found) return st;
    return sd_fail(err, SD_EINVAL,
                   "%s: %s has no %s%s: it is unpriced, not free; give --api NAME=IN,OUT", e->path,
                   e->model, name, e->tier);
}

// 200 of "input_cost_per_token_above_200k_tokens"; 0: the key is no rate of that kind.
static int threshold_of(const char *key) {
    static const char *const before[] = {"input_cost_per_token_above_",
                                         "output_cost_per_token_above_"};
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(before[i]);
        char *end;
        if (strncmp(key, before[i], len) != 0 || !isdigit((unsigned char)key[len])) continue;
        long k = strtol(key + len, &end, 10);
        if (strcmp(end, "k_tokens") == 0 && k > 0 && k <= 1000000) return (int)k;
    }
    return 0;
}

// The largest threshold that the prompt is above.
static int threshold(const json_t *o, double tokens_in) {
    int most = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, key, value) {
        int k = threshold_of(key);
        if (k > most && tokens_in > k * 1e3 && !json_is_null(value)) most = k;
    }
    return most;
}

static sd_status read_end(sd_model_price *m, const entry *e, sd_error *err) {
    sd_status st = SD_OK;
    const char *day = NULL;
    SD_TRY(sd_key_str(&day, e->entry, "deprecation_date", NULL, e->path, err));
    SD_CHECK(!day || sd_is_day(day), err, SD_EFORMAT,
             "%s: %s: deprecation_date is no day such as 2027-01-31; correct it", e->path,
             e->model);
    if (day) memcpy(m->ends, day, sizeof m->ends);
out:
    return st;
}

static sd_status read_model(sd_model_price *out, const entry *e, double tokens_in, sd_error *err) {
    sd_status st = SD_OK;
    bool found;
    sd_model_price m = {.model = e->model, .above_k = e->above_k};
    sd_usd_million in = {0}, answer = {0};
    double most = 0;
    SD_CHECK(!sd_key(e->entry, "tiered_pricing"), err, SD_EINVAL,
             "%s: %s has tiered_pricing, which is not read; give --api NAME=IN,OUT", e->path,
             e->model);
    SD_TRY(needed(&in, e, "input_cost_per_token", err));
    SD_TRY(needed(&answer, e, "output_cost_per_token", err));
    m.price = sd_api_flat(in, answer);
    SD_TRY(rate(&m.price.cached, &m.cached_rate, e, "cache_read_input_token_cost", err));
    SD_TRY(rate(&m.price.write_5m, &found, e, "cache_creation_input_token_cost", err));
    m.price.write_1h = m.price.write_5m;
    SD_TRY(rate(&m.price.write_1h, &found, e, "cache_creation_input_token_cost_above_1hr", err));
    SD_TRY(rate(&m.price.reasoning, &found, e, "output_cost_per_reasoning_token", err));
    SD_TRY(number(&m.price.request.usd, &found, e, "input_cost_per_request", err));
    // A model that has rates for long prompts takes them, whatever else its entry says.
    SD_TRY(sd_key_number(&most, e->entry, "max_input_tokens", INFINITY, e->path, err));
    SD_CHECK(tokens_in <= most || m.above_k, err, SD_EINVAL,
             "%s takes prompts of at most %.0f tokens, and --in is %.0f; choose another model",
             e->model, most, tokens_in);
    SD_TRY(read_end(&m, e, err));
    *out = m;
out:
    return st;
}

// ---- which model a name means

static bool same_price(const sd_api_price *a, const sd_api_price *b) {
    return a->in.usd == b->in.usd && a->cached.usd == b->cached.usd &&
           a->write_5m.usd == b->write_5m.usd && a->write_1h.usd == b->write_1h.usd &&
           a->out.usd == b->out.usd && a->reasoning.usd == b->reasoning.usd &&
           a->request.usd == b->request.usd;
}

static bool is_of_vendor(const char *key, const char *name) {
    size_t k = strlen(key), n = strlen(name);
    return k > n && key[k - n - 1] == '/' && strcmp(key + k - n, name) == 0;
}

static sd_status not_found(const sd_prices *p, const char *name, sd_error *err) {
    size_t n = json_object_size(p->root), i = 0;
    const char **keys = sd_alloc(n + 1, sizeof *keys), *key;
    json_t *value;
    if (!keys) return sd_fail(err, SD_ENOMEM, "out of memory");
    json_object_foreach(p->root, key, value) if (strcmp(key, SAMPLE) != 0) keys[i++] = key;
    const char *near = sd_nearest(name, keys);
    sd_status st = sd_fail(err, SD_ENOTFOUND, "%s: has no model %s; %s%s%s", p->path, name,
                           near ? "did you mean " : "give --api NAME=IN,OUT", near ? near : "",
                           near ? "?" : "");
    free(keys);
    return st;
}

static sd_status read_key(sd_model_price *out, const sd_prices *p, const char *key, sd_tier tier,
                          double tokens_in, sd_error *err) {
    static const char *const suffix[] = {"", "_batches", "_flex", "_priority"};
    const json_t *o = json_object_get(p->root, key);
    if (!json_is_object(o))
        return sd_fail(err, SD_EFORMAT, "%s: %s: is %s, where an object is needed", p->path, key,
                       sd_json_type_word(o));
    entry e = {o, key, p->path, suffix[tier], threshold(o, tokens_in)};
    return read_model(out, &e, tokens_in, err);
}

sd_status sd_prices_find(sd_model_price *out, const sd_prices *p, const char *name, sd_tier tier,
                         double tokens_in, sd_error *err) {
    sd_status st = SD_OK;
    const char *key;
    json_t *value;
    sd_model_price first = {0}, m;
    if (strcmp(name, SAMPLE) == 0) return not_found(p, name, err);
    if (json_object_get(p->root, name)) return read_key(out, p, name, tier, tokens_in, err);
    json_object_foreach(p->root, key, value) {
        if (!is_of_vendor(key, name)) continue;
        SD_TRY(read_key(&m, p, key, tier, tokens_in, err));
        SD_CHECK(!first.model || same_price(&first.price, &m.price), err, SD_EINVAL,
                 "%s: %s is %s and %s, whose prices differ; give the one that is meant", p->path,
                 name, first.model, key);
        if (!first.model) first = m;
    }
    if (!first.model) return not_found(p, name, err);
    *out = first;
out:
    return st;
}
