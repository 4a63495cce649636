// Values: their kinds and their truth, and the making of lists and iterables.
#include "model/template/value/value.h"

const char *sd_kind_name(const sd_value *v) {
#define KIND_WORD(name, word) word,
    static const char *const words[] = {SD_VALUE_KIND_LIST(KIND_WORD)};
#undef KIND_WORD
    return words[v->kind];
}

const char *sd_op_text(sd_op op) {
#define OP_TEXT(name, text) text,
    static const char *const texts[] = {SD_OP_LIST(OP_TEXT)};
#undef OP_TEXT
    return texts[op];
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
        return v->iterable->items->n > 0;
    default:
        return true;
    }
}

// ---- making them

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

bool sd_make_iterable(sd_render *r, sd_value_kind kind, sd_list *items, const char *name,
                      sd_value *out) {
    sd_iterable *w = sd_render_alloc(r, 1, sizeof *w);
    if (!w) return false;
    *w = (sd_iterable){.items = items, .name = name};
    *out = (sd_value){.kind = kind, .iterable = w};
    return true;
}

bool sd_make_iterator(sd_render *r, sd_list *l, sd_value *out) {
    return sd_make_iterable(r, SD_V_ITERATOR, l, "generator", out);
}

sd_value sd_dict_value(sd_dict *d) {
    return (sd_value){.kind = SD_V_DICT, .dict = d};
}
