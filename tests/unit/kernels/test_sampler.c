// The sampler's law, its truncation sets and its independence of everything but its arguments.
#include "base/rng.h"
#include "kernels/sample/sampler.h"
#include "tests/unit/support/exact_law.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V = 32 };
// chi-square quantiles at p = 1e-6 (Wilson-Hilferty): 15 and 31 degrees of freedom.
#define CHI2_15 57.4
#define CHI2_31 84.2

static void random_logits(float *x, int n, uint64_t seed, float spread) {
    for (int i = 0; i < n; i++) {
        uint32_t r[4];
        sd_philox(r, seed, SD_STREAM_INIT, (uint64_t)i);
        x[i] = spread * ((float)sd_uniform64(r[0], r[1]) - 0.5f);
    }
}

static double chi_square(const int *seen, const double *p, int n, int draws, int *df) {
    double sum = 0;
    *df = -1;
    for (int i = 0; i < n; i++) {
        double want = p[i] * draws;
        if (p[i] == 0) {
            cr_assert_eq(seen[i], 0, "token %d is outside the law and was drawn", i);
            continue;
        }
        sum += (seen[i] - want) * (seen[i] - want) / want;
        ++*df;
    }
    return sum;
}

static double quantile(int df) { // at p = 1e-6
    double k = 2.0 / (9.0 * df), c = 1 - k + 4.7534 * sqrt(k);
    return df * c * c * c;
}

static double test_law(const float *x, const sd_sampling *drawn, const sd_sampling *expected,
                       int draws, int *df) {
    sd_sampler *s = sd_sampler_open(V);
    int seen[V] = {0};
    double p[V];
    for (int i = 0; i < draws; i++) seen[sd_sample(s, x, NULL, drawn, i)]++;
    test_exact_law(p, x, V, expected);
    sd_sampler_close(s);
    return chi_square(seen, p, V, draws, df);
}

Test(sampler, greedy_takes_the_largest_and_ties_go_to_the_lowest_id) {
    float x[40] = {0};
    sd_sampler *s = sd_sampler_open(40);
    sd_sampling p = {.temperature = 0, .top_p = 1};
    cr_assert_eq(sd_sample(s, x, NULL, &p, 3), 0);
    x[7] = x[39] = 2;
    cr_assert_eq(sd_sample(s, x, NULL, &p, 3), 7);
    x[38] = 2.5f;
    cr_assert_eq(sd_sample(s, x, NULL, &p, 3), 38);
    sd_sampler_close(s);
}

// The search by pieces against one look at every value in turn: ties within and across pieces, NaN,
// infinities, lengths around a piece.
static int32_t first_of_the_largest(const float *x, int n) {
    int32_t best = -1;
    for (int i = 0; i < n; i++)
        if (!isnan(x[i]) && (best < 0 || x[i] > x[best])) best = i;
    return best < 0 ? 0 : best;
}

Test(sampler, greedy_by_pieces_equals_the_argmax_of_the_row) {
    static const float odd[] = {NAN, -INFINITY, INFINITY, -0.0f, 0.0f};
    static const int lengths[] = {1, 15, 16, 17, 100, 1023, 1024, 1025, 1040, 2047, 2048, 3000};
    enum { MOST = 3000 };
    float x[MOST];
    unsigned seed = 5;
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        int n = lengths[k];
        for (int round = 0; round < 200; round++) {
            // From rows of nothing but NaN and infinities to rows of few distinct numbers.
            int odds = round % 8 < 4 ? 2 : 5, share = round % 5;
            for (int i = 0; i < n; i++) {
                seed = seed * 1103515245 + 12345;
                int r = (int)(seed >> 8 & 0xffff);
                x[i] = r % 4 < share ? odd[r / 4 % odds] : (float)(r / 20 % 400) - 500;
            }
            int32_t got = sd_greedy(x, n);
            cr_assert_eq(got, first_of_the_largest(x, n), "%d of %d", got, n);
        }
    }
}

Test(sampler, a_million_draws_follow_the_softmax) {
    float x[V];
    random_logits(x, V, 11, 6);
    sd_sampling p = {.temperature = 0.8f, .top_p = 1, .seed = 5};
    int df;
    double c = test_law(x, &p, &p, 1000000, &df);
    cr_assert_eq(df, 31);
    cr_assert_lt(c, CHI2_31, "chi-square %.1f", c);
}

