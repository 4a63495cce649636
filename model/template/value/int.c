// Whole numbers of any size, as Python has them. A number that fits 64 bits is an sd_value of its
// own kind; a larger one is a sign and limbs of 32 bits, least significant first. Schoolbook
// arithmetic (Knuth, TAOCP 2, 4.3.1) is enough for at most MAX_LIMBS; its work costs steps.
#include "model/template/value/value.h"

#include <math.h>
#include <stdio.h>

enum {
    MAX_LIMBS = 4096,        // 131,072 bits
    MAX_DIGITS = 4300,       // of a decimal text, as Python limits it
    MAX_DECIMAL_LIMBS = 447, // one more has more digits
    LIMBS_A_STEP = 16
};

struct sd_bigint {
    bool minus;
    uint32_t n;
    uint32_t limb[]; // [n], the last is not 0
};

// An operand or a result being made.
typedef struct {
    bool minus;
    uint32_t n;
    uint32_t *limb;
    uint32_t own[2]; // of an operand of 64 bits
} big;

bool sd_is_int(const sd_value *v) {
    return v->kind == SD_V_INT || v->kind == SD_V_BOOL || v->kind == SD_V_BIGINT;
}

bool sd_small_int(const sd_value *v, int64_t *out) {
    *out = v->kind == SD_V_INT ? v->i : v->kind == SD_V_BOOL && v->b;
    return v->kind == SD_V_INT || v->kind == SD_V_BOOL;
}

static void read_big(big *x, const sd_value *v) {
    int64_t i;
    if (v->kind == SD_V_BIGINT) {
        // the limbs are only read through an operand
        *x = (big){v->big->minus, v->big->n, (uint32_t *)(uintptr_t)v->big->limb, {0}};
        return;
    }
    sd_small_int(v, &i);
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    *x = (big){.minus = i < 0, .own = {(uint32_t)u, (uint32_t)(u >> 32)}};
    x->n = x->own[1] ? 2 : x->own[0] != 0;
    x->limb = x->own;
}

static bool make_big(sd_render *r, big *x, size_t n) {
    *x = (big){.n = (uint32_t)n};
    if (n > MAX_LIMBS) return sd_render_fail(r, "a number is too large");
    x->limb = sd_render_alloc(r, n + 1, sizeof *x->limb);
    return x->limb != NULL;
}

static void trim(big *x) {
    while (x->n && x->limb[x->n - 1] == 0) x->n--;
    if (!x->n) x->minus = false;
}

// Makes a value of x, of the small kind where it fits.
static bool value_of(sd_render *r, big *x, sd_value *out) {
    trim(x);
    uint64_t u = x->n ? x->limb[0] : 0;
    if (x->n > 1) u |= (uint64_t)x->limb[1] << 32;
    if (x->n <= 2 && u <= (uint64_t)INT64_MAX + x->minus) {
        *out = sd_int(x->minus ? (int64_t)(0 - u) : (int64_t)u);
        return true;
    }
    if (x->n > MAX_LIMBS) return sd_render_fail(r, "a number is too large");
    sd_bigint *b = sd_render_alloc(r, 1, sizeof *b + x->n * sizeof *b->limb);
    if (!b) return false;
    b->minus = x->minus;
    b->n = x->n;
    memcpy(b->limb, x->limb, x->n * sizeof *b->limb);
    *out = (sd_value){.kind = SD_V_BIGINT, .big = b};
    return true;
}

// ---- magnitudes

static int compare_size(const big *a, const big *b) {
    if (a->n != b->n) return a->n < b->n ? -1 : 1;
    for (uint32_t i = a->n; i-- > 0;)
        if (a->limb[i] != b->limb[i]) return a->limb[i] < b->limb[i] ? -1 : 1;
    return 0;
}

