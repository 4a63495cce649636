// Speculation in ragged batches: requests of all kinds come, go and are cancelled at random steps,
// drafts have another length in each round, and some rounds are the controller's. Answers, their text
// and their ends are those of plain decoding one by one, and after rounds every cache holds the bytes
// that a prefill from scratch writes.
#include "decode/draft/private.h"
#include "decode/engine/private.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/sanitized.h"
#include "tests/unit/support/tiny/model.h"

#include "base/files/path.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <string.h>

enum {
    SAMPLINGS = 8,
    KINDS = 5, // plain, penalties, a stop string, an adapter, a stop token
    REQUESTS = SAMPLINGS * KINDS,
    PROMPT_MOST = 90,
    N = 40,
    CTX = 160,
    SLOTS = 5,
    LONGEST = 13 // SLOTS times this is at least SD_DRAFT_ROWS
};

static uint64_t drawn;

static int draw(int below) {
    uint32_t r[4];
    sd_philox(r, 17, SD_STREAM_INIT, drawn++);
    return (int)(r[0] % (uint32_t)below);
}

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

typedef struct {
    char *dir, *draft, *index;
    sd_model *model;
    sd_adapter *adapter;
    int32_t prompt[REQUESTS][PROMPT_MOST], stop_token[REQUESTS];
    char stop[REQUESTS][4];
    sd_request request[REQUESTS];
    test_answer want[REQUESTS];
} world;

static sd_adapter *random_adapter(sd_model *m) {
    enum { R = 4, MOST = 4 * 1024 };
    sd_lora *lora = calloc((size_t)m->n_linears, sizeof *lora);
    float *factors = calloc(MOST, sizeof *factors);
    for (int i = 0; i < MOST; i++) factors[i] = (float)(draw(1000) - 500) * 1e-3f;
    for (int i = 0; i < m->n_linears; i++)
        lora[i] = (sd_lora){.r = R, .A = factors, .B = factors + 64, .scale = .5f};
    sd_adapter *a = NULL;
    cr_assert_eq(sd_adapter_from_factors(&a, "random", lora, m, NULL), SD_OK);
    free(lora), free(factors);
    return a;
}

static void make_request(world *w, int i) {
    int n = 20 + draw(PROMPT_MOST - 20);
    test_repetitive(w->prompt[i], n, (uint64_t)(400 + i), 250);
    w->request[i] = (sd_request){.prompt = w->prompt[i],
                                 .n_prompt = n,
                                 .max_tokens = N - draw(10),
                                 .sampling = samplings[i % SAMPLINGS],
                                 .ignore_end = true,
                                 .logprobs = i % 7 == 0 ? 2 : -1};
}

// What ends or shapes it, by its kind; the plain answer says where a stop is met.
static void shape_request(world *w, sd_engine *plain, int i) {
    sd_request *r = &w->request[i];
    test_answer a = {0};
    switch (i / SAMPLINGS) {
    case 1:
        r->shaping.repetition = 1.3f;
        r->shaping.presence = .4f;
        r->shaping.frequency = .2f;
        break;
    case 2:
        test_run(plain, r, &a);
        cr_assert_gt(a.text.len, 20);
        memcpy(w->stop[i], a.text.data + a.text.len / 2, 2);
        r->stop[0] = w->stop[i], r->n_stop = 1;
        break;
    case 3:
        r->adapter = w->adapter;
        break;
    case 4:
        test_run(plain, r, &a);
        w->stop_token[i] = a.ids.id[a.ids.n / 2];
        r->stop_token = &w->stop_token[i], r->n_stop_token = 1;
        break;
    default:
        break;
    }
    test_answer_free(&a);
}

