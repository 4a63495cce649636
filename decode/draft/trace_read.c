// Reading a trace. Each line is checked by itself and against the first: what a replay indexes by is
// within its bounds, what it divides by is not zero.
#include "decode/draft/trace.h"

#include "base/files/file.h"
#include "base/json.h"
#include "base/list.h"

#include <math.h>
#include <string.h>

enum { MOST_SLOTS = 1 << 11, MOST_TOKENS = 1 << 20, JSON_FACTOR = 64 };
static const size_t MEMORY = (size_t)1 << 31;

typedef struct {
    sd_trace_log *log;
    char where[512]; // "PATH: line N"
} reader;

// ---- values

static sd_status refuse(const reader *r, const char *key, const char *want, sd_error *err) {
    return sd_fail(err, SD_EFORMAT, "%s: `%s` is not %s; record the trace again", r->where, key,
                   want);
}

static sd_status get_int(int64_t *out, const reader *r, const json_t *o, const char *key,
                         int64_t min, int64_t max, sd_error *err) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
        return refuse(r, key, "a whole number in its bounds", err);
    *out = json_integer_value(v);
    return SD_OK;
}

static sd_status get_seconds(double *out, const reader *r, const json_t *o, const char *key,
                             sd_error *err) {
    const json_t *v = json_object_get(o, key);
    *out = json_number_value(v);
    if (!json_is_number(v) || !isfinite(*out) || fabs(*out) > 1e6)
        return refuse(r, key, "a time in seconds", err);
    return SD_OK;
}

static sd_status get_bool(bool *out, const reader *r, const json_t *o, const char *key,
                          sd_error *err) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_boolean(v)) return refuse(r, key, "true or false", err);
    *out = json_is_true(v);
    return SD_OK;
}

// A list of min to max elements.
static sd_status get_list(json_t **out, const reader *r, const json_t *o, const char *key,
                          size_t min, size_t max, sd_error *err) {
    *out = json_object_get(o, key);
    if (!json_is_array(*out) || json_array_size(*out) < min || json_array_size(*out) > max)
        return refuse(r, key, "a list of as many as it must have", err);
    return SD_OK;
}

static bool whole(int64_t *out, const json_t *v, int64_t min, int64_t max) {
    *out = json_integer_value(v);
    return json_is_integer(v) && *out >= min && *out <= max;
}

static sd_status get_ints(int *out, const reader *r, const json_t *o, const char *key, size_t n,
                          int64_t min, int64_t max, sd_error *err) {
    sd_status st = SD_OK;
    json_t *l;
    int64_t v = 0;
    SD_TRY(get_list(&l, r, o, key, n, n, err));
    for (size_t i = 0; i < n; i++) {
        if (!whole(&v, json_array_get(l, i), min, max))
            return refuse(r, key, "a list of whole numbers in their bounds", err);
        out[i] = (int)v;
    }
out:
    return st;
}

static sd_status get_flags(bool *out, const reader *r, const json_t *o, const char *key,
                           sd_error *err) {
    int v[SD_MAX_DRAFTERS];
    sd_status st = get_ints(v, r, o, key, (size_t)r->log->n_drafters, 0, 1, err);
    for (int i = 0; st == SD_OK && i < r->log->n_drafters; i++) out[i] = v[i] != 0;
    return st;
}

// A list of tokens, in the log's memory.
static sd_status get_tokens(int32_t **out, int *n, reader *r, const json_t *o, const char *key,
                            size_t min, size_t max, sd_error *err) {
    sd_status st = SD_OK;
    json_t *l;
    SD_TRY(get_list(&l, r, o, key, min, max, err));
    *n = (int)json_array_size(l);
    *out = sd_arena_alloc(&r->log->memory, (size_t)*n, sizeof **out);
    SD_CHECK_ALLOC(*out, err);
    SD_TRY(get_ints(*out, r, o, key, (size_t)*n, 0, r->log->V - 1, err));
out:
    return st;
}

// ---- the first line

static sd_status read_drafter(reader *r, const json_t *o, int i, sd_error *err) {
    sd_trace_log *l = r->log;
    const char *name = json_string_value(json_object_get(o, "name"));
    const json_t *bytes = json_object_get(o, "bytes");
    if (!name || !name[0] || strlen(name) >= SD_DRAFTER_NAME)
        return refuse(r, "name", "a drafter's name", err);
    strcpy(l->name[i], name);
    l->free[i] = json_is_null(bytes);
    if (!l->free[i] && !(json_is_integer(bytes) && json_integer_value(bytes) >= 0))
        return refuse(r, "bytes", "null or a number of bytes", err);
    l->bytes[i] = l->free[i] ? 0 : (size_t)json_integer_value(bytes);
    return SD_OK;
}

