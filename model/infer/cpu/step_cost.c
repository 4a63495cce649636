// The costs of steps beside the packed form: timed once, kept in a file, and made anew where that is not whole.
#include "model/infer/step_cost.h"

#include "base/clock.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/log.h"
#include "kernels/cpu/features.h"
#include "model/infer/cpu/private.h"
#include "model/infer/weight_cache/cache.h"
#include "model/infer/weight_cache/file.h"
#include "model/infer/weight_cache/place.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEPTH = 128 };
enum { BY = 160, HEX = 64, MAX_BYTES = 1 << 16, MAX_TABLES = 32 };
static const double MAX_MS = 1e6;

// ---- timing

typedef struct {
    sd_context *cx;
    sd_kv *kv;
    float *logits; // [SD_STEP_COST_MOST, V]
} probe;

static sd_status time_step(double *ms, void *ctx, int n, sd_error *err) {
    const probe *p = ctx;
    sd_row row[SD_STEP_COST_MOST];
    for (int i = 0; i < n; i++)
        row[i] = (sd_row){.token = (i * 7919 + 1) % p->cx->model->hp.V,
                          .pos = DEPTH + i,
                          .kv = p->kv,
                          .want_logits = true};
    double begin = sd_now_s();
    sd_status st = sd_forward(p->cx, row, n, p->logits, err);
    *ms = (sd_now_s() - begin) * 1e3;
    return st;
}

static sd_status measure(sd_step_costs *out, sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    probe p = {.cx = cx};
    SD_TRY(sd_kv_open(&p.kv, cx, DEPTH + SD_STEP_COST_MOST, err));
    sd_cpu_kv_clear(p.kv->pool->memory); // untouched memory is all the same zeros
    p.logits = sd_alloc((size_t)SD_STEP_COST_MOST * (size_t)cx->model->hp.V, sizeof *p.logits);
    SD_CHECK_ALLOC(p.logits, err);
    SD_TRY(sd_step_costs_measure(out, time_step, &p, err));
out:
    free(p.logits);
    sd_kv_close(p.kv);
    return st;
}

// ---- the file

typedef struct {
    char *path;
    sd_sha256 pack;
    char by[BY];
    json_t *tables; // as the file has them; empty where it does not count
} store;

// text [MAX_BYTES + 1] <- the bytes of a small file of the cache; -1 when it is larger or must not be
// used.
static ssize_t read_own(char *text, const char *path) {
    int fd;
    ssize_t used = 0, n = 1;
    if (sd_weight_cache_open_own(&fd, path, O_RDONLY, NULL) != SD_OK) return -1;
    while (used <= MAX_BYTES && n != 0) {
        n = read(fd, text + used, (size_t)(MAX_BYTES + 1 - used));
        if (n < 0 && errno != EINTR) break;
        if (n > 0) used += n;
    }
    close(fd);
    return n < 0 || used > MAX_BYTES ? -1 : used;
}

// The tables of the file when it is whole and belongs to this packed form; NULL otherwise.
static json_t *read_tables(const char *path, const sd_sha256 *pack) {
    sd_sha256 sum;
    json_t *all = NULL, *tables = NULL;
    char *text = sd_malloc_marked(MAX_BYTES + 1);
    ssize_t size = text ? read_own(text, path) : -1;
    if (size <= HEX + 1 || text[HEX] != '\n') goto out;
    const char *json = text + HEX + 1;
    size_t len = (size_t)size - HEX - 1;
    if (sd_sha256_of(&sum, json, len, NULL) != SD_OK || memcmp(sum.hex, text, HEX) != 0) goto out;
    if (sd_json_load(&all, json, len, JSON_REJECT_DUPLICATES, NULL, NULL) != SD_OK) goto out;
    const char *of = json_string_value(json_object_get(all, "pack"));
    tables = json_object_get(all, "tables");
    bool mine = of && strcmp(of, pack->hex) == 0 && json_array_size(tables) <= MAX_TABLES;
    tables = mine && json_is_array(tables) ? json_incref(tables) : NULL;
out:
    json_decref(all);
    free(text);
    return tables;
}

static bool store_open(store *s, const sd_context *cx) {
    *s = (store){0};
    sd_step_costs_by(s->by, sizeof s->by, cx->ops);
    if (!sd_weight_cache_identity(&s->pack, cx->cache_dir, cx->model, cx->ops)) return false;
    char *pack = sd_weight_cache_path(cx->cache_dir, cx->model, cx->ops);
    s->path = pack ? sd_weight_cache_costs_path(pack) : NULL;
    free(pack);
    if (s->path) s->tables = read_tables(s->path, &s->pack);
    if (s->path && !s->tables) s->tables = json_array();
    return s->tables != NULL;
}

