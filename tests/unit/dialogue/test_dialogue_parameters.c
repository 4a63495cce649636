// Parameters of strict functions: values in tags, objects, and what a schema takes that is compiled for them.
#include "base/clock.h"
#include "model/dialogue/parameter.h"
#include "model/grammar/schema/schema.h"
#include "tests/unit/dialogue/support_rules.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static void setup(void) {
    rules_open("[]");
}

// ---- qwen3-coder: raw texts and JSON

#define DEFS                                                                                       \
    "\"$defs\":{\"Colour\":{\"enum\":[\"red\",\"dark blue\"]},\"Node\":{\"type\":\"object\","      \
    "\"properties\":{\"v\":{\"type\":\"string\"},\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/"        \
    "Node\"},"                                                                                     \
    "{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"],\"additionalProperties\":false}}"

static const struct {
    const char *schema;
    const char *good[4][2]; // what stands in the tag, what it is read as
    const char *bad[3];
} parameters[] = {
    {"{\"type\":[\"string\",\"null\"]}",
     {{"Bern", "\"Bern\""}, {"null", "null"}, {"\"Bern\"", "\"\\\"Bern\\\"\""}, {"3", "\"3\""}},
     {"a</parameter>"}},
    {"{\"type\":\"string\",\"minLength\":1}", {{"ab", "\"ab\""}}, {"", "a</parameter>"}},
    {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}],\"default\":null,\"title\":\"T\"}",
     {{"Bern", "\"Bern\""}, {"null", "null"}, {"", "\"\""}},
     {NULL}},
    {"{\"anyOf\":[{\"$ref\":\"#/$defs/Colour\"},{\"type\":\"null\"}]}",
     {{"dark blue", "\"dark blue\""}, {"null", "null"}},
     {"green", "\"red\""}},
    {"{\"allOf\":[{\"$ref\":\"#/$defs/Colour\"}],\"description\":\"d\"}",
     {{"red", "\"red\""}},
     {"green", "\"red\""}},
    {"{\"$ref\":\"#/properties/p/$defs/"
     "own\",\"$defs\":{\"own\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}}}",
     {{"ab", "\"ab\""}, {"abc", "\"abc\""}},
     {"a", "abcd"}},
    {"{\"enum\":[\"a b\",3,null,true,\"4\"]}",
     {{"a b", "\"a b\""}, {"3", "3"}, {"true", "true"}, {"4", "\"4\""}},
     {"\"a b\"", "5"}},
    {"{\"anyOf\":[{\"$ref\":\"#/$defs/Node\"},{\"type\":\"null\"}]}",
     {{"{\"v\": \"x\", \"next\": null}", "{\"v\": \"x\", \"next\": null}"}, {"null", "null"}},
     {"x", "{\"v\": \"x\"}"}},
    {"{\"type\":\"integer\",\"minimum\":5}", {{"7", "7"}}, {"3", "\"7\"", "x"}},
    {"{\"anyOf\":[{\"type\":\"string\",\"pattern\":\"^[a-z0-9]+$\"},{\"type\":\"integer\","
     "\"minimum\":5}]}",
     {{"7", "7"}, {"3", "\"3\""}, {"abc", "\"abc\""}},
     {"A", "-7"}},
    {"{\"type\":\"string\",\"format\":\"date\"}", {{"2026-01-31", "\"2026-01-31\""}}, {"x", ""}},
    {"{\"type\":\"object\",\"properties\":{\"s\":{\"type\":\"string\"}},\"required\":[\"s\"],"
     "\"additionalProperties\":false}",
     {{"{\"s\": \"a</parameter>b\"}", "{\"s\": \"a</parameter>b\"}"},
      {"{\"s\": \"\\\"</parameter>\"}", "{\"s\": \"\\\"</parameter>\"}"}},
     {"x"}},
    // What keywords speak of narrows nothing that values or branches name.
    {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}],\"minLength\":1}",
     {{"Bern", "\"Bern\""}, {"null", "null"}},
     {""}},
    {"{\"enum\":[\"a\",\"b\"],\"minimum\":3}", {{"a", "\"a\""}}, {"c", "3"}},
    {"{\"$ref\":\"#/properties/p/$defs/own\",\"minimum\":3,\"$defs\":{\"own\":{\"type\":[\"null\","
     "\"integer\"]}}}",
     {{"null", "null"}, {"3", "3"}},
     {"2", "a"}},
    {"{\"allOf\":[{\"minLength\":2},{\"minimum\":3}]}", {{"ab", "\"ab\""}, {"4", "4"}}, {"a"}},
    {"{\"type\":\"string\",\"maxLength\":600}",
     {{"a\xc2\xa0\xe3\x80\x80\xef\xbb\xbf", "\"a\xc2\xa0\xe3\x80\x80\xef\xbb\xbf\""}},
     {"a</parameter>"}},
    // Keys of an object may repeat: it is that object all the same.
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
     {{"{\"a\": 1, \"a\": 2}", "{\"a\": 2}"}},
     {"{\"a\": \"b\"}"}},
    {"{\"type\":[\"boolean\",\"array\"],\"items\":{\"type\":\"string\"}}",
     {{"[\"a\", \"b\"]", "[\"a\", \"b\"]"}, {"false", "false"}},
     {"a", "[1]"}},
};
enum { PARAMETERS = sizeof parameters / sizeof parameters[0] };

