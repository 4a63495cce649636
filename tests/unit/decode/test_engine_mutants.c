// Bugs of speculative decoding and of admission, planted on purpose: each must be seen by the
// comparison that the exactness tests rest on, or by what the tests of fairness count.
//
// step.c and queue.c are compiled into this test a second time with functions they
// call replaced; the linker then leaves the library's own copies out. `planted` chooses the bug at
// run time, and without one the same build must agree with plain decoding.
#include "decode/engine/private.h"

typedef enum {
    NO_BUG,
    NOISE_OF_THE_ROUND,   // every row of a round draws with the first row's noise
    BONUS_FROM_ROW_ABOVE, // the token after the drafts is drawn from the row before
    ACCEPTS_NEAR_MISSES,  // a draft token among the two most probable is accepted
    STALE_KEYS,           // the last draft's keys and values are those of another token
    POSITION_OFF_BY_ONE,  // drafts stand one place too far on
    KV_NOT_TRIMMED,       // a rejected draft's keys and values are kept as if it had been accepted
    BUGS
} bug;
static bug planted;
static bool admits_all, forgets_said; // bugs of the queue
static const sd_slot *watched;
static int32_t kept = -1; // the draft that the last round rejected; -1: none

static sd_status mutant_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                                sd_picked *picked, sd_error *err);
static void mutant_score(sd_engine *e, sd_slot *s, const int32_t *emitted, int n);
static bool mutant_room(const sd_share *s, int64_t more);
static bool mutant_carry(sd_slot *s);
#define sd_forward_pick mutant_forward
#define sd_engine_score mutant_score
#include "../../../decode/engine/step.c"
#undef sd_forward_pick
#undef sd_engine_score
#define sd_fair_room mutant_room
#define sd_slot_carry mutant_carry
#include "../../../decode/engine/queue.c"
#undef sd_fair_room
#undef sd_slot_carry

#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>

enum { V = 288, ROWS = 512 };

// The token of the j-th of a round's rows, from its own logits and those of the rows before.
static int32_t mutant_sample(sd_sampler *s, const float *logits, const sd_row *row, int j) {
    int64_t pos = row->pos + 1;
    if (planted == NOISE_OF_THE_ROUND) pos -= j;
    if (planted == BONUS_FROM_ROW_ABOVE && j > 0 && j == watched->plan.g) logits -= V;
    if (planted == ACCEPTS_NEAR_MISSES && watched && sd_slot_missing(watched) == 1 &&
        j < watched->plan.g) {
        int32_t top[2];
        sd_top_tokens(top, 2, logits, V);
        if (watched->plan.draft[j] == top[0] || watched->plan.draft[j] == top[1])
            return watched->plan.draft[j];
    }
    return sd_sample(s, logits, row->pick->shaping, row->pick->sampling, pos);
}

// The tokens are picked here, from logits that all rows with a pick are made to want.
static sd_status mutant_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                                sd_picked *picked, sd_error *err) {
    static float own[ROWS * V];
    sd_row copy[ROWS];
    if (n > ROWS || !logits || sd_context_model(cx)->hp.V != V) abort();
    for (int i = 0; i < n; i++) {
        copy[i] = rows[i];
        copy[i].want_logits = rows[i].pick != NULL;
        copy[i].pick = NULL;
        bool drafted = watched && sd_slot_missing(watched) == 1 && i > 0;
        if (planted == STALE_KEYS && drafted && i == n - 1) copy[i].token = (rows[i].token + 1) % V;
        if (planted == POSITION_OFF_BY_ONE && drafted) copy[i].pos++;
        if (planted == KV_NOT_TRIMMED && i == 0 && kept >= 0) copy[i].token = kept;
    }
    sd_status st = sd_forward(cx, copy, n, own, err);
    sd_sampler *s = sd_sampler_open(V);
    for (int i = 0, k = 0; st == SD_OK && i < n; i++) {
        if (!rows[i].pick) continue;
        // A round begins with the row whose index is first_picked.
        int j = watched && sd_slot_missing(watched) == 1 ? k - watched->first_picked : 0;
        picked[k].token = mutant_sample(s, own + (size_t)k * V, &rows[i], j);
        k++;
    }
    sd_sampler_close(s);
    return st;
}

// Called where a round's cache has just been committed.
static void mutant_score(sd_engine *e, sd_slot *s, const int32_t *emitted, int n) {
    kept = n <= s->plan.g && s->plan.draft[n - 1] != emitted[n - 1] ? s->plan.draft[n - 1] : -1;
    sd_engine_score(e, s, emitted, n);
}

static bool mutant_room(const sd_share *s, int64_t more) {
    return admits_all || sd_fair_room(s, more);
}

static bool mutant_carry(sd_slot *s) {
    bool ok = sd_slot_carry(s);
    if (ok && forgets_said && s->stats.generated > 0) s->request->carried->n--;
    return ok;
}

enum { PROMPT = 60, N = 60 };

