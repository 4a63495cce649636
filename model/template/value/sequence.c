// Values that hold others: their length, their members, and the items that a loop over them sees.
#include "model/template/value/value.h"

#include "base/utf8.h"

// ---- iteration

static bool push_characters(sd_render *r, const sd_value *v, sd_list *l) {
    for (size_t i = 0; i < v->s.n;) { // a step for each
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(v->s.p + i, v->s.n - i, &cp, NULL);
        sd_value c = sd_string(v->s.p + i, n);
        if (v->kind == SD_V_BYTES) c = sd_int((unsigned char)v->s.p[i]), n = 1;
        if (!sd_list_push(r, l, &c)) return false;
        i += n;
    }
    return true;
}

static bool push_range(sd_render *r, const sd_range *g, sd_list *l) {
    for (size_t i = 0; i < g->n; i++) {
        sd_value v = sd_int(g->from + (int64_t)i * g->step);
        if (!sd_list_push(r, l, &v)) return false;
    }
    return true;
}

static bool take_rest(sd_render *r, sd_iterable *w, sd_list **out) {
    sd_list *l = *out = sd_list_make(r, 0);
    if (!l) return false;
    l->n = l->cap = w->items->n - w->at;
    l->item = l->n ? w->items->item + w->at : NULL;
    w->at = w->items->n;
    return true;
}

bool sd_iterate(sd_render *r, const sd_value *v, sd_list **out) {
    switch (v->kind) {
    case SD_V_UNDEFINED:
    case SD_V_UNSAFE:
        return (*out = sd_list_make(r, 0)) != NULL;
    case SD_V_LIST:
    case SD_V_TUPLE:
        *out = v->list;
        return true;
    case SD_V_VIEW:
        *out = v->iterable->items;
        return true;
    case SD_V_ITERATOR:
        return take_rest(r, v->iterable, out);
    case SD_V_DICT:
        if (!(*out = sd_list_make(r, v->dict->n))) return false;
        for (size_t i = 0; i < v->dict->n; i++)
            if (!sd_list_push(r, *out, &v->dict->key[i])) return false;
        return true;
    case SD_V_STRING:
    case SD_V_BYTES:
        return (*out = sd_list_make(r, sd_count_chars(v->s))) && push_characters(r, v, *out);
    case SD_V_RANGE:
        return (*out = sd_list_make(r, v->range->n)) && push_range(r, v->range, *out);
    default:
        return sd_render_fail(r, "a %s cannot be looped over", sd_kind_name(v));
    }
}

// ---- lines

static bool is_line_end(int32_t cp) {
    return (cp >= 0x0A && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

static bool push_line(sd_render *r, sd_list *l, const char *p, size_t n) {
    sd_value v = sd_string(p, n);
    return sd_list_push(r, l, &v);
}

bool sd_split_lines(sd_render *r, sd_str s, bool keep_ends, sd_list **out) {
    sd_list *l = *out = sd_list_make(r, 0);
    size_t start = 0;
    if (!l || !sd_spend(r, s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < s.n;) {
        int32_t cp;
        size_t at = i;
        i += (size_t)sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
        if (!is_line_end(cp)) continue;
        if (cp == '\r' && i < s.n && s.p[i] == '\n') i++;
        if (!push_line(r, l, s.p + start, (keep_ends ? i : at) - start)) return false;
        start = i;
    }
    return start == s.n || push_line(r, l, s.p + start, s.n - start);
}

// ---- members

static bool in_text(sd_render *r, const sd_value *in, const sd_value *what, bool *out) {
    if (what->kind != in->kind)
        return sd_render_fail(r, "a %s cannot be in a string", sd_kind_name(what));
    *out = sd_search(in->s, what->s) != NULL;
    return sd_spend(r, 1 + in->s.n / SD_TMPL_SEARCH);
}

static bool in_list(sd_render *r, const sd_list *l, const sd_value *what, size_t *at, bool *out) {
    for (; *at < l->n && !*out; (*at)++) {
        *out = sd_equal(r, &l->item[*at], what, 0);
        if (r->status != SD_OK) return false;
    }
    return true;
}

static bool in_range(sd_render *r, const sd_range *g, const sd_value *what, bool *out) {
    sd_list *l;
    sd_value v = {.kind = SD_V_RANGE, .range = (sd_range *)(uintptr_t)g};
    size_t at = 0;
    return sd_iterate(r, &v, &l) && in_list(r, l, what, &at, out);
}

bool sd_contains(sd_render *r, const sd_value *in, const sd_value *what, bool *out) {
    sd_value *found;
    size_t at = 0;
    *out = false;
    switch (in->kind) {
    case SD_V_UNDEFINED:
    case SD_V_UNSAFE:
        return true;
    case SD_V_STRING:
    case SD_V_BYTES:
        return in_text(r, in, what, out);
    case SD_V_LIST:
    case SD_V_TUPLE:
        return in_list(r, in->list, what, &at, out);
    case SD_V_VIEW:
        return in_list(r, in->iterable->items, what, &at, out);
    case SD_V_ITERATOR:
        return in_list(r, in->iterable->items, what, &in->iterable->at, out);
    case SD_V_RANGE:
        return in_range(r, in->range, what, out);
    case SD_V_DICT:
        if (!sd_dict_find(r, in->dict, what, &found)) return false;
        *out = found != NULL;
        return true;
    default:
        return sd_render_fail(r, "nothing is in a %s", sd_kind_name(in));
    }
}

// ---- length

bool sd_length(sd_render *r, const sd_value *v, int64_t *out) {
    switch (v->kind) {
    case SD_V_UNDEFINED:
    case SD_V_UNSAFE:
        *out = 0;
        return true;
    case SD_V_STRING:
        *out = (int64_t)sd_count_chars(v->s);
        return sd_spend_bytes(r, v->s.n);
    case SD_V_BYTES:
        *out = (int64_t)v->s.n;
        return true;
    case SD_V_LIST:
    case SD_V_TUPLE:
        *out = (int64_t)v->list->n;
        return true;
    case SD_V_DICT:
        *out = (int64_t)v->dict->n;
        return true;
    case SD_V_LOOP:
        *out = (int64_t)v->loop->items->n;
        return true;
    case SD_V_RANGE:
        *out = (int64_t)v->range->n;
        return true;
    case SD_V_VIEW:
        *out = (int64_t)v->iterable->items->n;
        return true;
    default:
        return sd_render_fail(r, "a %s has no length", sd_kind_name(v));
    }
}
