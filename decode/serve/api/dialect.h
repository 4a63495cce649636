// A dialect: how requests and answers look on the wire. Whoever carries a generation through its life
// calls these and knows no JSON; a route says which dialect its clients speak.
#pragma once

#include "decode/serve/api/answer.h"

// A prompt that was read, for those requests that ask for no more.
typedef struct {
    const sd_api_request *request;
    const sd_tokenizer *tokenizer; // NULL: the model has none
    const int32_t *id;             // [n]
    int n, ctx;                    // ctx: positions that a prompt with its answer may have
} sd_read_prompt;

typedef struct {
    sd_api_kind kind;         // messages through the model's template, or prompts as they are
    const char *id_prefix;    // of an answer's id
    const char *call_prefix;  // of a call's
    const char *prompt_field; // whose fault a bad prompt is
    /// A body becomes a request; 0, or the status that is also in e. On an error `out` is zeroed.
    int (*parse)(sd_api_request *out, const char *body, size_t len, sd_api_error *e);
    const char *whole_type, *stream_type; // content types
    const char *stream_end;               // what the last event says
    bool opens_choices;  // a stream's choice begins with a chunk that says whose it is
    bool names_stop;     // an answer says which stop string ended it
    bool keeps_logprobs; // a stream says them again at its end
    /// The whole answer to a request that only reads its prompt; on a worker's thread. NULL: a model answers,
    /// and what follows is there.
    void (*read)(sd_json_out *t, const sd_read_prompt *p);
    /// The answer to a request whose prompts are read by a model that says nothing: it writes on until the text has at
    /// least `limit` bytes or is whole, which is true then. NULL: the model says an answer, and what follows is there.
    bool (*readings)(sd_json_out *t, sd_whole *w, const sd_answer *a, const sd_readings *r,
                     const sd_usage *usage, size_t limit);
    // As in api/openai/response.h.
    void (*chunk)(sd_json_out *t, const sd_answer *a, const sd_chunk *c);
    void (*usage)(sd_json_out *t, const sd_answer *a, const sd_usage *u);
    /// state: of the first choice; NULL: none has begun.
    void (*error)(sd_json_out *t, const sd_api_error *e, sd_stream_state *state);
    bool (*whole)(sd_json_out *t, sd_whole *w, const sd_answer *a, int n,
                  sd_whole_choice (*choice)(const void *ctx, int i), const void *ctx,
                  const sd_usage *usage, const sd_request_stats *sum, size_t limit);
} sd_dialect;

extern const sd_dialect sd_openai_chat, sd_openai_completion, sd_openai_tokenize,
    sd_openai_detokenize, sd_openai_responses;
extern const sd_dialect sd_anthropic_messages, sd_anthropic_count;
extern const sd_dialect sd_systemone, sd_openai_decisions, sd_openai_embeddings, sd_rerank;

/// An error as Anthropic's API writes it, as sd_error_json does as OpenAI's.
json_t *sd_anthropic_error_json(const sd_api_error *e);
