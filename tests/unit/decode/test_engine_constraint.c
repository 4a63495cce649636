// Constraints through the engine: the same tokens with and without speculation, alone, in a batch and
// after a slot was taken away; every answer that ends fits what it was held to.
#include "tests/unit/grammar/support_grammar.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include "base/clock.h"
#include "base/files/path.h"
#include "decode/engine/private.h"
#include "model/grammar/internal.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { PROMPT = 40, MOST = 90, KINDS = 6 };

static const sd_grammar_spec wants[KINDS] = {
    {SD_GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"the "
     "name\":{\"type\":\"string\",\"maxLength\":4},\"kind\":{"
     "\"enum\":[\"red\",\"green\",\"other\"]},\"count\":{\"type\":\"integer\",\"minimum\":0,"
     "\"maximum\":"
     "12},\"ok\":{\"type\":\"boolean\"}},\"required\":[\"the name\",\"kind\",\"count\",\"ok\"],"
     "\"additionalProperties\":false}",
     0},
    {SD_GRAMMAR_SCHEMA,
     "{\"type\":\"array\",\"items\":{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"number\","
     "\"minimum\":-2,"
     "\"maximum\":2,\"multipleOf\":0.1}]},\"minItems\":2,\"maxItems\":5}",
     0},
    {SD_GRAMMAR_OBJECT, "", 0},
    {SD_GRAMMAR_REGEX, "(yes|no|maybe), [a-f]{3,8}(!|\\.\\.\\.)", 0},
    {SD_GRAMMAR_CHOICE, "[\"in the end\",\"in the hall\",\"out\"]", 0},
    {SD_GRAMMAR_SCHEMA,
     "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\","
     "\"maximum\":9,"
     "\"minimum\":0},\"next\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/$defs/"
     "n\"}]}},\"required\":["
     "\"v\",\"next\"]}},\"$ref\":\"#/$defs/n\"}",
     0},
};

static const sd_sampling samplings[] = {{.temperature = 0, .top_p = 1},
                                        {.temperature = 1, .top_p = 1, .seed = 5},
                                        {.temperature = 1.5f, .top_p = .9f, .seed = 6, .choice = 2},
                                        {.temperature = .7f, .top_k = 5, .top_p = 1, .seed = 7}};
enum { SAMPLINGS = sizeof samplings / sizeof samplings[0] };

typedef struct {
    sd_model *model;
    sd_grammar_cache *cache;
    sd_grammar *g[KINDS];
    int32_t prompt[PROMPT];
} world;

static world make_world(void) {
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    world w = {.model = sd_tiny_open(&t, true)};
    cr_assert(w.model);
    cr_assert_eq(sd_grammar_cache_open(&w.cache, w.model->tokenizer, &err), SD_OK);
    for (int i = 0; i < KINDS; i++) {
        sd_grammar_spec want = wants[i];
        want.len = strlen(want.text);
        cr_assert_eq(sd_grammar_cache_get(&w.g[i], w.cache, &want, &err), SD_OK, "%s", err.message);
    }
    test_repetitive(w.prompt, PROMPT, 3, 250);
    return w;
}

static void free_world(world *w) {
    for (int i = 0; i < KINDS; i++) sd_grammar_release(w->g[i]);
    sd_grammar_cache_close(w->cache);
    sd_model_release(w->model);
}

static sd_request request_of(world *w, int kind, int sampling, sd_spec_mode spec) {
    return (sd_request){.prompt = w->prompt,
                        .n_prompt = PROMPT,
                        .max_tokens = MOST,
                        .sampling = samplings[sampling],
                        .logprobs = sampling == 1 ? 2 : -1,
                        .grammar = w->g[kind],
                        .spec = spec};
}

