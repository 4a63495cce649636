#include "model/infer/weight_cache/care.h"

#include "base/files/path.h"
#include "base/list.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/infer/weight_cache/file.h"
#include "model/infer/weight_cache/identity.h"
#include "model/infer/weight_cache/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char suffix[] = ".pack", costs_suffix[] = ".costs";

// ---- checking

typedef struct {
    const json_t *rows;
    const sd_weight_file *f;
    int damaged; // the first, or INT32_MAX
    pthread_mutex_t lock;
} verify_job;

static void verify_one(void *ctx, int task, int worker) {
    (void)worker;
    verify_job *j = ctx;
    const json_t *row = json_array_get(j->rows, (size_t)task);
    size_t at, bytes;
    if (sd_weight_file_place(&at, &bytes, row, j->f) &&
        sd_weight_file_check(j->f, at, bytes, json_string_value(json_object_get(row, "xxh128"))))
        return;
    pthread_mutex_lock(&j->lock);
    if (task < j->damaged) j->damaged = task;
    pthread_mutex_unlock(&j->lock);
}

sd_status sd_weight_cache_verify(const char *path, sd_pool *pool, sd_error *err) {
    sd_status st = SD_OK;
    sd_weight_file f = {.fd = -1};
    verify_job j = {.f = &f, .damaged = INT32_MAX, .lock = PTHREAD_MUTEX_INITIALIZER};
    st = sd_weight_file_open(&f, path, O_RDONLY, err);
    if (st == SD_EFORMAT) st = SD_EMISMATCH;
    if (st != SD_OK) goto out;
    j.rows = json_object_get(f.body, "weights");
    SD_CHECK(json_array_size(j.rows) > 0, err, SD_EMISMATCH, "%s: is damaged", path);
    sd_pool_run(pool, (int)json_array_size(j.rows), verify_one, &j);
    SD_CHECK(j.damaged == INT32_MAX, err, SD_EMISMATCH, "%s: weight %d is damaged", path,
             j.damaged);
    const json_t *sums = json_object_get(f.body, "row_sums");
    size_t at, bytes;
    SD_CHECK(!sums || (sd_weight_file_place(&at, &bytes, sums, &f) &&
                       sd_weight_file_check(&f, at, bytes,
                                            json_string_value(json_object_get(sums, "xxh128")))),
             err, SD_EMISMATCH, "%s: the sums of the embedding's rows are damaged", path);
out:
    sd_weight_file_close(&f);
    return st;
}

// ---- listing

const char *sd_weight_cache_state_word(sd_weight_cache_state s) {
    static const char *const words[] = {[SD_WEIGHT_CACHE_CURRENT] = "current",
                                        [SD_WEIGHT_CACHE_STALE] = "stale",
                                        [SD_WEIGHT_CACHE_OLD] = "old",
                                        [SD_WEIGHT_CACHE_DAMAGED] = "damaged"};
    return words[s];
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
    char *costs = ends_with(path, suffix) ? sd_weight_cache_costs_path(path) : NULL;
    int64_t bytes = costs && stat(costs, &sb) == 0 ? sb.st_size : 0;
    free(costs);
    return bytes;
}

static bool read_entry(sd_weight_cache_entry *e, const char *dir, const char *name) {
    struct stat sb;
    sd_weight_file f = {.fd = -1};
    *e = (sd_weight_cache_entry){.path = sd_path_join(dir, name), .state = SD_WEIGHT_CACHE_DAMAGED};
    if (!e->path || lstat(e->path, &sb) != 0 || !S_ISREG(sb.st_mode)) {
        free(e->path);
        return false;
    }
    e->bytes = sb.st_size + costs_bytes(e->path);
    e->used = sb.st_mtim.tv_sec;
    sd_status st = sd_weight_file_open(&f, e->path, O_RDONLY, NULL);
    if (st == SD_OK)
        e->state = sd_weight_label_is_current(f.label, &e->source) ? SD_WEIGHT_CACHE_CURRENT
                                                                   : SD_WEIGHT_CACHE_STALE;
    else if (st == SD_EINVAL)
        e->state = SD_WEIGHT_CACHE_OLD;
    sd_weight_file_close(&f);
    return true;
}

static int last_used_first(const void *a, const void *b) {
    int64_t x = ((const sd_weight_cache_entry *)a)->used,
            y = ((const sd_weight_cache_entry *)b)->used;
    return (x < y) - (x > y);
}

sd_status sd_weight_cache_list(sd_weight_cache_entry **out, int *n, const char *dir,
                               sd_error *err) {
    sd_status st = SD_OK;
    sd_weight_cache_entry *all = NULL;
    int used = 0, cap = 0;
    *out = NULL;
    *n = 0;
    st = sd_weight_cache_check_dir(dir, err);
    if (st != SD_OK) return st == SD_ENOTFOUND ? SD_OK : st;
    DIR *d = opendir(dir);
    if (!d) return sd_fail(err, SD_EIO, "%s: cannot be read: %s", dir, strerror(errno));
    for (struct dirent *f; errno = 0, (f = readdir(d));) {
        if (!ends_with(f->d_name, suffix) && !is_orphan(dir, f->d_name)) continue;
        SD_CHECK_ALLOC(SD_GROW(all, used + 1, cap), err);
        if (read_entry(&all[used], dir, f->d_name)) used++;
    }
    SD_CHECK(errno == 0, err, SD_EIO, "%s: cannot be read: %s", dir, strerror(errno));
    if (used) qsort(all, (size_t)used, sizeof *all, last_used_first);
    *out = all;
    *n = used;
    all = NULL;
out:
    if (all) sd_weight_cache_list_free(all, used);
    closedir(d);
    return st;
}

void sd_weight_cache_list_free(sd_weight_cache_entry *e, int n) {
    for (int i = 0; i < n; i++) free(e[i].path), free(e[i].source);
    free(e);
}

sd_status sd_weight_cache_remove(const char *path, sd_error *err) {
    // The costs first: what a stop in between leaves is then still a packed form.
    char *costs = ends_with(path, suffix) ? sd_weight_cache_costs_path(path) : NULL;
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

void sd_weight_cache_trim(const char *dir, int64_t bytes, const char *keep) {
    sd_weight_cache_entry *e = NULL;
    int n = 0;
    int64_t all = 0;
    if (sd_weight_cache_list(&e, &n, dir, NULL) != SD_OK) return;
    for (int i = 0; i < n; i++) {
        all += e[i].bytes;
        if (all <= bytes || strcmp(e[i].path, keep) == 0 ||
            sd_weight_cache_remove(e[i].path, NULL) != SD_OK)
            continue;
        all -= e[i].bytes;
        sd_log(SD_LOG_INFO, "%s: removed, the packed form of %s; all may have %lld MiB", e[i].path,
               e[i].source ? e[i].source : "a model that is not known", (long long)(bytes >> 20));
    }
    sd_weight_cache_list_free(e, n);
}
