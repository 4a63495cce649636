// Filters of numbers, and those that read one from a text.
#include "model/template/builtins/builtins.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <strings.h>

static bool undefined_number(sd_render *r, const sd_value *in) {
    return sd_render_fail(r, "\"%.*s\" is undefined, so it is no number",
                          (int)(in->s.n < 64 ? in->s.n : 64), in->s.p);
}

SD_BUILTIN(filter_abs) {
    (void)a;
    if (in->kind == SD_V_FLOAT)
        *out = sd_float(fabs(in->f));
    else if (sd_is_int(in))
        return sd_sign(r, sd_int_is_negative(in), in, out);
    else
        return sd_render_fail(r, "abs does not take a %s", sd_kind_name(in));
    return true;
}

// Digits with single underscores between them, copied to *to; false when there is none.
static bool copy_digits(const char **p, const char *end, char **to) {
    const char *start = *p;
    for (; *p < end; (*p)++) {
        bool between = **p == '_' && *p > start && *p + 1 < end &&
                       isdigit((unsigned char)(*p)[1]) && (*p)[-1] != '_';
        if (isdigit((unsigned char)**p))
            *(*to)++ = **p;
        else if (!between)
            break;
    }
    return *p > start;
}

// Python's float(s). *is_one: whether it is a number.
static bool read_float(sd_render *r, sd_str s, double *out, bool *is_one) {
    s = sd_strip(s, true, true, NULL);
    const char *p = s.p, *end = p + s.n;
    char *text = sd_render_alloc(r, s.n + 2, 1), *to = text;
    *is_one = false;
    if (!text) return false;
    if (s.n == 0) return true;
    if (*p == '-' || *p == '+') *to++ = *p++;
    size_t left = (size_t)(end - p);
    if (left && isalpha((unsigned char)*p)) {
        *is_one = (left == 3 && (strncasecmp(p, "inf", 3) == 0 || strncasecmp(p, "nan", 3) == 0)) ||
                  (left == 8 && strncasecmp(p, "infinity", 8) == 0);
        *out = tolower((unsigned char)*p) == 'n' ? (double)NAN : (double)INFINITY;
        if (text[0] == '-') *out = -*out;
        return true;
    }
    bool digits = copy_digits(&p, end, &to);
    if (p < end && *p == '.') {
        *to++ = *p++;
        digits |= copy_digits(&p, end, &to);
    }
    if (digits && p < end && (*p == 'e' || *p == 'E')) {
        *to++ = *p++;
        if (p < end && (*p == '-' || *p == '+')) *to++ = *p++;
        digits = copy_digits(&p, end, &to);
    }
    if (!digits || p != end) return true;
    *is_one = true;
    *out = strtod(text, NULL);
    return sd_spend(r, 1 + s.n);
}

SD_BUILTIN(filter_int) {
    sd_value other = sd_int(0);
    int64_t base = 10;
    double f;
    bool is_one = false;
    sd_arg(a, 0, "default", &other);
    if (!sd_arg_int(r, a, 1, "base", &base)) return false;
    if (sd_is_undefined(in)) return undefined_number(r, in);
    if (sd_is_int(in)) return sd_sign(r, false, in, out);
    *out = other;
    if (in->kind == SD_V_FLOAT) {
        if (isnan(in->f)) return true;
        return sd_int_from_double(r, in->f, out);
    }
    if (in->kind != SD_V_STRING) return true;
    if ((base == 0 || (base >= 2 && base <= 36)) &&
        !sd_int_parse(r, in->s, (int)base, out, &is_one))
        return false;
    if (is_one) return true;
    if (!read_float(r, in->s, &f, &is_one)) return false;
    return !is_one || isnan(f) || isinf(f) || sd_int_from_double(r, f, out);
}

SD_BUILTIN(filter_float) {
    sd_value other = sd_float(0);
    double f = 0;
    bool is_one = false;
    sd_arg(a, 0, "default", &other);
    if (sd_is_undefined(in)) return undefined_number(r, in);
    if (in->kind == SD_V_STRING) {
        if (!read_float(r, in->s, &f, &is_one)) return false;
    } else {
        is_one = sd_number(r, in, &f);
        if (r->status != SD_OK) return false;
    }
    *out = is_one ? sd_float(f) : other;
    return true;
}

// ---- round

