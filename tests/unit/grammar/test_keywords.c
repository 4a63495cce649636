// Every keyword there is: of draft 2020-12, of older drafts, of OpenAPI. Each is enforced, an annotation,
// enforced beside values alone, or a refusal that names it and its place. None passes in silence.
#include "tests/unit/grammar/support_grammar.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

// ---- enforced: a value that fits and one that does not, for the masks and for the validator

static const struct {
    const char *keyword, *schema, *fits, *does_not;
} enforced[] = {
    {"$ref", "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"type\":\"null\"}}}", "null", "1"},
    {"prefixItems",
     "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"}],\"minItems\":1,\"items\":false}",
     "[null]", "[1]"},
    {"items", "{\"type\":\"array\",\"items\":{\"type\":\"null\"}}", "[null]", "[1]"},
    {"additionalProperties", "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"null\"}}",
     "{\"a\": null}", "{\"a\": 1}"},
    {"properties", "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}}}",
     "{\"a\": null}", "{\"a\": 1}"},
    {"allOf", "{\"allOf\":[{\"type\":\"integer\"},{\"minimum\":2}]}", "2", "1"},
    {"anyOf", "{\"anyOf\":[{\"type\":\"null\"},{\"const\":2}]}", "2", "1"},
    {"oneOf", "{\"oneOf\":[{\"type\":\"null\"},{\"const\":2}]}", "null", "1"},
    {"type", "{\"type\":\"null\"}", "null", "1"},
    {"const", "{\"const\":2}", "2", "1"},
    {"enum", "{\"enum\":[2,3]}", "3", "1"},
    {"multipleOf", "{\"type\":\"integer\",\"multipleOf\":3}", "6", "7"},
    {"maximum", "{\"type\":\"integer\",\"maximum\":3}", "3", "4"},
    {"exclusiveMaximum", "{\"type\":\"integer\",\"exclusiveMaximum\":3}", "2", "3"},
    {"minimum", "{\"type\":\"integer\",\"minimum\":3}", "3", "2"},
    {"exclusiveMinimum", "{\"type\":\"integer\",\"exclusiveMinimum\":3}", "4", "3"},
    {"maxLength", "{\"type\":\"string\",\"maxLength\":1}", "\"a\"", "\"ab\""},
    {"minLength", "{\"type\":\"string\",\"minLength\":2}", "\"ab\"", "\"a\""},
    {"pattern", "{\"type\":\"string\",\"pattern\":\"^a+$\"}", "\"a\"", "\"b\""},
    {"maxItems", "{\"type\":\"array\",\"maxItems\":1}", "[1]", "[1, 2]"},
    {"minItems", "{\"type\":\"array\",\"minItems\":2}", "[1, 2]", "[1]"},
    {"uniqueItems", "{\"enum\":[[1,1],[1,2]],\"uniqueItems\":true}", "[1, 2]", "[1, 1]"},
    {"maxProperties", "{\"type\":\"object\",\"maxProperties\":0}", "{}", "{\"a\": 1}"},
    {"minProperties", "{\"type\":\"object\",\"minProperties\":1}", "{\"a\": 1}", "{}"},
    {"required", "{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"a\"]}",
     "{\"a\": 1}", "{}"},
    {"format", "{\"type\":\"string\",\"format\":\"date\"}", "\"2024-01-31\"", "\"2024-01-32\""},
    // Beside an enum or a constant; alone they are refused, below.
    {"contains", "{\"enum\":[[1],[2]],\"contains\":{\"const\":2}}", "[2]", "[1]"},
    {"minContains", "{\"enum\":[[2],[2,2]],\"contains\":{\"const\":2},\"minContains\":2}", "[2, 2]",
     "[2]"},
    {"maxContains", "{\"enum\":[[2],[2,2]],\"contains\":{\"const\":2},\"maxContains\":1}", "[2]",
     "[2, 2]"},
    {"patternProperties",
     "{\"enum\":[{\"a\":1},{\"a\":2}],\"patternProperties\":{\"^a\":{\"minimum\":2}}}",
     "{\"a\": 2}", "{\"a\": 1}"},
    {"propertyNames", "{\"enum\":[{\"a\":1},{\"ab\":1}],\"propertyNames\":{\"minLength\":2}}",
     "{\"ab\": 1}", "{\"a\": 1}"},
    {"dependentSchemas",
     "{\"enum\":[{\"a\":1},{\"b\":1}],\"dependentSchemas\":{\"a\":{\"required\":[\"c\"]}}}",
     "{\"b\": 1}", "{\"a\": 1}"},
    {"dependentRequired", "{\"enum\":[{\"a\":1},{\"b\":1}],\"dependentRequired\":{\"a\":[\"c\"]}}",
     "{\"b\": 1}", "{\"a\": 1}"},
    {"not", "{\"enum\":[1,2],\"not\":{\"const\":1}}", "2", "1"},
    {"if", "{\"enum\":[1,2],\"if\":{\"minimum\":2},\"then\":{\"maximum\":1}}", "1", "2"},
    {"then", "{\"enum\":[1,2],\"if\":true,\"then\":{\"minimum\":2}}", "2", "1"},
    {"else", "{\"enum\":[1,2],\"if\":false,\"else\":{\"minimum\":2}}", "2", "1"},
};

