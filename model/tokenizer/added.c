// Added tokens: texts that become one id wherever they stand, before any splitting. Of those that
// match, the leftmost counts, and of these the longest: one walk down a trie of bytes for each
// position whose byte begins a token.
#include "model/tokenizer/internal.h"

#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

void sd_trie_init(sd_trie *trie) {
    *trie = (sd_trie){0};
    for (int i = 0; i < 256; i++) trie->root[i] = -1;
}

void sd_trie_free(sd_trie *trie) {
    free(trie->node);
    *trie = (sd_trie){0};
}

static int32_t new_node(sd_trie *trie, unsigned char byte, int32_t sibling) {
    if (trie->n == trie->cap) {
        int cap = trie->cap ? trie->cap * 2 : 256;
        sd_trie_node *p = sd_realloc(trie->node, (size_t)cap, sizeof *p);
        if (!p) return -1;
        trie->node = p;
        trie->cap = cap;
    }
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
        SD_CHECK_ALLOC(at >= 0 ? trie : NULL, err);
        trie->root[(unsigned char)text[0]] = at;
    }
    for (size_t i = 1; i < len; i++) {
        int32_t next = child_of(trie, at, (unsigned char)text[i]);
        if (next < 0) {
            next = new_node(trie, (unsigned char)text[i], trie->node[at].child);
            SD_CHECK_ALLOC(next >= 0 ? trie : NULL, err);
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

bool sd_trie_find(const sd_trie *trie, const sd_added *added, const char *text, size_t len,
                  size_t from, sd_added_match *m) {
    for (size_t i = from; i < len; i++) {
        int32_t token = -1;
        if (trie->root[(unsigned char)text[i]] < 0) continue;
        size_t n = longest(trie, text + i, len - i, &token);
        if (n == 0) continue;
        *m = (sd_added_match){&added[token], i, i + n};
        return true;
    }
    return false;
}

// ---- normalisation

// Marks are sorted by their combining class, stably. Runs are short, except in hostile text.
typedef struct {
    uint8_t class;
    int32_t cp;
} mark;

static void sort_marks(utf8proc_int32_t *cp, size_t n, mark *tmp) {
    size_t count[257] = {0};
    for (size_t i = 0; i < n; i++) {
        tmp[i] = (mark){(uint8_t)utf8proc_get_property(cp[i])->combining_class, cp[i]};
        count[tmp[i].class + 1]++;
    }
    for (int i = 0; i < 256; i++) count[i + 1] += count[i];
    for (size_t i = 0; i < n; i++) cp[count[tmp[i].class]++] = tmp[i].cp;
}

static sd_status order_marks(utf8proc_int32_t *cp, size_t n, sd_error *err) {
    sd_status st = SD_OK;
    mark *tmp = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < n;) {
        if (utf8proc_get_property(cp[i])->combining_class == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < n && utf8proc_get_property(cp[end])->combining_class != 0) end++;
        if (end - i > 1) {
            if (end - i > cap) {
                cap = (end - i) * 2;
                free(tmp);
                tmp = sd_alloc(cap, sizeof *tmp);
                SD_CHECK_ALLOC(tmp, err);
            }
            sort_marks(cp + i, end - i, tmp);
        }
        i = end;
    }
out:
    free(tmp);
    return st;
}

// utf8proc decomposes and composes; the ordering between is ours, because utf8proc's is quadratic
// in a run of marks.
sd_status sd_normalise(sd_buf *out, int form, const char *text, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    utf8proc_int32_t *cp = NULL;
    size_t n = 0, cap = 0;
    utf8proc_option_t decompose =
        (utf8proc_option_t)((form & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE);
    for (size_t i = 0; i < len;) {
        int32_t c;
        int boundary = 0;
        i += (size_t)sd_utf8_next(text + i, len - i, &c, NULL);
        if (cap - n < 32) { // no character decomposes to more than 18
            cap = cap ? cap * 2 : len + 64;
            utf8proc_int32_t *p = sd_realloc(cp, cap, sizeof *p);
            SD_CHECK_ALLOC(p, err);
            cp = p;
        }
        utf8proc_ssize_t got =
            utf8proc_decompose_char(c, cp + n, (utf8proc_ssize_t)(cap - n), decompose, &boundary);
        SD_CHECK(got >= 0 && (size_t)got <= cap - n, err, SD_EFORMAT,
                 "U+%04X cannot be normalised; remove it from the text", (unsigned)c);
        n += (size_t)got;
    }
    SD_TRY(order_marks(cp, n, err));
    if ((form & UTF8PROC_COMPOSE) && n)
        n = (size_t)utf8proc_normalize_utf32(cp, (utf8proc_ssize_t)n, (utf8proc_option_t)form);
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        SD_CHECK_ALLOC(sd_buf_add(out, bytes, (size_t)sd_utf8_put(bytes, cp[i])) ? out : NULL, err);
    }
out:
    free(cp);
    return st;
}
