// The automaton, found as it is needed: a state is a set of (node, stack), each node one that takes a
// byte or a token. Stacks are frames that point at their parents; frames and states that are equal
// are one, so that a sequence's state is a number and what was computed for it serves all sequences.
//
// A bound is kept by leaving configurations out: those whose way to an end needs more depth than is
// left, and those beyond SD_GRAMMAR_CONFIGS. What stays can always be continued to an end.
#include "model/grammar/internal.h"

#include "base/files/hash.h"
#include "base/list.h"

#include <string.h>

struct sd_gseen {
    uint64_t key;
    int32_t count;
    uint32_t stamp;
};
enum { SEEN = 1 << 14, CLOSURE_STEPS = 1 << 13 };

// ---- tables of frames and states

static bool table_grow(sd_gtable *t) {
    if (t->n * 2 < t->cap) return true;
    int cap = t->cap ? t->cap * 2 : 256;
    int32_t *slot = calloc((size_t)cap, sizeof *slot);
    if (!slot) return false;
    free(t->slot); // what it held is put in again by the caller
    t->slot = slot, t->cap = cap, t->n = 0;
    return true;
}

static void table_put(sd_gtable *t, uint32_t hash, int32_t id) {
    size_t at = hash % (uint32_t)t->cap;
    while (t->slot[at]) at = (at + 1) % (size_t)t->cap;
    t->slot[at] = id;
    t->n++;
}

static uint32_t frame_hash(const sd_gframe *f) {
    return (uint32_t)(sd_mix64((uint64_t)(uint32_t)f->ret << 32 | (uint32_t)f->parent) ^
                      (uint64_t)(uint32_t)f->count * 0x9E3779B1u);
}

static bool room_for_frame(sd_grammar *g) {
    int had = g->frames.cap;
    if (!table_grow(&g->frames)) return false;
    if (g->frames.cap == had) return true;
    for (int i = 1; i < g->n_frames; i++)
        if (g->frame[i].used) table_put(&g->frames, frame_hash(&g->frame[i]), i);
    return true;
}

// The frame with these parts; -1: out of memory.
static int32_t frame_of(sd_grammar *g, int32_t ret, int32_t count, int32_t parent) {
    sd_gframe f = {ret, count, parent, g->frame[parent].depth + 1, true};
    if (!room_for_frame(g)) return -1;
    uint32_t hash = frame_hash(&f);
    size_t at = hash % (uint32_t)g->frames.cap;
    for (; g->frames.slot[at]; at = (at + 1) % (size_t)g->frames.cap) {
        const sd_gframe *o = &g->frame[g->frames.slot[at]];
        if (o->ret == ret && o->count == count && o->parent == parent) return g->frames.slot[at];
    }
    int32_t id = g->n_free_frames ? g->free_frame[--g->n_free_frames] : g->n_frames;
    if (id == g->n_frames) {
        if (!SD_GROW(g->frame, id + 1, g->cap_frames)) return -1;
        g->n_frames++;
        g->bytes += sizeof f;
    }
    g->frame[id] = f;
    g->frames.slot[at] = id;
    g->frames.n++;
    return id;
}

static uint32_t configs_hash(const sd_gconfig *c, int n, bool final) {
    uint64_t h = (uint64_t)n * 2 + final;
    for (int i = 0; i < n; i++)
        h = sd_mix64(h ^ ((uint64_t)(uint32_t)c[i].node << 32 | (uint32_t)c[i].stack));
    return (uint32_t)h;
}

static bool room_for_state(sd_grammar *g) {
    int had = g->states.cap;
    if (!table_grow(&g->states)) return false;
    if (g->states.cap == had) return true;
    for (int i = 1; i < g->n_states; i++)
        if (g->state[i]) table_put(&g->states, g->state[i]->hash, i);
    return true;
}

static int config_order(const void *pa, const void *pb) {
    const sd_gconfig *a = pa, *b = pb;
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    return (a->stack > b->stack) - (a->stack < b->stack);
}

