// A budget of reasoning through the engine: the tokens of plain decoding with the same count, whatever is
// drafted, found or asked for beside it.
#include "tests/unit/support/engine.h"
#include "tests/unit/support/sanitized.h"
#include "tests/unit/support/tiny/model.h"

#include "base/files/path.h"
#include "base/rng.h"
#include "decode/engine/private.h"
#include "model/grammar/internal.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { PROMPT = 40, MOST = 70 };

static const sd_sampling samplings[] = {
    {.temperature = 0, .top_p = 1},
    {.temperature = 1, .top_p = 1, .seed = 5},
    {.temperature = 1.5f, .top_p = .9f, .seed = 6, .choice = 2}};
enum { SAMPLINGS = sizeof samplings / sizeof *samplings };

typedef struct {
    sd_model *model;
    int32_t prompt[PROMPT];
    int32_t forced[8];
    int n_forced;
} world;

static world make_world(const char *closing) {
    sd_error err = {0};
    sd_ids ids = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    world w = {.model = sd_tiny_open(&t, true)};
    cr_assert(w.model);
    cr_assert_eq(sd_tokenizer_encode(w.model->tokenizer, closing, strlen(closing),
                                     SD_TOK_SPECIAL | SD_TOK_GOES_ON, &ids, &err),
                 SD_OK);
    cr_assert(ids.n >= 1 && ids.n <= 8);
    memcpy(w.forced, ids.id, (size_t)ids.n * sizeof *w.forced);
    w.n_forced = ids.n;
    sd_ids_free(&ids);
    test_repetitive(w.prompt, PROMPT, 3, 250);
    return w;
}

typedef struct {
    const char *open, *close, *closing;
    bool inside, again;
} style;

// The prompt opened it; the answer may open it first; it may come again and again. Marks of letters that a
// random model says now and then.
static const style styles[] = {{"<t>", "qz", "\nqz", true, false},
                               {"<t>", "e", "!e\n", true, false},
                               {"a", "e", ".e", false, false},
                               {"a", "e", "e;", false, true}};
enum { STYLES = sizeof styles / sizeof *styles, STEP = SD_SANITIZED ? 3 : 1 };
static const int budgets[] = {-1, 0, 1, 5, 17};
enum { BUDGETS = sizeof budgets / sizeof *budgets };

static sd_request request_of(const world *w, const style *s, int budget, int sampling,
                             sd_spec_mode spec) {
    return (sd_request){.prompt = w->prompt,
                        .n_prompt = PROMPT,
                        .max_tokens = MOST,
                        .ignore_end = true,
                        .sampling = samplings[sampling],
                        .logprobs = 1,
                        .reasoning = {.open = s->open,
                                      .close = s->close,
                                      .inside = s->inside,
                                      .again = s->again,
                                      .bounded = budget >= 0,
                                      .budget = budget,
                                      .forced = w->forced,
                                      .n_forced = w->n_forced},
                        .spec = spec};
}

// ---- what a budget means, from the answer's beginning each time

typedef struct {
    bool inside, over;
    int tokens, forced; // of reasoning; the place in the forced tokens, -1
} meaning;

static void read_text(meaning *m, const style *s, char *seen, const char *bytes, size_t len) {
    for (size_t i = 0; i < len && !m->over; i++) {
        size_t n = strlen(seen);
        seen[n] = bytes[i] ? bytes[i] : 1, seen[n + 1] = '\0';
        const char *mark = m->inside ? s->close : s->open;
        size_t k = strlen(mark);
        bool ends = n + 1 >= k && strcmp(seen + n + 1 - k, mark) == 0;
        if (!m->inside && !s->again) { // at the beginning alone
            size_t space = strspn(seen, " \n\t\r");
            ends = strcmp(seen + space, mark) == 0;
            if (!ends && strncmp(seen + space, mark, strlen(seen + space)) != 0) m->over = true;
        }
        if (!ends) continue;
        seen[0] = '\0';
        m->over = m->inside && !s->again;
        m->inside = !m->inside;
    }
}

