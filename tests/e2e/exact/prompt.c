#include "tests/e2e/exact/prompt.h"

#include "model/dialogue/tool_grammar.h"
#include "tests/e2e/exact/text.h"

#include <stdio.h>
#include <string.h>

enum {
    BASES = 3,          // beginnings that a group shares
    LONGEST = 330,      // tokens of a prompt at most
    MOST_TOKENS = 48,   // of an answer
    MOST_REAL = 20,     // of a trained model's
    CONSTRAINED = 90,   // of an answer under a constraint, which it ends by itself
    MOST_TEXT = 1 << 16 // bytes
};

#define WORD(name, word) word,
const char *const exact_trait_name[EXACT_TRAIT_COUNT] = {EXACT_TRAITS(WORD)};
#undef WORD

static void mark(exact_prompt *p, exact_trait t) {
    p->traits |= 1u << t;
}

// ---- the prompt

// Text that repeats itself with small changes.
static sd_status add_tokens(sd_ids *out, dice *d, int n, int V, sd_error *err) {
    sd_status st = SD_OK;
    const int begin = out->n, period = roll_in(d, 3, 16);
    for (int i = 0; i < n; i++) {
        bool fresh = i < period || one_in(d, 9);
        int32_t token = fresh ? roll(d, V < 280 ? V : 280) : out->id[begin + i - period];
        SD_CHECK_ALLOC(sd_ids_add(out, &token, 1), err);
    }
out:
    return st;
}

static sd_status add_text(sd_ids *out, const exact_world *w, sd_buf *text, int flags,
                          sd_error *err) {
    return sd_tokenizer_encode(w->model->tokenizer, text->data, text->len, SD_TOK_SPECIAL | flags,
                               out, err);
}

// A generated model reads tokens.
static sd_status make_tokens(exact_prompt *p, const exact_world *w, dice *d, dice *base,
                             sd_error *err) {
    sd_status st = SD_OK;
    const int V = w->model->hp.V, shape = roll(d, 8);
    if (shape > 0) { // else nothing is shared
        SD_TRY(add_tokens(&p->prompt, base, roll_in(base, 40, 250), V, err));
        // Some share all of it, others end within.
        if (shape < 5) p->prompt.n = roll_in(d, 1, p->prompt.n);
        mark(p, EXACT_SHARED);
    }
    if (shape != 7 || p->prompt.n == 0)
        SD_TRY(add_tokens(&p->prompt, d, roll_in(d, 1, 70), V, err));
out:
    return st;
}

static sd_status make_text(exact_prompt *p, const exact_world *w, dice *d, dice *base,
                           sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(MOST_TEXT);
    SD_CHECK_ALLOC(exact_text_system(&text, base) && exact_text_question(&text, d) &&
                       sd_buf_adds(&text, exact_text_answer),
                   err);
    SD_TRY(add_text(&p->prompt, w, &text, SD_TOK_ADD_BOS, err));
    mark(p, EXACT_SHARED);
out:
    sd_buf_free(&text);
    return st;
}

// The conversation before it, its answer, and a further question.
static sd_status make_turn(exact_prompt *p, const exact_world *w, dice *d,
                           const exact_prompt *before, const exact_answer *said, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(MOST_TEXT);
    SD_CHECK_ALLOC(sd_ids_add(&p->prompt, before->prompt.id, before->prompt.n), err);
    for (int i = 0; i < said->n; i++)
        SD_CHECK_ALLOC(sd_ids_add(&p->prompt, &said->token[i].token, 1), err);
    p->r.adapter = before->r.adapter;
    mark(p, EXACT_TURN);
    if (!w->real) {
        SD_TRY(add_tokens(&p->prompt, d, roll_in(d, 1, 30), w->model->hp.V, err));
        goto out;
    }
    SD_CHECK_ALLOC(sd_buf_adds(&text, exact_text_next) && exact_text_question(&text, d) &&
                       sd_buf_adds(&text, exact_text_answer),
                   err);
    SD_TRY(add_text(&p->prompt, w, &text, SD_TOK_GOES_ON, err));
out:
    sd_buf_free(&text);
    return st;
}

// ---- how its tokens are drawn

static void draw_sampling(exact_prompt *p, dice *d) {
    static const float temperature[] = {0, 0, 0, .05f, .1f, .3f, .7f, 1, 1.3f};
    sd_sampling *s = &p->r.sampling;
    *s = (sd_sampling){.top_p = 1, .seed = (uint64_t)roll(d, 1000)};
    s->temperature = temperature[roll(d, 9)];
    if (one_in(d, 4)) s->top_p = .5f + .05f * (float)roll(d, 10);
    if (one_in(d, 4)) s->top_k = roll_in(d, 1, 40);
    if (one_in(d, 4)) s->min_p = .02f * (float)roll(d, 20);
    mark(p, s->temperature > 0 ? EXACT_SAMPLED : EXACT_GREEDY);
    if (s->temperature > 0 && (s->top_p < 1 || s->top_k || s->min_p > 0)) mark(p, EXACT_TRUNCATED);
    if (s->temperature > 0 && one_in(d, 4)) p->choices = roll_in(d, 2, EXACT_MOST_CHOICES);
    if (p->choices > 1) mark(p, EXACT_SEVERAL);
}

