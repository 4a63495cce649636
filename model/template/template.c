// Chat templates from outside: parsing once, rendering with a request's messages.
//
// A rendering owns an arena for all its values and counts its steps, its nesting, its memory and
// its output; the parsed template is only read, so threads may render it at the same time.
#include "model/template/template.h"

#include "base/clock.h"
#include "base/files/hash.h"
#include "model/template/render.h"

struct sd_template {
    char *source;
    sd_arena arena; // tokens and nodes
    sd_node *body;
    sd_node *blocks; // a list of them, or NULL
};

// ---- opening

sd_status sd_template_open(sd_template **out, const char *source, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    sd_token *token;
    size_t n;
    *out = NULL;
    sd_template *t = sd_alloc(1, sizeof *t);
    SD_CHECK_ALLOC(t, err);
    t->arena.limit = (size_t)SD_TMPL_MAX_SOURCE * 512; // tokens and nodes of any source fit
    SD_CHECK(len <= SD_TMPL_MAX_SOURCE, err, SD_ELIMIT,
             "the chat template has %zu bytes, at most %d are supported; shorten it", len,
             SD_TMPL_MAX_SOURCE);
    t->source = sd_strndup(source, len);
    SD_CHECK_ALLOC(t->source, err);
    SD_TRY(sd_template_lex(&token, &n, &t->arena, source, len, err));
    sd_parser p = {.arena = &t->arena, .token = token, .err = err};
    t->body = sd_parse_body(&p);
    t->blocks = p.blocks;
    if (!t->body) {
        st = p.no_memory ? SD_ENOMEM : SD_EFORMAT;
        goto out;
    }
    *out = t;
    t = NULL;
out:
    sd_template_close(t);
    return st;
}

void sd_template_close(sd_template *t) {
    if (!t) return;
    sd_arena_free(&t->arena);
    free(t->source);
    free(t);
}

const char *sd_template_source(const sd_template *t) {
    return t->source;
}

// ---- rendering

static bool define_json(sd_render *r, const char *name, const json_t *j) {
    sd_value v = sd_none();
    return (!j || sd_from_json(r, j, 0, &v)) &&
           sd_define(r, r->scope, (sd_str){name, strlen(name)}, &v);
}

// A message's reasoning stands under several names; templates read one of them. As transformers
// does: reasoning_content is filled from what is there, and thinking where it is missing.
static bool add_reasoning(sd_render *r, sd_value *message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    sd_value *found = NULL;
    if (message->kind != SD_V_DICT) return true;
    for (int i = 0; i < 3 && !found; i++) {
        if (!sd_dict_get(r, message->dict, (sd_str){names[i], strlen(names[i])}, &found))
            return false;
        if (found && found->kind == SD_V_NONE) found = NULL;
    }
    if (!found) return true;
    sd_value reasoning = *found, content = sd_string(names[0], strlen(names[0])),
             thinking = sd_string(names[1], strlen(names[1]));
    sd_dict *d = sd_dict_make(r, message->dict->n + 2);
    if (!d || !sd_dict_put(r, d, &thinking, &reasoning)) return false;
    for (size_t i = 0; i < message->dict->n; i++)
        if (!sd_dict_put(r, d, &message->dict->key[i], &message->dict->value[i])) return false;
    *message = sd_dict_value(d);
    return sd_dict_put(r, d, &content, &reasoning);
}

static bool define_messages(sd_render *r, const json_t *messages) {
    sd_value v;
    if (!sd_from_json(r, messages, 0, &v)) return false;
    if (v.kind != SD_V_LIST) return sd_render_fail(r, "messages must be an array");
    for (size_t i = 0; i < v.list->n; i++)
        if (!add_reasoning(r, &v.list->item[i])) return false;
    return sd_define(r, r->scope, SD_STR("messages"), &v);
}

static bool define_all(sd_render *r, const json_t *messages, const json_t *tools,
                       const json_t *extra, bool add_generation_prompt, const char *bos,
                       const char *eos) {
    const char *name;
    json_t *item;
    sd_value prompt = sd_bool(add_generation_prompt), b = sd_string(bos, strlen(bos)),
             e = sd_string(eos, strlen(eos));
    bool ok = sd_define(r, r->scope, SD_STR("bos_token"), &b) &&
              sd_define(r, r->scope, SD_STR("eos_token"), &e) && define_json(r, "documents", NULL);
    if (ok && extra && !json_is_object(extra))
        return sd_render_fail(r, "the further variables must be an object");
    if (extra) {
        json_object_foreach((json_t *)(uintptr_t)extra, name, item) ok =
            ok && define_json(r, name, item);
    }
    return ok && define_messages(r, messages) && define_json(r, "tools", tools) &&
           sd_define(r, r->scope, SD_STR("add_generation_prompt"), &prompt);
}

sd_status sd_template_render(const sd_template *t, const json_t *messages, const json_t *tools,
                             const json_t *extra, bool add_generation_prompt, const char *bos,
                             const char *eos, sd_buf *out, sd_error *err) {
    return sd_template_render_within(t, messages, tools, extra, add_generation_prompt, bos, eos,
                                     NULL, out, err);
}

sd_status sd_template_render_within(const sd_template *t, const json_t *messages,
                                    const json_t *tools, const json_t *extra,
                                    bool add_generation_prompt, const char *bos, const char *eos,
                                    const sd_template_bounds *bounds, sd_buf *out, sd_error *err) {
    sd_status st = SD_OK;
    size_t max = bounds && bounds->max_bytes && bounds->max_bytes < SD_TMPL_MAX_OUTPUT
                     ? bounds->max_bytes
                     : SD_TMPL_MAX_OUTPUT;
    sd_buf text = sd_buf_make(max);
    sd_scope globals = {0};
    sd_render r = {.out = &text,
                   .fuel = SD_TMPL_FUEL,
                   .check_at = SD_TMPL_FUEL,
                   .bounds = bounds,
                   .seed = sd_mix64((uint64_t)sd_now_ns() ^ (uint64_t)(uintptr_t)&text),
                   .scope = &globals,
                   .globals = &globals,
                   .blocks = t->blocks,
                   .line = 1,
                   .err = err};
    if (!define_all(&r, messages, tools, extra, add_generation_prompt, bos ? bos : "",
                    eos ? eos : "") ||
        sd_exec(&r, t->body) == SD_FLOW_ERROR) {
        st = r.status == SD_OK
                 ? sd_fail(err, SD_ELIMIT, "the chat template stopped without a reason")
                 : r.status;
        goto out;
    }
    SD_CHECK(text.len <= out->max && out->len <= out->max - text.len, err, SD_ELIMIT,
             "the prompt of %zu bytes does not fit %zu; shorten the conversation", text.len,
             out->max);
    SD_CHECK(sd_buf_add(out, text.data ? text.data : "", text.len), err, SD_ENOMEM,
             "out of memory for the prompt");
out:
    if (bounds && bounds->steps) *bounds->steps = SD_TMPL_FUEL - r.fuel;
    sd_buf_free(&text);
    sd_arena_free(&r.arena);
    return st;
}
