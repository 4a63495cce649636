// The making of an automaton out of a schema: keywords.c (what is written, and what is refused), read.c
// (combinations, values, types), object.c (objects and arrays), scalar.c (strings and numbers), merge.c
// (allOf, anyOf beside other keywords, oneOf).
#pragma once

#include "model/grammar/internal.h"
#include "model/grammar/schema/schema.h"

typedef struct {
    const json_t *schema;
    bool merged; // its rule is of what it becomes when its parts are one
    sd_schema_spelling spelling;
    int rule;
} sd_schema_ref;

typedef struct {
    const json_t *a, *b;
    json_t *made; // {"allOf": [a, b]}, of sd_schema_reader.made
} sd_schema_pair;

typedef struct {
    sd_grammar_builder *b; // with the account that everything here is charged to
    const json_t *root;
    json_t *made; // an array of the schemas that were merged: they live as long
    sd_schema_ref *ref;
    int n_refs, cap_refs;
    sd_schema_pair *both; // one schema for a pair, however often it is met
    int n_both, cap_both;
    int depth, parts;
    int any;                     // the expression of any value; -1: not made yet
    sd_schema_spelling spelling; // of the value that is read, not of those within it
    const char *without;         // TEXT: what stands in none of them
    int text;                    // TEXT: any of them
    char path[512];              // a JSON pointer to where the reader is
} sd_schema_reader;

typedef enum {
    SD_K_UNKNOWN,
    SD_K_ENFORCED,
    SD_K_OF_VALUES, // the validator has it: beside an enum or a constant
    SD_K_ANNOTATION // it says nothing of values
} sd_schema_effect;
sd_schema_effect sd_schema_effect_of(const char *key);
/// Whether all that is written is known and has its form, from the root on and behind references.
/// Everything below relies on it.
bool sd_schema_check(sd_schema_reader *r);
/// The types that the keywords speak of, without "type".
int sd_schema_implied_types(const json_t *schema);

int sd_schema_read(sd_schema_reader *r, const json_t *schema); // an expression; -1
/// Likewise with the path longer by "/key" meanwhile.
int sd_schema_read_at(sd_schema_reader *r, const json_t *schema, const char *key);
size_t sd_schema_enter(sd_schema_reader *r, const char *key);
void sd_schema_leave(sd_schema_reader *r, size_t to);
/// "json schema: #/path: ..." and -1.
int sd_schema_fail(sd_schema_reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/// Likewise, of a keyword and with the status of what went wrong below; key NULL: none.
int sd_schema_fail_with(sd_schema_reader *r, const char *key, const sd_error *err);
int sd_schema_any(sd_schema_reader *r);
int sd_schema_never(sd_schema_reader *r); // no text
/// *out <- a keyword's whole number; absent: left alone. False after an error.
bool sd_schema_count(sd_schema_reader *r, const json_t *schema, const char *key, int *out);

int sd_schema_object(sd_schema_reader *r, const json_t *schema);
int sd_schema_array(sd_schema_reader *r, const json_t *schema);
int sd_schema_string(sd_schema_reader *r, const json_t *schema);
int sd_schema_number(sd_schema_reader *r, const json_t *schema, bool integer);

/// A schema that both hold for, borrowed; NULL after an error.
const json_t *sd_schema_merge(sd_schema_reader *r, const json_t *a, const json_t *b);
/// Without the keywords of a combination; borrowed.
const json_t *sd_schema_without(sd_schema_reader *r, const json_t *schema, const char *key);
/// Whether no value fits both, as far as can be seen. The builder has failed where the account ran out.
bool sd_schema_disjoint(sd_schema_reader *r, const json_t *a, const json_t *b, int depth);
const json_t *sd_schema_target(sd_schema_reader *r,
                               const json_t *schema); // of its $ref; NULL after an error

/// What "#/a/b" means; NULL: nothing, or the account is used up.
const json_t *sd_schema_lead(sd_schema_reader *r, const char *ref);

/// The types that "type" names; SD_T_ALL without it; -1: it is none.
int sd_schema_types(const json_t *schema);
