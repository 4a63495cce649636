// What speculation buys at this load. It makes decoding faster, and nothing else: in money that is worth something only where fewer
// replicas carry the load, or where less power is used. Else it buys latency.
#pragma once

#include "economics/cost.h"

typedef struct {
    bool measured;   // both speeds are known: the next five
    double speed_up; // of decoding, 1: none
    int64_t replicas, plain_replicas;
    sd_usd_month saves;            // a month, of the whole bill; below 0: it costs
    double seconds, plain_seconds; // of a replica, for a request
    // How many times as fast as in->decode_tok_s decoding must be for one replica fewer. 0: no speed does, since prompts alone take the
    // replicas, or as few run as may.
    double fewer_at;
} sd_speculation;

sd_status sd_cost_speculation(sd_speculation *out, const sd_cost_input *in, sd_error *err);

/// One or two sentences.
void sd_speculation_says(char *out, size_t size, const sd_speculation *s, const sd_cost_input *in);