Test(sampler, a_law_that_is_wrong_by_half_a_percent_would_be_seen) {
    // T = 0.8 drawn, T = 0.815 expected: a total variation of about .005.
    float x[V];
    random_logits(x, V, 11, 6);
    sd_sampling p = {.temperature = 0.8f, .top_p = 1, .seed = 5}, q = p;
    q.temperature = 0.815f;
    int df;
    cr_assert_gt(test_law(x, &p, &q, 1000000, &df), CHI2_31);
}

Test(sampler, truncated_draws_follow_the_renormalised_law) {
    const sd_sampling cases[] = {
        {.temperature = 0.7f, .top_k = 5, .top_p = 1, .seed = 1},
        {.temperature = 1.0f, .top_p = 0.9f, .seed = 2},
        {.temperature = 1.5f, .top_p = 1, .min_p = 0.1f, .seed = 3},
        {.temperature = 1.0f, .top_k = 20, .top_p = 0.8f, .min_p = 0.05f, .seed = 4, .choice = 2},
    };
    float x[V];
    random_logits(x, V, 12, 5);
    for (int i = 0; i < 4; i++) {
        int df;
        double c = test_law(x, &cases[i], &cases[i], 200000, &df);
        cr_assert_lt(c, quantile(df), "case %d: chi-square %.1f with %d degrees", i, c, df);
    }
}

Test(sampler, truncation_keeps_exactly_the_defined_set) {
    enum { N = 3000 };
    float *x = malloc(N * sizeof *x);
    double *p = malloc(N * sizeof *p);
    int32_t *ids = malloc(N * sizeof *ids);
    sd_sampler *s = sd_sampler_open(N);
    int cases = 0;
    for (int trial = 0; trial < 60; trial++) {
        random_logits(x, N, 100 + trial, (float)(1 + trial % 30));
        if (trial % 3 == 0) // many ties
            for (int i = 0; i < N; i++) x[i] = roundf(x[i] * 4) / 4;
        const sd_sampling all[] = {
            {.temperature = 1, .top_k = 1 + trial * 7, .top_p = 1},
            {.temperature = 0.7f, .top_p = 0.05f + 0.015f * (float)trial},
            {.temperature = 1.5f, .top_p = 1, .min_p = 0.01f + 0.016f * (float)trial},
            {.temperature = 1, .top_k = 400, .top_p = 0.9f, .min_p = 0.02f},
            {.temperature = 1, .top_p = 0},
            // The mass that top-p shares out is what min-p left, many candidates or few.
            {.temperature = 1, .top_p = 0.8f, .min_p = 0.002f * (float)(1 + trial)},
            {.temperature = 2, .top_p = 0.95f, .min_p = 1e-7f},
        };
        for (int c = 0; c < 7; c++, cases++) {
            test_exact_law(p, x, N, &all[c]);
            int n = sd_sample_kept(s, ids, x, NULL, &all[c]), want = 0;
            for (int i = 0; i < N; i++) want += p[i] > 0;
            cr_assert_eq(n, want, "trial %d case %d: %d kept, want %d", trial, c, n, want);
            for (int i = 0; i < n; i++) cr_assert_gt(p[ids[i]], 0);
        }
    }
    cr_assert_eq(cases, 420);
    free(x), free(p), free(ids);
    sd_sampler_close(s);
}

Test(sampler, skipping_blocks_and_logarithms_changes_no_token) {
    // Against the definition, computed for every token without any skip.
    enum { N = 5003 };
    float *x = malloc(N * sizeof *x);
    sd_sampler *s = sd_sampler_open(N);
    int not_top = 0;
    for (int trial = 0; trial < 400; trial++) {
        random_logits(x, N, 500 + trial, (float)(1 + trial % 40));
        sd_sampling p = {
            .temperature = 0.3f + 0.01f * (float)(trial % 200), .top_p = 1, .seed = trial};
        double best = -INFINITY;
        int32_t want = -1;
        float max = x[sd_greedy(x, N)];
        for (int32_t t = 0; t < N; t++) {
            uint32_t w[4];
            sd_philox(w, p.seed, (uint64_t)SD_STREAM_SAMPLE << 32,
                      (uint64_t)(trial + 9) << 32 | (uint32_t)(t / 4));
            double u = ((double)w[t % 4] + 0.5) / 4294967296.0;
            double sum = (double)((x[t] - max) / p.temperature) - log(-log(u));
            if (sum > best) best = sum, want = t;
        }
        cr_assert_eq(sd_sample(s, x, NULL, &p, trial + 9), want);
        not_top += want != sd_greedy(x, N);
    }
    cr_assert_gt(not_top, 100);
    free(x);
    sd_sampler_close(s);
}

