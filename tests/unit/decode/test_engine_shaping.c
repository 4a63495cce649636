// Penalties, biases, bans and allowed sets: the tokens of a slow definition, whatever was drafted.
//
// The oracle decodes row by row without the engine, counts the whole text again for each token, and
// shapes the logits in double by the definition in kernels/sample/sampler.h. An index of its answers
// drafts what is right, the text's own suffixes and a draft model what is right in part.
#include "base/files/path.h"
#include "decode/engine/bad_words.h"
#include "decode/engine/private.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PROMPT = 60, ALIKE = 20, N = 48, V = 288, LAWS = 4, CASES = 11, ANSWERS = LAWS * CASES };

static const sd_sampling laws[LAWS] = {
    {.temperature = 0, .top_p = 1},
    {.temperature = .8f, .top_p = 1, .seed = 1, .choice = 2},
    {.temperature = 1, .top_p = .9f, .top_k = 40, .seed = 2},
    {.temperature = .3f, .top_p = 1, .min_p = .05f, .seed = 3},
};

// ---- the definition

static int times(const int32_t *said, int from, int n, int32_t t) {
    int k = 0;
    for (int i = from; i < n; i++) k += said[i] == t;
    return k;
}

static bool is_listed(const int32_t *list, int n, int32_t t) {
    return n > 0 && times(list, 0, n, t) > 0;
}

static bool ends_answer(const sd_model *m, const sd_request *r, int32_t t) {
    return is_listed(r->stop_token, r->n_stop_token, t) ||
           (!r->ignore_end && sd_model_is_end(m, t));
}

// Whether t would complete a bad word.
static bool is_bad(const sd_request_shaping *h, const int32_t *said, int n, int32_t t) {
    for (int i = 0, len; i < h->n_bad_words; i += 1 + len) {
        len = h->bad_words[i];
        const int32_t *word = h->bad_words + i + 1;
        if (word[len - 1] == t && len - 1 <= n &&
            memcmp(said + n - (len - 1), word, (size_t)(len - 1) * sizeof *word) == 0)
            return true;
    }
    return false;
}

static float shaped_logit(double x, const sd_model *m, const sd_request *r, const int32_t *said,
                          int n, int32_t t) {
    const sd_request_shaping *h = &r->shaping;
    int answered = times(said, r->n_prompt, n, t);
    for (int i = 0; i < h->n_bias; i++)
        if (h->bias[i].token == t) x += (double)h->bias[i].bias;
    if (h->repetition > 0 && times(said, 0, n, t) > 0)
        x = x > 0 ? x / (double)h->repetition : x * (double)h->repetition;
    x -= (double)h->frequency * answered;
    if (answered > 0) x -= (double)h->presence;
    bool banned = h->n_allowed > 0 && !is_listed(h->allowed, h->n_allowed, t);
    banned |= is_bad(h, said, n, t);
    banned |= n - r->n_prompt < h->min_tokens && ends_answer(m, r, t);
    return banned ? -INFINITY : (float)x;
}

typedef struct {
    int32_t ids[N];
    float logprob[N]; // of the logits before shaping
    int n;
} plain;

static void decode_slowly(plain *out, sd_model *m, const sd_request *r) {
    sd_context *cx = NULL;
    sd_kv *kv = NULL;
    int32_t said[PROMPT + N];
    float logits[V], shaped[V];
    sd_sampler *s = sd_sampler_open(V);
    cr_assert_eq(sd_context_open(&cx, m, NULL, &(sd_context_options){.max_rows = 1}, NULL), SD_OK);
    cr_assert_eq(sd_kv_open(&kv, cx, PROMPT + N, NULL), SD_OK);
    memcpy(said, r->prompt, PROMPT * sizeof *said);
    out->n = 0;
    for (int pos = 0; out->n < r->max_tokens; pos++) {
        sd_row row = {.token = said[pos], .pos = pos, .kv = kv, .want_logits = true};
        cr_assert_eq(sd_forward(cx, &row, 1, logits, NULL), SD_OK);
        kv->len = pos + 1;
        if (pos < PROMPT - 1) continue;
        for (int32_t t = 0; t < V; t++)
            shaped[t] = shaped_logit((double)logits[t], m, r, said, pos + 1, t);
        int32_t x = sd_sample(s, shaped, NULL, &r->sampling, pos + 1);
        cr_assert_geq(x, 0);
        if (ends_answer(m, r, x)) break;
        out->logprob[out->n] = sd_logprob(logits, V, x);
        said[pos + 1] = out->ids[out->n++] = x;
    }
    sd_sampler_close(s), sd_kv_close(kv), sd_context_close(cx);
}

