// The body of /v1/chat/completions and /v1/completions: bytes in, a checked struct or an error that
// names the field out. Pure: no model, no clock, no I/O, so that it can be tested as a table and
// fuzzed.
//
// null means absent; unknown fields are ignored; a known field with a bad value or type is a 400
// that names it; what is known but not built is a 400 unless it is neutral, never silently
// ignored.
#pragma once

#include "decode/serve/api/request.h"

/// The first half of what follows: the body is a JSON object, out->root. 0, or the status that is also in e.
int sd_api_request_begin(sd_api_request *out, sd_api_kind kind, const char *body, size_t len,
                         sd_api_error *e);
/// The second half: root, which another dialect may have written in this one's words, becomes the request.
int sd_api_request_finish(sd_api_request *r, sd_api_error *e);
/// 0, or the status that is also in e: 400. On an error `out` is freed and zeroed.
int sd_api_request_parse(sd_api_request *out, sd_api_kind kind, const char *body, size_t len,
                         sd_api_error *e);
/// The fields of r->root that shape the logits (shaping.c), once r->max_tokens is known.
bool sd_openai_shaping_parse(sd_api_request *r, sd_api_error *e);
/// What the answer is held to: response_format and its like, not yet compiled (constraint.c).
bool sd_openai_constraint_parse(sd_api_request *r, sd_api_error *e);
/// Its messages and template arguments (messages.c).
bool sd_openai_messages_parse(sd_api_request *r, sd_api_error *e);
/// A list of token ids, which may be empty, as the request's prompt (request.c).
bool sd_openai_ids_parse(sd_api_request *r, const char *key, sd_api_error *e);
/// The same of `list`, as an item's ids. An error says that it stands at `path` in the field (request.c).
bool sd_openai_item_ids(sd_api_prompt *item, const json_t *list, const char *field,
                        const char *path, sd_api_error *e);
/// What all requests say of their place in the queue (request.c).
bool sd_openai_queueing_parse(sd_api_request *r, sd_api_error *e);
/// What follows a first line of a system text that changes with each request: some agents put one there for
/// their billing. It says nothing to a model, and no request would find the prefix of the one before (messages.c).
const char *sd_openai_skip_volatile_line(const char *text, size_t *len);
/// A tool's name: 1 to SD_API_MAX_TOOL_NAME letters, digits, '_' or '-' (tools.c).
bool sd_openai_is_tool_name(const json_t *v);
/// Behind them: continue_final_message, add_generation_prompt (request.c).
bool sd_openai_turn_parse(sd_api_request *r, sd_api_error *e);
/// Behind them: tools, tool_choice, parallel_tool_calls, reasoning_effort (tools.c).
bool sd_openai_tools_parse(sd_api_request *r, sd_api_error *e);
/// The budget of its reasoning, under any of its names (tools.c).
bool sd_openai_reasoning_parse(sd_api_request *r, sd_api_error *e);
/// The tool_calls of message number `message`: each a function with a name and arguments (a string or an
/// object).
bool sd_openai_calls_check(const json_t *calls, size_t message, sd_api_error *e);