#define TAGGED(value)                                                                              \
    "<tool_call>\n<function=f>\n<parameter=p>\n%s\n</parameter>\n</function>\n</tool_call>", value

static json_t *list_of(const char *schema) {
    char text[2048];
    snprintf(text, sizeof text,
             "[{\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"type\":\"object\","
             "\"properties\":{\"p\":%s},\"required\":[\"p\"]," DEFS "}}}]",
             schema);
    json_t *v = json_loads(text, 0, NULL);
    cr_assert_not_null(v, "%s", text);
    return v;
}

static const sd_dialogue coder = {.format = SD_TOOL_QWEN3_CODER};

// A read answer's only call: its value of "p".
static json_t *value_of(const rules_found *f) {
    cr_assert(f->n == 1 && f->content == 0, "<<%s>>", f->text.data);
    json_t *v = json_loadb(f->arguments[0].data, f->arguments[0].len, 0, NULL);
    cr_assert_not_null(v, "<<%s>>", f->arguments[0].data);
    json_t *p = json_incref(json_object_get(v, "p"));
    json_decref(v);
    cr_assert_not_null(p);
    return p;
}

Test(dialogue_parameters, a_tagged_value_is_read_as_the_grammar_meant_it, .init = setup,
     .fini = rules_close) {
    for (int i = 0; i < PARAMETERS; i++) {
        json_t *list = list_of(parameters[i].schema);
        sd_tool_rules r = rules_for(&coder, list, true);
        sd_answer_options o = {
            .format = SD_TOOL_QWEN3_CODER, .calls = true, .held = true, .tools = list};
        sd_grammar *g = rules_compile(&r);
        char text[512];
        for (int k = 0; k < 4 && parameters[i].good[k][0]; k++) {
            int n = snprintf(text, sizeof text, TAGGED(parameters[i].good[k][0]));
            cr_assert(rules_pass(g, text), "%s: %s", parameters[i].schema, text);
            rules_found *f = rules_read(text, (size_t)n, &o);
            json_t *got = value_of(f),
                   *want = json_loads(parameters[i].good[k][1], JSON_DECODE_ANY, NULL);
            cr_assert(json_equal(got, want), "%s: %s became %s", parameters[i].schema, text,
                      f->arguments[0].data);
            json_decref(got), json_decref(want);
            rules_found_free(f);
        }
        for (int k = 0; k < 3 && parameters[i].bad[k]; k++) {
            snprintf(text, sizeof text, TAGGED(parameters[i].bad[k]));
            cr_assert(!rules_pass(g, text), "%s: %s", parameters[i].schema, text);
        }
        sd_grammar_release(g);
        json_decref(list);
    }
}

Test(dialogue_parameters, tagged_values_of_a_model_that_knows_nothing_keep_to_their_schemas,
     .init = setup, .fini = rules_close) {
    uint64_t seed = 7;
    for (int i = 0; i < PARAMETERS; i++) {
        json_t *list = list_of(parameters[i].schema), *f = rules_function(list, 0);
        sd_tool_rules r = rules_for(&coder, list, true);
        r.parallel = false;
        sd_answer_options o = {
            .format = SD_TOOL_QWEN3_CODER, .calls = true, .held = true, .tools = list};
        sd_grammar *g = rules_compile(&r);
        for (int k = 0; k < 40; k++) {
            sd_error err;
            rules_found *found = rules_walk(g, &o, &seed);
            json_t *p = value_of(found), *all = json_pack("{s:o}", "p", p);
            cr_assert_eq(sd_schema_validate(json_object_get(f, "parameters"), all, &err), SD_OK,
                         "%s: %s: <<%s>>", parameters[i].schema, err.message, found->text.data);
            json_decref(all);
            rules_found_free(found);
        }
        sd_grammar_release(g);
        json_decref(list);
    }
}

