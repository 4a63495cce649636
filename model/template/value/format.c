// format(value, spec) and format % values, as Python has them.
#include "model/template/value/value.h"

#include "base/utf8.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>

// [[fill]align][sign][#][0][width][grouping][.precision][type], also what stands behind a %.
typedef struct {
    sd_str fill;
    char align, sign, group, type; // 0: not given
    bool alternate, zero, has_precision;
    size_t width, precision;
} spec;

// ---- parts

static bool put_padded(sd_render *r, sd_buf *b, const spec *s, char align, sd_str head,
                       sd_str body) {
    size_t chars = sd_count_chars(head) + sd_count_chars(body);
    size_t pad = s->width > chars ? s->width - chars : 0;
    size_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    size_t middle = align == '=' ? pad : 0;
    return sd_put_times(r, b, s->fill, left) && sd_put(r, b, head.p, head.n) &&
           sd_put_times(r, b, s->fill, middle) && sd_put(r, b, body.p, body.n) &&
           sd_put_times(r, b, s->fill, pad - left - middle);
}

static size_t clip(sd_str s, size_t chars) { // bytes of so many characters
    size_t i = 0;
    for (; i < s.n && chars; chars--) {
        int32_t cp;
        i += (size_t)sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
    }
    return i;
}

static bool put_text(sd_render *r, sd_buf *b, const spec *s, char align, sd_str text) {
    if (!sd_spend_bytes(r, text.n)) return false;
    if (s->has_precision) text.n = clip(text, s->precision);
    return put_padded(r, b, s, align, (sd_str){0}, text);
}

// Writes the digits [n] of a whole part with a separator after each `every`, and with zeros in
// front so that there are `least` bytes or more.
static bool put_grouped(sd_render *r, sd_buf *b, sd_str digits, char separator, size_t every,
                        size_t least) {
    size_t n = digits.n;
    while (n + (n - 1) / every < least) n++;
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % every == 0 && !sd_putc(r, b, separator)) return false;
        if (!sd_putc(r, b, i + digits.n < n ? '0' : digits.p[i + digits.n - n])) return false;
    }
    return true;
}

// Writes a number: head is its sign and prefix, body its digits with whatever follows them.
static bool put_number(sd_render *r, sd_buf *b, const spec *s, sd_str head, sd_str body) {
    char align = s->align ? s->align : s->zero ? '=' : '>';
    sd_buf grouped = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!s->group) return put_padded(r, b, s, align, head, body);
    bool hex = s->type && strchr("boxX", s->type);
    size_t whole = 0, least = 0;
    while (whole < body.n && isxdigit((unsigned char)body.p[whole]) &&
           (hex || isdigit((unsigned char)body.p[whole])))
        whole++;
    if (align == '=' && s->fill.n == 1 && s->fill.p[0] == '0') {
        size_t others = head.n + body.n - whole;
        least = s->width > others ? s->width - others : 0;
        if (!sd_reserve_memory(r, least) || !sd_spend(r, least)) return false;
    }
    if (whole == 0) return put_padded(r, b, s, align, head, body); // inf, nan
    bool ok = put_grouped(r, &grouped, (sd_str){body.p, whole}, s->group, hex ? 4 : 3, least) &&
              sd_put(r, &grouped, body.p + whole, body.n - whole) &&
              put_padded(r, b, s, align, head, (sd_str){grouped.data, grouped.len});
    sd_drop(r, &grouped);
    return ok;
}

static const char *sign_text(bool minus, char sign) {
    return minus ? "-" : sign == '+' ? "+" : sign == ' ' ? " " : "";
}

// ---- ints

