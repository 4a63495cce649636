// A pattern as a syntax tree. Shared by the parser (regex.c) and what makes a DFA of it (regex_dfa.c).
#pragma once

#include "base/status.h"

#include <stdint.h>

enum { SD_REGEX_TREE = 1 << 14, SD_REGEX_DEPTH = 100, SD_REGEX_RANGES = 1 << 15 };

typedef enum { R_EMPTY, R_CLASS, R_SEQ, R_ALT, R_REPEAT, R_BEGIN, R_END } sd_regex_kind;

typedef struct {
    sd_regex_kind kind;
    int a, b; // CLASS: first range and number; SEQ, ALT: two parts; REPEAT: of what
    int min, max;
} sd_regex_node;

typedef struct {
    sd_regex_node *node;
    int n, cap, root;
    int32_t (*range)[2]; // ascending within a class, without overlap
    int n_ranges, cap_ranges;
} sd_regex;

/// SD_EINVAL names what is not supported or not a pattern, and its place; SD_ELIMIT the bound.
sd_status sd_regex_parse(sd_regex *r, const char *pattern, size_t len, sd_error *err);
void sd_regex_free(sd_regex *r);
