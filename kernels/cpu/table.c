// The choice of a table, and what all tables share.
#include "kernels/ops.h"

#include "base/log.h"
#include "base/memory.h"
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/features.h"
#include "kernels/cpu/neon.h"
#include "kernels/cpu/packed.h"
#include "kernels/huge_arena.h"
#include "kernels/train/gemm_packed.h"

#if defined(__aarch64__)
#include <pthread.h>
#include <sys/auxv.h>
#endif
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
static const sd_ops sd_ops_avx512 = {.name = "avx512",
                                     .kv = SD_KV_F16,
                                     .matmul = sd_matmul_avx512,
                                     .matmul_add = sd_matmul_add_avx512,
                                     .act_rows = sd_act_rows_avx2,
                                     .attention = sd_attention_avx512,
                                     .attention_scratch = sd_attention_scratch_of_block,
                                     SD_OPS_OF_AVX2};
static const sd_ops sd_ops_amx = {.name = "amx",
                                  .kv = SD_KV_BF16,
                                  .matmul = sd_matmul_amx,
                                  .matmul_add = sd_matmul_add_avx512,
                                  .act_rows = sd_act_rows_amx,
                                  .attention = sd_attention_amx,
                                  .attention_scratch = sd_attention_scratch_amx,
                                  SD_OPS_OF_AVX2};
#elif defined(__aarch64__)
enum { HAS_DOT_PRODUCT = 1 << 20 }; // HWCAP_ASIMDDP

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
    if (strcmp(name, "plain") == 0) return &sd_ops_plain;
#if defined(__x86_64__)
    if (strcmp(name, "avx2") == 0 && sd_cpu_has_avx2()) return &sd_ops_avx2;
    if (strcmp(name, "avx512") == 0 && sd_cpu_has_avx512()) return &sd_ops_avx512;
    if (strcmp(name, "amx") == 0 && sd_cpu_has_amx()) return &sd_ops_amx;
#elif defined(__aarch64__)
    if (strcmp(name, "neon") == 0 && getauxval(AT_HWCAP) & HAS_DOT_PRODUCT) return neon();
#endif
    return NULL;
}

const sd_ops *sd_ops_best(void) {
    const char *forced = getenv("SPECDEC_ISA");
    if (forced && *forced) {
        const sd_ops *o = sd_ops_named(forced);
        if (o) return o;
        if (!sd_panels_named(forced)) // a kernel of training: this choice is free
            sd_log(SD_LOG_WARN,
                   "SPECDEC_ISA=%s is not available here; give plain, avx2, avx512, amx or neon",
                   forced);
    }
    static const char *const order[] = {"amx", "avx512", "avx2", "neon"};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        const sd_ops *o = sd_ops_named(order[i]);
        if (o) return o;
    }
    return &sd_ops_plain;
}

sd_status sd_act_init(sd_act *a, int cap_n, int K, sd_compute compute, sd_error *err) {
    sd_status st = SD_OK;
    size_t blocks = ((size_t)K + SD_QPAIR - 1) / SD_QPAIR * 2, all = 0, bytes;
    *a = (sd_act){.compute = compute};
    sd_act_shape(a, cap_n, K, SD_QBLOCK);
    if (compute == SD_COMPUTE_FP32) return SD_OK;
    SD_CHECK(sd_mul_size(&all, blocks, (size_t)a->ld) && sd_mul_size(&bytes, all, 2 * SD_QBLOCK),
             err, SD_ELIMIT, "activations of %d rows of %d are too large; use fewer rows", cap_n,
             K);
    a->q = sd_alloc(all + 2 * SD_ACT_SPARE, SD_QBLOCK);
    a->scale = sd_alloc(all, sizeof(float));
    a->sum = sd_alloc(all, sizeof(float));
    a->isum = sd_alloc(all, sizeof *a->isum);
    a->isum16 = sd_alloc(all, 2 * sizeof *a->isum16);
    a->bsum = sd_alloc(all / 8 + a->ld + SD_ACT_SPARE, 16 * sizeof *a->bsum);
    SD_CHECK_ALLOC(a->q && a->scale && a->sum && a->isum && a->isum16 && a->bsum ? a : NULL, err);
out:
    if (st != SD_OK) sd_act_free(a);
    return st;
}

int sd_act_group(sd_dtype t) {
    return sd_dtype_block(t) == SD_QSUPER ? SD_QSUPER : SD_QBLOCK;
}

void sd_act_shape(sd_act *a, int N, int K, int group) {
    a->K = K;
    a->group = group;
    a->ld = N | 1; // odd: a power of two would put the blocks of a row into one set of the cache
}

void sd_act_free(sd_act *a) {
    free(a->q);
    free(a->scale);
    free(a->sum);
    free(a->isum);
    free(a->isum16);
    free(a->bsum);
    *a = (sd_act){0};
}

void sd_packed_free(sd_packed *p) {
    sd_slab_release(p->slab);
    *p = (sd_packed){0};
}

const char *sd_kv_name(sd_kv_type t) {
    static const char *const names[SD_KV_TYPES] = {"auto", "f16", "bf16", "int8", "f32"};
    return names[t];
}

size_t sd_attention_scratch_of_block(const sd_attention_shape *s, int N) {
    return (size_t)N * (size_t)(s->H / s->G) * (SD_KEY_BLOCK + 1);
}

size_t sd_attention_part(const sd_attention_shape *s) {
    return ((size_t)s->D + 2 + 7) / 8 * 8;
}

int sd_attention_spans(int len) {
    return (len + SD_KEY_SPAN - 1) / SD_KEY_SPAN;
}

void sd_attention_merge(float *total, const float *part, int D) {
    float top = total[D + 1] > part[D + 1] ? total[D + 1] : part[D + 1];
    float a = expf(total[D + 1] - top), b = expf(part[D + 1] - top);
    for (int i = 0; i <= D; i++) total[i] = total[i] * a + part[i] * b; // [D]: the weights' sum
    total[D + 1] = top;
}

void sd_attention_finish(float *out, const float *total, int D) {
    float r = 1.0f / total[D];
    for (int i = 0; i < D; i++) out[i] = total[i] * r;
}