static meaning meaning_of(const world *w, const style *s, int budget, const int32_t *ids, int n) {
    char seen[4096] = "";
    meaning m = {.inside = s->inside, .forced = -1};
    for (int i = 0; i <= n; i++) {
        if (m.forced < 0 && m.inside && budget >= 0 && m.tokens >= budget) m.forced = 0;
        if (i == n) break;
        if (m.forced >= 0) {
            if (++m.forced < w->n_forced) continue;
            m.forced = -1, m.inside = false, m.over = !s->again, seen[0] = '\0';
            continue;
        }
        size_t len;
        bool inside = m.inside;
        const char *bytes = sd_tokenizer_bytes(w->model->tokenizer, ids[i], &len);
        read_text(&m, s, seen, bytes, len);
        m.tokens += inside && m.inside;
    }
    return m;
}

// Plain decoding without the engine: a row at a time.
static int plain(int32_t *out, const world *w, const style *s, int budget, int sampling) {
    sd_error err = {0};
    sd_context *cx = NULL;
    sd_kv *kv = NULL;
    sd_sampler *sampler = sd_sampler_open(w->model->hp.V);
    float *logits = malloc((size_t)w->model->hp.V * sizeof *logits);
    cr_assert(sampler && logits);
    cr_assert_eq(sd_context_open(&cx, w->model, NULL, &(sd_context_options){.max_rows = 1}, &err),
                 SD_OK);
    cr_assert_eq(sd_kv_open(&kv, cx, PROMPT + MOST, &err), SD_OK);
    for (int pos = 0; pos < PROMPT + MOST - 1; pos++) {
        const int n = pos + 1 - PROMPT; // tokens of the answer so far
        const sd_row row = {.token = pos < PROMPT ? w->prompt[pos] : out[pos - PROMPT],
                            .pos = pos,
                            .kv = kv,
                            .want_logits = true};
        cr_assert_eq(sd_forward(cx, &row, 1, logits, &err), SD_OK);
        kv->len = pos + 1;
        if (n < 0) continue;
        meaning m = meaning_of(w, s, budget, out, n);
        out[n] = m.forced >= 0 ? w->forced[m.forced]
                               : sd_sample(sampler, logits, NULL, &samplings[sampling], PROMPT + n);
    }
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_sampler_close(sampler);
    free(logits);
    return MOST;
}

// All that a client sees of it.
static void expect_same_bytes(const test_answer *a, const test_answer *want, const char *what,
                              int style_no, int budget) {
    cr_expect(a->text.len == want->text.len &&
                  memcmp(a->text.data, want->text.data, want->text.len) == 0,
              "%s, style %d, budget %d: other text", what, style_no, budget);
    cr_expect(memcmp(a->logprob, want->logprob, (size_t)want->ids.n * sizeof *want->logprob) == 0,
              "%s, style %d, budget %d: other probabilities", what, style_no, budget);
}

static void expect_same(const test_answer *a, const int32_t *want, int n, const char *what,
                        int style_no, int budget) {
    cr_expect_eq(a->finish, SD_FINISH_LENGTH, "%s, style %d, budget %d: %s", what, style_no, budget,
                 a->error);
    cr_expect(a->ids.n == n && memcmp(a->ids.id, want, (size_t)n * sizeof *want) == 0,
              "%s, style %d, budget %d: other tokens", what, style_no, budget);
}

