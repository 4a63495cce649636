// Wakes the event loop from another thread: an eventfd with its event, and what is to be done.
#pragma once

#include "base/status.h"

#include <event2/event.h>

typedef struct {
    int fd;
    struct event *event;
    void (*fn)(void *ctx);
    void *ctx;
} sd_wakeup;

/// fn(ctx) is called on the loop's thread, once for any number of signals before it.
sd_status sd_wakeup_open(sd_wakeup *w, struct event_base *base, void (*fn)(void *ctx), void *ctx,
                         sd_error *err);
void sd_wakeup_signal(sd_wakeup *w); // from any thread
void sd_wakeup_close(sd_wakeup *w);  // before the base; a zeroed one is fine
