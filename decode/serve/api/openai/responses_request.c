// The body of /v1/responses becomes one of chat completions.
//
//     instructions                       a first message of the role system
//     message items, input as a text     messages; their parts one text
//     reasoning, function_call           the assistant's turn that they stand in
//     function_call_output               messages of the role tool
//     tools                              functions; kinds that OpenAI runs by itself are skipped
//     text.format, reasoning.effort      response_format, reasoning_effort
//
// Nothing is kept between requests: what would need it is refused, and `store` is ignored.
#include "datasets/read/record_json.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/convert.h"
#include "decode/serve/api/openai/request.h"
#include "decode/serve/api/openai/responses.h"

#include <stdio.h>
#include <string.h>

static bool is(const char *s, const char *word) {
    return s && strcmp(s, word) == 0;
}

// ---- input

// The messages so far, and the assistant's turn in hand, which items that belong to it are added to.
typedef struct {
    json_t *out, *turn;
} talk;

static void end_turn(talk *t) {
    if (!t->turn) return;
    if (!json_object_get(t->turn, "content"))
        json_object_set_new(t->turn, "content", json_string(""));
    json_array_append_new(t->out, t->turn);
    t->turn = NULL;
}

static json_t *turn_of(talk *t) {
    if (!t->turn) t->turn = json_pack("{s:s}", "role", "assistant");
    return t->turn;
}

// Text, or text parts; new. NULL after an error.
static json_t *read_texts(const json_t *v, const char *path, sd_api_error *e) {
    static const char *const types[] = {"input_text", "output_text", "text", NULL};
    if (v && sd_json_is_text(v)) return json_incref((json_t *)(uintptr_t)v);
    if (v && json_is_array(v)) return sd_convert_texts(v, path, types, "", e);
    sd_api_refuse(e, path, "is neither a string nor an array of text parts");
    return NULL;
}

static bool add_message(talk *t, const json_t *item, const char *path, sd_api_error *e) {
    static const char *const roles[] = {"user", "assistant", "system", "developer"};
    const char *role = sd_field_text(item, "role");
    char where[200];
    bool known = false;
    for (int i = 0; i < 4; i++) known |= is(role, roles[i]);
    snprintf(where, sizeof where, "%s.role", path);
    if (!known) return sd_api_refuse(e, where, "is not user, assistant, system or developer");
    snprintf(where, sizeof where, "%s.content", path);
    json_t *text = read_texts(sd_field_get(item, "content"), where, e);
    if (!text) return false;
    if (!is(role, "assistant")) {
        end_turn(t);
        json_array_append_new(t->out, json_pack("{s:s, s:o}", "role", role, "content", text));
        return true;
    }
    // Behind a text or a call another turn begins.
    if (t->turn && (json_object_get(t->turn, "content") || json_object_get(t->turn, "tool_calls")))
        end_turn(t);
    json_object_set_new(turn_of(t), "content", text);
    return true;
}

static bool add_call(talk *t, const json_t *item, const char *path, sd_api_error *e) {
    const json_t *arguments = sd_field_get(item, "arguments");
    if (!sd_field_text(item, "call_id")) return sd_api_refuse(e, path, "has no call_id");
    if (!sd_field_text(item, "name") || !*sd_field_text(item, "name"))
        return sd_api_refuse(e, path, "has no name");
    if (!arguments || !sd_json_is_text(arguments))
        return sd_api_refuse(e, path, "has no arguments that are a string");
    json_t *turn = turn_of(t), *calls = json_object_get(turn, "tool_calls");
    if (!calls) {
        calls = json_array();
        json_object_set_new(turn, "tool_calls", calls);
    }
    json_array_append_new(calls, json_pack("{s:O, s:s, s:{s:O, s:O}}", "id",
                                           json_object_get(item, "call_id"), "type", "function",
                                           "function", "name", json_object_get(item, "name"),
                                           "arguments", arguments));
    return true;
}

static bool add_output(talk *t, const json_t *item, const char *path, sd_api_error *e) {
    char where[200];
    snprintf(where, sizeof where, "%s.output", path);
    if (!sd_field_text(item, "call_id")) return sd_api_refuse(e, path, "has no call_id");
    json_t *text = read_texts(sd_field_get(item, "output"), where, e);
    if (!text) return false;
    end_turn(t);
    json_array_append_new(t->out, json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id",
                                            json_object_get(item, "call_id"), "content", text));
    return true;
}

// Its text where it has one; a summary is none of the model's words.
static bool add_reasoning(talk *t, const json_t *item, const char *path, sd_api_error *e) {
    static const char *const types[] = {"reasoning_text", "text", NULL};
    const json_t *content = sd_field_get(item, "content");
    char where[200];
    snprintf(where, sizeof where, "%s.content", path);
    if (!content) return true;
    if (!json_is_array(content)) return sd_api_refuse(e, where, "is not an array of parts");
    json_t *text = sd_convert_texts(content, where, types, "", e);
    if (!text) return false;
    end_turn(t);
    json_object_set_new(turn_of(t), "reasoning_content", text);
    return true;
}

