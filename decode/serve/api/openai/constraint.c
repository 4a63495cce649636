// What an answer is held to, as a request says it: OpenAI's response_format, vLLM's structured_outputs
// and its older guided_*, llama-server's json_schema. One of them at most.
#include "base/json.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/request.h"

#include <string.h>

static bool refuse(sd_api_error *e, const char *param, const char *what) {
    sd_api_fail(e, 400, param, "%s %s", param, what);
    return false;
}

// text becomes the request's.
static bool set(sd_api_request *r, sd_grammar_kind kind, char *text, size_t len, const char *param,
                sd_api_error *e) {
    if (!text) {
        sd_api_fail(e, 500, param, "out of memory");
        return false;
    }
    if (r->constraint != SD_GRAMMAR_NONE) {
        free(text);
        return refuse(e, param, "is the second constraint of this request; give one");
    }
    r->constraint = kind;
    r->constraint_text = text, r->constraint_len = len;
    r->constraint_param = param;
    return true;
}

static bool set_text(sd_api_request *r, sd_grammar_kind kind, const json_t *v, const char *param,
                     sd_api_error *e) {
    if (!sd_json_is_text(v)) return refuse(e, param, "is not a text");
    return set(r, kind, sd_strndup(json_string_value(v), json_string_length(v)),
               json_string_length(v), param, e);
}

// JSON, written again; schemas may also come as the text of one.
static bool set_json(sd_api_request *r, sd_grammar_kind kind, const json_t *v, const char *param,
                     sd_api_error *e) {
    if (kind == SD_GRAMMAR_SCHEMA && sd_json_is_text(v)) return set_text(r, kind, v, param, e);
    char *text = NULL;
    sd_json_dump(&text, v, JSON_ENCODE_ANY | JSON_COMPACT, NULL);
    return set(r, kind, text, text ? strlen(text) : 0, param, e);
}

static bool set_object(sd_api_request *r, const char *param, sd_api_error *e) {
    return set(r, SD_GRAMMAR_OBJECT, sd_strdup(""), 0, param, e);
}

// Whether an object has no members but these (NULL behind the last): what is not read is not enforced. A
// member that is null is absent.
static bool only(const json_t *o, const char *where, const char *const *known, const char *param,
                 sd_api_error *e) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        int i = 0;
        while (known[i] && strcmp(known[i], key) != 0) i++;
        if (known[i] || json_is_null(v)) continue;
        sd_api_fail(e, 400, param,
                    "%s has a member \"%.80s\", which is not supported; leave it out", where, key);
        return false;
    }
    return true;
}

// As OpenAI states it: letters, digits, _ and -, at most 64 of them.
static bool is_name(const json_t *v) {
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const char *s = sd_json_is_text(v) ? json_string_value(v) : "";
    size_t len = strlen(s);
    return len > 0 && len <= 64 && len == json_string_length(v) && strspn(s, allowed) == len;
}

static bool read_json_schema(sd_api_request *r, const json_t *own, sd_api_error *e) {
    static const char *const known[] = {"name", "description", "schema", "strict", NULL};
    const char *param = "response_format";
    const json_t *schema = sd_field_get(own, "schema"), *said = sd_field_get(own, "description"),
                 *strict = sd_field_get(own, "strict");
    if (!json_is_object(own))
        return refuse(e, param, "has no object json_schema; give one with a name and a schema");
    if (!only(own, "response_format.json_schema", known, param, e)) return false;
    if (!is_name(sd_field_get(own, "name")))
        return refuse(e, param,
                      "has no json_schema.name of 1 to 64 letters, digits, underscores and dashes");
    if (said && !sd_json_is_text(said))
        return refuse(e, param, "has a json_schema.description that is not a text");
    // A keyword that is not enforced is refused with strict and without it.
    if (strict && !json_is_boolean(strict))
        return refuse(e, param, "has a json_schema.strict that is neither true nor false");
    if (!json_is_object(schema) && !json_is_boolean(schema))
        return refuse(e, param, "has no json_schema.schema that is an object, true or false");
    return set_json(r, SD_GRAMMAR_SCHEMA, schema, param, e);
}

