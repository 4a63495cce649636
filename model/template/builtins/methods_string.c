// The methods of strings that search, replace, join and pad. They count characters, not bytes, so
// text that is not ASCII gets Python's answers too.
#include "model/template/builtins/builtins.h"

#include "base/utf8.h"

static bool strip(sd_render *r, const sd_value *in, sd_args *a, bool left, bool right,
                  sd_value *out) {
    sd_value v;
    bool given = sd_arg(a, 0, NULL, &v) && v.kind != SD_V_NONE;
    if (given && v.kind != SD_V_STRING) return sd_render_fail(r, "strip takes a string");
    if (!sd_spend(r, 1 + in->s.n / SD_TMPL_SEARCH * (given ? v.s.n / 4 + 1 : 1))) return false;
    *out = *in;
    out->s = sd_strip(in->s, left, right, given ? &v.s : NULL);
    return true;
}

SD_BUILTIN(method_strip) {
    return strip(r, in, a, true, true, out);
}

SD_BUILTIN(method_lstrip) {
    return strip(r, in, a, true, false, out);
}

SD_BUILTIN(method_rstrip) {
    return strip(r, in, a, false, true, out);
}

// *out: the part of the text between arguments 1 and 2, start and end. *from: the number of
// characters before it. *outside: start is beyond the end, where not even "" is found.
static bool part_of(sd_render *r, const sd_value *in, sd_args *a, sd_str *out, size_t *from,
                    bool *outside) {
    sd_value bounds[3] = {sd_none(), sd_none(), sd_none()}, part;
    int64_t n = 0, i = 0;
    *out = in->s;
    *from = 0;
    *outside = false;
    a->asked = 3;
    if (a->n < 2) return true;
    bounds[0] = a->item[1];
    if (a->n > 2) bounds[1] = a->item[2];
    if (!sd_length(r, in, &n) || !sd_slice(r, in, bounds, &part)) return false;
    if (sd_small_int(&bounds[0], &i) && i < 0) i = i + n > 0 ? i + n : 0;
    int64_t end = n;
    if (sd_small_int(&bounds[1], &end) && end < 0) end = end + n > 0 ? end + n : 0;
    if (bounds[1].kind == SD_V_NONE || end > n) end = n;
    *outside = i > end;
    *from = (size_t)(i < n ? i : n);
    *out = part.s;
    return true;
}

static bool ends(sd_render *r, const sd_value *in, sd_args *a, bool at_end, sd_value *out) {
    sd_value what;
    sd_str s;
    size_t before;
    bool outside;
    if (!sd_arg(a, 0, NULL, &what))
        return sd_render_fail(r, "startswith and endswith take a string");
    if (!part_of(r, in, a, &s, &before, &outside)) return false;
    sd_list one = {.item = &what, .n = 1, .cap = 1},
            *all = what.kind == SD_V_TUPLE ? what.list : &one;
    bool yes = false;
    for (size_t i = 0; i < all->n; i++) {
        const sd_value *v = &all->item[i];
        if (v->kind != SD_V_STRING)
            return sd_render_fail(r, "startswith and endswith take a string, not a %s",
                                  sd_kind_name(v));
        if (!sd_spend(r, 1) || !sd_spend_bytes(r, v->s.n)) return false;
        if (v->s.n <= s.n && !outside &&
            (v->s.n == 0 || memcmp(at_end ? s.p + s.n - v->s.n : s.p, v->s.p, v->s.n) == 0))
            yes = true;
    }
    *out = sd_bool(yes);
    return true;
}

SD_BUILTIN(method_startswith) {
    return ends(r, in, a, false, out);
}

SD_BUILTIN(method_endswith) {
    return ends(r, in, a, true, out);
}

static bool remove_end(sd_render *r, const sd_value *in, sd_args *a, bool at_end, sd_value *out) {
    sd_value yes;
    sd_str what = {0};
    if (a->n > 1) return sd_render_fail(r, "removeprefix and removesuffix take one string");
    if (!sd_arg_string(r, a, 0, NULL, &what) || !ends(r, in, a, at_end, &yes)) return false;
    *out = *in;
    if (yes.b) {
        if (!at_end) out->s.p += what.n;
        out->s.n -= what.n;
    }
    return true;
}

SD_BUILTIN(method_removeprefix) {
    return remove_end(r, in, a, false, out);
}

SD_BUILTIN(method_removesuffix) {
    return remove_end(r, in, a, true, out);
}

