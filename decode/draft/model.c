// A small model that drafts for a large one.
//
// One forward of the draft model makes the next proposals of all requests that want one, since it
// reads the weights once, however many rows there are. Rows do not see each other
// (model/infer/forward.h), so a request's proposals are those that it would get alone.
//
// The draft keeps keys and values of its own, in pages of one pool. What stands in a drafter's cache
// is remembered token by token; after a round the cache is trimmed to the longest prefix that equals
// the timeline. This one rule gives all cases: rejected drafts are trimmed, and after full acceptance
// the draft lacks the last tokens, which the next round's first forward computes along. kv->len never
// goes beyond the timeline, so that layers with windows may give pages back.
//
// It draws with the noise the target will use at the same position (kernels/sample/sampler.h), from
// logits that are shaped as the target's will be. So at a temperature both choose alike as often as
// their distributions allow.
#include "base/log.h"
#include "decode/draft/private.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = 64,                              // of one forward pass of the draft
    ALONG = 8,                              // positions that the first forward of a round may lack
    WARNINGS = 16,                          // adapters that were named as no match
    GROWS = ROWS + ALONG + SD_MAX_DRAFT + 2 // positions beyond kv->len that may be written
};

// What the drafters of an engine share.
typedef struct {
    sd_model *model;
    sd_adapter *adapter;
    sd_sha256 aligned; // the target's adapter that the draft's was trained for; zero: not known
    sd_context *cx;
    sd_kv_pool *kv;
    int full_layer; // one without a window, which has a page for each position; -1: none
    int V_target, most_picked;
    uint64_t warned[WARNINGS];
    int n_warned;
    // One forward.
    sd_row row[ROWS];
    sd_pick pick[ROWS];
    sd_picked picked[ROWS];
} draft_model;

typedef struct {
    sd_drafter base;
    draft_model *shared;
    const sd_adapter *adapter; // the request's own, or the shared one; NULL: none
    sd_kv *kv;
    int32_t *cached; // [ctx] the tokens whose keys and values stand in kv, `filled` of them
    int filled;
    const int32_t *text;
    int n;
    const sd_sampling *sampling;
    sd_draft_shaping_fn shape; // NULL: nothing shapes the target's logits
    void *shape_ctx;
    sd_shaping shaping;
    sd_token_seen recent[SD_MAX_DRAFT];
    bool shaped;                     // the pick under way
    int32_t ahead[SD_MAX_DRAFT + 1]; // drafted tokens the cursor has moved over
    int n_ahead;
    bool have; // proposal is that of the cursor
    bool failed;
    sd_proposal proposal;
    // While it is computed.
    int upto;    // positions below it are wanted
    bool wanted; // and the token after the last
} drafter;

static drafter *of(sd_drafter *base) {
    return (drafter *)base;
}

// ---- what the drafters of an engine share

static void model_unshare(void *shared) {
    draft_model *m = shared;
    if (!m) return;
    sd_kv_pool_close(m->kv);
    sd_context_close(m->cx);
    sd_adapter_release(m->adapter);
    sd_model_release(m->model);
    free(m);
}

static sd_context *model_context(void *shared) {
    return ((draft_model *)shared)->cx;
}

static sd_status check_tokenizer(const sd_model *draft, const sd_model *target, sd_error *err) {
    sd_status st = SD_OK;
    const char *a = target->tokenizer ? sd_tokenizer_fingerprint(target->tokenizer) : "none";
    const char *b = draft->tokenizer ? sd_tokenizer_fingerprint(draft->tokenizer) : "none";
    SD_CHECK(strcmp(a, b) == 0, err, SD_EINVAL,
             "%s: its tokenizer (%.12s) is not the target's (%.12s); a draft model needs the same "
             "tokenizer",
             draft->path ? draft->path : "draft", b, a);
out:
    return st;
}

// The pool: for kv_positions in whole timelines, at least one.
static sd_kv_pool_size pool_size(const sd_draft_setup *setup) {
    int64_t sequences = setup->drafters;
    if (setup->kv_positions > 0) {
        int64_t fit = setup->kv_positions / setup->ctx;
        sequences = fit < 1 ? 1 : fit < sequences ? fit : sequences;
    }
    return (sd_kv_pool_size){(int)sequences, setup->ctx, GROWS, 0};
}

static sd_context_options context_options(const sd_draft_setup *setup) {
    sd_context_options own = *setup->context;
    own.max_rows = ROWS;
    own.max_picked = setup->drafters < ROWS ? setup->drafters : ROWS;
    return own;
}

