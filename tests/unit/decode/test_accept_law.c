// The law of what speculation emits.
//
// Exactly: a target with a handful of tokens, whose probabilities behind each text are given, so that
// every outcome of every round can be listed. The engine's own rounds turn drafts and draws into
// tokens, and the probabilities of all texts of some length must be the target's to 1e-12, whatever
// was drafted. Drafts that depend on the text and on chance are a sum over these.
//
// On a model: each token's place in its own law, made continuous by chance, is uniform where the
// tokens follow their laws (a randomised probability integral transform). 100,000 places are held
// against the uniform law by the Kolmogorov-Smirnov distance; wrong rounds, planted, must be seen.
#include "base/files/path.h"
#include "base/memory.h"
#include "base/rng.h"
#include "decode/draft/drafter.h"
#include "decode/engine/engine.h"
#include "tests/unit/support/counting_backend.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/exact_law.h"
#include "tests/unit/support/sanitized.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sd_model *open_tiny(void) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

// ---- a drafter that proposes what it is told

static struct {
    int32_t draft[SD_MAX_DRAFT];
    int n;
} told;

typedef struct {
    sd_drafter base;
    int ahead;
} drafter;

static sd_status told_open(sd_drafter **out, void *shared, int ctx, sd_error *err);
static void told_close(sd_drafter *d) {
    free(d);
}
static void told_begin(sd_drafter *d, const sd_draft_start *start) {
    (void)d, (void)start;
}
static void told_observe(sd_drafter *d, int n) {
    (void)d, (void)n;
}
static void told_rewind(sd_drafter *d) {
    ((drafter *)d)->ahead = 0;
}
static bool told_peek(sd_drafter *d, sd_proposal *out) {
    int i = ((drafter *)d)->ahead;
    if (i >= told.n) return false;
    *out = (sd_proposal){told.draft[i], 0, 1};
    return true;
}
static void told_advance(sd_drafter *d, int32_t token) {
    (void)token;
    ((drafter *)d)->ahead++;
}
static float told_prior(int bucket) {
    (void)bucket;
    return 1;
}
static const sd_drafter_kind told_kind = {.name = "suffix",
                                          .open = told_open,
                                          .close = told_close,
                                          .begin = told_begin,
                                          .observe = told_observe,
                                          .rewind = told_rewind,
                                          .peek = told_peek,
                                          .advance = told_advance,
                                          .prior = told_prior};
static const sd_drafter_kind *const told_only[] = {&told_kind, NULL};
static sd_status told_open(sd_drafter **out, void *shared, int ctx, sd_error *err) {
    (void)shared, (void)ctx, (void)err;
    drafter *d = sd_alloc(1, sizeof *d);
    cr_assert_not_null(d);
    d->base.kind = &told_kind;
    *out = &d->base;
    return SD_OK;
}

// ---- every outcome of every round

enum { MOST_V = 8, MOST_G = 3, MOST_L = 4, BASE = 3, TEXTS = 4096 };

typedef struct {
    int V, g, L,
        drafts; // tokens, drafted tokens, length of the texts, drafts for each text; 0: all
} target;

// The target's probabilities behind a text; some are zero.
static void law_behind(double *p, const target *t, const int32_t *said, int n) {
    uint64_t h = 99 + (uint64_t)t->V;
    double sum = 0;
    for (int i = 0; i < n; i++) h = sd_mix64(h * 31 + (uint64_t)said[i]);
    for (int k = 0; k < t->V; k++) {
        uint64_t w = sd_mix64(h + (uint64_t)k) % 97;
        p[k] = w % 5 == 4 && k > 0 ? 0 : (double)w + 1;
        sum += p[k];
    }
    for (int k = 0; k < t->V; k++) p[k] /= sum;
}

// What the fake model draws: `first` behind a prompt, then draw[j] for the rows of a round.
static int32_t first, draw[MOST_G + 1];
static bool first_is_due;

static sd_status drawn_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                               sd_picked *picked, sd_error *err) {
    (void)cx, (void)logits, (void)err;
    for (int i = 0, k = 0; i < n; i++)
        if (rows[i].pick) picked[k] = (sd_picked){first_is_due ? first : draw[k], 0}, k++;
    first_is_due = false;
    return SD_OK;
}

typedef struct {
    int32_t ids[MOST_G + 2];
    int n;
} emission;

static void on_tokens(void *ctx, const sd_event *ev) {
    emission *m = ctx;
    for (int i = 0; i < ev->n && m->n < MOST_G + 2; i++) m->ids[m->n++] = ev->tokens[i].token;
}

