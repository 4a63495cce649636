// Values with Python's meaning: truth, equality, order, iteration, str() and repr().
#include "model/template/internal.h"

#include "base/clock.h"
#include "base/utf8.h"

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

bool sd_make_walk(sd_render *r, sd_value_kind kind, sd_list *items, const char *name,
                  sd_value *out) {
    sd_walk *w = sd_render_alloc(r, 1, sizeof *w);
    if (!w) return false;
    *w = (sd_walk){.items = items, .name = name};
    *out = (sd_value){.kind = kind, .walk = w};
    return true;
}

sd_value sd_dict_value(sd_dict *d) {
    return (sd_value){.kind = SD_V_DICT, .dict = d};
}

// ---- questions

const char *sd_kind_name(const sd_value *v) {
    static const char *const names[] = {
        "undefined value", "NoneType", "bool",   "int",    "int",        "float",
        "string",          "bytes",    "list",   "tuple",  "dict",       "namespace",
        "macro",           "function", "method", "loop",   "range",      "view of a dict",
        "generator",       "method",   "cycler", "joiner", "collection", "block"};
    return names[v->kind];
}

bool sd_truth(const sd_value *v) {
    switch (v->kind) {
    case SD_V_UNDEFINED:
    case SD_V_UNSAFE:
    case SD_V_NONE:
        return false;
    case SD_V_BOOL:
        return v->b;
    case SD_V_INT:
        return v->i != 0;
    case SD_V_FLOAT:
        return v->f != 0;
    case SD_V_STRING:
    case SD_V_BYTES:
        return v->s.n > 0;
    case SD_V_LIST:
    case SD_V_TUPLE:
        return v->list->n > 0;
    case SD_V_DICT:
        return v->dict->n > 0;
    case SD_V_LOOP:
        return v->loop->items->n > 0;
    case SD_V_RANGE:
        return v->range->n > 0;
    case SD_V_VIEW:
        return v->walk->items->n > 0;
    default:
        return true;
    }
}

bool sd_number(sd_render *r, const sd_value *v, double *out) {
    if (v->kind == SD_V_FLOAT) {
        *out = v->f;
        return true;
    }
    return sd_is_int(v) && sd_int_to_double(r, v, out);
}

static bool numbers(const sd_value *a, const sd_value *b) {
    return (sd_is_int(a) || a->kind == SD_V_FLOAT) && (sd_is_int(b) || b->kind == SD_V_FLOAT);
}

// Exact, also between ints that no float holds and floats.
static bool compare_numbers(sd_render *r, const sd_value *a, const sd_value *b, int *order) {
    int64_t i, k;
    if (sd_small_int(a, &i) && sd_small_int(b, &k)) {
        *order = i < k ? -1 : i > k;
    } else if (a->kind == SD_V_FLOAT && b->kind == SD_V_FLOAT) {
        *order = a->f < b->f ? -1 : a->f > b->f ? 1 : a->f == b->f ? 0 : SD_UNORDERED;
    } else if (a->kind == SD_V_FLOAT) {
        if (!sd_int_compare_float(r, b, a->f, order)) return false;
        if (*order != SD_UNORDERED) *order = -*order;
    } else if (b->kind == SD_V_FLOAT) {
        return sd_int_compare_float(r, a, b->f, order);
    } else {
        *order = sd_int_compare(a, b);
    }
    return true;
}

static bool equal_lists(sd_render *r, const sd_list *a, const sd_list *b, int depth) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!sd_equal(r, &a->item[i], &b->item[i], depth + 1)) return false;
    return true;
}

static bool equal_dicts(sd_render *r, const sd_dict *a, sd_dict *b, int depth) {
    if (a->n != b->n) return false;
    for (size_t k = 0; k < a->n; k++) {
        sd_value *other;
        if (!sd_dict_find(r, b, &a->key[k], &other) || !other ||
            !sd_equal(r, &a->value[k], other, depth + 1))
            return false;
    }
    return true;
}

