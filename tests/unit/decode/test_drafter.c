// The free drafters against what they are defined to say, and the controller's choices.
#include "base/files/hash.h"
#include "base/rng.h"
#include "decode/draft/controller.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int draw(uint64_t seed, int i, int below) {
    uint32_t r[4];
    sd_philox(r, seed, SD_STREAM_INIT, (uint64_t)i);
    return (int)(r[0] % (uint32_t)below);
}

// The longest suffix of text [n] that occurs with an end before n-1: its length, and the most
// recent such end.
static int longest_earlier(const int32_t *text, int n, int *end) {
    int best = 0;
    for (int e = n - 2; e >= 0; e--) {
        int len = 0;
        while (len <= e && text[e - len] == text[n - 1 - len]) len++;
        if (len > best) best = len, *end = e;
    }
    return best;
}

static sd_drafter *open_suffix(int ctx) {
    sd_drafter *d = NULL;
    cr_assert_eq(sd_drafter_suffix.open(&d, NULL, ctx, NULL), SD_OK);
    return d;
}

// Up to g proposals in a row: tokens [g], confidence [g] (may be NULL). Returns how many.
static int propose(sd_drafter *d, int g, int32_t *tokens, float *confidence) {
    sd_proposal p;
    int n = 0;
    d->kind->rewind(d);
    for (; n < g && d->kind->peek(d, &p); n++) {
        tokens[n] = p.token;
        if (confidence) confidence[n] = p.confidence;
        d->kind->advance(d, p.token);
    }
    return n;
}

static const sd_sampling greedy = {.top_p = 1};

Test(suffix, a_guess_is_what_followed_the_most_recent_longest_match) {
    enum { N = 600 };
    int guesses = 0;
    for (int alphabet = 2; alphabet <= 20; alphabet += 3) {
        int32_t text[N];
        sd_drafter *d = open_suffix(N);
        for (int i = 0; i < N; i++) text[i] = draw((uint64_t)alphabet, i, alphabet);
        sd_draft_start start = {.timeline = text, .n = 1, .sampling = &greedy};
        d->kind->begin(d, &start);
        for (int n = 2; n < N; n++) {
            d->kind->observe(d, n);
            d->kind->rewind(d);
            int end = -1, len = longest_earlier(text, n, &end);
            sd_proposal g;
            bool have = d->kind->peek(d, &g);
            cr_assert_eq(have, len > 0);
            if (!have) continue;
            cr_assert_eq(g.token, text[end + 1], "alphabet %d, %d tokens", alphabet, n);
            cr_assert(g.bucket >= 0 && g.bucket < SD_BUCKETS);
            guesses++;
        }
        sd_drafter_close(d);
    }
    cr_assert_gt(guesses, 3000);
}

// Tokens whose edges, by a hash that everybody knows, all begin in the same small part of the table.
Test(suffix, tokens_made_to_collide_take_no_quadratic_time, .timeout = 20) {
    enum { N = 100000, STRIDE = 8192 };
    uint32_t slots = 64;
    while (slots < N * 6) slots *= 2;
    int32_t *text = calloc(N, sizeof *text);
    for (int i = 0; i < N; i++) { // the i-th of different tokens leads on from state i
        int k = 0;
        do text[i] = i * STRIDE + k++;
        while (k < STRIDE &&
               ((uint32_t)sd_mix64((uint64_t)i << 32 | (uint32_t)text[i]) & (slots - 1)) > N / 8);
    }
    sd_drafter *d = open_suffix(N);
    d->kind->begin(d, &(sd_draft_start){.timeline = text, .n = N, .sampling = &greedy});
    sd_drafter_close(d);
    free(text);
}