static bool add_sizes(sd_render *r, const big *a, const big *b, big *out) {
    uint32_t n = a->n > b->n ? a->n : b->n;
    uint64_t carry = 0;
    if (!make_big(r, out, (size_t)n + 1)) return false;
    for (uint32_t i = 0; i < n; i++) {
        carry += (uint64_t)(i < a->n ? a->limb[i] : 0) + (i < b->n ? b->limb[i] : 0);
        out->limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    out->limb[n] = (uint32_t)carry;
    return true;
}

static bool subtract_sizes(sd_render *r, const big *a, const big *b, big *out) { // a >= b
    int64_t borrow = 0;
    if (!make_big(r, out, a->n)) return false;
    for (uint32_t i = 0; i < a->n; i++) {
        int64_t d = (int64_t)a->limb[i] - (i < b->n ? b->limb[i] : 0) + borrow;
        out->limb[i] = (uint32_t)d;
        borrow = d < 0 ? -1 : 0;
    }
    return true;
}

static bool add(sd_render *r, const big *a, const big *b, bool subtract, big *out) {
    bool b_minus = b->minus != subtract && b->n;
    bool ok = true;
    if (a->minus == b_minus || !a->n || !b->n) {
        ok = add_sizes(r, a, b, out);
        out->minus = a->n ? a->minus : b_minus;
    } else if (compare_size(a, b) >= 0) {
        ok = subtract_sizes(r, a, b, out);
        out->minus = a->minus;
    } else {
        ok = subtract_sizes(r, b, a, out);
        out->minus = b_minus;
    }
    return ok;
}

static bool multiply(sd_render *r, const big *a, const big *b, big *out) {
    if (!make_big(r, out, (size_t)a->n + b->n) ||
        !sd_spend(r, (size_t)a->n * b->n / LIMBS_A_STEP + 1))
        return false;
    for (uint32_t i = 0; i < a->n; i++) {
        uint64_t carry = 0;
        for (uint32_t k = 0; k < b->n; k++) {
            carry += (uint64_t)a->limb[i] * b->limb[k] + out->limb[i + k];
            out->limb[i + k] = (uint32_t)carry;
            carry >>= 32;
        }
        out->limb[i + b->n] = (uint32_t)carry;
    }
    out->minus = a->minus != b->minus;
    trim(out);
    return true;
}

// x /= by in place; the result is the remainder.
static uint32_t divide_by_limb(big *x, uint32_t by) {
    uint64_t rest = 0;
    for (uint32_t i = x->n; i-- > 0;) {
        rest = rest << 32 | x->limb[i];
        x->limb[i] = (uint32_t)(rest / by);
        rest %= by;
    }
    trim(x);
    return (uint32_t)rest;
}

static uint32_t shifted(const big *x, uint32_t i, int shift) { // limb i of x << shift
    uint64_t high = i < x->n ? x->limb[i] : 0, low = i > 0 && i - 1 < x->n ? x->limb[i - 1] : 0;
    return (uint32_t)((high << shift) | (shift ? low >> (32 - shift) : 0));
}

// One digit of Knuth's algorithm D: u [n + 1] loses q times v [n].
static uint32_t quotient_digit(uint32_t *u, const uint32_t *v, uint32_t n) {
    uint64_t top = (uint64_t)u[n] << 32 | u[n - 1], q = top / v[n - 1], rest = top % v[n - 1];
    while (q >> 32 || q * v[n - 2] > (rest << 32 | u[n - 2])) {
        q--;
        rest += v[n - 1];
        if (rest >> 32) break;
    }
    int64_t borrow = 0;
    uint64_t carry = 0;
    for (uint32_t i = 0; i < n; i++) {
        carry += q * v[i];
        int64_t d = (int64_t)u[i] - (int64_t)(uint32_t)carry + borrow;
        u[i] = (uint32_t)d;
        borrow = d >> 32;
        carry >>= 32;
    }
    int64_t d = (int64_t)u[n] - (int64_t)carry + borrow;
    u[n] = (uint32_t)d;
    if (d >= 0) return (uint32_t)q;
    for (uint32_t i = 0, over = 0; i <= n; i++) { // one too many
        uint64_t sum = (uint64_t)u[i] + (i < n ? v[i] : 0) + over;
        u[i] = (uint32_t)sum;
        over = (uint32_t)(sum >> 32);
    }
    return (uint32_t)(q - 1);
}

// Magnitudes: *q = a / b, *m = a % b; b is not 0.
static bool divide_sizes(sd_render *r, const big *a, const big *b, big *q, big *m) {
    if (!make_big(r, q, a->n) || !make_big(r, m, (size_t)a->n + 1) ||
        !sd_spend(r, (size_t)a->n * b->n / LIMBS_A_STEP + 1))
        return false;
    if (compare_size(a, b) < 0 || b->n == 1) {
        memcpy(m->limb, a->limb, a->n * sizeof *m->limb);
        if (b->n == 1) {
            memcpy(q->limb, a->limb, a->n * sizeof *q->limb);
            m->limb[0] = divide_by_limb(q, b->limb[0]);
            m->n = 1;
        }
        trim(q);
        trim(m);
        return true;
    }
    big v;
    int shift = __builtin_clz(b->limb[b->n - 1]);
    if (!make_big(r, &v, b->n)) return false;
    for (uint32_t i = 0; i < b->n; i++) v.limb[i] = shifted(b, i, shift);
    for (uint32_t i = 0; i <= a->n; i++) m->limb[i] = shifted(a, i, shift);
    for (uint32_t k = a->n - b->n + 1; k-- > 0;)
        q->limb[k] = quotient_digit(m->limb + k, v.limb, b->n);
    for (uint32_t i = 0; i < b->n; i++) // the remainder, shifted back
        m->limb[i] =
            m->limb[i] >> shift | (shift && i + 1 < b->n ? m->limb[i + 1] << (32 - shift) : 0);
    m->n = b->n;
    trim(q);
    trim(m);
    return true;
}

// Python's: the quotient rounds down, the remainder has the divisor's sign.
static bool divide(sd_render *r, const big *a, const big *b, big *q, big *m) {
    big one = {.n = 1, .own = {1}}, rounded;
    one.limb = one.own;
    if (!divide_sizes(r, a, b, q, m)) return false;
    q->minus = a->minus != b->minus && q->n;
    m->minus = a->minus && m->n;
    if (m->n && a->minus != b->minus) {
        if (!add(r, q, &one, true, &rounded)) return false;
        *q = rounded;
        if (!add(r, m, b, false, &rounded)) return false;
        *m = rounded;
    }
    trim(q);
    trim(m);
    return true;
}

static bool power(sd_render *r, const big *a, uint64_t exponent, big *out) {
    big square = *a, product;
    if (!make_big(r, out, 1)) return false;
    out->limb[0] = 1;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) {
            if (!multiply(r, out, &square, &product)) return false;
            *out = product;
        }
        if (exponent == 1) break;
        if (!multiply(r, &square, &square, &product)) return false;
        square = product;
    }
    return true;
}

