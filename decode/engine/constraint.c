// A request's grammar, followed along its timeline: the mask of each row of a step, which proposals
// are worth a row, when the answer is over, and whether it is what was asked for.
//
// Row j's mask is that of the state behind the timeline and draft[0..j), which is known before the
// forward pass; plain decoding gives the same row the same mask, so that both draw the same token. A
// draft token outside its mask is never accepted, and what rows behind it draw is never looked at.
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "decode/engine/private.h"

#include <string.h>

enum { MAX_ENDS = 64, MAX_CHECKED = 1 << 26 };

static const char no_memory[] = "out of memory for the answer's constraint; send the request again";
static const char too_much[] = "the answer's constraint takes more than one token's masks may; ask "
                               "for fewer alternatives that "
                               "remember what was said";

struct sd_constraint {
    sd_grammar_state base;  // behind the timeline
    sd_grammar_state ahead; // behind the first `drafted` tokens of the draft
    int drafted;            // -1: the draft left the grammar
    int said, spent;        // tokens of the step so far; the first row without a mask
    const char *why;        // it has none
    double seconds;         // of masks that the engine has not counted yet
    int32_t end[MAX_ENDS];  // what ends the answer where the grammar lets it end
    int n_ends;
    int V;
    size_t words;
    uint32_t *mask; // [SD_MAX_DRAFT + 1, words]
    const uint32_t *allowed[SD_MAX_DRAFT + 1];
};

static sd_constraint *make(int V) {
    sd_constraint *c = sd_alloc(1, sizeof *c);
    if (!c) return NULL;
    c->V = V;
    c->words = ((size_t)V + 31) / 32;
    // calloc: rows that no draft reaches stay untouched.
    c->mask = calloc((SD_MAX_DRAFT + 1) * c->words, sizeof *c->mask);
    if (c->mask) return c;
    free(c);
    return NULL;
}

void sd_slot_close_constraint(sd_slot *s) {
    if (!s->constraint) return;
    sd_slot_end_constraint(s);
    free(s->constraint->mask);
    free(s->constraint);
    s->constraint = NULL;
}

static void add_end(sd_constraint *c, int32_t token) {
    if (token >= 0 && token < c->V && c->n_ends < MAX_ENDS) c->end[c->n_ends++] = token;
}

// Ends that are ignored are no way to end: where nothing else may come the answer ends by itself.
static void find_ends(const sd_engine *e, sd_constraint *c, const sd_request *r) {
    c->n_ends = 0;
    if (r->ignore_end) return;
    for (int i = 0; i < e->model->n_end_tokens; i++) add_end(c, e->model->end_token[i]);
    for (int i = 0; i < r->n_end_tokens; i++) add_end(c, r->end_token[i]);
}

bool sd_slot_begin_constraint(const sd_engine *e, sd_slot *s) {
    const sd_request *r = &s->request->r;
    if (!r->grammar) return true;
    if (!s->constraint) s->constraint = make(e->model->hp.V);
    sd_constraint *c = s->constraint;
    if (!c || !sd_grammar_begin(&c->base, r->grammar, r->prompt[r->n_prompt - 1])) {
        s->why = no_memory;
        return false;
    }
    find_ends(e, c, r);
    // What was said before the slot was taken away.
    for (int i = r->n_prompt; i < s->n; i++)
        if (!sd_grammar_accept(&c->base, s->timeline[i])) {
            s->why = "an answer that begins again has left its constraint; report this";
            return false;
        }
    s->allowed = c->allowed;
    return true;
}

void sd_slot_end_constraint(sd_slot *s) {
    sd_constraint *c = s->constraint;
    if (!c) return;
    sd_grammar_end(&c->base);
    sd_grammar_end(&c->ahead);
    c->drafted = 0;
}

const sd_grammar_state *sd_slot_grammar(const sd_slot *s) {
    return s->request->r.grammar && s->constraint ? &s->constraint->base : NULL;
}

// ---- drafts

void sd_slot_plan_constraint(sd_slot *s) {
    sd_constraint *c = s->constraint;
    if (!s->request->r.grammar) return;
    sd_grammar_copy(&c->ahead, &c->base);
    c->drafted = 0;
    c->why = NULL;
}

// The state behind draft[0..j), when the draft is within the grammar so far.
static bool go_ahead(sd_slot *s, int j) {
    sd_constraint *c = s->constraint;
    if (c->drafted > j) sd_slot_plan_constraint(s);
    while (c->drafted >= 0 && c->drafted < j)
        c->drafted = sd_grammar_accept(&c->ahead, s->plan.draft[c->drafted]) ? c->drafted + 1 : -1;
    return c->drafted == j;
}

