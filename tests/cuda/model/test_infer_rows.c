// A row's bits on the emulated device are its own: of chunks, neighbours, adapters beside it, the order of rows and
// pages, and what the others want, none changes them. And tokens that are picked there are the host's.
#include "tests/cuda/model/check.h"

#include "base/memory.h"
#include "model/infer/cuda/private.h"
#include "tests/unit/support/sanitized.h"

#include <math.h>
#include <string.h>

enum { T = 70, CTX = 80, V = 288, ROWS = 3 * T };

// The fp32 instance is the same code as the bf16 one: two architectures tell as much of it as all do.
static bool runs(const sd_arch *a, sd_compute compute) {
    return compute == SD_COMPUTE_AUTO
               ? !SD_SANITIZED || a != &sd_arch_qwen3
               : a == &sd_arch_llama || (a == &sd_arch_gemma3 && !SD_SANITIZED);
}
static const sd_compute computes[] = {SD_COMPUTE_AUTO, SD_COMPUTE_FP32};
// Codes: where keys have a bias or a norm, and windows.
static bool runs_codes(const sd_arch *a) {
    return a == &sd_arch_qwen2 || (a == &sd_arch_gemma3 && !SD_SANITIZED);
}

typedef struct {
    sd_kv *kv;
    float *logits; // [T, V]
} sequence;

static sequence open_sequence(const sd_context *cx) {
    sequence s = {open_kv(cx, CTX), sd_alloc((size_t)T * V, sizeof(float))};
    check(s.logits, "out of memory");
    return s;
}
static void close_sequence(sequence *s) {
    sd_kv_close(s->kv);
    free(s->logits);
}
static void in_chunks(sequence *s, sd_context *cx, int id, const sd_adapter *a, int chunk) {
    for (int t = 0; t < T; t += chunk)
        run_rows(s->logits + (size_t)t * V, cx, s->kv, id, t, T - t < chunk ? T - t : chunk, a);
}
static void same(const sequence *got, const sequence *want, const char *how) {
    for (int t = 0; t < T; t++)
        check(memcmp(got->logits + (size_t)t * V, want->logits + (size_t)t * V,
                     V * sizeof(float)) == 0,
              "%s: the logits of position %d differ", how, t);
    check(sd_kv_equal(got->kv, want->kv, T), "%s: the caches differ", how);
}

static void chunks_are_alike(const sd_arch *arch, bool by_one, sd_compute compute, sd_kv_type kv) {
    static const int chunks[] = {2, 7, 16, 17, 64, T};
    const sd_tiny_model t = sd_tiny_default(arch);
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_typed(&sd_backend_cuda, m, compute, kv, ROWS, 0);
    sequence want = open_sequence(cx);
    in_chunks(&want, cx, 0, NULL, by_one ? 1 : 5);
    check(isfinite(want.logits[0]) && want.logits[0] != want.logits[1], "no logits");
    for (size_t c = by_one ? 0 : 3; c < sizeof chunks / sizeof *chunks; c++) {
        sequence got = open_sequence(cx);
        in_chunks(&got, cx, 0, NULL, chunks[c]);
        same(&got, &want, sd_arch_name(arch));
        close_sequence(&got);
    }
    close_sequence(&want);
    sd_context_close(cx);
    sd_model_release(m);
}

TEST("a row has the same bits alone and in chunks of any size") {
    for (int i = 0; sd_arch_at(i); i++)
        for (int k = 0; k < 2; k++)
            if (runs(sd_arch_at(i), computes[k]))
                chunks_are_alike(sd_arch_at(i), i == 0, computes[k], SD_KV_AUTO);
}
TEST("and so it has with int8 keys and values") {
    for (int i = 0; sd_arch_at(i); i++)
        if (runs_codes(sd_arch_at(i)))
            chunks_are_alike(sd_arch_at(i), sd_arch_at(i) == &sd_arch_qwen2, SD_COMPUTE_AUTO,
                             SD_KV_INT8);
}

