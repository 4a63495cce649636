// Texts by a rule: what a prompt asks for, and what an answer is held to.
#pragma once

#include "model/grammar/schema/cache.h"
#include "tests/e2e/exact/dice.h"

/// Appends what stands before every question of a conversation, and a question: a record to be made
/// JSON, code to be changed, a text to be summed up, a chat. False: no memory.
bool exact_text_system(sd_buf *out, dice *d);
bool exact_text_question(sd_buf *out, dice *d);
/// Ends a turn and begins the answer's.
extern const char exact_text_answer[], exact_text_next[];

/// Appends the text of a constraint of this kind (schema, regex or choice); false: no memory.
bool exact_text_constraint(sd_buf *out, dice *d, sd_grammar_kind kind);
/// Appends a list of functions as OpenAI has it.
bool exact_text_tools(sd_buf *out, dice *d);
