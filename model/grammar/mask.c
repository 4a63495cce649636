// Compiling, and what sequences ask: a token's bytes are walked through the automaton, a mask is a
// walk of the vocabulary's trie that is kept with the state.
//
// Inside a JSON string most of the vocabulary is allowed, whatever it says: as long as the string has
// room for the longest of them, plain tokens are taken from a mask made once, and the walk sees the
// others alone.
#include "model/grammar/internal.h"

#include "base/clock.h"

#include <string.h>

sd_status sd_grammar_compile(sd_grammar **out, sd_grammar_builder *b, int e, sd_vocab *v,
                             sd_error *err) {
    sd_status st = SD_OK;
    sd_grammar *g = sd_alloc(1, sizeof *g);
    SD_CHECK_ALLOC(g, err);
    atomic_init(&g->refs, 1);
    g->vocab = sd_vocab_acquire(v);
    g->budget = sd_gspend_of_a_mask();
    pthread_mutex_init(&g->lock, NULL);
    SD_TRY(sd_gnodes_make(&g->nodes, b, e, v->V, err));
    SD_TRY(sd_automaton_open(g, err));
    sd_grammar_checker c = sd_gb_take_check(b);
    sd_grammar_set_check(g, c.check, c.free_ctx, c.ctx);
    g->check_bytes = c.bytes;
    *out = g, g = NULL;
out:
    sd_grammar_release(g);
    return st;
}

