// What goes back: completions, chunks of a stream, usage, timings and errors, as JSON values of
// OpenAI's shapes. Pure; every function returns NULL (or false) when out of memory.
#pragma once

#include "decode/serve/api_request.h"

// What all pieces of one answer share.
typedef struct {
    sd_api_kind kind;
    const char *id, *model;
    int64_t created; // s since 1970
} sd_answer;

/// {"error": {message, type, param, code}}
json_t *sd_error_json(const sd_api_error *e);

/// prompt and cached tokens are those of each prompt once; generated is the sum over choices.
json_t *sd_usage_json(int prompt, int generated, int cached);

/// Logprobs of n tokens as the endpoint wants them: {"content": [...]} or {"tokens": [...], ...}.
/// offset: characters of text before these tokens, advanced by them (completions).
json_t *sd_logprobs_json(sd_api_kind kind, const sd_token_info *tokens, int n,
                         const sd_tokenizer *tok, int64_t *offset);
/// Appends the lists of `more` to those of *to (both of sd_logprobs_json); takes both; *to may be
/// NULL.
bool sd_logprobs_append(json_t **to, json_t *more);

/// One choice of a complete answer. logprobs (taken) may be NULL.
json_t *sd_choice_json(sd_api_kind kind, int index, const char *text, size_t len, json_t *logprobs,
                       sd_finish finish);
/// The complete answer; takes choices (an array) and usage.
json_t *sd_answer_json(const sd_answer *a, json_t *choices, json_t *usage,
                       const sd_request_stats *sum);

/// One chunk of a stream. text NULL: no text; first: with the role (chat); finish SD_FINISH_NONE:
/// not the last. Takes logprobs and usage, which may be NULL.
json_t *sd_chunk_json(const sd_answer *a, int index, bool first, const char *text, size_t len,
                      json_t *logprobs, sd_finish finish, json_t *usage);
/// The chunk after the last choice's end when usage was asked for: no choices. Takes usage. Clients
/// that did not ask never see a chunk without a choice.
json_t *sd_usage_chunk_json(const sd_answer *a, json_t *usage);
/// Adds "metrics" and "timings" to an answer or to a stream's last chunk with a choice.
void sd_add_stats(json_t *v, const sd_request_stats *sum);

/// A server-sent event: "data: <JSON on one line>\n\n". Takes v; false when it is NULL.
bool sd_sse_frame(sd_buf *out, json_t *v);

/// Adds the stats of one choice to the sum; times are those of the longest.
void sd_stats_add(sd_request_stats *sum, const sd_request_stats *s);
