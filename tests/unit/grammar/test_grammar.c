// Grammars over bytes: what each expression accepts, masks against single tokens, forced tokens,
// bounds.
#include "tests/unit/grammar/support_grammar.h"

#include "model/grammar/internal.h"
#include "model/grammar/schema/cache.h"
#include "tests/unit/support/tiny/parts.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

// ---- expressions

Test(grammar, a_rule_may_contain_itself) {
    sd_grammar_builder *b = sd_grammar_builder_open();
    int rule = sd_gb_rule(b),
        in[] = {sd_gb_literal(b, "(", 1), sd_gb_ref(b, rule), sd_gb_literal(b, ")", 1)};
    int any[] = {sd_gb_literal(b, "x", 1), sd_gb_seq(b, in, 3)};
    sd_gb_define(b, rule, sd_gb_any_of(b, any, 2));
    sd_error err;
    sd_grammar *g = test_compile(b, sd_gb_ref(b, rule), &err);
    cr_assert(g, "%s", err.message);
    cr_expect(test_accepts(g, "x"));
    cr_expect(test_accepts(g, "((x))"));
    cr_expect(!test_accepts(g, "((x)"));
    cr_expect(!test_accepts(g, "(x))"));
    // Nesting is bounded, and what was begun within the bound can be ended.
    char deep[2 * SD_GRAMMAR_DEPTH + 2];
    memset(deep, '(', sizeof deep);
    bool ends;
    size_t n = test_follow(g, deep, sizeof deep, &ends);
    cr_expect(n >= SD_GRAMMAR_DEPTH - 2 && n <= SD_GRAMMAR_DEPTH, "%zu", n);
    deep[n] = 'x';
    for (size_t i = 0; i < n; i++) deep[n + 1 + i] = ')';
    deep[2 * n + 1] = '\0';
    cr_expect(test_accepts(g, deep));
    sd_grammar_release(g);
}

Test(grammar, a_rule_without_an_end_is_refused) {
    sd_grammar_builder *b = sd_grammar_builder_open();
    int rule = sd_gb_rule(b), in[] = {sd_gb_literal(b, "(", 1), sd_gb_ref(b, rule)};
    sd_gb_define(b, rule, sd_gb_seq(b, in, 2));
    sd_error err;
    cr_expect(!test_compile(b, sd_gb_ref(b, rule), &err));
    cr_expect_eq(err.status, SD_EINVAL);
    b = sd_grammar_builder_open();
    cr_expect(!test_compile(b, sd_gb_ref(b, sd_gb_rule(b)), &err));
    cr_expect(strstr(err.message, "never defined"), "%s", err.message);
}

Test(grammar, counts_cost_no_nodes) {
    sd_grammar_builder *b = sd_grammar_builder_open();
    sd_error err;
    sd_grammar *g = test_compile(b, sd_gb_repeat(b, sd_gb_literal(b, "ab", 2), 2, 100000), &err);
    cr_assert(g, "%s", err.message);
    sd_grammar_stats stats;
    sd_grammar_get_stats(g, &stats);
    cr_expect_lt(stats.nodes, 10);
    cr_expect(!test_accepts(g, "ab"));
    cr_expect(test_accepts(g, "abab"));
    sd_buf text = sd_buf_make(1 << 20);
    for (int i = 0; i < 100000; i++) sd_buf_adds(&text, "ab");
    cr_expect(test_accepts(g, text.data));
    sd_buf_adds(&text, "ab");
    cr_expect(!test_accepts(g, text.data));
    sd_buf_free(&text);
    sd_grammar_release(g);
}

Test(grammar, free_text_ends_where_the_trigger_stands) {
    sd_grammar_builder *b = sd_grammar_builder_open();
    int e[] = {sd_gb_text_without(b, "<tool>", 6), sd_gb_literal(b, "<tool>", 6),
               sd_gb_literal(b, "{}", 2)};
    sd_error err;
    sd_grammar *g = test_compile(b, sd_gb_seq(b, e, 3), &err);
    cr_assert(g, "%s", err.message);
    cr_expect(test_accepts(g, "<tool>{}"));
    cr_expect(test_accepts(g, "I <think> <to<tool>{}"));
    cr_expect(test_accepts(g, "<<tool>{}"));
    cr_expect(test_accepts(g, "\xe2\x82\xac <tool>{}"));
    cr_expect(!test_accepts(g, "a <tool> b <tool>{}"));
    cr_expect(!test_accepts(g, "\xff<tool>{}"), "bytes that are no UTF-8");
    sd_grammar_release(g);
}

