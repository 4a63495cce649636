// ECMAScript's patterns by recursive descent: alternatives of sequences of repeated atoms.
//
// Sequences and alternatives are chains of pairs, made left to right, so that only groups nest the
// parser; how deep they may is bounded, as is the tree.
#include "model/grammar/pattern/regex.h"

#include "base/list.h"
#include "base/utf8.h"

#include <string.h>

enum { LAST_CP = 0x10FFFF, MAX_REPEAT = 65535, CLASS_RANGES = 4096, MAX_NAMES = 100 };

typedef struct {
    sd_regex *r;
    const char *s;
    size_t len, at;
    int depth;
    sd_error *err;
    int32_t (*set)[2]; // the class that is read
    int n_set, cap_set;
    bool space, no_space; // it has \s; it has \S
    struct {
        size_t at, len;
    } name[MAX_NAMES]; // of groups
    int n_names;
} parser;

static int fail(parser *p, sd_status st, const char *what) {
    sd_fail(p->err, st, "the pattern has %s at byte %zu", what, p->at);
    return -1;
}

static int add(parser *p, sd_regex_node n) {
    sd_regex *r = p->r;
    if (r->n >= SD_REGEX_TREE)
        return fail(p, SD_ELIMIT, "more than 16384 parts, which is the most,");
    if (!SD_GROW(r->node, r->n + 1, r->cap)) return fail(p, SD_ENOMEM, "no memory");
    r->node[r->n] = n;
    return r->n++;
}

static bool more(const parser *p) {
    return p->at < p->len;
}

static bool see(const parser *p, const char *text) {
    size_t n = strlen(text);
    return p->len - p->at >= n && memcmp(p->s + p->at, text, n) == 0;
}

static bool take(parser *p, const char *text) {
    if (!see(p, text)) return false;
    p->at += strlen(text);
    return true;
}

// ---- classes

static bool put(parser *p, int32_t lo, int32_t hi) {
    if (p->n_set >= CLASS_RANGES)
        return fail(p, SD_ELIMIT, "a class of more than 4096 ranges, which is the most,"), false;
    if (!SD_GROW(p->set, p->n_set + 1, p->cap_set)) return fail(p, SD_ENOMEM, "no memory"), false;
    p->set[p->n_set][0] = lo, p->set[p->n_set++][1] = hi;
    return true;
}

static int by_low(const void *a, const void *b) {
    const int32_t *x = a, *y = b;
    return (x[0] > y[0]) - (x[0] < y[0]);
}

// set[from..] becomes ascending, without overlap; `negated`: what is not in it.
static bool settle(parser *p, int from, bool negated) {
    int n = 0;
    if (p->n_set > from) qsort(p->set + from, (size_t)(p->n_set - from), sizeof *p->set, by_low);
    for (int i = from; i < p->n_set; i++) {
        if (n && p->set[i][0] <= p->set[from + n - 1][1] + 1) {
            if (p->set[i][1] > p->set[from + n - 1][1]) p->set[from + n - 1][1] = p->set[i][1];
            continue;
        }
        memmove(p->set[from + n++], p->set[i], sizeof *p->set);
    }
    p->n_set = from + n;
    if (!negated) return true;
    int32_t next = 0;
    if (!put(p, 0, 0)) return false; // there may be one range more
    p->n_set--;
    for (int i = 0; i < n; i++) {
        int32_t lo = p->set[from + i][0], hi = p->set[from + i][1];
        p->set[from + i][0] = next, p->set[from + i][1] = lo - 1;
        next = hi + 1;
    }
    p->set[from + n][0] = next, p->set[from + n][1] = LAST_CP;
    int kept = 0;
    for (int i = 0; i <= n; i++)
        if (p->set[from + i][0] <= p->set[from + i][1])
            memmove(p->set[from + kept++], p->set[from + i], sizeof *p->set);
    p->n_set = from + kept;
    return true;
}

static int add_class(parser *p) {
    sd_regex *r = p->r;
    int first = r->n_ranges;
    if (first + p->n_set > SD_REGEX_RANGES)
        return fail(p, SD_ELIMIT, "more than 32768 ranges of characters, which is the most,");
    if (!SD_GROW(r->range, first + p->n_set, r->cap_ranges)) return fail(p, SD_ENOMEM, "no memory");
    if (p->n_set) memcpy(r->range + first, p->set, (size_t)p->n_set * sizeof *p->set);
    r->n_ranges += p->n_set;
    return add(p, (sd_regex_node){.kind = R_CLASS, .a = first, .b = p->n_set});
}

