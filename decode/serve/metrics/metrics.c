// Buckets are those of vLLM 0.10+, so that dashboards made for it work after a change of prefix. Small models say a
// token in a few milliseconds: between tokens there are finer ones below its first.
#include "decode/serve/metrics/metrics.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static const double ttft_bounds[] = {0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                                     0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                                     20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
static const double itl_bounds[] = {0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05,
                                    0.075, 0.1,   0.15,  0.2,   0.3,    0.4,  0.5,   0.75,
                                    1.0,   2.5,   5.0,   7.5,   10.0,   20.0, 40.0,  80.0};
static const double latency_bounds[] = {0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,
                                        5.0,  10.0,  15.0,  20.0,  30.0,  40.0,   50.0,
                                        60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};

static void set_bounds(sd_histogram *h, const double *bounds, size_t n) {
    memcpy(h->bound, bounds, n * sizeof *bounds);
    h->n = (int)n;
}

// 1, 2, 5, 10, ... up to max.
static void set_125_bounds(sd_histogram *h, int max) {
    static const int mantissa[] = {1, 2, 5};
    h->n = 0;
    for (double scale = 1; h->n < SD_MAX_BUCKETS; scale *= 10)
        for (int i = 0; i < 3; i++) {
            if (mantissa[i] * scale > max || h->n == SD_MAX_BUCKETS) return;
            h->bound[h->n++] = mantissa[i] * scale;
        }
}

#define SET(h, bounds) set_bounds(&(h), bounds, sizeof bounds / sizeof bounds[0])

static void set_all_bounds(sd_histogram *h, int ctx) {
    SET(h[SD_H_time_to_first_token_seconds], ttft_bounds);
    SET(h[SD_H_inter_token_latency_seconds], itl_bounds);
    for (int i = SD_H_e2e_request_latency_seconds; i <= SD_H_request_decode_time_seconds; i++)
        SET(h[i], latency_bounds);
    set_125_bounds(&h[SD_H_request_prompt_tokens], ctx);
    set_125_bounds(&h[SD_H_request_generation_tokens], ctx);
}

void sd_histogram_observe(sd_histogram *h, double value, int64_t times) {
    int i = 0;
    while (i < h->n && value > h->bound[i]) i++;
    h->count[i] += times;
    h->sum += value * (double)times;
}

// ---- life

void sd_metrics_init(sd_metrics *m, double now_s) {
    *m = (sd_metrics){.started_s = now_s};
}

void sd_metrics_ready(sd_metrics *m, int ctx, double now_s) {
    m->started_s = now_s;
    m->ctx = ctx;
}

void sd_metrics_free(sd_metrics *m) {
    for (sd_model_counts *c = m->models, *next; c; c = next) next = c->next, free(c);
    for (sd_key_counts *c = m->keys, *next; c; c = next) next = c->next, free(c);
    *m = (sd_metrics){0};
}

// ---- counts by name: there are as many as models and keys, and each is looked for once a request

sd_model_counts *sd_metrics_model(sd_metrics *m, const char *name) {
    sd_model_counts **at = &m->models;
    while (*at && strcmp((*at)->name, name) != 0) at = &(*at)->next;
    if (*at) return *at;
    size_t n = strlen(name) + 1;
    sd_model_counts *c = sd_alloc(1, sizeof *c + n);
    if (!c) return NULL;
    memcpy(c->name, name, n);
    set_all_bounds(c->histogram, m->ctx);
    return *at = c;
}

static void add_counts(sd_model_counts *to, const sd_model_counts *c) {
    for (int i = 0; i < SD_H_COUNT; i++) {
        const sd_histogram *h = &c->histogram[i];
        for (int k = 0; k <= h->n; k++) to->histogram[i].count[k] += h->count[k];
        to->histogram[i].sum += h->sum;
    }
    for (int i = 0; i < SD_FINISH_COUNT; i++) to->finished[i] += c->finished[i];
    to->tokens.prompt += c->tokens.prompt;
    to->tokens.cached += c->tokens.cached;
    to->tokens.generated += c->tokens.generated;
    sd_spec_stats_add(&to->spec, &c->spec, 1);
}

void sd_metrics_retire(sd_metrics *m, sd_model_counts *c) {
    sd_model_counts *gone = sd_metrics_model(m, SD_METRICS_GONE), **at = &m->models;
    if (!gone) return; // out of memory: it stays as it is
    add_counts(gone, c);
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    free(c);
}

sd_key_counts *sd_metrics_key(sd_metrics *m, const char *id) {
    if (!*id) return NULL;
    sd_key_counts **at = &m->keys;
    while (*at && strcmp((*at)->id, id) != 0) at = &(*at)->next;
    if (*at) return *at;
    size_t n = strlen(id) + 1;
    sd_key_counts *c = sd_alloc(1, sizeof *c + n);
    if (!c) return NULL;
    memcpy(c->id, id, n);
    return *at = c;
}

// ---- counting

// read: the prompt was, to its end.
static void add_tokens(sd_token_counts *t, const sd_request_stats *s, bool read) {
    if (!read) return;
    t->prompt += s->prompt_tokens;
    t->cached += s->cached_tokens;
    t->generated += s->generated;
}

void sd_metrics_finish(sd_model_counts *model, sd_key_counts *key, sd_finish finish,
                       const sd_request_stats *s, double e2e_s) {
    bool whole = finish != SD_FINISH_CANCELLED && finish != SD_FINISH_ERROR;
    model->finished[finish]++;
    add_tokens(&model->tokens, s, whole || s->generated > 0);
    sd_spec_stats_add(&model->spec, &s->spec, 1);
    if (key) key->ended++, add_tokens(&key->tokens, s, whole || s->generated > 0);
    if (!whole) return;
    sd_histogram *h = model->histogram;
    sd_histogram_observe(&h[SD_H_e2e_request_latency_seconds], e2e_s, 1);
    sd_histogram_observe(&h[SD_H_request_queue_time_seconds], s->queue_ms * 1e-3, 1);
    sd_histogram_observe(&h[SD_H_request_prefill_time_seconds], s->prefill_ms * 1e-3, 1);
    sd_histogram_observe(&h[SD_H_request_decode_time_seconds], s->decode_ms * 1e-3, 1);
    sd_histogram_observe(&h[SD_H_request_prompt_tokens], s->prompt_tokens, 1);
    sd_histogram_observe(&h[SD_H_request_generation_tokens], s->generated, 1);
}

void sd_metrics_reject(sd_metrics *m, sd_key_counts *key, sd_reject why) {
    m->rejected[why]++;
    if (key) key->rejected++;
}
