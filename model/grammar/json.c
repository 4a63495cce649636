// JSON as expressions. White space: at most one space behind ':' and ',', none elsewhere: what
// json.dumps writes, and what it writes with compact separators.
#include "model/grammar/internal.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

static int space(sd_grammar_builder *b) {
    return sd_gb_add(b, E_SPACE, 0, 0, 0);
}

int sd_gb_json_comma(sd_grammar_builder *b) {
    int e[] = {sd_gb_text(b, ","), space(b)};
    return sd_gb_seq(b, e, 2);
}

int sd_gb_json_colon(sd_grammar_builder *b) {
    int e[] = {sd_gb_text(b, ":"), space(b)};
    return sd_gb_seq(b, e, 2);
}

// ---- strings

static int one_of(sd_grammar_builder *b, const char *bytes) {
    uint32_t set[8] = {0};
    for (; *bytes; bytes++) set[(uint8_t)*bytes / 32] |= 1u << (uint8_t)*bytes % 32;
    return sd_gb_bytes(b, set);
}

#define HEX "0123456789abcdefABCDEF"
#define HEX_BUT_0 "123456789abcdefABCDEF"

static int four(sd_grammar_builder *b, const char *a, const char *c, const char *d, const char *e) {
    int part[] = {one_of(b, a), one_of(b, c), one_of(b, d), one_of(b, e)};
    return sd_gb_seq(b, part, 4);
}

// \uXXXX: neither NUL nor half of a surrogate pair.
static int unicode_escape(sd_grammar_builder *b) {
    int pair[] = {four(b, "dD", "89abAB", HEX, HEX), sd_gb_text(b, "\\u"),
                  four(b, "dD", "cdefCDEF", HEX, HEX)};
    int any[] = {four(b, "123456789abcefABCEF", HEX, HEX, HEX),
                 four(b, "dD", "01234567", HEX, HEX),
                 four(b, "0", HEX_BUT_0, HEX, HEX),
                 four(b, "0", "0", HEX_BUT_0, HEX),
                 four(b, "0", "0", "0", HEX_BUT_0),
                 sd_gb_seq(b, pair, 3)};
    int e[] = {sd_gb_text(b, "u"), sd_gb_any_of(b, any, 6)};
    return sd_gb_seq(b, e, 2);
}

int sd_gb_json_char(sd_grammar_builder *b) {
    if (b->json_char >= 0 || b->err.status) return b->json_char;
    int behind[] = {one_of(b, "\"\\/bfnrt"), unicode_escape(b)};
    int escape[] = {sd_gb_text(b, "\\"), sd_gb_any_of(b, behind, 2)};
    int any[] = {sd_gb_add(b, E_PLAIN, 0, 0, 0), sd_gb_seq(b, escape, 2)};
    int rule = sd_gb_rule(b);
    sd_gb_define(b, rule, sd_gb_any_of(b, any, 2));
    return b->json_char = sd_gb_ref(b, rule);
}

int sd_gb_json_string(sd_grammar_builder *b, int min, int max) {
    bool any = min == 0 && max < 0;
    if (any && b->json_string >= 0) return b->json_string;
    int quote = sd_gb_text(b, "\"");
    int e[] = {quote, sd_gb_repeat(b, sd_gb_json_char(b), min, max), quote};
    int string = sd_gb_seq(b, e, 3);
    if (any) b->json_string = string;
    return string;
}

// ---- keys that are none of some names

