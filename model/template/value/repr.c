// str() and repr() of all values.
#include "model/template/value/value.h"

#include "base/utf8.h"

#include <math.h>
#include <stdio.h>

enum {
    MAX_VALUE_DEPTH = 300,
    FLOAT_STEPS = 64 // of finding a float's shortest decimal
};

// The shortest decimal that reads back as f, laid out as Python does.
void sd_format_float(char out[40], double f) {
    char digits[32];
    if (isnan(f) || isinf(f)) {
        snprintf(out, 40, "%s", isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && precision++ < 17);
    char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1);
    if (exponent >= -4 && exponent < 16) {
        int decimals = precision - exponent;
        snprintf(out, 40, "%.*f", decimals > 1 ? decimals : 1, f);
        return;
    }
    memcpy(out, digits, sizeof digits); // "1e+16", as Python writes it
}

// Writes a code point in the escape's format.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static bool put_code(sd_render *r, sd_buf *b, const char *format, unsigned code) {
    char text[16];
    snprintf(text, sizeof text, format, code);
    return sd_puts(r, b, text);
}

#pragma GCC diagnostic pop

static bool put_quoted(sd_render *r, sd_buf *b, sd_str s, bool bytes) {
    bool single = memchr(s.p, '\'', s.n) != NULL, twice = memchr(s.p, '"', s.n) != NULL;
    char quote = single && !twice ? '"' : '\'';
    bool ok = sd_spend(r, s.n / SD_TMPL_SEARCH) && sd_putc(r, b, quote);
    for (size_t i = 0; ok && i < s.n;) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
        if (bytes) cp = (unsigned char)s.p[i], n = 1;
        if (cp == quote || cp == '\\')
            ok = sd_putc(r, b, '\\') && sd_putc(r, b, (char)cp);
        else if (cp == '\n')
            ok = sd_puts(r, b, "\\n");
        else if (cp == '\r')
            ok = sd_puts(r, b, "\\r");
        else if (cp == '\t')
            ok = sd_puts(r, b, "\\t");
        else if (bytes ? cp >= 0x20 && cp < 0x7F : sd_is_printable(cp))
            ok = sd_put(r, b, s.p + i, n);
        else if (cp < 0x100)
            ok = put_code(r, b, "\\x%02x", (unsigned)cp);
        else if (cp < 0x10000)
            ok = put_code(r, b, "\\u%04x", (unsigned)cp);
        else
            ok = put_code(r, b, "\\U%08x", (unsigned)cp);
        i += n;
    }
    return ok && sd_putc(r, b, quote);
}

static bool repr_string(sd_render *r, sd_buf *b, const sd_value *v) {
    if (!v->markup) return put_quoted(r, b, v->s, false);
    return sd_puts(r, b, "Markup(") && put_quoted(r, b, v->s, false) && sd_putc(r, b, ')');
}

bool sd_put_ascii(sd_render *r, sd_buf *b, sd_str s) {
    bool ok = sd_spend(r, s.n / SD_TMPL_SEARCH);
    for (size_t i = 0; ok && i < s.n;) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
        ok = cp < 0x80      ? sd_put(r, b, s.p + i, n)
             : cp < 0x100   ? put_code(r, b, "\\x%02x", (unsigned)cp)
             : cp < 0x10000 ? put_code(r, b, "\\u%04x", (unsigned)cp)
                            : put_code(r, b, "\\U%08x", (unsigned)cp);
        i += n;
    }
    return ok;
}

static bool repr_bytes(sd_render *r, sd_buf *b, sd_str s) {
    return sd_putc(r, b, 'b') && put_quoted(r, b, s, true);
}

static bool text_of_range(sd_render *r, const sd_range *g, sd_buf *b) {
    char text[80];
    if (g->step == 1)
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)g->from, (long long)g->to);
    else
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)g->from, (long long)g->to,
                 (long long)g->step);
    return sd_puts(r, b, text);
}

