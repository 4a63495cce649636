// Tokens and what is supervised of them.
//
// The chat template says which text an assistant wrote; no marker is guessed. For turn i
//
//     prompt = render(messages[0..i), with the generation prompt)
//     whole  = render(messages[0..i])
//
// and the turn is the text of `whole` beyond `prompt`, up to its last end-of-turn token. ChatML
// writes a newline behind that token: a model never writes it, and learning it makes a loss look
// lower than it is. A template without such a token ends its turns with text, which is learnt.
//
// The tokens are those of the whole conversation's rendering. A token is supervised when all its
// bytes belong to such a turn. A token that straddles the edge holds the last bytes of the prompt
// as well; it is not supervised, because no prompt of serving time would end inside it.
#pragma once

#include "datasets/read/format.h"
#include "model/model.h"

typedef enum { SD_LOSS_ASSISTANT, SD_LOSS_LAST, SD_LOSS_ALL } sd_loss_on;
#define SD_LOSS_ON "assistant|last|all"
typedef struct {
    const sd_model *model; // its tokenizer, template and end tokens
    sd_loss_on loss_on;
    bool train_on_eot;
    bool template_tail; // as version 0.4 had it: with what follows the end-of-turn token
} sd_label_options;

/// Tokens of one example. Zeroed is a valid empty one; freed by sd_labelled_free.
typedef struct {
    sd_ids ids;
    uint8_t *supervised; // [ids.n] 0 or 1
    int cap;             // of supervised
    int64_t n_supervised;
    // scratch, kept between examples
    sd_buf full, prompt, whole;
} sd_labelled;

/// Replaces what `out` held. SD_EINVAL when a template is needed and the model has none;
/// SD_EFORMAT when the template does not render a conversation's beginning as the beginning of the
/// conversation, so that the answer cannot be told from the prompt. Thread-safe over different
/// `out`.
sd_status sd_label_example(sd_labelled *out, const sd_example *ex, const sd_label_options *o,
                           sd_error *err);
void sd_labelled_free(sd_labelled *l);