Test(suffix, the_cursor_over_drafted_tokens_matches_as_if_they_were_text) {
    // After advancing over t, the guess is a token that follows some occurrence of the longest
    // suffix of text + t.
    enum { N = 300 };
    int32_t text[N + 1];
    sd_drafter *d = open_suffix(N);
    for (int i = 0; i < N; i++) text[i] = draw(9, i, 5);
    sd_draft_start start = {.timeline = text, .n = N, .sampling = &greedy};
    d->kind->begin(d, &start);
    for (int32_t t = 0; t < 7; t++) {
        d->kind->rewind(d);
        d->kind->advance(d, t);
        text[N] = t;
        int end = -1, len = longest_earlier(text, N + 1, &end);
        sd_proposal g;
        bool have = d->kind->peek(d, &g);
        cr_assert_eq(have, len > 0, "token %d", t);
        if (have) cr_assert_eq(g.token, text[end + 1], "token %d", t);
    }
    sd_drafter_close(d);
}

Test(suffix, a_repeating_text_is_continued_past_its_end) {
    int32_t text[] = {7, 1, 2, 3, 1, 2, 3}, got[9];
    float confidence[9];
    sd_drafter *d = open_suffix(32);
    sd_draft_start start = {.timeline = text, .n = 7, .sampling = &greedy};
    d->kind->begin(d, &start);
    cr_assert_eq(propose(d, 9, got, confidence), 9);
    for (int i = 0; i < 9; i++) {
        cr_assert_eq(got[i], 1 + i % 3);
        cr_assert(confidence[i] > 0 && confidence[i] <= 1);
    }
    cr_assert_geq(confidence[8], confidence[0]);
    sd_drafter_close(d);
}

Test(suffix, memory_is_capped_and_a_longer_text_is_survived) {
    int32_t text[400];
    for (int i = 0; i < 400; i++) text[i] = i % 2 ? draw(5, i, 50) : 1;
    sd_drafter *d = open_suffix(100);
    sd_draft_start start = {.timeline = text, .n = 400, .sampling = &greedy};
    d->kind->begin(d, &start);
    int32_t got[8];
    propose(d, 8, got, NULL);
    sd_drafter_close(d);
    cr_assert_eq(sd_drafter_suffix.open(&d, NULL, 0, NULL), SD_EINVAL);
}

// A drafter of an engine without an index of its own, over a vocabulary of letters.
static void *index_shared;
static sd_drafter *open_index(void) {
    static sd_model target;
    static sd_draft draft;
    const sd_draft_setup setup = {.target = &target, .draft = &draft};
    bool present = false;
    sd_drafter *d = NULL;
    cr_assert_eq(sd_drafter_corpus.share(&index_shared, &present, &setup, NULL), SD_OK);
    cr_assert_eq(sd_drafter_corpus.open(&d, index_shared, 4, NULL), SD_OK);
    return d;
}
static void close_index(sd_drafter *d) {
    sd_drafter_close(d);
    sd_drafter_corpus.unshare(index_shared);
}

Test(index, guesses_continue_the_training_completions) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/specdec_index_%d", (int)getpid());
    const int32_t seen[] = {5, 6, 7, 8, 9, -1, 5, 6, 7, 8, 10, -1, 5, 6, 7, 8, 9, -1};
    cr_assert_eq(sd_corpus_write(path, seen, 18, NULL, 0, "fingerprint", NULL, NULL), SD_OK);
    sd_corpus *c = NULL;
    cr_assert_eq(sd_corpus_open(&c, path, NULL), SD_OK);
    unlink(path);
    sd_drafter *d = open_index();
    int32_t text[] = {1, 2, 5, 6}, got[8];
    sd_draft_start start = {.timeline = text, .n = 4, .sampling = &greedy};
    d->kind->begin(d, &start);
    cr_assert_eq(propose(d, 8, got, NULL), 0, "no index, no guess");
    start.corpus = c;
    d->kind->begin(d, &start);
    cr_assert_eq(propose(d, 8, got, NULL), 3);
    cr_assert(got[0] == 7 && got[1] == 8 && got[2] == 9, "9 follows twice, 10 once");
    sd_proposal g;
    d->kind->rewind(d);
    d->kind->advance(d, 77); // never seen: nothing matches
    cr_assert_not(d->kind->peek(d, &g));
    d->kind->advance(d, 6);
    cr_assert(d->kind->peek(d, &g) && g.token == 7, "and it finds its way back");
    close_index(d);
    sd_corpus_close(c);
}