static bool valid(const char *schema, const char *value) {
    sd_error err;
    json_t *s = json_loads(schema, 0, NULL), *v = json_loads(value, JSON_DECODE_ANY, NULL);
    cr_assert(s && v, "%s: %s", schema, value);
    sd_status st = sd_schema_validate(s, v, &err);
    json_decref(s), json_decref(v);
    cr_assert(st == SD_OK || st == SD_EMISMATCH, "%s", err.message);
    return st == SD_OK;
}

Test(keywords, an_enforced_one_lets_through_what_fits_alone) {
    for (size_t i = 0; i < sizeof enforced / sizeof enforced[0]; i++) {
        sd_error err;
        const char *s = enforced[i].schema;
        cr_assert(strstr(s, enforced[i].keyword));
        sd_grammar *g = test_schema(s, &err);
        cr_expect(g, "%s: %s", s, err.message);
        if (!g) continue;
        cr_expect(test_accepts(g, enforced[i].fits), "%s: %s", s, enforced[i].fits);
        cr_expect(!test_accepts(g, enforced[i].does_not), "%s: %s", s, enforced[i].does_not);
        cr_expect(valid(s, enforced[i].fits) && !valid(s, enforced[i].does_not), "%s", s);
        sd_grammar_release(g);
    }
}

// ---- annotations: beside a type they change nothing

static const char *const annotations[] = {
    "\"title\":\"t\"",
    "\"description\":\"d\"",
    "\"default\":{\"not\":1}",
    "\"examples\":[1]",
    "\"example\":1",
    "\"$comment\":\"c\"",
    "\"deprecated\":true",
    "\"readOnly\":true",
    "\"writeOnly\":true",
    "\"$defs\":{\"unused\":{\"not\":{}}}",
    "\"definitions\":{}",
    "\"$schema\":\"https://json-schema.org/draft/2020-12/schema\"",
    "\"discriminator\":{\"propertyName\":\"kind\"}",
    "\"xml\":{\"name\":\"n\"}",
    "\"externalDocs\":{\"url\":\"u\"}",
    "\"x-anything\":{\"not\":{}}",
    "\"contentEncoding\":\"base64\"",
    "\"contentMediaType\":\"application/json\"",
    "\"contentSchema\":{\"type\":\"object\"}",
    "\"$vocabulary\":{}",
};

Test(keywords, an_annotation_changes_nothing) {
    for (size_t i = 0; i < sizeof annotations / sizeof annotations[0]; i++) {
        char schema[400];
        sd_error err;
        snprintf(schema, sizeof schema, "{\"allOf\":[{\"type\":\"integer\",%s}],%s}",
                 annotations[i], annotations[i]);
        sd_grammar *g = test_schema(schema, &err);
        cr_expect(g, "%s: %s", schema, err.message);
        cr_expect(g && test_accepts(g, "1") && !test_accepts(g, "\"a\""), "%s", schema);
        sd_grammar_release(g);
    }
    sd_error err;
    sd_grammar *g = test_schema("{\"$id\":\"https://example.com/a\",\"type\":\"null\"}", &err);
    cr_expect(g, "$id of the root: %s", err.message);
    sd_grammar_release(g);
}