static sd_status open_pool(draft_model *m, const sd_draft_setup *setup, sd_error *err) {
    const sd_kv_pool_size size = pool_size(setup);
    m->full_layer = -1;
    for (int l = 0; l < m->model->hp.L && m->full_layer < 0; l++)
        if (m->model->layer[l].window == 0) m->full_layer = l;
    return sd_kv_pool_open(&m->kv, m->cx, &size, err);
}

static sd_status model_share(void **shared, bool *present, const sd_draft_setup *setup,
                             sd_error *err) {
    sd_status st = SD_OK;
    draft_model *m = NULL;
    sd_model *draft = setup->draft->model;
    *present = draft != NULL;
    if (!draft) goto out;
    SD_TRY(check_tokenizer(draft, setup->target, err));
    m = sd_alloc(1, sizeof *m);
    SD_CHECK_ALLOC(m, err);
    m->model = sd_model_acquire(draft);
    if (setup->draft->adapter) m->adapter = sd_adapter_acquire(setup->draft->adapter);
    m->aligned = setup->draft->aligned;
    m->V_target = setup->target->hp.V;
    const sd_context_options own = context_options(setup);
    m->most_picked = own.max_picked;
    SD_TRY(sd_context_open(&m->cx, draft, setup->pool, &own, err));
    if (m->adapter) SD_TRY(sd_context_take_adapter(m->cx, m->adapter, err));
    SD_TRY(open_pool(m, setup, err));
    *shared = m, m = NULL;
out:
    model_unshare(m);
    return st;
}

static size_t model_read_bytes(const void *shared) {
    return sd_context_bytes(((const draft_model *)shared)->cx);
}

static size_t model_kv_bytes(const void *shared) {
    return sd_kv_pool_bytes(((const draft_model *)shared)->kv);
}

static void model_memory(const void *shared, sd_draft_memory *out) {
    const draft_model *m = shared;
    sd_context_get_memory(m->cx, &out->context);
    sd_kv_pool_get_memory(m->kv, &out->kv);
}

sd_status sd_draft_model_plan(sd_draft_memory *out, sd_kv_plan *kv, const sd_model *draft,
                              const sd_draft_setup *setup, int threads, const int *rank,
                              sd_error *err) {
    sd_status st = SD_OK;
    const sd_context_options own = context_options(setup);
    const sd_kv_pool_size size = pool_size(setup);
    sd_context_plan cx;
    SD_TRY(check_tokenizer(draft, setup->target, err));
    SD_TRY(sd_context_plan_open(&cx, draft, &own, threads, setup->ctx, &rank, rank ? 1 : 0, err));
    SD_TRY(sd_kv_pool_plan(kv, draft, cx.kv_bytes, &size, setup->drafters, false, err));
    *out = (sd_draft_memory){cx.memory, kv->memory};
out:
    return st;
}

// ---- forward passes

// The token of position i as the cursor sees it.
static int32_t token_at(const drafter *d, int i) {
    return i < d->n ? d->text[i] : d->ahead[i - d->n];
}

// Positions of the timeline but its last token never change; that one's logits are wanted again.
static void commit(drafter *d) {
    d->kv->len = d->filled < d->n - 1 ? d->filled : d->n - 1;
}

// As the target's token will be picked. A set of the target's tokens is too short for a larger
// vocabulary.
static sd_pick pick_of(drafter *d) {
    sd_pick p = {.sampling = d->sampling, .logprob = true};
    if (d->shape) p.shaping = d->shape(d->shape_ctx, &d->shaping, d->recent, d->ahead, d->n_ahead);
    d->shaped = p.shaping != NULL;
    if (d->shared->model->hp.V > d->shared->V_target)
        d->shaping.allowed = d->shaping.also_allowed = NULL;
    return p;
}

// The rows of one forward, and how many of them want a token.
typedef struct {
    int rows, picks;
} batch;

static void stop_drafting(drafter *d, const char *why) {
    sd_log(SD_LOG_WARN, "the draft model stopped drafting for a request: %s", why);
    d->failed = true;
}

// Rows of d from position `from` on, as many as fit; < 0: it has no page for them, or a token that
// the draft model does not know (the target's vocabulary may be larger), which ends its drafting.
static int add_rows(draft_model *m, drafter *d, int from, batch *b) {
    int n = d->upto - from < ROWS - b->rows ? d->upto - from : ROWS - b->rows;
    bool ends = from + n == d->upto && d->wanted;
    if (ends && b->picks == m->most_picked) n--; // its token comes with the next forward
    if (n <= 0) return 0;
    if (!sd_kv_reserve(d->kv, from + n)) return -1;
    for (int i = 0; i < n; i++)
        if (token_at(d, from + i) >= m->model->hp.V) {
            stop_drafting(d, "it has a token that is not in the draft model's vocabulary");
            return -1;
        }
    for (int i = 0; i < n; i++) {
        sd_row *r = &m->row[b->rows++];
        *r = (sd_row){
            .token = token_at(d, from + i), .pos = from + i, .kv = d->kv, .adapter = d->adapter};
        if (!d->wanted || from + i < d->upto - 1) continue;
        m->pick[b->picks] = pick_of(d);
        r->pick = &m->pick[b->picks++];
    }
    return n;
}

