// Filters of single values: text, numbers, default, tojson. Those of sequences stand in
// template_sequences.c.
#include "model/template_internal.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>

#define FILTER(name) static bool name(sd_render *r, const sd_value *in, sd_args *a, sd_value *out)

// The method of a string, applied to the input's text.
static bool by_method(sd_render *r, const char *name, const sd_value *in, sd_args *a,
                      sd_value *out) {
    sd_value text = {.kind = SD_V_STRING};
    if (!sd_text_of(r, in, &text.s)) return false;
    return sd_find_method(&text, (sd_str){name, strlen(name)})(r, &text, a, out);
}

FILTER(filter_upper) {
    return by_method(r, "upper", in, a, out);
}
FILTER(filter_lower) {
    return by_method(r, "lower", in, a, out);
}
FILTER(filter_capitalize) {
    return by_method(r, "capitalize", in, a, out);
}

static bool begins_word(char c) { // Jinja splits at [-\s({\[<]+
    return c == '-' || isspace((unsigned char)c) || c == '(' || c == '{' || c == '[' || c == '<';
}

FILTER(filter_title) { // the letter that begins a word is large, the others small
    sd_value low;
    sd_str s;
    if (!by_method(r, "lower", in, a, &low)) return false;
    s = low.s;
    char *p = sd_render_alloc(r, s.n + 1, 1);
    if (!p) return false;
    memcpy(p, s.p, s.n);
    if (!sd_spend(r, s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < s.n; i++)
        if (i == 0 || begins_word(p[i - 1])) p[i] = (char)toupper((unsigned char)p[i]);
    *out = sd_string(p, s.n);
    return true;
}

FILTER(filter_trim) {
    sd_value chars, text = {.kind = SD_V_STRING};
    bool given = sd_arg(a, 0, "chars", &chars) && chars.kind != SD_V_NONE;
    if (given && chars.kind != SD_V_STRING) return sd_render_fail(r, "trim takes a string");
    if (!sd_text_of(r, in, &text.s)) return false;
    if (!sd_spend(r, text.s.n / SD_TMPL_SEARCH * (given ? chars.s.n / 4 + 1 : 1))) return false;
    text.s = sd_strip(text.s, true, true, given ? &chars.s : NULL);
    *out = text;
    return true;
}

FILTER(filter_replace) {
    sd_value text = {.kind = SD_V_STRING}, what[3];
    sd_args b = {.item = what};
    static const char *const names[] = {"old", "new", "count"};
    if (!sd_text_of(r, in, &text.s)) return false;
    for (; b.n < 3 && sd_arg(a, b.n, names[b.n], &what[b.n]); b.n++)
        if (b.n < 2) {
            if (!sd_text_of(r, &what[b.n], &what[b.n].s)) return false;
            what[b.n].kind = SD_V_STRING;
        }
    return sd_find_method(&text, SD_STR("replace"))(r, &text, &b, out);
}

FILTER(filter_string) {
    (void)a;
    out->kind = SD_V_STRING;
    return sd_text_of(r, in, &out->s);
}

FILTER(filter_safe) {
    return filter_string(r, in, a, out);
}

FILTER(filter_escape) {
    static const struct {
        char c;
        const char *text;
    } rows[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_str s;
    bool ok = true;
    (void)a;
    if (!sd_text_of(r, in, &s) || !sd_spend(r, s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; ok && i < s.n; i++) {
        const char *as = NULL;
        for (size_t k = 0; k < 5; k++)
            if (rows[k].c == s.p[i]) as = rows[k].text;
        ok = as ? sd_puts(r, &b, as) : sd_putc(r, &b, s.p[i]);
    }
    if (ok) return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}

FILTER(filter_default) {
    bool any = sd_arg_bool(a, 1, "boolean", false);
    sd_value other = sd_string("", 0);
    sd_arg(a, 0, "default_value", &other);
    *out = in->kind == SD_V_UNDEFINED || (any && !sd_truth(in)) ? other : *in;
    (void)r;
    return true;
}

FILTER(filter_length) {
    int64_t n;
    (void)a;
    if (!sd_length(r, in, &n)) return false;
    *out = sd_int(n);
    return true;
}

FILTER(filter_abs) {
    (void)a;
    if (in->kind == SD_V_FLOAT)
        *out = sd_float(fabs(in->f));
    else if (in->kind == SD_V_INT && in->i != INT64_MIN)
        *out = sd_int(in->i < 0 ? -in->i : in->i);
    else if (in->kind == SD_V_BOOL)
        *out = sd_int(in->b);
    else
        return sd_render_fail(r, "abs does not take a %s", sd_kind_name(in));
    return true;
}

// The text without white space around it, 0-terminated, without underscores. False: no number.
static bool number_text(char out[64], sd_str s) {
    size_t k = 0;
    s = sd_strip(s, true, true, NULL);
    if (s.n == 0 || s.n > 63) return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '_') out[k++] = s.p[i];
    out[k] = '\0';
    return k > 0 && !isspace((unsigned char)out[0]);
}

static bool read_float(sd_str s, double *out) {
    char text[64], *end;
    if (!number_text(text, s) || strpbrk(text, "xXpP")) return false;
    *out = strtod(text, &end);
    return *end == '\0';
}

FILTER(filter_int) {
    sd_value other = sd_int(0);
    int64_t base = 10;
    double f;
    sd_arg(a, 0, "default", &other);
    if (!sd_arg_int(r, a, 1, "base", &base)) return false;
    *out = other;
    if (in->kind == SD_V_INT)
        *out = *in;
    else if (in->kind == SD_V_BOOL)
        *out = sd_int(in->b);
    else if (in->kind == SD_V_FLOAT ||
             (in->kind == SD_V_STRING && base == 10 && read_float(in->s, &f))) {
        if (in->kind == SD_V_FLOAT) f = in->f;
        if (fabs(f) < 9.2e18) *out = sd_int((int64_t)f);
    }
    if (in->kind == SD_V_STRING && (base == 0 || (base >= 2 && base <= 36))) {
        char text[64], *end;
        errno = 0;
        long long x = number_text(text, in->s) ? strtoll(text, &end, (int)base) : 0;
        if (number_text(text, in->s) && errno == 0 && *end == '\0') *out = sd_int(x);
    }
    return true;
}

FILTER(filter_float) {
    sd_value other = sd_float(0);
    double f;
    sd_arg(a, 0, "default", &other);
    *out = other;
    if (sd_number(in, &f) || (in->kind == SD_V_STRING && read_float(in->s, &f))) *out = sd_float(f);
    (void)r;
    return true;
}

FILTER(filter_round) {
    int64_t precision = 0;
    sd_str method = SD_STR("common");
    double f;
    if (!sd_arg_int(r, a, 0, "precision", &precision) || !sd_arg_string(r, a, 1, "method", &method))
        return false;
    if (!sd_number(in, &f)) return sd_render_fail(r, "round does not take a %s", sd_kind_name(in));
    if (precision < -300 || precision > 300)
        return sd_render_fail(r, "round: the precision is too large");
    double ten = pow(10, (double)precision);
    if (sd_str_is(method, "ceil"))
        f = ceil(f * ten) / ten;
    else if (sd_str_is(method, "floor"))
        f = floor(f * ten) / ten;
    else if (precision >= 0) { // the decimal nearest to the exact value, ties to even
        char text[700];
        snprintf(text, sizeof text, "%.*f", (int)precision, f);
        f = strtod(text, NULL);
    } else {
        f = nearbyint(f * ten) / ten;
    }
    bool whole = in->kind == SD_V_INT && sd_str_is(method, "common");
    *out = whole ? sd_int((int64_t)f) : sd_float(f);
    return true;
}

FILTER(filter_indent) {
    sd_value width = sd_int(4), text = {.kind = SD_V_STRING}, lines, none = sd_none();
    bool first = sd_arg_bool(a, 1, "first", false), blank = sd_arg_bool(a, 2, "blank", false);
    sd_args no = {.item = &none};
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    char spaces[256];
    sd_arg(a, 0, "width", &width);
    sd_str by = width.s;
    if (width.kind == SD_V_INT) {
        if (width.i > 256) return sd_render_fail(r, "indent: at most 256");
        by = (sd_str){spaces, width.i > 0 ? (size_t)width.i : 0};
        memset(spaces, ' ', by.n);
    } else if (width.kind != SD_V_STRING) {
        return sd_render_fail(r, "indent takes a number or a string");
    }
    if (!sd_text_of(r, in, &text.s) ||
        !sd_find_method(&text, SD_STR("splitlines"))(r, &text, &no, &lines))
        return false;
    // The last line end counts as one more, empty line.
    bool more = text.s.n == 0 || text.s.p[text.s.n - 1] == '\n';
    if (more) {
        sd_value empty = sd_string("", 0);
        if (text.s.n && !sd_list_push(r, lines.list, &empty)) return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < lines.list->n; i++) {
        sd_str line = lines.list->item[i].s;
        if (i) ok = sd_putc(r, &b, '\n');
        bool pad = i == 0 ? first : blank || line.n;
        ok = ok && (!pad || sd_put(r, &b, by.p, by.n)) && sd_put(r, &b, line.p, line.n) &&
             sd_spend(r, 1);
    }
    if (ok && first && lines.list->n == 0) ok = sd_put(r, &b, by.p, by.n);
    if (ok) return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}

FILTER(filter_format) {
    sd_str s;
    return sd_text_of(r, in, &s) && sd_percent_format(r, s, a->item, a->n, out);
}

FILTER(filter_wordcount) {
    sd_value words, none = sd_none();
    sd_args no = {.item = &none};
    (void)a;
    if (!by_method(r, "split", in, &no, &words)) return false;
    *out = sd_int((int64_t)words.list->n);
    return true;
}

static const struct {
    const char *name;
    sd_filter apply;
} FILTERS[] = {
    {"upper", filter_upper},     {"lower", filter_lower},     {"capitalize", filter_capitalize},
    {"title", filter_title},     {"trim", filter_trim},       {"replace", filter_replace},
    {"string", filter_string},   {"safe", filter_safe},       {"escape", filter_escape},
    {"e", filter_escape},        {"default", filter_default}, {"d", filter_default},
    {"length", filter_length},   {"count", filter_length},    {"abs", filter_abs},
    {"int", filter_int},         {"float", filter_float},     {"round", filter_round},
    {"indent", filter_indent},   {"format", filter_format},   {"wordcount", filter_wordcount},
    {"tojson", sd_filter_tojson}};

bool sd_apply_filter(sd_render *r, sd_str name, const sd_value *in, sd_args *a, sd_value *out) {
    sd_filter f = sd_find_sequence_filter(name);
    for (size_t i = 0; !f && i < sizeof FILTERS / sizeof *FILTERS; i++)
        if (sd_str_is(name, FILTERS[i].name)) f = FILTERS[i].apply;
    if (!f) return sd_render_fail(r, "there is no filter \"%.*s\"", (int)name.n, name.p);
    sd_value copy = *in; // out may be in
    return sd_spend(r, 1) && f(r, &copy, a, out) && sd_args_all_used(r, a, name);
}

// ---- printf-style formatting

typedef struct {
    char text[16]; // "%-08.3"
    char kind;
} conversion;

// Reads one conversion after '%'; the length, 0 when it is none.
static size_t read_conversion(conversion *c, const char *p, const char *end) {
    const char *start = p;
    size_t k = 0, digits = 0;
    c->text[k++] = '%';
    while (p < end && k < 13 && strchr("-+ #0.123456789", *p) && *p) {
        digits = isdigit((unsigned char)*p) ? digits + 1 : 0;
        if (digits > 3) return 0;
        c->text[k++] = *p++;
    }
    if (p == end) return 0;
    c->kind = *p++;
    c->text[k] = '\0';
    return (size_t)(p - start);
}

static bool put_number(sd_render *r, sd_buf *b, int n, const char *text) {
    return sd_spend(r, 16) && sd_put(r, b, text, (size_t)n);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static bool add_conversion(sd_render *r, sd_buf *b, const conversion *c, const sd_value *v) {
    char format[24], text[2048]; // a width and a precision have three digits at most
    double f = 0;
    sd_value x = *v;
    if (strchr("di", c->kind)) {
        if (!sd_number(v, &f))
            return sd_render_fail(r, "%%%c does not take a %s", c->kind, sd_kind_name(v));
        int64_t i = v->kind == SD_V_INT    ? v->i
                    : v->kind == SD_V_BOOL ? v->b
                    : fabs(f) < 9.2e18     ? (int64_t)f
                                           : 0;
        snprintf(format, sizeof format, "%s" PRId64, c->text);
        return put_number(r, b, snprintf(text, sizeof text, format, i), text);
    }
    if (strchr("xXo", c->kind) && v->kind == SD_V_INT && v->i >= 0) {
        snprintf(format, sizeof format, "%sll%c", c->text, c->kind);
        return put_number(r, b, snprintf(text, sizeof text, format, (long long)v->i), text);
    }
    if (strchr("fFeEgG", c->kind)) {
        if (!sd_number(v, &f))
            return sd_render_fail(r, "%%%c does not take a %s", c->kind, sd_kind_name(v));
        snprintf(format, sizeof format, "%s%c", c->text, c->kind);
        return put_number(r, b, snprintf(text, sizeof text, format, f), text);
    }
    if (!strchr("sr", c->kind) || strlen(c->text) > 1)
        return sd_render_fail(r, "the format \"%s%c\" is not supported", c->text, c->kind);
    if (c->kind == 's' && x.kind == SD_V_STRING) return sd_put(r, b, x.s.p, x.s.n);
    return sd_to_text(r, &x, b, c->kind == 'r', 0);
}
#pragma GCC diagnostic pop

bool sd_percent_format(sd_render *r, sd_str format, const sd_value *items, int n, sd_value *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    const char *p = format.p, *end = p + format.n;
    bool ok = true;
    int used = 0;
    while (ok && p < end) {
        conversion c;
        if (*p != '%') {
            ok = sd_putc(r, &b, *p++);
        } else if (p + 1 < end && p[1] == '%') {
            ok = sd_putc(r, &b, '%');
            p += 2;
        } else {
            size_t k = read_conversion(&c, p + 1, end);
            if (k == 0)
                ok = sd_render_fail(r, "a format is not finished");
            else if (used == n)
                ok = sd_render_fail(r, "a format has more places than values");
            else
                ok = add_conversion(r, &b, &c, &items[used++]);
            p += k + 1;
        }
    }
    if (ok && used < n) ok = sd_render_fail(r, "a format has fewer places than values");
    if (ok) return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}
