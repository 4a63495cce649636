// Schemas and values, a JSON line each, for schema_suite.py. In: {"schema": ..., "values": [texts]}. Out:
// {"refused": "why"}, or {"verdicts": ["oa", ...]}: for each text, o where the validator finds that it fits,
// x where not; a where the automaton lets it through as it is written, n where not.
#include "base/json.h"
#include "base/memory.h"
#include "model/grammar/schema/schema.h"
#include "tests/unit/support/tiny/parts.h"

#include <stdio.h>
#include <string.h>

static const sd_tokenizer *tokenizer(sd_error *err) {
    static sd_tokenizer *t;
    json_t *doc = t ? NULL : sd_tiny_tokenizer_json();
    char *text = NULL;
    if (doc && sd_json_dump(&text, doc, 0, err) == SD_OK)
        sd_tokenizer_from_json(&t, text, strlen(text), err);
    free(text);
    json_decref(doc);
    return t;
}

static bool follows(sd_grammar *g, const char *text) {
    sd_grammar_state s = {0};
    bool ok = sd_grammar_begin(&s, g, -1);
    for (; ok && *text; text++) ok = sd_grammar_accept(&s, (uint8_t)*text); // token ids of bytes
    ok = ok && sd_grammar_can_end(&s);
    sd_grammar_end(&s);
    return ok;
}

static json_t *answer(const json_t *schema, const json_t *values, sd_vocab *v) {
    sd_error err = {0};
    sd_grammar *g = NULL;
    sd_grammar_builder *b = sd_grammar_builder_open();
    sd_status st = sd_grammar_compile(&g, b, sd_gb_json_schema(b, schema), v, &err);
    sd_grammar_builder_close(b);
    bool empty = st != SD_OK && strstr(err.message, "no text"); // nothing fits: no value may
    if (st != SD_OK && !empty) return json_pack("{s:s}", "refused", err.message);
    json_t *out = json_array(), *text;
    size_t i;
    json_array_foreach(values, i, text) {
        json_t *value = NULL;
        char verdict[3] = "xn";
        const char *s = json_string_value(text);
        sd_json_load(&value, s, strlen(s), JSON_DECODE_ANY, NULL, &err);
        if (value && sd_schema_validate(schema, value, &err) == SD_OK) verdict[0] = 'o';
        if (g && follows(g, s)) verdict[1] = 'a';
        if (!value) verdict[0] = '?'; // jansson holds no such number
        json_array_append_new(out, json_string(verdict));
        json_decref(value);
    }
    sd_grammar_release(g);
    return json_pack("{s:o}", "verdicts", out);
}

int main(void) {
    sd_error err = {0};
    sd_vocab *v = NULL;
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    if (!tokenizer(&err) || sd_vocab_open(&v, tokenizer(&err), &err) != SD_OK) return 1;
    while ((n = getline(&line, &room, stdin)) > 0) {
        json_t *in = NULL;
        sd_json_load(&in, line, (size_t)n, JSON_ALLOW_NUL, NULL, &err);
        json_t *out = in ? answer(json_object_get(in, "schema"), json_object_get(in, "values"), v)
                         : json_pack("{s:s}", "refused", "not read");
        sd_json_print(stdout, out, JSON_COMPACT, &err);
        putchar('\n');
        fflush(stdout);
        json_decref(out);
        json_decref(in);
    }
    free(line);
    return 0;
}
