// JSON Schema (draft 2020-12): what answers are held to, and what they are checked against.
//
// Two readers that share no code but what makes two values equal: sd_gb_json_schema makes an
// automaton of a schema, which offers a subset of its values, and sd_schema_validate says of any value
// whether it fits. A keyword that the automaton does not enforce is an error that names it and its
// place, unless the specification has it as an annotation (contentEncoding, contentMediaType,
// contentSchema, $vocabulary among them). What no $ref leads to in $defs is not looked at.
//
//   any type  type (one or several), enum, const, anyOf, oneOf (branches that exclude one another),
//             allOf (merged), $ref into the same document, also to itself. Beside an enum or a
//             constant any keyword of the specification but $anchor, $dynamicRef, $dynamicAnchor and
//             unevaluated...: the validator says which of the values fit
//   objects   properties (in the schema's order), required, additionalProperties; where there are no
//             properties, maxProperties, and minProperties of at most 1, as keys may repeat
//   arrays    items, prefixItems, minItems, maxItems
//   strings   pattern, format (date, time, date-time, duration, uuid and its versions, email, hostname,
//             ipv4, ipv6, uri; any text is a password, path or binary), minLength, maxLength (in code
//             points)
//   numbers   minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (whole, or 0.1, 0.01, ...),
//             format (int8 to int64, uint8 to uint64, float, double, time-delta)
//
// The subset, where a schema allows more than a model should write: without "type" the types that
// the keywords speak of; properties that are not listed only where additionalProperties asks for
// them, behind the listed ones; items behind prefixItems likewise; integers of at most 18 digits;
// numbers with a bound without an exponent, and of at most 15 digits where they have a point; strings
// with a pattern or format in one spelling. At most one space behind ':' and ',' and no other white
// space.
#pragma once

#include "model/grammar/grammar.h"

#include <jansson.h>
#include <stdint.h>

enum {
    SD_SCHEMA_DEPTH = 96,     // of schemas within schemas, and of references followed at once
    SD_SCHEMA_PARTS = 20000,  // schemas in all, each as often as it is merged
    SD_SCHEMA_ANY_DEPTH = 16, // of a value that may be anything
    SD_SCHEMA_VALUES = 4096   // of one enum
};

enum {
    SD_T_NULL = 1,
    SD_T_BOOLEAN = 2,
    SD_T_INTEGER = 4,
    SD_T_NUMBER = 8,
    SD_T_STRING = 16,
    SD_T_ARRAY = 32,
    SD_T_OBJECT = 64,
    SD_T_ALL = 127
};
/// The types (SD_T_*) that a value of a part of a schema may have, as far as its keywords and what they refer to
/// say: SD_T_ALL where nothing does; more than those where it takes too many schemas to say. root: whose references these
/// are. *steps, unless steps is NULL: an account (sd_gb_spend), off which what it took is taken.
int sd_schema_value_types(const json_t *root, const json_t *part, int64_t *steps);

/// A value of a schema, as an expression (-1 after a failure). The schema is only read, and only
/// during the call.
int sd_gb_json_schema(sd_grammar_builder *b, const json_t *schema);

// Where strings are written without quotes, they are apart from all other values.
typedef enum {
    SD_SPELL_JSON,   // any value
    SD_SPELL_OTHERS, // those that are no strings, in JSON
    SD_SPELL_TEXT    // the strings, as they are
} sd_schema_spelling;

typedef struct {
    const json_t *root, *part; // part: a schema, whose references are root's
    const char *key;           // what errors call it
    sd_schema_spelling spelling;
    const char *without; // TEXT: strings in which this stands are left out; NULL otherwise
    int text;            // TEXT: the expression of any string without it
} sd_schema_part;

/// Whether a keyword says nothing of values.
bool sd_schema_is_annotation(const char *key);
/// Whether root is a schema whose keywords are known; else the builder has failed.
bool sd_gb_json_schema_check(sd_grammar_builder *b, const json_t *root);
/// A value of a part of a schema that was checked so; no text at all where none is spelled so.
int sd_gb_json_schema_part(sd_grammar_builder *b, const sd_schema_part *p);

/// SD_OK, or SD_EMISMATCH: the first place at which value does not fit, as a JSON pointer, and the
/// keyword. SD_EFORMAT: the schema is none. SD_ELIMIT: it takes too many steps to say.
sd_status sd_schema_validate(const json_t *schema, const json_t *value, sd_error *err);

/// The same for a part of a schema, whose references are those of root. *steps, unless steps is NULL,
/// is how many may be taken, and are left then.
sd_status sd_schema_validate_part(const json_t *root, const json_t *part, const json_t *value,
                                  int64_t *steps, sd_error *err);

/// Whether two values are the same one: 1 is 1.0. Steps are taken off; once none are left, false.
bool sd_schema_equal(const json_t *a, const json_t *b, int64_t *steps);

/// A number, all digits of an integer kept.
static inline long double sd_json_number(const json_t *v) {
    return json_is_integer(v) ? (long double)json_integer_value(v)
                              : (long double)json_real_value(v);
}
/// What "#/a/b" means within root; NULL: nothing.
const json_t *sd_schema_resolve(const json_t *root, const char *ref);

typedef enum {
    SD_FORMAT_UNKNOWN,
    SD_FORMAT_PATTERN,
    SD_FORMAT_ANY_TEXT, // every text is of it
    SD_FORMAT_NUMBER
} sd_format_kind;
sd_format_kind sd_format_kind_of(const char *format);
/// The numbers of a format; false: it is none of numbers. whole: integers alone.
bool sd_format_range(const char *format, double *min, double *max, bool *whole);
/// Whether text is of a format with a pattern; others are never one (*known, which may be NULL).
bool sd_format_check(const char *format, const char *text, size_t len, bool *known);
/// The pattern of a format's texts that are offered, all of the text; NULL: it is not known.
const char *sd_format_pattern(const char *format);
