// Which prompt rows a step gets: how many it has time for, and whose they are.
//
// Every running answer waits for the step's end, and so does a client that leaves. A step therefore
// has a time: the larger of step_ms and 1.5 times what its decoding rows take alone. The rest
// of it is filled with prompt rows at their measured price, which grows with the depth of the
// context. The price is learnt from each step; at least one row is always taken, so prompts get on.
//
// The rows are dealt to the clients in turn, equally as far as each has prompts to read; the next
// step begins with the client that follows. A row is the unit, so nobody is owed more than one.
// Within a client a quarter goes to the prompt that came first and the rest to the one with the
// fewest rows left: a short question does not wait for a long text, nor a text for ever.
#include "decode/engine/private.h"

#include <math.h>
#include <string.h>

static const double USE = 0.75; // of a step's time: prices are estimates
static const double LONGER = 1.5, DEEPER = 1.2;
static const double LEARN = .3, LEARN_FEW = .1, MOST_OFF = .7; // of a price's logarithm
enum {
    FIRST_ROWS = 16, // of the first step of all, when no price is known
    MIN_ROWS = 4     // that tell a price
};

// ---- prices

static int bucket_of(int pos) {
    int b = 0;
    for (pos >>= 8; pos > 0 && b < SD_DEPTHS - 1; pos >>= 1) b++;
    return b;
}

// Seconds of one more row at this depth; 0: not known.
static double row_price(const sd_engine *e, int pos) {
    int b = bucket_of(pos), known = b;
    while (known >= 0 && e->prompt_cost[known] <= 0) known--;
    if (known >= 0) return e->prompt_cost[known] * pow(DEEPER, b - known);
    for (known = b; known < SD_DEPTHS; known++)
        if (e->prompt_cost[known] > 0) return e->prompt_cost[known];
    if (e->control.unit <= 0 || !e->control.have_slope) return 0;
    return sd_controller_cost(&e->control, 2) - sd_controller_cost(&e->control, 1);
}

// Seconds of the step without its prompt rows: those that decode, or reading the weights once.
static double step_base(const sd_engine *e, int decode_rows) {
    double known = sd_controller_cost(&e->control, decode_rows > 0 ? decode_rows : 1);
    return decode_rows > 0 ? known + e->draft_seconds : known;
}

static double step_time(const sd_engine *e, int decode_rows) {
    double limit = e->o.step_ms * 1e-3, base = decode_rows > 0 ? step_base(e, decode_rows) : 0;
    return LONGER * base > limit ? LONGER * base : limit;
}

void sd_prompt_learn(sd_engine *e, int decode_rows, double seconds) {
    double expected = 0, by[SD_DEPTHS] = {0};
    int rows = 0;
    for (int i = 0; i < e->n_slots; i++) {
        const sd_slot *s = &e->slot[i];
        for (int k = 0; k < s->read; k++, rows++) {
            double price = row_price(e, s->read_from + k);
            by[bucket_of(s->read_from + k)] += price > 0 ? price : 1e-9;
            expected += price > 0 ? price : 1e-9;
        }
    }
    // A few rows say little, but they are listened to: a price that an interrupted step made too high
    // would keep them few for ever.
    bool few = rows < MIN_ROWS;
    double spent = seconds - step_base(e, decode_rows);
    if (rows == 0 || (spent <= 0 && !few)) return;
    double off = spent > 0 ? log(spent / expected) : -MOST_OFF;
    off = off > MOST_OFF ? MOST_OFF : off < -MOST_OFF ? -MOST_OFF : off;
    for (int b = 0; b < SD_DEPTHS; b++) {
        if (by[b] <= 0) continue;
        if (e->prompt_cost[b] > 0)
            e->prompt_cost[b] *= exp((few ? LEARN_FEW : LEARN) * off * by[b] / expected);
        else if (!few)
            e->prompt_cost[b] = spent / rows;
    }
}

// ---- dealing

static int rows_left(const sd_engine *e, const sd_slot *s) {
    if (!sd_slot_reads_prompt(s) || s->starved) return 0;
    if (e->score_left == 0 && sd_slot_scores(s, s->kv->len + s->rows)) return 0;
    // Behind a prompt without an answer nothing is asked for.
    return sd_slot_missing(s) - s->rows - (s->request->r.no_answer ? 1 : 0);
}

typedef struct {
    int rows;       // that still fit
    double seconds; // likewise; < 0: no limit
    int taken;
} budget;

// One row of s, if the budget has it.
static bool take_row(sd_engine *e, sd_slot *s, budget *b) {
    double price = b->seconds >= 0 ? row_price(e, s->kv->len + s->rows) : 0;
    if (b->rows <= 0 || (b->taken > 0 && b->seconds >= 0 && price > b->seconds)) return false;
    if (b->seconds >= 0) b->seconds = price > b->seconds ? 0 : b->seconds - price;
    if (sd_slot_scores(s, s->kv->len + s->rows)) e->score_left--;
    b->rows--, b->taken++, s->rows++;
    return true;
}

