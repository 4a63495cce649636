// DFAs over code points: made, trimmed, joined and asked.
#include "model/grammar/pattern/dfa.h"

#include "base/files/hash.h"
#include "base/list.h"
#include "base/utf8.h"

#include <limits.h>
#include <string.h>

void sd_dfa_free(sd_dfa *d) {
    if (!d) return;
    free(d->first), free(d->edge), free(d->accept);
    free(d);
}

// ---- making

bool sd_dfa_state(sd_dfa_maker *m, bool accept) {
    if (m->n >= SD_DFA_STATES || !SD_GROW(m->first, m->n + 2, m->cap_first) ||
        !SD_GROW(m->accept, m->n + 1, m->cap_accept))
        return false;
    m->accept[m->n] = accept;
    m->first[m->n++] = m->n_edges;
    m->first[m->n] = m->n_edges;
    return true;
}

bool sd_dfa_edge_add(sd_dfa_maker *m, int32_t lo, int32_t hi, int32_t to) {
    if (m->n_edges > m->first[m->n - 1]) {
        sd_dfa_edge *last = &m->edge[m->n_edges - 1];
        if (last->to == to && last->hi + 1 == lo) {
            last->hi = hi;
            return true;
        }
    }
    if (m->n_edges >= SD_DFA_EDGES || !SD_GROW(m->edge, m->n_edges + 1, m->cap_edges)) return false;
    m->edge[m->n_edges++] = (sd_dfa_edge){lo, hi, to};
    m->first[m->n] = m->n_edges;
    return true;
}

// live [n] <- 1 where an accepting state can be reached: backwards over the edges until nothing new
// is found.
static bool find_live(const sd_dfa_maker *m, uint8_t *live) {
    int *head = malloc(((size_t)m->n + 1) * sizeof *head);
    int *next = malloc(((size_t)m->n_edges + 1) * sizeof *next);
    int *from = malloc(((size_t)m->n_edges + 1) * sizeof *from);
    int *pending = malloc(((size_t)m->n + 1) * sizeof *pending), n = 0;
    bool ok = head && next && from && pending;
    for (int s = 0; ok && s < m->n; s++) {
        head[s] = -1;
        live[s] = m->accept[s];
        if (live[s]) pending[n++] = s;
    }
    for (int s = 0; ok && s < m->n; s++)
        for (int i = m->first[s]; i < m->first[s + 1]; i++)
            from[i] = s, next[i] = head[m->edge[i].to], head[m->edge[i].to] = i;
    while (ok && n > 0)
        for (int i = head[pending[--n]], s; i >= 0; i = next[i])
            if (!live[s = from[i]]) live[s] = 1, pending[n++] = s;
    free(head), free(next), free(from), free(pending);
    return ok;
}

sd_status sd_dfa_finish(sd_dfa **out, sd_dfa_maker *m, sd_error *err) {
    sd_status st = SD_OK;
    sd_dfa *d = sd_alloc(1, sizeof *d);
    uint8_t *live = sd_alloc((size_t)m->n + 1, 1);
    int *number = sd_alloc((size_t)m->n + 1, sizeof *number), edges = 0;
    SD_CHECK_ALLOC(d && live && number && find_live(m, live), err);
    for (int s = 0; s < m->n; s++) number[s] = live[s] ? d->n++ : -1;
    d->work = 8 * (int64_t)m->n + 4 * (int64_t)m->n_edges;
    if (m->n && !live[0]) d->n = 0;
    for (int s = 0; s < m->n && d->n; s++) {
        if (!live[s]) continue;
        int begin = edges;
        for (int i = m->first[s]; i < m->first[s + 1]; i++) {
            sd_dfa_edge x = m->edge[i];
            x.to = number[x.to];
            if (x.to >= 0) m->edge[edges++] = x; // never ahead of what is read
        }
        m->accept[number[s]] = m->accept[s];
        m->first[number[s]] = begin;
    }
    if (d->n) m->first[d->n] = edges;
    d->first = m->first, d->edge = m->edge, d->accept = m->accept;
    m->first = NULL, m->edge = NULL, m->accept = NULL;
    *out = d, d = NULL;
out:
    free(live), free(number), free(d);
    free(m->first), free(m->edge), free(m->accept);
    *m = (sd_dfa_maker){0};
    return st;
}

// ---- lengths

void sd_dfa_lengths(const sd_dfa *d, int *shortest, int *longest) {
    *shortest = *longest = 0;
    if (d->n == 0) return;
    int *dist = malloc((size_t)d->n * sizeof *dist),
        *pending = malloc((size_t)d->n * sizeof *pending);
    int *in = calloc((size_t)d->n, sizeof *in);
    if (!dist || !pending || !in) { // nothing is known: the caller counts
        *longest = -1;
        goto out;
    }
    // Shortest: breadth first.
    for (int s = 0; s < d->n; s++) dist[s] = -1;
    int n = 0, done = 0;
    dist[0] = 0, pending[n++] = 0;
    *shortest = -1;
    while (done < n) {
        int s = pending[done++];
        if (d->accept[s] && *shortest < 0) *shortest = dist[s];
        for (int i = d->first[s]; i < d->first[s + 1]; i++) {
            int t = d->edge[i].to;
            in[t]++;
            if (dist[t] < 0) dist[t] = dist[s] + 1, pending[n++] = t;
        }
    }
    // Longest: in topological order; a circle, which always leads to an end, has no bound.
    int reached = n;
    n = done = 0;
    for (int s = 0; s < d->n; s++) dist[s] = 0;
    if (in[0] == 0) pending[n++] = 0;
    while (done < n) {
        int s = pending[done++];
        if (d->accept[s] && dist[s] > *longest) *longest = dist[s];
        for (int i = d->first[s]; i < d->first[s + 1]; i++) {
            int t = d->edge[i].to;
            if (dist[t] < dist[s] + 1) dist[t] = dist[s] + 1;
            if (--in[t] == 0) pending[n++] = t;
        }
    }
    if (done < reached) *longest = -1;
out:
    free(dist), free(pending), free(in);
}