Test(reasoning, a_budget_gives_the_tokens_of_plain_decoding_whatever_is_drafted, .timeout = 600) {
    sd_error err = {0};
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "same.gguf");
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    cr_assert_eq(sd_tiny_write_gguf(path, &t, &err), SD_OK, "%s", err.message);
    const struct {
        const char *what;
        sd_engine_options o;
        sd_spec_mode spec;
    } runs[] = {
        {"off", {.ctx = 256, .slots = 2, .no_prefix_cache = true}, SD_SPEC_OFF},
        {"auto, a hit", {.ctx = 256, .slots = 2}, SD_SPEC_AUTO},
        {"suffix, 3", {.ctx = 256, .slots = 2, .spec_length = 3}, SD_SPEC_SUFFIX},
        {"all, 9", {.ctx = 256, .slots = 2, .spec_length = 9}, SD_SPEC_AUTO},
        {"itself, 5", {.ctx = 256, .slots = 2, .spec_length = 5, .draft = path}, SD_SPEC_DRAFT},
        {"all, 48", {.ctx = 256, .slots = 2, .spec_length = 48}, SD_SPEC_AUTO}};
    int64_t drafted = 0;
    int forced = 0, natural = 0;
    for (int s = 0; s < STYLES; s += STEP) {
        world w = make_world(styles[s].closing);
        int32_t want[BUDGETS][SAMPLINGS][MOST];
        test_answer first[BUDGETS][SAMPLINGS] = {0};
        for (int b = 0; b < BUDGETS; b++)
            for (int i = 0; i < SAMPLINGS; i++) plain(want[b][i], &w, &styles[s], budgets[b], i);
        for (size_t run = 0; run < sizeof runs / sizeof *runs; run++) {
            sd_engine *e = test_engine_open(w.model, &runs[run].o);
            for (int b = 0; b < BUDGETS; b++)
                for (int i = 0; i < SAMPLINGS; i++) {
                    test_answer a = {0};
                    sd_request r = request_of(&w, &styles[s], budgets[b], i, runs[run].spec);
                    test_run(e, &r, &a);
                    expect_same(&a, want[b][i], MOST, runs[run].what, s, budgets[b]);
                    if (run) expect_same_bytes(&a, &first[b][i], runs[run].what, s, budgets[b]);
                    meaning m = meaning_of(&w, &styles[s], budgets[b], a.ids.id, a.ids.n);
                    cr_expect_eq(a.stats.reasoning, m.tokens, "style %d, budget %d: %d, want %d", s,
                                 budgets[b], a.stats.reasoning, m.tokens);
                    cr_expect(budgets[b] < 0 || m.tokens <= budgets[b]);
                    forced += budgets[b] >= 0 && m.tokens == budgets[b];
                    natural += !m.inside && m.tokens > 0 && m.tokens != budgets[b];
                    drafted += a.stats.spec.drafted;
                    if (run)
                        test_answer_free(&a);
                    else
                        first[b][i] = a;
                }
            sd_engine_close(e);
        }
        for (int b = 0; b < BUDGETS; b++)
            for (int i = 0; i < SAMPLINGS; i++) test_answer_free(&first[b][i]);
        sd_model_release(w.model);
    }
    free(path);
    sd_tiny_remove(dir);
    printf("# %d budgets used up, %d ended before; %lld drafted\n", forced, natural,
           (long long)drafted);
    cr_expect_gt(forced, 50);
    cr_expect(SD_SANITIZED || natural > 20, "%d", natural); // other marks end it by themselves
    cr_expect_gt(drafted, 1000);
}

// A draft ends where the budget does: what the model would have gone on with is not even verified.
Test(reasoning, a_draft_is_cut_where_the_budget_ends) {
    const style *s = &styles[0];
    world w = make_world(s->closing);
    sd_engine *e =
        test_engine_open(w.model, &(sd_engine_options){.ctx = 256, .slots = 1, .spec_length = 9});
    sd_request r = request_of(&w, s, 6, 0, SD_SPEC_SUFFIX);
    sd_engine_request *j = NULL;
    sd_error err = {0};
    cr_assert_eq(sd_engine_request_copy(&j, e, &r, &err), SD_OK, "%s", err.message);
    sd_slot *slot = &e->slot[0];
    slot->request = j;
    slot->n = PROMPT;
    sd_slot_begin_reasoning(slot);
    for (int i = 0; i < 12; i++) slot->plan.draft[i] = 40 + i;
    for (int i = 0; i < 12; i++) {
        bool is_forced = i >= 6 && i < 6 + w.n_forced;
        // Behind six tokens the forced ones alone may stand, each in its place.
        if (is_forced) cr_expect(!sd_slot_reasoning_allows(slot, i, 40 + i), "%d", i);
        if (is_forced) slot->plan.draft[i] = w.forced[i - 6];
        cr_expect(sd_slot_reasoning_allows(slot, i, slot->plan.draft[i]), "%d", i);
        cr_expect_eq(sd_slot_forced(slot, i) != NULL, is_forced, "%d", i);
        cr_expect_eq(sd_slot_forced_ahead(slot, slot->plan.draft, i) != NULL, is_forced, "%d", i);
        cr_expect_eq(sd_slot_draft_forced(slot, slot->plan.draft, i),
                     is_forced ? w.forced[i - 6] : -1, "%d", i);
    }
    slot->request = NULL;
    sd_engine_request_free(j);
    sd_engine_close(e);
    sd_model_release(w.model);
}