// ---- floats

// The magnitude's 64 highest bits with a sticky last one, times 2^*exponent.
static uint64_t leading_bits(const big *x, int *exponent) {
    uint32_t n = x->n;
    if (n == 0) return *exponent = 0, 0;
    int shift = __builtin_clz(x->limb[n - 1]);
    uint64_t top =
        (uint64_t)shifted(x, n - 1, shift) << 32 | (n > 1 ? shifted(x, n - 2, shift) : 0);
    bool sticky = n > 2 && (shifted(x, n - 3, shift) != 0);
    for (uint32_t i = 0; i + 3 < n && !sticky; i++) sticky = x->limb[i] != 0;
    *exponent = 32 * ((int)n - 2) - shift;
    return top | sticky;
}

// A float rounds 64 bits to 53, half to even: the sticky bit keeps that right.
static double rounded_double(uint64_t bits, int exponent) {
    return ldexp((double)bits, exponent);
}

double sd_int_approx(const sd_value *v) {
    big x;
    int exponent;
    read_big(&x, v);
    uint64_t bits = leading_bits(&x, &exponent);
    double f = rounded_double(bits, exponent);
    return x.minus ? -f : f;
}

bool sd_int_to_double(sd_render *r, const sd_value *v, double *out) {
    *out = sd_int_approx(v);
    return !isinf(*out) || sd_render_fail(r, "a number is too large for a float");
}

