// Bounds that a caller sets to a rendering, within the limits of value/account.h.
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

// These end a rendering before its own limits do. They are checked every few thousand steps, and
// all work that a template or a request can ask for costs steps in proportion.
typedef struct {
    const atomic_bool *stop; // true: nobody waits any more, the result is SD_EINTERRUPTED; or NULL
    int64_t deadline_ns;     // sd_now_ns() from which on the result is SD_ELIMIT; 0: none
    size_t max_bytes;        // of the text, beyond them SD_ELIMIT; 0: 64 MiB
    int64_t *steps;          // how many were taken is written there; or NULL
} sd_template_bounds;
