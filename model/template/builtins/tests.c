// Tests, which stand after "is". The tests filter and test ask for a name; they are in by_name.c.
#include "model/template/builtins/builtins.h"

static bool one(sd_render *r, sd_args *a, sd_str name, sd_value *out) {
    return sd_arg(a, 0, NULL, out) ||
           sd_render_fail(r, "the test \"%.*s\" takes a value", (int)name.n, name.p);
}

static bool is_kind_of(sd_value_kind k, const sd_value_kind *kinds, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (kinds[i] == k) return true;
    return false;
}
#define ANY_OF(k, ...)                                                                             \
    is_kind_of(k, (const sd_value_kind[]){__VA_ARGS__},                                            \
               sizeof((sd_value_kind[]){__VA_ARGS__}) / sizeof(sd_value_kind))

static bool collection_test(sd_str name, sd_value_kind k, bool *out) {
    if (sd_str_is(name, "sequence"))
        *out = ANY_OF(k, SD_V_STRING, SD_V_BYTES, SD_V_LIST, SD_V_TUPLE, SD_V_DICT, SD_V_RANGE,
                      SD_V_UNDEFINED, SD_V_UNSAFE);
    else if (sd_str_is(name, "iterable"))
        *out = ANY_OF(k, SD_V_STRING, SD_V_BYTES, SD_V_LIST, SD_V_TUPLE, SD_V_DICT, SD_V_RANGE,
                      SD_V_UNDEFINED, SD_V_UNSAFE, SD_V_LOOP, SD_V_VIEW, SD_V_ITERATOR);
    else if (sd_str_is(name, "callable"))
        *out = ANY_OF(k, SD_V_MACRO, SD_V_FUNCTION, SD_V_METHOD, SD_V_UNDEFINED, SD_V_UNSAFE,
                      SD_V_LOOP, SD_V_JOINER, SD_V_BLOCK);
    else
        return false;
    return true;
}

static bool kind_test(sd_str name, const sd_value *v, bool *out) {
    sd_value_kind k = v->kind;
    if (sd_str_is(name, "defined"))
        *out = !sd_is_undefined(v);
    else if (sd_str_is(name, "undefined"))
        *out = sd_is_undefined(v);
    else if (sd_str_is(name, "none"))
        *out = k == SD_V_NONE;
    else if (sd_str_is(name, "boolean"))
        *out = k == SD_V_BOOL;
    else if (sd_str_is(name, "true"))
        *out = k == SD_V_BOOL && v->b;
    else if (sd_str_is(name, "false"))
        *out = k == SD_V_BOOL && !v->b;
    else if (sd_str_is(name, "integer"))
        *out = k == SD_V_INT || k == SD_V_BIGINT;
    else if (sd_str_is(name, "float"))
        *out = k == SD_V_FLOAT;
    else if (sd_str_is(name, "number"))
        *out = sd_is_int(v) || k == SD_V_FLOAT;
    else if (sd_str_is(name, "string"))
        *out = k == SD_V_STRING;
    else if (sd_str_is(name, "mapping"))
        *out = k == SD_V_DICT;
    else if (sd_str_is(name, "escaped"))
        *out = k == SD_V_STRING && v->markup;
    else
        return collection_test(name, k, out);
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

// even, odd, divisibleby: value % number, as Python has it.
static bool number_test(sd_render *r, sd_str name, const sd_value *v, sd_args *a, bool *out) {
    sd_value by = sd_int(2), rest, wanted = sd_int(sd_str_is(name, "odd"));
    if (sd_str_is(name, "divisibleby") && !one(r, a, name, &by)) return false;
    if (!sd_arithmetic(r, SD_OP_MOD, v, &by, &rest)) return false;
    *out = sd_equal(r, &rest, &wanted, 0);
    return r->status == SD_OK;
}

// The number of a comparison's name in the order ==, !=, <, <=, >, >=; -1 when it is none.
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
        return sd_str_eq(a->s, b->s) && a->markup == b->markup;
    case SD_V_FLOAT:
    case SD_V_UNDEFINED:
        return false;
    default:
        return a->list == b->list;
    }
}

bool sd_is_test(sd_str name) {
    static const char *const others[] = {"in",  "sameas", "lower",       "upper", "even",
                                         "odd", "filter", "divisibleby", "test"};
    sd_value none = sd_none();
    bool unused;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (sd_str_is(name, others[i])) return true;
    return kind_test(name, &none, &unused) || order_test(name) >= 0;
}

bool sd_value_test(sd_render *r, sd_str name, const sd_value *in, sd_args *a, bool *out) {
    sd_value other;
    int order;
    if (kind_test(name, in, out)) return true;
    int which = order_test(name);
    if (which >= 0) {
        if (!one(r, a, name, &other)) return false;
        if (which < 2) {
            *out = sd_equal(r, in, &other, 0) == (which == 0);
            return r->status == SD_OK;
        }
        if (!sd_compare(r, in, &other, &order)) return false;
        *out = sd_satisfies((sd_op)(SD_OP_LT + which - 2), order);
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
    return sd_render_fail(r, "there is no test \"%.*s\"", (int)(name.n < 64 ? name.n : 64), name.p);
}
