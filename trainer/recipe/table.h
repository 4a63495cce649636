// The rows behind a recipe's keys. Private to trainer/recipe*.c.
#pragma once

#include "trainer/recipe/recipe.h"

typedef enum {
    SD_KEY_PLAIN,   // what sd_option_set does
    SD_KEY_LIST,    // sd_strings; o.value: the words allowed, NULL: any
    SD_KEY_PATTERN, // sd_recipe_pattern
    SD_KEY_SOURCES, // sd_recipe_sources
    SD_KEY_SIZE,    // int64_t bytes, written 8GiB, 512MiB or a number
    SD_KEY_EVERY    // sd_recipe_every, written 100 or 4/epoch
} sd_key_kind;

typedef struct {
    sd_option o; // o.name is the dotted key
    sd_key_kind kind;
    const char *empty;   // "null" or "auto": the word for 0 and NULL; NULL: a value is needed
    bool same;           // a resumed run must have the same value: it changes the numbers
    const char *unbuilt; // another value than the default is refused with this reason
} sd_recipe_key;

extern const sd_recipe_key sd_recipe_keys[]; // ends with a row without a name

/// Appends the value as the recipe would write it.
bool sd_recipe_value_text(const sd_recipe_key *k, const sd_recipe *r, sd_buf *out);

/// Appends a text as a YAML scalar: plain where it can only be a text, else in double quotes.
bool sd_recipe_add_text(sd_buf *out, const char *text);
