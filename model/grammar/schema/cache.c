// A list, looked through under a lock; compiling is done outside it, and no grammar's own lock is
// taken under it. Two who ask for the same at once compile it twice, and the first one's is kept.
#include "model/grammar/schema/cache.h"

#include "base/clock.h"
#include "base/files/hash.h"
#include "base/json.h"
#include "base/list.h"
#include "model/grammar/internal.h"
#include "model/grammar/schema/schema.h"

#include <pthread.h>
#include <string.h>

// Gone at once: more than one comes, so that their number falls again after many were held. PARSE_STEPS:
// of a byte, until its value is freed.
enum { MAX_PARSED = 64 << 20, MAX_GONE = 8, PARSE_STEPS = 3 };

typedef struct {
    sd_grammar_kind kind;
    uint64_t hash, tenant;
    char *text;
    size_t len;
    sd_grammar *g;
    int64_t used;
} entry;

struct sd_grammar_cache {
    const sd_tokenizer *t;
    sd_grammar_calls_fn calls; // may be NULL
    pthread_mutex_t lock, vocab_lock;
    sd_vocab *vocab; // written under both locks
    entry *entry;    // [n]
    int n, cap;
    int64_t uses;
    sd_grammar_cache_stats stats;
};

sd_status sd_grammar_cache_open(sd_grammar_cache **out, const sd_tokenizer *t, sd_error *err) {
    sd_status st = SD_OK;
    sd_grammar_cache *c = sd_alloc(1, sizeof *c);
    SD_CHECK_ALLOC(c, err);
    c->t = t;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->vocab_lock, NULL);
    *out = c;
out:
    return st;
}

void sd_grammar_cache_take_calls(sd_grammar_cache *c, sd_grammar_calls_fn calls) {
    c->calls = calls;
}

static void drop(entry *x) {
    free(x->text);
    sd_grammar_release(x->g);
}

void sd_grammar_cache_close(sd_grammar_cache *c) {
    if (!c) return;
    while (c->n) drop(&c->entry[--c->n]);
    free(c->entry);
    sd_vocab_release(c->vocab);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->vocab_lock);
    free(c);
}

// ---- compiling

static sd_status vocab_of(sd_vocab **out, sd_grammar_cache *c, sd_error *err) {
    sd_status st = SD_OK;
    pthread_mutex_lock(&c->vocab_lock);
    if (!c->vocab) {
        sd_vocab *v = NULL;
        double begin = sd_now_s();
        st = sd_vocab_open(&v, c->t, err);
        pthread_mutex_lock(&c->lock); // for whoever wants the statistics
        c->vocab = v;
        c->stats.vocab_s = sd_now_s() - begin;
        pthread_mutex_unlock(&c->lock);
    }
    *out = c->vocab;
    pthread_mutex_unlock(&c->vocab_lock);
    return st;
}

// ctx: the schema; NULL: any object.
static sd_status check_json(const void *ctx, const char *text, size_t len, sd_error *err) {
    json_t *v = NULL;
    json_error_t why;
    sd_status st = sd_json_load(&v, text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why, err);
    if (st == SD_OK && !v) st = sd_fail(err, SD_EMISMATCH, "it is not JSON: %s", why.text);
    if (st == SD_OK && ctx) st = sd_schema_validate(ctx, v, err);
    if (st == SD_OK && !ctx && !json_is_object(v)) st = sd_fail(err, SD_EMISMATCH, "no object");
    json_decref(v);
    return st;
}

// ctx: {"pattern": what the whole text matches}, or an array of which it is one.
static sd_status check_text(const void *ctx, const char *text, size_t len, sd_error *err) {
    const json_t *want = ctx;
    if (json_is_array(want)) {
        for (size_t i = 0; i < json_array_size(want); i++) {
            const json_t *one = json_array_get(want, i);
            if (json_string_length(one) == len && memcmp(json_string_value(one), text, len) == 0)
                return SD_OK;
        }
        return sd_fail(err, SD_EMISMATCH, "it is none of the choices");
    }
    json_t *v = json_stringn(text, len);
    if (!v) return sd_fail(err, SD_ENOMEM, "out of memory or no UTF-8");
    sd_status st = sd_schema_validate(want, v, err);
    json_decref(v);
    return st;
}

// The pattern as one of a whole text.
static sd_status whole_pattern(json_t **out, const sd_grammar_spec *want, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf b = sd_buf_make(want->len + 16);
    SD_CHECK_ALLOC(sd_buf_adds(&b, "^(?:") && sd_buf_add(&b, want->text, want->len) &&
                       sd_buf_adds(&b, ")$"),
                   err);
    *out = json_pack("{s:o}", "pattern", json_stringn(b.data, b.len));
    SD_CHECK_ALLOC(*out, err);
out:
    sd_buf_free(&b);
    return st;
}

static void free_json(void *ctx) {
    json_decref(ctx);
}

