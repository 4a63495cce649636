#include "tests/unit/grammar/support_grammar.h"

#include "tests/unit/support/tiny/parts.h"

#include <criterion/criterion.h>
#include <string.h>

static sd_tokenizer *t;

const sd_tokenizer *test_tokenizer(void) {
    return t;
}

sd_vocab *test_vocab(int *V) {
    static sd_vocab *v;
    if (!v) {
        sd_error err = {0};
        json_t *doc = sd_tiny_tokenizer_json();
        char *text = json_dumps(doc, 0);
        cr_assert_eq(sd_tokenizer_from_json(&t, text, strlen(text), &err), SD_OK, "%s",
                     err.message);
        cr_assert_eq(sd_vocab_open(&v, t, &err), SD_OK, "%s", err.message);
        free(text);
        json_decref(doc);
    }
    if (V) *V = sd_tokenizer_size(t);
    return v;
}

sd_grammar *test_compile(sd_grammar_builder *b, int e, sd_error *err) {
    sd_grammar *g = NULL;
    *err = (sd_error){0};
    sd_grammar_compile(&g, b, e, test_vocab(NULL), err);
    sd_grammar_builder_close(b);
    return g;
}

sd_grammar *test_regex(const char *pattern, sd_error *err) {
    sd_grammar_builder *b = sd_grammar_builder_open();
    return test_compile(b, sd_gb_regex(b, pattern, strlen(pattern)), err);
}

sd_grammar *test_schema(const char *schema, sd_error *err) {
    json_error_t why;
    json_t *s = json_loads(schema, JSON_DECODE_ANY, &why);
    cr_assert(s, "%s: %s", schema, why.text);
    sd_grammar_builder *b = sd_grammar_builder_open();
    int e = sd_gb_json_schema(b, s);
    json_decref(s); // it was only read
    return test_compile(b, e, err);
}

size_t test_follow(sd_grammar *g, const char *text, size_t len, bool *ends) {
    sd_grammar_state s = {0};
    sd_grammar_begin(&s, g, -1);
    size_t n = 0;
    while (n < len && sd_grammar_accept(&s, (uint8_t)text[n])) n++;
    if (ends) *ends = n == len && sd_grammar_can_end(&s);
    sd_grammar_end(&s);
    return n;
}

bool test_accepts(sd_grammar *g, const char *text) {
    bool ends;
    test_follow(g, text, strlen(text), &ends);
    return ends;
}

static uint64_t next(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

bool test_random_text(sd_grammar *g, uint64_t *seed, int most, sd_buf *out) {
    int V;
    sd_grammar_state s = {0};
    test_vocab(&V);
    uint32_t *allowed = calloc(((size_t)V + 31) / 32, sizeof *allowed);
    int32_t *id = malloc((size_t)V * sizeof *id);
    bool ended = false;
    sd_grammar_begin(&s, g, -1);
    for (int i = 0; i < most && !ended; i++) {
        bool any = sd_grammar_fill(&s, allowed, V), can = sd_grammar_can_end(&s);
        int n = 0;
        for (int k = 0; k < V; k++)
            if (allowed[k / 32] >> k % 32 & 1) id[n++] = k;
        cr_assert_eq(any, n > 0);
        cr_assert(any || can, "a dead end after %d tokens: %.*s", i, (int)out->len, out->data);
        cr_assert_eq(sd_grammar_must_end(&s), can && !any);
        if (can && (!any || next(seed) % 4 == 0)) {
            ended = true;
            break;
        }
        int32_t x = id[next(seed) % (uint64_t)n];
        cr_assert(sd_grammar_allows(&s, x));
        size_t len;
        const char *bytes = sd_tokenizer_bytes(t, x, &len);
        sd_buf_add(out, bytes, len);
        cr_assert(sd_grammar_accept(&s, x), "token %d was offered and is refused", x);
    }
    sd_grammar_end(&s);
    free(allowed), free(id);
    return ended;
}
