// The methods of strings. They work on characters, not bytes: Python's answers for text that is not
// ASCII too.
#include "model/template_internal.h"

#include "model/utf8.h"

#include <utf8proc.h>

static bool method_case(sd_render *r, const sd_value *in, int how, sd_value *out) {
    // how: 'u' upper, 'l' lower, 't' title, 'c' capitalize, 's' swapcase
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    bool start = true;
    if (!sd_spend(r, in->s.n / 8)) return false;
    for (size_t i = 0; i < in->s.n;) {
        int32_t cp;
        char bytes[4];
        i += (size_t)sd_utf8_next(in->s.p + i, in->s.n - i, &cp, NULL);
        int32_t low = utf8proc_tolower(cp), up = utf8proc_toupper(cp);
        utf8proc_category_t c = utf8proc_category(cp);
        bool letter = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LT; // cased
        bool raise =
            how == 'u' || (how == 's' && up != cp) || ((how == 't' || how == 'c') && start);
        const char *special = raise && cp == 0xDF ? (how == 'u' || how == 's' ? "SS" : "Ss") : NULL;
        bool ok = special ? sd_puts(r, &b, special)
                          : sd_put(r, &b, bytes, (size_t)sd_utf8_put(bytes, raise ? up : low));
        if (!ok) return sd_drop(r, &b);
        start = how == 't' ? !letter : false;
    }
    return sd_keep(r, &b, out);
}

static bool method_upper(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)a;
    return method_case(r, in, 'u', out);
}
static bool method_lower(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)a;
    return method_case(r, in, 'l', out);
}
static bool method_title(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)a;
    return method_case(r, in, 't', out);
}
static bool method_capitalize(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)a;
    return method_case(r, in, 'c', out);
}
static bool method_swapcase(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    (void)a;
    return method_case(r, in, 's', out);
}

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
static bool method_strip(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return strip(r, in, a, true, true, out);
}
static bool method_lstrip(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return strip(r, in, a, true, false, out);
}
static bool method_rstrip(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return strip(r, in, a, false, true, out);
}

static bool push_text(sd_render *r, sd_list *l, const char *p, size_t n) {
    sd_value v = sd_string(p, n);
    return sd_list_push(r, l, &v);
}

// At most `max` cuts at white space, from the left; max < 0: all.
static bool split_space(sd_render *r, sd_str s, int64_t max, sd_list *l) {
    for (;;) {
        s = sd_strip(s, true, false, NULL);
        if (s.n == 0) return true;
        size_t n = 0;
        if (max == 0) return push_text(r, l, s.p, s.n);
        while (n < s.n) {
            int32_t cp;
            int k = sd_utf8_next(s.p + n, s.n - n, &cp, NULL);
            if (sd_is_pyspace(cp)) break;
            n += (size_t)k;
        }
        if (!push_text(r, l, s.p, n)) return false;
        s.p += n, s.n -= n;
        if (max > 0) max--;
    }
}

static bool split_text(sd_render *r, sd_str s, sd_str by, int64_t max, sd_list *l) {
    for (; max != 0; max--) {
        const char *hit = s.n ? memmem(s.p, s.n, by.p, by.n) : NULL;
        if (!hit) break;
        if (!push_text(r, l, s.p, (size_t)(hit - s.p))) return false;
        s.n -= (size_t)(hit - s.p) + by.n;
        s.p = hit + by.n;
    }
    return push_text(r, l, s.p, s.n);
}

static bool reverse_items(sd_list *l) {
    for (size_t i = 0; i + 1 < l->n - i; i++) {
        sd_value t = l->item[i];
        l->item[i] = l->item[l->n - 1 - i];
        l->item[l->n - 1 - i] = t;
    }
    return true;
}

// rsplit counts its cuts from the right.
static bool rsplit_text(sd_render *r, sd_str s, sd_str by, int64_t max, sd_list *l) {
    for (size_t end = s.n; max != 0 && end >= by.n;) {
        if (memcmp(s.p + end - by.n, by.p, by.n) != 0) {
            end--;
            continue;
        }
        if (!push_text(r, l, s.p + end, s.n - end)) return false;
        s.n = end = end - by.n;
        max--;
    }
    return push_text(r, l, s.p, s.n) && reverse_items(l);
}

static bool rsplit_space(sd_render *r, sd_str s, int64_t max, sd_list *l) {
    for (;;) {
        s = sd_strip(s, false, true, NULL);
        if (s.n == 0) break;
        if (max == 0) {
            if (!push_text(r, l, s.p, s.n)) return false;
            break;
        }
        size_t at = s.n;
        while (at > 0) {
            size_t i = at - 1;
            int32_t cp;
            while (i > 0 && ((unsigned char)s.p[i] & 0xC0) == 0x80) i--;
            sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
            if (sd_is_pyspace(cp)) break;
            at = i;
        }
        if (!push_text(r, l, s.p + at, s.n - at)) return false;
        s.n = at;
        max--;
    }
    return l->n == 0 || reverse_items(l);
}