static bool add_item(talk *t, const json_t *item, size_t i, sd_api_error *e) {
    char path[96];
    snprintf(path, sizeof path, "input[%zu]", i);
    if (!json_is_object(item)) return sd_api_refuse(e, path, "is not an object");
    const char *type = sd_field_text(item, "type"), *odd = sd_json_odd_number(item);
    if (odd) {
        sd_api_fail(e, 400, path, "%s has the number %.60s, which no 64 bits hold; give a string",
                    path, odd);
        return false;
    }
    if (!sd_field_get(item, "type") || is(type, "message")) return add_message(t, item, path, e);
    if (is(type, "function_call")) return add_call(t, item, path, e);
    if (is(type, "function_call_output")) return add_output(t, item, path, e);
    if (is(type, "reasoning")) return add_reasoning(t, item, path, e);
    return sd_api_refuse(
        e, path,
        "is of a type that is not read here; give message, reasoning, function_call and "
        "function_call_output");
}

static bool convert_input(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *input = sd_field_get(from, "input");
    const json_t *system = sd_field_get(from, "instructions");
    const size_t n = json_array_size(input);
    talk t = {.out = json_array()};
    json_object_set_new(to, "messages", t.out);
    if (system && !sd_json_is_text(system))
        return sd_api_refuse(e, "instructions", "is not a string");
    if (system && json_string_length(system) > 0)
        json_array_append_new(t.out, json_pack("{s:s, s:O}", "role", "system", "content", system));
    if (input && sd_json_is_text(input)) {
        json_array_append_new(t.out, json_pack("{s:s, s:O}", "role", "user", "content", input));
        return true;
    }
    if (!json_is_array(input) || n == 0 || n > SD_API_MAX_MESSAGES) {
        sd_api_fail(e, 400, "input", "input is neither a string nor an array of 1 to %d items",
                    SD_API_MAX_MESSAGES);
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) ok = add_item(&t, json_array_get(input, i), i, e);
    end_turn(&t);
    if (ok && json_array_size(t.out) == 0)
        return sd_api_refuse(e, "input", "has no message; give at least one");
    return ok;
}

// ---- tools

static bool add_tool(json_t *out, sd_api_request *r, const json_t *tool, size_t i,
                     sd_api_error *e) {
    static const char *const members[] = {"name", "description", "parameters", "strict"};
    char path[96];
    snprintf(path, sizeof path, "tools[%zu]", i);
    const char *type = sd_field_text(tool, "type");
    if (!json_is_object(tool) || !sd_field_get(tool, "type"))
        return sd_api_refuse(e, path, "is not an object with a type");
    if (!is(type, "function")) {
        sd_convert_skip_tool(r, type);
        return true;
    }
    json_t *f = json_object();
    json_array_append_new(out, json_pack("{s:s, s:o}", "type", "function", "function", f));
    for (int k = 0; k < 4; k++) {
        json_t *v = json_object_get(tool, members[k]);
        if (v) json_object_set(f, members[k], v);
    }
    const json_t *about = sd_field_get(tool, "description"),
                 *schema = sd_field_get(tool, "parameters"), *strict = sd_field_get(tool, "strict");
    if (!sd_openai_is_tool_name(json_object_get(tool, "name")))
        return sd_api_refuse(e, path, "has no name of 1 to 64 letters, digits, '_' or '-'");
    if (schema && !json_is_object(schema))
        return sd_api_refuse(e, path, "has parameters that are not a JSON schema");
    if (about && !sd_json_is_text(about))
        return sd_api_refuse(e, path, "has a description that is not a string");
    if (strict && !json_is_boolean(strict))
        return sd_api_refuse(e, path, "has a strict that is neither true nor false");
    return true;
}

static bool convert_tools(json_t *to, sd_api_request *r, const json_t *from, sd_api_error *e) {
    const json_t *list = sd_field_get(from, "tools"), *alone;
    if ((alone = sd_field_get(from, "parallel_tool_calls")))
        json_object_set(to, "parallel_tool_calls", (json_t *)(uintptr_t)alone);
    if (!list) return true;
    if (!json_is_array(list)) return sd_api_refuse(e, "tools", "is not an array");
    json_t *out = json_array();
    json_object_set_new(to, "tools", out);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!add_tool(out, r, json_array_get(list, i), i, e)) return false;
    return true;
}

