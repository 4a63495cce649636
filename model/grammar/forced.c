// What alone can come next, as the tokens that the tokenizer would write for it.
//
// The bytes are followed as long as there is one way; an optional space counts as that which the
// answer wrote the last time. They are proposals for a drafter: a wrong guess costs speed alone.
#include "model/grammar/internal.h"

#include <string.h>

enum { FORCED_BYTES = 256 };

// The one byte that may come; -1: there are several, or none.
static int only_byte(const sd_grammar *g, const sd_gstate *s, bool spaced) {
    bool space = sd_automaton_before_space(g, s);
    int byte = -1;
    if (space && spaced) return ' ';
    if (s->final || s->tokens) return -1;
    for (int i = 0; i < s->n; i++) {
        const sd_gnode *x = &g->nodes.node[s->c[i].node];
        if (x->flags & F_SPACE) continue;
        for (int k = 0; k < x->b; k++) {
            const sd_gedge *e = &g->nodes.edge[x->a + k];
            if (e->lo != e->hi || (byte >= 0 && e->lo != byte)) return -1;
            byte = e->lo;
        }
    }
    return byte;
}

// The longest token that a text begins with; -1.
static int32_t longest_token(const sd_vocab_trie *t, const char *text, int len, int *bytes) {
    int32_t best = -1;
    int i = 0, end = t->n;
    for (int k = 0; k < len; k++) {
        while (i < end && t->node[i].byte != (uint8_t)text[k]) i = t->node[i].skip;
        if (i >= end) break;
        if (t->node[i].token < t->node[i + 1].token) best = t->id[t->node[i].token], *bytes = k + 1;
        end = t->node[i].skip;
        i++;
    }
    return best;
}

static bool spells(const sd_tokenizer *t, const sd_ids *ids, const char *text, int len) {
    int at = 0;
    for (int i = 0; i < ids->n; i++) {
        size_t n;
        const char *bytes = sd_tokenizer_bytes(t, ids->id[i], &n);
        if (sd_tokenizer_is_special(t, ids->id[i]) || n > (size_t)(len - at) ||
            memcmp(bytes, text + at, n) != 0)
            return false;
        at += (int)n;
    }
    return at == len;
}

// A tokenizer of pieces puts a space before a text; where that is no part of it the longest tokens
// are taken.
static int tokens_of(const sd_vocab *v, const char *text, int len, int32_t *out) {
    sd_ids ids = {0};
    int n = 0;
    if (sd_tokenizer_encode(v->t, text, (size_t)len, 0, &ids, NULL) == SD_OK &&
        spells(v->t, &ids, text, len)) {
        n = ids.n < SD_GRAMMAR_FORCED ? ids.n : SD_GRAMMAR_FORCED;
        memcpy(out, ids.id, (size_t)n * sizeof *out);
    } else {
        for (int at = 0, bytes = 0; at < len && n < SD_GRAMMAR_FORCED; at += bytes, n++)
            if ((out[n] = longest_token(&v->all, text + at, len - at, &bytes)) < 0) break;
    }
    sd_ids_free(&ids);
    return n;
}

static void find_forced(sd_grammar *g, int32_t state, bool spaced) {
    char text[FORCED_BYTES];
    int32_t token[SD_GRAMMAR_FORCED];
    int len = 0, at = state, byte;
    while (len < FORCED_BYTES && at && (byte = only_byte(g, g->state[at], spaced)) >= 0) {
        at = sd_automaton_step(g, at, (uint8_t)byte);
        text[len++] = (char)byte;
    }
    sd_gstate *s = g->state[state];
    int n = len && at ? tokens_of(g->vocab, text, len, token) : 0;
    s->forced[spaced] = n ? malloc((size_t)n * sizeof *token) : NULL;
    if (!s->forced[spaced]) n = 0;
    if (n) memcpy(s->forced[spaced], token, (size_t)n * sizeof *token);
    s->n_forced[spaced] = (uint8_t)n;
    s->has_forced |= (uint8_t)(1 << spaced);
    // At a full buffer, and where the text goes on in several ways, the last token may grow.
    s->forced_open[spaced] =
        len == FORCED_BYTES || !at || !(g->state[at]->final && !g->state[at]->n);
}

int sd_grammar_forced(const sd_grammar_state *s, int32_t *token, bool *open) {
    sd_grammar *g = s->g;
    int n = 0;
    *open = false;
    if (s->at == 0) return 0;
    pthread_mutex_lock(&g->lock);
    if (!(g->state[s->at]->has_forced & 1 << s->spaced)) find_forced(g, s->at, s->spaced);
    const sd_gstate *x = g->state[s->at];
    n = x->n_forced[s->spaced];
    *open = x->forced_open[s->spaced];
    if (n) memcpy(token, x->forced[s->spaced], (size_t)n * sizeof *token);
    pthread_mutex_unlock(&g->lock);
    return n;
}
