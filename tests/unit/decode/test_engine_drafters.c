// The engine's list of drafters: a kind that it never heard of is registered, asked, paid for,
// scored and named, through its table alone.
#include "decode/engine/private.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include "base/memory.h"

#include <criterion/criterion.h>
#include <string.h>

enum { PROMPT = 40, N = 48, LATE = 5 };

// ---- a drafter that proposes what it is told, and counts how it is used

typedef struct {
    const int32_t *answer; // [N] what follows the prompt
    int wrong_every;       // > 0: each so many-th position is told wrongly
    int32_t wrong;         // the token then
    size_t bytes;          // that a proposal reads
    int late;              // calls of prepare before it is ready
    bool absent, fails, unwilling;

    int shared, opened; // now
    int begun, seen, prepared, asked, asked_unready;
} script;
static script told; // of the one engine at a time

typedef struct {
    sd_drafter base;
    script *script;
    int n, ahead, waits;
} drafter;

static sd_status told_share(void **shared, bool *present, const sd_draft_setup *setup,
                            sd_error *err) {
    cr_assert(setup->target && setup->pool && setup->draft);
    *present = !told.absent;
    if (told.fails) return sd_fail(err, SD_ELIMIT, "told: there is nothing to tell");
    if (told.absent) return SD_OK;
    told.shared++;
    *shared = &told;
    return SD_OK;
}

static void told_unshare(void *shared) {
    cr_assert_eq(((script *)shared)->opened, 0, "its drafters are closed before");
    ((script *)shared)->shared--;
}

static bool told_serves(const void *shared, const sd_corpus *own) {
    return !((const script *)shared)->unwilling || own;
}

static size_t told_bytes(const void *shared) {
    return ((const script *)shared)->bytes;
}

static sd_status open_as(sd_drafter **out, const sd_drafter_kind *kind, void *shared, int ctx) {
    drafter *d = sd_alloc(1, sizeof *d);
    cr_assert(d && ctx == 200 && (!shared || shared == &told));
    d->base.kind = kind;
    d->script = &told;
    d->script->opened++;
    *out = &d->base;
    return SD_OK;
}

static void told_close(sd_drafter *base) {
    ((drafter *)base)->script->opened--;
    free(base);
}

static void told_begin(sd_drafter *base, const sd_draft_start *start) {
    drafter *d = (drafter *)base;
    d->n = start->n;
    d->waits = d->script->late;
    d->script->begun++;
}

static void told_observe(sd_drafter *base, int n) {
    drafter *d = (drafter *)base;
    cr_assert_gt(n, d->n);
    d->script->seen += n - d->n;
    d->n = n;
}

static int told_missing(const sd_drafter *base) {
    return ((const drafter *)base)->waits;
}

static bool told_prepare(sd_drafter *base, int rows) {
    drafter *d = (drafter *)base;
    cr_assert_gt(rows, 0);
    d->script->prepared++;
    if (d->waits > 0) d->waits--;
    return d->waits == 0;
}

static void told_rewind(sd_drafter *base) {
    ((drafter *)base)->ahead = 0;
}

static bool told_peek(sd_drafter *base, sd_proposal *out) {
    drafter *d = (drafter *)base;
    int i = d->n - PROMPT + d->ahead;
    d->script->asked++;
    d->script->asked_unready += d->waits > 0;
    if (i < 0 || i >= N) return false;
    bool wrong = d->script->wrong_every > 0 && i % d->script->wrong_every == 0;
    *out = (sd_proposal){wrong ? d->script->wrong : d->script->answer[i], 7, 1};
    return true;
}

static void told_advance(sd_drafter *base, int32_t token) {
    (void)token;
    ((drafter *)base)->ahead++;
}

static float told_prior(int bucket) {
    cr_assert_eq(bucket, 7);
    return 1;
}

// The kinds of it: their table, and an open that knows it.
#define KIND(kind, ...)                                                                            \
    static sd_status open_##kind(sd_drafter **out, void *shared, int ctx, sd_error *err);          \
    static const sd_drafter_kind kind = {.open = open_##kind,                                      \
                                         .close = told_close,                                      \
                                         .begin = told_begin,                                      \
                                         .observe = told_observe,                                  \
                                         .rewind = told_rewind,                                    \
                                         .peek = told_peek,                                        \
                                         .advance = told_advance,                                  \
                                         .prior = told_prior,                                      \
                                         __VA_ARGS__};                                             \
    static sd_status open_##kind(sd_drafter **out, void *shared, int ctx, sd_error *err) {         \
        (void)err;                                                                                 \
        return open_as(out, &kind, shared, ctx);                                                   \
    }
KIND(free_kind, .name = "told")
KIND(priced_kind, .name = "told", .share = told_share, .unshare = told_unshare,
     .read_bytes = told_bytes, .missing = told_missing, .prepare = told_prepare)
// It goes by the draft model's mode.
KIND(long_kind, .name = "sixteen letters!")
KIND(draft_kind, .name = "draft", .absent = "nobody told it anything; tell it something",
     .share = told_share, .unshare = told_unshare, .serves = told_serves)

