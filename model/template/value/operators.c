// The operators + - * / // % ** and signs: numbers as Python has them, strings and sequences.
#include "model/template/value/value.h"

#include <math.h>

static bool bad_operands(sd_render *r, sd_op op, const sd_value *a, const sd_value *b) {
    const sd_value *u = sd_is_undefined(a) ? a : sd_is_undefined(b) ? b : NULL;
    if (r->status != SD_OK) return false; // the reason is recorded already
    if (u)
        return sd_render_fail(r, "\"%.*s\" is undefined, so '%s' cannot take it",
                              (int)(u->s.n < 64 ? u->s.n : 64), u->s.p, sd_op_text(op));
    return sd_render_fail(r, "'%s' does not take a %s and a %s", sd_op_text(op), sd_kind_name(a),
                          sd_kind_name(b));
}

// ---- strings and sequences

static bool join_strings(sd_render *r, const sd_value *x, const sd_value *y, sd_value *out) {
    sd_str a = x->s, b = y->s;
    bool markup = x->markup || y->markup; // the other one is escaped
    if (markup && (!sd_escaped_text(r, x, &a) || !sd_escaped_text(r, y, &b))) return false;
    char *p = sd_render_alloc(r, a.n + b.n + 1, 1);
    if (!p || !sd_spend_bytes(r, a.n + b.n)) return false;
    if (a.n) memcpy(p, a.p, a.n);
    if (b.n) memcpy(p + a.n, b.p, b.n);
    *out = sd_string(p, a.n + b.n);
    out->kind = x->kind;
    out->markup = markup;
    return true;
}

static bool join_lists(sd_render *r, const sd_value *a, const sd_value *b, sd_value *out) {
    sd_list *l = sd_list_make(r, a->list->n + b->list->n);
    if (!l || !sd_spend(r, a->list->n + b->list->n)) return false;
    if (a->list->n) memcpy(l->item, a->list->item, a->list->n * sizeof *l->item);
    if (b->list->n) memcpy(l->item + a->list->n, b->list->item, b->list->n * sizeof *l->item);
    l->n = a->list->n + b->list->n;
    *out = sd_list_value(a->kind, l);
    return true;
}

static bool is_text(const sd_value *v) {
    return v->kind == SD_V_STRING || v->kind == SD_V_BYTES;
}

static bool repeat(sd_render *r, const sd_value *v, const sd_value *by, sd_value *out) {
    size_t n = is_text(v) ? v->s.n : v->list->n, total;
    int64_t times;
    if (!sd_small_int(by, &times)) return sd_render_limit(r, "memory");
    size_t k = times > 0 ? (size_t)times : 0;
    if (!sd_mul_size(&total, n, k) || total > SIZE_MAX / 64) return sd_render_limit(r, "memory");
    if (!sd_reserve_memory(r, total) || !sd_spend(r, total / 16 + 1)) return false;
    if (n == 0) k = 0;
    if (is_text(v)) {
        char *p = sd_render_alloc(r, total + 1, 1);
        if (!p) return false;
        for (size_t i = 0; i < k; i++) memcpy(p + i * n, v->s.p, n);
        *out = *v;
        out->s = (sd_str){p, total};
        return true;
    }
    sd_list *l = sd_list_make(r, total);
    if (!l) return false;
    for (size_t i = 0; i < k; i++) memcpy(l->item + i * n, v->list->item, n * sizeof *l->item);
    l->n = total;
    *out = sd_list_value(v->kind, l);
    return true;
}

// ---- floats

static double remainder_of(double a, double b, double *quotient) {
    double m = fmod(a, b), q = (a - m) / b;
    if (m != 0 && (b < 0) != (m < 0)) {
        m += b;
        q -= 1;
    } else if (m == 0) {
        m = copysign(0, b);
    }
    double whole = q != 0 ? floor(q) : copysign(0, a / b);
    *quotient = q != 0 && q - whole > 0.5 ? whole + 1 : whole;
    return m;
}

static bool real_arithmetic(sd_render *r, sd_op op, double a, double b, sd_value *out) {
    double x = 0, q;
    if (b == 0 && (op == SD_OP_DIV || op == SD_OP_FLOORDIV || op == SD_OP_MOD))
        return sd_render_fail(r, "division by zero");
    switch (op) {
    case SD_OP_ADD:
        x = a + b;
        break;
    case SD_OP_SUB:
        x = a - b;
        break;
    case SD_OP_MUL:
        x = a * b;
        break;
    case SD_OP_DIV:
        x = a / b;
        break;
    case SD_OP_POW:
        if (a == 0 && b < 0) return sd_render_fail(r, "0 has no negative power");
        x = pow(a, b);
        if (isnan(x) && !isnan(a) && !isnan(b))
            return sd_render_fail(r, "complex numbers are not supported");
        if (isinf(x) && !isinf(a) && !isinf(b)) return sd_render_fail(r, "a number is too large");
        break;
    default:
        x = remainder_of(a, b, &q);
        if (op == SD_OP_FLOORDIV) x = q;
    }
    *out = sd_float(x);
    return true;
}

// ----

bool sd_arithmetic(sd_render *r, sd_op op, const sd_value *a, const sd_value *b, sd_value *out) {
    double x, y;
    if (sd_is_int(a) && sd_is_int(b)) return sd_int_binary(r, op, a, b, out);
    if (op == SD_OP_MOD && a->kind == SD_V_STRING) return sd_percent_format(r, a, b, out);
    if (sd_number(r, a, &x) && sd_number(r, b, &y)) return real_arithmetic(r, op, x, y, out);
    if (r->status != SD_OK) return false;
    if (op == SD_OP_ADD && is_text(a) && a->kind == b->kind) return join_strings(r, a, b, out);
    if (op == SD_OP_ADD && sd_is_sequence(a) && a->kind == b->kind) return join_lists(r, a, b, out);
    if (op == SD_OP_MUL && (is_text(a) || sd_is_sequence(a)) && sd_is_int(b))
        return repeat(r, a, b, out);
    if (op == SD_OP_MUL && (is_text(b) || sd_is_sequence(b)) && sd_is_int(a))
        return repeat(r, b, a, out);
    return bad_operands(r, op, a, b);
}

bool sd_sign(sd_render *r, bool minus, const sd_value *v, sd_value *out) {
    int64_t i;
    if (v->kind == SD_V_FLOAT) {
        *out = sd_float(minus ? -v->f : v->f);
        return true;
    }
    if (sd_is_int(v)) {
        if (minus) return sd_int_negate(r, v, out);
        *out = sd_small_int(v, &i) ? sd_int(i) : *v;
        return true;
    }
    if (sd_is_undefined(v))
        return sd_render_fail(r, "\"%.*s\" is undefined, so it has no sign",
                              (int)(v->s.n < 64 ? v->s.n : 64), v->s.p);
    return sd_render_fail(r, "a %s has no sign", sd_kind_name(v));
}
