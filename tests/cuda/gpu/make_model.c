// make_model SHAPE PATH.gguf: random weights in the shape of a known model, for measurements where no model can be fetched.
//
// SHAPE: smollm2-135m (Q4_1: its 576 channels are no multiple of a K type's block), qwen2.5-1.5b (Q4_K), tiny. What it
// costs to run is what the model costs; what it says is noise, and drafts are accepted as noise lets them.
#include "tests/unit/support/tiny/model.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    sd_error err = {0};
    const char *shape = argc == 3 ? argv[1] : "";
    sd_tiny_model t;
    if (strcmp(shape, "smollm2-135m") == 0) {
        t = sd_tiny_default(&sd_arch_llama);
        t.L = 30, t.C = 576, t.H = 9, t.G = 3, t.D = 64, t.F = 1536, t.V = 49152;
        t.dtype = SD_Q4_1, t.rope_base = 100000;
    } else if (strcmp(shape, "qwen2.5-1.5b") == 0) {
        t = sd_tiny_default(&sd_arch_qwen2);
        t.L = 28, t.C = 1536, t.H = 12, t.G = 2, t.D = 128, t.F = 8960, t.V = 151936;
        t.dtype = SD_Q4_K, t.rope_base = 1000000;
    } else if (strcmp(shape, "tiny") == 0) {
        t = sd_tiny_default(&sd_arch_llama);
    } else {
        fprintf(stderr, "usage: make_model smollm2-135m|qwen2.5-1.5b|tiny PATH.gguf\n");
        return 2;
    }
    t.tied = true, t.ctx = 8192, t.noise = t.C > 64;
    if (sd_tiny_write_gguf(argv[2], &t, &err) == SD_OK) return 0;
    fprintf(stderr, "make_model: %s\n", err.message);
    return 1;
}
