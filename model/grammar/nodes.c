// Expressions to nodes: a piece of an automaton with calls, written from its end to its beginning, so
// that whoever writes a node knows where it leads.
//
// A rule's nodes lie together. What is repeated becomes a rule as well, and counts stand in the
// frames of the stack: "a{2,100000}" is three nodes. An automaton over characters becomes a rule of
// byte nodes, with a JSON string's escapes where it is part of one.
#include "model/grammar/internal.h"

#include "base/list.h"

#include <string.h>

typedef struct {
    int32_t lo, hi, to, node;
} tail; // a node behind a first byte that was written already

enum {
    TAILS = 64,
    MAX_RULES = 1 << 17,
    MAX_EDGES = 1 << 19,
    NEED_PASSES = 48,
    NEED_VISITS = 4000000
};
enum { NEVER = UINT16_MAX };

typedef struct {
    int e, dfa, json; // an expression, or an automaton
} rule_body;

typedef struct {
    sd_gnodes *g;
    sd_grammar_builder *b;
    rule_body *rule; // [g->n_rules]
    int cap_rules;
    int *first; // [n_rules + 1] of each rule's nodes
    int *rule_of_expr, *rule_of_dfa[2];
    sd_gedge *out; // edges of the node that is being written
    int n_out, cap_out;
    tail tails[TAILS];
    int n_tails;
    sd_status st; // not SD_OK: a bound was passed or memory is out
} writer;

static int lost(writer *w, sd_status st) {
    if (w->st == SD_OK) w->st = st;
    return -1;
}

static int node(writer *w, sd_gnode_kind kind, int a, int b) {
    if (w->st != SD_OK) return -1;
    if (w->g->n >= SD_GRAMMAR_NODES) return lost(w, SD_ELIMIT);
    if (!SD_GROW(w->g->node, w->g->n + 1, w->g->cap)) return lost(w, SD_ENOMEM);
    w->g->node[w->g->n] = (sd_gnode){.kind = (uint8_t)kind, .a = a, .b = b};
    return w->g->n++;
}

static void edge(writer *w, int lo, int hi, int to) {
    if (to < 0 || w->st != SD_OK) return;
    if (!SD_GROW(w->out, w->n_out + 1, w->cap_out)) {
        lost(w, SD_ENOMEM);
        return;
    }
    w->out[w->n_out++] = (sd_gedge){(uint8_t)lo, (uint8_t)hi, to};
}

// A node of the edges out [from..n_out), which are taken.
static int edges_node(writer *w, int from) {
    sd_gnodes *g = w->g;
    int n = w->n_out - from;
    w->n_out = from;
    if (w->st != SD_OK) return -1;
    if (g->n_edges + n > MAX_EDGES) return lost(w, SD_ELIMIT);
    if (!SD_GROW(g->edge, g->n_edges + n + 1, g->cap_edges)) return lost(w, SD_ENOMEM);
    if (n) memcpy(g->edge + g->n_edges, w->out + from, (size_t)n * sizeof *g->edge);
    g->n_edges += n;
    return node(w, N_EDGES, g->n_edges - n, n);
}

static int one_edge(writer *w, int lo, int hi, int to) {
    int from = w->n_out;
    edge(w, lo, hi, to);
    return edges_node(w, from);
}

// ---- characters as UTF-8

// A node with one edge, shared among ranges that end alike.
static int tail_node(writer *w, int lo, int hi, int to) {
    for (int i = 0; i < TAILS && i < w->n_tails; i++)
        if (w->tails[i].lo == lo && w->tails[i].hi == hi && w->tails[i].to == to)
            return w->tails[i].node;
    int n = one_edge(w, lo, hi, to);
    w->tails[w->n_tails++ % TAILS] = (tail){lo, hi, to, n};
    return n;
}

static int utf8_bytes(uint8_t out[4], int32_t cp) {
    if (cp < 0x80) return out[0] = (uint8_t)cp, 1;
    int n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, cp >>= 6) out[i] = (uint8_t)(0x80 | (cp & 0x3F));
    out[0] = (uint8_t)((n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0) | cp);
    return n;
}