// ---- what is asked

typedef struct {
    sd_model *model;
    char *dir, *same, *near, *index;
    int32_t prompt[LAWS][PROMPT];
    int32_t unshaped[LAWS][N];
    int32_t bad_words[LAWS][32], few[40], stop_token[2];
    int n_bad_words;
    sd_token_bias bias[6];
    plain want[ANSWERS];
} world;

static sd_request request(const world *w, int answer) {
    int law = answer % LAWS;
    sd_request r = {.prompt = w->prompt[law],
                    .n_prompt = PROMPT,
                    .max_tokens = N,
                    .sampling = laws[law],
                    .ignore_end = true,
                    .logprobs = -1};
    sd_request_shaping *h = &r.shaping;
    int which = answer / LAWS;
    bool all = which == 9;
    if (which == 0 || all) h->presence = 1.5f;
    if (which == 1 || all) h->frequency = .7f;
    if (which == 2) h->frequency = -.4f; // says again what it said
    if (which == 3 || all) h->repetition = 1.4f;
    if (which == 4) h->repetition = .7f;
    if (which == 5 || all) h->bias = w->bias, h->n_bias = 6;
    if (which == 6) h->allowed = w->few, h->n_allowed = 40;
    if (which == 7 || all) h->bad_words = w->bad_words[law], h->n_bad_words = w->n_bad_words;
    if (which == 8 || all) {
        h->min_tokens = 20;
        r.stop_token = w->stop_token, r.n_stop_token = 2;
        r.ignore_end = false;
    }
    if (which == 10) h->presence = -1, h->frequency = -.3f, h->repetition = 1.1f;
    return r;
}

static void choose_tokens(world *w) {
    for (int i = 0; i < 40; i++) w->few[i] = (i * 7 + 3) % V;
    for (int i = 0; i < 6; i++)
        w->bias[i] = (sd_token_bias){w->unshaped[0][i * 3], i % 2 ? -100 : 3.5f - (float)i};
    w->stop_token[0] = w->unshaped[0][4], w->stop_token[1] = w->unshaped[1][9];
    // Two and three tokens that would be said, one that stands at the prompt's end, one token alone.
    for (int l = 0; l < LAWS; l++) {
        const int32_t *u = w->unshaped[l], *p = w->prompt[l];
        const int32_t words[] = {
            2,    u[2], u[3],  3, u[10], u[11], u[12], 3, p[PROMPT - 2], p[PROMPT - 1],
            u[0], 1,    u[20], 4, 1,     2,     3,     4};
        w->n_bad_words = sizeof words / sizeof *words;
        memcpy(w->bad_words[l], words, sizeof words);
    }
}

// A model and its prompts.
static world *make_world(void) {
    world *w = calloc(1, sizeof *w);
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2), near = t;
    near.dtype = SD_Q8_0;
    w->dir = sd_tiny_dir();
    w->near = sd_path_join(w->dir, "near.gguf"), w->same = sd_path_join(w->dir, "same.gguf");
    w->index = sd_path_join(w->dir, "corpus.idx");
    cr_assert_eq(sd_tiny_write_gguf(w->near, &near, NULL), SD_OK);
    cr_assert_eq(sd_tiny_write_gguf(w->same, &t, NULL), SD_OK);
    cr_assert_eq(sd_model_open(&w->model, w->same, NULL), SD_OK);
    cr_assert_eq(w->model->hp.V, V);
    for (int l = 0; l < LAWS; l++) {
        test_repetitive(w->prompt[l], PROMPT, 70 + (uint64_t)l, 250);
        memcpy(w->prompt[l], w->prompt[0], ALIKE * sizeof w->prompt[l][0]);
        test_plain(w->unshaped[l], NULL, N, w->model, w->prompt[l], PROMPT, &laws[l], NULL, false);
    }
    choose_tokens(w);
    return w;
}

