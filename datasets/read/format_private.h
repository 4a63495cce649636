// The parts of the formats, from below: which format a record is of, which of its fields are
// honoured, conversations.
#pragma once

#include "datasets/read/format.h"

// ---- format_detect.c

/// *format: SD_FORMAT_AUTO is replaced by what the record is; SD_EFORMAT when it is of another.
sd_status sd_settle_format(const sd_record *rec, sd_data_format *format, sd_error *err);

// ---- format_fields.c

/// Refuses, by name and with the remedy, every field of the record that would change the prompt or
/// what is learnt of it and that this format does not honour.
sd_status sd_check_record_fields(const json_t *rec, sd_data_format format, sd_error *err);
/// The fields of one message that say whether it is learnt. They are taken out of it, so no
/// template sees them. `where` names the message.
sd_status sd_take_weights(json_t *message, bool assistant, const char *where, bool *unweighted,
                          sd_error *err);

// ---- format_chat.c

/// {"messages"} and {"conversations"}.
sd_status sd_make_messages(sd_example *ex, const json_t *rec, sd_error *err);
/// tools or functions, in any spelling, into ex->tools; chat_template_kwargs into ex->kwargs.
sd_status sd_take_tools(sd_example *ex, const json_t *rec, sd_error *err);
