// Filters of sequences and dicts.
#include "model/template_internal.h"

#define FILTER(name) static bool name(sd_render *r, const sd_value *in, sd_args *a, sd_value *out)

// What map, sort and their kind look at: the item itself, or its attribute.
static bool look(sd_render *r, const sd_value *item, const sd_value *attribute, sd_value *out) {
    *out = *item;
    return !attribute || sd_path(r, item, attribute, out);
}

static bool copy_list(sd_render *r, const sd_value *in, sd_list **out) {
    sd_list *l, *copy;
    if (!sd_iterate(r, in, &l) || !(copy = sd_list_make(r, l->n)) || !sd_spend(r, l->n))
        return false;
    if (l->n) memcpy(copy->item, l->item, l->n * sizeof *l->item);
    copy->n = l->n;
    *out = copy;
    return true;
}

FILTER(filter_list) {
    sd_list *l;
    (void)a;
    if (!copy_list(r, in, &l)) return false;
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}

FILTER(filter_first) {
    sd_list *l;
    (void)a;
    if (!sd_iterate(r, in, &l)) return false;
    *out = l->n ? l->item[0] : sd_undefined(SD_STR("the first item"));
    return true;
}

FILTER(filter_last) {
    sd_list *l;
    (void)a;
    if (!sd_iterate(r, in, &l)) return false;
    *out = l->n ? l->item[l->n - 1] : sd_undefined(SD_STR("the last item"));
    return true;
}

FILTER(filter_join) {
    sd_value by = sd_string("", 0), attribute, v;
    sd_list *l;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_arg(a, 0, "d", &by);
    bool has = sd_arg(a, 1, "attribute", &attribute), ok = true;
    if (!sd_iterate(r, in, &l) || !sd_text_of(r, &by, &by.s)) return false;
    for (size_t i = 0; ok && i < l->n; i++)
        ok = look(r, &l->item[i], has ? &attribute : NULL, &v) &&
             (i == 0 || sd_put(r, &b, by.s.p, by.s.n)) && sd_to_text(r, &v, &b, false, 0);
    if (ok) return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}

FILTER(filter_reverse) {
    sd_value bounds[3] = {sd_none(), sd_none(), sd_int(-1)};
    sd_list *l;
    (void)a;
    if (in->kind == SD_V_STRING) return sd_slice(r, in, bounds, out);
    if (!copy_list(r, in, &l)) return false;
    sd_value all = sd_list_value(SD_V_LIST, l);
    return sd_slice(r, &all, bounds, out);
}

FILTER(filter_items) {
    (void)a;
    if (in->kind == SD_V_UNDEFINED) {
        sd_list *l = sd_list_make(r, 0);
        if (l) *out = sd_list_value(SD_V_LIST, l);
        return l != NULL;
    }
    if (in->kind != SD_V_DICT)
        return sd_render_fail(r, "items takes a dict, not a %s", sd_kind_name(in));
    return sd_find_method(in, SD_STR("items"))(r, in, a, out);
}

FILTER(filter_attr) {
    sd_str name = {0};
    bool found;
    if (!sd_arg_string(r, a, 0, "name", &name)) return false;
    found = in->kind != SD_V_DICT && in->kind != SD_V_UNDEFINED;
    if (found || sd_find_method(in, name)) return sd_attribute(r, in, name, out);
    *out = sd_undefined(name); // keys are no attributes
    return true;
}

// ---- order

static bool make_key(sd_render *r, const sd_value *item, const sd_value *attribute,
                     bool case_sensitive, sd_value *key) {
    sd_args none = {0};
    if (!look(r, item, attribute, key)) return false;
    if (case_sensitive || key->kind != SD_V_STRING) return true;
    sd_value text = *key;
    return sd_find_method(&text, SD_STR("lower"))(r, &text, &none, key);
}