// Records of the form "k VALUE m VALUE", whose values stand in the prompt behind 1 and 2, up to a 3.
static sd_corpus *open_form(void) {
    static const int32_t seen[] = {50, 60, 61, 51, 70, 71, 72, 52, -1,
                                   50, 80, 81, 51, 90, 91, 52, -1};
    static const sd_corpus_copy copies[] = {{1, 2, {-1, -1, 1}, 3, 0},
                                            {4, 3, {3, 9, 2}, 3, 0},
                                            {10, 2, {-1, -1, 1}, 3, 0},
                                            {13, 2, {3, 8, 2}, 3, 0}};
    char path[64];
    sd_corpus *c = NULL;
    snprintf(path, sizeof path, "/tmp/specdec_form_%d", (int)getpid());
    cr_assert_eq(sd_corpus_write(path, seen, 17, copies, 4, "fingerprint", NULL, NULL), SD_OK);
    cr_assert_eq(sd_corpus_open(&c, path, NULL), SD_OK);
    unlink(path);
    cr_assert_eq(sd_corpus_n_copies(c), 4);
    return c;
}

Test(index, fills_a_form_from_the_prompt) {
    sd_corpus *c = open_form();
    sd_drafter *d = open_index();
    // Two values follow a 1: the last of them is taken, then the first 2 behind it.
    int32_t text[32] = {4, 1, 20, 3, 2, 21, 3, 1, 30, 31, 32, 3, 7, 2, 40, 41, 3, 2, 42, 3, 99},
            got[16];
    sd_draft_start start = {.timeline = text, .n = 21, .sampling = &greedy, .corpus = c};
    d->kind->begin(d, &start);
    static const int32_t want[] = {50, 30, 31, 32, 51, 40, 41, 52};
    cr_assert_eq(propose(d, 16, got, NULL), 8);
    for (int i = 0; i < 8; i++) cr_assert_eq(got[i], want[i], "%d: %d", i, got[i]);
    // Another token within a value ends it; what follows the value is found again by what is said.
    text[21] = 50, text[22] = 30, text[23] = 77;
    d->kind->observe(d, 24);
    cr_assert_eq(propose(d, 16, got, NULL), 0);
    text[24] = 51;
    d->kind->observe(d, 25);
    cr_assert_eq(propose(d, 16, got, NULL), 3);
    cr_assert(got[0] == 40 && got[1] == 41 && got[2] == 52);
    close_index(d);
    sd_corpus_close(c);
}

Test(index, a_prompt_without_the_value_gets_none) {
    sd_corpus *c = open_form();
    sd_drafter *d = open_index();
    // A 1 at the prompt's end, and a value of nothing.
    static const int32_t prompts[2][4] = {{5, 6, 7, 1}, {5, 1, 3, 6}};
    for (int i = 0; i < 2; i++) {
        int32_t text[8], got[8];
        memcpy(text, prompts[i], sizeof prompts[i]);
        sd_draft_start start = {.timeline = text, .n = 4, .sampling = &greedy, .corpus = c};
        d->kind->begin(d, &start);
        cr_assert(propose(d, 8, got, NULL) >= 1 && got[0] == 50);
        cr_assert(got[1] == 60 || got[1] == 80, "as the index has it");
    }
    close_index(d);
    sd_corpus_close(c);
}

// ---- the controller

static void step(sd_controller *c, int rows, int tokens, double seconds) {
    sd_controller_timed(c, 1, rows, seconds);
    sd_controller_progress(c, 1, tokens, seconds);
}

