// The corpus index as a drafter: what a tuned model was taught to say after these tokens.
//
// The cursor holds an interval of the index's suffix array. It narrows with each token (a few
// binary searches in the interval, about a microsecond); when a token never followed, the longest
// suffix of the last MAX_MATCH tokens is looked up afresh.
//
// Where completions repeat a piece of their own prompts at the cursor, this request's prompt has the like of it
// behind the same tokens: it is proposed from there on, up to the token at which the completions left off. Then
// proposals go on behind the piece in those completions, the examples, until enough has been said since to look
// that up: what was repeated is this prompt's own and stands in no index. Completions begin by examples too.
//
// A request's own index goes before the engine's.
#include "decode/draft/drafter.h"

#include <string.h>

enum {
    MAX_MATCH = 16,
    EXAMPLES = 8,
    SAID_ENOUGH = 3 // tokens behind a piece that tell where the completion is
};

// Buckets beyond those of the suffix array's.
enum { COPY_BEGINS = 36, COPY_GOES_ON, BEHIND_A_COPY, BEGIN };

typedef struct {
    const sd_corpus *corpus;       // the engine's index; NULL: none
    const sd_tokenizer *tokenizer; // NULL: of a model without one
} shared_state;

// A piece of the prompt that may be repeated.
typedef struct {
    int from; // the next token of it, in the timeline; -1: none
    bool unspaced;
    int32_t behind;            // the token before which it ends; -1: the prompt's end
    int64_t example[EXAMPLES]; // places behind the like pieces in the index
    int n_examples;
} piece;

typedef struct {
    sd_corpus_state at;
    piece copy;                // being repeated
    piece begins;              // that the proposal begins
    int64_t example[EXAMPLES]; // places of the next token in completions that are followed
    int n_examples, said;      // tokens said since they began to be
    bool opening;              // they are followed from their begin
    int end;                   // where the last piece ended in the prompt; 0: there was none
    bool peeked, have;
    sd_proposal proposal;
    int n_tail;
    int32_t tail[2 * MAX_MATCH]; // the last tokens, timeline then drafted
} cursor;

typedef struct {
    sd_drafter base;
    const shared_state *shared;
    const sd_corpus *corpus; // the request's, else the engine's; NULL: no proposals
    const int32_t *text;
    int n, prompt;     // tokens of the timeline, of its prompt
    cursor last, walk; // at the timeline's end; ahead of it
} corpus;

static void look_up(const corpus *c, cursor *u) {
    u->at = sd_corpus_match(c->corpus, u->tail, u->n_tail, MAX_MATCH);
    u->copy.from = -1;
    u->n_examples = 0;
}

// ---- pieces of the prompt

// Where the prompt goes on behind as many of the last `most` of before as it has anywhere: next to the last piece's
// end, else at the last place of all; -1: it has none of them.
static int find_behind(const corpus *c, const int32_t *before, int most, int end) {
    int best = -1, length = 1;
    for (int i = 1; i < c->prompt; i++) {
        if (c->text[i - 1] != before[2]) continue;
        int n = 1;
        while (n < most && n < i && c->text[i - 1 - n] == before[2 - n]) n++;
        const bool is_next = end > 0 && best >= end;
        if (n > length || (n == length && !is_next)) best = i, length = n;
    }
    return best;
}

// The tokens that two copies have ahead of them alike, from the last on.
static int alike(const sd_corpus_copy *a, const sd_corpus_copy *b) {
    int n = 0;
    while (n < 3 && a->before[2 - n] >= 0 && a->before[2 - n] == b->before[2 - n]) n++;
    return n;
}

// The piece that half of the places or more begin to repeat, behind like tokens. Returns their number.
static int find_piece(piece *out, const corpus *c, const cursor *u, const int64_t *place, int n) {
    const sd_corpus_copy *copy[EXAMPLES];
    int most = 0, first = 0;
    for (int i = 0; i < n; i++) copy[i] = sd_corpus_copy_at(c->corpus, place[i]);
    for (int i = 0; i < n; i++) {
        int same = 0;
        for (int j = 0; copy[i] && j < n; j++)
            same +=
                copy[j] && alike(copy[i], copy[j]) > 0 && copy[i]->unspaced == copy[j]->unspaced;
        if (same > most) most = same, first = i;
    }
    if (2 * most < n || most == 0) return 0;
    const sd_corpus_copy *like = copy[first];
    int length = 3;
    *out = (piece){.from = -1, .unspaced = like->unspaced, .behind = like->behind};
    for (int i = 0; i < n; i++) {
        int k = copy[i] ? alike(like, copy[i]) : 0;
        if (k == 0 || copy[i]->unspaced != like->unspaced) continue;
        if (k < length) length = k;
        out->example[out->n_examples++] = (int64_t)copy[i]->at + copy[i]->n;
    }
    out->from = find_behind(c, like->before, length, u->end);
    return out->from >= 0 ? most : 0;
}