static bool replace(sd_render *r, sd_str s, sd_str old, sd_str new, int64_t count, sd_value *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    size_t at = 0;
    bool ok = sd_spend(r, s.n / SD_TMPL_SEARCH);
    while (ok && count != 0 && at <= s.n) {
        const char *hit = old.n == 0 ? s.p + at
                          : s.n > at ? memmem(s.p + at, s.n - at, old.p, old.n)
                                     : NULL;
        if (!hit) break;
        size_t to = (size_t)(hit - s.p);
        ok = sd_spend(r, 1) && sd_put(r, &b, s.p + at, to - at) && sd_put(r, &b, new.p, new.n);
        at = to + old.n;
        if (old.n == 0) { // between all characters
            int32_t cp;
            size_t n = at < s.n ? (size_t)sd_utf8_next(s.p + at, s.n - at, &cp, NULL) : 1;
            if (at < s.n) ok = ok && sd_put(r, &b, s.p + at, n);
            at += n;
        }
        if (count > 0) count--;
    }
    if (ok && at < s.n) ok = sd_put(r, &b, s.p + at, s.n - at);
    if (ok) return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}

// Reads an argument as a Markup takes it in: escaped.
static bool escaped_argument(sd_render *r, sd_args *a, int position, const char *name, sd_value *v,
                             sd_str *out) {
    sd_arg(a, position, name, v);
    return sd_escaped_text(r, v, out);
}

SD_BUILTIN(method_replace) {
    sd_str old = {0}, new = {0};
    int64_t count = -1;
    if (a->n + a->n_named < 2) return sd_render_fail(r, "replace takes two strings");
    if (!sd_arg_string(r, a, 0, "old", &old) || !sd_arg_string(r, a, 1, "new", &new) ||
        !sd_arg_int(r, a, 2, "count", &count))
        return false;
    sd_value to = sd_string(new.p, new.n);
    if (in->markup && !escaped_argument(r, a, 1, "new", &to, &new)) return false;
    return replace(r, in->s, old, new, count, out);
}

SD_BUILTIN(method_join) {
    sd_value over;
    sd_list *l;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!sd_arg(a, 0, NULL, &over)) return sd_render_fail(r, "join takes a list");
    if (!sd_iterate(r, &over, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        const sd_value *v = &l->item[i];
        bool ok = v->kind == SD_V_STRING;
        sd_str part = v->s;
        if (in->markup)
            ok = sd_escaped_text(r, v, &part);
        else if (!ok)
            sd_render_fail(r, "join takes strings, not a %s", sd_kind_name(v));
        ok = ok && sd_spend(r, 1) && (i == 0 || sd_put(r, &b, in->s.p, in->s.n)) &&
             sd_put(r, &b, part.p, part.n);
        if (!ok) return sd_drop(r, &b);
    }
    return sd_keep(r, &b, out);
}

// ---- looking for text

static bool find(sd_render *r, const sd_value *in, sd_args *a, bool last, bool must,
                 sd_value *out) {
    sd_str what = {0}, s;
    size_t before;
    bool outside;
    if (a->n < 1) return sd_render_fail(r, "find and index take a string");
    if (!sd_arg_string(r, a, 0, NULL, &what) || !part_of(r, in, a, &s, &before, &outside) ||
        !sd_spend(r, 1 + s.n / SD_TMPL_SEARCH))
        return false;
    const char *hit = sd_search(s, what);
    if (last && !sd_search_last(r, s, what, &hit)) return false;
    if (outside) hit = NULL;
    if (!hit && must) return sd_render_fail(r, "the substring is not there");
    *out = sd_int(-1);
    if (hit) *out = sd_int((int64_t)(before + sd_count_chars((sd_str){s.p, (size_t)(hit - s.p)})));
    return true;
}

SD_BUILTIN(method_find) {
    return find(r, in, a, false, false, out);
}

SD_BUILTIN(method_rfind) {
    return find(r, in, a, true, false, out);
}

SD_BUILTIN(method_index) {
    return find(r, in, a, false, true, out);
}

SD_BUILTIN(method_rindex) {
    return find(r, in, a, true, true, out);
}

SD_BUILTIN(method_count) {
    sd_str what = {0}, s;
    size_t before;
    bool outside;
    int64_t n = 0;
    if (a->n < 1) return sd_render_fail(r, "count takes a string");
    if (!sd_arg_string(r, a, 0, NULL, &what) || !part_of(r, in, a, &s, &before, &outside) ||
        !sd_spend(r, 1 + s.n / SD_TMPL_SEARCH))
        return false;
    const char *p = s.p, *end = p + s.n, *hit;
    if (what.n == 0)
        n = outside ? 0 : (int64_t)sd_count_chars(s) + 1;
    else
        for (; p < end && (hit = memmem(p, (size_t)(end - p), what.p, what.n)); p = hit + what.n)
            n++;
    *out = sd_int(n);
    return true;
}

// ---- padding

static bool read_width(sd_render *r, sd_args *a, size_t *out) {
    int64_t width = 0;
    *out = 0;
    if (a->n + a->n_named < 1) return sd_render_fail(r, "a width is missing");
    if (!sd_arg_int(r, a, 0, "width", &width)) return false;
    *out = width > 0 ? (size_t)width : 0;
    return true;
}

