// The server's own counters and histograms, in Prometheus' text format (version 0.0.4) under vLLM's
// names with the prefix "specdec:". Owned by the event loop's thread.
#pragma once

#include "decode/engine/engine.h"

// name, help
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

typedef struct {
    sd_histogram histogram[SD_H_COUNT];
    int64_t finished[SD_FINISH_COUNT]; // by sd_finish
    int64_t rejected[SD_REJECT_COUNT];
    int64_t checked[SD_CHECK_COUNT];
    bool has_grammars; // the model has a tokenizer
    sd_grammar_cache_stats grammars;
    int64_t body_bytes, reading; // now: bytes of bodies and unread answers; requests being read
    int64_t displaced;           // idle sockets closed for newcomers
    bool has_log;                // an access log is written
    int64_t log_lost;            // lines of it that were lost
    double started_s;
    // Bytes now, for memory_bytes: what the local provider has beside its engine.
    size_t adapter_factors, indexes, grammar_bytes;
} sd_metrics;

/// ctx: the token histograms reach up to it.
void sd_metrics_init(sd_metrics *m, int ctx, double now_s);

/// A request ended. Its stats fill the histograms; cancelled ones count as finished alone.
void sd_metrics_finish(sd_metrics *m, sd_finish finish, const sd_request_stats *s, double e2e_s);

// One adapter's (or the base's) requests and their speculation.
typedef struct {
    const char *name, *draft;
    int running;
    const sd_spec_stats *spec;
} sd_metrics_adapter;

/// Appends the page. model stands in every line's model_name label, escaped.
bool sd_metrics_write(sd_buf *out, const sd_metrics *m, const sd_engine_stats *e, const char *model,
                      const sd_metrics_adapter *adapters, int n_adapters, double now_s);
