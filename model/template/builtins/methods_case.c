// The methods of strings that change the case of characters or ask for their case and kind. They
// use Unicode's full mappings, so a character may become several.
#include "model/template/builtins/builtins.h"

#include "base/utf8.h"
#include "model/template/builtins/unicode_case.h"

#include <utf8proc.h>

static int32_t next_char(sd_str s, size_t *i) {
    int32_t cp;
    *i += (size_t)sd_utf8_next(s.p + *i, s.n - *i, &cp, NULL);
    return cp;
}

static bool is_title_letter(int32_t cp) {
    return utf8proc_category(cp) == UTF8PROC_CATEGORY_LT;
}
static bool is_low(int32_t cp) {
    return utf8proc_category(cp) == UTF8PROC_CATEGORY_LL ||
           (utf8proc_islower(cp) && !is_title_letter(cp)) || cp == 0xAA || cp == 0xBA;
}
static bool is_up(int32_t cp) {
    return utf8proc_category(cp) == UTF8PROC_CATEGORY_LU ||
           (utf8proc_isupper(cp) && !is_title_letter(cp));
}
static bool is_cased(int32_t cp) {
    return is_low(cp) || is_up(cp) || is_title_letter(cp);
}

static bool is_ignored(int32_t cp) { // Case_Ignorable: skipped in the search for a word's end
    utf8proc_category_t c = utf8proc_category(cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK || cp == '\'' || cp == '.' ||
           cp == ':' || cp == 0xB7 || cp == 0x2019;
}

// A capital sigma at the end of a word has a small letter of its own.
static bool ends_word(sd_str s, size_t at, size_t next) {
    int32_t cp = -1;
    size_t i = at;
    while (i > 0) {
        size_t from = i = sd_utf8_back(s.p, i);
        cp = next_char(s, &from);
        if (!is_ignored(cp)) break;
    }
    if (i == at || is_ignored(cp) || !is_cased(cp)) return false;
    for (i = next; i < s.n;) {
        cp = next_char(s, &i);
        if (!is_ignored(cp)) return !is_cased(cp);
    }
    return true;
}

static bool put_char(sd_render *r, sd_buf *b, int32_t cp) {
    char bytes[4];
    return sd_put(r, b, bytes, (size_t)sd_utf8_put(bytes, cp));
}

static bool put_special(sd_render *r, sd_buf *b, const sd_special_case *rows, size_t n, int32_t cp,
                        bool *found) {
    size_t low = 0, high = n;
    *found = false;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (rows[mid].from < cp)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == n || rows[low].from != cp) return true;
    *found = true;
    for (int i = 0; i < 3 && rows[low].to[i]; i++)
        if (!put_char(r, b, rows[low].to[i])) return false;
    return true;
}

static bool put_upper(sd_render *r, sd_buf *b, int32_t cp, bool title) {
    bool found = false;
    if (cp >= 0xDF &&
        !(title ? put_special(r, b, SPECIAL_TITLE, sizeof SPECIAL_TITLE / sizeof *SPECIAL_TITLE, cp,
                              &found)
                : put_special(r, b, SPECIAL_UPPER, sizeof SPECIAL_UPPER / sizeof *SPECIAL_UPPER, cp,
                              &found)))
        return false;
    return found || put_char(r, b, title ? utf8proc_totitle(cp) : utf8proc_toupper(cp));
}

static bool put_lower(sd_render *r, sd_buf *b, sd_str s, int32_t cp, size_t at, size_t next) {
    if (cp == 0x130) return sd_puts(r, b, "i\xCC\x87");
    if (cp == 0x3A3) return put_char(r, b, ends_word(s, at, next) ? 0x3C2 : 0x3C3);
    return put_char(r, b, utf8proc_tolower(cp));
}

typedef enum { UPPER, LOWER, TITLE, CAPITALIZE, SWAP } change;