bool sd_int_from_double(sd_render *r, double f, sd_value *out) {
    if (isnan(f) || isinf(f)) return sd_render_fail(r, "a float that is no number is no int");
    f = trunc(f);
    if (fabs(f) < 9e18) {
        *out = sd_int((int64_t)f);
        return true;
    }
    int exponent;
    uint64_t bits = (uint64_t)ldexp(frexp(fabs(f), &exponent), 53);
    exponent -= 53; // above 0 here
    big x;
    uint32_t at = (uint32_t)exponent / 32, shift = (uint32_t)exponent % 32;
    if (!make_big(r, &x, at + 3)) return false;
    x.limb[at] = (uint32_t)(bits << shift);
    x.limb[at + 1] = (uint32_t)(bits >> (32 - shift));
    x.limb[at + 2] = shift ? (uint32_t)(bits >> (64 - shift)) : 0;
    x.minus = f < 0;
    return value_of(r, &x, out);
}

// a / b, correctly rounded: the quotient of 64 bits and more with a sticky bit.
static bool true_quotient(sd_render *r, const big *a, const big *b, double *out) {
    big wide, q, m;
    int drop;
    int64_t extra = 3 + (int64_t)b->n - a->n; // limbs put below a
    if (a->n == 0) return *out = 0, true;
    if (extra < 0) extra = 0;
    if (!make_big(r, &wide, (size_t)a->n + (size_t)extra)) return false;
    memcpy(wide.limb + extra, a->limb, a->n * sizeof *a->limb);
    if (!divide_sizes(r, &wide, b, &q, &m)) return false;
    uint64_t bits = leading_bits(&q, &drop) | (m.n != 0);
    *out = rounded_double(bits, drop - 32 * (int)extra);
    if (isinf(*out)) return sd_render_fail(r, "a number is too large for a float");
    if (a->minus != b->minus) *out = -*out;
    return true;
}

int sd_int_compare(const sd_value *a, const sd_value *b) {
    big x, y;
    read_big(&x, a);
    read_big(&y, b);
    if (x.minus != y.minus) return x.minus ? -1 : 1;
    int c = compare_size(&x, &y);
    return x.minus ? -c : c;
}

bool sd_int_compare_float(sd_render *r, const sd_value *a, double f, int *order) {
    sd_value whole;
    if (isnan(f) || isinf(f)) {
        *order = isnan(f) ? SD_UNORDERED : f > 0 ? -1 : 1;
        return true;
    }
    if (!sd_int_from_double(r, f, &whole)) return false;
    *order = sd_int_compare(a, &whole);
    if (*order == 0) *order = f > trunc(f) ? -1 : f < trunc(f) ? 1 : 0;
    return true;
}

// ---- operators

static bool small_binary(sd_op op, int64_t a, int64_t b, sd_value *out) {
    int64_t x;
    bool over = true;
    if (op == SD_OP_ADD) over = __builtin_add_overflow(a, b, &x);
    if (op == SD_OP_SUB) over = __builtin_sub_overflow(a, b, &x);
    if (op == SD_OP_MUL) over = __builtin_mul_overflow(a, b, &x);
    if ((op == SD_OP_FLOORDIV || op == SD_OP_MOD) && b > 0) {
        int64_t m = a % b;
        x = op == SD_OP_MOD ? m + (m < 0) * b : a / b - (m < 0);
        over = false;
    }
    if (!over) *out = sd_int(x);
    return !over;
}

