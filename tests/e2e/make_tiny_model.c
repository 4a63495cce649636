// make_tiny_model PATH [no-template|long|pooling]: the tiny random model of the unit tests, for scripts. A GGUF
// file when the name ends in .gguf, else a Hugging Face folder. long: for contexts of 4096 positions. pooling: its last
// row is a text's vector.
//
// make_tiny_model PATH.gguf vocabulary: a SentencePiece vocabulary without weights: bytes, <s> (0), and
// pieces for "hello" (7) and "hello" after a space (8).
#include "base/files/path.h"
#include "tests/unit/support/pieces.h"
#include "tests/unit/support/tiny/model.h"

#include <stdio.h>
#include <string.h>

static int write_vocabulary(const char *path) {
    static const piece rows[] = {{"<s>", 0, PIECE_CONTROL},
                                 {"\xE2\x96\x81", -9, PIECE_NORMAL},
                                 {"h", -9, PIECE_NORMAL},
                                 {"el", -1, PIECE_NORMAL},
                                 {"lo", -2, PIECE_NORMAL},
                                 {"hel", -3, PIECE_NORMAL},
                                 {"\xE2\x96\x81hel", -4, PIECE_NORMAL},
                                 {"hello", -6, PIECE_NORMAL},
                                 {"\xE2\x96\x81hello", -5, PIECE_NORMAL}};
    pieces_file f = pieces_make(
        &(pieces_recipe){.row = rows, .n = sizeof rows / sizeof *rows, .bytes = true, .bos = 1});
    FILE *out = fopen(path, "wb");
    bool ok = out && fwrite(f.data, 1, f.len, out) == f.len;
    if (out) ok &= fclose(out) == 0;
    pieces_free(&f);
    if (!ok) fprintf(stderr, "make_tiny_model: %s cannot be written\n", path);
    return ok ? 0 : 1;
}

int main(int argc, char **argv) {
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    if (argc == 3 && strcmp(argv[2], "vocabulary") == 0) return write_vocabulary(argv[1]);
    if (argc == 3 && strcmp(argv[2], "no-template") == 0) {
        t.chat_template = "";
    } else if (argc == 3 && strcmp(argv[2], "long") == 0) {
        t.ctx = 4096;
    } else if (argc == 3 && strcmp(argv[2], "pooling") == 0) {
        t.pooling = 3;
    } else if (argc != 2) {
        fprintf(stderr,
                "usage: make_tiny_model PATH.gguf|FOLDER [no-template|long|pooling|vocabulary]\n");
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
