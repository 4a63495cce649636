// Options as a table. Flags, recipe keys, --help, the man page and shell completion all come from
// the same rows.
//
//     static const sd_option rows[] = {
//         {"model", 'm', SD_OPT_STRING, offsetof(args, model), .value = "PATH",
//          .help = "GGUF file or Hugging Face folder", .required = true},
//         {"threads", 0, SD_OPT_INT, offsetof(args, threads), .def = "0", .min = 0, .max = 256,
//          .help = "0: one per processor"},
//         {0}};
//     SD_TRY(sd_options_parse(&rest, rows, &args, argc, argv, err));
#pragma once

#include "base/memory.h"
#include "base/status.h"

#include <stdint.h>
#include <stdio.h>

typedef enum {
    SD_OPT_FLAG,   // bool; on the command line also --no-NAME
    SD_OPT_INT,    // int64_t
    SD_OPT_FLOAT,  // double
    SD_OPT_STRING, // const char *; points into argv or the table
    SD_OPT_ENUM,   // int, the index in `value` ("auto|fp32")
    SD_OPT_LIST    // sd_strings; may be given several times
} sd_option_type;

enum { SD_MAX_LIST = 64, SD_MAX_OPTIONS = 128 }; // of one list; of a table
typedef struct {
    const char *item[SD_MAX_LIST];
    int n;
} sd_strings;

typedef struct {
    const char *name;
    char letter; // 0: none
    sd_option_type type;
    size_t offset;     // into the struct of values
    const char *def;   // as a user would type it; NULL: zero / NULL / empty
    double min, max;   // numbers; both 0: unbounded
    const char *value; // what --help shows for it, or the words of an enum separated by '|'
    const char *unit;  // "tokens", "MiB", ...; NULL: none
    const char *help;  // one line
    bool required;
    size_t given; // into the struct of values: a bool that says that it was given; 0: nobody asks
} sd_option;

/// Sets every default, then reads argv[0..argc). Words that are no options go to rest (argv order);
/// "--" ends options. An unknown option is SD_EINVAL and names the nearest known one, and so is one
/// given twice that is no list. `--help` is not handled here.
sd_status sd_options_parse(sd_strings *rest, const sd_option *rows, void *values, int argc,
                           char **argv, sd_error *err);

/// Likewise over what stands in values already: no default is set, a list that is given replaces what was in it, and
/// what is given (or had: a bool for each row, NULL: none) is not missing.
sd_status sd_options_parse_over(sd_strings *rest, const sd_option *rows, void *values,
                                const bool *had, int argc, char **argv, sd_error *err);
void sd_options_defaults(const sd_option *rows, void *values);
const sd_option *sd_option_find(const sd_option *rows, const char *name, size_t len); // NULL: none

/// One value by name, as typed ("--name=text" or a recipe's scalar).
sd_status sd_option_set(const sd_option *row, void *values, const char *text, sd_error *err);
/// Do both structs of values hold the same there?
bool sd_option_equal(const sd_option *row, const void *a, const void *b);
/// The decimal number that text begins with, such as -1.5e3; *end stands behind it. False where there is none, and for what C takes
/// besides: hexadecimal digits, spaces before a number, inf and nan.
bool sd_read_decimal(double *out, const char *text, char **end);
/// Word i of an enum's words ("auto|fp32"): *len bytes, no 0 behind them. Beyond the last: empty.
const char *sd_option_word(size_t *len, const char *words, int i);
void sd_options_help(FILE *f, const sd_option *rows);
/// The rows as a part of a man page (troff's macros of man).
void sd_options_man(FILE *f, const sd_option *rows);
/// A line for each row: --NAME, what it takes, its help, with tabs between; for completion in shells.
void sd_options_words(FILE *f, const sd_option *rows);
/// Text for a man page: signs that mean something there are written as themselves.
void sd_man_text(FILE *f, const char *text);

/// The candidate (a NULL-terminated list) with the smallest edit distance to `word`, or NULL when
/// none is near.
const char *sd_nearest(const char *word, const char *const *candidates);