static bool read_response_format(sd_api_request *r, const json_t *v, sd_api_error *e) {
    static const char *const bare[] = {"type", NULL}, *const with[] = {"type", "json_schema", NULL};
    const char *param = "response_format", *type = json_string_value(json_object_get(v, "type"));
    if (!json_is_object(v) || !type)
        return refuse(e, param,
                      "is not an object with a type; give text, json_object or json_schema");
    bool schema = strcmp(type, "json_schema") == 0, object = strcmp(type, "json_object") == 0;
    if (!schema && !object && strcmp(type, "text") != 0)
        return refuse(e, param, "has a type other than text, json_object, json_schema");
    if (!only(v, param, schema ? with : bare, param, e)) return false;
    if (schema) return read_json_schema(r, sd_field_get(v, "json_schema"), e);
    return object ? set_object(r, param, e) : true;
}

// A field that asks for any object, or for nothing.
static bool read_flag(sd_api_request *r, const json_t *v, const char *param, sd_api_error *e) {
    if (v && !json_is_boolean(v)) return refuse(e, param, "is neither true nor false");
    return json_is_true(v) ? set_object(r, param, e) : true;
}

static bool read_structured(sd_api_request *r, const json_t *v, sd_api_error *e) {
    // The flags ask for what is so anyhow: nothing falls back, and white space is bounded.
    static const char *const flags[] = {"disable_fallback", "disable_any_whitespace"};
    static const char *const known[] = {
        "json",    "regex",          "choice",           "json_object",
        "grammar", "structural_tag", "disable_fallback", "disable_any_whitespace",
        NULL};
    const json_t *x;
    const char *param = "structured_outputs";
    if (!json_is_object(v)) return refuse(e, param, "is not an object");
    if (!only(v, param, known, param, e)) return false;
    if (sd_field_get(v, "grammar"))
        return refuse(e, param,
                      "has a grammar, which is not supported; give json, regex or choice");
    if (sd_field_get(v, "structural_tag"))
        return refuse(e, param, "has a structural_tag, which is not supported");
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if ((x = sd_field_get(v, flags[i])) && !json_is_boolean(x))
            return refuse(e, param, "has a flag that is neither true nor false");
    if ((x = sd_field_get(v, "json")) && !set_json(r, SD_GRAMMAR_SCHEMA, x, param, e)) return false;
    if ((x = sd_field_get(v, "regex")) && !set_text(r, SD_GRAMMAR_REGEX, x, param, e)) return false;
    if ((x = sd_field_get(v, "choice")) && !set_json(r, SD_GRAMMAR_CHOICE, x, param, e))
        return false;
    return read_flag(r, sd_field_get(v, "json_object"), param, e);
}

bool sd_openai_constraint_parse(sd_api_request *r, sd_api_error *e) {
    const json_t *root = r->root, *x;
    if ((x = sd_field_get(root, "response_format")) && !read_response_format(r, x, e)) return false;
    if ((x = sd_field_get(root, "structured_outputs")) && !read_structured(r, x, e)) return false;
    if ((x = sd_field_get(root, "guided_json")) &&
        !set_json(r, SD_GRAMMAR_SCHEMA, x, "guided_json", e))
        return false;
    if ((x = sd_field_get(root, "guided_regex")) &&
        !set_text(r, SD_GRAMMAR_REGEX, x, "guided_regex", e))
        return false;
    if ((x = sd_field_get(root, "guided_choice")) &&
        !set_json(r, SD_GRAMMAR_CHOICE, x, "guided_choice", e))
        return false;
    if (!read_flag(r, sd_field_get(root, "guided_json_object"), "guided_json_object", e))
        return false;
    if ((x = sd_field_get(root, "json_schema")) &&
        !set_json(r, SD_GRAMMAR_SCHEMA, x, "json_schema", e))
        return false;
    return true;
}
