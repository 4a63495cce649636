// Patterns of tokenizer.json are written for Oniguruma with the classes of Unicode 16. PCRE2 reads
// nearly the same language; this file rewrites the rest:
//
//   \s \d \w \h and their negations   written out: PCRE2 counts U+180E as a space, \h is a hex digit
//   \p{L}, \P{Nd}, ...                joined with the characters that are newer than PCRE2's Unicode
//   \p{Han}                           the script itself, not its extensions
//   \uHHHH                            \x{HHHH}
//
// Inside a class a negated escape cannot be written out and keeps PCRE2's meaning (it differs in
// characters newer than PCRE2 only). Nested classes and intersections are refused.
#include "model/tokenizer/split.h"

#include "base/utf8.h"
#include "model/tokenizer/unicode_additions.h"

#include <ctype.h>
#include <string.h>
#include <utf8proc.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static const char SPACES[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"
                             "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

bool sd_is_numeric(int32_t cp) {
    static const uint32_t mask = 1u << 9 | 1u << 10 | 1u << 11; // Nd, Nl, No of utf8proc_category_t
    if (cp < 0x80) return cp >= '0' && cp <= '9';
    if (mask >> utf8proc_category(cp) & 1) return true;
    for (size_t i = 0; i < COUNT(SD_UNICODE_NUMERIC); i++)
        if (cp >= SD_UNICODE_NUMERIC[i].first && cp <= SD_UNICODE_NUMERIC[i].last) return true;
    return false;
}

bool sd_is_word(int32_t cp) {
    // L, M, N and Pc of utf8proc_category_t
    static const uint32_t mask = 0xFFEu | 1u << UTF8PROC_CATEGORY_PC;
    if (cp < 0) return false;
    if (mask >> utf8proc_category(cp) & 1) return true;
    for (size_t i = 0; i < COUNT(SD_UNICODE_ADDED); i++) {
        const sd_unicode_range *r = &SD_UNICODE_ADDED[i];
        if (cp >= r->first && cp <= r->last) return strchr("LMN", r->category[0]) != NULL;
    }
    return false;
}

static bool is_category(const char *name, size_t len) {
    return len >= 1 && len <= 2 && strchr("LMNPSZC", name[0]) != NULL &&
           (len == 1 || islower((unsigned char)name[1]));
}

// Writes "\p{L}" and the additions, to stand inside brackets.
static bool add_category(sd_buf *out, const char *name, size_t len) {
    if (!sd_buf_printf(out, "\\p{%.*s}", (int)len, name)) return false;
    for (size_t i = 0; i < COUNT(SD_UNICODE_ADDED); i++) {
        const sd_unicode_range *r = &SD_UNICODE_ADDED[i];
        if (strncmp(r->category, name, len) != 0) continue;
        if (!sd_buf_printf(out, "\\x{%x}-\\x{%x}", (unsigned)r->first, (unsigned)r->last))
            return false;
    }
    return true;
}

// Writes the members of an escape that stands for a class, without brackets. False: it is none.
static bool class_members(sd_buf *out, char letter, bool *ok) {
    switch (letter) {
    case 's':
        *ok = sd_buf_adds(out, SPACES);
        return true;
    case 'd':
        *ok = add_category(out, "Nd", 2);
        return true;
    case 'h':
        *ok = sd_buf_adds(out, "0-9a-fA-F");
        return true;
    case 'w':
        *ok = add_category(out, "L", 1) && add_category(out, "M", 1) && add_category(out, "N", 1) &&
              sd_buf_adds(out, "\\p{Pc}");
        return true;
    default:
        return false;
    }
}

typedef struct {
    sd_buf *out;
    const char *p, *end;
    bool in_class;
} reader;

// Rewrites an escape such as \s. False: it is none of these; *ok false: memory is out.
static bool short_escape(reader *r, bool *ok) {
    char c = r->p[1];
    bool negated = isupper((unsigned char)c) != 0;
    char letter = (char)tolower((unsigned char)c);
    if (!strchr("sdhw", letter)) return false;
    if (negated && r->in_class) {
        if (letter == 'h') return false;
        *ok = sd_buf_add(r->out, r->p, 2) && (letter != 's' || sd_buf_adds(r->out, "\\x{180e}"));
    } else {
        if (!r->in_class) *ok = sd_buf_adds(r->out, negated ? "[^" : "[");
        if (*ok) class_members(r->out, letter, ok);
        if (*ok && !r->in_class) *ok = sd_buf_addc(r->out, ']');
    }
    r->p += 2;
    return true;
}

