// The body of /v1/chat/completions and /v1/completions: bytes in, a checked struct or an error that
// names the field out. Pure: no model, no clock, no I/O, so that it can be tested as a table and
// fuzzed.
//
// null means absent; unknown fields are ignored; a known field with a bad value or type is a 400
// that names it; what is known but not built (tools, structured output) is a 400 unless
// it is neutral, never silently ignored.
#pragma once

#include "decode/serve/api/request.h"

/// 0, or the status that is also in e: 400. On an error `out` is freed and zeroed.
int sd_api_request_parse(sd_api_request *out, sd_api_kind kind, const char *body, size_t len,
                         sd_api_error *e);
/// Of r->root, once r->max_tokens is known: what shapes the logits (openai_shaping.c).
bool sd_openai_shaping_parse(sd_api_request *r, sd_api_error *e);
