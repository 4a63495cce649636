// JSON Schemas: each keyword as a table of what is accepted and what is not, said byte by byte, and
// checked by the validator as well, which shares no code with the automaton.
#include "tests/unit/grammar/support_grammar.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define OBJECT(props, rest) "{\"type\":\"object\",\"properties\":{" props "}" rest "}"

// more: values that fit and are not offered.
static const struct {
    const char *schema, *yes[8], *no[8], *more[4];
} table[] = {
    // types
    {"{\"type\":\"null\"}", {"null"}, {"nul", "0", "\"\""}, {0}},
    {"{\"type\":\"boolean\"}", {"true", "false"}, {"True", "0"}, {0}},
    {"{\"type\":\"integer\"}",
     {"0", "-1", "17", "999999999999999999"},
     {"01", "+1", "1.5", "-"},
     {"1.0"}},
    {"{\"type\":\"number\"}",
     {"0", "-1", "1.5", "1e5", "-0.25E-2"},
     {"01", ".5", "1.", "1e", "\"1\""},
     {0}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"a b\"", "\"\\n\\\"\\\\\\/\"", "\"\\u00e4\"", "\"\\ud83d\\ude00\"",
      "\"\xf0\x9f\x98\x80\""},
     {"\"", "a", "\"\n\"", "\"\\x\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\xff\"", "\"a\" "},
     {0}},
    {"{\"type\":[\"string\",\"null\"]}", {"\"a\"", "null"}, {"1"}, {0}},
    {"{}", {"1", "\"a\"", "[1, {}]", "{\"a\": [true, null]}", "[]"}, {"[1,]", "{a:1}"}, {0}},
    {"true", {"{}"}, {"x"}, {0}},
    {"{\"allOf\":[{\"enum\":[1,2]},{\"enum\":[1.0,3]}]}", {"1"}, {"2", "3"}, {0}},
    // objects
    {OBJECT("\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}",
            ",\"required\":[\"a\",\"b\"],\"additionalProperties\":false"),
     {"{\"a\": 1, \"b\": \"x\"}", "{\"a\":1,\"b\":\"x\"}"},
     {"{\"a\": 1}", "{\"b\": \"x\", \"a\": 1", "{\"a\": 1, \"b\": \"x\", \"c\": 1}", "{ \"a\": 1",
      "{\"a\" : 1", "{\"a\":  1", "{}"},
     {"{\"b\": \"x\", \"a\": 1}"}},
    {OBJECT(
         "\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"},\"c\":{\"type\":\"integer\"}",
         ",\"required\":[\"b\"]"),
     {"{\"b\": 1}", "{\"a\": 1, \"b\": 2}", "{\"b\": 1, \"c\": 2}",
      "{\"a\": 1, \"b\": 2, \"c\": 3}"},
     {"{}", "{\"a\": 1}", "{\"a\": 1, \"c\": 2}", "{, \"b\": 1}"},
     {"{\"b\": 1, \"d\": 1}"}},
    {OBJECT("\"a\":{\"type\":\"integer\"}", ""),
     {"{}", "{\"a\": 1}"},
     {"{\"a\": \"x\"}", "{\"a\": 1,}"},
     {0}},
    {OBJECT("\"ab\":{\"type\":\"integer\"}", ",\"additionalProperties\":{\"type\":\"string\"}"),
     {"{}", "{\"ab\": 1}", "{\"ab\": 1, \"x\": \"y\"}", "{\"a\": \"\", \"abc\": \"\", \"\": \"\"}"},
     {"{\"ab\": \"x\"}", "{\"x\": 1}", "{\"x\": \"y\", \"ab\": 1}"},
     {0}},
    {OBJECT("\"a\":{\"type\":\"integer\"}", ",\"additionalProperties\":true"),
     {"{\"a\": 1, \"b\": [null]}"},
     {"{\"a\": null"},
     {0}},
    {"{\"type\":\"object\"}", {"{}", "{\"x\": {\"y\": []}}"}, {"[]"}, {0}},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"minProperties\":1,"
     "\"maxProperties\":2}",
     {"{\"a\": 1}", "{\"a\": 1, \"b\": 2}"},
     {"{}", "{\"a\": 1, \"b\": 2, \"c\": 3}"},
     {0}},
    {"{\"type\":\"object\",\"required\":[\"x\"],\"additionalProperties\":{\"type\":\"integer\"}}",
     {"{\"x\": 1}", "{\"x\": 1, \"y\": 2}"},
     {"{}", "{\"y\": 2}"},
     {0}},
    {OBJECT("\"a\":false,\"b\":{\"type\":\"null\"}", ""), {"{}", "{\"b\": null}"}, {"{\"a\""}, {0}},
    {OBJECT("\"\\u00e4\\\"\\n\":{\"type\":\"null\"}", ",\"required\":[\"\\u00e4\\\"\\n\"]"),
     {"{\"\xc3\xa4\\\"\\n\": null}"},
     {"{}"},
     {0}},
    // arrays
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}",
     {"[]", "[1]", "[1, 2,3]"},
     {"[1 ,2]", "[,]", "[\"a\"]"},
     {0}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
     {"[1, 2]", "[1, 2, 3]"},
     {"[]", "[1]", "[1, 2, 3, 4]"},
     {0}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"maxItems\":0}", {"[]"}, {"[1]"}, {0}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],"
     "\"minItems\":2,\"maxItems\":2}",
     {"[1, \"a\"]"},
     {"[1]", "[\"a\", 1]", "[1, \"a\", 2]"},
     {0}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"}}",
     {"[]", "[1]", "[1, null, null]"},
     {"[null]", "[1, 1]"},
     {0}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"}],\"items\":false}",
     {"[]", "[1]"},
     {"[1, 1]"},
     {0}},
    {"{\"type\":\"array\",\"uniqueItems\":false,\"items\":{\"type\":\"null\"}}",
     {"[null, null]"},
     {"[1]"},
     {0}},
    // enum, const
    {"{\"enum\":[\"red\",\"re\",1,null,true,{\"a\":[1,\"x\"]},0.5]}",
     {"\"red\"", "\"re\"", "1", "null", "true", "{\"a\": [1, \"x\"]}", "{\"a\":[1,\"x\"]}", "0.5"},
     {"\"r\"", "2", "false"},
     {0}},
    {"{\"const\":\"a\\\"\\u00e4\\n\"}", {"\"a\\\"\xc3\xa4\\n\""}, {"\"a\""}, {0}},
    {"{\"type\":\"string\",\"enum\":[\"a\",1,\"bcd\"],\"maxLength\":2}",
     {"\"a\""},
     {"1", "\"bcd\""},
     {0}},
    // strings
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"\xc3\xa4\xf0\x9f\x98\x80x\"", "\"\\u00e4\\n\"", "\"\\ud83d\\ude00a\""},
     {"\"a\"", "\"abcd\"", "\"\\n\\n\\n\\n\""},
     {0}},
    {"{\"type\":\"string\",\"pattern\":\"^[a-z]+[0-9]$\"}",
     {"\"ab1\""},
     {"\"1\"", "\"ab\"", "\"ab12\"", "\"\""},
     {0}},
    {"{\"type\":\"string\",\"pattern\":\"b+c\"}",
     {"\"bc\"", "\"xxbbcyy\"", "\"\xe2\x82\xac bc\\n\""},
     {"\"b\"", "\"\""},
     {0}},
    {"{\"type\":\"string\",\"pattern\":\"$^\"}", {"\"\""}, {"\"a\"", "\"ab\""}, {0}},
    {"{\"type\":\"string\",\"pattern\":\"^$|b$^|c\"}",
     {"\"\"", "\"c\"", "\"ac\""},
     {"\"a\"", "\"b\"", "\"ab\""},
     {0}},
    {"{\"type\":\"string\",\"pattern\":\"^[\\\\s\\\\S]{2}$\"}",
     {"\"ab\"", "\"\xc2\xa0\xe3\x80\x80\"", "\"\xc2\x85\xef\xbb\xbf\""},
     {"\"a\"", "\"abc\""},
     {0}},
    {"{\"type\":\"string\",\"pattern\":\"^(a|b$)\"}",
     {"\"a\"", "\"b\"", "\"axx\""},
     {"\"bx\"", "\"\"", "\"xa\""},
     {0}},
    {"{\"type\":\"string\",\"pattern\":\"^[^x]*$\",\"minLength\":1,\"maxLength\":2}",
     {"\"a\"", "\"\\\"\\\\\"", "\"\\n\\t\"", "\"\\u0001\""},
     {"\"\"", "\"abc\"", "\"x\""},
     {"\"\\u0041\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-29\"", "\"1999-12-31\""},
     {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-13-01\"", "\"2024-04-31\"", "\"24-01-01\""},
     {"\"0001-01-01\""}},
    {"{\"type\":\"string\",\"format\":\"time\"}",
     {"\"23:59:59Z\"", "\"00:00:00.123+05:30\""},
     {"\"24:00:00Z\"", "\"12:00:00\"", "\"12:60:00Z\""},
     {0}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}",
     {"\"2024-02-29T12:00:00Z\""},
     {"\"2024-02-30T12:00:00Z\"", "\"2024-02-29\""},
     {0}},
    {"{\"type\":\"string\",\"format\":\"duration\"}",
     {"\"P3D\"", "\"PT4H30M\"", "\"P1Y2M3DT4H\"", "\"P2W\""},
     {"\"P\"", "\"PT\"", "\"P1S\"", "\"P1M1Y\""},
     {0}},
    {"{\"type\":\"string\",\"format\":\"uuid\"}",
     {"\"123e4567-e89b-12d3-a456-426614174000\""},
     {"\"123e4567e89b12d3a456426614174000\""},
     {0}},
    {"{\"type\":\"string\",\"format\":\"email\"}",
     {"\"joe.bloggs@example.com\""},
     {"\"joe@\"", "\"@x.com\"", "\"a b@x.com\"", "\".joe@x.com\""},
     {0}},
    {"{\"type\":\"string\",\"format\":\"hostname\"}",
     {"\"a.example.com\"", "\"localhost\""},
     {"\"-a\"", "\"a..b\"", "\"a_b\""},
     {0}},
    {"{\"type\":\"string\",\"format\":\"ipv4\"}",
     {"\"127.0.0.1\"", "\"255.255.255.255\""},
     {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""},
     {0}},
    {"{\"type\":\"string\",\"format\":\"ipv6\"}",
     {"\"::1\"", "\"2001:db8::ff00:42:8329\"", "\"::\"", "\"1:2:3:4:5:6:7:8\""},
     {"\"1:2:3\"", "\"1::2::3\"", "\"12345::\"", "\"1:2:3:4:5:6:7:8:9\""},
     {0}},
    {"{\"type\":\"string\",\"format\":\"uri\"}",
     {"\"https://example.com:8080/a/b?x=1#f\"", "\"mailto:a@b.c\""},
     {"\"example.com\"", "\"http://a b\""},
     {0}},
    // numbers
    {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":120}",
     {"3", "9", "10", "99", "100", "120"},
     {"2", "121", "03", "1000", "-5", "200"},
     {0}},
    {"{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":5}",
     {"-12", "-9", "-1", "0", "4"},
     {"5", "-13", "-0", "-120"},
     {0}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":0}",
     {"1", "10", "123456789012345678"},
     {"0", "-1"},
     {0}},
    {"{\"type\":\"integer\",\"maximum\":-7}", {"-7", "-10", "-700"}, {"-6", "0", "5"}, {0}},
    {"{\"type\":\"integer\",\"multipleOf\":7}", {"0", "7", "-14", "700"}, {"1", "8", "-15"}, {0}},
    {"{\"type\":\"integer\",\"multipleOf\":5,\"minimum\":10,\"maximum\":20}",
     {"10", "15", "20"},
     {"5", "12", "25"},
     {0}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
     {"0", "1", "0.5", "0.0", "1.0", "0.99"},
     {"1.1", "2", "-1", "1.01", "1.0000001"},
     {"5e-1"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":-0.5,\"exclusiveMaximum\":2.25}",
     {"-0.49", "0", "2.249", "2", "-0.4999"},
     {"-0.5", "-0.51", "2.25", "2.3", "-1", "3"},
     {0}},
    {"{\"type\":\"number\",\"multipleOf\":0.01}", {"1", "1.5", "-2.25"}, {"1.234"}, {0}},
    {"{\"type\":\"number\",\"multipleOf\":3}", {"0", "9"}, {"1", "1.5"}, {"3.0"}},
    {"{\"minimum\":10,\"maximum\":11,\"type\":\"integer\"}", {"10", "11"}, {"9", "12", "1"}, {0}},
    // combinations
    {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", {"\"a\"", "1"}, {"null"}, {0}},
    {"{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"integer\"}},\"required\":[\"k\"],"
     "\"anyOf\":[{\"properties\":{\"x\":{\"type\":\"null\"}},\"required\":[\"x\"]},{\"properties\":"
     "{\"k\":{\"maximum\":3}}}]}",
     {"{\"k\": 9, \"x\": null}", "{\"k\": 2}"},
     {"{\"k\": 9}", "{\"x\": null}"},
     {0}},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", {"\"a\"", "1"}, {"1.5"}, {0}},
    {"{\"oneOf\":[" OBJECT("\"t\":{\"const\":\"a\"},\"v\":{\"type\":\"integer\"}",
                           ",\"required\":[\"t\",\"v\"]") "," OBJECT("\"t\":{\"const\":\"b\"}",
                                                                     ",\"required\":[\"t\"]") "]}",
     {"{\"t\": \"a\", \"v\": 1}", "{\"t\": \"b\"}"},
     {"{\"t\": \"a\"}", "{\"t\": \"c\"}"},
     {0}},
    {"{\"allOf\":[{\"type\":\"integer\",\"minimum\":3},{\"maximum\":5}]}",
     {"3", "5"},
     {"2", "6", "\"a\""},
     {0}},
    {"{\"allOf\":[" OBJECT("\"a\":{\"type\":\"integer\"}", ",\"required\":[\"a\"]") "," OBJECT(
         "\"b\":{\"type\":\"null\"},\"a\":{\"minimum\":2}", ",\"required\":[\"b\"]") "]}",
     {"{\"a\": 2, \"b\": null}"},
     {"{\"a\": 1, \"b\": null}", "{\"a\": 2}"},
     {0}},
    {"{\"$defs\":{\"p\":{\"type\":\"integer\",\"minimum\":1}},\"$ref\":\"#/$defs/"
     "p\",\"maximum\":2,\"description\":\"x\"}",
     {"1", "2"},
     {"0", "3"},
     {0}},
    {"{\"$defs\":{\"n\":" OBJECT("\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":[{\"$ref\":\"#/"
                                 "$defs/n\"},{\"type\":\"null\"}]}",
                                 ",\"required\":[\"v\",\"next\"]") "},\"$ref\":\"#/$defs/n\"}",
     {"{\"v\": 1, \"next\": null}", "{\"v\": 1, \"next\": {\"v\": 2, \"next\": null}}"},
     {"{\"v\": 1}", "{\"v\": 1, \"next\": {}}"},
     {0}},
    {OBJECT("\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}", ",\"required\":[\"kids\"]"),
     {"{\"kids\": [{\"kids\": []}, {\"kids\": []}]}"},
     {"{\"kids\": [1]}"},
     {0}},
    {"{\"$defs\":{\"a/b~c\":{\"type\":\"null\"}},\"$ref\":\"#/$defs/a~1b~0c\"}",
     {"null"},
     {"1"},
     {0}},
    // annotations say nothing
    {"{\"title\":\"T\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"x-own\":1,\"type\":"
     "\"null\"}",
     {"null"},
     {"1"},
     {0}},
};

static bool valid(const json_t *schema, const char *text, sd_error *err) {
    json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);
    bool fits = v && sd_schema_validate(schema, v, err) == SD_OK;
    json_decref(v);
    return fits;
}