typedef struct {
    int first, last; // the names that begin alike
    size_t at;       // in so many bytes
} prefix;

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static size_t char_bytes(const char *s) {
    unsigned char c = (unsigned char)*s;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

static int32_t char_at(const char *s) {
    unsigned char c = (unsigned char)*s;
    size_t n = char_bytes(s);
    int32_t cp = n == 1 ? c : n == 2 ? c & 0x1F : n == 3 ? c & 0x0F : c & 7;
    for (size_t i = 1; i < n; i++) cp = cp << 6 | (s[i] & 0x3F);
    return cp;
}

// State 1 is a key that left all names; a state of the trie accepts where no name ends.
static bool key_edges(sd_dfa_maker *m, const char **name, prefix *p, int *n, int k) {
    prefix x = p[k];
    int32_t next = 1;
    int i = x.first;
    while (i < x.last && name[i][x.at] == '\0') i++;
    if (!sd_dfa_state(m, i == x.first)) return false;
    for (int j; i < x.last; i = j) {
        const char *here = name[i] + x.at;
        int32_t cp = char_at(here);
        size_t len = char_bytes(here);
        for (j = i + 1; j < x.last && strncmp(name[j] + x.at, here, len) == 0; j++) {
        }
        if (cp > next && !sd_dfa_edge_add(m, next, cp - 1, 1)) return false;
        if (*n >= SD_DFA_STATES || !sd_dfa_edge_add(m, cp, cp, *n)) return false;
        p[(*n)++] = (prefix){i, j, x.at + len};
        next = cp + 1;
    }
    return sd_dfa_edge_add(m, next, 0x10FFFF, 1);
}

int sd_gb_json_other_key(sd_grammar_builder *b, const char *const *name, int n) {
    sd_error err = {0};
    sd_dfa_maker m = {0};
    sd_dfa *d = NULL;
    if (b->err.status) return -1;
    const char **sorted = sd_alloc((size_t)n + 1, sizeof *sorted);
    prefix *p = sd_alloc(SD_DFA_STATES, sizeof *p);
    bool ok = sorted && p;
    int states = 2;
    if (ok) {
        memcpy(sorted, name, (size_t)n * sizeof *name);
        qsort(sorted, (size_t)n, sizeof *sorted, by_text);
        p[0] = (prefix){0, n, 0};
    }
    for (int k = 0; ok && k < states; k++)
        ok = k == 1 ? sd_dfa_state(&m, true) && sd_dfa_edge_add(&m, 1, 0x10FFFF, 1)
                    : key_edges(&m, sorted, p, &states, k);
    free(sorted), free(p);
    if (!ok || sd_dfa_finish(&d, &m, &err) != SD_OK) {
        free(m.first), free(m.edge), free(m.accept);
        return sd_gb_fail(b, SD_ELIMIT,
                          "the names of an object's properties take more than %d states; shorten "
                          "them or set additionalProperties to false",
                          SD_DFA_STATES);
    }
    int quote = sd_gb_text(b, "\"");
    int e[] = {quote, sd_gb_dfa(b, d, true), quote};
    return sd_gb_seq(b, e, 3);
}

// ---- numbers

static int digits(sd_grammar_builder *b, int min, int max) {
    return sd_gb_repeat(b, one_of(b, "0123456789"), min, max);
}

// -?(0|[1-9]\d{0,17}), without -0: integers that 64 bits hold.
static int whole(sd_grammar_builder *b, bool minus_zero) {
    int positive[] = {one_of(b, "123456789"), digits(b, 0, 17)};
    int some = sd_gb_seq(b, positive, 2), zero = sd_gb_text(b, "0");
    int minus = sd_gb_text(b, "-");
    if (minus_zero) {
        int any[] = {zero, some};
        int e[] = {sd_gb_repeat(b, minus, 0, 1), sd_gb_any_of(b, any, 2)};
        return sd_gb_seq(b, e, 2);
    }
    int e[] = {sd_gb_repeat(b, minus, 0, 1), some};
    int any[] = {zero, sd_gb_seq(b, e, 2)};
    return sd_gb_any_of(b, any, 2);
}

int sd_gb_json_integer(sd_grammar_builder *b) {
    return whole(b, false);
}

int sd_gb_json_number(sd_grammar_builder *b) {
    int point[] = {sd_gb_text(b, "."), digits(b, 1, 16)};
    int power[] = {one_of(b, "eE"), sd_gb_repeat(b, one_of(b, "+-"), 0, 1), digits(b, 1, 2)};
    int e[] = {whole(b, true), sd_gb_repeat(b, sd_gb_seq(b, point, 2), 0, 1),
               sd_gb_repeat(b, sd_gb_seq(b, power, 3), 0, 1)};
    return sd_gb_seq(b, e, 3);
}

// ---- containers

// Items with commas between them, min to max of them.
static int list_of(sd_grammar_builder *b, int item, int min, int max) {
    if (max == 0) return sd_gb_empty(b);
    int further[] = {sd_gb_json_comma(b), item};
    int rest =
        sd_gb_repeat(b, sd_gb_seq(b, further, 2), min > 0 ? min - 1 : 0, max < 0 ? -1 : max - 1);
    int e[] = {item, rest}, some = sd_gb_seq(b, e, 2);
    return min > 0 ? some : sd_gb_repeat(b, some, 0, 1);
}

int sd_gb_json_object_of(sd_grammar_builder *b, int value, int min, int max) {
    int pair[] = {sd_gb_json_string(b, 0, -1), sd_gb_json_colon(b), value};
    int e[] = {sd_gb_text(b, "{"), list_of(b, sd_gb_seq(b, pair, 3), min, max), sd_gb_text(b, "}")};
    return sd_gb_seq(b, e, 3);
}

int sd_gb_json_array_of(sd_grammar_builder *b, int item, int min, int max) {
    int e[] = {sd_gb_text(b, "["), list_of(b, item, min, max), sd_gb_text(b, "]")};
    return sd_gb_seq(b, e, 3);
}

int sd_gb_json_value(sd_grammar_builder *b, int depth) {
    int value = -1;
    for (int d = 0; d <= depth; d++) {
        int any[8], n = 0;
        any[n++] = sd_gb_json_string(b, 0, -1);
        any[n++] = sd_gb_json_number(b);
        any[n++] = sd_gb_text(b, "true");
        any[n++] = sd_gb_text(b, "false");
        any[n++] = sd_gb_text(b, "null");
        if (d > 0) {
            any[n++] = sd_gb_json_object_of(b, value, 0, -1);
            any[n++] = sd_gb_json_array_of(b, value, 0, -1);
        }
        int rule = sd_gb_rule(b);
        sd_gb_define(b, rule, sd_gb_any_of(b, any, n));
        value = sd_gb_ref(b, rule);
    }
    return value;
}

int sd_gb_json_object(sd_grammar_builder *b, int depth) {
    return sd_gb_json_object_of(b, sd_gb_json_value(b, depth - 1), 0, -1);
}

// ---- constants

static int scalar(sd_grammar_builder *b, const json_t *v) {
    char number[48];
    if (json_is_real(v) && sd_decimal_text(number, json_real_value(v)))
        return sd_gb_text(b, number);
    char *text = NULL;
    sd_error err;
    if (sd_json_dump(&text, v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17), &err) != SD_OK)
        return sd_gb_fail_with(b, &err);
    int e = sd_gb_text(b, text);
    free(text);
    return e;
}