// If a float holds both operands exactly, the division of floats rounds correctly.
static bool exact_quotient(const sd_value *a, const sd_value *b, sd_value *out) {
    const int64_t most = INT64_C(1) << 53;
    int64_t i, k;
    if (!sd_small_int(a, &i) || !sd_small_int(b, &k)) return false;
    if (i > most || i < -most || k > most || k < -most) return false;
    *out = sd_float((double)i / (double)k);
    return true;
}

static bool float_binary(sd_render *r, sd_op op, const sd_value *a, const sd_value *b, big *x,
                         big *y, sd_value *out) {
    double f, g;
    if (op == SD_OP_DIV) {
        if (y->n == 0) return sd_render_fail(r, "division by zero");
        if (exact_quotient(a, b, out)) return true;
        if (!true_quotient(r, x, y, &f)) return false;
    } else { // a negative power
        if (x->n == 0) return sd_render_fail(r, "0 has no negative power");
        if (!sd_int_to_double(r, a, &f) || !sd_int_to_double(r, b, &g)) return false;
        f = pow(f, g);
    }
    *out = sd_float(f);
    return true;
}

static bool raise(sd_render *r, const big *x, const big *y, big *out) {
    uint64_t exponent = y->n ? y->limb[0] : 0;
    bool unit = x->n == 0 || (x->n == 1 && x->limb[0] == 1);
    if (y->n > 1 && !unit) return sd_render_fail(r, "a number is too large");
    return power(r, x, unit && y->n ? 2 - exponent % 2 : exponent, out);
}

bool sd_int_binary(sd_render *r, sd_op op, const sd_value *a, const sd_value *b, sd_value *out) {
    int64_t i, k;
    big x, y, z, rest;
    bool ok;
    if (sd_small_int(a, &i) && sd_small_int(b, &k) && small_binary(op, i, k, out)) return true;
    read_big(&x, a);
    read_big(&y, b);
    if (op == SD_OP_DIV || (op == SD_OP_POW && y.minus))
        return float_binary(r, op, a, b, &x, &y, out);
    switch (op) {
    case SD_OP_ADD:
    case SD_OP_SUB:
        ok = add(r, &x, &y, op == SD_OP_SUB, &z);
        break;
    case SD_OP_MUL:
        ok = multiply(r, &x, &y, &z);
        break;
    case SD_OP_POW:
        ok = raise(r, &x, &y, &z);
        break;
    default:
        if (y.n == 0) return sd_render_fail(r, "division by zero");
        ok = divide(r, &x, &y, &z, &rest);
        if (op == SD_OP_MOD) z = rest;
    }
    return ok && value_of(r, &z, out);
}

bool sd_int_negate(sd_render *r, const sd_value *v, sd_value *out) {
    sd_value zero = sd_int(0);
    return sd_int_binary(r, SD_OP_SUB, &zero, v, out);
}

bool sd_int_is_negative(const sd_value *v) {
    return v->kind == SD_V_BIGINT ? v->big->minus : v->kind == SD_V_INT && v->i < 0;
}

// ---- texts

static bool put_power_of_two(sd_render *r, sd_buf *b, const big *x, int bits) {
    int64_t all = (int64_t)x->n * 32, at = (all + bits - 1) / bits;
    bool any = false;
    for (; at-- > 0;) {
        uint32_t digit = 0;
        for (int k = bits - 1; k >= 0; k--) {
            int64_t bit = at * bits + k;
            digit = digit << 1 | (bit < all ? x->limb[bit / 32] >> (bit % 32) & 1 : 0);
        }
        any |= digit != 0;
        if (any && !sd_putc(r, b, "0123456789abcdef"[digit])) return false;
    }
    return any || sd_putc(r, b, '0');
}

