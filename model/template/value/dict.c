// Dicts, and equality: a dict finds its keys by equality, and two dicts are equal by finding.
//
// Dicts keep the order of insertion; beyond a few keys an open hash table leads to the positions,
// so that a request with 80,000 keys costs no more for each than one with 8. The hashes are seeded
// and every step of a search costs fuel: keys made to collide run out of steps, not of time.
#include "model/template/value/value.h"

#include "base/files/hash.h"

#include <math.h>

enum { FEW = 8, MAX_VALUE_DEPTH = 300 };

sd_dict *sd_dict_make(sd_render *r, size_t cap) {
    sd_dict *d = sd_render_alloc(r, 1, sizeof *d);
    if (!d) return NULL;
    d->cap = cap;
    d->key = cap ? sd_render_alloc(r, cap, sizeof *d->key) : NULL;
    d->value = cap ? sd_render_alloc(r, cap, sizeof *d->value) : NULL;
    return cap && (!d->key || !d->value) ? NULL : d;
}

// ---- hashes: equal values have equal ones, so 1, 1.0 and true too

static uint64_t hash_bytes(uint64_t h, sd_str s) {
    for (size_t i = 0; i < s.n; i += 8) {
        uint64_t word = 0;
        memcpy(&word, s.p + i, s.n - i < 8 ? s.n - i : 8);
        h = sd_mix64(h ^ word) + 0x9e3779b97f4a7c15u;
    }
    return sd_mix64(h ^ s.n);
}

static uint64_t hash_float(uint64_t h, double f) {
    uint64_t bits;
    int64_t whole = f >= -9.2e18 && f <= 9.2e18 ? (int64_t)f : 0;
    if (whole != 0 || f == 0) {
        if ((double)whole == f) return sd_mix64(h ^ (uint64_t)whole);
    }
    memcpy(&bits, &f, sizeof bits);
    return sd_mix64(h ^ bits);
}

static bool hash_of(sd_render *r, const sd_value *v, int depth, uint64_t *h) {
    if (!sd_spend(r, 1)) return false;
    switch (v->kind) {
    case SD_V_BOOL:
        *h = sd_mix64(*h ^ (uint64_t)v->b);
        return true;
    case SD_V_INT:
        *h = sd_mix64(*h ^ (uint64_t)v->i);
        return true;
    case SD_V_FLOAT:
        *h = hash_float(*h, v->f);
        return true;
    case SD_V_BIGINT: // equals a float where that holds it
        if (isinf(sd_int_approx(v))) break;
        *h = hash_float(*h, sd_int_approx(v));
        return true;
    case SD_V_STRING:
    case SD_V_BYTES:
        *h = hash_bytes(*h, v->s);
        return sd_spend_bytes(r, v->s.n);
    case SD_V_TUPLE:
        if (depth > SD_TMPL_MAX_DEPTH) return sd_render_limit(r, "depth");
        for (size_t i = 0; i < v->list->n; i++)
            if (!hash_of(r, &v->list->item[i], depth + 1, h)) return false;
        return true;
    default:
        break;
    }
    *h = sd_mix64(*h ^ (uint64_t)v->kind);
    return true;
}

bool sd_hashable(const sd_value *v) {
    switch (v->kind) {
    case SD_V_LIST:
    case SD_V_DICT:
    case SD_V_VIEW:
        return false;
    case SD_V_TUPLE:
        for (size_t i = 0; i < v->list->n; i++)
            if (!sd_hashable(&v->list->item[i])) return false;
        return true;
    default:
        return true;
    }
}

// ---- the table

// The slot of the key, or the free one where it belongs. d->slots is a power of two.
static bool find_slot(sd_render *r, sd_dict *d, const sd_value *key, uint64_t h, size_t *at) {
    size_t mask = d->slots - 1;
    for (*at = (size_t)h & mask; d->slot[*at]; *at = (*at + 1) & mask) {
        if (!sd_spend(r, 1)) return false;
        if (sd_equal(r, &d->key[d->slot[*at] - 1], key, 0)) return true;
        if (r->status != SD_OK) return false;
    }
    return true;
}