Test(schema, keywords_accept_what_they_say_and_the_validator_agrees) {
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        sd_error err, why = {0};
        sd_grammar *g = test_schema(table[i].schema, &err);
        json_t *schema = json_loads(table[i].schema, JSON_DECODE_ANY, NULL);
        cr_expect(g, "%s: %s", table[i].schema, err.message);
        for (int k = 0; g && k < 8 && table[i].yes[k]; k++) {
            bool ends;
            size_t n = test_follow(g, table[i].yes[k], strlen(table[i].yes[k]), &ends);
            cr_expect(ends, "%s: %s (stops at %zu)", table[i].schema, table[i].yes[k], n);
            cr_expect(valid(schema, table[i].yes[k], &why), "%s: %s: %s", table[i].schema,
                      table[i].yes[k], why.message);
        }
        for (int k = 0; g && k < 8 && table[i].no[k]; k++) {
            cr_expect(!test_accepts(g, table[i].no[k]), "%s: not %s", table[i].schema,
                      table[i].no[k]);
            json_t *v = json_loads(table[i].no[k], JSON_DECODE_ANY, NULL);
            if (v && table[i].more[0] == NULL)
                cr_expect(sd_schema_validate(schema, v, &why) == SD_EMISMATCH ||
                              strchr(table[i].no[k], ' ') || strcmp(table[i].no[k], "-0") == 0,
                          "%s: the validator takes %s", table[i].schema, table[i].no[k]);
            json_decref(v);
        }
        for (int k = 0; g && k < 4 && table[i].more[k]; k++) {
            cr_expect(!test_accepts(g, table[i].more[k]), "%s: %s", table[i].schema,
                      table[i].more[k]);
            cr_expect(valid(schema, table[i].more[k], &why), "%s: %s: %s", table[i].schema,
                      table[i].more[k], why.message);
        }
        json_decref(schema);
        sd_grammar_release(g);
    }
}

