// Filters of sequences and dicts.
#include "model/template/builtins/builtins.h"

#include "base/files/hash.h"

static bool copy_list(sd_render *r, const sd_value *in, sd_list **out) {
    sd_list *l, *copy;
    if (!sd_iterate(r, in, &l) || !(copy = sd_list_make(r, l->n)) || !sd_spend(r, l->n))
        return false;
    if (l->n) memcpy(copy->item, l->item, l->n * sizeof *l->item);
    copy->n = l->n;
    *out = copy;
    return true;
}

SD_BUILTIN(filter_list) {
    sd_list *l;
    (void)a;
    if (!copy_list(r, in, &l)) return false;
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}

SD_BUILTIN(filter_first) {
    sd_list *l;
    sd_iterable *w = in->kind == SD_V_ITERATOR ? in->iterable : NULL;
    (void)a;
    *out = sd_undefined(SD_STR("the first item"));
    if (w) { // an iterator loses the item
        if (w->at < w->items->n) *out = w->items->item[w->at++];
        return true;
    }
    if (!sd_iterate(r, in, &l)) return false;
    if (l->n) *out = l->item[0];
    return true;
}

SD_BUILTIN(filter_last) {
    sd_list *l;
    (void)a;
    if (in->kind == SD_V_ITERATOR)
        return sd_render_fail(r, "last does not take a %s", sd_kind_name(in));
    if (!sd_iterate(r, in, &l)) return false;
    *out = l->n ? l->item[l->n - 1] : sd_undefined(SD_STR("the last item"));
    return true;
}

SD_BUILTIN(filter_random) {
    sd_list *l;
    (void)a;
    if (in->kind == SD_V_ITERATOR || in->kind == SD_V_VIEW || in->kind == SD_V_DICT)
        return sd_render_fail(r, "random does not take a %s", sd_kind_name(in));
    if (!sd_iterate(r, in, &l)) return false;
    *out = sd_undefined(SD_STR("the random item"));
    r->seed = sd_mix64(r->seed + 1);
    if (l->n) *out = l->item[r->seed % l->n];
    return true;
}

SD_BUILTIN(filter_join) {
    sd_value by = sd_string("", 0), attribute, v;
    sd_list *l;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_arg(a, 0, "d", &by);
    bool has = sd_arg(a, 1, "attribute", &attribute), ok = true;
    if (!has) attribute = sd_none();
    if (!sd_iterate(r, in, &l) || !sd_text_of(r, &by, &by.s)) return false;
    for (size_t i = 0; ok && i < l->n; i++)
        ok = sd_path(r, &l->item[i], &attribute, NULL, &v) &&
             (i == 0 || sd_put(r, &b, by.s.p, by.s.n)) && sd_to_text(r, &v, &b, false, 0);
    if (ok) return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}

SD_BUILTIN(filter_reverse) {
    sd_value bounds[3] = {sd_none(), sd_none(), sd_int(-1)}, back;
    sd_list *l;
    (void)a;
    if (in->kind == SD_V_STRING) return sd_slice(r, in, bounds, out);
    if (!copy_list(r, in, &l)) return false;
    sd_value all = sd_list_value(SD_V_LIST, l);
    if (!sd_slice(r, &all, bounds, &back)) return false;
    if (in->kind != SD_V_ITERATOR) return sd_make_iterator(r, back.list, out);
    *out = back;
    return true;
}

// The pairs of a dict.
static bool items_of(sd_render *r, const sd_value *in, sd_list **out) {
    sd_value view;
    sd_args none = {0};
    if (in->kind != SD_V_DICT)
        return sd_render_fail(r, "items takes a dict, not a %s", sd_kind_name(in));
    return sd_call_method(r, "items", in, &none, &view) && sd_iterate(r, &view, out);
}

SD_BUILTIN(filter_items) {
    sd_list *l = NULL;
    (void)a;
    if (!(sd_is_undefined(in) ? (l = sd_list_make(r, 0)) != NULL : items_of(r, in, &l)))
        return false;
    return sd_make_iterator(r, l, out);
}

SD_BUILTIN(filter_attr) {
    sd_str name = {0};
    if (!sd_arg_string(r, a, 0, "name", &name)) return false;
    if (in->kind != SD_V_DICT || sd_find_method(in, name) || sd_is_unsafe_method(in, name))
        return sd_attribute(r, in, name, out);
    *out = sd_undefined(name); // keys are no attributes
    return true;
}

// ---- order

static bool lowered(sd_render *r, sd_value *v) { // where it is a string
    sd_args none = {0};
    return v->kind != SD_V_STRING || sd_call_method(r, "lower", v, &none, v);
}

static bool make_key(sd_render *r, const sd_value *item, const sd_value *attribute,
                     const sd_value *otherwise, bool case_sensitive, sd_value *key) {
    return sd_path(r, item, attribute, otherwise, key) && (case_sensitive || lowered(r, key));
}

