#include "model/arch/config_keys.h"

#include <string.h>

sd_status sd_config_int_or(const sd_config_keys *k, const char *name, int def, int *out,
                           sd_error *err) {
    int64_t v;
    sd_status st = sd_key_int(&v, k->o, name, def, 0, INT32_MAX, k->file, err);
    *out = st == SD_OK ? (int)v : def;
    return st;
}

sd_status sd_config_need_int(const sd_config_keys *k, const char *name, int *out, sd_error *err) {
    if (!sd_key(k->o, name)) return sd_fail(err, SD_EFORMAT, "%s: %s is missing", k->file, name);
    return sd_config_int_or(k, name, 0, out, err);
}

sd_status sd_config_float_or(const sd_config_keys *k, const char *name, double def, float *out,
                             sd_error *err) {
    double v;
    sd_status st = sd_key_number(&v, k->o, name, def, k->file, err);
    *out = (float)v;
    return st;
}

sd_status sd_config_activation(sd_activation act, const sd_config_keys *k, sd_error *err) {
    static const char *const names[] = {"silu", "gelu_pytorch_tanh"}, *const keys[] = {
                                                                          "hidden_act",
                                                                          "hidden_activation"};
    sd_status st = SD_OK;
    for (int i = 0; i < 2; i++) {
        const char *name;
        SD_TRY(sd_key_str(&name, k->o, keys[i], names[act], k->file, err));
        SD_CHECK(strcmp(name, names[act]) == 0, err, SD_EFORMAT,
                 "%s: %s '%.32s' is not supported; %s is", k->file, keys[i], name, names[act]);
    }
out:
    return st;
}