// Stable merge sort.
bool sd_sort(sd_render *r, sd_keyed *k, size_t n, bool reverse) {
    sd_keyed *tmp = sd_render_alloc(r, n, sizeof *tmp);
    if (!tmp) return false;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = mid + width < n ? mid + width : n;
            size_t i = lo, j = mid;
            for (size_t at = lo; at < hi; at++) {
                int order = 0;
                if (i < mid && j < hi && !sd_compare(r, &k[j].key, &k[i].key, &order)) return false;
                bool right = i >= mid || (j < hi && (reverse ? order > 0 : order < 0));
                tmp[at] = right ? k[j++] : k[i++];
            }
        }
        memcpy(k, tmp, n * sizeof *k);
        if (!sd_spend(r, n)) return false;
    }
    return true;
}

static bool sorted(sd_render *r, sd_list *l, const sd_value *attribute, bool case_sensitive,
                   bool reverse) {
    sd_keyed *k = sd_render_alloc(r, l->n, sizeof *k);
    if (!k) return false;
    for (size_t i = 0; i < l->n; i++) {
        k[i].item = l->item[i];
        if (!make_key(r, &l->item[i], attribute, case_sensitive, &k[i].key)) return false;
    }
    if (!sd_sort(r, k, l->n, reverse)) return false;
    for (size_t i = 0; i < l->n; i++) l->item[i] = k[i].item;
    return true;
}

FILTER(filter_sort) {
    sd_value attribute;
    sd_list *l;
    bool reverse = sd_arg_bool(a, 0, "reverse", false);
    bool cased = sd_arg_bool(a, 1, "case_sensitive", false);
    bool has = sd_arg(a, 2, "attribute", &attribute) && attribute.kind != SD_V_NONE;
    if (!copy_list(r, in, &l) || !sorted(r, l, has ? &attribute : NULL, cased, reverse))
        return false;
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}

FILTER(filter_dictsort) {
    sd_value items;
    sd_str by = SD_STR("key");
    bool cased = sd_arg_bool(a, 0, "case_sensitive", false);
    bool reverse = sd_arg_bool(a, 2, "reverse", false);
    if (!sd_arg_string(r, a, 1, "by", &by) || !filter_items(r, in, a, &items)) return false;
    sd_value position = sd_int(sd_str_is(by, "value"));
    if (!sorted(r, items.list, &position, cased, reverse)) return false;
    *out = items;
    return true;
}

static bool extreme(sd_render *r, const sd_value *in, sd_args *a, bool largest, sd_value *out) {
    sd_value attribute, best, key;
    sd_list *l;
    bool cased = sd_arg_bool(a, 0, "case_sensitive", false);
    bool has = sd_arg(a, 1, "attribute", &attribute) && attribute.kind != SD_V_NONE;
    if (!sd_iterate(r, in, &l)) return false;
    *out = sd_undefined(SD_STR("the extreme of nothing"));
    for (size_t i = 0; i < l->n; i++) {
        int order = 0;
        if (!make_key(r, &l->item[i], has ? &attribute : NULL, cased, &key)) return false;
        if (i && !sd_compare(r, &key, &best, &order)) return false;
        if (i == 0 || (largest ? order > 0 : order < 0)) *out = l->item[i], best = key;
    }
    return true;
}
FILTER(filter_min) {
    return extreme(r, in, a, false, out);
}
FILTER(filter_max) {
    return extreme(r, in, a, true, out);
}

FILTER(filter_sum) {
    sd_value attribute, v, total = sd_int(0);
    sd_list *l;
    double f, real = 0;
    int64_t whole = 0;
    bool floats = false, has = sd_arg(a, 0, "attribute", &attribute) && attribute.kind != SD_V_NONE;
    sd_arg(a, 1, "start", &total);
    if (!sd_iterate(r, in, &l)) return false;
    for (size_t i = 0; i <= l->n; i++) {
        if (i == 0)
            v = total;
        else if (!look(r, &l->item[i - 1], has ? &attribute : NULL, &v))
            return false;
        if (!sd_number(&v, &f))
            return sd_render_fail(r, "sum does not take a %s", sd_kind_name(&v));
        real += f;
        floats |= v.kind == SD_V_FLOAT;
        int64_t x = v.kind == SD_V_INT ? v.i : v.kind == SD_V_BOOL ? v.b : 0;
        if (__builtin_add_overflow(whole, x, &whole))
            return sd_render_fail(r, "a number is too large");
    }
    *out = floats ? sd_float(real) : sd_int(whole);
    return true;
}

