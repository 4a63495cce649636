// The arguments of a call, as a callee reads them.
#include "model/template/value/value.h"

bool sd_arg(sd_args *a, int position, const char *name, sd_value *out) {
    if (position >= a->asked) a->asked = position + 1;
    if (position >= 0 && position < a->n) {
        *out = a->item[position];
        return true;
    }
    for (int i = 0; name && i < a->n_named; i++)
        if (sd_str_is(a->name[i], name)) {
            a->used |= UINT64_C(1) << i;
            *out = a->named[i];
            return true;
        }
    return false;
}

bool sd_arg_int(sd_render *r, sd_args *a, int position, const char *name, int64_t *out) {
    sd_value v;
    if (!sd_arg(a, position, name, &v) || v.kind == SD_V_NONE) return true;
    if (sd_small_int(&v, out)) return true;
    if (v.kind == SD_V_BIGINT) return sd_render_fail(r, "the argument %s is too large", name);
    return sd_render_fail(r, "the argument %s must be a whole number, not a %s", name,
                          sd_kind_name(&v));
}

bool sd_arg_string(sd_render *r, sd_args *a, int position, const char *name, sd_str *out) {
    sd_value v;
    if (!sd_arg(a, position, name, &v)) return true;
    if (v.kind != SD_V_STRING)
        return sd_render_fail(r, "the argument %s must be a string, not a %s", name,
                              sd_kind_name(&v));
    *out = v.s;
    return true;
}

bool sd_arg_bool(sd_args *a, int position, const char *name, bool otherwise) {
    sd_value v;
    return sd_arg(a, position, name, &v) ? sd_truth(&v) : otherwise;
}

bool sd_args_all_used(sd_render *r, const sd_args *a, sd_str callee) {
    for (int i = 0; i < a->n_named; i++)
        if (!(a->used >> i & 1))
            return sd_render_fail(r, "%.*s takes no argument %.*s", (int)callee.n, callee.p,
                                  (int)a->name[i].n, a->name[i].p);
    return a->n <= a->asked || a->used == UINT64_MAX ||
           sd_render_fail(r, "%.*s takes no %d arguments", (int)callee.n, callee.p, a->n);
}