// A search from the right compares at every place.
static bool spend_backwards(sd_render *r, sd_str in, sd_str what) {
    return sd_spend(r, (1 + in.n / SD_TMPL_SEARCH) * (1 + what.n / SD_TMPL_BYTES_A_STEP));
}

static bool split(sd_render *r, const sd_value *in, sd_args *a, bool right, sd_value *out) {
    sd_value by = sd_none();
    int64_t max = -1;
    sd_list *l = sd_list_make(r, 0);
    sd_arg(a, 0, "sep", &by);
    if (!l || !sd_arg_int(r, a, 1, "maxsplit", &max) || !sd_spend(r, in->s.n / SD_TMPL_SEARCH))
        return false;
    *out = sd_list_value(SD_V_LIST, l);
    if (max < 0) max = -1;
    if (by.kind == SD_V_NONE)
        return right && max >= 0 ? rsplit_space(r, in->s, max, l) : split_space(r, in->s, max, l);
    if (by.kind != SD_V_STRING || by.s.n == 0)
        return sd_render_fail(r, "split takes a string that is not empty");
    if (right && !spend_backwards(r, in->s, by.s)) return false;
    return right && max >= 0 ? rsplit_text(r, in->s, by.s, max, l)
                             : split_text(r, in->s, by.s, max, l);
}
static bool method_split(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return split(r, in, a, false, out);
}
static bool method_rsplit(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return split(r, in, a, true, out);
}

