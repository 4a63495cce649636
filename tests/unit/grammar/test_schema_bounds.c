// Schemas that take many steps or bytes for their size: they are refused, or read, in a bounded number of
// them.
#include "tests/unit/grammar/support_grammar.h"

#include "model/grammar/internal.h"
#include "model/grammar/schema/schema.h"

#include <criterion/criterion.h>
#include <stdio.h>

// Steps and bytes of the account, which bound its time (tests/bench/hostile_constraints.py measures it). The
// last part may pass the account by what one pattern takes.
static void expect_bounded(const char *what, const char *schema, bool refuse) {
    sd_error err = {0};
    json_t *s = json_loads(schema, JSON_DECODE_ANY, NULL);
    cr_assert(s, "%s", what);
    sd_grammar_builder *b = sd_grammar_builder_open();
    int e = sd_gb_json_schema(b, s), parts = b->n;
    int64_t steps = SD_GRAMMAR_STEPS - b->steps_left, bytes = SD_GRAMMAR_BYTES - b->bytes_left;
    sd_grammar *g = test_compile(b, e, &err);
    cr_expect_eq(g == NULL, refuse, "%s: %s", what, err.message);
    cr_expect_leq(steps, SD_GRAMMAR_STEPS + SD_DFA_WORK, "%s: %lld", what, (long long)steps);
    cr_expect_leq(bytes, SD_GRAMMAR_BYTES + (4 << 20), "%s: %lld", what, (long long)bytes);
    cr_expect_leq(parts, SD_GRAMMAR_EXPRS);
    printf("# %s: %lld steps, %.1f MB, %d parts: %s\n", what, (long long)steps, (double)bytes / 1e6,
           parts, err.message);
    sd_grammar_release(g);
    json_decref(s);
}

Test(schema_bounds, hostile_schemas_are_refused_in_a_bounded_number_of_steps) {
    sd_buf b = sd_buf_make(1 << 26);
    test_vocab(NULL);
    sd_buf_adds(&b, "{\"enum\":[");
    for (int i = 0; i < 200000; i++) sd_buf_printf(&b, "%s\"value %d\"", i ? "," : "", i);
    sd_buf_adds(&b, "]}");
    expect_bounded("an enum of 200,000", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"enum\":[\"");
    for (int i = 0; i < 400000; i++) sd_buf_adds(&b, "x");
    sd_buf_adds(&b, "\"]}");
    expect_bounded("a constant of 400,000 bytes", b.data, true);
    sd_buf_clear(&b);
    for (int i = 0; i < 1000; i++) sd_buf_adds(&b, "{\"type\":\"array\",\"items\":");
    sd_buf_adds(&b, "{}");
    for (int i = 0; i < 1000; i++) sd_buf_adds(&b, "}");
    expect_bounded("1,000 levels", b.data, true);
    sd_buf_clear(&b);
    // Doubled at each level: 2^60 branches once written out.
    sd_buf_adds(&b, "{\"$defs\":{\"d0\":{\"type\":\"null\"}");
    for (int i = 1; i <= 60; i++)
        sd_buf_printf(&b,
                      ",\"d%d\":{\"type\":\"object\",\"allOf\":[{\"$ref\":\"#/$defs/"
                      "d%d\"},{\"$ref\":\"#/$defs/d%d\"}]}",
                      i, i - 1, i - 1);
    sd_buf_adds(&b, "},\"$ref\":\"#/$defs/d60\"}");
    expect_bounded("allOf doubled 60 times", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"},{\"enum\":[null,1,2,3]}]}");
    expect_bounded("a union of itself", b.data, false);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"$defs\":{\"x\":{\"anyOf\":[{\"$ref\":\"#/$defs/x\"},{\"$ref\":\"#/$defs/"
                    "x\"},{\"type\":\"null\"}]}},\"$ref\":\"#/$defs/x\",\"enum\":[null,1,2,3]}");
    expect_bounded("an enum beside a union of itself", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 30000; i++) sd_buf_printf(&b, "%s\"p%d\":{}", i ? "," : "", i);
    sd_buf_adds(&b, "}}");
    expect_bounded("30,000 properties", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"type\":\"object\",\"additionalProperties\":true,\"properties\":{");
    for (int i = 0; i < 1500; i++)
        sd_buf_printf(&b, "%s\"a name of some length that ends in %d\":{\"type\":\"null\"}",
                      i ? "," : "", i);
    sd_buf_adds(&b, "}}");
    expect_bounded("1,500 optional properties beside others", b.data, false);
    sd_buf_free(&b);
}