// Edges for [lo, hi]: cut until the bytes of a piece vary freely, each in a range of its own.
static void char_range(writer *w, int32_t lo, int32_t hi, int to) {
    static const int32_t last[] = {0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF};
    if (lo > hi || w->st != SD_OK) return;
    for (int i = 0; i < 5; i++)
        if (lo <= last[i] && hi > last[i]) {
            char_range(w, lo, last[i], to);
            char_range(w, last[i] + 1, hi, to);
            return;
        }
    if (lo >= 0xD800 && hi <= 0xDFFF) return; // no text has surrogates
    uint8_t a[4], b[4];
    int n = utf8_bytes(a, lo);
    utf8_bytes(b, hi);
    for (int i = 1; i < n; i++) {
        int32_t m = (1 << 6 * i) - 1;
        if ((lo & ~m) == (hi & ~m)) continue;
        if (lo & m) {
            char_range(w, lo, lo | m, to);
            char_range(w, (lo | m) + 1, hi, to);
            return;
        }
        if ((hi & m) != m) {
            char_range(w, lo, (hi & ~m) - 1, to);
            char_range(w, hi & ~m, hi, to);
            return;
        }
    }
    for (int i = n - 1; i > 0; i--) to = tail_node(w, a[i], b[i], to);
    edge(w, a[0], b[0], to);
}

// Control characters from lo to hi as \u00XX, where they have no short escape.
static int unicode_escapes(writer *w, int lo, int hi, int to) {
    int high_from = w->n_out;
    for (int high = 0; high < 2; high++) {
        int from = w->n_out;
        for (int c = lo > high * 16 ? lo : high * 16; c <= hi && c < high * 16 + 16; c++)
            if (c && !strchr("\b\f\n\r\t", c))
                edge(w, "0123456789abcdef"[c % 16], "0123456789abcdef"[c % 16], to);
        if (w->n_out == from) continue;
        int low = edges_node(w, from);
        edge(w, '0' + high, '0' + high, low);
    }
    if (w->n_out == high_from) return -1;
    int n = edges_node(w, high_from);
    return one_edge(w, '0', '0', one_edge(w, '0', '0', n));
}

// The same inside a JSON string: characters that may not stand there by the escape that json.dumps
// writes, others as they are.
static void json_range(writer *w, int32_t lo, int32_t hi, int to) {
    static const char escaped[] = "\b\f\n\r\t\"\\", name[] = "bfnrt\"\\";
    int from = w->n_out;
    int unicode = lo < 0x20 ? unicode_escapes(w, lo, hi < 0x1F ? hi : 0x1F, to) : -1;
    for (int i = 0; i < 7; i++)
        if (lo <= escaped[i] && escaped[i] <= hi) edge(w, name[i], name[i], to);
    if (unicode >= 0) edge(w, 'u', 'u', unicode);
    if (w->n_out > from) {
        int behind = edges_node(w, from);
        edge(w, '\\', '\\', behind);
    }
    int32_t at = lo < 0x20 ? 0x20 : lo;
    static const int32_t cut[] = {'"', '\\'};
    for (int i = 0; i < 2; i++)
        if (at <= cut[i] && cut[i] <= hi) {
            char_range(w, at, cut[i] - 1, to);
            at = cut[i] + 1;
        }
    char_range(w, at, hi, to);
}

// ---- rules

static int new_rule(writer *w, rule_body body) {
    if (w->st != SD_OK) return -1;
    if (w->g->n_rules >= MAX_RULES) return lost(w, SD_ELIMIT);
    if (!SD_GROW(w->rule, w->g->n_rules + 1, w->cap_rules)) return lost(w, SD_ENOMEM);
    w->rule[w->g->n_rules] = body;
    return w->g->n_rules++;
}