static bool equal_ranges(const sd_range *a, const sd_range *b) {
    return a->n == b->n && (a->n == 0 || (a->from == b->from && (a->n == 1 || a->step == b->step)));
}

bool sd_equal(sd_render *r, const sd_value *a, const sd_value *b, int depth) {
    int order;
    if (depth > MAX_VALUE_DEPTH) return sd_render_limit(r, "depth");
    if (!sd_spend(r, 1)) return false;
    if (numbers(a, b)) return compare_numbers(r, a, b, &order) && order == 0;
    if (sd_is_undefined(a) && sd_is_undefined(b)) return true;
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case SD_V_NONE:
        return true;
    case SD_V_STRING:
    case SD_V_BYTES:
        return a->s.n == b->s.n && sd_spend_bytes(r, a->s.n) && sd_str_eq(a->s, b->s);
    case SD_V_LIST:
    case SD_V_TUPLE:
        return equal_lists(r, a->list, b->list, depth);
    case SD_V_DICT:
        return equal_dicts(r, a->dict, b->dict, depth);
    case SD_V_RANGE:
        return equal_ranges(a->range, b->range);
    case SD_V_FUNCTION:
        return a->function == b->function;
    case SD_V_SELF:
        return true;
    default:
        return a->macro == b->macro; // the same object
    }
}

static int sign_of(bool less, bool more) {
    return less ? -1 : more;
}

static bool compare_lists(sd_render *r, const sd_list *a, const sd_list *b, int *order) {
    for (size_t k = 0; k < a->n && k < b->n; k++) {
        if (sd_equal(r, &a->item[k], &b->item[k], 0)) continue;
        if (r->status != SD_OK) return false;
        if (r->depth >= SD_TMPL_MAX_CALLS) return sd_render_limit(r, "depth");
        r->depth++;
        bool ok = sd_compare(r, &a->item[k], &b->item[k], order);
        r->depth--;
        return ok;
    }
    *order = sign_of(a->n<b->n, a->n> b->n);
    return true;
}

bool sd_compare(sd_render *r, const sd_value *a, const sd_value *b, int *order) {
    if (!sd_spend(r, 1)) return false;
    if (numbers(a, b)) return compare_numbers(r, a, b, order);
    if ((a->kind == SD_V_STRING || a->kind == SD_V_BYTES) && a->kind == b->kind) {
        size_t n = a->s.n < b->s.n ? a->s.n : b->s.n;
        int c = n ? memcmp(a->s.p, b->s.p, n) : 0;
        *order = c ? sign_of(c<0, c> 0) : sign_of(a->s.n<b->s.n, a->s.n> b->s.n);
        return sd_spend_bytes(r, n);
    }
    if (sd_is_sequence(a) && a->kind == b->kind) return compare_lists(r, a->list, b->list, order);
    return sd_render_fail(r, "a %s and a %s have no order", sd_kind_name(a), sd_kind_name(b));
}

bool sd_satisfies(sd_op op, int order) {
    if (order == SD_UNORDERED) return false;
    return op == SD_OP_LT   ? order < 0
           : op == SD_OP_LE ? order <= 0
           : op == SD_OP_GT ? order > 0
                            : order >= 0;
}

const char *sd_search(sd_str in, sd_str what) {
    if (what.n == 0) return in.p;
    return in.n < what.n ? NULL : memmem(in.p, in.n, what.p, what.n);
}

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
        return in_list(r, in->walk->items, what, &at, out);
    case SD_V_ITERATOR:
        return in_list(r, in->walk->items, what, &in->walk->at, out);
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

size_t sd_count_chars(sd_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

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
        *out = (int64_t)v->walk->items->n;
        return true;
    default:
        return sd_render_fail(r, "a %s has no length", sd_kind_name(v));
    }
}

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

static bool take_rest(sd_render *r, sd_walk *w, sd_list **out) {
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
        *out = v->walk->items;
        return true;
    case SD_V_ITERATOR:
        return take_rest(r, v->walk, out);
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
