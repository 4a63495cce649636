// Pages for a step's rows.
//
// Those that decode come first: an answer that has begun goes on. Where too few pages are left, even
// after the prefix cache has given all that nobody reads, drafts are left out, and then a request gives its
// slot back (queue.c). Prompts wait for pages while anything else gets on.
#include "decode/engine/private.h"

bool sd_pages_for_row(sd_slot *s) {
    s->starved = !sd_kv_reserve(s->kv, s->kv->len + s->rows + 1);
    return !s->starved;
}

// Drafts behind the last page that the slot has are left out.
static void leave_drafts_out(sd_slot *s) {
    int fit = s->kv->pages * SD_KV_PAGE - s->kv->len - 1;
    s->plan.g = fit < 0 ? 0 : fit < s->plan.g ? fit : s->plan.g;
}

void sd_pages_for_decoding(sd_engine *e) {
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        s->rows = 0, s->starved = false;
        if (sd_slot_missing(s) != 1 || sd_kv_reserve(s->kv, s->kv->len + 1 + s->plan.g)) continue;
        leave_drafts_out(s);
        // It may be s itself that gives way.
        while (s->request && !sd_pages_for_row(s) && sd_queue_make_room(e)) {
        }
    }
}
