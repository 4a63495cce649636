// ECMAScript's patterns by PCRE2: first its spelling of them, then the match, with a price for both.
//
// PCRE2 counts its steps only from where a match begins, and a run of one class as one. So it calls before
// each item of the pattern (auto callouts), and each call pays for a run over all of the text and for the
// ends of all groups that there may be on the way to the next one.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/grammar/schema/match.h"

#include "base/memory.h"

#include <pcre2.h>
#include <string.h>

enum {
    PATTERN_STEPS = 1000,
    BYTE_STEPS = 8, // of a pattern as PCRE2 has it
    MATCH_LIMIT = 100000,
    MATCH_KIB = 16 << 10
};

// ---- spelling

// What \s is, and all the rest, as ranges of a class.
#define SPACES "\\t-\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff"
#define OTHERS                                                                                     \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x9f\\u00a1-\\u167f\\u1681-\\u1fff\\u200b-\\u2027"               \
    "\\u202a-\\u202e\\u2030-\\u205e\\u2060-\\u2fff\\u3001-\\ufefe\\uff00-\\u{10ffff}"

static size_t digits_at(const char *p, size_t len, size_t from) {
    size_t n = 0;
    while (from + n < len && p[from + n] >= '0' && p[from + n] <= '9') n++;
    return n;
}

// Whether "{" begins {2}, {2,} or {2,3}.
static bool is_repeat(const char *p, size_t len) {
    size_t n = digits_at(p, len, 1), at = 1 + n;
    if (n == 0) return false;
    if (at < len && p[at] == ',') at += 1 + digits_at(p, len, at + 1);
    return at < len && p[at] == '}';
}

static bool four_hex(const char *p, size_t len, size_t at, long *v) {
    char digits[5] = {0}, *end = NULL;
    if (at + 4 > len) return false;
    memcpy(digits, p + at, 4);
    *v = strspn(digits, "0123456789abcdefABCDEF") == 4 ? strtol(digits, &end, 16) : -1;
    return *v >= 0;
}

static bool is_class_escape(const char *p, size_t len, size_t at) {
    return at + 1 < len && p[at] == '\\' && p[at + 1] && strchr("dDwWsS", p[at + 1]);
}

