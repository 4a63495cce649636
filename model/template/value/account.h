// The account of a rendering: how many steps it may take, how much memory it may hold, and how it
// fails. Whatever works for a rendering takes its sd_render first and pays for its work there, so
// that no template and no request can run for ever or fill the memory.
//
// A function that can fail returns false (or NULL) and has recorded why in r->status and r->err.
#pragma once

#include "base/memory.h"
#include "base/status.h"
#include "model/template/value/bounds.h"

#include <stdint.h>
#include <string.h>

enum {
    SD_TMPL_MAX_DEPTH = 400,         // nesting of a template's syntax
    SD_TMPL_MAX_CALLS = 1500,        // nesting while rendering
    SD_TMPL_MAX_OUTPUT = 64 << 20,   // bytes
    SD_TMPL_MAX_MEMORY = 256 << 20,  // of one rendering: values and texts being built
    SD_TMPL_FUEL = 20 * 1000 * 1000, // steps of one rendering
    SD_TMPL_BYTES_A_STEP = 64,       // of a text that is copied or searched
    SD_TMPL_SEARCH = 8,              // bytes a step where a text is searched or decoded
    SD_TMPL_CHECK_EVERY = 4096       // steps between two checks of the bounds
};

typedef struct sd_scope sd_scope; // model/template/render.h
typedef struct sd_node sd_node;   // model/template/syntax/syntax.h

// One rendering. scope, globals and blocks belong to the interpreter above; this room only carries
// them.
typedef struct {
    sd_arena arena;
    size_t held; // bytes of the texts that are being built
    sd_buf *out;
    int64_t fuel, check_at; // steps left; so many left when the bounds are checked next
    size_t bytes;           // copied or searched, less than a step's
    const sd_template_bounds *bounds;
    uint64_t seed; // of the hashes
    int depth;     // of calls and blocks
    int line;      // of what is being run
    sd_scope *scope, *globals;
    const sd_node *blocks;
    sd_status status;
    sd_error *err;
} sd_render;

/// Records the failure with the line; always false.
bool sd_render_fail(sd_render *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool sd_render_limit(sd_render *r, const char *what);
bool sd_out_of_memory(sd_render *r);
bool sd_spend(sd_render *r, size_t steps); // false: out of fuel, late, or nobody waits
/// A step for each SD_TMPL_BYTES_A_STEP bytes.
bool sd_spend_bytes(sd_render *r, size_t n);
bool sd_reserve_memory(sd_render *r, size_t more); // whether so much more may be asked for
/// Zeroed memory that lives as long as the rendering. NULL: a limit, or out of memory.
void *sd_render_alloc(sd_render *r, size_t count, size_t size);
