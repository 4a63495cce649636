// JSON: the request's values in, tojson out. tojson is Python's json.dumps as transformers calls
// it: ensure_ascii false unless asked for, ", " and ": ", keys in their order.
#include "model/template/value/value.h"

#include "base/utf8.h"

#include <math.h>
#include <stdio.h>

enum { MAX_JSON_DEPTH = 200 };

static bool from_object(sd_render *r, const json_t *j, int depth, sd_value *out) {
    sd_dict *d = sd_dict_make(r, json_object_size(j));
    const char *key;
    json_t *item;
    if (!d) return false;
    json_object_foreach((json_t *)(uintptr_t)j, key, item) {
        sd_value k = sd_string(key, strlen(key)), v;
        if (!sd_from_json(r, item, depth + 1, &v)) return false;
        d->key[d->n] = k; // jansson's keys are unique
        d->value[d->n++] = v;
    }
    *out = sd_dict_value(d);
    return true;
}

static bool from_array(sd_render *r, const json_t *j, int depth, sd_value *out) {
    sd_list *l = sd_list_make(r, json_array_size(j));
    size_t i;
    json_t *item;
    sd_value v;
    if (!l) return false;
    json_array_foreach(j, i, item) if (!sd_from_json(r, item, depth + 1, &v) ||
                                       !sd_list_push(r, l, &v)) return false;
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}

bool sd_from_json(sd_render *r, const json_t *j, int depth, sd_value *out) {
    if (depth > MAX_JSON_DEPTH) return sd_render_limit(r, "depth");
    if (!sd_spend(r, 1)) return false;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return from_object(r, j, depth, out);
    case JSON_ARRAY:
        return from_array(r, j, depth, out);
    case JSON_STRING:
        *out = sd_string(json_string_value(j), json_string_length(j));
        return true;
    case JSON_INTEGER:
        *out = sd_int(json_integer_value(j));
        return true;
    case JSON_REAL:
        *out = sd_float(json_real_value(j));
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = sd_bool(json_is_true(j));
        return true;
    default:
        *out = sd_none();
        return true;
    }
}

// ---- tojson

typedef struct {
    sd_render *r;
    sd_buf *b;
    const sd_json_style *style;
} writer;

static bool put_unit(writer *w, unsigned unit) {
    char text[16];
    snprintf(text, sizeof text, "\\u%04x", unit & 0xFFFFu);
    return sd_puts(w->r, w->b, text);
}

static bool json_string_out(writer *w, sd_str s) {
    bool ok = sd_putc(w->r, w->b, '"') && sd_spend(w->r, s.n / SD_TMPL_SEARCH);
    for (size_t i = 0; ok && i < s.n;) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
        if (cp == '"' || cp == '\\')
            ok = sd_putc(w->r, w->b, '\\') && sd_putc(w->r, w->b, (char)cp);
        else if (cp == '\n')
            ok = sd_puts(w->r, w->b, "\\n");
        else if (cp == '\r')
            ok = sd_puts(w->r, w->b, "\\r");
        else if (cp == '\t')
            ok = sd_puts(w->r, w->b, "\\t");
        else if (cp == '\b')
            ok = sd_puts(w->r, w->b, "\\b");
        else if (cp == '\f')
            ok = sd_puts(w->r, w->b, "\\f");
        else if (cp < 0x20 || (w->style->ascii && cp == 0x7F))
            ok = put_unit(w, (unsigned)cp);
        else if (!w->style->ascii || cp < 0x7F)
            ok = sd_put(w->r, w->b, s.p + i, n);
        else if (cp < 0x10000)
            ok = put_unit(w, (unsigned)cp);
        else
            ok = put_unit(w, 0xD800u + ((unsigned)(cp - 0x10000) >> 10)) &&
                 put_unit(w, 0xDC00u + ((unsigned)cp & 0x3FF));
        i += n;
    }
    return ok && sd_putc(w->r, w->b, '"');
}

