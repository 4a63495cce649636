// Filters of texts, and those of any value.
#include "model/template/builtins/builtins.h"

#include "base/utf8.h"

#include <utf8proc.h>

// The input as a text; a Markup stays one.
static bool soft_text(sd_render *r, const sd_value *in, sd_value *out) {
    *out = (sd_value){.kind = SD_V_STRING, .markup = in->kind == SD_V_STRING && in->markup};
    return sd_text_of(r, in, &out->s);
}

// The method of a string, applied to the input's text.
static bool by_method(sd_render *r, const char *name, const sd_value *in, sd_args *a,
                      sd_value *out) {
    sd_value text;
    return soft_text(r, in, &text) && sd_call_method(r, name, &text, a, out);
}

SD_BUILTIN(filter_upper) {
    return by_method(r, "upper", in, a, out);
}

SD_BUILTIN(filter_lower) {
    return by_method(r, "lower", in, a, out);
}

SD_BUILTIN(filter_capitalize) {
    return by_method(r, "capitalize", in, a, out);
}

static bool begins_word(int32_t c) { // Jinja splits at [-\s({\[<]+
    return c == '-' || sd_is_pyspace(c) || c == '(' || c == '{' || c == '[' || c == '<';
}

// Writes one word with its first character in upper case and the others in lower case.
static bool put_titled(sd_render *r, sd_buf *b, sd_str s) {
    int32_t cp;
    sd_args none = {0};
    size_t n = s.n ? (size_t)sd_utf8_next(s.p, s.n, &cp, NULL) : 0;
    sd_value first = sd_string(s.p, n), rest = sd_string(s.p + n, s.n - n);
    return sd_call_method(r, "upper", &first, &none, &first) &&
           sd_call_method(r, "lower", &rest, &none, &rest) && sd_put(r, b, first.s.p, first.s.n) &&
           sd_put(r, b, rest.s.p, rest.s.n);
}

SD_BUILTIN(filter_title) {
    sd_value text;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    (void)a;
    if (!soft_text(r, in, &text) || !sd_spend(r, text.s.n / SD_TMPL_SEARCH)) return false;
    for (size_t from = 0, i = 0; from < text.s.n; from = i) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(text.s.p + i, text.s.n - i, &cp, NULL);
        bool between = begins_word(cp), same = true;
        while (i < text.s.n && same) {
            n = (size_t)sd_utf8_next(text.s.p + i, text.s.n - i, &cp, NULL);
            same = begins_word(cp) == between;
            if (same) i += n;
        }
        bool ok = between ? sd_put(r, &b, text.s.p + from, i - from)
                          : put_titled(r, &b, (sd_str){text.s.p + from, i - from});
        if (!ok) return sd_drop(r, &b);
    }
    return sd_keep(r, &b, out);
}

SD_BUILTIN(filter_trim) {
    sd_value chars;
    sd_args one = {.item = &chars, .n = sd_arg(a, 0, "chars", &chars)};
    return by_method(r, "strip", in, &one, out);
}

SD_BUILTIN(filter_center) {
    sd_value width = sd_int(80);
    sd_args one = {.item = &width, .n = 1};
    sd_arg(a, 0, "width", &width);
    return by_method(r, "center", in, &one, out);
}

SD_BUILTIN(filter_replace) {
    sd_value text = {.kind = SD_V_STRING}, what[3];
    sd_args b = {.item = what};
    static const char *const names[] = {"old", "new", "count"};
    if (!sd_text_of(r, in, &text.s)) return false;
    for (; b.n < 3 && sd_arg(a, b.n, names[b.n], &what[b.n]); b.n++)
        if (b.n < 2) {
            if (!sd_text_of(r, &what[b.n], &what[b.n].s)) return false;
            what[b.n].kind = SD_V_STRING;
        }
    return sd_call_method(r, "replace", &text, &b, out);
}

SD_BUILTIN(filter_string) {
    (void)a;
    return soft_text(r, in, out);
}

SD_BUILTIN(filter_default) {
    bool any = sd_arg_bool(a, 1, "boolean", false);
    sd_value other = sd_string("", 0);
    sd_arg(a, 0, "default_value", &other);
    *out = sd_is_undefined(in) || (any && !sd_truth(in)) ? other : *in;
    (void)r;
    return true;
}

