// The methods of dicts, lists, loops and cyclers. They change nothing but what a loop and a cycler
// remember.
#include "model/template/builtins/builtins.h"

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

SD_BUILTIN(method_items) {
    sd_list *l;
    (void)a;
    return pairs(r, in->dict, &l) && sd_make_iterable(r, SD_V_VIEW, l, "dict_items", out);
}
SD_BUILTIN(method_keys) {
    sd_list *l;
    (void)a;
    return column(r, in->dict->key, in->dict->n, &l) &&
           sd_make_iterable(r, SD_V_VIEW, l, "dict_keys", out);
}
SD_BUILTIN(method_values) {
    sd_list *l;
    (void)a;
    return column(r, in->dict->value, in->dict->n, &l) &&
           sd_make_iterable(r, SD_V_VIEW, l, "dict_values", out);
}

SD_BUILTIN(method_get) {
    sd_value key, *v;
    if (!sd_arg(a, 0, NULL, &key)) return sd_render_fail(r, "get takes a key");
    if (!sd_dict_find(r, in->dict, &key, &v)) return false;
    *out = sd_none();
    sd_arg(a, 1, NULL, out);
    if (v) *out = *v;
    return true;
}

SD_BUILTIN(method_copy) {
    (void)r, (void)a;
    *out = *in; // nothing can change it
    return true;
}

SD_BUILTIN(method_list_index) {
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
SD_BUILTIN(method_list_count) {
    return count_equal(r, in->list, a, out);
}

// ---- loops and turns

SD_BUILTIN(loop_cycle) {
    if (a->n == 0) return sd_render_fail(r, "cycle takes values");
    a->asked = a->n;
    *out = a->item[in->loop->index0 % (size_t)a->n];
    return true;
}

SD_BUILTIN(loop_changed) {
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

SD_BUILTIN(cycler_next) {
    (void)r, (void)a;
    sd_cycle *t = in->cycle;
    *out = t->items->item[t->at];
    t->at = (t->at + 1) % t->items->n;
    return true;
}

SD_BUILTIN(cycler_reset) {
    (void)r, (void)a;
    in->cycle->at = 0;
    *out = sd_none();
    return true;
}

const sd_builtin_row sd_dict_methods[] = {{"items", method_items},   {"keys", method_keys},
                                          {"values", method_values}, {"get", method_get},
                                          {"copy", method_copy},     {NULL, NULL}};
const sd_builtin_row sd_list_methods[] = {{"index", method_list_index},
                                          {"count", method_list_count},
                                          {"copy", method_copy},
                                          {NULL, NULL}};
const sd_builtin_row sd_loop_methods[] = {
    {"cycle", loop_cycle}, {"changed", loop_changed}, {NULL, NULL}};
const sd_builtin_row sd_cycler_methods[] = {
    {"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};
