// A request's grammar, followed along its timeline: the mask of each row of a step, which proposals
// are worth a row, when the answer is over, and whether it is what was asked for.
//
// Row j's mask is that of the state behind the timeline and draft[0..j), which is known before the
// forward pass; plain decoding gives the same row the same mask, so that both draw the same token. A
// draft token outside its mask is never accepted, and what rows behind it draw is never looked at.
//
// All masks of a step share one budget (sd_engine.mask_left). A draft ends where the next mask takes more
// than is left of it, and a sequence without a mask for its first row waits: the one that has waited
// longest is the first to be served in the next step, with the whole budget.
#include "base/clock.h"
#include "base/memory.h"
#include "decode/engine/private.h"

#include <string.h>

enum { MAX_ENDS = 64 };

static const char no_memory[] = "out of memory for the answer's constraint; send the request again";
static const char too_much[] = "the answer's constraint takes more than one token's masks may; ask "
                               "for fewer alternatives that "
                               "remember what was said";

struct sd_constraint {
    sd_grammar_state base;  // behind the timeline
    sd_grammar_state ahead; // behind the first `drafted` tokens of the draft
    int drafted;            // -1: the draft left the grammar, or memory ran out
    const char *why;        // the state behind the timeline has no mask: the request is over
    bool spent;             // a mask ahead was not made: none further ahead is asked for
    int waited;             // steps without a mask for the first row
    sd_gspend *left;        // of the step's budget; the engine's
    double *seconds;        // of making and finding masks; the engine's
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

size_t sd_constraint_bytes(int V) {
    return sizeof(sd_constraint) + (SD_MAX_DRAFT + 1) * (((size_t)V + 31) / 32) * sizeof(uint32_t);
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

bool sd_slot_begin_constraint(sd_engine *e, sd_slot *s) {
    const sd_request *r = &s->request->r;
    if (!r->grammar) return true;
    if (!s->constraint) s->constraint = make(e->model->hp.V);
    sd_constraint *c = s->constraint;
    if (c) c->why = NULL;
    if (!c || !sd_grammar_begin(&c->base, r->grammar, r->prompt[r->n_prompt - 1])) {
        s->why = no_memory;
        return false;
    }
    find_ends(e, c, r);
    c->left = &e->mask_left;
    c->seconds = &e->stats.constraint_s;
    c->waited = 0;
    // What was said before the slot was taken away.
    for (int i = r->n_prompt; i < s->n; i++)
        if (!sd_grammar_accept(&c->base, s->timeline[i])) {
            s->why = c->base.lost
                         ? no_memory
                         : "an answer that begins again has left its constraint; report this";
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
    c->spent = false;
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

bool sd_slot_constraint_allows(sd_slot *s, int j, int32_t token) {
    sd_constraint *c = s->constraint;
    if (!go_ahead(s, j)) return false;
    return sd_grammar_allows(&c->ahead, token) ||
           (is_end(c, token) && sd_grammar_can_end(&c->ahead));
}

// ---- masks

// The mask behind draft[0..j), where the draft is within the grammar. NULL: it has none; *is.
static const uint32_t *fill(sd_constraint *c, int j, sd_grammar_filled *is) {
    uint32_t *mask = c->mask + (size_t)j * c->words;
    *is = sd_grammar_try_fill(&c->ahead, mask, c->V, c->left);
    if (*is != SD_GRAMMAR_FILLED) return NULL;
    if (sd_grammar_can_end(&c->ahead))
        for (int i = 0; i < c->n_ends; i++) mask[c->end[i] / 32] |= 1u << c->end[i] % 32;
    return mask;
}

const uint32_t *sd_slot_mask_ahead(sd_slot *s, const int32_t *ahead, int n) {
    sd_constraint *c = s->constraint;
    sd_grammar_filled is;
    if (!s->request->r.grammar || n > SD_MAX_DRAFT) return NULL;
    if (n > 0 && memcmp(ahead, s->plan.draft, (size_t)n * sizeof *ahead) != 0) return NULL;
    if (c->spent || !go_ahead(s, n)) return NULL;
    const uint32_t *mask = fill(c, n, &is);
    c->spent = !mask;
    return mask;
}

void sd_engine_begin_masks(sd_engine *e) {
    sd_slot *first = NULL;
    e->mask_left = e->mask_budget;
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (!s->request || s->fresh || !s->request->r.grammar || !s->constraint->waited) continue;
        if (!first || s->constraint->waited > first->constraint->waited) first = s;
    }
    // Made now it is found when the slot's rows are shaped; or it is known that it cannot be made.
    if (first) sd_slot_fill_masks(first, 1);
}

int sd_slot_fill_masks(sd_slot *s, int rows) {
    sd_constraint *c = s->constraint;
    sd_grammar_filled is = SD_GRAMMAR_FILLED;
    int n = 0;
    if (!s->request->r.grammar) return rows;
    if (c->why) return 1;
    double begin = sd_now_s();
    sd_slot_plan_constraint(s);
    while (n < rows && go_ahead(s, n) && (c->allowed[n] = fill(c, n, &is))) n++;
    *c->seconds += sd_now_s() - begin;
    if (n > 0) return c->waited = 0, n;
    c->allowed[0] = NULL;
    if (is == SD_GRAMMAR_LATER) return c->waited++, 0;
    c->why = is == SD_GRAMMAR_TOO_MUCH ? too_much : no_memory;
    return 1;
}

bool sd_slot_constraint_is_spent(sd_slot *s) {
    if (!s->request->r.grammar || !s->constraint->why) return false;
    s->finish = SD_FINISH_ERROR;
    s->why = s->constraint->why;
    return true;
}

// ---- what was said

void sd_slot_constraint_said(sd_slot *s, int32_t token) {
    sd_constraint *c = s->constraint;
    if (!s->request->r.grammar || s->finish == SD_FINISH_ERROR) return;
    if (!sd_grammar_accept(&c->base, token)) {
        s->finish = SD_FINISH_ERROR;
        s->why = c->base.lost ? no_memory
                              : "a token came that the answer's constraint does not allow; report "
                                "this";
        return;
    }
    // A stop string has cut the answer, or nothing may follow.
    if (s->finish != SD_FINISH_NONE || !sd_grammar_must_end(&c->base)) return;
    s->finish = SD_FINISH_STOP;
    s->stats.whole = true;
}

void sd_slot_constraint_ended(sd_slot *s) {
    if (s->request->r.grammar) s->stats.whole = sd_grammar_can_end(&s->constraint->base);
}
