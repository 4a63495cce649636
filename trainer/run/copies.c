// Prompt positions are chained by their token, and once more by the token that it is without the space that
// begins it: `: lib` in a prompt and `"lib` in an answer are different tokens of the same word.
#include "trainer/run/copies.h"

#include "base/memory.h"

enum { LEAST = 2, CHAINS = 1 << 12 };

typedef struct {
    const int32_t *prompt;
    int n;
    int32_t head[2][CHAINS]; // the last position + 1 of a token; 0: none
    int32_t *next[2];        // [n] the one before it, likewise
} chains;

static int32_t chained(const sd_tokenizer *t, int32_t token, int unspaced) {
    if (!unspaced) return token;
    return t ? sd_tokenizer_unspaced(t, token) : -1;
}

static sd_status make_chains(chains *c, const sd_tokenizer *t, sd_error *err) {
    sd_status st = SD_OK;
    for (int u = 0; u < 2; u++) {
        c->next[u] = sd_alloc((size_t)c->n, sizeof(int32_t));
        SD_CHECK_ALLOC(c->next[u], err);
        for (int j = 0; j < c->n; j++) {
            int32_t token = chained(t, c->prompt[j], u);
            if (token < 0) continue;
            int32_t *head = &c->head[u][token % CHAINS];
            c->next[u][j] = *head;
            *head = j + 1;
        }
    }
out:
    return st;
}

// Tokens that prompt, from j on, and completion have in common behind their first, which are alike.
static int run_length(const chains *c, int j, const int32_t *completion, int n) {
    int k = 1;
    while (k < n && j + k < c->n && c->prompt[j + k] == completion[k]) k++;
    return k;
}

// The longest piece that completion begins with; of equal ones that next behind `end`, where the last copy
// ended, else the last in the prompt. Returns its tokens.
static int longest(int *from, int *unspaced, const chains *c, const sd_tokenizer *t,
                   const int32_t *completion, int n, int end) {
    int best = 0;
    for (int u = 0; u < 2; u++)
        for (int32_t j = c->head[u][completion[0] % CHAINS] - 1; j >= 0; j = c->next[u][j] - 1) {
            if (chained(t, c->prompt[j], u) != completion[0]) continue;
            int k = run_length(c, j, completion, n);
            bool nearer = j >= end && (*from < end || j < *from);
            if (k > best || (k == best && nearer)) best = k, *from = j, *unspaced = u;
        }
    return best;
}

static sd_status add(sd_corpus_copies *out, sd_corpus_copy copy, sd_error *err) {
    sd_status st = SD_OK;
    if (out->n == out->cap) {
        int64_t cap = out->cap ? 2 * out->cap : 256;
        sd_corpus_copy *more = realloc(out->copy, (size_t)cap * sizeof *more);
        SD_CHECK_ALLOC(more, err);
        out->copy = more;
        out->cap = cap;
    }
    out->copy[out->n++] = copy;
out:
    return st;
}

sd_status sd_corpus_find_copies(sd_corpus_copies *out, const sd_tokenizer *t, const int32_t *prompt,
                                int n_prompt, const int32_t *completion, int n, int64_t at,
                                sd_error *err) {
    sd_status st = SD_OK;
    chains *c = sd_alloc(1, sizeof *c);
    SD_CHECK_ALLOC(c, err);
    c->prompt = prompt;
    c->n = n_prompt;
    SD_TRY(make_chains(c, t, err));
    for (int i = 0, end = 0; i < n;) {
        int j = -1, unspaced = 0, k = longest(&j, &unspaced, c, t, completion + i, n - i, end);
        if (k < LEAST) {
            i++;
            continue;
        }
        sd_corpus_copy copy = {.at = (int32_t)(at + i), .n = k, .unspaced = unspaced};
        for (int b = 0; b < 3; b++) copy.before[b] = j - 3 + b >= 0 ? prompt[j - 3 + b] : -1;
        end = j + k;
        copy.behind = end < n_prompt ? prompt[end] : -1;
        SD_TRY(add(out, copy, err));
        i += k;
    }
out:
    if (c) free(c->next[0]), free(c->next[1]);
    free(c);
    return st;
}
