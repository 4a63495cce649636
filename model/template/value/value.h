// Values with Python's meaning: the expressions of a chat template compute with them. All of them
// but a namespace are immutable, as in transformers' sandbox.
//
// The room, from the ground up:
//
//   account.c    steps, memory, failures        text.c       texts: built, searched, stripped
//   int.c        whole numbers of any size      number.c     ints and floats, their order
//   value.c      kinds, truth, lists            dict.c       dicts, a hash table; equality
//   order.c      order, sorting                 sequence.c   length, membership, iteration
//   slice.c      characters, slices             args.c       the arguments of a call
//   repr.c       str() and repr()               markup.c     escaped text
//   format.c     % and format specifications    operators.c  + - * / // % **
//   json.c       JSON in and out                pprint.c     Python's pprint
#pragma once

#include "model/template/value/account.h"

#include <jansson.h>

typedef struct {
    const char *p; // not 0-terminated
    size_t n;
} sd_str;

static inline bool sd_str_is(sd_str s, const char *word) {
    return strlen(word) == s.n && memcmp(s.p, word, s.n) == 0;
}
static inline bool sd_str_eq(sd_str a, sd_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
#define SD_STR(literal) ((sd_str){literal, sizeof(literal) - 1})

// ---- types

// One row per kind of value: name, the word for it in messages.
//
//   BIGINT     an int beyond 64 bits
//   VIEW       d.keys(), d.values(), d.items()
//   ITERATOR   what map, select and their kind give: it can be walked once
//   UNSAFE     a method that changes its object: undefined, and an error where it is called
//   SELF       the blocks by their names; BLOCK is one of them
#define SD_VALUE_KIND_LIST(X)                                                                      \
    X(SD_V_UNDEFINED, "undefined value")                                                           \
    X(SD_V_NONE, "NoneType")                                                                       \
    X(SD_V_BOOL, "bool")                                                                           \
    X(SD_V_INT, "int")                                                                             \
    X(SD_V_BIGINT, "int")                                                                          \
    X(SD_V_FLOAT, "float")                                                                         \
    X(SD_V_STRING, "string")                                                                       \
    X(SD_V_BYTES, "bytes")                                                                         \
    X(SD_V_LIST, "list")                                                                           \
    X(SD_V_TUPLE, "tuple")                                                                         \
    X(SD_V_DICT, "dict")                                                                           \
    X(SD_V_NAMESPACE, "namespace")                                                                 \
    X(SD_V_MACRO, "macro")                                                                         \
    X(SD_V_FUNCTION, "function")                                                                   \
    X(SD_V_METHOD, "method")                                                                       \
    X(SD_V_LOOP, "loop")                                                                           \
    X(SD_V_RANGE, "range")                                                                         \
    X(SD_V_VIEW, "view of a dict")                                                                 \
    X(SD_V_ITERATOR, "generator")                                                                  \
    X(SD_V_UNSAFE, "method")                                                                       \
    X(SD_V_CYCLER, "cycler")                                                                       \
    X(SD_V_JOINER, "joiner")                                                                       \
    X(SD_V_SELF, "collection")                                                                     \
    X(SD_V_BLOCK, "block")

typedef enum {
#define SD_VALUE_KIND_ENUM(name, word) name,
    SD_VALUE_KIND_LIST(SD_VALUE_KIND_ENUM)
#undef SD_VALUE_KIND_ENUM
} sd_value_kind;

// One row per operator of two values: name, how it is written.
#define SD_OP_LIST(X)                                                                              \
    X(SD_OP_ADD, "+")                                                                              \
    X(SD_OP_SUB, "-")                                                                              \
    X(SD_OP_MUL, "*")                                                                              \
    X(SD_OP_DIV, "/")                                                                              \
    X(SD_OP_FLOORDIV, "//")                                                                        \
    X(SD_OP_MOD, "%")                                                                              \
    X(SD_OP_POW, "**")                                                                             \
    X(SD_OP_EQ, "==")                                                                              \
    X(SD_OP_NE, "!=")                                                                              \
    X(SD_OP_LT, "<")                                                                               \
    X(SD_OP_LE, "<=")                                                                              \
    X(SD_OP_GT, ">")                                                                               \
    X(SD_OP_GE, ">=")                                                                              \
    X(SD_OP_IN, "in")                                                                              \
    X(SD_OP_NOT_IN, "not in")

typedef enum {
#define SD_OP_ENUM(name, text) name,
    SD_OP_LIST(SD_OP_ENUM)
#undef SD_OP_ENUM
} sd_op;

typedef struct sd_value sd_value;
typedef struct sd_args sd_args;

typedef struct {
    sd_value *item;
    size_t n, cap;
    bool group; // a pair of groupby: its parts have the names grouper and list
} sd_list;

typedef struct {
    sd_value *key, *value; // [cap], in the order of insertion
    uint32_t *slot;        // [slots]: 1 + a position by its key's hash; NULL while there are few
    size_t n, cap, slots;
} sd_dict;

typedef bool (*sd_function)(sd_render *r, sd_args *a, sd_value *out);
typedef bool (*sd_builtin)(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);

typedef struct sd_macro sd_macro;
typedef struct sd_method sd_method;
typedef struct sd_loop sd_loop;
typedef struct sd_bigint sd_bigint;
typedef struct sd_range sd_range;
typedef struct sd_iterable sd_iterable;
typedef struct sd_cycle sd_cycle;

struct sd_value {
    sd_value_kind kind;
    bool markup; // a string that counts as escaped (markupsafe's Markup)
    union {
        bool b;
        int64_t i;
        sd_bigint *big;
        double f;
        sd_str s; // a string; of an undefined value: the name that was looked for
        sd_list *list;
        sd_dict *dict;
        sd_macro *macro;
        sd_method *method;
        sd_loop *loop;
        sd_function function;
        sd_range *range;
        sd_iterable *iterable; // a view, an iterator
        sd_cycle *cycle;       // a cycler, a joiner
        const sd_node *node;   // a block
    };
};

struct sd_macro {
    sd_str name;
    const sd_node *node; // parameters and body
    sd_scope *scope;     // where it was defined
};

struct sd_method {
    sd_value self;
    sd_builtin call;
};

struct sd_loop {
    const sd_list *items;
    size_t index0;
    int depth0;          // of a recursive loop
    const sd_node *node; // the loop that may be called; NULL: not recursive
    sd_scope *scope;     // around it
    sd_list *changed;    // what loop.changed() saw last
};

struct sd_range {
    int64_t from, step;
    size_t n;
    int64_t to; // as it was given
};

struct sd_iterable {
    sd_list *items;
    size_t at;        // how many were taken from an iterator
    const char *name; // Python's
};

struct sd_cycle {
    sd_list *items; // of a joiner: the separator
    size_t at;
};

// Arguments of a call, a filter or a test.
struct sd_args {
    sd_value *item; // [n]
    int n;
    sd_str *name; // [n_named]
    sd_value *named;
    int n_named;
    uint64_t used; // bit i: named argument i was read; all ones: the callee takes whatever comes
    int asked;     // so many positions were asked for
};

static inline sd_value sd_none(void) {
    return (sd_value){.kind = SD_V_NONE};
}
static inline sd_value sd_undefined(sd_str name) {
    return (sd_value){.kind = SD_V_UNDEFINED, .s = name};
}
static inline sd_value sd_bool(bool b) {
    return (sd_value){.kind = SD_V_BOOL, .b = b};
}
static inline sd_value sd_int(int64_t i) {
    return (sd_value){.kind = SD_V_INT, .i = i};
}
static inline sd_value sd_float(double f) {
    return (sd_value){.kind = SD_V_FLOAT, .f = f};
}
static inline sd_value sd_string(const char *p, size_t n) {
    return (sd_value){.kind = SD_V_STRING, .s = {p, n}};
}
static inline bool sd_is_undefined(const sd_value *v) {
    return v->kind == SD_V_UNDEFINED || v->kind == SD_V_UNSAFE;
}
static inline bool sd_is_sequence(const sd_value *v) {
    return v->kind == SD_V_LIST || v->kind == SD_V_TUPLE;
}

// ---- texts (text.c)

// Texts being built. Their memory and the work of copying are the rendering's; false after a
// failure, which is then recorded. sd_keep or sd_drop ends each of them.
bool sd_put(sd_render *r, sd_buf *b, const char *p, size_t n);
bool sd_puts(sd_render *r, sd_buf *b, const char *s);
bool sd_putc(sd_render *r, sd_buf *b, char c);
bool sd_put_times(sd_render *r, sd_buf *b, sd_str s, size_t times);
bool sd_keep(sd_render *r, sd_buf *b, sd_value *out); // moves b's text to the render's memory
bool sd_drop(sd_render *r, sd_buf *b);                // always false
bool sd_write(sd_render *r, const char *p, size_t n); // to the rendering's output

size_t sd_count_chars(sd_str s);
bool sd_is_pyspace(int32_t cp);
bool sd_is_printable(int32_t cp);
sd_str sd_strip(sd_str s, bool left, bool right, const sd_str *chars);
const char *sd_search(sd_str in, sd_str what); // the first place or NULL
bool sd_search_last(sd_render *r, sd_str in, sd_str what, const char **out);
/// Pays for a search from the end, which compares at every place.
bool sd_spend_reverse_search(sd_render *r, sd_str in, sd_str what);

// ---- numbers (int.c: bool, int, and those beyond 64 bits; number.c)

enum { SD_UNORDERED = 2 };
bool sd_is_int(const sd_value *v);
bool sd_small_int(const sd_value *v, int64_t *out); // false: not whole, or beyond 64 bits
bool sd_int_is_negative(const sd_value *v);
int sd_int_compare(const sd_value *a, const sd_value *b);
bool sd_int_compare_float(sd_render *r, const sd_value *a, double f, int *order);
bool sd_int_binary(sd_render *r, sd_op op, const sd_value *a, const sd_value *b, sd_value *out);
bool sd_int_negate(sd_render *r, const sd_value *v, sd_value *out);
double sd_int_approx(const sd_value *v); // rounded, or infinite
bool sd_int_to_double(sd_render *r, const sd_value *v, double *out);
bool sd_int_from_double(sd_render *r, double f, sd_value *out); // towards 0
bool sd_int_text(sd_render *r, sd_buf *b, const sd_value *v);
bool sd_int_digits(sd_render *r, sd_buf *b, const sd_value *v, int base); // of its magnitude
/// Python's int(s, base), base 0 by the prefix. *is_one: whether s is a number.
bool sd_int_parse(sd_render *r, sd_str s, int base, sd_value *out, bool *is_one);

bool sd_number(sd_render *r, const sd_value *v, double *out); // int or float; see r->status
bool sd_are_numbers(const sd_value *a, const sd_value *b);
/// *order: -1, 0, 1, or SD_UNORDERED where one is not a number. Both are ints or floats.
bool sd_compare_numbers(sd_render *r, const sd_value *a, const sd_value *b, int *order);

// ---- lists, iterables, kinds (value.c)

sd_list *sd_list_make(sd_render *r, size_t cap);
bool sd_list_push(sd_render *r, sd_list *l, const sd_value *v);
sd_value sd_list_value(sd_value_kind kind, sd_list *l);
bool sd_make_iterable(sd_render *r, sd_value_kind kind, sd_list *items, const char *name,
                      sd_value *out);
bool sd_make_iterator(sd_render *r, sd_list *l, sd_value *out);
sd_value sd_dict_value(sd_dict *d);
const char *sd_kind_name(const sd_value *v);
const char *sd_op_text(sd_op op);
bool sd_truth(const sd_value *v);

// ---- dicts and equality (dict.c)

sd_dict *sd_dict_make(sd_render *r, size_t cap);
bool sd_dict_put(sd_render *r, sd_dict *d, const sd_value *key, const sd_value *value);
/// *out: the value, NULL when the key is not there. False: an error; a list is no key.
bool sd_dict_find(sd_render *r, sd_dict *d, const sd_value *key, sd_value **out);
bool sd_dict_get(sd_render *r, sd_dict *d, sd_str key, sd_value **out);
bool sd_hashable(const sd_value *v);
bool sd_equal(sd_render *r, const sd_value *a, const sd_value *b, int depth); // false: error too

// ---- order (order.c)

/// *order: -1, 0, 1, or SD_UNORDERED where one is not a number. False: an error.
bool sd_compare(sd_render *r, const sd_value *a, const sd_value *b, int *order);
bool sd_satisfies(sd_op op, int order); // < <= > >=
typedef struct {
    sd_value key, item;
} sd_keyed;
bool sd_sort(sd_render *r, sd_keyed *k, size_t n, bool reverse); // stable, by the keys

// ---- values that hold others (sequence.c, slice.c)

/// The items that a for loop sees: elements of a sequence, keys of a dict, characters of a string.
bool sd_iterate(sd_render *r, const sd_value *v, sd_list **out);
/// The lines of a text as str.splitlines has them.
bool sd_split_lines(sd_render *r, sd_str s, bool keep_ends, sd_list **out);
bool sd_contains(sd_render *r, const sd_value *in, const sd_value *what, bool *out);
bool sd_length(sd_render *r, const sd_value *v, int64_t *out);
/// Character i of a string, byte i of bytes; i < 0 counts from the end. Undefined beyond them.
bool sd_character(sd_render *r, const sd_value *v, int64_t i, sd_value *out);
bool sd_slice(sd_render *r, const sd_value *v, const sd_value *bounds, sd_value *out); // [3]
/// Fails because v is undefined and so has no `name`; always false.
bool sd_refuse_undefined(sd_render *r, const sd_value *v, sd_str name);

// ---- arguments (args.c): by position (0 is the first after the input) or by name

bool sd_arg(sd_args *a, int position, const char *name, sd_value *out); // false: not given
bool sd_arg_int(sd_render *r, sd_args *a, int position, const char *name,
                int64_t *out); // false: error
bool sd_arg_string(sd_render *r, sd_args *a, int position, const char *name, sd_str *out);
bool sd_arg_bool(sd_args *a, int position, const char *name, bool otherwise);
/// Fails where there are more arguments than the callee asked for.
bool sd_args_all_used(sd_render *r, const sd_args *a, sd_str callee);

// ---- str and repr (repr.c), escaped text (markup.c)

/// str(v) and repr(v) of Python, appended to b.
bool sd_to_text(sd_render *r, const sd_value *v, sd_buf *b, bool repr, int depth);
/// str(v) in the render's memory; a string is itself.
bool sd_text_of(sd_render *r, const sd_value *v, sd_str *out);
void sd_format_float(char out[40], double f);         // Python's repr
bool sd_put_ascii(sd_render *r, sd_buf *b, sd_str s); // escapes what is not ASCII

bool sd_escape(sd_render *r, sd_buf *b, sd_str s);
/// v's text as a Markup takes it in: escaped unless v is a Markup.
bool sd_escaped_text(sd_render *r, const sd_value *v, sd_str *out);

// ---- formats (format.c) and operators (operators.c)

/// format % values; a tuple gives several, a dict those of %(names).
bool sd_percent_format(sd_render *r, const sd_value *format, const sd_value *values, sd_value *out);
/// Python's format(v, spec), appended.
bool sd_format_value(sd_render *r, sd_buf *b, const sd_value *v, sd_str spec);
bool sd_arithmetic(sd_render *r, sd_op op, const sd_value *a, const sd_value *b, sd_value *out);
bool sd_sign(sd_render *r, bool minus, const sd_value *v, sd_value *out);

// ---- JSON (json.c), pprint (pprint.c)

bool sd_from_json(sd_render *r, const json_t *j, int depth, sd_value *out);
typedef struct {
    bool ascii, sort;         // escape what is not ASCII; keys in order
    sd_str indent, item, key; // of a level (p NULL: one line); behind an item, behind a key
} sd_json_style;
/// Python's json.dumps(v), appended to b.
bool sd_put_json(sd_render *r, sd_buf *b, const sd_value *v, const sd_json_style *style);
/// Python's pprint.pformat(v) with its 80 columns, appended to b.
bool sd_put_pretty(sd_render *r, sd_buf *b, const sd_value *v);
