// Speculation, batching, threads and chunking change no token, no logit and no byte of the cache.
//
// The oracle decodes row by row without the engine (engine.c). The model is tiny and
// random, its answers to repetitive prompts repeat themselves in part, so drafts are both accepted
// and rejected; both are counted and must have happened.
#include "decode/draft/private.h"
#include "decode/engine/private.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/sanitized.h"
#include "tests/unit/support/tiny/model.h"

#include "base/files/path.h"
#include "base/memory.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { PROMPT = 70, N = 48, SAMPLINGS = 8 };

static const sd_sampling samplings[SAMPLINGS] = {
    {.temperature = 0, .top_p = 1},
    {.temperature = 0.7f, .top_p = 1, .seed = 1},
    {.temperature = 1, .top_p = 1, .seed = 2},
    {.temperature = 1.5f, .top_p = 1, .seed = 3},
    {.temperature = 1, .top_k = 3, .top_p = 1, .seed = 4},
    {.temperature = 1, .top_p = 0.3f, .seed = 5},
    {.temperature = 1, .top_p = 1, .min_p = 0.5f, .seed = 6},
    {.temperature = 0.1f, .top_p = 1, .seed = 7, .choice = 3},
};

// Everything on disk that drafts: the same model (every guess right), one with requantised weights
// (most right), one of another seed (few right), a corpus of the greedy answers.
typedef struct {
    char *dir, *same, *near, *other, *index;
    sd_model *model;
    int32_t prompt[SAMPLINGS][PROMPT], want[SAMPLINGS][N];
} world;

static char *write_model(const char *dir, const char *name, sd_tiny_model t) {
    sd_error err = {0};
    char *path = sd_path_join(dir, name);
    cr_assert_eq(sd_tiny_write_gguf(path, &t, &err), SD_OK, "%s", err.message);
    return path;
}

// window, unless NULL: layer l attends to window[l] positions, 0: to all.
static world make_world_as(const sd_tiny_model *tiny, const int *window) {
    world w = {.dir = sd_tiny_dir()};
    sd_tiny_model t = *tiny, near = t, other = t;
    near.dtype = SD_Q8_0;
    other.seed = 99;
    w.same = write_model(w.dir, "same.gguf", t);
    w.near = write_model(w.dir, "near.gguf", near);
    w.other = write_model(w.dir, "other.gguf", other);
    cr_assert_eq(sd_model_open(&w.model, w.same, NULL), SD_OK);
    for (int l = 0; window && l < w.model->hp.L; l++) w.model->layer[l].window = window[l];
    int32_t corpus[SAMPLINGS * (N + 1)];
    int n = 0;
    for (int i = 0; i < SAMPLINGS; i++) {
        test_repetitive(w.prompt[i], PROMPT, 40 + i, 250);
        cr_assert_eq(test_plain(w.want[i], NULL, N, w.model, w.prompt[i], PROMPT, &samplings[i],
                                NULL, false),
                     N);
        for (int j = 0; j < N; j++) corpus[n++] = j % 7 == 6 ? 11 : w.want[i][j];
        corpus[n++] = -1;
    }
    w.index = sd_path_join(w.dir, "corpus.idx");
    cr_assert_eq(sd_corpus_write(w.index, corpus, n, NULL, 0,
                                 sd_tokenizer_fingerprint(w.model->tokenizer), NULL, NULL),
                 SD_OK);
    return w;
}

static world make_world_of(const int *window) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    return make_world_as(&t, window);
}

static world make_world(void) {
    return make_world_of((const int[2]){0, 0});
}

static void free_world(world *w) {
    sd_model_release(w->model);
    free(w->same), free(w->near), free(w->other), free(w->index);
    sd_tiny_remove(w->dir);
}

