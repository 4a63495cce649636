// What every table's attention shares: a head's partial results, their merge, and the names of the
// types that keys and values are kept in.
#include "kernels/cpu/cpu.h"

#include <math.h>

const char *sd_kv_name(sd_kv_type t) {
    static const char *const names[SD_KV_TYPES] = {"auto", "f16", "bf16", "int8", "f32"};
    return names[t];
}

size_t sd_attention_scratch_of_block(const sd_attention_shape *s, int N) {
    return (size_t)N * (size_t)(s->H / s->G) * (SD_KEY_BLOCK + 1);
}

size_t sd_attention_partial(const sd_attention_shape *s) {
    return ((size_t)s->D + 2 + 7) / 8 * 8;
}

int sd_attention_splits(int len) {
    return (len + SD_KV_SPLIT - 1) / SD_KV_SPLIT;
}

void sd_attention_merge(float *total, const float *partial, int D) {
    float top = total[D + 1] > partial[D + 1] ? total[D + 1] : partial[D + 1];
    float a = expf(total[D + 1] - top), b = expf(partial[D + 1] - top);
    for (int i = 0; i <= D; i++) total[i] = total[i] * a + partial[i] * b; // [D]: the weights' sum
    total[D + 1] = top;
}

void sd_attention_finish(float *out, const float *total, int D) {
    float r = 1.0f / total[D];
    for (int i = 0; i < D; i++) out[i] = total[i] * r;
}
