// The load out of a usage log: one JSON object a line for each request, as the gateway writes it.
//
//     {"time": "2026-05-04T09:30:00.125Z", "key": "app-crm", "name": "support", "target": "local", "class": "private",
//      "tokens": {"uncached": 300, "cache_read": 1200, "write_5m": 0, "write_1h": 0, "output": 500, "reasoning": 0},
//      "cost": 8750000000, "ttft_ms": 41.2, "total_ms": 830.5, "outcome": "ok", "reason": "route"}
//
// time is when the request came (RFC 3339), cost is in 10^-12 dollar or "unpriced". The prompt is uncached + cache_read + write_5m +
// write_1h tokens; reasoning is a part of output. Needed are time and tokens with one count; what else is there but not named here is passed over,
// other than in tokens: a count under another name would be one of 0.
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct {
    int64_t requests;
    double days;                                         // from the first request to the last
    double requests_day;                                 // 0: one request, or all at one moment
    double tokens_in, tokens_out;                        // of a mean request
    double cached_share, write_5m_share, write_1h_share; // of tokens_in
    double reasoning_share;                              // of tokens_out
    double
        busy_share; // of the time in which a request was being answered; below 0: not every line has total_ms
    // Requests of each hour (UTC) of a mean day, and the busiest hour's in the mean hour's; only where the log covers a day.
    bool by_hour;
    double hour[24], peak;
    double priced_usd; // what the priced requests cost in all
    int64_t unpriced;  // requests
} sd_usage_figures;

/// Lines may stand in any order. SD_EFORMAT names path, line and field; SD_EINVAL where there is no request.
sd_status sd_usage_read(sd_usage_figures *out, const char *text, size_t len, const char *path,
                        sd_error *err);