// All samplings' requests through one engine; every token compared.
static void check_engine(const world *w, const sd_engine_options *o, sd_spec_stats *sum) {
    sd_engine *e = test_engine_open(w->model, o);
    test_answer *a = calloc(SAMPLINGS, sizeof *a);
    for (int i = 0; i < SAMPLINGS; i++) {
        sd_request r = {.prompt = w->prompt[i],
                        .n_prompt = PROMPT,
                        .max_tokens = N,
                        .sampling = samplings[i],
                        .ignore_end = true,
                        .logprobs = -1,
                        .on_event = test_collect,
                        .ctx = &a[i]};
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
    }
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < SAMPLINGS; i++) {
        cr_assert_eq(a[i].finish, SD_FINISH_LENGTH);
        cr_assert_eq(a[i].ids.n, N, "%d tokens", a[i].ids.n);
        cr_assert_eq(memcmp(a[i].ids.id, w->want[i], sizeof w->want[i]), 0,
                     "sampling %d, spec %d, length %d, slots %d, threads %d, chunk %d", i,
                     (int)o->spec, o->spec_length, o->slots, o->threads, o->prefill_chunk);
        test_answer_free(&a[i]);
    }
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    sd_spec_stats_add(sum, &s.spec, 1);
    free(a);
    sd_engine_close(e);
}

static sd_spec_stats check_drafter(const world *w, sd_spec_mode spec, const char *draft) {
    static const int lengths[] = {0, 1, 3, 8, 48};
    sd_spec_stats sum = {0};
    // Four of the eight combinations hold every pair of (slots, threads, chunk): an orthogonal
    // array; each length takes two of them in turn.
    static const int variants[] = {0, 3, 5, 6};
    for (int l = 0; l < 5; l++)
        for (int k = 0; k < 2; k++) {
            int variant = variants[(2 * l + k + (l >> 1)) % 4];
            if (SD_THREADS_WATCHED && !(variant & 2)) continue; // one of each length's two stays
            check_engine(w,
                         &(sd_engine_options){.ctx = 200,
                                              .slots = variant & 1 ? 8 : 1,
                                              .threads = variant & 2 ? 2 : 1,
                                              .prefill_chunk = variant & 4 ? 7 : 64,
                                              .spec = spec,
                                              .spec_length = lengths[l],
                                              .draft = draft},
                         &sum);
        }
    return sum;
}

static int place_of(const sd_spec_stats *s, const char *drafter) {
    for (int i = 0; i < SD_MAX_DRAFTERS && s->by[i].name[0]; i++)
        if (strcmp(s->by[i].name, drafter) == 0) return i;
    cr_assert(false, "no statistics of %s", drafter);
    return -1;
}

static void both_happened(const sd_spec_stats *s, const char *drafter) {
    int i = place_of(s, drafter);
    int64_t accepted = s->by[i].accepted, drafted = s->by[i].drafted;
    printf("%s: %lld drafted, %lld accepted\n", drafter, (long long)drafted, (long long)accepted);
    cr_assert_gt(accepted, 200 >> SD_THREADS_WATCHED, "%lld accepted", (long long)accepted);
    cr_assert_gt(drafted - accepted, 500 >> SD_THREADS_WATCHED, "%lld rejected",
                 (long long)(drafted - accepted));
}

Test(exact, plain_engine_decoding_equals_row_by_row_decoding) {
    world w = make_world();
    sd_spec_stats sum = check_drafter(&w, SD_SPEC_OFF, NULL);
    cr_assert_eq(sum.drafted, 0);
    free_world(&w);
}

Test(exact, suffix_drafts_change_no_token) {
    world w = make_world();
    sd_spec_stats sum = check_drafter(&w, SD_SPEC_SUFFIX, NULL);
    both_happened(&sum, "suffix");
    free_world(&w);
}

Test(exact, corpus_drafts_change_no_token) {
    world w = make_world();
    sd_spec_stats sum = check_drafter(&w, SD_SPEC_CORPUS, w.index);
    both_happened(&sum, "index");
    free_world(&w);
}

Test(exact, an_index_with_tokens_that_the_model_has_not_changes_no_token) {
    world w = make_world();
    char *path = sd_path_join(w.dir, "strange.idx");
    int32_t corpus[SAMPLINGS * (N + 1)];
    int n = 0;
    for (int i = 0; i < SAMPLINGS; i++, corpus[n++] = -1)
        for (int j = 0; j < N; j++) corpus[n++] = j % 3 == 2 ? w.model->hp.V + j : w.want[i][j];
    cr_assert_eq(sd_corpus_write(path, corpus, n, NULL, 0,
                                 sd_tokenizer_fingerprint(w.model->tokenizer), NULL, NULL),
                 SD_OK);
    sd_spec_stats sum = {0};
    check_engine(&w,
                 &(sd_engine_options){.ctx = 200,
                                      .slots = 8,
                                      .threads = 1,
                                      .spec = SD_SPEC_CORPUS,
                                      .spec_length = 8,
                                      .draft = path},
                 &sum);
    cr_assert_gt(sum.accepted, 0);
    free(path);
    free_world(&w);
}

