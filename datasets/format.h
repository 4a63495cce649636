// What a record means: one of the formats, turned into a conversation, a completion or a text.
//
//   messages    {"messages": [{"role", "content", ...}], "tools": [...]}   as OpenAI's chat;
//               {"conversations": [{"from", "value"}]} is read as the same
//   alpaca      {"instruction", "input", "output"}, "system" if there
//   completion  {"prompt", "completion"}: no chat template
//   text        {"text"}, or the whole of a .txt or .md file
#pragma once

#include "datasets/dataset.h"
#include "datasets/reader.h"

enum { SD_MAX_MESSAGES = 4096 }; // of one conversation

typedef enum { SD_EXAMPLE_CHAT, SD_EXAMPLE_COMPLETION, SD_EXAMPLE_TEXT } sd_example_kind;

typedef struct {
    sd_example_kind kind;
    json_t *messages; // chat: array of {"role", "content", ...}, checked
    json_t *tools;    // chat: array or NULL
    bool *unweighted; // chat: [messages] an assistant turn with "weight": 0, as OpenAI's format has
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
