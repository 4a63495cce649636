// How the token of each row is picked: what a request makes of its logits, row by row.
//
// Row j of a round draws the token behind the timeline and draft[0..j). Plain decoding would draw it
// with these tokens said, so its penalties count them, and its bans look at them. To count a text of
// thousands of tokens for each row would cost more than the penalties do: the slot's table grows
// with the timeline alone, and the draft's tokens stand in a short list beside it (sd_shaping.recent),
// of which row j takes the first j. Preemption needs no care: whoever takes the request up counts its
// timeline once.
#include "base/memory.h"
#include "decode/engine/private.h"

#include <string.h>

_Static_assert((int)SD_MAX_DRAFT <= (int)SD_MAX_RECENT, "a draft's tokens are recent ones");

// calloc: what no request with penalties reaches stays untouched.
sd_status sd_slot_open_shaping(const sd_engine *e, sd_slot *s, sd_error *err) {
    sd_status st = SD_OK;
    s->counts.seen = calloc((size_t)e->ctx, sizeof *s->counts.seen);
    s->counts.place = calloc((size_t)e->model->hp.V, sizeof *s->counts.place);
    SD_CHECK_ALLOC(s->counts.seen && s->counts.place, err);
out:
    return st;
}

void sd_slot_close_shaping(sd_slot *s) {
    free(s->counts.seen);
    free(s->counts.place);
}

void sd_slot_begin_shaping(sd_slot *s) {
    const sd_shape *h = s->request->shape;
    sd_counts *c = &s->counts;
    for (int i = 0; i < c->n; i++) c->place[c->seen[i].token] = 0;
    c->n = 0;
    c->counted = h && h->of_prompt ? 0 : s->request->r.n_prompt;
    s->allowed = NULL;
    s->shaped = false;
    s->pick[0] = (sd_pick){.sampling = &s->request->r.sampling};
}

// ---- counting

static void count_timeline(sd_slot *s) {
    sd_counts *c = &s->counts;
    for (; c->counted < s->n; c->counted++) {
        int32_t token = s->timeline[c->counted], *place = &c->place[token];
        if (*place == 0) {
            c->seen[c->n] = (sd_token_seen){token, 0};
            *place = ++c->n;
        }
        c->seen[*place - 1].answered += c->counted >= s->request->r.n_prompt;
    }
}

// recent[j]: how often ahead[j] stands in the answer when it is said.
static void count_ahead(const sd_counts *c, sd_token_seen *recent, const int32_t *ahead, int n) {
    for (int j = 0; j < n; j++) {
        int32_t token = ahead[j], place = c->place[token];
        int i = j, said = place ? c->seen[place - 1].answered : 0;
        while (--i >= 0 && recent[i].token != token) {
        }
        if (i >= 0) said = recent[i].answered;
        recent[j] = (sd_token_seen){token, said + 1};
    }
}

// ---- bans

// Whether the n tokens stand at the end of the timeline and ahead[0..j).
static bool ends_with(const sd_slot *s, const int32_t *ahead, int j, const int32_t *tokens, int n) {
    int at = s->n + j;
    if (n > at) return false;
    while (n > 0) {
        int32_t said = --at < s->n ? s->timeline[at] : ahead[at - s->n];
        if (said != tokens[--n]) return false;
    }
    return true;
}

static void ban(sd_shaping *p, const sd_shape *h, const sd_slot *s, const int32_t *ahead, int j) {
    bool early = s->n + j - s->request->r.n_prompt < h->min_tokens;
    p->banned = h->banned;
    p->n_banned = h->n_always + (early ? h->n_ends : 0);
    if (!h->row_banned) return;
    int32_t *row = h->row_banned + (size_t)j * (size_t)(h->n_always + h->n_ends + h->n_words);
    int n = p->n_banned;
    if (n > 0) memcpy(row, h->banned, (size_t)n * sizeof *row);
    for (const int32_t *w = h->sequences; w < h->sequences + h->n_sequences; w += 1 + *w)
        if (ends_with(s, ahead, j, w + 1, *w - 1)) row[n++] = w[*w];
    p->banned = row, p->n_banned = n;
}

// ---- the rows of a step

// The row behind the timeline and ahead[0..j), whose tokens were counted in recent.
static void shape_row(sd_shaping *p, sd_slot *s, const sd_token_seen *recent, const int32_t *ahead,
                      int j) {
    const sd_shape *h = s->request->shape;
    *p = h->fixed;
    ban(p, h, s, ahead, j);
    if (!h->counts) return;
    p->seen = s->counts.seen, p->n_seen = s->counts.n;
    p->recent = recent, p->n_recent = j;
}

static bool does_something(const sd_shaping *p) {
    return p->seen || p->allowed || p->also_allowed || p->n_banned > 0 || p->n_bias > 0;
}

int sd_slot_shape(sd_slot *s, int rows) {
    const sd_shape *h = s->request->shape;
    const int32_t *draft = s->plan.draft;
    rows = sd_slot_fill_masks(s, rows);
    s->shaped = h || s->allowed || sd_slot_is_bounded(s);
    if (!s->shaped || rows == 0) return rows;
    if (h && h->counts) {
        count_timeline(s);
        count_ahead(&s->counts, s->recent, draft, rows - 1);
    }
    for (int j = 0; j < rows; j++) {
        sd_shaping *p = &s->shaping[j];
        *p = (sd_shaping){0};
        if (h) shape_row(p, s, s->recent, draft, j);
        if (s->allowed) p->allowed = s->allowed[j];
        const uint32_t *forced = sd_slot_forced(s, j);
        if (forced) *p = (sd_shaping){.allowed = forced}; // whatever else is asked for
        s->pick[j] =
            (sd_pick){.sampling = &s->request->r.sampling, .shaping = does_something(p) ? p : NULL};
    }
    return rows;
}

const sd_shaping *sd_slot_shaping_ahead(void *ctx, sd_shaping *out, sd_token_seen *recent,
                                        const int32_t *ahead, int n) {
    sd_slot *s = ctx;
    const sd_shape *h = s->request->shape;
    *out = (sd_shaping){.allowed = sd_slot_forced_ahead(s, ahead, n)};
    if (out->allowed) return out;
    if (h && h->counts) {
        count_timeline(s);
        count_ahead(&s->counts, recent, ahead, n);
    }
    if (h) shape_row(out, s, recent, ahead, n);
    out->allowed = sd_slot_mask_ahead(s, ahead, n);
    return does_something(out) ? out : NULL;
}

static bool holds(const uint32_t *set, int32_t t) {
    return !set || (set[t / 32] >> (t % 32) & 1);
}

bool sd_slot_allows_nothing(const sd_engine *e, const sd_slot *s, int j) {
    const sd_shaping *p = sd_slot_pick(s, j)->shaping;
    if (!p) return false;
    for (int32_t t = 0; t < e->model->hp.V; t++) {
        bool banned = !holds(p->allowed, t) || !holds(p->also_allowed, t);
        for (int i = 0; i < p->n_banned && !banned; i++) banned = p->banned[i] == t;
        if (!banned) return false;
    }
    return true;
}
