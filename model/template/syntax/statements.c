// Statements, which stand in {% %}, and the bodies between them.
#include "model/template/syntax/syntax.h"

static bool expect_end(sd_parser *p) {
    char what[64];
    if (sd_parse_here(p)->kind == SD_T_BLOCK_END) {
        p->at++;
        return true;
    }
    sd_parse_describe(sd_parse_here(p), what);
    return sd_parse_fail(p, "expected the end of the tag, got %s", what) != NULL;
}

static sd_node *statement(sd_parser *p);

static bool is_one_of(sd_parser *p, const char *const *words) {
    for (; words && *words; words++)
        if (sd_parse_at_word(p, *words)) return true;
    return false;
}

// Reads up to a tag that begins with one of `ends` (NULL: up to the end of the template). That
// tag's word is the next token then.
static sd_node *body(sd_parser *p, const char *const *ends) {
    int line = sd_parse_here(p)->line;
    sd_node *block = sd_parse_node(p, SD_N_BLOCK, line), *n;
    if (!block || !sd_parse_enter(p)) return NULL;
    for (;;) {
        const sd_token *t = sd_parse_here(p);
        if (t->kind == SD_T_EOF) {
            if (ends) return sd_parse_fail(p, "the tag of line %d has no %s", line, ends[0]);
            break;
        }
        p->at++;
        if (t->kind == SD_T_DATA) {
            n = sd_parse_node(p, SD_N_DATA, t->line);
            if (n) n->text = t->text;
        } else if (t->kind == SD_T_VAR_BEGIN) {
            n = sd_parse_node(p, SD_N_OUTPUT, t->line);
            if (!n || !(n->a = sd_parse_tuple(p, true, NULL))) return NULL;
            if (sd_parse_here(p)->kind != SD_T_VAR_END) {
                char what[64];
                sd_parse_describe(sd_parse_here(p), what);
                return sd_parse_fail(p, "expected \"}}\", got %s", what);
            }
            p->at++;
            n = sd_parse_done(p, n);
        } else { // SD_T_BLOCK_BEGIN
            if (is_one_of(p, ends)) break;
            n = statement(p);
        }
        if (!n || !sd_parse_add(p, block, n)) return NULL;
    }
    p->depth--;
    return sd_parse_done(p, block);
}

// A body and the tag that ends it.
static sd_node *whole_body(sd_parser *p, const char *end) {
    const char *const ends[] = {end, NULL};
    if (!expect_end(p)) return NULL;
    sd_node *n = body(p, ends);
    if (!n) return NULL;
    p->at++; // the word
    return expect_end(p) ? n : NULL;
}

// a   a, b   (a, b)   ns.a
static sd_node *target(sd_parser *p, bool namespace) {
    sd_node *tuple = NULL, *n;
    int line = sd_parse_here(p)->line;
    bool brackets = sd_parse_skip_op(p, "(");
    for (;;) {
        n = sd_parse_at_op(p, "(") && sd_parse_enter(p) ? target(p, false)
                                                        : sd_parse_primary(p, namespace);
        if (!n) return NULL;
        if (n->kind != SD_N_NAME && n->kind != SD_N_NSREF && n->kind != SD_N_TUPLE)
            return sd_parse_fail(p, "nothing can be assigned to this");
        if (!sd_parse_at_op(p, ",") && !tuple) break;
        if (!tuple && !(tuple = sd_parse_node(p, SD_N_TUPLE, line))) return NULL;
        if (!sd_parse_add(p, tuple, n)) return NULL;
        if (!sd_parse_skip_op(p, ",")) break;
        if (sd_parse_at_word(p, "in") || sd_parse_at_op(p, "=") || sd_parse_at_op(p, ")")) break;
    }
    if (brackets && !sd_parse_expect_op(p, ")")) return NULL;
    return tuple ? sd_parse_done(p, tuple) : n;
}

static sd_node *parse_for(sd_parser *p, int line) {
    static const char *const ends[] = {"endfor", "else", NULL};
    sd_node *n = sd_parse_node(p, SD_N_FOR, line), *part;
    if (!n || !(n->a = target(p, false))) return NULL;
    if (!sd_parse_skip_word(p, "in")) return sd_parse_fail(p, "for without in");
    if (!(n->b = sd_parse_tuple(p, false, "recursive"))) return NULL;
    if (sd_parse_skip_word(p, "if") && !(n->c = sd_parse_expression(p))) return NULL;
    if (sd_parse_skip_word(p, "recursive")) n->uses = SD_LOOP_RECURSIVE;
    if (!expect_end(p)) return NULL;
    p->loops++;
    part = body(p, ends);
    p->loops--;
    if (!part || !sd_parse_add(p, n, part)) return NULL;
    if (sd_parse_skip_word(p, "else")) {
        if (!(part = whole_body(p, "endfor")) || !sd_parse_add(p, n, part)) return NULL;
    } else {
        p->at++;
        if (!expect_end(p)) return NULL;
    }
    return sd_parse_done(p, n);
}

