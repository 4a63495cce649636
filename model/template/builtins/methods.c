// Methods by the type of their receiver. Those of strings stand in methods_*.c; here are
// those of dicts, lists, ranges, loops and cyclers, and the rule that nothing is changed by them.
#include "model/template/builtins/builtins.h"

#define METHOD(name) static bool name(sd_render *r, const sd_value *in, sd_args *a, sd_value *out)

static bool pairs(sd_render *r, const sd_dict *d, sd_list **out) {
    sd_list *l = *out = sd_list_make(r, d->n);
    if (!l) return false;
    for (size_t i = 0; i < d->n; i++) {
        sd_list *pair = sd_list_make(r, 2);
        if (!pair || !sd_list_push(r, pair, &d->key[i]) || !sd_list_push(r, pair, &d->value[i]))
            return false;
        sd_value v = sd_list_value(SD_V_TUPLE, pair);
        if (!sd_list_push(r, l, &v)) return false;
    }
    return true;
}

static bool column(sd_render *r, const sd_value *from, size_t n, sd_list **out) {
    sd_list *l = *out = sd_list_make(r, n);
    if (!l) return false;
    for (size_t i = 0; i < n; i++)
        if (!sd_list_push(r, l, &from[i])) return false;
    return true;
}

METHOD(method_items) {
    sd_list *l;
    (void)a;
    return pairs(r, in->dict, &l) && sd_make_walk(r, SD_V_VIEW, l, "dict_items", out);
}
METHOD(method_keys) {
    sd_list *l;
    (void)a;
    return column(r, in->dict->key, in->dict->n, &l) &&
           sd_make_walk(r, SD_V_VIEW, l, "dict_keys", out);
}
METHOD(method_values) {
    sd_list *l;
    (void)a;
    return column(r, in->dict->value, in->dict->n, &l) &&
           sd_make_walk(r, SD_V_VIEW, l, "dict_values", out);
}

METHOD(method_get) {
    sd_value key, *v;
    if (!sd_arg(a, 0, NULL, &key)) return sd_render_fail(r, "get takes a key");
    if (!sd_dict_find(r, in->dict, &key, &v)) return false;
    *out = sd_none();
    sd_arg(a, 1, NULL, out);
    if (v) *out = *v;
    return true;
}

METHOD(method_copy) {
    (void)r, (void)a;
    *out = *in; // nothing can change it
    return true;
}

METHOD(method_list_index) {
    sd_value what;
    int64_t i = 0, n = (int64_t)in->list->n, end = n;
    if (!sd_arg(a, 0, NULL, &what)) return sd_render_fail(r, "index takes a value");
    if (!sd_arg_int(r, a, 1, "start", &i) || !sd_arg_int(r, a, 2, "end", &end)) return false;
    if (i < 0) i = i + n > 0 ? i + n : 0;
    if (end < 0) end += n;
    for (; i < n && i < end; i++) {
        if (sd_equal(r, &in->list->item[i], &what, 0)) {
            *out = sd_int(i);
            return true;
        }
        if (r->status != SD_OK) return false;
    }
    return sd_render_fail(r, "the value is not in the list");
}

static bool count_equal(sd_render *r, const sd_list *l, sd_args *a, sd_value *out) {
    sd_value what;
    int64_t n = 0;
    if (!sd_arg(a, 0, NULL, &what)) return sd_render_fail(r, "count takes a value");
    for (size_t i = 0; i < l->n && r->status == SD_OK; i++) n += sd_equal(r, &l->item[i], &what, 0);
    *out = sd_int(n);
    return r->status == SD_OK;
}
METHOD(method_list_count) {
    return count_equal(r, in->list, a, out);
}

// ---- loops and turns

METHOD(loop_cycle) {
    if (a->n == 0) return sd_render_fail(r, "cycle takes values");
    a->asked = a->n;
    *out = a->item[in->loop->index0 % (size_t)a->n];
    return true;
}

