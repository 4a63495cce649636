// An answer's text, piece by piece, to what a client is told: content, reasoning and tool calls.
//
// One incremental machine for all formats (format.h). The deltas of an answer, joined, do not depend on
// where its pieces were cut. Text that could still become a marker is held back, at most the marker's
// length, beside white space in front of it. What does not turn out to be a call is content,
// byte for byte: a name that is missing, an object that is none, a call without an end of its head.
// Once a call's name and the beginning of its arguments are read, the call has begun; its arguments are
// then passed on as the model writes them, whatever they are, as in OpenAI's API.
//
// White space is dropped between a call or the reasoning and what follows it, and in front of the first.
//
//     sd_answer_parser *p;
//     SD_TRY(sd_answer_parser_open(&p, &(sd_answer_options){.format = f, .calls = true}, on_delta, ctx, err));
//     sd_answer_parser_add(p, text, len);     // as often as there is text
//     sd_answer_parser_end(p);                // what was held back
//     sd_answer_parser_close(p);
#pragma once

#include "base/status.h"
#include "model/dialogue/format.h"

#include <jansson.h>

typedef enum {
    SD_DELTA_CONTENT,
    SD_DELTA_REASONING,
    SD_DELTA_CALL,
    SD_DELTA_ARGUMENTS
} sd_delta_kind;

typedef struct {
    sd_delta_kind kind;
    int call;         // of CALL and ARGUMENTS: which, from 0 on
    const char *text; // CALL: the function's name; ARGUMENTS: a piece of JSON text
    size_t len;
} sd_delta;

/// False: there is no memory for it; the machine stops.
typedef bool (*sd_delta_fn)(void *ctx, const sd_delta *delta);

typedef struct {
    sd_tool_format format;
    sd_think_style think;
    bool calls;        // calls are looked for; false: they are content
    bool in_reasoning; // the prompt ended within the reasoning
    bool
        held; // the answer is held to the grammar of tool_grammar.h: calls of strict tools in forms
              // that it does not hold are content
    int max_calls; // further ones are left out; 0: any number
    const json_t *
        tools; // OpenAI's list, borrowed: names of calls without a marker, types of values; may be NULL
} sd_answer_options;

typedef struct sd_answer_parser sd_answer_parser;

sd_status sd_answer_parser_open(sd_answer_parser **out, const sd_answer_options *o, sd_delta_fn fn,
                                void *ctx, sd_error *err);
void sd_answer_parser_close(sd_answer_parser *p); // NULL is fine
/// False once memory was short or the callback said so. text: complete UTF-8.
bool sd_answer_parser_add(sd_answer_parser *p, const char *text, size_t len);
bool sd_answer_parser_end(sd_answer_parser *p);
int sd_answer_parser_calls(const sd_answer_parser *p); // calls that have begun and were told
/// Whether the answer so far ends within the last call's arguments.
bool sd_answer_parser_in_call(const sd_answer_parser *p);

enum {
    SD_ANSWER_KEY = 256, // bytes of a parameter's name
    SD_ANSWER_HELD = 16 * 1024,
    SD_ANSWER_VALUE = 256 * 1024
}; // bytes held back: of a call's head, of a value