// That, every answer by the definition, and an index of them.
static world *make_answered_world(void) {
    world *w = make_world();
    int32_t *corpus = calloc(ANSWERS, (N + 1) * sizeof *corpus);
    int n = 0;
    for (int i = 0; i < ANSWERS; i++) {
        sd_request r = request(w, i);
        decode_slowly(&w->want[i], w->model, &r);
        for (int j = 0; j < w->want[i].n; j++) corpus[n++] = w->want[i].ids[j];
        corpus[n++] = -1;
    }
    const char *print = sd_tokenizer_fingerprint(w->model->tokenizer);
    cr_assert_eq(sd_corpus_write(w->index, corpus, n, NULL, 0, print, NULL, NULL), SD_OK);
    free(corpus);
    return w;
}

static void free_world(world *w) {
    sd_model_release(w->model), sd_tiny_remove(w->dir);
    free(w->same), free(w->near), free(w->index), free(w);
}

// ---- the engine says the same

static void check_answer(const plain *want, const test_answer *got, int i, const char *how) {
    cr_assert_eq(got->ids.n, want->n, "case %d, law %d, %s: %d tokens, want %d", i / LAWS, i % LAWS,
                 how, got->ids.n, want->n);
    for (int k = 0; k < want->n; k++)
        cr_assert_eq(got->ids.id[k], want->ids[k], "case %d, law %d, %s: token %d is %d, want %d",
                     i / LAWS, i % LAWS, how, k, got->ids.id[k], want->ids[k]);
    cr_assert_eq(got->finish, want->n < N ? SD_FINISH_STOP : SD_FINISH_LENGTH);
}

// All answers through one engine; how many drafted tokens were accepted.
static int64_t check_engine(const world *w, const sd_engine_options *o, const char *how) {
    sd_engine *e = test_engine_open(w->model, o);
    test_answer *a = calloc(ANSWERS, sizeof *a);
    for (int i = 0; i < ANSWERS; i++) {
        sd_request r = request(w, i);
        r.on_event = test_collect, r.ctx = &a[i];
        if (i % 3 == 0) r.logprobs = 0;
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
    }
    while (sd_engine_step(e)) {
    }
    int64_t accepted = 0;
    for (int i = 0; i < ANSWERS; i++) {
        check_answer(&w->want[i], &a[i], i, how);
        for (int k = 0; i % 3 == 0 && k < w->want[i].n; k++)
            cr_assert_eq(a[i].logprob[k], w->want[i].logprob[k],
                         "log probabilities are the model's");
        accepted += a[i].stats.spec.accepted;
        test_answer_free(&a[i]);
    }
    free(a);
    sd_engine_close(e);
    return accepted;
}

static void check_drafter(sd_spec_mode spec, bool index, bool draft, int64_t least) {
    static const int lengths[] = {1, 3, 7};
    world *w = make_answered_world();
    for (int l = 0; l < 3; l++) {
        char how[64];
        snprintf(how, sizeof how, "mode %d, drafts of %d", (int)spec, lengths[l]);
        int64_t accepted = check_engine(w,
                                        &(sd_engine_options){.ctx = 128,
                                                             .slots = l == 1 ? 1 : 5,
                                                             .threads = 1 + l % 2,
                                                             .prefill_chunk = 64 - 20 * l,
                                                             .spec = spec,
                                                             .spec_length = lengths[l],
                                                             .draft = index   ? w->index
                                                                      : draft ? w->near
                                                                              : NULL},
                                        how);
        printf("%s: %lld accepted\n", how, (long long)accepted);
        cr_assert_gt(accepted, least, "%s: %lld accepted", how, (long long)accepted);
    }
    free_world(w);
}

