// What the readers of the two file forms (read_peft.c, read_gguf.c) share with adapter.c:
// they find factors and say where they lie, one function copies them into the memory form.
#pragma once

#include "model/adapter/adapter.h"

typedef struct {
    const char *name; // of the tensor, for messages
    sd_dtype dtype;   // F32, F16 or BF16
    int64_t rows, cols;
    const void *data; // NULL: not found
} sd_factor;

typedef struct {
    sd_factor a, b;
    float scale;
} sd_factor_pair;

/// From pairs [n_linears], the rows of B in the file's order. Refuses by the tensor's name:
/// a factor without its partner, shapes that do not fit the base, values that are not finite.
sd_status sd_adapter_build(sd_adapter **out, const sd_factor_pair *pairs, const char *path,
                           sd_model *base, bool interleaved, sd_error *err);

/// rank [n_linears] <- of such pairs, with the same checks but of the values.
sd_status sd_adapter_ranks_of(int *rank, const sd_factor_pair *pairs, const char *path,
                              const sd_model *base, sd_error *err);

/// What the file says of the model it was trained on; NULL: nothing.
typedef struct {
    const char *sha256, *sketch; // as text; the sketch: model/adapter/base_sketch.h
    size_t sha256_len, sketch_len;
} sd_base_record;

/// SD_EINVAL when it is another model than `base`, with both hashes and the measured difference.
/// The same model in another form or precision is taken, with a warning that says the same; any
/// other with any_base.
sd_status sd_adapter_check_base(sd_adapter *a, const sd_base_record *r, sd_model *base,
                                bool any_base, sd_error *err);

sd_status sd_adapter_read_peft(sd_adapter **out, const char *folder, sd_model *base, bool any_base,
                               sd_error *err);
/// Their ranks alone, from the headers.
sd_status sd_adapter_ranks_peft(int *rank, const char *folder, const sd_model *base, sd_error *err);
sd_status sd_adapter_ranks_gguf(int *rank, const char *path, const sd_model *base, sd_error *err);
sd_status sd_adapter_read_gguf(sd_adapter **out, const char *path, sd_model *base, bool any_base,
                               sd_error *err);