static bool change_case(sd_render *r, const sd_value *in, change how, sd_value *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    bool start = true;
    if (!sd_spend(r, in->s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < in->s.n;) {
        size_t at = i;
        int32_t cp = next_char(in->s, &i);
        bool raise = how == UPPER || (how == SWAP && is_low(cp)) ||
                     ((how == TITLE || how == CAPITALIZE) && start);
        bool keep = cp < 0 || (how == SWAP && !raise && !is_up(cp));
        bool ok = keep    ? sd_put(r, &b, in->s.p + at, i - at)
                  : raise ? put_upper(r, &b, cp, how == TITLE || how == CAPITALIZE)
                          : put_lower(r, &b, in->s, cp, at, i);
        if (!ok) return sd_drop(r, &b);
        start = how == TITLE && !is_cased(cp);
    }
    return sd_keep(r, &b, out);
}

SD_BUILTIN(method_upper) {
    (void)a;
    return change_case(r, in, UPPER, out);
}
SD_BUILTIN(method_lower) {
    (void)a;
    return change_case(r, in, LOWER, out);
}
SD_BUILTIN(method_title) {
    (void)a;
    return change_case(r, in, TITLE, out);
}
SD_BUILTIN(method_capitalize) {
    (void)a;
    return change_case(r, in, CAPITALIZE, out);
}
SD_BUILTIN(method_swapcase) {
    (void)a;
    return change_case(r, in, SWAP, out);
}

SD_BUILTIN(method_casefold) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    (void)a;
    if (!sd_spend(r, in->s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < in->s.n;) {
        utf8proc_int32_t to[8];
        int boundary = 0;
        size_t at = i;
        int32_t cp = next_char(in->s, &i);
        utf8proc_ssize_t n =
            cp < 0 ? 0 : utf8proc_decompose_char(cp, to, 8, UTF8PROC_CASEFOLD, &boundary);
        bool ok = n > 0 && n <= 8 ? true : sd_put(r, &b, in->s.p + at, i - at);
        for (utf8proc_ssize_t k = 0; ok && n <= 8 && k < n; k++) ok = put_char(r, &b, to[k]);
        if (!ok) return sd_drop(r, &b);
    }
    return sd_keep(r, &b, out);
}

// ---- what characters are

static bool in_runs(int32_t cp, const int32_t (*runs)[2], size_t n) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (runs[mid][1] < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && cp >= runs[low][0];
}

static bool is_digit(int32_t cp) {
    return utf8proc_category(cp) == UTF8PROC_CATEGORY_ND ||
           in_runs(cp, OTHER_DIGITS, sizeof OTHER_DIGITS / sizeof *OTHER_DIGITS);
}

// want: 'a' letter, 'D' decimal, 'd' digit, 'N' numeric, 'n' letter or numeric, 's' white space,
// 'A' ASCII, 'p' printable, 'i' part of an identifier
static bool is_kind(int32_t cp, char want, bool first) {
    utf8proc_category_t c = utf8proc_category(cp);
    bool letter = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
    bool numeric = c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
    switch (want) {
    case 'a':
        return letter;
    case 'D':
        return c == UTF8PROC_CATEGORY_ND;
    case 'd':
        return is_digit(cp);
    case 'N':
        return numeric ||
               in_runs(cp, NUMBER_LETTERS, sizeof NUMBER_LETTERS / sizeof *NUMBER_LETTERS);
    case 'n':
        return letter || numeric;
    case 's':
        return sd_is_pyspace(cp);
    case 'A':
        return cp >= 0 && cp < 0x80;
    case 'p':
        return sd_is_printable(cp);
    default:
        return letter || cp == '_' || c == UTF8PROC_CATEGORY_NL ||
               (!first && (c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_MN ||
                           c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_PC));
    }
}

static bool all_are(const sd_value *in, char want) {
    for (size_t i = 0; i < in->s.n;) {
        bool first = i == 0;
        if (!is_kind(next_char(in->s, &i), want, first)) return false;
    }
    return in->s.n > 0 || want == 'A' || want == 'p';
}

// Whether all cased characters have the one case, and there is at least one.
static bool one_case(const sd_value *in, bool upper) {
    bool any = false;
    for (size_t i = 0; i < in->s.n;) {
        int32_t cp = next_char(in->s, &i);
        if (is_title_letter(cp) || (upper ? is_low(cp) : is_up(cp))) return false;
        any |= upper ? is_up(cp) : is_low(cp);
    }
    return any;
}

static bool is_title(const sd_value *in) {
    bool any = false, inside = false;
    for (size_t i = 0; i < in->s.n;) {
        int32_t cp = next_char(in->s, &i);
        bool up = is_up(cp) || is_title_letter(cp), low = is_low(cp);
        if ((up && inside) || (low && !inside)) return false;
        inside = up || low;
        any |= inside;
    }
    return any;
}

#define CHARACTER_TEST(name, condition)                                                            \
    SD_BUILTIN(name) {                                                                             \
        (void)a;                                                                                   \
        *out = sd_bool(condition);                                                                 \
        return sd_spend(r, in->s.n / SD_TMPL_SEARCH);                                              \
    }
CHARACTER_TEST(method_isalpha, all_are(in, 'a'))
CHARACTER_TEST(method_isdecimal, all_are(in, 'D'))
CHARACTER_TEST(method_isdigit, all_are(in, 'd'))
CHARACTER_TEST(method_isnumeric, all_are(in, 'N'))
CHARACTER_TEST(method_isalnum, all_are(in, 'n'))
CHARACTER_TEST(method_isspace, all_are(in, 's'))
CHARACTER_TEST(method_isascii, all_are(in, 'A'))
CHARACTER_TEST(method_isprintable, all_are(in, 'p'))
CHARACTER_TEST(method_isidentifier, all_are(in, 'i'))
CHARACTER_TEST(method_islower, one_case(in, false))
CHARACTER_TEST(method_isupper, one_case(in, true))
CHARACTER_TEST(method_istitle, is_title(in))

const sd_builtin_row sd_case_methods[] = {{"upper", method_upper},
                                          {"lower", method_lower},
                                          {"title", method_title},
                                          {"capitalize", method_capitalize},
                                          {"swapcase", method_swapcase},
                                          {"casefold", method_casefold},
                                          {"isalpha", method_isalpha},
                                          {"isdecimal", method_isdecimal},
                                          {"isdigit", method_isdigit},
                                          {"isnumeric", method_isnumeric},
                                          {"isalnum", method_isalnum},
                                          {"isspace", method_isspace},
                                          {"isascii", method_isascii},
                                          {"isprintable", method_isprintable},
                                          {"isidentifier", method_isidentifier},
                                          {"islower", method_islower},
                                          {"isupper", method_isupper},
                                          {"istitle", method_istitle},
                                          {NULL, NULL}};
