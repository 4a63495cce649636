// The forward of every architecture on the emulated device: its numbers against the CPU's and against double precision.
#include "tests/cuda/model/check.h"

#include "base/memory.h"
#include "tests/unit/support/reference.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// Two pages, windows that end within one, and a last step of few rows.
enum { T = 72, CTX = 80, FEW = 3 };

static float *logits_of(const sd_backend *b, sd_model *m, sd_compute compute, sd_kv_type kv_type,
                        const sd_adapter *a, int ctx) {
    const size_t V = (size_t)m->hp.V;
    sd_context *cx = open_typed(b, m, compute, kv_type, T, 0);
    sd_kv *kv = open_kv(cx, ctx);
    float *logits = sd_alloc(T * V, sizeof *logits);
    check(logits, "out of memory");
    run_rows(logits, cx, kv, 0, 0, T - FEW, a);
    run_rows(logits + (T - FEW) * V, cx, kv, 0, T - FEW, FEW, a);
    sd_kv_close(kv);
    sd_context_close(cx);
    return logits;
}

static float *logits_on(const sd_backend *b, sd_model *m, sd_compute compute, const sd_adapter *a,
                        int ctx) {
    return logits_of(b, m, compute, SD_KV_AUTO, a, ctx);
}

static void compare_fp32(const sd_tiny_model *t, const char *what, uint64_t adapter, int ctx) {
    sd_model *m = open_tiny(t);
    sd_adapter *a = adapter ? random_adapter(m, 5, adapter) : NULL;
    float *want = logits_on(&sd_backend_cpu, m, SD_COMPUTE_FP32, a, ctx),
          *got = logits_on(&sd_backend_cuda, m, SD_COMPUTE_FP32, a, ctx);
    const double off = distance(got, want, (size_t)T * (size_t)m->hp.V);
    check(off <= 1e-5, "%s, %s: off by %.3g", sd_arch_name(t->arch), what, off);
    free(want), free(got);
    sd_adapter_release(a);
    sd_model_release(m);
}

TEST("logits of each architecture are the CPU's in fp32, within 1e-5 of their norm") {
    for (int i = 0; sd_arch_at(i); i++) {
        const sd_tiny_model t = sd_tiny_default(sd_arch_at(i));
        compare_fp32(&t, "as it is", 0, CTX);
    }
}
TEST("and so they are with an adapter on every map, and on some") {
    for (int i = 0; sd_arch_at(i); i++) {
        const sd_tiny_model t = sd_tiny_default(sd_arch_at(i));
        compare_fp32(&t, "all maps", 2, CTX);
        compare_fp32(&t, "some maps", 3, CTX);
    }
}
TEST("and with every form of weights") {
    static const sd_dtype types[] = {SD_F16,  SD_BF16, SD_Q4_0, SD_Q4_1,
                                     SD_Q5_0, SD_Q5_1, SD_Q8_0, SD_IQ4_NL};
    static const sd_dtype k_types[] = {SD_Q4_K, SD_Q5_K, SD_Q6_K};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    t.L = 1;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        t.dtype = types[i];
        compare_fp32(&t, sd_dtype_name(types[i]), 0, CTX);
    }
    t.C = t.F = 256, t.D = 64;
    for (size_t i = 0; i < sizeof k_types / sizeof *k_types; i++) {
        t.dtype = k_types[i];
        compare_fp32(&t, sd_dtype_name(k_types[i]), 0, CTX);
    }
}
TEST("and with every scaling of positions, and layers with windows") {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    static const sd_rope_scaling scalings[] = {SD_ROPE_LINEAR, SD_ROPE_LLAMA3, SD_ROPE_YARN};
    t.rope_orig_ctx = 32;
    for (size_t i = 0; i < 3; i++) {
        t.scaling = scalings[i];
        compare_fp32(&t, "scaled", 0, CTX);
    }
    t = sd_tiny_default(&sd_arch_phi3);
    t.window = 20;
    compare_fp32(&t, "a window", 0, CTX);
    t.longrope = true;
    t.rope_orig_ctx = 96;
    compare_fp32(&t, "LongRoPE within the original context", 0, CTX);
    compare_fp32(&t, "LongRoPE beyond it", 0, 128);
}

// A code that lies within an error of fp32 (1e-6 of a head's largest value: 1e-4 of a code) from a tie may be another one here: 2e-4 of
// all, each off by one. All codes are off by 0.29 in the mean of squares already, so the logits are off by
// sqrt(2e-4) / 0.29 = 1/20 of what quantisation did to them; half as much again is allowed.
TEST("with int8 keys and values they are the CPU's, but for codes that lie on an edge") {
    for (int i = 0; sd_arch_at(i); i++) {
        const sd_tiny_model t = sd_tiny_default(sd_arch_at(i));
        sd_model *m = open_tiny(&t);
        const size_t n = (size_t)T * (size_t)t.V;
        // Channels of unlike size in one layer alone: levelled by another layer's scales they would be poor codes.
        float loud[64] = {0};
        for (int k = 0; k < t.G * t.D && k < 64; k += 5) loud[k] = 30;
        if (t.arch->qkv_bias) m->layer[1].bias[SD_WK] = loud;
        float *exact = logits_on(&sd_backend_cpu, m, SD_COMPUTE_FP32, NULL, CTX),
              *want = logits_of(&sd_backend_cpu, m, SD_COMPUTE_FP32, SD_KV_INT8, NULL, CTX),
              *got = logits_of(&sd_backend_cuda, m, SD_COMPUTE_FP32, SD_KV_INT8, NULL, CTX);
        const double lost = distance(want, exact, n), off = distance(got, want, n);
        check(lost > 1e-4 && lost < 0.05, "%s: codes cost %.3g", sd_arch_name(t.arch), lost);
        check(off <= 0.075 * lost, "%s: off by %.3g where codes cost %.3g", sd_arch_name(t.arch),
              off, lost);
        free(exact), free(want), free(got);
        sd_model_release(m);
    }
}

// ---- bf16

static double to_bf16(double x) {
    return (double)sd_bf16_to_float(sd_float_to_bf16((float)x));
}

TEST("in bf16 the error is at most twice that of a naive forward of the same precision") {
    for (int i = 0; sd_arch_at(i); i++) {
        const sd_tiny_model t = sd_tiny_default(sd_arch_at(i));
        const size_t n = (size_t)T * (size_t)t.V;
        int32_t token[T];
        double *exact = sd_alloc(n, sizeof *exact), *naive = sd_alloc(n, sizeof *naive);
        float *rounded = sd_alloc(n, sizeof *rounded);
        check(exact && naive && rounded, "out of memory");
        for (int k = 0; k < T; k++) token[k] = token_at(0, k, t.V);
        reference_logits(exact, &t, token, T, CTX);
        reference_rounded_logits(naive, &t, token, T, CTX, to_bf16);
        for (size_t k = 0; k < n; k++) rounded[k] = (float)naive[k];
        sd_model *m = open_tiny(&t);
        float *got = logits_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, NULL, CTX);
        const double off = distance_to(got, exact, n), allowed = distance_to(rounded, exact, n);
        check(allowed > 1e-4 && allowed < 0.1, "a naive forward is off by %.3g", allowed);
        check(off <= 2 * allowed, "%s: off by %.3g, a naive forward by %.3g", sd_arch_name(t.arch),
              off, allowed);
        free(exact), free(naive), free(rounded), free(got);
        sd_model_release(m);
    }
}
