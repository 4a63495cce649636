// Filters and tests by their names: the tables of all filters, and the filters that call others by
// name.
#include "model/template/builtins/builtins.h"

// ---- map, select and reject

// The arguments behind the first `from`, with all names.
static sd_args rest_of(const sd_args *a, int from) {
    sd_args b = *a;
    b.item = a->n > from ? a->item + from : NULL;
    b.n = a->n > from ? a->n - from : 0;
    b.used = 0;
    b.asked = 0;
    return b;
}

// A false value has no items here, whatever its type.
static bool items_if_true(sd_render *r, const sd_value *in, sd_list **out) {
    if (!sd_truth(in)) return (*out = sd_list_make(r, 0)) != NULL;
    return sd_iterate(r, in, out);
}

SD_BUILTIN(filter_map) {
    sd_value attribute, other = sd_none(), v;
    sd_list *l, *made;
    if (!items_if_true(r, in, &l) || !(made = sd_list_make(r, l->n))) return false;
    bool by_attribute = a->n == 0 && sd_arg(a, -1, "attribute", &attribute);
    bool has_other = by_attribute && sd_arg(a, -1, "default", &other) && other.kind != SD_V_NONE;
    if (!by_attribute && (a->n == 0 || a->item[0].kind != SD_V_STRING))
        return sd_render_fail(r, "map takes attribute= or the name of a filter");
    for (size_t i = 0; i < l->n; i++) {
        sd_args b = rest_of(a, 1);
        bool ok = by_attribute ? sd_path(r, &l->item[i], &attribute, has_other ? &other : NULL, &v)
                               : sd_apply_filter(r, a->item[0].s, &l->item[i], &b, &v);
        if (!ok || !sd_list_push(r, made, &v)) return false;
    }
    if (!by_attribute) a->used = UINT64_MAX; // the filter has read the names
    return sd_make_iterator(r, made, out);
}

static bool select_items(sd_render *r, const sd_value *in, sd_args *a, bool keep, bool attribute,
                         sd_value *out) {
    sd_list *l, *kept = sd_list_make(r, 0);
    sd_value whole = sd_none();
    int test = attribute ? 1 : 0;
    if (!kept || !items_if_true(r, in, &l)) return false;
    a->used = UINT64_MAX; // the test reads the names
    if (attribute && a->n == 0)
        return sd_render_fail(r, "selectattr and rejectattr take an attribute");
    if (a->n > test && a->item[test].kind != SD_V_STRING)
        return sd_render_fail(r, "the name of a test must be a string");
    for (size_t i = 0; i < l->n; i++) {
        sd_value v;
        if (!sd_path(r, &l->item[i], attribute ? &a->item[0] : &whole, NULL, &v)) return false;
        bool yes = sd_truth(&v);
        if (a->n > test) {
            sd_args b = rest_of(a, test + 1);
            if (!sd_apply_test(r, a->item[test].s, &v, &b, &yes)) return false;
        }
        if (yes == keep && !sd_list_push(r, kept, &l->item[i])) return false;
    }
    return sd_make_iterator(r, kept, out);
}

SD_BUILTIN(filter_select) {
    return select_items(r, in, a, true, false, out);
}

SD_BUILTIN(filter_reject) {
    return select_items(r, in, a, false, false, out);
}

SD_BUILTIN(filter_selectattr) {
    return select_items(r, in, a, true, true, out);
}

SD_BUILTIN(filter_rejectattr) {
    return select_items(r, in, a, false, true, out);
}

// ---- all filters

static const sd_builtin_row NAMING[] = {{"map", filter_map},
                                        {"select", filter_select},
                                        {"reject", filter_reject},
                                        {"selectattr", filter_selectattr},
                                        {"rejectattr", filter_rejectattr},
                                        {NULL, NULL}};

static const sd_builtin_row *const TABLES[] = {sd_text_filters,   sd_sequence_filters,
                                               sd_number_filters, sd_html_filters,
                                               sd_line_filters,   NAMING};

static sd_builtin find_filter(sd_str name) {
    for (size_t i = 0; i < sizeof TABLES / sizeof *TABLES; i++)
        for (const sd_builtin_row *row = TABLES[i]; row->name; row++)
            if (sd_str_is(name, row->name)) return row->call;
    return NULL;
}

bool sd_apply_filter(sd_render *r, sd_str name, const sd_value *in, sd_args *a, sd_value *out) {
    sd_builtin f = find_filter(name);
    if (!f)
        return sd_render_fail(r, "there is no filter \"%.*s\"", (int)(name.n < 64 ? name.n : 64),
                              name.p);
    sd_value copy = *in; // because out may be in
    return sd_spend(r, 1) && f(r, &copy, a, out) && sd_args_all_used(r, a, name);
}

// ---- all tests

// The tests filter and test ask whether there is one of that name.
static bool name_test(sd_render *r, const sd_value *in, bool filter, bool *out) {
    if (!sd_hashable(in)) return sd_render_fail(r, "a %s is no name", sd_kind_name(in));
    *out = in->kind == SD_V_STRING && (filter ? find_filter(in->s) != NULL : sd_is_test(in->s));
    return true;
}

bool sd_apply_test(sd_render *r, sd_str name, const sd_value *in, sd_args *a, bool *out) {
    if (!sd_spend(r, 1)) return false;
    bool filter = sd_str_is(name, "filter");
    if (filter || sd_str_is(name, "test")) return name_test(r, in, filter, out);
    return sd_value_test(r, name, in, a, out);
}
