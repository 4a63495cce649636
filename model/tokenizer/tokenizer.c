// The tokenizer from outside: added tokens are cut out of the text, what is left is normalised,
// split and merged. Each part stands in a file of its own:
//
//   from_json.c, model/load/tokenizer_gguf.c   reading
//   added.c                                    added tokens, normalisation
//   split.c, regex.c                           text -> words
//   bpe.c                                      word -> ids
//
// Bytes that are not UTF-8 become U+FFFD, one for each maximal subpart, before anything else: what
// Hugging Face's tokenizers see after Python's errors="replace". All other text keeps its bytes,
// unless a tokenizer.json asks for normalisation.
//
// A GGUF file does not say whether its tokenizer normalises. We never do for one: so decoding gives
// back the text that was encoded, and the ids are those of transformers' GGUF loader and of
// llama.cpp. (Qwen's tokenizer.json asks for NFC; there it is obeyed. Text in NFC has the same ids
// either way.)
#include "model/tokenizer/internal.h"

#include "base/utf8.h"

#include <limits.h>
#include <string.h>

bool sd_ids_add(sd_ids *l, const int32_t *id, int n) {
    if (n > INT_MAX - l->n) return false;
    if (l->n + n > l->cap) {
        int cap = l->cap ? l->cap : 64;
        while (cap < l->n + n) cap = cap > INT_MAX / 2 ? INT_MAX : cap * 2;
        int32_t *p = sd_realloc(l->id, (size_t)cap, sizeof *p);
        if (!p) return false;
        l->id = p;
        l->cap = cap;
    }
    if (n > 0) memcpy(l->id + l->n, id, (size_t)n * sizeof *id);
    l->n += n;
    return true;
}

void sd_ids_free(sd_ids *l) {
    free(l->id);
    *l = (sd_ids){0};
}

void sd_tokenizer_close(sd_tokenizer *t) {
    if (!t) return;
    sd_bpe_free(&t->bpe);
    for (int i = 0; i < t->n_steps; i++) pcre2_code_free(t->step[i].code);
    for (int i = 0; i < t->n_added; i++) free(t->added[i].text);
    free(t->added);
    sd_trie_free(&t->raw);
    sd_trie_free(&t->normal);
    free(t);
}

sd_status sd_tokenizer_add_added(sd_tokenizer *t, const sd_added *a, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(a->id >= 0 && a->id < t->bpe.V, err, SD_EFORMAT,
             "added token id %d is outside the vocabulary of %d; check the file", a->id, t->bpe.V);
    if (t->n_added == t->cap_added) {
        int cap = t->cap_added ? t->cap_added * 2 : 64;
        sd_added *p = sd_realloc(t->added, (size_t)cap, sizeof *p);
        SD_CHECK_ALLOC(p, err);
        t->added = p;
        t->cap_added = cap;
    }
    sd_added copy = *a;
    copy.text = sd_strndup(a->text, a->len);
    SD_CHECK_ALLOC(copy.text, err);
    t->added[t->n_added++] = copy;
    t->bpe.flags[a->id] |= SD_TOKEN_ADDED | (a->special ? SD_TOKEN_SPECIAL : 0);
out:
    return st;
}

// What decides ids: texts and kinds of all tokens, and the merges.
static sd_status make_fingerprint(sd_tokenizer *t, sd_error *err) {
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    const sd_bpe *b = &t->bpe;
    sd_hasher_add(h, &b->V, sizeof b->V);
    sd_hasher_add(h, b->length, (size_t)b->V * sizeof *b->length);
    sd_hasher_add(h, b->flags, (size_t)b->V);
    for (int i = 0; i < b->V;) { // tokens mostly lie one after the other
        size_t start = b->start[i], end = start;
        for (; i < b->V && b->start[i] == end; i++) end += b->length[i];
        if (end > start) sd_hasher_add(h, b->text.data + start, end - start);
        if (end == start) i++;
    }
    sd_hasher_add(h, &b->n_merges, sizeof b->n_merges);
    if (b->n_merges) sd_hasher_add(h, b->merged, (size_t)b->n_merges * sizeof *b->merged);
    sd_sha256 sum = sd_hasher_close(h);
    memcpy(t->fingerprint, sum.hex, sizeof sum.hex);
    return SD_OK;
}

