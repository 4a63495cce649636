// BPE: a word's bytes or characters are symbols; the pair with the lowest rank, the leftmost of equal
// ones, is merged until no pair is left (Sennrich et al., arXiv:1508.07909; GPT-2's byte form).
//
// A character that is no token is the symbol V + its code point. Nearly always it stays alone and in
// the end becomes the tokens of its bytes; a SentencePiece vocabulary may still merge it.
//
// Ordinary words have 2 to 12 bytes: for them a scan over an array of ranks beats every queue. A
// word may also be a megabyte of one letter, and without a pre-tokeniser every text is one word, so
// long ones use a linked list of symbols and a queue of (rank, position) in two levels: a heap of the
// ranks that occur, and for each a list of positions. Merging appends to these lists nearly always in
// ascending order (a pair that a merge makes ranks behind it, and merges of one rank run from left to
// right), so a push costs a few instructions where one heap of all pairs costs twenty levels. A
// position that comes too late for the order of its list goes to a heap of pairs beside the lists; the
// first LISTS bytes of long words have that heap alone, for a list's table has an entry for every rank.
// An entry is stale when the pair at its position no longer has its rank; it is then dropped.
#include "model/tokenizer/bpe.h"

#include "base/clock.h"
#include "base/files/hash.h"
#include "base/list.h"
#include "base/utf8.h"

#include <limits.h>
#include <string.h>

enum { SHORT_WORD = 48, LISTS = 4096, MAX_TOKEN_BYTES = 1 << 20, MAX_VOCAB_BYTES = 1 << 30 };

static uint64_t hash_bytes(uint64_t seed, const char *s, size_t len) {
    uint64_t h = seed ^ len, w;
    for (; len >= 8; s += 8, len -= 8) {
        memcpy(&w, s, 8);
        h = sd_mix64(h ^ w);
    }
    if (len) {
        w = 0;
        memcpy(&w, s, len);
        h = sd_mix64(h ^ w);
    }
    return h;
}

static size_t power_of_two(size_t at_least) {
    size_t n = 16;
    while (n < at_least) n *= 2;
    return n;
}

sd_status sd_bpe_init(sd_bpe *b, int V, sd_error *err) {
    sd_status st = SD_OK;
    *b = (sd_bpe){.V = V,
                  .seed = sd_mix64((uint64_t)sd_now_ns() ^ (uint64_t)(uintptr_t)b),
                  .unk = -1,
                  .text = sd_buf_make(MAX_VOCAB_BYTES)};
    SD_CHECK(V > 0 && V <= SD_TOK_MAX_VOCAB, err, SD_EFORMAT,
             "the vocabulary has %d tokens, 1 to %d are supported; check the file", V,
             SD_TOK_MAX_VOCAB);
    b->start = sd_alloc((size_t)V, sizeof *b->start);
    b->length = sd_alloc((size_t)V, sizeof *b->length);
    b->flags = sd_alloc((size_t)V, 1);
    b->n_slots = power_of_two((size_t)V * 2);
    b->slot = sd_alloc(b->n_slots, sizeof *b->slot);
    SD_CHECK_ALLOC(b->start && b->length && b->flags && b->slot, err);
    memset(b->slot, 0xFF, b->n_slots * sizeof *b->slot);
    for (int i = 0; i < 256; i++) b->byte_id[i] = -1;
out:
    return st;
}

void sd_bpe_free(sd_bpe *b) {
    sd_buf_free(&b->text);
    free(b->start);
    free(b->length);
    free(b->flags);
    free(b->slot);
    free(b->merge);
    free(b->merged);
    free(b->token_rank);
    *b = (sd_bpe){0};
}

// The slot that holds these bytes, or the empty one where they belong.
static size_t find_slot(const sd_bpe *b, const char *bytes, size_t len) {
    size_t mask = b->n_slots - 1, i = hash_bytes(b->seed, bytes, len) & mask;
    for (;; i = (i + 1) & mask) {
        int32_t id = b->slot[i];
        if (id < 0) return i;
        if (b->length[id] == len && memcmp(b->text.data + b->start[id], bytes, len) == 0) return i;
    }
}

int32_t sd_bpe_find(const sd_bpe *b, const char *bytes, size_t len) {
    return len ? b->slot[find_slot(b, bytes, len)] : -1;
}