Test(grammar, a_choice_is_one_of_its_texts) {
    const char *text[] = {"red", "green", "gre", "", "blue", "greener"};
    const size_t len[] = {3, 5, 3, 0, 4, 7};
    sd_grammar_builder *b = sd_grammar_builder_open();
    sd_error err;
    sd_grammar *g = test_compile(b, sd_gb_choice(b, text, len, 6), &err);
    cr_assert(g, "%s", err.message);
    for (int i = 0; i < 6; i++) cr_expect(test_accepts(g, text[i]), "%s", text[i]);
    cr_expect(!test_accepts(g, "gree"));
    cr_expect(!test_accepts(g, "redd"));
    sd_grammar_release(g);
}

Test(grammar, a_special_token_comes_by_its_id_alone) {
    int V;
    test_vocab(&V);
    sd_grammar_builder *b = sd_grammar_builder_open();
    int e[] = {sd_gb_token(b, V - 1), sd_gb_literal(b, "a", 1)};
    sd_error err;
    sd_grammar *g = test_compile(b, sd_gb_seq(b, e, 2), &err);
    cr_assert(g, "%s", err.message);
    sd_grammar_state s = {0};
    uint32_t allowed[32];
    sd_grammar_begin(&s, g, -1);
    cr_expect(sd_grammar_fill(&s, allowed, V));
    for (int t = 0; t < V; t++) cr_expect_eq(allowed[t / 32] >> t % 32 & 1, t == V - 1, "%d", t);
    cr_expect(!sd_grammar_accept(&s, 'a'));
    cr_expect(sd_grammar_accept(&s, V - 1));
    cr_expect(sd_grammar_accept(&s, 'a'));
    cr_expect(sd_grammar_must_end(&s));
    sd_grammar_end(&s);
    sd_grammar_release(g);
    // Its text is no text: "<|im_end|>" in a pattern is spelled by other tokens.
    g = test_regex(".*", &err);
    sd_grammar_begin(&s, g, -1);
    cr_expect(!sd_grammar_accept(&s, V - 1));
    sd_grammar_end(&s);
    sd_grammar_release(g);
}

// ---- masks

// Every token of a mask against the walk of its own bytes, along random texts.
Test(grammar, a_mask_holds_the_tokens_that_are_accepted) {
    static const char *const schemas[] = {
        "{\"type\":\"string\"}",
        "{\"type\":\"string\",\"maxLength\":5}",
        "{\"type\":\"object\",\"properties\":{\"the\":{\"type\":\"string\",\"maxLength\":3},"
        "\"and\":{\"enum\":[\"other\",\"on\",1]}},\"additionalProperties\":{\"type\":\"integer\"}}",
        "{\"type\":\"array\",\"items\":{\"type\":\"number\",\"minimum\":-2,\"maximum\":10}}",
    };
    int V;
    test_vocab(&V);
    uint32_t allowed[32];
    uint64_t seed = 1;
    for (int i = 0; i < 4; i++) {
        sd_error err;
        sd_grammar *g = test_schema(schemas[i], &err);
        cr_assert(g, "%s", err.message);
        for (int k = 0; k < 30; k++) {
            sd_grammar_state s = {0};
            sd_grammar_begin(&s, g, -1);
            for (int step = 0; step < 12; step++) {
                int32_t some = -1;
                sd_grammar_fill(&s, allowed, V);
                for (int t = 0; t < V; t++) {
                    bool in = allowed[t / 32] >> t % 32 & 1;
                    cr_assert_eq(in, sd_grammar_allows(&s, t), "%s: token %d at %d", schemas[i], t,
                                 step);
                    seed = seed * 6364136223846793005u + 1442695040888963407u;
                    if (in && (some < 0 || seed >> 33 & 1)) some = t;
                }
                if (some < 0 || !sd_grammar_accept(&s, some)) break;
            }
            sd_grammar_end(&s);
        }
        sd_grammar_release(g);
    }
}

