// Bodies whose output becomes a text: captures, macros, call blocks, named blocks, recursive loops.
#include "model/template/render.h"

// Runs a body in a scope of its own and gives what it wrote.
bool sd_capture(sd_render *r, const sd_node *body, sd_scope *scope, sd_value *out) {
    sd_buf text = sd_buf_make(SD_TMPL_MAX_OUTPUT), *before = r->out;
    sd_scope *outer = r->scope;
    if (!scope) return false;
    r->out = &text;
    r->scope = scope;
    bool ok = sd_exec(r, body) != SD_FLOW_ERROR;
    r->scope = outer;
    r->out = before;
    return ok ? sd_keep(r, &text, out) : sd_drop(r, &text);
}

static bool deeper(sd_render *r) {
    if (r->depth >= SD_TMPL_MAX_CALLS) return sd_render_limit(r, "depth");
    r->depth++;
    return true;
}

// ---- macros

static bool unexpected(sd_render *r, const sd_macro *m, const sd_args *a) {
    for (int i = 0; i < a->n_named; i++)
        if (!(a->used >> i & 1) && !(m->node->uses & SD_USES_KWARGS))
            return sd_render_fail(r, "the macro %.*s takes no argument %.*s", (int)m->name.n,
                                  m->name.p, (int)a->name[i].n, a->name[i].p);
    if (a->n > m->node->n && !(m->node->uses & SD_USES_VARARGS))
        return sd_render_fail(r, "the macro %.*s takes at most %d arguments", (int)m->name.n,
                              m->name.p, m->node->n);
    return true;
}

static bool bind_rest(sd_render *r, sd_scope *s, const sd_macro *m, sd_args *a) {
    size_t extra = a->n > m->node->n ? (size_t)(a->n - m->node->n) : 0;
    sd_list *rest = sd_list_make(r, extra);
    sd_dict *named = sd_dict_make(r, 0);
    if (!rest || !named) return false;
    for (size_t i = 0; i < extra; i++)
        if (!sd_list_push(r, rest, &a->item[(size_t)m->node->n + i])) return false;
    for (int i = 0; i < a->n_named; i++) {
        sd_value key = sd_string(a->name[i].p, a->name[i].n);
        if (!(a->used >> i & 1) && !sd_dict_put(r, named, &key, &a->named[i])) return false;
    }
    sd_value v = sd_list_value(SD_V_TUPLE, rest), k = sd_dict_value(named);
    return sd_define(r, s, SD_STR("varargs"), &v) && sd_define(r, s, SD_STR("kwargs"), &k);
}

// Finds an argument by its parameter's name, which is no C string.
static bool named_argument(sd_args *a, sd_str name, sd_value *out) {
    for (int i = 0; i < a->n_named; i++)
        if (sd_str_eq(a->name[i], name)) {
            a->used |= UINT64_C(1) << i;
            *out = a->named[i];
            return true;
        }
    return false;
}

static bool bind(sd_render *r, sd_scope *s, const sd_macro *m, sd_args *a) {
    sd_value v;
    bool own_caller = false;
    for (int i = 0; i < m->node->n; i++) {
        const sd_node *parameter = m->node->list[i];
        own_caller |= sd_str_is(parameter->text, "caller");
        if (i < a->n) {
            v = a->item[i];
        } else if (!named_argument(a, parameter->text, &v)) {
            v = sd_undefined(parameter->text);
            if (parameter->a && !sd_eval(r, parameter->a, &v)) return false; // in the macro's scope
        }
        if (!sd_define(r, s, parameter->text, &v)) return false;
    }
    if ((m->node->uses & SD_USES_CALLER) && !own_caller) {
        if (!named_argument(a, SD_STR("caller"), &v)) v = sd_undefined(SD_STR("caller"));
        if (!sd_define(r, s, SD_STR("caller"), &v)) return false;
    }
    if (!unexpected(r, m, a)) return false;
    return !(m->node->uses & (SD_USES_VARARGS | SD_USES_KWARGS)) || bind_rest(r, s, m, a);
}

