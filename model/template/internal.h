// What the template's files share and nobody else sees.
//
//   syntax/lexer.c        text -> tokens, white space control
//   syntax/parser.c       tokens -> expressions         syntax/statements.c  -> statements
//   value/value.c         values as Python has them     value/dict.c         dicts, a hash table
//   value/text.c          texts being built, repr()     value/json.c         JSON in and out
//   value/int.c           whole numbers of any size     value/number.c       operators
//   value/format.c        % and format specifications   value/markup.c       escaped text
//   eval.c                expressions, calls            exec.c               statements
//   macro.c               macros, blocks, captures      builtins/globals.c   range, cycler, ...
//   attributes.c          reaching into values          builtins/methods*.c  by their type
//   builtins/filters*.c   builtins/tests.c              value/pprint.c
#pragma once

#include "base/memory.h"
#include "model/template/template.h"

#include <stdint.h>
#include <string.h>

enum {
    SD_TMPL_MAX_SOURCE = 1 << 20,    // bytes of a template
    SD_TMPL_MAX_DEPTH = 400,         // nesting of a template's syntax
    SD_TMPL_MAX_CALLS = 1500,        // nesting while rendering
    SD_TMPL_MAX_OUTPUT = 64 << 20,   // bytes
    SD_TMPL_MAX_MEMORY = 256 << 20,  // of one rendering: values and texts being built
    SD_TMPL_FUEL = 20 * 1000 * 1000, // steps of one rendering
    SD_TMPL_BYTES_A_STEP = 64,       // of a text that is copied or searched
    SD_TMPL_SEARCH = 8,              // bytes a step where a text is searched or decoded
    SD_TMPL_LOOK = 4096,             // steps between two looks at the deadline and at who waits
    SD_TMPL_MAX_ARGS = 64
};

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

// ---- values. Everything but a namespace is immutable, as in transformers' sandbox.

typedef enum {
    SD_V_UNDEFINED,
    SD_V_NONE,
    SD_V_BOOL,
    SD_V_INT,
    SD_V_BIGINT, // an int beyond 64 bits
    SD_V_FLOAT,
    SD_V_STRING,
    SD_V_BYTES,
    SD_V_LIST,
    SD_V_TUPLE,
    SD_V_DICT,
    SD_V_NAMESPACE,
    SD_V_MACRO,
    SD_V_FUNCTION,
    SD_V_METHOD,
    SD_V_LOOP,
    SD_V_RANGE,
    SD_V_VIEW,     // d.keys(), d.values(), d.items()
    SD_V_ITERATOR, // what map, select and their kind give: it can be walked once
    SD_V_UNSAFE,   // a method that changes its object: undefined, and an error where it is called
    SD_V_CYCLER,
    SD_V_JOINER,
    SD_V_SELF, // the blocks by their names
    SD_V_BLOCK // one of them
} sd_value_kind;

typedef enum {
    SD_OP_ADD,
    SD_OP_SUB,
    SD_OP_MUL,
    SD_OP_DIV,
    SD_OP_FLOORDIV,
    SD_OP_MOD,
    SD_OP_POW,
    SD_OP_EQ,
    SD_OP_NE,
    SD_OP_LT,
    SD_OP_LE,
    SD_OP_GT,
    SD_OP_GE,
    SD_OP_IN,
    SD_OP_NOT_IN
} sd_op;

typedef struct sd_value sd_value;
typedef struct sd_render sd_render;
typedef struct sd_args sd_args;
typedef struct sd_node sd_node;
typedef struct sd_scope sd_scope;

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
typedef bool (*sd_filter)(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);

typedef struct sd_macro sd_macro;
typedef struct sd_method sd_method;
typedef struct sd_loop sd_loop;
typedef struct sd_bigint sd_bigint;
typedef struct sd_range sd_range;
typedef struct sd_walk sd_walk;
typedef struct sd_turn sd_turn;

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
        sd_walk *walk;       // a view, an iterator
        sd_turn *turn;       // a cycler, a joiner
        const sd_node *node; // a block
    };
};

struct sd_macro {
    sd_str name;
    const sd_node *node; // parameters and body
    sd_scope *scope;     // where it was defined
};