static sd_slot *first_prompt(sd_engine *e, const sd_tenant *t, bool oldest) {
    sd_slot *best = NULL;
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (rows_left(e, s) == 0 || s->request->tenant != t) continue;
        if (!best || (oldest ? s->request->id < best->request->id
                             : rows_left(e, s) < rows_left(e, best) ||
                                   (rows_left(e, s) == rows_left(e, best) &&
                                    s->request->id < best->request->id)))
            best = s;
    }
    return best;
}

// Up to n rows of t's prompts. False when the step is full.
static bool deal(sd_engine *e, const sd_tenant *t, int n, budget *b) {
    for (int i = 0; i < n; i++) {
        sd_slot *s;
        // One that gets no page holds up none that has its pages.
        do s = first_prompt(e, t, i % 4 == 0);
        while (s && !sd_pages_for_row(s));
        if (!s) return true;
        if (!take_row(e, s, b)) return false;
    }
    return true;
}

// The clients that have prompts to read, from the one whose turn it is.
static int find_readers(sd_engine *e, const sd_tenant **out) {
    int n = 0, first = 0;
    for (int i = 0; i < e->n_slots; i++) {
        if (rows_left(e, &e->slot[i]) == 0) continue;
        const sd_tenant *t = e->slot[i].request->tenant;
        int k = 0;
        while (k < n && out[k] != t) k++;
        if (k < n) continue;
        out[n++] = t;
    }
    // In the order of their names, which lasts from step to step.
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && out[k]->client < out[k - 1]->client; k--) {
            const sd_tenant *swap = out[k];
            out[k] = out[k - 1], out[k - 1] = swap;
        }
    while (first < n && out[first]->client <= e->last_reader) first++;
    for (int i = 0; i < n; i++) e->readers[i] = out[(first + i) % n];
    return n;
}

static void emit_rows(sd_engine *e, sd_slot *s, sd_rows *b) {
    const bool reads = sd_request_reads(&s->request->r);
    s->first_hidden = b->hidden;
    // Without a mask for the token behind it the last row waits.
    if (!reads && s->kv->len + s->rows == s->n && sd_slot_shape(s, 1) == 0) s->rows--;
    for (int k = 0; k < s->rows; k++) {
        int pos = s->kv->len + k;
        bool last = pos == s->n - 1 && !reads, scores = sd_slot_scores(s, pos);
        bool logits = scores || (last && s->request->r.logprobs >= 0);
        e->rows[b->rows++] = (sd_row){.token = s->timeline[pos],
                                      .pos = pos,
                                      .kv = s->kv,
                                      .adapter = s->request->r.adapter,
                                      .want_logits = logits,
                                      .pick = last ? sd_slot_pick(s, 0) : NULL};
        if (reads) sd_slot_read_row(e, s, &e->rows[b->rows - 1], b);
        if (last) s->first_picked = b->picked++;
        if (scores && s->n_scored++ == 0) s->first_scored = b->logits;
        if (logits && !scores) s->first_logits = b->logits;
        b->logits += logits;
    }
    s->read_from = s->kv->len, s->read = s->rows;
    b->prompt_rows += s->rows;
    b->reading += s->rows > 0;
}

void sd_prompt_rows(sd_engine *e, sd_rows *b) {
    int room = e->max_rows - b->rows;
    budget left = {.rows = e->o.prefill_chunk < room ? e->o.prefill_chunk : room, .seconds = -1};
    const sd_tenant **order = e->readers + e->n_slots;
    // One row of each that reads may want a token. One is left always: those that decode, with all their drafts, and
    // those that read are max_picked - 1 at most.
    e->score_left = e->max_picked - b->picked - e->n_slots;
    if (e->score_left < 1) e->score_left = 1;
    int n = find_readers(e, order);
    if (n == 0) return;
    if (e->o.step_ms > 0) {
        left.seconds = USE * (step_time(e, b->rows) - step_base(e, b->rows));
        if (left.seconds < 0) left.seconds = 0;
        if (row_price(e, 0) <= 0 && left.rows > FIRST_ROWS) left.rows = FIRST_ROWS;
    }
    bool more = true;
    while (more && left.rows > 0) {
        int before = left.taken, each = left.rows / n > 0 ? left.rows / n : 1;
        if (left.seconds >= 0 && each > 4) each = 4; // the time may end anywhere
        for (int i = 0; i < n && more; i++) {
            int had = left.taken;
            more = deal(e, e->readers[i], each, &left);
            if (left.taken > had) e->last_reader = e->readers[i]->client;
        }
        if (left.taken == before) break;
    }
    for (int i = 0; i < e->n_slots; i++)
        if (sd_slot_reads_prompt(&e->slot[i]) && e->slot[i].rows > 0) emit_rows(e, &e->slot[i], b);
}
