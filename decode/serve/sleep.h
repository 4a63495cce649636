// Sleeping: the memory of weights is given back while nobody asks, and the next request wakes the engine.
#pragma once

#include "decode/serve/http/connection.h"

typedef struct sd_server sd_server;
typedef struct sd_sleep_call sd_sleep_call;

void sd_sleep(sd_conn *c);       // POST /sleep
void sd_sleep_wake(sd_conn *c);  // POST /wake_up
void sd_sleep_state(sd_conn *c); // GET /is_sleeping

/// Calls that were not done when the workers were closed; nobody may wait for them.
void sd_sleep_free_calls(sd_server *s);