// Writes the magnitude's digits.
static bool put_digits(sd_render *r, sd_buf *b, const big *x, int base) {
    char text[MAX_DIGITS + 16], *end = text + sizeof text, *p = end;
    big left;
    if (!sd_spend(r, x->n)) return false;
    if (base != 10) return put_power_of_two(r, b, x, base == 16 ? 4 : base == 8 ? 3 : 1);
    if (x->n > MAX_DECIMAL_LIMBS)
        return sd_render_fail(r, "a number of more than %d digits has no text", MAX_DIGITS);
    if (!make_big(r, &left, x->n)) return false;
    if (!sd_spend(r, (size_t)x->n * x->n / LIMBS_A_STEP)) return false;
    memcpy(left.limb, x->limb, x->n * sizeof *x->limb);
    do {
        uint32_t nine = divide_by_limb(&left, 1000000000);
        for (int i = 0; i < 9 && (left.n || nine || p == end); i++, nine /= 10)
            *--p = (char)('0' + nine % 10);
    } while (left.n);
    if (end - p > MAX_DIGITS)
        return sd_render_fail(r, "a number of more than %d digits has no text", MAX_DIGITS);
    return sd_put(r, b, p, (size_t)(end - p));
}

bool sd_int_digits(sd_render *r, sd_buf *b, const sd_value *v, int base) {
    big x;
    read_big(&x, v);
    return put_digits(r, b, &x, base);
}

bool sd_int_text(sd_render *r, sd_buf *b, const sd_value *v) {
    char text[24];
    int64_t i;
    if (sd_small_int(v, &i)) {
        snprintf(text, sizeof text, "%lld", (long long)i);
        return sd_puts(r, b, text);
    }
    return (!v->big->minus || sd_putc(r, b, '-')) && sd_int_digits(r, b, v, 10);
}

static int digit_of(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'z' ? c - 'a' + 10
           : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                  : 99;
}

// Reads s, which is a number where it is digits with single underscores between them.
static bool put_number(sd_render *r, sd_str s, int base, bool minus, sd_value *out, bool *is_one) {
    big x;
    size_t digits = 0;
    *is_one = false;
    for (size_t i = 0; i < s.n; i++) {
        bool between = i > 0 && i + 1 < s.n && s.p[i - 1] != '_';
        if (s.p[i] == '_' ? !between : digit_of(s.p[i]) >= base) return true;
        digits += s.p[i] != '_';
    }
    bool binary = (base & (base - 1)) == 0; // Python bounds only the others
    if (digits == 0 || (!binary && digits > MAX_DIGITS)) return true;
    if (digits > (size_t)MAX_LIMBS * 5) return sd_render_fail(r, "a number is too large");
    if (!make_big(r, &x, digits / 5 + 1) || !sd_spend(r, digits * digits / 64 + 1)) return false;
    x.n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '_') continue;
        uint64_t carry = (uint64_t)digit_of(s.p[i]);
        for (uint32_t k = 0; k < x.n; k++) {
            carry += (uint64_t)x.limb[k] * (uint32_t)base;
            x.limb[k] = (uint32_t)carry;
            carry >>= 32;
        }
        if (carry) x.limb[x.n++] = (uint32_t)carry;
    }
    x.minus = minus;
    *is_one = true;
    return value_of(r, &x, out);
}

bool sd_int_parse(sd_render *r, sd_str s, int base, sd_value *out, bool *is_one) {
    s = sd_strip(s, true, true, NULL);
    bool minus = s.n && s.p[0] == '-', sign = s.n && (s.p[0] == '-' || s.p[0] == '+');
    *is_one = false;
    if (sign) s.p++, s.n--;
    char mark = s.n > 1 && s.p[0] == '0' ? (char)(s.p[1] | 0x20) : '0';
    int named = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    bool prefixed = named != 10 && (base == 0 || base == named);
    if (prefixed) {
        base = named;
        s.p += 2, s.n -= 2;
        if (s.n > 1 && s.p[0] == '_') s.p++, s.n--;
    } else if (base == 0) { // no zeros before a decimal but for 0 itself
        base = 10;
        bool zeros = true;
        for (size_t i = 0; i < s.n; i++) zeros &= s.p[i] == '0' || s.p[i] == '_';
        if (s.n > 1 && s.p[0] == '0' && !zeros) return true;
    }
    return put_number(r, s, base, minus, out, is_one);
}
