#include "model/infer/weight_cache/cache.h"

#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernels/huge_arena.h"
#include "model/infer/weight_cache/care.h"
#include "model/infer/weight_cache/file.h"
#include "model/infer/weight_cache/identity.h"
#include "model/infer/weight_cache/place.h"
#include "model/infer/weight_cache/row_sums.h"
#include "model/model_private.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void sd_weight_cache_attach(sd_model *m, const char *dir) {
    sd_sha256 known;
    sd_weight_cache_settle(m);
    if (sd_weight_cache_source_sha256(dir, m, &known)) sd_model_know_sha256(m, &known);
}

// ---- is it the model's?

static const char *body_hash(const sd_weight_file *f) {
    const char *hex = json_string_value(json_object_get(f->body, "sha256"));
    return hex && strlen(hex) == 64 ? hex : NULL;
}

static void set_hash(sd_model *m, const char *hex) {
    sd_model_owned *o = m->owned;
    pthread_mutex_lock(&o->lock);
    memcpy(o->sha256.hex, hex, 65);
    o->hashed = true;
    pthread_mutex_unlock(&o->lock);
}

// The files hold the same bytes in another state: with the new label the next start need not hash
// them. A cache that cannot be written stays as it is.
static void relabel(const char *path, const sd_model *m) {
    sd_weight_file f = {.fd = -1};
    json_t *label = sd_weight_label(m);
    bool written = label && sd_weight_file_open(&f, path, O_RDWR, NULL) == SD_OK &&
                   sd_weight_file_relabel(&f, label);
    sd_log(SD_LOG_INFO, "%s: was touched, but holds the same bytes; its packed form is kept%s",
           m->path, written ? "" : " as it is");
    json_decref(label);
    sd_weight_file_close(&f);
}

// SD_OK: the file was made of the bytes that the model was opened with; the model knows its hash now.
static sd_status recognise(const sd_weight_file *f, const char *path, sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    sd_sha256 have;
    const char *hex = body_hash(f);
    SD_CHECK(hex, err, SD_EFORMAT, "%s: is damaged", path);
    if (sd_weight_label_same_state(f->label, m)) {
        set_hash(m, hex);
        goto out;
    }
    SD_CHECK(!f->label || sd_weight_label_same_sizes(f->label, m), err, SD_ENOTFOUND,
             "%s: is of an earlier state of %s", path, m->path);
    SD_TRY(sd_model_sha256(m, &have, err));
    SD_CHECK(strcmp(have.hex, hex) == 0, err, SD_ENOTFOUND, "%s: is of an earlier state of %s",
             path, m->path);
    relabel(path, m);
out:
    return st;
}

bool sd_weight_cache_has(const char *dir, sd_model *m, const sd_ops *ops) {
    sd_weight_file f = {.fd = -1};
    char *path = sd_weight_cache_path(dir, m, ops);
    bool kept = path && sd_weight_file_open(&f, path, O_RDONLY, NULL) == SD_OK &&
                recognise(&f, path, m, NULL) == SD_OK;
    sd_weight_file_close(&f);
    free(path);
    return kept;
}

bool sd_weight_cache_source_sha256(const char *dir, const sd_model *m, sd_sha256 *out) {
    sd_weight_file f = {.fd = -1};
    char *path = sd_weight_cache_path(dir, m, sd_ops_best());
    bool found = path && sd_weight_file_open(&f, path, O_RDONLY, NULL) == SD_OK && body_hash(&f) &&
                 sd_weight_label_same_state(f.label, m);
    if (found) memcpy(out->hex, body_hash(&f), 65);
    sd_weight_file_close(&f);
    free(path);
    return found;
}

bool sd_weight_cache_identity(sd_sha256 *out, const char *dir, const sd_model *m,
                              const sd_ops *ops) {
    sd_weight_file f = {.fd = -1};
    char *path = sd_weight_cache_path(dir, m, ops);
    bool found = path && sd_weight_file_open(&f, path, O_RDONLY, NULL) == SD_OK && body_hash(&f);
    sd_model_owned *o = m->owned;
    pthread_mutex_lock(&o->lock);
    found = found && (o->hashed ? strcmp(o->sha256.hex, body_hash(&f)) == 0
                                : sd_weight_label_same_state(f.label, m));
    pthread_mutex_unlock(&o->lock);
    *out = (sd_sha256){{0}};
    if (found) *out = f.identity;
    sd_weight_file_close(&f);
    free(path);
    return found;
}

// ---- loading

typedef struct {
    const sd_weight_file *f;
    const char **sum;    // [n]
    size_t *at;          // [n] in the file
    sd_packed_weight *p; // [n]
    sd_status *status;   // [n]
    const atomic_bool *stop;
} copy_job;