struct sd_method {
    sd_value self;
    sd_filter call;
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

struct sd_walk {
    sd_list *items;
    size_t at;        // how many were taken from an iterator
    const char *name; // Python's
};

struct sd_turn {
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

// ---- syntax

typedef enum {
    SD_T_DATA,
    SD_T_NAME,
    SD_T_STRING,
    SD_T_INT,
    SD_T_FLOAT,
    SD_T_OP,
    SD_T_BLOCK_BEGIN,
    SD_T_BLOCK_END,
    SD_T_VAR_BEGIN,
    SD_T_VAR_END,
    SD_T_EOF
} sd_token_kind;

typedef struct {
    sd_token_kind kind;
    int line;
    sd_str text; // of a string: its value; of a number: without underscores
    int64_t i;   // of an int of up to 64 bits
    double f;
    bool wide; // an int beyond them
} sd_token;

typedef enum {
    // expressions
    SD_N_CONST,
    SD_N_BIGINT, // the digits in text
    SD_N_NAME,
    SD_N_NSREF, // namespace attribute as a target: text.attr
    SD_N_LIST,
    SD_N_TUPLE,
    SD_N_DICT,    // list: key, value, key, value, ...
    SD_N_ATTR,    // a.text
    SD_N_ITEM,    // a[b]
    SD_N_SLICE,   // [a:b:c] as the b of an item
    SD_N_CALL,    // a(list)
    SD_N_KEYWORD, // text=a, among arguments
    SD_N_STAR,    // *a
    SD_N_STAR2,   // **a
    SD_N_FILTER,  // a|text(list); a NULL in a filter block
    SD_N_TEST,    // a is text(list)
    SD_N_NOT,
    SD_N_NEG,
    SD_N_POS,
    SD_N_BINARY,  // a op b
    SD_N_COMPARE, // a (op b)*: list of SD_N_BINARY with only b
    SD_N_AND,
    SD_N_OR,
    SD_N_CONCAT, // list
    SD_N_COND,   // a if b else c
    // statements
    SD_N_DATA,        // text
    SD_N_OUTPUT,      // {{ a }}
    SD_N_BLOCK,       // list
    SD_N_IF,          // list: condition, block, condition, block, ...; a: else
    SD_N_FOR,         // for a in b if c: list[0], else list[1]
    SD_N_SET,         // set a = b
    SD_N_SETBLOCK,    // set a | b: list[0]
    SD_N_MACRO,       // text(list of SD_N_KEYWORD, a NULL without default): b
    SD_N_CALLBLOCK,   // call(list) a: b is the SD_N_MACRO of its body
    SD_N_FILTERBLOCK, // filter a: b
    SD_N_WITH,        // list: target, value, ...; b
    SD_N_SCOPED,      // generation: b
    SD_N_NAMED,       // block text: b
    SD_N_BREAK,
    SD_N_CONTINUE
} sd_node_kind;

struct sd_node {
    sd_node_kind kind;
    sd_op op;
    int line, depth;
    sd_str text, attr;
    sd_value value;
    sd_node *a, *b, *c;
    sd_node **list;
    int n, cap;
    int uses; // of a macro: what its body names beside its parameters; of blocks and loops: kinds
};

enum { SD_USES_CALLER = 1, SD_USES_VARARGS = 2, SD_USES_KWARGS = 4 };
enum { SD_BLOCK_SCOPED = 1, SD_BLOCK_REQUIRED = 2 };
enum { SD_LOOP_RECURSIVE = 1 };

typedef struct {
    sd_arena *arena;
    const sd_token *token; // [n], the last is SD_T_EOF
    size_t at;
    int depth, loops;
    int uses; // of the macro that is being parsed
    bool no_memory;
    sd_node *blocks; // all, as a list
    sd_error *err;
} sd_parser;

struct sd_template {
    char *source;
    sd_arena arena; // tokens and nodes
    sd_node *body;
    sd_node *blocks; // a list of them, or NULL
};

sd_status sd_template_lex(sd_token **tokens, size_t *n, sd_arena *arena, const char *source,
                          size_t len, sd_error *err);
// Parsing: NULL after an error, which then stands in p->err.
sd_node *sd_parse_body(sd_parser *p);
sd_node *sd_parse_expression(sd_parser *p); // with a conditional
sd_node *sd_parse_tuple(sd_parser *p, bool with_condition, const char *end_word); // a, b or a
sd_node *sd_parse_filters(sd_parser *p, sd_node *input, bool inline_start);
sd_node *sd_parse_primary(sd_parser *p, bool target);
sd_node *sd_parse_postfix_call(sd_parser *p);
sd_node *sd_parse_fail(sd_parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
sd_node *sd_parse_no_memory(sd_parser *p);
sd_node *sd_parse_node(sd_parser *p, sd_node_kind kind, int line);
bool sd_parse_add(sd_parser *p, sd_node *to, sd_node *item); // to->list
/// Keeps node->depth and refuses what is too deep; the result is node or NULL.
sd_node *sd_parse_done(sd_parser *p, sd_node *node);
bool sd_parse_skip_op(sd_parser *p, const char *op);
bool sd_parse_skip_word(sd_parser *p, const char *word);
bool sd_parse_expect_op(sd_parser *p, const char *op);
bool sd_parse_at_op(const sd_parser *p, const char *op);
bool sd_parse_at_word(const sd_parser *p, const char *word);
bool sd_parse_enter(sd_parser *p);
void sd_parse_describe(const sd_token *t, char out[64]);

// ---- rendering

struct sd_scope {
    sd_scope *parent;
    sd_dict variables;
    bool kept; // a macro was defined in it or below it
};

struct sd_render {
    sd_arena arena;
    size_t held; // bytes of the texts that are being built
    sd_buf *out;
    int64_t fuel, look; // steps left; so many left when the outside is looked at next
    size_t bytes;       // copied or searched, less than a step's
    const sd_template_bounds *bounds;
    uint64_t seed; // of the hashes
    int depth;     // of calls and blocks
    int line;      // of what is being run
    sd_scope *scope, *globals;
    const sd_node *blocks;
    sd_status status;
    sd_error *err;
};

typedef enum { SD_FLOW_ERROR, SD_FLOW_NEXT, SD_FLOW_BREAK, SD_FLOW_CONTINUE } sd_flow;

/// Records the failure with the line; always false.
bool sd_render_fail(sd_render *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool sd_render_limit(sd_render *r, const char *what);
bool sd_spend(sd_render *r, size_t steps); // false: out of fuel, late, or nobody waits
/// A step for each SD_TMPL_BYTES_A_STEP bytes.
bool sd_spend_bytes(sd_render *r, size_t n);
bool sd_reserve_memory(sd_render *r, size_t more); // whether so much more may be asked for
bool sd_out_of_memory(sd_render *r);               // always false
void *sd_render_alloc(sd_render *r, size_t count, size_t size); // NULL: a limit, or out of memory
bool sd_write(sd_render *r, const char *p, size_t n);

// Texts being built. Their memory and the work of copying are the rendering's; false after a
// failure, which is then recorded. sd_keep or sd_drop ends each of them.
bool sd_put(sd_render *r, sd_buf *b, const char *p, size_t n);
bool sd_puts(sd_render *r, sd_buf *b, const char *s);
bool sd_putc(sd_render *r, sd_buf *b, char c);
bool sd_put_times(sd_render *r, sd_buf *b, sd_str s, size_t times);
bool sd_keep(sd_render *r, sd_buf *b, sd_value *out); // moves b's text to the render's memory
bool sd_drop(sd_render *r, sd_buf *b);                // always false

sd_flow sd_exec(sd_render *r, const sd_node *n);
sd_scope *sd_push_scope(sd_render *r, sd_scope *parent);
bool sd_capture(sd_render *r, const sd_node *body, sd_scope *scope, sd_value *out);
bool sd_make_macro(sd_render *r, const sd_node *n, sd_value *out);
bool sd_exec_call_block(sd_render *r, const sd_node *n);
bool sd_exec_generation(sd_render *r, const sd_node *n, sd_value *out);
sd_flow sd_exec_loop(sd_render *r, const sd_node *n, const sd_value *over, int depth0);
bool sd_call_loop(sd_render *r, const sd_loop *l, sd_args *a, sd_value *out);
bool sd_eval(sd_render *r, const sd_node *n, sd_value *out);
bool sd_eval_args(sd_render *r, const sd_node *call, sd_args *a);
bool sd_call_value(sd_render *r, const sd_value *f, sd_args *a, sd_value *out);
bool sd_call_macro(sd_render *r, const sd_macro *m, sd_args *a, sd_value *out);
/// *found: whether a scope defines the name. False: an error.
bool sd_lookup(sd_render *r, sd_str name, sd_value *out, bool *found);
bool sd_define(sd_render *r, sd_scope *s, sd_str name, const sd_value *v);
bool sd_apply_filter(sd_render *r, sd_str name, const sd_value *in, sd_args *a, sd_value *out);
bool sd_apply_test(sd_render *r, sd_str name, const sd_value *in, sd_args *a, bool *out);

// Arguments: by position (0 is the first after the input) or by name. False: not given.
bool sd_arg(sd_args *a, int position, const char *name, sd_value *out);
bool sd_arg_int(sd_render *r, sd_args *a, int position, const char *name,
                int64_t *out); // false: error
bool sd_arg_string(sd_render *r, sd_args *a, int position, const char *name, sd_str *out);
bool sd_arg_bool(sd_args *a, int position, const char *name, bool otherwise);
/// Fails where there are more arguments than the callee asked for.
bool sd_args_all_used(sd_render *r, const sd_args *a, sd_str callee);

// Values
sd_list *sd_list_make(sd_render *r, size_t cap);
bool sd_make_walk(sd_render *r, sd_value_kind kind, sd_list *items, const char *name,
                  sd_value *out);
bool sd_list_push(sd_render *r, sd_list *l, const sd_value *v);
sd_dict *sd_dict_make(sd_render *r, size_t cap);
bool sd_dict_put(sd_render *r, sd_dict *d, const sd_value *key, const sd_value *value);
/// *out: the value, NULL when the key is not there. False: an error; a list is no key.
bool sd_dict_find(sd_render *r, sd_dict *d, const sd_value *key, sd_value **out);
bool sd_dict_get(sd_render *r, sd_dict *d, sd_str key, sd_value **out);
bool sd_hashable(const sd_value *v);
typedef struct {
    sd_value key, item;
} sd_keyed;
bool sd_sort(sd_render *r, sd_keyed *k, size_t n, bool reverse); // stable, by the keys
sd_value sd_list_value(sd_value_kind kind, sd_list *l);
sd_value sd_dict_value(sd_dict *d);
bool sd_truth(const sd_value *v);
bool sd_equal(sd_render *r, const sd_value *a, const sd_value *b, int depth); // false: error too
/// *order: -1, 0, 1, or SD_UNORDERED where one is not a number. False: an error.
bool sd_compare(sd_render *r, const sd_value *a, const sd_value *b, int *order);
bool sd_satisfies(sd_op op, int order); // < <= > >=
bool sd_contains(sd_render *r, const sd_value *in, const sd_value *what, bool *out);
bool sd_number(sd_render *r, const sd_value *v, double *out); // int or float; see r->status
const char *sd_kind_name(const sd_value *v);
/// What a for loop sees: the elements of a sequence, a dict's keys, a string's characters.
bool sd_iterate(sd_render *r, const sd_value *v, sd_list **out);
bool sd_length(sd_render *r, const sd_value *v, int64_t *out);
/// str(v) and repr(v) of Python, appended to b.
bool sd_to_text(sd_render *r, const sd_value *v, sd_buf *b, bool repr, int depth);
/// str(v) in the render's memory; a string is itself.
bool sd_text_of(sd_render *r, const sd_value *v, sd_str *out);
void sd_format_float(char out[40], double f);  // Python's repr
const char *sd_search(sd_str in, sd_str what); // the first place or NULL
bool sd_search_last(sd_render *r, sd_str in, sd_str what, const char **out);
bool sd_spend_backwards(sd_render *r, sd_str in, sd_str what); // it compares at every place
bool sd_put_ascii(sd_render *r, sd_buf *b, sd_str s);          // escapes what is not ASCII
bool sd_is_printable(int32_t cp);
size_t sd_count_chars(sd_str s);
bool sd_is_pyspace(int32_t cp);
sd_str sd_strip(sd_str s, bool left, bool right, const sd_str *chars);

// Whole numbers: bool, int, and those beyond 64 bits
enum { SD_UNORDERED = 2 };
bool sd_is_int(const sd_value *v);
bool sd_small_int(const sd_value *v, int64_t *out); // false: not whole, or beyond 64 bits
bool sd_int_is_negative(const sd_value *v);
int sd_int_compare(const sd_value *a, const sd_value *b);
bool sd_int_compare_float(sd_render *r, const sd_value *a, double f, int *order);
bool sd_int_binary(sd_render *r, sd_op op, const sd_value *a, const sd_value *b, sd_value *out);
bool sd_int_negate(sd_render *r, const sd_value *v, sd_value *out);
double sd_int_nearly(const sd_value *v); // rounded, or infinite
bool sd_int_to_double(sd_render *r, const sd_value *v, double *out);
bool sd_int_from_double(sd_render *r, double f, sd_value *out); // towards 0
bool sd_int_text(sd_render *r, sd_buf *b, const sd_value *v);
bool sd_int_digits(sd_render *r, sd_buf *b, const sd_value *v, int base); // of its magnitude
/// Python's int(s, base), base 0 by the prefix. *is_one: whether s is a number.
bool sd_int_parse(sd_render *r, sd_str s, int base, sd_value *out, bool *is_one);
bool sd_arithmetic(sd_render *r, sd_op op, const sd_value *a, const sd_value *b, sd_value *out);
bool sd_sign(sd_render *r, bool minus, const sd_value *v, sd_value *out);

// Markup: text that counts as escaped
bool sd_escape(sd_render *r, sd_buf *b, sd_str s);
/// v's text as a Markup takes it in: escaped unless v is one.
bool sd_escaped_text(sd_render *r, const sd_value *v, sd_str *out);

bool sd_attribute(sd_render *r, const sd_value *v, sd_str name, sd_value *out);
bool sd_item(sd_render *r, const sd_value *v, const sd_value *index, sd_value *out);
bool sd_slice(sd_render *r, const sd_value *v, const sd_value *bounds, sd_value *out); // [3]
/// A dotted path ("function.name"), an index or none, as map(attribute=...) takes it; what is
/// undefined on the way becomes `otherwise` (NULL: stays).
bool sd_path(sd_render *r, const sd_value *v, const sd_value *path, const sd_value *otherwise,
             sd_value *out);
/// The block of that name, to be called.
bool sd_find_block(sd_render *r, sd_str name, sd_value *out, bool *found);
bool sd_exec_block(sd_render *r, const sd_node *n, sd_scope *parent);
typedef struct {
    const char *name;
    sd_filter call;
} sd_method_row;
// Each ends with a row without a name.
extern const sd_method_row sd_string_methods[], sd_case_methods[], sd_split_methods[];
bool sd_method_format(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);
bool sd_method_format_map(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);
bool sd_method_decode(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);
sd_filter sd_find_method(const sd_value *v, sd_str name);
bool sd_is_unsafe_method(const sd_value *v, sd_str name); // it would change its object
bool sd_call_bound(sd_render *r, sd_filter method, const sd_value *self, sd_args *a, sd_value *out);
/// A method that self has.
bool sd_call_method(sd_render *r, const char *name, const sd_value *self, sd_args *a,
                    sd_value *out);
bool sd_call_joiner(sd_turn *t, sd_value *out);
extern const sd_method_row sd_sequence_filters[], sd_number_filters[], sd_html_filters[],
    sd_line_filters[];
sd_filter sd_find_filter(sd_str name);
bool sd_is_test(sd_str name);
sd_function sd_find_global(sd_str name);
/// format % values; a tuple gives several, a dict those of %(names).
bool sd_percent_format(sd_render *r, const sd_value *format, const sd_value *values, sd_value *out);
/// Python's format(v, spec), appended.
bool sd_format_value(sd_render *r, sd_buf *b, const sd_value *v, sd_str spec);
/// %.*f and its kind of a float in the account of r: kind is one of "eEfFgG".
bool sd_put_float(sd_render *r, sd_buf *b, double f, char kind, int precision, bool alternate);

bool sd_from_json(sd_render *r, const json_t *j, int depth, sd_value *out);
bool sd_filter_pprint(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);
bool sd_filter_tojson(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);