static sd_node *parse_if(sd_parser *p, int line) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    sd_node *n = sd_parse_node(p, SD_N_IF, line), *part;
    if (!n) return NULL;
    do {
        if (!(part = sd_parse_tuple(p, false, NULL)) || !sd_parse_add(p, n, part)) return NULL;
        if (!expect_end(p) || !(part = body(p, ends)) || !sd_parse_add(p, n, part)) return NULL;
    } while (sd_parse_skip_word(p, "elif"));
    if (sd_parse_skip_word(p, "else")) {
        if (!(n->a = whole_body(p, "endif"))) return NULL;
    } else {
        p->at++;
        if (!expect_end(p)) return NULL;
    }
    return sd_parse_done(p, n);
}

static sd_node *parse_set(sd_parser *p, int line) {
    sd_node *to = target(p, true), *n;
    if (!to) return NULL;
    if (sd_parse_skip_op(p, "=")) {
        n = sd_parse_node(p, SD_N_SET, line);
        if (!n || !(n->b = sd_parse_tuple(p, true, NULL)) || !expect_end(p)) return NULL;
    } else {
        n = sd_parse_node(p, SD_N_SETBLOCK, line);
        if (!n || (sd_parse_at_op(p, "|") && !(n->b = sd_parse_filters(p, NULL, false))))
            return NULL;
        sd_node *part = whole_body(p, "endset");
        if (!part || !sd_parse_add(p, n, part)) return NULL;
    }
    n->a = to;
    return sd_parse_done(p, n);
}

// "(a, b=1)" into n->list.
static bool signature(sd_parser *p, sd_node *n) {
    if (!sd_parse_expect_op(p, "(")) return false;
    while (!sd_parse_at_op(p, ")")) {
        if (n->n && !sd_parse_expect_op(p, ",")) return false;
        if (sd_parse_at_op(p, ")")) break;
        if (sd_parse_here(p)->kind != SD_T_NAME || n->n == SD_TMPL_MAX_ARGS)
            return sd_parse_fail(p, "this is no parameter of a macro") != NULL;
        sd_node *k = sd_parse_node(p, SD_N_KEYWORD, sd_parse_here(p)->line);
        if (!k) return false;
        k->text = sd_parse_here(p)->text;
        p->at++;
        if (sd_parse_skip_op(p, "=") && !(k->a = sd_parse_expression(p))) return false;
        if (!sd_parse_done(p, k) || !sd_parse_add(p, n, k)) return false;
    }
    return sd_parse_expect_op(p, ")");
}

static sd_node *macro_body(sd_parser *p, sd_node *macro, const char *end) {
    int loops = p->loops, uses = p->uses;
    p->loops = 0; // break does not leave a macro
    p->uses = 0;
    macro->b = whole_body(p, end);
    macro->uses = p->uses;
    p->loops = loops;
    p->uses |= uses;
    return macro->b ? sd_parse_done(p, macro) : NULL;
}

static sd_node *parse_macro(sd_parser *p, int line) {
    sd_node *n = sd_parse_node(p, SD_N_MACRO, line);
    if (!n) return NULL;
    if (sd_parse_here(p)->kind != SD_T_NAME) return sd_parse_fail(p, "macro without a name");
    n->text = sd_parse_here(p)->text;
    p->at++;
    return signature(p, n) ? macro_body(p, n, "endmacro") : NULL;
}

static sd_node *parse_call(sd_parser *p, int line) {
    sd_node *n = sd_parse_node(p, SD_N_CALLBLOCK, line);
    sd_node *caller = sd_parse_node(p, SD_N_MACRO, line);
    if (!n || !caller) return NULL;
    if (sd_parse_at_op(p, "(") && !signature(p, caller)) return NULL;
    if (!(n->a = sd_parse_postfix_call(p))) return NULL;
    if (n->a->kind != SD_N_CALL) return sd_parse_fail(p, "call without a call of a macro");
    n->b = macro_body(p, caller, "endcall");
    return n->b ? sd_parse_done(p, n) : NULL;
}

static sd_node *parse_filter_block(sd_parser *p, int line) {
    sd_node *n = sd_parse_node(p, SD_N_FILTERBLOCK, line);
    if (!n || !(n->a = sd_parse_filters(p, NULL, true))) return NULL;
    n->b = whole_body(p, "endfilter");
    return n->b ? sd_parse_done(p, n) : NULL;
}

static sd_node *parse_with(sd_parser *p, int line) {
    sd_node *n = sd_parse_node(p, SD_N_WITH, line), *part;
    while (n && sd_parse_here(p)->kind != SD_T_BLOCK_END) {
        if (n->n && !sd_parse_expect_op(p, ",")) return NULL;
        if (!(part = sd_parse_primary(p, false)) || !sd_parse_add(p, n, part)) return NULL;
        if (part->kind != SD_N_NAME) return sd_parse_fail(p, "nothing can be assigned to this");
        if (!sd_parse_expect_op(p, "=")) return NULL;
        if (!(part = sd_parse_expression(p)) || !sd_parse_add(p, n, part)) return NULL;
    }
    if (!n || !(n->b = whole_body(p, "endwith"))) return NULL;
    return sd_parse_done(p, n);
}

