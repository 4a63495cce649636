// An answer as a terminal shows it while it comes: a word that does not fit in its line begins the next one, and
// control characters are a model's text, not the terminal's orders.
//
//     sd_margin m = {.out = stdout, .columns = 80};
//     sd_margin_write(&m, text, len);      // complete UTF-8, piece by piece
//     sd_margin_end(&m);
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { SD_MARGIN_WORD = 512 }; // bytes of a word that is kept whole
typedef struct {
    FILE *out;
    int columns; // 0: no terminal, every byte is written as it is
    int column;  // where the next character stands
    int width;   // of the word
    bool broken; // its beginning stands there already: it is longer than a line
    size_t len;
    char word[SD_MARGIN_WORD]; // what has come of a word
} sd_margin;

void sd_margin_write(sd_margin *m, const char *text, size_t len);
/// Writes the word that has come so far. The next text begins a line.
void sd_margin_end(sd_margin *m);