static bool index_all(sd_render *r, sd_dict *d, size_t slots) {
    uint32_t *slot = sd_render_alloc(r, slots, sizeof *slot);
    if (!slot) return false;
    for (size_t i = 0; i < d->n; i++) { // the keys differ: none is compared
        uint64_t h = r->seed;
        if (!hash_of(r, &d->key[i], 0, &h)) return false;
        size_t at = (size_t)h & (slots - 1);
        for (; slot[at]; at = (at + 1) & (slots - 1))
            if (!sd_spend(r, 1)) return false;
        slot[at] = (uint32_t)i + 1;
    }
    d->slot = slot;
    d->slots = slots;
    return true;
}

static bool find_among_few(sd_render *r, sd_dict *d, const sd_value *key, size_t *at) {
    for (*at = 0; *at < d->n; (*at)++) {
        if (sd_equal(r, &d->key[*at], key, 0)) return true;
        if (r->status != SD_OK) return false;
    }
    return true;
}

// *at: the key's position, d->n when it is not there; then *free_slot is the slot for it.
static bool find(sd_render *r, sd_dict *d, const sd_value *key, size_t *at, size_t *free_slot) {
    *free_slot = 0;
    if (!sd_hashable(key))
        return sd_render_fail(r, "a %s cannot be the key of a dict", sd_kind_name(key));
    if (d->n <= FEW) return find_among_few(r, d, key, at);
    size_t wanted = d->slots ? d->slots : 32;
    while (wanted < 2 * (d->n + 1)) wanted *= 2;
    if (wanted != d->slots && !index_all(r, d, wanted)) return false;
    uint64_t h = r->seed;
    if (!hash_of(r, key, 0, &h) || !find_slot(r, d, key, h, free_slot)) return false;
    *at = d->slot[*free_slot] ? d->slot[*free_slot] - 1 : d->n;
    return true;
}

bool sd_dict_find(sd_render *r, sd_dict *d, const sd_value *key, sd_value **out) {
    size_t at, unused;
    *out = NULL;
    if (!find(r, d, key, &at, &unused)) return false;
    if (at < d->n) *out = &d->value[at];
    return true;
}

bool sd_dict_get(sd_render *r, sd_dict *d, sd_str key, sd_value **out) {
    sd_value k = sd_string(key.p, key.n);
    return sd_dict_find(r, d, &k, out);
}

static bool grow(sd_render *r, sd_dict *d) {
    size_t cap = d->cap ? d->cap * 2 : 4;
    if (cap >= UINT32_MAX) return sd_render_limit(r, "memory");
    sd_value *k = sd_render_alloc(r, cap, sizeof *k), *v = sd_render_alloc(r, cap, sizeof *v);
    if (!k || !v) return false;
    if (d->n) {
        memcpy(k, d->key, d->n * sizeof *k);
        memcpy(v, d->value, d->n * sizeof *v);
    }
    d->key = k;
    d->value = v;
    d->cap = cap;
    return true;
}

bool sd_dict_put(sd_render *r, sd_dict *d, const sd_value *key, const sd_value *value) {
    size_t at, slot;
    if (!sd_spend(r, 1) || !find(r, d, key, &at, &slot)) return false;
    if (at < d->n) {
        d->value[at] = *value;
        return true;
    }
    if (d->n == d->cap && !grow(r, d)) return false;
    d->key[d->n] = *key;
    d->value[d->n++] = *value;
    if (d->slots) d->slot[slot] = (uint32_t)d->n; // find left room for it
    return true;
}

// ---- equality

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
    if (sd_are_numbers(a, b)) return sd_compare_numbers(r, a, b, &order) && order == 0;
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
