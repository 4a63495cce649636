// Any bytes as a block from the other side of a provider: refused with a sentence, or every part of
// it lies within.
#include "base/status.h"
#include "decode/serve/provider/message.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static volatile unsigned sink;

static void look_at(const void *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) sink += ((const unsigned char *)bytes)[i];
}

static void look_at_request(const sd_request *r) {
    look_at(r->prompt, (size_t)r->n_prompt * sizeof *r->prompt);
    look_at(r->stop_token, (size_t)r->n_stop_token * sizeof *r->stop_token);
    const sd_request_shaping *h = &r->shaping;
    look_at(h->bias, (size_t)h->n_bias * sizeof *h->bias);
    look_at(h->allowed, (size_t)h->n_allowed * sizeof *h->allowed);
    look_at(h->bad_words, (size_t)h->n_bad_words * sizeof *h->bad_words);
    for (int i = 0; i < r->n_stop; i++) look_at(r->stop[i], strlen(r->stop[i]));
}

static void look_at_event(const sd_provider_event *e) {
    _Alignas(8) char copy[SD_PROVIDER_EVENT_LEAST];
    look_at(sd_provider_event_tokens(e), e->tokens.n * sizeof(sd_token_info));
    look_at(sd_provider_event_text(e), e->text.n);
    look_at(sd_provider_event_error(e), e->error.n);
    look_at(sd_provider_event_stats(e), e->stats.n * sizeof(sd_request_stats));
    sd_provider_event_copy(copy, sizeof copy, e);
    const sd_provider_event *short_one = (const void *)copy;
    SD_ASSERT(short_one->finish == e->finish && short_one->n == e->n);
    SD_ASSERT(short_one->lost || short_one->head.bytes == e->head.bytes);
    SD_ASSERT(short_one->head.bytes <= sizeof copy);
    SD_ASSERT(sd_provider_event_check(copy, short_one->head.bytes, NULL) == SD_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    char *block = malloc(size ? size : 1); // aligned, and its end is watched
    sd_error err = {0};
    sd_request r;
    if (!block) return 0;
    memcpy(block, bytes, size);
    // The length is put right in every other input, or few would come further.
    if (size >= sizeof(sd_provider_head) && (bytes[size - 1] & 1)) {
        sd_provider_head head = {SD_PROVIDER_VERSION, (uint32_t)size};
        memcpy(block, &head, sizeof head);
    }
    if (sd_provider_request_read(&r, block, size, &err) == SD_OK)
        look_at_request(&r);
    else
        SD_ASSERT(err.message[0]);
    err = (sd_error){0};
    if (sd_provider_event_check(block, size, &err) == SD_OK)
        look_at_event((const void *)block);
    else
        SD_ASSERT(err.message[0]);
    free(block);
    return 0;
}
