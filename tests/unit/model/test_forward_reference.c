// sd_forward in fp32 against a slow forward in double that was written from the configurations: each
// architecture, kind of layer, rotary rule and format, on every table of kernels. Prints what each
// is off by.
#include "base/memory.h"
#include "model/infer/forward.h"
#include "tests/unit/support/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { T = 140 }; // beyond two pages and many windows

static int32_t token_at(int i, int V) {
    return (i * 37 + i * i % 11 + 5) % V;
}

static void fill_tokens(int32_t *token, int V) {
    for (int i = 0; i < T; i++) token[i] = token_at(i, V);
}

static void forward(float *out, sd_model *m, const char *isa, int n, int capacity) {
    sd_context *cx;
    sd_kv *kv;
    sd_error err = {0};
    sd_row row[T];
    sd_context_options o = {.max_rows = T, .compute = SD_COMPUTE_FP32, .isa = isa};
    cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_open(&kv, cx, capacity, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < n; i++)
        row[i] = (sd_row){token_at(i, m->hp.V), i, kv, NULL, true, NULL, NULL};
    cr_assert_eq(sd_forward(cx, row, n, out, &err), SD_OK, "%s", err.message);
    sd_kv_close(kv);
    sd_context_close(cx);
}

static void compare(const float *got, const double *want, const sd_tiny_model *t, int n,
                    const char *what) {
    double worst = 0, largest = 0;
    int at = 0, beyond = -1;
    for (int i = 0; i < n * t->V; i++) largest = fmax(largest, fabs(want[i]));
    double limit = reference_tolerance(t, largest);
    for (int i = 0; i < n * t->V; i++) {
        double off = fabs((double)got[i] - want[i]);
        if (!(off <= limit) && beyond < 0) beyond = i / t->V;
        if (!(off <= worst)) worst = off, at = i / t->V;
    }
    printf("# %s, %d positions: off by %.2g at position %d, limit %.2g, largest logit %.2g\n", what,
           n, worst, at, limit, largest);
    cr_assert(largest > 0.5, "%s: the logits are not worth comparing: %g", what, largest);
    cr_assert(beyond < 0, "%s: off by %g at position %d, the first beyond %g is position %d", what,
              worst, at, limit, beyond);
}

static void check_at(const sd_tiny_model *t, const char *name, int n, int capacity) {
    static const char *const tables[] = {"plain", "avx2", "avx512", "amx", "neon"};
    int32_t token[T];
    double *want = sd_alloc((size_t)n * (size_t)t->V, sizeof *want);
    float *got = sd_alloc((size_t)n * (size_t)t->V, sizeof *got);
    fill_tokens(token, t->V);
    reference_logits(want, t, token, n, capacity);
    for (int gguf = t->query_scalar > 0 ? 0 : 1; gguf >= 0; gguf--) { // GGUF has no key for it
        sd_model *m = sd_tiny_open(t, gguf);
        cr_assert_not_null(m, "%s", name);
        for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
            char what[160];
            if (!sd_ops_named(tables[i])) continue;
            snprintf(what, sizeof what, "%s %s, %s, %s", sd_arch_name(t->arch), name,
                     gguf            ? "GGUF"
                     : t->old_config ? "old folder"
                                     : "folder",
                     tables[i]);
            forward(got, m, tables[i], n, capacity);
            compare(got, want, t, n, what);
        }
        sd_model_release(m);
    }
    free(want);
    free(got);
}

static void check(const sd_tiny_model *t, const char *name) {
    check_at(t, name, T, T);
}

static sd_tiny_model tiny(const char *arch) {
    const sd_arch *a = sd_arch_find(arch);
    cr_assert_not_null(a, "%s", arch);
    return sd_tiny_default(a);
}

Test(forward_reference, every_architecture_computes_what_its_configuration_says, .timeout = 300) {
    for (int i = 0; sd_arch_at(i); i++) {
        sd_tiny_model t = sd_tiny_default(sd_arch_at(i));
        check(&t, "as it is");
        t.L = 1;
        check(&t, "one layer");
        t.L = 2, t.tied = !t.tied, t.seed = 5, t.old_config = true;
        check(&t, "with the other kind of head");
    }
}

Test(forward_reference, rotary_rules_of_models_without_windows, .timeout = 300) {
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    static const char *const names[] = {"unscaled", "linear", "llama3", "yarn"};
    for (size_t a = 0; a < 3; a++)
        for (int scaling = SD_ROPE_NONE; scaling <= SD_ROPE_YARN; scaling++) {
            sd_tiny_model t = tiny(archs[a]);
            t.scaling = (sd_rope_scaling)scaling, t.old_config = scaling % 2;
            check(&t, names[scaling]);
        }
}

// Each kind of layer alone, then both.
Test(forward_reference, layers_of_gemma3, .timeout = 300) {
    sd_tiny_model t = tiny("gemma3");
    t.L = 1, t.pattern = 1;
    check(&t, "a global layer");
    t.scaling = SD_ROPE_LINEAR;
    check(&t, "a global layer, linear scaling");
    t.pattern = 2;
    for (int window = 1; window <= 128; window *= 2) {
        char name[32];
        t.window = window;
        snprintf(name, sizeof name, "a layer with window %d", window);
        check(&t, name);
    }
    t.L = 8, t.pattern = 6, t.window = 16, t.local_base = 10000;
    check(&t, "8 layers, 6th global, keys at their defaults");
    t.old_config = true, t.pattern = 3, t.local_base = 500;
    check(&t, "8 layers, each 3rd global");
    t.query_scalar = 17;
    check(&t, "scores divided by the root of 17");
    t.query_scalar = 0, t.old_config = false, t.L = 2, t.pattern = 2;
    t.D = 256, t.H = 4, t.G = 1;
    check(&t, "heads of 256 over one of keys");
}

Test(forward_reference, rotations_and_windows_of_phi3, .timeout = 300) {
    sd_tiny_model t = tiny("phi3");
    for (int part = 4; part <= t.D; part += 4) {
        char name[32];
        t.rope_dim = part;
        snprintf(name, sizeof name, "%d of %d turn", part, t.D);
        check(&t, name);
    }
    for (int window = 1; window <= 128; window *= 2) {
        char name[32];
        t.window = window;
        snprintf(name, sizeof name, "window %d", window);
        check(&t, name);
    }
}

// The room of the sequence decides, not the row's position: later rows do not change earlier ones.
Test(forward_reference, longrope_takes_its_factors_by_the_room_of_the_sequence, .timeout = 300) {
    static const int rooms[] = {64, 65, 128};
    sd_tiny_model t = tiny("phi3");
    t.longrope = true;
    for (int old = 0; old < 2; old++)
        for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
            for (int part = 12; part <= 16; part += 4) {
                char name[64];
                t.rope_dim = part, t.old_config = old;
                snprintf(name, sizeof name, "LongRoPE, %d of 16, room for %d", part, rooms[i]);
                check_at(&t, name, 20, rooms[i]);
                check_at(&t, name, rooms[i], rooms[i]);
            }
}
