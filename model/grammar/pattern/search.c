// Texts by what they are not: in which none of some texts stands, which do not begin in some way.
#include "model/grammar/pattern/dfa.h"

#include "base/list.h"
#include "base/memory.h"
#include "base/utf8.h"

#include <string.h>

static void drop(sd_dfa_maker *m) {
    free(m->first), free(m->edge), free(m->accept);
    *m = (sd_dfa_maker){0};
}

// ---- without a text: Knuth, Morris and Pratt's automaton over its characters, without its last state

enum { MOST = 256 };

typedef struct {
    int32_t cp[MOST + 1];
    int fall[MOST + 2]; // the longest proper end of the first k characters that begins the text
    int n;
} search;

static int step(const search *s, int k, int32_t cp) {
    while (k > 0 && s->cp[k] != cp) k = s->fall[k];
    return k + (s->cp[k] == cp);
}

static bool search_edges(sd_dfa_maker *m, const search *s, int k, const int32_t *sorted, int n) {
    int32_t next = 0;
    for (int i = 0; i < n; i++) {
        int to = step(s, k, sorted[i]);
        if (sorted[i] > next && !sd_dfa_edge_add(m, next, sorted[i] - 1, 0)) return false;
        if (to < s->n && !sd_dfa_edge_add(m, sorted[i], sorted[i], to)) return false;
        next = sorted[i] + 1;
    }
    return sd_dfa_edge_add(m, next, 0x10FFFF, 0);
}

// The text's different characters, ascending; how many.
static int distinct(const search *s, int32_t *sorted) {
    int n = 0;
    for (int i = 0; i < s->n; i++) { // insertion into what is sorted
        int at = n;
        while (at > 0 && sorted[at - 1] > s->cp[i]) at--;
        if (at > 0 && sorted[at - 1] == s->cp[i]) continue;
        memmove(sorted + at + 1, sorted + at, (size_t)(n - at) * sizeof *sorted);
        sorted[at] = s->cp[i], n++;
    }
    return n;
}

static sd_status without_one(sd_dfa **out, const char *text, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    search s = {.n = 0};
    int32_t sorted[MOST];
    sd_dfa_maker m = {0};
    for (size_t at = 0; at < len; s.n++) {
        SD_CHECK(s.n < MOST, err, SD_ELIMIT, "a text of more than %d characters", (int)MOST);
        at += (size_t)sd_utf8_next(text + at, len - at, &s.cp[s.n], NULL);
        SD_CHECK(s.cp[s.n] >= 0, err, SD_EINVAL, "a text that is not UTF-8");
    }
    SD_CHECK(s.n > 0, err, SD_EINVAL, "every text holds the empty one");
    s.cp[s.n] = -1;
    for (int k = 1; k < s.n; k++) s.fall[k + 1] = step(&s, s.fall[k], s.cp[k]);
    int n = distinct(&s, sorted);
    bool ok = true;
    for (int k = 0; ok && k < s.n; k++)
        ok = sd_dfa_state(&m, true) && search_edges(&m, &s, k, sorted, n);
    SD_CHECK_ALLOC(ok, err);
    st = sd_dfa_finish(out, &m, err);
out:
    drop(&m);
    return st;
}

sd_status sd_dfa_without(sd_dfa **out, const char *const *text, const size_t *len, int n,
                         sd_error *err) {
    sd_status st = SD_OK;
    sd_dfa *all = NULL, *one = NULL, *both = NULL;
    for (int i = 0; i < n; i++) {
        SD_TRY(without_one(&one, text[i], len[i], err));
        if (all) SD_TRY(sd_dfa_both(&both, all, one, err));
        if (all) sd_dfa_free(all), sd_dfa_free(one), one = both, both = NULL;
        all = one, one = NULL;
    }
    SD_CHECK(all, err, SD_EINVAL, "a search for nothing");
    *out = all, all = NULL;
out:
    sd_dfa_free(all), sd_dfa_free(one);
    return st;
}

// ---- not begun so

