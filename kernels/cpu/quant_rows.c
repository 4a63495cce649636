// Buffers and shape of the quantised rows that a matmul reads; the tables' quantize_rows fills them.
#include "kernels/ops.h"

#include "base/memory.h"

sd_status sd_quant_rows_init(sd_quant_rows *a, int cap_n, int K, sd_compute compute,
                             sd_error *err) {
    sd_status st = SD_OK;
    size_t blocks = ((size_t)K + SD_QPAIR - 1) / SD_QPAIR * 2, all = 0, bytes;
    *a = (sd_quant_rows){.compute = compute};
    sd_quant_rows_shape(a, cap_n, K, SD_QBLOCK);
    if (compute == SD_COMPUTE_FP32) return SD_OK;
    SD_CHECK(sd_mul_size(&all, blocks, (size_t)a->ld) && sd_mul_size(&bytes, all, 2 * SD_QBLOCK),
             err, SD_ELIMIT, "activations of %d rows of %d are too large; use fewer rows", cap_n,
             K);
    a->q = sd_alloc(all + 2 * SD_QUANT_ROWS_SPARE, SD_QBLOCK);
    a->scale = sd_alloc(all, sizeof(float));
    a->sum = sd_alloc(all, sizeof(float));
    a->isum = sd_alloc(all, sizeof *a->isum);
    a->isum16 = sd_alloc(all, 2 * sizeof *a->isum16);
    a->bsum = sd_alloc(all / 8 + a->ld + SD_QUANT_ROWS_SPARE, 16 * sizeof *a->bsum);
    SD_CHECK_ALLOC(a->q && a->scale && a->sum && a->isum && a->isum16 && a->bsum, err);
out:
    if (st != SD_OK) sd_quant_rows_free(a);
    return st;
}

int sd_quant_rows_group(sd_dtype t) {
    return sd_dtype_block(t) == SD_QSUPER ? SD_QSUPER : SD_QBLOCK;
}

void sd_quant_rows_shape(sd_quant_rows *a, int N, int K, int group) {
    a->K = K;
    a->group = group;
    a->ld = N | 1; // odd: a power of two would put the blocks of a row into one set of the cache
}

void sd_quant_rows_free(sd_quant_rows *a) {
    free(a->q);
    free(a->scale);
    free(a->sum);
    free(a->isum);
    free(a->isum16);
    free(a->bsum);
    *a = (sd_quant_rows){0};
}
