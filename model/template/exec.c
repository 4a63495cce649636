// Statements. A loop's body, a macro and a captured block have a scope of their own. Variables that
// they set are gone afterwards, so templates keep state in a namespace. An if has no scope.
#include "model/template/render.h"

// The scope of an iteration. The one before is emptied and used again unless a macro still sees it.
static sd_scope *fresh_scope(sd_render *r, sd_scope *before, sd_scope *outer) {
    if (before == outer || before->kept) return sd_push_scope(r, outer);
    before->variables.n = 0;
    before->variables.slot = NULL;
    before->variables.slots = 0;
    return before;
}

static bool assign(sd_render *r, const sd_node *to, const sd_value *v) {
    sd_value ns;
    sd_list *l;
    r->line = to->line;
    if (to->kind == SD_N_NAME) return sd_define(r, r->scope, to->text, v);
    if (to->kind == SD_N_NSREF) {
        bool found;
        if (!sd_lookup(r, to->text, &ns, &found)) return false;
        if (!found || ns.kind != SD_V_NAMESPACE)
            return sd_render_fail(r, "\"%.*s\" is no namespace", (int)to->text.n, to->text.p);
        if (to->attr.p[0] == '_')
            return sd_render_fail(r, "a namespace has no name that begins with _");
        sd_value key = sd_string(to->attr.p, to->attr.n);
        return sd_dict_put(r, ns.dict, &key, v);
    }
    if (!sd_iterate(r, v, &l)) return false;
    if (l->n != (size_t)to->n) return sd_render_fail(r, "%zu values for %d names", l->n, to->n);
    for (int i = 0; i < to->n; i++)
        if (!assign(r, to->list[i], &l->item[i])) return false;
    return true;
}

// ---- loops

static bool select_items(sd_render *r, const sd_node *n, sd_list *all, sd_list **out) {
    sd_scope *outer = r->scope;
    sd_list *kept = sd_list_make(r, 0);
    sd_value yes;
    bool ok = kept != NULL;
    for (size_t i = 0; ok && i < all->n; i++) {
        r->scope = fresh_scope(r, r->scope, outer);
        ok = r->scope && assign(r, n->a, &all->item[i]) && sd_eval(r, n->c, &yes) &&
             (!sd_truth(&yes) || sd_list_push(r, kept, &all->item[i]));
    }
    r->scope = outer;
    *out = kept;
    return ok;
}

// *whole: set when an iteration ran to its end.
static sd_flow run_loop(sd_render *r, const sd_node *n, sd_loop *loop, bool *whole) {
    sd_scope *outer = r->scope;
    sd_flow flow = SD_FLOW_NEXT;
    sd_value self = {.kind = SD_V_LOOP, .loop = loop};
    for (; loop->index0 < loop->items->n; loop->index0++) {
        r->scope = fresh_scope(r, r->scope, outer);
        flow = SD_FLOW_ERROR;
        if (!r->scope || !sd_define(r, r->scope, SD_STR("loop"), &self) ||
            !assign(r, n->a, &loop->items->item[loop->index0]))
            break;
        flow = sd_exec(r, n->list[0]);
        if (flow == SD_FLOW_ERROR || flow == SD_FLOW_BREAK) break;
        *whole |= flow == SD_FLOW_NEXT;
    }
    r->scope = outer;
    return flow == SD_FLOW_ERROR ? flow : SD_FLOW_NEXT;
}

sd_flow sd_exec_loop(sd_render *r, const sd_node *n, const sd_value *over, int depth0) {
    sd_list *items;
    if (!sd_iterate(r, over, &items)) return SD_FLOW_ERROR;
    if (n->c && !select_items(r, n, items, &items)) return SD_FLOW_ERROR;
    if (items->n == 0) return n->n > 1 ? sd_exec(r, n->list[1]) : SD_FLOW_NEXT;
    sd_loop *loop = sd_render_alloc(r, 1, sizeof *loop);
    if (!loop) return SD_FLOW_ERROR;
    bool recursive = n->uses & SD_LOOP_RECURSIVE;
    *loop = (sd_loop){
        .items = items, .depth0 = depth0, .node = recursive ? n : NULL, .scope = r->scope};
    if (recursive) // the loop will run again in this scope, from within
        for (sd_scope *s = r->scope; s && !s->kept; s = s->parent) s->kept = true;
    bool whole =
        false; // else stands for "no iteration ran to its end", break and continue included
    sd_flow flow = run_loop(r, n, loop, &whole);
    return flow != SD_FLOW_ERROR && !whole && n->n > 1 ? sd_exec(r, n->list[1]) : flow;
}

