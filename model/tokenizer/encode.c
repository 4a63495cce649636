// From text to ids: added tokens are cut out of the text, and the rest is normalised, split and
// merged. A tokenizer of pieces (SentencePiece) puts a space in front of it.
//
// Before anything else, bytes that are not UTF-8 become U+FFFD, one for each maximal subpart, as
// Python's errors="replace" does before Hugging Face's tokenizers. All other text keeps its bytes,
// unless a tokenizer.json asks for normalisation.
//
// A GGUF file does not say whether its tokenizer normalises, and text for one is never normalised.
// So decoding gives back the text that was encoded, and the ids are those of transformers' GGUF
// loader and of llama.cpp. (Qwen's tokenizer.json asks for NFC; there it is obeyed. Text in NFC has
// the same ids either way.)
#include "model/tokenizer/internal.h"

#include "base/list.h"
#include "base/utf8.h"

#include <limits.h>
#include <string.h>

// ---- a growing list of ids

bool sd_ids_add(sd_ids *l, const int32_t *id, int n) {
    if (n > INT_MAX - l->n) return false;
    if (!SD_GROW(l->id, l->n + n, l->cap)) return false;
    if (n > 0) memcpy(l->id + l->n, id, (size_t)n * sizeof *id);
    l->n += n;
    return true;
}

void sd_ids_free(sd_ids *l) {
    free(l->id);
    *l = (sd_ids){0};
}

// ---- text

static bool is_space(int32_t cp) { // White_Space
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

// The character that ends at `at` > 0.
static int32_t char_before(const char *text, size_t at, size_t *start) {
    int32_t cp;
    *start = sd_utf8_back(text, at);
    sd_utf8_next(text + *start, at - *start, &cp, NULL);
    return cp;
}

// Applies the flags of a match: single_word wants no word beside the token, lstrip and rstrip take
// the white space there. False: the match does not count.
static bool adjust_match(const char *text, size_t len, size_t done, sd_added_token_match *m) {
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

// Cuts added tokens out of text and hands the parts between them to `plain`.
static sd_status cut_added(sd_encoder *e, const sd_trie *trie, int flags, const char *text,
                           size_t len, plain_fn plain, sd_error *err) {
    sd_status st = SD_OK;
    size_t done = 0, from = 0;
    sd_added_token_match m;
    while (from < len && sd_trie_find(trie, e->t->added, text, len, from, &m)) {
        from = m.end;
        if (m.token->special && !(flags & SD_TOK_SPECIAL)) continue;
        if (!adjust_match(text, len, done, &m)) continue;
        if (m.start > done) SD_TRY(plain(e, flags, text + done, m.start - done, err));
        SD_CHECK_ALLOC(sd_ids_add(e->out, &m.token->id, 1), err);
        done = m.end;
        if (from < done) from = done;
    }
    if (done < len) SD_TRY(plain(e, flags, text + done, len - done, err));
out:
    return st;
}

// ---- the spaces of pieces

static const char SPACE_MARK[] = "\xE2\x96\x81"; // U+2581
enum { MARK_BYTES = 3 };

bool sd_tokenizer_spaces(sd_buf *out, const char *text, size_t len, bool prefix) {
    const char *end = text + len;
    if (prefix && !sd_buf_addc(out, ' ')) return false;
    for (const char *mark; (mark = memmem(text, (size_t)(end - text), SPACE_MARK, MARK_BYTES));
         text = mark + MARK_BYTES)
        if (!sd_buf_add(out, text, (size_t)(mark - text)) || !sd_buf_addc(out, ' ')) return false;
    return sd_buf_add(out, text, (size_t)(end - text));
}

static bool begins_with_space(const char *text, size_t len) {
    return len && (*text == ' ' || (len >= MARK_BYTES && !memcmp(text, SPACE_MARK, MARK_BYTES)));
}

// Writes the spaces of *text in out, or leaves it as it is where there is nothing to write.
static sd_status write_spaces(sd_buf *out, const char **text, size_t *len, bool prefix,
                              sd_error *err) {
    sd_status st = SD_OK;
    if (*len == 0 || (!prefix && !memmem(*text, *len, SPACE_MARK, MARK_BYTES))) return SD_OK;
    SD_CHECK_ALLOC(sd_tokenizer_spaces(out, *text, *len, prefix), err);
    *text = out->data;
    *len = out->len;
out:
    return st;
}

// first: the text's first part.
static sd_status spaced_text(sd_encoder *e, int flags, const char *text, size_t len, bool first,
                             sd_error *err) {
    const sd_tokenizer *t = e->t;
    if (!t->spaces_late) return sd_encoder_text(e, text, len, err);
    sd_buf spaced = sd_buf_make((size_t)SD_TOK_MAX_TEXT);
    bool goes_on = first && (flags & SD_TOK_GOES_ON);
    bool here =
        !goes_on && (t->prefix == SD_PREFIX_MISSING || (t->prefix == SD_PREFIX_FIRST && first));
    sd_status st = write_spaces(&spaced, &text, &len, here && !begins_with_space(text, len), err);
    if (st == SD_OK) st = sd_encoder_text(e, text, len, err);
    sd_buf_free(&spaced);
    return st;
}

// ---- text without added tokens

// U+FDD0, which is no character: a guard behind the first character of what would be an added token. None is found
// there then, and the guards go before the text is split.
static const char GUARD[] = "\xEF\xB7\x90", REPLACEMENT[] = "\xEF\xBF\xBD";
enum { GUARD_BYTES = 3 };

static sd_status plain_text(sd_encoder *e, int flags, const char *text, size_t len, sd_error *err) {
    const bool first = text == e->origin;
    if (!(flags & SD_TOK_GUARDED) || !memmem(text, len, GUARD, GUARD_BYTES))
        return spaced_text(e, flags, text, len, first, err);
    sd_status st = SD_OK;
    sd_buf bare = sd_buf_make((size_t)SD_TOK_MAX_TEXT);
    const char *end = text + len;
    for (const char *g; (g = memmem(text, (size_t)(end - text), GUARD, GUARD_BYTES));
         text = g + GUARD_BYTES)
        SD_CHECK_ALLOC(sd_buf_add(&bare, text, (size_t)(g - text)), err);
    SD_CHECK_ALLOC(sd_buf_add(&bare, text, (size_t)(end - text)), err);
    SD_TRY(spaced_text(e, flags, bare.data ? bare.data : "", bare.len, first, err));
out:
    sd_buf_free(&bare);
    return st;
}

sd_status sd_tokenizer_guard(const sd_tokenizer *t, const char *text, size_t len, bool control,
                             sd_buf *out, sd_error *err) {
    const sd_trie *tries[] = {&t->raw, &t->normal};
    sd_status st = SD_OK;
    for (size_t at = 0; at < len;) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(text + at, len - at, &cp, NULL);
        bool guarded = false;
        for (int i = 0; i < 2 && !control; i++)
            guarded |= sd_trie_controls(tries[i], t->added, text + at, len - at);
        bool guard = n == GUARD_BYTES && memcmp(text + at, GUARD, n) == 0;
        SD_CHECK_ALLOC(sd_buf_add(out, guard ? REPLACEMENT : text + at, n), err);
        SD_CHECK_ALLOC(!guarded || sd_buf_add(out, GUARD, GUARD_BYTES), err);
        at += n;
    }
out:
    return st;
}

static bool is_ascii(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] >= 0x80) return false;
    return true;
}

