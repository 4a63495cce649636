// The part of YAML that a recipe and a configuration need, as a small tree in an arena: maps, lists and scalars, each with
// the place where it stands, so that every mistake can be pointed at. libyaml does the scanning.
//
// Refused, each with file:line:column: anchors, aliases, tags, merge keys, several documents,
// duplicate keys, keys that are not plain words, more than SD_YAML_MAX_DEPTH levels, more than
// SD_YAML_MAX_NODES nodes, more than SD_YAML_MAX_BYTES bytes, and a 0 byte inside a text.
#pragma once

#include "base/memory.h"
#include "base/option.h"

enum { SD_YAML_MAX_DEPTH = 8, SD_YAML_MAX_NODES = 4096, SD_YAML_MAX_BYTES = 64 * 1024 };

typedef enum { SD_YAML_SCALAR, SD_YAML_LIST, SD_YAML_MAP } sd_yaml_kind;

typedef struct {
    const char *origin; // a file's path, or "override a.b=c"
    int line, column;   // from 1; line 0: the origin says it all
} sd_yaml_mark;

typedef struct sd_yaml {
    sd_yaml_kind kind;
    const char *text; // of a scalar
    bool plain;       // of a scalar: written without quotes
    sd_yaml_mark mark;
    const char *key; // inside a map; NULL inside a list
    sd_yaml_mark key_mark;
    struct sd_yaml *first, *last, *next; // children, and the next sibling
    int n;                               // children
} sd_yaml;

/// The document in data [len]. Everything lives in the arena. An empty document is an empty map.
sd_status sd_yaml_parse(sd_yaml **out, sd_arena *arena, const char *origin, const char *data,
                        size_t len, sd_error *err);

/// Applies "a.b.0.c=value" to the tree: maps are made as needed, a number is an index into a list
/// (its length appends), and the value is read as YAML. Replaces what stood there.
sd_status sd_yaml_override(sd_yaml *root, sd_arena *arena, const char *assignment, sd_error *err);

sd_yaml *sd_yaml_find(const sd_yaml *map, const char *key); // NULL when absent
bool sd_yaml_is_null(const sd_yaml *n);                     // null, ~ or nothing, without quotes

/// Sets an option from a scalar: a number or a flag must stand there without quotes, a number without a zero before
/// it. The error has the place and the row's name.
sd_status sd_yaml_set_option(const sd_option *row, void *values, const sd_yaml *n, sd_error *err);

/// "file:line:column: " + the message.
sd_status sd_yaml_fail(sd_error *err, const sd_yaml_mark *mark, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
