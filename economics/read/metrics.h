// Load and speed out of a server's page of metrics, in Prometheus' text format: specdec's (specdec_...), or vLLM's (vllm:...), whose names it shares.
//
// Counters hold since the server's start. specdec's page says how long that is (busy and idle seconds); vLLM's does not, so requests
// a day are then unknown.
#pragma once

#include "base/status.h"

typedef struct {
    double requests;              // that ended with an answer
    double days;                  // since the server's start; 0: the page has no time
    double requests_day;          // 0: the page has no time
    double tokens_in, tokens_out; // of a mean request
    double cached_share;          // of prompts, that the prefix cache had
    double busy_share; // of the time in which the server had work; below 0: the page has no time
    // Tokens by the busy time that went to prompts and to answers: the speed at the load that there was, which a fuller batch exceeds. 0: unknown.
    double prefill_tok_s, decode_tok_s;
    double requests_at_once; // while busy; 0: unknown
} sd_metrics_figures;

/// SD_EFORMAT names path and line, SD_EINVAL says that no request has ended.
sd_status sd_metrics_read(sd_metrics_figures *out, const char *text, size_t len, const char *path,
                          sd_error *err);