Test(grammar, a_copy_goes_its_own_way) {
    sd_error err;
    sd_grammar *g = test_regex("ab|ac", &err);
    sd_grammar_state s = {0}, other = {0};
    sd_grammar_begin(&s, g, -1);
    sd_grammar_accept(&s, 'a');
    sd_grammar_copy(&other, &s);
    cr_expect(sd_grammar_accept(&other, 'b'));
    cr_expect(!sd_grammar_accept(&other, 'b'));
    cr_expect(!sd_grammar_accept(&s, 'a'), "a refused token changes nothing");
    cr_expect(sd_grammar_accept(&s, 'c'));
    cr_expect(sd_grammar_can_end(&s) && sd_grammar_must_end(&other));
    sd_grammar_end(&s);
    sd_grammar_end(&other);
    sd_grammar_release(g);
}

// ---- forced tokens

static int forced_text(const sd_grammar_state *s, char *out, bool *open) {
    int32_t token[SD_GRAMMAR_FORCED];
    int n = sd_grammar_forced(s, token, open);
    *out = '\0';
    for (int i = 0; i < n; i++) {
        size_t len;
        const char *bytes = sd_tokenizer_bytes(test_tokenizer(), token[i], &len);
        strncat(out, bytes, len);
    }
    return n;
}

Test(grammar, forced_bytes_come_as_the_tokenizer_writes_them) {
    sd_error err;
    char text[300];
    bool open;
    sd_grammar *g = test_regex("in the end|in the hall", &err);
    sd_grammar_state s = {0};
    sd_grammar_begin(&s, g, -1);
    int n = forced_text(&s, text, &open);
    cr_expect_str_eq(text, "in the ");
    cr_expect(open, "the last may grow");
    cr_expect_eq(n, 3, "%d", n); // "in", " the", " "
    for (const char *p = "in the e"; *p; p++) sd_grammar_accept(&s, (uint8_t)*p);
    forced_text(&s, text, &open);
    cr_expect_str_eq(text, "nd");
    cr_expect(!open);
    sd_grammar_end(&s);
    sd_grammar_release(g);
}

Test(grammar, an_optional_space_is_forced_as_it_was_written_before) {
    sd_error err;
    char text[300];
    bool open;
    sd_grammar *g =
        test_schema("{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}},"
                    "\"required\":[\"a\",\"b\"]}",
                    &err);
    cr_assert(g, "%s", err.message);
    sd_grammar_state s = {0};
    sd_grammar_begin(&s, g, -1);
    forced_text(&s, text, &open);
    cr_expect_str_eq(text, "{\"a\": 1, \"b\": 2}");
    for (const char *p = "{\"a\":1"; *p; p++) cr_assert(sd_grammar_accept(&s, (uint8_t)*p));
    forced_text(&s, text, &open);
    cr_expect_str_eq(text, ",\"b\":2}");
    sd_grammar_end(&s);
    sd_grammar_release(g);
}

// ---- memory

Test(grammar, what_is_kept_is_bounded) {
    sd_error err;
    sd_grammar *g = test_schema(
        "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":400000}}", &err);
    cr_assert(g, "%s", err.message);
    sd_grammar_state s = {0}, early = {0};
    uint32_t allowed[32];
    int V;
    test_vocab(&V);
    sd_grammar_begin(&s, g, -1);
    sd_grammar_accept(&s, '[');
    sd_grammar_accept(&s, '"');
    sd_grammar_accept(&s, 'x');
    sd_grammar_copy(&early, &s); // survives that everything else is forgotten
    for (int i = 0; i < 120000; i++) {
        cr_assert(sd_grammar_accept(&s, 'a' + i % 26));
        if (i % 8 == 0) cr_assert(sd_grammar_fill(&s, allowed, V));
    }
    sd_grammar_stats stats;
    sd_grammar_get_stats(g, &stats);
    cr_expect_leq(stats.bytes, SD_GRAMMAR_CACHE + (1 << 20), "%zu", stats.bytes);
    cr_expect(sd_grammar_accept(&early, '"') && sd_grammar_accept(&early, ']'));
    cr_expect(sd_grammar_accept(&s, '"') && sd_grammar_accept(&s, ']') && sd_grammar_must_end(&s));
    sd_grammar_end(&s);
    sd_grammar_end(&early);
    sd_grammar_release(g);
}

// ---- what a mask may take

enum { MADE_UP = 60000 };

