// Expressions, by recursive descent in Jinja's order of precedence: if-else, or, and, not, compare,
// + -, ~, * / // %, **, unary, then attributes, subscripts, calls, filters and tests.
#include "model/template/syntax/syntax.h"

static sd_node *make(sd_parser *p, sd_node_kind kind, int line, sd_node *a, sd_node *b,
                     sd_node *c) {
    sd_node *n = sd_parse_node(p, kind, line);
    if (!n) return NULL;
    n->a = a, n->b = b, n->c = c;
    return sd_parse_done(p, n);
}

// ---- the smallest parts

static sd_node *constant(sd_parser *p, sd_value v) {
    sd_node *n = sd_parse_node(p, SD_N_CONST, sd_parse_here(p)->line);
    if (n) n->value = v;
    return n;
}

static sd_node *list_literal(sd_parser *p) {
    sd_node *n = sd_parse_node(p, SD_N_LIST, sd_parse_here(p)->line);
    sd_parse_next(p); // [
    while (n && !sd_parse_at_op(p, "]")) {
        if (n->n && !sd_parse_expect_op(p, ",")) return NULL;
        if (sd_parse_at_op(p, "]")) break;
        sd_node *item = sd_parse_expression(p);
        if (!item || !sd_parse_add(p, n, item)) return NULL;
    }
    if (!n || !sd_parse_expect_op(p, "]")) return NULL;
    return sd_parse_done(p, n);
}

static sd_node *dict_literal(sd_parser *p) {
    sd_node *n = sd_parse_node(p, SD_N_DICT, sd_parse_here(p)->line);
    sd_parse_next(p); // {
    while (n && !sd_parse_at_op(p, "}")) {
        if (n->n && !sd_parse_expect_op(p, ",")) return NULL;
        if (sd_parse_at_op(p, "}")) break;
        sd_node *key = sd_parse_expression(p);
        if (!key || !sd_parse_add(p, n, key) || !sd_parse_expect_op(p, ":")) return NULL;
        sd_node *value = sd_parse_expression(p);
        if (!value || !sd_parse_add(p, n, value)) return NULL;
    }
    if (!n || !sd_parse_expect_op(p, "}")) return NULL;
    return sd_parse_done(p, n);
}

static sd_node *strings(sd_parser *p) { // those that stand side by side are one
    size_t total = 0, at = 0;
    sd_node *n = constant(p, sd_none());
    for (size_t i = p->at; p->token[i].kind == SD_T_STRING; i++) total += p->token[i].text.n;
    char *joined = sd_arena_alloc(p->arena, total + 1, 1);
    if (!n || !joined) return sd_parse_no_memory(p);
    for (; sd_parse_here(p)->kind == SD_T_STRING; sd_parse_next(p)) {
        memcpy(joined + at, sd_parse_here(p)->text.p, sd_parse_here(p)->text.n);
        at += sd_parse_here(p)->text.n;
    }
    n->value = sd_string(joined, total);
    return n;
}

// A macro gets what is passed to it beside its parameters only where its body names it.
static void note_use(sd_parser *p, sd_str name) {
    if (sd_str_is(name, "caller")) p->uses |= SD_USES_CALLER;
    if (sd_str_is(name, "varargs")) p->uses |= SD_USES_VARARGS;
    if (sd_str_is(name, "kwargs")) p->uses |= SD_USES_KWARGS;
}

static sd_node *word(sd_parser *p, bool target) {
    const sd_token *t = sd_parse_here(p);
    sd_node *n = NULL;
    sd_parse_next(p);
    if (sd_str_is(t->text, "true") || sd_str_is(t->text, "True")) return constant(p, sd_bool(true));
    if (sd_str_is(t->text, "false") || sd_str_is(t->text, "False"))
        return constant(p, sd_bool(false));
    if (sd_str_is(t->text, "none") || sd_str_is(t->text, "None")) return constant(p, sd_none());
    if (target && sd_parse_skip_op(p, ".")) {
        if (sd_parse_here(p)->kind != SD_T_NAME) return sd_parse_unexpected(p, "a name");
        n = sd_parse_node(p, SD_N_NSREF, t->line);
        if (n) n->attr = sd_parse_here(p)->text;
        sd_parse_next(p);
    } else {
        n = sd_parse_node(p, SD_N_NAME, t->line);
    }
    if (n) n->text = t->text;
    note_use(p, t->text);
    return n;
}