sd_status sd_tokenizer_finish(sd_tokenizer *t, sd_error *err) {
    sd_status st = SD_OK;
    sd_bpe_finish(&t->bpe);
    sd_trie_init(&t->raw);
    sd_trie_init(&t->normal);
    for (int i = 0; i < t->n_added; i++) {
        sd_added *a = &t->added[i];
        if (a->len == 0) continue;
        if (a->normalized && t->nfc) {
            sd_buf b = sd_buf_make((size_t)1 << 24);
            st = sd_normalise(&b, t->normal_form, a->text, a->len, err);
            if (st == SD_OK && b.len) st = sd_trie_add(&t->normal, b.data, b.len, i, err);
            sd_buf_free(&b);
            if (st != SD_OK) goto out;
        } else {
            SD_TRY(sd_trie_add(a->normalized ? &t->normal : &t->raw, a->text, a->len, i, err));
        }
    }
    if (t->bos >= t->bpe.V) t->bos = -1;
    if (t->eos >= t->bpe.V) t->eos = -1;
    SD_TRY(make_fingerprint(t, err));
out:
    return st;
}

// ---- encoding

static bool is_space(int32_t cp) { // White_Space
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

// The character that ends at `at` > 0.
static int32_t char_before(const char *text, size_t at, size_t *start) {
    size_t i = at - 1;
    int32_t cp;
    while (i > 0 && ((unsigned char)text[i] & 0xC0) == 0x80) i--;
    sd_utf8_next(text + i, at - i, &cp, NULL);
    *start = i;
    return cp;
}

// A single word stands alone, and lstrip and rstrip take the white space beside the token. False:
// it does not count here.
static bool adjust_match(const char *text, size_t len, size_t done, sd_added_match *m) {
    int32_t cp;
    size_t at;
    if (m->token->single_word) {
        if (m->start > 0 && sd_is_word(char_before(text, m->start, &at))) return false;
        if (m->end < len) {
            sd_utf8_next(text + m->end, len - m->end, &cp, NULL);
            if (sd_is_word(cp)) return false;
        }
    }
    if (m->token->lstrip)
        while (m->start > done && is_space(char_before(text, m->start, &at))) m->start = at;
    if (m->token->rstrip)
        while (m->end < len) {
            int n = sd_utf8_next(text + m->end, len - m->end, &cp, NULL);
            if (!is_space(cp)) break;
            m->end += (size_t)n;
        }
    return true;
}

typedef sd_status (*plain_fn)(sd_encoder *e, int flags, const char *text, size_t len,
                              sd_error *err);

// Cuts added tokens out of text and hands what is between them to `plain`.
static sd_status cut_added(sd_encoder *e, const sd_trie *trie, int flags, const char *text,
                           size_t len, plain_fn plain, sd_error *err) {
    sd_status st = SD_OK;
    size_t done = 0, from = 0;
    sd_added_match m;
    while (from < len && sd_trie_find(trie, e->t->added, text, len, from, &m)) {
        from = m.end;
        if (m.token->special && !(flags & SD_TOK_SPECIAL)) continue;
        if (!adjust_match(text, len, done, &m)) continue;
        if (m.start > done) SD_TRY(plain(e, flags, text + done, m.start - done, err));
        SD_CHECK_ALLOC(sd_ids_add(e->out, &m.token->id, 1) ? e : NULL, err);
        done = m.end;
        if (from < done) from = done;
    }
    if (done < len) SD_TRY(plain(e, flags, text + done, len - done, err));
out:
    return st;
}

static sd_status plain_text(sd_encoder *e, int flags, const char *text, size_t len, sd_error *err) {
    (void)flags;
    return sd_encoder_text(e, text, len, err);
}

static bool is_ascii(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] >= 0x80) return false;
    return true;
}

static sd_status raw_text(sd_encoder *e, int flags, const char *text, size_t len, sd_error *err) {
    const sd_tokenizer *t = e->t;
    sd_buf normal = sd_buf_make((size_t)SD_TOK_MAX_TEXT);
    sd_status st = SD_OK;
    if (t->nfc && !is_ascii(text, len)) {
        SD_TRY(sd_normalise(&normal, t->normal_form, text, len, err));
        text = normal.data;
        len = normal.len;
    }
    SD_TRY(cut_added(e, &t->normal, flags, text, len, plain_text, err));
out:
    sd_buf_free(&normal);
    return st;
}

