// The answers that a request with tools allows, as a grammar: calls that must come, and arguments that keep to
// their schemas. Likewise what a request without tools holds an answer to, behind its reasoning.
//
//     sd_tool_rules r = {.d = d, .t = tokenizer, .tools = tools, .only = -1, .required = true};
//     int answer = sd_gb_tool_answer(b, &r, err);
//     SD_TRY(sd_grammar_compile(&g, b, answer, vocab, err));
//
// Markers that are special tokens are those tokens; calls have one spelling, which the answer's machine
// (answer.h) reads. In front of calls there may be reasoning, where the model reasons.
#pragma once

#include "model/dialogue/dialogue.h"
#include "model/grammar/schema/cache.h"

typedef struct {
    const sd_dialogue *d;
    const sd_tokenizer *t;
    const json_t *tools; // OpenAI's list; only read during the call
    int only;            // the one that must be called; -1: any of them
    bool required;       // calls and nothing else, at least one; else text with calls or none
    bool parallel;       // more than one call
    bool in_reasoning;   // the prompt ended within the reasoning
    sd_grammar_spec
        form; // what the answer is behind its reasoning; SD_GRAMMAR_NONE: text and calls
} sd_tool_rules;

/// *out <- the rules as a text, which a tokenizer alone turns into the grammar again; the caller's. SD_ENOMEM.
sd_status sd_tool_rules_write(char **out, const sd_tool_rules *r, sd_error *err);
/// sd_gb_tool_answer of such a text (a sd_grammar_calls_fn), with the check of an answer: it is read as the client will get
/// it, and its calls of strict functions, or what is not reasoning, are held against their schemas.
int sd_gb_tool_rules(sd_grammar_builder *b, const sd_tokenizer *t, const char *text, size_t len,
                     sd_error *err);

/// Whether there are such grammars for a format. A call of harmony's ends with an end token, so that it ends the
/// answer, which has one call.
bool sd_tool_grammar_has(sd_tool_format f);
/// The answer as an expression, or -1: err says why, unless compiling does. The arguments of a function with "strict": true
/// keep to its parameters; those of others are any object. Where calls may come, those of strict functions that have no
/// marker are held to the grammar where they are the whole answer, spelled as sd_tool_bare_calls says.
int sd_gb_tool_answer(sd_grammar_builder *b, const sd_tool_rules *r, sd_error *err);
/// Makes that check the builder's.
sd_status sd_gb_check_answer(sd_grammar_builder *b, const sd_tool_rules *r, sd_error *err);

/// Whether the arguments of a finished call keep to the schema of the tool that it names: SD_OK, also where that is not
/// strict or none of the tools; SD_EMISMATCH says what is wrong.
sd_status sd_tool_call_check(const json_t *tools, const char *name, const char *arguments,
                             size_t len, sd_error *err);
