// Money with its unit in its type: a price of a million tokens cannot be handed over where a price of one request, an hour's rent
// or a month's bill is wanted. Published calculators are wrong by a thousand and by a million exactly there.
//
// Counts (tokens, requests, seconds) are doubles whose names carry the unit. A month is 365/12 days, 730 hours.
#pragma once

#include <stdbool.h>

typedef struct {
    double usd;
} sd_usd; // once
typedef struct {
    double usd;
} sd_usd_hour;
typedef struct {
    double usd;
} sd_usd_month;
typedef struct {
    double usd;
} sd_usd_kwh;
typedef struct {
    double usd;
} sd_usd_request;
typedef struct {
    double usd;
} sd_usd_million; // for 10^6 tokens

/// a is below b by more than the rounding of what either was added up from.
static inline bool sd_month_cheaper(sd_usd_month a, sd_usd_month b) {
    return a.usd < b.usd * (1 - 1e-9);
}

#define SD_DAYS_MONTH (365.0 / 12)
#define SD_HOURS_MONTH 730.0
#define SD_SECONDS_DAY 86400.0

static inline sd_usd_month sd_month_of_hours(sd_usd_hour rate, double hours) {
    return (sd_usd_month){rate.usd * hours};
}
static inline sd_usd_month sd_month_of_requests(sd_usd_request price, double requests_day) {
    return (sd_usd_month){price.usd * requests_day * SD_DAYS_MONTH};
}
static inline sd_usd_request sd_request_of_tokens(sd_usd_million price, double tokens) {
    return (sd_usd_request){price.usd * tokens / 1e6};
}
/// What 10^6 tokens cost where so many tokens of a month cost so much together.
static inline sd_usd_million sd_million_of_month(sd_usd_month cost, double tokens_month) {
    return (sd_usd_million){cost.usd / tokens_month * 1e6};
}
/// What 10^6 tokens cost on a machine of this rent that makes tok_s at full use, used to this share of it (0 to 1).
static inline sd_usd_million sd_million_of_rent(sd_usd_hour rent, double tok_s, double share) {
    return (sd_usd_million){rent.usd / (tok_s * 3600 * share) * 1e6};
}
static inline sd_usd_month sd_month_add(sd_usd_month a, sd_usd_month b) {
    return (sd_usd_month){a.usd + b.usd};
}
