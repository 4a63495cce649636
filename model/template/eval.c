// Expressions. Every step costs fuel and every level of calls is counted, so no template can run
// for ever or exhaust the stack.
#include "model/template/render.h"

// ---- comparisons

static bool compare(sd_render *r, sd_op op, const sd_value *a, const sd_value *b, bool *out) {
    int order;
    if (op == SD_OP_EQ || op == SD_OP_NE) {
        *out = sd_equal(r, a, b, 0) == (op == SD_OP_EQ);
        return r->status == SD_OK;
    }
    if (op == SD_OP_IN || op == SD_OP_NOT_IN) {
        if (!sd_contains(r, b, a, out)) return false;
        *out ^= op == SD_OP_NOT_IN;
        return true;
    }
    if (!sd_compare(r, a, b, &order)) return false;
    *out = sd_satisfies(op, order);
    return true;
}

// ---- calls

static bool spread(sd_render *r, const sd_node *n, sd_args *a, int cap) {
    sd_value v;
    sd_list *l;
    if (!sd_eval(r, n->a, &v)) return false;
    if (n->kind == SD_N_STAR) {
        if (!sd_iterate(r, &v, &l)) return false;
        if (l->n > (size_t)(cap - a->n)) return sd_render_fail(r, "a call has too many arguments");
        if (l->n) memcpy(a->item + a->n, l->item, l->n * sizeof v);
        a->n += (int)l->n;
        return true;
    }
    if (v.kind != SD_V_DICT) return sd_render_fail(r, "** does not take a %s", sd_kind_name(&v));
    if (v.dict->n > (size_t)(cap - a->n_named))
        return sd_render_fail(r, "a call has too many arguments");
    for (size_t i = 0; i < v.dict->n; i++) {
        if (v.dict->key[i].kind != SD_V_STRING)
            return sd_render_fail(r, "the names of arguments must be strings");
        a->name[a->n_named] = v.dict->key[i].s;
        a->named[a->n_named++] = v.dict->value[i];
    }
    return true;
}

bool sd_eval_args(sd_render *r, const sd_node *call, sd_args *a) {
    *a = (sd_args){0};
    if (call->n == 0) return true;
    int cap = call->n;
    for (int i = 0; i < call->n; i++)
        if (call->list[i]->kind == SD_N_STAR || call->list[i]->kind == SD_N_STAR2)
            cap = SD_TMPL_MAX_ARGS;
    a->item = sd_render_alloc(r, (size_t)cap, sizeof *a->item);
    a->name = sd_render_alloc(r, (size_t)cap, sizeof *a->name);
    a->named = sd_render_alloc(r, (size_t)cap, sizeof *a->named);
    if (!a->item || !a->name || !a->named) return false;
    for (int i = 0; i < call->n; i++) {
        const sd_node *n = call->list[i];
        if (n->kind == SD_N_STAR || n->kind == SD_N_STAR2) {
            if (!spread(r, n, a, cap)) return false;
        } else if (a->n == cap || a->n_named == cap) {
            return sd_render_fail(r, "a call has too many arguments");
        } else if (n->kind == SD_N_KEYWORD) {
            a->name[a->n_named] = n->text;
            if (!sd_eval(r, n->a, &a->named[a->n_named])) return false;
            a->n_named++;
        } else {
            if (!sd_eval(r, n, &a->item[a->n])) return false;
            a->n++;
        }
    }
    return true;
}

// self.name() gives the block's text.
static bool call_named_block(sd_render *r, const sd_node *n, sd_value *out) {
    sd_buf text = sd_buf_make(SD_TMPL_MAX_OUTPUT), *before = r->out;
    r->out = &text;
    bool ok = sd_exec_block(r, n, r->globals);
    r->out = before;
    return ok ? sd_keep(r, &text, out) : sd_drop(r, &text);
}