static int rule_of_expr(writer *w, int e) {
    if (w->b->e[e].kind == E_RULE) return w->b->e[e].a;
    if (w->rule_of_expr[e] < 0) w->rule_of_expr[e] = new_rule(w, (rule_body){e, -1, 0});
    return w->rule_of_expr[e];
}

static int rule_of_dfa(writer *w, int dfa, int json) {
    int *r = &w->rule_of_dfa[json][dfa];
    if (*r < 0) *r = new_rule(w, (rule_body){-1, dfa, json});
    return *r;
}

// The states of an automaton: node numbers are known before their edges are written.
static int write_dfa(writer *w, const sd_dfa *d, bool json) {
    int *at = sd_alloc((size_t)d->n + 1, sizeof *at), first = -1;
    if (!at) return lost(w, SD_ENOMEM);
    for (int s = 0; s < d->n; s++) {
        at[s] = node(w, N_EDGES, 0, 0);
        // An accepting state goes on or returns; edges lead to the node that chooses.
        if (d->accept[s]) at[s] = node(w, N_SPLIT, at[s], 0);
    }
    for (int s = 0; s < d->n && w->st == SD_OK; s++) {
        int from = w->n_out, n;
        w->n_tails = 0;
        for (int i = d->first[s]; i < d->first[s + 1]; i++) {
            const sd_dfa_edge *x = &d->edge[i];
            if (json)
                json_range(w, x->lo, x->hi, at[x->to]);
            else
                char_range(w, x->lo, x->hi, at[x->to]);
        }
        n = edges_node(w, from);
        if (n < 0) break;
        sd_gnode *x = &w->g->node[d->accept[s] ? w->g->node[at[s]].a : at[s]];
        x->a = w->g->node[n].a, x->b = w->g->node[n].b;
        w->g->n--; // its place was reserved
    }
    if (w->st == SD_OK) first = at[0];
    free(at);
    return first;
}

// ---- expressions

typedef struct {
    const unsigned char *s;
    int len;
} text_ref;

static int by_bytes(const void *pa, const void *pb) {
    const text_ref *a = pa, *b = pb;
    int c = memcmp(a->s, b->s, (size_t)(a->len < b->len ? a->len : b->len));
    return c ? c : a->len - b->len;
}

// Sorted texts that agree in their first `at` bytes. The longest chain of single bytes is a loop, so
// that only a fork goes deeper.
static int write_trie(writer *w, const text_ref *t, int n, int at, int next) {
    int from = w->n_out, ends = 0, stem = at;
    while (n > 0 && t[0].len > stem && t[n - 1].len > stem && t[0].s[stem] == t[n - 1].s[stem])
        stem++;
    for (; ends < n && t[ends].len == stem; ends++) {
    }
    for (int i = ends, k; i < n && w->st == SD_OK; i = k) {
        for (k = i + 1; k < n && t[k].s[stem] == t[i].s[stem]; k++) {
        }
        edge(w, t[i].s[stem], t[i].s[stem], write_trie(w, t + i, k - i, stem + 1, next));
    }
    int e = ends < n ? edges_node(w, from) : next;
    if (ends > 0 && ends < n) e = node(w, N_SPLIT, e, next);
    for (int i = stem - 1; i >= at && e >= 0; i--) e = one_edge(w, t[0].s[i], t[0].s[i], e);
    return e;
}

static int write_choice(writer *w, const sd_gexpr *x, int next) {
    text_ref *t = sd_alloc((size_t)x->b + 1, sizeof *t);
    if (!t) return lost(w, SD_ENOMEM);
    for (int i = 0; i < x->b; i++)
        t[i] = (text_ref){(const unsigned char *)w->b->bytes + w->b->num[x->a + 2 * i],
                          w->b->num[x->a + 2 * i + 1]};
    qsort(t, (size_t)x->b, sizeof *t, by_bytes);
    int e = write_trie(w, t, x->b, 0, next);
    free(t);
    return e;
}

