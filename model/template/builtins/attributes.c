// Attributes, methods, subscripts and dotted paths: how a template reaches into a value.
//
// str.format reaches into its values as templates do, and is itself a method that is reached. So
// methods_format.c stands below and gets the two functions handed in.
#include "model/template/builtins/builtins.h"
#include "model/template/syntax/syntax.h"

// ---- methods

static const sd_reach REACH = {sd_attribute, sd_item};

SD_BUILTIN(method_format) {
    a->used = UINT64_MAX;
    return sd_format_fields(r, in, a, NULL, &REACH, out);
}

SD_BUILTIN(method_format_map) {
    if (a->n != 1 || a->n_named || a->item[0].kind != SD_V_DICT)
        return sd_render_fail(r, "format_map takes a dict");
    a->asked = 1;
    return sd_format_fields(r, in, a, a->item[0].dict, &REACH, out);
}

static const sd_builtin_row FORMATS[] = {
    {"format", method_format}, {"format_map", method_format_map}, {NULL, NULL}};
static const sd_builtin_row *const STRING[] = {sd_string_methods, sd_case_methods, sd_split_methods,
                                               FORMATS};

static sd_builtin row_of(const sd_builtin_row *rows, sd_str name) {
    for (; rows && rows->name; rows++)
        if (sd_str_is(name, rows->name)) return rows->call;
    return NULL;
}

