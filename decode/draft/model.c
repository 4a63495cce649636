// A small model that drafts for a large one.
//
// The draft keeps keys and values of its own. What stands in its cache is remembered token by
// token; after a round the cache is trimmed to the longest prefix that equals the timeline. This
// one rule gives all cases: rejected drafts are trimmed, and after full acceptance the draft lacks
// the last tokens and computes them at the start of the next round.
//
// It draws with the noise the target will use at the same position (kernels/sample/sampler.h), so at a
// temperature both choose alike as often as their distributions allow.
#include "base/log.h"
#include "decode/draft/private.h"

#include <math.h>
#include <string.h>

enum { DRAFT_ROWS = 64 }; // rows of one forward pass of the draft

// What the drafters of an engine share.
typedef struct {
    sd_model *model;
    sd_context *cx;
    int V_target;
} draft_model;

typedef struct {
    sd_drafter base;
    draft_model *shared;
    sd_kv *kv;
    int32_t *cached; // [ctx] the tokens whose keys and values stand in kv, `filled` of them
    int filled;
    const int32_t *text;
    int n;
    const sd_sampling *sampling;
    int32_t ahead[SD_MAX_DRAFT + 1]; // drafted tokens the cursor has moved over
    int n_ahead;
    bool have; // proposal is that of the cursor
    bool failed;
    sd_proposal proposal;
} drafter;

static void model_unshare(void *shared) {
    draft_model *m = shared;
    if (!m) return;
    sd_context_close(m->cx);
    sd_model_release(m->model);
    free(m);
}

static sd_status model_share(void **shared, bool *present, const sd_draft_setup *setup,
                             sd_error *err) {
    sd_status st = SD_OK;
    draft_model *m = NULL;
    const sd_model *target = setup->target;
    sd_model *draft = setup->draft->model;
    *present = draft != NULL;
    if (!draft) goto out;
    const char *a = target->tokenizer ? sd_tokenizer_fingerprint(target->tokenizer) : "none";
    const char *b = draft->tokenizer ? sd_tokenizer_fingerprint(draft->tokenizer) : "none";
    SD_CHECK(strcmp(a, b) == 0, err, SD_EINVAL,
             "%s: its tokenizer (%.12s) is not the target's (%.12s); a draft model needs the same "
             "tokenizer",
             draft->path ? draft->path : "draft", b, a);
    m = sd_alloc(1, sizeof *m);
    SD_CHECK_ALLOC(m, err);
    m->model = sd_model_acquire(draft);
    m->V_target = target->hp.V;
    sd_context_options own = *setup->context;
    own.max_rows = DRAFT_ROWS;
    own.max_picked = 1;
    SD_TRY(sd_context_open(&m->cx, draft, setup->pool, &own, err));
    *shared = m, m = NULL;
out:
    model_unshare(m);
    return st;
}

static size_t model_read_bytes(const void *shared) {
    return sd_context_bytes(((const draft_model *)shared)->cx);
}

// The token of position i as the cursor sees it.
static int32_t token_at(const drafter *d, int i) {
    return i < d->n ? d->text[i] : d->ahead[i - d->n];
}

// Computes positions [filled, upto); picked (NULL: not wanted) <- the token after the last.
static bool compute(drafter *d, int upto, sd_picked *picked) {
    const sd_pick pick = {.sampling = d->sampling, .logprob = true};
    sd_row rows[DRAFT_ROWS];
    sd_error err;
    while (d->filled < upto) {
        int n = upto - d->filled < DRAFT_ROWS ? upto - d->filled : DRAFT_ROWS;
        for (int i = 0; i < n; i++) {
            int pos = d->filled + i;
            rows[i] = (sd_row){.token = token_at(d, pos), .pos = pos, .kv = d->kv};
            if (picked && pos == upto - 1) rows[i].pick = &pick;
        }
        if (sd_forward_pick(d->shared->cx, rows, n, NULL, picked, &err) != SD_OK) {
            sd_log(SD_LOG_WARN, "the draft model stopped drafting for a request: %s", err.message);
            d->failed = true;
            return false;
        }
        for (int i = 0; i < n; i++) d->cached[d->filled + i] = rows[i].token;
        d->filled += n;
        d->kv->len = d->filled;
    }
    return true;
}