static int choice_of(sd_grammar_builder *b, const json_t *list, sd_error *err) {
    size_t n = json_array_size(list);
    const char **text = sd_alloc(n + 1, sizeof *text);
    size_t *len = sd_alloc(n + 1, sizeof *len);
    bool memory = text && len, ok = memory && n > 0;
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *v = json_array_get(list, i);
        ok = json_is_string(v);
        text[i] = json_string_value(v), len[i] = json_string_length(v);
    }
    int e = ok ? sd_gb_choice(b, text, len, (int)n) : -1;
    if (!memory)
        sd_fail(err, SD_ENOMEM, "out of memory for a choice");
    else if (!ok)
        sd_fail(err, SD_EINVAL, "a choice is not an array of texts");
    free(text), free(len);
    return e;
}

static sd_status parse(json_t **out, const sd_grammar_spec *want, sd_error *err) {
    sd_status st = SD_OK;
    json_error_t why;
    SD_TRY(sd_json_load_within(out, want->text, want->len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES,
                               MAX_PARSED, &why, err));
    SD_CHECK(*out, err, SD_EINVAL, "the constraint is not JSON: line %d: %s", why.line, why.text);
out:
    return st;
}

int sd_gb_spec(sd_grammar_builder *b, const sd_grammar_spec *want, sd_error *err) {
    json_t *doc = NULL;
    int e = -1;
    bool schema = want->kind == SD_GRAMMAR_SCHEMA, json = schema || want->kind == SD_GRAMMAR_OBJECT;
    if ((schema || want->kind == SD_GRAMMAR_CHOICE) && parse(&doc, want, err) != SD_OK) return -1;
    if (doc) (void)sd_gb_spend(b, (int64_t)want->len * PARSE_STEPS, 0);
    if (schema) e = sd_gb_json_schema(b, doc);
    if (want->kind == SD_GRAMMAR_CHOICE) e = choice_of(b, doc, err);
    if (want->kind == SD_GRAMMAR_OBJECT) e = sd_gb_json_object(b, SD_GRAMMAR_OBJECT_DEPTH);
    if (want->kind == SD_GRAMMAR_REGEX) e = sd_gb_regex(b, want->text, want->len);
    if (e >= 0 && want->kind == SD_GRAMMAR_REGEX && whole_pattern(&doc, want, err) != SD_OK)
        return -1;
    sd_gb_set_check(b, (sd_grammar_checker){json ? check_json : check_text, free_json, doc,
                                            sd_json_bytes(doc)});
    return e;
}

static sd_status compile(sd_grammar **out, const sd_grammar_cache *c, sd_vocab *v,
                         const sd_grammar_spec *want, sd_error *err) {
    sd_status st = SD_OK;
    int e = -1;
    sd_error own = {0};
    sd_grammar_builder *b = sd_grammar_builder_open();
    SD_CHECK_ALLOC(b, err);
    if (want->kind != SD_GRAMMAR_CALLS)
        e = sd_gb_spec(b, want, &own);
    else if (c->calls)
        e = c->calls(b, c->t, want->text, want->len, &own);
    else
        sd_fail(&own, SD_EINVAL, "nobody here reads constraints on tool calls");
    SD_CHECK(own.status == SD_OK, err, own.status, "%s", own.message);
    SD_TRY(sd_grammar_compile(out, b, e, v, err));
out:
    sd_grammar_builder_close(b);
    return st;
}

// ---- keeping

static uint64_t hash_of(uint64_t tenant, const sd_grammar_spec *want) {
    uint64_t h = (uint64_t)want->kind ^ sd_mix64(tenant);
    for (size_t i = 0; i < want->len; i++) h = (h ^ (uint8_t)want->text[i]) * 0x100000001B3u;
    return sd_mix64(h);
}

static sd_grammar *find(sd_grammar_cache *c, uint64_t tenant, const sd_grammar_spec *want,
                        uint64_t hash) {
    for (int i = 0; i < c->n; i++) {
        entry *x = &c->entry[i];
        if (x->hash != hash || x->kind != want->kind || x->tenant != tenant ||
            x->len != want->len || (want->len && memcmp(x->text, want->text, want->len) != 0))
            continue;
        x->used = ++c->uses;
        return sd_grammar_acquire(x->g);
    }
    return NULL;
}

static size_t bytes_of(const entry *x) {
    return x->len + sd_grammar_rule_bytes(x->g) + sd_grammar_bytes(x->g);
}

static size_t bytes_of_all(const sd_grammar_cache *c) {
    size_t sum = 0;
    for (int i = 0; i < c->n; i++) sum += bytes_of(&c->entry[i]);
    return sum;
}

// Takes out what nobody else holds and was not asked for the longest, until there is room for `more`.
// What somebody holds stays: whoever asks for it next must not wait for its compilation. Returns how
// many were taken to gone [MAX_GONE]; they are dropped without the lock.
static int make_room(sd_grammar_cache *c, int more, entry *gone) {
    int n = 0;
    while (n < MAX_GONE) {
        int oldest = -1, idle = 0;
        for (int i = 0; i < c->n; i++) {
            if (sd_grammar_is_shared(c->entry[i].g)) continue;
            idle++;
            if (oldest < 0 || c->entry[i].used < c->entry[oldest].used) oldest = i;
        }
        if (idle == 0 || (idle + more <= SD_GRAMMAR_KEPT && bytes_of_all(c) < SD_GRAMMAR_MEMORY))
            break;
        gone[n++] = c->entry[oldest];
        c->entry[oldest] = c->entry[--c->n];
    }
    return n;
}