// Draws of two streams over 4 tokens: 16 cells against the product of the laws.
static double pair_test(sd_sampling a, sd_sampling b, int shift) {
    float x[4] = {0.5f, 0, -0.4f, 0.9f};
    sd_sampler *s = sd_sampler_open(4);
    int seen[16] = {0}, df;
    double p[4], joint[16];
    for (int i = 0; i < 200000; i++)
        seen[4 * sd_sample(s, x, NULL, &a, 2 * i) + sd_sample(s, x, NULL, &b, 2 * i + shift)]++;
    test_exact_law(p, x, 4, &a);
    for (int i = 0; i < 16; i++) joint[i] = p[i / 4] * p[i % 4];
    sd_sampler_close(s);
    return chi_square(seen, joint, 16, 200000, &df);
}

Test(sampler, positions_choices_and_seeds_are_independent) {
    sd_sampling a = {.temperature = 1, .top_p = 1, .seed = 77}, choice = a, seed = a;
    choice.choice = 1, seed.seed = 78;
    cr_assert_lt(pair_test(a, a, 1), CHI2_15);
    cr_assert_lt(pair_test(a, choice, 0), CHI2_15);
    cr_assert_lt(pair_test(a, seed, 0), CHI2_15);
    cr_assert_gt(pair_test(a, a, 0), CHI2_15, "a stream against itself must not look independent");
}

Test(sampler, logits_that_are_no_law_give_no_token) {
    enum { N = 100 }; // blocks of 32, and a rest
    static const int places[] = {0, 31, 32, 63, 97, 99};
    float x[N];
    sd_sampler *s = sd_sampler_open(N);
    const sd_sampling all[] = {{.temperature = 0, .top_p = 1},
                               {.temperature = 1, .top_p = 1},
                               {.temperature = 1, .top_k = 3, .top_p = 0.5f, .min_p = 0.1f},
                               {.temperature = NAN, .top_p = NAN, .min_p = NAN}};
    for (int c = 0; c < 4; c++) {
        for (int i = 0; i < N; i++) x[i] = NAN;
        cr_assert_eq(sd_sample(s, x, NULL, &all[c], 1), -1);
        for (int i = 0; i < N; i++) x[i] = -INFINITY;
        cr_assert_eq(sd_sample(s, x, NULL, &all[c], 1), -1, "nothing is possible");
        x[70] = -1;
        cr_assert_eq(sd_sample(s, x, NULL, &all[c], 1), 70, "one token is possible");
        random_logits(x, N, 3, 4);
        for (int k = 0; k < 6; k++) {
            float kept = x[places[k]];
            cr_assert_geq(sd_sample(s, x, NULL, &all[c], 1), 0);
            x[places[k]] = NAN;
            cr_assert_eq(sd_sample(s, x, NULL, &all[c], 1), -1, "one NaN at %d", places[k]);
            x[places[k]] = INFINITY;
            cr_assert_eq(sd_sample(s, x, NULL, &all[c], 1), -1, "an infinity at %d", places[k]);
            x[places[k]] = -INFINITY;
            int32_t t = sd_sample(s, x, NULL, &all[c], 1);
            cr_assert(t >= 0 && t != places[k]);
            x[places[k]] = kept;
        }
    }
    sd_sampler_close(s);
}

// The definition in the header, token by token, in double.
static double shaped_logit(double x, const sd_shaping *h, int32_t t) {
    for (int i = 0; i < h->n_bias; i++)
        if (h->bias[i].token == t) x += (double)h->bias[i].bias;
    for (int i = 0; i < h->n_seen; i++) {
        if (h->seen[i].token != t) continue;
        if (h->repetition > 0) x = x > 0 ? x / (double)h->repetition : x * (double)h->repetition;
        x -= (double)h->frequency * h->seen[i].answered;
        if (h->seen[i].answered) x -= (double)h->presence;
    }
    return h->allowed && !(h->allowed[t / 32] >> (t % 32) & 1) ? -INFINITY : x;
}