Test(exact, model_drafts_change_no_token, .timeout = 300) {
    world w = make_world();
    sd_spec_stats sum = check_drafter(&w, SD_SPEC_DRAFT, w.near);
    both_happened(&sum, "draft");
    sd_spec_stats other = {0};
    check_engine(&w,
                 &(sd_engine_options){.ctx = 200, .slots = 4, .spec_length = 3, .draft = w.other},
                 &other);
    cr_assert_gt(other.drafted - other.accepted, 300, "all drafters at once, most proposals wrong");
    free_world(&w);
}

Test(exact, a_draft_model_with_the_targets_weights_is_always_right) {
    // The same noise on the same logits: shared noise is what keeps acceptance at a temperature.
    world w = make_world();
    sd_spec_stats sum = {0};
    for (int length = 1; length <= 8; length += 7)
        check_engine(&w,
                     &(sd_engine_options){.ctx = 200,
                                          .slots = 2,
                                          .spec = SD_SPEC_DRAFT,
                                          .spec_length = length,
                                          .draft = w.same},
                     &sum);
    int draft = place_of(&sum, "draft");
    cr_assert_gt(sum.by[draft].drafted, 300);
    cr_assert_eq(sum.by[draft].accepted, sum.by[draft].drafted);
    free_world(&w);
}

// A cache filled in one go on a context of its own.
static sd_kv *fresh_cache(sd_context *cx, const int32_t *tokens, int n) {
    sd_kv *kv = NULL;
    cr_assert_eq(sd_kv_open(&kv, cx, n, NULL), SD_OK);
    sd_row *rows = calloc((size_t)n, sizeof *rows);
    for (int i = 0; i < n; i++) rows[i] = (sd_row){.token = tokens[i], .pos = i, .kv = kv};
    cr_assert_eq(sd_forward(cx, rows, n, NULL, NULL), SD_OK);
    free(rows);
    return kv;
}

static void check_caches(sd_engine *e, sd_context *cx, sd_context *draft_cx) {
    for (int i = 0; i < e->o.slots; i++) {
        sd_slot *s = &e->slot[i];
        if (!s->request || s->stats.generated == 0) continue;
        cr_assert_eq(s->kv->len, s->n - 1);
        sd_kv *kv = fresh_cache(cx, s->timeline, s->kv->len);
        cr_assert(sd_kv_equal(s->kv, kv, s->kv->len), "slot %d at %d", i, s->n);
        sd_kv_close(kv);
        const sd_kv *draft = sd_drafter_model_kv(s->drafter[place_of(&s->stats.spec, "draft")]);
        cr_assert_leq(draft->len, s->n);
        if (draft->len == 0) continue;
        kv = fresh_cache(draft_cx, s->timeline, draft->len);
        cr_assert(sd_kv_equal(draft, kv, draft->len), "draft of slot %d", i);
        sd_kv_close(kv);
    }
}

// Whether a slot has given back pages of its second layer, or has not yet; never more than its window,
// a step and what is cut off at both ends need.
static bool gave_pages_back(const sd_engine *e, int window) {
    bool gave = false;
    for (int i = 0; i < e->n_slots && window; i++) {
        const sd_kv *kv = e->slot[i].kv;
        cr_assert_leq((kv->pages - kv->first[1] - 2) * SD_KV_PAGE, window + e->max_rows);
        gave |= kv->first[1] > 0;
    }
    return gave;
}

