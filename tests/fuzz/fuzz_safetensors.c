// A safetensors file of any bytes: opening and reading every tensor's bytes.
#include "model/formats/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sd_safetensors *s = NULL;
    sd_error err;
    if (sd_safetensors_from_memory(&s, data, size, "input", &err) != SD_OK) return 0;
    volatile uint8_t sum = 0;
    for (int i = 0; i < sd_safetensors_count(s); i++) {
        const sd_st_tensor *t = sd_safetensors_at(s, i);
        for (size_t k = 0; k < t->bytes; k++) sum ^= ((const uint8_t *)t->data)[k];
        if (sd_safetensors_find(s, t->name) == NULL) __builtin_trap();
    }
    sd_safetensors_close(s);
    return 0;
}
