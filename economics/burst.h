// A load that changes by the hour: own replicas serve each hour up to their capacity, the API takes what is above.
//
// With few replicas the API's bill is large, with many the idle ones are: the cheapest number is found by trying each.
#pragma once

#include "economics/cost.h"

enum { SD_HOURS_DAY = 24 };

typedef struct {
    int64_t replicas; // of the least total; 0: all at the API
    double local_share;
    sd_usd_month total, all_api;
    double local[SD_HOURS_DAY]; // requests that own replicas serve in an hour
} sd_burst;

/// load: requests of each hour of a mean day, not all 0. peak: load within an hour at its busiest, in that of the hour's mean. The
/// load of in->requests_day and in->peak are not used.
sd_status sd_cost_burst(sd_burst *out, const sd_cost_input *in, const double load[SD_HOURS_DAY],
                        double peak, sd_usd_request api, sd_error *err);
