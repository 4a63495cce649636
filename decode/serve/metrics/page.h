// The page that Prometheus reads, under vLLM's names with the prefix "specdec_" where vLLM has the series. Nothing
// stands on it that is not measured: no line of an engine before there is one, none of a cache that is off.
#pragma once

#include "decode/serve/metrics/metrics.h"

// A model that requests may name now, or that drains. Rows of one name are one model's generations, the newest last.
typedef struct {
    const sd_model_counts *counts;
    const char *draft;   // what drafts for it
    const char *sha256;  // of an adapter; NULL: the base
    uint64_t generation; // of an adapter
    int running;         // requests in a slot or in the queue
} sd_metrics_served;

typedef struct {
    const sd_metrics *counted;
    bool ready;                     // /health would be 200
    const sd_engine_stats *engine;  // NULL: there is none yet
    const sd_metrics_served *model; // [n_models] the base first
    int n_models;
    const char *key; // whose lines are written of the keys'; NULL: everybody's
    bool vllm;       // vLLM's series once more, under its own prefix
    double now_s;
    int64_t started;     // s since 1970: the process
    bool loads_adapters; // adapters may be loaded while serving
    int n_draining;      // of the models: generations that only requests of before still use
    // Now.
    int64_t body_bytes;                     // bodies and unread answers
    const sd_grammar_cache_stats *grammars; // NULL: the model has no tokenizer
    size_t adapter_factors, indexes, grammar_bytes;
    // Since the start.
    int64_t bodies_refused, sockets_refused, displaced;
    const int64_t *log_lost; // lines of the access log; NULL: none is written
    const int64_t *answered; // [n_answered] HTTP responses by status
    int n_answered;
} sd_metrics_page;

/// Appends the page. False: out of memory, or out's bound.
bool sd_metrics_write(sd_buf *out, const sd_metrics_page *p);
