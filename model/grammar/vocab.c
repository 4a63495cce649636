// The trie is laid out in the order of the sorted texts: below a node come its children with all
// that is below them, then `skip`. A walk goes straight through it and leaves out whole subtrees.
#include "model/grammar/internal.h"

#include "base/utf8.h"

#include <string.h>

typedef struct {
    const char *text;
    size_t len;
    int32_t id;
} entry;

static int by_text(const void *pa, const void *pb) {
    const entry *a = pa, *b = pb;
    int c = memcmp(a->text, b->text, a->len < b->len ? a->len : b->len);
    if (c) return c;
    if (a->len != b->len) return a->len < b->len ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static size_t shared_bytes(const entry *a, const entry *b) {
    size_t n = 0;
    while (n < a->len && n < b->len && a->text[n] == b->text[n]) n++;
    return n;
}

// A subtree ends where a node of the same depth or less follows.
static void set_skips(sd_vocab_trie *t) {
    for (int i = t->n - 1; i >= 0; i--) {
        int j = i + 1;
        while (j < t->n && t->node[j].depth > t->node[i].depth) j = t->node[j].skip;
        t->node[i].skip = j;
    }
}

static sd_status make_trie(sd_vocab_trie *t, const entry *e, int n, sd_error *err) {
    sd_status st = SD_OK;
    size_t nodes = 0;
    for (int i = 0; i < n; i++) nodes += e[i].len - (i ? shared_bytes(&e[i - 1], &e[i]) : 0);
    SD_CHECK(nodes < INT32_MAX, err, SD_ELIMIT, "the vocabulary's trie has %zu nodes", nodes);
    t->node = sd_alloc(nodes + 1, sizeof *t->node);
    t->id = sd_alloc((size_t)n + 1, sizeof *t->id);
    SD_CHECK_ALLOC(t->node && t->id, err);
    // A node's tokens end where the next node's begin, so that a node on the way has none. A text that
    // stands there twice adds no node: its ids follow one another.
    for (int i = 0; i < n; i++) {
        size_t from = i ? shared_bytes(&e[i - 1], &e[i]) : 0;
        for (size_t k = from; k < e[i].len; k++)
            t->node[t->n++] = (sd_vocab_node){
                .token = i, .depth = (int16_t)(k + 1), .byte = (uint8_t)e[i].text[k]};
        t->id[i] = e[i].id;
    }
    t->node[t->n] = (sd_vocab_node){.token = n};
    set_skips(t);
out:
    return st;
}

// Characters of a text that is plain inside a JSON string; 0: it is not.
static int plain_chars(const char *text, size_t len) {
    int n = 0;
    for (size_t at = 0; at < len; n++) {
        int32_t cp;
        at += (size_t)sd_utf8_next(text + at, len - at, &cp, NULL);
        if (cp < 0x20 || cp == '"' || cp == '\\') return 0;
    }
    return n;
}

// Counting sort by the number of characters.
static sd_status make_plain(sd_vocab *v, const entry *e, const int *chars, int n, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < n; i++)
        if (chars[i] > v->most_chars) v->most_chars = chars[i];
    v->plain_upto = sd_alloc((size_t)v->most_chars + 2, sizeof *v->plain_upto);
    v->plain = sd_alloc((size_t)n + 1, sizeof *v->plain);
    v->plain_mask = sd_alloc(((size_t)v->V + 31) / 32 + 1, sizeof *v->plain_mask);
    SD_CHECK_ALLOC(v->plain_upto && v->plain && v->plain_mask, err);
    for (int i = 0; i < n; i++)
        if (chars[i]) v->plain_upto[chars[i]]++;
    for (int c = 1; c <= v->most_chars; c++) v->plain_upto[c] += v->plain_upto[c - 1];
    for (int i = n - 1; i >= 0; i--)
        if (chars[i]) {
            v->plain[--v->plain_upto[chars[i]]] = e[i].id;
            v->plain_mask[e[i].id / 32] |= 1u << e[i].id % 32;
        }
    // Each count now stands where its class begins: at what the classes before it have.
    int total = 0;
    for (int i = 0; i < n; i++) total += chars[i] > 0;
    for (int c = 0; c <= v->most_chars; c++)
        v->plain_upto[c] = c < v->most_chars ? v->plain_upto[c + 1] : total;
out:
    return st;
}