// Names a to t, as members of `value` or, without one, as a list.
static void twenty(sd_buf *b, const char *value) {
    for (int i = 0; i < 20; i++)
        sd_buf_printf(b, "%s\"%c\"%s%s", i ? "," : "", 'a' + i, value ? ":" : "",
                      value ? value : "");
}

static void repeated(sd_buf *b, const char *what, int n) {
    for (int i = 0; i < n; i++) sd_buf_printf(b, "%s%s", i ? "," : "", what);
}

// What takes many steps or bytes for its size: all of it is paid from one account.
Test(schema_bounds, what_one_account_does_not_cover_is_refused) {
    sd_buf b = sd_buf_make(1 << 26);
    test_vocab(NULL);
    sd_buf_adds(&b, "{\"$defs\":{\"b\":{\"type\":\"object\",\"properties\":{");
    twenty(&b, "{\"$ref\":\"#/$defs/b\"}");
    sd_buf_adds(&b, "},\"required\":[");
    twenty(&b, NULL);
    sd_buf_adds(&b, "]}},\"oneOf\":[{\"$ref\":\"#/$defs/b\"},{\"$ref\":\"#/$defs/b\"}]}");
    expect_bounded("branches alike in 20^9 ways", b.data, true);

    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 19000; i++) sd_buf_printf(&b, "%s\"p%d\":{}", i ? "," : "", i);
    sd_buf_adds(&b, "},\"allOf\":[");
    repeated(&b, "{\"minProperties\":0}", 19000);
    sd_buf_adds(&b, "]}");
    expect_bounded("19,000 properties merged 19,000 times", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 60000; i++) sd_buf_printf(&b, "%s\"p%d\":{}", i ? "," : "", i);
    sd_buf_adds(&b, "},\"allOf\":[");
    repeated(&b, "{}", 19000);
    sd_buf_adds(&b, "]}");
    expect_bounded("60,000 properties beside 19,000 empty schemas", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"type\":\"string\",\"allOf\":[");
    repeated(&b, "{}", 19000);
    sd_buf_adds(&b, "]}");
    expect_bounded("19,000 empty schemas", b.data, false);

    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"anyOf\":[");
    for (int i = 0; i < 4000; i++)
        sd_buf_printf(&b, "%s{\"pattern\":\"(a|b)*a(a|b){10}%d\"}", i ? "," : "", i);
    sd_buf_adds(&b, "]}");
    expect_bounded("4,000 patterns", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"anyOf\":[");
    for (int i = 0; i < 4000; i++)
        sd_buf_printf(&b, "%s{\"type\":\"integer\",\"minimum\":%d,\"multipleOf\":400}",
                      i ? "," : "", i);
    sd_buf_adds(&b, "]}");
    expect_bounded("4,000 remainders", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"anyOf\":[");
    repeated(&b, "{\"pattern\":\"(a|b)*a(a|b){8}\"}", 4000);
    sd_buf_adds(&b, "]}");
    expect_bounded("one pattern 4,000 times", b.data, false);

    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"enum\":[[0");
    for (int i = 1; i <= 150000; i++) sd_buf_printf(&b, ",%d", i);
    sd_buf_adds(&b, "]],\"uniqueItems\":true}");
    expect_bounded("a constant of 150,000 items", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"enum\":[0");
    for (int i = 1; i < 4096; i++) sd_buf_printf(&b, ",%d", i);
    sd_buf_adds(&b, "],\"anyOf\":[");
    repeated(&b, "{}", 120);
    sd_buf_adds(&b, "]}");
    expect_bounded("an enum of 4,096 beside 120 branches", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"allOf\":[{\"enum\":[0");
    for (int i = 1; i < 4096; i++) sd_buf_printf(&b, ",%d", i);
    sd_buf_adds(&b, "]},{\"enum\":[4096");
    for (int i = 1; i < 4096; i++) sd_buf_printf(&b, ",%d", 4096 + i);
    sd_buf_adds(&b, "]}]}");
    expect_bounded("two enums of 4,096", b.data, true);

    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"$ref\":\"#/");
    for (int i = 0; i < 300000; i++) sd_buf_adds(&b, "%41");
    sd_buf_adds(&b, "\"}");
    expect_bounded("a reference of 900,000 bytes", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"type\":\"object\",\"required\":[");
    for (int i = 0; i < 19000; i++) sd_buf_printf(&b, "%s\"p%d\"", i ? "," : "", i);
    sd_buf_adds(&b, "]}");
    expect_bounded("19,000 names that are required", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"pattern\":\"[ab]*[cd]\",\"const\":\"");
    for (int i = 0; i < 200000; i++) sd_buf_adds(&b, "a");
    sd_buf_adds(&b, "\"}");
    expect_bounded("a pattern over a constant of 200,000 characters", b.data, true);
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"anyOf\":[");
    for (int i = 0; i < 4000; i++)
        sd_buf_printf(&b, "%s{\"properties\":{\"p%d\":{\"type\":\"null\"}}}", i ? "," : "", i);
    sd_buf_adds(&b, "]}");
    expect_bounded("as many objects as fit", b.data, false);
    // Rules in an order in which a pass over them settles one, beside many nodes.
    sd_buf_clear(&b);
    sd_buf_adds(&b, "{\"$defs\":{\"c60\":{\"type\":\"null\"}");
    for (int i = 0; i < 60; i++)
        sd_buf_printf(&b,
                      ",\"c%d\":{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":"
                      "\"#/$defs/c%d\"}},\"required\":[\"a\"]}",
                      i, i + 1);
    sd_buf_adds(&b, "},\"anyOf\":[{\"$ref\":\"#/$defs/c60\"}");
    for (int i = 58; i >= 0; i -= 2) sd_buf_printf(&b, ",{\"$ref\":\"#/$defs/c%d\"}", i);
    sd_buf_adds(&b, ",{\"enum\":[null");
    for (int i = 0; i < 3900; i++)
        sd_buf_printf(&b, ",\"%04d a value of some length, so that there are nodes\"", i);
    sd_buf_adds(&b, "]}]}");
    expect_bounded("rules that settle one by one", b.data, false);
    sd_buf_free(&b);
}