// The tiny tokenizer with many more tokens, of 2 to 9 letters.
static sd_tokenizer *made_up_tokens(void) {
    sd_error err = {0};
    sd_tokenizer *t = NULL;
    json_t *doc = sd_tiny_tokenizer_json();
    json_t *vocab = json_object_get(json_object_get(doc, "model"), "vocab");
    uint64_t x = 1;
    for (int i = 0; i < MADE_UP; i++) {
        char text[10] = {0};
        do {
            x = x * 6364136223846793005u + 1442695040888963407u;
            uint64_t bits = x >> 16;
            for (int k = 0; k < 2 + i % 8; k++, bits /= 26) text[k] = (char)('a' + bits % 26);
        } while (i % 8 > 3 && json_object_get(vocab, text));
        if (!json_object_get(vocab, text))
            json_object_set_new(vocab, text, json_integer(SD_TINY_TOKENS + i));
    }
    char *json = json_dumps(doc, 0);
    cr_assert_eq(sd_tokenizer_from_json(&t, json, strlen(json), &err), SD_OK, "%s", err.message);
    free(json);
    json_decref(doc);
    return t;
}

// Texts whose count of some letter is a multiple of some number: what follows depends on how often
// each letter was said.
static int counts_of_letters(sd_grammar_builder *b) {
    int e[26 * 8], n = 0;
    for (char c = 'a'; c <= 'z'; c++)
        for (int m = 2; m < 10; m++) {
            char text[64];
            int len = snprintf(text, sizeof text, "(([^%c]*%c){%d})*[^%c]*", c, c, m, c);
            e[n++] = sd_gb_regex(b, text, (size_t)len);
        }
    return sd_gb_any_of(b, e, n);
}

// A text of a cache, which says nothing.
static int count_letters(sd_grammar_builder *b, const sd_tokenizer *t, const char *text, size_t len,
                         sd_error *err) {
    (void)t, (void)text, (void)len, (void)err;
    return counts_of_letters(b);
}

static sd_grammar *get_numbered(sd_grammar_cache *c, int i) {
    char text[16];
    int n = snprintf(text, sizeof text, "%d", i);
    const sd_grammar_spec want = {SD_GRAMMAR_CALLS, text, (size_t)n};
    sd_grammar *g = NULL;
    sd_error err = {0};
    cr_assert_eq(sd_grammar_cache_get(&g, c, &want, &err), SD_OK, "%s", err.message);
    return g;
}

// Where all together take too much, what nobody holds goes, and what is held while no sequence follows it
// gives its states back; what a sequence follows keeps them.
Test(grammar, a_cache_keeps_to_its_memory_whatever_is_held) {
    enum { HELD = 12, EACH = 30 << 20 };
    sd_error err = {0};
    sd_tokenizer *t = made_up_tokens();
    sd_grammar_cache *c = NULL;
    sd_grammar *g[HELD];
    sd_grammar_state s[HELD] = {0};
    sd_grammar_cache_stats stats;
    const int V = sd_tokenizer_size(t);
    uint32_t *allowed = malloc(((size_t)V + 31) / 32 * sizeof *allowed);
    cr_assert_eq(sd_grammar_cache_open(&c, t, &err), SD_OK);
    sd_grammar_cache_take_calls(c, count_letters);
    for (int i = 0; i < HELD; i++) {
        sd_gspend left;
        g[i] = get_numbered(c, i);
        sd_grammar_begin(&s[i], g[i], -1);
        // What was found of a mask stays, and the next try goes on.
        for (int k = 0; k < 20 && sd_grammar_bytes(g[i]) < EACH; k++) {
            left = (sd_gspend){1 << 20, 1 << 30, EACH / 2};
            cr_assert_eq(sd_grammar_try_fill(&s[i], allowed, V, &left), SD_GRAMMAR_LATER);
        }
        printf("# %d: %.1f MB\n", i, (double)sd_grammar_bytes(g[i]) / 1e6);
    }
    cr_assert_gt(sd_grammar_cache_bytes(c), SD_GRAMMAR_MEMORY);
    const size_t followed = sd_grammar_bytes(g[0]);
    for (int i = 1; i < HELD; i++) sd_grammar_end(&s[i]);
    cr_assert_gt(sd_grammar_cache_bytes(c), SD_GRAMMAR_MEMORY);
    sd_grammar_cache_put(c, g[HELD - 1]);
    cr_expect_lt(sd_grammar_cache_bytes(c), SD_GRAMMAR_MEMORY);
    cr_expect_eq(sd_grammar_bytes(g[0]), followed);
    sd_grammar_cache_get_stats(c, &stats);
    const int64_t compiled = stats.compiled;
    for (int i = 0; i < HELD; i++) {
        sd_grammar *again = get_numbered(c, i);
        if (i < HELD - 1) cr_expect_eq(again, g[i], "what is held stays compiled");
        sd_grammar_release(again);
    }
    sd_grammar_cache_get_stats(c, &stats);
    cr_expect_eq(stats.compiled, compiled + 1, "what nobody held went");
    sd_grammar_end(&s[0]);
    for (int i = 0; i < HELD - 1; i++) sd_grammar_cache_put(c, g[i]);
    cr_expect_lt(sd_grammar_cache_bytes(c), SD_GRAMMAR_MEMORY);
    sd_grammar_cache_close(c);
    sd_tokenizer_close(t);
    free(allowed);
}