static sd_status read_costs(reader *r, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    json_t *list = json_object_get(o, "costs_ms");
    r->log->have_costs = !json_is_null(list);
    if (!r->log->have_costs) goto out;
    SD_TRY(get_list(&list, r, o, "costs_ms", SD_STEP_COSTS, SD_STEP_COSTS, err));
    for (size_t i = 0; i < SD_STEP_COSTS; i++) {
        const json_t *v = json_array_get(list, i);
        double ms = json_number_value(v);
        if (!json_is_number(v) || !(ms > 1e-9) || ms > 1e9)
            return refuse(r, "costs_ms", "a list of times in milliseconds", err);
        r->log->costs.ms[i] = ms;
    }
out:
    return st;
}

static sd_status read_head(reader *r, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_trace_log *l = r->log;
    json_t *list;
    int64_t v = 0;
    const json_t *version = json_object_get(o, "specdec_trace");
    SD_CHECK(json_is_integer(version) && json_integer_value(version) == 1, err, SD_EFORMAT,
             "%s: is not the first line of a trace of this version; record one with bench spec "
             "--trace",
             r->where);
    SD_TRY(get_list(&list, r, o, "drafters", 0, SD_MAX_DRAFTERS, err));
    l->n_drafters = (int)json_array_size(list);
    for (int i = 0; i < l->n_drafters; i++)
        SD_TRY(read_drafter(r, json_array_get(list, (size_t)i), i, err));
    SD_TRY(get_int(&v, r, o, "target_bytes", 0, INT64_MAX, err));
    l->target_bytes = (size_t)v;
    SD_TRY(get_int(&v, r, o, "vocabulary", 1, INT32_MAX, err));
    l->V = (int)v;
    SD_TRY(get_int(&v, r, o, "length", 0, SD_MAX_DRAFT, err));
    l->length = (int)v;
    SD_TRY(get_int(&v, r, o, "slots", 1, MOST_SLOTS, err));
    l->slots = (int)v;
    SD_TRY(read_costs(r, o, err));
out:
    return st;
}

// ---- steps

static sd_status read_proposed(reader *r, sd_traced_request *q, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    json_t *list, *at;
    int total = 0, n = 0;
    SD_TRY(get_list(&list, r, o, "proposed", 0, SD_MAX_DRAFT, err));
    q->n_made = (int)json_array_size(list);
    for (int j = 0; j < q->n_made; j++) {
        at = json_array_get(list, (size_t)j);
        if (!json_is_array(at) || json_array_size(at) > (size_t)r->log->n_drafters)
            return refuse(r, "proposed", "a list of at most one proposal of each drafter", err);
        total += (int)json_array_size(at);
    }
    q->proposed = sd_arena_alloc(&r->log->memory, (size_t)total, sizeof *q->proposed);
    SD_CHECK_ALLOC(q->proposed || total == 0, err);
    for (int j = 0; j < q->n_made; j++) {
        at = json_array_get(list, (size_t)j);
        int64_t last = -1, source, token, bucket;
        for (size_t i = 0; i < json_array_size(at); i++, last = source) {
            const json_t *p = json_array_get(at, i);
            if (json_array_size(p) != 3 ||
                !whole(&source, json_array_get(p, 0), last + 1, r->log->n_drafters - 1) ||
                !whole(&token, json_array_get(p, 1), 0, r->log->V - 1) ||
                !whole(&bucket, json_array_get(p, 2), 0, SD_BUCKETS - 1))
                return refuse(r, "proposed", "made of [drafter, token, bucket]", err);
            q->proposed[n++] =
                (sd_traced_proposal){(int32_t)token, (int16_t)bucket, (int16_t)source, (int16_t)j};
        }
    }
    q->n_proposed = n;
out:
    return st;
}

