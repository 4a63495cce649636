// A small model that drafts for a large one.
//
// The draft keeps keys and values of its own. What stands in its cache is remembered token by
// token; after a round the cache is trimmed to the longest prefix that equals the timeline. This
// one rule gives all cases: rejected drafts are trimmed, and after full acceptance the draft lacks
// the last tokens and computes them at the start of the next round.
//
// It draws with the noise the target will use at the same position (decode/sample/sampler.h), so at a
// temperature both choose alike as often as their distributions allow.
#include "base/log.h"
#include "decode/draft/drafter.h"

#include <math.h>
#include <string.h>

enum { DRAFT_ROWS = 64 }; // rows of one forward pass of the draft

struct sd_draft_model {
    sd_model *model;
    sd_context *cx;
    sd_sampler *sampler;
    float *logits; // [V]
    int V, V_target;
};

typedef struct {
    sd_drafter base;
    sd_draft_model *shared;
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

sd_status sd_draft_model_open(sd_draft_model **out, sd_model *draft, const sd_model *target,
                              sd_pool *pool, const sd_context_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_draft_model *m = NULL;
    const char *a = target->tokenizer ? sd_tokenizer_fingerprint(target->tokenizer) : "none";
    const char *b = draft->tokenizer ? sd_tokenizer_fingerprint(draft->tokenizer) : "none";
    SD_CHECK(strcmp(a, b) == 0, err, SD_EINVAL,
             "%s: its tokenizer (%.12s) is not the target's (%.12s); a draft model needs the same "
             "tokenizer",
             draft->path ? draft->path : "draft", b, a);
    m = sd_alloc(1, sizeof *m);
    SD_CHECK_ALLOC(m, err);
    m->model = sd_model_acquire(draft);
    m->V = draft->hp.V;
    m->V_target = target->hp.V;
    sd_context_options own = *o;
    own.max_rows = DRAFT_ROWS;
    SD_TRY(sd_context_open(&m->cx, draft, pool, &own, err));
    m->logits = sd_alloc((size_t)m->V, sizeof *m->logits);
    m->sampler = sd_sampler_open(m->V);
    SD_CHECK_ALLOC(m->logits && m->sampler, err);
    *out = m, m = NULL;
out:
    sd_draft_model_close(m);
    return st;
}

void sd_draft_model_close(sd_draft_model *m) {
    if (!m) return;
    sd_context_close(m->cx);
    sd_model_release(m->model);
    sd_sampler_close(m->sampler);
    free(m->logits);
    free(m);
}

size_t sd_draft_model_bytes(const sd_draft_model *m) {
    return sd_context_bytes(m->cx);
}

// The token of position i as the cursor sees it.
static int32_t token_at(const drafter *d, int i) {
    return i < d->n ? d->text[i] : d->ahead[i - d->n];
}

// Computes positions [filled, upto); the logits of the last when it is wanted.
static bool compute(drafter *d, int upto, bool want_last) {
    sd_row rows[DRAFT_ROWS];
    sd_error err;
    while (d->filled < upto) {
        int n = upto - d->filled < DRAFT_ROWS ? upto - d->filled : DRAFT_ROWS;
        for (int i = 0; i < n; i++) {
            int pos = d->filled + i;
            rows[i] = (sd_row){.token = token_at(d, pos), .pos = pos, .kv = d->kv};
            rows[i].want_logits = want_last && pos == upto - 1;
        }
        bool last = d->filled + n == upto;
        float *logits = want_last && last ? d->shared->logits : NULL;
        if (sd_forward(d->shared->cx, rows, n, logits, &err) != SD_OK) {
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

static void model_move(sd_drafter *base, int n) {
    drafter *d = (drafter *)base;
    d->n = n;
    d->n_ahead = 0;
    trim(d);
}

int sd_drafter_model_missing(const sd_drafter *base) {
    const drafter *d = (const drafter *)base;
    int same = d->filled < d->n ? d->filled : d->n;
    return d->failed ? d->n : d->n - same;
}

bool sd_drafter_model_prepare(sd_drafter *base, int rows) {
    drafter *d = (drafter *)base;
    if (d->failed || d->n >= d->kv->ctx) return false;
    int upto = d->filled + rows < d->n - 1 ? d->filled + rows : d->n - 1;
    if (upto > d->filled && !compute(d, upto, false)) return false;
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
        if (!compute(d, end, true)) return false;
        const float *logits = d->shared->logits;
        int32_t token = sd_sample(d->shared->sampler, logits, NULL, d->sampling, end);
        if (token < 0) {
            sd_log(SD_LOG_WARN, "the draft model stopped drafting for a request: its logits are "
                                "not finite");
            d->failed = true;
            return false;
        }
        float p = expf(sd_logprob(logits, d->shared->V, token));
        int tenth = (int)(p * 10);
        d->proposal = (sd_proposal){token, tenth > 9 ? 9 : tenth < 0 ? 0 : tenth, p};
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

static const sd_drafter_ops model_ops = {SD_SOURCE_MODEL, model_begin,  model_move,
                                         model_move,      model_rewind, model_peek,
                                         model_advance,   model_prior,  model_close};

sd_status sd_drafter_model_open(sd_drafter **out, sd_draft_model *m, int ctx, sd_error *err) {
    sd_status st = SD_OK;
    drafter *d = sd_alloc(1, sizeof *d);
    SD_CHECK_ALLOC(d, err);
    d->base.ops = &model_ops;
    d->shared = m;
    SD_TRY(sd_kv_open(&d->kv, m->cx, ctx, err));
    d->cached = sd_alloc((size_t)ctx, sizeof *d->cached);
    SD_CHECK_ALLOC(d->cached, err);
    *out = &d->base, d = NULL;
out:
    if (d) model_close(&d->base);
    return st;
}
