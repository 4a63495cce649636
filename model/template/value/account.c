// The account of a rendering: what it may spend and hold, and how it fails.
#include "model/template/value/account.h"

#include "base/clock.h"

#include <stdio.h>

bool sd_render_fail(sd_render *r, const char *fmt, ...) {
    char what[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    r->status = sd_fail(r->err, SD_EINVAL, "chat template line %d: %s", r->line, what);
    return false;
}

bool sd_render_limit(sd_render *r, const char *what) {
    r->status = sd_fail(r->err, SD_ELIMIT,
                        "chat template line %d: the rendering needs more than the allowed %s; "
                        "shorten the conversation",
                        r->line, what);
    return false;
}

// Whether somebody waits for the result and the deadline is not over.
static bool check_outside(sd_render *r) {
    const sd_template_bounds *b = r->bounds;
    r->check_at = r->fuel - SD_TMPL_CHECK_EVERY;
    if (b && b->stop && atomic_load_explicit(b->stop, memory_order_relaxed)) {
        r->status = sd_fail(r->err, SD_EINTERRUPTED, "the rendering was stopped: nobody waits");
        return false;
    }
    return !b || !b->deadline_ns || sd_now_ns() < b->deadline_ns || sd_render_limit(r, "time");
}

bool sd_spend(sd_render *r, size_t steps) {
    if (steps > (size_t)r->fuel) {
        r->fuel = 0;
        return sd_render_limit(r, "steps");
    }
    r->fuel -= (int64_t)steps;
    return r->fuel > r->check_at || check_outside(r);
}

bool sd_spend_bytes(sd_render *r, size_t n) {
    size_t all = r->bytes + n; // texts are far below SIZE_MAX
    r->bytes = all % SD_TMPL_BYTES_A_STEP;
    return sd_spend(r, all / SD_TMPL_BYTES_A_STEP);
}

bool sd_reserve_memory(sd_render *r, size_t more) {
    size_t used = r->arena.total + r->held;
    return (used <= SD_TMPL_MAX_MEMORY && more <= SD_TMPL_MAX_MEMORY - used) ||
           sd_render_limit(r, "memory");
}

bool sd_out_of_memory(sd_render *r) {
    r->status = sd_fail(r->err, SD_ENOMEM, "out of memory for the chat template's rendering");
    return false;
}

// Memory is zeroed, which is work too.
void *sd_render_alloc(sd_render *r, size_t count, size_t size) {
    size_t bytes;
    if (!count) count = 1;
    if (!sd_mul_size(&bytes, count, size)) {
        sd_render_limit(r, "memory");
        return NULL;
    }
    if (!sd_reserve_memory(r, bytes) || !sd_spend_bytes(r, bytes)) return NULL;
    void *p = sd_arena_alloc(&r->arena, count, size);
    if (!p) sd_out_of_memory(r);
    return p;
}