// ---- the engine with it

typedef struct {
    sd_model *model;
    int32_t prompt[PROMPT], want[N];
    sd_request request;
} world;

static const sd_sampling law = {.temperature = .8f, .top_p = 1, .seed = 5};

static void open_world(world *w) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    w->model = sd_tiny_open(&t, true);
    test_repetitive(w->prompt, PROMPT, 12, 250);
    test_plain(w->want, NULL, N, w->model, w->prompt, PROMPT, &law, NULL, false);
    w->request = (sd_request){.prompt = w->prompt,
                              .n_prompt = PROMPT,
                              .max_tokens = N,
                              .sampling = law,
                              .ignore_end = true,
                              .logprobs = -1};
    told = (script){.answer = w->want};
}

static sd_engine *open_engine(const world *w, const sd_drafter_kind *const *list, int length) {
    return test_engine_open(
        w->model,
        &(sd_engine_options){
            .ctx = 200, .slots = 2, .threads = 1, .spec_length = length, .drafters = list});
}

// The answer is plain decoding's; the statistics of the request.
static sd_spec_stats answer(sd_engine *e, const world *w) {
    test_answer a = {0};
    test_run(e, &w->request, &a);
    cr_assert(a.ids.n == N && memcmp(a.ids.id, w->want, sizeof w->want) == 0);
    sd_spec_stats s = a.stats.spec;
    test_answer_free(&a);
    return s;
}

Test(drafters, one_that_is_registered_is_used_scored_and_named) {
    world w;
    open_world(&w);
    const sd_drafter_kind *const list[] = {&sd_drafter_suffix, &free_kind, NULL};
    sd_engine *e = open_engine(&w, list, 4);
    cr_assert_eq(told.opened, 2, "one a slot");
    sd_spec_stats s = answer(e, &w);
    cr_assert_str_eq(s.by[0].name, "suffix");
    cr_assert_str_eq(s.by[1].name, "told");
    cr_assert_eq(s.by[2].name[0], 0);
    cr_assert_eq(s.by[0].drafted + s.by[1].drafted, s.drafted);
    cr_assert_geq(s.by[1].drafted, N / 2, "the surest is taken");
    cr_assert_eq(s.by[1].accepted, s.by[1].drafted, "and it is always right");
    cr_assert(told.begun == 1 && told.seen >= N - 5 && told.seen < N, "all but the last round: %d",
              told.seen);
    const sd_tally *t = &e->control.all.of[1][7];
    cr_assert(t->seen > N / 2 && t->hit == t->seen, "%g of %g", (double)t->hit, (double)t->seen);
    sd_engine_stats of_engine;
    sd_engine_get_stats(e, &of_engine);
    cr_assert_str_eq(of_engine.spec.by[1].name, "told");
    cr_assert_eq(of_engine.spec.by[1].drafted, s.by[1].drafted);
    sd_engine_close(e);
    cr_assert_eq(told.opened, 0);
    sd_model_release(w.model);
}

Test(drafters, what_one_says_wrongly_or_outside_the_vocabulary_is_rejected_and_scored) {
    world w;
    open_world(&w);
    const sd_drafter_kind *const list[] = {&free_kind, NULL};
    for (int strange = 0; strange < 3; strange++) {
        sd_engine *e = open_engine(&w, list, 4);
        told = (script){.answer = w.want, .wrong_every = 3, .opened = 2};
        told.wrong = strange == 0 ? w.want[0] ^ 1 : strange == 1 ? w.model->hp.V : -1;
        sd_spec_stats s = answer(e, &w);
        const sd_tally *t = &e->control.all.of[0][7];
        cr_assert_lt(s.accepted, s.drafted);
        cr_assert_gt(s.by[0].accepted, N / 4);
        if (strange == 0)
            cr_assert_lt(t->hit, t->seen - 4, "%g of %g", (double)t->hit, (double)t->seen);
        else
            cr_assert_eq(t->hit, t->seen, "a token that cannot be proposed is no proposal");
        sd_engine_close(e);
    }
    sd_model_release(w.model);
}

Test(drafters, one_that_must_prepare_is_asked_when_it_is_ready_and_its_time_is_counted) {
    world w;
    open_world(&w);
    told.late = LATE;
    told.bytes = 1;
    const sd_drafter_kind *const list[] = {&sd_drafter_suffix, &priced_kind, NULL};
    sd_engine *e = open_engine(&w, list, 4);
    cr_assert_eq(told.shared, 1);
    sd_spec_stats s = answer(e, &w);
    cr_assert_eq(told.asked_unready, 0);
    cr_assert_geq(told.prepared, s.rounds - 1, "in each round that has room for a draft");
    cr_assert(s.by[1].drafted > N / 4 && s.by[1].accepted == s.by[1].drafted);
    cr_assert_gt(e->control.proposal_s[1], 0);
    cr_assert_eq(e->control.proposal_s[0], 0, "what is free has no price");
    sd_engine_close(e);
    cr_assert(told.opened == 0 && told.shared == 0);
    sd_model_release(w.model);
}