// ---- refused, wherever they stand

static const struct {
    const char *name, *member;
} refused[] = {
    {"$id", "\"$id\":\"a\""},
    {"$anchor", "\"$anchor\":\"a\""},
    {"$dynamicRef", "\"$dynamicRef\":\"#a\""},
    {"$dynamicAnchor", "\"$dynamicAnchor\":\"a\""},
    {"$recursiveRef", "\"$recursiveRef\":\"#\""},
    {"$recursiveAnchor", "\"$recursiveAnchor\":true"},
    {"unevaluatedItems", "\"unevaluatedItems\":false"},
    {"unevaluatedProperties", "\"unevaluatedProperties\":false"},
    {"dependencies", "\"dependencies\":{}"},
    {"additionalItems", "\"additionalItems\":false"},
    {"divisibleBy", "\"divisibleBy\":2"},
    {"extends", "\"extends\":{}"},
    {"disallow", "\"disallow\":\"any\""},
    {"id", "\"id\":\"a\""},
    {"nullable", "\"nullable\":true"},
    {"propertyOrdering", "\"propertyOrdering\":[]"},
    {"strict", "\"strict\":true"},
    {"iri", "\"type\":\"string\",\"format\":\"iri\""},
    {"int32", "\"type\":\"string\",\"format\":\"int32\""},
    {"date", "\"type\":\"integer\",\"format\":\"date\""},
    {"uuid", "\"type\":[\"array\",\"object\"],\"format\":\"uuid\""},
    {"int128", "\"type\":\"integer\",\"format\":\"int128\""},
    {"json-string", "\"type\":\"string\",\"format\":\"json-string\""},
    // of values alone
    {"contains", "\"type\":\"array\",\"contains\":{}"},
    {"minContains", "\"type\":\"array\",\"minContains\":1"},
    {"maxContains", "\"type\":\"array\",\"maxContains\":1"},
    {"patternProperties", "\"type\":\"object\",\"patternProperties\":{}"},
    {"propertyNames", "\"type\":\"object\",\"propertyNames\":{}"},
    {"dependentSchemas", "\"type\":\"object\",\"dependentSchemas\":{}"},
    {"dependentRequired", "\"type\":\"object\",\"dependentRequired\":{}"},
    {"not", "\"not\":{}"},
    {"if", "\"if\":{}"},
    {"then", "\"then\":{}"},
    {"else", "\"else\":{}"},
    {"uniqueItems", "\"type\":\"array\",\"uniqueItems\":true"},
    {"multipleOf", "\"type\":\"number\",\"multipleOf\":0.3"},
    // values that have not the keyword's form, of a type that they do not speak of as well
    {"minimum", "\"type\":\"string\",\"minimum\":\"1\""},
    {"minLength", "\"type\":\"integer\",\"minLength\":-1"},
    {"required", "\"type\":\"integer\",\"required\":true"},
    {"required", "\"type\":\"object\",\"required\":[1]"},
    {"properties", "\"type\":\"integer\",\"properties\":[]"},
    {"additionalProperties", "\"type\":\"integer\",\"additionalProperties\":1"},
    {"items", "\"type\":\"integer\",\"items\":[{}]"},
    {"prefixItems", "\"type\":\"integer\",\"prefixItems\":{}"},
    {"uniqueItems", "\"type\":\"integer\",\"uniqueItems\":1"},
    {"pattern", "\"type\":\"integer\",\"pattern\":1"},
    {"pattern", "\"type\":\"integer\",\"pattern\":\"(\""},
    {"format", "\"type\":\"string\",\"format\":1"},
    {"enum", "\"enum\":1"},
    {"type", "\"type\":\"any\""},
    {"anyOf", "\"anyOf\":[]"},
    {"allOf", "\"allOf\":{}"},
    {"oneOf", "\"oneOf\":1"},
    {"$ref", "\"$ref\":1"},
    {"$defs", "\"$defs\":1"},
    {"exclusiveMinimum", "\"type\":\"integer\",\"exclusiveMinimum\":true"},
    {"$schema", "\"$schema\":\"https://example.com/own\""},
};

