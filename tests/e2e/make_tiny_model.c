// make_tiny_model PATH [no-template]: the tiny random model of the unit tests, for scripts. A GGUF file
// when the name ends in .gguf, else a Hugging Face folder.
#include "base/files/path.h"
#include "tests/unit/support/tiny_model.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    if (argc == 3 && strcmp(argv[2], "no-template") == 0) {
        t.chat_template = "";
    } else if (argc != 2) {
        fprintf(stderr, "usage: make_tiny_model PATH.gguf|FOLDER [no-template]\n");
        return 2;
    }
    size_t n = strlen(argv[1]);
    bool gguf = n > 5 && strcmp(argv[1] + n - 5, ".gguf") == 0;
    sd_status st = gguf ? sd_tiny_write_gguf(argv[1], &t, &err) : SD_OK;
    if (!gguf) st = sd_mkdirs(argv[1], &err);
    if (!gguf && st == SD_OK) st = sd_tiny_write_folder(argv[1], &t, &err);
    if (st == SD_OK) return 0;
    fprintf(stderr, "make_tiny_model: %s\n", err.message);
    return 1;
}
