// Inside the formats: how a field is read, and which fields decide what is learnt.
#pragma once

#include "datasets/read/format.h"

/// The field's value; NULL when it is absent or null, which is the same everywhere.
const json_t *sd_field(const json_t *object, const char *name);
const char *sd_type_word(const json_t *j); // "a string", "missing", ...
/// The value itself, or what a string holds as JSON, as tables have it. *inside: what the caller
/// frees. SD_EFORMAT unless the result is an array.
sd_status sd_want_array(const json_t **out, json_t **inside, const json_t *value, const char *field,
                        sd_error *err);
/// SD_EFORMAT when the tree holds a number that does not fit in 64 bits.
sd_status sd_refuse_odd_numbers(const json_t *tree, const char *field, sd_error *err);

/// Refuses, by name and with the remedy, every field of the record that would change the prompt or
/// what is learnt of it and that this format does not honour.
sd_status sd_check_record_fields(const json_t *rec, sd_data_format format, sd_error *err);
/// The fields of one message that say whether it is learnt. They are taken out of it, so no
/// template sees them. `where` names the message.
sd_status sd_take_weights(json_t *message, bool assistant, const char *where, bool *unweighted,
                          sd_error *err);

/// {"messages"} and {"conversations"}.
sd_status sd_make_messages(sd_example *ex, const json_t *rec, sd_error *err);
/// tools or functions, in any spelling, into ex->tools; chat_template_kwargs into ex->kwargs.
sd_status sd_take_tools(sd_example *ex, const json_t *rec, sd_error *err);
