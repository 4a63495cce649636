// The provider in this process: models, an engine, and the thread that opens both and then steps.
#pragma once

#include "decode/serve/provider/models.h"
#include "decode/serve/provider/provider.h"

typedef struct {
    sd_models_options models;
    sd_engine_options engine;
    const sd_root
        *adapter_root; // adapters may be loaded later, below it; NULL: none may. Outlives it
    // On the provider's thread: it is ready, or has failed.
    void (*on_opened)(void *ctx);
    // Between steps; may wait for a front that is behind. May be NULL.
    void (*between_steps)(void *ctx);
    void *ctx; // of both
} sd_local_options;

/// What the engine is opened with: the options, with what a server adds to them.
sd_engine_options sd_local_engine_options(const sd_local_options *o);
/// Starts to open; the files are read on the provider's thread. The strings of o outlive it.
sd_status sd_local_open(sd_provider **out, const sd_local_options *o, sd_error *err);
/// No further step is begun; what is being opened ends early. Any thread.
void sd_local_stop(sd_provider *p);
/// Waits for the thread. Requests may still be there until it is closed.
void sd_local_join(sd_provider *p);
/// Its models, whose tokenizer turns text into tokens; NULL until it is ready.
sd_models *sd_local_models(sd_provider *p);