// The state of what was found; 0: there is nothing; -1: out of memory.
static int32_t state_of_found(sd_grammar *g) {
    int n = g->n_found;
    if (n == 0 && !g->found_final) return 0;
    if (!room_for_state(g)) return -1;
    if (n > 1) qsort(g->found, (size_t)n, sizeof *g->found, config_order);
    uint32_t hash = configs_hash(g->found, n, g->found_final);
    size_t at = hash % (uint32_t)g->states.cap;
    for (; g->states.slot[at]; at = (at + 1) % (size_t)g->states.cap) {
        const sd_gstate *o = g->state[g->states.slot[at]];
        if (o->hash == hash && o->n == n && o->final == g->found_final &&
            (n == 0 || memcmp(o->c, g->found, (size_t)n * sizeof *o->c) == 0))
            return g->states.slot[at];
    }
    int32_t id = g->n_free_states ? g->free_state[g->n_free_states - 1] : g->n_states;
    sd_gstate *s = calloc(1, sizeof *s);
    if (s && n) s->c = malloc((size_t)n * sizeof *s->c);
    if (!s || (n && !s->c) || (id == g->n_states && !SD_GROW(g->state, id + 1, g->cap_states))) {
        if (s) free(s->c);
        free(s);
        return -1;
    }
    if (id == g->n_states)
        g->n_states++;
    else
        g->n_free_states--;
    if (n) memcpy(s->c, g->found, (size_t)n * sizeof *s->c);
    s->n = n, s->hash = hash, s->final = g->found_final, s->tokens = g->found_tokens;
    s->tick = g->tick;
    g->state[id] = s;
    g->states.slot[at] = id;
    g->states.n++;
    g->bytes += sizeof *s + (size_t)n * sizeof *s->c;
    g->made++;
    return id;
}

// ---- closures

static void pending(sd_grammar *g, int32_t node, int32_t count, int32_t stack) {
    if (stack < 0 || !SD_GROW(g->pending, g->n_pending + 1, g->cap_pending)) {
        g->lost = true;
        return;
    }
    g->pending[g->n_pending].node = node;
    g->pending[g->n_pending].count = count;
    g->pending[g->n_pending++].stack = stack;
}

static bool seen_before(sd_grammar *g, int32_t node, int32_t count, int32_t stack) {
    uint64_t key = (uint64_t)(uint32_t)node << 32 | (uint32_t)stack;
    size_t at = sd_mix64(key + (uint64_t)(uint32_t)count * 0x9E3779B97F4A7C15u) % SEEN;
    for (; g->seen[at].stamp == g->stamp; at = (at + 1) % SEEN)
        if (g->seen[at].key == key && g->seen[at].count == count) return true;
    g->seen[at] = (struct sd_gseen){key, count, g->stamp};
    return false;
}

static void found(sd_grammar *g, int32_t node, int32_t stack, bool token) {
    if (g->n_found >= SD_GRAMMAR_CONFIGS) return;
    if (!SD_GROW(g->found, g->n_found + 1, g->cap_found)) {
        g->lost = true;
        return;
    }
    g->found[g->n_found++] = (sd_gconfig){node, stack};
    g->found_tokens |= token;
}

// A loop's count says how many times its body was begun. Without an upper bound only the lower one
// matters.
static void enter_loop(sd_grammar *g, int32_t node, int32_t count, int32_t stack) {
    const sd_gloop *l = &g->nodes.loop[g->nodes.node[node].a];
    if (count >= l->min) pending(g, l->exit, 0, stack);
    if (l->max >= 0 && count >= l->max) return;
    int next = l->max >= 0 || count < l->min ? count + 1 : l->min;
    pending(g, g->nodes.start[l->rule], 0, frame_of(g, node, next, stack));
}

// Nodes that are left out at once count for nothing: each is one of two behind a node that counts.
static void close_over(sd_grammar *g) {
    if (++g->stamp == 0) memset(g->seen, 0, SEEN * sizeof *g->seen), g->stamp = 1;
    g->n_found = 0;
    g->found_final = g->found_tokens = false;
    int steps = 0;
    while (g->n_pending > 0 && steps < CLOSURE_STEPS) {
        g->n_pending--;
        int32_t node = g->pending[g->n_pending].node, count = g->pending[g->n_pending].count,
                stack = g->pending[g->n_pending].stack;
        if (g->nodes.need[node] + g->frame[stack].depth > SD_GRAMMAR_DEPTH) continue;
        steps++;
        if (seen_before(g, node, count, stack)) continue;
        sd_gnode x = g->nodes.node[node];
        switch ((sd_gnode_kind)x.kind) {
        case N_RETURN:
            if (stack == 0)
                g->found_final = true;
            else
                pending(g, g->frame[stack].ret, g->frame[stack].count, g->frame[stack].parent);
            break;
        case N_EDGES: // a pattern's last state has none
            if (x.b > 0) found(g, node, stack, false);
            break;
        case N_TOKEN:
            found(g, node, stack, true);
            break;
        case N_SPLIT:
            pending(g, x.b, 0, stack);
            pending(g, x.a, 0, stack);
            break;
        case N_CALL: // the last call of a rule needs no frame: what follows is its caller's
            pending(g, g->nodes.start[x.a], 0, x.b == 0 ? stack : frame_of(g, x.b, 0, stack));
            break;
        case N_LOOP:
            enter_loop(g, node, count, stack);
            break;
        }
    }
    g->work += steps;
    // Nothing within the steps is no answer: something may stand behind them.
    if (g->n_pending > 0 && g->n_found == 0 && !g->found_final) g->lost = g->spent = true;
    g->n_pending = 0;
}