static int write_class(writer *w, const sd_gexpr *x, int next) {
    uint32_t set[8];
    int from = w->n_out;
    memcpy(set, w->b->bytes + x->a, sizeof set);
    for (int c = 0; c < 256; c++) {
        int lo = c;
        while (c < 256 && set[c / 32] >> c % 32 & 1) c++;
        if (c > lo) edge(w, lo, c - 1, next);
    }
    return edges_node(w, from);
}

static int write_repeat(writer *w, int of, int min, int max, int next) {
    sd_gnodes *g = w->g;
    int rule = rule_of_expr(w, of);
    if (rule < 0) return -1;
    if (!SD_GROW(g->loop, g->n_loops + 1, g->cap_loops)) return lost(w, SD_ENOMEM);
    g->loop[g->n_loops] = (sd_gloop){rule, min, max, next};
    return node(w, N_LOOP, g->n_loops++, 0);
}

static int flagged(writer *w, int n, int flag) {
    if (n >= 0) w->g->node[n].flags = (uint8_t)flag;
    return n;
}

static int write_plain(writer *w, int next) {
    int from = w->n_out;
    w->n_tails = 0;
    char_range(w, 0x20, '"' - 1, next);
    char_range(w, '"' + 1, '\\' - 1, next);
    char_range(w, '\\' + 1, 0x10FFFF, next);
    return flagged(w, edges_node(w, from), F_PLAIN);
}

static int write_expr(writer *w, int at, int next);

static int write_any_of(writer *w, const sd_gexpr *x, int next) {
    int all = -1;
    for (int i = x->b - 1; i >= 0; i--) {
        int part = write_expr(w, w->b->num[x->a + i], next);
        if (part < 0) return -1;
        all = all < 0 ? part : node(w, N_SPLIT, part, all);
    }
    return all;
}

static int write_expr(writer *w, int at, int next) {
    const sd_gexpr *x = &w->b->e[at];
    const int32_t *num = w->b->num;
    if (next < 0 || w->st != SD_OK) return -1;
    switch (x->kind) {
    case E_EMPTY:
        return next;
    case E_LITERAL:
        for (int i = x->b - 1; i >= 0 && next >= 0; i--) {
            int c = (unsigned char)w->b->bytes[x->a + i];
            next = one_edge(w, c, c, next);
        }
        return next;
    case E_CLASS:
        return write_class(w, x, next);
    case E_CHARS: {
        int from = w->n_out;
        w->n_tails = 0;
        for (int i = 0; i < x->b; i++)
            char_range(w, num[x->a + 2 * i], num[x->a + 2 * i + 1], next);
        return edges_node(w, from);
    }
    case E_SEQ:
        for (int i = x->b - 1; i >= 0 && next >= 0; i--) next = write_expr(w, num[x->a + i], next);
        return next;
    case E_ALT:
        return write_any_of(w, x, next);
    case E_CHOICE:
        return write_choice(w, x, next);
    case E_REPEAT:
        if (x->b == 1 && x->c == 1) return write_expr(w, x->a, next);
        if (x->b == 0 && x->c == 1) return node(w, N_SPLIT, write_expr(w, x->a, next), next);
        return write_repeat(w, x->a, x->b, x->c, next);
    case E_RULE:
        return node(w, N_CALL, x->a, next);
    case E_TOKEN:
        return node(w, N_TOKEN, x->a, next);
    case E_DFA: {
        int rule = rule_of_dfa(w, x->a, x->b);
        return rule < 0 ? -1 : node(w, N_CALL, rule, next);
    }
    case E_SPACE:
        return node(w, N_SPLIT, flagged(w, one_edge(w, ' ', ' ', next), F_SPACE), next);
    case E_PLAIN:
        return write_plain(w, next);
    }
    return -1;
}

// ---- what the way to a rule's end needs