FILTER(filter_unique) {
    sd_value attribute, key;
    bool cased = sd_arg_bool(a, 0, "case_sensitive", false);
    bool has = sd_arg(a, 1, "attribute", &attribute) && attribute.kind != SD_V_NONE;
    sd_list *l, *kept = sd_list_make(r, 0);
    sd_dict *keys = sd_dict_make(r, 0);
    sd_value *seen, none = sd_none();
    if (!keys || !kept || !sd_iterate(r, in, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (!make_key(r, &l->item[i], has ? &attribute : NULL, cased, &key) ||
            !sd_dict_find(r, keys, &key, &seen))
            return false;
        if (!seen && (!sd_dict_put(r, keys, &key, &none) || !sd_list_push(r, kept, &l->item[i])))
            return false;
    }
    *out = sd_list_value(SD_V_LIST, kept);
    return r->status == SD_OK;
}

// ---- map, select and reject

// The arguments behind the first `from`, with all names.
static sd_args rest_of(const sd_args *a, int from) {
    sd_args b = *a;
    b.item = a->n > from ? a->item + from : NULL;
    b.n = a->n > from ? a->n - from : 0;
    b.used = 0;
    return b;
}

FILTER(filter_map) {
    sd_value attribute, other, v;
    sd_list *l, *made;
    if (!sd_iterate(r, in, &l) || !(made = sd_list_make(r, l->n))) return false;
    bool by_attribute = a->n == 0 && sd_arg(a, -1, "attribute", &attribute);
    bool has_other = by_attribute && sd_arg(a, -1, "default", &other);
    if (!by_attribute && (a->n == 0 || a->item[0].kind != SD_V_STRING))
        return sd_render_fail(r, "map takes attribute= or the name of a filter");
    for (size_t i = 0; i < l->n; i++) {
        if (by_attribute) {
            if (!sd_path(r, &l->item[i], &attribute, &v)) return false;
            if (has_other && v.kind == SD_V_UNDEFINED) v = other;
        } else {
            sd_args b = rest_of(a, 1);
            if (!sd_apply_filter(r, a->item[0].s, &l->item[i], &b, &v)) return false;
        }
        if (!sd_list_push(r, made, &v)) return false;
    }
    if (!by_attribute) a->used = UINT64_MAX;
    *out = sd_list_value(SD_V_LIST, made);
    return true;
}

static bool select_items(sd_render *r, const sd_value *in, sd_args *a, bool keep, bool attribute,
                         sd_value *out) {
    sd_list *l, *kept = sd_list_make(r, 0);
    int test = attribute ? 1 : 0;
    if (!kept || !sd_iterate(r, in, &l)) return false;
    if (attribute && a->n == 0)
        return sd_render_fail(r, "selectattr and rejectattr take an attribute");
    if (a->n > test && a->item[test].kind != SD_V_STRING)
        return sd_render_fail(r, "the name of a test must be a string");
    for (size_t i = 0; i < l->n; i++) {
        sd_value v;
        if (!look(r, &l->item[i], attribute ? &a->item[0] : NULL, &v)) return false;
        bool yes = sd_truth(&v);
        if (a->n > test) {
            sd_args b = rest_of(a, test + 1);
            if (!sd_apply_test(r, a->item[test].s, &v, &b, &yes)) return false;
        }
        if (yes == keep && !sd_list_push(r, kept, &l->item[i])) return false;
    }
    *out = sd_list_value(SD_V_LIST, kept);
    return true;
}
FILTER(filter_select) {
    return select_items(r, in, a, true, false, out);
}
FILTER(filter_reject) {
    return select_items(r, in, a, false, false, out);
}
FILTER(filter_selectattr) {
    return select_items(r, in, a, true, true, out);
}
FILTER(filter_rejectattr) {
    return select_items(r, in, a, false, true, out);
}

// ---- groups

FILTER(filter_groupby) {
    sd_value attribute, key, other = sd_undefined(SD_STR("the attribute"));
    sd_list *l, *groups = sd_list_make(r, 0), *members = NULL;
    bool cased = sd_arg_bool(a, 2, "case_sensitive", false);
    sd_value last = sd_none();
    if (!sd_arg(a, 0, "attribute", &attribute))
        return sd_render_fail(r, "groupby takes an attribute");
    sd_arg(a, 1, "default", &other);
    if (!groups || !copy_list(r, in, &l) || !sorted(r, l, &attribute, cased, false)) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (!make_key(r, &l->item[i], &attribute, cased, &key)) return false;
        if (!members || !sd_equal(r, &key, &last, 0)) {
            sd_list *pair = sd_list_make(r, 2);
            sd_value name, list;
            members = sd_list_make(r, 0);
            if (!pair || !members || !look(r, &l->item[i], &attribute, &name)) return false;
            if (name.kind == SD_V_UNDEFINED) name = other;
            list = sd_list_value(SD_V_LIST, members);
            if (!sd_list_push(r, pair, &name) || !sd_list_push(r, pair, &list)) return false;
            sd_value v = sd_list_value(SD_V_TUPLE, pair);
            if (!sd_list_push(r, groups, &v)) return false;
            last = key;
        }
        if (!sd_list_push(r, members, &l->item[i])) return false;
    }
    *out = sd_list_value(SD_V_LIST, groups);
    return r->status == SD_OK;
}

