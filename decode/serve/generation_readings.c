// Prompts that are read by a model that says nothing: a request of many of them runs as requests of the
// engine, one for each.
//
// Typed questions about one text share its tokens. The first of them runs alone, so that the text is
// computed once; all others then find it in the prefix cache, and bring a few rows each. They are
// submitted as others end, never more than keep all slots at work: the queue is not filled by one client's
// request, and its share of slots and rows is the one of any client.
#include "decode/serve/generation_private.h"

#include <string.h>

enum { AHEAD = 2 }; // readings for each slot that run or wait

static int per_round(const sd_generation *g) {
    return g->request.decide->n_nodes;
}

int sd_generation_count_readings(const sd_generation *g) {
    return per_round(g) * g->request.decide->permute;
}

size_t sd_generation_readings_bytes(const sd_generation *g) {
    enum { STRING = 8 }; // bytes of a kept string for each byte of its text
    const sd_decide *d = g->request.decide;
    const size_t n = (size_t)sd_generation_count_readings(g);
    size_t bytes = d->bytes * STRING + n * sizeof(sd_choice);
    for (int i = 0; i < g->request.n_prompts; i++)
        bytes += (size_t)g->prompt[i].n * sizeof(int32_t);
    for (int i = 0; i < d->n; i++)
        bytes += sizeof d->question[i] +
                 (size_t)d->question[i].n_labels * (sizeof(sd_decide_label) + sizeof(double));
    for (int i = 0; i < d->n_nodes; i++)
        bytes += sizeof d->node[i] + (size_t)d->node[i].n_tokens *
                                         (sizeof(int32_t) + (size_t)d->permute * sizeof(float));
    return bytes;
}

// ---- what is read

// The tokens that end an answer of the model that is meant.
static int find_ends(const sd_generation *g, int32_t out[SD_DECIDE_MAX_ENDS]) {
    const sd_model *m = g->server->local->model;
    const sd_models_row *row = sd_server_row(g->server, g->target);
    int n = 0;
    _Static_assert((int)SD_MAX_END_TOKENS < (int)SD_DECIDE_MAX_ENDS, "and the template's");
    for (int i = 0; i < m->n_end_tokens; i++) out[n++] = m->end_token[i];
    if (row->adapter && row->end_token >= 0 && !sd_model_is_end(m, row->end_token))
        out[n++] = row->end_token;
    return n;
}

int sd_generation_plan_readings(sd_generation *g, sd_api_error *e) {
    int32_t ends[SD_DECIDE_MAX_ENDS];
    sd_decide *d = g->request.decide;
    const int ctx = sd_server_stats(g->server).ctx;
    int64_t behind = 0;
    int longest = 0;
    if (sd_decide_plan(d, g->server->local->model->tokenizer, ends, find_ends(g, ends), e))
        return e->status;
    for (int i = 0; i < d->n_nodes; i++) {
        const int n = d->question[d->node[i].question].begin_id.n + d->node[i].n_path;
        behind += n;
        if (n > longest) longest = n;
    }
    for (int i = 0; i < d->permute; i++)
        if (g->prompt[i].n + longest >= ctx)
            return sd_api_fail(
                e, 400, g->dialect->prompt_field,
                "%s has with its questions %d tokens, a question adds up to %d and the "
                "context holds %d; shorten it or start the server with a larger --ctx",
                g->dialect->prompt_field, g->prompt[i].n, longest, ctx);
    g->prompt_tokens += (int)(behind * d->permute);
    return 0;
}

static bool add_prompt(sd_ids *out, const sd_generation *g, int i) {
    const sd_decide *d = g->request.decide;
    const sd_decide_node *node = &d->node[i % per_round(g)];
    const sd_ids *text = &g->prompt[i / per_round(g)],
                 *begin = &d->question[node->question].begin_id;
    return sd_ids_add(out, text->id, text->n) && sd_ids_add(out, begin->id, begin->n) &&
           sd_ids_add(out, node->path, node->n_path);
}

// ---- when

// Whether the next one may begin: a round's first runs alone.
static bool may_begin(const sd_generation *g) {
    const int i = g->n_begun, first = i % per_round(g);
    if (i == g->n_choices || g->failed) return false;
    if (first == 0) return g->open == 0;
    return g->choices[i - first].ended && g->open < AHEAD * sd_server_stats(g->server).slots;
}

int sd_generation_begin_readings(sd_generation *g, sd_api_error *e) {
    const sd_decide *d = g->request.decide;
    while (may_begin(g)) {
        const sd_decide_node *node = &d->node[g->n_begun % per_round(g)];
        const sd_request_reading reading = {SD_READ_TOKENS, node->token, node->n_tokens};
        sd_ids prompt = {0};
        if (!add_prompt(&prompt, g, g->n_begun)) {
            sd_ids_free(&prompt);
            return sd_api_fail(e, 500, NULL, "out of memory");
        }
        int status = sd_generation_submit_reading(g, &g->choices[g->n_begun], &prompt, &reading, e);
        sd_ids_free(&prompt);
        if (status == 429 && g->open > 0) break; // it waits for its own
        if (status == 429) sd_metrics_reject(&g->server->metrics, g->key, SD_REJECT_QUEUE_FULL);
        if (status) return status;
        g->n_begun++;
    }
    *e = (sd_api_error){0};
    if (g->n_begun == g->n_choices) sd_generation_drop_prompt(g);
    return 0;
}

void sd_generation_go_on(sd_generation *g) {
    sd_api_error e;
    if (!g->conn || g->failed || !sd_generation_begin_readings(g, &e)) return;
    g->failed = true;
    g->error = e;
    sd_generation_cancel(g);
}

// ---- what came of it

static const float *values_of(const void *ctx, int i) {
    const sd_generation *g = ctx;
    return (const void *)g->choices[i].kept.data;
}

sd_readings sd_generation_take_readings(sd_generation *g) {
    sd_decide *d = g->request.decide;
    const sd_defaults *own = &sd_server_row(g->server, g->model)->defaults;
    double temperature[SD_DECIDE_KINDS];
    _Static_assert((int)SD_DECIDE_KINDS == (int)SD_DECISION_KINDS, "the same kinds");
    for (int i = 0; i < SD_DECIDE_KINDS; i++)
        temperature[i] = own->decision_temperature[i] > 0 ? own->decision_temperature[i] : 1;
    if (g->whole.choice == 0) sd_decide_answer(d, temperature, values_of, g);
    return (sd_readings){.decide = d};
}

// What the others of a round find, its first has computed or found.
int sd_generation_cached_readings(const sd_generation *g) {
    int n = 0;
    for (int i = 0; i < g->n_choices; i += per_round(g)) n += g->choices[i].cached;
    return n;
}
