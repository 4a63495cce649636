// Attributes, subscripts, slices and dotted paths: how a template reaches into a value.
#include "model/template_internal.h"

#include "model/utf8.h"

static bool loop_attribute(const sd_loop *l, sd_str name, sd_value *out) {
    size_t n = l->items->n, i = l->index0;
    if (sd_str_is(name, "index"))
        *out = sd_int((int64_t)i + 1);
    else if (sd_str_is(name, "index0"))
        *out = sd_int((int64_t)i);
    else if (sd_str_is(name, "revindex"))
        *out = sd_int((int64_t)(n - i));
    else if (sd_str_is(name, "revindex0"))
        *out = sd_int((int64_t)(n - i) - 1);
    else if (sd_str_is(name, "first"))
        *out = sd_bool(i == 0);
    else if (sd_str_is(name, "last"))
        *out = sd_bool(i + 1 == n);
    else if (sd_str_is(name, "length"))
        *out = sd_int((int64_t)n);
    else if (sd_str_is(name, "depth"))
        *out = sd_int(1); // recursive loops are not supported
    else if (sd_str_is(name, "depth0"))
        *out = sd_int(0);
    else if (sd_str_is(name, "previtem"))
        *out = i ? l->items->item[i - 1] : sd_undefined(name);
    else if (sd_str_is(name, "nextitem"))
        *out = i + 1 < n ? l->items->item[i + 1] : sd_undefined(name);
    else
        return false;
    return true;
}

static bool undefined_base(sd_render *r, const sd_value *v, sd_str name) {
    return sd_render_fail(r, "\"%.*s\" is undefined, so it has no \"%.*s\"", (int)v->s.n, v->s.p,
                          (int)(name.n < 64 ? name.n : 64), name.p);
}

static bool bound_method(sd_render *r, const sd_value *v, sd_str name, sd_value *out, bool *found) {
    sd_filter call = sd_find_method(v, name);
    *found = call != NULL;
    if (!call) return true;
    sd_method *m = sd_render_alloc(r, 1, sizeof *m);
    if (!m) return false;
    *m = (sd_method){*v, call};
    *out = (sd_value){.kind = SD_V_METHOD, .method = m};
    return true;
}

// The value at a key of a dict or namespace, NULL when there is none. False: an error.
static bool key_of(sd_render *r, const sd_value *v, sd_str name, sd_value **out) {
    *out = NULL;
    return (v->kind != SD_V_DICT && v->kind != SD_V_NAMESPACE) ||
           sd_dict_get(r, v->dict, name, out);
}

// a.b: a method or loop variable first, then the key.
bool sd_attribute(sd_render *r, const sd_value *v, sd_str name, sd_value *out) {
    bool found = false;
    if (v->kind == SD_V_UNDEFINED) return undefined_base(r, v, name);
    if (v->kind == SD_V_LOOP && loop_attribute(v->loop, name, out)) return true;
    if (v->kind == SD_V_MACRO && sd_str_is(name, "name")) {
        *out = sd_string(v->macro->name.p, v->macro->name.n);
        return true;
    }
    if (!bound_method(r, v, name, out, &found)) return false;
    if (found) return true;
    sd_value *x;
    if (!key_of(r, v, name, &x)) return false;
    *out = x ? *x : sd_undefined(name);
    return true;
}

static bool character(sd_render *r, const sd_value *v, int64_t i, sd_value *out) {
    if (!sd_spend(r, 1 + v->s.n / SD_TMPL_SEARCH)) return false;
    if (i < 0) i += (int64_t)sd_count_chars(v->s);
    *out = sd_undefined(SD_STR("the character"));
    if (i < 0) return true;
    for (size_t at = 0; at < v->s.n; i--) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(v->s.p + at, v->s.n - at, &cp, NULL);
        if (i == 0) {
            *out = sd_string(v->s.p + at, n);
            return true;
        }
        at += n;
    }
    return true;
}

