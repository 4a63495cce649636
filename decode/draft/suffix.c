// The suffix automaton of a request's own text (Blumer et al. 1985; as a drafter:
// arXiv:2411.10666).
//
// Workload: one token is appended per emitted token (a prompt of thousands at once at the start),
// and up to 48 proposals are made per round. The automaton takes an append in amortised constant time
// and has at most 2n states and 3n edges for n tokens, so all memory is taken when the slot opens.
//
// A state stands for the set of places where its strings end. Each keeps the three most recent of
// those places: the newest is where the proposal is read, and whether the next older one would say the
// same tells how sure it is. After an append the places of the state and of its suffix links are
// brought up to date, at most MAX_LINKS of them (short strings far down the chain keep an older,
// still valid place).
//
// Edges of all states lie in one hash table keyed by (state, token); a state's edges are also
// chained, because splitting a state copies them. The hash is seeded: a client may choose its tokens,
// and such as collide would hold up the steps of all.
#include "base/clock.h"
#include "base/files/hash.h"
#include "decode/draft/drafter.h"

#include <string.h>

enum { ROOT = 0, NONE = -1, RECENT = 3, MAX_LINKS = 48, SD_LEN_CLASSES = 10 };

typedef struct {
    int32_t len, link;
    int32_t first_edge;
    int32_t end[RECENT]; // the last positions where its strings end, newest first; NONE: no more
} state;

typedef struct {
    int32_t from, token, to, next;
} edge;

typedef struct {
    sd_drafter base;
    const int32_t *text;
    int n, cap;
    state *states; // [2*cap + 1]
    edge *edges;   // [3*cap + 1]
    int32_t *slot; // [slots] edge index + 1, 0: empty
    uint32_t slots;
    uint64_t seed;
    int n_states, n_edges, last;
    // The cursor: a state and how many of the last tokens (timeline, then drafted) it has matched.
    int at, matched, n_drafted;
    int32_t drafted[SD_MAX_DRAFT + 1];
} suffix;

static uint32_t place_of(const suffix *s, int from, int32_t token) {
    uint64_t key = (uint64_t)(uint32_t)from << 32 | (uint32_t)token;
    return (uint32_t)sd_mix64(key ^ s->seed) & (s->slots - 1);
}

static edge *find_edge(const suffix *s, int from, int32_t token) {
    for (uint32_t i = place_of(s, from, token);; i = (i + 1) & (s->slots - 1)) {
        if (!s->slot[i]) return NULL;
        edge *e = &s->edges[s->slot[i] - 1];
        if (e->from == from && e->token == token) return e;
    }
}

static void add_edge(suffix *s, int from, int32_t token, int to) {
    uint32_t i = place_of(s, from, token);
    while (s->slot[i]) i = (i + 1) & (s->slots - 1);
    s->edges[s->n_edges] = (edge){from, token, to, s->states[from].first_edge};
    s->states[from].first_edge = s->n_edges++;
    s->slot[i] = s->n_edges;
}

static int add_state(suffix *s, int len) {
    s->states[s->n_states] = (state){.len = len, .link = NONE, .first_edge = NONE};
    for (int i = 0; i < RECENT; i++) s->states[s->n_states].end[i] = NONE;
    return s->n_states++;
}

// Splits q: its strings of at most len tokens get a state of their own.
static int split(suffix *s, int q, int len) {
    int c = add_state(s, len);
    s->states[c].link = s->states[q].link;
    memcpy(s->states[c].end, s->states[q].end, sizeof s->states[c].end);
    for (int e = s->states[q].first_edge; e != NONE; e = s->edges[e].next)
        add_edge(s, c, s->edges[e].token, s->edges[e].to);
    return c;
}

static void append(suffix *s, int32_t token, int pos) {
    int cur = add_state(s, s->states[s->last].len + 1), p = s->last;
    edge *e = NULL;
    for (; p != NONE && !(e = find_edge(s, p, token)); p = s->states[p].link)
        add_edge(s, p, token, cur);
    if (p == NONE) {
        s->states[cur].link = ROOT;
    } else if (s->states[p].len + 1 == s->states[e->to].len) {
        s->states[cur].link = e->to;
    } else {
        int q = e->to, c = split(s, q, s->states[p].len + 1);
        for (; p != NONE && (e = find_edge(s, p, token)) && e->to == q; p = s->states[p].link)
            e->to = c;
        s->states[q].link = s->states[cur].link = c;
    }
    s->last = cur;
    int links = 0;
    for (int i = cur; i > ROOT && links < MAX_LINKS; i = s->states[i].link, links++) {
        memmove(s->states[i].end + 1, s->states[i].end, sizeof(int32_t) * (RECENT - 1));
        s->states[i].end[0] = pos;
    }
}

static void clear(suffix *s) {
    memset(s->slot, 0, (size_t)s->slots * sizeof *s->slot);
    s->n = s->n_states = s->n_edges = 0;
    s->last = add_state(s, 0);
}

static void suffix_observe(sd_drafter *d, int n) {
    suffix *s = (suffix *)d;
    if (n > s->cap) n = s->cap; // beyond the capped memory the text is no longer learnt
    for (; s->n < n; s->n++) append(s, s->text[s->n], s->n);
}