static void trim(drafter *d) {
    int same = 0;
    int most = d->filled < d->n ? d->filled : d->n;
    // Everything below the last trim is equal already; comparing from the end of what was committed
    // would do, but a few thousand integers cost less than the bookkeeping.
    while (same < most && d->cached[same] == d->text[same]) same++;
    if (same == d->n && same > 0) same--; // the last token's logits are wanted again
    d->filled = d->kv->len = same;
    d->have = false;
}

static void model_rewind(sd_drafter *base) {
    drafter *d = (drafter *)base;
    d->n_ahead = 0;
    trim(d);
}

static void model_begin(sd_drafter *base, const sd_draft_start *start) {
    drafter *d = (drafter *)base;
    d->text = start->timeline;
    d->n = start->n;
    d->sampling = start->sampling;
    d->filled = d->kv->len = 0;
    d->failed = false;
    d->n_ahead = 0;
    d->have = false;
}

static void model_observe(sd_drafter *base, int n) {
    drafter *d = (drafter *)base;
    d->n = n;
    d->n_ahead = 0;
    trim(d);
}

static int model_missing(const sd_drafter *base) {
    const drafter *d = (const drafter *)base;
    int same = d->filled < d->n ? d->filled : d->n;
    return d->failed ? d->n : d->n - same;
}

static bool model_prepare(sd_drafter *base, int rows) {
    drafter *d = (drafter *)base;
    if (d->failed || d->n >= d->kv->ctx) return false;
    int upto = d->filled + rows < d->n - 1 ? d->filled + rows : d->n - 1;
    if (upto > d->filled && !compute(d, upto, NULL)) return false;
    return d->filled >= d->n - 1;
}

const sd_kv *sd_drafter_model_kv(const sd_drafter *base) {
    return ((const drafter *)base)->kv;
}

// Buckets: tenths of the probability the draft gives its own choice.
static bool model_peek(sd_drafter *base, sd_proposal *out) {
    drafter *d = (drafter *)base;
    int end = d->n + d->n_ahead;
    if (d->failed || end > d->kv->ctx || d->n_ahead > SD_MAX_DRAFT) return false;
    if (!d->have) {
        if (d->filled >= end) d->filled = end - 1;
        sd_picked p;
        if (!compute(d, end, &p)) return false;
        if (p.token < 0) {
            sd_log(SD_LOG_WARN, "the draft model stopped drafting for a request: its logits are "
                                "not finite");
            d->failed = true;
            return false;
        }
        float prob = expf(p.logprob);
        int tenth = (int)(prob * 10);
        d->proposal = (sd_proposal){p.token, tenth > 9 ? 9 : tenth < 0 ? 0 : tenth, prob};
        d->have = true;
    }
    if (d->proposal.token >= d->shared->V_target) return false;
    *out = d->proposal;
    return true;
}

static void model_advance(sd_drafter *base, int32_t token) {
    drafter *d = (drafter *)base;
    if (d->n_ahead > SD_MAX_DRAFT) return;
    if (d->n_ahead < SD_MAX_DRAFT + 1) d->ahead[d->n_ahead] = token;
    d->n_ahead++;
    d->have = false;
}

static float model_prior(int bucket) {
    return .3f + .065f * (float)(bucket > 9 ? 9 : bucket);
}

static void model_close(sd_drafter *base) {
    drafter *d = (drafter *)base;
    sd_kv_close(d->kv);
    free(d->cached);
    free(d);
}

static sd_status model_open(sd_drafter **out, void *shared, int ctx, sd_error *err) {
    sd_status st = SD_OK;
    drafter *d = sd_alloc(1, sizeof *d);
    SD_CHECK_ALLOC(d, err);
    d->base.kind = &sd_drafter_model;
    d->shared = shared;
    SD_TRY(sd_kv_open(&d->kv, d->shared->cx, ctx, err));
    d->cached = sd_alloc((size_t)ctx, sizeof *d->cached);
    SD_CHECK_ALLOC(d->cached, err);
    *out = &d->base, d = NULL;
out:
    if (d) model_close(&d->base);
    return st;
}

const sd_drafter_kind sd_drafter_model = {
    .name = "draft",
    .absent = "speculation by a draft model was asked for without a draft model; give one with -d",
    .share = model_share,
    .unshare = model_unshare,
    .read_bytes = model_read_bytes,
    .open = model_open,
    .close = model_close,
    .begin = model_begin,
    .observe = model_observe,
    .missing = model_missing,
    .prepare = model_prepare,
    .rewind = model_rewind,
    .peek = model_peek,
    .advance = model_advance,
    .prior = model_prior};
