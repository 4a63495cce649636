// Rotations as the two formats spell them.
#pragma once

#include "model/arch/config_keys.h"
#include "model/arch/gguf_keys.h"
#include "model/model.h"

/// The parameters of a rotation in config.json: rope_scaling (older), else rope_parameters; o NULL where
/// there is neither.
sd_status sd_config_rope_keys(sd_config_keys *out, const sd_config_keys *c, sd_error *err);
/// *out <- "default", "linear", ...: rope_type, or type in older files.
sd_status sd_config_rope_type(const char **out, const sd_config_keys *r, sd_error *err);
/// A rotation of scaling none, linear, llama3 or yarn from its parameters r; theta where they name no
/// base. Others are refused by name.
sd_status sd_config_rotation(sd_rotation *out, const sd_config_keys *c, const sd_config_keys *r,
                             double theta, int ctx_train, sd_error *err);
/// *dim <- the rotary dimensions of a head of D.
sd_status sd_config_rope_dim(int *dim, const sd_config_keys *c, const sd_config_keys *r, int D,
                             sd_error *err);

/// The base and scaling (none, linear, yarn) of the keys rope.*, and the divisors of rope_freqs.weight.
sd_status sd_gguf_rotation(sd_rotation *out, sd_model *m, sd_gguf_keys *k, sd_error *err);
/// *out [rope_dim/2] <- the tensor's divisors of frequencies, in m's memory; NULL where the file has no
/// such tensor.
sd_status sd_gguf_divisors(const float **out, sd_model *m, const sd_gguf *g, const char *name,
                           sd_error *err);