static int need_of(const sd_gnodes *g, const sd_gnode *x) {
    int least = NEVER, a, b;
    switch ((sd_gnode_kind)x->kind) {
    case N_RETURN:
        return 0;
    case N_EDGES:
        for (int i = 0; i < x->b; i++)
            if (g->need[g->edge[x->a + i].to] < least) least = g->need[g->edge[x->a + i].to];
        return least;
    case N_SPLIT:
        return g->need[x->a] < g->need[x->b] ? g->need[x->a] : g->need[x->b];
    case N_CALL:
        a = g->need[g->start[x->a]], b = g->need[x->b];
        if (a < NEVER && x->b != 0) a++; // a call before the end leaves no frame
        return a > b ? a : b;
    case N_LOOP: {
        const sd_gloop *l = &g->loop[x->a];
        a = l->min > 0 ? g->need[g->start[l->rule]] : 0, b = g->need[l->exit];
        if (l->min > 0 && a < NEVER) a++;
        return a > b ? a : b;
    }
    case N_TOKEN:
        return g->need[x->b];
    }
    return NEVER;
}

// Rules need each other: passes until nothing changes. Stopping early would leave needs too large,
// which costs choices and no promise. An automaton's states all lead to their rule's end.
static void find_needs(writer *w) {
    sd_gnodes *g = w->g;
    for (int i = 0; i < g->n; i++) g->need[i] = NEVER;
    g->need[0] = 0;
    bool changed = true;
    int visits = 0;
    for (int pass = 0; changed && pass < NEED_PASSES && visits < NEED_VISITS; pass++) {
        changed = false;
        visits += g->n;
        for (int k = 0; k < g->n_rules; k++) { // both ways in turn: rules are made in either order
            int r = pass % 2 ? g->n_rules - 1 - k : k;
            for (int i = w->first[r]; i < w->first[r + 1]; i++) {
                int need = w->rule[r].dfa >= 0 ? 0 : need_of(g, &g->node[i]);
                if (need < g->need[i]) g->need[i] = (uint16_t)need, changed = true;
            }
        }
    }
}

// The node that alone is left of one: beyond alternatives that never end, and calls that need no
// frame when `calls`.
static int32_t only_way(const sd_gnodes *g, int32_t i, bool calls) {
    const sd_gnode *x = &g->node[i];
    if (g->need[i] == NEVER) return i;
    if (x->kind == N_SPLIT && g->need[x->a] == NEVER) return x->b;
    if (x->kind == N_SPLIT && g->need[x->b] == NEVER) return x->a;
    return calls && x->kind == N_CALL && x->b == 0 ? g->start[x->a] : i;
}

// What was passed on the way leads to its end from then on, so that long chains are gone once. No way
// is a circle: a circle never ends.
static int32_t end_of_way(const sd_gnodes *g, int32_t *beyond, int32_t i, bool calls) {
    int32_t end = i, next;
    while ((next = beyond[end] >= 0 ? beyond[end] : only_way(g, end, calls)) != end) end = next;
    while (i != end) {
        next = beyond[i] >= 0 ? beyond[i] : only_way(g, i, calls);
        beyond[i] = end;
        i = next;
    }
    return end;
}

// Alternatives that never end are passed by, so that thousands of them cost a closure no steps.
static bool pass_dead_ends(sd_gnodes *g) {
    int32_t *beyond = sd_alloc((size_t)g->n + 1, sizeof *beyond);
    if (!beyond) return false;
    memset(beyond, 0xFF, (size_t)g->n * sizeof *beyond);
    for (int r = 0; r < g->n_rules; r++) g->start[r] = end_of_way(g, beyond, g->start[r], true);
    memset(beyond, 0xFF, (size_t)g->n * sizeof *beyond);
    for (int i = 0; i < g->n; i++) {
        sd_gnode *x = &g->node[i];
        if (x->kind != N_SPLIT) continue;
        x->a = end_of_way(g, beyond, x->a, false);
        x->b = end_of_way(g, beyond, x->b, false);
    }
    g->root = end_of_way(g, beyond, g->root, false);
    free(beyond);
    return true;
}

