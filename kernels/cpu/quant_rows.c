// Buffers and shape of the quantised rows that a matmul reads; the tables' quantize_rows fills them.
#include "kernels/ops.h"

#include "base/memory.h"

// The buffers of a pair of blocks and their sums, in bytes.
typedef struct {
    size_t q, scale, sum, isum, isum16, bsum;
} buffers;

static bool count_buffers(buffers *b, int ld, int K) {
    size_t blocks = ((size_t)K + SD_QPAIR - 1) / SD_QPAIR * 2, all, bytes;
    if (!sd_mul_size(&all, blocks, (size_t)ld) || !sd_mul_size(&bytes, all, 4 * SD_QBLOCK))
        return false;
    *b = (buffers){.q = (all + 2 * SD_QUANT_ROWS_SPARE) * SD_QBLOCK,
                   .scale = all * sizeof(float),
                   .sum = all * sizeof(float),
                   .isum = all * sizeof(int16_t),
                   .isum16 = all * 2 * sizeof(int16_t),
                   .bsum = (all / 8 + (size_t)ld + SD_QUANT_ROWS_SPARE) * 16 * sizeof(uint32_t)};
    return true;
}

size_t sd_quant_rows_bytes(int cap_n, int K, sd_compute compute) {
    sd_quant_rows a;
    buffers b = {0};
    sd_quant_rows_shape(&a, cap_n, K, SD_QBLOCK);
    if (compute == SD_COMPUTE_FP32) return 0;
    if (!count_buffers(&b, a.ld, K)) return SIZE_MAX;
    return b.q + b.scale + b.sum + b.isum + b.isum16 + b.bsum;
}

sd_status sd_quant_rows_init(sd_quant_rows *a, int cap_n, int K, sd_compute compute,
                             sd_error *err) {
    sd_status st = SD_OK;
    buffers b;
    *a = (sd_quant_rows){.compute = compute};
    sd_quant_rows_shape(a, cap_n, K, SD_QBLOCK);
    if (compute == SD_COMPUTE_FP32) return SD_OK;
    SD_CHECK(count_buffers(&b, a->ld, K), err, SD_ELIMIT,
             "activations of %d rows of %d are too large; use fewer rows", cap_n, K);
    a->q = sd_alloc(b.q, 1);
    a->scale = sd_alloc(b.scale, 1);
    a->sum = sd_alloc(b.sum, 1);
    a->isum = sd_alloc(b.isum, 1);
    a->isum16 = sd_alloc(b.isum16, 1);
    a->bsum = sd_alloc(b.bsum, 1);
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
