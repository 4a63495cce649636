// The choice of a table, and what all tables share.
#include "kernels/ops.h"

#include "base/log.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

const sd_ops *sd_ops_named(const char *name) {
    if (strcmp(name, "plain") == 0) return &sd_ops_plain;
    return NULL;
}

const sd_ops *sd_ops_best(void) {
    const char *forced = getenv("SPECDEC_ISA");
    if (forced && *forced) {
        const sd_ops *o = sd_ops_named(forced);
        if (o) return o;
        sd_log(SD_LOG_WARN, "SPECDEC_ISA=%s is not available here; give plain, avx2 or avx512",
               forced);
    }
    return &sd_ops_plain;
}

sd_status sd_act_init(sd_act *a, int cap_n, int K, sd_compute compute, sd_error *err) {
    sd_status st = SD_OK;
    size_t blocks = ((size_t)K + SD_QBLOCK - 1) / SD_QBLOCK, all = 0, bytes;
    *a = (sd_act){.compute = compute, .cap_n = cap_n, .K = K};
    if (compute == SD_COMPUTE_FP32) return SD_OK;
    SD_CHECK(sd_mul_size(&all, blocks, (size_t)cap_n) && sd_mul_size(&bytes, all, SD_QBLOCK), err,
             SD_ELIMIT, "activations of %d rows of %d are too large; use fewer rows", cap_n, K);
    a->q = sd_alloc(all, SD_QBLOCK);
    a->scale = sd_alloc(all, sizeof(float));
    a->sum = sd_alloc(all, sizeof(float));
    a->isum = sd_alloc(all, sizeof(int32_t));
    a->isum16 = sd_alloc(all, 2 * sizeof(int32_t));
    SD_CHECK_ALLOC(a->q && a->scale && a->sum && a->isum && a->isum16 ? a : NULL, err);
out:
    if (st != SD_OK) sd_act_free(a);
    return st;
}

void sd_act_free(sd_act *a) {
    free(a->q);
    free(a->scale);
    free(a->sum);
    free(a->isum);
    free(a->isum16);
    *a = (sd_act){0};
}

void sd_packed_free(sd_packed *p) {
    free(p->data);
    *p = (sd_packed){0};
}

size_t sd_attention_scratch(const sd_attention_shape *s, int len) {
    (void)len;
    size_t heads = (size_t)(s->H / s->G);
    // Scores of one key block, the running sums, and per head the running maximum and denominator.
    return heads * ((size_t)SD_KEY_BLOCK + (size_t)s->D + 16) + 64;
}
