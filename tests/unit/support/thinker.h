// A tiny model that reasons and calls tools, for tests of what a dialect makes of its answers.
#pragma once

#include "tests/unit/support/live.h"

// Fields of a request under which it reasons "Hm.", says "Yes." and ends: six tokens, two of them of reasoning.
#define THINKER_SAYS                                                                               \
    "\"temperature\":0,\"repetition_penalty\":100,\"logit_bias\":{\"288\":100,"                    \
    "\"289\":90,\"290\":80,\"291\":70,\"292\":60,\"287\":50}"

/// Its file; then options of s->o may be set before live_start_with.
void thinker_write(live *s);
/// A server of it. live_stop ends it.
void thinker_start(live *s);

/// The events of a stream as a list of their data, each of which says its name as its type; new. Aborts where one
/// stands under another name.
json_t *thinker_events(const char *stream);