// Where a schema stands in a schema: the beginning, the end, the place that the error names.
static const struct {
    const char *begin, *end, *place;
} places[] = {
    {"{\"type\":\"object\",\"properties\":{\"a\":{", "}}}", "#/properties/a"},
    {"{\"type\":\"object\",\"additionalProperties\":{", "}}", "#/additionalProperties"},
    {"{\"type\":\"array\",\"items\":{", "}}", "#/items"},
    {"{\"type\":\"array\",\"prefixItems\":[{", "}]}", "#/prefixItems/0"},
    {"{\"anyOf\":[{\"type\":\"null\"},{", "}]}", "#/anyOf/1"},
    {"{\"oneOf\":[{\"const\":\"q\"},{\"$ref\":\"#/$defs/d\"}],\"$defs\":{\"d\":{", "}}}", "#"},
    {"{\"allOf\":[{", "}]}", "#/allOf/0"},
    {"{\"minimum\":1,\"allOf\":[{\"title\":\"t\"},{", "}]}", "#"},
    {"{\"$ref\":\"#/$defs/d\",\"description\":\"x\",\"$defs\":{\"d\":{", "}}}", "#"},
};

Test(keywords, what_is_not_enforced_is_refused_by_its_name_and_place_wherever_it_stands) {
    int n = 0;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        for (size_t k = 0; k < sizeof places / sizeof places[0]; k++) {
            char schema[600], name[64], last[64];
            sd_error err;
            snprintf(schema, sizeof schema, "%s%s%s", places[k].begin, refused[i].member,
                     places[k].end);
            snprintf(name, sizeof name, "\"%s\"", refused[i].name);
            snprintf(last, sizeof last, "/%s: ", refused[i].name);
            sd_grammar *g = test_schema(schema, &err);
            cr_expect(!g, "%s", schema);
            // Branches of a oneOf that cannot be told apart are that schema's error.
            cr_expect(g || strstr(err.message, name) || strstr(err.message, last) ||
                          strstr(err.message, "oneOf"),
                      "%s: %s", schema, err.message);
            cr_expect(g || strstr(err.message, places[k].place), "%s: %s", schema, err.message);
            sd_grammar_release(g);
            n++;
        }
    printf("# %d schemas refused\n", n);
}

// What no answer reaches is read all the same.
Test(keywords, a_place_that_no_value_reaches_hides_nothing) {
    static const char *const schemas[] = {
        "{\"type\":\"array\",\"maxItems\":0,\"items\":{\"nullable\":true}}",
        "{\"type\":\"string\",\"properties\":{\"a\":{\"$id\":\"x\"}}}",
        "{\"allOf\":[false,{\"nullable\":true}]}",
        "{\"enum\":[1],\"properties\":{\"a\":{\"nullable\":true}}}",
        "{\"type\":\"null\",\"items\":{\"$ref\":\"#/nowhere\"}}",
        "{\"type\":\"null\",\"items\":{\"$ref\":\"#/$defs/a\"},\"$defs\":{\"a\":{\"$ref\":\"#/"
        "$defs/"
        "b\"},\"b\":{\"nullable\":true}}}",
        "{\"not\":{\"nullable\":true},\"enum\":[1]}",
    };
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++) {
        sd_error err;
        cr_expect(!test_schema(schemas[i], &err), "%s", schemas[i]);
        cr_expect(!strstr(err.message, "no text"), "%s: %s", schemas[i], err.message);
    }
}

// ---- formats: what Pydantic and OpenAPI write

