#include "datasets/build/token_store.h"

#include "base/list.h"

#include <stdlib.h>

sd_status sd_token_store_add(sd_token_store *g, const sd_segment *s, const int32_t *id,
                             const uint8_t *supervised, sd_error *err) {
    if (!SD_GROW(g->token, g->n_tokens + s->length, g->cap_tokens))
        return sd_fail(err, SD_ENOMEM, "out of memory after %lld tokens", (long long)g->n_tokens);
    if (!SD_GROW(g->segment, g->n_segments + 1, g->cap_segments))
        return sd_fail(err, SD_ENOMEM, "out of memory after %lld records",
                       (long long)g->n_segments);
    if (g->n_segments >= INT32_MAX / 2)
        return sd_fail(err, SD_ELIMIT, "more than %d records; split the data", INT32_MAX / 2);
    sd_segment *kept = &g->segment[g->n_segments++];
    *kept = *s;
    kept->offset = g->n_tokens;
    for (int i = 0; i < s->length; i++)
        g->token[g->n_tokens++] = i > 0 && supervised[i] ? id[i] | SD_SUPERVISED_BIT : id[i];
    return SD_OK;
}

void sd_token_store_free(sd_token_store *g) {
    free(g->token);
    free(g->segment);
    sd_system_texts_free(&g->systems);
    json_decref(g->sources);
    *g = (sd_token_store){0};
}