sd_status sd_tokenizer_encode(const sd_tokenizer *t, const char *text, size_t len, int flags,
                              sd_ids *out, sd_error *err) {
    sd_status st = SD_OK;
    sd_encoder e = {0};
    sd_buf valid = sd_buf_make((size_t)SD_TOK_MAX_TEXT);
    int before = out->n;
    SD_CHECK(len < SD_TOK_MAX_TEXT / 3, err, SD_ELIMIT,
             "the text has %zu bytes, at most %d can be tokenised at once; split it", len,
             SD_TOK_MAX_TEXT / 3);
    if ((flags & SD_TOK_ADD_BOS) && t->add_bos && t->bos >= 0)
        SD_CHECK_ALLOC(sd_ids_add(out, &t->bos, 1) ? t : NULL, err);
    if (len == 0) goto out;
    if (sd_utf8_valid_prefix(text, len) < len) {
        SD_CHECK_ALLOC(sd_utf8_lossy(&valid, text, len) ? t : NULL, err);
        text = valid.data;
        len = valid.len;
    }
    SD_TRY(sd_encoder_open(&e, t, out, err));
    SD_TRY(cut_added(&e, &t->raw, flags, text, len, raw_text, err));
out:
    if (st != SD_OK) out->n = before;
    sd_encoder_close(&e);
    sd_buf_free(&valid);
    return st;
}

// ---- questions

int sd_tokenizer_size(const sd_tokenizer *t) {
    return t->bpe.V;
}

int32_t sd_tokenizer_bos(const sd_tokenizer *t) {
    return t->bos;
}

int32_t sd_tokenizer_eos(const sd_tokenizer *t) {
    return t->eos;
}

bool sd_tokenizer_is_special(const sd_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->bpe.V && (t->bpe.flags[id] & SD_TOKEN_SPECIAL);
}

int32_t sd_tokenizer_find(const sd_tokenizer *t, const char *text) {
    size_t len = strlen(text);
    for (int i = 0; i < t->n_added; i++)
        if (t->added[i].len == len && memcmp(t->added[i].text, text, len) == 0)
            return t->added[i].id;
    return -1;
}

const char *sd_tokenizer_bytes(const sd_tokenizer *t, int32_t id, size_t *len) {
    if (id < 0 || id >= t->bpe.V || t->bpe.length[id] == 0) {
        *len = 0;
        return "";
    }
    *len = t->bpe.length[id];
    return t->bpe.text.data + t->bpe.start[id];
}

sd_status sd_tokenizer_decode(const sd_tokenizer *t, const int32_t *id, int n, bool skip_special,
                              sd_buf *out, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < n; i++) {
        size_t len;
        if (skip_special && sd_tokenizer_is_special(t, id[i])) continue;
        const char *bytes = sd_tokenizer_bytes(t, id[i], &len);
        SD_CHECK(sd_buf_add(out, bytes, len), err, SD_ELIMIT,
                 "the text of %d tokens does not fit %zu bytes; decode fewer", n, out->max);
    }
out:
    return st;
}

const char *sd_tokenizer_fingerprint(const sd_tokenizer *t) {
    return t->fingerprint;
}

bool sd_utf8_stream_add(sd_utf8_stream *s, const char *bytes, size_t len, sd_buf *out) {
    char joined[sizeof s->held];
    if (!bytes) {
        bool ok = s->n == 0 || sd_buf_add(out, "\xEF\xBF\xBD", 3);
        if (ok) s->n = 0;
        return ok;
    }
    while (len > 0 || s->n > 0) {
        // One step over what was held and the first new bytes, else straight from the input.
        const char *p = bytes;
        size_t have = len, held = (size_t)s->n;
        if (held) {
            size_t more = len < sizeof joined - held ? len : sizeof joined - held;
            memcpy(joined, s->held, held);
            memcpy(joined + held, bytes, more);
            p = joined;
            have = held + more;
        } else {
            size_t good = sd_utf8_valid_prefix(bytes, len);
            if (good) {
                if (!sd_buf_add(out, bytes, good)) return false;
                bytes += good;
                len -= good;
                continue;
            }
        }
        int32_t cp;
        bool truncated;
        size_t n = (size_t)sd_utf8_next(p, have, &cp, &truncated);
        if (truncated) {
            memcpy(s->held, p, have);
            s->n = (int)have;
            return true;
        }
        bool ok = cp < 0 ? sd_buf_add(out, "\xEF\xBF\xBD", 3) : sd_buf_add(out, p, n);
        if (!ok) return false;
        // n covers all held bytes: they were a correct beginning, and at least one more decided.
        bytes += n - held;
        len -= n - held;
        s->n = 0;
    }
    return true;
}
