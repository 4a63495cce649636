// What an engine says that it will take is what it takes, to the byte; what grows stays below what was said.
#include "base/files/path.h"
#include "base/memory.h"
#include "datasets/corpus/corpus_index.h"
#include "decode/engine/private.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/sanitized.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <string.h>

enum { CTX = 700, RANK = 3 };

static const struct {
    const char *name;
    bool grows;
    size_t at;
} parts[] = {
#define PART(member, grows, words) {#member, grows, offsetof(sd_engine_memory, member)},
    SD_ENGINE_MEMORY_LIST(PART)
#undef PART
};
enum { PARTS = sizeof parts / sizeof parts[0] };

static size_t bytes_of(const sd_engine_memory *m, int i) {
    return *(const size_t *)(const void *)((const char *)m + parts[i].at);
}

static void compare(const sd_engine_memory *plan, const sd_engine_memory *now) {
    for (int i = 0; i < PARTS; i++)
        if (parts[i].grows)
            cr_expect_leq(bytes_of(now, i), bytes_of(plan, i), "%s", parts[i].name);
        else
            cr_expect_eq(bytes_of(now, i), bytes_of(plan, i), "%s: %zu, not %zu", parts[i].name,
                         bytes_of(now, i), bytes_of(plan, i));
}

static sd_model *tiny(const sd_arch *arch, sd_dtype dtype) {
    sd_tiny_model t = sd_tiny_default(arch);
    t.L = 3, t.ctx = CTX, t.dtype = dtype;
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

// Factors on every second map.
static sd_adapter *adapter_of(sd_model *m, int *rank) {
    sd_lora *lora = sd_alloc((size_t)m->n_linears, sizeof *lora);
    float *f = sd_alloc((size_t)RANK * 4096, sizeof *f);
    sd_adapter *a;
    for (int i = 0; i < RANK * 4096; i++) f[i] = .01f;
    for (int i = 0; i < m->n_linears; i++) {
        rank[i] = i % 2 ? RANK : 0;
        lora[i] = (sd_lora){.r = rank[i], .A = f, .B = f, .scale = 1};
    }
    cr_assert_eq(sd_adapter_from_factors(&a, "a", lora, m, NULL), SD_OK);
    free(f), free(lora);
    return a;
}

// Three requests, long ones and short ones, one with the adapter and one with a grammar.
static void work(sd_engine *e, sd_model *m, sd_adapter *a, sd_grammar *g) {
    int32_t ids[600];
    test_answer answer[3] = {0};
    for (int i = 0; i < 600; i++) ids[i] = (i * 37 + 11) % 250;
    for (int i = 0; i < 3; i++) {
        sd_request r = {.prompt = ids + i,
                        .n_prompt = i == 1 ? 20 : 590,
                        .max_tokens = 20,
                        .ignore_end = true,
                        .logprobs = -1,
                        .adapter = i == 1 ? a : NULL,
                        .grammar = i == 2 ? g : NULL,
                        .on_event = test_collect,
                        .ctx = &answer[i]};
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
    }
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_neq(answer[i].finish, SD_FINISH_ERROR, "%s", answer[i].error);
        test_answer_free(&answer[i]);
    }
    (void)m;
}

