// Chat templates from outside: parsing once, rendering with a request's messages, and the functions
// that transformers gives to templates.
//
// A rendering owns an arena for all its values and counts its steps, its nesting, its memory and
// its output; the parsed template is only read, so threads may render it at the same time.
#include "base/clock.h"
#include "base/hash.h"
#include "model/template_internal.h"

#include <time.h>

// ---- functions

static bool call_raise(sd_render *r, const sd_args *a, sd_value *out) {
    sd_str text = {0};
    (void)out;
    if (a->n < 1 || !sd_text_of(r, &a->item[0], &text)) text = SD_STR("the template refuses this");
    r->status = sd_fail(r->err, SD_EINVAL, "%.*s", (int)(text.n < 900 ? text.n : 900), text.p);
    return false;
}

static bool call_namespace(sd_render *r, const sd_args *a, sd_value *out) {
    sd_dict *d = sd_dict_make(r, 4);
    if (!d) return false;
    for (int i = 0; i < a->n; i++) {
        if (a->item[i].kind != SD_V_DICT)
            return sd_render_fail(r, "namespace takes names and values");
        for (size_t k = 0; k < a->item[i].dict->n; k++)
            if (!sd_dict_put(r, d, &a->item[i].dict->key[k], &a->item[i].dict->value[k]))
                return false;
    }
    for (int i = 0; i < a->n_named; i++) {
        sd_value key = sd_string(a->name[i].p, a->name[i].n);
        if (!sd_dict_put(r, d, &key, &a->named[i])) return false;
    }
    *out = sd_dict_value(d);
    return true;
}

static bool make_namespace(sd_render *r, const sd_args *a, sd_value *out) {
    if (!call_namespace(r, a, out)) return false;
    out->kind = SD_V_NAMESPACE;
    return true;
}

static bool call_range(sd_render *r, const sd_args *a, sd_value *out) {
    enum { MAX_RANGE = 100000 }; // as the sandbox has it
    int64_t bound[3] = {0, 0, 1};
    sd_list *l = sd_list_make(r, 0);
    if (!l) return false;
    if (a->n < 1 || a->n > 3) return sd_render_fail(r, "range takes one to three numbers");
    for (int i = 0; i < a->n; i++) {
        if (a->item[i].kind != SD_V_INT && a->item[i].kind != SD_V_BOOL)
            return sd_render_fail(r, "range takes whole numbers, not a %s",
                                  sd_kind_name(&a->item[i]));
        bound[a->n == 1 ? 1 : i] = a->item[i].kind == SD_V_INT ? a->item[i].i : a->item[i].b;
    }
    if (bound[2] == 0) return sd_render_fail(r, "range: the step cannot be 0");
    for (int64_t i = bound[0]; bound[2] > 0 ? i < bound[1] : i > bound[1];) {
        sd_value v = sd_int(i);
        if (l->n == MAX_RANGE) return sd_render_fail(r, "range: more than %d numbers", MAX_RANGE);
        if (!sd_list_push(r, l, &v)) return false;
        if (__builtin_add_overflow(i, bound[2], &i)) break;
    }
    *out = sd_list_value(SD_V_LIST, l);
    return true;
}

// As Python's datetime.now().strftime, which transformers calls: the C library's, but for what a
// time without a zone does not have (%z, %Z are empty) and for %f, microseconds.
static bool python_format(char *out, size_t cap, sd_str format, long us) {
    size_t n = 0;
    for (size_t i = 0; i < format.n; i++) {
        if (n + 8 >= cap || !format.p[i]) return false;
        char next = format.p[i] == '%' && i + 1 < format.n ? format.p[i + 1] : '\0';
        if (next == 'f') {
            n += (size_t)snprintf(out + n, cap - n, "%06ld", us);
        } else if (next && next != 'z' && next != 'Z') {
            out[n++] = '%';
            out[n++] = next;
        } else if (!next) {
            out[n++] = format.p[i];
        }
        i += next != '\0';
    }
    out[n++] = '.'; // so that an empty result is not taken for a failure
    out[n] = '\0';
    return true;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static bool call_strftime(sd_render *r, const sd_args *a, sd_value *out) {
    char format[512], text[4096];
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    size_t n = 0;
    if (a->n == 1 && a->item[0].kind == SD_V_STRING &&
        python_format(format, sizeof format, a->item[0].s, now.tv_nsec / 1000))
        n = strftime(text, sizeof text, format, &local);
    if (n == 0) return sd_render_fail(r, "strftime_now takes one short format");
    char *p = sd_render_alloc(r, n, 1);
    if (!p) return false;
    memcpy(p, text, --n);
    *out = sd_string(p, n);
    return true;
}
#pragma GCC diagnostic pop

sd_function sd_find_global(sd_str name) {
    static const struct {
        const char *name;
        sd_function call;
    } rows[] = {{"raise_exception", call_raise},
                {"namespace", make_namespace},
                {"dict", call_namespace},
                {"range", call_range},
                {"strftime_now", call_strftime}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (sd_str_is(name, rows[i].name)) return rows[i].call;
    return NULL;
}

// ---- opening

sd_status sd_template_open(sd_template **out, const char *source, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    sd_token *token;
    size_t n;
    *out = NULL;
    sd_template *t = sd_alloc(1, sizeof *t);
    SD_CHECK_ALLOC(t, err);
    t->arena.limit = (size_t)SD_TMPL_MAX_SOURCE * 512;
    SD_CHECK(len <= SD_TMPL_MAX_SOURCE, err, SD_ELIMIT,
             "the chat template has %zu bytes, at most %d are supported; shorten it", len,
             SD_TMPL_MAX_SOURCE);
    t->source = sd_strndup(source, len);
    SD_CHECK_ALLOC(t->source, err);
    SD_TRY(sd_template_lex(&token, &n, &t->arena, source, len, err));
    sd_parser p = {.arena = &t->arena, .token = token, .err = err};
    t->body = sd_parse_body(&p);
    if (!t->body) {
        st = SD_EFORMAT;
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
                   .look = SD_TMPL_FUEL,
                   .bounds = bounds,
                   .seed = sd_mix64((uint64_t)sd_now_ns() ^ (uint64_t)(uintptr_t)&text),
                   .scope = &globals,
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
