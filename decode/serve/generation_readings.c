// Prompts that are read by a model that says nothing: a request of many of them runs as requests of the
// engine, one for each.
//
// Typed questions about one text share its tokens. The first of them runs alone, so that the text is
// computed once; all others then find it in the prefix cache, and bring a few rows each. They are
// submitted as others end, never more than keep all slots at work: the queue is not filled by one client's
// request, and its share of slots and rows is the one of any client.
#include "decode/serve/generation_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { AHEAD = 2 }; // readings for each slot that run or wait

// Readings that share their first one's text; texts that become vectors share nothing.
static int per_round(const sd_generation *g) {
    return g->request.decide ? g->request.decide->n_nodes : g->request.embed->n;
}

int sd_generation_count_readings(const sd_generation *g) {
    return per_round(g) * (g->request.decide ? g->request.decide->permute : 1);
}

static size_t texts_bytes(const sd_generation *g) {
    enum { TEXT = 128 }; // bytes of a kept text beside its own
    const sd_embed *m = g->request.embed;
    size_t bytes = m->query_len;
    for (int i = 0; i < m->n; i++)
        bytes += sizeof(sd_choice) + sizeof m->item[i] + m->item[i].len + TEXT +
                 ((size_t)g->item[i].n + (size_t)m->item[i].n_ids) * sizeof(int32_t) +
                 (size_t)g->server->local->model->hp.C * sizeof(float);
    return bytes;
}

size_t sd_generation_readings_bytes(const sd_generation *g) {
    enum { STRING = 8 }; // bytes of a kept string for each byte of its text
    const sd_decide *d = g->request.decide;
    if (!d) return texts_bytes(g);
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

static int plan_texts(sd_generation *g, sd_api_error *e) {
    const size_t n = (size_t)g->request.embed->n;
    g->vector = sd_alloc((size_t)g->server->local->model->hp.C, sizeof *g->vector);
    g->score = sd_alloc(n, sizeof *g->score);
    g->order = sd_alloc(n, sizeof *g->order);
    return g->vector && g->score && g->order ? 0 : sd_api_fail(e, 500, NULL, "out of memory");
}

int sd_generation_plan_readings(sd_generation *g, sd_api_error *e) {
    int32_t ends[SD_DECIDE_MAX_ENDS];
    sd_decide *d = g->request.decide;
    const int ctx = sd_server_stats(g->server).ctx;
    int64_t behind = 0;
    int longest = 0;
    if (!d) return plan_texts(g, e);
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
    if (!d) return sd_ids_add(out, g->item[i].id, g->item[i].n);
    const sd_decide_node *node = &d->node[i % per_round(g)];
    const sd_ids *text = &g->prompt[i / per_round(g)],
                 *begin = &d->question[node->question].begin_id;
    return sd_ids_add(out, text->id, text->n) && sd_ids_add(out, begin->id, begin->n) &&
           sd_ids_add(out, node->path, node->n_path);
}

static sd_request_reading reading_of(const sd_generation *g, int i) {
    const sd_decide *d = g->request.decide;
    if (d) {
        const sd_decide_node *node = &d->node[i % per_round(g)];
        return (sd_request_reading){SD_READ_TOKENS, node->token, node->n_tokens};
    }
    const bool mean = g->server->local->model->output.pooling == SD_POOL_MEAN;
    return (sd_request_reading){.kind = mean ? SD_READ_MEAN : SD_READ_LAST};
}

// ---- when

// Whether the next one may begin: a round's first runs alone.
static bool may_begin(const sd_generation *g) {
    const int i = g->n_begun, first = i % per_round(g);
    if (i == g->n_choices || g->failed) return false;
    if (g->request.decide && first == 0) return g->open == 0;
    return (g->request.embed || g->choices[i - first].ended) &&
           g->open < AHEAD * sd_server_stats(g->server).slots;
}

int sd_generation_begin_readings(sd_generation *g, sd_api_error *e) {
    while (may_begin(g)) {
        const sd_request_reading reading = reading_of(g, g->n_begun);
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

// As long as 1, where the model says so; a vector of zeros stays one.
static const float *vector_of(void *ctx, int i) {
    sd_generation *g = ctx;
    const sd_model *m = g->server->local->model;
    const float *v = values_of(g, i);
    double length = 0;
    for (int c = 0; c < m->hp.C; c++) length += (double)v[c] * (double)v[c];
    length = m->output.unit && length > 0 ? sqrt(length) : 1;
    for (int c = 0; c < m->hp.C; c++) g->vector[c] = (float)((double)v[c] / length);
    return g->vector;
}

static double relevance_of(const sd_generation *g, int i) {
    const sd_model *m = g->server->local->model;
    const float *v = values_of(g, i);
    double x = (double)m->output.rank_bias;
    for (int c = 0; c < m->hp.C; c++) x += (double)m->output.rank[c] * (double)v[c];
    return 1 / (1 + exp(-x));
}

static int compare_documents(const void *a, const void *b, void *ctx) {
    const double *score = ctx;
    const int i = *(const int *)a, k = *(const int *)b;
    return score[i] != score[k] ? (score[i] < score[k] ? 1 : -1) : i - k;
}

static sd_readings take_texts(sd_generation *g) {
    const sd_embed *m = g->request.embed;
    for (int i = 0; m->rank && g->whole.choice == 0 && i < m->n; i++)
        g->score[i] = relevance_of(g, i), g->order[i] = i;
    if (m->rank && g->whole.choice == 0)
        qsort_r(g->order, (size_t)m->n, sizeof *g->order, compare_documents, g->score);
    return (sd_readings){.embed = m,
                         .width = g->server->local->model->hp.C,
                         .vector = vector_of,
                         .ctx = g,
                         .score = g->score,
                         .order = g->order};
}

sd_readings sd_generation_take_readings(sd_generation *g) {
    sd_decide *d = g->request.decide;
    if (!d) return take_texts(g);
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
    const int each = g->request.decide ? per_round(g) : 1;
    int n = 0;
    for (int i = 0; i < g->n_choices; i += each) n += g->choices[i].cached;
    return n;
}
