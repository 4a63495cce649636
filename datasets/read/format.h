// A record becomes a conversation, a completion or a text, by its format.
//
//   messages    {"messages": [{"role", "content", ...}], "tools": [...], "system"}   as OpenAI's
//               chat; {"conversations": [{"from", "value"}]} is read as the same
//   alpaca      {"instruction", "input", "output"}, "system", "history", "tools" if there
//   completion  {"prompt", "completion"}: no chat template
//   text        {"text"}, or the whole of a .txt or .md file
//
// Lists may stand as JSON inside a string, as tables have them. A field that is null is absent. A
// field that would change what is learnt is honoured or refused by name (format_fields.c).
#pragma once

#include "datasets/read/reader.h"

#include <jansson.h>

typedef enum {
    SD_FORMAT_AUTO,
    SD_FORMAT_MESSAGES,
    SD_FORMAT_ALPACA,
    SD_FORMAT_COMPLETION,
    SD_FORMAT_TEXT
} sd_data_format;
#define SD_DATA_FORMATS "auto|messages|alpaca|completion|text"
enum { SD_MAX_MESSAGES = 4096 }; // of one conversation

typedef enum { SD_EXAMPLE_CHAT, SD_EXAMPLE_COMPLETION, SD_EXAMPLE_TEXT } sd_example_kind;

typedef struct {
    sd_example_kind kind;
    json_t *messages; // chat: array of {"role", "content", ...}, checked
    json_t *tools;    // chat: array or NULL
    json_t *kwargs;   // chat: the template's further variables, or NULL
    bool *unweighted; // chat: [messages] a turn that is not learnt: "weight": 0 and the like
    const char *list; // chat: the list's name in the record
    int added;        // chat: messages before those of the list: a system text beside it
    char *text;       // else: prompt and completion, or the text
    size_t prompt_len, len;
} sd_example;

/// Checks and converts. *format: SD_FORMAT_AUTO is replaced by what the record is; otherwise a
/// record of another format is an error that names both, so one variable kept over a file makes
/// `auto` unanimous. Errors name the field; the caller puts file and line before them. The example
/// is the caller's, freed by sd_example_free also after an error.
sd_status sd_example_make(sd_example *ex, const sd_record *rec, sd_data_format *format,
                          sd_error *err);
void sd_example_free(sd_example *ex);

const char *sd_format_name(sd_data_format f);
