// A decided case on the terminal, as JSON and as a page.
#pragma once

#include "cli/cost/result.h"

#include "base/json.h"

/// On standard output.
void sd_cost_print(const sd_cost_case *c, const sd_cost_result *r);

/// The object of the contract (docs/decide.md names the fields); NULL, and a mark of sd_memory_lost, without memory.
json_t *sd_cost_json(const sd_cost_case *c, const sd_cost_result *r);

/// One document without scripts and external resources, written atomically.
sd_status sd_cost_html(const char *path, const sd_cost_case *c, const sd_cost_result *r,
                       sd_error *err);

/// The verdict in one sentence; what would turn it in another, "" where there is no API to turn to.
void sd_cost_verdict(char *out, size_t size, const sd_cost_case *c, const sd_cost_result *r);
void sd_cost_turns(char *out, size_t size, const sd_cost_result *r);
/// What a rival's break-even is, in a phrase: "from 13,000.4 requests a day on ..." or "never: ...".
void sd_cost_even_says(char *out, size_t size, const sd_break_even *b);

// ---- assumptions

typedef void (*sd_assumption_take)(void *ctx, const char *name, double value, const char *unit,
                                   sd_cost_source source, const char *from);
/// Each number that the result rests on, with its source.
void sd_cost_assumptions(const sd_cost_case *c, sd_assumption_take take, void *ctx);
