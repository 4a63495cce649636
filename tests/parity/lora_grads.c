// lora_grads MODEL CASE OUT: the loss and the adapter's gradients of one micro-batch, for
// lora_grads.py to hold against PEFT.
//
// CASE: int32 rows, T, rslora, recompute (sd_recompute), rank[7], alpha[7] (by the first matrix of a
// linear map); int32 token, label, segment [rows, T] each; then float32 A [r, in] and B [out, r] of
// each adapted map, in the model's order.
// OUT: double loss, supervised; then the gradients in the order of CASE.
#include "base/files/file.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "trainer/pass/pass.h"

#include <stdio.h>
#include <string.h>

enum { HEADER = 4 + 2 * SD_PROJ_COUNT };

static void exchange(float *flat, float *file, const sd_lora_layout *lay, bool write) {
    for (int i = 0; i < lay->n_linears; i++) {
        const sd_lora_slot *s = &lay->slot[i];
        size_t n[2] = {(size_t)s->r * (size_t)s->in, (size_t)s->r * (size_t)s->out},
               at[2] = {s->a, s->b};
        for (int k = 0; k < 2; k++) {
            memcpy(write ? file : flat + at[k], write ? flat + at[k] : file, n[k] * sizeof(float));
            file += n[k];
        }
    }
}

static sd_status run(char **argv, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = NULL;
    sd_lora_layout lay = {0};
    sd_train *t = NULL;
    sd_pool *pool = NULL;
    char *data = NULL;
    float *theta = NULL, *grad = NULL, *out = NULL;
    int *rank = NULL;
    double *alpha = NULL;
    size_t len;
    int32_t head[HEADER];
    SD_TRY(sd_model_open(&m, argv[1], err));
    SD_TRY(sd_file_read(&data, &len, argv[2], (size_t)1 << 30, err));
    SD_CHECK(len >= sizeof head, err, SD_EFORMAT, "%s is cut off", argv[2]);
    memcpy(head, data, sizeof head);
    int rows = head[0], T = head[1];
    size_t n = (size_t)m->n_linears, places = (size_t)rows * (size_t)T;
    rank = sd_alloc(n, sizeof *rank);
    alpha = sd_alloc(n, sizeof *alpha);
    SD_CHECK_ALLOC(rank, err);
    SD_CHECK_ALLOC(alpha, err);
    for (size_t i = 0; i < n; i++) {
        sd_proj p = m->linear[i].kind->first;
        rank[i] = head[4 + p];
        alpha[i] = head[4 + SD_PROJ_COUNT + p];
    }
    SD_TRY(sd_lora_layout_init(&lay, m, rank, alpha, head[2] != 0, err));
    SD_CHECK(len == sizeof head + 3 * places * 4 + lay.n_params * 4, err, SD_EFORMAT,
             "%s has %zu bytes", argv[2], len);
    theta = sd_alloc(lay.n_params, sizeof *theta);
    grad = sd_alloc(lay.n_params, sizeof *grad);
    out = sd_alloc(lay.n_params + 4, sizeof *out);
    SD_CHECK_ALLOC(theta, err);
    SD_CHECK_ALLOC(grad, err);
    SD_CHECK_ALLOC(out, err);
    const int32_t *batch = (const int32_t *)(const void *)data + HEADER;
    exchange(theta, (float *)(void *)data + HEADER + 3 * places, &lay, false);
    sd_train_batch b = {.rows = rows,
                        .T = T,
                        .token = batch,
                        .label = batch + places,
                        .segment = batch + 2 * places};
    sd_train_options o = {.max_tokens = (int)places,
                          .context = T,
                          .compute = SD_TRAIN_FP32,
                          .recompute = (sd_recompute)head[3]};
    SD_TRY(sd_pool_open(&pool, 2, err));
    SD_TRY(sd_train_open(&t, m, &lay, pool, &o, err));
    sd_train_sum sum = {0};
    SD_TRY(sd_train_accumulate(t, theta, grad, &b, &sum, err));
    double result[2] = {sum.loss, (double)sum.supervised};
    memcpy(out, result, sizeof result);
    exchange(grad, out + 4, &lay, true);
    SD_TRY(sd_file_write(argv[3], out, (lay.n_params + 4) * sizeof *out, err));
out:
    sd_train_close(t);
    sd_pool_close(pool);
    sd_lora_layout_free(&lay);
    sd_model_release(m);
    free(data), free(theta), free(grad), free(out), free(rank), free(alpha);
    return st;
}

int main(int argc, char **argv) {
    sd_error err;
    if (argc != 4) {
        fprintf(stderr, "lora_grads MODEL CASE OUT\n");
        return 2;
    }
    sd_status st = run(argv, &err);
    if (st != SD_OK) fprintf(stderr, "lora_grads: %s\n", err.message);
    return sd_status_exit_code(st);
}
