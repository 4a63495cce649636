// Threads for work that would hold up the event loop, shared out fairly among those it is done for.
//
// An item is worked at piece by piece: its step does one piece and says whether there is more. Turns
// go round among the owners, piece by piece, and an owner has all threads but one at most: one long
// item does not hold up its owner's short ones, and nobody's hold up another owner. What was
// finished comes back on the loop's thread.
//
//     item->owner = client, item->step = read_piece, item->done = on_read, item->ctx = request;
//     if (!sd_workers_add(w, item)) ...                // from here the item's content is the threads'
//     ...                                              // wake(ctx) is called: on any thread
//     sd_workers_deliver(w);                           // on the loop's thread: item->done(item)
//
// The queue knows nothing of what it works at. How many items there may be is for others to bound.
#pragma once

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { SD_WORKERS = 3 }; // threads

typedef struct sd_workers sd_workers;
typedef struct sd_work sd_work;

// Part of what is worked at. The caller sets what stands before `next`.
struct sd_work {
    uint64_t owner;              // whose it is: turns are theirs
    bool (*step)(sd_work *item); // one piece, on a worker's thread; true: there is more
    void (*done)(sd_work *item); // on the loop's thread; the item is the caller's again
    void *ctx;                   // the caller's
    sd_work *next;               // the queue's, as what follows
    int turn;
};

/// wake(ctx): something was finished since sd_workers_deliver found nothing; it must not block.
sd_status sd_workers_open(sd_workers **out, void (*wake)(void *ctx), void *ctx, sd_error *err);
/// False: out of memory, the item is still the caller's.
bool sd_workers_add(sd_workers *w, sd_work *item);
void sd_workers_deliver(sd_workers *w);
/// Waits for the pieces at hand. Items that are still here are the caller's again: their done is
/// not called. NULL is fine.
void sd_workers_close(sd_workers *w);
