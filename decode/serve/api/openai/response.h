// Answers: completions, chunks of a stream, usage, timings and errors, as JSON text of
// OpenAI's shapes. Pure: no socket, no clock.
//
// A whole answer is written in slices (sd_whole), because with logprobs it may have hundreds of
// megabytes: what is kept meanwhile is 12 + 8 * top_logprobs bytes a token.
#pragma once

#include "decode/serve/api/answer.h"

/// Writes the logprobs as the endpoint wants them, {"content": [...]} or {"tokens": [...], ...},
/// until the text has `limit` bytes; true when they are whole. For the next message of a stream set
/// part and at to 0 and keep the rest.
///
/// A completion's alternatives have distinct keys: a token's text; "bytes:\xE2\x80" where that is
/// not UTF-8 or has a NUL; "token_id:7" where another token of the list has the same. The sampled
/// token is always among them. A chat's list holds the most probable, as asked.
bool sd_logprobs_write(sd_json_out *t, const sd_answer *a, const sd_logprobs_source *from,
                       sd_logprobs_cursor *c, size_t limit);

/// The tokens from number `first` on, as a chat has them, with commas between; true when they are all there.
bool sd_logprobs_entries(sd_json_out *t, const sd_answer *a, const sd_logprobs_source *from,
                         int first, sd_logprobs_cursor *c, size_t limit);

// ---- a stream

/// Appends a server-sent event: "data: <JSON on one line>\n\n".
void sd_chunk_write(sd_json_out *t, const sd_answer *a, const sd_chunk *c);
/// The event after the last choice's end when usage was asked for: no choices. Clients that did not
/// ask never see a chunk without a choice.
void sd_usage_chunk_write(sd_json_out *t, const sd_answer *a, const sd_usage *u);
/// An error as an event.
void sd_error_write(sd_json_out *t, const sd_api_error *e, sd_stream_state *state);

// ---- a whole answer

/// Writes on until the text has at least `limit` bytes or the answer is whole, which is true then.
/// choice(ctx, i) gives the n choices, the same at every call.
bool sd_whole_write(sd_json_out *t, sd_whole *w, const sd_answer *a, int n,
                    sd_whole_choice (*choice)(const void *ctx, int i), const void *ctx,
                    const sd_usage *usage, const sd_request_stats *sum, size_t limit);