static void expect_same(const test_answer *a, const test_answer *b, const char *what, int kind) {
    cr_expect_eq(a->finish, b->finish, "%s, %d: %d %d: %s", what, kind, a->finish, b->finish,
                 b->error);
    cr_expect_eq(a->ids.n, b->ids.n, "%s, %d: %d and %d tokens", what, kind, a->ids.n, b->ids.n);
    if (a->ids.n != b->ids.n) return;
    cr_expect(memcmp(a->ids.id, b->ids.id, (size_t)a->ids.n * sizeof *a->ids.id) == 0,
              "%s, %d: other tokens", what, kind);
    cr_expect(memcmp(a->logprob, b->logprob, (size_t)a->ids.n * sizeof *a->logprob) == 0,
              "%s, %d: other logprobs", what, kind);
    cr_expect(a->text.len == b->text.len &&
              (a->text.len == 0 || memcmp(a->text.data, b->text.data, a->text.len) == 0));
}

// Plain decoding without the engine: one row, its own mask, one sample.
static int plain(int32_t *out, world *w, int kind, int sampling, bool *ended) {
    sd_sampler *s = sd_sampler_open(w->model->hp.V);
    sd_grammar_state state = {0};
    int V = w->model->hp.V, n = 0;
    uint32_t *allowed = calloc(((size_t)V + 31) / 32, sizeof *allowed);
    float *logits = malloc((size_t)V * sizeof *logits);
    int32_t timeline[PROMPT + MOST];
    memcpy(timeline, w->prompt, sizeof w->prompt);
    *ended = false;
    sd_grammar_begin(&state, w->g[kind], w->prompt[PROMPT - 1]);
    while (n < MOST && !*ended) {
        int32_t ignored;
        // The logits behind the whole timeline, from scratch.
        sd_sampling greedy = {.top_p = 1};
        cr_assert_eq(
            test_plain(&ignored, logits, 1, w->model, timeline, PROMPT + n, &greedy, NULL, false),
            1);
        bool any = sd_grammar_fill(&state, allowed, V);
        if (sd_grammar_can_end(&state))
            for (int i = 0; i < w->model->n_end_tokens; i++)
                allowed[w->model->end_token[i] / 32] |= 1u << w->model->end_token[i] % 32;
        cr_assert(any || sd_grammar_can_end(&state));
        sd_shaping shaping = {.allowed = allowed};
        int32_t x = sd_sample(s, logits, &shaping, &samplings[sampling], PROMPT + n);
        if (sd_model_is_end(w->model, x)) {
            *ended = true;
            break;
        }
        cr_assert(sd_grammar_accept(&state, x));
        timeline[PROMPT + n] = out[n] = x, n++;
        *ended = sd_grammar_must_end(&state);
    }
    sd_grammar_end(&state);
    sd_sampler_close(s);
    free(allowed), free(logits);
    return n;
}

