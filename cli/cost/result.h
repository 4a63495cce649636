// The figures of a case, for the three ways of showing them.
#pragma once

#include "cli/cost/case.h"
#include "economics/figure.h"
#include "economics/sensitivity.h"
#include "economics/speculation.h"

enum { SD_COST_MAX_LOADS = 16 };

typedef struct {
    sd_usd_request request;
    sd_usd_month month; // with the migration
    sd_usd_million million;
    sd_break_even even;
} sd_rival_result;

// One load with what it costs everywhere.
typedef struct {
    double requests_day, utilisation;
    int64_t replicas;
    sd_usd_month own, rival[SD_COST_MAX_RIVALS];
} sd_load_row;

typedef struct {
    int64_t replicas;
    double seconds, utilisation, capacity_day;
    sd_cost_month month;
    sd_cost_million million;
    sd_usd_request request;
    sd_rival_result rival[SD_COST_MAX_RIVALS];
    int cheapest; // of the LLM APIs; -1: none
    int even;     // the cheapest of those against which there is a break-even, else of all
    bool own_wins;
    bool has_hybrid, has_cascade, has_burst;
    sd_hybrid hybrid; // against the first API, as the next two
    sd_usd_month cascade;
    sd_usd_request cascade_request;
    sd_burst burst;
    const char *
        mixture; // "hybrid", "cascade" or "by hour": costs less than all here and all at the API; NULL: none does
    sd_speculation speculation;
    char speculation_says[512];
    sd_sensitivity sensitivity[SD_SENSITIVITY_MAX];
    int n_sensitivity;
    sd_load_row load[SD_COST_MAX_LOADS]; // ascending
    int n_loads;
} sd_cost_result;

sd_status sd_cost_compute(sd_cost_result *out, const sd_cost_case *c, sd_error *err);

/// The bill at a load. SD_ELIMIT when it takes too many replicas.
sd_status sd_cost_load(sd_load_row *out, const sd_cost_case *c, const sd_cost_result *r,
                       double requests_day, sd_error *err);