sd_grammar *sd_grammar_acquire(sd_grammar *g) {
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void sd_grammar_release(sd_grammar *g) {
    if (!g || atomic_fetch_sub(&g->refs, 1) > 1) return;
    sd_automaton_close(g);
    sd_gnodes_free(&g->nodes);
    sd_vocab_release(g->vocab);
    if (g->ctx) g->free_ctx(g->ctx);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

void sd_grammar_set_check(sd_grammar *g, sd_grammar_check_fn check, void (*free_ctx)(void *ctx),
                          void *ctx) {
    if (g->ctx) g->free_ctx(g->ctx);
    g->check = check;
    g->free_ctx = free_ctx;
    g->ctx = ctx;
}

bool sd_grammar_has_check(const sd_grammar *g) {
    return g->check != NULL;
}

sd_status sd_grammar_check(const sd_grammar *g, const char *text, size_t len, sd_error *err) {
    return g->check ? g->check(g->ctx, text, len, err) : SD_OK;
}

// ---- sequences

bool sd_grammar_begin(sd_grammar_state *s, sd_grammar *g, int32_t before) {
    const sd_vocab *v = g->vocab;
    bool strip = v->spaced >= 0 && sd_tokenizer_prefix_bytes(v->t, before, v->spaced) > 0;
    *s = (sd_grammar_state){sd_grammar_acquire(g), g->first, strip, true, false};
    atomic_fetch_add(&g->followed, 1);
    pthread_mutex_lock(&g->lock);
    g->state[s->at]->refs++;
    pthread_mutex_unlock(&g->lock);
    return true;
}

void sd_grammar_end(sd_grammar_state *s) {
    if (!s->g) return;
    pthread_mutex_lock(&s->g->lock);
    if (s->at) s->g->state[s->at]->refs--;
    pthread_mutex_unlock(&s->g->lock);
    atomic_fetch_sub(&s->g->followed, 1);
    sd_grammar_release(s->g);
    *s = (sd_grammar_state){0};
}

void sd_grammar_copy(sd_grammar_state *to, const sd_grammar_state *from) {
    if (to->g == from->g && to->at == from->at) { // nothing to count
        *to = *from;
        return;
    }
    sd_grammar_state old = *to;
    *to = *from;
    if (to->g) {
        sd_grammar_acquire(to->g);
        atomic_fetch_add(&to->g->followed, 1);
        pthread_mutex_lock(&to->g->lock);
        if (to->at) to->g->state[to->at]->refs++;
        pthread_mutex_unlock(&to->g->lock);
    }
    sd_grammar_end(&old);
}

// The state behind a token, and whether the last optional space was written. 0: it is not allowed.
static int32_t behind(sd_grammar *g, const sd_grammar_state *s, int32_t token, bool *spaced) {
    size_t len;
    if (s->at == 0) return 0;
    int32_t at = s->at, direct = g->state[at]->tokens ? sd_automaton_token(g, at, token) : 0;
    if (direct) return direct;
    const char *bytes = sd_tokenizer_bytes(g->vocab->t, token, &len);
    if (len == 0 || sd_tokenizer_is_special(g->vocab->t, token)) return 0;
    size_t i = s->strip && *bytes == ' ';
    if (i == len) return 0;
    for (; i < len && at; i++) {
        if (sd_automaton_before_space(g, g->state[at])) *spaced = bytes[i] == ' ';
        at = sd_automaton_step(g, at, (uint8_t)bytes[i]);
    }
    return at;
}

bool sd_grammar_accept(sd_grammar_state *s, int32_t token) {
    sd_grammar *g = s->g;
    bool spaced = s->spaced;
    pthread_mutex_lock(&g->lock);
    sd_automaton_collect(g);
    g->lost = false;
    int32_t at = behind(g, s, token, &spaced);
    s->lost = !at && g->lost;
    if (at) {
        g->state[at]->refs++;
        g->state[at]->tick = ++g->tick;
        g->state[s->at]->refs--;
        s->at = at, s->strip = false, s->spaced = spaced;
    }
    pthread_mutex_unlock(&g->lock);
    return at != 0;
}

bool sd_grammar_allows(const sd_grammar_state *s, int32_t token) {
    bool spaced;
    pthread_mutex_lock(&s->g->lock);
    bool yes = behind(s->g, s, token, &spaced) != 0;
    pthread_mutex_unlock(&s->g->lock);
    return yes;
}

bool sd_grammar_can_end(const sd_grammar_state *s) {
    pthread_mutex_lock(&s->g->lock);
    bool yes = s->at && s->g->state[s->at]->final;
    pthread_mutex_unlock(&s->g->lock);
    return yes;
}

bool sd_grammar_must_end(const sd_grammar_state *s) {
    pthread_mutex_lock(&s->g->lock);
    const sd_gstate *x = s->at ? s->g->state[s->at] : NULL;
    bool yes = x && x->final && x->n == 0;
    pthread_mutex_unlock(&s->g->lock);
    return yes;
}

// ---- masks

static void walk(sd_grammar *g, const sd_vocab_trie *t, int32_t state, bool strip, uint32_t *mask) {
    int32_t *at = g->walk;
    at[0] = state;
    for (int i = 0; i < t->n;) {
        const sd_vocab_node *x = &t->node[i];
        if (strip && x->depth == 1 && x->byte == ' ') { // as if it were not there
            at[1] = state;
            i++;
            continue;
        }
        const sd_gstate *s = g->state[at[x->depth - 1]];
        int32_t to = s->to ? s->to[x->byte] : -1;
        if (to < 0) {
            to = sd_automaton_step(g, at[x->depth - 1], x->byte);
            if (g->lost) return;
        }
        if (to == 0) {
            i = x->skip;
            continue;
        }
        at[x->depth] = to;
        for (int k = x->token; k < x[1].token; k++) mask[t->id[k] / 32] |= 1u << t->id[k] % 32;
        i++;
    }
}

static void make_mask(sd_grammar *g, int32_t state, bool strip, uint32_t *mask, size_t words) {
    const sd_vocab *v = g->vocab;
    const sd_gstate *s = g->state[state];
    int room = strip ? 0 : sd_automaton_plain_room(g, s);
    if (room >= v->most_chars) {
        memcpy(mask, v->plain_mask, words * sizeof *mask);
        walk(g, &v->odd, state, false, mask);
    } else {
        walk(g, &v->all, state, strip, mask);
    }
    s = g->state[state];
    for (int i = 0; s->tokens && i < s->n; i++) {
        const sd_gnode *x = &g->nodes.node[s->c[i].node];
        if (x->kind == N_TOKEN) mask[x->a / 32] |= 1u << x->a % 32;
    }
}

static void count_mask(sd_grammar *g, const sd_gspend *took, double seconds) {
    sd_grammar_stats *s = &g->stats;
    s->mask_misses++;
    s->mask_s += seconds;
    if (took->made > s->most_states) s->most_states = took->made;
    if (took->work > s->most_work) s->most_work = took->work;
    if (took->bytes > s->most_bytes) s->most_bytes = took->bytes;
    atomic_fetch_add(&g->vocab->masks_made, 1);
    atomic_fetch_add(&g->vocab->mask_ns, (int64_t)(seconds * 1e9));
}

static sd_gspend lesser(const sd_gspend *a, const sd_gspend *b) {
    return (sd_gspend){a->made < b->made ? a->made : b->made, a->work < b->work ? a->work : b->work,
                       a->bytes < b->bytes ? a->bytes : b->bytes};
}

static void take_off(sd_gspend *left, const sd_gspend *took) {
    left->made = left->made > took->made ? left->made - took->made : 0;
    left->work = left->work > took->work ? left->work - took->work : 0;
    left->bytes = left->bytes > took->bytes ? left->bytes - took->bytes : 0;
}

// *out <- the mask of a state. Under the lock.
static sd_grammar_filled mask_of(const uint32_t **out, sd_grammar *g, int32_t state, bool strip,
                                 sd_gspend *left) {
    sd_gstate *s = g->state[state];
    size_t words = ((size_t)g->vocab->V + 31) / 32;
    g->stats.masks++;
    atomic_fetch_add(&g->vocab->masks, 1);
    s->tick = ++g->tick;
    if ((*out = s->mask[strip])) return SD_GRAMMAR_FILLED;
    uint32_t *mask = calloc(words, sizeof *mask);
    if (!mask) return SD_GRAMMAR_NO_MEMORY;
    double begin = sd_now_s();
    sd_gspend most = left ? lesser(left, &g->budget) : g->budget,
              took = {g->made, g->work, g->bytes};
    g->lost = g->spent = false;
    sd_automaton_limit(g, most);
    make_mask(g, state, strip, mask, words);
    sd_automaton_unlimited(g);
    took = (sd_gspend){g->made - took.made, g->work - took.work, g->bytes - took.bytes};
    count_mask(g, &took, sd_now_s() - begin);
    if (left) take_off(left, &took);
    s = g->state[state];
    if (!g->lost) {
        s->mask[strip] = mask;
        g->bytes += words * sizeof *mask;
        *out = mask;
        return SD_GRAMMAR_FILLED;
    }
    free(mask); // a hole in it would be another constraint
    if (!g->spent) return SD_GRAMMAR_NO_MEMORY;
    bool less =
        most.made < g->budget.made || most.work < g->budget.work || most.bytes < g->budget.bytes;
    return less ? SD_GRAMMAR_LATER : SD_GRAMMAR_TOO_MUCH;
}

sd_grammar_filled sd_grammar_try_fill(const sd_grammar_state *s, uint32_t *allowed, int V,
                                      sd_gspend *left) {
    sd_grammar *g = s->g;
    size_t words = ((size_t)V + 31) / 32, has = ((size_t)g->vocab->V + 31) / 32;
    const uint32_t *mask = NULL;
    memset(allowed, 0, words * sizeof *allowed);
    if (s->at == 0) return SD_GRAMMAR_FILLED;
    pthread_mutex_lock(&g->lock);
    sd_automaton_collect(g);
    sd_grammar_filled is = mask_of(&mask, g, s->at, s->strip, left);
    if (mask) memcpy(allowed, mask, (words < has ? words : has) * sizeof *allowed);
    if (is == SD_GRAMMAR_FILLED || is == SD_GRAMMAR_LATER)
        sd_automaton_collect(g); // whoever asks next may be long in coming
    else
        sd_automaton_forget(g);
    pthread_mutex_unlock(&g->lock);
    return is;
}

bool sd_grammar_fill(const sd_grammar_state *s, uint32_t *allowed, int V) {
    size_t words = ((size_t)V + 31) / 32;
    uint32_t any = 0;
    if (sd_grammar_try_fill(s, allowed, V, NULL) != SD_GRAMMAR_FILLED) return false;
    for (size_t i = 0; i < words; i++) any |= allowed[i];
    return any != 0;
}

size_t sd_grammar_rule_bytes(const sd_grammar *g) {
    const sd_gnodes *n = &g->nodes;
    return sizeof *g + (size_t)n->cap * (sizeof *n->node + sizeof *n->need) +
           (size_t)n->cap_edges * sizeof *n->edge + (size_t)n->cap_loops * sizeof *n->loop +
           (size_t)n->n_rules * sizeof *n->start + g->check_bytes;
}

size_t sd_grammar_bytes(const sd_grammar *g) {
    return atomic_load(&g->bytes) + sd_automaton_scratch_bytes(g);
}

bool sd_grammar_is_shared(const sd_grammar *g) {
    return atomic_load(&g->refs) > 1;
}

bool sd_grammar_is_followed(const sd_grammar *g) {
    return atomic_load(&g->followed) > 0;
}

void sd_grammar_rest(sd_grammar *g) {
    pthread_mutex_lock(&g->lock);
    if (!sd_grammar_is_followed(g)) sd_automaton_forget(g);
    pthread_mutex_unlock(&g->lock);
}

void sd_grammar_get_stats(sd_grammar *g, sd_grammar_stats *out) {
    pthread_mutex_lock(&g->lock);
    *out = g->stats;
    out->nodes = g->nodes.n;
    out->states = g->states.n;
    out->bytes = g->bytes;
    pthread_mutex_unlock(&g->lock);
}
