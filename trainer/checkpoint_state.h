// state.json of a checkpoint: one object with the fields of sd_train_state by name.
#pragma once

#include "trainer/checkpoint.h"

/// *text malloc'ed. n: parameters.
sd_status sd_train_state_write(char **text, const sd_train_state *s, size_t n, sd_error *err);
/// Every field must be there with its type. dir is for messages.
sd_status sd_train_state_read(sd_train_state *s, size_t *n, const char *text, const char *dir,
                              sd_error *err);
