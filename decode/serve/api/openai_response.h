// What goes back: completions, chunks of a stream, usage, timings and errors, as JSON text of
// OpenAI's shapes. Pure: no socket, no clock.
//
// A whole answer is written in slices (sd_whole), because with logprobs it may have hundreds of
// megabytes: what is kept meanwhile is 12 + 8 * top_logprobs bytes a token.
#pragma once

#include "decode/serve/api/json_text.h"
#include "decode/serve/api/openai_request.h"

// What all pieces of one answer share.
typedef struct {
    sd_api_kind kind;
    const char *id, *model;
    int64_t created;               // s since 1970
    const sd_tokenizer *tokenizer; // for logprobs; NULL: tokens are called by their ids
} sd_answer;

// prompt and cached tokens are those of each prompt once; generated is the sum over choices.
typedef struct {
    int prompt, generated, cached;
} sd_usage;

// ---- logprobs

/// Bytes of one token with `top` alternatives as they are kept.
size_t sd_logprobs_stride(int top);
/// Appends n tokens, each with `top` alternatives, in that form.
bool sd_logprobs_keep(sd_buf *kept, const sd_token_info *tokens, int n, int top);

// Where the tokens stand: as the engine gives them, or kept.
typedef struct {
    const sd_token_info *tokens; // NULL: kept
    const sd_buf *kept;
    int top; // alternatives of each kept token
    int n;
} sd_logprobs_source;

// How far they are written, and where their text stands. Zeroed is the beginning.
typedef struct {
    int part, at;
    int64_t offset; // characters of text before the next token (completions)
    sd_utf8_stream utf8;
} sd_logprobs_cursor;

/// Writes the logprobs as the endpoint wants them, {"content": [...]} or {"tokens": [...], ...},
/// until the text has `limit` bytes; true when they are whole. For the next message of a stream set
/// part and at to 0 and keep the rest.
///
/// A completion's alternatives have distinct keys: a token's text; "bytes:\xE2\x80" where that is
/// not UTF-8 or has a NUL; "token_id:7" where another token of the list has the same. The sampled
/// token is always among them. A chat's list holds the most probable, as asked.
bool sd_logprobs_write(sd_json_out *t, const sd_answer *a, const sd_logprobs_source *from,
                       sd_logprobs_cursor *c, size_t limit);

// ---- a stream

// One chunk. text NULL: no text; first: with the role (chat); finish SD_FINISH_NONE: not the last.
typedef struct {
    int index;
    bool first;
    const char *text;
    size_t len;
    const sd_logprobs_source *logprobs; // may be NULL
    sd_logprobs_cursor *cursor;         // with logprobs
    sd_finish finish;
    const sd_usage *usage;       // NULL: none
    bool usage_null;             // a chunk without usage says so: "usage": null
    const sd_request_stats *sum; // adds "metrics" and "timings"; NULL: none
} sd_chunk;

/// Appends a server-sent event: "data: <JSON on one line>\n\n".
void sd_chunk_write(sd_json_out *t, const sd_answer *a, const sd_chunk *c);
/// The event after the last choice's end when usage was asked for: no choices. Clients that did not
/// ask never see a chunk without a choice.
void sd_usage_chunk_write(sd_json_out *t, const sd_answer *a, const sd_usage *u);
/// An error as an event.
void sd_error_write(sd_json_out *t, const sd_api_error *e);

// ---- a whole answer

typedef struct {
    int index;
    const char *text; // valid UTF-8
    size_t len;
    bool has_logprobs;
    sd_logprobs_source logprobs;
    sd_finish finish;
} sd_whole_choice;

// How far a whole answer is written. Zeroed is the beginning.
typedef struct {
    int choice, part;
    size_t at; // of the choice's text
    sd_logprobs_cursor cursor;
} sd_whole;

/// Writes on until the text has at least `limit` bytes or the answer is whole, which is true then.
/// choice(ctx, i) gives the n choices, the same at every call.
bool sd_whole_write(sd_json_out *t, sd_whole *w, const sd_answer *a, int n,
                    sd_whole_choice (*choice)(const void *ctx, int i), const void *ctx,
                    const sd_usage *usage, const sd_request_stats *sum, size_t limit);

/// Adds the stats of one choice to the sum; times are those of the longest.
void sd_stats_add(sd_request_stats *sum, const sd_request_stats *s);
