// make_tiny_model PATH.gguf: the tiny random model of the unit tests as a file, for scripts.
#include "tests/unit/support_tiny_model.h"

#include <stdio.h>

int main(int argc, char **argv) {
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(SD_ARCH_LLAMA);
    if (argc != 2) {
        fprintf(stderr, "usage: make_tiny_model PATH.gguf\n");
        return 2;
    }
    if (sd_tiny_write_gguf(argv[1], &t, &err) == SD_OK) return 0;
    fprintf(stderr, "make_tiny_model: %s\n", err.message);
    return 1;
}