static sd_status read_request(reader *r, sd_traced_request *q, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    int64_t v = 0;
    size_t n = (size_t)r->log->n_drafters;
    SD_TRY(get_int(&v, r, o, "request", 0, INT64_MAX, err));
    q->id = (uint64_t)v;
    SD_TRY(get_int(&v, r, o, "position", 1, INT32_MAX, err));
    q->position = (int)v;
    SD_TRY(get_int(&v, r, o, "last", 0, r->log->V - 1, err));
    q->last = (int32_t)v;
    SD_TRY(get_int(&v, r, o, "room", INT32_MIN, INT32_MAX, err));
    q->room = (int)v;
    SD_TRY(get_int(&v, r, o, "generated", 0, INT32_MAX, err));
    q->generated = (int)v;
    SD_TRY(get_flags(q->active, r, o, "active", err));
    SD_TRY(get_flags(q->ready, r, o, "ready", err));
    SD_TRY(get_ints(q->missing, r, o, "missing", n, -1, INT32_MAX, err));
    SD_TRY(get_ints(q->lacking, r, o, "lacking", n, -1, INT32_MAX, err));
    SD_TRY(read_proposed(r, q, o, err));
    SD_TRY(get_int(&v, r, o, "taken", 0, SD_MAX_DRAFT, err));
    q->taken = (int)v;
    SD_TRY(get_int(&v, r, o, "accepted", 0, q->taken, err));
    q->accepted = (int)v;
    SD_TRY(get_tokens(&q->emitted, &q->n_emitted, r, o, "emitted", 1, SD_MAX_DRAFT + 1, err));
    SD_CHECK(q->n_emitted <= q->taken + 1, err, SD_EFORMAT,
             "%s: %d tokens were emitted of a draft of %d; record the trace again", r->where,
             q->n_emitted, q->taken);
out:
    return st;
}

static sd_status read_times(reader *r, sd_traced_step *s, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    json_t *list;
    SD_TRY(get_list(&list, r, o, "draft_s", 0, 1 << 16, err));
    s->n_draft_s = (int)json_array_size(list);
    s->draft_s = sd_arena_alloc(&r->log->memory, (size_t)s->n_draft_s, sizeof *s->draft_s);
    SD_CHECK_ALLOC(s->draft_s || s->n_draft_s == 0, err);
    for (int i = 0; i < s->n_draft_s; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        s->draft_s[i] = json_number_value(v);
        if (!json_is_number(v) || !isfinite(s->draft_s[i]))
            return refuse(r, "draft_s", "a list of times in seconds", err);
    }
    SD_TRY(get_seconds(&s->verify_s, r, o, "verify_s", err));
    SD_TRY(get_seconds(&s->seconds, r, o, "seconds", err));
out:
    return st;
}

static sd_status read_round(reader *r, sd_traced_step *s, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    json_t *list;
    int64_t v = 0;
    int rows = 0;
    SD_TRY(get_int(&s->round, r, o, "round", 1, INT64_MAX, err));
    SD_TRY(get_int(&v, r, o, "prompt_rows", 0, INT32_MAX, err));
    s->prompt_rows = (int)v;
    SD_TRY(get_bool(&s->speculating, r, o, "speculating", err));
    SD_TRY(read_times(r, s, o, err));
    SD_TRY(get_list(&list, r, o, "requests", 1, (size_t)r->log->slots, err));
    s->n_requests = (int)json_array_size(list);
    s->request = sd_arena_alloc(&r->log->memory, (size_t)s->n_requests, sizeof *s->request);
    SD_CHECK_ALLOC(s->request, err);
    for (int i = 0; i < s->n_requests; i++) {
        SD_TRY(read_request(r, &s->request[i], json_array_get(list, (size_t)i), err));
        rows += 1 + s->request[i].taken;
    }
    SD_TRY(get_int(&v, r, o, "planned", s->n_requests, r->log->slots, err));
    s->planned = (int)v;
    SD_TRY(get_int(&v, r, o, "rows", rows, rows, err));
    s->rows = (int)v;
out:
    return st;
}

static sd_status read_step(reader *r, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_trace_log *l = r->log;
    int64_t v = 0;
    SD_CHECK_ALLOC(SD_GROW(l->step, l->n_steps + 1, l->cap_steps), err);
    sd_traced_step *s = &l->step[l->n_steps];
    *s = (sd_traced_step){0};
    if (json_object_get(o, "round")) {
        SD_TRY(read_round(r, s, o, err));
    } else {
        SD_TRY(get_int(&v, r, o, "prefill", 1, INT32_MAX, err));
        s->prompt_rows = (int)v;
        SD_TRY(get_seconds(&s->seconds, r, o, "seconds", err));
    }
    l->n_steps++;
out:
    return st;
}

// ---- answers

