// Values with Python's meaning: truth, equality, order, iteration, str() and repr().
#include "model/template_internal.h"

#include "base/clock.h"
#include "model/utf8.h"

#include <stdio.h>

enum { MAX_VALUE_DEPTH = 300 };

bool sd_render_fail(sd_render *r, const char *fmt, ...) {
    char what[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    r->status = sd_fail(r->err, SD_EINVAL, "chat template line %d: %s", r->line, what);
    return false;
}

bool sd_render_limit(sd_render *r, const char *what) {
    r->status = sd_fail(r->err, SD_ELIMIT,
                        "chat template line %d: the rendering needs more than the allowed %s; "
                        "shorten the conversation",
                        r->line, what);
    return false;
}

// Whether somebody waits for the result and the deadline is not over.
static bool look_outside(sd_render *r) {
    const sd_template_bounds *b = r->bounds;
    r->look = r->fuel - SD_TMPL_LOOK;
    if (b && b->stop && atomic_load_explicit(b->stop, memory_order_relaxed)) {
        r->status = sd_fail(r->err, SD_EINTERRUPTED, "the rendering was stopped: nobody waits");
        return false;
    }
    return !b || !b->deadline_ns || sd_now_ns() < b->deadline_ns || sd_render_limit(r, "time");
}

bool sd_spend(sd_render *r, size_t steps) {
    if (steps > (size_t)r->fuel) {
        r->fuel = 0;
        return sd_render_limit(r, "steps");
    }
    r->fuel -= (int64_t)steps;
    return r->fuel > r->look || look_outside(r);
}

bool sd_spend_bytes(sd_render *r, size_t n) {
    size_t all = r->bytes + n; // texts are far below SIZE_MAX
    r->bytes = all % SD_TMPL_BYTES_A_STEP;
    return sd_spend(r, all / SD_TMPL_BYTES_A_STEP);
}

bool sd_reserve_memory(sd_render *r, size_t more) {
    size_t used = r->arena.total + r->held;
    return (used <= SD_TMPL_MAX_MEMORY && more <= SD_TMPL_MAX_MEMORY - used) ||
           sd_render_limit(r, "memory");
}

bool sd_out_of_memory(sd_render *r) {
    r->status = sd_fail(r->err, SD_ENOMEM, "out of memory for the chat template's rendering");
    return false;
}

// Memory is zeroed, which is work too.
void *sd_render_alloc(sd_render *r, size_t count, size_t size) {
    size_t bytes;
    if (!count) count = 1;
    if (!sd_mul_size(&bytes, count, size)) {
        sd_render_limit(r, "memory");
        return NULL;
    }
    if (!sd_reserve_memory(r, bytes) || !sd_spend_bytes(r, bytes)) return NULL;
    void *p = sd_arena_alloc(&r->arena, count, size);
    if (!p) sd_out_of_memory(r);
    return p;
}

// ---- lists

sd_list *sd_list_make(sd_render *r, size_t cap) {
    sd_list *l = sd_render_alloc(r, 1, sizeof *l);
    if (!l) return NULL;
    l->cap = cap;
    l->item = cap ? sd_render_alloc(r, cap, sizeof *l->item) : NULL;
    return cap && !l->item ? NULL : l;
}

bool sd_list_push(sd_render *r, sd_list *l, const sd_value *v) {
    if (!sd_spend(r, 1)) return false;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        sd_value *p = sd_render_alloc(r, cap, sizeof *p);
        if (!p) return false;
        if (l->n) memcpy(p, l->item, l->n * sizeof *p);
        l->item = p;
        l->cap = cap;
    }
    l->item[l->n++] = *v;
    return true;
}

sd_value sd_list_value(sd_value_kind kind, sd_list *l) {
    return (sd_value){.kind = kind, .list = l};
}

sd_value sd_dict_value(sd_dict *d) {
    return (sd_value){.kind = SD_V_DICT, .dict = d};
}

// ---- questions

const char *sd_kind_name(const sd_value *v) {
    static const char *const names[] = {
        "undefined value", "NoneType", "bool",      "int",   "float",    "string", "list",
        "tuple",           "dict",     "namespace", "macro", "function", "method", "loop"};
    return names[v->kind];
}

bool sd_truth(const sd_value *v) {
    switch (v->kind) {
    case SD_V_UNDEFINED:
    case SD_V_NONE:
        return false;
    case SD_V_BOOL:
        return v->b;
    case SD_V_INT:
        return v->i != 0;
    case SD_V_FLOAT:
        return v->f != 0;
    case SD_V_STRING:
        return v->s.n > 0;
    case SD_V_LIST:
    case SD_V_TUPLE:
        return v->list->n > 0;
    case SD_V_DICT:
        return v->dict->n > 0;
    case SD_V_LOOP:
        return v->loop->items->n > 0;
    default:
        return true;
    }
}

bool sd_number(const sd_value *v, double *out) {
    if (v->kind == SD_V_BOOL)
        *out = v->b;
    else if (v->kind == SD_V_INT)
        *out = (double)v->i;
    else if (v->kind == SD_V_FLOAT)
        *out = v->f;
    else
        return false;
    return true;
}

static bool whole(const sd_value *v, int64_t *out) {
    if (v->kind == SD_V_BOOL)
        *out = v->b;
    else if (v->kind == SD_V_INT)
        *out = v->i;
    else
        return false;
    return true;
}

static bool equal_lists(sd_render *r, const sd_list *a, const sd_list *b, int depth) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!sd_equal(r, &a->item[i], &b->item[i], depth + 1)) return false;
    return true;
}