// sort takes several attributes ("a,b.c") and compares lists of them: equal items need no order.
static bool make_keys(sd_render *r, const sd_value *item, const sd_value *attribute,
                      bool case_sensitive, sd_value *key) {
    sd_str left = attribute->s;
    sd_list *l = sd_list_make(r, 1);
    if (!l) return false;
    bool one = attribute->kind != SD_V_STRING;
    if (one &&
        (!make_key(r, item, attribute, NULL, case_sensitive, key) || !sd_list_push(r, l, key)))
        return false;
    for (bool more = !one; more;) {
        const char *comma = left.n ? memchr(left.p, ',', left.n) : NULL;
        size_t n = comma ? (size_t)(comma - left.p) : left.n;
        sd_value part = sd_string(left.p, n), v;
        if (!make_key(r, item, &part, NULL, case_sensitive, &v) || !sd_list_push(r, l, &v))
            return false;
        more = comma != NULL;
        left.p += comma ? n + 1 : n;
        left.n -= comma ? n + 1 : n;
    }
    *key = sd_list_value(SD_V_LIST, l);
    return true;
}

typedef bool (*key_maker)(sd_render *r, const sd_value *item, const sd_value *attribute,
                          bool case_sensitive, sd_value *key);

static bool sorted(sd_render *r, sd_list *l, const sd_value *attribute, key_maker make,
                   bool case_sensitive, bool reverse) {
    sd_keyed *k = sd_render_alloc(r, l->n, sizeof *k);
    if (!k) return false;
    for (size_t i = 0; i < l->n; i++) {
        k[i].item = l->item[i];
        if (!make(r, &l->item[i], attribute, case_sensitive, &k[i].key)) return false;
    }
    if (!sd_sort(r, k, l->n, reverse)) return false;
    for (size_t i = 0; i < l->n; i++) l->item[i] = k[i].item;
    return true;
}

SD_BUILTIN(filter_sort) {
    sd_value attribute = sd_none();
    sd_list *l;
    bool reverse = sd_arg_bool(a, 0, "reverse", false);
    bool cased = sd_arg_bool(a, 1, "case_sensitive", false);
    sd_arg(a, 2, "attribute", &attribute);
    if (!copy_list(r, in, &l) || !sorted(r, l, &attribute, make_keys, cased, reverse)) return false;
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}

static bool member_key(sd_render *r, const sd_value *item, const sd_value *position,
                       bool case_sensitive, sd_value *key) {
    return make_key(r, item, position, NULL, case_sensitive, key);
}

SD_BUILTIN(filter_dictsort) {
    sd_list *items;
    sd_str by = SD_STR("key");
    bool cased = sd_arg_bool(a, 0, "case_sensitive", false);
    bool reverse = sd_arg_bool(a, 2, "reverse", false);
    if (!sd_arg_string(r, a, 1, "by", &by) || !items_of(r, in, &items)) return false;
    if (!sd_str_is(by, "key") && !sd_str_is(by, "value"))
        return sd_render_fail(r, "dictsort goes by \"key\" or \"value\"");
    sd_value position = sd_int(sd_str_is(by, "value"));
    if (!sorted(r, items, &position, member_key, cased, reverse)) return false;
    *out = sd_list_value(SD_V_LIST, items);
    return true;
}

static bool extreme(sd_render *r, const sd_value *in, sd_args *a, bool largest, sd_value *out) {
    sd_value attribute = sd_none(), best, key;
    sd_list *l;
    bool cased = sd_arg_bool(a, 0, "case_sensitive", false);
    sd_arg(a, 1, "attribute", &attribute);
    if (!sd_iterate(r, in, &l)) return false;
    *out = sd_undefined(SD_STR("the extreme of nothing"));
    for (size_t i = 0; i < l->n; i++) {
        int order = 0;
        if (!make_key(r, &l->item[i], &attribute, NULL, cased, &key)) return false;
        if (i && !sd_compare(r, &key, &best, &order)) return false;
        if (i == 0 || order == (largest ? 1 : -1)) *out = l->item[i], best = key;
    }
    return true;
}

SD_BUILTIN(filter_min) {
    return extreme(r, in, a, false, out);
}

SD_BUILTIN(filter_max) {
    return extreme(r, in, a, true, out);
}

