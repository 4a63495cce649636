// How models of one family write tool calls and reasoning into their answers: the formats, by name and
// by the markers that a chat template shows.
//
//     hermes       <tool_call>{"name": "f", "arguments": {...}}</tool_call>         Qwen 2.5, Qwen 3, Hermes;
//                  the object alone, or in ```json, where it names a tool: Qwen 2.5 Coder
//     qwen3-coder  <tool_call><function=f><parameter=p>value</parameter></function></tool_call>
//     llama3       {"name": "f", "parameters": {...}}, behind <|python_tag|> or as the whole answer
//     mistral      [TOOL_CALLS][{"name": "f", "arguments": {...}}], [TOOL_CALLS]f[ARGS]{...}
//     gemma        ```tool_code with f(p=1), or with {"name": "f", "parameters": {...}}
//     phi4         <|tool_call|>[{"name": "f", "arguments": {...}}]<|/tool_call|>, functools[...]
//     harmony      <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
//
// A template that shows no marker is served in hermes, and one with Gemma's turns in gemma: the tools are then
// described in the system turn (dialogue.h).
#pragma once

#include <stdbool.h>
#include <stddef.h>

// clang-format off
#define SD_TOOL_FORMAT_LIST(X)                                                                     \
    X(NONE, "none") X(HERMES, "hermes") X(QWEN3_CODER, "qwen3-coder") X(LLAMA3, "llama3")          \
    X(MISTRAL, "mistral") X(GEMMA, "gemma") X(PHI4, "phi4") X(HARMONY, "harmony")
#define SD_TOOL_FORMAT_ENUM(name, word) SD_TOOL_##name,
typedef enum { SD_TOOL_FORMAT_LIST(SD_TOOL_FORMAT_ENUM) SD_TOOL_FORMAT_COUNT } sd_tool_format;
#undef SD_TOOL_FORMAT_ENUM
// clang-format on
#define SD_TOOL_FORMAT_WORDS "auto|none|hermes|qwen3-coder|llama3|mistral|gemma|phi4|harmony"

const char *sd_tool_format_name(sd_tool_format f);
/// Its number, or -1 for a word that is none.
int sd_tool_format_find(const char *word);

// A call without its format's marker: open, the name, middle, the arguments, close.
typedef struct {
    const char *open, *middle, *close;
} sd_bare_call;
/// How models of a format write one as their whole answer: *out [the number of them], static.
int sd_tool_bare_calls(const sd_bare_call **out, sd_tool_format f);

// How reasoning stands in an answer, harmony's analysis channel apart.
typedef enum { SD_THINK_NONE, SD_THINK_TAGS, SD_THINK_BRACKETS } sd_think_style;
typedef struct {
    const char *open, *close; // "<think>" and "</think>", "[THINK]" and "[/THINK]"; NULL: none
} sd_think_marks;
sd_think_marks sd_think_marks_of(sd_think_style style);

/// What the source of a chat template shows; NONE: no marker of a format above.
sd_tool_format sd_tool_format_of_template(const char *source);
sd_think_style sd_think_style_of_template(const char *source);

enum { SD_MAX_MARKERS = 16 };
/// The markers of a format that may be special tokens, which an answer's text leaves out unless they are
/// asked for. out [SD_MAX_MARKERS]; the number of them.
int sd_tool_markers(const char **out, sd_tool_format f, sd_think_style style);
