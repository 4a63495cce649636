#include "model/pack_cache.h"

#include "base/file.h"
#include "base/memory.h"
#include "kernels/slab.h"
#include "model/model_private.h"
#include "model/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAGIC = 8, HEX = 64, FIXED = 24 + HEX, PAGE = 4096, ALIGN = 64 };
static const char magic[MAGIC + 1] = "SDPACK2\n";
static const int64_t CACHE_BYTES = (int64_t)64 << 30; // all files of the cache together
static const char suffix[] = ".pack", costs_suffix[] = ".costs";

char *sd_pack_cache_dir(void) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && *xdg == '/') return sd_sprintf("%s/specdec/packed", xdg);
    return home && *home ? sd_sprintf("%s/.cache/specdec/packed", home) : NULL;
}

sd_status sd_model_use_pack_cache(sd_model *m, const char *dir, size_t least, sd_error *err) {
    char *copy = sd_strdup(dir);
    if (!copy) return sd_fail(err, SD_ENOMEM, "out of memory");
    free(m->pack_dir);
    m->pack_dir = copy;
    m->pack_least = least;
    return SD_OK;
}

// ---- identity

static int source_count(const sd_model *m) {
    return m->is_gguf ? 1 : sd_safetensors_file_count(m->st);
}
static const char *source_at(const sd_model *m, int i) {
    return m->is_gguf ? m->path : sd_safetensors_file_at(m->st, i);
}

// What a file is now; NULL when it is not there. inode and time in one string each: JSON's numbers
// end at 2^63.
static json_t *identity_of(const char *path) {
    struct stat sb;
    if (stat(path, &sb) != 0) return NULL;
    char inode[32], changed[48];
    snprintf(inode, sizeof inode, "%llu", (unsigned long long)sb.st_ino);
    snprintf(changed, sizeof changed, "%lld.%09ld", (long long)sb.st_mtim.tv_sec,
             sb.st_mtim.tv_nsec);
    return json_pack("{s:s, s:I, s:s, s:s}", "path", path, "size", (json_int_t)sb.st_size, "inode",
                     inode, "changed", changed);
}

