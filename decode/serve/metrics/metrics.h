// What the server counts: of each model that requests name, of each key, and of all together. Owned by the event
// loop's thread. metrics/page.h writes it for Prometheus.
//
//     sd_metrics m;
//     sd_metrics_init(&m, now);
//     sd_metrics_ready(&m, ctx, now);                       // the model is there
//     sd_model_counts *model = sd_metrics_model(&m, "support-v4");
//     sd_histogram_observe(&model->histogram[SD_H_time_to_first_token_seconds], .04, 1);
//     sd_metrics_finish(model, key, SD_FINISH_STOP, &stats, 1.9);
//     sd_metrics_free(&m);
#pragma once

#include "decode/engine/engine.h"

// ---- histograms

// name, help: vLLM's names and buckets
#define SD_HISTOGRAMS(X)                                                                           \
    X(time_to_first_token_seconds, "From the request's arrival to its first token.")               \
    X(inter_token_latency_seconds, "Between tokens of one request.")                               \
    X(e2e_request_latency_seconds, "From the request's arrival to its end.")                       \
    X(request_queue_time_seconds, "Waiting for a slot.")                                           \
    X(request_prefill_time_seconds, "Reading the prompt.")                                         \
    X(request_decode_time_seconds, "From the first token to the last.")                            \
    X(request_prompt_tokens, "Tokens of the prompt.")                                              \
    X(request_generation_tokens, "Tokens of the answer.")

typedef enum {
#define SD_HISTOGRAM_ENUM(name, help) SD_H_##name,
    SD_HISTOGRAMS(SD_HISTOGRAM_ENUM)
#undef SD_HISTOGRAM_ENUM
        SD_H_COUNT
} sd_histogram_id;

enum { SD_MAX_BUCKETS = 32 };
typedef struct {
    int n;
    double bound[SD_MAX_BUCKETS]; // inclusive upper bounds, ascending; +Inf is implied
    int64_t count[SD_MAX_BUCKETS + 1];
    double sum;
} sd_histogram;

void sd_histogram_observe(sd_histogram *h, double value, int64_t times);

// ---- what is counted

// Why a request was turned away; the label's word.
#define SD_REJECTS(X)                                                                              \
    X(QUEUE_FULL, "queue_full")                                                                    \
    X(DRAINING, "draining")                                                                        \
    X(LOADING, "loading")                                                                          \
    X(BODY_MEMORY, "body_memory")                                                                  \
    X(CONNECTIONS, "connections")

typedef enum {
#define SD_REJECT_ENUM(name, word) SD_REJECT_##name,
    SD_REJECTS(SD_REJECT_ENUM)
#undef SD_REJECT_ENUM
        SD_REJECT_COUNT
} sd_reject;

// What the check of a whole answer against its constraint said; the label's word.
#define SD_CHECKS(X) X(VALID, "valid") X(FAILED, "failed") X(UNCHECKED, "unchecked")

typedef enum {
#define SD_CHECK_ENUM(name, word) SD_CHECK_##name,
    SD_CHECKS(SD_CHECK_ENUM)
#undef SD_CHECK_ENUM
        SD_CHECK_COUNT
} sd_check_result;

// Of answers that ended, cancelled ones too where the prompt was read; each of a request's n answers has its prompt.
typedef struct {
    int64_t prompt, cached, generated; // cached: of the prompt, found and not computed
} sd_token_counts;

// Of the requests that name one model, in whatever generation.
typedef struct sd_model_counts {
    struct sd_model_counts *next;
    sd_histogram histogram[SD_H_COUNT];
    int64_t finished[SD_FINISH_COUNT]; // by sd_finish
    sd_token_counts tokens;
    sd_spec_stats spec;
    char name[];
} sd_model_counts;

typedef struct sd_key_counts {
    struct sd_key_counts *next;
    int64_t ended, rejected; // answers; requests
    sd_token_counts tokens;
    char id[];
} sd_key_counts;

typedef struct {
    double started_s; // the server, then its model
    int ctx;
    sd_model_counts *models; // in the order of their coming: the base first
    sd_key_counts *keys;
    int64_t rejected[SD_REJECT_COUNT];
    int64_t checked[SD_CHECK_COUNT];
    int64_t reading; // now: requests that are read
    struct {
        int64_t done, refused, unloaded;
        double read_s; // of those that were done: from their turn to their first request
        double waited_s,
            longest_s; // of that, how long steps of the engine waited; the longest of one
    } loads;           // of adapters, while serving
} sd_metrics;

#define SD_METRICS_GONE "(gone)" // no name of a model

void sd_metrics_init(sd_metrics *m, double now_s);
/// The model is there: its time begins, and histograms of tokens reach up to ctx.
void sd_metrics_ready(sd_metrics *m, int ctx, double now_s);
void sd_metrics_free(sd_metrics *m); // a zeroed one is fine

/// The counts of a name, which stay until they retire; NULL: out of memory.
sd_model_counts *sd_metrics_model(sd_metrics *m, const char *name);
/// Nobody asks for c's name any more: what was counted of it goes on in the counts of SD_METRICS_GONE, so that sums
/// over all names never fall, and c is freed. c is not the first of the names.
void sd_metrics_retire(sd_metrics *m, sd_model_counts *c);
/// Of a key's ID; NULL for "", no key, and out of memory.
sd_key_counts *sd_metrics_key(sd_metrics *m, const char *id);

/// An answer ended. Its stats fill the histograms; of cancelled ones tokens alone count. key may be NULL.
void sd_metrics_finish(sd_model_counts *model, sd_key_counts *key, sd_finish finish,
                       const sd_request_stats *s, double e2e_s);
/// A request was turned away. key may be NULL.
void sd_metrics_reject(sd_metrics *m, sd_key_counts *key, sd_reject why);