static bool line_break(writer *w, int depth) {
    if (!w->style->indent.p) return true;
    return sd_putc(w->r, w->b, '\n') && sd_put_times(w->r, w->b, w->style->indent, (size_t)depth);
}

static bool write_key(writer *w, const sd_value *k) {
    char text[40];
    switch (k->kind) {
    case SD_V_STRING:
        return json_string_out(w, k->s);
    case SD_V_BOOL:
        return sd_puts(w->r, w->b, k->b ? "\"true\"" : "\"false\"");
    case SD_V_NONE:
        return sd_puts(w->r, w->b, "\"null\"");
    case SD_V_INT:
    case SD_V_BIGINT:
        return sd_putc(w->r, w->b, '"') && sd_int_text(w->r, w->b, k) && sd_putc(w->r, w->b, '"');
    case SD_V_FLOAT:
        sd_format_float(text, k->f);
        return sd_putc(w->r, w->b, '"') && sd_puts(w->r, w->b, text) && sd_putc(w->r, w->b, '"');
    default:
        return sd_render_fail(w->r, "tojson: a %s cannot be a key", sd_kind_name(k));
    }
}

static bool write_value(writer *w, const sd_value *v, int depth);

// A dict's keys in their order, or sorted; each with its value.
static bool in_order(writer *w, const sd_dict *d, sd_keyed **out) {
    sd_keyed *k = *out = sd_render_alloc(w->r, d->n, sizeof *k);
    if (!k) return false;
    for (size_t i = 0; i < d->n; i++) k[i] = (sd_keyed){d->key[i], d->value[i]};
    return !w->style->sort || sd_sort(w->r, k, d->n, false);
}

static bool write_parts(writer *w, const sd_value *v, int depth) {
    bool dict = v->kind == SD_V_DICT;
    size_t n = dict ? v->dict->n : v->list->n;
    if (n == 0) return sd_puts(w->r, w->b, dict ? "{}" : "[]");
    sd_keyed *member = NULL;
    if (dict && !in_order(w, v->dict, &member)) return false;
    bool ok = sd_putc(w->r, w->b, dict ? '{' : '[');
    for (size_t i = 0; ok && i < n; i++) {
        if (i) ok = sd_put(w->r, w->b, w->style->item.p, w->style->item.n);
        ok = ok && line_break(w, depth + 1);
        if (ok && dict)
            ok = write_key(w, &member[i].key) &&
                 sd_put(w->r, w->b, w->style->key.p, w->style->key.n) &&
                 write_value(w, &member[i].item, depth + 1);
        else if (ok)
            ok = write_value(w, &v->list->item[i], depth + 1);
    }
    return ok && line_break(w, depth) && sd_putc(w->r, w->b, dict ? '}' : ']');
}

static bool write_value(writer *w, const sd_value *v, int depth) {
    char text[40];
    if (depth > MAX_JSON_DEPTH + 100) return sd_render_limit(w->r, "depth");
    if (!sd_spend(w->r, 1)) return false;
    switch (v->kind) {
    case SD_V_NONE:
        return sd_puts(w->r, w->b, "null");
    case SD_V_BOOL:
        return sd_puts(w->r, w->b, v->b ? "true" : "false");
    case SD_V_INT:
    case SD_V_BIGINT:
        return sd_int_text(w->r, w->b, v);
    case SD_V_FLOAT:
        sd_format_float(text, v->f);
        return sd_puts(w->r, w->b,
                       isnan(v->f)   ? "NaN"
                       : isinf(v->f) ? v->f > 0 ? "Infinity" : "-Infinity"
                                     : text);
    case SD_V_STRING:
        return json_string_out(w, v->s);
    case SD_V_LIST:
    case SD_V_TUPLE:
    case SD_V_DICT:
        return write_parts(w, v, depth);
    default:
        return sd_render_fail(w->r, "tojson: a %s is no JSON", sd_kind_name(v));
    }
}

bool sd_put_json(sd_render *r, sd_buf *b, const sd_value *v, const sd_json_style *style) {
    writer w = {.r = r, .b = b, .style = style};
    return write_value(&w, v, 0);
}
