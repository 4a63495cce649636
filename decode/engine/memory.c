// What an engine takes, by part: the same sums before it is opened, where parts that grow are counted at
// their most, and while it runs, where they are what they have become.
#include "base/memory.h"
#include "decode/engine/private.h"

// Rows of a step and the logits that leave the context.
static size_t step_bytes(const sd_engine *e) {
    return (size_t)e->max_picked *
               ((size_t)e->model->hp.V * sizeof *e->logits + sizeof *e->picked) +
           (e->model->output.pooling == SD_POOL_NONE
                ? 0
                : (size_t)e->max_rows * (size_t)e->model->hp.C * sizeof *e->hidden) +
           (size_t)e->max_rows * sizeof *e->rows +
           (size_t)e->n_slots * (2 * sizeof *e->readers + sizeof *e->planned) +
           ((size_t)e->n_slots + 2) * sizeof *e->positions;
}

// A slot without its drafters.
static size_t slot_bytes(const sd_engine *e) {
    return sizeof(sd_slot) + (size_t)e->ctx * (sizeof(int32_t) + sizeof(sd_token_seen)) +
           (size_t)e->model->hp.V * sizeof(int32_t);
}

static size_t drafter_bytes(const sd_engine *e, const sd_drafter_kind *kind) {
    return kind->bytes ? kind->bytes(e->ctx) : 0;
}

static void add_context(sd_engine_memory *out, const sd_context_memory *c) {
    out->weights = c->weights;
    out->steps += c->steps;
    out->adapters = c->adapters;
    out->splits += c->splits;
}

static void add_draft(sd_engine_memory *out, const sd_draft_memory *d) {
    out->draft_weights += d->context.weights;
    out->draft_steps += d->context.steps + d->context.adapters; // which it takes at once
    out->splits += d->context.splits;
    out->draft_kv += d->kv.pages + d->kv.prefix;
    out->kv_tables += d->kv.tables;
}

static void add_kv(sd_engine_memory *out, const sd_kv_memory_sizes *kv) {
    out->kv_pages = kv->pages;
    out->kv_tables += kv->tables;
    out->prefix_tree = kv->prefix;
}

void sd_engine_get_memory(const sd_engine *e, sd_engine_memory *out) {
    sd_context_memory context;
    sd_kv_memory_sizes kv;
    sd_draft_memory draft;
    size_t each = slot_bytes(e);
    *out = (sd_engine_memory){.steps = step_bytes(e)};
    sd_context_get_memory(e->cx, &context);
    add_context(out, &context);
    sd_kv_pool_get_memory(e->kv, &kv);
    add_kv(out, &kv);
    for (int i = 0; i < e->n_drafters; i++) {
        const sd_drafter_kind *kind = e->drafter[i].kind;
        each += drafter_bytes(e, kind);
        if (!kind->memory) continue;
        kind->memory(e->drafter[i].shared, &draft);
        add_draft(out, &draft);
    }
    if (e->draft.corpus) out->draft_index = sd_corpus_bytes(e->draft.corpus);
    out->slots = (size_t)e->n_slots * each;
    for (int i = 0; i < e->n_slots; i++)
        if (e->slot[i].constraint) out->masks += sd_constraint_bytes(e->model->hp.V);
}

// As sd_engine_request_copy, sd_shape_open and sd_reasoning_open take them.
size_t sd_engine_request_bytes(const sd_model *m, int n_prompt, int n_stop_token, int n_forced) {
    const size_t words = ((size_t)m->hp.V + 31) / 32, bad = 2 * SD_MAX_BAD_WORDS,
                 ends = (size_t)n_stop_token + SD_MAX_REQUEST_ENDS + (size_t)m->n_end_tokens,
                 lists = bad + ends + bad * (SD_MAX_BAD_WORD_TOKENS + 1) + 1 +
                         (SD_MAX_DRAFT + 1) * (bad + ends);
    return sizeof(sd_engine_request) + SD_MAX_STOPS * (SD_MAX_STOP_BYTES + 1) +
           ((size_t)n_prompt + (size_t)n_stop_token) * sizeof(int32_t) + sizeof(sd_shape) +
           lists * sizeof(int32_t) + SD_MAX_BIAS * sizeof(sd_token_bias) + sizeof(sd_reasoning) +
           ((size_t)n_forced + 1) * words * sizeof(uint32_t);
}

static sd_status plan_draft(sd_engine_memory_plan *out, const sd_engine *e,
                            const sd_engine_load *load, sd_error *err) {
    sd_status st = SD_OK;
    const sd_context_options context = {
        .isa = e->o.isa, .backend = e->o.backend, .device = e->o.device};
    const sd_draft_setup setup = sd_drafters_setup(e, &context);
    sd_draft_memory draft;
    SD_TRY(sd_draft_model_plan(&draft, &out->draft_kv, load->draft, &setup, out->threads,
                               load->draft_rank, err));
    add_draft(&out->memory, &draft);
out:
    return st;
}

sd_status sd_engine_plan_memory(sd_engine_memory_plan *out, sd_model *m, const sd_engine_options *o,
                                const sd_engine_load *load, sd_error *err) {
    sd_status st = SD_OK;
    sd_context_plan cx;
    size_t each;
    *out = (sd_engine_memory_plan){0};
    sd_engine *e = sd_alloc(1, sizeof *e); // its sizes alone
    SD_CHECK_ALLOC(e, err);
    e->model = m;
    SD_TRY(sd_engine_configure(e, o, m, err));
    out->ctx = e->ctx, out->slots = e->o.slots, out->reserve = e->o.reserve,
    out->queue = e->o.queue;
    out->threads = sd_pool_count(e->o.threads);
    const sd_context_options options = {.max_rows = e->max_rows,
                                        .compute = e->o.compute,
                                        .kv = e->o.kv,
                                        .isa = e->o.isa,
                                        .backend = e->o.backend,
                                        .device = e->o.device,
                                        .max_picked = e->max_picked};
    const sd_kv_pool_size size = sd_engine_pool_size(e);
    SD_TRY(sd_context_plan_open(&cx, m, &options, out->threads, e->ctx, load->rank,
                                load->n_adapters, err));
    SD_TRY(
        sd_kv_pool_plan(&out->kv, m, cx.kv_bytes, &size, e->n_slots, !e->o.no_prefix_cache, err));
    out->kv_type = cx.kv;
    out->memory.steps = step_bytes(e);
    out->memory.draft_index = load->draft_index;
    add_context(&out->memory, &cx.memory);
    add_kv(&out->memory, &out->kv.memory);
    if (load->draft) SD_TRY(plan_draft(out, e, load, err));
    each = slot_bytes(e);
    for (int i = 0; sd_drafters_listed(e)[i]; i++) {
        const sd_drafter_kind *kind = sd_drafters_listed(e)[i];
        if (!kind->memory || load->draft) each += drafter_bytes(e, kind);
    }
    out->memory.slots = (size_t)e->n_slots * each;
    out->memory.masks = (size_t)e->n_slots * sd_constraint_bytes(m->hp.V);
out:
    free(e);
    return st;
}