// Many schemas of one builder, as many tools have: what is equal in them is paid for once.
Test(schema_bounds, schemas_of_one_builder_share_what_is_equal) {
    sd_error err = {0};
    sd_grammar_builder *b = sd_grammar_builder_open();
    int any[128];
    for (int i = 0; i < 128; i++) {
        json_t *s = json_pack("{s:{s:{s:s},s:{s:s}}}", "properties", "u", "format", "uri", "m",
                              "format", "email");
        any[i] = sd_gb_json_schema(b, s);
        json_decref(s);
    }
    sd_grammar *g = test_compile(b, sd_gb_any_of(b, any, 128), &err);
    cr_expect(g, "%s", err.message);
    sd_grammar_release(g);
}

// The end of an answer is checked in a bounded time as well.
Test(schema_bounds, the_check_of_a_value_ends) {
    sd_buf b = sd_buf_make(1 << 26);
    sd_error err = {0};
    sd_buf_adds(&b, "[0");
    for (int i = 1; i <= 20000; i++) sd_buf_printf(&b, ",%d", i);
    sd_buf_adds(&b, "]");
    json_t *unique = json_loads("{\"uniqueItems\":true}", 0, NULL),
           *v = json_loads(b.data, 0, NULL);
    int64_t steps = 1000000;
    cr_expect_eq(sd_schema_validate(unique, v, &err), SD_ELIMIT, "%s", err.message);
    cr_expect_eq(sd_schema_validate_part(unique, unique, v, &steps, &err), SD_ELIMIT);
    cr_expect(steps < 0 && steps > -200000, "%lld", (long long)steps);
    json_decref(unique), json_decref(v);
    sd_buf_free(&b);
}