static int32_t unspaced(const sd_tokenizer *t, int32_t token) {
    return t ? sd_tokenizer_unspaced(t, token) : -1;
}

static bool piece_ends(const corpus *c, const piece *p) {
    return p->from >= c->prompt || c->text[p->from] == p->behind;
}

// ---- proposals

// Buckets: depth {1, 2, 3-4, 5-8, 9-16, more} x share of the occurrences that agree in sixths.
static int bucket_of(int depth, float share) {
    static const int upto[5] = {1, 2, 4, 8, 16};
    int c = 0, q = (int)(share * 6);
    while (c < 5 && depth > upto[c]) c++;
    return c * 6 + (q > 5 ? 5 : q < 0 ? 0 : q);
}

// The token that most examples have next.
static bool ask_examples(sd_proposal *out, const corpus *c, const cursor *u) {
    int32_t token = -1;
    int most = 0;
    for (int i = 0; i < u->n_examples; i++) {
        int32_t t = sd_corpus_token(c->corpus, u->example[i]);
        int same = 0;
        for (int j = i; j < u->n_examples; j++)
            same += sd_corpus_token(c->corpus, u->example[j]) == t;
        if (same > most) most = same, token = t;
    }
    *out = (sd_proposal){token, u->opening ? BEGIN : BEHIND_A_COPY,
                         (float)most / (float)u->n_examples};
    return token >= 0;
}

static void propose(const corpus *c, cursor *u) {
    int64_t place[EXAMPLES];
    u->peeked = true;
    u->have = false;
    u->begins.from = -1;
    if (u->copy.from >= 0) {
        u->proposal = (sd_proposal){c->text[u->copy.from], COPY_GOES_ON, .9f};
        u->have = true;
        return;
    }
    int n = u->n_examples;
    if (n > 0)
        memcpy(place, u->example, (size_t)n * sizeof *place);
    else
        n = sd_corpus_places(c->corpus, &u->at, place, EXAMPLES);
    int agree = n > 0 ? find_piece(&u->begins, c, u, place, n) : 0;
    if (agree > 0 && !piece_ends(c, &u->begins)) {
        int32_t token = c->text[u->begins.from];
        if (u->begins.unspaced) token = unspaced(c->shared->tokenizer, token);
        u->proposal = (sd_proposal){token, COPY_BEGINS, (float)agree / (float)n};
        u->have = token >= 0;
        if (u->have) return;
    }
    u->begins.from = -1;
    if (u->n_examples > 0) {
        u->have = ask_examples(&u->proposal, c, u);
        return;
    }
    float share = 0;
    int64_t count = 0;
    int32_t token = -1;
    if (u->at.depth > 0) token = sd_corpus_next(c->corpus, &u->at, &share, &count);
    u->have = token >= 0;
    if (u->have) u->proposal = (sd_proposal){token, bucket_of(u->at.depth, share), share};
}

// ---- the cursor

static void remember(cursor *u, int32_t token) {
    if (u->n_tail == 2 * MAX_MATCH) {
        memmove(u->tail, u->tail + MAX_MATCH, MAX_MATCH * sizeof *u->tail);
        u->n_tail = MAX_MATCH;
    }
    u->tail[u->n_tail++] = token;
}

// Over the next token of the piece; behind its last the examples are followed.
static void repeat(const corpus *c, cursor *u) {
    u->copy.from++;
    if (!piece_ends(c, &u->copy)) return;
    u->end = u->copy.from;
    memcpy(u->example, u->copy.example, sizeof u->example);
    u->n_examples = u->copy.n_examples;
    u->said = 0;
    u->opening = false;
    u->copy.from = -1;
}

// Over a token of the examples; those that have another one there, or end, are left.
static void follow(const corpus *c, cursor *u, int32_t token) {
    int n = 0;
    for (int i = 0; i < u->n_examples; i++)
        if (sd_corpus_token(c->corpus, u->example[i]) == token) u->example[n++] = u->example[i] + 1;
    u->n_examples = n;
    u->said++;
    if (n == 0) {
        look_up(c, u);
    } else if (u->said >= SAID_ENOUGH) {
        u->at = sd_corpus_match(c->corpus, u->tail + u->n_tail - u->said, u->said, MAX_MATCH);
        u->n_examples = 0;
    }
}