static int32_t of_prompt(const exact_prompt *p, dice *d) {
    return p->prompt.id[roll(d, p->prompt.n)];
}

static void draw_bad_words(exact_prompt *p, dice *d) {
    sd_request_shaping *s = &p->r.shaping;
    for (int word = roll_in(d, 1, 3); word > 0; word--) {
        int n = roll_in(d, 1, 3), at = roll(d, p->prompt.n);
        if (at + n > p->prompt.n) n = p->prompt.n - at;
        p->bad_words[s->n_bad_words++] = n;
        for (int i = 0; i < n; i++) p->bad_words[s->n_bad_words++] = p->prompt.id[at + i];
    }
    s->bad_words = p->bad_words;
    mark(p, EXACT_BAD_WORDS);
}

static sd_status draw_allowed(exact_prompt *p, const exact_world *w, dice *d, sd_error *err) {
    sd_status st = SD_OK;
    const int V = w->model->hp.V, part = roll_in(d, 2, 10);
    for (int32_t t = 0; t < V; t++)
        if (one_in(d, part)) SD_CHECK_ALLOC(sd_ids_add(&p->allowed, &t, 1), err);
    p->r.shaping.allowed = p->allowed.id, p->r.shaping.n_allowed = p->allowed.n;
    if (p->allowed.n > 0) mark(p, EXACT_ALLOWED);
out:
    return st;
}

static sd_status draw_shaping(exact_prompt *p, const exact_world *w, dice *d, sd_error *err) {
    sd_status st = SD_OK;
    sd_request_shaping *s = &p->r.shaping;
    if (one_in(d, 4)) {
        if (one_in(d, 2)) s->presence = .1f * (float)roll_in(d, -10, 20);
        if (one_in(d, 2)) s->frequency = .1f * (float)roll_in(d, -5, 20);
        s->repetition = one_in(d, 2) ? .8f + .1f * (float)roll(d, 6) : 1.1f;
        mark(p, EXACT_PENALTIES);
    }
    if (one_in(d, 6)) {
        s->n_bias = roll_in(d, 1, 6);
        for (int i = 0; i < s->n_bias; i++)
            p->bias[i] = (sd_token_bias){of_prompt(p, d), (float)roll_in(d, -40, 40) * .1f};
        s->bias = p->bias;
        mark(p, EXACT_BIAS);
    }
    if (one_in(d, 6)) {
        s->min_tokens = roll_in(d, 1, p->r.max_tokens);
        mark(p, EXACT_MIN_TOKENS);
    }
    if (one_in(d, 6)) draw_bad_words(p, d);
    // Sets of a large vocabulary take long to make, and a constraint is such a set.
    if (!p->r.grammar && one_in(d, w->real ? 40 : 10)) SD_TRY(draw_allowed(p, w, d, err));
out:
    return st;
}

static void draw_ends(exact_prompt *p, const exact_world *w, dice *d) {
    static const char *const stops[] = {"a", " th", "e", ".", "\n", "in", "0", "}"};
    p->r.ignore_end = one_in(d, 2);
    if (one_in(d, 5)) {
        p->r.n_stop = roll_in(d, 1, 2);
        for (int i = 0; i < p->r.n_stop; i++) {
            snprintf(p->stop[i], sizeof p->stop[i], "%s", stops[roll(d, 8)]);
            p->r.stop[i] = p->stop[i];
        }
        mark(p, EXACT_STOPS);
    }
    if (one_in(d, 8)) {
        p->r.n_stop_token = 2;
        for (int i = 0; i < 2; i++) p->stop_token[i] = roll(d, w->model->hp.V);
        p->r.stop_token = p->stop_token;
        mark(p, EXACT_STOPS);
    }
    if (one_in(d, 8)) p->r.end_token[p->r.n_end_tokens++] = of_prompt(p, d);
    if (one_in(d, 4)) p->r.shown_token[p->r.n_shown_tokens++] = w->model->hp.V - 1;
}

// ---- what it is held to

static sd_status make_calls(sd_buf *text, const exact_world *w, dice *d, sd_error *err) {
    sd_status st = SD_OK;
    char *rules = NULL;
    json_t *tools = NULL;
    SD_CHECK_ALLOC(exact_text_tools(text, d), err);
    tools = json_loadb(text->data, text->len, 0, NULL);
    SD_CHECK(tools, err, SD_EFORMAT, "the suite's tools are no JSON: %s", text->data);
    const sd_tool_rules r = {.d = &w->dialogue,
                             .t = w->model->tokenizer,
                             .tools = tools,
                             .only = -1,
                             .required = true,
                             .parallel = one_in(d, 2)};
    SD_TRY(sd_tool_rules_write(&rules, &r, err));
    sd_buf_clear(text);
    SD_CHECK_ALLOC(sd_buf_adds(text, rules), err);
out:
    json_decref(tools);
    free(rules);
    return st;
}

