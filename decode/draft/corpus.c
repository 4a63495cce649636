// The corpus index as a drafter: what a tuned model was taught to say after these tokens.
//
// The cursor holds an interval of the index's suffix array. It narrows with each token (a few
// binary searches in the interval, about a microsecond); when a token never followed, the longest
// suffix of the last MAX_MATCH tokens is looked up afresh.
#include "decode/draft/drafter.h"

#include <string.h>

enum { MAX_MATCH = 16 };

typedef struct {
    sd_drafter base;
    const sd_corpus *corpus;
    const int32_t *text;
    int n;
    sd_corpus_state at;
    bool peeked;
    bool have;
    sd_proposal proposal;
    int n_tail;
    int32_t tail[2 * MAX_MATCH]; // the last tokens, timeline then drafted
} corpus;

static void match(corpus *c) {
    c->at = sd_corpus_match(c->corpus, c->tail, c->n_tail, MAX_MATCH);
    c->peeked = false;
}

static void corpus_rewind(sd_drafter *d) {
    corpus *c = (corpus *)d;
    c->n_tail = c->n < MAX_MATCH ? c->n : MAX_MATCH;
    memcpy(c->tail, c->text + c->n - c->n_tail, (size_t)c->n_tail * sizeof *c->tail);
    if (c->corpus) match(c);
}

static void corpus_begin(sd_drafter *d, const sd_draft_start *start) {
    corpus *c = (corpus *)d;
    c->text = start->timeline;
    c->n = start->n;
    corpus_rewind(d);
}

static void corpus_move(sd_drafter *d, int n) {
    ((corpus *)d)->n = n;
}

// Buckets: depth {1, 2, 3-4, 5-8, 9-16, more} x share of the occurrences that agree in sixths.
static int bucket_of(int depth, float share) {
    static const int upto[5] = {1, 2, 4, 8, 16};
    int c = 0, q = (int)(share * 6);
    while (c < 5 && depth > upto[c]) c++;
    return c * 6 + (q > 5 ? 5 : q < 0 ? 0 : q);
}

static bool corpus_peek(sd_drafter *d, sd_proposal *out) {
    corpus *c = (corpus *)d;
    if (!c->corpus) return false;
    if (!c->peeked) {
        float share = 0;
        int64_t count = 0;
        int32_t token = -1;
        if (c->at.depth > 0) token = sd_corpus_next(c->corpus, &c->at, &share, &count);
        c->have = token >= 0;
        if (c->have) c->proposal = (sd_proposal){token, bucket_of(c->at.depth, share), share};
        c->peeked = true;
    }
    if (c->have) *out = c->proposal;
    return c->have;
}

static void corpus_advance(sd_drafter *d, int32_t token) {
    corpus *c = (corpus *)d;
    if (!c->corpus) return;
    if (c->n_tail == 2 * MAX_MATCH) {
        memmove(c->tail, c->tail + MAX_MATCH, MAX_MATCH * sizeof *c->tail);
        c->n_tail = MAX_MATCH;
    }
    c->tail[c->n_tail++] = token;
    c->peeked = false;
    if (c->at.depth > 0) c->at = sd_corpus_advance(c->corpus, &c->at, token);
    if (c->at.depth == 0) match(c);
}

static float corpus_prior(int bucket) {
    static const float depth[6] = {.35f, .6f, .8f, .9f, .95f, .97f};
    return depth[bucket / 6 % 6] * ((float)(bucket % 6) + .7f) / 6;
}

static void corpus_close(sd_drafter *d) {
    free(d);
}

static const sd_drafter_ops corpus_ops = {SD_SOURCE_CORPUS, corpus_begin,  corpus_move,
                                          corpus_move,      corpus_rewind, corpus_peek,
                                          corpus_advance,   corpus_prior,  corpus_close};

sd_status sd_drafter_corpus_open(sd_drafter **out, sd_error *err) {
    sd_status st = SD_OK;
    corpus *c = sd_alloc(1, sizeof *c);
    SD_CHECK_ALLOC(c, err);
    c->base.ops = &corpus_ops;
    *out = &c->base;
out:
    return st;
}

void sd_drafter_corpus_set(sd_drafter *d, const sd_corpus *index) {
    ((corpus *)d)->corpus = index;
}