Test(constraint, answers_are_those_of_plain_decoding_whatever_is_drafted) {
    world w = make_world();
    const struct {
        const char *what;
        sd_engine_options o;
        sd_spec_mode spec;
    } runs[] = {{"off", {.ctx = 256, .slots = 2}, SD_SPEC_OFF},
                {"auto", {.ctx = 256, .slots = 2}, SD_SPEC_AUTO},
                {"grammar", {.ctx = 256, .slots = 2}, SD_SPEC_GRAMMAR},
                {"suffix, 3", {.ctx = 256, .slots = 2, .spec_length = 3}, SD_SPEC_SUFFIX},
                {"all, 9", {.ctx = 256, .slots = 2, .spec_length = 9}, SD_SPEC_AUTO},
                {"all, 48", {.ctx = 256, .slots = 2, .spec_length = 48}, SD_SPEC_AUTO}};
    int ended = 0, cut = 0;
    int64_t accepted = 0, forced = 0;
    int32_t want[MOST];
    bool ends;
    int n_want[KINDS][SAMPLINGS];
    int32_t *wanted[KINDS][SAMPLINGS];
    test_answer base[KINDS][SAMPLINGS] = {0};
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < SAMPLINGS; i++) {
            n_want[k][i] = plain(want, &w, k, i, &ends);
            wanted[k][i] = malloc(sizeof want);
            memcpy(wanted[k][i], want, sizeof want);
            ended += ends, cut += !ends;
        }
    for (size_t run = 0; run < sizeof runs / sizeof runs[0]; run++) {
        sd_engine *e = test_engine_open(w.model, &runs[run].o);
        for (int k = 0; k < KINDS; k++)
            for (int i = 0; i < SAMPLINGS; i++) {
                test_answer a = {0};
                sd_request r = request_of(&w, k, i, runs[run].spec);
                test_run(e, &r, &a);
                cr_expect_neq(a.finish, SD_FINISH_ERROR, "%s: %s", runs[run].what, a.error);
                cr_expect(
                    a.ids.n == n_want[k][i] &&
                        memcmp(a.ids.id, wanted[k][i], (size_t)a.ids.n * sizeof *a.ids.id) == 0,
                    "%s, %d, %d: \"%.*s\"", runs[run].what, k, i, (int)a.text.len, a.text.data);
                if (a.finish == SD_FINISH_STOP && k != 3 && k != 4) {
                    json_t *v = json_loadb(a.text.data, a.text.len, JSON_DECODE_ANY, NULL);
                    json_t *s = json_loads(wants[k].text, JSON_DECODE_ANY, NULL);
                    sd_error err;
                    cr_expect(v, "%.*s", (int)a.text.len, a.text.data);
                    cr_expect(!s || sd_schema_validate(s, v, &err) == SD_OK, "%.*s: %s",
                              (int)a.text.len, a.text.data, err.message);
                    json_decref(v);
                    json_decref(s);
                }
                if (run == 0)
                    base[k][i] = a;
                else
                    expect_same(&base[k][i], &a, runs[run].what, k);
                accepted += a.stats.spec.accepted;
                for (int d = 0; d < SD_MAX_DRAFTERS; d++)
                    if (strcmp(a.stats.spec.by[d].name, "grammar") == 0)
                        forced += a.stats.spec.by[d].accepted;
                if (run > 0) test_answer_free(&a);
            }
        sd_engine_close(e);
    }
    printf("# %d answers ended, %d were cut; %lld drafts accepted, %lld of them forced tokens\n",
           ended, cut, (long long)accepted, (long long)forced);
    cr_expect_gt(ended, KINDS * SAMPLINGS / 2);
    cr_expect_gt(forced, 100);
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < SAMPLINGS; i++) test_answer_free(&base[k][i]), free(wanted[k][i]);
    free_world(&w);
}

Test(constraint, a_batch_of_different_constraints_and_none_is_as_alone) {
    world w = make_world();
    sd_engine *e =
        test_engine_open(w.model, &(sd_engine_options){.ctx = 256, .slots = 8, .queue = 64});
    test_answer alone[KINDS + 1] = {0}, together[KINDS + 1] = {0};
    for (int k = 0; k <= KINDS; k++) {
        sd_request r = request_of(&w, k % KINDS, 1, SD_SPEC_AUTO);
        if (k == KINDS) r.grammar = NULL;
        test_run(e, &r, &alone[k]);
    }
    for (int k = 0; k <= KINDS; k++) {
        sd_request r = request_of(&w, k % KINDS, 1, SD_SPEC_AUTO);
        uint64_t id;
        sd_error err = {0};
        if (k == KINDS) r.grammar = NULL;
        r.on_event = test_collect, r.ctx = &together[k];
        cr_assert_eq(sd_engine_submit(e, &r, &id, &err), SD_OK, "%s", err.message);
    }
    while (sd_engine_step(e)) {
    }
    for (int k = 0; k <= KINDS; k++) {
        expect_same(&alone[k], &together[k], "together", k);
        test_answer_free(&alone[k]), test_answer_free(&together[k]);
    }
    sd_engine_close(e);
    free_world(&w);
}