static bool write_rules(writer *w, int *cap_first, int *cap_start) {
    sd_gnodes *g = w->g;
    for (int r = 0; r < g->n_rules; r++) {
        rule_body body = w->rule[r];
        if (!SD_GROW(w->first, r + 2, *cap_first) || !SD_GROW(g->start, r + 1, *cap_start))
            return lost(w, SD_ENOMEM), false;
        w->first[r] = g->n;
        g->start[r] =
            body.dfa >= 0 ? write_dfa(w, w->b->dfa[body.dfa], body.json) : write_expr(w, body.e, 0);
        w->first[r + 1] = g->n;
        if (w->st != SD_OK) return false;
    }
    return true;
}

static sd_status prepare(writer *w, int e, int V, sd_error *err) {
    sd_status st = SD_OK;
    sd_grammar_builder *b = w->b;
    for (int i = 0; i < b->n; i++)
        SD_CHECK(b->e[i].kind != E_TOKEN || (b->e[i].a >= 0 && b->e[i].a < V), err, SD_EINVAL,
                 "token %d is outside the vocabulary of %d", b->e[i].a, V);
    for (int r = 0; r < b->n_rules; r++) {
        SD_CHECK(b->rule[r] >= 0, err, SD_EINVAL, "rule %d was never defined", r);
        new_rule(w, (rule_body){b->rule[r], -1, 0});
    }
    w->rule_of_expr = sd_alloc((size_t)b->n + 1, sizeof *w->rule_of_expr);
    for (int k = 0; k < 2; k++)
        w->rule_of_dfa[k] = sd_alloc((size_t)b->n_dfa + 1, sizeof **w->rule_of_dfa);
    SD_CHECK_ALLOC(w->rule_of_expr && w->rule_of_dfa[0] && w->rule_of_dfa[1], err);
    for (int i = 0; i < b->n; i++) w->rule_of_expr[i] = -1;
    for (int i = 0; i < b->n_dfa; i++) w->rule_of_dfa[0][i] = w->rule_of_dfa[1][i] = -1;
    node(w, N_RETURN, 0, 0);
    w->g->root = new_rule(w, (rule_body){e, -1, 0}); // a rule until its first node is known
out:
    return st;
}

sd_status sd_gnodes_make(sd_gnodes *g, sd_grammar_builder *b, int e, int V, sd_error *err) {
    sd_status st = SD_OK;
    writer w = {.g = g, .b = b};
    int cap_first = 0, cap_start = 0;
    *g = (sd_gnodes){0};
    if (b->err.status) {
        if (err) *err = b->err;
        return b->err.status;
    }
    SD_CHECK(e >= 0 && e < b->n, err, SD_EINVAL, "the grammar has no expression");
    SD_TRY(prepare(&w, e, V, err));
    write_rules(&w, &cap_first, &cap_start);
    SD_CHECK_ALLOC(w.st != SD_ENOMEM, err);
    SD_CHECK(w.st == SD_OK, err, SD_ELIMIT,
             "the grammar takes more than %d nodes; give fewer and shorter alternatives",
             SD_GRAMMAR_NODES);
    g->root = g->start[g->root];
    g->need = sd_alloc((size_t)g->n + 1, sizeof *g->need);
    SD_CHECK_ALLOC(g->need, err);
    find_needs(&w);
    SD_CHECK(g->need[g->root] <= SD_GRAMMAR_DEPTH, err, SD_EINVAL,
             "no text of at most %d nested rules fits the constraint", SD_GRAMMAR_DEPTH);
    SD_CHECK_ALLOC(pass_dead_ends(g), err);
out:
    free(w.rule), free(w.first), free(w.out);
    free(w.rule_of_expr), free(w.rule_of_dfa[0]), free(w.rule_of_dfa[1]);
    if (st != SD_OK) sd_gnodes_free(g);
    return st;
}

void sd_gnodes_free(sd_gnodes *g) {
    free(g->node), free(g->edge), free(g->loop), free(g->start), free(g->need);
    *g = (sd_gnodes){0};
}
