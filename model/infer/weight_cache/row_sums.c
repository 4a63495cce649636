#include "model/infer/weight_cache/row_sums.h"

#include "base/memory.h"
#include "model/load/source.h"
#include "model/model_private.h"

#include <string.h>
#include <xxhash.h>

enum { ROWS_A_TASK = 512 };

const sd_map *sd_model_row_file(const sd_model *m) {
    const sd_weight *e = &m->embedding;
    const size_t all = (size_t)e->rows * sd_row_bytes(e->dtype, e->cols);
    return sd_model_map_of(m, e->data, all);
}

uint64_t sd_row_sum(const void *row, size_t bytes) {
    return XXH3_64bits(row, bytes);
}

typedef struct {
    const sd_weight *e;
    uint64_t *sum;
} sum_job;

static void sum_rows(void *ctx, int task, int worker) {
    (void)worker;
    sum_job *j = ctx;
    size_t stride = sd_row_bytes(j->e->dtype, j->e->cols);
    int end = (task + 1) * ROWS_A_TASK < j->e->rows ? (task + 1) * ROWS_A_TASK : j->e->rows;
    for (int r = task * ROWS_A_TASK; r < end; r++)
        j->sum[r] = sd_row_sum((const char *)j->e->data + (size_t)r * stride, stride);
}

// The first of two threads that made them wins; the other's are the same.
static const uint64_t *publish(sd_model *m, uint64_t *sum) {
    sd_model_owned *o = m->owned;
    pthread_mutex_lock(&o->lock);
    if (o->row_sum)
        free(sum);
    else
        o->row_sum = sum;
    sum = o->row_sum;
    pthread_mutex_unlock(&o->lock);
    return sum;
}

sd_status sd_model_row_sums(const uint64_t **out, sd_model *m, sd_pool *pool, sd_error *err) {
    sd_status st = SD_OK;
    sd_model_owned *o = m->owned;
    uint64_t *sum = NULL;
    pthread_mutex_lock(&o->lock);
    *out = o->row_sum;
    pthread_mutex_unlock(&o->lock);
    if (*out) return SD_OK;
    sum = sd_alloc((size_t)m->embedding.rows, sizeof *sum);
    SD_CHECK_ALLOC(sum, err);
    sum_job j = {&m->embedding, sum};
    sd_pool_run(pool, (m->embedding.rows + ROWS_A_TASK - 1) / ROWS_A_TASK, sum_rows, &j);
    SD_TRY(sd_model_check(m, err)); // of the bytes that were opened, not of what they became
    *out = publish(m, sum), sum = NULL;
out:
    free(sum);
    return st;
}

sd_status sd_model_keep_row_sums(sd_model *m, const uint64_t *sum, sd_error *err) {
    uint64_t *own = sd_alloc((size_t)m->embedding.rows, sizeof *own);
    if (!own) return sd_fail(err, SD_ENOMEM, "%s: out of memory", m->path);
    memcpy(own, sum, (size_t)m->embedding.rows * sizeof *own);
    publish(m, own);
    return SD_OK;
}
