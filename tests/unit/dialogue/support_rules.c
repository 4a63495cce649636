#include "tests/unit/dialogue/support_rules.h"

#include "base/rng.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

sd_model rules_model;
json_t *rules_tools;
static sd_vocab *vocab;

void rules_open(const char *tool_list) {
    sd_error err;
    tiny_chat_open(&rules_model, NULL, NULL);
    rules_tools = json_loads(tool_list, 0, NULL);
    cr_assert_not_null(rules_tools);
    cr_assert_eq(sd_vocab_open(&vocab, rules_model.tokenizer, &err), SD_OK, "%s", err.message);
}

void rules_close(void) {
    sd_vocab_release(vocab);
    json_decref(rules_tools);
    tiny_chat_close(&rules_model);
}

json_t *rules_function(json_t *list, size_t i) {
    return json_object_get(json_array_get(list, i), "function");
}

sd_tool_rules rules_for(const sd_dialogue *d, const json_t *list, bool required) {
    return (sd_tool_rules){.d = d,
                           .t = rules_model.tokenizer,
                           .tools = list,
                           .only = -1,
                           .required = required,
                           .parallel = true};
}

sd_grammar *rules_try(const sd_tool_rules *r, sd_error *err) {
    char *text = NULL;
    sd_grammar *g = NULL;
    sd_grammar_builder *b = sd_grammar_builder_open();
    *err = (sd_error){0};
    cr_assert_eq(sd_tool_rules_write(&text, r, err), SD_OK);
    int e = sd_gb_tool_rules(b, rules_model.tokenizer, text, strlen(text), err);
    if (err->status == SD_OK && sd_grammar_compile(&g, b, e, vocab, err) != SD_OK) g = NULL;
    sd_grammar_builder_close(b);
    free(text);
    return g;
}

sd_grammar *rules_compile(const sd_tool_rules *r) {
    sd_error err;
    sd_grammar *g = rules_try(r, &err);
    cr_assert_not_null(g, "%s: %s", sd_tool_format_name(r->d->format), err.message);
    return g;
}

bool rules_pass(sd_grammar *g, const char *text) {
    sd_grammar_state s;
    sd_ids ids = {0};
    sd_error err;
    cr_assert(sd_grammar_begin(&s, g, -1));
    cr_assert_eq(sd_tokenizer_encode(rules_model.tokenizer, text, strlen(text), 0, &ids, &err),
                 SD_OK);
    bool ok = true;
    for (int i = 0; ok && i < ids.n; i++) ok = sd_grammar_accept(&s, ids.id[i]);
    ok = ok && sd_grammar_can_end(&s);
    sd_ids_free(&ids);
    sd_grammar_end(&s);
    return ok;
}

static bool find(void *ctx, const sd_delta *d) {
    rules_found *f = ctx;
    if (d->kind == SD_DELTA_CONTENT) f->content += d->len;
    if (d->kind == SD_DELTA_REASONING) f->reasoning += d->len;
    if (d->kind == SD_DELTA_CALL) {
        cr_assert(f->n < 64);
        f->arguments[f->n] = sd_buf_make(1 << 16);
        snprintf(f->name[f->n++], sizeof f->name[0], "%.*s", (int)d->len, d->text);
    }
    return d->kind != SD_DELTA_ARGUMENTS || sd_buf_add(&f->arguments[d->call], d->text, d->len);
}

// The same whatever pieces it comes in.
static void read_by_characters(const rules_found *f, const sd_answer_options *o) {
    sd_error err;
    sd_answer_parser *p = NULL;
    rules_found *other = sd_alloc(1, sizeof *other);
    cr_assert_eq(sd_answer_parser_open(&p, o, find, other, &err), SD_OK);
    for (size_t at = 0, n; at < f->text.len; at += n) {
        for (n = 1; at + n < f->text.len && ((unsigned char)f->text.data[at + n] & 0xC0) == 0x80;)
            n++;
        cr_assert(sd_answer_parser_add(p, f->text.data + at, n));
    }
    cr_assert(sd_answer_parser_end(p));
    sd_answer_parser_close(p);
    cr_assert(other->n == f->n && other->content == f->content && other->reasoning == f->reasoning,
              "<<%s>>", f->text.data);
    for (int i = 0; i < f->n; i++) {
        const sd_buf *a = &f->arguments[i], *b = &other->arguments[i];
        cr_assert(a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0),
                  "<<%s>>", f->text.data);
        cr_assert_str_eq(f->name[i], other->name[i]);
    }
    rules_found_free(other);
}

rules_found *rules_read(const char *text, size_t len, const sd_answer_options *o) {
    sd_error err;
    sd_answer_parser *p = NULL;
    rules_found *f = sd_alloc(1, sizeof *f);
    f->text = sd_buf_make(1 << 20);
    cr_assert(sd_buf_add(&f->text, text, len));
    cr_assert_eq(sd_answer_parser_open(&p, o, find, f, &err), SD_OK);
    cr_assert(sd_answer_parser_add(p, text, len) && sd_answer_parser_end(p));
    f->in_call = sd_answer_parser_in_call(p);
    sd_answer_parser_close(p);
    read_by_characters(f, o);
    return f;
}

// A model that knows nothing would hardly ever end a value that may be any text: whether the end of a tag could
// follow, which is then said.
static bool end_tag(sd_grammar_state *s, sd_buf *text) {
    static const char end[] = "\n</parameter>";
    sd_grammar_state at = {0};
    sd_ids ids = {0};
    sd_error err;
    sd_grammar_copy(&at, s);
    cr_assert_eq(sd_tokenizer_encode(rules_model.tokenizer, end, strlen(end), 0, &ids, &err),
                 SD_OK);
    bool ok = true;
    for (int i = 0; ok && i < ids.n; i++) ok = sd_grammar_accept(&at, ids.id[i]);
    if (ok) sd_grammar_copy(s, &at);
    sd_ids_free(&ids);
    sd_grammar_end(&at);
    return ok && sd_buf_adds(text, end);
}

rules_found *rules_walk(sd_grammar *g, const sd_answer_options *o, uint64_t *seed) {
    uint32_t allowed[16];
    sd_grammar_state s;
    sd_buf text = sd_buf_make(1 << 20);
    int V = sd_tokenizer_size(rules_model.tokenizer);
    cr_assert(V <= 16 * 32 && sd_grammar_begin(&s, g, -1) && sd_buf_adds(&text, ""));
    for (int i = 0; i < 4000; i++) {
        if (sd_grammar_can_end(&s) && (sd_grammar_must_end(&s) || sd_mix64((*seed)++) % 3)) break;
        if (i % 40 == 39 && end_tag(&s, &text)) continue;
        cr_assert(sd_grammar_fill(&s, allowed, V));
        int n = 0, pick = -1;
        for (int t = 0; t < V; t++)
            if (allowed[t / 32] >> (t % 32) & 1 && sd_mix64((*seed)++) % (uint64_t)++n == 0)
                pick = t;
        size_t len;
        const char *bytes = sd_tokenizer_bytes(rules_model.tokenizer, pick, &len);
        cr_assert(pick >= 0 && sd_grammar_accept(&s, pick) && sd_buf_add(&text, bytes, len));
    }
    cr_assert(sd_grammar_can_end(&s), "<<%s>>", text.data);
    rules_found *f = rules_read(text.data, text.len, o);
    sd_grammar_end(&s);
    sd_buf_free(&text);
    return f;
}

void rules_found_free(rules_found *f) {
    for (int i = 0; i < f->n; i++) sd_buf_free(&f->arguments[i]);
    sd_buf_free(&f->text);
    free(f);
}
