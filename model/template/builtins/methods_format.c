// str.format and str.format_map: {} {0} {name} {0.attribute[key]!r:spec}, with fields in the
// specification. Attributes and items are reached as templates reach them, by the functions that
// the caller hands in.
#include "model/template/builtins/builtins.h"

#include <ctype.h>

typedef struct {
    sd_render *r;
    sd_args *args;
    sd_dict *map; // of format_map, or NULL
    const sd_reach *reach;
    bool markup;
    int64_t automatic; // the next {}; -1: fields are numbered by hand
} formatter;

static bool numbered(sd_str s, int64_t *out) {
    *out = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (!isdigit((unsigned char)s.p[i]) || i > 8) return false;
        *out = *out * 10 + (s.p[i] - '0');
    }
    return s.n > 0;
}

static bool by_position(formatter *f, int64_t i, sd_value *out) {
    if (f->map || i >= f->args->n)
        return sd_render_fail(f->r, "format: there is no value %lld", (long long)i);
    *out = f->args->item[i];
    return true;
}

static bool by_name(formatter *f, sd_str name, sd_value *out) {
    sd_value *v = NULL;
    if (f->map && !sd_dict_get(f->r, f->map, name, &v)) return false;
    for (int i = 0; !f->map && i < f->args->n_named; i++)
        if (sd_str_eq(f->args->name[i], name)) v = &f->args->named[i];
    if (!v)
        return sd_render_fail(f->r, "format: there is no value \"%.*s\"",
                              (int)(name.n < 64 ? name.n : 64), name.p);
    *out = *v;
    return true;
}

static bool first_value(formatter *f, sd_str name, sd_value *out) {
    int64_t i;
    bool number = numbered(name, &i);
    if (name.n == 0) {
        if (f->automatic < 0)
            return sd_render_fail(f->r, "format: {} stands beside fields with numbers");
        return by_position(f, f->automatic++, out);
    }
    if (!number) return by_name(f, name, out);
    if (f->automatic > 0)
        return sd_render_fail(f->r, "format: {} stands beside fields with numbers");
    f->automatic = -1;
    return by_position(f, i, out);
}

// "name.attribute[key]" in s.
static bool field_value(formatter *f, sd_str s, sd_value *out) {
    size_t n = 0;
    int64_t i;
    while (n < s.n && s.p[n] != '.' && s.p[n] != '[') n++;
    if (!first_value(f, (sd_str){s.p, n}, out)) return false;
    while (n < s.n) {
        char how = s.p[n++];
        size_t from = n;
        if (how != '.' && how != '[') return sd_render_fail(f->r, "format: a field is malformed");
        while (n < s.n && (how == '[' ? s.p[n] != ']' : s.p[n] != '.' && s.p[n] != '[')) n++;
        sd_str part = {s.p + from, n - from};
        sd_value of = *out, key = sd_string(part.p, part.n);
        if (part.n == 0 || (how == '[' && n++ == s.n))
            return sd_render_fail(f->r, "format: a field is malformed");
        if (how == '[' && numbered(part, &i)) key = sd_int(i);
        bool ok = how == '[' ? f->reach->item(f->r, &of, &key, out)
                             : f->reach->attribute(f->r, &of, part, out);
        if (!ok) return false;
    }
    return true;
}

static bool converted(formatter *f, char how, sd_value *v) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_value text;
    if (!sd_to_text(f->r, v, &b, how != 's', 0) || !sd_keep(f->r, &b, &text))
        return sd_drop(f->r, &b);
    *v = text;
    if (how != 'a') return true;
    return (sd_put_ascii(f->r, &b, text.s) && sd_keep(f->r, &b, v)) || sd_drop(f->r, &b);
}

static bool expand(formatter *f, sd_buf *b, sd_str s, int depth);

static bool put_field(formatter *f, sd_buf *b, const sd_value *v, sd_str spec) {
    sd_buf text = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    bool escaped = v->kind == SD_V_STRING && v->markup;
    if (!f->markup || escaped) return sd_format_value(f->r, b, v, spec);
    bool ok = sd_format_value(f->r, &text, v, spec) &&
              sd_escape(f->r, b, (sd_str){text.data ? text.data : "", text.len});
    sd_drop(f->r, &text);
    return ok;
}

// Writes the replacement for s, the text between { and }.
static bool put_replacement(formatter *f, sd_buf *b, sd_str s, int depth) {
    size_t n = 0;
    sd_value v;
    sd_buf spec = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    for (bool in_key = false; n < s.n && (in_key || (s.p[n] != '!' && s.p[n] != ':')); n++)
        in_key = s.p[n] == '[' || (in_key && s.p[n] != ']');
    if (!sd_spend(f->r, 4) || !field_value(f, (sd_str){s.p, n}, &v)) return false;
    if (n < s.n && s.p[n] == '!') {
        char how = n + 1 < s.n ? s.p[n + 1] : 0;
        if (!how || !strchr("rsa", how) || (n + 2 < s.n && s.p[n + 2] != ':'))
            return sd_render_fail(f->r, "format: an unknown conversion");
        if (!converted(f, how, &v)) return false;
        n += 2;
    }
    if (n < s.n) n++; // :
    bool ok = expand(f, &spec, (sd_str){s.p + n, s.n - n}, depth + 1) &&
              put_field(f, b, &v, (sd_str){spec.data ? spec.data : "", spec.len});
    sd_drop(f->r, &spec);
    return ok;
}

// The length of s up to its closing brace, s.n when there is none.
static size_t closing(sd_str s) {
    size_t n = 0;
    for (int open = 1; n < s.n; n++) {
        open += (s.p[n] == '{') - (s.p[n] == '}');
        if (open == 0) break;
    }
    return n;
}

static bool expand(formatter *f, sd_buf *b, sd_str s, int depth) {
    if (depth > 2) return sd_render_fail(f->r, "format: fields are nested too deeply");
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool twice = i + 1 < s.n && s.p[i + 1] == c;
        if (c != '{' && c != '}') {
            if (!sd_putc(f->r, b, c)) return false;
        } else if (twice && depth == 0) {
            if (!sd_putc(f->r, b, c)) return false;
            i++;
        } else {
            size_t n = c == '{' ? closing((sd_str){s.p + i + 1, s.n - i - 1}) : s.n;
            if (i + 1 + n >= s.n) return sd_render_fail(f->r, "format: a brace stands alone");
            if (!put_replacement(f, b, (sd_str){s.p + i + 1, n}, depth)) return false;
            i += n + 1;
        }
    }
    return true;
}

bool sd_format_fields(sd_render *r, const sd_value *format, sd_args *a, sd_dict *map,
                      const sd_reach *reach, sd_value *out) {
    formatter f = {.r = r, .args = a, .map = map, .reach = reach, .markup = format->markup};
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!sd_spend(r, format->s.n / SD_TMPL_SEARCH) || !expand(&f, &b, format->s, 0))
        return sd_drop(r, &b);
    if (!sd_keep(r, &b, out)) return false;
    out->markup = format->markup;
    return true;
}