static const struct {
    const char *schema, *says;
} refused[] = {
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}",
     "#/properties/a: the keyword \"not\""},
    {"{\"patternProperties\":{}}", "patternProperties"},
    {"{\"type\":\"array\",\"contains\":{}}", "contains"},
    {"{\"type\":\"array\",\"uniqueItems\":true}", "uniqueItems"},
    {"{\"if\":{},\"then\":{}}", "keyword \"if\""},
    {"{\"dependentRequired\":{}}", "dependentRequired"},
    {"{\"unevaluatedProperties\":false}", "unevaluatedProperties"},
    {"{\"propertyNames\":{}}", "propertyNames"},
    {"{\"type\":\"array\",\"items\":[{}]}", "prefixItems"},
    {"{\"type\":\"string\",\"format\":\"iri\"}", "format \"iri\""},
    {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "lookahead"},
    {"{\"type\":\"text\"}", "\"type\""},
    {"{\"$ref\":\"http://example.com/x\"}", "$ref"},
    {"{\"$ref\":\"#/nowhere\"}", "$ref"},
    {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "oneOf"},
    {"{\"type\":\"number\",\"multipleOf\":0.3}", "multipleOf"},
    {"{\"type\":\"string\",\"nullable\":true}", "nullable"},
    {"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", "pattern"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{}},\"minProperties\":1}", "minProperties"},
    {"{\"minLength\":-1}", "minLength"},
    {"{\"$ref\":\"#\"}", "no text"},
    {"{\"allOf\":[{\"$ref\":\"#\"}]}", "no text"},
    {"false", "no text"},
    {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "no text"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
     "no text"},
    {"{\"$schema\":\"https://example.com/own\",\"type\":\"null\"}", "dialect"},
    {"{\"allOf\":[{\"type\":\"string\"},{\"type\":[\"integer\",\"null\"]}]}", "no text"},
    {"{\"type\":[]}", "\"type\""},
    {"[]", "not a schema"},
    {"{\"enum\":[\"x\"],\"format\":\"iri\"}", "format \"iri\""},
    {"{\"enum\":[1],\"type\":5}", "\"type\""},
    {"{\"enum\":[1],\"minimum\":\"5\"}", "\"minimum\""},
    {"{\"const\":{\"a\":5},\"properties\":{\"a\":{\"not\":{\"const\":5}}}}", "no text"},
    {"{\"properties\":{\"o\":{\"type\":\"object\",\"minProperties\":2}}}",
     "#/properties/o: \"minProperties\" above 1"},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"null\"},\"minProperties\":2}",
     "minProperties"},
    {"{\"oneOf\":[{\"const\":1},{\"const\":1.0}]}", "oneOf"},
    {"{\"oneOf\":[{\"enum\":[{\"k\":1}],\"additionalProperties\":false,\"patternProperties\":{\"^"
     "k\":{}}},"
     "{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"integer\"}},\"required\":[\"k\"]}]}",
     "oneOf"},
};

