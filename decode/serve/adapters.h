// Adapters while the server runs: routes that load, replace and unload them, and the list of them.
//
// A load is read, verified and packed on a worker's thread, one at a time in the order in which they came; then
// the name means the new generation, in one step of the event loop. Requests that were read before end on the
// old one, which is unloaded when the last of them has ended. A load that fails changes nothing.
#pragma once

#include "decode/serve/http/connection.h"

typedef struct sd_server sd_server;
typedef struct sd_adapter_call sd_adapter_call;
typedef struct sd_served_model sd_served_model;

void sd_adapters_load(sd_conn *c);   // POST /v1/load_lora_adapter
void sd_adapters_unload(sd_conn *c); // POST /v1/unload_lora_adapter
void sd_adapters_list(sd_conn *c);   // GET /v1/lora_adapters

/// A request has ended that held the model.
void sd_adapters_let_go(sd_server *s, sd_served_model *m);
/// Loads that were not done when the workers were closed; nobody may wait for them.
void sd_adapters_free_calls(sd_server *s);
