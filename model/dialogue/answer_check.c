// A whole answer, checked once more: read by the machine that reads it for the client, it has the calls that
// the client gets, and these are held against the schemas by a validator that knows no automaton.
#include "base/json.h"
#include "model/dialogue/answer.h"
#include "model/dialogue/tool_grammar.h"

#include <stdio.h>
#include <string.h>

enum { MAX_CHECKED = 1 << 26 };

typedef struct {
    sd_answer_options o;
    json_t *tools;
    sd_grammar_checker form; // of what is not reasoning; check NULL: calls alone are checked
} rules;

typedef struct {
    const rules *r;
    char name[72];
    sd_buf text; // of the call in hand, or the content
    bool in_call;
    sd_status st;
    sd_error err;
} reading;

static void end_call(reading *x) {
    if (x->in_call && x->st == SD_OK)
        x->st = sd_tool_call_check(x->r->tools, x->name, x->text.data ? x->text.data : "",
                                   x->text.len, &x->err);
    x->in_call = false;
}

static bool on_delta(void *ctx, const sd_delta *d) {
    reading *x = ctx;
    switch (d->kind) {
    case SD_DELTA_CALL:
        end_call(x);
        sd_buf_clear(&x->text);
        snprintf(x->name, sizeof x->name, "%.*s", (int)d->len, d->text);
        x->in_call = true;
        return true;
    case SD_DELTA_ARGUMENTS:
        return sd_buf_add(&x->text, d->text, d->len);
    case SD_DELTA_CONTENT:
        return !x->r->form.check || sd_buf_add(&x->text, d->text, d->len);
    default:
        return true;
    }
}

static sd_status check(const void *ctx, const char *text, size_t len, sd_error *err) {
    const rules *r = ctx;
    sd_status st = SD_OK;
    sd_answer_parser *p = NULL;
    reading x = {.r = r, .text = sd_buf_make(MAX_CHECKED)};
    SD_TRY(sd_answer_parser_open(&p, &r->o, on_delta, &x, err));
    SD_CHECK_ALLOC(sd_answer_parser_add(p, text, len) && sd_answer_parser_end(p), err);
    end_call(&x);
    if (r->form.check)
        st = r->form.check(r->form.ctx, x.text.data ? x.text.data : "", x.text.len, err);
    else if (x.st != SD_OK)
        st = sd_fail(err, x.st, "a call of %.64s: %s", x.name, x.err.message);
out:
    sd_answer_parser_close(p);
    sd_buf_free(&x.text);
    return st;
}

static void free_rules(void *ctx) {
    rules *r = ctx;
    json_decref(r->tools);
    if (r->form.ctx) r->form.free_ctx(r->form.ctx);
    free(r);
}

sd_status sd_gb_check_answer(sd_grammar_builder *b, const sd_tool_rules *r, sd_error *err) {
    sd_status st = SD_OK;
    // White space in front of a text is dropped behind reasoning, so that patterns are not checked.
    bool json = r->form.kind == SD_GRAMMAR_SCHEMA || r->form.kind == SD_GRAMMAR_OBJECT;
    rules *own = sd_alloc(1, sizeof *own);
    SD_CHECK_ALLOC(own, err);
    if (json) own->form = sd_gb_take_check(b);
    own->tools = json_incref((json_t *)(uintptr_t)r->tools);
    own->o = (sd_answer_options){.format = r->d->format,
                                 .think = r->d->think,
                                 .calls = r->form.kind == SD_GRAMMAR_NONE,
                                 .held = true,
                                 .in_reasoning = r->in_reasoning,
                                 .tools = own->tools};
    bool checked = json || r->form.kind == SD_GRAMMAR_NONE;
    sd_gb_set_check(
        b, (sd_grammar_checker){checked ? check : NULL, free_rules, own,
                                sizeof *own + own->form.bytes + sd_json_bytes(own->tools)});
out:
    return st;
}
