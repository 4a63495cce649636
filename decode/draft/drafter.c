#include "decode/draft/drafter.h"

const char *sd_source_name(sd_source s) {
    static const char *const names[SD_SOURCE_COUNT] = {"suffix", "index", "draft"};
    return (unsigned)s < SD_SOURCE_COUNT ? names[s] : "unknown";
}

int sd_drafter_propose(sd_drafter *d, int g, int32_t *tokens, float *confidence) {
    sd_proposal guess;
    int n = 0;
    d->ops->rewind(d);
    while (n < g && d->ops->peek(d, &guess)) {
        tokens[n] = guess.token;
        if (confidence) confidence[n] = guess.confidence;
        n++;
        d->ops->advance(d, guess.token);
    }
    return n;
}

void sd_drafter_close(sd_drafter *d) {
    if (d) d->ops->close(d);
}