static sd_node *parse_jump(sd_parser *p, int line, sd_node_kind kind) {
    if (!p->loops) return sd_parse_fail(p, "break or continue outside a loop");
    sd_node *n = sd_parse_node(p, kind, line);
    return n && expect_end(p) ? n : NULL;
}

static sd_node *parse_generation(sd_parser *p, int line) {
    sd_node *n = sd_parse_node(p, SD_N_SCOPED, line);
    return n ? macro_body(p, n, "endgeneration") : NULL;
}

// {% print a, b %} writes each.
static sd_node *parse_print(sd_parser *p, int line) {
    sd_node *block = sd_parse_node(p, SD_N_BLOCK, line);
    while (block && sd_parse_here(p)->kind != SD_T_BLOCK_END) {
        if (block->n && !sd_parse_expect_op(p, ",")) return NULL;
        sd_node *n = sd_parse_node(p, SD_N_OUTPUT, line);
        if (!n || !(n->a = sd_parse_expression(p)) || !sd_parse_done(p, n) ||
            !sd_parse_add(p, block, n))
            return NULL;
    }
    return block && expect_end(p) ? sd_parse_done(p, block) : NULL;
}

static bool known_block(sd_parser *p, sd_str name) {
    for (int i = 0; i < p->blocks->n; i++)
        if (sd_str_eq(p->blocks->list[i]->text, name))
            return sd_parse_fail(p, "the block \"%.*s\" stands there twice",
                                 (int)(name.n < 40 ? name.n : 40), name.p) == NULL;
    return false;
}

// block name [scoped] [required] ... endblock [name]
static sd_node *parse_block(sd_parser *p, int line) {
    enum { MAX_BLOCKS = 1000 }; // each name is compared with all
    static const char *const ends[] = {"endblock", NULL};
    sd_node *n = sd_parse_node(p, SD_N_NAMED, line);
    if (!p->blocks) p->blocks = sd_parse_node(p, SD_N_BLOCK, line);
    if (!n || !p->blocks) return NULL;
    if (sd_parse_here(p)->kind != SD_T_NAME) return sd_parse_fail(p, "block without a name");
    n->text = sd_parse_here(p)->text;
    p->at++;
    if (known_block(p, n->text)) return NULL;
    if (p->blocks->n == MAX_BLOCKS) return sd_parse_fail(p, "more than %d blocks", MAX_BLOCKS);
    if (sd_parse_skip_word(p, "scoped")) n->uses |= SD_BLOCK_SCOPED;
    if (sd_parse_skip_word(p, "required")) n->uses |= SD_BLOCK_REQUIRED;
    if (!expect_end(p)) return NULL;
    int loops = p->loops;
    p->loops = 0;
    n->b = body(p, ends);
    p->loops = loops;
    if (!n->b || !sd_parse_add(p, p->blocks, n)) return NULL;
    p->at++; // endblock
    if (sd_parse_here(p)->kind == SD_T_NAME && sd_str_eq(sd_parse_here(p)->text, n->text)) p->at++;
    return expect_end(p) ? sd_parse_done(p, n) : NULL;
}

static sd_node *statement(sd_parser *p) {
    static const char *const others[] = {"include", "import", "from", "extends"};
    const sd_token *t = sd_parse_here(p);
    int line = t->line;
    if (t->kind != SD_T_NAME) return sd_parse_fail(p, "a tag begins without a word");
    p->at++;
    if (sd_str_is(t->text, "for")) return parse_for(p, line);
    if (sd_str_is(t->text, "if")) return parse_if(p, line);
    if (sd_str_is(t->text, "set")) return parse_set(p, line);
    if (sd_str_is(t->text, "macro")) return parse_macro(p, line);
    if (sd_str_is(t->text, "call")) return parse_call(p, line);
    if (sd_str_is(t->text, "filter")) return parse_filter_block(p, line);
    if (sd_str_is(t->text, "with")) return parse_with(p, line);
    if (sd_str_is(t->text, "generation")) return parse_generation(p, line);
    if (sd_str_is(t->text, "break")) return parse_jump(p, line, SD_N_BREAK);
    if (sd_str_is(t->text, "continue")) return parse_jump(p, line, SD_N_CONTINUE);
    if (sd_str_is(t->text, "print")) return parse_print(p, line);
    if (sd_str_is(t->text, "block")) return parse_block(p, line);
    p->at--;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (sd_str_is(t->text, others[i]))
            return sd_parse_fail(p, "the tag \"%s\" needs other templates, and a model has one",
                                 others[i]);
    return sd_parse_fail(p, "the tag \"%.*s\" is not supported",
                         (int)(t->text.n < 40 ? t->text.n : 40), t->text.p);
}

sd_node *sd_parse_body(sd_parser *p) {
    return body(p, NULL);
}
