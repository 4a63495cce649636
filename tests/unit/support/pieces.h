// Vocabularies of pieces as GGUF files without weights, made in memory.
//
//     static const piece rows[] = {{"a", -1, PIECE_NORMAL}, ...};
//     pieces_file f = pieces_make(&(pieces_recipe){.row = rows, .n = 2, .bytes = true});
//     ... f.data, f.len; pieces_open(&f, &err)
//     pieces_free(&f);
#pragma once

#include "model/tokenizer/tokenizer.h"

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

typedef struct {
    const char *text;
    float score;
    int type;
} piece;

typedef struct {
    const piece *row;
    int n;
    bool bytes;        // <0x00> to <0xFF> follow the rows
    const char *arch;  // NULL: llama
    int prefix;        // add_space_prefix: 0 absent, 1 true, -1 false
    int unk, bos;      // ids + 1; 0: absent
    int scores, types; // how many there are more than tokens
    bool no_scores, no_types, squeeze;
} pieces_recipe;

typedef struct {
    char *data;
    size_t len;
} pieces_file;

pieces_file pieces_make(const pieces_recipe *r);
void pieces_free(pieces_file *f);
/// NULL, with *err, where the file is refused.
sd_tokenizer *pieces_open(const pieces_file *f, sd_error *err);