static const struct {
    const char *type, *format, *fits, *does_not;
} formats[] = {
    {"integer", "int8", "-128", "128"},
    {"integer", "int16", "32767", "32768"},
    {"integer", "int32", "2147483647", "2147483648"},
    {"integer", "int32", "-2147483648", "-2147483649"},
    {"integer", "int64", "123456789012345678", "1.5"},
    {"integer", "uint8", "255", "256"},
    {"integer", "uint16", "0", "-1"},
    {"integer", "uint32", "4294967295", "4294967296"},
    {"integer", "uint64", "1", "-1"},
    {"number", "int32", "12", "1.5"},
    {"number", "float", "1.5", "1e90"},
    {"number", "double", "1e90", "\"1\""},
    {"number", "time-delta", "1.5", "\"1\""},
    {"string", "uuid4", "\"123e4567-e89b-42d3-a456-426614174000\"",
     "\"123e4567-e89b-12d3-a456-426614174000\""},
    {"string", "uuid1", "\"123e4567-e89b-12d3-a456-426614174000\"",
     "\"123e4567-e89b-12d3-c456-426614174000\""},
    {"string", "password", "\"a\"", "1"},
    {"string", "path", "\"/a\"", "1"},
    {"string", "binary", "\"a\"", "1"},
};

Test(keywords, formats_of_numbers_and_hints_are_enforced) {
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        char schema[200];
        sd_error err;
        snprintf(schema, sizeof schema, "{\"type\":\"%s\",\"format\":\"%s\"}", formats[i].type,
                 formats[i].format);
        sd_grammar *g = test_schema(schema, &err);
        cr_expect(g, "%s: %s", schema, err.message);
        if (!g) continue;
        cr_expect(test_accepts(g, formats[i].fits), "%s: %s", schema, formats[i].fits);
        cr_expect(!test_accepts(g, formats[i].does_not), "%s: %s", schema, formats[i].does_not);
        cr_expect(valid(schema, formats[i].fits) && !valid(schema, formats[i].does_not), "%s",
                  schema);
        sd_grammar_release(g);
    }
}

// A format beside types, or beside branches, holds for those that it speaks of.
Test(keywords, a_format_holds_for_the_types_that_have_it) {
    sd_error err;
    sd_grammar *g = test_schema("{\"type\":[\"string\",\"null\"],\"format\":\"date\"}", &err);
    cr_assert(g, "%s", err.message);
    cr_expect(test_accepts(g, "null") && test_accepts(g, "\"2024-02-29\"") &&
              !test_accepts(g, "\"a\""));
    sd_grammar_release(g);
    g = test_schema("{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}],\"format\":\"date\"}",
                    &err);
    cr_assert(g, "%s", err.message);
    cr_expect(test_accepts(g, "null") && test_accepts(g, "\"2024-02-29\"") &&
              !test_accepts(g, "\"a\""));
    sd_grammar_release(g);
    g = test_schema("{\"type\":[\"integer\",\"string\"],\"format\":\"int8\"}", &err);
    cr_assert(g, "%s", err.message);
    cr_expect(test_accepts(g, "\"a\"") && test_accepts(g, "100") && !test_accepts(g, "200"));
    sd_grammar_release(g);
    g = test_schema("{\"format\":\"int8\"}", &err);
    cr_assert(g, "%s", err.message);
    cr_expect(test_accepts(g, "100") && !test_accepts(g, "200") && !test_accepts(g, "\"a\""));
    sd_grammar_release(g);
}

// ---- recursion through allOf, as Pydantic 1 writes it

#define NODE(next)                                                                                 \
    "{\"$ref\":\"#/definitions/N\",\"definitions\":{\"N\":{\"title\":\"N\",\"type\":\"object\","   \
    "\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":" next "},\"required\":[\"v\"]}}}"

