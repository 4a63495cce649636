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

// An escape at p[*i]; *i: then the last byte that was read. Two halves of a surrogate pair become one
// \u{...}, which keeps its braces; \v is a class of PCRE2's, and its \s has ASCII's spaces alone.
static bool spell_escape(sd_buf *out, const char *p, size_t len, bool in_class, size_t *i) {
    long high, low;
    size_t from = *i, end = from + 1;
    char c = p[end];
    if (c == 'u' && four_hex(p, len, from + 2, &high) && high >= 0xD800 && high < 0xDC00 &&
        from + 7 < len && memcmp(p + from + 6, "\\u", 2) == 0 && four_hex(p, len, from + 8, &low) &&
        low >= 0xDC00 && low < 0xE000) {
        *i = from + 11;
        return sd_buf_printf(out, "\\u{%lx}", 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
    }
    if (c == 'u' && end + 1 < len && p[end + 1] == '{')
        while (end + 1 < len && p[end] != '}') end++;
    *i = end;
    if (c == 'v') return sd_buf_adds(out, "\\x0b");
    if (c == 's') return sd_buf_adds(out, in_class ? SPACES : "[" SPACES "]");
    if (c == 'S') return sd_buf_adds(out, in_class ? OTHERS : "[" OTHERS "]");
    return sd_buf_add(out, p + from, end - from + 1);
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

// A backslash stands where "{" begins no repeat and "[" no class, which PCRE2 reads otherwise within a
// class, or in its later versions, and before a hyphen beside \d, which ends no range. A dot leaves out what
// ECMAScript calls an end of line.
//
// *depth: of groups in groups.
static bool spell(sd_buf *out, const char *p, size_t len, int *depth) {
    bool in_class = false, ok = true, named = false; // named: \d or its like is behind, in a class
    int open = 0;
    *depth = 0;
    for (size_t i = 0; ok && i < len; i++) {
        char c = p[i];
        bool hyphen = in_class && c == '-' && (named || is_class_escape(p, len, i + 1));
        named = in_class && is_class_escape(p, len, i);
        if (c == '\\' && i + 1 < len) {
            ok = spell_escape(out, p, len, in_class, &i);
            continue;
        }
        if (c == '.' && !in_class) {
            ok = sd_buf_adds(out, "[^\\n\\r\\u2028\\u2029]");
            continue;
        }
        bool plain = hyphen || (c == '[' && in_class) ||
                     (c == '{' && !in_class && !is_repeat(p + i, len - i));
        ok = (!plain || sd_buf_addc(out, '\\')) && sd_buf_addc(out, c);
        if (c == '[') in_class = true;
        if (c == ']') in_class = false;
        if (in_class) continue;
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
