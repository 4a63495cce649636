// Tests: what stands after "is".
#include "model/template_internal.h"

static bool is_whole(const sd_value *v, int64_t *out) {
    *out = v->kind == SD_V_INT ? v->i : v->b;
    return v->kind == SD_V_INT || v->kind == SD_V_BOOL;
}

static bool one(sd_render *r, sd_args *a, sd_str name, sd_value *out) {
    return sd_arg(a, 0, NULL, out) ||
           sd_render_fail(r, "the test \"%.*s\" takes a value", (int)name.n, name.p);
}

static bool kind_test(sd_str name, const sd_value *v, bool *out) {
    sd_value_kind k = v->kind;
    if (sd_str_is(name, "defined"))
        *out = k != SD_V_UNDEFINED;
    else if (sd_str_is(name, "undefined"))
        *out = k == SD_V_UNDEFINED;
    else if (sd_str_is(name, "none"))
        *out = k == SD_V_NONE;
    else if (sd_str_is(name, "boolean"))
        *out = k == SD_V_BOOL;
    else if (sd_str_is(name, "true"))
        *out = k == SD_V_BOOL && v->b;
    else if (sd_str_is(name, "false"))
        *out = k == SD_V_BOOL && !v->b;
    else if (sd_str_is(name, "integer"))
        *out = k == SD_V_INT;
    else if (sd_str_is(name, "float"))
        *out = k == SD_V_FLOAT;
    else if (sd_str_is(name, "number"))
        *out = k == SD_V_INT || k == SD_V_FLOAT || k == SD_V_BOOL;
    else if (sd_str_is(name, "string"))
        *out = k == SD_V_STRING;
    else if (sd_str_is(name, "mapping"))
        *out = k == SD_V_DICT;
    else if (sd_str_is(name, "sequence"))
        *out = k == SD_V_STRING || k == SD_V_LIST || k == SD_V_TUPLE || k == SD_V_DICT ||
               k == SD_V_UNDEFINED;
    else if (sd_str_is(name, "iterable"))
        *out = k == SD_V_STRING || k == SD_V_LIST || k == SD_V_TUPLE || k == SD_V_DICT ||
               k == SD_V_UNDEFINED || k == SD_V_LOOP;
    else if (sd_str_is(name, "callable"))
        *out = k == SD_V_MACRO || k == SD_V_FUNCTION || k == SD_V_METHOD || k == SD_V_UNDEFINED;
    else if (sd_str_is(name, "escaped"))
        *out = false;
    else
        return false;
    return true;
}

static bool case_test(sd_render *r, const sd_value *v, const char *method, bool *out) {
    sd_value text = {.kind = SD_V_STRING}, yes;
    sd_args none = {0};
    if (!sd_text_of(r, v, &text.s)) return false;
    if (!sd_find_method(&text, (sd_str){method, strlen(method)})(r, &text, &none, &yes))
        return false;
    *out = yes.b;
    return true;
}

static bool number_test(sd_render *r, sd_str name, const sd_value *v, sd_args *a, bool *out) {
    int64_t i, by = 2;
    sd_value divisor;
    if (!is_whole(v, &i))
        return sd_render_fail(r, "the test \"%.*s\" does not take a %s", (int)name.n, name.p,
                              sd_kind_name(v));
    if (sd_str_is(name, "divisibleby")) {
        if (!one(r, a, name, &divisor)) return false;
        if (!is_whole(&divisor, &by) || by == 0) return sd_render_fail(r, "division by zero");
    }
    bool divides = by == -1 || i % by == 0;
    *out = divides != sd_str_is(name, "odd");
    return true;
}

// -1: none of these; else whether order satisfies it, for ==, !=, <, <=, >, >=.
static int order_test(sd_str name) {
    static const char *const names[6][4] = {{"eq", "equalto", "==", NULL},    {"ne", "!=", NULL},
                                            {"lt", "lessthan", "<", NULL},    {"le", "<=", NULL},
                                            {"gt", "greaterthan", ">", NULL}, {"ge", ">=", NULL}};
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 4 && names[i][k]; k++)
            if (sd_str_is(name, names[i][k])) return i;
    return -1;
}

static bool same(const sd_value *a, const sd_value *b) {
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case SD_V_NONE:
        return true;
    case SD_V_BOOL:
        return a->b == b->b;
    case SD_V_INT:
        return a->i == b->i;
    case SD_V_STRING:
        return sd_str_eq(a->s, b->s);
    case SD_V_FLOAT:
    case SD_V_UNDEFINED:
        return false;
    default:
        return a->list == b->list;
    }
}

bool sd_apply_test(sd_render *r, sd_str name, const sd_value *in, sd_args *a, bool *out) {
    sd_value other;
    int order;
    if (!sd_spend(r, 1)) return false;
    if (kind_test(name, in, out)) return true;
    int which = order_test(name);
    if (which >= 0) {
        if (!one(r, a, name, &other)) return false;
        if (which < 2) {
            *out = sd_equal(r, in, &other, 0) == (which == 0);
            return r->status == SD_OK;
        }
        if (!sd_compare(r, in, &other, &order)) return false;
        *out = which == 2   ? order < 0
               : which == 3 ? order <= 0
               : which == 4 ? order > 0
                            : order >= 0;
        return true;
    }
    if (sd_str_is(name, "in")) return one(r, a, name, &other) && sd_contains(r, &other, in, out);
    if (sd_str_is(name, "sameas")) {
        if (!one(r, a, name, &other)) return false;
        *out = same(in, &other);
        return true;
    }
    if (sd_str_is(name, "lower")) return case_test(r, in, "islower", out);
    if (sd_str_is(name, "upper")) return case_test(r, in, "isupper", out);
    if (sd_str_is(name, "even") || sd_str_is(name, "odd") || sd_str_is(name, "divisibleby"))
        return number_test(r, name, in, a, out);
    return sd_render_fail(r, "there is no test \"%.*s\"", (int)name.n, name.p);
}