sd_status sd_bpe_set(sd_bpe *b, int id, const char *bytes, size_t len, bool mergeable,
                     sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(id >= 0 && id < b->V, err, SD_EFORMAT,
             "token id %d is outside the vocabulary of %d; check the file", id, b->V);
    SD_CHECK(len <= MAX_TOKEN_BYTES, err, SD_EFORMAT,
             "token %d has %zu bytes, at most %d are supported; check the file", id, len,
             MAX_TOKEN_BYTES);
    SD_CHECK(b->length[id] == 0, err, SD_EFORMAT, "token id %d is given twice; check the file", id);
    b->start[id] = (uint32_t)b->text.len;
    SD_CHECK(sd_buf_add(&b->text, bytes, len), err, SD_ELIMIT,
             "the vocabulary has more than %d bytes of text; check the file", MAX_VOCAB_BYTES);
    b->length[id] = (uint32_t)len;
    // The last of several tokens with equal text counts, as in a dictionary.
    if (mergeable && len) b->slot[find_slot(b, bytes, len)] = id;
out:
    return st;
}

void sd_bpe_finish(sd_bpe *b) {
    for (int i = 0; i < 128 && b->by_character; i++) {
        char c = (char)i;
        b->ascii_symbol[i] = sd_bpe_symbol(b, &c, 1, i);
    }
    for (int i = 0; i < 256 && !b->by_character; i++) {
        char c = (char)i;
        b->byte_id[i] = sd_bpe_find(b, &c, 1);
    }
}

// ---- merges

static uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

sd_merge *sd_bpe_merge_slot(const sd_bpe *b, int32_t left, int32_t right) {
    uint64_t pair = pair_of(left, right);
    size_t mask = b->n_merge_slots - 1, i = sd_mix64(pair ^ b->seed) & mask;
    while (b->merge[i].pair != pair && b->merge[i].pair != SD_NO_PAIR) i = (i + 1) & mask;
    return &b->merge[i];
}

sd_status sd_bpe_reserve_merges(sd_bpe *b, int n, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(n >= 0 && n <= SD_TOK_MAX_VOCAB, err, SD_EFORMAT,
             "%d merges, at most %d are supported; check the file", n, SD_TOK_MAX_VOCAB);
    b->n_merge_slots = power_of_two((size_t)n * 2);
    b->merge = sd_alloc(b->n_merge_slots, sizeof *b->merge);
    b->merged = sd_alloc((size_t)n, sizeof *b->merged);
    SD_CHECK_ALLOC(b->merge && b->merged, err);
    for (size_t i = 0; i < b->n_merge_slots; i++) b->merge[i].pair = SD_NO_PAIR;
out:
    return st;
}

sd_status sd_bpe_add_merge(sd_bpe *b, const char *left, size_t n_left, const char *right,
                           size_t n_right, sd_error *err) {
    char stack[256], *joined = stack;
    sd_status st = SD_OK;
    int32_t l = sd_bpe_find(b, left, n_left), r = sd_bpe_find(b, right, n_right);
    if (n_left + n_right > sizeof stack) joined = sd_malloc_marked(n_left + n_right);
    SD_CHECK_ALLOC(joined, err);
    SD_CHECK(l >= 0 && r >= 0, err, SD_EFORMAT,
             "merge %d joins text that is no token; check the file", b->n_merges);
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right, n_right);
    int32_t made = sd_bpe_find(b, joined, n_left + n_right);
    SD_CHECK(made >= 0, err, SD_EFORMAT, "merge %d makes text that is no token; check the file",
             b->n_merges);
    // The last of several equal pairs counts, as in a dictionary.
    *sd_bpe_merge_slot(b, l, r) = (sd_merge){pair_of(l, r), (uint32_t)b->n_merges, made};
    b->merged[b->n_merges++] = made;
    b->n_ranks = b->n_merges;
out:
    if (joined != stack) free(joined);
    return st;
}

static uint32_t rank_of(const sd_bpe *b, int32_t left, int32_t right) {
    if (b->n_merges == 0) return SD_NO_RANK;
    const sd_merge *m = sd_bpe_merge_slot(b, left, right);
    return m->pair == SD_NO_PAIR ? SD_NO_RANK : m->rank;
}

// The token that a pair of this rank becomes.
static int32_t merge_of(const sd_bpe *b, uint32_t rank, int32_t left, int32_t right) {
    return b->merged ? b->merged[rank] : sd_bpe_merge_slot(b, left, right)->id;
}

// ---- words

// Writes the ids of the bytes into id [len]; the result is their number. A byte that the vocabulary
// lacks becomes unk or nothing.
static size_t byte_symbols(const sd_bpe *b, int32_t *id, const char *word, size_t len) {
    size_t n = 0;
    bool after_unk = false;
    for (size_t i = 0; i < len; i++) {
        int32_t x = b->byte_id[(unsigned char)word[i]];
        if (x < 0) {
            if (b->unk < 0 || (b->fuse_unk && after_unk)) continue;
            x = b->unk;
            after_unk = true;
        } else {
            after_unk = false;
        }
        id[n++] = x;
    }
    return n;
}

int32_t sd_bpe_symbol(const sd_bpe *b, const char *bytes, size_t len, int32_t cp) {
    int32_t id = sd_bpe_find(b, bytes, len);
    return id >= 0 ? id : b->V + cp;
}