TEST("a step whose rows want nothing leaves the same keys and values behind") {
    const sd_tiny_model t = sd_tiny_default(&sd_arch_gemma3);
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, ROWS, 0);
    sequence want = open_sequence(cx), got = open_sequence(cx);
    sd_error err = {0};
    in_chunks(&want, cx, 0, NULL, T);
    for (int p = 0; p < T - 1; p += 23) {
        sd_row row[23];
        for (int i = 0; i < 23; i++)
            row[i] = (sd_row){.token = token_at(0, p + i, V), .pos = p + i, .kv = got.kv};
        must(sd_forward(cx, row, 23, NULL, &err), &err);
    }
    got.kv->len = T - 1;
    run_rows(got.logits, cx, got.kv, 0, T - 1, 1, NULL);
    check(memcmp(got.logits, want.logits + (size_t)(T - 1) * V, V * sizeof(float)) == 0,
          "the last row's logits differ");
    check(sd_kv_equal(got.kv, want.kv, T), "the caches differ");
    close_sequence(&want), close_sequence(&got);
    sd_context_close(cx);
    sd_model_release(m);
}

// Three sequences in one step, whose rows take turns in groups; some groups want nothing.
static void mixed(sd_context *cx, sequence s[3], const sd_adapter *const a[3], int group,
                  bool all_want) {
    enum { MOST = ROWS };
    float *logits = sd_alloc((size_t)MOST * V, sizeof *logits);
    sd_error err = {0};
    check(logits, "out of memory");
    for (int t = 0; t < T; t += group) {
        sd_row row[MOST];
        const int n = T - t < group ? T - t : group;
        int rows = 0, got = 0;
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < n; k++)
                row[rows++] = (sd_row){.token = token_at(i, t + k, V),
                                       .pos = t + k,
                                       .kv = s[i].kv,
                                       .adapter = a[i],
                                       .want_logits = all_want || (t + k + i) % 3 == 0};
        must(sd_forward(cx, row, rows, logits, &err), &err);
        for (int i = 0; i < rows; i++)
            if (row[i].want_logits)
                memcpy(s[i / n].logits + (size_t)row[i].pos * V, logits + (size_t)got++ * V,
                       V * sizeof *logits);
    }
    free(logits);
}

TEST("a row has the same bits beside others, with other adapters, whatever they want") {
    for (int arch = 0; sd_arch_at(arch); arch++)
        for (int k = 0; k < 2; k++) {
            if (!runs(sd_arch_at(arch), computes[k])) continue;
            const sd_tiny_model t = sd_tiny_default(sd_arch_at(arch));
            sd_model *m = open_tiny(&t);
            sd_context *cx = open_on(&sd_backend_cuda, m, computes[k], ROWS, 0);
            sd_adapter *five = random_adapter(m, 5, 3), *nine = random_adapter(m, 9, 4);
            const sd_adapter *const a[3] = {five, NULL, nine};
            sequence want[3], got[3];
            for (int i = 0; i < 3; i++) {
                want[i] = open_sequence(cx);
                in_chunks(&want[i], cx, i, a[i], T);
            }
            for (int round = 0; round < 2; round++) {
                for (int i = 0; i < 3; i++) got[i] = open_sequence(cx);
                mixed(cx, got, a, round ? T : 9, round);
                for (int i = 0; i < 3; i++)
                    for (int p = 0; p < T; p++)
                        check((!round && (p + i) % 3) ||
                                  memcmp(got[i].logits + (size_t)p * V,
                                         want[i].logits + (size_t)p * V, V * sizeof(float)) == 0,
                              "%s: sequence %d, position %d", sd_arch_name(t.arch), i, p);
                for (int i = 0; i < 3; i++) {
                    check(sd_kv_equal(got[i].kv, want[i].kv, T), "the caches differ");
                    close_sequence(&got[i]);
                }
            }
            for (int i = 0; i < 3; i++) close_sequence(&want[i]);
            sd_adapter_release(five), sd_adapter_release(nine);
            sd_context_close(cx);
            sd_model_release(m);
        }
}

