// The making of an answer's grammar: tool_grammar.c (reasoning, text, calls, in each format),
// tool_parameters.c (arguments: JSON, or qwen3-coder's tags).
#pragma once

#include "model/dialogue/tool_grammar.h"

enum { SD_RULES_TOOLS = 128 };

typedef struct {
    sd_grammar_builder *b;
    const sd_tool_rules *r;
    sd_error *err; // what the builder does not know
    // Made once, however many calls use them: each use is a reference to a rule.
    int arguments[SD_RULES_TOOLS], any, text; // -1: not made yet
} sd_tool_maker;

/// The arguments of tool i: JSON; in qwen3-coder its parameters as tags.
int sd_tool_arguments(sd_tool_maker *m, int i);

static inline const json_t *sd_rules_function(const sd_tool_maker *m, int i) {
    return json_object_get(json_array_get(m->r->tools, (size_t)i), "function");
}
static inline const char *sd_rules_name(const sd_tool_maker *m, int i) {
    const char *s = json_string_value(json_object_get(sd_rules_function(m, i), "name"));
    return s ? s : "";
}
static inline bool sd_rules_strict(const sd_tool_maker *m, int i) {
    return json_is_true(json_object_get(sd_rules_function(m, i), "strict"));
}
