// Forced tokens as a drafter: where a request leaves one way to go on, that way is proposed. Such is the end of
// its reasoning once the budget of that is used up, token by token; and what its grammar leaves, as the tokens that
// the tokenizer would write for it.
//
// The cursor is a copy of the request's state, and the tokens that it has passed. A run of the grammar's is asked for
// once; inside it the proposals come from the run.
#include "decode/draft/drafter.h"

#include "base/memory.h"

typedef struct {
    sd_drafter base;
    const sd_grammar_state *state; // the request's, behind its timeline; NULL: no grammar
    sd_grammar_state at;           // the cursor's
    bool lost;                     // the cursor moved over a token that is not allowed
    bool asked, open;
    int n, next; // the run, and the first of it that is not passed
    int32_t run[SD_GRAMMAR_FORCED];
    sd_draft_forced_fn only; // NULL: none
    void *only_ctx;
    int n_ahead;
    int32_t ahead[SD_MAX_DRAFT]; // passed by the cursor
} forced;

static void forced_rewind(sd_drafter *d) {
    forced *f = (forced *)d;
    if (f->state) sd_grammar_copy(&f->at, f->state);
    f->asked = f->lost = false;
    f->n = f->next = f->n_ahead = 0;
}

static void forced_begin(sd_drafter *d, const sd_draft_start *start) {
    forced *f = (forced *)d;
    f->state = start->grammar;
    f->only = start->forced, f->only_ctx = start->forced_ctx;
    forced_rewind(d);
}

static void forced_end(sd_drafter *d) {
    forced *f = (forced *)d;
    f->state = NULL;
    f->only = NULL;
    sd_grammar_end(&f->at);
}

static void forced_observe(sd_drafter *d, int n) {
    (void)d, (void)n; // the state is the request's own
}

// Buckets: 0 inside a run; 1 its last token, which may be the beginning of a longer one.
static bool forced_peek(sd_drafter *d, sd_proposal *out) {
    forced *f = (forced *)d;
    int32_t only = f->only ? f->only(f->only_ctx, f->ahead, f->n_ahead) : -1;
    if (only >= 0) return *out = (sd_proposal){only, 0, 1}, true;
    if (!f->state || f->lost) return false;
    if (!f->asked) {
        f->n = sd_grammar_forced(&f->at, f->run, &f->open);
        f->next = 0;
        f->asked = true;
    }
    if (f->next >= f->n) return false;
    int bucket = f->open && f->next == f->n - 1;
    *out = (sd_proposal){f->run[f->next], bucket, bucket ? .8f : 1};
    return true;
}

static void forced_advance(sd_drafter *d, int32_t token) {
    forced *f = (forced *)d;
    if (f->n_ahead < SD_MAX_DRAFT) f->ahead[f->n_ahead++] = token;
    if (!f->state || f->lost) return;
    bool inside = f->asked && f->next + 1 < f->n && f->run[f->next] == token;
    f->lost = !sd_grammar_accept(&f->at, token);
    f->next++;
    f->asked = inside;
}

static float forced_prior(int bucket) {
    return bucket ? .8f : .99f;
}

static void forced_close(sd_drafter *d) {
    forced_end(d);
    free(d);
}

static sd_status forced_open(sd_drafter **out, void *shared, int ctx, sd_error *err) {
    (void)shared, (void)ctx;
    sd_status st = SD_OK;
    forced *f = sd_alloc(1, sizeof *f);
    SD_CHECK_ALLOC(f, err);
    f->base.kind = &sd_drafter_grammar;
    *out = &f->base;
out:
    return st;
}

const sd_drafter_kind sd_drafter_grammar = {.name = "grammar",
                                            .open = forced_open,
                                            .close = forced_close,
                                            .begin = forced_begin,
                                            .observe = forced_observe,
                                            .end = forced_end,
                                            .rewind = forced_rewind,
                                            .peek = forced_peek,
                                            .advance = forced_advance,
                                            .prior = forced_prior};
