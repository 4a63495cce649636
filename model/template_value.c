// Values with Python's meaning: truth, equality, order, iteration, str() and repr().
#include "model/template_internal.h"

#include "model/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <utf8proc.h>

enum { MAX_VALUE_DEPTH = 300 };

bool sd_render_fail(sd_render *r, const char *fmt, ...) {
    char what[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    r->status = sd_fail(r->err, SD_EINVAL, "chat template line %d: %s", r->line, what);
    return false;
}

bool sd_render_limit(sd_render *r, const char *what) {
    r->status = sd_fail(r->err, SD_ELIMIT,
                        "chat template line %d: the rendering needs more than the allowed %s; "
                        "shorten the conversation",
                        r->line, what);
    return false;
}

bool sd_spend(sd_render *r, size_t steps) {
    if (steps > (size_t)r->fuel) {
        r->fuel = 0;
        return sd_render_limit(r, "steps");
    }
    r->fuel -= (int64_t)steps;
    return true;
}

void *sd_render_alloc(sd_render *r, size_t count, size_t size) {
    void *p = sd_arena_alloc(&r->arena, count ? count : 1, size);
    if (!p) sd_render_limit(r, "memory");
    return p;
}

// ---- lists and dicts

sd_list *sd_list_make(sd_render *r, size_t cap) {
    sd_list *l = sd_render_alloc(r, 1, sizeof *l);
    if (!l) return NULL;
    l->cap = cap;
    l->item = cap ? sd_render_alloc(r, cap, sizeof *l->item) : NULL;
    return cap && !l->item ? NULL : l;
}

bool sd_list_push(sd_render *r, sd_list *l, const sd_value *v) {
    if (!sd_spend(r, 1)) return false;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        sd_value *p = sd_render_alloc(r, cap, sizeof *p);
        if (!p) return false;
        if (l->n) memcpy(p, l->item, l->n * sizeof *p);
        l->item = p;
        l->cap = cap;
    }
    l->item[l->n++] = *v;
    return true;
}

sd_dict *sd_dict_make(sd_render *r, size_t cap) {
    sd_dict *d = sd_render_alloc(r, 1, sizeof *d);
    if (!d) return NULL;
    d->cap = cap;
    d->key = cap ? sd_render_alloc(r, cap, sizeof *d->key) : NULL;
    d->value = cap ? sd_render_alloc(r, cap, sizeof *d->value) : NULL;
    return cap && (!d->key || !d->value) ? NULL : d;
}

const sd_value *sd_dict_get(const sd_dict *d, sd_str key) {
    for (size_t i = 0; i < d->n; i++)
        if (d->key[i].kind == SD_V_STRING && sd_str_eq(d->key[i].s, key)) return &d->value[i];
    return NULL;
}

const sd_value *sd_dict_find(sd_render *r, const sd_dict *d, const sd_value *key) {
    if (key->kind == SD_V_STRING) return sd_dict_get(d, key->s);
    for (size_t i = 0; i < d->n; i++)
        if (sd_equal(r, &d->key[i], key, 0)) return &d->value[i];
    return NULL;
}

bool sd_dict_put(sd_render *r, sd_dict *d, const sd_value *key, const sd_value *value) {
    if (key->kind > SD_V_STRING && key->kind != SD_V_TUPLE)
        return sd_render_fail(r, "a %s cannot be the key of a dict", sd_kind_name(key));
    if (!sd_spend(r, 1 + d->n / 8)) return false;
    const sd_value *old = sd_dict_find(r, d, key);
    if (old) {
        d->value[old - d->value] = *value;
        return true;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 8;
        sd_value *k = sd_render_alloc(r, cap, sizeof *k), *v = sd_render_alloc(r, cap, sizeof *v);
        if (!k || !v) return false;
        if (d->n) {
            memcpy(k, d->key, d->n * sizeof *k);
            memcpy(v, d->value, d->n * sizeof *v);
        }
        d->key = k;
        d->value = v;
        d->cap = cap;
    }
    d->key[d->n] = *key;
    d->value[d->n++] = *value;
    return true;
}

sd_value sd_list_value(sd_value_kind kind, sd_list *l) {
    return (sd_value){.kind = kind, .list = l};
}

sd_value sd_dict_value(sd_dict *d) {
    return (sd_value){.kind = SD_V_DICT, .dict = d};
}

// ---- questions