// Buckets: tenths of the probability the draft gives its own choice.
static void take_pick(drafter *d, const sd_picked *p) {
    if (p->token < 0 && d->shaped) return; // perhaps no token is allowed here
    if (p->token < 0) {
        stop_drafting(d, "its logits are not finite");
        return;
    }
    float prob = expf(p->logprob);
    int tenth = (int)(prob * 10);
    d->proposal = (sd_proposal){p->token, tenth > 9 ? 9 : tenth < 0 ? 0 : tenth, prob};
    d->have = true;
}

// Runs b's rows, which are those of d[first..] in order, and takes note of what they gave.
static void run(draft_model *m, sd_drafter *const *d, int first, const batch *b) {
    sd_error err;
    if (b->rows == 0) return;
    bool ok = sd_forward_pick(m->cx, m->row, b->rows, NULL, m->picked, &err) == SD_OK;
    for (int i = 0, picks = 0, k = first; i < b->rows; i++) {
        const sd_row *r = &m->row[i];
        while (of(d[k])->kv != r->kv) k++;
        drafter *x = of(d[k]);
        if (!ok && !x->failed) stop_drafting(x, err.message);
        if (!ok) continue;
        x->cached[r->pos] = r->token;
        x->filled = r->pos + 1;
        if (r->pick) take_pick(x, &m->picked[picks++]);
        commit(x);
    }
}

// Computes positions [filled, upto) of each, and the proposals of those that want one. Whoever has no
// page left keeps what it has.
static void compute(sd_drafter *const *d, int n) {
    draft_model *m = n > 0 ? of(d[0])->shared : NULL;
    batch b = {0};
    int first = 0;
    for (int k = 0; k < n; k++) {
        drafter *x = of(d[k]);
        for (int from = x->filled; !x->failed && from < x->upto;) {
            int added = add_rows(m, x, from, &b);
            if (added < 0) break;
            from += added;
            if (from == x->upto) break;
            run(m, d, first, &b);
            b = (batch){0}, first = k;
            from = x->filled;
        }
    }
    run(m, d, first, &b);
}

// ---- a drafter

static void trim(drafter *d) {
    int same = d->kv->len; // below it nothing changes
    int most = d->filled < d->n ? d->filled : d->n;
    while (same < most && d->cached[same] == d->text[same]) same++;
    if (same == d->n && same > 0) same--; // the last token's logits are wanted again
    d->filled = same;
    d->have = false;
    commit(d);
}

static void model_rewind(sd_drafter *base) {
    drafter *d = of(base);
    d->n_ahead = 0;
    trim(d);
}

// A draft that was trained for one adapter drafts for others as well, but holds less often.
static void check_pair(draft_model *m, const sd_adapter *target) {
    uint64_t generation = target ? target->generation : 0;
    if (!m->aligned.hex[0] || (target && sd_sha256_equal(&m->aligned, &target->sha256))) return;
    for (int i = 0; i < m->n_warned; i++)
        if (m->warned[i] == generation) return;
    if (m->n_warned == WARNINGS) return;
    m->warned[m->n_warned++] = generation;
    sd_log(
        SD_LOG_WARN,
        "%s: this draft adapter was made for the target adapter %.12s... and drafts for %s%.12s; "
        "answers are the same, fewer drafts will hold",
        m->adapter->path ? m->adapter->path : "the draft adapter", m->aligned.hex,
        target ? "another one, " : "the base", target ? target->sha256.hex : "");
}

static void model_begin(sd_drafter *base, const sd_draft_start *start) {
    drafter *d = of(base);
    d->text = start->timeline;
    d->n = start->n;
    d->sampling = start->sampling;
    d->shape = start->shaping, d->shape_ctx = start->shaping_ctx;
    d->filled = sd_kv_truncate(d->kv, 0);
    d->failed = false;
    d->n_ahead = 0;
    d->have = false;
    d->adapter = start->draft_adapter ? start->draft_adapter : d->shared->adapter;
    if (!start->draft_adapter) check_pair(d->shared, start->adapter);
}

static void model_end(sd_drafter *base) {
    drafter *d = of(base);
    d->filled = sd_kv_truncate(d->kv, 0);
    d->n = d->n_ahead = 0;
    d->have = false;
}