static json_t *sources_of(const sd_model *m) {
    json_t *all = json_array();
    for (int i = 0; all && i < source_count(m); i++) {
        char *whole = realpath(source_at(m, i), NULL);
        json_t *one = whole ? identity_of(whole) : NULL;
        free(whole);
        if (!one || json_array_append_new(all, one) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

// The name depends on where the sources are, not on what they are: a changed source replaces its
// file.
char *sd_pack_path(const sd_model *m, const sd_ops *ops) {
    if (!m->pack_dir || !ops->layout) return NULL;
    sd_hasher *h;
    if (sd_hasher_open(&h, NULL) != SD_OK) return NULL;
    for (int i = 0; i < source_count(m); i++) {
        char *whole = realpath(source_at(m, i), NULL);
        const char *path = whole ? whole : source_at(m, i);
        sd_hasher_add(h, path, strlen(path) + 1);
        free(whole);
    }
    sd_hasher_add(h, &ops->layout, sizeof ops->layout);
    sd_sha256 sum = sd_hasher_close(h);
    return sd_sprintf("%s/%.16s%s", m->pack_dir, sum.hex, suffix);
}

char *sd_pack_costs_path(const char *path) {
    return sd_sprintf("%.*s%s", (int)(strlen(path) - (sizeof suffix - 1)), path, costs_suffix);
}

// ---- reading

static uint64_t u64_at(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

// Weights begin on the page after the JSON.
static size_t data_after(size_t json) {
    return (FIXED + json + PAGE - 1) / PAGE * PAGE;
}

// The JSON of a mapped file and where its data begins; NULL when the file is not whole.
static json_t *header_of(const sd_map *f, size_t *data_at) {
    if (f->size < FIXED || memcmp(f->data, magic, MAGIC) != 0) return NULL;
    uint64_t json = u64_at(f->data + 8), all = u64_at(f->data + 16);
    if (all != f->size || json > all - FIXED) return NULL;
    *data_at = data_after((size_t)json);
    if (*data_at > f->size) return NULL;
    // Places and shapes are trusted from here on, so they are checked as a whole.
    sd_sha256 sum;
    if (sd_sha256_of(&sum, f->data + FIXED, (size_t)json, NULL) != SD_OK ||
        memcmp(sum.hex, f->data + 24, HEX) != 0)
        return NULL;
    return json_loadb((const char *)f->data + FIXED, (size_t)json, JSON_REJECT_DUPLICATES, NULL);
}

bool sd_pack_is_mine(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0 && sb.st_uid == geteuid();
}

// Bytes of weight `row` of the JSON; NULL when they are not inside the file.
static const uint8_t *bytes_of(const json_t *row, const sd_map *f, size_t data_at, size_t *bytes) {
    json_int_t at = json_integer_value(json_object_get(row, "at"));
    json_int_t n = json_integer_value(json_object_get(row, "bytes"));
    size_t room = f->size - data_at;
    if (at < 0 || n < 0 || (uint64_t)at > room || (uint64_t)n > room - (uint64_t)at || at % ALIGN)
        return NULL;
    *bytes = (size_t)n;
    return f->data + data_at + at;
}

static bool fits(const json_t *row, const sd_weight *w) {
    return json_integer_value(json_object_get(row, "rows")) == w->rows &&
           json_integer_value(json_object_get(row, "cols")) == w->cols &&
           json_is_string(json_object_get(row, "type")) &&
           strcmp(json_string_value(json_object_get(row, "type")), sd_dtype_name(w->dtype)) == 0;
}

static bool same_sources(const json_t *header, const sd_model *m) {
    json_t *now = sources_of(m);
    bool same = now && json_equal(now, json_object_get(header, "sources"));
    json_decref(now);
    return same;
}

static void set_hash(sd_model *m, const json_t *header) {
    const char *hex = json_string_value(json_object_get(header, "sha256"));
    if (!hex || strlen(hex) != 64) return;
    sd_model_owned *o = sd_owned(m);
    pthread_mutex_lock(&o->lock);
    memcpy(o->sha256.hex, hex, 65);
    o->hashed = true;
    pthread_mutex_unlock(&o->lock);
}

typedef struct {
    const uint8_t **from; // [n]
    sd_packed *p;         // [n]
} copy_job;

static void copy_one(void *ctx, int task, int worker) {
    (void)worker;
    copy_job *j = ctx;
    sd_packed *p = &j->p[task];
    p->data = sd_slab_alloc(&p->slab, p->bytes);
    if (p->data) memcpy(p->data, j->from[task], p->bytes);
}

sd_status sd_pack_load(sd_packed *p, const sd_weight *const *w, int n, sd_model *m,
                       const sd_ops *ops, sd_compute compute, sd_pool *pool, sd_error *err) {
    sd_status st = SD_OK;
    sd_map map = {0};
    size_t data_at = 0;
    json_t *header = NULL;
    copy_job j = {.p = p};
    char *path = sd_pack_path(m, ops);
    SD_CHECK(path && sd_pack_is_mine(path), err, SD_ENOTFOUND,
             "%s: has no packed form in the cache", m->path);
    SD_TRY(sd_map_open(&map, path, err));
    header = header_of(&map, &data_at);
    SD_CHECK(header, err, SD_EFORMAT, "%s: is damaged; it is made again", path);
    SD_CHECK(same_sources(header, m), err, SD_ENOTFOUND, "%s: is of an earlier state of %s", path,
             m->path);
    const json_t *rows = json_object_get(header, "weights");
    SD_CHECK(json_array_size(rows) == (size_t)n, err, SD_EFORMAT,
             "%s: has %zu weights, the model %d; it is made again", path, json_array_size(rows), n);
    j.from = sd_alloc((size_t)n, sizeof *j.from);
    SD_CHECK_ALLOC(j.from, err);
    for (int i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, (size_t)i);
        size_t bytes = 0;
        j.from[i] = bytes_of(row, &map, data_at, &bytes);
        SD_CHECK(j.from[i] && fits(row, w[i]) && bytes == ops->pack_bytes(w[i]), err, SD_EFORMAT,
                 "%s: weight %d is not the model's; it is made again", path, i);
        p[i] = (sd_packed){.w = *w[i], .compute = compute, .layout = ops->layout, .bytes = bytes};
    }
    sd_pool_run(pool, n, copy_one, &j);
    for (int i = 0; i < n; i++) SD_CHECK_ALLOC(p[i].data, err);
    set_hash(m, header);
    utimensat(AT_FDCWD, path, NULL, 0); // used now; a cache that cannot be written stays as it is
out:
    if (st != SD_OK)
        for (int i = 0; i < n; i++) sd_packed_free(&p[i]);
    sd_map_close(&map);
    json_decref(header);
    free(j.from);
    free(path);
    return st;
}

// The header of the file that is kept for the model as it is now, and the file; NULL without one.
static json_t *current_header(sd_map *map, const sd_model *m, const sd_ops *ops) {
    char *path = sd_pack_path(m, ops);
    size_t data_at;
    json_t *header = NULL;
    if (path && sd_pack_is_mine(path) && sd_map_open(map, path, NULL) == SD_OK)
        header = header_of(map, &data_at);
    if (header && !same_sources(header, m)) {
        json_decref(header);
        header = NULL;
    }
    free(path);
    return header;
}

bool sd_pack_source_sha256(const sd_model *m, sd_sha256 *out) {
    sd_map map = {0};
    json_t *header = current_header(&map, m, sd_ops_best());
    const char *hex = json_string_value(json_object_get(header, "sha256"));
    bool found = hex && strlen(hex) == HEX;
    if (found) memcpy(out->hex, hex, HEX + 1);
    json_decref(header);
    sd_map_close(&map);
    return found;
}

bool sd_pack_identity(sd_sha256 *out, const sd_model *m, const sd_ops *ops) {
    sd_map map = {0};
    json_t *header = current_header(&map, m, ops);
    bool found = header != NULL;
    *out = (sd_sha256){{0}};
    if (found) memcpy(out->hex, map.data + 24, HEX);
    json_decref(header);
    sd_map_close(&map);
    return found;
}

// ---- writing

typedef struct {
    const sd_packed *p;
    int n;
    sd_model *m;
    sd_sha256 source, *sum; // sum [n]
    sd_status *status;      // [n + 1]
} hash_job;

static void hash_one(void *ctx, int task, int worker) {
    (void)worker;
    hash_job *j = ctx;
    // The source first: it is the longest.
    j->status[task] = task == 0 ? sd_model_sha256(j->m, &j->source, NULL)
                                : sd_sha256_of(&j->sum[task - 1], j->p[task - 1].data,
                                               j->p[task - 1].bytes, NULL);
}

static json_t *describe(const hash_job *j, const sd_ops *ops) {
    json_t *weights = json_array(), *sources = sources_of(j->m);
    json_int_t at = 0;
    for (int i = 0; i < j->n; i++) {
        const sd_packed *p = &j->p[i];
        json_array_append_new(weights, json_pack("{s:s, s:i, s:i, s:I, s:I, s:s}", "type",
                                                 sd_dtype_name(p->w.dtype), "rows", p->w.rows,
                                                 "cols", p->w.cols, "at", at, "bytes",
                                                 (json_int_t)p->bytes, "sha256", j->sum[i].hex));
        at += (json_int_t)((p->bytes + ALIGN - 1) / ALIGN * ALIGN);
    }
    json_t *header = sources && json_array_size(weights) == (size_t)j->n
                         ? json_pack("{s:i, s:O, s:s, s:O}", "layout", ops->layout, "sources",
                                     sources, "sha256", j->source.hex, "weights", weights)
                         : NULL;
    json_decref(sources);
    json_decref(weights);
    return header;
}

static void put_u64(FILE *f, uint64_t v) {
    for (int i = 0; i < 8; i++) fputc((int)(v >> 8 * i & 255), f);
}
static void put_zeros(FILE *f, size_t n) {
    while (n--) fputc(0, f);
}

static sd_status write_file(const char *path, const json_t *header, const sd_packed *p, int n,
                            sd_error *err) {
    sd_status st = SD_OK;
    sd_replace r = {0};
    sd_sha256 sum;
    char *json = json_dumps(header, JSON_COMPACT);
    SD_CHECK_ALLOC(json, err);
    size_t len = strlen(json), data_at = data_after(len), all = data_at;
    for (int i = 0; i < n; i++) all += (p[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
    SD_TRY(sd_sha256_of(&sum, json, len, err));
    SD_TRY(sd_replace_open(&r, path, err));
    // The whole room first: a full disk is known before a gigabyte is written.
    int full = posix_fallocate(fileno(r.f), 0, (off_t)all);
    SD_CHECK(full == 0 || full == EOPNOTSUPP || full == EINVAL, err, SD_EIO,
             "%s: cannot have %zu MiB: %s", path, all >> 20, strerror(full));
    fwrite(magic, 1, MAGIC, r.f);
    put_u64(r.f, len);
    put_u64(r.f, all);
    fwrite(sum.hex, 1, HEX, r.f);
    fwrite(json, 1, len, r.f);
    put_zeros(r.f, data_at - FIXED - len);
    for (int i = 0; i < n; i++) {
        fwrite(p[i].data, 1, p[i].bytes, r.f);
        put_zeros(r.f, (ALIGN - p[i].bytes % ALIGN) % ALIGN);
    }
    SD_TRY(sd_replace_commit(&r, err));
out:
    sd_replace_abort(&r);
    free(json);
    return st;
}

void sd_pack_trim(const char *dir, int64_t bytes, const char *keep) {
    sd_pack_entry *e = NULL;
    int n = 0;
    int64_t all = 0;
    if (sd_pack_list(&e, &n, dir, NULL) != SD_OK) return;
    for (int i = 0; i < n; i++) {
        all += e[i].bytes;
        if (all > bytes && strcmp(e[i].path, keep) != 0 && sd_pack_remove(e[i].path, NULL) == SD_OK)
            all -= e[i].bytes;
    }
    sd_pack_list_free(e, n);
}

sd_status sd_pack_save(const sd_packed *p, int n, sd_model *m, const sd_ops *ops, sd_pool *pool,
                       sd_error *err) {
    sd_status st = SD_OK;
    hash_job j = {.p = p, .n = n, .m = m};
    json_t *header = NULL;
    char *path = sd_pack_path(m, ops);
    j.sum = sd_alloc((size_t)n, sizeof *j.sum);
    j.status = sd_alloc((size_t)n + 1, sizeof *j.status);
    SD_CHECK_ALLOC(path && j.sum && j.status ? path : NULL, err);
    SD_TRY(sd_mkdirs(m->pack_dir, err));
    sd_pool_run(pool, n + 1, hash_one, &j);
    for (int i = 0; i <= n; i++)
        SD_CHECK(j.status[i] == SD_OK, err, j.status[i], "%s: cannot be hashed", m->path);
    header = describe(&j, ops);
    SD_CHECK(header, err, SD_EIO, "%s: cannot be described; does it still exist?", m->path);
    SD_TRY(write_file(path, header, p, n, err));
    sd_pack_trim(m->pack_dir, CACHE_BYTES, path);
out:
    json_decref(header);
    free(j.sum);
    free(j.status);
    free(path);
    return st;
}

// ---- care

typedef struct {
    const json_t *rows;
    const sd_map *map;
    size_t data_at;
    int damaged; // the first, or INT32_MAX
    pthread_mutex_t lock;
} verify_job;

static void verify_one(void *ctx, int task, int worker) {
    (void)worker;
    verify_job *j = ctx;
    const json_t *row = json_array_get(j->rows, (size_t)task);
    const char *want = json_string_value(json_object_get(row, "sha256"));
    size_t bytes = 0;
    const uint8_t *data = bytes_of(row, j->map, j->data_at, &bytes);
    sd_sha256 sum;
    if (data && want && sd_sha256_of(&sum, data, bytes, NULL) == SD_OK &&
        strcmp(sum.hex, want) == 0)
        return;
    pthread_mutex_lock(&j->lock);
    if (task < j->damaged) j->damaged = task;
    pthread_mutex_unlock(&j->lock);
}

sd_status sd_pack_verify(const char *path, sd_pool *pool, sd_error *err) {
    sd_status st = SD_OK;
    sd_map map = {0};
    verify_job j = {.map = &map, .damaged = INT32_MAX, .lock = PTHREAD_MUTEX_INITIALIZER};
    json_t *header = NULL;
    SD_TRY(sd_map_open(&map, path, err));
    header = header_of(&map, &j.data_at);
    j.rows = json_object_get(header, "weights");
    SD_CHECK(json_array_size(j.rows) > 0, err, SD_EMISMATCH, "%s: is damaged", path);
    sd_pool_run(pool, (int)json_array_size(j.rows), verify_one, &j);
    SD_CHECK(j.damaged == INT32_MAX, err, SD_EMISMATCH, "%s: weight %d is damaged", path,
             j.damaged);
out:
    json_decref(header);
    sd_map_close(&map);
    return st;
}

static bool is_current(const json_t *header, char **source) {
    const json_t *sources = json_object_get(header, "sources"), *one;
    size_t i;
    bool current = json_array_size(sources) > 0;
    const char *first = json_string_value(json_object_get(json_array_get(sources, 0), "path"));
    *source = sd_strdup(first ? first : "");
    json_array_foreach(sources, i, one) {
        const char *path = json_string_value(json_object_get(one, "path"));
        json_t *now = path ? identity_of(path) : NULL;
        current = current && now && json_equal(now, one);
        json_decref(now);
    }
    return current;
}

static bool ends_with(const char *name, const char *end) {
    size_t len = strlen(name), tail = strlen(end);
    return len > tail && strcmp(name + len - tail, end) == 0;
}

// Costs whose packed form has gone.
static bool is_orphan(const char *dir, const char *name) {
    if (!ends_with(name, costs_suffix)) return false;
    char *pack =
        sd_sprintf("%s/%.*s%s", dir, (int)(strlen(name) - (sizeof costs_suffix - 1)), name, suffix);
    sd_path_kind kind;
    bool alone = pack && sd_path_look(&kind, pack, NULL) == SD_OK && kind == SD_PATH_NONE;
    free(pack);
    return alone;
}

static int64_t costs_bytes(const char *path) {
    struct stat sb;
    char *costs = ends_with(path, suffix) ? sd_pack_costs_path(path) : NULL;
    int64_t bytes = costs && stat(costs, &sb) == 0 ? sb.st_size : 0;
    free(costs);
    return bytes;
}

static bool read_entry(sd_pack_entry *e, const char *dir, const char *name) {
    struct stat sb;
    sd_map map = {0};
    size_t data_at;
    *e = (sd_pack_entry){.path = sd_path_join(dir, name)};
    if (!e->path || stat(e->path, &sb) != 0 || !S_ISREG(sb.st_mode)) {
        free(e->path);
        return false;
    }
    e->bytes = sb.st_size + costs_bytes(e->path);
    e->used = sb.st_mtim.tv_sec;
    if (sd_map_open(&map, e->path, NULL) == SD_OK) {
        json_t *header = header_of(&map, &data_at);
        if (header) e->current = is_current(header, &e->source);
        json_decref(header);
    }
    sd_map_close(&map);
    return true;
}

static int last_used_first(const void *a, const void *b) {
    int64_t x = ((const sd_pack_entry *)a)->used, y = ((const sd_pack_entry *)b)->used;
    return (x < y) - (x > y);
}

sd_status sd_pack_list(sd_pack_entry **out, int *n, const char *dir, sd_error *err) {
    sd_status st = SD_OK;
    sd_pack_entry *all = NULL;
    int used = 0, cap = 0;
    *out = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (!d && errno == ENOENT) return SD_OK;
    if (!d) return sd_fail(err, SD_EIO, "%s: cannot be read: %s", dir, strerror(errno));
    for (struct dirent *f; (f = readdir(d));) {
        if (!ends_with(f->d_name, suffix) && !is_orphan(dir, f->d_name)) continue;
        if (used == cap) {
            cap = cap ? 2 * cap : 16;
            sd_pack_entry *more = sd_realloc(all, (size_t)cap, sizeof *all);
            SD_CHECK_ALLOC(more, err);
            all = more;
        }
        if (read_entry(&all[used], dir, f->d_name)) used++;
    }
    if (used) qsort(all, (size_t)used, sizeof *all, last_used_first);
    *out = all;
    *n = used;
    all = NULL;
out:
    if (all) sd_pack_list_free(all, used);
    closedir(d);
    return st;
}

void sd_pack_list_free(sd_pack_entry *e, int n) {
    for (int i = 0; i < n; i++) free(e[i].path), free(e[i].source);
    free(e);
}

sd_status sd_pack_remove(const char *path, sd_error *err) {
    // The costs first: what a stop in between leaves is then still a packed form.
    char *costs = ends_with(path, suffix) ? sd_pack_costs_path(path) : NULL;
    const char *both[] = {costs, path};
    for (int i = 0; i < 2; i++)
        if (both[i] && unlink(both[i]) != 0 && errno != ENOENT) {
            sd_status st =
                sd_fail(err, SD_EIO, "%s: cannot be removed: %s", both[i], strerror(errno));
            free(costs);
            return st;
        }
    free(costs);
    return SD_OK;
}