// Whether some answer of the mutant engine differs from plain decoding.
static bool differs(bug b, sd_model *m) {
    static const sd_sampling laws[] = {{.temperature = 0, .top_p = 1},
                                       {.temperature = .08f, .top_p = 1, .seed = 3},
                                       {.temperature = .2f, .top_p = .9f, .seed = 4}};
    bool found = false;
    int64_t accepted = 0;
    for (int i = 0; i < 3; i++)
        for (int length = 1; length <= 4; length += 3) {
            int32_t prompt[PROMPT], want[N];
            test_repetitive(prompt, PROMPT, 70 + i, 250);
            planted = NO_BUG;
            test_plain(want, NULL, N, m, prompt, PROMPT, &laws[i], NULL, false);
            sd_engine *e = test_engine_open(
                m,
                &(sd_engine_options){.ctx = 200, .slots = 1, .threads = 1, .spec_length = length});
            planted = b;
            kept = -1;
            watched = &e->slot[0];
            test_answer a = {0};
            sd_request r = {.prompt = prompt,
                            .n_prompt = PROMPT,
                            .max_tokens = N,
                            .ignore_end = true,
                            .logprobs = -1,
                            .sampling = laws[i]};
            test_run(e, &r, &a);
            found |= a.ids.n != N || memcmp(a.ids.id, want, sizeof want) != 0;
            accepted += a.stats.spec.accepted;
            test_answer_free(&a);
            watched = NULL;
            sd_engine_close(e);
        }
    cr_assert_gt(accepted, 0, "a bug that is never reached proves nothing");
    return found;
}

Test(mutants, every_planted_bug_is_seen_and_none_is_seen_without_one) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    cr_assert_eq(m->hp.V, 288);
    for (bug b = NO_BUG; b < BUGS; b++) cr_assert_eq(differs(b, m), b != NO_BUG, "bug %d", (int)b);
    sd_model_release(m);
}

static sd_status submit(sd_engine *e, uint64_t client, const int32_t *prompt, test_answer *a) {
    sd_request r = {.prompt = prompt,
                    .n_prompt = PROMPT,
                    .max_tokens = N,
                    .ignore_end = true,
                    .logprobs = -1,
                    .sampling = {.temperature = 1, .top_p = 1, .seed = 3},
                    .client = client,
                    .on_event = test_collect,
                    .ctx = a};
    return sd_engine_submit(e, &r, NULL, NULL);
}

// Requests that a queue of four takes while two slots are free.
static int taken(sd_model *m, const int32_t *prompt) {
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.slots = 2, .queue = 4, .threads = 1});
    int n = 0;
    test_answer a = {0};
    for (int i = 0; i < 20; i++) n += submit(e, 1, prompt, &a) == SD_OK;
    sd_engine_close(e);
    test_answer_free(&a);
    return n;
}

// Whether an answer that gave its slot back is still the same.
static bool resumes(sd_model *m, const int32_t *prompt) {
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.slots = 2, .threads = 1});
    test_answer a[3] = {0};
    for (int i = 0; i < 2; i++) submit(e, 1, prompt, &a[i]);
    for (int i = 0; i < 20; i++) sd_engine_step(e);
    submit(e, 2, prompt, &a[2]);
    while (sd_engine_step(e)) {
    }
    cr_assert_eq(e->stats.preemptions, 1);
    bool same = true;
    for (int i = 1; i < 3; i++)
        same &= a[i].ids.n == N && memcmp(a[i].ids.id, a[0].ids.id, N * sizeof(int32_t)) == 0;
    same &= a[0].ids.n == N;
    for (int i = 0; i < 3; i++) test_answer_free(&a[i]);
    sd_engine_close(e);
    return same;
}

Test(mutants, a_queue_without_its_check_and_an_answer_that_forgets_a_token_are_seen) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = sd_tiny_open(&t, true);
    int32_t prompt[PROMPT];
    test_repetitive(prompt, PROMPT, 70, 250);
    cr_assert_eq(taken(m, prompt), 6);
    admits_all = true;
    cr_assert_eq(taken(m, prompt), 20);
    admits_all = false;
    cr_assert(resumes(m, prompt));
    forgets_said = true;
    cr_assert_not(resumes(m, prompt));
    forgets_said = false;
    sd_model_release(m);
}

// White box, so it stands here: the prices are the engine's own.
Test(mutants, a_price_that_one_slow_step_spoilt_does_not_stay) {
    enum { LONG = 400 };
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = sd_tiny_open(&t, true);
    int32_t prompt[LONG];
    test_repetitive(prompt, LONG, 70, 250);
    sd_engine *e = test_engine_open(
        m, &(sd_engine_options){
               .slots = 1, .threads = 1, .prefill_chunk = 64, .step_ms = 1e3, .spec = SD_SPEC_OFF});
    for (int spoilt = 0; spoilt < 2; spoilt++) {
        if (spoilt)
            for (int i = 0; i < SD_DEPTHS; i++) e->prompt_cost[i] = 10;
        test_answer a = {0};
        sd_request r = {.prompt = prompt, .n_prompt = LONG, .max_tokens = 1, .logprobs = -1};
        int64_t before = e->stats.steps;
        test_run(e, &r, &a);
        int64_t steps = e->stats.steps - before;
        cr_assert_leq(steps, spoilt ? 250 : LONG / 64 + 4, "%d steps", (int)steps);
        test_answer_free(&a);
    }
    sd_engine_close(e);
    sd_model_release(m);
}