// Nothing else can come, so that all of them are verified in one step.
Test(reasoning, the_tokens_that_end_it_are_drafted) {
    world w = make_world("\nqz qz");
    cr_assert_geq(w.n_forced, 4);
    for (int length = 0; length <= 8; length += 8) {
        sd_engine *e = test_engine_open(
            w.model, &(sd_engine_options){.ctx = 256, .slots = 1, .spec_length = length});
        for (int budget = 0; budget < 9; budget += 4) {
            test_answer a[2] = {0};
            for (int k = 0; k < 2; k++) {
                sd_request r =
                    request_of(&w, &styles[0], budget, 1, k ? SD_SPEC_GRAMMAR : SD_SPEC_OFF);
                r.max_tokens = budget + w.n_forced + 1;
                test_run(e, &r, &a[k]);
            }
            const sd_spec_stats *spec = &a[1].stats.spec;
            cr_expect(a[0].ids.n == a[1].ids.n &&
                      memcmp(a[0].ids.id, a[1].ids.id, (size_t)a[0].ids.n * sizeof(int32_t)) == 0);
            expect_same_bytes(&a[1], &a[0], "drafted", 0, budget);
            // At a forced length what nobody proposes is made up; else there is nothing but these.
            if (length > 0)
                cr_expect_geq(spec->accepted, w.n_forced - 1, "budget %d: %d", budget,
                              (int)spec->accepted);
            else
                cr_expect_eq(spec->accepted, spec->drafted, "budget %d: %d of %d", budget,
                             (int)spec->accepted, (int)spec->drafted);
            for (int k = 0; k < 2; k++) test_answer_free(&a[k]);
        }
        sd_engine_close(e);
    }
    sd_model_release(w.model);
}

// A slot is taken away behind each of its tokens: also within the reasoning, and within what ends it. The
// other request goes on for longer, so that there is one that it gives way to.
Test(reasoning, a_slot_that_is_taken_away_changes_no_token, .timeout = 600) {
    enum { OTHERS = 210 };
    int taken = 0, within = 0;
    for (int s = 0; s < STYLES; s += STEP) {
        world w = make_world("\n;,.;,.");
        cr_assert_geq(w.n_forced, 5);
        for (int length = 0; length <= 3; length += 3) {
            const int sampling = length > 0;
            sd_engine *e = test_engine_open(
                w.model,
                &(sd_engine_options){.ctx = 256, .slots = 2, .threads = 1, .spec_length = length});
            for (int b = 0; b < BUDGETS; b++) {
                test_answer got = {0}, other = {0};
                int32_t want[MOST];
                int last = -1;
                plain(want, &w, &styles[s], budgets[b], sampling);
                sd_request r = request_of(&w, &styles[s], budgets[b], 1, SD_SPEC_OFF);
                r.max_tokens = OTHERS, r.on_event = test_collect, r.ctx = &other;
                cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
                r = request_of(&w, &styles[s], budgets[b], sampling, SD_SPEC_AUTO);
                r.priority = 1, r.on_event = test_collect, r.ctx = &got; // the one that gives way
                cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
                while (sd_engine_step(e)) {
                    sd_slot *v = &e->slot[e->slot[1].request && e->slot[1].request->r.priority];
                    if (!v->request || !v->request->r.priority || v->n == last) continue;
                    last = v->n;
                    bool mid = v->reasoning.forced > 0;
                    if (!sd_queue_make_room(e)) continue;
                    cr_assert_null(v->request);
                    taken++, within += mid;
                }
                expect_same(&got, want, MOST, "taken away", s, budgets[b]);
                meaning m = meaning_of(&w, &styles[s], budgets[b], want, MOST);
                cr_expect_eq(got.stats.reasoning, m.tokens, "style %d, budget %d", s, budgets[b]);
                test_answer_free(&got), test_answer_free(&other);
            }
            sd_engine_close(e);
        }
        sd_model_release(w.model);
    }
    printf("# %d slots were taken away, %d of them within what ends the reasoning\n", taken,
           within);
    cr_expect_gt(taken, 1000 / STEP);
    cr_expect_gt(within, 20 / STEP);
}