static bool put_character(sd_render *r, sd_buf *b, const spec *s, const sd_value *v) {
    char bytes[4];
    int64_t cp;
    if (!sd_small_int(v, &cp) || cp < 0 || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
        return sd_render_fail(r, "%%c takes the number of a character");
    size_t n = (size_t)sd_utf8_put(bytes, (int32_t)cp);
    return put_padded(r, b, s, s->align ? s->align : '<', (sd_str){0}, (sd_str){bytes, n});
}

static bool put_int(sd_render *r, sd_buf *b, const spec *s, const sd_value *v) {
    char head[8];
    char type = s->type ? s->type : 'd';
    int base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
    const char *prefix = base == 10 || !s->alternate ? ""
                         : type == 'x'               ? "0x"
                         : type == 'X'               ? "0X"
                         : type == 'o'               ? "0o"
                                                     : "0b";
    sd_buf digits = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    int n = snprintf(head, sizeof head, "%s%s", sign_text(sd_int_is_negative(v), s->sign), prefix);
    bool ok = sd_int_digits(r, &digits, v, base);
    for (size_t i = 0; ok && type == 'X' && i < digits.len; i++)
        digits.data[i] = (char)toupper((unsigned char)digits.data[i]);
    ok = ok && put_number(r, b, s, (sd_str){head, (size_t)n}, (sd_str){digits.data, digits.len});
    sd_drop(r, &digits);
    return ok;
}

// ---- floats

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static bool put_float(sd_render *r, sd_buf *b, double f, char kind, int precision, bool alternate) {
    char format[8];
    size_t room = (size_t)precision + 340;
    snprintf(format, sizeof format, "%%%s.*%c", alternate ? "#" : "", kind);
    if (!sd_spend(r, 16 + (size_t)precision)) return false;
    char *text = sd_render_alloc(r, room, 1);
    if (!text) return false;
    int n = snprintf(text, room, format, precision, f);
    return n >= 0 && sd_put(r, b, text, (size_t)n);
}
#pragma GCC diagnostic pop

static void strip_zeros(sd_buf *b) { // behind a point, before an exponent
    char *e = strpbrk(b->data, "eE"), *end = e ? e : b->data + b->len, *p = end;
    if (!memchr(b->data, '.', (size_t)(end - b->data))) return;
    while (p[-1] == '0') p--;
    if (p[-1] == '.') p--;
    memmove(p, end, (size_t)(b->data + b->len - end) + 1);
    b->len -= (size_t)(end - p);
}

// A float with a precision but no type is written as by %g, yet a fixed form keeps a digit behind
// the point.
static bool put_general(sd_render *r, sd_buf *b, double f, int precision, bool keep_zeros) {
    if (precision == 0) precision = 1;
    if (!put_float(r, b, f, 'e', precision - 1, keep_zeros)) return false;
    int exponent = atoi(strchr(b->data, 'e') + 1);
    if (exponent >= -4 && exponent < precision - 1) {
        b->len = 0;
        if (!put_float(r, b, f, 'f', precision - 1 - exponent, keep_zeros)) return false;
        if (!keep_zeros) strip_zeros(b);
        return strchr(b->data, '.') || sd_puts(r, b, ".0");
    }
    if (!keep_zeros) strip_zeros(b);
    return true;
}

static bool float_body(sd_render *r, sd_buf *b, const spec *s, double f) {
    char text[40], type = s->type;
    int precision = s->has_precision ? (int)s->precision : 6;
    if (isnan(f) || isinf(f)) {
        bool upper = type && isupper((unsigned char)type);
        return sd_puts(r, b,
                       isnan(f) ? upper ? "NAN" : "nan"
                       : upper  ? "INF"
                                : "inf") &&
               (type != '%' || sd_putc(r, b, '%'));
    }
    if (!type && !s->has_precision) {
        sd_format_float(text, f);
        char *e = strchr(text, 'e');
        if (s->alternate && e && !strchr(text, '.')) { // a point stands there in any case
            memmove(e + 1, e, strlen(e) + 1);
            *e = '.';
        }
        return sd_spend(r, 64) && sd_puts(r, b, text);
    }
    if (!type) return put_general(r, b, f, precision, s->alternate);
    if (type == '%')
        return put_float(r, b, f * 100, 'f', precision, s->alternate) && sd_putc(r, b, '%');
    return put_float(r, b, f, type == 'n' ? 'g' : type, precision, s->alternate);
}

static bool put_real(sd_render *r, sd_buf *b, const spec *s, double f) {
    sd_buf body = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    const char *sign = sign_text(signbit(f) && !isnan(f), s->sign);
    bool ok = float_body(r, &body, s, fabs(f)) &&
              put_number(r, b, s, (sd_str){sign, strlen(sign)}, (sd_str){body.data, body.len});
    sd_drop(r, &body);
    return ok;
}

// ---- format specifications

static bool read_size(sd_str *s, size_t *out) {
    size_t n = 0;
    *out = 0;
    for (; s->n && isdigit((unsigned char)s->p[0]); s->p++, s->n--, n++)
        *out = n < 10 ? *out * 10 + (size_t)(s->p[0] - '0') : SIZE_MAX / 2;
    return n > 0;
}

static bool take(sd_str *s, const char *any, char *out) {
    if (!s->n || !s->p[0] || !strchr(any, s->p[0])) return false;
    *out = s->p[0];
    s->p++;
    s->n--;
    return true;
}

static bool read_spec(sd_render *r, sd_str text, spec *out) {
    spec s = {.fill = SD_STR(" ")};
    sd_str left = text;
    int32_t cp;
    char c;
    size_t n = left.n ? (size_t)sd_utf8_next(left.p, left.n, &cp, NULL) : 0;
    if (n && n < left.n && left.p[n] && strchr("<>=^", left.p[n])) {
        s.fill = (sd_str){left.p, n};
        s.align = left.p[n];
        left.p += n + 1;
        left.n -= n + 1;
    } else {
        take(&left, "<>=^", &s.align);
    }
    bool filled = n && s.fill.p == text.p;
    take(&left, "+- ", &s.sign);
    s.alternate = take(&left, "#", &c);
    if (take(&left, "0", &c)) {
        if (!filled) s.fill = SD_STR("0");
        s.zero = !s.align;
    }
    read_size(&left, &s.width);
    take(&left, ",_", &s.group);
    bool ok = !take(&left, ".", &c) || (s.has_precision = read_size(&left, &s.precision));
    if (left.n == 1) s.type = left.p[0], left.n = 0;
    if (!ok || left.n || s.width > INT32_MAX || s.precision > INT32_MAX / 2)
        return sd_render_fail(r, "the format \"%.*s\" is not understood",
                              (int)(text.n < 64 ? text.n : 64), text.p);
    *out = s;
    return true;
}

static bool bad_spec(sd_render *r, const sd_value *v, sd_str text) {
    return sd_render_fail(r, "the format \"%.*s\" does not suit a %s",
                          (int)(text.n < 64 ? text.n : 64), text.p, sd_kind_name(v));
}

static bool is_one_of(char type, const char *types) {
    return type && strchr(types, type);
}

static bool format_number(sd_render *r, sd_buf *b, const sd_value *v, spec *s, sd_str text) {
    double f;
    bool whole = sd_is_int(v), as_float = is_one_of(s->type, "eEfFgG%");
    if (s->group && is_one_of(s->type, s->group == ',' ? "boxXcn" : "cn"))
        return bad_spec(r, v, text);
    if (!whole || as_float) {
        if (s->type && !as_float && s->type != 'n') return bad_spec(r, v, text);
        return sd_number(r, v, &f) && put_real(r, b, s, f);
    }
    if (s->has_precision || (s->type && !strchr("bcdoxXn", s->type))) return bad_spec(r, v, text);
    if (s->type == 'c')
        return s->sign || s->alternate ? bad_spec(r, v, text) : put_character(r, b, s, v);
    return put_int(r, b, s, v);
}

bool sd_format_value(sd_render *r, sd_buf *b, const sd_value *v, sd_str text) {
    spec s;
    if (text.n == 0) return sd_to_text(r, v, b, false, 0);
    if (!read_spec(r, text, &s)) return false;
    if (sd_is_int(v) || v->kind == SD_V_FLOAT) return format_number(r, b, v, &s, text);
    if (v->kind != SD_V_STRING || is_one_of(s.align, "=") || s.sign || s.alternate || s.group ||
        (s.type && s.type != 's'))
        return bad_spec(r, v, text);
    return put_text(r, b, &s, s.align ? s.align : '<', v->s);
}

// ---- %

typedef struct {
    sd_render *r;
    const sd_value *values;
    size_t next; // of a tuple
    bool markup, used;
} percent;

static bool next_value(percent *p, sd_value *out) {
    bool tuple = p->values->kind == SD_V_TUPLE;
    if (tuple ? p->next == p->values->list->n : p->used)
        return sd_render_fail(p->r, "a format has more places than values");
    *out = tuple ? p->values->list->item[p->next++] : *p->values;
    p->used = true;
    return true;
}

static bool named_value(percent *p, sd_str name, sd_value *out) {
    sd_value *v;
    if (p->values->kind != SD_V_DICT) return sd_render_fail(p->r, "a format needs a dict");
    if (!sd_dict_get(p->r, p->values->dict, name, &v)) return false;
    if (!v)
        return sd_render_fail(p->r, "a format's \"%.*s\" is not in the dict",
                              (int)(name.n < 64 ? name.n : 64), name.p);
    *out = *v;
    p->used = true;
    return true;
}

static bool read_star(percent *p, int64_t *out) {
    sd_value v;
    if (!next_value(p, &v)) return false;
    if (!sd_small_int(&v, out) || *out > INT32_MAX / 2 || *out < -INT32_MAX / 2)
        return sd_render_fail(p->r, "* takes a whole number");
    return true;
}

// Width and precision: digits or a star.
static bool read_numbers(percent *p, sd_str *left, spec *s) {
    int64_t n;
    char c;
    if (take(left, "*", &c)) {
        if (!read_star(p, &n)) return false;
        if (n < 0) s->align = '<';
        s->width = (size_t)(n < 0 ? -n : n);
    } else {
        read_size(left, &s->width);
    }
    if (!take(left, ".", &c)) return true;
    s->has_precision = true;
    if (!take(left, "*", &c)) {
        read_size(left, &s->precision);
        return true;
    }
    if (!read_star(p, &n)) return false;
    s->precision = n < 0 ? 0 : (size_t)n;
    return true;
}

static bool percent_int(percent *p, sd_buf *b, spec *s, const sd_value *v) {
    sd_render *r = p->r;
    sd_value whole = *v;
    bool decimal = strchr("diu", s->type) != NULL;
    if (!sd_is_int(v) && !(decimal && v->kind == SD_V_FLOAT))
        return sd_render_fail(r, "%%%c does not take a %s", s->type, sd_kind_name(v));
    if (v->kind == SD_V_FLOAT && !sd_int_from_double(r, v->f, &whole)) return false;
    if (decimal) s->type = 'd';
    if (!s->has_precision) return put_int(r, b, s, &whole);
    // The precision is the least number of digits: a width of its own, filled with zeros.
    spec digits = {.fill = SD_STR("0"), .zero = true, .width = s->precision, .type = s->type};
    sd_buf body = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_value size = whole;
    bool minus = sd_int_is_negative(&whole);
    char head[8];
    snprintf(head, sizeof head, "%s%s", sign_text(minus, s->sign),
             !s->alternate || s->type == 'd' ? ""
             : s->type == 'x'                ? "0x"
             : s->type == 'X'                ? "0X"
                                             : "0o");
    bool ok = (!minus || sd_int_negate(r, &whole, &size)) && put_int(r, &body, &digits, &size) &&
              put_number(r, b, s, (sd_str){head, strlen(head)}, (sd_str){body.data, body.len});
    sd_drop(r, &body);
    return ok;
}

static bool percent_text(percent *p, sd_buf *b, const spec *s, const sd_value *v) {
    sd_render *r = p->r;
    sd_buf text = sd_buf_make(SD_TMPL_MAX_OUTPUT), escaped = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_buf *from = &text;
    bool ok = sd_to_text(r, v, &text, s->type != 's', 0);
    if (ok && s->type == 'a') {
        ok = sd_put_ascii(r, &escaped, (sd_str){text.data, text.len});
        from = &escaped;
    } else if (ok && p->markup && !(v->kind == SD_V_STRING && v->markup && s->type == 's')) {
        ok = sd_escape(r, &escaped, (sd_str){text.data ? text.data : "", text.len});
        from = &escaped;
    }
    ok = ok && put_text(r, b, s, s->align ? s->align : '>',
                        (sd_str){from->data ? from->data : "", from->len});
    sd_drop(r, &text);
    sd_drop(r, &escaped);
    return ok;
}

static bool percent_value(percent *p, sd_buf *b, spec *s, const sd_value *v) {
    double f;
    if (strchr("sra", s->type)) {
        s->fill = SD_STR(" ");
        return percent_text(p, b, s, v);
    }
    if (s->zero && !s->align) s->fill = SD_STR("0");
    if (strchr("diuxXo", s->type)) return percent_int(p, b, s, v);
    if (strchr("eEfFgG", s->type)) {
        if (!sd_number(p->r, v, &f))
            return p->r->status == SD_OK &&
                   sd_render_fail(p->r, "%%%c does not take a %s", s->type, sd_kind_name(v));
        return put_real(p->r, b, s, f);
    }
    if (s->type != 'c')
        return sd_render_fail(p->r, "the format has an unknown %%%c",
                              isprint((unsigned char)s->type) ? s->type : '?');
    s->fill = SD_STR(" ");
    if (!s->align) s->align = '>';
    if (v->kind == SD_V_STRING && sd_count_chars(v->s) == 1)
        return put_padded(p->r, b, s, s->align, (sd_str){0}, v->s);
    return put_character(p->r, b, s, v);
}

// Writes one conversion. *left begins behind its '%'.
static bool convert(percent *p, sd_buf *b, sd_str *left) {
    spec s = {.fill = SD_STR(" ")};
    sd_value v;
    char c;
    bool named = false;
    if (take(left, "%", &c)) return sd_putc(p->r, b, '%');
    if (take(left, "(", &c)) {
        const char *start = left->p;
        int depth = 1;
        while (left->n && (depth += (left->p[0] == '(') - (left->p[0] == ')')) > 0)
            left->p++, left->n--;
        if (!left->n) return sd_render_fail(p->r, "a format is not finished");
        if (!named_value(p, (sd_str){start, (size_t)(left->p - start)}, &v)) return false;
        left->p++, left->n--;
        named = true;
    }
    while (take(left, "#0- +", &c)) {
        if (c == '#') s.alternate = true;
        if (c == '0') s.zero = true;
        if (c == '-') s.align = '<';
        if (c == '+' || (c == ' ' && s.sign != '+')) s.sign = c;
    }
    if (!read_numbers(p, left, &s)) return false;
    take(left, "hlL", &c);
    if (!left->n) return sd_render_fail(p->r, "a format is not finished");
    s.type = left->p[0];
    left->p++, left->n--;
    if (s.width > INT32_MAX || s.precision > INT32_MAX / 2)
        return sd_render_fail(p->r, "a format is too wide");
    return (named || next_value(p, &v)) && percent_value(p, b, &s, &v);
}

bool sd_percent_format(sd_render *r, const sd_value *format, const sd_value *values,
                       sd_value *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    percent p = {.r = r, .values = values, .markup = format->markup};
    sd_str left = format->s;
    while (left.n) {
        const char *hit = memchr(left.p, '%', left.n);
        size_t n = hit ? (size_t)(hit - left.p) : left.n;
        if (!sd_put(r, &b, left.p, n) || !sd_spend(r, 1)) return sd_drop(r, &b);
        left.p += n;
        left.n -= n;
        if (!left.n) break;
        left.p++, left.n--;
        if (!convert(&p, &b, &left)) return sd_drop(r, &b);
    }
    bool tuple = values->kind == SD_V_TUPLE;
    bool rest = tuple ? p.next < values->list->n
                      : !p.used && values->kind != SD_V_DICT && values->kind != SD_V_LIST &&
                            values->kind != SD_V_RANGE && !sd_is_undefined(values);
    if (rest) {
        sd_render_fail(r, "a format has fewer places than values");
        return sd_drop(r, &b);
    }
    if (!sd_keep(r, &b, out)) return false;
    out->markup = format->markup;
    return true;
}
