// What a chat template takes, and a conversation as it takes it: tools, calls and results in the history,
// later system turns.
//
// A template is tried out once, when its model is opened: conversations with marked texts are rendered, and
// what stands in the rendering was understood. What a template does not write is folded into what it does:
//
//     tools             a description in the first system turn, with the format's way to call them
//     a call            its text in the format, behind the assistant's content
//     a tool's result   a user's turn: <tool_response> ... </tool_response>
//     a system turn     where none is written at all, in front of the first user's turn
//     a later one       a user's turn
//
// A user's turn made so is joined with the user's turns beside it, by an empty line: many templates insist
// on turns that alternate. Several calls of one turn become turns of their own, each with its result, where a
// template takes one call a turn. The arguments of calls are objects, as Hugging Face's templates expect,
// or strings for those templates that put them out as they are; what is no JSON object becomes
// {"arguments": TEXT}. Ids are cut to their last nine letters and digits where a template insists on nine.
#pragma once

#include "model/dialogue/format.h"
#include "model/model.h"

typedef struct {
    sd_tool_format format;
    sd_think_style think;
    bool tools;          // it writes the tools
    bool history;        // it writes calls and results
    bool one_call;       // it takes one call a turn
    bool text_arguments; // arguments are put out as they are
    bool short_ids;      // ids have nine letters and digits
    bool args_marker;    // Mistral's newer form, with [ARGS]
    bool system, late_system;
    char before_close[4], behind_close[4]; // line breaks that it writes around </think>
    int32_t marker[SD_MAX_MARKERS]; // special tokens whose text the answer's machine must see
    int n_markers;
} sd_dialogue;

/// What t takes. format: -1 by the template, else that one; NONE: answers are content alone. Where nothing
/// renders, all is folded. SD_ENOMEM.
sd_status sd_dialogue_of(sd_dialogue *out, const sd_model *m, const sd_template *t, int format,
                         sd_error *err);

/// *out <- messages for the template; tools: what is offered (OpenAI's list), or NULL. The caller's. The
/// template is given tools only where d->tools. messages stay as they are; each has "role" and "content",
/// a string. SD_ENOMEM.
sd_status sd_dialogue_fold(json_t **out, const sd_dialogue *d, const json_t *messages,
                           const json_t *tools, sd_error *err);

/// Whether the answer to the prompt begins within reasoning: the template opened it.
bool sd_dialogue_in_reasoning(const sd_dialogue *d, const sd_tokenizer *t, const int32_t *id,
                              int n);

// Where an answer's text reasons, and the text that ends that.
typedef struct {
    const char *open, *close; // static
    bool again;               // more than once
    char forced[80];          // the closing mark with what the template writes around it
} sd_reasoning_marks;
/// False: the format has no reasoning. to_answer: an answer follows, not a call (harmony: the beginning of the one or
/// the other is forced, or it could reason again).
bool sd_dialogue_reasoning(sd_reasoning_marks *out, const sd_dialogue *d, bool to_answer);
