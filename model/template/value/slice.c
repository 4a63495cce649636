// Positions in values: characters and slices.
#include "model/template/value/value.h"

#include "base/utf8.h"

bool sd_refuse_undefined(sd_render *r, const sd_value *v, sd_str name) {
    return sd_render_fail(r, "\"%.*s\" is %s, so it has no \"%.*s\"",
                          (int)(v->s.n < 64 ? v->s.n : 64), v->s.p,
                          v->kind == SD_V_UNSAFE ? "not allowed" : "undefined",
                          (int)(name.n < 64 ? name.n : 64), name.p);
}

// The boundary that is `chars` characters behind `at`, or before it where chars < 0.
static size_t advance_chars(sd_str s, size_t at, int64_t chars) {
    for (int32_t cp; chars > 0 && at < s.n; chars--)
        at += (size_t)sd_utf8_next(s.p + at, s.n - at, &cp, NULL);
    for (; chars < 0 && at > 0; chars++) at = sd_utf8_back(s.p, at);
    return at;
}

bool sd_character(sd_render *r, const sd_value *v, int64_t i, sd_value *out) {
    if (!sd_spend(r, 1 + v->s.n / SD_TMPL_SEARCH)) return false;
    size_t n = v->kind == SD_V_BYTES ? v->s.n : sd_count_chars(v->s);
    if (i < 0) i += (int64_t)n;
    *out = sd_undefined(SD_STR("the character"));
    if (i < 0 || (uint64_t)i >= n) return true;
    if (v->kind == SD_V_BYTES) {
        *out = sd_int((unsigned char)v->s.p[i]);
        return true;
    }
    size_t from = n == v->s.n ? (size_t)i : advance_chars(v->s, 0, i); // ASCII needs no walk
    int32_t cp;
    *out = sd_string(v->s.p + from, (size_t)sd_utf8_next(v->s.p + from, v->s.n - from, &cp, NULL));
    out->markup = v->markup;
    return true;
}

// ---- slices

static bool slice_bound(sd_render *r, const sd_value *b, int64_t n, int64_t step, bool upper,
                        int64_t *out) {
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n, x;
    if (b->kind == SD_V_NONE) {
        *out = (step < 0) != upper ? high : low;
        return true;
    }
    if (!sd_is_int(b))
        return sd_render_fail(r, "a slice takes whole numbers, not a %s", sd_kind_name(b));
    if (!sd_small_int(b, &x)) x = sd_int_is_negative(b) ? INT64_MIN : INT64_MAX;
    if (x < 0) x = x < -n ? low : x + n;
    *out = x < low ? low : x > high ? high : x;
    return true;
}

// Bytes, or characters that are all one byte.
static bool slice_bytes(sd_render *r, const sd_value *v, int64_t from, int64_t step, size_t count,
                        sd_value *out) {
    *out = *v;
    if (step == 1 || count == 0) {
        out->s = (sd_str){count ? v->s.p + from : v->s.p, count};
        return true;
    }
    char *p = sd_render_alloc(r, count, 1);
    if (!p || !sd_spend(r, count / SD_TMPL_SEARCH)) return false;
    for (size_t k = 0; k < count; k++) p[k] = v->s.p[from + (int64_t)k * step];
    out->s = (sd_str){p, count};
    return true;
}

static bool slice_text(sd_render *r, const sd_value *v, int64_t n, int64_t from, int64_t step,
                       size_t count, sd_value *out) {
    if (!sd_spend(r, v->s.n / SD_TMPL_SEARCH)) return false;
    if ((size_t)n == v->s.n || v->kind == SD_V_BYTES)
        return slice_bytes(r, v, from, step, count, out);
    size_t at = advance_chars(v->s, 0, count ? from : 0);
    *out = *v;
    if (step == 1) {
        out->s = (sd_str){v->s.p + at, advance_chars(v->s, at, (int64_t)count) - at};
        return true;
    }
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    for (size_t k = 0; k < count; k++) {
        size_t end = advance_chars(v->s, at, 1);
        if (!sd_put(r, &b, v->s.p + at, end - at)) return sd_drop(r, &b);
        if (k + 1 < count) at = advance_chars(v->s, at, step);
    }
    if (!sd_keep(r, &b, out)) return false;
    out->markup = v->markup;
    return true;
}

static bool slice_range(sd_render *r, const sd_range *g, int64_t from, int64_t to, int64_t step,
                        size_t count, sd_value *out) {
    sd_range *part = sd_render_alloc(r, 1, sizeof *part);
    if (!part) return false;
    *part = (sd_range){.from = g->from + from * g->step,
                       .to = g->from + to * g->step,
                       .step = g->step * step,
                       .n = count};
    *out = (sd_value){.kind = SD_V_RANGE, .range = part};
    return true;
}

static bool slice_list(sd_render *r, const sd_value *v, int64_t from, int64_t step, size_t count,
                       sd_value *out) {
    sd_list *kept = sd_list_make(r, count);
    if (!kept) return false;
    for (size_t k = 0; k < count; k++)
        if (!sd_list_push(r, kept, &v->list->item[from + (int64_t)k * step])) return false;
    *out = sd_list_value(v->kind, kept);
    return true;
}

bool sd_slice(sd_render *r, const sd_value *v, const sd_value *bounds, sd_value *out) {
    int64_t from = 0, to = 0, step = 1, n = 0;
    bool text = v->kind == SD_V_STRING || v->kind == SD_V_BYTES;
    if (sd_is_undefined(v)) return sd_refuse_undefined(r, v, SD_STR("slice"));
    if (!text && !sd_is_sequence(v) && v->kind != SD_V_RANGE)
        return sd_render_fail(r, "a %s has no slices", sd_kind_name(v));
    if (bounds[2].kind != SD_V_NONE && !sd_is_int(&bounds[2]))
        return sd_render_fail(r, "a slice takes whole numbers");
    if (bounds[2].kind != SD_V_NONE && !sd_small_int(&bounds[2], &step))
        step = sd_int_is_negative(&bounds[2]) ? -INT32_MAX : INT32_MAX;
    if (step == 0) return sd_render_fail(r, "a slice's step cannot be 0");
    if (step > INT32_MAX) step = INT32_MAX; // beyond every length
    if (step < -INT32_MAX) step = -INT32_MAX;
    if (!sd_length(r, v, &n) || !slice_bound(r, &bounds[0], n, step, false, &from) ||
        !slice_bound(r, &bounds[1], n, step, true, &to))
        return false;
    size_t count = step > 0 ? (to > from ? (size_t)((to - from - 1) / step) + 1 : 0)
                            : (to < from ? (size_t)((from - to - 1) / -step) + 1 : 0);
    if (text) return slice_text(r, v, n, from, step, count, out);
    if (v->kind == SD_V_RANGE) return slice_range(r, v->range, from, to, step, count, out);
    return slice_list(r, v, from, step, count, out);
}