METHOD(loop_changed) {
    sd_list *now = sd_list_make(r, (size_t)a->n), *before = in->loop->changed;
    if (!now) return false;
    a->asked = a->n;
    for (int i = 0; i < a->n; i++)
        if (!sd_list_push(r, now, &a->item[i])) return false;
    sd_value x = sd_list_value(SD_V_LIST, now), y = sd_list_value(SD_V_LIST, before);
    *out = sd_bool(!before || !sd_equal(r, &x, &y, 0));
    in->loop->changed = now;
    return r->status == SD_OK;
}

METHOD(cycler_next) {
    (void)r, (void)a;
    sd_turn *t = in->turn;
    *out = t->items->item[t->at];
    t->at = (t->at + 1) % t->items->n;
    return true;
}

METHOD(cycler_reset) {
    (void)r, (void)a;
    in->turn->at = 0;
    *out = sd_none();
    return true;
}

// ---- which

static const sd_method_row DICT[] = {{"items", method_items},   {"keys", method_keys},
                                     {"values", method_values}, {"get", method_get},
                                     {"copy", method_copy},     {NULL, NULL}};
static const sd_method_row LIST[] = {{"index", method_list_index},
                                     {"count", method_list_count},
                                     {"copy", method_copy},
                                     {NULL, NULL}};
static const sd_method_row LOOP[] = {
    {"cycle", loop_cycle}, {"changed", loop_changed}, {NULL, NULL}};
static const sd_method_row CYCLER[] = {
    {"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};
static const sd_method_row BYTES[] = {{"decode", sd_method_decode}, {NULL, NULL}};

static sd_filter find(const sd_method_row *rows, sd_str name) {
    for (; rows && rows->name; rows++)
        if (sd_str_is(name, rows->name)) return rows->call;
    return NULL;
}

sd_filter sd_find_method(const sd_value *v, sd_str name) {
    sd_filter f;
    switch (v->kind) {
    case SD_V_STRING:
        f = find(sd_string_methods, name);
        if (!f) f = find(sd_case_methods, name);
        return f ? f : find(sd_split_methods, name);
    case SD_V_DICT:
        return find(DICT, name);
    case SD_V_LIST:
        return find(LIST, name);
    case SD_V_TUPLE:
        return sd_str_is(name, "copy") ? NULL : find(LIST, name);
    case SD_V_LOOP:
        return find(LOOP, name);
    case SD_V_CYCLER:
        return find(CYCLER, name);
    case SD_V_BYTES:
        return find(BYTES, name);
    default:
        return NULL;
    }
}

// As the immutable sandbox has it: such a name is undefined, and calling it is an error.
bool sd_is_unsafe_method(const sd_value *v, sd_str name) {
    static const char *const lists[] = {"append", "clear", "pop",    "reverse",
                                        "insert", "sort",  "extend", "remove"};
    static const char *const dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
    for (size_t i = 0; v->kind == SD_V_LIST && i < sizeof lists / sizeof *lists; i++)
        if (sd_str_is(name, lists[i])) return true;
    for (size_t i = 0; v->kind == SD_V_DICT && i < sizeof dicts / sizeof *dicts; i++)
        if (sd_str_is(name, dicts[i])) return true;
    return false;
}

// A method of a Markup gives Markups.
static bool mark(sd_render *r, sd_value *v) {
    if (v->kind == SD_V_STRING) v->markup = true;
    if (!sd_is_sequence(v)) return true;
    for (size_t i = 0; i < v->list->n; i++)
        if (v->list->item[i].kind == SD_V_STRING) v->list->item[i].markup = true;
    return sd_spend(r, v->list->n);
}

bool sd_call_bound(sd_render *r, sd_filter method, const sd_value *self, sd_args *a,
                   sd_value *out) {
    sd_value of = *self; // out may be self
    return method(r, &of, a, out) && (of.kind != SD_V_STRING || !of.markup || mark(r, out)) &&
           sd_args_all_used(r, a, SD_STR("the method"));
}

bool sd_call_method(sd_render *r, const char *name, const sd_value *self, sd_args *a,
                    sd_value *out) {
    return sd_call_bound(r, sd_find_method(self, (sd_str){name, strlen(name)}), self, a, out);
}