static bool convert_choice(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *choice = sd_field_get(from, "tool_choice");
    const char *word = sd_field_text(from, "tool_choice"), *name = sd_field_text(choice, "name");
    if (!choice) return true;
    if (is(word, "none") || is(word, "auto") || is(word, "required")) {
        json_object_set_new(to, "tool_choice", json_string(word));
        return true;
    }
    if (!is(sd_field_text(choice, "type"), "function") || !name)
        return sd_api_refuse(
            e, "tool_choice",
            "is neither none, auto or required nor {\"type\": \"function\", \"name\": "
            "...}");
    json_object_set_new(to, "tool_choice",
                        json_pack("{s:s, s:{s:s}}", "type", "function", "function", "name", name));
    return true;
}

// ---- the rest

static bool convert_format(json_t *to, const json_t *from, sd_api_error *e) {
    static const char *const members[] = {"name", "description", "schema", "strict"};
    const json_t *text = sd_field_get(from, "text"), *format = sd_field_get(text, "format");
    const char *type = sd_field_text(format, "type");
    if (text && !json_is_object(text)) return sd_api_refuse(e, "text", "is not an object");
    if (!format) return true;
    if (is(type, "text")) return true;
    json_t *out = json_object();
    json_object_set_new(to, "response_format", out);
    if (is(type, "json_object")) {
        json_object_set_new(out, "type", json_string(type));
        return true;
    }
    if (!is(type, "json_schema") || !json_is_object(sd_field_get(format, "schema")))
        return sd_api_refuse(
            e, "text.format",
            "is not {\"type\": \"json_schema\", \"name\": ..., \"schema\": {...}}, "
            "json_object or text");
    json_t *schema = json_object();
    json_object_set_new(out, "type", json_string(type));
    json_object_set_new(out, "json_schema", schema);
    for (int k = 0; k < 4; k++) {
        json_t *v = json_object_get(format, members[k]);
        if (v) json_object_set(schema, members[k], v);
    }
    return true;
}

static bool convert_reasoning(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *reasoning = sd_field_get(from, "reasoning"),
                 *effort = sd_field_get(reasoning, "effort");
    if (reasoning && !json_is_object(reasoning))
        return sd_api_refuse(e, "reasoning", "is not an object");
    if (effort) json_object_set(to, "reasoning_effort", (json_t *)(uintptr_t)effort);
    return true;
}

static bool convert_length(json_t *to, const json_t *from, sd_api_error *e) {
    int64_t most = 0;
    if (!sd_field_int(from, "max_output_tokens", 1, INT32_MAX, &most, e)) return false;
    // More than any context holds.
    if (most > 0)
        json_object_set_new(to, "max_tokens", json_integer(most < 1 << 24 ? most : 1 << 24));
    return true;
}

static bool refuse_unsupported(const json_t *from, sd_api_error *e) {
    static const struct {
        const char *name, *why;
    } rows[] = {
        {"previous_response_id",
         "names an answer, and this server keeps none; send its items in input"},
        {"conversation",
         "names a conversation, and this server keeps none; send its items in input"},
        {"prompt", "names a template that is kept elsewhere; send its text"},
    };
    bool later = false;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (sd_field_get(from, rows[i].name)) return sd_api_refuse(e, rows[i].name, rows[i].why);
    if (!sd_field_bool(from, "background", &later, e)) return false;
    if (later)
        return sd_api_refuse(e, "background",
                             "asks for an answer that is fetched later; leave it out");
    return true;
}

// Other things that may be included do not come here.
static bool convert_logprobs(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *include = sd_field_get(from, "include"), *v;
    int64_t top = 0;
    bool wanted = false;
    if (include && !json_is_array(include))
        return sd_api_refuse(e, "include", "is not an array of strings");
    for (size_t i = 0; (v = json_array_get(include, i)); i++)
        wanted |= is(json_string_value(v), "message.output_text.logprobs");
    if (!sd_field_int(from, "top_logprobs", 0, 20, &top, e)) return false;
    if (top > 0 && !wanted)
        return sd_api_refuse(e, "top_logprobs",
                             "is given without \"include\": [\"message.output_text.logprobs\"]");
    if (!wanted) return true;
    json_object_set_new(to, "logprobs", json_true());
    json_object_set_new(to, "top_logprobs", json_integer(top));
    return true;
}

int sd_responses_parse(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    if (sd_api_request_begin(out, SD_API_CHAT, body, len, e) != 0) {
        sd_api_request_free(out);
        return e->status;
    }
    const json_t *from = out->root;
    json_t *to = json_object();
    sd_convert_settings(to, from);
    bool ok = refuse_unsupported(from, e) && convert_input(to, from, e) &&
              convert_tools(to, out, from, e) && convert_choice(to, from, e) &&
              convert_format(to, from, e) && convert_reasoning(to, from, e) &&
              convert_length(to, from, e) && convert_logprobs(to, from, e);
    if (ok) return sd_convert_finish(out, to, e);
    json_decref(to);
    sd_api_request_free(out);
    return e->status;
}
