// The corpus index as a drafter: what a tuned model was taught to say after these tokens.
//
// The cursor holds an interval of the index's suffix array. It narrows with each token (a few
// binary searches in the interval, about a microsecond); when a token never followed, the longest
// suffix of the last MAX_MATCH tokens is looked up afresh.
//
// A request's own index goes before the engine's.
#include "decode/draft/drafter.h"

#include <string.h>

enum { MAX_MATCH = 16 };

typedef struct {
    sd_drafter base;
    const sd_corpus *shared; // the engine's index, for requests without one of their own
    const sd_corpus *corpus; // the request's; NULL: no proposals
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
    c->corpus = start->corpus ? start->corpus : c->shared;
    c->text = start->timeline;
    c->n = start->n;
    corpus_rewind(d);
}

static void corpus_observe(sd_drafter *d, int n) {
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

static sd_status corpus_share(void **shared, bool *present, const sd_draft_setup *setup,
                              sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(!setup->asked || setup->draft->kind != SD_DRAFT_MODEL, err, SD_EINVAL,
             "%s: is a model and --spec index drafts from a corpus index; give --spec draft or "
             "auto",
             setup->path);
    *shared = setup->draft->corpus;
    *present = true; // a request may bring an index of its own
out:
    return st;
}

static bool corpus_serves(const void *shared, const sd_corpus *own) {
    return shared || own;
}

static sd_status corpus_open(sd_drafter **out, void *shared, int ctx, sd_error *err) {
    (void)ctx;
    sd_status st = SD_OK;
    corpus *c = sd_alloc(1, sizeof *c);
    SD_CHECK_ALLOC(c, err);
    c->base.kind = &sd_drafter_corpus;
    c->shared = shared;
    *out = &c->base;
out:
    return st;
}

const sd_drafter_kind sd_drafter_corpus = {
    .name = "index",
    .absent = "speculation by a corpus index was asked for without an index; give one with -d or "
              "use an adapter's run folder",
    .share = corpus_share,
    .serves = corpus_serves,
    .open = corpus_open,
    .close = corpus_close,
    .begin = corpus_begin,
    .observe = corpus_observe,
    .rewind = corpus_rewind,
    .peek = corpus_peek,
    .advance = corpus_advance,
    .prior = corpus_prior};