Test(schema, what_is_not_enforced_is_refused_by_its_name_and_place) {
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        sd_error err;
        sd_grammar *g = test_schema(refused[i].schema, &err);
        cr_expect(!g, "%s", refused[i].schema);
        cr_expect(g || strstr(err.message, refused[i].says), "%s: %s", refused[i].schema,
                  err.message);
        sd_grammar_release(g);
    }
}

// A bound that was passed is told from a schema that is wrong.
Test(schema, a_passed_bound_keeps_its_status_and_names_its_place) {
    static const char *const schemas[] = {
        "{\"properties\":{\"p\":{\"pattern\":\"[ab]*a[ab]{60}\"}}}",
        "{\"properties\":{\"p\":{\"pattern\":\"^[ab]*c?[ab]*$\",\"minLength\":90000}}}",
        "{\"properties\":{\"p\":{\"pattern\":\"^(.{2000})*$\",\"format\":\"uri\"}}}",
        "{\"properties\":{\"p\":{\"type\":\"integer\",\"multipleOf\":999999999}}}"};
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        sd_error err;
        cr_expect(!test_schema(schemas[i], &err), "%s", schemas[i]);
        cr_expect(err.status == SD_ELIMIT && strstr(err.message, "#/properties/p"), "%s: %d: %s",
                  schemas[i], (int)err.status, err.message);
    }
}