Test(drafters, one_whose_proposals_cost_more_than_they_gain_is_left_alone) {
    world w;
    open_world(&w);
    const sd_drafter_kind *const list[] = {&priced_kind, NULL};
    int prepared[2];
    for (int dear = 0; dear < 2; dear++) {
        told = (script){.answer = w.want, .bytes = dear ? SIZE_MAX / 2 : 0};
        sd_engine *e = open_engine(&w, list, 0);
        e->control.unit = 1e-3; // what a step costs; unknown, it would be tried
        answer(e, &w);
        prepared[dear] = told.prepared;
        sd_engine_close(e);
    }
    cr_assert_eq(prepared[1], 0, "a proposal that reads more than any model is never worth it");
    cr_assert_gt(prepared[0], 0);
    sd_model_release(w.model);
}

// ---- who is registered, and who serves a request

static void expect_refusal(const world *w, const sd_engine_options *o, const char *part) {
    sd_engine *e = NULL;
    sd_error err = {0};
    sd_status st = sd_engine_open(&e, w->model, o, &err);
    if (st == SD_OK) st = sd_engine_submit(e, &w->request, NULL, &err);
    cr_assert(st == SD_EINVAL || st == SD_ELIMIT, "status %d", (int)st);
    cr_assert(strstr(err.message, part), "%s", err.message);
    sd_engine_close(e);
    cr_assert(told.shared == 0 && told.opened == 0);
}

Test(drafters, a_mode_asks_for_one_by_its_name) {
    world w;
    open_world(&w);
    const sd_drafter_kind *const list[] = {&sd_drafter_suffix, &draft_kind, NULL};
    sd_engine *e = open_engine(&w, list, 2);
    w.request.spec = SD_SPEC_DRAFT;
    sd_spec_stats s = answer(e, &w);
    cr_assert(s.by[0].drafted == 0 && s.by[1].drafted > 0);
    w.request.spec = SD_SPEC_SUFFIX;
    s = answer(e, &w);
    cr_assert(s.by[0].drafted > 0 && s.by[1].drafted == 0);
    w.request.spec = SD_SPEC_OFF;
    cr_assert_eq(answer(e, &w).drafted, 0);
    cr_assert_eq(told.begun, 1, "it begins with the requests that it drafts for");
    told.unwilling = true;
    w.request.spec = SD_SPEC_AUTO;
    s = answer(e, &w);
    cr_assert(s.by[0].drafted > 0 && s.by[1].drafted == 0);
    sd_engine_close(e);
    sd_model_release(w.model);
}

Test(drafters, one_that_has_nothing_to_draft_from_is_not_registered_and_its_sentence_says_so) {
    world w;
    open_world(&w);
    const sd_drafter_kind *const list[] = {&sd_drafter_suffix, &draft_kind, NULL};
    sd_engine_options o = {.ctx = 200, .slots = 1, .threads = 1, .drafters = list};
    told.absent = true;
    sd_engine *e = open_engine(&w, list, 2);
    sd_spec_stats s = answer(e, &w);
    cr_assert_eq(s.by[1].name[0], 0);
    sd_engine_close(e);
    w.request.spec = SD_SPEC_DRAFT;
    expect_refusal(&w, &o, "nobody told it anything");
    o.spec = SD_SPEC_DRAFT;
    expect_refusal(&w, &o, "nobody told it anything");
    told.absent = false;
    told.unwilling = true;
    expect_refusal(&w, &o, "nobody told it anything");
    told.fails = true;
    expect_refusal(&w, &o, "nothing to tell");
    // Asked for where the list has no such kind at all.
    o.drafters = (const sd_drafter_kind *const[]){&sd_drafter_suffix, NULL};
    expect_refusal(&w, &o, "\"draft\" was asked for and this engine has no such drafter");
    const sd_drafter_kind *many[SD_MAX_DRAFTERS + 2] = {NULL};
    for (int i = 0; i <= SD_MAX_DRAFTERS; i++) many[i] = &draft_kind;
    told = (script){.answer = w.want};
    o.drafters = many;
    expect_refusal(&w, &o, "one drafter too many");
    o.drafters = (const sd_drafter_kind *const[]){&long_kind, NULL};
    expect_refusal(&w, &o, "\"sixteen letters!\" is too long for a drafter's name; at most 15");
    sd_model_release(w.model);
}

Test(drafters, each_of_the_list_goes_by_the_word_of_its_mode) {
    static const char modes[] = SD_SPEC_MODES;
    static const char *const words[] = {
#define WORD(spec, kind, word) word,
        SD_DRAFTER_LIST(WORD)};
    int n = 0;
    cr_assert_eq(strncmp(modes, "auto|off|", 9), 0);
    for (const char *m = modes + 9; sd_drafters[n]; n++) {
        cr_assert_str_eq(sd_drafters[n]->name, words[n]);
        cr_assert_eq(strncmp(m, words[n], strlen(words[n])), 0, "%s", m);
        m += strlen(words[n]) + 1;
    }
    cr_assert_eq(n, SD_SPEC_COUNT - 2);
    cr_assert_eq(n, (int)(sizeof words / sizeof *words));
}