// One round behind a text: out <- the tokens that the engine emits.
static void run_round(emission *out, sd_engine *e, const int32_t *said, int n) {
    int32_t text[BASE + MOST_L] = {9, 9, 9};
    uint64_t id;
    emission all = {0};
    memcpy(text + BASE, said, (size_t)n * sizeof *text);
    first = text[BASE + n - 1], first_is_due = true;
    sd_request r = {.prompt = text,
                    .n_prompt = BASE + n - 1,
                    .ignore_end = true,
                    .logprobs = -1,
                    .on_event = on_tokens,
                    .ctx = &all};
    cr_assert_eq(sd_engine_submit(e, &r, &id, NULL), SD_OK);
    sd_engine_step(e);
    cr_assert(all.n == 1 && !first_is_due, "%d tokens behind the prompt", all.n);
    sd_engine_step(e);
    out->n = all.n - 1;
    memcpy(out->ids, all.ids + 1, (size_t)out->n * sizeof *all.ids);
    sd_engine_cancel(e, id);
    sd_engine_step(e);
}

static int power(int base, int n) {
    int p = 1;
    while (n-- > 0) p *= base;
    return p;
}

static void digits(int32_t *out, int x, int V, int n) {
    for (int i = n - 1; i >= 0; i--) out[i] = x % V, x /= V;
}

static int number(const int32_t *text, int V, int n) {
    int x = 0;
    for (int i = 0; i < n; i++) x = x * V + text[i];
    return x;
}

typedef struct {
    double weight[MOST_L + 1]
                 [TEXTS]; // by length and number: how probable it is that a round begins there
    int64_t rounds, accepted;
} texts;

// All draws of a round with this draft, whose probability is q.
static void all_draws(texts *w, sd_engine *e, const target *t, const int32_t *said, int n,
                      double q) {
    double p[MOST_G + 1][MOST_V];
    int32_t text[MOST_L + 2 * MOST_G + 2];
    memcpy(text, said, (size_t)n * sizeof *text);
    memcpy(text + n, told.draft, (size_t)t->g * sizeof *text);
    for (int j = 0; j <= t->g; j++) law_behind(p[j], t, text, n + j);
    for (int x = 0; x < power(t->V, t->g + 1); x++) {
        double probable = q;
        emission m;
        digits(draw, x, t->V, t->g + 1);
        for (int j = 0; j <= t->g; j++) probable *= p[j][draw[j]];
        if (probable == 0) continue;
        run_round(&m, e, said, n);
        cr_assert_gt(m.n, 0);
        memcpy(text + n, m.ids, (size_t)m.n * sizeof *text);
        int len = n + m.n < t->L ? n + m.n : t->L;
        w->weight[len][number(text, t->V, len)] += probable;
        w->rounds++, w->accepted += m.n - 1;
    }
}

static void check_law(sd_model *m, const target *t) {
    const sd_engine_options o = {.ctx = 64,
                                 .slots = 1,
                                 .threads = 1,
                                 .spec_length = t->g,
                                 .drafters = told_only,
                                 .no_prefix_cache = true,
                                 .backend = &test_counting_backend};
    sd_engine *e = test_engine_open(m, &o);
    texts *w = calloc(1, sizeof *w);
    w->weight[0][0] = 1;
    told.n = t->g;
    for (int n = 0; n < t->L; n++)
        for (int h = 0; h < power(t->V, n); h++) {
            int32_t said[MOST_L];
            int most = power(t->V, t->g), drafts = t->drafts ? t->drafts : most;
            digits(said, h, t->V, n);
            // How probable a draft is depends on the text; the chances add up to 1.
            for (int d = 0; d < drafts && w->weight[n][h] > 0; d++) {
                int which =
                    t->drafts ? (int)(sd_mix64((uint64_t)(h * 64 + d)) % (uint64_t)most) : d;
                double q = 2. * (d + 1) / drafts / (drafts + 1);
                digits(told.draft, which, t->V, t->g);
                all_draws(w, e, t, said, n, w->weight[n][h] * q);
            }
        }
    double worst = 0;
    for (int x = 0; x < power(t->V, t->L); x++) {
        int32_t text[MOST_L];
        double p[MOST_V], want = 1;
        digits(text, x, t->V, t->L);
        for (int i = 0; i < t->L; i++) law_behind(p, t, text, i), want *= p[text[i]];
        double off = fabs(w->weight[t->L][x] - want);
        if (off > worst) worst = off;
    }
    printf("%d tokens, drafts of %d: %lld rounds, %lld drafts accepted, off by %.2g\n", t->V, t->g,
           (long long)w->rounds, (long long)w->accepted, worst);
    cr_expect_lt(worst, 1e-12, "%d tokens, drafts of %d: off by %g", t->V, t->g, worst);
    cr_assert_gt(w->accepted, 100);
    free(w);
    sd_engine_close(e);
}

