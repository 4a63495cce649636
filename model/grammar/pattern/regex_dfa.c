// Patterns to DFAs: the tree becomes an automaton with empty moves (Thompson's), whose sets of
// states are numbered as they are found. Characters that no class tells apart are one symbol.
//
// A pattern that is looked for anywhere in a text stands between two loops over any character. ^
// leads on in the closure of the first set alone; $ in one that is made only to see whether a set
// accepts.
#include "base/files/hash.h"
#include "base/list.h"
#include "model/grammar/pattern/dfa.h"
#include "model/grammar/pattern/regex.h"

#include <string.h>

enum { MAX_NFA = 1 << 15, LAST_CP = 0x10FFFF, SET_SLOTS = 4 * SD_DFA_STATES };

typedef enum { M_CLASS, M_SPLIT, M_BEGIN, M_END, M_ACCEPT } move;
typedef struct {
    move kind;
    int a, b; // CLASS: class, next; SPLIT: two states; BEGIN, END: next
} nfa_state;

typedef struct {
    sd_regex tree;
    nfa_state *nfa;
    int n, cap, start;
    int accept;
    // Symbols: characters from bound[k] to bound[k + 1] - 1.
    int32_t *bound;
    int n_symbols, cap_bounds;
    uint32_t *has; // [classes, words] which symbols a class has
    int *class_of; // [tree.n] the class of a tree's node
    int n_classes, words;
    // Sets of CLASS and ACCEPT states.
    int *member; // of all sets, one after the other
    int n_members, cap_members;
    int *set_first; // [n_sets + 1]
    int n_sets, cap_sets;
    int *slot;
    // Scratch.
    int *pending, *found;
    uint32_t *seen, stamp;
    int64_t work;
} maker;

static int state(maker *m, move kind, int a, int b) {
    if (m->n >= MAX_NFA || !SD_GROW(m->nfa, m->n + 1, m->cap)) return -1;
    m->nfa[m->n] = (nfa_state){kind, a, b};
    return m->n++;
}

// The entry of a tree's node, from which a match leads to `next`.
static int emit(maker *m, int at, int next) {
    const sd_regex_node *t = &m->tree.node[at];
    int e = next;
    if (next < 0 || ++m->work > SD_DFA_WORK) return -1;
    switch (t->kind) {
    case R_EMPTY:
        return next;
    case R_CLASS:
        return state(m, M_CLASS, m->class_of[at], next);
    case R_BEGIN:
        return state(m, M_BEGIN, next, 0);
    case R_END:
        return state(m, M_END, next, 0);
    case R_SEQ: // a chain to the left
        for (; t->kind == R_SEQ; t = &m->tree.node[at = t->a]) e = emit(m, t->b, e);
        return emit(m, at, e);
    case R_ALT: {
        int all = -1;
        for (; t->kind == R_ALT; t = &m->tree.node[at = t->a]) {
            int part = emit(m, t->b, next);
            if (part < 0) return -1;
            all = all < 0 ? part : state(m, M_SPLIT, part, all);
        }
        int part = emit(m, at, next);
        return part < 0 || all < 0 ? -1 : state(m, M_SPLIT, part, all);
    }
    case R_REPEAT:
        if (t->max < 0) {
            int loop = state(m, M_SPLIT, -1, next);
            int body = emit(m, t->a, loop);
            if (body < 0) return -1;
            m->nfa[loop].a = body;
            e = loop;
        }
        for (int i = t->max; i > t->min; i--) {
            int body = emit(m, t->a, e);
            e = body < 0 ? -1 : state(m, M_SPLIT, body, next);
            if (e < 0) return -1;
        }
        for (int i = 0; i < t->min; i++)
            if ((e = emit(m, t->a, e)) < 0) return -1;
        return e;
    }
    return -1;
}

// ---- symbols