static size_t symbols(const sd_bpe *b, int32_t *id, const char *word, size_t len) {
    if (!b->by_character) return byte_symbols(b, id, word, len);
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        int32_t cp;
        if ((unsigned char)word[i] < 128) {
            id[n++] = b->ascii_symbol[(unsigned char)word[i++]];
            continue;
        }
        size_t bytes = (size_t)sd_utf8_next(word + i, len - i, &cp, NULL);
        id[n++] = sd_bpe_symbol(b, word + i, bytes, cp);
        i += bytes;
    }
    return n;
}

// The tokens of a character's bytes, into token [4]: their number, 0 where one of them is missing.
static int bytes_of(const sd_bpe *b, int32_t cp, int32_t *token) {
    char bytes[4];
    int n = sd_utf8_put(bytes, cp);
    for (int i = 0; i < n; i++) {
        token[i] = b->byte_id[(unsigned char)bytes[i]];
        if (token[i] < 0) return 0;
    }
    return n;
}

// Appends the tokens of symbols: a character that is none becomes its bytes, or unk or nothing where
// one of them is missing. In Hugging Face's tokenizers such an unk waits for the next piece, and the
// bytes of other characters pass it; so here.
static bool add_tokens(const sd_bpe *b, const int32_t *id, size_t n, sd_ids *out) {
    if (!b->by_character) return sd_ids_add(out, id, (int)n);
    bool waits = false, ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        int32_t token[4];
        int k = id[i] < b->V ? 0 : bytes_of(b, id[i] - b->V, token);
        if (k) {
            ok = sd_ids_add(out, token, k);
        } else if (id[i] < b->V) {
            ok = (!waits || sd_ids_add(out, &b->unk, 1)) && sd_ids_add(out, &id[i], 1);
            waits = false;
        } else {
            ok = !waits || b->fuse_unk || sd_ids_add(out, &b->unk, 1);
            waits = b->unk >= 0;
        }
    }
    return ok && (!waits || sd_ids_add(out, &b->unk, 1));
}

static bool merge_short(const sd_bpe *b, const char *word, size_t len, sd_ids *out) {
    int32_t id[SHORT_WORD];
    uint32_t rank[SHORT_WORD]; // of the pair (i, i+1)
    size_t n = symbols(b, id, word, len);
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(b, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == SD_NO_RANK) break;
        id[best] = merge_of(b, rank[best], id[best], id[best + 1]);
        size_t tail = n - best - 2;
        memmove(id + best + 1, id + best + 2, tail * sizeof *id);
        if (tail) memmove(rank + best, rank + best + 1, tail * sizeof *rank);
        n--;
        if (best + 1 < n) rank[best] = rank_of(b, id[best], id[best + 1]);
        if (best > 0) rank[best - 1] = rank_of(b, id[best - 1], id[best]);
    }
    return add_tokens(b, id, n, out);
}

static bool heap_push(uint64_t **heap, size_t *n, size_t *cap, uint64_t x) {
    if (!SD_GROW(*heap, *n + 1, *cap)) return false;
    uint64_t *h = *heap;
    size_t i = (*n)++;
    while (i > 0 && h[(i - 1) / 2] > x) {
        h[i] = h[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h[i] = x;
    return true;
}

static void heap_pop(uint64_t *h, size_t *n_in) {
    size_t i = 0, n = --*n_in;
    uint64_t x = h[n];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && h[c + 1] < h[c]) c++;
        if (h[c] >= x) break;
        h[i] = h[c];
    }
    h[i] = x;
}

static uint64_t place_of(uint32_t rank, int32_t at) {
    return (uint64_t)rank << 32 | (uint32_t)at;
}

static bool late_push(sd_bpe_scratch *s, uint32_t rank, int32_t at) {
    return heap_push(&s->late, &s->n_late, &s->cap_late, place_of(rank, at));
}

static bool queue_push(sd_bpe_scratch *s, uint32_t rank, int32_t at) {
    if (!s->lists) return late_push(s, rank, at);
    if (s->list_of[rank] < 0) {
        if (!SD_GROW(s->list, s->n_list + 1, s->cap_list)) return false;
        s->list[s->n_list] = (sd_bpe_list){.rank = rank, .head = -1, .tail = -1};
        s->list_of[rank] = (int32_t)s->n_list++;
    }
    sd_bpe_list *l = &s->list[s->list_of[rank]];
    if (l->head >= 0 && s->entry[l->tail].at > at) return late_push(s, rank, at);
    if (!SD_GROW(s->entry, s->n_entry + 1, s->cap_entry)) return false;
    int32_t e = (int32_t)s->n_entry++;
    s->entry[e] = (sd_bpe_entry){at, -1};
    if (l->head < 0) {
        l->head = l->tail = e;
        return heap_push(&s->heap, &s->n_heap, &s->cap_heap, rank);
    }
    s->entry[l->tail].next = e;
    l->tail = e;
    return true;
}