sd_status sd_tokenizer_normalise(const sd_tokenizer *t, int flags, sd_buf *out, const char **text,
                                 size_t *len, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf form = sd_buf_make(out->max);
    bool spaces = t->pieces && !t->spaces_late;
    if (t->normalises && !is_ascii(*text, *len)) {
        SD_TRY(sd_normalise(spaces ? &form : out, t->normal_form, *text, *len, err));
        *text = spaces ? form.data : out->data;
        *len = spaces ? form.len : out->len;
    }
    if (spaces) {
        bool prefix = t->prefix == SD_PREFIX_ALWAYS && !(flags & SD_TOK_GOES_ON);
        SD_TRY(write_spaces(out, text, len, prefix, err));
        if (*text == form.data && form.data) { // nothing was written
            *out = form;
            form.data = NULL;
        }
    }
out:
    sd_buf_free(&form);
    return st;
}

static sd_status raw_text(sd_encoder *e, int flags, const char *text, size_t len, sd_error *err) {
    sd_buf normal = sd_buf_make((size_t)SD_TOK_MAX_TEXT);
    bool first = text == e->begin;
    sd_status st = sd_tokenizer_normalise(e->t, first ? flags : 0, &normal, &text, &len, err);
    e->origin = first ? text : NULL;
    if (st == SD_OK) st = cut_added(e, &e->t->normal, flags, text, len, plain_text, err);
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
        SD_CHECK_ALLOC(sd_ids_add(out, &t->bos, 1), err);
    if (len == 0) goto last;
    if (sd_utf8_valid_prefix(text, len) < len) {
        SD_CHECK_ALLOC(sd_utf8_lossy(&valid, text, len), err);
        text = valid.data;
        len = valid.len;
    }
    SD_TRY(sd_encoder_open(&e, t, out, err));
    e.begin = text;
    SD_TRY(cut_added(&e, &t->raw, flags, text, len, raw_text, err));
last:
    if ((flags & SD_TOK_ADD_LAST) && t->add_last) SD_CHECK_ALLOC(sd_ids_add(out, &t->last, 1), err);
out:
    if (st != SD_OK) out->n = before;
    sd_encoder_close(&e);
    sd_buf_free(&valid);
    return st;
}