// A draft that is the target itself draws under the same masks: all it says is right.
Test(constraint, a_draft_model_draws_under_the_masks) {
    sd_error err = {0};
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "same.gguf");
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    world w = make_world();
    cr_assert_eq(sd_tiny_write_gguf(path, &t, &err), SD_OK, "%s", err.message);
    sd_engine *e = test_engine_open(
        w.model, &(sd_engine_options){.ctx = 256, .slots = 2, .draft = path, .spec_length = 4});
    int64_t drafted = 0, accepted = 0;
    for (int k = 0; k < KINDS; k++) {
        test_answer a = {0}, plain = {0};
        sd_request r = request_of(&w, k, 1, SD_SPEC_DRAFT), off = request_of(&w, k, 1, SD_SPEC_OFF);
        test_run(e, &r, &a);
        test_run(e, &off, &plain);
        expect_same(&plain, &a, "draft", k);
        drafted += a.stats.spec.drafted, accepted += a.stats.spec.accepted;
        test_answer_free(&a), test_answer_free(&plain);
    }
    printf("# %lld of %lld accepted\n", (long long)accepted, (long long)drafted);
    cr_expect(accepted * 10 >= drafted * 9, "%lld of %lld", (long long)accepted,
              (long long)drafted);
    sd_engine_close(e);
    free(path);
    sd_tiny_remove(dir);
    free_world(&w);
}

// Newcomers of other clients take slots from answers half way, which begin again later.
Test(constraint, a_slot_that_is_taken_away_changes_no_token) {
    world w = make_world();
    for (int length = 0; length <= 3; length += 3) {
        sd_engine *e = test_engine_open(
            w.model,
            &(sd_engine_options){
                .ctx = 256, .slots = KINDS, .queue = 64, .threads = 1, .spec_length = length});
        test_answer want[KINDS] = {0}, got[KINDS] = {0}, others[6] = {0};
        for (int k = 0; k < KINDS; k++) {
            sd_request r = request_of(&w, k, 1, SD_SPEC_AUTO);
            test_run(e, &r, &want[k]);
        }
        for (int k = 0; k < KINDS; k++) {
            sd_request r = request_of(&w, k, 1, SD_SPEC_AUTO);
            r.client = 1, r.on_event = test_collect, r.ctx = &got[k];
            cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        }
        for (int k = 0; k < 6; k++) {
            for (int i = 0; i < 2; i++) sd_engine_step(e);
            sd_request r = request_of(&w, 1, 1, SD_SPEC_AUTO);
            r.client = 2 + (uint64_t)k, r.on_event = test_collect, r.ctx = &others[k];
            cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        }
        while (sd_engine_step(e)) {
        }
        cr_assert_gt(e->stats.preemptions, 0);
        printf("# %d slots were taken away\n", (int)e->stats.preemptions);
        for (int k = 0; k < KINDS; k++) {
            expect_same(&want[k], &got[k], "taken away", k);
            test_answer_free(&want[k]), test_answer_free(&got[k]);
        }
        for (int k = 0; k < 6; k++) test_answer_free(&others[k]);
        sd_engine_close(e);
    }
    free_world(&w);
}

// An answer says that it ended where its constraint lets it: it is to be checked then, by others.
Test(constraint, an_answer_that_is_whole_says_so) {
    world w = make_world();
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = 256, .slots = 1});
    int whole = 0;
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < 2; i++) {
            test_answer a = {0};
            sd_error err;
            sd_request r = request_of(&w, k, 1, SD_SPEC_AUTO);
            if (i) r.max_tokens = 2;
            test_run(e, &r, &a);
            cr_expect_eq(a.stats.whole, a.finish == SD_FINISH_STOP, "%d, %d", k, i);
            cr_assert(sd_grammar_has_check(w.g[k]));
            if (a.stats.whole)
                cr_expect_eq(sd_grammar_check(w.g[k], a.text.data, a.text.len, &err), SD_OK,
                             "%.*s: %s", (int)a.text.len, a.text.data, err.message);
            whole += a.stats.whole;
            test_answer_free(&a);
        }
    cr_expect_gt(whole, 2);
    sd_request stopped = request_of(&w, 3, 1, SD_SPEC_OFF), free_text = stopped;
    test_answer a = {0}, b = {0};
    stopped.stop[0] = ", ", stopped.n_stop = 1; // cut, so that it is not what was asked for
    free_text.grammar = NULL;
    test_run(e, &stopped, &a);
    double masks = e->stats.constraint_s;
    cr_expect(masks > 0 && masks < e->stats.busy_s, "%g of %g s", masks, e->stats.busy_s);
    test_run(e, &free_text, &b);
    cr_expect_eq(e->stats.constraint_s, masks);
    cr_expect(a.finish == SD_FINISH_STOP && !a.stats.whole && !b.stats.whole);
    test_answer_free(&a), test_answer_free(&b);
    sd_engine_close(e);
    free_world(&w);
}