static sd_status draw_constraint(exact_prompt *p, const exact_world *w, uint64_t seed, dice *d,
                                 sd_error *err) {
    static const struct {
        sd_grammar_kind kind;
        exact_trait trait;
    } kinds[] = {{SD_GRAMMAR_SCHEMA, EXACT_SCHEMA}, {SD_GRAMMAR_SCHEMA, EXACT_SCHEMA},
                 {SD_GRAMMAR_OBJECT, EXACT_OBJECT}, {SD_GRAMMAR_REGEX, EXACT_REGEX},
                 {SD_GRAMMAR_CHOICE, EXACT_CHOICE}, {SD_GRAMMAR_CALLS, EXACT_CALLS}};
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(MOST_TEXT);
    if (!one_in(d, 3)) goto out;
    int k = roll(d, 6);
    dice own = dice_for(seed, DICE_SCHEMA, p->number);
    if (kinds[k].kind == SD_GRAMMAR_CALLS)
        SD_TRY(make_calls(&text, w, &own, err));
    else
        SD_CHECK_ALLOC(exact_text_constraint(&text, &own, kinds[k].kind), err);
    const sd_grammar_spec want = {kinds[k].kind, text.data ? text.data : "", text.len};
    st = sd_grammar_cache_get(&p->r.grammar, w->grammars, &want, err);
    if (st != SD_OK) {
        printf("# the constraint of prompt %lld: %.*s\n", (long long)p->number, (int)text.len,
               want.text);
        goto out;
    }
    mark(p, kinds[k].trait);
    if (p->r.max_tokens > 4) p->r.max_tokens = w->real ? CONSTRAINED / 2 : CONSTRAINED;
out:
    sd_buf_free(&text);
    return st;
}

// ---- all of it

static void draw_company(exact_prompt *p, const exact_world *w, dice *d) {
    static const sd_spec_mode modes[] = {SD_SPEC_AUTO,   SD_SPEC_AUTO,  SD_SPEC_AUTO,   SD_SPEC_OFF,
                                         SD_SPEC_SUFFIX, SD_SPEC_DRAFT, SD_SPEC_GRAMMAR};
    int number = 0;
    for (int i = 0; i < EXACT_ADAPTERS; i++)
        if (p->r.adapter == w->adapter[i]) number = i + 1;
    if (!(p->traits & 1u << EXACT_TURN) && one_in(d, 2)) number = roll(d, EXACT_ADAPTERS + 1);
    if (number > 0) p->r.adapter = w->adapter[number - 1], mark(p, EXACT_ADAPTER);
    p->r.spec = modes[roll(d, 7)];
    if (!one_in(d, 3)) {
        p->r.corpus = w->index[number];
        if (one_in(d, 4)) p->r.spec = SD_SPEC_CORPUS;
        mark(p, EXACT_INDEX);
    }
    p->r.client = (uint64_t)roll(d, 3);
    p->r.tenant = one_in(d, 5);
    p->r.priority = roll(d, 3);
    p->r.logprobs = one_in(d, 2) ? -1 : one_in(d, 2) ? 0 : roll_in(d, 1, 20);
    if (p->r.logprobs >= 0) mark(p, EXACT_LOGPROBS);
}

sd_status exact_prompt_make(exact_prompt *p, const exact_world *w, uint64_t seed, int64_t number,
                            const exact_prompt *before, const exact_answer *said, sd_error *err) {
    sd_status st = SD_OK;
    dice d = dice_for(seed, DICE_PROMPT, number);
    dice base = dice_for(seed, DICE_TEXT, number / EXACT_GROUP * BASES + roll(&d, BASES));
    *p = (exact_prompt){.number = number, .choices = 1};
    bool room = before && before->prompt.n + said->n < (w->real ? 200 : 280);
    if (one_in(&d, 4) && room)
        SD_TRY(make_turn(p, w, &d, before, said, err));
    else if (w->real)
        SD_TRY(make_text(p, w, &d, &base, err));
    else
        SD_TRY(make_tokens(p, w, &d, &base, err));
    if (p->prompt.n > LONGEST) p->prompt.n = LONGEST;
    p->r.prompt = p->prompt.id, p->r.n_prompt = p->prompt.n;
    p->r.max_tokens = roll_in(&d, 1, w->real ? MOST_REAL : MOST_TOKENS);
    draw_company(p, w, &d);
    draw_sampling(p, &d);
    SD_TRY(draw_constraint(p, w, seed, &d, err));
    SD_TRY(draw_shaping(p, w, &d, err));
    draw_ends(p, w, &d);
out:
    return st;
}

void exact_prompt_free(exact_prompt *p) {
    sd_grammar_release(p->r.grammar);
    sd_ids_free(&p->prompt);
    sd_ids_free(&p->allowed);
    *p = (exact_prompt){0};
}