const char *sd_kind_name(const sd_value *v) {
    static const char *const names[] = {
        "undefined value", "NoneType", "bool",      "int",   "float",    "string", "list",
        "tuple",           "dict",     "namespace", "macro", "function", "method", "loop"};
    return names[v->kind];
}

bool sd_truth(const sd_value *v) {
    switch (v->kind) {
    case SD_V_UNDEFINED:
    case SD_V_NONE:
        return false;
    case SD_V_BOOL:
        return v->b;
    case SD_V_INT:
        return v->i != 0;
    case SD_V_FLOAT:
        return v->f != 0;
    case SD_V_STRING:
        return v->s.n > 0;
    case SD_V_LIST:
    case SD_V_TUPLE:
        return v->list->n > 0;
    case SD_V_DICT:
        return v->dict->n > 0;
    case SD_V_LOOP:
        return v->loop->items->n > 0;
    default:
        return true;
    }
}

bool sd_number(const sd_value *v, double *out) {
    if (v->kind == SD_V_BOOL)
        *out = v->b;
    else if (v->kind == SD_V_INT)
        *out = (double)v->i;
    else if (v->kind == SD_V_FLOAT)
        *out = v->f;
    else
        return false;
    return true;
}

static bool whole(const sd_value *v, int64_t *out) {
    if (v->kind == SD_V_BOOL)
        *out = v->b;
    else if (v->kind == SD_V_INT)
        *out = v->i;
    else
        return false;
    return true;
}

static bool equal_lists(sd_render *r, const sd_list *a, const sd_list *b, int depth) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!sd_equal(r, &a->item[i], &b->item[i], depth + 1)) return false;
    return true;
}

bool sd_equal(sd_render *r, const sd_value *a, const sd_value *b, int depth) {
    double x, y;
    int64_t i, j;
    if (depth > MAX_VALUE_DEPTH || !sd_spend(r, 1)) return false;
    if (whole(a, &i) && whole(b, &j)) return i == j;
    if (sd_number(a, &x) && sd_number(b, &y)) return x == y;
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case SD_V_UNDEFINED:
    case SD_V_NONE:
        return true;
    case SD_V_STRING:
        return sd_str_eq(a->s, b->s);
    case SD_V_LIST:
    case SD_V_TUPLE:
        return equal_lists(r, a->list, b->list, depth);
    case SD_V_DICT:
        if (a->dict->n != b->dict->n) return false;
        for (size_t k = 0; k < a->dict->n; k++) {
            const sd_value *other = sd_dict_find(r, b->dict, &a->dict->key[k]);
            if (!other || !sd_equal(r, &a->dict->value[k], other, depth + 1)) return false;
        }
        return true;
    case SD_V_NAMESPACE:
        return a->dict == b->dict;
    case SD_V_FUNCTION:
        return a->function == b->function;
    default:
        return a->macro == b->macro;
    }
}

static int sign_of(bool less, bool more) {
    return less ? -1 : more;
}

bool sd_compare(sd_render *r, const sd_value *a, const sd_value *b, int *order) {
    double x, y;
    int64_t i, j;
    if (!sd_spend(r, 1)) return false;
    if (whole(a, &i) && whole(b, &j)) {
        *order = sign_of(i<j, i> j);
    } else if (sd_number(a, &x) && sd_number(b, &y)) {
        *order = sign_of(x<y, x> y);
    } else if (a->kind == SD_V_STRING && b->kind == SD_V_STRING) {
        size_t n = a->s.n < b->s.n ? a->s.n : b->s.n;
        int c = n ? memcmp(a->s.p, b->s.p, n) : 0;
        *order = c ? sign_of(c<0, c> 0) : sign_of(a->s.n<b->s.n, a->s.n> b->s.n);
    } else if (sd_is_sequence(a) && a->kind == b->kind) {
        for (size_t k = 0; k < a->list->n && k < b->list->n; k++) {
            if (sd_equal(r, &a->list->item[k], &b->list->item[k], 0)) continue;
            if (r->depth >= SD_TMPL_MAX_CALLS) return sd_render_limit(r, "depth");
            r->depth++;
            bool ok = sd_compare(r, &a->list->item[k], &b->list->item[k], order);
            r->depth--;
            return ok;
        }
        *order = sign_of(a->list->n<b->list->n, a->list->n> b->list->n);
    } else {
        return sd_render_fail(r, "a %s and a %s have no order", sd_kind_name(a), sd_kind_name(b));
    }
    return true;
}