Test(dialogue_parameters, enums_are_whole_and_names_of_tags_are_checked, .init = setup,
     .fini = rules_close) {
    sd_buf schema = sd_buf_make(1 << 16);
    for (int i = 0; i < 300; i++) sd_buf_printf(&schema, "%s\"v%d\"", i ? "," : "{\"enum\":[", i);
    cr_assert(sd_buf_adds(&schema, "]}") && schema.len < 60000);
    json_t *enumeration = json_loads(schema.data, 0, NULL);
    json_t *list =
        json_pack("[{s:{s:s, s:b, s:{s:s, s:{s:o}, s:[s]}}}]", "function", "name", "f", "strict", 1,
                  "parameters", "type", "object", "properties", "p", enumeration, "required", "p");
    sd_tool_rules r = rules_for(&coder, list, true);
    sd_grammar *g = rules_compile(&r);
    char text[256];
    snprintf(text, sizeof text, TAGGED("v299"));
    cr_assert(rules_pass(g, text), "the last of 300 values");
    snprintf(text, sizeof text, TAGGED("v300"));
    cr_assert(!rules_pass(g, text));
    sd_grammar_release(g);
    sd_buf_free(&schema);
    static const struct {
        const char *parameters, *says;
    } bad[] = {{"{\"properties\":{\"a\":{}},\"required\":[\"a\",\"missing\"]}", "'missing' of f"},
               {"{\"properties\":{\"a>b\":{}}}", "'a>b' of f"},
               {"{\"properties\":{\"\":{}}}", "'' of f"},
               {"{\"properties\":{\"a\":{\"type\":\"string\",\"not\":{}}}}", "\"not\""},
               {"{\"patternProperties\":{}}", "'patternProperties' of f"},
               {"{\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":4000}}}",
                "#/a: \"maxLength\" is 4000"},
               {"{\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":90000}}}",
                "#/a: \"maxLength\" is 90000"},
               {"{\"properties\":{\"a\":{\"type\":\"string\",\"minLength\":4000}}}",
                "#/a: \"minLength\" is 4000"},
               {"{\"type\":\"array\"}", "'parameters' of f"},
               {"{\"type\":[\"object\",\"null\"]}", "'parameters' of f"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_error err;
        json_object_set_new(rules_function(list, 0), "parameters",
                            json_loads(bad[i].parameters, 0, NULL));
        cr_assert_null(rules_try(&r, &err), "%s", bad[i].parameters);
        cr_assert(strstr(err.message, bad[i].says), "%s", err.message);
    }
    // A function that is not strict is not looked at, and free.
    json_object_set_new(rules_function(list, 0), "strict", json_false());
    g = rules_compile(&r);
    cr_assert(rules_pass(g, "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n"
                            "<parameter=y z>\n</x>\n\n</parameter>\n</function>\n</tool_call>"));
    cr_assert(rules_pass(g, "<tool_call>\n<function=f>\n</function>\n</tool_call>"));
    sd_grammar_release(g);
    json_decref(list);
}

// ---- arguments are an object

Test(dialogue_parameters, arguments_are_an_object_whatever_the_schema, .init = setup,
     .fini = rules_close) {
    json_t *list = json_pack("[{s:{s:s, s:b}}]", "function", "name", "f", "strict", 1);
    static const sd_dialogue hermes = {.format = SD_TOOL_HERMES};
    sd_tool_rules r = rules_for(&hermes, list, true);
    sd_error err;
    static const char *const bad[] = {
        "{\"type\":\"array\"}", "{\"type\":[\"object\",\"string\"]}", "{\"minLength\":1}",
        "{\"anyOf\":[{\"type\":\"object\"},{\"type\":\"null\"}]}", "{\"enum\":[{},1]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_object_set_new(rules_function(list, 0), "parameters", json_loads(bad[i], 0, NULL));
        cr_assert_null(rules_try(&r, &err), "%s", bad[i]);
        cr_assert(err.status == SD_EINVAL && strstr(err.message, "'parameters' of f"), "%s",
                  err.message);
        cr_assert(strstr(err.message, "\"type\": \"object\""), "%s", err.message);
    }
    // One that says nothing lets any object through, one that names an object what it says.
    static const struct {
        const char *parameters, *arguments;
        bool good;
    } row[] = {{"{}", "5", false},
               {"{}", "\"x\"", false},
               {"{}", "{\"a\": [1]}", true},
               {"{\"$comment\":\"c\",\"x-own\":1,\"$defs\":{}}", "{\"a\": 1}", true},
               {"{\"$comment\":\"c\",\"x-own\":1,\"$defs\":{}}", "[]", false},
               {"{\"additionalProperties\":{\"type\":\"null\"}}", "{\"a\": null}", true},
               {"{\"additionalProperties\":{\"type\":\"null\"}}", "{\"a\": 1}", false},
               {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"type\":\"object\"}}}", "{}", true}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char text[256];
        json_object_set_new(rules_function(list, 0), "parameters",
                            json_loads(row[i].parameters, 0, NULL));
        snprintf(text, sizeof text,
                 "<tool_call>\n{\"name\": \"f\", \"arguments\": %s}\n</tool_call>",
                 row[i].arguments);
        sd_grammar *g = rules_compile(&r);
        cr_assert_eq(rules_pass(g, text), row[i].good, "%s: %s", row[i].parameters, text);
        sd_grammar_release(g);
    }
    // As tags: annotations are none of its business, and any parameter may come where nothing is said.
    r.d = &coder;
    char text[256];
    static const char *const said[] = {
        "{\"$comment\":\"c\",\"examples\":[1],\"x-own\":1,\"$id\":\"https://example.com/"
        "a\",\"properties\":{\"p\":{\"type\":\"string\"}}}",
        "{}"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        json_object_set_new(rules_function(list, 0), "parameters", json_loads(said[i], 0, NULL));
        sd_grammar *g = rules_compile(&r);
        snprintf(text, sizeof text, TAGGED("a"));
        cr_assert(rules_pass(g, text), "%s", said[i]);
        sd_grammar_release(g);
    }
    json_decref(list);
}