static bool is_end(const sd_constraint *c, int32_t token) {
    for (int i = 0; i < c->n_ends; i++)
        if (c->end[i] == token) return true;
    return false;
}

bool sd_slot_constraint_allows(void *ctx, int j, int32_t token) {
    sd_slot *s = ctx;
    sd_constraint *c = s->constraint;
    if (!go_ahead(s, j)) return false;
    return sd_grammar_allows(&c->ahead, token) ||
           (is_end(c, token) && sd_grammar_can_end(&c->ahead));
}

// ---- masks

// The mask behind draft[0..j), where the draft is within the grammar. NULL: it has none; c->why.
static const uint32_t *fill(sd_constraint *c, int j) {
    uint32_t *mask = c->mask + (size_t)j * c->words;
    sd_grammar_filled is = sd_grammar_try_fill(&c->ahead, mask, c->V);
    if (is != SD_GRAMMAR_FILLED) {
        c->why = is == SD_GRAMMAR_TOO_MUCH ? too_much : no_memory;
        return NULL;
    }
    if (sd_grammar_can_end(&c->ahead))
        for (int i = 0; i < c->n_ends; i++) mask[c->end[i] / 32] |= 1u << c->end[i] % 32;
    return mask;
}

const uint32_t *sd_slot_mask_ahead(sd_slot *s, const int32_t *ahead, int n) {
    if (!s->request->r.grammar || n > SD_MAX_DRAFT) return NULL;
    if (n > 0 && memcmp(ahead, s->plan.draft, (size_t)n * sizeof *ahead) != 0) return NULL;
    if (s->constraint->why) return NULL; // of a row before: the step will say so
    return go_ahead(s, n) ? fill(s->constraint, n) : NULL;
}

void sd_slot_fill_masks(sd_slot *s, int rows) {
    sd_constraint *c = s->constraint;
    if (!s->request->r.grammar) return;
    double begin = sd_now_s();
    sd_slot_plan_constraint(s);
    c->said = 0, c->spent = rows;
    for (int j = 0; j < rows; j++) {
        c->allowed[j] = c->spent == rows && go_ahead(s, j) ? fill(c, j) : NULL;
        if (c->allowed[j]) continue;
        // Never looked at, but something must be drawn: as in the row before, or anything.
        if (c->drafted == j && c->spent == rows) c->spent = j;
        c->allowed[j] = j ? c->allowed[j - 1] : NULL;
    }
    c->seconds += sd_now_s() - begin;
}

bool sd_slot_constraint_is_spent(sd_slot *s) {
    sd_constraint *c = s->constraint;
    if (!s->request->r.grammar || c->said++ < c->spent) return false;
    s->finish = SD_FINISH_ERROR;
    s->why = c->why;
    return true;
}

// ---- what was said

// The answer's text against what the request asked for. A difference is an error of the masks: the
// answer was held to them token by token.
static void check_answer(sd_engine *e, sd_slot *s) {
    const sd_request *r = &s->request->r;
    const sd_tokenizer *t = e->model->tokenizer;
    sd_error err = {0};
    sd_buf text = sd_buf_make(MAX_CHECKED);
    size_t drop = 0;
    if (s->n > r->n_prompt)
        drop = sd_tokenizer_prefix_bytes(t, s->timeline[r->n_prompt - 1], s->timeline[r->n_prompt]);
    if (sd_tokenizer_spell(t, s->timeline + r->n_prompt, s->n - r->n_prompt, true, &text, &err) ==
            SD_OK &&
        sd_grammar_check(r->grammar, text.data ? text.data + drop : "", text.len - drop, &err) ==
            SD_EMISMATCH) {
        sd_log(SD_LOG_ERROR, "an answer does not fit its schema: %s; report this", err.message);
        s->finish = SD_FINISH_ERROR;
        s->why = "the answer does not fit the schema that it was held to; report this";
        e->stats.constraint_failures++;
    }
    sd_buf_free(&text);
}

void sd_slot_constraint_said(sd_engine *e, sd_slot *s, int32_t token) {
    sd_constraint *c = s->constraint;
    if (!s->request->r.grammar || s->finish == SD_FINISH_ERROR) return;
    e->stats.constraint_s += c->seconds, c->seconds = 0;
    if (!sd_grammar_accept(&c->base, token)) {
        s->finish = SD_FINISH_ERROR;
        s->why = no_memory;
        return;
    }
    // A stop string has cut the answer, or nothing may follow.
    if (s->finish != SD_FINISH_NONE || !sd_grammar_must_end(&c->base)) return;
    s->finish = SD_FINISH_STOP;
    check_answer(e, s);
}

void sd_slot_constraint_ended(sd_engine *e, sd_slot *s) {
    if (s->request->r.grammar && sd_grammar_can_end(&s->constraint->base)) check_answer(e, s);
}
