// serve --plan.
#pragma once

#include "decode/serve/plan/plan.h"

/// Prints what serving by these options takes of memory, and warns where there is less.
sd_status sd_serve_print_plan(const sd_serve_options *o, bool json, sd_error *err);