// min_tokens keep an answer from ending where it could go on, and nothing from its end.
Test(constraint, min_tokens_hold_where_the_answer_could_go_on) {
    static const char *const patterns[] = {"a{3}", "[ab]{2,60}"};
    enum { LEAST = 12 };
    world w = make_world();
    for (int i = 0; i < 3; i++) {
        const sd_grammar_spec want = {SD_GRAMMAR_REGEX, patterns[i == 1], strlen(patterns[i == 1])};
        const int32_t other = 'z';
        sd_request r = request_of(&w, 0, 0, SD_SPEC_AUTO);
        test_answer a = {0};
        cr_assert_eq(sd_grammar_cache_get(&r.grammar, w.cache, &want, NULL), SD_OK);
        r.shaping.min_tokens = LEAST;
        // No token is left: the first one is an error, not the submission.
        if (i == 2) r.shaping.allowed = &other, r.shaping.n_allowed = 1;
        sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = 256, .slots = 1});
        test_run(e, &r, &a);
        if (i == 0) {
            cr_expect_eq(a.finish, SD_FINISH_STOP);
            cr_expect(a.text.len == 3 && a.ids.n < LEAST, "%d tokens", a.ids.n);
        } else if (i == 1) {
            cr_expect_geq(a.ids.n, LEAST);
        } else {
            cr_expect(a.finish == SD_FINISH_ERROR && a.ids.n == 0 && strstr(a.error, "leave none"));
        }
        sd_engine_close(e);
        sd_grammar_release(r.grammar);
        test_answer_free(&a);
    }
    free_world(&w);
}

