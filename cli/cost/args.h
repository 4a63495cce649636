// The command line of specdec cost.
#pragma once

#include "base/option.h"
#include "economics/input.h"

typedef struct {
    sd_cost_input in;
    bool given[SD_COST_INPUT_COUNT]; // of sd_cost_rows
    const char *watts, *usage, *metrics, *prices, *prices_sha256, *prices_date, *by_hour, *html;
    sd_strings bench, api, decision, token_ratio;
    int tier;
    double busy, local_share, escalate;
    bool busy_given, local_given, escalate_given, json;
} sd_cost_args;

/// For an input that is an option by itself.
bool sd_cost_is_given(const sd_cost_args *a, const char *option);
/// True: the help was asked for, and printed.
bool sd_cost_args_help(int argc, char **argv);
sd_status sd_cost_args_read(sd_cost_args *a, int argc, char **argv, sd_error *err);