bool sd_equal(sd_render *r, const sd_value *a, const sd_value *b, int depth) {
    double x, y;
    int64_t i, j;
    if (depth > MAX_VALUE_DEPTH) return sd_render_limit(r, "depth");
    if (!sd_spend(r, 1)) return false;
    if (whole(a, &i) && whole(b, &j)) return i == j;
    if (sd_number(a, &x) && sd_number(b, &y)) return x == y;
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case SD_V_UNDEFINED:
    case SD_V_NONE:
        return true;
    case SD_V_STRING:
        return a->s.n == b->s.n && sd_spend_bytes(r, a->s.n) && sd_str_eq(a->s, b->s);
    case SD_V_LIST:
    case SD_V_TUPLE:
        return equal_lists(r, a->list, b->list, depth);
    case SD_V_DICT:
        if (a->dict->n != b->dict->n) return false;
        for (size_t k = 0; k < a->dict->n; k++) {
            sd_value *other;
            if (!sd_dict_find(r, b->dict, &a->dict->key[k], &other) || !other ||
                !sd_equal(r, &a->dict->value[k], other, depth + 1))
                return false;
        }
        return true;
    case SD_V_NAMESPACE:
        return a->dict == b->dict;
    case SD_V_FUNCTION:
        return a->function == b->function;
    default:
        return a->macro == b->macro;
    }
}

static int sign_of(bool less, bool more) {
    return less ? -1 : more;
}

bool sd_compare(sd_render *r, const sd_value *a, const sd_value *b, int *order) {
    double x, y;
    int64_t i, j;
    if (!sd_spend(r, 1)) return false;
    if (whole(a, &i) && whole(b, &j)) {
        *order = sign_of(i<j, i> j);
    } else if (sd_number(a, &x) && sd_number(b, &y)) {
        *order = sign_of(x<y, x> y);
    } else if (a->kind == SD_V_STRING && b->kind == SD_V_STRING) {
        size_t n = a->s.n < b->s.n ? a->s.n : b->s.n;
        int c = n ? memcmp(a->s.p, b->s.p, n) : 0;
        if (!sd_spend_bytes(r, n)) return false;
        *order = c ? sign_of(c<0, c> 0) : sign_of(a->s.n<b->s.n, a->s.n> b->s.n);
    } else if (sd_is_sequence(a) && a->kind == b->kind) {
        for (size_t k = 0; k < a->list->n && k < b->list->n; k++) {
            if (sd_equal(r, &a->list->item[k], &b->list->item[k], 0)) continue;
            if (r->status != SD_OK) return false;
            if (r->depth >= SD_TMPL_MAX_CALLS) return sd_render_limit(r, "depth");
            r->depth++;
            bool ok = sd_compare(r, &a->list->item[k], &b->list->item[k], order);
            r->depth--;
            return ok;
        }
        *order = sign_of(a->list->n<b->list->n, a->list->n> b->list->n);
    } else {
        return sd_render_fail(r, "a %s and a %s have no order", sd_kind_name(a), sd_kind_name(b));
    }
    return true;
}

const char *sd_search(sd_str in, sd_str what) {
    if (what.n == 0) return in.p;
    return in.n < what.n ? NULL : memmem(in.p, in.n, what.p, what.n);
}

bool sd_contains(sd_render *r, const sd_value *in, const sd_value *what, bool *out) {
    sd_value *found;
    *out = false;
    switch (in->kind) {
    case SD_V_UNDEFINED:
        return true;
    case SD_V_STRING:
        if (what->kind != SD_V_STRING)
            return sd_render_fail(r, "a %s cannot be in a string", sd_kind_name(what));
        *out = sd_search(in->s, what->s) != NULL;
        return sd_spend(r, 1 + in->s.n / SD_TMPL_SEARCH);
    case SD_V_LIST:
    case SD_V_TUPLE:
        for (size_t i = 0; i < in->list->n && !*out; i++)
            *out = sd_equal(r, &in->list->item[i], what, 0);
        return r->status == SD_OK;
    case SD_V_DICT:
        if (!sd_dict_find(r, in->dict, what, &found)) return false;
        *out = found != NULL;
        return true;
    default:
        return sd_render_fail(r, "nothing is in a %s", sd_kind_name(in));
    }
}

size_t sd_count_chars(sd_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

bool sd_length(sd_render *r, const sd_value *v, int64_t *out) {
    switch (v->kind) {
    case SD_V_UNDEFINED:
        *out = 0;
        return true;
    case SD_V_STRING:
        *out = (int64_t)sd_count_chars(v->s);
        return sd_spend_bytes(r, v->s.n);
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
    default:
        return sd_render_fail(r, "a %s has no length", sd_kind_name(v));
    }
}

bool sd_iterate(sd_render *r, const sd_value *v, sd_list **out) {
    sd_list *l;
    switch (v->kind) {
    case SD_V_UNDEFINED:
        return (*out = sd_list_make(r, 0)) != NULL;
    case SD_V_LIST:
    case SD_V_TUPLE:
        *out = v->list;
        return true;
    case SD_V_DICT:
        if (!(*out = l = sd_list_make(r, v->dict->n))) return false;
        for (size_t i = 0; i < v->dict->n; i++)
            if (!sd_list_push(r, l, &v->dict->key[i])) return false;
        return true;
    case SD_V_STRING:
        if (!(*out = l = sd_list_make(r, v->s.n))) return false;
        for (size_t i = 0; i < v->s.n;) { // a step for each
            int32_t cp;
            size_t n = (size_t)sd_utf8_next(v->s.p + i, v->s.n - i, &cp, NULL);
            sd_value c = sd_string(v->s.p + i, n);
            if (!sd_list_push(r, l, &c)) return false;
            i += n;
        }
        return true;
    default:
        return sd_render_fail(r, "a %s cannot be looped over", sd_kind_name(v));
    }
}