Test(accept_law, every_text_is_as_probable_as_the_target_has_it, .timeout = 300) {
    static const target targets[] = {
        {4, 1, 4, 0}, {4, 2, 4, 0}, {8, 1, 3, 0}, {6, 2, 2, 0}, {4, 3, 3, 5}};
    sd_model *m = open_tiny();
    test_counted_forward = drawn_forward;
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (!SD_SANITIZED || i < 1) check_law(m, &targets[i]);
    test_counted_forward = NULL;
    sd_model_release(m);
}

// ---- places in the laws of a model

enum { V = 288, CTX = 500, PROMPT = 30, PLACES = SD_SANITIZED ? 10000 : 100000, SEEN = 8000 };

// D sqrt(n) has the law P(> x) <= 2 exp(-2 x^2): 2.70 is passed by chance once in a million times
// (.0085 for 100,000), 3.28 once in 10^9.
#define HOLDS 2.69
#define SURELY_NOT 3.28

static const sd_sampling law = {.temperature = .6f, .top_p = .97f, .top_k = 120, .seed = 5};

typedef enum {
    RIGHT,
    RAW_LAW,           // rows draw from the model's law, without temperature and truncation
    BONUS_FROM_ABOVE,  // the token behind the draft is drawn from the row before
    NEAR_MISSES,       // a draft that is among the three most probable tokens is accepted
    GREEDY_REJECTIONS, // a row whose draft does not hold takes its most probable token
    DRAFTS_STOP,       // a row whose draft holds draws again: its acceptance decides what is kept
    BUGS
} bug;
static bug planted;
static const sd_model *target_model;
static float (*seen_logits)[V]; // [CTX] of the row that drew the token at a position

static int32_t pick_wrongly(sd_sampler *s, const float *x, const sd_row *before, const sd_row *row,
                            const sd_row *next) {
    sd_sampling p = *row->pick->sampling;
    int64_t at = row->pos + 1;
    int32_t top[3], t = sd_sample(s, x, NULL, &p, at);
    int32_t draft = next ? next->token : -1; // of the position that the row draws
    switch (planted) {
    case RAW_LAW:
        p.temperature = 1, p.top_p = 1, p.top_k = 0;
        return sd_sample(s, x, NULL, &p, at);
    case BONUS_FROM_ABOVE:
        return next || !before || !before->pick ? t : sd_sample(s, x - V, NULL, &p, at);
    case NEAR_MISSES:
        sd_top_tokens(top, 3, x, V);
        return draft == top[0] || draft == top[1] || draft == top[2] ? draft : t;
    case GREEDY_REJECTIONS:
        return draft >= 0 && draft != t ? sd_greedy(x, V) : t;
    case DRAFTS_STOP:
        p.seed++;
        return draft == t ? sd_sample(s, x, NULL, &p, at) : t;
    default:
        return t;
    }
}

// The draft model's. The two bugs that need a draft which says nothing of chance get the most probable
// token of each row.
static sd_status draft_forward(sd_context *cx, const sd_row *rows, int n, sd_picked *picked,
                               sd_error *err) {
    static const sd_sampling greedy = {.top_p = 1};
    static const sd_pick most_probable = {.sampling = &greedy, .logprob = true};
    sd_row copy[256];
    for (int i = 0; i < n; i++) {
        copy[i] = rows[i];
        if (rows[i].pick && (planted == NEAR_MISSES || planted == DRAFTS_STOP))
            copy[i].pick = &most_probable;
    }
    return sd_backend_cpu.forward(cx, copy, n, NULL, picked, err);
}

// The CPU's forward with the logits of all rows that draw, which are kept.
static sd_status watched_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                                 sd_picked *picked, sd_error *err) {
    static float own[64 * V];
    static sd_sampler *s;
    sd_row copy[256];
    int k = 0;
    (void)logits;
    if (sd_context_model(cx) != target_model) return draft_forward(cx, rows, n, picked, err);
    if (!s) s = sd_sampler_open(V);
    for (int i = 0; i < n; i++) {
        copy[i] = rows[i];
        copy[i].want_logits = rows[i].pick != NULL;
        copy[i].pick = NULL;
    }
    sd_status st = sd_backend_cpu.forward(cx, copy, n, own, NULL, err);
    for (int i = 0; st == SD_OK && i < n; i++) {
        if (!rows[i].pick) continue;
        const float *x = own + (size_t)k * V;
        const sd_row *before = i > 0 ? &rows[i - 1] : NULL;
        const sd_row *next = i + 1 < n ? &rows[i + 1] : NULL;
        picked[k++] = (sd_picked){pick_wrongly(s, x, before, &rows[i], next), 0};
        memcpy(seen_logits[rows[i].pos + 1], x, sizeof *seen_logits);
    }
    return st;
}

