#include "model/formats/foreign_file.h"

#include <string.h>

static const struct {
    const char *begins;
    size_t len;
    const char *is;
} known[] = {
    {"version https://git-lfs", 23,
     "is a Git LFS pointer, not the file itself; fetch it with git lfs pull"},
    {"PK\3\4", 4,
     "is a zip archive, as PyTorch saves pickles; pickles are not read because they may run code: "
     "save the model as safetensors, or convert it to GGUF"},
    {"\x80\2", 2,
     "is a pickle, which is not read because it may run code; save the model as safetensors, or "
     "convert it to GGUF"},
    {"\x89HDF\r\n\x1a\n", 8, "is an HDF5 file, such as data prepare writes, and no model"},
    {"SDCORPUS", 8, "is a corpus index; give it with -d"},
    {"tjgg", 4, "is of GGML's time before GGUF; convert the model anew"},
    {"fmgg", 4, "is of GGML's time before GGUF; convert the model anew"},
    {"lmgg", 4, "is of GGML's time before GGUF; convert the model anew"},
    {"GGUF", 4, "is a GGUF file; give it by itself, not as safetensors"},
    {"{", 1, "is JSON text and no weights"},
    {"<", 1, "is a web page, not the file; download it again"},
};

const char *sd_foreign_file(const uint8_t *bytes, size_t size) {
    if (size == 0) return "is empty; copy or download it again";
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (size >= known[i].len && memcmp(bytes, known[i].begins, known[i].len) == 0)
            return known[i].is;
    // safetensors: the length of a header that begins with a brace.
    uint64_t header = 0;
    if (size > 16) memcpy(&header, bytes, 8);
    if (header > 1 && header < size && bytes[8] == '{')
        return "is a safetensors file; give the folder that holds it";
    return NULL;
}
