// The hyperparameters of a GGUF file: the keys "<arch>.*", read with errors that name them.
#pragma once

#include "base/status.h"
#include "model/formats/gguf.h"

#include <stdbool.h>

typedef struct {
    const sd_gguf *g;
    const char *arch, *path;
    char key[160]; // the one last asked for
} sd_gguf_keys;

/// "<arch>.<leaf>", until the next call.
const char *sd_gguf_key(sd_gguf_keys *k, const char *leaf);
bool sd_gguf_keys_have(sd_gguf_keys *k, const char *leaf);

/// *out <- the key's value, or def where there is none. SD_EFORMAT: another type, beyond 2^31 - 1.
sd_status sd_gguf_int_or(sd_gguf_keys *k, const char *leaf, int def, int *out, sd_error *err);
sd_status sd_gguf_float_or(sd_gguf_keys *k, const char *leaf, float def, float *out, sd_error *err);
/// SD_EFORMAT where it is missing.
sd_status sd_gguf_need_int(sd_gguf_keys *k, const char *leaf, int *out, sd_error *err);
/// A number, or an array of the same number for every layer.
sd_status sd_gguf_int_all_layers(sd_gguf_keys *k, const char *leaf, int def, int *out,
                                 sd_error *err);