FILTER(filter_batch) {
    int64_t size = 0;
    sd_value fill = sd_none();
    sd_list *l, *batches = sd_list_make(r, 0), *now = NULL;
    if (!batches || !sd_arg_int(r, a, 0, "linecount", &size)) return false;
    if (size < 1) return sd_render_fail(r, "batch takes a positive number");
    bool filled = sd_arg(a, 1, "fill_with", &fill) && fill.kind != SD_V_NONE;
    if (!sd_iterate(r, in, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (i % (size_t)size == 0) {
            if (!(now = sd_list_make(r, 0))) return false;
            sd_value v = sd_list_value(SD_V_LIST, now);
            if (!sd_list_push(r, batches, &v)) return false;
        }
        if (!sd_list_push(r, now, &l->item[i])) return false;
    }
    while (filled && now && now->n < (size_t)size)
        if (!sd_list_push(r, now, &fill)) return false;
    *out = sd_list_value(SD_V_LIST, batches);
    return true;
}

static const struct {
    const char *name;
    sd_filter apply;
} ROWS[] = {{"list", filter_list},
            {"first", filter_first},
            {"last", filter_last},
            {"join", filter_join},
            {"reverse", filter_reverse},
            {"items", filter_items},
            {"attr", filter_attr},
            {"sort", filter_sort},
            {"dictsort", filter_dictsort},
            {"min", filter_min},
            {"max", filter_max},
            {"sum", filter_sum},
            {"unique", filter_unique},
            {"map", filter_map},
            {"select", filter_select},
            {"reject", filter_reject},
            {"selectattr", filter_selectattr},
            {"rejectattr", filter_rejectattr},
            {"groupby", filter_groupby},
            {"batch", filter_batch}};

sd_filter sd_find_sequence_filter(sd_str name) {
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++)
        if (sd_str_is(name, ROWS[i].name)) return ROWS[i].apply;
    return NULL;
}