// A map without factors of an adapter leaves the row as it is, beside an adapter that has some.
TEST("an adapter without factors is the base, bit for bit, beside one with factors") {
    const sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_FP32, ROWS, 0);
    sd_lora none[64] = {0};
    sd_adapter *empty = NULL, *full = random_adapter(m, 4, 2);
    sd_error err = {0};
    must(sd_adapter_from_factors(&empty, "empty", none, m, &err), &err);
    const sd_adapter *const a[3] = {empty, full, NULL};
    sequence want = open_sequence(cx), got[3];
    in_chunks(&want, cx, 0, NULL, T);
    for (int i = 0; i < 3; i++) got[i] = open_sequence(cx);
    mixed(cx, got, a, T, true);
    same(&got[0], &want, "an empty adapter");
    check(memcmp(got[1].logits, want.logits, V * sizeof(float)) != 0, "an adapter does nothing");
    for (int i = 0; i < 3; i++) close_sequence(&got[i]);
    close_sequence(&want);
    sd_adapter_release(empty), sd_adapter_release(full);
    sd_context_close(cx);
    sd_model_release(m);
}

// In a context that has not had a larger step yet: the second sequence's rows need more of everything.
TEST("few rows and many of two sequences leave each other room") {
    const sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, ROWS, 0),
               *fresh = open_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, ROWS, 0);
    sequence want[2], got[2];
    sd_row row[41];
    float *logits = sd_alloc((size_t)41 * V, sizeof *logits);
    sd_error err = {0};
    for (int i = 0; i < 2; i++) {
        want[i] = open_sequence(cx), got[i] = open_sequence(fresh);
        in_chunks(&want[i], cx, i, NULL, T);
    }
    for (int i = 0; i < 41; i++) {
        const int of = i > 0, pos = i - of;
        row[i] = (sd_row){
            .token = token_at(of, pos, V), .pos = pos, .kv = got[of].kv, .want_logits = true};
    }
    must(sd_forward(fresh, row, 41, logits, &err), &err);
    check(memcmp(logits, want[0].logits, V * sizeof *logits) == 0, "the first sequence");
    check(memcmp(logits + V, want[1].logits, (size_t)40 * V * sizeof *logits) == 0, "the second");
    free(logits);
    for (int i = 0; i < 2; i++) close_sequence(&want[i]), close_sequence(&got[i]);
    sd_context_close(cx), sd_context_close(fresh);
    sd_model_release(m);
}

TEST("sequences within and beyond LongRoPE's original context share a step") {
    sd_tiny_model t = sd_tiny_default(&sd_arch_phi3);
    t.longrope = true, t.rope_orig_ctx = 96;
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_FP32, ROWS, 0);
    const sd_adapter *const none[3] = {0};
    sequence want[3], got[3];
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 3; i++) {
            sequence *s = k ? &got[i] : &want[i];
            *s = open_sequence(cx);
            sd_kv_close(s->kv);
            s->kv = open_kv(cx, i == 1 ? 128 : CTX);
        }
    for (int i = 0; i < 3; i++) in_chunks(&want[i], cx, i, NULL, T);
    mixed(cx, got, none, 11, true);
    for (int i = 0; i < 3; i++) same(&got[i], &want[i], "LongRoPE");
    for (int i = 0; i < 3; i++) close_sequence(&got[i]), close_sequence(&want[i]);
    sd_context_close(cx);
    sd_model_release(m);
}

// ---- tokens

static const sd_sampling laws[] = {{.top_p = 1},
                                   {.temperature = .7f, .top_p = 1, .seed = 3},
                                   {.temperature = 2, .top_p = .9f, .top_k = 9, .seed = 4},
                                   {.temperature = 1, .top_p = 1, .min_p = .1f, .choice = 2}};