// The code point of "\ud83d\ude00"; 0: it is no such pair.
static long pair_at(const char *p, size_t len, size_t at) {
    long high, low;
    if (!four_hex(p, len, at + 2, &high) || high < 0xD800 || high >= 0xDC00) return 0;
    if (at + 8 > len || memcmp(p + at + 6, "\\u", 2) != 0) return 0;
    if (!four_hex(p, len, at + 8, &low) || low < 0xDC00 || low >= 0xE000) return 0;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

// Bytes of what stands at p[at]: an escape, or a character.
static size_t atom_len(const char *p, size_t len, size_t at) {
    size_t n = 1, left = len - at;
    if (p[at] != '\\' || left == 1) {
        while (n < left && ((unsigned char)p[at + n] & 0xC0) == 0x80) n++;
        return n;
    }
    char c = p[at + 1];
    n = c == 'x' ? 4 : c == 'c' ? 3 : 2;
    if (c == 'u' && left > 2 && p[at + 2] == '{')
        while (n < left && p[at + n - 1] != '}') n++;
    else if (c == 'u')
        n = pair_at(p, len, at) ? 12 : 6;
    return n < left ? n : left;
}

// An escape as it is: but two halves of a surrogate pair are one \u{...}, \v is a class of PCRE2's, and its
// \s has ASCII's spaces alone.
static bool spell_escape(sd_buf *out, const char *p, size_t len, size_t at, bool in_class) {
    char c = at + 1 < len ? p[at + 1] : '\0';
    long pair = c == 'u' ? pair_at(p, len, at) : 0;
    if (pair) return sd_buf_printf(out, "\\u{%lx}", pair);
    if (c == 'v') return sd_buf_adds(out, "\\x0b");
    if (c == 's') return sd_buf_adds(out, in_class ? SPACES : "[" SPACES "]");
    if (c == 'S') return sd_buf_adds(out, in_class ? OTHERS : "[" OTHERS "]");
    return sd_buf_add(out, p + at, atom_len(p, len, at));
}

// A class; *i: its "[", then its "]". A backslash stands before all that PCRE2, or a later version of it,
// reads otherwise: "[", [:alpha:], and a hyphen, unless it stands between two ends of a range. It is one
// where \d stands on either side, and then the other side ends or begins none. A repeat of [] is no repeat
// for PCRE2, but a group's is.
static bool spell_class(sd_buf *out, const char *p, size_t len, size_t *i) {
    enum { FRESH, ONE, NAMED, HYPHEN } behind = FRESH;
    size_t at = *i + 1, n = 0;
    bool ok = true;
    if (at < len && p[at] == ']') {
        *i = at;
        return sd_buf_adds(out, "(?:[])");
    }
    ok = sd_buf_addc(out, '[');
    if (at < len && p[at] == '^') ok = ok && sd_buf_addc(out, p[at++]);
    for (; ok && at < len && p[at] != ']'; at += n) {
        char c = p[at];
        n = atom_len(p, len, at);
        bool named = is_class_escape(p, len, at);
        bool joins =
            c == '-' && (behind == ONE || behind == NAMED) && at + 1 < len && p[at + 1] != ']';
        if (joins && behind == ONE && !is_class_escape(p, len, at + 1))
            ok = sd_buf_addc(out, c);
        else if (c == '\\')
            ok = spell_escape(out, p, len, at, true);
        else
            ok =
                (!c || !strchr("-[:.=", c) || sd_buf_addc(out, '\\')) && sd_buf_add(out, p + at, n);
        behind = joins ? HYPHEN : behind == HYPHEN ? FRESH : named ? NAMED : ONE;
    }
    *i = at;
    return ok && (at >= len || sd_buf_addc(out, ']'));
}

// A group's name says nothing, and PCRE2 takes shorter ones of fewer letters; *i: its last byte.
static void skip_name(const char *p, size_t len, size_t *i) {
    size_t at = *i + 1;
    if (at >= len || p[at] != '?') return;
    at += at + 1 < len && p[at + 1] == 'P' ? 2 : 1;
    if (at + 1 >= len || p[at] != '<' || p[at + 1] == '=' || p[at + 1] == '!') return;
    while (at < len && p[at] != '>') at++;
    *i = at;
}

// A backslash stands where "{" begins no repeat. A dot leaves out what ECMAScript calls an end of line.
// *depth: of groups in groups.
static bool spell(sd_buf *out, const char *p, size_t len, int *depth) {
    bool ok = true;
    int open = 0;
    *depth = 0;
    for (size_t i = 0; ok && i < len; i++) {
        char c = p[i];
        if (c == '\\') {
            ok = spell_escape(out, p, len, i, false);
            i += atom_len(p, len, i) - 1;
        } else if (c == '[') {
            ok = spell_class(out, p, len, &i);
        } else if (c == '.') {
            ok = sd_buf_adds(out, "[^\\n\\r\\u2028\\u2029]");
        } else {
            bool plain = c == '{' && !is_repeat(p + i, len - i);
            ok = (!plain || sd_buf_addc(out, '\\')) && sd_buf_addc(out, c);
        }
        if (c == '(') skip_name(p, len, &i);
        open += (c == '(') - (c == ')');
        if (open > *depth) *depth = open;
    }
    return ok;
}

// ---- the match

typedef struct {
    int64_t *left, each;
} match_steps;

static int pay_item(pcre2_callout_block *block, void *data) {
    match_steps *s = data;
    (void)block;
    return (*s->left -= s->each) < 0 ? PCRE2_ERROR_CALLOUT : 0;
}

static sd_status compile(pcre2_code **out, const sd_buf *own, sd_error *err) {
    sd_status st = SD_OK;
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_compile_context *as = pcre2_compile_context_create(NULL);
    SD_CHECK_ALLOC(as, err);
    // \u{...}; a half of a surrogate pair is no text's.
    pcre2_set_compile_extra_options(as, PCRE2_EXTRA_ALT_BSUX | PCRE2_EXTRA_ALLOW_SURROGATE_ESCAPES);
    *out = pcre2_compile((PCRE2_SPTR)(own->data ? own->data : ""), own->len,
                         PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_ALLOW_EMPTY_CLASS |
                             PCRE2_NEVER_BACKSLASH_C | PCRE2_AUTO_CALLOUT | PCRE2_NO_AUTO_CAPTURE |
                             PCRE2_NO_START_OPTIMIZE,
                         &code, &at, as);
    SD_CHECK(*out || code != PCRE2_ERROR_NOMEMORY, err, SD_ENOMEM, "out of memory for a pattern");
    SD_CHECK(*out, err, SD_ELIMIT, "the pattern is too large to be checked");
out:
    pcre2_compile_context_free(as);
    return st;
}

sd_status sd_match_pattern(const char *pattern, size_t p_len, const char *text, size_t len,
                           int64_t *steps, sd_error *err) {
    sd_status st = SD_OK;
    pcre2_code *re = NULL;
    pcre2_match_data *m = NULL;
    pcre2_match_context *cx = NULL;
    int depth;
    sd_buf own = sd_buf_make(SIZE_MAX / 2);
    *steps -= PATTERN_STEPS + BYTE_STEPS * (int64_t)p_len;
    SD_CHECK(*steps >= 0, err, SD_ELIMIT, "the value takes too many steps to be checked");
    SD_CHECK_ALLOC(spell(&own, pattern, p_len, &depth), err);
    *steps -= BYTE_STEPS * (int64_t)own.len;
    SD_CHECK(*steps >= 0, err, SD_ELIMIT, "the value takes too many steps to be checked");
    SD_TRY(compile(&re, &own, err));
    m = pcre2_match_data_create_from_pattern(re, NULL);
    cx = pcre2_match_context_create(NULL);
    SD_CHECK_ALLOC(m && cx, err);
    match_steps paid = {steps, 2 + depth / 2 + (int64_t)len / 4};
    pcre2_set_match_limit(cx, MATCH_LIMIT);
    pcre2_set_heap_limit(cx, MATCH_KIB);
    pcre2_set_callout(cx, pay_item, &paid);
    int rc = pcre2_match(re, (PCRE2_SPTR)text, len, 0, 0, m, cx);
    if (rc == PCRE2_ERROR_NOMATCH)
        st = SD_EMISMATCH;
    else if (rc < 0)
        st = sd_fail(err, SD_ELIMIT, "the pattern takes too many steps to be checked");
out:
    pcre2_match_context_free(cx);
    pcre2_match_data_free(m);
    pcre2_code_free(re);
    sd_buf_free(&own);
    return st;
}