// No byte of a text is the end of a list of letters.
Test(schema, a_nul_is_in_no_format) {
    static const struct {
        const char *format, *text;
        size_t len;
    } row[] = {{"duration", "P1\0", 3},
               {"duration", "P1Y2\0", 5},
               {"duration", "PT1\0", 4},
               {"uri", "a\0:b", 4},
               {"uri", "a:\0b", 4},
               {"email", "a\0@b.c", 6},
               {"uuid4", "123e4567-e89b-42d3-\000456-426614174000", 36}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        cr_expect(!sd_format_check(row[i].format, row[i].text, row[i].len, NULL), "%s: row %zu",
                  row[i].format, i);
    cr_expect(sd_format_check("duration", "P1Y2M", 5, NULL) &&
              sd_format_check("uri", "a+b:c", 5, NULL));
}

// ---- random schemas

static uint64_t rnd(uint64_t *seed, uint64_t below) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (*seed >> 33) % below;
}

static json_t *random_schema(uint64_t *seed, int depth) {
    static const char *const patterns[] = {"^[a-c]{1,3}$", "x+", "^\\d+(\\.\\d)?$", "^(on|off)$",
                                           "[^a-y]"};
    static const char *const formats[] = {"date",  "time",     "date-time", "duration", "uuid",
                                          "email", "hostname", "ipv4",      "ipv6",     "uri"};
    uint64_t kind = rnd(seed, depth > 0 ? 12 : 7);
    json_t *s = json_object();
    int a = (int)rnd(seed, 40) - 20, n = (int)rnd(seed, 3);
    switch (kind) {
    case 0:
        json_object_set_new(s, "type", json_string("integer"));
        if (rnd(seed, 2))
            json_object_set_new(s, rnd(seed, 2) ? "minimum" : "exclusiveMinimum", json_integer(a));
        if (rnd(seed, 2))
            json_object_set_new(s, rnd(seed, 2) ? "maximum" : "exclusiveMaximum",
                                json_integer(a + 9 + (int)rnd(seed, 300)));
        if (rnd(seed, 4) == 0)
            json_object_set_new(s, "multipleOf", json_integer(1 + (int)rnd(seed, 4)));
        break;
    case 1:
        json_object_set_new(s, "type", json_string("number"));
        if (rnd(seed, 2))
            json_object_set_new(s, rnd(seed, 2) ? "minimum" : "exclusiveMinimum",
                                json_real(a * 0.25));
        if (rnd(seed, 2))
            json_object_set_new(s, rnd(seed, 2) ? "maximum" : "exclusiveMaximum",
                                json_real(a * 0.25 + 0.125 + (double)rnd(seed, 300) / 10));
        if (rnd(seed, 4) == 0) json_object_set_new(s, "multipleOf", json_real(0.01));
        break;
    case 2:
        json_object_set_new(s, "type", json_string("string"));
        if (rnd(seed, 2)) json_object_set_new(s, "minLength", json_integer(n));
        json_object_set_new(s, "maxLength", json_integer(n + (int)rnd(seed, 6)));
        break;
    case 3:
        json_object_set_new(s, "type", json_string("string"));
        json_object_set_new(s, "pattern", json_string(patterns[rnd(seed, 5)]));
        json_object_set_new(s, "maxLength", json_integer(12));
        break;
    case 4:
        json_object_set_new(s, "type", json_string("string"));
        json_object_set_new(s, "format", json_string(formats[rnd(seed, 10)]));
        break;
    case 5:
        json_object_set_new(s, "enum",
                            json_pack("[s,i,n,{s:[b,s]}]", "the \"one\"", a, "k", 1, "z\xc3\xa4"));
        break;
    case 6:
        json_object_set_new(s, "type", json_pack("[s,s]", "boolean", "null"));
        break;
    case 7:
    case 8: {
        json_t *props = json_object(), *required = json_array();
        static const char *const names[] = {"the", "an", "id", "in\"g", "x y"};
        for (int i = 0; i <= n + 1; i++) {
            json_object_set_new(props, names[i], random_schema(seed, depth - 1));
            if (rnd(seed, 2)) json_array_append_new(required, json_string(names[i]));
        }
        json_object_set_new(s, "type", json_string("object"));
        json_object_set_new(s, "properties", props);
        json_object_set_new(s, "required", required);
        if (rnd(seed, 2))
            json_object_set_new(s, "additionalProperties",
                                rnd(seed, 2) ? json_false() : random_schema(seed, 0));
        break;
    }
    case 9:
        json_object_set_new(s, "type", json_string("array"));
        json_object_set_new(s, "items", random_schema(seed, depth - 1));
        if (rnd(seed, 2)) json_object_set_new(s, "minItems", json_integer(n));
        json_object_set_new(s, "maxItems", json_integer(n + (int)rnd(seed, 3)));
        break;
    case 10:
        json_object_set_new(
            s, "anyOf",
            json_pack("[o,o]", random_schema(seed, depth - 1), random_schema(seed, depth - 1)));
        break;
    default:
        json_object_set_new(s, "type", json_string("array"));
        json_object_set_new(
            s, "prefixItems",
            json_pack("[o,o]", random_schema(seed, depth - 1), random_schema(seed, depth - 1)));
        json_object_set_new(s, "minItems", json_integer(n));
        json_object_set_new(s, "maxItems", json_integer(n + 1));
        break;
    }
    return s;
}

