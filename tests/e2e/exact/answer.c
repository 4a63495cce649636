#include "tests/e2e/exact/answer.h"
#include "base/list.h"

#include <stdio.h>
#include <string.h>

enum { MOST_TEXT = 1 << 20 };

void exact_collect(void *ctx, const sd_event *ev) {
    exact_answer *a = ctx;
    if (!SD_GROW(a->token, a->n + ev->n, a->cap)) {
        a->lost = true;
        return;
    }
    if (ev->n > 0) memcpy(a->token + a->n, ev->tokens, (size_t)ev->n * sizeof *a->token);
    a->n += ev->n;
    a->text.max = MOST_TEXT;
    if (ev->text_len > 0 && !sd_buf_add(&a->text, ev->text, ev->text_len)) a->lost = true;
    if (!ev->finish) return;
    a->finish = ev->finish;
    a->stats = *ev->stats;
    snprintf(a->error, sizeof a->error, "%s", ev->error ? ev->error : "");
}

void exact_answer_clear(exact_answer *a) {
    a->n = 0;
    sd_buf_clear(&a->text);
    a->finish = SD_FINISH_NONE;
    a->error[0] = 0;
    a->lost = false;
}

void exact_answer_free(exact_answer *a) {
    free(a->token);
    sd_buf_free(&a->text);
    *a = (exact_answer){0};
}

static bool same_token(const sd_token_info *a, const sd_token_info *b, int logprobs) {
    int top = a->n_top < b->n_top ? a->n_top : b->n_top;
    if (a->token != b->token) return false;
    return logprobs < 0 || (memcmp(&a->logprob, &b->logprob, sizeof a->logprob) == 0 &&
                            memcmp(a->top, b->top, (size_t)top * sizeof a->top[0]) == 0);
}

static bool same_text(const exact_answer *a, const exact_answer *b, size_t len) {
    return len == 0 || memcmp(a->text.data, b->text.data, len) == 0;
}

int exact_difference(const exact_answer *want, const exact_answer *got, int logprobs, bool cut) {
    int n = want->n < got->n ? want->n : got->n;
    for (int i = 0; i < n; i++)
        if (!same_token(&want->token[i], &got->token[i], logprobs)) return i;
    if (want->lost || got->lost) return n;
    // What a stop string may still take away is not said yet: a cut answer may hold it back, and at its
    // end it is delivered.
    if (cut) return got->n <= want->n ? -1 : n;
    bool same = want->n == got->n && want->finish == got->finish &&
                strcmp(want->error, got->error) == 0 && want->text.len == got->text.len;
    return same && same_text(want, got, want->text.len) ? -1 : n;
}

void exact_print(const char *who, const sd_tokenizer *t, const exact_answer *a, int at) {
    if (at >= a->n) {
        printf(" %s ended (%s%s%s, %zu bytes of text)", who, sd_finish_name(a->finish),
               a->error[0] ? ": " : "", a->error, a->text.len);
        return;
    }
    size_t len = 0;
    const char *text = t ? sd_tokenizer_bytes(t, a->token[at].token, &len) : "";
    printf(" %s %d \"", who, a->token[at].token);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        printf(c >= ' ' && c < 127 ? "%c" : "\\x%02x", c);
    }
    printf("\" (log probability %.9g)", (double)a->token[at].logprob);
}
