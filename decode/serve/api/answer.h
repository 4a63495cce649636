// The parts of an answer, in whichever dialect it is written.
#pragma once

#include "decode/serve/api/json_text.h"
#include "decode/serve/api/request.h"

// Shared by all pieces of one answer.
typedef struct {
    sd_api_kind kind;
    const char *id, *model;
    uint64_t generation;           // of the adapter that answers; 0: the base
    int64_t created;               // s since 1970
    const sd_tokenizer *tokenizer; // for logprobs; NULL: tokens are called by their ids
    const sd_api_request *request; // its numbers and switches
} sd_answer;

// What was read of a request's prompts, in the place of answers.
typedef struct {
    const sd_decide *decide; // answered; NULL: vectors or ranks
    const sd_embed *embed;
    int width; // of a vector
    /// A vector [width], as the model gives it; valid until the next call.
    const float *(*vector)(void *ctx, int i);
    void *ctx;
    const double *score; // [n] of ranks: relevance, 0 to 1
    const int *order;    // [n] documents, the most relevant first
} sd_readings;

// prompt and cached tokens are those of each prompt once; generated and reasoning (part of it) are sums over
// choices.
typedef struct {
    int prompt, generated, cached;
    bool reasons; // the model's answers may reason
    int reasoning;
} sd_usage;

// ---- logprobs

/// Bytes of one token with `top` alternatives as they are kept.
size_t sd_logprobs_stride(int top);
/// Appends n tokens, each with `top` alternatives, in that form.
bool sd_logprobs_keep(sd_buf *kept, const sd_token_info *tokens, int n, int top);

// A list of tokens: as the engine gives them, or kept.
typedef struct {
    const sd_token_info *tokens; // NULL: kept
    const sd_buf *kept;
    int top; // alternatives of each kept token
    int n;
    int n_prompt; // the first of them are the prompt's
    int silent;   // of these the first, which stand in no text: a token that begins every prompt
} sd_logprobs_source;

/// Token i of them.
sd_token_info sd_logprobs_at(const sd_logprobs_source *from, int i);

// How far they are written, and where their text stands. Zeroed is the beginning.
typedef struct {
    int part, at;
    int64_t offset; // characters of text before the next token (completions)
    int32_t before; // the prompt's last token, plus 1; 0: none
    sd_utf8_stream utf8;
} sd_logprobs_cursor;

// ---- a stream

// What a chunk's text is. CALL: the name of the function that is called, without arguments yet.
typedef enum {
    SD_CHUNK_CONTENT,
    SD_CHUNK_REASONING,
    SD_CHUNK_CALL,
    SD_CHUNK_ARGUMENTS
} sd_chunk_kind;

// What a dialect remembers of a stream from chunk to chunk, where it does. Zeroed is the beginning.
typedef struct {
    int events;            // so far
    int block;             // the part of the answer in hand, from 0
    bool open;             // it has begun, and not ended
    sd_chunk_kind kind;    // what it is
    char id[32], name[72]; // of a call
    int first;             // token of the answer that it begins with
    sd_buf text;           // of it so far
    sd_buf done;           // what has ended, as JSON
} sd_stream_state;

// One chunk. text NULL: no text; first: with the role (chat); finish SD_FINISH_NONE: not the last.
typedef struct {
    int index;
    bool first;
    sd_chunk_kind kind;
    int call;            // of CALL and ARGUMENTS: which
    const char *call_id; // of CALL
    const char *text;
    size_t len;
    const sd_logprobs_source *logprobs; // may be NULL
    sd_logprobs_cursor *cursor;         // with logprobs
    const sd_logprobs_source
        *all; // of the choice so far, with those; NULL: the dialect does not keep them
    sd_stream_state *state; // of the choice
    sd_finish finish;
    bool calls; // with finish: there were calls
    const char *
        stop; // likewise: the stop string that ended it; NULL: none, or the dialect does not name it
    const sd_usage *usage;       // NULL: none
    bool usage_null;             // a chunk without usage says so: "usage": null
    const sd_request_stats *sum; // adds "metrics" and "timings"; NULL: none
} sd_chunk;

// ---- a whole answer

typedef struct {
    char id[32], name[72];
    sd_buf arguments; // JSON as the model wrote it
} sd_tool_call;

typedef struct {
    int index;
    const char *text; // valid UTF-8
    size_t len;
    const char *reasoning; // likewise
    size_t reasoning_len;
    const sd_tool_call *calls;
    int n_calls;
    bool has_logprobs;
    sd_logprobs_source logprobs;
    int first_content, content_end; // its text's tokens
    sd_finish finish;
    const char *stop; // the stop string that ended it; NULL: none, or the dialect does not name it
} sd_whole_choice;

// How far a whole answer is written. Zeroed is the beginning.
typedef struct {
    int choice, part, call;
    size_t at; // of the text in hand
    sd_logprobs_cursor cursor;
} sd_whole;

/// Adds the stats of one choice to the sum; times are those of the longest.
void sd_stats_add(sd_request_stats *sum, const sd_request_stats *s);