// Writes an object of Jinja, if its text does not name its address.
static bool text_of_object(sd_render *r, const sd_value *v, sd_buf *b, int depth) {
    char text[64];
    sd_value part;
    switch (v->kind) {
    case SD_V_NAMESPACE:
        part = sd_dict_value(v->dict);
        return sd_puts(r, b, "<Namespace ") && sd_to_text(r, &part, b, true, depth + 1) &&
               sd_putc(r, b, '>');
    case SD_V_MACRO:
        part = sd_string(v->macro->name.p, v->macro->name.n);
        if (!v->macro->name.n) return sd_puts(r, b, "<Macro anonymous>");
        return sd_puts(r, b, "<Macro ") && put_quoted(r, b, part.s, false) && sd_putc(r, b, '>');
    case SD_V_LOOP:
        snprintf(text, sizeof text, "<LoopContext %zu/%zu>", v->loop->index0 + 1,
                 v->loop->items->n);
        return sd_puts(r, b, text);
    case SD_V_RANGE:
        return text_of_range(r, v->range, b);
    case SD_V_VIEW:
        part = sd_list_value(SD_V_LIST, v->iterable->items);
        return sd_puts(r, b, v->iterable->name) && sd_putc(r, b, '(') &&
               sd_to_text(r, &part, b, true, depth + 1) && sd_putc(r, b, ')');
    default:
        return sd_render_fail(r, "a %s has no text", sd_kind_name(v));
    }
}

static bool text_of_parts(sd_render *r, const sd_value *v, sd_buf *b, int depth) {
    bool dict = v->kind == SD_V_DICT, tuple = v->kind == SD_V_TUPLE;
    size_t n = dict ? v->dict->n : v->list->n;
    bool ok = sd_putc(r, b, dict ? '{' : tuple ? '(' : '[');
    for (size_t i = 0; ok && i < n; i++) {
        if (i) ok = sd_puts(r, b, ", ");
        if (ok && dict)
            ok = sd_to_text(r, &v->dict->key[i], b, true, depth + 1) && sd_puts(r, b, ": ") &&
                 sd_to_text(r, &v->dict->value[i], b, true, depth + 1);
        else if (ok)
            ok = sd_to_text(r, &v->list->item[i], b, true, depth + 1);
    }
    if (ok && tuple && n == 1) ok = sd_putc(r, b, ',');
    return ok && sd_putc(r, b, dict ? '}' : tuple ? ')' : ']');
}

bool sd_to_text(sd_render *r, const sd_value *v, sd_buf *b, bool repr, int depth) {
    char number[40];
    bool ok = false;
    if (depth > MAX_VALUE_DEPTH) return sd_render_limit(r, "depth");
    if (!sd_spend(r, 1)) return false;
    switch (v->kind) {
    case SD_V_UNDEFINED:
    case SD_V_UNSAFE:
        ok = !repr || sd_puts(r, b, "Undefined");
        break;
    case SD_V_NONE:
        ok = sd_puts(r, b, "None");
        break;
    case SD_V_BOOL:
        ok = sd_puts(r, b, v->b ? "True" : "False");
        break;
    case SD_V_INT:
    case SD_V_BIGINT:
        ok = sd_int_text(r, b, v);
        break;
    case SD_V_FLOAT:
        sd_format_float(number, v->f);
        ok = sd_spend(r, FLOAT_STEPS) && sd_puts(r, b, number);
        break;
    case SD_V_STRING:
        ok = repr ? repr_string(r, b, v) : sd_put(r, b, v->s.p, v->s.n);
        break;
    case SD_V_BYTES:
        ok = repr_bytes(r, b, v->s);
        break;
    case SD_V_LIST:
    case SD_V_TUPLE:
    case SD_V_DICT:
        ok = text_of_parts(r, v, b, depth);
        break;
    default:
        ok = text_of_object(r, v, b, depth);
    }
    return ok;
}

bool sd_text_of(sd_render *r, const sd_value *v, sd_str *out) {
    sd_value kept;
    if (v->kind == SD_V_STRING) {
        *out = v->s;
        return true;
    }
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!sd_to_text(r, v, &b, false, 0)) return sd_drop(r, &b);
    if (!sd_keep(r, &b, &kept)) return false;
    *out = kept.s;
    return true;
}
