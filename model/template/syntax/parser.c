// The tools of parsing: looking at tokens, making nodes, failing. The parser stops at its first
// error.
#include "model/template/syntax/syntax.h"

#include <stdio.h>

const sd_token *sd_parse_here(const sd_parser *p) {
    return &p->token[p->at];
}

void sd_parse_next(sd_parser *p) {
    if (sd_parse_here(p)->kind != SD_T_EOF) p->at++;
}

void sd_parse_describe(const sd_token *t, char out[64]) {
    switch (t->kind) {
    case SD_T_EOF:
        snprintf(out, 64, "the end of the template");
        break;
    case SD_T_BLOCK_BEGIN:
    case SD_T_BLOCK_END:
    case SD_T_VAR_BEGIN:
    case SD_T_VAR_END:
        snprintf(out, 64, "the %s of a tag",
                 t->kind == SD_T_BLOCK_END || t->kind == SD_T_VAR_END ? "end" : "begin");
        break;
    default:
        snprintf(out, 64, "\"%.*s\"", (int)(t->text.n < 40 ? t->text.n : 40), t->text.p);
    }
}

sd_node *sd_parse_fail(sd_parser *p, const char *fmt, ...) {
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    sd_fail(p->err, SD_EFORMAT, "chat template line %d: %s", sd_parse_here(p)->line, what);
    return NULL;
}

sd_node *sd_parse_no_memory(sd_parser *p) {
    p->no_memory = true;
    return sd_parse_fail(p, "out of memory");
}

sd_node *sd_parse_unexpected(sd_parser *p, const char *wanted) {
    char what[64];
    sd_parse_describe(sd_parse_here(p), what);
    return sd_parse_fail(p, "expected %s, got %s", wanted, what);
}

sd_node *sd_parse_node(sd_parser *p, sd_node_kind kind, int line) {
    sd_node *n = sd_arena_alloc(p->arena, 1, sizeof *n);
    if (!n) return sd_parse_no_memory(p);
    n->kind = kind;
    n->line = line;
    n->depth = 1;
    return n;
}

bool sd_parse_add(sd_parser *p, sd_node *to, sd_node *item) {
    if (to->n == to->cap) {
        int cap = to->cap ? to->cap * 2 : 4;
        sd_node **list = sd_arena_alloc(p->arena, (size_t)cap, sizeof *list);
        if (!list) return sd_parse_no_memory(p) != NULL;
        if (to->n) memcpy(list, to->list, (size_t)to->n * sizeof *list);
        to->list = list;
        to->cap = cap;
    }
    to->list[to->n++] = item;
    return true;
}

static void deepen(sd_node *n, const sd_node *child) {
    if (child && child->depth >= n->depth) n->depth = child->depth + 1;
}

sd_node *sd_parse_done(sd_parser *p, sd_node *n) {
    deepen(n, n->a);
    deepen(n, n->b);
    deepen(n, n->c);
    for (int i = 0; i < n->n; i++) deepen(n, n->list[i]);
    if (n->depth > SD_TMPL_MAX_DEPTH) return sd_parse_fail(p, "this is nested too deeply");
    return n;
}

bool sd_parse_enter(sd_parser *p) {
    if (p->depth >= SD_TMPL_MAX_DEPTH) return sd_parse_fail(p, "this is nested too deeply") != NULL;
    p->depth++;
    return true;
}

bool sd_parse_at_op(const sd_parser *p, const char *op) {
    return sd_parse_here(p)->kind == SD_T_OP && sd_str_is(sd_parse_here(p)->text, op);
}

bool sd_parse_at_word(const sd_parser *p, const char *word) {
    return sd_parse_here(p)->kind == SD_T_NAME && sd_str_is(sd_parse_here(p)->text, word);
}

bool sd_parse_skip_op(sd_parser *p, const char *op) {
    if (!sd_parse_at_op(p, op)) return false;
    sd_parse_next(p);
    return true;
}

bool sd_parse_skip_word(sd_parser *p, const char *word) {
    if (!sd_parse_at_word(p, word)) return false;
    sd_parse_next(p);
    return true;
}

bool sd_parse_expect_op(sd_parser *p, const char *op) {
    char wanted[8];
    if (sd_parse_skip_op(p, op)) return true;
    snprintf(wanted, sizeof wanted, "'%s'", op);
    return sd_parse_unexpected(p, wanted) != NULL;
}
