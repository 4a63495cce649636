// A growing list of token ids.
#include "model/tokenizer/tokenizer.h"

#include <limits.h>
#include <string.h>

bool sd_ids_add(sd_ids *l, const int32_t *id, int n) {
    if (n > INT_MAX - l->n) return false;
    if (l->n + n > l->cap) {
        int cap = l->cap ? l->cap : 64;
        while (cap < l->n + n) cap = cap > INT_MAX / 2 ? INT_MAX : cap * 2;
        int32_t *p = sd_realloc(l->id, (size_t)cap, sizeof *p);
        if (!p) return false;
        l->id = p;
        l->cap = cap;
    }
    if (n > 0) memcpy(l->id + l->n, id, (size_t)n * sizeof *id);
    l->n += n;
    return true;
}

void sd_ids_free(sd_ids *l) {
    free(l->id);
    *l = (sd_ids){0};
}