// Those that requests hold while they wait, where there is too much all the same: to rest [MAX_GONE],
// acquired.
static int find_waiting(const sd_grammar_cache *c, sd_grammar **rest) {
    int n = 0;
    if (bytes_of_all(c) < SD_GRAMMAR_MEMORY) return 0;
    for (int i = 0; i < c->n && n < MAX_GONE; i++) {
        sd_grammar *g = c->entry[i].g;
        if (!sd_grammar_is_followed(g) && sd_grammar_bytes(g) > SD_GRAMMAR_LEAST)
            rest[n++] = sd_grammar_acquire(g);
    }
    return n;
}

static int keep(sd_grammar_cache *c, uint64_t tenant, const sd_grammar_spec *want, uint64_t hash,
                sd_grammar *g, entry *gone) {
    char *text = sd_strndup(want->len ? want->text : "", want->len);
    if (!text) return 0; // it is compiled again
    int n = make_room(c, 1, gone);
    if (SD_GROW(c->entry, c->n + 1, c->cap))
        c->entry[c->n++] =
            (entry){want->kind, hash, tenant, text, want->len, sd_grammar_acquire(g), ++c->uses};
    else
        free(text);
    return n;
}

sd_status sd_grammar_cache_get_for(sd_grammar **out, sd_grammar_cache *c, uint64_t tenant,
                                   const sd_grammar_spec *want, sd_error *err) {
    sd_status st = SD_OK;
    sd_vocab *v = NULL;
    entry gone[MAX_GONE];
    int n_gone = 0;
    *out = NULL;
    SD_CHECK(want->kind > SD_GRAMMAR_NONE && want->kind < SD_GRAMMAR_KINDS, err, SD_EINVAL,
             "a constraint of kind %d is unknown", (int)want->kind);
    SD_CHECK(want->len <= SD_GRAMMAR_TEXT, err, SD_ELIMIT,
             "the constraint has %zu bytes; at most %d are possible", want->len, SD_GRAMMAR_TEXT);
    uint64_t hash = hash_of(tenant, want);
    pthread_mutex_lock(&c->lock);
    *out = find(c, tenant, want, hash);
    c->stats.found += *out != NULL;
    pthread_mutex_unlock(&c->lock);
    if (*out) return SD_OK;
    SD_TRY(vocab_of(&v, c, err));
    double begin = sd_now_s();
    st = compile(out, c, v, want, err);
    pthread_mutex_lock(&c->lock);
    c->stats.compiled += st == SD_OK, c->stats.refused += st != SD_OK;
    c->stats.compile_s += sd_now_s() - begin;
    sd_grammar *other = st == SD_OK ? find(c, tenant, want, hash) : NULL;
    if (other) {
        sd_grammar_release(*out);
        *out = other;
    } else if (st == SD_OK) {
        n_gone = keep(c, tenant, want, hash, *out, gone);
    }
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < n_gone; i++) drop(&gone[i]);
out:
    return st;
}

sd_status sd_grammar_cache_get(sd_grammar **out, sd_grammar_cache *c, const sd_grammar_spec *want,
                               sd_error *err) {
    return sd_grammar_cache_get_for(out, c, 0, want, err);
}

void sd_grammar_cache_put(sd_grammar_cache *c, sd_grammar *g) {
    entry gone[MAX_GONE];
    sd_grammar *rest[MAX_GONE];
    sd_grammar_release(g);
    pthread_mutex_lock(&c->lock);
    int n_gone = make_room(c, 0, gone), n_rest = find_waiting(c, rest);
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < n_gone; i++) drop(&gone[i]);
    for (int i = 0; i < n_rest; i++) {
        sd_grammar_rest(rest[i]);
        sd_grammar_release(rest[i]);
    }
}

size_t sd_grammar_cache_bytes(sd_grammar_cache *c) {
    pthread_mutex_lock(&c->lock);
    size_t sum = bytes_of_all(c) + (c->vocab ? sd_vocab_bytes(c->vocab) : 0);
    pthread_mutex_unlock(&c->lock);
    return sum;
}

void sd_grammar_cache_get_stats(sd_grammar_cache *c, sd_grammar_cache_stats *out) {
    pthread_mutex_lock(&c->lock);
    const sd_vocab *v = c->vocab;
    *out = c->stats;
    if (v) {
        out->masks = atomic_load(&v->masks), out->masks_made = atomic_load(&v->masks_made);
        out->mask_s = (double)atomic_load(&v->mask_ns) * 1e-9;
    }
    pthread_mutex_unlock(&c->lock);
}
