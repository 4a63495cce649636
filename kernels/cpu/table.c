// The tables, and the choice of one for this processor: the top of this room, the only file that knows
// them all.
#include "kernels/ops.h"

#include "base/log.h"
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/neon.h"
#include "kernels/cpu/packed.h"

#if defined(__aarch64__)
#include <pthread.h>
#endif

#if defined(__x86_64__)
// What the AVX2 and AVX-512 tables share: all but the name, the matrix product with its rows,
// attention and what it reads best.
#define OPS_OF_AVX2                                                                                \
    .layout = SD_LAYOUT_TILES, .pack_bytes = sd_pack_tiles_bytes, .pack = sd_pack_tiles,           \
    .rmsnorm = sd_rmsnorm_avx2, .rope = sd_rope_avx2, .swiglu = sd_swiglu_avx2,                    \
    .geglu = sd_geglu_avx2, .add = sd_add_avx2, .to_f16 = sd_to_f16_avx2,                          \
    .to_bf16 = sd_to_bf16_avx2, .quantize_i8 = sd_quantize_i8_avx2
static const sd_ops sd_ops_avx2 = {.name = "avx2",
                                   .kv = SD_KV_F16,
                                   .matmul = sd_matmul_avx2,
                                   .matmul_add = sd_matmul_add_avx2,
                                   .quantize_rows = sd_quantize_rows_avx2,
                                   .attention = sd_attention_avx2,
                                   .attention_scratch = sd_attention_scratch_of_block,
                                   OPS_OF_AVX2};
static const sd_ops sd_ops_avx512 = {.name = "avx512",
                                     .kv = SD_KV_F16,
                                     .matmul = sd_matmul_avx512,
                                     .matmul_add = sd_matmul_add_avx512,
                                     .quantize_rows = sd_quantize_rows_avx2,
                                     .attention = sd_attention_avx512,
                                     .attention_scratch = sd_attention_scratch_of_block,
                                     OPS_OF_AVX2};
static const sd_ops sd_ops_amx = {.name = "amx",
                                  .kv = SD_KV_BF16,
                                  .matmul = sd_matmul_amx,
                                  .matmul_add = sd_matmul_add_avx512,
                                  .quantize_rows = sd_quantize_rows_amx,
                                  .attention = sd_attention_amx,
                                  .attention_scratch = sd_attention_scratch_amx,
                                  OPS_OF_AVX2};
#elif defined(__aarch64__)
static sd_ops sd_ops_neon;
static void make_neon(void) {
    sd_ops_over_tiles(&sd_ops_neon, "neon", sd_matmul_neon, sd_matmul_add_neon);
}
static const sd_ops *neon(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_neon);
    return &sd_ops_neon;
}
#endif

const sd_ops *sd_ops_named(const char *name) {
    switch (sd_isa_named(name)) {
    case SD_ISA_PLAIN:
        return &sd_ops_plain;
#if defined(__x86_64__)
    case SD_ISA_AVX2:
        return &sd_ops_avx2;
    case SD_ISA_AVX512:
        return &sd_ops_avx512;
    case SD_ISA_AMX:
        return &sd_ops_amx;
#elif defined(__aarch64__)
    case SD_ISA_NEON:
        return neon();
#endif
    default:
        return NULL;
    }
}

const sd_ops *sd_ops_best(void) {
    const char *forced = sd_isa_forced();
    const sd_ops *o = forced ? sd_ops_named(forced) : NULL;
    if (o) return o;
    // A name that training alone has kernels for leaves this choice free.
    if (forced && sd_isa_named(forced) == SD_ISA_NONE)
        sd_log(SD_LOG_WARN,
               "SPECDEC_ISA=%s is not available here; give plain, avx2, avx512, amx or neon",
               forced);
    static const char *const order[] = {"amx", "avx512", "avx2", "neon"};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        o = sd_ops_named(order[i]);
        if (o) return o;
    }
    return &sd_ops_plain;
}