Test(reasoning, forced_tokens_come_whatever_else_is_asked_for) {
    // They are banned, and one of them would end the answer.
    world w = make_world("\nqz<|im_end|>");
    style s = styles[0];
    int32_t bad[16];
    sd_token_bias bias[8];
    int n = 0;
    for (int i = 0; i < w.n_forced; i++) {
        bad[n++] = 1, bad[n++] = w.forced[i];
        bias[i] = (sd_token_bias){w.forced[i], -100};
    }
    sd_engine *e =
        test_engine_open(w.model, &(sd_engine_options){.ctx = 256, .slots = 2, .spec_length = 5});
    test_answer a[2] = {0};
    for (int k = 0; k < 2; k++) {
        sd_request r = request_of(&w, &s, 4, 1, k ? SD_SPEC_AUTO : SD_SPEC_OFF);
        r.ignore_end = false;
        r.stop_token = &w.forced[0], r.n_stop_token = 1;
        r.shaping = (sd_request_shaping){.bad_words = bad,
                                         .n_bad_words = n,
                                         .bias = bias,
                                         .n_bias = w.n_forced,
                                         .repetition = 1.3f,
                                         .min_tokens = 20};
        test_run(e, &r, &a[k]);
        cr_assert_geq(a[k].ids.n, 4 + w.n_forced);
        cr_expect(memcmp(a[k].ids.id + 4, w.forced, (size_t)w.n_forced * sizeof *w.forced) == 0,
                  "run %d", k);
        cr_expect_eq(a[k].stats.reasoning, 4);
        cr_expect_geq(a[k].ids.n, 20);
    }
    cr_expect(a[0].ids.n == a[1].ids.n &&
              memcmp(a[0].ids.id, a[1].ids.id, (size_t)a[0].ids.n * sizeof *a[0].ids.id) == 0);
    test_answer_free(&a[0]), test_answer_free(&a[1]);
    sd_engine_close(e);
    sd_model_release(w.model);
}

Test(reasoning, a_stop_text_within_forced_tokens_ends_nothing) {
    world w = make_world("\nqz\n");
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = 256, .slots = 1});
    for (int forced = 1; forced >= 0; forced--) {
        // The same text ends an answer that says it by itself.
        test_answer a = {0};
        sd_request r = request_of(&w, &styles[0], 4, 1, SD_SPEC_OFF);
        sd_token_bias bias = {w.forced[1], 100};
        r.stop[0] = "qz\n", r.n_stop = 1;
        if (!forced) {
            r.reasoning = (sd_request_reasoning){0};
            r.stop[0] = "q";
            r.shaping.bias = &bias, r.shaping.n_bias = 1;
        }
        test_run(e, &r, &a);
        cr_expect_eq(a.finish, forced ? SD_FINISH_LENGTH : SD_FINISH_STOP);
        cr_expect(forced ? a.ids.n == MOST : a.ids.n < 4, "%d", a.ids.n);
        test_answer_free(&a);
    }
    sd_engine_close(e);
    sd_model_release(w.model);
}