// An int to a multiple of 10^places, half to even.
static bool round_int(sd_render *r, const sd_value *in, int64_t places, sd_value *out) {
    sd_value ten = sd_int(10), exponent = sd_int(places), unit, rest, twice, two = sd_int(2), q;
    if (places > 5000) {
        *out = sd_int(0);
        return true;
    }
    if (!sd_int_binary(r, SD_OP_POW, &ten, &exponent, &unit) ||
        !sd_int_binary(r, SD_OP_MOD, in, &unit, &rest) ||
        !sd_int_binary(r, SD_OP_FLOORDIV, in, &unit, &q) ||
        !sd_int_binary(r, SD_OP_MUL, &rest, &two, &twice))
        return false;
    int c = sd_int_compare(&twice, &unit);
    sd_value odd, one = sd_int(1);
    if (!sd_int_binary(r, SD_OP_MOD, &q, &two, &odd)) return false;
    if ((c > 0 || (c == 0 && odd.i)) && !sd_int_binary(r, SD_OP_ADD, &q, &one, &q)) return false;
    return sd_int_binary(r, SD_OP_MUL, &q, &unit, out);
}

static bool round_float(sd_render *r, double f, int64_t precision, sd_value *out) {
    char text[700];
    if (isnan(f) || isinf(f) || precision > 323) {
        *out = sd_float(f);
    } else if (precision < -308) {
        *out = sd_float(copysign(0, f));
    } else if (precision >= 0) { // the decimal nearest to the exact value, ties to even
        snprintf(text, sizeof text, "%.*f", (int)precision, f);
        *out = sd_float(strtod(text, NULL));
    } else {
        double unit = pow(10, (double)-precision);
        *out = sd_float(nearbyint(f / unit) * unit);
    }
    return sd_spend(r, 64);
}

// ceil(value * 10^precision) / 10^precision, as Jinja computes it.
static bool round_towards(sd_render *r, const sd_value *in, int64_t precision, bool up,
                          sd_value *out) {
    sd_value ten = sd_int(10), exponent = sd_int(precision), unit, scaled;
    if (!sd_arithmetic(r, SD_OP_POW, &ten, &exponent, &unit) ||
        !sd_arithmetic(r, SD_OP_MUL, in, &unit, &scaled))
        return false;
    if (scaled.kind == SD_V_FLOAT) {
        double f = up ? ceil(scaled.f) : floor(scaled.f);
        if (!sd_int_from_double(r, f, &scaled)) return false;
    }
    return sd_arithmetic(r, SD_OP_DIV, &scaled, &unit, out);
}

SD_BUILTIN(filter_round) {
    int64_t precision = 0;
    sd_str method = SD_STR("common");
    if (!sd_arg_int(r, a, 0, "precision", &precision) || !sd_arg_string(r, a, 1, "method", &method))
        return false;
    bool ceiling = sd_str_is(method, "ceil"), common = sd_str_is(method, "common");
    if (!ceiling && !common && !sd_str_is(method, "floor"))
        return sd_render_fail(r, "round: the method is common, ceil or floor");
    if (!sd_is_int(in) && in->kind != SD_V_FLOAT)
        return sd_render_fail(r, "round does not take a %s", sd_kind_name(in));
    if (!common) return round_towards(r, in, precision, ceiling, out);
    if (in->kind == SD_V_FLOAT) return round_float(r, in->f, precision, out);
    if (precision >= 0) return sd_sign(r, false, in, out);
    return round_int(r, in, -precision, out);
}

// ---- sizes

SD_BUILTIN(filter_filesizeformat) {
    static const char *const names[2][8] = {
        {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"},
        {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
    bool binary = sd_arg_bool(a, 0, "binary", false), is_one = true;
    double f = 0, base = binary ? 1024 : 1000;
    char text[400];
    if (in->kind == SD_V_STRING && !read_float(r, in->s, &f, &is_one)) return false;
    if (in->kind != SD_V_STRING) is_one = sd_number(r, in, &f);
    if (r->status != SD_OK) return false;
    if (!is_one || isnan(f) || isinf(f))
        return sd_render_fail(r, "filesizeformat does not take this %s", sd_kind_name(in));
    if (f == 1) {
        snprintf(text, sizeof text, "1 Byte");
    } else if (f < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(f) + 0.0);
    } else {
        int i = 0;
        double unit = base * base;
        for (; i < 7 && f >= unit; i++) unit *= base;
        snprintf(text, sizeof text, "%.1f %s", base * f / unit, names[binary][i]);
    }
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    return sd_puts(r, &b, text) ? sd_keep(r, &b, out) : sd_drop(r, &b);
}

const sd_builtin_row sd_number_filters[] = {{"abs", filter_abs},
                                            {"int", filter_int},
                                            {"float", filter_float},
                                            {"round", filter_round},
                                            {"filesizeformat", filter_filesizeformat},
                                            {NULL, NULL}};