static int members(sd_grammar_builder *b, const json_t *v) {
    bool object = json_is_object(v);
    int e = sd_gb_text(b, object ? "{" : "["), i = 0;
    void *at = object ? json_object_iter((json_t *)(uintptr_t)v) : NULL;
    for (; object ? at != NULL : i < (int)json_array_size(v); i++) {
        int part[5], n = 0;
        part[n++] = e;
        if (i > 0) part[n++] = sd_gb_json_comma(b);
        if (object) {
            json_t *key = json_string(json_object_iter_key(at));
            part[n++] = key ? scalar(b, key) : sd_gb_fail(b, SD_ENOMEM, "out of memory for a key");
            part[n++] = sd_gb_json_colon(b);
            json_decref(key);
        }
        part[n++] = sd_gb_json_constant(b, object ? json_object_iter_value(at)
                                                  : json_array_get(v, (size_t)i));
        e = sd_gb_seq(b, part, n);
        if (object) at = json_object_iter_next((json_t *)(uintptr_t)v, at);
    }
    int end[] = {e, sd_gb_text(b, object ? "}" : "]")};
    return sd_gb_seq(b, end, 2);
}

int sd_gb_json_constant(sd_grammar_builder *b, const json_t *value) {
    if (b->err.status) return -1;
    return json_is_object(value) || json_is_array(value) ? members(b, value) : scalar(b, value);
}
