#include "model/arch/config_keys.h"

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
