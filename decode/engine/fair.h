// Fair shares of something that is bounded: places in a queue, bytes.
//
// A bound binds only while others need what is left: a lone client may use all of it. When it is
// used up, a client that has less than its equal share still gets up to that share, out of as much
// again; so the one that came first cannot shut out the others, and the whole stays bounded.
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t limit;   // for everybody
    int64_t total;   // in use
    int64_t own;     // of it by the client that asks
    int64_t clients; // that use some of it, the one that asks included; >= 1
} sd_share;

/// A client's share while others want it too: at least 1.
static inline int64_t sd_fair_share(const sd_share *s) {
    int64_t share = s->limit / (s->clients > 1 ? s->clients : 1);
    return share > 1 ? share : 1;
}

/// May the client have `more`?
static inline bool sd_fair_room(const sd_share *s, int64_t more) {
    if (more <= s->limit - s->total) return true;
    return more <= sd_fair_share(s) - s->own && more <= 2 * s->limit - s->total;
}