static const sd_token_bias bias[] = {{5, 4}, {7, -90}};
static const sd_token_seen seen[] = {{11, 2}, {250, 0}};
static const int32_t banned[] = {3, 4};
static uint32_t nothing[(V + 31) / 32], odd[(V + 31) / 32], low[(V + 31) / 32];
static const sd_shaping shapings[] = {
    {.bias = bias, .n_bias = 2},
    {.seen = seen, .n_seen = 2, .repetition = 1.3f, .presence = .5f},
    {.allowed = odd, .also_allowed = low},
    {.allowed = nothing},
    {.banned = banned, .n_banned = 2},
    {.allowed = odd, .seen = seen, .n_seen = 2}};

static sd_pick pick_of(int i) {
    return (sd_pick){.sampling = &laws[i % 4],
                     .shaping = i % 8 < 6 ? &shapings[i % 8] : NULL,
                     .logprob = i % 5 == 0};
}

TEST("picked tokens are those of the host's sampler, on the device and beside it") {
    const sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, ROWS, ROWS);
    sequence want = open_sequence(cx);
    sd_sampler *s = sd_sampler_open(V);
    sd_error err = {0};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) odd[i] = 0xaaaaaaaa;
    low[0] = low[1] = low[2] = UINT32_MAX;
    in_chunks(&want, cx, 0, NULL, T);
    for (int logits_too = 0; logits_too < 2; logits_too++) {
        sequence got = open_sequence(cx);
        sd_pick pick[T];
        sd_row row[T];
        sd_picked token[T];
        int on_device = 0, picks = 0, none = 0;
        for (int i = 0; i < T; i++) {
            pick[i] = pick_of(i);
            row[i] = (sd_row){.token = token_at(0, i, V), .pos = i, .kv = got.kv};
            row[i].pick = i % 7 ? &pick[i] : NULL;
            row[i].want_logits = logits_too && i % 3 == 0;
            on_device += row[i].pick && sd_cuda_picks(&pick[i]);
        }
        must(sd_forward_pick(cx, row, T, got.logits, token, &err), &err);
        int rows = 0;
        for (int i = 0; i < T; i++) {
            const float *of = want.logits + (size_t)i * V;
            if (row[i].want_logits)
                check(memcmp(got.logits + (size_t)rows++ * V, of, V * sizeof *of) == 0,
                      "logits of row %d", i);
            if (!row[i].pick) continue;
            const int32_t x = sd_sample(s, of, pick[i].shaping, pick[i].sampling, i + 1);
            const float p = pick[i].logprob && x >= 0 ? sd_logprob(of, V, x) : 0;
            check(token[picks].token == x, "row %d: %d, not %d", i, token[picks].token, x);
            check(token[picks].logprob == p, "row %d: log probability", i);
            none += x < 0, picks++;
        }
        check(picks == 60 && none > 0 && on_device > 15 && on_device < 45,
              "%d picks, %d of the device, %d without a token", picks, on_device, none);
        close_sequence(&got);
    }
    sd_sampler_close(s);
    close_sequence(&want);
    sd_context_close(cx);
    sd_model_release(m);
}

TEST("a context that was opened for fewer tokens than a step wants refuses it") {
    const sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, 4, 1);
    sd_kv *kv = open_kv(cx, CTX);
    sd_error err = {0};
    sd_pick pick = {.sampling = &laws[0]};
    sd_picked token[2];
    sd_row row[2];
    for (int i = 0; i < 2; i++) row[i] = (sd_row){.pos = i, .kv = kv, .pick = &pick};
    check(sd_forward_pick(cx, row, 2, NULL, token, &err) == SD_EINVAL &&
              strstr(err.message, "2 rows want logits or tokens, this context was opened for 1"),
          "%s", err.message);
    must(sd_forward_pick(cx, row, 1, NULL, token, &err), &err);
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_model_release(m);
}