Test(grammar, a_mask_takes_no_more_than_its_budget) {
    sd_error err = {0};
    sd_tokenizer *t = made_up_tokens();
    sd_vocab *v = NULL;
    sd_grammar *g = NULL;
    sd_grammar_stats stats;
    sd_grammar_state s = {0};
    cr_assert_eq(sd_vocab_open(&v, t, &err), SD_OK, "%s", err.message);
    int V = sd_tokenizer_size(t);
    cr_assert_gt(V, 50000);
    uint32_t *allowed = malloc(((size_t)V + 31) / 32 * sizeof *allowed);
    sd_grammar_builder *b = sd_grammar_builder_open();
    cr_assert_eq(sd_grammar_compile(&g, b, counts_of_letters(b), v, &err), SD_OK, "%s",
                 err.message);
    sd_grammar_builder_close(b);
    sd_grammar_begin(&s, g, -1);
    size_t before = sd_grammar_bytes(g);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(sd_grammar_try_fill(&s, allowed, V, NULL), SD_GRAMMAR_TOO_MUCH);
        sd_grammar_get_stats(g, &stats);
        printf("# given up after %d states, %d steps, %.1f MB\n", (int)stats.most_states,
               (int)stats.most_work, (double)stats.most_bytes / 1e6);
        cr_expect_leq(stats.most_states, SD_GRAMMAR_MASK_STATES);
        cr_expect_leq(stats.most_work, SD_GRAMMAR_MASK_WORK + (1 << 20));
        cr_expect_leq(stats.most_bytes, SD_GRAMMAR_MASK_BYTES + (1 << 20));
        // Nothing stays of it but the frames.
        cr_expect_lt(sd_grammar_bytes(g), before + (1 << 20));
    }
    // The rest of a step's budget is all used up, and no more; then nothing is tried.
    sd_gspend left = {1 << 20, 20000, 1 << 30};
    for (int i = 0; i < 3; i++) {
        int64_t work = g->work;
        cr_expect_eq(sd_grammar_try_fill(&s, allowed, V, &left), SD_GRAMMAR_LATER);
        cr_expect_eq(left.work, 0);
        cr_expect_leq(g->work - work, i ? 0 : 20000 + 10000);
    }
    cr_expect(sd_grammar_allows(&s, 'a') && sd_grammar_accept(&s, 'a')); // one token is no mask
    g->budget.work *= 4; // it would take a hundred times as much
    cr_expect_eq(sd_grammar_try_fill(&s, allowed, V, NULL), SD_GRAMMAR_TOO_MUCH);
    sd_grammar_end(&s);
    sd_grammar_release(g);
    sd_vocab_release(v);
    sd_tokenizer_close(t);
    free(allowed);
}

// 3,000 optional members: {"m0": ...}, value by value.
static sd_grammar *many_members(const char *value, const char *last, sd_vocab *v, sd_error *err) {
    sd_buf text = sd_buf_make(1 << 20);
    sd_grammar *g = NULL;
    sd_buf_adds(&text, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 3000; i++) sd_buf_printf(&text, "\"m%d\":%s,", i, value);
    sd_buf_printf(&text, "\"last\":%s},\"required\":[\"last\"],\"additionalProperties\":false}",
                  last);
    json_t *schema = json_loadb(text.data, text.len, 0, NULL);
    sd_grammar_builder *b = sd_grammar_builder_open();
    cr_assert(schema);
    *err = (sd_error){0};
    sd_grammar_compile(&g, b, sd_gb_json_schema(b, schema), v, err);
    sd_grammar_builder_close(b);
    json_decref(schema);
    sd_buf_free(&text);
    return g;
}

