// The interpreter: it walks the nodes of syntax/ and computes with the values of value/ and what
// builtins/ gives by name.
//
//   template.c   parsing once, rendering         scope.c   variables
//   eval.c       expressions, calls              exec.c    statements, loops
//   macro.c      bodies that give a text: macros, call blocks, named blocks, recursive loops
//
// Expressions call macros, whose bodies are statements, which hold expressions: eval.c, exec.c and
// macro.c call one another, as the language does.
#pragma once

#include "model/template/builtins/builtins.h"
#include "model/template/syntax/syntax.h"

struct sd_scope {
    sd_scope *parent;
    sd_dict variables;
    bool kept; // a macro was defined in it or below it
};

sd_scope *sd_push_scope(sd_render *r, sd_scope *parent);
bool sd_define(sd_render *r, sd_scope *s, sd_str name, const sd_value *v);
/// *found: whether a scope defines the name. False: an error.
bool sd_lookup(sd_render *r, sd_str name, sd_value *out, bool *found);

bool sd_eval(sd_render *r, const sd_node *n, sd_value *out);
bool sd_eval_args(sd_render *r, const sd_node *call, sd_args *a);
bool sd_call_value(sd_render *r, const sd_value *f, sd_args *a, sd_value *out);

typedef enum { SD_FLOW_ERROR, SD_FLOW_NEXT, SD_FLOW_BREAK, SD_FLOW_CONTINUE } sd_flow;
sd_flow sd_exec(sd_render *r, const sd_node *n);
sd_flow sd_exec_loop(sd_render *r, const sd_node *n, const sd_value *over, int depth0);

/// Runs a body in a scope of its own and gives what it wrote. scope NULL: memory is out.
bool sd_capture(sd_render *r, const sd_node *body, sd_scope *scope, sd_value *out);
bool sd_make_macro(sd_render *r, const sd_node *n, sd_value *out);
bool sd_call_macro(sd_render *r, const sd_macro *m, sd_args *a, sd_value *out);
bool sd_call_loop(sd_render *r, const sd_loop *l, sd_args *a, sd_value *out);
bool sd_exec_block(sd_render *r, const sd_node *n, sd_scope *parent);
bool sd_exec_call_block(sd_render *r, const sd_node *n);
bool sd_exec_generation(sd_render *r, const sd_node *n, sd_value *out);
