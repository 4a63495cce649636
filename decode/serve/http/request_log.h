// One line of the access log for each request that ended, however it ended. No prompt, no text, no
// key.
#pragma once

#include "decode/serve/http/access_log.h"

// Bytes, each with its 0: of a list of field names; of a user's name; of a model's, as far as it is kept.
enum { SD_LOG_NOTE = 256, SD_LOG_USER = 129, SD_LOG_MODEL = 257 };

// The owner's facts about a request, beside its connection's own. Zeroed: none.
typedef struct {
    // A copy, since an adapter may be gone before the line is written; "": it was not read.
    char model[SD_LOG_MODEL];
    uint64_t generation;    // of the adapter; 0: the base
    const char *finish;     // static
    char user[SD_LOG_USER]; // whom the client asked for; "": not said
    int prompt_tokens, completion_tokens;
    double ttft_ms;                                   // < 0: no token came
    char defaults[SD_LOG_NOTE], departs[SD_LOG_NOTE]; // lists of fields; empty: none
} sd_log_facts;

typedef struct {
    const char *id, *remote, *method, *path;
    const char *key;   // the ID of the API key; "": none that is known
    const char *trace; // W3C's traceparent; NULL: none
    int status;
    double ms;     // since it arrived
    int64_t bytes; // of the answer's body
    sd_log_facts facts;
} sd_logged;

void sd_log_request(sd_access_log *log, const sd_logged *r);
/// Is it a traceparent (W3C Trace Context, version 00 or a later one's beginning)?
bool sd_log_is_trace(const char *text);
