// Methods by the type of their receiver. Those of strings stand in template_methods_string.c; here
// are those of dicts, lists and loops, which cannot change them.
#include "model/template_internal.h"

static bool method_items(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    sd_list *l = sd_list_make(r, in->dict->n);
    (void)a;
    if (!l) return false;
    for (size_t i = 0; i < in->dict->n; i++) {
        sd_list *pair = sd_list_make(r, 2);
        if (!pair || !sd_list_push(r, pair, &in->dict->key[i]) ||
            !sd_list_push(r, pair, &in->dict->value[i]))
            return false;
        sd_value v = sd_list_value(SD_V_TUPLE, pair);
        if (!sd_list_push(r, l, &v)) return false;
    }
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}

static bool column(sd_render *r, const sd_value *from, size_t n, sd_value *out) {
    sd_list *l = sd_list_make(r, n);
    if (!l) return false;
    for (size_t i = 0; i < n; i++)
        if (!sd_list_push(r, l, &from[i])) return false;
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}
static bool method_keys(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)a;
    return column(r, in->dict->key, in->dict->n, out);
}
static bool method_values(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)a;
    return column(r, in->dict->value, in->dict->n, out);
}

static bool method_get(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    sd_value key;
    if (!sd_arg(a, 0, NULL, &key)) return sd_render_fail(r, "get takes a key");
    sd_value *v;
    if (!sd_dict_find(r, in->dict, &key, &v)) return false;
    *out = sd_none();
    if (v)
        *out = *v;
    else
        sd_arg(a, 1, NULL, out);
    return true;
}

static bool method_copy(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)r, (void)a;
    *out = *in; // nothing can change it
    return true;
}

static bool method_list_index(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    sd_value what;
    if (!sd_arg(a, 0, NULL, &what)) return sd_render_fail(r, "index takes a value");
    for (size_t i = 0; i < in->list->n; i++)
        if (sd_equal(r, &in->list->item[i], &what, 0)) {
            *out = sd_int((int64_t)i);
            return true;
        }
    return sd_render_fail(r, "the value is not in the list");
}

static bool method_list_count(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    sd_value what;
    int64_t n = 0;
    if (!sd_arg(a, 0, NULL, &what)) return sd_render_fail(r, "count takes a value");
    for (size_t i = 0; i < in->list->n; i++) n += sd_equal(r, &in->list->item[i], &what, 0);
    *out = sd_int(n);
    return r->status == SD_OK;
}

static bool method_forbidden(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)a, (void)out;
    return sd_render_fail(r, "a %s cannot be changed; use a namespace", sd_kind_name(in));
}

static bool loop_cycle(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    if (a->n == 0) return sd_render_fail(r, "cycle takes values");
    *out = a->item[in->loop->index0 % (size_t)a->n];
    return true;
}

static bool loop_changed(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    sd_list *now = sd_list_make(r, (size_t)a->n), *before = in->loop->changed;
    if (!now) return false;
    for (int i = 0; i < a->n; i++)
        if (!sd_list_push(r, now, &a->item[i])) return false;
    sd_value x = sd_list_value(SD_V_LIST, now), y = sd_list_value(SD_V_LIST, before);
    *out = sd_bool(!before || !sd_equal(r, &x, &y, 0));
    in->loop->changed = now;
    return r->status == SD_OK;
}

static const sd_method_row DICT[] = {{"items", method_items},      {"keys", method_keys},
                                     {"values", method_values},    {"get", method_get},
                                     {"copy", method_copy},        {"pop", method_forbidden},
                                     {"update", method_forbidden}, {"setdefault", method_forbidden},
                                     {"clear", method_forbidden},  {NULL, NULL}};
static const sd_method_row LIST[] = {
    {"index", method_list_index},  {"count", method_list_count}, {"copy", method_copy},
    {"append", method_forbidden},  {"extend", method_forbidden}, {"insert", method_forbidden},
    {"pop", method_forbidden},     {"remove", method_forbidden}, {"sort", method_forbidden},
    {"reverse", method_forbidden}, {"clear", method_forbidden},  {NULL, NULL}};
static const sd_method_row LOOP[] = {
    {"cycle", loop_cycle}, {"changed", loop_changed}, {NULL, NULL}};

sd_filter sd_find_method(const sd_value *v, sd_str name) {
    const sd_method_row *rows = v->kind == SD_V_STRING ? sd_string_methods
                                : v->kind == SD_V_DICT ? DICT
                                : sd_is_sequence(v)    ? LIST
                                : v->kind == SD_V_LOOP ? LOOP
                                                       : NULL;
    for (; rows && rows->name; rows++)
        if (sd_str_is(name, rows->name)) return rows->call;
    return NULL;
}
