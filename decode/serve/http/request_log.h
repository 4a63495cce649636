// One line of the access log for each request that ended, however it ended. No prompt, no text, no
// key.
#pragma once

#include "decode/serve/http/access_log.h"

enum { SD_LOG_NOTE = 256 }; // bytes of a list of field names, with its 0

// The owner's facts about a request, beside its connection's own. Zeroed: none.
typedef struct {
    const char *model, *finish; // static or the owner's; model NULL: it was not read
    uint64_t generation;        // of the adapter; 0: the base
    int prompt_tokens, completion_tokens;
    double ttft_ms;                                   // < 0: no token came
    char defaults[SD_LOG_NOTE], departs[SD_LOG_NOTE]; // lists of fields; empty: none
} sd_log_facts;

typedef struct {
    const char *id, *remote, *method, *path;
    int status;
    double ms;     // since it arrived
    int64_t bytes; // of the answer's body
    sd_log_facts facts;
} sd_logged;

void sd_log_request(sd_access_log *log, const sd_logged *r);
