// What serving a load costs in a month, on replicas of one's own and at an API, and from which load on the first is cheaper.
//
//     w      = a(1-c)/T_p + b/T_d              seconds of a replica for a request of a prompt and b answer tokens, share c cached
//     lambda = q/86400 * 730/hours_on          requests a second while the replicas run
//     n      = max(n_min, ceil(k lambda w / max_load)),  U = lambda w / n
//     cap(n) = n max_load 86400 hours_on/730 / (k w)      requests a day within the limit
//     C(n)   = replicas + power + people + other
//     c_api  = [a(1-c) p_in + a c p_cached + b p_out] / 10^6
//     break-even: the smallest n whose q*(n) = C(n) / (D (c_api - c_var)) is at most cap(n); else never
//
// Speculation enters through T_d alone, measured at the real number of requests at once.
//
//     sd_cost_input in = ...;
//     SD_TRY(sd_cost_check(&in, err));
//     SD_TRY(sd_cost_replicas(&n, &in, in.requests_day, err));
//     sd_cost_month c = sd_cost_of(&in, n, in.requests_day);
#pragma once

#include "economics/input.h"

#include <stdint.h>

enum { SD_COST_MAX_REPLICAS = 1000000 };

/// w, in seconds.
double sd_cost_seconds(const sd_cost_input *in);

/// Replicas for so many requests a day. SD_ELIMIT above SD_COST_MAX_REPLICAS.
sd_status sd_cost_replicas(int64_t *n, const sd_cost_input *in, double requests_day, sd_error *err);

/// U, 0 to 1: the share of what n replicas could do in full batches.
double sd_cost_utilisation(const sd_cost_input *in, int64_t n, double requests_day);

/// cap(n), in requests a day.
double sd_cost_capacity(const sd_cost_input *in, int64_t n);

// A month's bill. gpu: rent, or the part of the price written off, and hosting.
typedef struct {
    sd_usd_month gpu, energy, people, other, total;
} sd_cost_month;
sd_cost_month sd_cost_of(const sd_cost_input *in, int64_t n, double requests_day);

// Prices of a month's tokens. input and output share all_in by the seconds that they take; 0 where there are none.
typedef struct {
    sd_usd_million gpu_only, all_in;
    sd_usd_million gpu_only_at_full_use; // for comparison only: nobody has that load
    sd_usd_million input, output;
} sd_cost_million;
sd_cost_million sd_cost_per_million(const sd_cost_input *in, int64_t n, double requests_day);

// ---- an API

// A rate that a vendor has not set is the rate of what it is charged as: see sd_api_flat.
typedef struct {
    sd_usd_million in, cached, write_5m, write_1h, out, reasoning;
    sd_usd_request request; // on top of tokens
} sd_api_price;

/// Cached and written prompt tokens at the price of others, reasoning at that of the answer.
sd_api_price sd_api_flat(sd_usd_million in, sd_usd_million out);

/// c_api. tokens: how many of the API's tokens one of ours is (vendors count the same text differently).
sd_usd_request sd_api_request(const sd_api_price *p, const sd_cost_input *in, double tokens);

/// What being moved to another model costs the API's user, spread over the year.
sd_usd_month sd_api_migration(const sd_cost_input *in);

// ---- break-even

typedef enum {
    SD_NEVER_NOT,      // there is a break-even
    SD_NEVER_FREE,     // the API takes nothing for such a request
    SD_NEVER_POWER,    // a request's power alone costs what the API takes
    SD_NEVER_REPLICA,  // a further replica costs more than the API takes for what it carries
    SD_NEVER_REPLICAS, // beyond SD_COST_MAX_REPLICAS
} sd_never;

typedef struct {
    sd_never never;
    int64_t replicas;    // at the break-even; 0: never
    double requests_day; // at it
    double capacity_day; // cap(replicas), or of one replica: never
    double utilisation;  // U at it
    sd_usd_month replica,
        carries; // a further replica costs, and carries API work worth so much beyond its power
    // Behind capacity_day a further replica may make the API the cheaper again; from here on it never is. 0: such a load does not exist
    // within SD_COST_MAX_REPLICAS.
    double for_good_day;
} sd_break_even;
sd_break_even sd_cost_break_even(const sd_cost_input *in, sd_usd_request api);

/// A sentence on why there is none; "" where there is one.
void sd_break_even_reason(char *out, size_t size, const sd_break_even *b);

// ---- mixtures of both

// A share of the requests goes to own replicas, the rest to the API.
typedef struct {
    double local_share;
    int64_t replicas;
    sd_usd_month total, all_api;
    double change; // total / all_api - 1
} sd_hybrid;
sd_status sd_cost_hybrid(sd_hybrid *out, const sd_cost_input *in, sd_usd_request api,
                         double local_share, sd_error *err);

/// All requests are answered by own replicas first; a share is asked of the API again.
sd_usd_request sd_cost_cascade(sd_usd_request own, double escalated_share, sd_usd_request api);