Test(shaping, plain_decoding_equals_the_definition_and_each_case_matters) {
    world *w = make_answered_world();
    check_engine(w, &(sd_engine_options){.ctx = 128, .slots = 4, .spec = SD_SPEC_OFF}, "plain");
    for (int which = 0; which < CASES; which++) {
        bool differs = false;
        for (int l = 0; l < LAWS; l++) {
            const plain *p = &w->want[which * LAWS + l];
            differs |= p->n != N || memcmp(p->ids, w->unshaped[l], sizeof p->ids) != 0;
        }
        cr_assert(differs, "case %d shapes nothing", which);
    }
    free_world(w);
}

Test(shaping, suffix_drafts_change_no_token) {
    check_drafter(SD_SPEC_SUFFIX, false, false, 50);
}
Test(shaping, corpus_drafts_change_no_token) {
    check_drafter(SD_SPEC_CORPUS, true, false, 300);
}
Test(shaping, model_drafts_change_no_token) {
    check_drafter(SD_SPEC_DRAFT, false, true, 100);
}
Test(shaping, drafters_that_compete_change_no_token) {
    check_drafter(SD_SPEC_AUTO, false, true, 100);
}

// Its logits are the target's, and it shapes them as the target does. Each case is a tenant, who has the
// beginning of its second prompt from the first: what is read behind it is shaped all the same.
Test(shaping, a_draft_model_with_the_targets_weights_is_always_right) {
    world *w = make_answered_world();
    sd_engine *e = test_engine_open(
        w->model,
        &(sd_engine_options){
            .ctx = 256, .slots = 3, .spec = SD_SPEC_DRAFT, .spec_length = 7, .draft = w->same});
    for (int i = 0; i < ANSWERS; i++) {
        test_answer a = {0};
        sd_request r = request(w, i);
        r.tenant = 1 + (uint64_t)(i / LAWS);
        test_run(e, &r, &a);
        check_answer(&w->want[i], &a, i, "the same model drafts");
        const sd_spec_stats *spec = &a.stats.spec;
        // What was drafted behind the end of the answer does not count.
        cr_assert_geq(spec->accepted + (a.finish == SD_FINISH_STOP ? 7 : 0), spec->drafted,
                      "case %d, law %d: %d of %d accepted", i / LAWS, i % LAWS, (int)spec->accepted,
                      (int)spec->drafted);
        cr_assert_gt(spec->accepted, 0);
        cr_assert_eq(a.stats.cached_tokens >= ALIKE, i % LAWS > 0);
        test_answer_free(&a);
    }
    sd_engine_close(e);
    free_world(w);
}

// Whether a newcomer finds no slot that is free, and every answer has said what counts later.
static bool all_slots_said(const sd_engine *e) {
    for (int i = 0; i < e->n_slots; i++)
        if (!e->slot[i].request || e->slot[i].fresh || e->slot[i].n < PROMPT + 3) return false;
    return true;
}

Test(shaping, an_answer_that_gave_its_slot_back_still_counts_what_it_said) {
    world *w = make_answered_world();
    for (int length = 0; length <= 3; length += 3) {
        sd_engine *e = test_engine_open(w->model, &(sd_engine_options){.queue = 3 * ANSWERS + 4,
                                                                       .ctx = 128,
                                                                       .slots = 4,
                                                                       .threads = 1,
                                                                       .spec_length = length,
                                                                       .draft = w->index});
        test_answer *a = calloc(3 * ANSWERS, sizeof *a);
        test_answer others[4] = {0};
        for (int i = 0; i < 3 * ANSWERS; i++) {
            sd_request r = request(w, i % ANSWERS);
            r.on_event = test_collect, r.ctx = &a[i], r.client = 1;
            cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        }
        for (int k = 0; k < 4; k++) { // newcomers, each from another client, one after the other
            // How many steps a prompt takes follows from how long steps take.
            do cr_assert(sd_engine_step(e), "all has been answered before %d came", k);
            while (!all_slots_said(e));
            sd_request r = request(w, 5);
            r.max_tokens = 3, r.client = 2 + (uint64_t)k;
            r.on_event = test_collect, r.ctx = &others[k];
            cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
            while (!others[k].finish) sd_engine_step(e);
        }
        while (sd_engine_step(e)) {
        }
        cr_assert_geq(e->stats.preemptions, 4, "%d", (int)e->stats.preemptions);
        for (int i = 0; i < 3 * ANSWERS; i++) {
            check_answer(&w->want[i % ANSWERS], &a[i], i, "preempted");
            test_answer_free(&a[i]);
        }
        for (int k = 0; k < 4; k++) test_answer_free(&others[k]);
        free(a);
        sd_engine_close(e);
    }
    free_world(w);
}

