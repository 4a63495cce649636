// Filters of HTML and of addresses.
#include "model/template/builtins/builtins.h"

#include "base/utf8.h"

#include <ctype.h>

static bool as_markup(sd_render *r, sd_buf *b, sd_value *out) {
    if (!sd_keep(r, b, out)) return false;
    out->markup = true;
    return true;
}

SD_BUILTIN(filter_safe) {
    (void)a;
    *out = (sd_value){.kind = SD_V_STRING, .markup = true};
    return sd_text_of(r, in, &out->s);
}

SD_BUILTIN(filter_escape) {
    (void)a;
    *out = (sd_value){.kind = SD_V_STRING, .markup = true};
    return sd_escaped_text(r, in, &out->s);
}

SD_BUILTIN(filter_forceescape) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_str s;
    (void)a;
    if (!sd_text_of(r, in, &s)) return false;
    return sd_escape(r, &b, s) ? as_markup(r, &b, out) : sd_drop(r, &b);
}

SD_BUILTIN(filter_xmlattr) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    bool space = sd_arg_bool(a, 0, "autospace", true), ok = true;
    if (in->kind != SD_V_DICT)
        return sd_render_fail(r, "xmlattr takes a dict, not a %s", sd_kind_name(in));
    for (size_t i = 0; ok && i < in->dict->n; i++) {
        const sd_value *k = &in->dict->key[i], *v = &in->dict->value[i];
        sd_str value;
        if (v->kind == SD_V_NONE || sd_is_undefined(v)) continue;
        ok = k->kind == SD_V_STRING || sd_render_fail(r, "xmlattr: a name must be a string");
        for (size_t c = 0; ok && c < k->s.n; c++)
            ok = !strchr(" \t\n\r\f\v/>=", k->s.p[c]) || !k->s.p[c] ||
                 sd_render_fail(r, "xmlattr: a name has a character that no name may have");
        ok = ok && sd_spend_bytes(r, k->s.n) && sd_escaped_text(r, v, &value) &&
             (!(b.len || space) || sd_putc(r, &b, ' ')) && sd_escape(r, &b, k->s) &&
             sd_puts(r, &b, "=\"") && sd_put(r, &b, value.p, value.n) && sd_putc(r, &b, '"');
    }
    return ok ? sd_keep(r, &b, out) : sd_drop(r, &b);
}

// ---- striptags

// The position behind a span that begins at i with `open` and ends with `close`; i when no such
// span begins there or it has no end.
static size_t span(sd_str s, size_t i, const char *open, const char *close) {
    sd_str left = {s.p + i, s.n - i};
    size_t n = strlen(open);
    if (left.n < n || memcmp(left.p, open, n) != 0) return i;
    const char *hit = sd_search(left, (sd_str){close, strlen(close)});
    return hit ? (size_t)(hit - s.p) + strlen(close) : i;
}