static const double *order_p;
static int by_probability(const void *a, const void *b) {
    int i = *(const int *)a, j = *(const int *)b;
    return order_p[i] != order_p[j] ? (order_p[i] > order_p[j] ? -1 : 1) : i - j;
}

// A uniform place within the token's share, the more probable tokens before it.
static double place_of(const float *x, int32_t token, uint64_t key) {
    double p[V], below = 0;
    int order[V], k = 0;
    uint32_t r[4];
    test_exact_law(p, x, V, &law);
    for (int i = 0; i < V; i++) order[i] = i;
    order_p = p;
    qsort(order, V, sizeof *order, by_probability);
    while (order[k] != token) below += p[order[k++]];
    sd_philox(r, 77, SD_STREAM_INIT, key);
    return below + p[token] * sd_uniform64(r[0], r[1]);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The Kolmogorov-Smirnov distance of n places from the uniform law, times sqrt(n).
static double distance(double *place, int n) {
    double d = 0;
    qsort(place, (size_t)n, sizeof *place, by_value);
    for (int i = 0; i < n; i++) {
        double above = (i + 1.) / n - place[i], below = place[i] - (double)i / n;
        d = above > d ? above : d;
        d = below > d ? below : d;
    }
    return d * sqrt(n);
}

static double run_places(sd_model *m, const char *draft, bug b, int n, int64_t *accepted,
                         int64_t *drafted) {
    double *place = calloc((size_t)n, sizeof *place);
    const sd_engine_options o = {.ctx = CTX,
                                 .slots = 1,
                                 .threads = 1,
                                 .spec = SD_SPEC_DRAFT,
                                 .spec_length = 2,
                                 .draft = draft,
                                 .no_prefix_cache = true,
                                 .backend = &test_counting_backend};
    sd_engine *e = test_engine_open(m, &o);
    planted = b;
    *accepted = *drafted = 0;
    for (int have = 0, i = 0; have < n; i++) {
        int32_t prompt[PROMPT];
        test_answer a = {0};
        test_repetitive(prompt, PROMPT, 500 + (uint64_t)i, 250);
        sd_request r = {.prompt = prompt,
                        .n_prompt = PROMPT,
                        .sampling = law,
                        .ignore_end = true,
                        .logprobs = -1};
        r.sampling.seed += (uint64_t)i;
        test_run(e, &r, &a);
        cr_assert_eq(a.finish, SD_FINISH_LENGTH, "%s", a.error);
        for (int k = 0; k < a.ids.n && have < n; k++, have++)
            place[have] = place_of(seen_logits[PROMPT + k], a.ids.id[k], (uint64_t)have);
        *accepted += a.stats.spec.accepted, *drafted += a.stats.spec.drafted;
        test_answer_free(&a);
    }
    double d = distance(place, n);
    sd_engine_close(e);
    free(place);
    return d;
}

Test(accept_law, tokens_of_a_model_follow_their_laws_and_wrong_rounds_are_seen, .timeout = 600) {
    sd_tiny_model near = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = open_tiny();
    char *dir = sd_tiny_dir(), *draft = sd_path_join(dir, "near.gguf");
    int64_t accepted, drafted;
    near.dtype = SD_Q4_0; // most of its proposals hold
    cr_assert_eq(sd_tiny_write_gguf(draft, &near, NULL), SD_OK);
    cr_assert_eq(m->hp.V, V);
    target_model = m;
    seen_logits = calloc(CTX + 1, sizeof *seen_logits);
    test_counted_forward = watched_forward;
    double d = run_places(m, draft, RIGHT, PLACES, &accepted, &drafted);
    printf("%d places: D sqrt(n) %.2f, %lld of %lld drafts accepted\n", PLACES, d,
           (long long)accepted, (long long)drafted);
    cr_expect_lt(d, HOLDS, "D sqrt(n) is %.2f", d);
    cr_assert(accepted > drafted / 4 && accepted < drafted, "%lld of %lld accepted",
              (long long)accepted, (long long)drafted);
    for (bug b = RIGHT + 1; b < BUGS; b++) {
        d = run_places(m, draft, b, SEEN, &accepted, &drafted);
        printf("planted %d: D sqrt(n) %.2f, p < %.1g\n", (int)b, d, 2 * exp(-2 * d * d));
        cr_expect_gt(d, SURELY_NOT, "bug %d: D sqrt(n) is %.2f", (int)b, d);
    }
    test_counted_forward = NULL;
    free(seen_logits), free(draft);
    sd_tiny_remove(dir);
    sd_model_release(m);
}