// ---- a constraint's sets

// Row j of a round may draw the even tokens where an even number of tokens was said, else the odd
// ones: as a constraint would fill the sets before each step.
static void fill_parity(sd_slot *s, const uint32_t **place, const uint32_t even[9],
                        const uint32_t odd[9]) {
    s->allowed = place;
    for (int j = 0; j <= SD_MAX_DRAFT; j++) place[j] = (s->n + j) % 2 ? odd : even;
}

Test(shaping, a_constraint_gives_each_row_a_set_of_its_own) {
    world *w = make_world();
    uint32_t even[9], odd[9];
    memset(even, 0x55, sizeof even), memset(odd, 0xaa, sizeof odd);
    int32_t first[N];
    for (int length = 0; length <= 5; length += 5) {
        const uint32_t *place[SD_MAX_DRAFT + 1];
        sd_engine *e = test_engine_open(
            w->model, &(sd_engine_options){.ctx = 128,
                                           .slots = 1,
                                           .threads = 1,
                                           .spec = length ? SD_SPEC_SUFFIX : SD_SPEC_OFF,
                                           .spec_length = length});
        test_answer a = {0};
        sd_request r = request(w, 0);
        r.on_event = test_collect, r.ctx = &a;
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        sd_queue_admit(e);
        do fill_parity(&e->slot[0], place, even, odd);
        while (sd_engine_step(e));
        cr_assert_eq(a.ids.n, N);
        for (int i = 0; i < N; i++)
            cr_assert_eq(a.ids.id[i] % 2, (PROMPT + i) % 2, "token %d is %d", i, a.ids.id[i]);
        if (length)
            cr_assert_eq(memcmp(a.ids.id, first, sizeof first), 0);
        else
            memcpy(first, a.ids.id, sizeof first);
        test_answer_free(&a);
        sd_engine_close(e);
    }
    free_world(w);
}

// ---- min_tokens and stop strings

Test(shaping, an_end_comes_right_behind_the_least_length) {
    world *w = make_world();
    static const int32_t end = 40;
    const sd_token_bias wanted = {end, 100};
    int64_t accepted = 0;
    for (int length = 0; length <= 7; length += 7) {
        sd_engine_options o = {.ctx = 128,
                               .slots = 1,
                               .threads = 1,
                               .spec = length ? SD_SPEC_DRAFT : SD_SPEC_OFF,
                               .spec_length = length,
                               .draft = w->same};
        sd_engine *e = test_engine_open(w->model, &o);
        for (int least = 0; least <= 20; least++) {
            sd_request r = request(w, 1);
            r.shaping = (sd_request_shaping){.bias = &wanted, .n_bias = 1, .min_tokens = least};
            r.stop_token = &end, r.n_stop_token = 1;
            test_answer a = {0};
            test_run(e, &r, &a);
            cr_assert_eq(a.finish, SD_FINISH_STOP);
            cr_assert_eq(a.ids.n, least, "%d tokens, want %d", a.ids.n, least);
            accepted += a.stats.spec.accepted;
            test_answer_free(&a);
        }
        sd_engine_close(e);
    }
    cr_assert_gt(accepted, 50);
    free_world(w);
}

// The token with which a stop string may end the answer: the first behind min_tokens whose text
// completes it. -1: none. *cut: bytes of the answer's text.
static int stopping_token(const sd_model *m, const test_answer *full, const char *stop, int least,
                          size_t *cut) {
    sd_buf text = sd_buf_make(1 << 16);
    int at = -1;
    for (int i = 0; i < full->ids.n && at < 0; i++) {
        size_t before = text.len, len;
        const char *bytes = sd_tokenizer_bytes(m->tokenizer, full->ids.id[i], &len);
        if (!sd_tokenizer_is_special(m->tokenizer, full->ids.id[i])) sd_buf_add(&text, bytes, len);
        for (size_t k = 0; i >= least && k + strlen(stop) <= text.len && at < 0; k++)
            if (k + strlen(stop) > before && memcmp(text.data + k, stop, strlen(stop)) == 0)
                at = i, *cut = k;
    }
    sd_buf_free(&text);
    return at;
}