static void teach_costs(sd_controller *c, double unit, double row) {
    sd_controller_init(c);
    for (int i = 0; i < 60; i++)
        for (int n = 1; n <= 33; n += n < 8 ? 1 : 5) step(c, n, n, unit + row * (n - 1));
    c->speed_up = 1;
    c->backoff_tokens = 0;
}

static int take(const sd_controller *c, float accept_prob, int n) {
    float prefix_prob[SD_MAX_DRAFT], s = 1;
    for (int i = 0; i < n; i++) prefix_prob[i] = s *= accept_prob;
    sd_candidates k = {prefix_prob, n, -1};
    sd_controller_choose(c, &k, 1, 64);
    return k.take;
}

Test(controller, costs_follow_what_was_measured) {
    sd_controller c;
    teach_costs(&c, 0.010, 0.001);
    for (int n = 1; n <= 33; n += 4)
        cr_assert_float_eq(sd_controller_cost(&c, n), 0.010 + 0.001 * (n - 1),
                           0.04 * (0.010 + 0.001 * (n - 1)), "%d rows: %g", n,
                           sd_controller_cost(&c, n));
}

Test(controller, a_longer_draft_is_verified_when_rows_are_cheap_and_guesses_sure) {
    sd_controller cheap, dear;
    teach_costs(&cheap, 0.010, 0.0005);
    teach_costs(&dear, 0.010, 0.008);
    cr_assert_geq(take(&cheap, .98f, 40), 30);
    cr_assert_eq(take(&dear, .5f, 40), 0, "half a token for .8 of a step loses");
    int some = take(&cheap, .5f, 40);
    cr_assert(some >= 2 && some <= 6, "%d", some);
    cr_assert_gt(take(&cheap, .5f, 40), take(&dear, .5f, 40));
    cr_assert_eq(take(&cheap, .01f, 40), 0);
}

Test(controller, rows_go_to_the_requests_whose_guesses_are_surest) {
    sd_controller c;
    teach_costs(&c, 0.010, 0.002);
    float sure[] = {.95f, .9f, .85f, .8f}, unsure[] = {.2f, .1f, .05f, .01f};
    sd_candidates k[2] = {{unsure, 4, -1}, {sure, 4, -1}};
    sd_controller_choose(&c, k, 2, 64);
    cr_assert_gt(k[1].take, k[0].take);
    sd_controller_choose(&c, k, 2, 1);
    cr_assert(k[1].take == 1 && k[0].take == 0, "the budget holds");
}

Test(controller, acceptance_moves_from_the_prior_to_what_was_counted) {
    sd_controller c;
    sd_controller_init(&c);
    sd_acceptance own = {0};
    sd_drafter *d = open_suffix(8);
    float prior = d->kind->prior(0), before = sd_controller_accept_prob(&c, &own, 0, 0, prior);
    for (int i = 0; i < 200; i++) sd_controller_score(&c, &own, 0, 0, true);
    float good = sd_controller_accept_prob(&c, &own, 0, 0, prior);
    for (int i = 0; i < 400; i++) sd_controller_score(&c, &own, 0, 0, false);
    float bad = sd_controller_accept_prob(&c, &own, 0, 0, prior);
    cr_assert(before < .3f && good > .9f && bad < .15f, "%g %g %g", before, good, bad);
    sd_drafter_close(d);
}

Test(controller, the_guard_rests_when_speculation_is_slower_than_plain) {
    sd_controller c;
    teach_costs(&c, 0.010, 0.001);
    cr_assert_gt(take(&c, .9f, 8), 0);
    for (int i = 0; i < 300 && !sd_controller_backing_off(&c); i++) {
        step(&c, 1, 1, 0.010);
        step(&c, 5, 1, 0.014); // four guesses, all wrong
    }
    cr_assert(sd_controller_backing_off(&c));
    cr_assert_eq(take(&c, .9f, 8), 0);
    for (int i = 0; i < 256; i++) step(&c, 1, 1, 0.010);
    cr_assert_not(sd_controller_backing_off(&c), "and tries again after as many tokens");
}
