// What a comparison is computed from: the load, a replica's speed and price, people. One row an input; the command's options, the
// checks of ranges and the list of assumptions come from the same rows.
#pragma once

#include "base/status.h"
#include "economics/units.h"

// O(member, option, minimum, maximum, unit, help): 0 stands for absent, checked where it is needed.
// P(the same): one half of an option that is given as A,B.
// D(member, option, default, minimum, maximum, unit, help).
#define SD_COST_INPUTS(O, P, D)                                                                    \
    O(requests_day, "requests-day", 1e-6, 1e12, "requests", "load of a mean day")                  \
    O(tokens_in, "in", 1e-3, 1e9, "tokens", "prompt of a mean request, cached tokens too")         \
    O(tokens_out, "out", 1e-3, 1e9, "tokens", "answer of a mean request")                          \
    D(cached_share, "cached", 0, 0, 1, NULL, "share of the prompt that a prefix cache has")        \
    D(peak, "peak", 3, 1, 1000, NULL, "load at the peak, in that of the mean")                     \
    O(prefill_tok_s, "prefill-tok-s", 1e-3, 1e12, "tok/s",                                         \
      "prompt tokens that a replica reads, at the latency limit")                                  \
    O(decode_tok_s, "decode-tok-s", 1e-3, 1e12, "tok/s",                                           \
      "tokens that a replica generates for all its requests together, at the latency limit")       \
    O(plain_decode_tok_s, "plain-decode-tok-s", 1e-3, 1e12, "tok/s",                               \
      "the same without speculation: what speculation buys is then said")                          \
    D(gpus, "gpus", 1, 0.01, 1e5, NULL, "GPUs (or machines) of a replica")                         \
    O(gpu_hour.usd, "gpu-hour", 1e-6, 1e6, "USD", "rent of a GPU for an hour")                     \
    D(hours_on, "hours-on", 730, 1, 730, "hours",                                                  \
      "of a month in which the replicas run; all the load falls into them")                        \
    O(buy.usd, "buy", 1e-6, 1e9, "USD",                                                            \
      "instead of rent: price of a GPU with its share of a host")                                  \
    O(years, "years", 0.1, 50, "years", "in which what was bought is written off")                 \
    D(residual, "residual", 0, 0, 1, NULL, "share of the price that it is still worth then")       \
    P(watts_idle, "watts", 0, 1e6, "W", "a bought GPU without work")                               \
    P(watts_active, "watts", 0, 1e6, "W", "a bought GPU at full use")                              \
    D(pue, "pue", 1.3, 1, 10, NULL, "power of the building, in that of the machines")              \
    O(kwh.usd, "kwh", 1e-6, 1e3, "USD", "price of a kWh")                                          \
    D(hosting.usd, "hosting", 0, 0, 1e9, "USD", "rack, network and remote hands of a month")       \
    D(min_replicas, "min-replicas", 1, 1, 1e5, NULL, "replicas that run at any load")              \
    D(max_load, "max-load", 0.7, 0.01, 1, NULL, "share of a replica's capacity used at the peak")  \
    D(engineer_hours, "engineer-hours", 0, 0, 1e6, "hours", "of a month, for operation")           \
    D(engineer_rate.usd, "engineer-rate", 0, 0, 1e5, "USD", "price of an engineer's hour")         \
    D(setup_hours, "setup-hours", 0, 0, 1e6, "hours", "once, to set it up")                        \
    D(setup_months, "setup-months", 12, 0.1, 600, "months", "over which that is spread")           \
    D(other.usd, "other", 0, 0, 1e9, "USD", "any other cost of a month")                           \
    D(migration_hours, "migration-hours", 0, 0, 1e6, "hours",                                      \
      "of an engineer a year on the API's side, when its model ends")

typedef struct {
    double requests_day, tokens_in, tokens_out; // tokens: of a mean request
    double cached_share, peak;
    // Known from a usage log alone: shares of tokens_in that the API charges for writing into its cache, and of tokens_out
    // that are reasoning.
    double write_5m_share, write_1h_share, reasoning_share;
    double prefill_tok_s, decode_tok_s,
        plain_decode_tok_s; // a replica; plain: 0 where it is not known
    double gpus;            // of a replica
    sd_usd_hour gpu_hour;   // 0: bought
    double hours_on;        // of a month
    sd_usd buy;             // of a GPU; 0: rented
    double years, residual, watts_idle, watts_active, pue; // watts: of a GPU
    sd_usd_kwh kwh;
    sd_usd_month hosting;
    double min_replicas, max_load;
    double engineer_hours; // a month
    sd_usd_hour engineer_rate;
    double setup_hours, setup_months;
    sd_usd_month other;
    double migration_hours; // a year
} sd_cost_input;

enum {
#define SD_COST_ENUM(...) +1
    SD_COST_INPUT_COUNT = 0 SD_COST_INPUTS(SD_COST_ENUM, SD_COST_ENUM, SD_COST_ENUM)
#undef SD_COST_ENUM
};

typedef struct {
    const char *name;     // of the option
    size_t offset;        // of its double in sd_cost_input
    double def;           // 0 where there is none
    const char *def_text; // as a user would type it; NULL: none
    double min, max;
    const char *unit; // NULL: none
    const char *help;
    bool half; // of an option that is given as A,B
} sd_cost_row;
extern const sd_cost_row sd_cost_rows[SD_COST_INPUT_COUNT];

static inline double *sd_cost_at(sd_cost_input *in, const sd_cost_row *row) {
    return (double *)((char *)in + row->offset);
}
/// A request without a prompt or without an answer is one, so 0 is a count of tokens.
bool sd_cost_takes_zero(const sd_cost_row *row);
/// The row of an input that is an option by itself.
const sd_cost_row *sd_cost_row_of(const char *option);

/// Every default; the inputs without one are 0.
sd_cost_input sd_cost_defaults(void);

/// SD_EINVAL, with the sentence that names the option, unless every input is in its range, what is needed is there, and no two
/// contradict each other. Functions of this room take checked inputs alone; their results are then finite.
sd_status sd_cost_check(const sd_cost_input *in, sd_error *err);