Test(shaping, a_stop_string_within_the_least_length_ends_nothing) {
    world *w = make_world();
    int ended = 0, later = 0;
    for (int length = 0; length <= 7; length += 7) {
        sd_engine *e = test_engine_open(
            w->model, &(sd_engine_options){.slots = 1, .threads = 1, .spec_length = length});
        // ASCII alone, so that each token's bytes are text at once; few tokens, so that it repeats.
        int32_t letters[5];
        for (int i = 0; i < 5; i++) {
            int found = 0;
            for (int32_t t = 0; t < V; t++) {
                size_t len;
                const char *b = sd_tokenizer_bytes(w->model->tokenizer, t, &len);
                if (len == 1 && *b == 'a' + i) letters[i] = t, found = 1;
            }
            cr_assert(found);
        }
        sd_request r = request(w, 1);
        r.shaping = (sd_request_shaping){.allowed = letters, .n_allowed = 5};
        test_answer full = {0};
        test_run(e, &r, &full);
        cr_assert_eq(full.ids.n, N);
        for (int least = 0; least <= N; least += 4)
            for (size_t begin = 0; begin + 3 < 12; begin += 2) {
                char stop[4] = {0};
                size_t cut = full.text.len;
                memcpy(stop, full.text.data + begin, 2);
                int at = stopping_token(w->model, &full, stop, least, &cut);
                test_answer a = {0};
                r.stop[0] = stop, r.n_stop = 1, r.shaping.min_tokens = least;
                test_run(e, &r, &a);
                cr_assert_eq(a.finish, at < 0 ? SD_FINISH_LENGTH : SD_FINISH_STOP, "%s %d", stop,
                             least);
                cr_assert_eq(a.ids.n, at < 0 ? N : at + 1, "'%s', least %d: %d tokens, want %d",
                             stop, least, a.ids.n, at + 1);
                cr_assert_eq(a.text.len, cut);
                cr_assert(cut == 0 || memcmp(a.text.data, full.text.data, cut) == 0);
                ended += at >= 0, later += at > least;
                test_answer_free(&a);
            }
        test_answer_free(&full);
        sd_engine_close(e);
    }
    cr_assert(ended > 20 && later > 5, "%d ended, %d of them later", ended, later);
    free_world(w);
}

// ---- bad words as text

Test(shaping, a_bad_word_is_banned_as_it_is_and_behind_a_space) {
    world *w = make_world();
    sd_ids ids = {0};
    sd_error err = {0};
    cr_assert_eq(sd_bad_word_add(&ids, w->model, "  zq", 4, &err), SD_OK, "%s", err.message);
    cr_assert_eq(ids.id[0], 2, "%d tokens", ids.id[0]);
    sd_buf text = sd_buf_make(64);
    cr_assert_eq(sd_tokenizer_spell(w->model->tokenizer, ids.id + 1, 2, false, &text, NULL), SD_OK);
    cr_assert(text.len == 2 && memcmp(text.data, "zq", 2) == 0);
    int n = ids.id[3];
    cr_assert_eq(ids.n, 4 + n);
    sd_buf_clear(&text);
    cr_assert_eq(sd_tokenizer_spell(w->model->tokenizer, ids.id + 4, n, false, &text, NULL), SD_OK);
    cr_assert(text.len == 3 && memcmp(text.data, " zq", 3) == 0);
    char long_word[200];
    memset(long_word, 'z', sizeof long_word);
    cr_assert_eq(sd_bad_word_add(&ids, w->model, long_word, 200, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "200 tokens"), "%s", err.message);
    cr_assert_eq(sd_bad_word_add(&ids, w->model, "   ", 3, &err), SD_EINVAL);
    cr_assert_eq(ids.n, 4 + n, "what is refused leaves nothing behind");
    sd_buf_free(&text);
    sd_ids_free(&ids);
    free_world(w);
}

