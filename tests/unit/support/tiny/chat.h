// A model that is only a tokenizer and a template: what labelling needs.
#pragma once

#include "model/model.h"

/// 256 bytes, the merge "\n\n", and the special tokens <|s|> (bos), <|im_start|>, <|im_end|> (eos
/// and end of turn), <|tail|>. chat: the template's source, or NULL. normalizer: "NFC" or NULL. m
/// is filled, freed by tiny_chat_close.
void tiny_chat_open(sd_model *m, const char *chat, const char *normalizer);
void tiny_chat_close(sd_model *m);

extern const char tiny_chatml[]; // the usual ChatML template