static void caches_equal_a_fresh_prefill(const int *window) {
    world w = make_world_of(window);
    bool gave = false;
    static const int lengths[] = {0, 3, 8};
    sd_model *draft = NULL;
    sd_context *cx[SD_KV_TYPES] = {NULL}, *draft_cx = NULL;
    cr_assert_eq(sd_model_open(&draft, w.near, NULL), SD_OK);
    for (int kv = SD_KV_F16; kv <= SD_KV_INT8; kv++)
        cr_assert_eq(sd_context_open(&cx[kv], w.model, NULL,
                                     &(sd_context_options){.max_rows = 256, .kv = (sd_kv_type)kv},
                                     NULL),
                     SD_OK);
    cr_assert_eq(
        sd_context_open(&draft_cx, draft, NULL, &(sd_context_options){.max_rows = 256}, NULL),
        SD_OK);
    for (int l = SD_THREADS_WATCHED ? 4 : 0; l < 6; l++) { // of two types that differ most
        sd_kv_type kv = l % 2 ? SD_KV_INT8 : l < 3 ? SD_KV_F16 : SD_KV_BF16;
        sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = 160,
                                                                      .slots = 3,
                                                                      .prefill_chunk = 40,
                                                                      .kv = kv,
                                                                      .spec_length = lengths[l / 2],
                                                                      .draft = w.near});
        for (int i = 0; i < SAMPLINGS; i++) {
            sd_request r = {.prompt = w.prompt[i],
                            .n_prompt = PROMPT,
                            .max_tokens = N,
                            .ignore_end = true,
                            .logprobs = -1,
                            .sampling = samplings[i]};
            cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        }
        while (sd_engine_step(e)) {
            check_caches(e, cx[kv], draft_cx);
            gave |= gave_pages_back(e, window[1]);
        }
        sd_engine_close(e);
    }
    cr_assert_eq(gave, window[1] > 0);
    for (int kv = SD_KV_F16; kv <= SD_KV_INT8; kv++) sd_context_close(cx[kv]);
    sd_context_close(draft_cx);
    sd_model_release(draft);
    free_world(&w);
}

Test(exact, caches_after_every_round_equal_a_fresh_prefill) {
    caches_equal_a_fresh_prefill((const int[2]){0, 0});
}
Test(exact, caches_whose_pages_come_and_go_equal_a_fresh_prefill) {
    caches_equal_a_fresh_prefill((const int[2]){0, 9});
}

Test(exact, speculation_and_batches_change_no_token_where_layers_have_windows) {
    world w = make_world_of((const int[2]){25, 7});
    sd_spec_stats sum = {0};
    static const int lengths[] = {0, 1, 8};
    for (int i = 0; i < 3; i++)
        check_engine(&w,
                     &(sd_engine_options){.ctx = 160,
                                          .slots = 1 + 3 * i,
                                          .threads = 1 + i,
                                          .prefill_chunk = 33,
                                          .spec_length = lengths[i],
                                          .draft = w.near},
                     &sum);
    cr_assert(sum.accepted > 0 && sum.accepted < sum.drafted);
    free_world(&w);
}

static void check_architecture(const sd_tiny_model *t, const char *name) {
    world w = make_world_as(t, NULL);
    sd_spec_stats off = check_drafter(&w, SD_SPEC_OFF, NULL),
                  right = check_drafter(&w, SD_SPEC_DRAFT, w.near),
                  wrong = check_drafter(&w, SD_SPEC_DRAFT, w.other);
    cr_assert_eq(off.drafted, 0);
    cr_assert_gt(right.accepted, 100 >> SD_THREADS_WATCHED, "%s: %lld accepted", name,
                 (long long)right.accepted);
    cr_assert_gt(wrong.drafted - wrong.accepted, 100 >> SD_THREADS_WATCHED,
                 "%s: %lld of %lld accepted", name, (long long)wrong.accepted,
                 (long long)wrong.drafted);
    free_world(&w);
}

// A draft of rounded weights is right as a rule, one of other weights seldom. LongRoPE's long factors
// hold for the oracle's sequences of 118 and for the engine's of 200.
Test(exact, speculation_changes_no_token_of_any_architecture, .timeout = 600) {
    for (int i = 0; sd_arch_at(i) && !SD_THREADS_WATCHED; i += SD_SANITIZED ? 4 : 1) {
        sd_tiny_model t = sd_tiny_default(sd_arch_at(i));
        check_architecture(&t, sd_arch_name(t.arch));
    }
    sd_tiny_model t = sd_tiny_default(&sd_arch_phi3);
    t.longrope = true, t.window = 24;
    check_architecture(&t, "phi3 with LongRoPE and a window");
    t = sd_tiny_default(&sd_arch_gemma3);
    t.L = 4, t.pattern = 3, t.window = 64;
    check_architecture(&t, "gemma3 of 4 layers");
}