Test(keywords, what_is_merged_may_contain_itself) {
    static const char *const schemas[] = {
        NODE("{\"title\":\"Next\",\"allOf\":[{\"$ref\":\"#/definitions/N\"}]}"),
        NODE("{\"type\":\"object\",\"allOf\":[{\"$ref\":\"#/definitions/N\"}]}"),
        NODE("{\"allOf\":[{\"$ref\":\"#/definitions/N\"},{\"required\":[\"v\"]}]}"),
        NODE("{\"$ref\":\"#/definitions/N\",\"type\":\"object\"}"),
        NODE("{\"type\":\"object\",\"anyOf\":[{\"$ref\":\"#/definitions/N\"}]}"),
        NODE("{\"allOf\":[{\"$ref\":\"#/definitions/N\"},{\"properties\":{\"next\":{\"$ref\":"
             "\"#/definitions/N\"}}}]}"),
        NODE("{\"allOf\":[{\"allOf\":[{\"$ref\":\"#/definitions/N\"}]}]}"),
    };
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++) {
        sd_error err;
        sd_grammar *g = test_schema(schemas[i], &err);
        cr_expect(g, "%s: %s", schemas[i], err.message);
        if (!g) continue;
        cr_expect(test_accepts(g, "{\"v\": 1}"), "%s", schemas[i]);
        cr_expect(test_accepts(g, "{\"v\": 1, \"next\": {\"v\": 2, \"next\": {\"v\": 3}}}"), "%s",
                  schemas[i]);
        cr_expect(!test_accepts(g, "{\"v\": 1, \"next\": {\"v\": 2, \"next\": {}}}"), "%s",
                  schemas[i]);
        sd_grammar_release(g);
    }
}

// ---- values and what stands beside them