bool sd_call_value(sd_render *r, const sd_value *f, sd_args *a, sd_value *out) {
    switch (f->kind) {
    case SD_V_FUNCTION:
        return f->function(r, a, out) && sd_args_all_used(r, a, SD_STR("the function"));
    case SD_V_MACRO:
        return sd_call_macro(r, f->macro, a, out);
    case SD_V_METHOD:
        return sd_call_bound(r, f->method->call, &f->method->self, a, out);
    case SD_V_LOOP:
        return sd_call_loop(r, f->loop, a, out);
    case SD_V_JOINER:
        return sd_call_joiner(f->cycle, out);
    case SD_V_BLOCK:
        return call_named_block(r, f->node, out);
    case SD_V_UNSAFE:
        return sd_render_fail(r,
                              "\"%.*s\" would change its object, which cannot be changed; use a "
                              "namespace",
                              (int)f->s.n, f->s.p);
    case SD_V_UNDEFINED:
        return sd_render_fail(r, "\"%.*s\" is undefined and cannot be called",
                              (int)(f->s.n < 64 ? f->s.n : 64), f->s.p);
    default:
        return sd_render_fail(r, "a %s cannot be called", sd_kind_name(f));
    }
}

static bool eval_call(sd_render *r, const sd_node *n, sd_value *out) {
    sd_value f;
    sd_args a;
    if (!sd_eval(r, n->a, &f) || !sd_eval_args(r, n, &a)) return false;
    r->line = n->line;
    return sd_call_value(r, &f, &a, out);
}

static bool eval_filter(sd_render *r, const sd_node *n, sd_value *out) {
    sd_value in;
    sd_args a;
    if (!sd_eval(r, n->a, &in) || !sd_eval_args(r, n, &a)) return false;
    r->line = n->line;
    return sd_apply_filter(r, n->text, &in, &a, out);
}

static bool eval_test(sd_render *r, const sd_node *n, sd_value *out) {
    sd_value in;
    sd_args a;
    bool yes;
    if (!sd_eval(r, n->a, &in) || !sd_eval_args(r, n, &a)) return false;
    r->line = n->line;
    if (!sd_apply_test(r, n->text, &in, &a, &yes)) return false;
    *out = sd_bool(yes);
    return true;
}

// ---- the rest

static bool eval_list(sd_render *r, const sd_node *n, sd_value *out) {
    sd_list *l = sd_list_make(r, (size_t)n->n);
    sd_value v;
    if (!l) return false;
    for (int i = 0; i < n->n; i++)
        if (!sd_eval(r, n->list[i], &v) || !sd_list_push(r, l, &v)) return false;
    *out = sd_list_value(n->kind == SD_N_LIST ? SD_V_LIST : SD_V_TUPLE, l);
    return true;
}

static bool eval_dict(sd_render *r, const sd_node *n, sd_value *out) {
    sd_dict *d = sd_dict_make(r, (size_t)n->n / 2);
    sd_value key, value;
    if (!d) return false;
    for (int i = 0; i + 1 < n->n; i += 2)
        if (!sd_eval(r, n->list[i], &key) || !sd_eval(r, n->list[i + 1], &value) ||
            !sd_dict_put(r, d, &key, &value))
            return false;
    *out = sd_dict_value(d);
    return true;
}

static bool eval_item(sd_render *r, const sd_node *n, sd_value *out) {
    sd_value of, index, part[3] = {{0}, {0}, {0}};
    if (!sd_eval(r, n->a, &of)) return false;
    if (n->b->kind != SD_N_SLICE) {
        if (!sd_eval(r, n->b, &index)) return false;
        r->line = n->line;
        return sd_item(r, &of, &index, out);
    }
    const sd_node *bound[3] = {n->b->a, n->b->b, n->b->c};
    for (int i = 0; i < 3; i++) {
        part[i] = sd_none();
        if (bound[i] && !sd_eval(r, bound[i], &part[i])) return false;
    }
    r->line = n->line;
    return sd_slice(r, &of, part, out);
}

