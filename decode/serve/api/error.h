// The error that a request is refused with: filled where something is wrong, sent by whoever answers.
#pragma once

#include <jansson.h>

// OpenAI's error object, with the HTTP status it goes with.
typedef struct {
    int status;       // 0: no error
    const char *type; // "invalid_request_error", ...; static
    const char *code; // NULL or static
    double retry_s;   // of a 429 or 503: when a retry may be admitted; 0: at once, or not known
    char param[96];   // "" when no field is to blame
    char message[640];
} sd_api_error;

/// Fills e and returns its status. param may be NULL.
int sd_api_fail(sd_api_error *e, int status, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/// {"error": {message, type, param, code}}; NULL when out of memory.
json_t *sd_error_json(const sd_api_error *e);