static const sd_sampling laws[] = {{.temperature = 0, .top_p = 1},
                                   {.temperature = 1, .top_p = 1, .seed = 3},
                                   {.temperature = .8f, .top_p = .7f, .seed = 4},
                                   {.temperature = 1.5f, .top_p = .9f, .top_k = 20, .seed = 5},
                                   {.temperature = 1, .top_p = 1, .min_p = .2f, .seed = 6}};
enum { LAWS = sizeof laws / sizeof *laws };

Test(sampler, shaping_that_does_nothing_changes_no_token) {
    enum { N = 1000 };
    float x[N];
    uint32_t all[(N + 31) / 32];
    memset(all, 0xff, sizeof all);
    static const sd_token_seen seen[] = {{3, 2}, {N - 1, 0}, {-5, 1}, {N, 1}};
    static const sd_token_bias bias[] = {{7, 0}, {-1, 5}, {N + 7, 5}};
    const sd_shaping nothing[] = {{0},
                                  {.allowed = all},
                                  {.seen = seen, .n_seen = 4, .repetition = 1},
                                  {.bias = bias, .n_bias = 3}};
    sd_sampler *s = sd_sampler_open(N);
    for (int trial = 0; trial < 50; trial++) {
        random_logits(x, N, (uint64_t)trial, 12);
        for (int l = 0; l < LAWS; l++)
            for (int k = 0; k < 4; k++)
                cr_assert_eq(sd_sample(s, x, &nothing[k], &laws[l], trial),
                             sd_sample(s, x, NULL, &laws[l], trial));
    }
    sd_sampler_close(s);
}

Test(sampler, shaped_logits_are_sampled_as_if_the_model_had_said_them) {
    enum { N = 333 };
    float x[N], want[N];
    int32_t ids[N];
    sd_sampler *s = sd_sampler_open(N);
    for (int trial = 0; trial < 100; trial++) {
        uint32_t allowed[(N + 31) / 32] = {0};
        for (int t = trial; t < N; t += 1 + trial % 7) allowed[t / 32] |= 1u << (t % 32);
        const sd_token_bias bias[] = {{trial, 6}, {200, -100}, {332, 2.5f}};
        const sd_token_seen seen[] = {{trial + 1, 3}, {31, 1}, {32, 0}, {332, 2}};
        sd_shaping h = {.bias = bias,
                        .n_bias = trial % 4,
                        .seen = seen,
                        .n_seen = trial % 5,
                        .allowed = trial % 3 ? allowed : NULL,
                        .repetition = trial % 2 ? 1.3f : 0,
                        .frequency = .7f,
                        .presence = -.4f};
        random_logits(x, N, 900 + (uint64_t)trial, 10);
        for (int t = 0; t < N; t++) want[t] = (float)shaped_logit((double)x[t], &h, t);
        for (int l = 0; l < LAWS; l++) {
            // Both sides round each token's few operations; a token may only differ where two
            // logits are nearly one, which the spread of 10 over 333 tokens makes rare.
            int32_t got = sd_sample(s, x, &h, &laws[l], trial);
            int32_t other = sd_sample(s, want, NULL, &laws[l], trial);
            cr_assert_eq(got, other, "trial %d, law %d: %d, want %d", trial, l, got, other);
            if (h.allowed) cr_assert(h.allowed[got / 32] >> (got % 32) & 1);
            int n = sd_sample_kept(s, ids, x, &h, &laws[l]);
            cr_assert_gt(n, 0, "the allowed set comes before the truncations");
        }
    }
    sd_sampler_close(s);
}