static void suffix_rewind(sd_drafter *d) {
    suffix *s = (suffix *)d;
    int link = s->states[s->last].link;
    s->at = link == NONE ? ROOT : link;
    s->matched = s->states[s->at].len;
    s->n_drafted = 0;
}

static void suffix_begin(sd_drafter *d, const sd_draft_start *start) {
    suffix *s = (suffix *)d;
    s->text = start->timeline;
    clear(s);
    suffix_observe(d, start->n);
    suffix_rewind(d);
}

// What stands after position `end` of timeline + drafted tokens; -1 when nothing does yet.
static int32_t after(const suffix *s, int end) {
    if (end == NONE) return -1;
    if (end + 1 < s->n) return s->text[end + 1];
    return end + 1 - s->n < s->n_drafted ? s->drafted[end + 1 - s->n] : -1;
}

static int length_class(int len) {
    static const int upto[SD_LEN_CLASSES - 1] = {1, 2, 3, 4, 6, 8, 12, 16, 32};
    int c = 0;
    while (c < SD_LEN_CLASSES - 1 && len > upto[c]) c++;
    return c;
}

static float suffix_prior(int bucket) {
    static const float single[SD_LEN_CLASSES] = {.15f, .35f, .5f,  .6f,  .68f,
                                                 .75f, .8f,  .85f, .88f, .92f};
    float p = single[bucket / 3 % SD_LEN_CLASSES];
    return bucket % 3 == 1 ? p + (1 - p) * .4f : bucket % 3 == 2 ? p * .6f : p;
}

// Buckets: 10 classes of matched length x {one occurrence, two that agree, two that differ}.
static bool suffix_peek(sd_drafter *d, sd_proposal *out) {
    const suffix *s = (const suffix *)d;
    if (s->at == ROOT || s->matched == 0) return false;
    const state *st = &s->states[s->at];
    int i = 0;
    int32_t token = -1;
    for (; i < RECENT && (token = after(s, st->end[i])) < 0; i++) {
    }
    if (token < 0) return false;
    int32_t older = i + 1 < RECENT ? after(s, st->end[i + 1]) : -1;
    int kind = older < 0 ? 0 : older == token ? 1 : 2;
    int bucket = length_class(s->matched) * 3 + kind;
    *out = (sd_proposal){token, bucket, suffix_prior(bucket)};
    return true;
}

static void suffix_advance(sd_drafter *d, int32_t token) {
    suffix *s = (suffix *)d;
    if (s->n_drafted <= SD_MAX_DRAFT) s->drafted[s->n_drafted++] = token;
    edge *e = NULL;
    int p = s->at;
    if ((e = find_edge(s, p, token))) {
        s->at = e->to, s->matched++;
        return;
    }
    for (p = s->states[p].link; p != NONE && !(e = find_edge(s, p, token));) p = s->states[p].link;
    s->at = e ? e->to : ROOT;
    s->matched = e ? s->states[p].len + 1 : 0;
}

static void suffix_close(sd_drafter *d) {
    suffix *s = (suffix *)d;
    free(s->states);
    free(s->edges);
    free(s->slot);
    free(s);
}

static uint32_t slots_of(int ctx) {
    uint32_t slots = 64;
    while (slots < (uint32_t)ctx * 6) slots *= 2;
    return slots;
}

static size_t suffix_bytes(int ctx) {
    return sizeof(suffix) + ((size_t)ctx * 2 + 2) * sizeof(state) +
           ((size_t)ctx * 3 + 4) * sizeof(edge) + slots_of(ctx) * sizeof(int32_t);
}

static sd_status suffix_open(sd_drafter **out, void *shared, int ctx, sd_error *err) {
    (void)shared;
    sd_status st = SD_OK;
    suffix *s = NULL;
    SD_CHECK(ctx > 0 && ctx <= 1 << 24, err, SD_EINVAL,
             "suffix drafter: a context of %d tokens; 1 to 16777216 are possible", ctx);
    s = sd_alloc(1, sizeof *s);
    SD_CHECK_ALLOC(s, err);
    s->base.kind = &sd_drafter_suffix;
    s->cap = ctx;
    s->seed = sd_mix64((uint64_t)sd_now_ns() ^ (uint64_t)(uintptr_t)s);
    // calloc: what a short request does not reach stays untouched.
    s->slots = slots_of(ctx);
    s->states = calloc((size_t)ctx * 2 + 2, sizeof *s->states);
    s->edges = calloc((size_t)ctx * 3 + 4, sizeof *s->edges);
    s->slot = calloc(s->slots, sizeof *s->slot);
    SD_CHECK_ALLOC(s->states && s->edges && s->slot, err);
    clear(s);
    *out = &s->base, s = NULL;
out:
    if (s) suffix_close(&s->base);
    return st;
}

const sd_drafter_kind sd_drafter_suffix = {.name = "suffix",
                                           .bytes = suffix_bytes,
                                           .open = suffix_open,
                                           .close = suffix_close,
                                           .begin = suffix_begin,
                                           .observe = suffix_observe,
                                           .rewind = suffix_rewind,
                                           .peek = suffix_peek,
                                           .advance = suffix_advance,
                                           .prior = suffix_prior};