static void store_close(store *s) {
    json_decref(s->tables);
    free(s->path);
}

static sd_status store_write(const store *s, sd_error *err) {
    sd_status st = SD_OK;
    sd_sha256 sum;
    char *text = NULL, *json = NULL;
    json_t *all = json_pack("{s:s, s:O}", "pack", s->pack.hex, "tables", s->tables);
    SD_TRY(sd_json_dump(&json, all, JSON_COMPACT, err));
    SD_TRY(sd_sha256_of(&sum, json, strlen(json), err));
    text = sd_sprintf("%s\n%s", sum.hex, json);
    SD_CHECK_ALLOC(text, err);
    SD_TRY(sd_file_write(s->path, text, strlen(text), err));
out:
    json_decref(all);
    free(json);
    free(text);
    return st;
}

// ---- tables

static const char *compute_name(const sd_context *cx) {
    return cx->compute == SD_COMPUTE_FP32 ? "fp32" : "auto";
}

void sd_step_costs_by(char *out, size_t size, const sd_ops *ops) {
    char cpu[BY / 2];
    sd_cpu_name(cpu, sizeof cpu);
    snprintf(out, size, "specdec %s, %s, %s", SPECDEC_VERSION, ops->name, cpu);
}

static bool is_text(const json_t *o, const char *key, const char *want) {
    const char *s = json_string_value(json_object_get(o, key));
    return s && strcmp(s, want) == 0;
}

static bool is_for(const json_t *table, const store *s, const sd_context *cx) {
    return is_text(table, "by", s->by) && is_text(table, "compute", compute_name(cx)) &&
           is_text(table, "kv", sd_kv_name(cx->kv)) &&
           json_integer_value(json_object_get(table, "threads")) == sd_pool_threads(cx->pool);
}

static bool is_cost(double ms) {
    return isfinite(ms) && ms > 0 && ms <= MAX_MS;
}

static bool parse(sd_step_costs *out, const json_t *table) {
    const json_t *ms = json_object_get(table, "ms");
    if (json_array_size(ms) != SD_STEP_COSTS) return false;
    for (int i = 0; i < SD_STEP_COSTS; i++) {
        out->ms[i] = json_number_value(json_array_get(ms, (size_t)i)); // 0 for what is no number
        if (!is_cost(out->ms[i])) return false;
    }
    return true;
}

static bool find(sd_step_costs *out, const store *s, const sd_context *cx) {
    const json_t *table;
    size_t i;
    json_array_foreach(s->tables, i,
                       table) if (is_for(table, s, cx) && parse(out, table)) return true;
    return false;
}

// Replaces the table of the same key, if there is one; the oldest table goes when the file is full.
static sd_status add(store *s, const sd_step_costs *t, const sd_context *cx, sd_error *err) {
    for (size_t i = json_array_size(s->tables); i-- > 0;)
        if (is_for(json_array_get(s->tables, i), s, cx)) json_array_remove(s->tables, i);
    if (json_array_size(s->tables) == MAX_TABLES) json_array_remove(s->tables, 0);
    json_t *ms = json_array();
    for (int i = 0; i < SD_STEP_COSTS; i++) json_array_append_new(ms, json_real(t->ms[i]));
    json_t *table =
        json_pack("{s:s, s:s, s:s, s:i, s:o}", "by", s->by, "compute", compute_name(cx), "kv",
                  sd_kv_name(cx->kv), "threads", sd_pool_threads(cx->pool), "ms", ms);
    if (!table || json_array_append_new(s->tables, table) != 0)
        return sd_fail(err, SD_ENOMEM, "out of memory for the costs of steps");
    return store_write(s, err);
}

static sd_status make(sd_step_costs *out, store *s, sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_check_writable(s->path, err)); // else every start would time them
    sd_log(SD_LOG_INFO, "%s: timing steps of 1 to %d rows for %d threads, once", cx->model->path,
           SD_STEP_COST_MOST, sd_pool_threads(cx->pool));
    SD_TRY(measure(out, cx, err));
    SD_TRY(add(s, out, cx, err));
out:
    return st;
}

bool sd_cpu_step_costs(sd_step_costs *out, sd_context *cx) {
    store s;
    sd_error err;
    bool there = store_open(&s, cx), known = there && find(out, &s, cx);
    if (there && !known && cx->max_rows >= SD_STEP_COST_MOST) {
        known = make(out, &s, cx, &err) == SD_OK;
        if (!known && err.status != SD_EINTERRUPTED)
            sd_log(SD_LOG_WARN, "%s; the costs of steps are learnt anew", err.message);
    }
    store_close(&s);
    return known;
}