// Counts that come in two lists against the same counts in one: to the bit, so with no token apart.
Test(sampler, recent_tokens_count_as_if_they_had_been_seen_before) {
    enum { N = 200, OLD = 60, RECENT = 40 };
    float x[N];
    int32_t kept[2][N];
    sd_sampler *s = sd_sampler_open(N);
    for (int trial = 0; trial < 60; trial++) {
        sd_token_seen old[OLD], recent[RECENT], all[N];
        int n_all = 0, at[N];
        for (int t = 0; t < N; t++) at[t] = -1;
        for (int i = 0; i < OLD; i++) {
            old[i] = all[n_all] = (sd_token_seen){(i * 3 + trial) % N, i % 4};
            at[old[i].token] = n_all++;
        }
        for (int i = 0; i < RECENT; i++) {
            int32_t t = (i * i + trial) % N;
            if (at[t] < 0) at[t] = n_all, all[n_all++] = (sd_token_seen){t, 0};
            all[at[t]].answered++;
            recent[i] = all[at[t]];
        }
        const sd_token_bias bias[] = {{trial, 2}, {recent[3].token, -1.7f}};
        sd_shaping one = {.bias = bias,
                          .n_bias = 2,
                          .seen = all,
                          .n_seen = n_all,
                          .repetition = trial % 2 ? 1.3f : 0,
                          .frequency = .37f,
                          .presence = trial % 3 ? -.4f : .9f},
                   two = one;
        two.seen = old, two.n_seen = OLD, two.recent = recent, two.n_recent = RECENT;
        random_logits(x, N, 1200 + (uint64_t)trial, 9);
        for (int l = 0; l < LAWS; l++) {
            cr_assert_eq(sd_sample(s, x, &two, &laws[l], trial),
                         sd_sample(s, x, &one, &laws[l], trial));
            int n = sd_sample_kept(s, kept[0], x, &one, &laws[l]);
            cr_assert_eq(sd_sample_kept(s, kept[1], x, &two, &laws[l]), n);
            cr_assert_eq(memcmp(kept[0], kept[1], (size_t)n * sizeof **kept), 0);
        }
    }
    sd_sampler_close(s);
}

Test(sampler, a_token_must_stand_in_both_sets_and_not_be_banned) {
    enum { N = 100 };
    static const int32_t banned[] = {66, -3, N, 5};
    float x[N];
    int32_t ids[N];
    uint32_t a[(N + 31) / 32] = {0}, b[(N + 31) / 32] = {0};
    a[2] = 0xff, b[2] = 0x3c; // 64 to 71, and 66 to 69
    random_logits(x, N, 4, 5);
    const sd_shaping h = {.allowed = a, .also_allowed = b, .banned = banned, .n_banned = 4},
                     only_b = {.also_allowed = b};
    const sd_sampling p = {.temperature = 1, .top_p = 1};
    sd_sampler *s = sd_sampler_open(N);
    cr_assert_eq(sd_sample_kept(s, ids, x, &h, &p), 3);
    for (int i = 0; i < 3; i++) cr_assert_eq(ids[i], 67 + i);
    cr_assert_eq(sd_sample_kept(s, ids, x, &only_b, &p), 4);
    sd_sampler_close(s);
}

Test(sampler, an_allowed_set_far_from_the_top_is_not_cut_away) {
    enum { N = 100 };
    float x[N];
    uint32_t two[(N + 31) / 32] = {0};
    two[2] = 3; // tokens 64 and 65
    for (int i = 0; i < N; i++) x[i] = i < 50 ? 20 : -20;
    x[65] = -22;
    const sd_shaping h = {.allowed = two};
    const sd_sampling p = {.temperature = 1, .top_p = .5f, .top_k = 1, .min_p = .5f};
    sd_sampler *s = sd_sampler_open(N);
    cr_assert_eq(sd_sample(s, x, &h, &p, 1), 64);
    memset(two, 0, sizeof two);
    cr_assert_eq(sd_sample(s, x, &h, &p, 1), -1, "nothing is allowed");
    cr_assert_eq(sd_sample(s, x, &h, &laws[0], 1), -1);
    sd_sampler_close(s);
}

Test(sampler, log_probabilities_and_top_tokens_match_the_definition) {
    float x[V];
    random_logits(x, V, 21, 8);
    x[4] = x[20] = 9;
    double total = 0, mass = 0;
    for (int i = 0; i < V; i++) total += exp((double)x[i]);
    for (int32_t i = 0; i < V; i++) {
        double want = (double)x[i] - log(total);
        // One rounding of the difference (|x| < 16: 2^-21), float exponentials: 32 * 2^-24.
        cr_assert_float_eq(sd_logprob(x, V, i), want, 5e-6);
        mass += exp((double)sd_logprob(x, V, i));
    }
    cr_assert_float_eq(mass, 1, 1e-5);
    int32_t top[3];
    sd_top_tokens(top, 3, x, V);
    cr_assert(top[0] == 4 && top[1] == 20 && x[top[2]] < 9);
}