// ---- what takes many steps for its size

// Refused for the account, and soon: a bound that only work without an account passes.
static void expect_refused(json_t *parameters) {
    json_t *list = json_pack("[{s:{s:s, s:b, s:o}}]", "function", "name", "f", "strict", 1,
                             "parameters", parameters);
    sd_tool_rules r = rules_for(&coder, list, true);
    sd_error err;
    double begin = sd_now_s();
    cr_assert_null(rules_try(&r, &err));
    cr_assert_eq(err.status, SD_ELIMIT, "%s", err.message);
    cr_assert_lt(sd_now_s() - begin, 2, "%g s", sd_now_s() - begin);
    json_decref(list);
}

// d0: a string; di: one of four d(i - 1).
static json_t *four_ways(int levels) {
    json_t *defs = json_pack("{s:{s:s}}", "d0", "type", "string");
    for (int i = 1; i <= levels; i++) {
        char name[16], ref[32];
        snprintf(name, sizeof name, "d%d", i);
        snprintf(ref, sizeof ref, "#/$defs/d%d", i - 1);
        json_object_set_new(defs, name,
                            json_pack("{s:[{s:s},{s:s},{s:s},{s:s}]}", "anyOf", "$ref", ref, "$ref",
                                      ref, "$ref", ref, "$ref", ref));
    }
    return defs;
}

Test(dialogue_parameters, types_of_parameters_are_found_on_the_account, .init = setup,
     .fini = rules_close) {
    json_t *properties = json_object(), *defs = four_ways(7);
    char name[16];
    for (int i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "p%d", i);
        json_object_set_new(properties, name, json_pack("{s:s}", "$ref", "#/$defs/d7"));
    }
    json_t *parameters =
        json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties, "$defs", defs);
    // A walk is charged, and ends: 4^7 schemas are more than it looks at.
    int64_t left = 1000000;
    cr_assert_eq(sd_parameter_types(parameters, "p0", &left), SD_T_STRING);
    cr_assert(left < 950000 && left > 800000, "%lld", (long long)left);
    expect_refused(parameters);
    // An enum that is read is looked at whole; what is said beside too many schemas holds.
    json_t *values = json_array(), *many = json_array();
    for (int i = 0; i < 4096; i++) json_array_append_new(values, json_integer(i));
    for (int i = 0; i < 18000; i++) json_array_append_new(many, json_true());
    parameters = json_pack("{s:{s:{s:o}, s:{s:s, s:o}}}", "properties", "p", "enum", values, "q",
                           "type", "null", "allOf", many);
    left = 1000000;
    cr_assert_eq(sd_parameter_types(parameters, "p", &left), SD_T_INTEGER);
    cr_assert(left > 990000 && left < 999000, "%lld", (long long)left);
    left = 1000000;
    cr_assert_eq(sd_parameter_types(parameters, "q", &left), SD_T_NULL);
    cr_assert(left < 950000 && left > 800000, "%lld", (long long)left);
    json_decref(parameters);
    // A reference is paid for by its length.
    sd_buf ref = sd_buf_make(1 << 17);
    for (int i = 0; i < 40000; i++) sd_buf_adds(&ref, i ? "/a" : "#");
    parameters = json_pack("{s:{s:{s:s}}}", "properties", "p", "$ref", ref.data);
    left = 1000000;
    cr_assert_eq(sd_parameter_types(parameters, "p", &left), SD_T_STRING);
    cr_assert_lt(left, 900000, "%lld", (long long)left);
    json_decref(parameters);
    sd_buf_free(&ref);
}

Test(dialogue_parameters, required_properties_are_looked_up_on_the_account, .init = setup,
     .fini = rules_close) {
    json_t *properties = json_object(), *required = json_array();
    for (int i = 0; i < 15000; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        json_object_set_new(properties, name, json_pack("{s:s}", "type", "null"));
        json_array_insert_new(required, 0, json_string(name));
    }
    expect_refused(json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties,
                             "required", required));
}