static void copy_one(void *ctx, int task, int worker) {
    (void)worker;
    copy_job *j = ctx;
    sd_packed_weight *p = &j->p[task];
    p->data = sd_huge_arena_alloc(&p->arena, p->bytes);
    if (!p->data)
        j->status[task] = SD_ENOMEM;
    else if (!sd_weight_file_read(p->data, j->f, j->at[task], p->bytes, j->sum[task], j->stop))
        j->status[task] = SD_EFORMAT;
}

static bool fits(const json_t *row, const sd_weight *w) {
    const char *type = json_string_value(json_object_get(row, "type"));
    return json_integer_value(json_object_get(row, "rows")) == w->rows &&
           json_integer_value(json_object_get(row, "cols")) == w->cols && type &&
           strcmp(type, sd_dtype_name(w->dtype)) == 0;
}

static sd_status load_row_sums(const sd_weight_file *f, const char *path, sd_model *m,
                               sd_error *err) {
    sd_status st = SD_OK;
    const json_t *row = json_object_get(f->body, "row_sums");
    size_t at, bytes, want = (size_t)m->embedding.rows * sizeof(uint64_t);
    uint64_t *sum = NULL;
    if (!sd_model_row_file(m)) goto out;
    SD_CHECK(row && sd_weight_file_place(&at, &bytes, row, f) && bytes == want, err, SD_EFORMAT,
             "%s: has no sums of the embedding's rows", path);
    sum = sd_alloc(bytes, 1);
    SD_CHECK_ALLOC(sum, err);
    SD_CHECK(sd_weight_file_read(sum, f, at, bytes,
                                 json_string_value(json_object_get(row, "xxh128")), NULL),
             err, SD_EFORMAT, "%s: the sums of the embedding's rows are damaged", path);
    SD_TRY(sd_model_keep_row_sums(m, sum, err));
out:
    free(sum);
    return st;
}

// Where each weight lies, held against the model's.
static sd_status plan(copy_job *j, const sd_weight *const *w, int n, const char *path,
                      const sd_ops *ops, sd_compute compute, sd_error *err) {
    sd_status st = SD_OK;
    const json_t *rows = json_object_get(j->f->body, "weights");
    SD_CHECK(json_array_size(rows) == (size_t)n, err, SD_EFORMAT,
             "%s: has %zu weights, the model %d", path, json_array_size(rows), n);
    for (int i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, (size_t)i);
        size_t bytes = 0;
        j->sum[i] = json_string_value(json_object_get(row, "xxh128"));
        SD_CHECK(j->sum[i] && sd_weight_file_place(&j->at[i], &bytes, row, j->f) &&
                     fits(row, w[i]) && bytes == ops->pack_bytes(w[i]),
                 err, SD_EFORMAT, "%s: weight %d is not the model's", path, i);
        j->p[i] = (sd_packed_weight){
            .w = *w[i], .compute = compute, .layout = ops->layout, .bytes = bytes};
    }
out:
    return st;
}

sd_status sd_weight_cache_load(sd_packed_weight *p, const sd_weight *const *w, int n,
                               const sd_weight_cache_user *u, sd_compute compute, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = u->model;
    sd_weight_file f = {.fd = -1};
    copy_job j = {.f = &f, .p = p, .stop = u->stop};
    char *path = sd_weight_cache_path(u->dir, m, u->ops);
    SD_CHECK(path, err, SD_ENOTFOUND, "%s: has no packed form in the cache", m->path);
    SD_TRY(sd_weight_file_open(&f, path, O_RDONLY, err));
    SD_TRY(recognise(&f, path, m, err));
    j.sum = sd_alloc((size_t)n, sizeof *j.sum);
    j.at = sd_alloc((size_t)n, sizeof *j.at);
    j.status = sd_alloc((size_t)n, sizeof *j.status);
    SD_CHECK_ALLOC(j.sum && j.at && j.status, err);
    SD_TRY(plan(&j, w, n, path, u->ops, compute, err));
    sd_pool_run(u->pool, n, copy_one, &j);
    SD_CHECK(!u->stop || !atomic_load(u->stop), err, SD_EINTERRUPTED, "%s: interrupted", m->path);
    for (int i = 0; i < n; i++)
        SD_CHECK(j.status[i] == SD_OK, err, j.status[i], "%s: weight %d %s", path, i,
                 j.status[i] == SD_ENOMEM ? "finds no memory" : "is damaged");
    SD_TRY(load_row_sums(&f, path, m, err));
    futimens(f.fd, NULL); // used now; a cache that cannot be written stays as it is
out:
    if (st != SD_OK)
        for (int i = 0; i < n; i++) sd_packed_weight_free(&p[i]);
    sd_weight_file_close(&f);
    free(j.sum);
    free(j.at);
    free(j.status);
    free(path);
    return st;
}

// ---- saving

