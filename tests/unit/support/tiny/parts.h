// What the files of the tiny model share: hyperparameters and tokenizer in both formats, and what
// an architecture has.
#pragma once

#include "model/formats/gguf_write.h"
#include "tests/unit/support/tiny/model.h"

#include <jansson.h>

enum { SD_TINY_MERGES = 29, SD_TINY_TOKENS = 256 + SD_TINY_MERGES + 3 };
extern const char *const sd_tiny_specials[3];

bool sd_tiny_is(const sd_tiny_model *t, const char *arch);

// ---- keys.c

sd_status sd_tiny_put_keys(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err);
json_t *sd_tiny_config_json(const sd_tiny_model *t);

/// What a GGUF file holds as tensors of its own: divisors of the rotary frequencies.
typedef struct {
    const char *name;
    int n;
    float v[256];
} sd_tiny_rope_tensor;
int sd_tiny_rope_tensors(sd_tiny_rope_tensor out[2], const sd_tiny_model *t);

// ---- tokenizer.c

sd_status sd_tiny_put_tokenizer(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err);
json_t *sd_tiny_tokenizer_json(void);
const char *sd_tiny_template(const sd_tiny_model *t); // NULL: none