Test(keywords, values_are_held_to_all_that_stands_beside_them) {
    static const struct {
        const char *schema, *fits, *does_not;
    } cases[] = {
        {"{\"enum\":[0.3,0.6,0.7],\"multipleOf\":0.3}", "0.6", "0.7"},
        {"{\"enum\":[10000000001,10000000002],\"multipleOf\":2.0}", "10000000002", "10000000001"},
        {"{\"enum\":[9007199254740993,9007199254740994],\"multipleOf\":2.0}", "9007199254740994",
         "9007199254740993"},
        {"{\"enum\":[1.0000000001,2],\"multipleOf\":1}", "2", "1.0000000001"},
        {"{\"enum\":[0.3,0.300000001],\"multipleOf\":0.1}", "0.3", "0.300000001"},
        {"{\"enum\":[10000000.5,10000000.6],\"multipleOf\":0.5}", "10000000.5", "10000000.6"},
        {"{\"enum\":[1000000000.25,1000000000.5],\"multipleOf\":0.5}", "1000000000.5",
         "1000000000.25"},
        {"{\"enum\":[1,2,\"a\"],\"oneOf\":[{\"type\":\"integer\"},{\"minimum\":2}]}", "1", "2"},
        {"{\"enum\":[\"ab\",\"b\"],\"pattern\":\"^a{1,1000}[^c]{0,60000}$\"}", "\"ab\"", "\"b\""},
        {"{\"enum\":[1,2],\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"minimum\":2}}}", "2", "1"},
        {"{\"enum\":[1,2],\"anyOf\":[{\"maximum\":1},{\"minimum\":7}]}", "1", "2"},
        {"{\"enum\":[{\"a\":1,\"b\":1},{\"a\":1}],\"minProperties\":2}", "{\"a\": 1, \"b\": 1}",
         "{\"a\": 1}"},
        {"{\"const\":5,\"enum\":[5,6],\"allOf\":[{\"minimum\":1}]}", "5", "6"},
        {"{\"enum\":[300,3],\"type\":\"integer\",\"format\":\"int8\"}", "3", "300"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sd_error err;
        sd_grammar *g = test_schema(cases[i].schema, &err);
        cr_expect(g, "%s: %s", cases[i].schema, err.message);
        if (!g) continue;
        cr_expect(test_accepts(g, cases[i].fits), "%s", cases[i].schema);
        cr_expect(!test_accepts(g, cases[i].does_not), "%s", cases[i].schema);
        sd_grammar_release(g);
    }
    sd_error err;
    cr_expect(!test_schema("{\"enum\":[1,2],\"not\":{}}", &err));
    cr_expect(strstr(err.message, "no text"), "%s", err.message);
}

// ---- numbers near a bound: what is offered is within it for whoever reads it as a double, or as an integer

Test(keywords, a_number_beside_its_bound_is_the_same_for_masks_and_validator) {
    static const struct {
        const char *schema, *fits[4], *does_not[6];
    } cases[] = {
        {"{\"type\":\"number\",\"exclusiveMaximum\":100}",
         {"99.9999999999999", "-1", "0.999999999999999"},
         {"99.9999999999999999", "99.999999999999999", "100"}},
        {"{\"type\":\"number\",\"exclusiveMaximum\":1}",
         {"0.999999999999999", "0"},
         {"0.99999999999999999", "1.0"}},
        {"{\"type\":\"number\",\"exclusiveMinimum\":0.3,\"maximum\":12.5}",
         {"0.300000000000001", "12.5", "12.500", "9.25"},
         {"0.3", "0.30", "0.30000000000000001", "12.500000000001", "0"}},
        {"{\"type\":\"number\",\"exclusiveMinimum\":-100.25}",
         {"-100.249999999999", "-100"},
         {"-100.25", "-100.24999999999999999", "-100.250"}},
        {"{\"type\":\"number\",\"maximum\":1e20}", {"999999999999999999", "0.5"}, {"1e30", "1e21"}},
        {"{\"type\":\"number\",\"format\":\"double\",\"maximum\":1e18}",
         {"999999999999999999"},
         {"1e99", "1e19"}},
        {"{\"type\":\"number\",\"exclusiveMinimum\":-1e300}", {"-1"}, {"-1e301"}},
        {"{\"type\":\"number\",\"exclusiveMaximum\":1e18}",
         {"999999999999999999"},
         {"999999999999999999.9", "1e18"}},
        {"{\"type\":\"integer\",\"exclusiveMaximum\":9007199254740993}",
         {"9007199254740992"},
         {"9007199254740993", "9007199254740994"}},
        {"{\"type\":\"integer\",\"minimum\":9007199254740993}",
         {"9007199254740993"},
         {"9007199254740992"}},
        {"{\"type\":\"integer\",\"exclusiveMaximum\":999999999999999999}",
         {"999999999999999998"},
         {"999999999999999999"}},
        {"{\"type\":\"integer\",\"minimum\":9007199254740992,"
         "\"exclusiveMinimum\":9007199254740993}",
         {"9007199254740994"},
         {"9007199254740992", "9007199254740993"}},
        {"{\"allOf\":[{\"type\":\"integer\",\"maximum\":9007199254740992},"
         "{\"maximum\":9007199254740993}]}",
         {"9007199254740992"},
         {"9007199254740993"}},
        // A double of that size has no neighbour within 16: its own digits count.
        {"{\"type\":\"integer\",\"maximum\":1.2345678901234567e17}",
         {"123456789012345664"},
         {"123456789012345665", "123456789012345670"}},
        {"{\"type\":\"number\",\"maximum\":0.1,\"exclusiveMaximum\":0.1}", {"0.09"}, {"0.1"}},
        {"{\"type\":\"number\",\"multipleOf\":0.1}", {"12345678901234.7", "0.3", "-7"}, {"0.01"}},
        {"{\"type\":\"number\",\"multipleOf\":0.01}",
         {"9999999999999.99", "1234567890123.45", "0.07", "123456789012345678"},
         {"0.001"}},
        {"{\"type\":\"number\",\"multipleOf\":0.01,\"maximum\":10}",
         {"0.01", "9.99", "10", "-7.5"},
         {"0.001", "10.01"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sd_error err;
        const char *s = cases[i].schema;
        sd_grammar *g = test_schema(s, &err);
        cr_expect(g, "%s: %s", s, err.message);
        if (!g) continue;
        for (int k = 0; k < 4 && cases[i].fits[k]; k++)
            cr_expect(test_accepts(g, cases[i].fits[k]) && valid(s, cases[i].fits[k]), "%s: %s", s,
                      cases[i].fits[k]);
        for (int k = 0; k < 6 && cases[i].does_not[k]; k++)
            cr_expect(!test_accepts(g, cases[i].does_not[k]), "%s: not %s", s,
                      cases[i].does_not[k]);
        sd_grammar_release(g);
    }
}
