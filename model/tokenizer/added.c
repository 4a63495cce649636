// Added tokens: texts that become one id wherever they stand, before any splitting. The leftmost
// match counts, and the longest where several begin there. Each position whose byte begins a token
// costs one walk down a trie of bytes.
#include "model/tokenizer/added.h"

#include "base/list.h"

void sd_trie_init(sd_trie *trie) {
    *trie = (sd_trie){0};
    for (int i = 0; i < 256; i++) trie->root[i] = -1;
}

void sd_trie_free(sd_trie *trie) {
    free(trie->node);
    *trie = (sd_trie){0};
}

static int32_t new_node(sd_trie *trie, unsigned char byte, int32_t sibling) {
    if (!SD_GROW(trie->node, trie->n + 1, trie->cap)) return -1;
    trie->node[trie->n] = (sd_trie_node){-1, sibling, -1, byte};
    return trie->n++;
}

static int32_t child_of(const sd_trie *trie, int32_t at, unsigned char byte) {
    int32_t i = trie->node[at].child;
    while (i >= 0 && trie->node[i].byte != byte) i = trie->node[i].sibling;
    return i;
}

sd_status sd_trie_add(sd_trie *trie, const char *text, size_t len, int32_t token, sd_error *err) {
    sd_status st = SD_OK;
    int32_t at = trie->root[(unsigned char)text[0]];
    SD_CHECK((size_t)trie->n + len < INT32_MAX / 4, err, SD_EFORMAT,
             "the added tokens have too much text; check the file");
    if (at < 0) {
        at = new_node(trie, (unsigned char)text[0], -1);
        SD_CHECK_ALLOC(at >= 0, err);
        trie->root[(unsigned char)text[0]] = at;
    }
    for (size_t i = 1; i < len; i++) {
        int32_t next = child_of(trie, at, (unsigned char)text[i]);
        if (next < 0) {
            next = new_node(trie, (unsigned char)text[i], trie->node[at].child);
            SD_CHECK_ALLOC(next >= 0, err);
            trie->node[at].child = next;
        }
        at = next;
    }
    trie->node[at].token = token;
out:
    return st;
}

// Length of the longest token at `text`, 0 when there is none.
static size_t longest(const sd_trie *trie, const char *text, size_t len, int32_t *token) {
    size_t best = 0;
    int32_t at = trie->root[(unsigned char)text[0]];
    for (size_t i = 1; at >= 0; i++) {
        if (trie->node[at].token >= 0) {
            best = i;
            *token = trie->node[at].token;
        }
        if (i == len) break;
        at = child_of(trie, at, (unsigned char)text[i]);
    }
    return best;
}

bool sd_trie_controls(const sd_trie *trie, const sd_added_token *added, const char *text,
                      size_t len) {
    int32_t at = trie->root[(unsigned char)text[0]];
    for (size_t i = 1; at >= 0; i++) {
        const int32_t token = trie->node[at].token;
        if (token >= 0 && (added[token].special || text[0] == '<' || text[0] == '[')) return true;
        if (i == len) return false;
        at = child_of(trie, at, (unsigned char)text[i]);
    }
    return false;
}

bool sd_trie_find(const sd_trie *trie, const sd_added_token *added, const char *text, size_t len,
                  size_t from, sd_added_token_match *m) {
    for (size_t i = from; i < len; i++) {
        int32_t token = -1;
        if (trie->root[(unsigned char)text[i]] < 0) continue;
        size_t n = longest(trie, text + i, len - i, &token);
        if (n == 0) continue;
        *m = (sd_added_token_match){&added[token], i, i + n};
        return true;
    }
    return false;
}
