// A growing list of token ids.
#include "model/tokenizer/tokenizer.h"

#include "base/list.h"

#include <limits.h>
#include <string.h>

bool sd_ids_add(sd_ids *l, const int32_t *id, int n) {
    if (n > INT_MAX - l->n) return false;
    if (!SD_GROW(l->id, l->n + n, l->cap)) return false;
    if (n > 0) memcpy(l->id + l->n, id, (size_t)n * sizeof *id);
    l->n += n;
    return true;
}

void sd_ids_free(sd_ids *l) {
    free(l->id);
    *l = (sd_ids){0};
}