SD_BUILTIN(filter_sum) {
    sd_value attribute = sd_none(), v, total = sd_int(0);
    sd_list *l;
    sd_arg(a, 0, "attribute", &attribute);
    sd_arg(a, 1, "start", &total);
    if (total.kind == SD_V_STRING) return sd_render_fail(r, "sum does not take a string; use join");
    if (!sd_iterate(r, in, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        sd_value before = total;
        if (!sd_path(r, &l->item[i], &attribute, NULL, &v) ||
            !sd_arithmetic(r, SD_OP_ADD, &before, &v, &total))
            return false;
    }
    *out = total;
    return true;
}

SD_BUILTIN(filter_unique) {
    sd_value attribute = sd_none(), key;
    bool cased = sd_arg_bool(a, 0, "case_sensitive", false);
    sd_arg(a, 1, "attribute", &attribute);
    sd_list *l, *kept = sd_list_make(r, 0);
    sd_dict *keys = sd_dict_make(r, 0);
    sd_value *seen, none = sd_none();
    if (!keys || !kept || !sd_iterate(r, in, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (!make_key(r, &l->item[i], &attribute, NULL, cased, &key) ||
            !sd_dict_find(r, keys, &key, &seen))
            return false;
        if (!seen && (!sd_dict_put(r, keys, &key, &none) || !sd_list_push(r, kept, &l->item[i])))
            return false;
    }
    return sd_make_iterator(r, kept, out);
}

// ---- groups

// A new group (name, members).
static bool push_group(sd_render *r, sd_list *groups, const sd_value *name, sd_list *members) {
    sd_list *pair = sd_list_make(r, 2);
    sd_value list = sd_list_value(SD_V_LIST, members);
    if (!pair || !sd_list_push(r, pair, name) || !sd_list_push(r, pair, &list)) return false;
    pair->group = true;
    sd_value v = sd_list_value(SD_V_TUPLE, pair);
    return sd_list_push(r, groups, &v);
}

SD_BUILTIN(filter_groupby) {
    sd_value attribute, name, other = sd_none();
    sd_list *l, *groups = sd_list_make(r, 0), *members = NULL;
    bool cased = sd_arg_bool(a, 2, "case_sensitive", false);
    if (!sd_arg(a, 0, "attribute", &attribute))
        return sd_render_fail(r, "groupby takes an attribute");
    const sd_value *otherwise =
        sd_arg(a, 1, "default", &other) && other.kind != SD_V_NONE ? &other : NULL;
    if (!groups || !sd_iterate(r, in, &l)) return false;
    sd_keyed *k = sd_render_alloc(r, l->n, sizeof *k);
    if (!k) return false;
    for (size_t i = 0; i < l->n; i++) {
        k[i].item = l->item[i];
        if (!make_key(r, &l->item[i], &attribute, otherwise, cased, &k[i].key)) return false;
    }
    if (!sd_sort(r, k, l->n, false)) return false;
    for (size_t i = 0; i < l->n; i++) {
        bool same = i && sd_equal(r, &k[i].key, &k[i - 1].key, 0);
        if (r->status != SD_OK) return false;
        if (!same && (!sd_path(r, &k[i].item, &attribute, otherwise, &name) ||
                      !(members = sd_list_make(r, 0)) || !push_group(r, groups, &name, members)))
            return false;
        if (!sd_list_push(r, members, &k[i].item)) return false;
    }
    *out = sd_list_value(SD_V_LIST, groups);
    return true;
}

static bool push_list(sd_render *r, sd_list *to, sd_list **part) {
    if (!(*part = sd_list_make(r, 0))) return false;
    sd_value v = sd_list_value(SD_V_LIST, *part);
    return sd_list_push(r, to, &v);
}

SD_BUILTIN(filter_batch) {
    int64_t size = 0;
    sd_value fill = sd_none();
    sd_list *l, *batches = sd_list_make(r, 0), *now = NULL;
    if (!batches || !sd_arg_int(r, a, 0, "linecount", &size)) return false;
    bool filled = sd_arg(a, 1, "fill_with", &fill) && fill.kind != SD_V_NONE;
    if (!sd_iterate(r, in, &l) || (l->n && !push_list(r, batches, &now))) return false;
    for (size_t i = 0; i < l->n; i++) {
        if ((int64_t)now->n == size && !push_list(r, batches, &now)) return false;
        if (!sd_list_push(r, now, &l->item[i])) return false;
    }
    while (filled && now && (int64_t)now->n < size)
        if (!sd_list_push(r, now, &fill)) return false;
    return sd_make_iterator(r, batches, out);
}

SD_BUILTIN(filter_slice) {
    int64_t slices = 0;
    sd_value fill = sd_none();
    sd_list *l, *parts = sd_list_make(r, 0), *now;
    if (!parts || !sd_arg_int(r, a, 0, "slices", &slices)) return false;
    bool filled = sd_arg(a, 1, "fill_with", &fill) && fill.kind != SD_V_NONE;
    if (!sd_iterate(r, in, &l)) return false;
    if (slices == 0) return sd_render_fail(r, "slice: division by zero");
    size_t count = slices > 0 ? (size_t)slices : 0, at = 0;
    for (size_t i = 0; i < count; i++) {
        bool longer = i < l->n % count;
        size_t n = l->n / count + longer;
        if (!push_list(r, parts, &now)) return false;
        for (size_t k = 0; k < n; k++)
            if (!sd_list_push(r, now, &l->item[at++])) return false;
        if (filled && !longer && !sd_list_push(r, now, &fill)) return false;
    }
    return sd_make_iterator(r, parts, out);
}

const sd_builtin_row sd_sequence_filters[] = {
    {"list", filter_list},         {"first", filter_first},   {"last", filter_last},
    {"random", filter_random},     {"join", filter_join},     {"reverse", filter_reverse},
    {"items", filter_items},       {"attr", filter_attr},     {"sort", filter_sort},
    {"dictsort", filter_dictsort}, {"min", filter_min},       {"max", filter_max},
    {"sum", filter_sum},           {"unique", filter_unique}, {"groupby", filter_groupby},
    {"batch", filter_batch},       {"slice", filter_slice},   {NULL, NULL}};