// ---- refusals

static void refused(sd_engine *e, sd_request r, const char *why) {
    sd_error err = {0};
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_EINVAL, "accepted: %s", why);
    cr_assert(strstr(err.message, why), "'%s' does not say '%s'", err.message, why);
}

Test(shaping, what_cannot_be_is_refused_by_name) {
    world *w = make_world();
    sd_engine *e = test_engine_open(w->model, &(sd_engine_options){.ctx = 128, .slots = 1});
    sd_request r = request(w, 8 * LAWS), q;
    int32_t ids[200] = {0};
    sd_token_bias bias[1025] = {0};
#define REFUSED(why, ...) (q = r, __VA_ARGS__, refused(e, q, why))
    REFUSED("presence penalty of 2.5", q.shaping.presence = 2.5f);
    REFUSED("presence penalty", q.shaping.presence = NAN);
    REFUSED("frequency penalty of -3", q.shaping.frequency = -3);
    REFUSED("repetition penalty of -1", q.shaping.repetition = -1);
    REFUSED("repetition penalty of inf", q.shaping.repetition = INFINITY);
    REFUSED("1025 tokens", q.shaping.bias = bias, q.shaping.n_bias = 1025);
    bias[0] = (sd_token_bias){V, 1};
    REFUSED("token 288, outside", q.shaping.bias = bias, q.shaping.n_bias = 1);
    bias[0] = (sd_token_bias){5, NAN};
    REFUSED("for token 5", q.shaping.bias = bias, q.shaping.n_bias = 1);
    bias[0] = (sd_token_bias){5, 100.5f};
    REFUSED("100.5", q.shaping.bias = bias, q.shaping.n_bias = 1);
    ids[0] = -1;
    REFUSED("allowed token -1", q.shaping.allowed = ids, q.shaping.n_allowed = 1);
    REFUSED("at least -1", q.shaping.min_tokens = -1);
    REFUSED("at least 49 tokens and at most 48", q.shaping.min_tokens = 49);
    // A length of 0, one that passes the end, one beyond the most, a token beyond the vocabulary.
    static const int lengths[] = {0, 3, 65, -5};
    for (int i = 0; i < 4; i++) {
        ids[0] = lengths[i];
        int n = lengths[i] == 3 ? 3 : 70;
        REFUSED("a bad word has", q.shaping.bad_words = ids, q.shaping.n_bad_words = n);
    }
    ids[0] = 1, ids[1] = V;
    REFUSED("token 288", q.shaping.bad_words = ids, q.shaping.n_bad_words = 2);
    int32_t many[2 * 129];
    for (int i = 0; i < 129; i++) many[2 * i] = 1, many[2 * i + 1] = i;
    REFUSED("129 sequences", q.shaping.bad_words = many, q.shaping.n_bad_words = 2 * 129);
    ids[0] = w->stop_token[0];
    REFUSED("each of the 1 allowed", q.shaping.allowed = ids, q.shaping.n_allowed = 1);
    cr_assert_not(sd_engine_step(e), "nothing was admitted");
    sd_engine_close(e);
    free_world(w);
}

Test(shaping, an_answer_that_has_no_token_left_says_so) {
    world *w = make_world();
    for (int length = 0; length <= 3; length += 3) {
        sd_engine *e = test_engine_open(
            w->model, &(sd_engine_options){.ctx = 128, .slots = 1, .spec_length = length});
        static const int32_t one = 7, twice[] = {3, 7, 7, 7};
        sd_request r = request(w, 6);
        r.shaping = (sd_request_shaping){
            .allowed = &one, .n_allowed = 1, .bad_words = twice, .n_bad_words = 4};
        test_answer a = {0};
        test_run(e, &r, &a);
        cr_assert_eq(a.finish, SD_FINISH_ERROR);
        cr_assert_eq(a.ids.n, 2, "%d tokens", a.ids.n);
        cr_assert(strstr(a.error, "no token is allowed"), "%s", a.error);
        cr_assert_eq(e->stats.nonfinite, 0);
        test_answer_free(&a);
        sd_engine_close(e);
    }
    free_world(w);
}