sd_builtin sd_find_method(const sd_value *v, sd_str name) {
    sd_builtin f;
    switch (v->kind) {
    case SD_V_STRING:
        for (size_t i = 0; i < sizeof STRING / sizeof *STRING; i++)
            if ((f = row_of(STRING[i], name))) return f;
        return NULL;
    case SD_V_DICT:
        return row_of(sd_dict_methods, name);
    case SD_V_LIST:
        return row_of(sd_list_methods, name);
    case SD_V_TUPLE:
        return sd_str_is(name, "copy") ? NULL : row_of(sd_list_methods, name);
    case SD_V_LOOP:
        return row_of(sd_loop_methods, name);
    case SD_V_CYCLER:
        return row_of(sd_cycler_methods, name);
    case SD_V_BYTES:
        return row_of(sd_bytes_methods, name);
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

bool sd_call_bound(sd_render *r, sd_builtin method, const sd_value *self, sd_args *a,
                   sd_value *out) {
    sd_value of = *self; // a copy, because out may be self
    return method(r, &of, a, out) && (of.kind != SD_V_STRING || !of.markup || mark(r, out)) &&
           sd_args_all_used(r, a, SD_STR("the method"));
}

bool sd_call_method(sd_render *r, const char *name, const sd_value *self, sd_args *a,
                    sd_value *out) {
    return sd_call_bound(r, sd_find_method(self, (sd_str){name, strlen(name)}), self, a, out);
}

// ---- attributes

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
        *out = sd_int(l->depth0 + 1);
    else if (sd_str_is(name, "depth0"))
        *out = sd_int(l->depth0);
    else if (sd_str_is(name, "previtem"))
        *out = i ? l->items->item[i - 1] : sd_undefined(name);
    else if (sd_str_is(name, "nextitem"))
        *out = i + 1 < n ? l->items->item[i + 1] : sd_undefined(name);
    else
        return false;
    return true;
}

// (parameter, ...)
static bool macro_arguments(sd_render *r, const sd_macro *m, sd_value *out) {
    sd_list *l = sd_list_make(r, (size_t)m->node->n);
    if (!l) return false;
    for (int i = 0; i < m->node->n; i++) {
        sd_value v = sd_string(m->node->list[i]->text.p, m->node->list[i]->text.n);
        if (!sd_list_push(r, l, &v)) return false;
    }
    *out = sd_list_value(SD_V_TUPLE, l);
    return true;
}

static bool macro_attribute(sd_render *r, const sd_macro *m, sd_str name, sd_value *out,
                            bool *found) {
    *found = true;
    if (sd_str_is(name, "name"))
        *out = m->name.n ? sd_string(m->name.p, m->name.n) : sd_none();
    else if (sd_str_is(name, "arguments"))
        return macro_arguments(r, m, out);
    else if (sd_str_is(name, "caller"))
        *out = sd_bool(m->node->uses & SD_USES_CALLER);
    else if (sd_str_is(name, "catch_varargs"))
        *out = sd_bool(m->node->uses & SD_USES_VARARGS);
    else if (sd_str_is(name, "catch_kwargs"))
        *out = sd_bool(m->node->uses & SD_USES_KWARGS);
    else
        *found = false;
    return true;
}

// Finds the block of that name; the value can be called.
static bool find_block(sd_render *r, sd_str name, sd_value *out, bool *found) {
    *found = false;
    for (int i = 0; r->blocks && i < r->blocks->n && !*found; i++) {
        if (!sd_spend(r, 1)) return false;
        *found = sd_str_eq(r->blocks->list[i]->text, name);
        if (*found) *out = (sd_value){.kind = SD_V_BLOCK, .node = r->blocks->list[i]};
    }
    return true;
}

// Finds what a value has under a name beside its keys: loop variables, methods, blocks.
static bool own_attribute(sd_render *r, const sd_value *v, sd_str name, sd_value *out,
                          bool *found) {
    *found = true;
    if (v->kind == SD_V_LOOP && loop_attribute(v->loop, name, out)) return true;
    if (v->kind == SD_V_MACRO) return macro_attribute(r, v->macro, name, out, found);
    if (v->kind == SD_V_TUPLE && v->list->group &&
        (sd_str_is(name, "grouper") || sd_str_is(name, "list"))) {
        *out = v->list->item[sd_str_is(name, "list")];
        return true;
    }
    if (v->kind == SD_V_SELF) return find_block(r, name, out, found);
    if (v->kind == SD_V_CYCLER && sd_str_is(name, "current")) {
        *out = v->cycle->items->item[v->cycle->at];
        return true;
    }
    if (sd_is_unsafe_method(v, name)) {
        *out = (sd_value){.kind = SD_V_UNSAFE, .s = name};
        return true;
    }
    sd_builtin call = sd_find_method(v, name);
    *found = call != NULL;
    if (!call) return true;
    sd_method *m = sd_render_alloc(r, 1, sizeof *m);
    if (!m) return false;
    *m = (sd_method){*v, call};
    *out = (sd_value){.kind = SD_V_METHOD, .method = m};
    return true;
}

// *out: the value at a key of a dict or namespace, NULL when there is none. False: an error.
static bool key_of(sd_render *r, const sd_value *v, sd_str name, sd_value **out) {
    *out = NULL;
    return (v->kind != SD_V_DICT && v->kind != SD_V_NAMESPACE) ||
           sd_dict_get(r, v->dict, name, out);
}

// a.b looks for a method or loop variable first, then for a key.
bool sd_attribute(sd_render *r, const sd_value *v, sd_str name, sd_value *out) {
    bool found;
    sd_value *x;
    if (sd_is_undefined(v)) return sd_refuse_undefined(r, v, name);
    if (!own_attribute(r, v, name, out, &found)) return false;
    if (found) return true;
    if (!key_of(r, v, name, &x)) return false;
    *out = x ? *x : sd_undefined(name);
    return true;
}

// ---- positions

static void element(const sd_list *l, int64_t i, sd_value *out) {
    if (i < 0) i += (int64_t)l->n;
    if (i >= 0 && (uint64_t)i < l->n) *out = l->item[i];
}

static void range_element(const sd_range *g, int64_t i, sd_value *out) {
    if (i < 0) i += (int64_t)g->n;
    if (i >= 0 && (uint64_t)i < g->n) *out = sd_int(g->from + i * g->step);
}

// a[b] looks for a key or position first, then for an attribute.
bool sd_item(sd_render *r, const sd_value *v, const sd_value *index, sd_value *out) {
    sd_str name = index->kind == SD_V_STRING ? index->s : SD_STR("the item");
    int64_t i;
    bool number = sd_small_int(index, &i), found;
    sd_value *x = NULL;
    if (sd_is_undefined(v)) return sd_refuse_undefined(r, v, name);
    *out = sd_undefined(name);
    if (v->kind == SD_V_DICT) {
        if (sd_hashable(index) && !sd_dict_find(r, v->dict, index, &x)) return false;
        if (x) {
            *out = *x;
            return true;
        }
    } else if (number && sd_is_sequence(v)) {
        element(v->list, i, out);
    } else if (number && (v->kind == SD_V_STRING || v->kind == SD_V_BYTES)) {
        return sd_character(r, v, i, out);
    } else if (number && v->kind == SD_V_RANGE) {
        range_element(v->range, i, out);
    }
    if (index->kind != SD_V_STRING) return true;
    if (v->kind == SD_V_NAMESPACE && !key_of(r, v, name, &x)) return false;
    if (x) {
        *out = *x;
        return true;
    }
    if (!own_attribute(r, v, name, out, &found)) return false;
    if (!found) *out = sd_undefined(name);
    return true;
}

// ---- paths

bool sd_path(sd_render *r, const sd_value *v, const sd_value *path, const sd_value *otherwise,
             sd_value *out) {
    *out = *v;
    if (path->kind == SD_V_NONE) return true;
    if (path->kind != SD_V_STRING) {
        if (!sd_item(r, v, path, out)) return false;
        if (otherwise && sd_is_undefined(out)) *out = *otherwise;
        return true;
    }
    sd_str left = path->s;
    for (bool more = true; more;) {
        const char *dot = left.n ? memchr(left.p, '.', left.n) : NULL;
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
        if (otherwise && sd_is_undefined(out)) *out = *otherwise;
        more = dot != NULL;
        left.p += dot ? n + 1 : n;
        left.n -= dot ? n + 1 : n;
    }
    return true;
}
