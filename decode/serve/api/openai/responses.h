// OpenAI's Responses API: its body, read as request.h's (responses_request.c), and its answers (responses.c). Pure.
#pragma once

#include "decode/serve/api/dialect.h"

/// 0, or the status that is also in e; on an error `out` is zeroed.
int sd_responses_parse(sd_api_request *out, const char *body, size_t len, sd_api_error *e);