static world *make_world(void) {
    world *w = calloc(1, sizeof *w);
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2), near = t;
    int32_t corpus[REQUESTS * (N + 1)];
    int n = 0;
    near.dtype = SD_Q8_0;
    w->dir = sd_tiny_dir();
    w->draft = sd_path_join(w->dir, "near.gguf");
    w->index = sd_path_join(w->dir, "corpus.idx");
    cr_assert_eq(sd_tiny_write_gguf(w->draft, &near, NULL), SD_OK);
    w->model = sd_tiny_open(&t, true);
    w->adapter = random_adapter(w->model);
    sd_engine *plain = test_engine_open(
        w->model, &(sd_engine_options){.ctx = CTX, .slots = 1, .threads = 1, .spec = SD_SPEC_OFF});
    for (int i = 0; i < REQUESTS; i++) {
        make_request(w, i);
        shape_request(w, plain, i);
        test_run(plain, &w->request[i], &w->want[i]);
        for (int j = 0; j < w->want[i].ids.n; j++)
            corpus[n++] = j % 9 == 8 ? 3 : w->want[i].ids.id[j];
        corpus[n++] = -1;
    }
    sd_engine_close(plain);
    cr_assert_eq(sd_corpus_write(w->index, corpus, n, NULL, 0,
                                 sd_tokenizer_fingerprint(w->model->tokenizer), NULL, NULL),
                 SD_OK);
    return w;
}

static void free_world(world *w) {
    for (int i = 0; i < REQUESTS; i++) test_answer_free(&w->want[i]);
    sd_adapter_release(w->adapter);
    sd_model_release(w->model);
    free(w->draft), free(w->index);
    sd_tiny_remove(w->dir);
    free(w);
}

// ---- caches

// A cache filled in one go on a context of its own.
static void check_cache(const sd_kv *is, sd_context *cx, const int32_t *tokens,
                        sd_adapter *adapter) {
    sd_kv *want = NULL;
    sd_row rows[CTX];
    if (is->len == 0) return;
    cr_assert_eq(sd_kv_open(&want, cx, CTX, NULL), SD_OK);
    for (int i = 0; i < is->len; i++)
        rows[i] = (sd_row){.token = tokens[i], .pos = i, .kv = want, .adapter = adapter};
    cr_assert_eq(sd_forward(cx, rows, is->len, NULL, NULL), SD_OK);
    cr_assert(sd_kv_equal(is, want, is->len));
    sd_kv_close(want);
}

// Returns how many of the draft's caches were compared.
static int check_caches(const sd_engine *e, sd_context *cx, sd_context *draft_cx) {
    int compared = 0;
    for (int i = 0; i < e->n_slots; i++) {
        const sd_slot *s = &e->slot[i];
        if (sd_slot_missing(s) != 1) continue;
        check_cache(s->kv, cx, s->timeline, s->request->r.adapter);
        for (int k = 0; k < e->n_drafters; k++) {
            if (e->drafter[k].kind != &sd_drafter_model || !s->active[k]) continue;
            const sd_kv *kv = sd_drafter_model_kv(s->drafter[k]);
            cr_assert_lt(kv->len, s->n);
            check_cache(kv, draft_cx, s->timeline, NULL);
            compared += kv->len > 0;
        }
    }
    return compared;
}

// ---- a run

typedef struct {
    test_answer answer[REQUESTS];
    uint64_t id[REQUESTS];
    bool cancelled[REQUESTS];
    int submitted, compared;
} round_trip;

static void submit(sd_engine *e, const world *w, round_trip *t, sd_spec_mode spec) {
    int i = t->submitted++;
    sd_request r = w->request[i];
    r.spec = spec;
    r.on_event = test_collect, r.ctx = &t->answer[i];
    cr_assert_eq(sd_engine_submit(e, &r, &t->id[i], NULL), SD_OK);
}

static void cancel_one(sd_engine *e, round_trip *t) {
    int i = draw(t->submitted);
    if (t->answer[i].finish) return;
    t->cancelled[i] = true;
    sd_engine_cancel(e, t->id[i]);
}