static void check(sd_model *m, const sd_model *draft, const sd_engine_options *o) {
    sd_error err = {0};
    sd_engine_memory_plan plan;
    sd_engine_stats s;
    sd_grammar_cache *grammars;
    sd_grammar *g;
    int *rank = sd_alloc((size_t)m->n_linears, sizeof *rank);
    sd_adapter *a = adapter_of(m, rank);
    const int *const ranks[] = {rank};
    cr_assert_eq(
        sd_engine_plan_memory(
            &plan, m, o, &(sd_engine_load){.rank = ranks, .n_adapters = 1, .draft = draft}, &err),
        SD_OK, "%s", err.message);
    cr_assert_eq(sd_grammar_cache_open(&grammars, m->tokenizer, NULL), SD_OK);
    cr_assert_eq(
        sd_grammar_cache_get(&g, grammars, &(sd_grammar_spec){SD_GRAMMAR_OBJECT, "", 0}, &err),
        SD_OK, "%s", err.message);
    sd_engine *e = test_engine_open(m, o);
    sd_engine_get_stats(e, &s);
    compare(&plan.memory, &s.memory);
    cr_expect_eq(s.memory.adapters + s.memory.masks, 0);
    cr_expect_eq(plan.memory.kv_pages, s.kv_bytes);
    cr_expect_eq(plan.memory.draft_kv, s.draft_kv_bytes);
    cr_expect_eq(plan.kv.positions, s.kv_total);
    cr_expect_eq(plan.kv.longest, e->longest);
    work(e, m, a, g);
    sd_engine_get_stats(e, &s);
    compare(&plan.memory, &s.memory);
    cr_expect_eq(s.memory.adapters, plan.memory.adapters, "all adapters have come: %zu, not %zu",
                 s.memory.adapters, plan.memory.adapters);
    cr_expect_gt(s.memory.masks, 0);
    sd_engine_close(e);
    sd_grammar_release(g);
    sd_grammar_cache_close(grammars);
    sd_adapter_release(a);
    free(rank);
}

Test(engine_memory, a_plan_is_what_is_taken_for_every_kind_of_model_and_cache) {
    static const sd_arch *const archs[] = {&sd_arch_llama, &sd_arch_qwen2, &sd_arch_gemma3,
                                           &sd_arch_phi3};
    static const sd_dtype dtypes[] = {SD_F32, SD_Q8_0, SD_Q4_1, SD_BF16};
    for (int i = 0; i < 4; i++) {
        sd_model *m = tiny(archs[i], dtypes[i]);
        for (int kv = SD_KV_AUTO; kv < SD_KV_F32; kv++) {
            sd_engine_options o = {.ctx = CTX, .slots = 3, .threads = 1 + kv, .kv = (sd_kv_type)kv};
            check(m, NULL, &o);
        }
        sd_engine_options plain = {.ctx = CTX, .slots = 2, .isa = "plain", .threads = 2};
        check(m, NULL, &plain);
        plain.compute = SD_COMPUTE_FP32, plain.no_prefix_cache = true;
        check(m, NULL, &plain);
        sd_engine_options few = {
            .ctx = CTX, .slots = 3, .reserve = 2, .prefill_chunk = 500, .spec_length = 5};
        few.kv_memory = (size_t)1 << 20;
        check(m, NULL, &few);
        sd_model_release(m);
    }
}

Test(engine_memory, a_draft_model_is_part_of_it_and_so_is_an_index) {
    sd_error err = {0};
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "draft.gguf"),
         *index = sd_path_join(dir, "some.idx");
    sd_tiny_model t = sd_tiny_default(&sd_arch_gemma3);
    t.ctx = CTX;
    cr_assert_eq(sd_tiny_write_gguf(path, &t, &err), SD_OK, "%s", err.message);
    sd_model *draft, *m = tiny(&sd_arch_llama, SD_Q8_0);
    cr_assert_eq(sd_model_open(&draft, path, &err), SD_OK, "%s", err.message);
    sd_engine_options o = {.ctx = CTX, .slots = 4, .threads = 2, .draft = path};
    check(m, draft, &o);
    o.draft_kv = 2 * CTX + 5;
    check(m, draft, &o);
    const int32_t corpus[] = {1, 2, 3, 4, -1};
    cr_assert_eq(sd_corpus_write(index, corpus, 5, NULL, 0, sd_tokenizer_fingerprint(m->tokenizer),
                                 NULL, &err),
                 SD_OK);
    o = (sd_engine_options){.ctx = CTX, .slots = 1, .draft = index};
    sd_engine *e = test_engine_open(m, &o);
    cr_assert_gt(e->published.memory.draft_index, sizeof corpus);
    sd_engine_close(e);
    sd_model_release(draft);
    sd_model_release(m);
    free(path), free(index);
    sd_tiny_remove(dir);
}