bool sd_contains(sd_render *r, const sd_value *in, const sd_value *what, bool *out) {
    *out = false;
    switch (in->kind) {
    case SD_V_UNDEFINED:
        return true;
    case SD_V_STRING:
        if (what->kind != SD_V_STRING)
            return sd_render_fail(r, "a %s cannot be in a string", sd_kind_name(what));
        *out =
            what->s.n == 0 || (in->s.n && memmem(in->s.p, in->s.n, what->s.p, what->s.n) != NULL);
        return sd_spend(r, 1 + in->s.n / 64);
    case SD_V_LIST:
    case SD_V_TUPLE:
        for (size_t i = 0; i < in->list->n && !*out; i++)
            *out = sd_equal(r, &in->list->item[i], what, 0);
        return r->status == SD_OK;
    case SD_V_DICT:
        *out = sd_dict_find(r, in->dict, what) != NULL;
        return sd_spend(r, 1 + in->dict->n / 8);
    default:
        return sd_render_fail(r, "nothing is in a %s", sd_kind_name(in));
    }
}

size_t sd_count_chars(sd_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

bool sd_length(sd_render *r, const sd_value *v, int64_t *out) {
    switch (v->kind) {
    case SD_V_UNDEFINED:
        *out = 0;
        return true;
    case SD_V_STRING:
        *out = (int64_t)sd_count_chars(v->s);
        return sd_spend(r, 1 + v->s.n / 64);
    case SD_V_LIST:
    case SD_V_TUPLE:
        *out = (int64_t)v->list->n;
        return true;
    case SD_V_DICT:
        *out = (int64_t)v->dict->n;
        return true;
    case SD_V_LOOP:
        *out = (int64_t)v->loop->items->n;
        return true;
    default:
        return sd_render_fail(r, "a %s has no length", sd_kind_name(v));
    }
}

bool sd_iterate(sd_render *r, const sd_value *v, sd_list **out) {
    sd_list *l;
    switch (v->kind) {
    case SD_V_UNDEFINED:
        return (*out = sd_list_make(r, 0)) != NULL;
    case SD_V_LIST:
    case SD_V_TUPLE:
        *out = v->list;
        return true;
    case SD_V_DICT:
        if (!(*out = l = sd_list_make(r, v->dict->n))) return false;
        for (size_t i = 0; i < v->dict->n; i++)
            if (!sd_list_push(r, l, &v->dict->key[i])) return false;
        return true;
    case SD_V_STRING:
        if (!(*out = l = sd_list_make(r, v->s.n))) return false;
        for (size_t i = 0; i < v->s.n;) {
            int32_t cp;
            size_t n = (size_t)sd_utf8_next(v->s.p + i, v->s.n - i, &cp, NULL);
            sd_value c = sd_string(v->s.p + i, n);
            if (!sd_list_push(r, l, &c)) return false;
            i += n;
        }
        return true;
    default:
        return sd_render_fail(r, "a %s cannot be looped over", sd_kind_name(v));
    }
}

// ---- text

bool sd_is_pyspace(int32_t cp) {
    return (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

static bool is_stripped(int32_t cp, const sd_str *chars) {
    if (!chars) return sd_is_pyspace(cp);
    for (size_t i = 0; i < chars->n;) {
        int32_t c;
        i += (size_t)sd_utf8_next(chars->p + i, chars->n - i, &c, NULL);
        if (c == cp) return true;
    }
    return false;
}

sd_str sd_strip(sd_str s, bool left, bool right, const sd_str *chars) {
    int32_t cp;
    while (left && s.n) {
        size_t n = (size_t)sd_utf8_next(s.p, s.n, &cp, NULL);
        if (!is_stripped(cp, chars)) break;
        s.p += n;
        s.n -= n;
    }
    while (right && s.n) {
        size_t i = s.n - 1;
        while (i > 0 && ((unsigned char)s.p[i] & 0xC0) == 0x80) i--;
        sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
        if (!is_stripped(cp, chars)) break;
        s.n = i;
    }
    return s;
}

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

static bool printable(int32_t cp) {
    utf8proc_category_t c = utf8proc_category(cp);
    return cp == ' ' ||
           !(c == UTF8PROC_CATEGORY_CN || c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF ||
             c == UTF8PROC_CATEGORY_CS || c == UTF8PROC_CATEGORY_CO || c == UTF8PROC_CATEGORY_ZL ||
             c == UTF8PROC_CATEGORY_ZP || c == UTF8PROC_CATEGORY_ZS);
}

static bool repr_string(sd_buf *b, sd_str s) {
    bool single = memchr(s.p, '\'', s.n) != NULL, twice = memchr(s.p, '"', s.n) != NULL;
    char quote = single && !twice ? '"' : '\'';
    bool ok = sd_buf_addc(b, quote);
    for (size_t i = 0; ok && i < s.n;) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
        if (cp == quote || cp == '\\')
            ok = sd_buf_printf(b, "\\%c", (char)cp);
        else if (cp == '\n')
            ok = sd_buf_adds(b, "\\n");
        else if (cp == '\r')
            ok = sd_buf_adds(b, "\\r");
        else if (cp == '\t')
            ok = sd_buf_adds(b, "\\t");
        else if (printable(cp))
            ok = sd_buf_add(b, s.p + i, n);
        else if (cp < 0x100)
            ok = sd_buf_printf(b, "\\x%02x", (unsigned)cp);
        else if (cp < 0x10000)
            ok = sd_buf_printf(b, "\\u%04x", (unsigned)cp);
        else
            ok = sd_buf_printf(b, "\\U%08x", (unsigned)cp);
        i += n;
    }
    return ok && sd_buf_addc(b, quote);
}

static bool text_of_parts(sd_render *r, const sd_value *v, sd_buf *b, int depth) {
    bool dict = v->kind == SD_V_DICT, tuple = v->kind == SD_V_TUPLE;
    size_t n = dict ? v->dict->n : v->list->n;
    bool ok = sd_buf_addc(b, dict ? '{' : tuple ? '(' : '[');
    for (size_t i = 0; ok && i < n; i++) {
        if (i) ok = sd_buf_adds(b, ", ");
        if (ok && dict)
            ok = sd_to_text(r, &v->dict->key[i], b, true, depth + 1) && sd_buf_adds(b, ": ") &&
                 sd_to_text(r, &v->dict->value[i], b, true, depth + 1);
        else if (ok)
            ok = sd_to_text(r, &v->list->item[i], b, true, depth + 1);
    }
    if (ok && tuple && n == 1) ok = sd_buf_addc(b, ',');
    return ok && sd_buf_addc(b, dict ? '}' : tuple ? ')' : ']');
}

bool sd_to_text(sd_render *r, const sd_value *v, sd_buf *b, bool repr, int depth) {
    char number[40];
    bool ok = false;
    if (depth > MAX_VALUE_DEPTH) return sd_render_limit(r, "depth");
    if (!sd_spend(r, 1)) return false;
    switch (v->kind) {
    case SD_V_UNDEFINED:
        ok = !repr || sd_buf_adds(b, "Undefined");
        break;
    case SD_V_NONE:
        ok = sd_buf_adds(b, "None");
        break;
    case SD_V_BOOL:
        ok = sd_buf_adds(b, v->b ? "True" : "False");
        break;
    case SD_V_INT:
        ok = sd_buf_printf(b, "%" PRId64, v->i);
        break;
    case SD_V_FLOAT:
        sd_format_float(number, v->f);
        ok = sd_buf_adds(b, number);
        break;
    case SD_V_STRING:
        if (!sd_spend(r, v->s.n / 32)) return false;
        ok = repr ? repr_string(b, v->s) : sd_buf_add(b, v->s.p, v->s.n);
        break;
    case SD_V_LIST:
    case SD_V_TUPLE:
    case SD_V_DICT:
        ok = text_of_parts(r, v, b, depth);
        break;
    default:
        return sd_render_fail(r, "a %s has no text", sd_kind_name(v));
    }
    if (!ok && r->status == SD_OK) sd_render_limit(r, "output");
    return ok;
}

bool sd_keep(sd_render *r, sd_buf *b, sd_value *out) {
    char *p = sd_render_alloc(r, b->len + 1, 1);
    if (p && b->len) memcpy(p, b->data, b->len);
    *out = sd_string(p, b->len);
    sd_buf_free(b);
    return p != NULL;
}

bool sd_text_of(sd_render *r, const sd_value *v, sd_str *out) {
    sd_value kept;
    if (v->kind == SD_V_STRING) {
        *out = v->s;
        return true;
    }
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!sd_to_text(r, v, &b, false, 0)) {
        sd_buf_free(&b);
        return false;
    }
    if (!sd_keep(r, &b, &kept)) return false;
    *out = kept.s;
    return true;
}