Test(exact, the_logits_of_every_emitted_token_equal_plain_ones_bit_for_bit) {
    world w = make_world();
    int V = w.model->hp.V, checked = 0;
    float *want = calloc((size_t)N * V, sizeof *want);
    int32_t tokens[N];
    for (int i = 0; i < SAMPLINGS; i += 3) {
        test_plain(tokens, want, N, w.model, w.prompt[i], PROMPT, &samplings[i], NULL, false);
        sd_engine *e = test_engine_open(
            w.model, &(sd_engine_options){.ctx = 160, .slots = 1, .threads = 2, .spec_length = 6});
        sd_request r = {.prompt = w.prompt[i],
                        .n_prompt = PROMPT,
                        .max_tokens = N,
                        .ignore_end = true,
                        .logprobs = 0, // for which the logits are handed out
                        .sampling = samplings[i]};
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        for (int before = PROMPT; sd_engine_step(e); before = e->slot[0].n)
            for (int j = 0; j < e->slot[0].n - before; j++, checked++)
                cr_assert_eq(memcmp(e->logits + (size_t)j * V,
                                    want + (size_t)(before - PROMPT + j) * V,
                                    (size_t)V * sizeof *want),
                             0, "sampling %d, token %d", i, before - PROMPT + j);
        sd_engine_close(e);
    }
    cr_assert_gt(checked, 100);
    free(want);
    free_world(&w);
}

Test(exact, rows_of_different_adapters_share_a_step_and_stay_apart) {
    world w = make_world();
    const sd_hparams *hp = &w.model->hp;
    sd_lora *lora = calloc((size_t)hp->L * SD_PROJ_COUNT, sizeof *lora);
    float *factors = calloc((size_t)4 * 1024, sizeof *factors);
    for (int i = 0; i < 4 * 1024; i++) {
        uint32_t r[4];
        sd_philox(r, 8, SD_STREAM_INIT, (uint64_t)i);
        factors[i] = (float)(sd_uniform64(r[0], r[1]) - 0.5);
    }
    for (int i = 0; i < hp->L * SD_PROJ_COUNT; i++)
        lora[i] = (sd_lora){.r = 4, .A = factors, .B = factors + 64, .scale = 0.5f};
    sd_adapter *adapter = NULL;
    sd_error err = {0};
    cr_assert_eq(sd_adapter_from_factors(&adapter, "random", lora, w.model, &err), SD_OK, "%s",
                 err.message);
    int32_t tuned[N];
    test_plain(tuned, NULL, N, w.model, w.prompt[0], PROMPT, &samplings[1], adapter, false);
    int32_t base[N];
    test_plain(base, NULL, N, w.model, w.prompt[0], PROMPT, &samplings[1], NULL, false);
    cr_assert_neq(memcmp(tuned, base, sizeof base), 0, "the adapter must matter");
    sd_engine *e =
        test_engine_open(w.model, &(sd_engine_options){.ctx = 160, .slots = 4, .spec_length = 4});
    test_answer *a = calloc(4, sizeof *a);
    for (int i = 0; i < 4; i++) {
        sd_request r = {.prompt = w.prompt[0],
                        .n_prompt = PROMPT,
                        .max_tokens = N,
                        .ignore_end = true,
                        .logprobs = -1,
                        .sampling = samplings[1],
                        .adapter = i % 2 ? adapter : NULL,
                        .on_event = test_collect,
                        .ctx = &a[i]};
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
    }
    sd_adapter_release(adapter); // the requests hold it
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(memcmp(a[i].ids.id, i % 2 ? tuned : base, sizeof base), 0, "request %d", i);
        test_answer_free(&a[i]);
    }
    free(a), free(lora), free(factors);
    sd_engine_close(e);
    free_world(&w);
}
