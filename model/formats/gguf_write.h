// Writing a GGUF file: metadata first, then tensors in the order of their declaration. The file
// replaces another atomically (base/files/replace.h).
//
//     SD_TRY(sd_gguf_writer_open(&w, path, err));
//     SD_TRY(sd_gguf_put_str(w, "general.architecture", "llama", err));
//     SD_TRY(sd_gguf_declare(w, "output.weight", SD_F32, 2, (int64_t[]){K, M}, err));
//     SD_TRY(sd_gguf_write_tensor(w, data, bytes, err));
//     st = sd_gguf_writer_commit(w, err);
#pragma once

#include "model/formats/gguf.h"

typedef struct sd_gguf_writer sd_gguf_writer;
sd_status sd_gguf_writer_open(sd_gguf_writer **out, const char *path, sd_error *err);
sd_status sd_gguf_put_str(sd_gguf_writer *w, const char *key, const char *value, sd_error *err);
sd_status sd_gguf_put_f32(sd_gguf_writer *w, const char *key, float value, sd_error *err);
sd_status sd_gguf_put_raw(sd_gguf_writer *w, const char *key, sd_gguf_type type, const void *value,
                          size_t bytes, sd_error *err);
// For tests: an adapter needs neither.
sd_status sd_gguf_put_u32(sd_gguf_writer *w, const char *key, uint32_t value, sd_error *err);
sd_status sd_gguf_put_bool(sd_gguf_writer *w, const char *key, bool value, sd_error *err);
sd_status sd_gguf_declare(sd_gguf_writer *w, const char *name, sd_dtype dtype, int n_dims,
                          const int64_t *ne, sd_error *err);
/// The next declared tensor's bytes, all of them; the first call writes the header.
sd_status sd_gguf_write_tensor(sd_gguf_writer *w, const void *data, size_t bytes, sd_error *err);
sd_status sd_gguf_writer_commit(sd_gguf_writer *w, sd_error *err); // frees w, whatever happens
void sd_gguf_writer_abort(sd_gguf_writer *w);                      // NULL is fine