sd_node *sd_parse_primary(sd_parser *p, bool target) {
    const sd_token *t = sd_parse_here(p);
    sd_node *n = NULL;
    if (t->kind == SD_T_NAME) return word(p, target);
    if (t->kind == SD_T_STRING) return strings(p);
    if (t->kind == SD_T_INT || t->kind == SD_T_FLOAT) {
        n = constant(p, t->kind == SD_T_INT ? sd_int(t->i) : sd_float(t->f));
        if (n && t->wide) n->kind = SD_N_BIGINT, n->text = t->text;
        sd_parse_next(p);
        return n;
    }
    if (!sd_parse_enter(p)) return NULL;
    if (sd_parse_at_op(p, "(")) {
        sd_parse_next(p);
        if (sd_parse_at_op(p, ")"))
            n = sd_parse_node(p, SD_N_TUPLE, t->line);
        else
            n = sd_parse_tuple(p, true, NULL);
        if (n && !sd_parse_expect_op(p, ")")) n = NULL;
    } else if (sd_parse_at_op(p, "[")) {
        n = list_literal(p);
    } else if (sd_parse_at_op(p, "{")) {
        n = dict_literal(p);
    } else {
        n = sd_parse_unexpected(p, "an expression");
    }
    p->depth--;
    return n;
}

// ---- calls, subscripts, filters, tests

static sd_node *argument(sd_parser *p) {
    const sd_token *t = sd_parse_here(p);
    sd_node_kind kind = SD_N_CONST;
    sd_str name = {0};
    if (sd_parse_skip_op(p, "*"))
        kind = SD_N_STAR;
    else if (sd_parse_skip_op(p, "**"))
        kind = SD_N_STAR2;
    else if (t->kind == SD_T_NAME && t[1].kind == SD_T_OP && sd_str_is(t[1].text, "=")) {
        kind = SD_N_KEYWORD;
        name = t->text;
        sd_parse_next(p);
        sd_parse_next(p);
    }
    sd_node *value = sd_parse_expression(p);
    if (!value || kind == SD_N_CONST) return value;
    sd_node *n = make(p, kind, t->line, value, NULL, NULL);
    if (n) n->text = name;
    return n;
}

// "(a, b=c)" into to->list.
static bool arguments(sd_parser *p, sd_node *to) {
    bool keywords = false;
    if (!sd_parse_expect_op(p, "(")) return false;
    while (!sd_parse_at_op(p, ")")) {
        if (to->n && !sd_parse_expect_op(p, ",")) return false;
        if (sd_parse_at_op(p, ")")) break;
        sd_node *a = argument(p);
        if (!a) return false;
        if (a->kind == SD_N_KEYWORD || a->kind == SD_N_STAR2)
            keywords = true;
        else if (keywords)
            return sd_parse_fail(p, "an argument without a name follows one with a name") != NULL;
        if (to->n == SD_TMPL_MAX_ARGS)
            return sd_parse_fail(p, "more than %d arguments", SD_TMPL_MAX_ARGS) != NULL;
        if (!sd_parse_add(p, to, a)) return false;
    }
    return sd_parse_expect_op(p, ")");
}

static sd_node *call(sd_parser *p, sd_node *callee) {
    sd_node *n = sd_parse_node(p, SD_N_CALL, sd_parse_here(p)->line);
    if (!n || !arguments(p, n)) return NULL;
    n->a = callee;
    return sd_parse_done(p, n);
}

static sd_node *bounds(sd_parser *p) { // what stands in [ ]
    sd_node *part[3] = {NULL, NULL, NULL};
    int line = sd_parse_here(p)->line, k = 0;
    if (!sd_parse_at_op(p, ":")) {
        part[0] = sd_parse_expression(p);
        if (!part[0] || !sd_parse_at_op(p, ":")) return part[0];
    }
    while (k < 2 && sd_parse_skip_op(p, ":")) {
        k++;
        if (sd_parse_at_op(p, ":") || sd_parse_at_op(p, "]")) continue;
        part[k] = sd_parse_expression(p);
        if (!part[k]) return NULL;
    }
    return make(p, SD_N_SLICE, line, part[0], part[1], part[2]);
}

static sd_node *subscript(sd_parser *p, sd_node *of) {
    const sd_token *t = sd_parse_here(p);
    sd_node *index;
    if (sd_parse_skip_op(p, ".")) {
        const sd_token *name = sd_parse_here(p);
        if (name->kind == SD_T_NAME) {
            sd_node *n = make(p, SD_N_ATTR, t->line, of, NULL, NULL);
            if (n) n->text = name->text;
            sd_parse_next(p);
            return n;
        }
        if (name->kind != SD_T_INT) return sd_parse_unexpected(p, "a name or a number");
        index = constant(p, sd_int(name->i));
        sd_parse_next(p);
    } else {
        sd_parse_next(p); // [
        index = bounds(p);
        if (!index || !sd_parse_expect_op(p, "]")) return NULL;
    }
    return index ? make(p, SD_N_ITEM, t->line, of, index, NULL) : NULL;
}