// The ranges of \d, \w and \s. Dialects differ about spaces beyond ASCII: none of them is a \s here,
// and none is a \S. negated: of a class that is turned round.
static bool put_named(parser *p, char name, bool negated) {
    static const int32_t digit[][2] = {{'0', '9'}},
                         word[][2] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                         space[][2] = {{9, 13},          {' ', ' '},       {0x85, 0x85},
                                       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                                       {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                       {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    char low = (char)(name | 0x20);
    p->space |= name == 's', p->no_space |= name == 'S';
    bool wide = (low == name) == negated;
    const int32_t(*t)[2] = low == 'd' ? digit : low == 'w' ? word : space;
    int n = low == 'd' ? 1 : low == 'w' ? 4 : wide ? 11 : 2, from = p->n_set;
    for (int i = 0; i < n; i++)
        if (!put(p, t[i][0], t[i][1])) return false;
    return low == name || settle(p, from, true);
}

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool read_hex(parser *p, int digits, int32_t *out) {
    int32_t v = 0;
    for (int i = 0; i < digits; i++) {
        int h = more(p) ? hex(p->s[p->at]) : -1;
        if (h < 0) return fail(p, SD_EINVAL, "an escape with too few hex digits"), false;
        v = v * 16 + h;
        p->at++;
    }
    *out = v;
    return true;
}

static bool read_unicode(parser *p, int32_t *out) {
    if (take(p, "{")) {
        int32_t v = 0;
        int n = 0;
        for (; more(p) && hex(p->s[p->at]) >= 0 && v <= LAST_CP; p->at++, n++)
            v = v * 16 + hex(p->s[p->at]);
        if (n == 0 || v > LAST_CP || !take(p, "}"))
            return fail(p, SD_EINVAL, "an escape that is no code point"), false;
        *out = v;
        return true;
    }
    int32_t low;
    if (!read_hex(p, 4, out)) return false;
    if (*out >= 0xD800 && *out < 0xDC00 && take(p, "\\u")) { // a pair, as JavaScript writes it
        if (!read_hex(p, 4, &low)) return false;
        if (low < 0xDC00 || low > 0xDFFF)
            return fail(p, SD_EINVAL, "half of a surrogate pair"), false;
        *out = 0x10000 + ((*out - 0xD800) << 10) + (low - 0xDC00);
    }
    return true;
}

// Behind a backslash: *cp, or -1 and the class was put.
static bool read_escape(parser *p, bool in_class, bool negated, int32_t *cp) {
    if (!more(p)) return fail(p, SD_EINVAL, "a backslash and nothing behind it"), false;
    char c = p->s[p->at];
    if (c && strchr("dDwWsS", c)) {
        p->at++;
        *cp = -1;
        return put_named(p, c, negated);
    }
    if (c >= '1' && c <= '9')
        return fail(p, SD_EINVAL, "a backreference, which is not supported,"), false;
    if (c == 'k')
        return fail(p, SD_EINVAL, "a backreference (\\k), which is not supported,"), false;
    if ((c == 'b' && !in_class) || c == 'B')
        return fail(p, SD_EINVAL, "a word boundary (\\b), which is not supported,"), false;
    if (c == 'p' || c == 'P')
        return fail(p, SD_EINVAL, "a Unicode property (\\p), which is not supported,"), false;
    if (c == 'A' || c == 'Z' || c == 'z' || c == 'G' || c == 'K' || c == 'R' || c == 'X')
        return fail(p, SD_EINVAL, "an escape that ECMAScript has not"), false;
    static const char names[] = "tnrfv0", values[] = "\t\n\r\f\v";
    const char *named = strchr(names, c);
    if (named && c) {
        p->at++;
        if (c == '0' && more(p) && p->s[p->at] >= '0' && p->s[p->at] <= '9')
            return fail(p, SD_EINVAL, "an octal escape, which ECMAScript has not"), false;
        *cp = c == '0' ? 0 : values[named - names];
        return true;
    }
    if (c == 'b') return p->at++, *cp = 8, true;
    if (c == 'x') return p->at++, read_hex(p, 2, cp);
    if (c == 'u') return p->at++, read_unicode(p, cp);
    if (c == 'c') {
        p->at++;
        char l = more(p) ? (char)(p->s[p->at] | 0x20) : 0;
        if (l < 'a' || l > 'z') return fail(p, SD_EINVAL, "\\c without a letter"), false;
        p->at++;
        *cp = l - 'a' + 1;
        return true;
    }
    p->at += (size_t)sd_utf8_next(p->s + p->at, p->len - p->at, cp, NULL);
    if ((*cp >= 'a' && *cp <= 'z') || (*cp >= 'A' && *cp <= 'Z'))
        return fail(p, SD_EINVAL, "an escape that ECMAScript has not"), false;
    return *cp >= 0 || (fail(p, SD_EINVAL, "bytes that are not UTF-8"), false);
}

static bool class_atom(parser *p, bool negated, int32_t *cp) {
    if (take(p, "\\")) return read_escape(p, true, negated, cp);
    p->at += (size_t)sd_utf8_next(p->s + p->at, p->len - p->at, cp, NULL);
    return *cp >= 0 || (fail(p, SD_EINVAL, "bytes that are not UTF-8"), false);
}

static int read_class(parser *p) {
    bool negated = take(p, "^");
    p->n_set = 0;
    p->space = p->no_space = false;
    while (more(p) && !see(p, "]")) {
        int32_t lo, hi;
        if (!class_atom(p, negated, &lo)) return -1;
        if (!see(p, "-") || p->at + 1 >= p->len || p->s[p->at + 1] == ']') {
            if (lo >= 0 && !put(p, lo, lo)) return -1;
            continue;
        }
        p->at++;
        if (!class_atom(p, negated, &hi)) return -1;
        if (lo < 0 || hi < 0) { // "a-\d": the hyphen stands for itself, and so does the other side
            if (!put(p, '-', '-') || (lo >= 0 && !put(p, lo, lo)) || (hi >= 0 && !put(p, hi, hi)))
                return -1;
            continue;
        }
        if (hi < lo) return fail(p, SD_EINVAL, "a range that runs backwards");
        if (!put(p, lo, hi)) return -1;
    }
    if (!take(p, "]")) return fail(p, SD_EINVAL, "a [ without its ]");
    // Whatever a dialect takes for a space: it is one of the two.
    if (p->space && p->no_space && !put(p, 0, LAST_CP)) return -1;
    if (!settle(p, 0, negated)) return -1;
    return add_class(p);
}

// ---- atoms, repeats, sequences

static int read_alternatives(parser *p);

// A group's name says nothing, but two groups do not have the same.
static bool read_name(parser *p) {
    size_t from = p->at;
    for (; more(p) && !see(p, ">"); p->at++) {
        char c = p->s[p->at];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' ||
                      (unsigned char)c >= 0x80;
        if (!letter && (p->at == from || c < '0' || c > '9'))
            return fail(p, SD_EINVAL, "a group's name with a character that none has"), false;
    }
    size_t len = p->at - from;
    if (len == 0 || !take(p, ">")) return fail(p, SD_EINVAL, "a group's name without its >"), false;
    for (int i = 0; i < p->n_names; i++)
        if (p->name[i].len == len && memcmp(p->s + p->name[i].at, p->s + from, len) == 0)
            return fail(p, SD_EINVAL, "two groups of one name"), false;
    if (p->n_names == MAX_NAMES)
        return fail(p, SD_ELIMIT, "more than 100 named groups, which is the most,"), false;
    p->name[p->n_names].at = from, p->name[p->n_names++].len = len;
    return true;
}

static int read_group(parser *p) {
    if (see(p, "?=") || see(p, "?!"))
        return fail(p, SD_EINVAL, "lookahead, which is not supported,");
    if (see(p, "?<=") || see(p, "?<!"))
        return fail(p, SD_EINVAL, "lookbehind, which is not supported,");
    if (see(p, "?P=")) return fail(p, SD_EINVAL, "a backreference, which is not supported,");
    if (take(p, "?<") || take(p, "?P<")) {
        if (!read_name(p)) return -1;
    } else if (!take(p, "?:") && see(p, "?")) {
        return fail(p, SD_EINVAL, "a group of a kind that is not supported");
    }
    if (++p->depth > SD_REGEX_DEPTH)
        return fail(p, SD_ELIMIT, "groups nested deeper than 100, which is the most,");
    int e = read_alternatives(p);
    p->depth--;
    if (e >= 0 && !take(p, ")")) return fail(p, SD_EINVAL, "a ( without its )");
    return e;
}

static int one_char(parser *p, int32_t cp) {
    p->n_set = 0;
    return put(p, cp, cp) ? add_class(p) : -1;
}

static bool read_number(parser *p, int *out) {
    size_t from = p->at;
    for (*out = 0; more(p) && p->s[p->at] >= '0' && p->s[p->at] <= '9'; p->at++)
        if (*out <= MAX_REPEAT) *out = *out * 10 + (p->s[p->at] - '0');
    return p->at > from;
}

// "{" that begins no repeat stands for itself, as in a browser.
static bool read_bounds(parser *p, int *min, int *max) {
    size_t back = p->at;
    if (!take(p, "{")) return false;
    if (read_number(p, min)) {
        *max = *min;
        if (take(p, ",") && !read_number(p, max)) *max = -1;
        if (take(p, "}")) return true;
    }
    p->at = back;
    return false;
}

static bool see_repeat(parser *p) {
    size_t back = p->at;
    int min, max;
    bool bounds = read_bounds(p, &min, &max);
    p->at = back;
    return bounds || see(p, "*") || see(p, "+") || see(p, "?");
}

static int read_atom(parser *p) {
    int32_t cp;
    if (take(p, "(")) return read_group(p);
    if (take(p, "[")) return read_class(p);
    if (take(p, "^")) return add(p, (sd_regex_node){.kind = R_BEGIN});
    if (take(p, "$")) return add(p, (sd_regex_node){.kind = R_END});
    if (take(p, ".")) {
        p->n_set = 0;
        bool ok = put(p, '\n', '\n') && put(p, '\r', '\r') && put(p, 0x2028, 0x2029);
        return ok && settle(p, 0, true) ? add_class(p) : -1;
    }
    if (take(p, "\\")) {
        p->n_set = 0;
        if (!read_escape(p, false, false, &cp)) return -1;
        if (cp >= 0) return one_char(p, cp);
        return settle(p, 0, false) ? add_class(p) : -1;
    }
    if (see_repeat(p)) return fail(p, SD_EINVAL, "a repeat and nothing before it");
    p->at += (size_t)sd_utf8_next(p->s + p->at, p->len - p->at, &cp, NULL);
    return cp < 0 ? fail(p, SD_EINVAL, "bytes that are not UTF-8") : one_char(p, cp);
}

static int read_repeated(parser *p) {
    bool bound = see(p, "^") || see(p, "$");
    int e = read_atom(p);
    if (e >= 0 && bound && see_repeat(p)) return fail(p, SD_EINVAL, "a repeat of ^ or $");
    while (e >= 0 && more(p)) {
        int min, max;
        if (take(p, "*"))
            min = 0, max = -1;
        else if (take(p, "+"))
            min = 1, max = -1;
        else if (take(p, "?"))
            min = 0, max = 1;
        else if (!read_bounds(p, &min, &max))
            break;
        if (see(p, "+")) return fail(p, SD_EINVAL, "a possessive repeat, which is not supported,");
        take(p, "?"); // lazy: the same texts
        if (min > MAX_REPEAT || max > MAX_REPEAT)
            return fail(p, SD_ELIMIT, "a repeat of more than 65535, which is the most,");
        if (max >= 0 && max < min) return fail(p, SD_EINVAL, "a repeat whose bounds are reversed");
        e = add(p, (sd_regex_node){.kind = R_REPEAT, .a = e, .min = min, .max = max});
        if (see_repeat(p)) return fail(p, SD_EINVAL, "a repeat of a repeat");
        break;
    }
    return e;
}

static int read_sequence(parser *p) {
    int seq = -1;
    while (more(p) && !see(p, "|") && !see(p, ")")) {
        int e = read_repeated(p);
        if (e < 0) return -1;
        seq = seq < 0 ? e : add(p, (sd_regex_node){.kind = R_SEQ, .a = seq, .b = e});
        if (seq < 0) return -1;
    }
    return seq < 0 ? add(p, (sd_regex_node){.kind = R_EMPTY}) : seq;
}

static int read_alternatives(parser *p) {
    int alt = read_sequence(p);
    while (alt >= 0 && take(p, "|")) {
        int e = read_sequence(p);
        alt = e < 0 ? -1 : add(p, (sd_regex_node){.kind = R_ALT, .a = alt, .b = e});
    }
    return alt;
}

sd_status sd_regex_parse(sd_regex *r, const char *pattern, size_t len, sd_error *err) {
    sd_error own = {0};
    parser p = {.r = r, .s = pattern, .len = len, .err = err ? err : &own};
    *r = (sd_regex){0};
    r->root = read_alternatives(&p);
    if (r->root >= 0 && more(&p)) r->root = fail(&p, SD_EINVAL, "a ) without its (");
    free(p.set);
    if (r->root >= 0) return SD_OK;
    sd_regex_free(r);
    return p.err->status;
}

void sd_regex_free(sd_regex *r) {
    free(r->node), free(r->range);
    *r = (sd_regex){0};
}
