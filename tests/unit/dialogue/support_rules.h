// Grammars of answers with calls in tests: compiled by the way that a request takes, asked whether they let a
// text pass, and walked at random, as a model that knows nothing would.
#pragma once

#include "base/memory.h"
#include "model/dialogue/answer.h"
#include "model/dialogue/tool_grammar.h"
#include "tests/unit/support/tiny/chat.h"

extern sd_model rules_model; // a tokenizer of bytes
extern json_t *rules_tools;  // OpenAI's list

void rules_open(const char *tool_list);
void rules_close(void);
json_t *rules_function(json_t *list, size_t i);
/// Calls of any of the list's functions, in parallel.
sd_tool_rules rules_for(const sd_dialogue *d, const json_t *list, bool required);
/// As a text, and back. Fails the test where it does not compile; the caller's.
sd_grammar *rules_compile(const sd_tool_rules *r);
/// Likewise, or NULL and what is wrong.
sd_grammar *rules_try(const sd_tool_rules *r, sd_error *err);
/// Token by token: true when all of it passes and the answer may end there.
bool rules_pass(sd_grammar *g, const char *text);

// What the machine that reads answers makes of one.
typedef struct {
    char name[64][72];
    sd_buf arguments[64];
    int n;
    size_t content, reasoning; // bytes
    sd_buf text;               // the answer
    bool in_call;
} rules_found;
rules_found *rules_read(const char *text, size_t len, const sd_answer_options *o);
/// A random text of the grammar, read. *seed goes on.
rules_found *rules_walk(sd_grammar *g, const sd_answer_options *o, uint64_t *seed);
void rules_found_free(rules_found *f);
