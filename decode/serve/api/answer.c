#include "decode/serve/api/answer.h"

#include <math.h>
#include <string.h>

// ---- logprobs

enum { MAX_TOP = 20 };

// A kept token: its id and logprob, how many alternatives are real, then `top` pairs of id and
// logprob.
size_t sd_logprobs_stride(int top) {
    return 12 + 8 * (size_t)top;
}

bool sd_logprobs_keep(sd_buf *kept, const sd_token_info *tokens, int n, int top) {
    for (int i = 0; i < n; i++) {
        const sd_token_info *info = &tokens[i];
        char record[12 + 8 * MAX_TOP] = {0};
        int32_t real = info->n_top < top ? info->n_top : top;
        memcpy(record, &info->token, 4);
        memcpy(record + 4, &info->logprob, 4);
        memcpy(record + 8, &real, 4);
        memcpy(record + 12, info->top, 8 * (size_t)real);
        if (!sd_buf_add(kept, record, sd_logprobs_stride(top))) return false;
    }
    return true;
}

_Static_assert(sizeof(((sd_token_info *)0)->top[0]) == 8 &&
                   sizeof(((sd_token_info *)0)->top) == 8 * MAX_TOP,
               "pairs without padding");

sd_token_info sd_logprobs_at(const sd_logprobs_source *from, int i) {
    if (from->tokens) return from->tokens[i];
    sd_token_info info = {0};
    const char *record = from->kept->data + (size_t)i * sd_logprobs_stride(from->top);
    memcpy(&info.token, record, 4);
    memcpy(&info.logprob, record + 4, 4);
    memcpy(&info.n_top, record + 8, 4);
    memcpy(info.top, record + 12, 8 * (size_t)info.n_top);
    return info;
}

// ---- statistics

void sd_stats_add(sd_request_stats *sum, const sd_request_stats *s) {
    sum->queue_ms = fmax(sum->queue_ms, s->queue_ms);
    sum->prefill_ms = fmax(sum->prefill_ms, s->prefill_ms);
    sum->decode_ms = fmax(sum->decode_ms, s->decode_ms);
    sum->prompt_tokens += s->prompt_tokens;
    sum->cached_tokens += s->cached_tokens;
    sum->generated += s->generated;
    sum->reasoning += s->reasoning;
    sd_spec_stats_add(&sum->spec, &s->spec, 1);
}