static bool eval_compare(sd_render *r, const sd_node *n, sd_value *out) {
    sd_value left, right;
    bool yes = true;
    if (!sd_eval(r, n->a, &left)) return false;
    for (int i = 0; yes && i < n->n; i++) {
        if (!sd_eval(r, n->list[i]->b, &right)) return false;
        r->line = n->line;
        if (!compare(r, n->list[i]->op, &left, &right, &yes)) return false;
        left = right;
    }
    *out = sd_bool(yes);
    return true;
}

static bool eval_concat(sd_render *r, const sd_node *n, sd_value *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_value v;
    for (int i = 0; i < n->n; i++)
        if (!sd_eval(r, n->list[i], &v) || !sd_to_text(r, &v, &b, false, 0)) return sd_drop(r, &b);
    return sd_keep(r, &b, out);
}

static bool eval_name(sd_render *r, const sd_node *n, sd_value *out) {
    bool found;
    if (!sd_lookup(r, n->text, out, &found) || found) return found;
    sd_function f = sd_find_global(n->text);
    if (f)
        *out = (sd_value){.kind = SD_V_FUNCTION, .function = f};
    else if (sd_str_is(n->text, "self"))
        *out = (sd_value){.kind = SD_V_SELF};
    else
        *out = sd_undefined(n->text);
    return true;
}

static bool eval_bigint(sd_render *r, const sd_node *n, sd_value *out) {
    bool is_one;
    if (!sd_int_parse(r, n->text, 0, out, &is_one)) return false;
    return is_one || sd_render_fail(r, "a number has too many digits");
}

static bool eval_one(sd_render *r, const sd_node *n, sd_value *out) {
    sd_value a, b;
    switch (n->kind) {
    case SD_N_CONST:
        *out = n->value;
        return true;
    case SD_N_BIGINT:
        return eval_bigint(r, n, out);
    case SD_N_NAME:
        return eval_name(r, n, out);
    case SD_N_LIST:
    case SD_N_TUPLE:
        return eval_list(r, n, out);
    case SD_N_DICT:
        return eval_dict(r, n, out);
    case SD_N_ATTR:
        if (!sd_eval(r, n->a, &a)) return false;
        r->line = n->line;
        return sd_attribute(r, &a, n->text, out);
    case SD_N_ITEM:
        return eval_item(r, n, out);
    case SD_N_CALL:
        return eval_call(r, n, out);
    case SD_N_FILTER:
        return eval_filter(r, n, out);
    case SD_N_TEST:
        return eval_test(r, n, out);
    case SD_N_NOT:
        if (!sd_eval(r, n->a, &a)) return false;
        *out = sd_bool(!sd_truth(&a));
        return true;
    case SD_N_NEG:
    case SD_N_POS:
        if (!sd_eval(r, n->a, &a)) return false;
        r->line = n->line;
        return sd_sign(r, n->kind == SD_N_NEG, &a, out);
    case SD_N_BINARY:
        if (!sd_eval(r, n->a, &a) || !sd_eval(r, n->b, &b)) return false;
        r->line = n->line;
        return sd_arithmetic(r, n->op, &a, &b, out);
    case SD_N_COMPARE:
        return eval_compare(r, n, out);
    case SD_N_AND:
    case SD_N_OR:
        if (!sd_eval(r, n->a, out)) return false;
        return sd_truth(out) == (n->kind == SD_N_OR) || sd_eval(r, n->b, out);
    case SD_N_CONCAT:
        return eval_concat(r, n, out);
    case SD_N_COND:
        if (!sd_eval(r, n->b, &b)) return false;
        if (sd_truth(&b)) return sd_eval(r, n->a, out);
        if (n->c) return sd_eval(r, n->c, out);
        *out = sd_undefined(SD_STR("the missing else"));
        return true;
    default:
        return sd_render_fail(r, "this is no expression");
    }
}

bool sd_eval(sd_render *r, const sd_node *n, sd_value *out) {
    if (!sd_spend(r, 1)) return false;
    if (r->depth >= SD_TMPL_MAX_CALLS) return sd_render_limit(r, "depth");
    r->depth++;
    bool ok = eval_one(r, n, out);
    r->depth--;
    return ok;
}