bool sd_call_macro(sd_render *r, const sd_macro *m, sd_args *a, sd_value *out) {
    sd_scope *outer = r->scope, *s = sd_push_scope(r, m->scope);
    if (!s || !deeper(r)) return false;
    r->scope = s;
    bool ok = bind(r, s, m, a);
    r->scope = outer;
    ok = ok && sd_capture(r, m->node->b, s, out);
    r->depth--;
    return ok;
}

bool sd_make_macro(sd_render *r, const sd_node *n, sd_value *out) {
    sd_macro *m = sd_render_alloc(r, 1, sizeof *m);
    if (!m) return false;
    *m = (sd_macro){.name = n->text, .node = n, .scope = r->scope};
    for (sd_scope *s = r->scope; s && !s->kept; s = s->parent) s->kept = true;
    *out = (sd_value){.kind = SD_V_MACRO, .macro = m};
    return true;
}

bool sd_exec_call_block(sd_render *r, const sd_node *n) {
    sd_value f, caller, result;
    sd_str text;
    sd_args a;
    if (!sd_make_macro(r, n->b, &caller) || !sd_eval(r, n->a->a, &f) || !sd_eval_args(r, n->a, &a))
        return false;
    sd_str *name = sd_render_alloc(r, (size_t)a.n_named + 1, sizeof *name);
    sd_value *named = sd_render_alloc(r, (size_t)a.n_named + 1, sizeof *named);
    if (!name || !named) return false;
    for (int i = 0; i < a.n_named; i++) name[i] = a.name[i], named[i] = a.named[i];
    if (a.n_named == SD_TMPL_MAX_ARGS) return sd_render_fail(r, "a call has too many arguments");
    name[a.n_named] = SD_STR("caller");
    named[a.n_named] = caller;
    a.name = name;
    a.named = named;
    a.n_named++;
    r->line = n->line;
    return sd_call_value(r, &f, &a, &result) && sd_text_of(r, &result, &text) &&
           sd_write(r, text.p, text.n);
}

// A generation block is the body of a macro that nothing is passed to.
bool sd_exec_generation(sd_render *r, const sd_node *n, sd_value *out) {
    sd_scope *s = sd_push_scope(r, r->scope);
    const sd_macro m = {.node = n};
    sd_args none = {0};
    return s && (!n->uses || bind_rest(r, s, &m, &none)) && sd_capture(r, n->b, s, out);
}

// ---- named blocks

// A block sees what the template defines at its top, and what is around it where it is scoped.
bool sd_exec_block(sd_render *r, const sd_node *n, sd_scope *parent) {
    sd_scope *outer = r->scope;
    if (n->uses & SD_BLOCK_REQUIRED)
        return sd_render_fail(r, "the block %.*s is required and no template fills it",
                              (int)n->text.n, n->text.p);
    if (!deeper(r)) return false;
    r->scope = sd_push_scope(r, parent);
    bool ok = r->scope && sd_exec(r, n->b) != SD_FLOW_ERROR;
    r->scope = outer;
    r->depth--;
    return ok;
}

// ---- recursive loops

bool sd_call_loop(sd_render *r, const sd_loop *l, sd_args *a, sd_value *out) {
    sd_buf text = sd_buf_make(SD_TMPL_MAX_OUTPUT), *before = r->out;
    if (!l->node) return sd_render_fail(r, "the loop is not recursive, so it cannot be called");
    if (a->n != 1) return sd_render_fail(r, "a recursive loop takes one value to loop over");
    sd_scope *outer = r->scope;
    if (!deeper(r)) return false;
    r->out = &text;
    r->scope = l->scope;
    bool ok = sd_exec_loop(r, l->node, &a->item[0], l->depth0 + 1) != SD_FLOW_ERROR;
    r->scope = outer;
    r->out = before;
    r->depth--;
    return ok ? sd_keep(r, &text, out) : sd_drop(r, &text);
}