Test(constraint, a_cache_keeps_what_is_asked_for) {
    world w = make_world();
    sd_grammar_cache_stats s;
    sd_error err;
    sd_grammar *g = NULL;
    sd_grammar_spec want = wants[0];
    want.len = strlen(want.text);
    cr_assert_eq(sd_grammar_cache_get(&g, w.cache, &want, &err), SD_OK);
    cr_expect_eq(g, w.g[0]);
    sd_grammar_release(g);
    sd_grammar_cache_get_stats(w.cache, &s);
    cr_expect_eq(s.found, 1);
    cr_expect_eq(s.compiled, KINDS);
    char text[32];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3 * SD_GRAMMAR_KEPT; i++) { // others do not push out what is held
            int n = snprintf(text, sizeof text, "a{%d}", i);
            want = (sd_grammar_spec){SD_GRAMMAR_REGEX, text, (size_t)n};
            cr_assert_eq(sd_grammar_cache_get(&g, w.cache, &want, &err), SD_OK, "%s", err.message);
            sd_grammar_release(g);
        }
        sd_grammar_cache_get_stats(w.cache, &s);
        int64_t compiled = s.compiled;
        want = wants[0];
        want.len = strlen(want.text);
        cr_assert_eq(sd_grammar_cache_get(&g, w.cache, &want, &err), SD_OK);
        sd_grammar_cache_get_stats(w.cache, &s);
        cr_expect_eq(s.compiled - compiled, round); // nobody held it in the second round
        sd_grammar_release(g);
        sd_grammar_release(w.g[0]);
        w.g[0] = NULL;
    }
    // More are held than are kept of those that nobody holds; each is found.
    sd_grammar *held[2 * SD_GRAMMAR_KEPT] = {0};
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 2 * SD_GRAMMAR_KEPT; i++) {
            int n = snprintf(text, sizeof text, "b{%d}", i);
            want = (sd_grammar_spec){SD_GRAMMAR_REGEX, text, (size_t)n};
            cr_assert_eq(sd_grammar_cache_get(&g, w.cache, &want, &err), SD_OK, "%s", err.message);
            if (round) cr_expect_eq(g, held[i]);
            if (round) sd_grammar_release(g);
            held[i] = g;
        }
    // What one tenant has compiled the next one does not find.
    sd_grammar *other = NULL;
    cr_assert_eq(sd_grammar_cache_get_for(&g, w.cache, 7, &want, &err), SD_OK);
    cr_expect_neq(g, held[2 * SD_GRAMMAR_KEPT - 1]);
    cr_assert_eq(sd_grammar_cache_get_for(&other, w.cache, 7, &want, &err), SD_OK);
    cr_expect_eq(g, other);
    sd_grammar_release(g), sd_grammar_release(other);
    for (int i = 0; i < 2 * SD_GRAMMAR_KEPT; i++) sd_grammar_release(held[i]);
    want = (sd_grammar_spec){SD_GRAMMAR_SCHEMA, "{", 1};
    cr_expect_eq(sd_grammar_cache_get(&g, w.cache, &want, &err), SD_EINVAL);
    want = (sd_grammar_spec){SD_GRAMMAR_CHOICE, "[1]", 3};
    cr_expect_eq(sd_grammar_cache_get(&g, w.cache, &want, &err), SD_EINVAL);
    free_world(&w);
}

// Whoever asks for a grammar waits for no mask of another one.
Test(constraint, a_cache_does_not_wait_for_a_grammar_that_is_at_work) {
    world w = make_world();
    sd_error err;
    pthread_mutex_lock(&w.g[0]->lock);
    for (int i = 0; i < 2 * SD_GRAMMAR_KEPT; i++) {
        char text[32];
        sd_grammar *g;
        int n = snprintf(text, sizeof text, "a{%d}", i);
        const sd_grammar_spec want = {SD_GRAMMAR_REGEX, text, (size_t)n};
        cr_assert_eq(sd_grammar_cache_get(&g, w.cache, &want, &err), SD_OK, "%s", err.message);
        sd_grammar_release(g);
    }
    pthread_mutex_unlock(&w.g[0]->lock);
    free_world(&w);
}

Test(constraint, a_mask_that_takes_too_much_ends_its_request_alone) {
    world w = make_world();
    sd_error err;
    const char *text = "([^a]*a[^a]*a)*[^a]*|([^b]*b[^b]*b[^b]*b)*[^b]*|([^e]*e[^e]*e)*[^e]*";
    const sd_grammar_spec want = {SD_GRAMMAR_REGEX, text, strlen(text)};
    for (int run = 0; run < 2; run++) {
        sd_spec_mode spec = run ? SD_SPEC_AUTO : SD_SPEC_OFF;
        sd_grammar *g = NULL;
        sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = 256, .slots = 4});
        test_answer alone = {0}, with = {0}, hostile = {0}, later = {0};
        cr_assert_eq(sd_grammar_cache_get_for(&g, w.cache, 1 + (uint64_t)run, &want, &err), SD_OK);
        sd_request r = request_of(&w, 0, 1, spec), h = request_of(&w, 0, 1, spec);
        test_run(e, &r, &alone);
        cr_expect_neq(alone.finish, SD_FINISH_ERROR);
        h.grammar = g;
        g->budget.made = 2;
        r.client = 1, r.on_event = test_collect, r.ctx = &with;
        h.client = 2, h.on_event = test_collect, h.ctx = &hostile;
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        cr_assert_eq(sd_engine_submit(e, &h, NULL, NULL), SD_OK);
        while (sd_engine_step(e)) {
        }
        cr_expect_eq(hostile.finish, SD_FINISH_ERROR);
        cr_expect(strstr(hostile.error, "takes more than"), "%s", hostile.error);
        expect_same(&alone, &with, "beside it", 0);
        // The grammar is as it was: with more to spend it serves.
        g->budget.made = SD_GRAMMAR_MASK_STATES;
        test_run(e, &h, &later);
        cr_expect_neq(later.finish, SD_FINISH_ERROR, "%s", later.error);
        cr_expect_gt(later.ids.n, 0);
        test_answer_free(&alone), test_answer_free(&with);
        test_answer_free(&hostile), test_answer_free(&later);
        sd_engine_close(e);
        sd_grammar_release(g);
    }
    free_world(&w);
}