Test(schema, random_texts_of_random_schemas_are_valid) {
    uint64_t seed = 7;
    int compiled = 0, ended = 0, long_ones = 0;
    for (int i = 0; i < 600; i++) {
        json_t *schema = random_schema(&seed, 3);
        char *text = json_dumps(schema, 0);
        sd_error err = {0};
        sd_grammar *g = test_schema(text, &err);
        if (g) compiled++;
        cr_expect(g || strstr(err.message, "no text"), "%s: %s", text, err.message);
        for (int k = 0; g && k < 6; k++) {
            sd_buf said = sd_buf_make(1 << 16);
            if (test_random_text(g, &seed, 800, &said)) {
                json_error_t why;
                json_t *v =
                    json_loadb(said.data, said.len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
                // Keys that are not listed may come twice: the last one counts.
                if (!v) v = json_loadb(said.data, said.len, JSON_DECODE_ANY, &why);
                cr_expect(v, "%s: %.*s: %s", text, (int)said.len, said.data, why.text);
                if (v)
                    cr_expect_eq(sd_schema_validate(schema, v, &err), SD_OK, "%s: %.*s: %s", text,
                                 (int)said.len, said.data, err.message);
                json_decref(v);
                ended++;
            } else {
                long_ones++;
            }
            sd_buf_free(&said);
        }
        sd_grammar_release(g);
        json_decref(schema);
        free(text);
    }
    printf("# %d of 600 schemas have a text; %d texts ended, %d were cut\n", compiled, ended,
           long_ones);
    cr_expect_gt(compiled, 500);
    cr_expect_gt(ended, 2500);
}