// Rewrites a property; the reader is at "\p" or "\P".
static sd_status property(reader *r, sd_error *err) {
    sd_status st = SD_OK;
    bool negated = r->p[1] == 'P', ok;
    const char *name = r->p + 2, *close;
    SD_CHECK(name < r->end && *name == '{' && (close = memchr(name, '}', (size_t)(r->end - name))),
             err, SD_EFORMAT, "the pattern has a property without braces; check pre_tokenizer");
    name++;
    if (name < close && *name == '^') negated = !negated, name++;
    size_t len = (size_t)(close - name);
    SD_CHECK(len > 0 && len < 64, err, SD_EFORMAT,
             "the pattern has a property of %zu letters; check pre_tokenizer", len);
    if (!is_category(name, len)) {
        // Any is the only name in use that is neither a category nor a script.
        bool any = len == 3 && memcmp(name, "Any", 3) == 0;
        bool script = !any && (len == 3 || (len > 3 && isupper((unsigned char)name[0])));
        ok = sd_buf_printf(r->out, "\\%c{%s%.*s}", negated ? 'P' : 'p', script ? "sc:" : "",
                           (int)len, name);
    } else if (r->in_class && negated) {
        ok = sd_buf_printf(r->out, "\\P{%.*s}", (int)len, name);
    } else if (r->in_class) {
        ok = add_category(r->out, name, len);
    } else {
        ok = sd_buf_adds(r->out, negated ? "[^" : "[") && add_category(r->out, name, len) &&
             sd_buf_addc(r->out, ']');
    }
    SD_CHECK_ALLOC(ok, err);
    r->p = close + 1;
out:
    return st;
}

// Rewrites an escape; the reader is at its backslash.
static sd_status escape(reader *r, sd_error *err) {
    sd_status st = SD_OK;
    bool ok = true;
    SD_CHECK(r->p + 1 < r->end, err, SD_EFORMAT,
             "the pattern ends with a backslash; check pre_tokenizer");
    char c = r->p[1];
    if (c == 'p' || c == 'P') return property(r, err);
    if (!short_escape(r, &ok)) {
        if (c == 'u' && r->end - r->p >= 6) {
            ok = sd_buf_printf(r->out, "\\x{%.4s}", r->p + 2);
            r->p += 6;
        } else {
            int32_t cp;
            size_t n = (size_t)sd_utf8_next(r->p + 1, (size_t)(r->end - r->p - 1), &cp, NULL);
            ok = sd_buf_add(r->out, r->p, n + 1);
            r->p += n + 1;
        }
    }
    SD_CHECK_ALLOC(ok, err);
out:
    return st;
}

sd_status sd_regex_translate(sd_buf *out, const char *pattern, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    reader r = {out, pattern, pattern + len, false};
    bool first = false; // in a class, where ']' would be a member
    while (r.p < r.end) {
        char c = *r.p;
        size_t left = (size_t)(r.end - r.p);
        if (c == '\\') {
            SD_TRY(escape(&r, err));
            first = false;
            continue;
        }
        size_t n = 1;
        if (!r.in_class && c == '[') {
            r.in_class = first = true;
            if (left > 1 && r.p[1] == '^') n = 2;
        } else if (r.in_class && c == '[') {
            const char *close =
                left > 3 && r.p[1] == ':' ? memmem(r.p + 2, left - 2, ":]", 2) : NULL;
            SD_CHECK(close, err, SD_EFORMAT,
                     "the pattern nests one class in another, which is not supported; write it "
                     "without");
            n = (size_t)(close + 2 - r.p);
            first = false;
        } else if (r.in_class && c == ']' && !first) {
            r.in_class = false;
        } else {
            SD_CHECK(!(r.in_class && c == '&' && left > 1 && r.p[1] == '&'), err, SD_EFORMAT,
                     "the pattern intersects classes, which is not supported; write it without");
            first = false;
        }
        SD_CHECK_ALLOC(sd_buf_add(out, r.p, n), err);
        r.p += n;
    }
out:
    return st;
}