SD_BUILTIN(filter_length) {
    int64_t n;
    (void)a;
    if (!sd_length(r, in, &n)) return false;
    *out = sd_int(n);
    return true;
}

SD_BUILTIN(filter_format) {
    sd_value text, values;
    sd_list all = {.item = a->item, .n = (size_t)a->n, .cap = (size_t)a->n};
    sd_dict *named = sd_dict_make(r, (size_t)a->n_named);
    if (!named || !soft_text(r, in, &text)) return false;
    if (a->n && a->n_named)
        return sd_render_fail(r, "format takes values with names or without, not both");
    for (int i = 0; i < a->n_named; i++) {
        sd_value key = sd_string(a->name[i].p, a->name[i].n);
        if (!sd_dict_put(r, named, &key, &a->named[i])) return false;
    }
    a->used = UINT64_MAX;
    values = a->n_named ? sd_dict_value(named) : sd_list_value(SD_V_TUPLE, &all);
    return sd_percent_format(r, &text, &values, out);
}

static bool is_word_char(int32_t cp) {
    utf8proc_category_t c = utf8proc_category(cp);
    return cp == '_' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) ||
           (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
}

SD_BUILTIN(filter_wordcount) {
    sd_value text;
    int64_t n = 0;
    bool inside = false;
    (void)a;
    if (!soft_text(r, in, &text) || !sd_spend(r, text.s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < text.s.n;) {
        int32_t cp;
        i += (size_t)sd_utf8_next(text.s.p + i, text.s.n - i, &cp, NULL);
        bool word = is_word_char(cp);
        n += word && !inside;
        inside = word;
    }
    *out = sd_int(n);
    return true;
}

// ---- tojson, pprint

static bool read_indent(sd_render *r, sd_args *a, sd_json_style *s) {
    sd_value v;
    if (!sd_arg(a, 1, "indent", &v) || v.kind == SD_V_NONE) return true;
    s->item = SD_STR(",");
    if (v.kind == SD_V_STRING) {
        s->indent = v.s;
        return true;
    }
    int64_t n;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!sd_small_int(&v, &n))
        return sd_render_fail(r, "tojson: indent must be a number or a string");
    if (!sd_put_times(r, &b, SD_STR(" "), n > 0 ? (size_t)n : 0)) return sd_drop(r, &b);
    if (!sd_keep(r, &b, &v)) return false;
    s->indent = v.s;
    return true;
}

static bool read_separators(sd_render *r, sd_args *a, sd_json_style *s) {
    sd_value v;
    if (!sd_arg(a, 2, "separators", &v) || v.kind == SD_V_NONE) return true;
    if (!sd_is_sequence(&v) || v.list->n != 2 || v.list->item[0].kind != SD_V_STRING ||
        v.list->item[1].kind != SD_V_STRING)
        return sd_render_fail(r, "tojson: separators must be two strings");
    s->item = v.list->item[0].s;
    s->key = v.list->item[1].s;
    return true;
}

SD_BUILTIN(filter_tojson) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_json_style s = {.item = SD_STR(", "), .key = SD_STR(": ")};
    s.ascii = sd_arg_bool(a, 0, "ensure_ascii", false);
    s.sort = sd_arg_bool(a, 3, "sort_keys", false);
    if (!read_indent(r, a, &s) || !read_separators(r, a, &s)) return false;
    return sd_put_json(r, &b, in, &s) ? sd_keep(r, &b, out) : sd_drop(r, &b);
}

SD_BUILTIN(filter_pprint) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    (void)a;
    return sd_put_pretty(r, &b, in) ? sd_keep(r, &b, out) : sd_drop(r, &b);
}

const sd_builtin_row sd_text_filters[] = {{"upper", filter_upper},
                                          {"lower", filter_lower},
                                          {"capitalize", filter_capitalize},
                                          {"title", filter_title},
                                          {"trim", filter_trim},
                                          {"replace", filter_replace},
                                          {"string", filter_string},
                                          {"default", filter_default},
                                          {"d", filter_default},
                                          {"length", filter_length},
                                          {"count", filter_length},
                                          {"center", filter_center},
                                          {"format", filter_format},
                                          {"wordcount", filter_wordcount},
                                          {"tojson", filter_tojson},
                                          {"pprint", filter_pprint},
                                          {NULL, NULL}};