Test(engine_memory, what_cannot_be_opened_cannot_be_planned) {
    sd_model *m = tiny(&sd_arch_llama, SD_F32);
    sd_error err = {0};
    sd_engine_memory_plan plan;
    const sd_engine_load none = {0};
    cr_assert_eq(sd_engine_plan_memory(&plan, m, &(sd_engine_options){.ctx = CTX + 1}, &none, &err),
                 SD_EINVAL);
    cr_assert(strstr(err.message, "--ctx"), "%s", err.message);
    cr_assert_eq(sd_engine_plan_memory(
                     &plan, m, &(sd_engine_options){.ctx = CTX, .kv_memory = 5000}, &none, &err),
                 SD_EINVAL);
    cr_assert(strstr(err.message, "give 1 or more"), "%s", err.message);
    cr_assert_eq(sd_engine_plan_memory(&plan, m, &(sd_engine_options){.slots = 2000}, &none, &err),
                 SD_EINVAL);
    sd_model_release(m);
}

// Measured by what malloc has given: the engine is not stepped, so that nothing else is taken.
Test(engine_memory, a_request_takes_what_is_said_of_one) {
    enum { N = 12, PROMPT = 600, STOPS = 64, FORCED = 20, OVERHEAD = 2048 };
    static char text[SD_MAX_STOP_BYTES + 1];
    static sd_token_bias bias[SD_MAX_BIAS];
    int32_t ids[PROMPT], stop[STOPS], forced[FORCED], words[2 * SD_MAX_BAD_WORDS * 65];
    sd_model *m = tiny(&sd_arch_llama, SD_F32);
    sd_engine *e =
        test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 1, .queue = 2 * N});
    sd_error err = {0};
    test_answer a = {0};
    for (int i = 0; i < SD_MAX_BIAS; i++) bias[i] = (sd_token_bias){i % 250, 1};
    for (int i = 0; i < PROMPT; i++) ids[i] = i % 250;
    for (int i = 0; i < STOPS; i++) stop[i] = i;
    for (int i = 0; i < FORCED; i++) forced[i] = i;
    for (int i = 0; i < 2 * SD_MAX_BAD_WORDS * 65; i++)
        words[i] = i % 65 ? i % 250 : SD_MAX_BAD_WORD_TOKENS;
    memset(text, 'x', SD_MAX_STOP_BYTES);
    sd_request r = {.prompt = ids,
                    .n_prompt = PROMPT,
                    .shaping = {.bias = bias,
                                .n_bias = SD_MAX_BIAS,
                                .allowed = ids,
                                .n_allowed = 200,
                                .bad_words = words,
                                .n_bad_words = 2 * SD_MAX_BAD_WORDS * 65,
                                .min_tokens = 1},
                    .reasoning = {.open = "<a>",
                                  .close = "</a>",
                                  .bounded = true,
                                  .forced = forced,
                                  .n_forced = FORCED},
                    .n_stop = SD_MAX_STOPS,
                    .stop_token = stop,
                    .n_stop_token = STOPS,
                    .logprobs = -1,
                    .on_event = test_collect,
                    .ctx = &a};
    for (int i = 0; i < SD_MAX_STOPS; i++) r.stop[i] = text;
    const size_t most = sd_engine_request_bytes(m, PROMPT, STOPS, FORCED),
                 mask = (size_t)(m->hp.V + 31) / 32 * sizeof(uint32_t);
    cr_expect_eq(most - sd_engine_request_bytes(m, PROMPT, STOPS, 0), FORCED * mask);
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_OK, "%s", err.message);
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < N; i++)
        cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_OK, "%s", err.message);
    struct mallinfo2 after = mallinfo2();
    const size_t took = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    if (!SD_SANITIZED) {
        cr_expect_leq(took / N, most + OVERHEAD);
        cr_expect_geq(took / N, most / 4 * 3);
    }
    sd_engine_close(e);
    test_answer_free(&a);
    sd_model_release(m);
}