enum { NOWHERE = -1, WHOLE = -2 }; // no branch yet; a beginning that is complete

typedef struct {
    int32_t c;
    int to, next; // the node behind it; its node's next branch
} branch;

// A trie whose node 0 is the beginning. Behind each opener stands the same node.
typedef struct {
    int *first; // [n] the first branch of each node; -1
    branch *b;
    int n, n_b, cap, cap_b;
} trie;

static int new_node(trie *t) {
    if (!SD_GROW(t->first, t->n + 1, t->cap)) return -1;
    t->first[t->n] = -1;
    return t->n++;
}

// The branch of a node for c, made where it lacks; -1: out of memory. A node's branches ascend.
static int branch_of(trie *t, int node, int32_t c) {
    int before = -1, at = t->first[node];
    while (at >= 0 && t->b[at].c < c) before = at, at = t->b[at].next;
    if (at >= 0 && t->b[at].c == c) return at;
    if (!SD_GROW(t->b, t->n_b + 1, t->cap_b)) return -1;
    t->b[t->n_b] = (branch){c, NOWHERE, at};
    if (before < 0)
        t->first[node] = t->n_b;
    else
        t->b[before].next = t->n_b;
    return t->n_b++;
}

// Reads a text from a node on; its last character leads to `to`, which may be WHOLE.
static bool add_text(trie *t, int node, const char *text, int to) {
    for (const char *c = text; *c; c++) {
        int b = branch_of(t, node, (unsigned char)*c);
        if (b < 0) return false;
        if (!c[1])
            t->b[b].to = to;
        else if (t->b[b].to == NOWHERE && (t->b[b].to = new_node(t)) < 0)
            return false;
        node = t->b[b].to;
        if (c[1] && node == WHOLE) return true; // a shorter one is a beginning of it already
    }
    return true;
}

// A state for each node, and a last one for any text from there on.
static bool trie_states(sd_dfa_maker *m, const trie *t) {
    for (int i = 0; i < t->n; i++) {
        int32_t next = 0;
        if (!sd_dfa_state(m, true)) return false;
        for (int at = t->first[i]; at >= 0; at = t->b[at].next) {
            const branch *b = &t->b[at];
            if (b->c > next && !sd_dfa_edge_add(m, next, b->c - 1, t->n)) return false;
            if (b->to != WHOLE && !sd_dfa_edge_add(m, b->c, b->c, b->to)) return false;
            next = b->c + 1;
        }
        if (!sd_dfa_edge_add(m, next, 0x10FFFF, t->n)) return false;
    }
    return sd_dfa_state(m, true) && sd_dfa_edge_add(m, 0, 0x10FFFF, t->n);
}

sd_status sd_dfa_not_begun(sd_dfa **out, const sd_beginnings *x, sd_error *err) {
    static const char space[] = "\t\n\r ";
    sd_status st = SD_OK;
    trie t = {0};
    sd_dfa_maker m = {0};
    bool ok = new_node(&t) == 0;
    for (const char *c = space; ok && *c; c++) {
        int b = branch_of(&t, 0, *c);
        ok = b >= 0;
        if (ok) t.b[b].to = 0; // white space stands before it
    }
    int words = ok ? new_node(&t) : -1;
    ok = ok && words >= 0;
    for (int i = 0; ok && i < x->n_whole; i++) ok = add_text(&t, 0, x->whole[i], WHOLE);
    for (int i = 0; ok && i < x->n_openers; i++) ok = add_text(&t, 0, x->opener[i], words);
    for (int i = 0; ok && i < x->n_words; i++) ok = add_text(&t, words, x->word[i], WHOLE);
    SD_CHECK_ALLOC(ok, err);
    SD_CHECK(trie_states(&m, &t), err, SD_ELIMIT,
             "%d beginnings that a text must not have take more than %d states",
             x->n_whole + x->n_words, SD_DFA_STATES);
    st = sd_dfa_finish(out, &m, err);
out:
    free(t.first), free(t.b);
    drop(&m);
    return st;
}