Test(grammar, thousands_of_members_that_never_come_leave_the_required_one) {
    sd_error err;
    sd_vocab *v = test_vocab(NULL);
    sd_grammar *g = many_members("false", "{\"type\":\"null\"}", v, &err);
    cr_assert(g, "%s", err.message);
    cr_expect(test_accepts(g, "{\"last\": null}"));
    cr_expect(!test_accepts(g, "{}") && !test_accepts(g, "{\"m7\": 1}"));
    uint64_t seed = 1;
    sd_buf out = sd_buf_make(1 << 16);
    cr_expect(test_random_text(g, &seed, 200, &out));
    sd_buf_free(&out);
    sd_grammar_release(g);
    cr_expect_null(many_members("false", "false", v, &err));
    cr_expect_eq(err.status, SD_EINVAL, "%s", err.message);
}

Test(grammar, masks_of_usual_schemas_stay_far_inside_the_budget) {
    static const char *const schemas[] = {
        "{\"type\":\"object\"}",
        "{\"type\":\"string\",\"maxLength\":8}",
        "{\"type\":\"array\",\"items\":{\"type\":\"number\",\"minimum\":-1000,\"maximum\":1000}}",
        "{\"type\":\"string\",\"pattern\":\"^[a-z]{3,300}(-[a-z]{2,40}){0,8}$\"}",
        "{\"type\":\"string\",\"format\":\"email\"}",
        "{\"type\":\"string\",\"pattern\":\"^(.*[aeiou].*[aeiou].*|[a-m]+|[n-z]+|.*(ing|ed|er))$"
        "\"}",
    };
    sd_error err = {0};
    sd_tokenizer *t = made_up_tokens();
    sd_vocab *v = NULL;
    cr_assert_eq(sd_vocab_open(&v, t, &err), SD_OK, "%s", err.message);
    int V = sd_tokenizer_size(t);
    uint32_t *allowed = malloc(((size_t)V + 31) / 32 * sizeof *allowed);
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0] + 2; i++) {
        sd_grammar *g = NULL;
        if (i < sizeof schemas / sizeof schemas[0]) {
            json_t *schema = json_loads(schemas[i], 0, NULL);
            sd_grammar_builder *b = sd_grammar_builder_open();
            sd_grammar_compile(&g, b, sd_gb_json_schema(b, schema), v, &err);
            sd_grammar_builder_close(b);
            json_decref(schema);
        } else if (i > sizeof schemas / sizeof schemas[0]) {
            sd_grammar_builder *b = sd_grammar_builder_open();
            const char *text[SD_GRAMMAR_CHOICES];
            size_t len[SD_GRAMMAR_CHOICES];
            for (int k = 0; k < SD_GRAMMAR_CHOICES; k++)
                text[k] = sd_tokenizer_bytes(t, SD_TINY_TOKENS + 30000 + k, &len[k]);
            sd_grammar_compile(&g, b, sd_gb_choice(b, text, len, SD_GRAMMAR_CHOICES), v, &err);
            sd_grammar_builder_close(b);
        } else {
            g = many_members("{\"type\":\"string\"}", "{\"type\":\"null\"}", v, &err);
        }
        cr_assert(g, "%s", err.message);
        sd_grammar_state s = {0};
        sd_grammar_stats stats;
        sd_grammar_begin(&s, g, -1);
        uint64_t x = 7;
        for (int k = 0; k < 60; k++) {
            cr_assert_eq(sd_grammar_try_fill(&s, allowed, V, NULL), SD_GRAMMAR_FILLED);
            x = x * 6364136223846793005u + 1442695040888963407u;
            int at = (int)((x >> 33) % (uint64_t)V), n = 0;
            for (; n < V && !(allowed[at / 32] >> at % 32 & 1); n++) at = (at + 1) % V;
            if (n == V) break;
            cr_assert(sd_grammar_accept(&s, at));
        }
        sd_grammar_get_stats(g, &stats);
        printf("# schema %d: at most %d states, %d steps, %.1f MB a mask\n", (int)i,
               (int)stats.most_states, (int)stats.most_work, (double)stats.most_bytes / 1e6);
        cr_expect_lt(stats.most_states, SD_GRAMMAR_MASK_STATES / 4);
        cr_expect_lt(stats.most_work, SD_GRAMMAR_MASK_WORK / 16);
        cr_expect_lt(stats.most_bytes, SD_GRAMMAR_MASK_BYTES / 4);
        sd_grammar_end(&s);
        sd_grammar_release(g);
    }
    sd_vocab_release(v);
    sd_tokenizer_close(t);
    free(allowed);
}