typedef struct {
    const sd_weight_part *part; // [parts]
    sd_model *m;
    sd_sha256 source;
    char (*sum)[SD_WEIGHT_SUM_HEX + 1]; // [parts]
    sd_status status;                   // of the source's hash
    atomic_bool no_memory;
    sd_error err;
} hash_job;

static void hash_one(void *ctx, int task, int worker) {
    (void)worker;
    hash_job *j = ctx;
    // The source first: it takes the longest.
    if (task == 0)
        j->status = sd_model_sha256(j->m, &j->source, &j->err);
    else if (!sd_weight_sum(j->sum[task - 1], j->part[task - 1].data, j->part[task - 1].bytes))
        atomic_store(&j->no_memory, true);
}

static size_t after(size_t at, size_t bytes) {
    return at + (bytes + SD_WEIGHT_FILE_ALIGN - 1) / SD_WEIGHT_FILE_ALIGN * SD_WEIGHT_FILE_ALIGN;
}

// The body; NULL when memory is out. Part n, where there is one, is the row sums.
static json_t *describe(const hash_job *j, const sd_packed_weight *p, int n, int parts,
                        const sd_ops *ops) {
    json_t *weights = json_array();
    bool good = weights != NULL;
    size_t at = 0;
    for (int i = 0; good && i < n; i++) {
        json_t *row =
            json_pack("{s:s, s:i, s:i, s:I, s:I, s:s}", "type", sd_dtype_name(p[i].w.dtype), "rows",
                      p[i].w.rows, "cols", p[i].w.cols, "at", (json_int_t)at, "bytes",
                      (json_int_t)p[i].bytes, "xxh128", j->sum[i]);
        good = row && json_array_append_new(weights, row) == 0;
        at = after(at, p[i].bytes);
    }
    json_t *body = good ? json_pack("{s:i, s:s, s:O}", "layout", ops->layout, "sha256",
                                    j->source.hex, "weights", weights)
                        : NULL;
    if (body && parts > n) {
        json_t *row = json_pack("{s:I, s:I, s:s}", "at", (json_int_t)at, "bytes",
                                (json_int_t)j->part[n].bytes, "xxh128", j->sum[n]);
        if (!row || json_object_set_new(body, "row_sums", row) != 0) {
            json_decref(body);
            body = NULL;
        }
    }
    json_decref(weights);
    return body;
}

static sd_status check_room(const sd_weight_part *part, int parts, const sd_model *m,
                            sd_error *err) {
    sd_status st = SD_OK;
    int64_t all = 0, most = sd_weight_cache_bytes();
    for (int i = 0; i < parts; i++) all += (int64_t)part[i].bytes;
    SD_CHECK(all <= most, err, SD_ELIMIT,
             "%s: its packed form of %lld MiB is more than the cache may hold, %lld MiB "
             "(SPECDEC_CACHE_MIB)",
             m->path, (long long)(all >> 20), (long long)(most >> 20));
out:
    return st;
}

sd_status sd_weight_cache_save(const sd_packed_weight *p, int n, const uint64_t *row_sum,
                               const sd_weight_cache_user *u, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = u->model;
    int parts = n + (row_sum != NULL);
    hash_job j = {.m = m};
    json_t *body = NULL, *label = NULL;
    char *path = sd_weight_cache_path(u->dir, m, u->ops);
    sd_weight_part *part = sd_alloc((size_t)parts, sizeof *part);
    j.sum = sd_alloc((size_t)parts, sizeof *j.sum);
    SD_CHECK_ALLOC(path && part && j.sum, err);
    for (int i = 0; i < n; i++) part[i] = (sd_weight_part){p[i].data, p[i].bytes};
    if (row_sum) part[n] = (sd_weight_part){row_sum, (size_t)m->embedding.rows * sizeof *row_sum};
    j.part = part;
    SD_TRY(check_room(part, parts, m, err));
    SD_TRY(sd_mkdirs(u->dir, err));
    SD_TRY(sd_weight_cache_check_dir(u->dir, err));
    sd_pool_run(u->pool, parts + 1, hash_one, &j);
    if (j.status != SD_OK && err) *err = j.err;
    SD_TRY(j.status);
    SD_CHECK(!atomic_load(&j.no_memory), err, SD_ENOMEM, "%s: out of memory", m->path);
    // Nobody wrote to the sources since they were opened, and the paths still lead to them: the label
    // says what was packed and hashed.
    SD_TRY(sd_weight_cache_check_sources(m, err));
    body = describe(&j, p, n, parts, u->ops);
    label = sd_weight_label(m);
    SD_CHECK(body && label, err, SD_ENOMEM, "%s: out of memory", m->path);
    SD_TRY(sd_weight_file_write(path, sd_weight_cache_sources_mode(m), body, label, part, parts,
                                u->stop, err));
    sd_weight_cache_trim(u->dir, sd_weight_cache_bytes(), path);
out:
    json_decref(body);
    json_decref(label);
    free(j.sum);
    free(part);
    free(path);
    return st;
}