static bool pad(sd_render *r, const sd_value *in, sd_args *a, char side, sd_value *out) {
    sd_str fill = SD_STR(" ");
    size_t width, chars = sd_count_chars(in->s);
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!read_width(r, a, &width) || !sd_arg_string(r, a, 1, NULL, &fill)) return false;
    if (sd_count_chars(fill) != 1) return sd_render_fail(r, "a text is filled with one character");
    size_t room = width > chars ? width - chars : 0;
    // As in Python, an odd space stands on the left where the width is odd.
    size_t left = side == 'c' ? room / 2 + (room & width & 1) : side == 'r' ? room : 0;
    if (sd_put_times(r, &b, fill, left) && sd_put(r, &b, in->s.p, in->s.n) &&
        sd_put_times(r, &b, fill, room - left))
        return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}

SD_BUILTIN(method_center) {
    return pad(r, in, a, 'c', out);
}

SD_BUILTIN(method_ljust) {
    return pad(r, in, a, 'l', out);
}

SD_BUILTIN(method_rjust) {
    return pad(r, in, a, 'r', out);
}

SD_BUILTIN(method_zfill) {
    size_t width, chars = sd_count_chars(in->s);
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!read_width(r, a, &width)) return false;
    size_t sign = in->s.n && (in->s.p[0] == '+' || in->s.p[0] == '-');
    if (sd_put(r, &b, in->s.p, sign) &&
        sd_put_times(r, &b, SD_STR("0"), width > chars ? width - chars : 0) &&
        sd_put(r, &b, in->s.p + sign, in->s.n - sign))
        return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}

SD_BUILTIN(method_expandtabs) {
    int64_t size = 8, column = 0;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!sd_arg_int(r, a, 0, "tabsize", &size) || !sd_spend(r, in->s.n / SD_TMPL_SEARCH))
        return false;
    for (size_t i = 0; i < in->s.n; i++) {
        char c = in->s.p[i];
        int64_t n = size > 0 ? size - column % size : 0;
        bool ok = c == '\t' ? sd_put_times(r, &b, SD_STR(" "), (size_t)n) : sd_putc(r, &b, c);
        if (!ok) return sd_drop(r, &b);
        if (c == '\t')
            column += n;
        else if (c == '\n' || c == '\r')
            column = 0;
        else
            column += ((unsigned char)c & 0xC0) != 0x80;
    }
    return sd_keep(r, &b, out);
}

// ---- bytes

SD_BUILTIN(method_encode) {
    sd_str name = SD_STR("utf-8");
    sd_str errors = SD_STR("strict");
    if (!sd_arg_string(r, a, 0, "encoding", &name) || !sd_arg_string(r, a, 1, "errors", &errors))
        return false;
    bool ascii = sd_str_is(name, "ascii");
    if (!ascii && !sd_str_is(name, "utf-8") && !sd_str_is(name, "utf8") &&
        !sd_str_is(name, "UTF-8"))
        return sd_render_fail(r, "encode knows utf-8 and ascii, not \"%.*s\"",
                              (int)(name.n < 40 ? name.n : 40), name.p);
    for (size_t i = 0; ascii && i < in->s.n; i++)
        if ((unsigned char)in->s.p[i] > 0x7F) return sd_render_fail(r, "the text is not ASCII");
    *out = sd_string(in->s.p, in->s.n);
    out->kind = SD_V_BYTES;
    return sd_spend_bytes(r, in->s.n);
}

SD_BUILTIN(method_decode) {
    sd_str name = SD_STR("utf-8");
    if (!sd_arg_string(r, a, 0, "encoding", &name)) return false;
    if (sd_utf8_valid_prefix(in->s.p, in->s.n) != in->s.n)
        return sd_render_fail(r, "the bytes are not UTF-8");
    *out = sd_string(in->s.p, in->s.n);
    return sd_spend(r, in->s.n / SD_TMPL_SEARCH);
}

const sd_builtin_row sd_string_methods[] = {{"strip", method_strip},
                                            {"lstrip", method_lstrip},
                                            {"rstrip", method_rstrip},
                                            {"startswith", method_startswith},
                                            {"endswith", method_endswith},
                                            {"removeprefix", method_removeprefix},
                                            {"removesuffix", method_removesuffix},
                                            {"replace", method_replace},
                                            {"join", method_join},
                                            {"find", method_find},
                                            {"rfind", method_rfind},
                                            {"index", method_index},
                                            {"rindex", method_rindex},
                                            {"count", method_count},
                                            {"center", method_center},
                                            {"ljust", method_ljust},
                                            {"rjust", method_rjust},
                                            {"zfill", method_zfill},
                                            {"expandtabs", method_expandtabs},
                                            {"encode", method_encode},
                                            {NULL, NULL}};
const sd_builtin_row sd_bytes_methods[] = {{"decode", method_decode}, {NULL, NULL}};
