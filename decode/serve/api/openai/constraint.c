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

static bool read_response_format(sd_api_request *r, const json_t *v, sd_api_error *e) {
    const json_t *own = sd_field_get(v, "json_schema");
    const char *type = json_string_value(json_object_get(v, "type"));
    bool strict = true;
    if (!json_is_object(v) || !type)
        return refuse(e, "response_format",
                      "is not an object with a type; give text, json_object or json_schema");
    if (strcmp(type, "text") == 0) return true;
    if (strcmp(type, "json_object") == 0) return set_object(r, "response_format", e);
    if (strcmp(type, "json_schema") != 0)
        return refuse(e, "response_format", "has a type other than text, json_object, json_schema");
    if (!own || !json_is_object(own) || !sd_field_get(own, "schema"))
        return refuse(e, "response_format", "has no json_schema with a schema in it");
    // A keyword that is not enforced is refused with strict and without it.
    if (!sd_field_bool(own, "strict", &strict, e)) return false;
    return set_json(r, SD_GRAMMAR_SCHEMA, json_object_get(own, "schema"), "response_format", e);
}

static bool is_true(const json_t *v) {
    return json_is_true(v);
}

static bool read_structured(sd_api_request *r, const json_t *v, sd_api_error *e) {
    const json_t *x;
    const char *param = "structured_outputs";
    if (!json_is_object(v)) return refuse(e, param, "is not an object");
    if (sd_field_get(v, "grammar"))
        return refuse(e, param,
                      "has a grammar, which is not supported; give json, regex or choice");
    if (sd_field_get(v, "structural_tag"))
        return refuse(e, param, "has a structural_tag, which is not supported");
    if ((x = sd_field_get(v, "json")) && !set_json(r, SD_GRAMMAR_SCHEMA, x, param, e)) return false;
    if ((x = sd_field_get(v, "regex")) && !set_text(r, SD_GRAMMAR_REGEX, x, param, e)) return false;
    if ((x = sd_field_get(v, "choice")) && !set_json(r, SD_GRAMMAR_CHOICE, x, param, e))
        return false;
    if (is_true(sd_field_get(v, "json_object")) && !set_object(r, param, e)) return false;
    return true;
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
    if (is_true(sd_field_get(root, "guided_json_object")) &&
        !set_object(r, "guided_json_object", e))
        return false;
    if ((x = sd_field_get(root, "json_schema")) &&
        !set_json(r, SD_GRAMMAR_SCHEMA, x, "json_schema", e))
        return false;
    return true;
}
