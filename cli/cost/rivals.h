// The APIs of a command line.
#pragma once

#include "cli/cost/args.h"
#include "cli/cost/case.h"

/// Fills the case's APIs; its price file, where one is given, is open, and its tokens are known.
sd_status sd_cost_rivals_read(sd_cost_case *c, const sd_cost_args *a, sd_error *err);