static sd_flow exec_for(sd_render *r, const sd_node *n) {
    sd_value over;
    return sd_eval(r, n->b, &over) ? sd_exec_loop(r, n, &over, 0) : SD_FLOW_ERROR;
}

// ---- the others

static sd_flow exec_if(sd_render *r, const sd_node *n) {
    sd_value v;
    for (int i = 0; i + 1 < n->n; i += 2) {
        if (!sd_eval(r, n->list[i], &v)) return SD_FLOW_ERROR;
        if (sd_truth(&v)) return sd_exec(r, n->list[i + 1]);
    }
    return n->a ? sd_exec(r, n->a) : SD_FLOW_NEXT;
}

static bool output(sd_render *r, const sd_node *n) {
    sd_value v;
    if (!sd_eval(r, n->a, &v)) return false;
    r->line = n->line;
    if (v.kind == SD_V_STRING) return sd_write(r, v.s.p, v.s.n);
    return sd_to_text(r, &v, r->out, false, 0);
}

// The filters of a filter block or a set block: `chain` ends in one whose input is the text.
static bool filter_text(sd_render *r, const sd_node *chain, const sd_value *text, sd_value *out) {
    sd_value in = *text;
    sd_args a;
    if (chain->a && !filter_text(r, chain->a, text, &in)) return false;
    return sd_eval_args(r, chain, &a) && sd_apply_filter(r, chain->text, &in, &a, out);
}

static bool exec_captured(sd_render *r, const sd_node *body, const sd_node *filters, sd_value *v) {
    return sd_capture(r, body, sd_push_scope(r, r->scope), v) &&
           (!filters || filter_text(r, filters, v, v));
}

static sd_flow exec_with(sd_render *r, const sd_node *n) {
    sd_scope *outer = r->scope, *s = sd_push_scope(r, outer);
    sd_value v;
    if (!s) return SD_FLOW_ERROR;
    for (int i = 0; i + 1 < n->n; i += 2) // the values are seen from outside
        if (!sd_eval(r, n->list[i + 1], &v) || !sd_define(r, s, n->list[i]->text, &v))
            return SD_FLOW_ERROR;
    r->scope = s;
    sd_flow flow = sd_exec(r, n->b);
    r->scope = outer;
    return flow;
}

static bool exec_simple(sd_render *r, const sd_node *n) {
    sd_value v;
    switch (n->kind) {
    case SD_N_DATA:
        return sd_write(r, n->text.p, n->text.n);
    case SD_N_OUTPUT:
        return output(r, n);
    case SD_N_SET:
        return sd_eval(r, n->b, &v) && assign(r, n->a, &v);
    case SD_N_SETBLOCK:
        return exec_captured(r, n->list[0], n->b, &v) && assign(r, n->a, &v);
    case SD_N_FILTERBLOCK:
        return exec_captured(r, n->b, n->a, &v) && sd_text_of(r, &v, &v.s) &&
               sd_write(r, v.s.p, v.s.n);
    case SD_N_SCOPED:
        return sd_exec_generation(r, n, &v) && sd_write(r, v.s.p, v.s.n);
    case SD_N_MACRO:
        return sd_make_macro(r, n, &v) && sd_define(r, r->scope, n->text, &v);
    case SD_N_CALLBLOCK:
        return sd_exec_call_block(r, n);
    case SD_N_NAMED:
        return sd_exec_block(r, n, n->uses & SD_BLOCK_SCOPED ? r->scope : r->globals);
    default:
        return sd_render_fail(r, "this is no statement");
    }
}

static sd_flow exec_one(sd_render *r, const sd_node *n) {
    sd_flow flow = SD_FLOW_NEXT;
    switch (n->kind) {
    case SD_N_BLOCK:
        for (int i = 0; i < n->n && flow == SD_FLOW_NEXT; i++) flow = sd_exec(r, n->list[i]);
        return flow;
    case SD_N_IF:
        return exec_if(r, n);
    case SD_N_FOR:
        return exec_for(r, n);
    case SD_N_WITH:
        return exec_with(r, n);
    case SD_N_BREAK:
        return SD_FLOW_BREAK;
    case SD_N_CONTINUE:
        return SD_FLOW_CONTINUE;
    default:
        return exec_simple(r, n) ? SD_FLOW_NEXT : SD_FLOW_ERROR;
    }
}

sd_flow sd_exec(sd_render *r, const sd_node *n) {
    if (!sd_spend(r, 1)) return SD_FLOW_ERROR;
    if (r->depth >= SD_TMPL_MAX_CALLS) {
        sd_render_limit(r, "depth");
        return SD_FLOW_ERROR;
    }
    r->line = n->line;
    r->depth++;
    sd_flow flow = exec_one(r, n);
    r->depth--;
    return flow;
}
