// A group of prompts, answered once each by plain decoding and then in every other way, which must not be
// seen in any answer:
//
//     alone    one after the other, drafted for
//     batch    together with the others of its group, drafted for; then again, when all of it is cached
//     tight    the same, with pages for one long request or little more: pages are forgotten, requests
//              give their slots back and begin again, some leave in the middle
//     plain    together, not drafted for
//
// Plain decoding is the reference: one sequence, one thread, the prompt in one piece, no drafts, nothing
// kept, memory for all.
#pragma once

#include "tests/e2e/exact/prompt.h"

typedef struct {
    char name[SD_DRAFTER_NAME];
    int64_t accepted, rejected;
} exact_drafted;

typedef struct {
    int64_t prompts, answers, differ,
        left;                        // left: cancelled on the way, compared as far as they were
    int64_t tokens;                  // of the reference's answers
    int64_t with[EXACT_TRAIT_COUNT]; // prompts
    int64_t finish[SD_FINISH_COUNT]; // of the reference's answers
    exact_drafted by[SD_MAX_DRAFTERS];
    int64_t looked_for, found;     // tokens of prompts, in the prefix cache
    int64_t hits, misses, in_page; // answers; in_page: hits that ended within a page
    int64_t forgotten, preemptions;
} exact_counts;

typedef struct {
    uint64_t seed;
    int64_t from, to;  // prompts that are compared
    const char *isa;   // NULL: the best
    const char *again; // how the program was called, for differences
} exact_range;

/// The prompts number * EXACT_GROUP and following, as far as they are in the range. What differs is
/// printed and counted.
sd_status exact_group_run(exact_counts *c, const exact_world *w, int64_t number,
                          const exact_range *range, sd_error *err);