static void model_observe(sd_drafter *base, int n) {
    drafter *d = of(base);
    d->n = n;
    d->n_ahead = 0;
    trim(d);
}

static int lacks(const drafter *d) {
    return d->n - (d->filled < d->n ? d->filled : d->n);
}

static int model_missing(const sd_drafter *base) {
    const drafter *d = (const drafter *)base;
    return d->failed ? d->n : lacks(d);
}

// Whether there are pages for the timeline. A request that could not be read to its end would keep
// pages that others draft with.
static bool has_room(const drafter *d) {
    const draft_model *m = d->shared;
    int pages = sd_kv_pages(d->n + ALONG < d->kv->ctx ? d->n + ALONG : d->kv->ctx);
    return m->full_layer < 0 || d->kv->pages + sd_kv_pool_left(m->kv, m->full_layer) >= pages;
}

static void model_prepare_many(sd_drafter *const *all, bool *ready, int n, int rows) {
    for (int k = 0; k < n; k++) {
        drafter *d = of(all[k]);
        d->upto = d->filled;
        d->wanted = false;
        ready[k] = d->failed || d->n >= d->kv->ctx || !has_room(d) || lacks(d) <= ALONG;
    }
    // The rows go to those that lack the fewest.
    while (rows > 0) {
        int next = -1;
        for (int k = 0; k < n; k++)
            if (!ready[k] && (next < 0 || lacks(of(all[k])) < lacks(of(all[next])))) next = k;
        if (next < 0) break;
        drafter *d = of(all[next]);
        ready[next] = true;
        d->upto = d->filled + rows < d->n - 1 ? d->filled + rows : d->n - 1;
        rows -= d->upto - d->filled;
    }
    compute(all, n);
    for (int k = 0; k < n; k++) {
        const drafter *d = of(all[k]);
        ready[k] = !d->failed && d->n < d->kv->ctx && has_room(d) && lacks(d) <= ALONG;
    }
}

static bool model_prepare(sd_drafter *d, int rows) {
    bool ready;
    model_prepare_many(&d, &ready, 1, rows);
    return ready;
}

const sd_kv *sd_drafter_model_kv(const sd_drafter *base) {
    return ((const drafter *)base)->kv;
}

static void model_peek_many(sd_drafter *const *all, sd_proposal *out, bool *made, int n) {
    for (int k = 0; k < n; k++) {
        drafter *d = of(all[k]);
        int end = d->n + d->n_ahead;
        d->upto = d->filled;
        d->wanted = false;
        if (d->have || d->failed || end < 1 || end > d->kv->ctx || d->n_ahead > SD_MAX_DRAFT)
            continue;
        if (d->filled >= end) d->filled = end - 1;
        d->upto = end;
        d->wanted = true;
    }
    compute(all, n);
    for (int k = 0; k < n; k++) {
        const drafter *d = of(all[k]);
        made[k] = d->have && !d->failed && d->proposal.token < d->shared->V_target;
        if (made[k]) out[k] = d->proposal;
    }
}

static bool model_peek(sd_drafter *d, sd_proposal *out) {
    bool made;
    model_peek_many(&d, out, &made, 1);
    return made;
}

static void model_advance(sd_drafter *base, int32_t token) {
    drafter *d = of(base);
    if (d->n_ahead > SD_MAX_DRAFT) return;
    d->ahead[d->n_ahead++] = token;
    d->have = false;
}

static float model_prior(int bucket) {
    return .3f + .065f * (float)(bucket > 9 ? 9 : bucket);
}

static void model_close(sd_drafter *base) {
    drafter *d = of(base);
    sd_kv_close(d->kv);
    free(d->cached);
    free(d);
}

static size_t model_bytes(int ctx) {
    return sizeof(drafter) + (size_t)ctx * sizeof(int32_t);
}

static sd_status model_open(sd_drafter **out, void *shared, int ctx, sd_error *err) {
    sd_status st = SD_OK;
    drafter *d = sd_alloc(1, sizeof *d);
    SD_CHECK_ALLOC(d, err);
    d->base.kind = &sd_drafter_model;
    d->shared = shared;
    SD_TRY(sd_kv_open_in(&d->kv, d->shared->kv, ctx, err));
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
    .kv_bytes = model_kv_bytes,
    .context = model_context,
    .memory = model_memory,
    .bytes = model_bytes,
    .open = model_open,
    .close = model_close,
    .begin = model_begin,
    .end = model_end,
    .observe = model_observe,
    .missing = model_missing,
    .prepare = model_prepare,
    .rewind = model_rewind,
    .peek = model_peek,
    .advance = model_advance,
    .prior = model_prior,
    .prepare_many = model_prepare_many,
    .peek_many = model_peek_many};
