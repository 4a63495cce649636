// The hyperparameters of a Hugging Face folder: the keys of config.json, through the typed getters of
// base/json.h.
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "model/model.h"

typedef struct {
    const json_t *o;
    const char *file; // for messages
} sd_config_keys;

/// *out <- the key's value, or def where there is none. SD_EFORMAT: another type, negative, beyond
/// 2^31 - 1.
sd_status sd_config_int_or(const sd_config_keys *k, const char *name, int def, int *out,
                           sd_error *err);
sd_status sd_config_float_or(const sd_config_keys *k, const char *name, double def, float *out,
                             sd_error *err);
/// SD_EFORMAT when hidden_act (or hidden_activation) is another one.
sd_status sd_config_activation(sd_activation act, const sd_config_keys *k, sd_error *err);
/// SD_EFORMAT where it is missing.
sd_status sd_config_need_int(const sd_config_keys *k, const char *name, int *out, sd_error *err);