static void check_answers(const world *w, round_trip *t) {
    for (int i = 0; i < REQUESTS; i++) {
        const test_answer *is = &t->answer[i], *want = &w->want[i];
        cr_assert_leq(is->ids.n, want->ids.n);
        if (!t->cancelled[i]) {
            cr_assert_eq(is->finish, want->finish, "request %d", i);
            cr_assert_eq(is->ids.n, want->ids.n, "request %d: %d of %d tokens", i, is->ids.n,
                         want->ids.n);
            cr_assert(is->text.len == want->text.len &&
                          (want->text.len == 0 ||
                           memcmp(is->text.data, want->text.data, want->text.len) == 0),
                      "request %d", i);
            cr_assert_eq(memcmp(is->logprob, want->logprob, sizeof is->logprob), 0);
        }
        if (is->ids.n > 0)
            cr_assert_eq(memcmp(is->ids.id, want->ids.id, (size_t)is->ids.n * sizeof(int32_t)), 0,
                         "request %d", i);
        test_answer_free(&t->answer[i]);
    }
}

static void run(const world *w, sd_spec_mode spec, const char *draft, int run_no, sd_context *cx,
                sd_context *draft_cx) {
    round_trip *t = calloc(1, sizeof *t);
    sd_engine *e =
        test_engine_open(w->model, &(sd_engine_options){.ctx = CTX,
                                                        .slots = SLOTS,
                                                        .threads = 1 + run_no % 2,
                                                        .prefill_chunk = 11 + 30 * run_no,
                                                        .spec_length = LONGEST,
                                                        .draft = draft,
                                                        .draft_kv = run_no % 2 ? 2 * CTX : 0});
    drawn = (uint64_t)(run_no + 1) << 32;
    for (int steps = 0; t->submitted < REQUESTS || sd_engine_step(e); steps++) {
        if (t->submitted < REQUESTS && (steps == 0 || draw(3) == 0)) submit(e, w, t, spec);
        if (t->submitted < REQUESTS) sd_engine_step(e);
        if (draw(40) == 0) cancel_one(e, t);
        e->planner->o.length = draw(4) == 0 ? 0 : 1 + draw(LONGEST);
        if (steps % (SD_SANITIZED ? 20 : 5) == 0) t->compared += check_caches(e, cx, draft_cx);
    }
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    cr_assert_gt(s.spec.accepted, spec == SD_SPEC_SUFFIX ? 20 : 150, "%lld accepted",
                 (long long)s.spec.accepted);
    cr_assert_gt(s.spec.drafted - s.spec.accepted, 300);
    if (draft == w->draft) cr_assert_gt(t->compared, SD_SANITIZED ? 4 : 20);
    check_answers(w, t);
    sd_engine_close(e);
    free(t);
}

Test(rounds, of_any_length_in_ragged_batches_change_no_answer_and_no_cache, .timeout = 600) {
    world *w = make_world();
    sd_model *draft = NULL;
    sd_context *cx = NULL, *draft_cx = NULL;
    const sd_context_options o = {.max_rows = CTX};
    cr_assert_eq(sd_model_open(&draft, w->draft, NULL), SD_OK);
    cr_assert_eq(sd_context_open(&cx, w->model, NULL, &o, NULL), SD_OK);
    cr_assert_eq(sd_context_open(&draft_cx, draft, NULL, &o, NULL), SD_OK);
    for (int i = 0; i < (SD_SANITIZED ? 1 : 3); i++) {
        run(w, SD_SPEC_SUFFIX, NULL, i, cx, draft_cx);
        run(w, SD_SPEC_CORPUS, w->index, i, cx, draft_cx);
        run(w, SD_SPEC_DRAFT, w->draft, i, cx, draft_cx);
        run(w, SD_SPEC_AUTO, w->draft, i, cx, draft_cx);
    }
    sd_context_close(cx), sd_context_close(draft_cx);
    sd_model_release(draft);
    free_world(w);
}
