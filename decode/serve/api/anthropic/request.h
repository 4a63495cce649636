// The body of /v1/messages and /v1/messages/count_tokens: as api/openai/request.h has it of OpenAI's. Pure.
#pragma once

#include "decode/serve/api/request.h"

/// counts: the prompt alone is asked for. 0, or the status that is also in e; on an error `out` is zeroed.
int sd_anthropic_parse(sd_api_request *out, bool counts, const char *body, size_t len,
                       sd_api_error *e);
