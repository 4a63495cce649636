// The syntax of a template: from its text to a tree of nodes that the interpreter walks.
//
//   lexer.c        text -> tokens, white space control
//   parser.c       the tools of parsing: looking at tokens, making nodes, failing
//   expressions.c  tokens -> expressions
//   statements.c   tokens -> statements, bodies
#pragma once

#include "model/template/value/value.h"

enum { SD_TMPL_MAX_SOURCE = 1 << 20, SD_TMPL_MAX_ARGS = 64 }; // bytes of a template; of one call

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

sd_status sd_template_lex(sd_token **tokens, size_t *n, sd_arena *arena, const char *source,
                          size_t len, sd_error *err);

// Parsing. NULL or false after an error, which then stands in p->err.

sd_node *sd_parse_body(sd_parser *p);       // a whole template (statements.c)
sd_node *sd_parse_expression(sd_parser *p); // with a conditional (this and the next: expressions.c)
sd_node *sd_parse_tuple(sd_parser *p, bool with_condition, const char *end_word); // a, b or a
sd_node *sd_parse_filters(sd_parser *p, sd_node *input, bool inline_start);
sd_node *sd_parse_primary(sd_parser *p, bool target);
sd_node *sd_parse_postfix_call(sd_parser *p);

// ---- the tools (parser.c)

const sd_token *sd_parse_here(const sd_parser *p); // the token that is next
void sd_parse_next(sd_parser *p);
bool sd_parse_at_op(const sd_parser *p, const char *op);
bool sd_parse_at_word(const sd_parser *p, const char *word);
bool sd_parse_skip_op(sd_parser *p, const char *op);
bool sd_parse_skip_word(sd_parser *p, const char *word);
bool sd_parse_expect_op(sd_parser *p, const char *op);
void sd_parse_describe(const sd_token *t, char out[64]);

sd_node *sd_parse_fail(sd_parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
sd_node *sd_parse_unexpected(sd_parser *p, const char *wanted);
sd_node *sd_parse_no_memory(sd_parser *p);

bool sd_parse_enter(sd_parser *p); // one level deeper; p->depth-- leaves it
sd_node *sd_parse_node(sd_parser *p, sd_node_kind kind, int line);
bool sd_parse_add(sd_parser *p, sd_node *to, sd_node *item); // to->list
/// Keeps node->depth and refuses what is too deep; the result is node or NULL.
sd_node *sd_parse_done(sd_parser *p, sd_node *node);