// The chains of one drafter; `at` counts the proposals of all.
static sd_status read_chains(reader *r, sd_traced_answer *a, const json_t *list, int i, int *at,
                             sd_error *err) {
    size_t want = a->n > 0 ? (size_t)a->n - 1 : 0;
    if (!json_is_array(list) || json_array_size(list) != want)
        return refuse(r, "shadow", "a list of drafts for each drafter and token", err);
    for (size_t k = 0; k < want; k++) {
        const json_t *chain = json_array_get(list, k);
        size_t n = json_array_size(chain), cell = (size_t)i * (size_t)a->n + k + 1;
        int64_t token, bucket;
        if (!json_is_array(chain) || n > SD_MAX_DRAFT)
            return refuse(r, "shadow", "made of drafts of tokens", err);
        a->first[cell] = *at;
        a->length[cell] = (int32_t)n;
        for (size_t j = 0; j < n; j++) {
            const json_t *p = json_array_get(chain, j);
            if (json_array_size(p) != 2 || !whole(&token, json_array_get(p, 0), 0, INT32_MAX) ||
                !whole(&bucket, json_array_get(p, 1), 0, SD_BUCKETS - 1))
                return refuse(r, "shadow", "made of [token, bucket]", err);
            a->chain[(*at)++] =
                (sd_traced_proposal){(int32_t)token, (int16_t)bucket, (int16_t)i, (int16_t)j};
        }
    }
    return SD_OK;
}

static size_t count_proposals(const json_t *shadow) {
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(shadow); i++) {
        const json_t *list = json_array_get(shadow, i);
        for (size_t k = 0; k < json_array_size(list); k++)
            n += json_array_size(json_array_get(list, k));
    }
    return n;
}

static sd_status read_answer(reader *r, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_trace_log *l = r->log;
    size_t drafters = (size_t)l->n_drafters;
    json_t *shadow;
    int64_t v = 0;
    int at = 0;
    SD_CHECK_ALLOC(SD_GROW(l->answer, l->n_answers + 1, l->cap_answers), err);
    sd_traced_answer *a = &l->answer[l->n_answers];
    *a = (sd_traced_answer){0};
    SD_TRY(get_int(&v, r, o, "answer", 0, INT64_MAX, err));
    a->request = (uint64_t)v;
    SD_TRY(get_tokens(&a->token, &a->n, r, o, "tokens", 0, MOST_TOKENS, err));
    SD_TRY(get_list(&shadow, r, o, "shadow", drafters, drafters, err));
    a->first = sd_arena_alloc(&l->memory, drafters * (size_t)a->n, sizeof *a->first);
    a->length = sd_arena_alloc(&l->memory, drafters * (size_t)a->n, sizeof *a->length);
    a->chain = sd_arena_alloc(&l->memory, count_proposals(shadow), sizeof *a->chain);
    SD_CHECK_ALLOC(a->first && a->length && a->chain, err);
    for (int i = 0; i < l->n_drafters; i++)
        SD_TRY(read_chains(r, a, json_array_get(shadow, (size_t)i), i, &at, err));
    l->n_answers++;
out:
    return st;
}

// ---- lines

static sd_status read_line(reader *r, const char *text, size_t len, bool first, sd_error *err) {
    sd_status st = SD_OK;
    json_t *o = NULL;
    json_error_t why;
    SD_CHECK(len <= SD_TRACE_LINE, err, SD_EFORMAT,
             "%s: is longer than %d bytes; record the trace again", r->where, SD_TRACE_LINE);
    SD_TRY(sd_json_load_within(&o, text, len, JSON_REJECT_DUPLICATES, (len + 4096) * JSON_FACTOR,
                               &why, err));
    SD_CHECK(json_is_object(o), err, SD_EFORMAT,
             "%s: is no JSON object: %s; record the trace again", r->where,
             o ? "another value" : why.text);
    if (first)
        st = read_head(r, o, err);
    else if (json_object_get(o, "answer"))
        st = read_answer(r, o, err);
    else
        st = read_step(r, o, err);
out:
    json_decref(o);
    return st;
}

sd_status sd_trace_read(sd_trace_log *out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_trace_log log = {.memory = {.limit = MEMORY}};
    reader r = {.log = &log};
    char *data = NULL;
    size_t len;
    int line = 1;
    *out = (sd_trace_log){0};
    SD_TRY(sd_file_read(&data, &len, path, SD_TRACE_MOST, err));
    SD_CHECK(len > 0, err, SD_EFORMAT, "%s: is empty; record a trace with bench spec --trace",
             path);
    for (char *p = data, *end = data + len; p < end; line++) {
        char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl ? nl : end) - p);
        snprintf(r.where, sizeof r.where, "%.400s: line %d", path, line);
        SD_TRY(read_line(&r, p, n, line == 1, err));
        p += n + 1;
    }
    *out = log;
    log = (sd_trace_log){0};
out:
    free(data);
    sd_trace_log_free(&log);
    return st;
}

void sd_trace_log_free(sd_trace_log *l) {
    free(l->step);
    free(l->answer);
    sd_arena_free(&l->memory);
    *l = (sd_trace_log){0};
}
