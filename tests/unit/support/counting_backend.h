// A backend that runs on the CPU's and counts what it is asked for. Its contexts are not the CPU's:
// whatever goes past the table of their backend reads the wrong memory, and is seen.
#pragma once

#include "model/infer/backend.h"

typedef struct {
    int opened, closed;      // contexts
    int forwards, rows;      // steps and their rows
    int picked, logits;      // rows that wanted a token; rows whose logits were handed out
    int kv_opened, adapters; // memories of pages; adapters taken ahead of their first row
    int costs;               // asked what steps cost
} test_backend_counts;

extern test_backend_counts test_counted; // one thread at a time
/// In place of the CPU's forward, on the CPU's context; NULL: the CPU's.
extern sd_status (*test_counted_forward)(sd_context *cx, const sd_row *rows, int n, float *logits,
                                         sd_picked *picked, sd_error *err);
extern const sd_backend test_counting_backend;