// a[b]: the key or position first, then, for a string, the attribute.
bool sd_item(sd_render *r, const sd_value *v, const sd_value *index, sd_value *out) {
    sd_str name = index->kind == SD_V_STRING ? index->s : SD_STR("the item");
    int64_t i = index->kind == SD_V_INT ? index->i : index->kind == SD_V_BOOL && index->b;
    bool number = index->kind == SD_V_INT || index->kind == SD_V_BOOL, found;
    sd_value *x = NULL;
    if (v->kind == SD_V_UNDEFINED) return undefined_base(r, v, name);
    *out = sd_undefined(name);
    if (v->kind == SD_V_DICT) {
        if (sd_hashable(index) && !sd_dict_find(r, v->dict, index, &x)) return false;
        if (x) {
            *out = *x;
            return true;
        }
    } else if (sd_is_sequence(v) && number) {
        if (i < 0) i += (int64_t)v->list->n;
        if (i >= 0 && (uint64_t)i < v->list->n) *out = v->list->item[i];
        return true;
    } else if (v->kind == SD_V_STRING && number) {
        return character(r, v, i, out);
    }
    if (index->kind != SD_V_STRING) return true;
    if (v->kind == SD_V_LOOP && loop_attribute(v->loop, name, out)) return true;
    if (v->kind == SD_V_NAMESPACE && !key_of(r, v, name, &x)) return false;
    if (x) *out = *x;
    return x || bound_method(r, v, name, out, &found);
}

static bool slice_bound(sd_render *r, const sd_value *b, int64_t n, int64_t step, bool upper,
                        int64_t *out) {
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    if (b->kind == SD_V_NONE) {
        *out = (step < 0) != upper ? high : low;
        return true;
    }
    if (b->kind != SD_V_INT && b->kind != SD_V_BOOL)
        return sd_render_fail(r, "a slice takes whole numbers, not a %s", sd_kind_name(b));
    int64_t x = b->kind == SD_V_INT ? b->i : b->b;
    if (x < 0) x = x < -n ? low : x + n;
    *out = x < low ? low : x > high ? high : x;
    return true;
}

bool sd_slice(sd_render *r, const sd_value *v, const sd_value *bounds, sd_value *out) {
    int64_t from = 0, to = 0, step = 1;
    sd_list *l, *kept;
    if (v->kind == SD_V_UNDEFINED) return undefined_base(r, v, SD_STR("slice"));
    if (v->kind != SD_V_STRING && !sd_is_sequence(v)) {
        *out = sd_undefined(SD_STR("the slice"));
        return true;
    }
    if (bounds[2].kind == SD_V_INT)
        step = bounds[2].i;
    else if (bounds[2].kind != SD_V_NONE)
        return sd_render_fail(r, "a slice takes whole numbers");
    if (step == 0) return sd_render_fail(r, "a slice's step cannot be 0");
    if (!sd_iterate(r, v, &l)) return false;
    int64_t n = (int64_t)l->n;
    if (!slice_bound(r, &bounds[0], n, step, false, &from) ||
        !slice_bound(r, &bounds[1], n, step, true, &to))
        return false;
    if (v->kind == SD_V_STRING && step == 1) { // characters lie side by side
        const char *a = from < n ? l->item[from].s.p : v->s.p + v->s.n;
        const char *b = to < n ? l->item[to].s.p : v->s.p + v->s.n;
        *out = sd_string(a, from < to ? (size_t)(b - a) : 0);
        return true;
    }
    if (!(kept = sd_list_make(r, 0))) return false;
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
        if (!sd_list_push(r, kept, &l->item[i])) return false;
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    *out = sd_list_value(v->kind, kept);
    if (v->kind != SD_V_STRING) return true;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    for (size_t i = 0; i < kept->n; i++)
        if (!sd_put(r, &b, kept->item[i].s.p, kept->item[i].s.n)) return sd_drop(r, &b);
    return sd_keep(r, &b, out);
}

bool sd_path(sd_render *r, const sd_value *v, const sd_value *path, sd_value *out) {
    *out = *v;
    if (path->kind != SD_V_STRING) return sd_item(r, v, path, out);
    for (sd_str left = path->s; left.n;) {
        const char *dot = memchr(left.p, '.', left.n);
        size_t n = dot ? (size_t)(dot - left.p) : left.n;
        sd_value of = *out, part = sd_string(left.p, n);
        int64_t number = 0;
        bool digits = n > 0 && n < 18;
        for (size_t i = 0; digits && i < n; i++) {
            digits = left.p[i] >= '0' && left.p[i] <= '9';
            number = number * 10 + (left.p[i] - '0');
        }
        if (digits) part = sd_int(number);
        if (!sd_item(r, &of, &part, out)) return false;
        left.p += dot ? n + 1 : n;
        left.n -= dot ? n + 1 : n;
    }
    return true;
}
