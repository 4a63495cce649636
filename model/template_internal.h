// What the template's files share and nobody else sees.
//
//   template_lexer.c      text -> tokens, white space control
//   template_parser.c     tokens -> expressions        template_statements.c  -> statements
//   template_value.c      values as Python has them     template_dict.c        dicts, a hash table
//   template_text.c       texts being built, repr()     template_json.c        JSON in and out
//   template_eval.c       expressions                   template_exec.c        statements, macros
//   template_attributes.c reaching into values          template_methods*.c    by their type
//   template_filters.c, template_sequences.c, template_tests.c
#pragma once

#include "base/memory.h"
#include "model/chat_template.h"

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
    SD_V_FLOAT,
    SD_V_STRING,
    SD_V_LIST,
    SD_V_TUPLE,
    SD_V_DICT,
    SD_V_NAMESPACE,
    SD_V_MACRO,
    SD_V_FUNCTION,
    SD_V_METHOD,
    SD_V_LOOP
} sd_value_kind;

typedef struct sd_value sd_value;
typedef struct sd_render sd_render;
typedef struct sd_args sd_args;
typedef struct sd_node sd_node;
typedef struct sd_scope sd_scope;

typedef struct {
    sd_value *item;
    size_t n, cap;
} sd_list;

typedef struct {
    sd_value *key, *value; // [cap], in the order of insertion
    uint32_t *slot;        // [slots]: 1 + a position by its key's hash; NULL while there are few
    size_t n, cap, slots;
} sd_dict;

typedef bool (*sd_function)(sd_render *r, const sd_args *a, sd_value *out);
typedef bool (*sd_filter)(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);

typedef struct sd_macro sd_macro;
typedef struct sd_method sd_method;
typedef struct sd_loop sd_loop;

struct sd_value {
    sd_value_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        sd_str s; // a string; of an undefined value: the name that was looked for
        sd_list *list;
        sd_dict *dict;
        sd_macro *macro;
        sd_method *method;
        sd_loop *loop;
        sd_function function;
    };
};

struct sd_macro {
    sd_str name;
    const sd_node *node;    // parameters and body
    sd_scope *scope;        // where it was defined
    const sd_value *caller; // of a call block
};

struct sd_method {
    sd_value self;
    sd_filter call;
};

struct sd_loop {
    const sd_list *items;
    size_t index0;
    sd_list *changed; // what loop.changed() saw last
};

// Arguments of a call, a filter or a test.
struct sd_args {
    sd_value *item; // [n]
    int n;
    sd_str *name; // [n_named]
    sd_value *named;
    int n_named;
    uint64_t used; // bit i: named argument i was read
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
    sd_str text; // of a string: its value
    int64_t i;
    double f;
} sd_token;

typedef enum {
    // expressions
    SD_N_CONST,
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
    SD_N_BREAK,
    SD_N_CONTINUE
} sd_node_kind;

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

struct sd_node {
    sd_node_kind kind;
    sd_op op;
    int line, depth;
    sd_str text, attr;
    sd_value value;
    sd_node *a, *b, *c;
    sd_node **list;
    int n, cap;
};

typedef struct {
    sd_arena *arena;
    const sd_token *token; // [n], the last is SD_T_EOF
    size_t at;
    int depth, loops;
    sd_error *err;
} sd_parser;

struct sd_template {
    char *source;
    sd_arena arena; // tokens and nodes
    sd_node *body;
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
    sd_scope *scope;
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
bool sd_args_all_used(sd_render *r, const sd_args *a, sd_str callee);

// Values
sd_list *sd_list_make(sd_render *r, size_t cap);
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
bool sd_equal(sd_render *r, const sd_value *a, const sd_value *b, int depth);    // false: error too
bool sd_compare(sd_render *r, const sd_value *a, const sd_value *b, int *order); // false: error
bool sd_contains(sd_render *r, const sd_value *in, const sd_value *what, bool *out);
bool sd_number(const sd_value *v, double *out); // bool, int or float
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
size_t sd_count_chars(sd_str s);
bool sd_is_pyspace(int32_t cp);
sd_str sd_strip(sd_str s, bool left, bool right, const sd_str *chars);

bool sd_attribute(sd_render *r, const sd_value *v, sd_str name, sd_value *out);
bool sd_item(sd_render *r, const sd_value *v, const sd_value *index, sd_value *out);
bool sd_slice(sd_render *r, const sd_value *v, const sd_value *bounds, sd_value *out); // [3]
/// A dotted path ("function.name") or an index, as map(attribute=...) takes it.
bool sd_path(sd_render *r, const sd_value *v, const sd_value *path, sd_value *out);
typedef struct {
    const char *name;
    sd_filter call;
} sd_method_row;
extern const sd_method_row sd_string_methods[]; // ends with a row without a name
sd_filter sd_find_method(const sd_value *v, sd_str name);
sd_filter sd_find_sequence_filter(sd_str name);
sd_function sd_find_global(sd_str name);
bool sd_percent_format(sd_render *r, sd_str format, const sd_value *items, int n, sd_value *out);

bool sd_from_json(sd_render *r, const json_t *j, int depth, sd_value *out);
bool sd_filter_tojson(sd_render *r, const sd_value *in, sd_args *a, sd_value *out);