static void step(const corpus *c, cursor *u, int32_t token) {
    if (!u->peeked) propose(c, u);
    const bool proposed = u->have && token == u->proposal.token;
    u->peeked = false;
    remember(u, token);
    if (proposed && (u->begins.from >= 0 || u->copy.from >= 0)) {
        if (u->begins.from >= 0) u->copy = u->begins;
        u->n_examples = 0;
        repeat(c, u);
    } else if (u->copy.from >= 0) {
        u->end = u->copy.from;
        look_up(c, u);
    } else if (u->n_examples > 0) {
        follow(c, u, token);
    } else {
        if (u->at.depth > 0) u->at = sd_corpus_advance(c->corpus, &u->at, token);
        if (u->at.depth == 0) look_up(c, u);
    }
}

// ---- the drafter

static void corpus_begin(sd_drafter *d, const sd_draft_start *start) {
    corpus *c = (corpus *)d;
    cursor *u = &c->last;
    c->corpus = start->corpus ? start->corpus : c->shared->corpus;
    c->text = start->timeline;
    c->n = c->prompt = start->n;
    *u = (cursor){.copy.from = -1, .begins.from = -1, .opening = true};
    if (c->corpus) {
        u->n_tail = c->n < MAX_MATCH ? c->n : MAX_MATCH;
        memcpy(u->tail, c->text + c->n - u->n_tail, (size_t)u->n_tail * sizeof *u->tail);
        look_up(c, u);
        // A prompt may end within an answer, which is to go on.
        if (u->at.depth < 2) u->n_examples = sd_corpus_begins(c->corpus, u->example, EXAMPLES);
    }
    c->walk = *u;
}

static void corpus_observe(sd_drafter *d, int n) {
    corpus *c = (corpus *)d;
    for (; c->corpus && c->n < n; c->n++) step(c, &c->last, c->text[c->n]);
    c->n = n;
}

static void corpus_rewind(sd_drafter *d) {
    corpus *c = (corpus *)d;
    c->walk = c->last;
}

static bool corpus_peek(sd_drafter *d, sd_proposal *out) {
    corpus *c = (corpus *)d;
    if (!c->corpus) return false;
    if (!c->walk.peeked) propose(c, &c->walk);
    if (c->walk.have) *out = c->walk.proposal;
    return c->walk.have;
}

static void corpus_advance(sd_drafter *d, int32_t token) {
    corpus *c = (corpus *)d;
    if (c->corpus) step(c, &c->walk, token);
}

static float corpus_prior(int bucket) {
    static const float depth[6] = {.35f, .6f, .8f, .9f, .95f, .97f};
    static const float beyond[4] = {.7f, .9f, .8f, .5f};
    if (bucket >= COPY_BEGINS) return beyond[bucket - COPY_BEGINS];
    return depth[bucket / 6 % 6] * ((float)(bucket % 6) + .7f) / 6;
}

static void corpus_close(sd_drafter *d) {
    free(d);
}

static sd_status corpus_share(void **shared, bool *present, const sd_draft_setup *setup,
                              sd_error *err) {
    sd_status st = SD_OK;
    shared_state *s = NULL;
    SD_CHECK(!setup->asked || setup->draft->kind != SD_DRAFT_MODEL, err, SD_EINVAL,
             "%s: is a model and --spec index drafts from a corpus index; give --spec draft or "
             "auto",
             setup->path);
    s = sd_alloc(1, sizeof *s);
    SD_CHECK_ALLOC(s, err);
    *s = (shared_state){setup->draft->corpus, setup->target->tokenizer};
    *shared = s;
    *present = true; // a request may bring an index of its own
out:
    return st;
}

static void corpus_unshare(void *shared) {
    free(shared);
}

static bool corpus_serves(const void *shared, const sd_corpus *own) {
    return ((const shared_state *)shared)->corpus || own;
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
    .unshare = corpus_unshare,
    .serves = corpus_serves,
    .open = corpus_open,
    .close = corpus_close,
    .begin = corpus_begin,
    .observe = corpus_observe,
    .rewind = corpus_rewind,
    .peek = corpus_peek,
    .advance = corpus_advance,
    .prior = corpus_prior};
