// The methods of strings that cut them into parts.
#include "model/template/builtins/builtins.h"

#include "base/utf8.h"

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
            size_t i = sd_utf8_back(s.p, at);
            int32_t cp;
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
    if (right && !sd_spend_reverse_search(r, in->s, by.s)) return false;
    return right && max >= 0 ? rsplit_text(r, in->s, by.s, max, l)
                             : split_text(r, in->s, by.s, max, l);
}
SD_BUILTIN(method_split) {
    return split(r, in, a, false, out);
}
SD_BUILTIN(method_rsplit) {
    return split(r, in, a, true, out);
}

SD_BUILTIN(method_splitlines) {
    sd_list *l;
    if (!sd_split_lines(r, in->s, sd_arg_bool(a, 0, "keepends", false), &l)) return false;
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}

// (before, separator, after), at the first or the last place.
static bool partition(sd_render *r, const sd_value *in, sd_args *a, bool last, sd_value *out) {
    sd_str by = {0}, s = in->s;
    sd_list *l = sd_list_make(r, 3);
    if (!l || !sd_arg_string(r, a, 0, NULL, &by) || !sd_spend(r, 1 + s.n / SD_TMPL_SEARCH))
        return false;
    if (by.n == 0) return sd_render_fail(r, "partition takes a string that is not empty");
    const char *hit = sd_search(s, by);
    if (last && !sd_search_last(r, s, by, &hit)) return false;
    size_t n = hit ? (size_t)(hit - s.p) : s.n;
    *out = sd_list_value(SD_V_TUPLE, l);
    if (!hit && last)
        return push_text(r, l, "", 0) && push_text(r, l, "", 0) && push_text(r, l, s.p, s.n);
    return push_text(r, l, s.p, n) && push_text(r, l, by.p, hit ? by.n : 0) &&
           push_text(r, l, s.p + n + (hit ? by.n : 0), s.n - n - (hit ? by.n : 0));
}
SD_BUILTIN(method_partition) {
    return partition(r, in, a, false, out);
}
SD_BUILTIN(method_rpartition) {
    return partition(r, in, a, true, out);
}

const sd_builtin_row sd_split_methods[] = {
    {"split", method_split},           {"rsplit", method_rsplit},
    {"splitlines", method_splitlines}, {"partition", method_partition},
    {"rpartition", method_rpartition}, {NULL, NULL}};