// ---- products

// Pairs (state of a, state of b or a count) that were found, numbered.
typedef struct {
    uint64_t *key; // [n]
    int *slot;
    int n, cap;
} pairs;

enum { PAIR_SLOTS = 4 * SD_DFA_STATES };

static int pair_of(pairs *p, uint64_t key) {
    if (!p->slot) {
        p->slot = calloc(PAIR_SLOTS, sizeof *p->slot);
        if (!p->slot) return -1;
    }
    size_t at = sd_mix64(key + 1) % PAIR_SLOTS;
    for (; p->slot[at]; at = (at + 1) % PAIR_SLOTS)
        if (p->key[p->slot[at] - 1] == key) return p->slot[at] - 1;
    if (p->n >= SD_DFA_STATES || !SD_GROW(p->key, p->n + 1, p->cap)) return -1;
    p->key[p->n] = key;
    p->slot[at] = ++p->n;
    return p->n - 1;
}

static void pairs_free(pairs *p) {
    free(p->key), free(p->slot);
}

sd_status sd_dfa_with_length(sd_dfa **out, const sd_dfa *d, int min, int max, sd_error *err) {
    sd_status st = SD_OK;
    pairs p = {0};
    sd_dfa_maker m = {0};
    int most = max >= 0 ? max : min; // beyond it counts are alike
    bool ok = d->n == 0 || pair_of(&p, 0) == 0;
    for (int k = 0; ok && k < p.n; k++) {
        int s = (int)(p.key[k] >> 32), n = (int)(uint32_t)p.key[k];
        ok = sd_dfa_state(&m, d->accept[s] && n >= min);
        if (max >= 0 && n == max) continue;
        for (int i = d->first[s]; ok && i < d->first[s + 1]; i++) {
            int to = pair_of(&p, (uint64_t)d->edge[i].to << 32 | (uint32_t)(n < most ? n + 1 : n));
            ok = to >= 0 && sd_dfa_edge_add(&m, d->edge[i].lo, d->edge[i].hi, to);
        }
    }
    SD_CHECK(ok, err, SD_ELIMIT,
             "pattern and length together take more than %d states; shorten one of them",
             SD_DFA_STATES);
    st = sd_dfa_finish(out, &m, err);
out:
    pairs_free(&p);
    free(m.first), free(m.edge), free(m.accept);
    return st;
}

sd_status sd_dfa_both(sd_dfa **out, const sd_dfa *a, const sd_dfa *b, sd_error *err) {
    sd_status st = SD_OK;
    pairs p = {0};
    sd_dfa_maker m = {0};
    bool ok = a->n == 0 || b->n == 0 || pair_of(&p, 0) == 0;
    int64_t work = 0;
    for (int k = 0; ok && k < p.n; k++) {
        int s = (int)(p.key[k] >> 32), t = (int)(uint32_t)p.key[k];
        ok = sd_dfa_state(&m, a->accept[s] && b->accept[t]);
        int i = a->first[s], j = b->first[t];
        while (ok && i < a->first[s + 1] && j < b->first[t + 1]) {
            ok = ++work <= SD_DFA_WORK;
            const sd_dfa_edge *x = &a->edge[i], *y = &b->edge[j];
            int32_t lo = x->lo > y->lo ? x->lo : y->lo, hi = x->hi < y->hi ? x->hi : y->hi;
            if (ok && lo <= hi) {
                int to = pair_of(&p, (uint64_t)x->to << 32 | (uint32_t)y->to);
                ok = to >= 0 && sd_dfa_edge_add(&m, lo, hi, to);
            }
            if (x->hi < y->hi)
                i++;
            else
                j++;
        }
    }
    SD_CHECK(ok, err, SD_ELIMIT,
             "the patterns of one string take more than %d states or %d steps together",
             SD_DFA_STATES, SD_DFA_WORK);
    SD_TRY(sd_dfa_finish(out, &m, err));
    (*out)->work += work;
out:
    pairs_free(&p);
    free(m.first), free(m.edge), free(m.accept);
    return st;
}

bool sd_dfa_matches(const sd_dfa *d, const char *text, size_t len) {
    int s = 0;
    if (d->n == 0) return false;
    for (size_t at = 0; at < len;) {
        int32_t cp;
        at += (size_t)sd_utf8_next(text + at, len - at, &cp, NULL);
        int i = d->first[s];
        while (i < d->first[s + 1] && !(d->edge[i].lo <= cp && cp <= d->edge[i].hi)) i++;
        if (cp < 0 || i == d->first[s + 1]) return false;
        s = d->edge[i].to;
    }
    return d->accept[s];
}