static sd_node *postfix(sd_parser *p, sd_node *n) {
    while (n) {
        if (sd_parse_at_op(p, ".") || sd_parse_at_op(p, "["))
            n = subscript(p, n);
        else if (sd_parse_at_op(p, "("))
            n = call(p, n);
        else
            break;
    }
    return n;
}

sd_node *sd_parse_postfix_call(sd_parser *p) {
    return postfix(p, sd_parse_primary(p, false));
}

sd_node *sd_parse_filters(sd_parser *p, sd_node *input, bool inline_start) {
    while (inline_start || sd_parse_skip_op(p, "|")) {
        const sd_token *t = sd_parse_here(p);
        if (t->kind != SD_T_NAME) return sd_parse_unexpected(p, "the name of a filter");
        sd_node *n = sd_parse_node(p, SD_N_FILTER, t->line);
        if (!n) return NULL;
        n->text = t->text;
        n->a = input;
        sd_parse_next(p);
        if (sd_parse_at_op(p, "(") && !arguments(p, n)) return NULL;
        input = sd_parse_done(p, n);
        if (!input) return NULL;
        inline_start = false;
    }
    return input;
}

static sd_node *test(sd_parser *p, sd_node *of) {
    sd_parse_next(p); // is
    bool negated = sd_parse_skip_word(p, "not");
    const sd_token *t = sd_parse_here(p);
    if (t->kind != SD_T_NAME) return sd_parse_unexpected(p, "the name of a test");
    sd_node *n = sd_parse_node(p, SD_N_TEST, t->line);
    if (!n) return NULL;
    n->text = t->text;
    n->a = of;
    sd_parse_next(p);
    t = sd_parse_here(p);
    if (sd_parse_at_op(p, "(")) {
        if (!arguments(p, n)) return NULL;
    } else if ((t->kind == SD_T_NAME || t->kind == SD_T_STRING || t->kind == SD_T_INT ||
                t->kind == SD_T_FLOAT || sd_parse_at_op(p, "[") || sd_parse_at_op(p, "{")) &&
               !sd_parse_at_word(p, "else") && !sd_parse_at_word(p, "or") &&
               !sd_parse_at_word(p, "and")) {
        if (sd_parse_at_word(p, "is")) return sd_parse_fail(p, "tests cannot be chained with is");
        sd_node *a = sd_parse_postfix_call(p);
        if (!a || !sd_parse_add(p, n, a)) return NULL;
    }
    n = sd_parse_done(p, n);
    return n && negated ? make(p, SD_N_NOT, n->line, n, NULL, NULL) : n;
}

static sd_node *unary(sd_parser *p, bool filters) {
    const sd_token *t = sd_parse_here(p);
    sd_node *n;
    bool minus = sd_parse_at_op(p, "-");
    if (minus || sd_parse_at_op(p, "+")) {
        if (!sd_parse_enter(p)) return NULL;
        sd_parse_next(p);
        n = unary(p, false);
        p->depth--;
        n = n ? make(p, minus ? SD_N_NEG : SD_N_POS, t->line, n, NULL, NULL) : NULL;
    } else {
        n = sd_parse_primary(p, false);
    }
    n = postfix(p, n);
    while (n && filters) {
        if (sd_parse_at_op(p, "|"))
            n = sd_parse_filters(p, n, false);
        else if (sd_parse_at_word(p, "is"))
            n = test(p, n);
        else if (sd_parse_at_op(p, "("))
            n = call(p, n);
        else
            break;
    }
    return n;
}

// ---- binary operators

static sd_node *binary(sd_parser *p, sd_node *left, sd_op op, sd_node *right, int line) {
    sd_node *n = right ? make(p, SD_N_BINARY, line, left, right, NULL) : NULL;
    if (n) n->op = op;
    return n;
}

static sd_node *power(sd_parser *p) {
    sd_node *n = unary(p, true);
    while (n && sd_parse_at_op(p, "**")) {
        int line = sd_parse_here(p)->line;
        sd_parse_next(p);
        n = binary(p, n, SD_OP_POW, unary(p, true), line);
    }
    return n;
}

static sd_node *product(sd_parser *p) {
    sd_node *n = power(p);
    for (int op = SD_OP_MUL; n && op <= SD_OP_MOD; op++) {
        int line = sd_parse_here(p)->line;
        if (!sd_parse_skip_op(p, sd_op_text((sd_op)op))) continue;
        n = binary(p, n, (sd_op)op, power(p), line);
        op = SD_OP_MUL - 1; // again from the first operator
    }
    return n;
}

