// Which input the result hangs on: each is made a quarter smaller and a quarter larger, the others staying as they are.
#pragma once

#include "economics/cost.h"

typedef struct {
    const sd_cost_row *row;
    sd_usd_million low,
        high; // all-in price of 10^6 own tokens with the input at 0.75 and at 1.25 of itself
    double break_even_low, break_even_high; // requests a day against `even`; 0: never
    bool flips;                             // which of own replicas and the API is cheaper changes
} sd_sensitivity;

enum { SD_SENSITIVITY_MAX = 8 };

/// rows [*n], the largest swing first; inputs that are 0 are left out, and those with which the load would take too many replicas. rival,
/// even: an API's price of a request, that the verdict and the break-even compare with; both NULL: there is none.
void sd_cost_sensitivity(sd_sensitivity rows[SD_SENSITIVITY_MAX], int *n, const sd_cost_input *in,
                         const sd_usd_request *rival, const sd_usd_request *even);