// Constraints whose masks each take a good part of a step's budget: a step makes as many as it has the
// budget for, the others wait, drafts end there, and the answers are those of plain decoding.
Test(constraint, the_masks_of_a_step_share_one_budget) {
    enum { CLIENTS = 6 };
    world w = make_world();
    sd_error err;
    sd_engine *e = test_engine_open(
        w.model, &(sd_engine_options){.ctx = 256, .slots = CLIENTS, .spec_length = 8});
    sd_grammar *g[CLIENTS] = {0}, *own[CLIENTS] = {0};
    test_answer want[CLIENTS] = {0}, got[CLIENTS] = {0};
    int64_t most = 0;
    for (int i = 0; i < CLIENTS; i++) {
        char text[80];
        // Each beginning of a part is a state.
        int n = snprintf(text, sizeof text, "([a-e]{%d}|[c-h]{%d}|in the (end|hall)){2,3}", 12 + i,
                         18 + i);
        const sd_grammar_spec spec = {SD_GRAMMAR_REGEX, text, (size_t)n};
        cr_assert_eq(sd_grammar_cache_get_for(&own[i], w.cache, 1, &spec, &err), SD_OK, "%s",
                     err.message);
        cr_assert_eq(sd_grammar_cache_get_for(&g[i], w.cache, 2, &spec, &err), SD_OK);
        sd_request r = request_of(&w, 0, 1, SD_SPEC_OFF);
        r.grammar = own[i];
        test_run(e, &r, &want[i]);
        sd_grammar_stats stats;
        sd_grammar_get_stats(own[i], &stats);
        if (stats.most_work > most) most = stats.most_work;
    }
    e->mask_budget.work = most + most / 2; // one mask, never two
    for (int i = 0; i < CLIENTS; i++) {
        sd_request r = request_of(&w, 0, 1, SD_SPEC_AUTO);
        r.grammar = g[i], r.on_event = test_collect, r.ctx = &got[i];
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
    }
    int64_t waited = 0;
    for (bool more = true; more;) {
        int64_t before = 0, after = 0;
        for (int i = 0; i < CLIENTS; i++) before += (int64_t)g[i]->work;
        more = sd_engine_step(e);
        for (int i = 0; i < CLIENTS; i++) after += (int64_t)g[i]->work;
        // Beyond the budget: single moves over tokens, and what the last mask's last step took.
        cr_assert_leq(after - before, e->mask_budget.work + most / 2 + 20000);
        for (int i = 0; i < CLIENTS; i++) {
            const sd_slot *s = &e->slot[i];
            waited += s->request && !s->fresh && s->rows == 0;
        }
    }
    printf("# a mask takes %d steps at most; slots waited %d times\n", (int)most, (int)waited);
    cr_expect_gt(waited, 0);
    for (int i = 0; i < CLIENTS; i++) {
        expect_same(&want[i], &got[i], "one budget", i);
        test_answer_free(&want[i]), test_answer_free(&got[i]);
        sd_grammar_release(g[i]), sd_grammar_release(own[i]);
    }
    sd_engine_close(e);
    free_world(&w);
}