static bool over_limit(const sd_grammar *g) {
    return g->made >= g->limit.made || g->work >= g->limit.work || g->bytes >= g->limit.bytes;
}

void sd_automaton_limit(sd_grammar *g, sd_gspend more) {
    g->limit = (sd_gspend){g->made + more.made, g->work + more.work, g->bytes + more.bytes};
}

void sd_automaton_unlimited(sd_grammar *g) {
    g->limit = (sd_gspend){INT64_MAX, INT64_MAX, SIZE_MAX};
}

int32_t sd_automaton_step(sd_grammar *g, int32_t state, uint8_t byte) {
    sd_gstate *s = g->state[state];
    if (s->to && s->to[byte] >= 0) return s->to[byte];
    if (over_limit(g)) return g->lost = g->spent = true, 0;
    if (!s->to) {
        s->to = malloc(256 * sizeof *s->to);
        if (!s->to) return g->lost = true, 0;
        memset(s->to, 0xFF, 256 * sizeof *s->to);
        g->bytes += 256 * sizeof *s->to;
    }
    bool lost = g->lost;
    g->lost = false;
    for (int i = s->n - 1; i >= 0; i--) {
        const sd_gnode *x = &g->nodes.node[s->c[i].node];
        if (x->kind != N_EDGES) continue;
        g->work += x->b;
        for (int k = 0; k < x->b; k++) {
            const sd_gedge *e = &g->nodes.edge[x->a + k];
            if (e->lo <= byte && byte <= e->hi) pending(g, e->to, 0, s->c[i].stack);
        }
    }
    int32_t to = 0;
    if (g->n_pending) {
        close_over(g);
        to = state_of_found(g);
    }
    if (to < 0) g->lost = true, to = 0;
    if (!g->lost) s->to[byte] = to;
    g->lost |= lost;
    return to;
}

int32_t sd_automaton_token(sd_grammar *g, int32_t state, int32_t id) {
    const sd_gstate *s = g->state[state];
    for (int i = 0; i < s->n; i++) {
        const sd_gnode *x = &g->nodes.node[s->c[i].node];
        if (x->kind == N_TOKEN && x->a == id) pending(g, x->b, 0, s->c[i].stack);
    }
    if (!g->n_pending) return 0;
    close_over(g);
    int32_t to = state_of_found(g);
    if (to < 0) g->lost = true;
    return to < 0 ? 0 : to;
}

int sd_automaton_plain_room(const sd_grammar *g, const sd_gstate *s) {
    int most = 0;
    for (int i = 0; i < s->n; i++) {
        if (!(g->nodes.node[s->c[i].node].flags & F_PLAIN)) continue;
        const sd_gframe *f = &g->frame[s->c[i].stack];
        int room = 1;
        if (s->c[i].stack && g->nodes.node[f->ret].kind == N_LOOP) {
            const sd_gloop *l = &g->nodes.loop[g->nodes.node[f->ret].a];
            room = l->max < 0 ? INT32_MAX : l->max - f->count + 1;
        }
        if (room > most) most = room;
    }
    return most;
}

bool sd_automaton_before_space(const sd_grammar *g, const sd_gstate *s) {
    for (int i = 0; i < s->n; i++)
        if (g->nodes.node[s->c[i].node].flags & F_SPACE) return true;
    return false;
}

// ---- opening, closing, forgetting

static void state_free(sd_grammar *g, int32_t id) {
    sd_gstate *s = g->state[id];
    size_t words = ((size_t)g->vocab->V + 31) / 32;
    g->bytes -= sizeof *s + (size_t)s->n * sizeof *s->c;
    if (s->to) g->bytes -= 256 * sizeof *s->to;
    for (int k = 0; k < 2; k++) {
        if (s->mask[k]) g->bytes -= words * sizeof *s->mask[k];
        free(s->mask[k]), free(s->forced[k]);
    }
    free(s->c), free(s->to), free(s);
    g->state[id] = NULL;
}

