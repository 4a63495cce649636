// Steps that are recorded and started as one: tokens, keys and values are those of the same launches one by one.
#include "tests/cuda/model/check.h"

#include "base/memory.h"
#include "model/infer/cuda/private.h"
#include "tests/cuda/device_emu.h"

#include <string.h>

enum { SEQUENCES = 3, CTX = 128, PROMPT = 20, V = 288 };

// Sequences that share a pool, as an engine's do, in a context that records or does not.
typedef struct {
    sd_context *cx;
    sd_kv_pool *pool;
    sd_kv *kv[SEQUENCES];
} place;

static void open_pool(place *p, int ctx) {
    sd_error err = {0};
    const sd_kv_pool_size size = {.sequences = SEQUENCES, .ctx = ctx, .step = 64};
    must(sd_kv_pool_open(&p->pool, p->cx, &size, &err), &err);
    for (int i = 0; i < SEQUENCES; i++) must(sd_kv_open_in(&p->kv[i], p->pool, ctx, &err), &err);
}
static void close_pool(place *p) {
    for (int i = 0; i < SEQUENCES; i++) sd_kv_close(p->kv[i]);
    sd_kv_pool_close(p->pool);
}
static place open_place(sd_model *m, sd_kv_type kv, bool graphs) {
    place p = {.cx = open_typed(&sd_backend_cuda, m, SD_COMPUTE_AUTO, kv, 64, 64)};
    p.cx->no_graphs = !graphs;
    return p;
}

// One step: rows[i] of sequence i from its length on, each of which picks. picked: what they pick.
static void step(place *p, const int rows[SEQUENCES], const sd_adapter *const a[SEQUENCES],
                 int32_t *picked) {
    static const sd_sampling laws[2] = {{.top_p = 1},
                                        {.temperature = .8f, .top_p = .9f, .seed = 5}};
    sd_pick pick[2];
    sd_row row[64];
    sd_picked got[64];
    sd_error err = {0};
    int n = 0;
    for (int i = 0; i < 2; i++) pick[i] = (sd_pick){.sampling = &laws[i]};
    for (int i = 0; i < SEQUENCES; i++) {
        check(sd_kv_reserve(p->kv[i], p->kv[i]->len + rows[i]), "no pages");
        for (int k = 0; k < rows[i]; k++)
            row[n++] = (sd_row){.token = token_at(i, p->kv[i]->len + k, V),
                                .pos = p->kv[i]->len + k,
                                .kv = p->kv[i],
                                .adapter = a ? a[i] : NULL,
                                .pick = &pick[i % 2]};
        p->kv[i]->len += rows[i];
    }
    must(sd_forward_pick(p->cx, row, n, NULL, got, &err), &err);
    for (int i = 0; i < n; i++) picked[i] = got[i].token;
}

static void prompts(place *p, const int rows[SEQUENCES], const sd_adapter *const a[SEQUENCES]) {
    int32_t ignored[64];
    for (int i = 0; i < SEQUENCES; i++)
        for (int left = rows[i], n; left; left -= n) {
            int one[SEQUENCES] = {0};
            one[i] = n = left < 60 ? left : 60;
            step(p, one, a, ignored);
        }
}

// The same step in both places.
static void both(place p[2], const int rows[SEQUENCES], const sd_adapter *const a[SEQUENCES]) {
    int32_t picked[2][64] = {0};
    for (int i = 0; i < 2; i++) step(&p[i], rows, a, picked[i]);
    for (int i = 0; i < rows[0] + rows[1] + rows[2]; i++)
        check(picked[0][i] == picked[1][i] && picked[0][i] >= 0,
              "row %d of a step: %d recorded, %d one by one", i, picked[0][i], picked[1][i]);
}
static void same_caches(place p[2]) {
    for (int i = 0; i < SEQUENCES; i++)
        check(sd_kv_equal(p[0].kv[i], p[1].kv[i], p[0].kv[i]->len), "the caches of sequence %d", i);
}
static void launched(const place p[2], uint64_t least) {
    check(p[0].cx->graph_launches >= least && p[1].cx->graph_launches == 0,
          "%d steps were recorded ones, %d where none is", (int)p[0].cx->graph_launches,
          (int)p[1].cx->graph_launches);
}

static void decode(const sd_arch *arch, sd_kv_type kv, bool adapters) {
    static const int steps[][SEQUENCES] = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {3, 1, 1}, {1, 3, 1},
                                           {2, 2, 1}, {1, 1, 1}, {1, 0, 1}, {0, 1, 1}, {1, 1, 0},
                                           {8, 1, 1}, {1, 1, 8}, {4, 2, 4}, {1, 1, 1}};
    const sd_tiny_model t = sd_tiny_default(arch);
    sd_model *m = open_tiny(&t);
    sd_adapter *five = random_adapter(m, 5, 3), *nine = random_adapter(m, 9, 4);
    const sd_adapter *const some[SEQUENCES] = {five, NULL, nine};
    place p[2] = {open_place(m, kv, true), open_place(m, kv, false)};
    for (int i = 0; i < 2; i++) {
        open_pool(&p[i], CTX);
        prompts(&p[i], (const int[]){PROMPT, PROMPT - 7, PROMPT + 5}, adapters ? some : NULL);
    }
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        both(p, steps[i], adapters ? some : NULL);
    same_caches(p);
    launched(p, 6);
    for (int i = 0; i < 2; i++) {
        close_pool(&p[i]);
        sd_context_close(p[i].cx);
    }
    sd_adapter_release(five), sd_adapter_release(nine);
    check(emulated_bytes() == 0 && emulated_graphs() == 0, "%zu bytes and %d graphs are left",
          emulated_bytes(), emulated_graphs());
    sd_model_release(m);
}