static sd_node *concatenation(sd_parser *p) {
    sd_node *first = product(p), *n;
    if (!first || !sd_parse_at_op(p, "~")) return first;
    n = sd_parse_node(p, SD_N_CONCAT, sd_parse_here(p)->line);
    if (!n || !sd_parse_add(p, n, first)) return NULL;
    while (sd_parse_skip_op(p, "~")) {
        sd_node *item = product(p);
        if (!item || !sd_parse_add(p, n, item)) return NULL;
    }
    return sd_parse_done(p, n);
}

static sd_node *sum(sd_parser *p) {
    sd_node *n = concatenation(p);
    while (n && (sd_parse_at_op(p, "+") || sd_parse_at_op(p, "-"))) {
        sd_op op = sd_parse_at_op(p, "+") ? SD_OP_ADD : SD_OP_SUB;
        int line = sd_parse_here(p)->line;
        sd_parse_next(p);
        n = binary(p, n, op, concatenation(p), line);
    }
    return n;
}

static bool comparison_op(sd_parser *p, sd_op *op) {
    for (int i = SD_OP_EQ; i <= SD_OP_GE; i++)
        if (sd_parse_skip_op(p, sd_op_text((sd_op)i))) {
            *op = (sd_op)i;
            return true;
        }
    if (sd_parse_skip_word(p, "in")) {
        *op = SD_OP_IN;
        return true;
    }
    const sd_token *t = sd_parse_here(p);
    if (sd_parse_at_word(p, "not") && t[1].kind == SD_T_NAME && sd_str_is(t[1].text, "in")) {
        sd_parse_next(p);
        sd_parse_next(p);
        *op = SD_OP_NOT_IN;
        return true;
    }
    return false;
}

static sd_node *comparison(sd_parser *p) {
    int line = sd_parse_here(p)->line;
    sd_node *first = sum(p), *n = NULL;
    sd_op op;
    while (first && comparison_op(p, &op)) {
        if (!n && !(n = sd_parse_node(p, SD_N_COMPARE, line))) return NULL;
        sd_node *part = binary(p, NULL, op, sum(p), line);
        if (!part || !sd_parse_add(p, n, part)) return NULL;
    }
    if (!n) return first;
    n->a = first;
    return sd_parse_done(p, n);
}

static sd_node *negation(sd_parser *p) {
    int line = sd_parse_here(p)->line;
    if (!sd_parse_at_word(p, "not")) return comparison(p);
    if (!sd_parse_enter(p)) return NULL;
    sd_parse_next(p);
    sd_node *n = negation(p);
    p->depth--;
    return n ? make(p, SD_N_NOT, line, n, NULL, NULL) : NULL;
}

static sd_node *conjunction(sd_parser *p) {
    sd_node *n = negation(p);
    while (n && sd_parse_at_word(p, "and")) {
        int line = sd_parse_here(p)->line;
        sd_parse_next(p);
        sd_node *right = negation(p);
        n = right ? make(p, SD_N_AND, line, n, right, NULL) : NULL;
    }
    return n;
}

static sd_node *disjunction(sd_parser *p) {
    sd_node *n = conjunction(p);
    while (n && sd_parse_at_word(p, "or")) {
        int line = sd_parse_here(p)->line;
        sd_parse_next(p);
        sd_node *right = conjunction(p);
        n = right ? make(p, SD_N_OR, line, n, right, NULL) : NULL;
    }
    return n;
}

sd_node *sd_parse_expression(sd_parser *p) {
    if (!sd_parse_enter(p)) return NULL;
    sd_node *n = disjunction(p);
    while (n && sd_parse_at_word(p, "if")) {
        int line = sd_parse_here(p)->line;
        sd_parse_next(p);
        sd_node *condition = disjunction(p), *otherwise = NULL;
        if (!condition)
            n = NULL;
        else if (sd_parse_skip_word(p, "else") && !(otherwise = sd_parse_expression(p)))
            n = NULL;
        else
            n = make(p, SD_N_COND, line, n, condition, otherwise);
    }
    p->depth--;
    return n;
}

sd_node *sd_parse_tuple(sd_parser *p, bool with_condition, const char *end_word) {
    sd_node *n = with_condition ? sd_parse_expression(p) : disjunction(p);
    if (!n || !sd_parse_at_op(p, ",")) return n;
    sd_node *tuple = sd_parse_node(p, SD_N_TUPLE, n->line);
    if (!tuple || !sd_parse_add(p, tuple, n)) return NULL;
    while (sd_parse_skip_op(p, ",")) {
        const sd_token *t = sd_parse_here(p);
        if (t->kind == SD_T_VAR_END || t->kind == SD_T_BLOCK_END || sd_parse_at_op(p, ")") ||
            (end_word && sd_parse_at_word(p, end_word)))
            break;
        n = with_condition ? sd_parse_expression(p) : disjunction(p);
        if (!n || !sd_parse_add(p, tuple, n)) return NULL;
    }
    return sd_parse_done(p, tuple);
}