sd_status sd_automaton_open(sd_grammar *g, sd_error *err) {
    sd_status st = SD_OK;
    g->seen = sd_alloc(SEEN, sizeof *g->seen);
    g->walk = sd_alloc((size_t)g->vocab->longest + 2, sizeof *g->walk);
    SD_CHECK_ALLOC(g->seen && g->walk, err);
    SD_CHECK_ALLOC(SD_GROW(g->frame, 1, g->cap_frames), err);
    g->frame[g->n_frames++] = (sd_gframe){.used = true};
    SD_CHECK_ALLOC(SD_GROW(g->state, 1, g->cap_states), err);
    g->state[g->n_states++] = NULL;
    sd_automaton_unlimited(g);
    pending(g, g->nodes.root, 0, 0);
    close_over(g);
    g->first = state_of_found(g);
    SD_CHECK(!g->spent, err, SD_ELIMIT,
             "the constraint's beginning has more than %d alternatives; give fewer", CLOSURE_STEPS);
    SD_CHECK_ALLOC(g->first >= 0 && !g->lost, err);
    SD_CHECK(g->first > 0, err, SD_EINVAL, "no text fits the constraint");
    g->state[g->first]->refs = 1;
out:
    return st;
}

void sd_automaton_close(sd_grammar *g) {
    for (int i = 1; i < g->n_states; i++)
        if (g->state[i]) state_free(g, i);
    free(g->state), free(g->free_state), free(g->states.slot);
    free(g->frame), free(g->free_frame), free(g->frames.slot);
    free(g->pending), free(g->seen), free(g->found), free(g->walk);
}

_Static_assert(SEEN * sizeof(struct sd_gseen) <= SD_GRAMMAR_LEAST - (32 << 10),
               "a grammar that nobody follows has little beside what closures look at");
size_t sd_automaton_scratch_bytes(const sd_grammar *g) {
    return SEEN * sizeof *g->seen + ((size_t)g->vocab->longest + 2) * sizeof *g->walk;
}

// Frames that no state's stack leads to are free again.
static void free_frames(sd_grammar *g) {
    if (!SD_GROW(g->free_frame, g->n_frames, g->cap_free_frames)) return; // they stay
    for (int i = 1; i < g->n_frames; i++) g->frame[i].used = false;
    for (int i = 1; i < g->n_states; i++)
        for (int k = 0; g->state[i] && k < g->state[i]->n; k++)
            for (int32_t f = g->state[i]->c[k].stack; f && !g->frame[f].used;
                 f = g->frame[f].parent)
                g->frame[f].used = true;
    g->n_free_frames = 0;
    if (g->frames.slot) memset(g->frames.slot, 0, (size_t)g->frames.cap * sizeof *g->frames.slot);
    g->frames.n = 0;
    for (int i = 1; i < g->n_frames; i++)
        if (g->frame[i].used)
            table_put(&g->frames, frame_hash(&g->frame[i]), i);
        else
            g->free_frame[g->n_free_frames++] = i;
}

// Frees states that no sequence stands on and that were not used since `before`.
static void free_states(sd_grammar *g, int64_t before) {
    for (int i = 1; i < g->n_states; i++)
        if (g->state[i] && g->state[i]->refs == 0 && g->state[i]->tick < before) {
            state_free(g, i);
            g->free_state[g->n_free_states++] = i;
        }
    memset(g->states.slot, 0, (size_t)g->states.cap * sizeof *g->states.slot);
    g->states.n = 0;
    for (int i = 1; i < g->n_states; i++) {
        sd_gstate *s = g->state[i];
        if (!s) continue;
        table_put(&g->states, s->hash, i);
        for (int b = 0; s->to && b < 256; b++)
            if (s->to[b] > 0 && !g->state[s->to[b]]) s->to[b] = -1;
    }
}

void sd_automaton_collect(sd_grammar *g) {
    int64_t oldest = INT64_MAX;
    if (g->bytes <= SD_GRAMMAR_CACHE) return;
    if (!SD_GROW(g->free_state, g->n_states, g->cap_free_states)) return;
    for (int i = 1; i < g->n_states; i++)
        if (g->state[i] && g->state[i]->refs == 0 && g->state[i]->tick < oldest)
            oldest = g->state[i]->tick;
    if (oldest < INT64_MAX) free_states(g, oldest + (g->tick - oldest) / 2 + 1);
    if (g->bytes > SD_GRAMMAR_CACHE / 2) free_states(g, INT64_MAX);
    free_frames(g);
}

void sd_automaton_forget(sd_grammar *g) {
    if (!SD_GROW(g->free_state, g->n_states, g->cap_free_states)) return;
    free_states(g, INT64_MAX);
    free_frames(g);
}