static bool without(sd_render *r, sd_str s, const char *open, const char *close, sd_value *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    bool unfinished = false; // a span without an end was met, so no later one has an end either
    if (!sd_spend(r, s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < s.n;) {
        size_t end = s.p[i] == '<' && !unfinished ? span(s, i, open, close) : i;
        unfinished |=
            end == i && s.n - i >= strlen(open) && memcmp(s.p + i, open, strlen(open)) == 0;
        if (end == i && !sd_putc(r, &b, s.p[i])) return sd_drop(r, &b);
        i = end == i ? i + 1 : end;
    }
    return sd_keep(r, &b, out);
}

// A character reference at s, which begins with &: its code point and length, 0 when it is none.
static size_t reference(sd_str s, int32_t *cp) {
    static const struct {
        const char *name;
        int32_t cp;
    } rows[] = {{"&amp;", '&'},       {"&lt;", '<'},       {"&gt;", '>'},      {"&quot;", '"'},
                {"&apos;", '\''},     {"&nbsp;", 0xA0},    {"&copy;", 0xA9},   {"&reg;", 0xAE},
                {"&hellip;", 0x2026}, {"&ndash;", 0x2013}, {"&mdash;", 0x2014}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(rows[i].name);
        *cp = rows[i].cp;
        if (s.n >= n && memcmp(s.p, rows[i].name, n) == 0) return n;
    }
    if (s.n < 4 || s.p[1] != '#') return 0;
    bool hex = (s.p[2] | 0x20) == 'x';
    size_t i = hex ? 3 : 2, from = i;
    int64_t n = 0;
    for (; i < s.n && i < 12; i++) {
        int c = (unsigned char)s.p[i];
        if (hex ? !isxdigit(c) : !isdigit(c)) break;
        n = n * (hex ? 16 : 10) + (isdigit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (i == from || n == 0 || n > 0x10FFFF || (n >= 0xD800 && n < 0xE000)) return 0;
    *cp = (int32_t)n;
    return i + (i < s.n && s.p[i] == ';');
}

static bool unescape(sd_render *r, sd_str s, sd_value *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    for (size_t i = 0; i < s.n;) {
        char bytes[4];
        int32_t cp;
        size_t n = s.p[i] == '&' ? reference((sd_str){s.p + i, s.n - i}, &cp) : 0;
        bool ok = n ? sd_put(r, &b, bytes, (size_t)sd_utf8_put(bytes, cp)) : sd_putc(r, &b, s.p[i]);
        if (!ok) return sd_drop(r, &b);
        i += n ? n : 1;
    }
    return sd_keep(r, &b, out);
}

SD_BUILTIN(filter_striptags) {
    sd_value v, words, blank = sd_string(" ", 1);
    sd_str s;
    sd_args none = {0}, one = {.item = &words, .n = 1};
    (void)a;
    return sd_text_of(r, in, &s) && without(r, s, "<!--", "-->", &v) &&
           without(r, v.s, "<", ">", &v) && sd_call_method(r, "split", &v, &none, &words) &&
           sd_call_method(r, "join", &blank, &one, &v) && unescape(r, v.s, out);
}

// ---- urlencode

static bool quote(sd_render *r, sd_buf *b, const sd_value *v, bool query) {
    sd_str s;
    if (v->kind == SD_V_BYTES)
        s = v->s;
    else if (!sd_text_of(r, v, &s))
        return false;
    if (!sd_spend(r, s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < s.n; i++) {
        static const char hex[] = "0123456789ABCDEF";
        unsigned char c = (unsigned char)s.p[i];
        bool plain = isalnum(c) || (c && strchr("_.-~", c)) || (!query && c == '/');
        char code[3] = {'%', hex[c >> 4], hex[c & 15]};
        bool ok = plain               ? sd_putc(r, b, (char)c)
                  : query && c == ' ' ? sd_putc(r, b, '+')
                                      : sd_put(r, b, code, 3);
        if (!ok) return false;
    }
    return true;
}

static bool quote_pairs(sd_render *r, sd_buf *b, const sd_value *in) {
    sd_value items = *in;
    sd_list *l, *pair;
    sd_args none = {0};
    if (in->kind == SD_V_DICT && !sd_call_method(r, "items", in, &none, &items)) return false;
    if (!sd_iterate(r, &items, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (!sd_iterate(r, &l->item[i], &pair)) return false;
        if (pair->n != 2) return sd_render_fail(r, "urlencode takes pairs");
        if ((i && !sd_putc(r, b, '&')) || !quote(r, b, &pair->item[0], true) ||
            !sd_putc(r, b, '=') || !quote(r, b, &pair->item[1], true))
            return false;
    }
    return true;
}

static bool is_many(const sd_value *v) {
    return sd_is_sequence(v) || sd_is_undefined(v) || v->kind == SD_V_DICT ||
           v->kind == SD_V_RANGE || v->kind == SD_V_VIEW || v->kind == SD_V_ITERATOR;
}

SD_BUILTIN(filter_urlencode) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    (void)a;
    bool ok = is_many(in) ? quote_pairs(r, &b, in) : quote(r, &b, in, false);
    return ok ? sd_keep(r, &b, out) : sd_drop(r, &b);
}

SD_BUILTIN(filter_urlize) {
    (void)in, (void)a, (void)out;
    return sd_render_fail(r, "the filter urlize makes links for web pages and is not supported");
}

const sd_builtin_row sd_html_filters[] = {{"safe", filter_safe},
                                          {"escape", filter_escape},
                                          {"e", filter_escape},
                                          {"forceescape", filter_forceescape},
                                          {"xmlattr", filter_xmlattr},
                                          {"striptags", filter_striptags},
                                          {"urlencode", filter_urlencode},
                                          {"urlize", filter_urlize},
                                          {NULL, NULL}};