// The constraint begins behind the reasoning, which it lets be.
Test(reasoning, a_constraint_behind_it_is_met) {
    world w = make_world("\nqz\n");
    style s = styles[0];
    sd_error err = {0};
    sd_vocab *vocab = NULL;
    sd_grammar *g = NULL;
    cr_assert_eq(sd_vocab_open(&vocab, w.model->tokenizer, &err), SD_OK);
    sd_grammar_builder *b = sd_grammar_builder_open();
    // A budget may end within a character.
    const uint32_t beyond_ascii[8] = {0, 0, 0, 0, ~0u, ~0u, ~0u, ~0u};
    int whole = sd_gb_text_without(b, "qz", 2), cut = sd_gb_bytes(b, beyond_ascii);
    int broken = sd_gb_repeat(b, sd_gb_seq(b, (int[]){whole, cut}, 2), 0, -1);
    int parts[] = {broken, whole, sd_gb_text(b, "qz\n"), sd_gb_regex(b, "(yes|no), [0-9]{3}", 18)};
    cr_assert_eq(sd_grammar_compile(&g, b, sd_gb_seq(b, parts, 4), vocab, &err), SD_OK, "%s",
                 err.message);
    sd_grammar_builder_close(b);
    for (int budget = 0; budget <= 12; budget += 2) {
        test_answer a[3] = {0};
        for (int k = 0; k < 3; k++) {
            sd_engine *e = test_engine_open(
                w.model,
                &(sd_engine_options){.ctx = 256, .slots = 2, .spec_length = k == 2 ? 7 : 0});
            sd_request r = request_of(&w, &s, budget, 1, k ? SD_SPEC_AUTO : SD_SPEC_OFF);
            r.ignore_end = false;
            r.grammar = g;
            test_run(e, &r, &a[k]);
            cr_assert_eq(a[k].finish, SD_FINISH_STOP, "budget %d: %s: %.*s", budget, a[k].error,
                         (int)a[k].text.len, a[k].text.data);
            const char *at = memmem(a[k].text.data, a[k].text.len, "qz\n", 3);
            cr_assert_not_null(at);
            size_t left = a[k].text.len - (size_t)(at - a[k].text.data) - 3;
            cr_expect(left == 7 || left == 8, "<<%.*s>>", (int)left, at + 3);
            cr_expect_leq(a[k].stats.reasoning, budget);
            cr_expect(
                a[k].ids.n == a[0].ids.n &&
                    memcmp(a[k].ids.id, a[0].ids.id, (size_t)a[0].ids.n * sizeof *a[0].ids.id) == 0,
                "budget %d, run %d", budget, k);
            sd_engine_close(e);
        }
        for (int k = 0; k < 3; k++) test_answer_free(&a[k]);
    }
    sd_grammar_release(g);
    sd_vocab_release(vocab);
    sd_model_release(w.model);
}

Test(reasoning, what_cannot_be_a_budget_is_refused) {
    world w = make_world("qz");
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = 256, .slots = 1});
    int32_t outside = w.model->hp.V;
    char longer[SD_MAX_REASONING_MARK + 2];
    memset(longer, 'x', sizeof longer - 1), longer[sizeof longer - 1] = '\0';
    for (int i = 0; i < 7; i++) {
        sd_request r = request_of(&w, &styles[0], 3, 0, SD_SPEC_OFF);
        sd_error err = {0};
        uint64_t id;
        if (i == 0) r.reasoning.open = NULL;
        if (i == 1) r.reasoning.close = "";
        if (i == 2) r.reasoning.open = longer;
        if (i == 3) r.reasoning.n_forced = 0;
        if (i == 4) r.reasoning.forced = &outside, r.reasoning.n_forced = 1;
        if (i == 5) r.reasoning.budget = -2;
        if (i == 6) r.reasoning.n_forced = SD_MAX_FORCED + 1;
        cr_expect_eq(sd_engine_submit(e, &r, &id, &err), SD_EINVAL, "%d", i);
        cr_expect(strlen(err.message) > 10, "%d", i);
    }
    sd_engine_close(e);
    sd_model_release(w.model);
}