static bool is_line_end(int32_t cp) {
    return (cp >= 0x0A && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

static bool method_splitlines(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    bool keep = sd_arg_bool(a, 0, "keepends", false);
    sd_list *l = sd_list_make(r, 0);
    size_t start = 0;
    if (!l || !sd_spend(r, in->s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < in->s.n;) {
        int32_t cp;
        size_t at = i;
        i += (size_t)sd_utf8_next(in->s.p + i, in->s.n - i, &cp, NULL);
        if (!is_line_end(cp)) continue;
        if (cp == '\r' && i < in->s.n && in->s.p[i] == '\n') i++;
        if (!push_text(r, l, in->s.p + start, (keep ? i : at) - start)) return false;
        start = i;
    }
    *out = sd_list_value(SD_V_LIST, l);
    return start == in->s.n || push_text(r, l, in->s.p + start, in->s.n - start);
}

static bool ends(sd_render *r, const sd_value *in, sd_args *a, bool at_end, sd_value *out) {
    sd_value what;
    if (!sd_arg(a, 0, NULL, &what))
        return sd_render_fail(r, "startswith and endswith take a string");
    sd_list one = {&what, 1, 1}, *all = what.kind == SD_V_TUPLE ? what.list : &one;
    bool yes = false;
    for (size_t i = 0; i < all->n; i++) {
        const sd_value *v = &all->item[i];
        if (v->kind != SD_V_STRING)
            return sd_render_fail(r, "startswith and endswith take a string, not a %s",
                                  sd_kind_name(v));
        if (!sd_spend(r, 1) || !sd_spend_bytes(r, v->s.n)) return false;
        if (v->s.n <= in->s.n &&
            (v->s.n == 0 ||
             memcmp(at_end ? in->s.p + in->s.n - v->s.n : in->s.p, v->s.p, v->s.n) == 0))
            yes = true;
    }
    *out = sd_bool(yes);
    return true;
}
static bool method_startswith(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return ends(r, in, a, false, out);
}
static bool method_endswith(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return ends(r, in, a, true, out);
}

static bool remove_end(sd_render *r, const sd_value *in, sd_args *a, bool at_end, sd_value *out) {
    sd_value yes;
    sd_str what = {0};
    if (!sd_arg_string(r, a, 0, NULL, &what) || !ends(r, in, a, at_end, &yes)) return false;
    *out = *in;
    if (yes.b) {
        if (!at_end) out->s.p += what.n;
        out->s.n -= what.n;
    }
    return true;
}
static bool method_removeprefix(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return remove_end(r, in, a, false, out);
}
static bool method_removesuffix(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
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

static bool method_replace(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    sd_str old = {0}, new = {0};
    int64_t count = -1;
    if (a->n + a->n_named < 2) return sd_render_fail(r, "replace takes two strings");
    if (!sd_arg_string(r, a, 0, "old", &old) || !sd_arg_string(r, a, 1, "new", &new) ||
        !sd_arg_int(r, a, 2, "count", &count))
        return false;
    return replace(r, in->s, old, new, count, out);
}

static bool method_join(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    sd_value over;
    sd_list *l;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (!sd_arg(a, 0, NULL, &over)) return sd_render_fail(r, "join takes a list");
    if (!sd_iterate(r, &over, &l)) return false;
    for (size_t i = 0; i < l->n; i++) {
        const sd_value *v = &l->item[i];
        bool ok = v->kind == SD_V_STRING;
        if (!ok)
            sd_render_fail(r, "join takes strings, not a %s", sd_kind_name(v));
        else
            ok = sd_spend(r, 1) && (i == 0 || sd_put(r, &b, in->s.p, in->s.n)) &&
                 sd_put(r, &b, v->s.p, v->s.n);
        if (!ok) return sd_drop(r, &b);
    }
    return sd_keep(r, &b, out);
}

static bool find(sd_render *r, const sd_value *in, sd_args *a, bool last, bool must,
                 sd_value *out) {
    sd_str what = {0};
    const char *hit = NULL;
    if (!sd_arg_string(r, a, 0, NULL, &what) || !sd_spend(r, 1 + in->s.n / SD_TMPL_SEARCH))
        return false;
    if (what.n == 0) {
        hit = last ? in->s.p + in->s.n : in->s.p;
    } else if (!last) {
        hit = in->s.n ? memmem(in->s.p, in->s.n, what.p, what.n) : NULL;
    } else {
        if (!spend_backwards(r, in->s, what)) return false;
        for (size_t i = in->s.n >= what.n ? in->s.n - what.n + 1 : 0; i-- > 0 && !hit;)
            if (memcmp(in->s.p + i, what.p, what.n) == 0) hit = in->s.p + i;
    }
    if (!hit && must) return sd_render_fail(r, "the substring is not there");
    *out = sd_int(hit ? (int64_t)sd_count_chars((sd_str){in->s.p, (size_t)(hit - in->s.p)}) : -1);
    return true;
}
static bool method_find(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return find(r, in, a, false, false, out);
}
static bool method_rfind(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return find(r, in, a, true, false, out);
}
static bool method_index(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    return find(r, in, a, false, true, out);
}

static bool method_count(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {
    sd_str what = {0};
    int64_t n = 0;
    const char *p = in->s.p, *end = p + in->s.n, *hit;
    if (!sd_arg_string(r, a, 0, NULL, &what) || !sd_spend(r, 1 + in->s.n / SD_TMPL_SEARCH))
        return false;
    if (what.n == 0)
        n = (int64_t)sd_count_chars(in->s) + 1;
    else
        for (; p < end && (hit = memmem(p, (size_t)(end - p), what.p, what.n)); p = hit + what.n)
            n++;
    *out = sd_int(n);
    return true;
}

// All characters satisfy `want` and there is one; for islower and isupper cased ones count.
static bool all_are(const sd_value *in, char want, sd_value *out) {
    bool all = true, any = false;
    for (size_t i = 0; i < in->s.n;) {
        int32_t cp;
        i += (size_t)sd_utf8_next(in->s.p + i, in->s.n - i, &cp, NULL);
        utf8proc_category_t c = utf8proc_category(cp);
        bool letter = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
        bool digit = c == UTF8PROC_CATEGORY_ND;
        bool low = c == UTF8PROC_CATEGORY_LL,
             up = c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LT;
        bool yes = want == 'a'   ? letter
                   : want == 'd' ? digit
                   : want == 'n'
                       ? letter || (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO)
                   : want == 's' ? sd_is_pyspace(cp)
                   : want == 'l' ? low
                                 : up;
        any |= yes;
        if (want == 'l')
            all &= !up;
        else if (want == 'u')
            all &= !low;
        else
            all &= yes;
    }
    *out = sd_bool(all && any);
    return true;
}
#define CHARACTER_TEST(name, want)                                                                 \
    static bool name(sd_render *r, const sd_value *in, sd_args *a, sd_value *out) {                \
        (void)a;                                                                                   \
        return sd_spend(r, in->s.n / SD_TMPL_SEARCH) && all_are(in, want, out);                    \
    }
CHARACTER_TEST(method_isalpha, 'a')
CHARACTER_TEST(method_isdigit, 'd')
CHARACTER_TEST(method_isalnum, 'n')
CHARACTER_TEST(method_isspace, 's')
CHARACTER_TEST(method_islower, 'l')
CHARACTER_TEST(method_isupper, 'u')

const sd_method_row sd_string_methods[] = {{"upper", method_upper},
                                           {"lower", method_lower},
                                           {"title", method_title},
                                           {"capitalize", method_capitalize},
                                           {"swapcase", method_swapcase},
                                           {"strip", method_strip},
                                           {"lstrip", method_lstrip},
                                           {"rstrip", method_rstrip},
                                           {"split", method_split},
                                           {"rsplit", method_rsplit},
                                           {"splitlines", method_splitlines},
                                           {"startswith", method_startswith},
                                           {"endswith", method_endswith},
                                           {"removeprefix", method_removeprefix},
                                           {"removesuffix", method_removesuffix},
                                           {"replace", method_replace},
                                           {"join", method_join},
                                           {"find", method_find},
                                           {"rfind", method_rfind},
                                           {"index", method_index},
                                           {"count", method_count},
                                           {"isalpha", method_isalpha},
                                           {"isdigit", method_isdigit},
                                           {"isdecimal", method_isdigit},
                                           {"isalnum", method_isalnum},
                                           {"isspace", method_isspace},
                                           {"islower", method_islower},
                                           {"isupper", method_isupper},
                                           {NULL, NULL}};
