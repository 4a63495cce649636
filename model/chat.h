// Conversations with a template that is not in the model's files: from a file of the user's, or one
// that an adapter was trained with.
//
//     sd_template *t;
//     SD_TRY(sd_chat_template_read(&t, "chatml.jinja", err));
//     SD_TRY(sd_model_take_template(m, t, err)); // before anything else uses m
#pragma once

#include "model/model.h"

/// A template out of a Jinja file; the caller closes it. Refused with the file's name: what cannot be
/// read or parsed (SD_ENOTFOUND, SD_EINVAL, SD_EFORMAT, SD_ELIMIT), and what does not render a user's
/// message into text that holds it (SD_EFORMAT).
sd_status sd_chat_template_read(sd_template **out, const char *path, sd_error *err);

/// t takes the place of the model's template, and is the model's from now on, also after an error. Where
/// it ends an answer, generation ends too. A model is immutable once it is shared: to be called before.
sd_status sd_model_take_template(sd_model *m, sd_template *t, sd_error *err);
/// The model's template is one that was taken: it does not stand in the model's files.
bool sd_model_template_is_taken(const sd_model *m);

/// *out <- where t ends an answer: the first special token that it writes behind one; -1 where it
/// writes none.
sd_status sd_template_end_token(int32_t *out, const sd_model *m, const sd_template *t,
                                sd_error *err);

/// Behind the message of a rendering that failed: that a message without a content has tool calls,
/// which the template does not write. Nothing where no message is so.
void sd_chat_explain(sd_error *err, const sd_template *t, const json_t *messages);

// How a conversation's prompt ends.
typedef enum {
    SD_CHAT_ENDS,    // behind the last message
    SD_CHAT_ANSWERS, // with the beginning of the assistant's turn
    SD_CHAT_GOES_ON  // with the last message's text, an assistant's, which the answer goes on with
} sd_chat_end;

typedef struct {
    sd_chat_end end;
    bool guarded; // the messages' texts went through sd_tokenizer_guard
} sd_chat_form;

/// sd_model_chat_ids_within by the template t. SD_EINVAL where a template does not write the text that is to go on.
sd_status sd_template_chat_ids(const sd_model *m, const sd_template *t, const json_t *messages,
                               const json_t *tools, const json_t *extra, sd_chat_form form,
                               const sd_template_bounds *bounds, sd_ids *out, sd_error *err);
