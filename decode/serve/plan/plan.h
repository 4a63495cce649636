// What serving will take, part by part, before anything is loaded: from the headers of the files and the
// options.
//
// The parts are the engine's (SD_ENGINE_MEMORY_LIST), which counts them by the sizes that it takes
// them by, and those of the models and of the HTTP front. A part that grows is counted at its bound, which
// serving keeps to. /metrics has most of the parts as they are now, under the same keys.
#pragma once

#include "decode/serve/serve.h"

// X(key, grows, words): the parts that are not the engine's.
// clang-format off
#define SD_SERVE_MEMORY_LIST(X)                                                                    \
    X(adapter_factors, false, "adapters' factors")                                                 \
    X(indexes, false, "corpus indexes")                                                            \
    X(program, false, "program, vocabulary, templates (measured)")                                 \
    X(adapters_to_come, true, "adapters loaded while serving, packed too")                         \
    X(grammars, true, "grammars and schemas, compiled")                                            \
    X(request_bodies, true, "request bodies, unread answers")                                      \
    X(requests, true, "requests in the queue and in slots")                                        \
    X(answers, true, "answers that are being made")                                                \
    X(readers, true, "bodies while they are parsed")                                               \
    X(sockets, true, "sockets and their heads")                                                    \
    X(outbox, true, "tokens on their way to sockets")
// clang-format on

enum { SD_PLAN_ROWS = 32 };
typedef struct {
    const char *key, *part;
    size_t bytes;
    bool grows; // taken as it is needed, at most so much; else when the server opens
} sd_serve_plan_row;

typedef struct {
    sd_serve_plan_row row[SD_PLAN_ROWS]; // [n] in the order in which they are printed
    int n;
    size_t start, most; // sums: of what is taken when the server opens, and of all
    size_t available;   // that the machine and the cgroups leave; 0: not known, or a part of the
                        // rows lies in a device's memory, which has its own bound
    size_t mapped;      // bytes of files that are read while loading, of which a part stays mapped
    int sockets;
    sd_engine_memory_plan engine;
    size_t
        kv_position[SD_KV_TYPES]; // bytes of one position in all layers without a window; by type
} sd_serve_plan;

/// Reads headers, vocabulary and templates; no weight. Errors are those of sd_serve that headers tell.
sd_status sd_serve_plan_make(sd_serve_plan *out, const sd_serve_options *o, sd_error *err);
/// The options that bring most where the plan does not fit, as text; NULL where it fits, or where it is not
/// known what is available.
const char *sd_serve_plan_remedy(const sd_serve_plan *p);