TEST(
    "recorded steps of any rows give the tokens, keys and values of the same launches one by one") {
    decode(&sd_arch_gemma3, SD_KV_AUTO, false);
    decode(&sd_arch_qwen2, SD_KV_INT8, true);
}

// 512 positions are one split of attention, and eight pages: the rows are as many, the launches are others.
TEST("a step is not one that was recorded for shorter texts") {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.L = 1;
    sd_model *m = open_tiny(&t);
    place p[2] = {open_place(m, SD_KV_AUTO, true), open_place(m, SD_KV_AUTO, false)};
    for (int i = 0; i < 2; i++) {
        open_pool(&p[i], 600);
        prompts(&p[i], (const int[]){507, 12, 0}, NULL);
    }
    for (int i = 0; i < 10; i++) both(p, (const int[]){1, 1, 0}, NULL);
    // Everything is as large as it gets, so only their lengths tell long and short texts apart.
    for (int i = 0; i < 4; i++) both(p, (const int[]){0, 1, 1}, NULL);
    for (int i = 0; i < 2; i++) both(p, (const int[]){1, 1, 0}, NULL);
    same_caches(p);
    launched(p, 10);
    for (int i = 0; i < 2; i++) {
        close_pool(&p[i]);
        sd_context_close(p[i].cx);
    }
    sd_model_release(m);
}

TEST("a step is not one that was recorded over another memory of pages, which may be gone") {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen3);
    t.L = 1;
    sd_model *m = open_tiny(&t);
    place p[2] = {open_place(m, SD_KV_AUTO, true), open_place(m, SD_KV_AUTO, false)}, other[2];
    for (int i = 0; i < 2; i++) {
        open_pool(&p[i], CTX);
        other[i] = p[i];
        open_pool(&other[i], CTX);
        prompts(&p[i], (const int[]){9, 0, 0}, NULL);
        prompts(&other[i], (const int[]){9, 0, 0}, NULL);
    }
    for (int i = 0; i < 4; i++) {
        both(p, (const int[]){1, 0, 0}, NULL);
        both(other, (const int[]){1, 0, 0}, NULL);
    }
    same_caches(p), same_caches(other);
    for (int i = 0; i < 2; i++) close_pool(&p[i]);
    for (int i = 0; i < 3; i++) both(other, (const int[]){1, 0, 0}, NULL);
    same_caches(other);
    launched(other, 7);
    for (int i = 0; i < 2; i++) {
        close_pool(&other[i]);
        sd_context_close(other[i].cx);
    }
    sd_model_release(m);
}

// Twenty adapters need more places than there are at first: the arrays that kernels read move. They are of one rank, but the last.
TEST("a step is not one that was recorded before the adapters moved, or for others") {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    t.L = 1;
    sd_model *m = open_tiny(&t);
    place p[2] = {open_place(m, SD_KV_AUTO, true), open_place(m, SD_KV_AUTO, false)};
    sd_adapter *many[20];
    sd_error err = {0};
    for (int i = 0; i < 20; i++)
        many[i] = random_adapter(m, i == 19 ? 1 : 12, 200 + 2 * (uint64_t)i);
    for (int i = 0; i < 2; i++) {
        open_pool(&p[i], CTX);
        prompts(&p[i], (const int[]){9, 4, 0}, NULL);
    }
    for (int i = 0; i < 4; i++)
        both(p, (const int[]){1, 1, 0}, (const sd_adapter *const[]){many[0], many[1], NULL});
    for (int i = 0; i < 20; i++)
        for (int k = 0; k < 2; k++) must(sd_context_take_adapter(p[k].cx, many[i], &err), &err);
    for (int i = 0; i < 4; i++)
        both(p, (const int[]){1, 1, 0}, (const sd_adapter *const[]){many[0], many[1], NULL});
    for (int i = 0; i < 4; i++)
        both(p, (const int[]){1, 0, 0}, (const sd_adapter *const[]){many[19], NULL, NULL});
    for (int i = 0; i < 4; i++)
        both(p, (const int[]){1, 0, 0}, (const sd_adapter *const[]){many[2], NULL, NULL});
    same_caches(p);
    launched(p, 12);
    for (int i = 0; i < 2; i++) {
        close_pool(&p[i]);
        sd_context_close(p[i].cx);
    }
    for (int i = 0; i < 20; i++) sd_adapter_release(many[i]);
    sd_model_release(m);
}

// More kinds of steps than are kept: the longest unused go, and come again.
TEST("kinds of steps that are forgotten are recorded anew") {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.L = 1;
    sd_model *m = open_tiny(&t);
    place p[2] = {open_place(m, SD_KV_AUTO, true), open_place(m, SD_KV_AUTO, false)};
    sd_adapter *a[5];
    for (int i = 0; i < 5; i++) a[i] = random_adapter(m, 2, 300 + (uint64_t)i);
    for (int i = 0; i < 2; i++) open_pool(&p[i], 192);
    // The lists of one to three of five adapters are 85, and those of fewer come from several steps.
    for (int k = 0; k < 128; k++)
        both(p, (const int[]){1, 1, 1},
             (const sd_adapter *const[]){a[k % 5], a[k / 5 % 5], a[k / 25 % 5]});
    same_caches(p);
    launched(p, 15);
    check(emulated_graphs() > 5 && emulated_graphs() <= 64, "%d graphs", emulated_graphs());
    for (int i = 0; i < 2; i++) {
        close_pool(&p[i]);
        sd_context_close(p[i].cx);
    }
    for (int i = 0; i < 5; i++) sd_adapter_release(a[i]);
    check(emulated_bytes() == 0 && emulated_graphs() == 0, "%zu bytes and %d graphs are left",
          emulated_bytes(), emulated_graphs());
    sd_model_release(m);
}