// Takes the pair of the lowest rank, the leftmost of several. False: the queue is empty.
static bool queue_pop(sd_bpe_scratch *s, uint32_t *rank, int32_t *at) {
    sd_bpe_list *l = s->n_heap ? &s->list[s->list_of[s->heap[0]]] : NULL;
    if (s->n_late && (!l || s->late[0] < place_of(l->rank, s->entry[l->head].at))) {
        *rank = (uint32_t)(s->late[0] >> 32);
        *at = (int32_t)(uint32_t)s->late[0];
        heap_pop(s->late, &s->n_late);
        return true;
    }
    if (!l) return false;
    *rank = l->rank;
    *at = s->entry[l->head].at;
    l->head = s->entry[l->head].next;
    if (l->head < 0) heap_pop(s->heap, &s->n_heap);
    return true;
}

static bool queue_reset(const sd_bpe *b, sd_bpe_scratch *s, size_t len) {
    s->long_bytes += len;
    s->lists = s->long_bytes > LISTS;
    if (s->lists && !s->list_of) {
        s->list_of = sd_malloc_marked(((size_t)b->n_ranks + 1) * sizeof *s->list_of);
        if (!s->list_of) return false;
        memset(s->list_of, 0xFF, ((size_t)b->n_ranks + 1) * sizeof *s->list_of);
    }
    for (size_t i = 0; i < s->n_list; i++) s->list_of[s->list[i].rank] = -1;
    s->n_list = s->n_entry = s->n_heap = s->n_late = 0;
    return true;
}

static bool push_pair(const sd_bpe *b, sd_bpe_scratch *s, int32_t at) {
    uint32_t rank = rank_of(b, s->id[at], s->id[s->next[at]]);
    return rank == SD_NO_RANK || queue_push(s, rank, at);
}

static bool reserve_symbols(sd_bpe_scratch *s, size_t n) {
    if (n <= s->cap) return true;
    int32_t *id = sd_realloc(s->id, n, sizeof *id);
    if (id) s->id = id;
    int32_t *prev = sd_realloc(s->prev, n, sizeof *prev);
    if (prev) s->prev = prev;
    int32_t *next = sd_realloc(s->next, n, sizeof *next);
    if (next) s->next = next;
    if (!id || !prev || !next) return false;
    s->cap = n;
    return true;
}

static bool merge_long(const sd_bpe *b, const char *word, size_t len, sd_bpe_scratch *s,
                       sd_ids *out) {
    if (!reserve_symbols(s, len) || !queue_reset(b, s, len)) return false;
    size_t n = symbols(b, s->id, word, len);
    for (size_t i = 0; i < n; i++) {
        s->prev[i] = (int32_t)i - 1;
        s->next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        if (!push_pair(b, s, (int32_t)i)) return false;
    uint32_t rank;
    int32_t at;
    while (queue_pop(s, &rank, &at)) {
        if (s->id[at] < 0 || s->next[at] < 0) continue;
        int32_t right = s->next[at];
        if (rank_of(b, s->id[at], s->id[right]) != rank) continue;
        s->id[at] = merge_of(b, rank, s->id[at], s->id[right]);
        s->id[right] = -1;
        s->next[at] = s->next[right];
        if (s->prev[at] >= 0 && !push_pair(b, s, s->prev[at])) return false;
        if (s->next[at] >= 0) {
            s->prev[s->next[at]] = at;
            if (!push_pair(b, s, at)) return false;
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (s->id[i] >= 0) s->id[kept++] = s->id[i];
    return add_tokens(b, s->id, kept, out);
}

sd_status sd_bpe_word(const sd_bpe *b, const char *word, size_t len, sd_bpe_scratch *s, sd_ids *out,
                      sd_error *err) {
    sd_status st = SD_OK;
    bool ok;
    int32_t whole;
    if (b->ignore_merges && (whole = sd_bpe_find(b, word, len)) >= 0)
        ok = sd_ids_add(out, &whole, 1);
    else if (len <= SHORT_WORD)
        ok = merge_short(b, word, len, out);
    else
        ok = merge_long(b, word, len, s, out);
    SD_CHECK(ok, err, SD_ENOMEM, "out of memory for the tokens of a word of %zu bytes", len);
out:
    return st;
}

void sd_bpe_scratch_free(sd_bpe_scratch *s) {
    free(s->heap);
    free(s->late);
    free(s->list);
    free(s->entry);
    free(s->list_of);
    free(s->id);
    free(s->prev);
    free(s->next);
    *s = (sd_bpe_scratch){0};
}