static size_t trie_bytes(const sd_vocab_trie *t) {
    return ((size_t)t->n + 1) * sizeof *t->node + ((size_t)t->node[t->n].token + 1) * sizeof *t->id;
}

size_t sd_vocab_bytes(const sd_vocab *v) {
    const size_t n = (size_t)v->all.node[v->all.n].token;
    return sizeof *v + trie_bytes(&v->all) + trie_bytes(&v->odd) +
           ((size_t)v->most_chars + 2) * sizeof *v->plain_upto + (n + 1) * sizeof *v->plain +
           (((size_t)v->V + 31) / 32 + 1) * sizeof *v->plain_mask;
}

size_t sd_vocab_most_bytes(const sd_tokenizer *t) {
    const size_t V = (size_t)sd_tokenizer_size(t);
    size_t nodes = 0, longest = 0, len;
    for (int32_t id = 0; id < (int32_t)V; id++) {
        sd_tokenizer_bytes(t, id, &len);
        if (sd_tokenizer_is_special(t, id)) continue;
        nodes += len, longest = len > longest ? len : longest;
    }
    const size_t trie = (nodes + 2) * sizeof(sd_vocab_node) + (V + 1) * sizeof(int32_t);
    return sizeof(sd_vocab) + 2 * trie + (longest + 2) * sizeof(int) + (V + 1) * sizeof(int32_t) +
           (V + 63) / 8;
}

sd_status sd_vocab_open(sd_vocab **out, const sd_tokenizer *t, sd_error *err) {
    sd_status st = SD_OK;
    int V = sd_tokenizer_size(t), n = 0, n_odd = 0;
    sd_vocab *v = sd_alloc(1, sizeof *v);
    entry *e = sd_alloc((size_t)V + 1, sizeof *e), *odd = sd_alloc((size_t)V + 1, sizeof *odd);
    int *chars = sd_alloc((size_t)V + 1, sizeof *chars);
    SD_CHECK_ALLOC(v && e && odd && chars, err);
    atomic_init(&v->refs, 1);
    v->t = t, v->V = V, v->spaced = -1;
    for (int32_t id = 0; id < V; id++) {
        size_t len;
        const char *text = sd_tokenizer_bytes(t, id, &len);
        if (len == 0 || len > INT16_MAX || sd_tokenizer_is_special(t, id)) continue;
        e[n++] = (entry){text, len, id};
        if ((int)len > v->longest) v->longest = (int)len;
        if (*text == ' ' && v->spaced < 0) v->spaced = id;
    }
    qsort(e, (size_t)n, sizeof *e, by_text);
    for (int i = 0; i < n; i++) {
        chars[i] = plain_chars(e[i].text, e[i].len);
        if (!chars[i]) odd[n_odd++] = e[i];
    }
    SD_TRY(make_trie(&v->all, e, n, err));
    SD_TRY(make_trie(&v->odd, odd, n_odd, err));
    SD_TRY(make_plain(v, e, chars, n, err));
    *out = v, v = NULL;
out:
    free(e), free(odd), free(chars);
    sd_vocab_release(v);
    return st;
}

sd_vocab *sd_vocab_acquire(sd_vocab *v) {
    atomic_fetch_add(&v->refs, 1);
    return v;
}

void sd_vocab_release(sd_vocab *v) {
    if (!v || atomic_fetch_sub(&v->refs, 1) > 1) return;
    free(v->all.node), free(v->all.id);
    free(v->odd.node), free(v->odd.id);
    free(v->plain), free(v->plain_upto), free(v->plain_mask);
    free(v);
}