static int ascending(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static int symbol_of(const maker *m, int32_t cp) {
    int lo = 0, hi = m->n_symbols;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (m->bound[mid] <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

// Class 0 has every symbol; surrogates, which no text has, are symbols of their own that none has.
static bool make_symbols(maker *m) {
    const sd_regex *r = &m->tree;
    int n = 0;
    if (!SD_GROW(m->bound, 2 * r->n_ranges + 4, m->cap_bounds)) return false;
    m->bound[n++] = 0, m->bound[n++] = 0xD800, m->bound[n++] = 0xE000;
    for (int i = 0; i < r->n_ranges; i++) {
        m->bound[n++] = r->range[i][0];
        if (r->range[i][1] < LAST_CP) m->bound[n++] = r->range[i][1] + 1;
    }
    qsort(m->bound, (size_t)n, sizeof *m->bound, ascending);
    for (int i = 0; i < n; i++)
        if (i == 0 || m->bound[i] != m->bound[i - 1]) m->bound[m->n_symbols++] = m->bound[i];
    m->bound[m->n_symbols] = LAST_CP + 1;
    m->class_of = sd_alloc((size_t)r->n + 1, sizeof *m->class_of);
    if (!m->class_of) return false;
    m->n_classes = 1;
    for (int i = 0; i < r->n; i++)
        if (r->node[i].kind == R_CLASS) m->class_of[i] = m->n_classes++;
    m->words = (m->n_symbols + 31) / 32;
    if ((int64_t)m->words * m->n_classes > SD_DFA_WORK) return false;
    m->has = sd_alloc((size_t)m->words * (size_t)m->n_classes, sizeof *m->has);
    if (!m->has) return false;
    for (int i = -1; i < r->n; i++) {
        if (i >= 0 && r->node[i].kind != R_CLASS) continue;
        uint32_t *has = m->has + (size_t)m->words * (size_t)(i < 0 ? 0 : m->class_of[i]);
        int ranges = i < 0 ? 1 : r->node[i].b;
        for (int k = 0; k < ranges; k++) {
            int32_t lo = i < 0 ? 0 : r->range[r->node[i].a + k][0];
            int32_t hi = i < 0 ? LAST_CP : r->range[r->node[i].a + k][1];
            m->work += hi > lo ? 4 : 1;
            for (int s = symbol_of(m, lo); s < m->n_symbols && m->bound[s] <= hi; s++, m->work++)
                if (m->bound[s] < 0xD800 || m->bound[s] >= 0xE000) has[s / 32] |= 1u << s % 32;
        }
    }
    return m->work <= SD_DFA_WORK;
}

// ---- sets

// found <- the CLASS and ACCEPT states that empty moves lead to from pending [n], ascending.
static int close_over(maker *m, int n, bool begin, bool end) {
    int found = 0;
    int given = n;
    n = 0;
    m->stamp++;
    for (int i = 0; i < given; i++)
        if (m->seen[m->pending[i]] != m->stamp)
            m->seen[m->pending[i]] = m->stamp, m->pending[n++] = m->pending[i];
    while (n > 0) {
        int s = m->pending[--n], to[2] = {-1, -1};
        const nfa_state *x = &m->nfa[s];
        m->work++;
        if (x->kind == M_CLASS || x->kind == M_ACCEPT)
            m->found[found++] = s;
        else if (x->kind == M_SPLIT)
            to[0] = x->a, to[1] = x->b;
        else if (x->kind == M_BEGIN ? begin : end)
            to[0] = x->a;
        else if (x->kind == M_END)
            m->found[found++] = s;
        for (int k = 0; k < 2; k++)
            if (to[k] >= 0 && m->seen[to[k]] != m->stamp)
                m->seen[to[k]] = m->stamp, m->pending[n++] = to[k];
    }
    m->work += 2 * found;
    qsort(m->found, (size_t)found, sizeof *m->found, ascending);
    return found;
}

// The number of the set that was found; -1: a bound was passed.
static int number_of(maker *m, int n) {
    uint64_t h = (uint64_t)n;
    m->work += n;
    for (int i = 0; i < n; i++) h = sd_mix64(h ^ (uint64_t)m->found[i] * 0x9E3779B97F4A7C15u);
    size_t at = h % SET_SLOTS;
    for (; m->slot[at]; at = (at + 1) % SET_SLOTS) {
        int s = m->slot[at] - 1, first = m->set_first[s];
        if (m->set_first[s + 1] - first == n &&
            memcmp(m->member + first, m->found, (size_t)n * sizeof *m->found) == 0)
            return s;
    }
    if (m->n_sets >= SD_DFA_STATES || !SD_GROW(m->member, m->n_members + n, m->cap_members) ||
        !SD_GROW(m->set_first, m->n_sets + 2, m->cap_sets))
        return -1;
    if (n) memcpy(m->member + m->n_members, m->found, (size_t)n * sizeof *m->found);
    m->set_first[m->n_sets] = m->n_members;
    m->n_members += n;
    m->set_first[m->n_sets + 1] = m->n_members;
    m->slot[at] = ++m->n_sets;
    return m->n_sets - 1;
}

static bool accepts(maker *m, int s, bool first) {
    int n = 0;
    for (int i = m->set_first[s]; i < m->set_first[s + 1]; i++) {
        if (m->nfa[m->member[i]].kind == M_ACCEPT) return true;
        if (m->nfa[m->member[i]].kind == M_END) m->pending[n++] = m->member[i];
    }
    if (n == 0) return false;
    n = close_over(m, n, first, true);
    for (int i = 0; i < n; i++)
        if (m->nfa[m->found[i]].kind == M_ACCEPT) return true;
    return false;
}

static bool make_sets(maker *m, sd_dfa_maker *d) {
    m->pending[0] = m->start;
    if (number_of(m, close_over(m, 1, true, false)) < 0) return false;
    // An empty text is at its beginning and at its end. Where that alone makes it a match, the first set is not
    // found again: behind a character the same states are another set.
    if (accepts(m, 0, true) && !accepts(m, 0, false))
        memset(m->slot, 0, SET_SLOTS * sizeof *m->slot);
    for (int s = 0; s < m->n_sets; s++) {
        if (!sd_dfa_state(d, accepts(m, s, s == 0))) return false;
        for (int k = 0; k < m->n_symbols; k++) {
            int n = 0;
            m->work += 1 + (m->set_first[s + 1] - m->set_first[s]) / 2;
            for (int i = m->set_first[s]; i < m->set_first[s + 1]; i++) {
                const nfa_state *x = &m->nfa[m->member[i]];
                if (x->kind == M_CLASS &&
                    (m->has[(size_t)x->a * (size_t)m->words + k / 32] >> k % 32 & 1))
                    m->pending[n++] = x->b;
            }
            if (m->work > SD_DFA_WORK) return false;
            if (n == 0) continue;
            int to = number_of(m, close_over(m, n, false, false));
            if (to < 0 || !sd_dfa_edge_add(d, m->bound[k], m->bound[k + 1] - 1, to)) return false;
        }
    }
    return true;
}

static bool make_nfa(maker *m, bool whole) {
    m->accept = state(m, M_ACCEPT, 0, 0);
    int end = m->accept, loop;
    if (!whole) {
        end = state(m, M_SPLIT, -1, m->accept);
        loop = state(m, M_CLASS, 0, end);
        if (end < 0 || loop < 0) return false;
        m->nfa[end].a = loop;
    }
    m->start = emit(m, m->tree.root, end);
    if (m->start >= 0 && !whole) {
        int begin = state(m, M_SPLIT, -1, m->start);
        loop = state(m, M_CLASS, 0, begin);
        if (begin < 0 || loop < 0) return false;
        m->nfa[begin].a = loop;
        m->start = begin;
    }
    return m->start >= 0;
}

sd_status sd_regex_dfa(sd_dfa **out, const char *pattern, size_t len, bool whole, int64_t *work,
                       sd_error *err) {
    sd_status st = SD_OK;
    maker m = {0};
    sd_dfa_maker d = {0};
    SD_TRY(sd_regex_parse(&m.tree, pattern, len, err));
    bool ok = make_symbols(&m) && make_nfa(&m, whole);
    m.pending = sd_alloc((size_t)m.n * 2 + 2, sizeof *m.pending);
    m.found = sd_alloc((size_t)m.n + 1, sizeof *m.found);
    m.seen = sd_alloc((size_t)m.n + 1, sizeof *m.seen);
    m.slot = sd_alloc(SET_SLOTS, sizeof *m.slot);
    SD_CHECK_ALLOC(m.pending && m.found && m.seen && m.slot, err);
    SD_CHECK(
        ok && make_sets(&m, &d), err, SD_ELIMIT,
        "the pattern takes more than %d states or %d steps to compile; make it shorter, or its "
        "repeats smaller",
        SD_DFA_STATES, SD_DFA_WORK);
    SD_TRY(sd_dfa_finish(out, &d, err));
    (*out)->work += m.work;
    m.work = (*out)->work;
out:
    *work = m.work;
    free(m.nfa), free(m.bound), free(m.has), free(m.class_of), free(m.member), free(m.set_first);
    free(m.slot), free(m.pending), free(m.found), free(m.seen);
    free(d.first), free(d.edge), free(d.accept);
    sd_regex_free(&m.tree);
    return st;
}
