// Each limit is the best of short rounds (half a millisecond, less than a time slice): the rate the
// machine has when the neighbours leave it alone, which is what a kernel at its best is measured
// against. Reading goes piece by piece through a buffer that no cache holds, on huge pages as the
// packed weights are.
#include "kernels/roofline/roofline.h"

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/huge_arena.h"
#include "kernels/roofline/roofline_isa.h"
#include "kernels/train/gemm_packed.h"

#include <string.h>

enum { READ_BYTES = 256 << 20, PIECE = 4 << 20, PASSES = 2, ROUNDS = 9, LOOPS = 400000 };

typedef struct {
    double (*loop)(int64_t);
    int64_t (*read)(const void *, size_t);
    const uint8_t *data;
    size_t part; // bytes of a task
    double ops[SD_MAX_THREADS];
    volatile int64_t sink;
} job;

static double fma_plain(int64_t rounds) {
    float s[32] = {0};
    for (int64_t k = 0; k < rounds; k++)
        for (int i = 0; i < 32; i++) s[i] += s[i] * 1e-9f + 0.5f;
    volatile float sink = s[0];
    (void)sink;
    return (double)rounds * 64;
}

static int64_t read_plain(const void *data, size_t bytes) {
    const uint64_t *p = data;
    uint64_t s[4] = {0};
    for (size_t i = 0; i + 4 <= bytes / 8; i += 4)
        for (int k = 0; k < 4; k++) s[k] |= p[i + k];
    return (int64_t)(s[0] | s[1] | s[2] | s[3]);
}

static void loop_task(void *ctx, int task, int worker) {
    (void)worker;
    job *j = ctx;
    j->ops[task] = j->loop(LOOPS);
}

static double loop_rate(job *j, double (*loop)(int64_t), sd_pool *pool) {
    int threads = sd_pool_threads(pool);
    double best = 0;
    j->loop = loop;
    for (int r = 0; r < ROUNDS; r++) {
        double t = sd_now_s(), ops = 0;
        sd_pool_run(pool, threads, loop_task, j);
        t = sd_now_s() - t;
        for (int i = 0; i < threads; i++) ops += j->ops[i];
        if (ops / t > best) best = ops / t;
    }
    return best * 1e-9;
}

static void read_task(void *ctx, int task, int worker) {
    (void)worker;
    job *j = ctx;
    j->sink = j->read(j->data + (size_t)task * j->part, j->part);
}

sd_status sd_roofline_measure(sd_roofline *out, const char *isa, sd_pool *pool, sd_error *err) {
    sd_status st = SD_OK;
    job *j = sd_alloc(1, sizeof *j);
    sd_huge_arena *arena = NULL;
    uint8_t *data = sd_huge_arena_alloc(&arena, READ_BYTES);
    SD_CHECK_ALLOC(j && data, err);
    memset(data, 1, READ_BYTES); // or every page would be the one page of zeros
    j->read = read_plain;
    double (*fma)(int64_t) = fma_plain, (*int8)(int64_t) = fma_plain, (*bf16)(int64_t) = NULL;
#if defined(__x86_64__)
    // int8 is that of the vector units with AMX too: they scale what the matrix unit sums.
    bool wide = strcmp(isa, "avx512") == 0 || strcmp(isa, "amx") == 0;
    if (wide || strcmp(isa, "avx2") == 0) {
        j->read = sd_read_avx2;
        fma = wide ? sd_fma_loop_avx512 : sd_fma_loop_avx2;
        int8 = wide ? sd_int8_loop_avx512 : sd_int8_loop_avx2;
    }
    const sd_gemm_packed *p = sd_gemm_packed_best(true);
    if (p) bf16 = strcmp(p->name, "amx-bf16") == 0 ? sd_bf16_loop_amx : sd_bf16_loop_avx512;
#else
    (void)isa;
#endif
    int tasks = sd_pool_threads(pool) * 4;
    j->part = (size_t)PIECE / 4;
    *out = (sd_roofline){0};
    size_t step = j->part * (size_t)tasks;
    for (int r = 0; r < PASSES; r++)
        for (size_t at = 0; at + step <= READ_BYTES; at += step) {
            j->data = data + at;
            double t = sd_now_s();
            sd_pool_run(pool, tasks, read_task, j);
            double gb = (double)step / (sd_now_s() - t) * 1e-9;
            if (gb > out->read_gb) out->read_gb = gb;
        }
    out->fma_g = loop_rate(j, fma, pool);
    out->int8_g = loop_rate(j, int8, pool);
    if (bf16) out->bf16_g = loop_rate(j, bf16, pool);
out:
    free(j);
    sd_huge_arena_release(arena);
    return st;
}
