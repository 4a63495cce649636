// Bugs of speculative decoding, planted on purpose: each must be seen by the comparison that the
// exactness tests rest on.
//
// engine_step.c is compiled into this test a second time with the functions it calls replaced; the
// linker then leaves the library's own copy out. `planted` chooses the bug at run time, and without
// one the same build must agree with plain decoding.
#include "decode/engine_private.h"

typedef enum {
    NO_BUG,
    NOISE_OF_THE_ROUND,   // every row of a round draws with the first row's noise
    BONUS_FROM_ROW_ABOVE, // the token after the drafts is drawn from the row before
    ACCEPTS_NEAR_MISSES,  // a guess among the two most probable is taken as right
    STALE_KEYS,           // the last guess's keys and values are those of another token
    POSITION_OFF_BY_ONE,  // guesses stand one place too far on
    BUGS
} bug;
static bug planted;
static const sd_slot *watched;

static int32_t mutant_sample(sd_sampler *s, const float *logits, const sd_sampling *p, int64_t pos);
static sd_status mutant_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                                sd_error *err);
#define sd_sample mutant_sample
#define sd_forward mutant_forward
#include "../../decode/engine_step.c"
#undef sd_sample
#undef sd_forward

#include "support_engine.h"
#include "support_tiny_model.h"

#include <criterion/criterion.h>

static int32_t mutant_sample(sd_sampler *s, const float *logits, const sd_sampling *p,
                             int64_t pos) {
    // While a round is verified the timeline grows token by token; the round began with the row
    // whose index is first_logits.
    int64_t j = 0;
    if (watched && watched->phase == SLOT_DECODE) j = watched->n_info;
    if (planted == NOISE_OF_THE_ROUND) pos -= j;
    if (planted == BONUS_FROM_ROW_ABOVE && j > 0 && j == watched->g) logits -= 288;
    if (planted == ACCEPTS_NEAR_MISSES && watched && watched->phase == SLOT_DECODE &&
        j < watched->g) {
        int32_t top[2];
        sd_top_tokens(top, 2, logits, 288);
        if (watched->draft[j] == top[0] || watched->draft[j] == top[1]) return watched->draft[j];
    }
    return sd_sample(s, logits, p, pos);
}

static sd_status mutant_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                                sd_error *err) {
    sd_row copy[512];
    if (n > 512) abort();
    for (int i = 0; i < n; i++) {
        copy[i] = rows[i];
        bool guess = watched && watched->phase == SLOT_DECODE && i > 0;
        if (planted == STALE_KEYS && guess && i == n - 1) copy[i].token = (rows[i].token + 1) % 288;
        if (planted == POSITION_OFF_BY_ONE && guess) copy[i].pos++;
    }
    return sd_forward(cx, copy, n, logits, err);
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
    sd_tiny_model t = sd_tiny_default(SD_ARCH_QWEN2);
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    cr_assert_eq(m->hp.V, 288);
    for (bug b = NO_BUG; b < BUGS; b++) cr_assert_eq(differs(b, m), b != NO_BUG, "bug %d", (int)b);
    sd_model_release(m);
}
