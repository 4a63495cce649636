#include "model/arch/gguf_keys.h"

#include <stdint.h>
#include <stdio.h>

const char *sd_gguf_key(sd_gguf_keys *k, const char *leaf) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, leaf);
    return k->key;
}

bool sd_gguf_keys_have(sd_gguf_keys *k, const char *leaf) {
    return sd_gguf_has_key(k->g, sd_gguf_key(k, leaf));
}

sd_status sd_gguf_int_or(sd_gguf_keys *k, const char *leaf, int def, int *out, sd_error *err) {
    uint32_t v = (uint32_t)def;
    sd_status st = sd_gguf_u32(k->g, sd_gguf_key(k, leaf), &v, NULL, err);
    if (st == SD_OK && v > INT32_MAX)
        st = sd_fail(err, SD_EFORMAT, "%s: the key %s is %u, at most 2^31 - 1 is supported",
                     k->path, k->key, v);
    *out = st == SD_OK ? (int)v : def;
    return st;
}

sd_status sd_gguf_need_int(sd_gguf_keys *k, const char *leaf, int *out, sd_error *err) {
    if (!sd_gguf_keys_have(k, leaf))
        return sd_fail(err, SD_EFORMAT, "%s: the key %s is missing; the file is not a whole model",
                       k->path, k->key);
    return sd_gguf_int_or(k, leaf, 0, out, err);
}

sd_status sd_gguf_float_or(sd_gguf_keys *k, const char *leaf, float def, float *out,
                           sd_error *err) {
    *out = def;
    return sd_gguf_f32(k->g, sd_gguf_key(k, leaf), out, NULL, err);
}

sd_status sd_gguf_int_all_layers(sd_gguf_keys *k, const char *leaf, int def, int *out,
                                 sd_error *err) {
    sd_status st = SD_OK;
    size_t n = 0;
    const char *full = sd_gguf_key(k, leaf);
    if (!sd_gguf_is_array(k->g, full)) return sd_gguf_int_or(k, leaf, def, out, err);
    SD_TRY(sd_gguf_integers(k->g, full, &n, err));
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        SD_CHECK(sd_gguf_array_int(k->g, full, i, &v) && v >= 0 && v <= INT32_MAX, err, SD_EFORMAT,
                 "%s: element %zu of %s is out of range", k->path, i, full);
        SD_CHECK(i == 0 || v == *out, err, SD_EFORMAT,
                 "%s: %s differs between layers, which is not supported", k->path, full);
        *out = (int)v;
    }
    SD_CHECK(n > 0, err, SD_EFORMAT, "%s: %s is an empty array", k->path, full);
out:
    return st;
}
