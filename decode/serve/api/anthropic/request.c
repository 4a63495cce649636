// Anthropic's Messages API: the body's words become OpenAI's, and are read as those (api/openai/convert.h).
//
//     system                    a first message of the role system
//     text blocks               one text, with an empty line between two of them
//     thinking                  the assistant's reasoning_content
//     tool_use, tool_result     tool_calls, messages of the role tool
//     tools, tool_choice        functions; kinds that the server of a model runs by itself are skipped
//     thinking                  a budget of reasoning, which a model that does not reason ignores
//     output_config, output_format  reasoning_effort, response_format
//     metadata.user_id          user
//
// A last message of the assistant's is the beginning of the answer. Members that are not known are ignored, as
// the headers of beta features are.
#include "decode/serve/api/anthropic/request.h"

#include "datasets/read/record_json.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/convert.h"
#include "decode/serve/api/openai/request.h"

#include <stdio.h>
#include <string.h>

static const char *const text_types[] = {"text", NULL};
static const char between[] = "\n\n";

static bool is_type(const json_t *o, const char *type) {
    const char *s = sd_field_text(o, "type");
    return s && strcmp(s, type) == 0;
}

// ---- messages

// Text, or text blocks; new. NULL after an error.
static json_t *read_texts(const json_t *v, const char *path, sd_api_error *e) {
    if (v && sd_json_is_text(v)) return json_incref((json_t *)(uintptr_t)v);
    if (v && json_is_array(v)) return sd_convert_texts(v, path, text_types, between, e);
    sd_api_refuse(e, path, "is neither a string nor an array of text blocks");
    return NULL;
}

// A block that is the line of an agent's billing alone is left out.
static bool add_system(json_t *out, const json_t *system, sd_api_error *e) {
    if (!system) return true;
    json_t *kept = json_is_array(system) ? json_copy((json_t *)(uintptr_t)system) : NULL;
    const json_t *first = json_object_get(json_array_get(kept, 0), "text");
    size_t len = json_string_length(first);
    if (len > 0) {
        sd_openai_skip_volatile_line(json_string_value(first), &len);
        if (len == 0) json_array_remove(kept, 0);
    }
    json_t *text = read_texts(kept ? kept : system, "system", e);
    json_decref(kept);
    if (text && json_string_length(text) > 0)
        json_array_append_new(out, json_pack("{s:s, s:O}", "role", "system", "content", text));
    json_decref(text);
    return e->status == 0;
}

static bool add_result(json_t *out, const json_t *block, const char *path, sd_api_error *e) {
    char where[200];
    snprintf(where, sizeof where, "%s.content", path);
    const json_t *content = sd_field_get(block, "content");
    if (!sd_field_text(block, "tool_use_id")) return sd_api_refuse(e, path, "has no tool_use_id");
    json_t *text = content ? read_texts(content, where, e) : json_string("");
    if (e->status) return false;
    json_array_append_new(out, json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id",
                                         json_object_get(block, "tool_use_id"), "content", text));
    return true;
}

static bool add_call(json_t *calls, const json_t *block, const char *path, sd_api_error *e) {
    json_t *input = json_object_get(block, "input");
    if (!sd_field_text(block, "id")) return sd_api_refuse(e, path, "has no id");
    if (!sd_field_text(block, "name") || !*sd_field_text(block, "name"))
        return sd_api_refuse(e, path, "has no name");
    if (input && !json_is_object(input))
        return sd_api_refuse(e, path, "has an input that is no object");
    json_array_append_new(
        calls, json_pack("{s:O, s:s, s:{s:O, s:o}}", "id", json_object_get(block, "id"), "type",
                         "function", "function", "name", json_object_get(block, "name"),
                         "arguments", input ? json_incref(input) : json_object()));
    return true;
}

// What one message's blocks are made of.
typedef struct {
    json_t *texts, *calls, *thinking; // lists; thinking: of text blocks
} parts;

static bool take_block(parts *p, json_t *out, json_t *block, bool user, const char *path,
                       sd_api_error *e) {
    char where[200];
    if (is_type(block, "text")) {
        snprintf(where, sizeof where, "%s.text", path);
        const json_t *text = json_object_get(block, "text");
        if (!text || !sd_json_is_text(text)) return sd_api_refuse(e, where, "is not a string");
        json_array_append(p->texts, block);
        return true;
    }
    if (user && is_type(block, "tool_result")) return add_result(out, block, path, e);
    if (!user && is_type(block, "tool_use")) return add_call(p->calls, block, path, e);
    if (!user && is_type(block, "redacted_thinking")) return true;
    if (!user && is_type(block, "thinking")) {
        const json_t *text = json_object_get(block, "thinking");
        if (!text || !sd_json_is_text(text))
            return sd_api_refuse(e, path, "has no thinking that is a string");
        json_array_append_new(p->thinking, json_pack("{s:s, s:O}", "type", "text", "text", text));
        return true;
    }
    sd_api_fail(e, 400, path, "%s is not a block of a type that is read here: %s", path,
                user ? "text or tool_result" : "text, thinking or tool_use");
    return false;
}

// A turn goes out behind its tools' results; a user's only where there is text.
static void add_turn(json_t *out, parts *p, const char *role, bool user, sd_api_error *e) {
    json_t *turn = json_pack("{s:s}", "role", role);
    json_object_set_new(turn, "content",
                        sd_convert_texts(p->texts, "messages", text_types, between, e));
    if (json_array_size(p->thinking) > 0)
        json_object_set_new(turn, "reasoning_content",
                            sd_convert_texts(p->thinking, "messages", text_types, between, e));
    if (json_array_size(p->calls) > 0) json_object_set(turn, "tool_calls", p->calls);
    if (!user || json_array_size(p->texts) > 0)
        json_array_append_new(out, turn);
    else
        json_decref(turn);
}

static bool add_blocks(json_t *out, const json_t *list, const char *role, const char *path,
                       sd_api_error *e) {
    const bool user = strcmp(role, "assistant") != 0;
    parts p = {json_array(), json_array(), json_array()};
    size_t i;
    json_t *block;
    if (user && json_array_size(list) == 0)
        sd_api_refuse(e, path, "is empty; give at least one block");
    json_array_foreach(list, i, block) {
        char where[160];
        snprintf(where, sizeof where, "%s[%zu]", path, i);
        if (!take_block(&p, out, block, user, where, e)) break;
    }
    if (!e->status) add_turn(out, &p, role, user, e);
    json_decref(p.texts);
    json_decref(p.calls);
    json_decref(p.thinking);
    return e->status == 0;
}

static bool add_message(json_t *out, const json_t *message, size_t i, sd_api_error *e) {
    char path[96];
    snprintf(path, sizeof path, "messages[%zu]", i);
    if (!json_is_object(message)) return sd_api_refuse(e, path, "is not an object");
    const char *role = sd_field_text(message, "role"), *odd = sd_json_odd_number(message);
    const json_t *content = sd_field_get(message, "content");
    if (odd) {
        sd_api_fail(e, 400, path, "%s has the number %.60s, which no 64 bits hold; give a string",
                    path, odd);
        return false;
    }
    bool known = role && (strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0 ||
                          strcmp(role, "system") == 0);
    if (!known) {
        snprintf(path, sizeof path, "messages[%zu].role", i);
        return sd_api_refuse(e, path, "is neither user nor assistant");
    }
    snprintf(path, sizeof path, "messages[%zu].content", i);
    if (content && json_is_array(content)) return add_blocks(out, content, role, path, e);
    if (!content || !sd_json_is_text(content))
        return sd_api_refuse(e, path, "is neither a string nor an array of blocks");
    json_array_append_new(out, json_pack("{s:s, s:O}", "role", role, "content", content));
    return true;
}

static bool convert_messages(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *list = sd_field_get(from, "messages");
    size_t n = json_array_size(list);
    if (!list || !json_is_array(list) || n == 0 || n > SD_API_MAX_MESSAGES) {
        sd_api_fail(e, 400, "messages", "messages is not an array of 1 to %d messages",
                    SD_API_MAX_MESSAGES);
        return false;
    }
    json_t *out = json_array();
    bool ok = add_system(out, sd_field_get(from, "system"), e);
    for (size_t i = 0; ok && i < n; i++) ok = add_message(out, json_array_get(list, i), i, e);
    const json_t *last = json_array_get(out, json_array_size(out) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (ok && role && strcmp(role, "assistant") == 0 && !json_object_get(last, "tool_calls"))
        json_object_set_new(to, "continue_final_message", json_true());
    json_object_set_new(to, "messages", out);
    return ok;
}

// ---- tools

static bool add_tool(json_t *out, sd_api_request *r, const json_t *tool, size_t i,
                     sd_api_error *e) {
    char path[96];
    snprintf(path, sizeof path, "tools[%zu]", i);
    if (!json_is_object(tool)) return sd_api_refuse(e, path, "is not an object");
    const char *type = sd_field_text(tool, "type");
    if (sd_field_get(tool, "type") && (!type || strcmp(type, "custom") != 0)) {
        sd_convert_skip_tool(r, type);
        return true;
    }
    json_t *schema = json_object_get(tool, "input_schema"), *f = json_object();
    json_t *about = json_object_get(tool, "description"), *strict = json_object_get(tool, "strict");
    json_object_set(f, "name", json_object_get(tool, "name"));
    if (about) json_object_set(f, "description", about);
    if (schema) json_object_set(f, "parameters", schema);
    if (strict) json_object_set(f, "strict", strict);
    json_array_append_new(out, json_pack("{s:s, s:o}", "type", "function", "function", f));
    if (!sd_openai_is_tool_name(json_object_get(tool, "name")))
        return sd_api_refuse(e, path, "has no name of 1 to 64 letters, digits, '_' or '-'");
    if (!json_is_object(schema))
        return sd_api_refuse(e, path, "has no input_schema that is an object");
    if (about && !json_is_null(about) && !sd_json_is_text(about))
        return sd_api_refuse(e, path, "has a description that is not a string");
    if (strict && !json_is_null(strict) && !json_is_boolean(strict))
        return sd_api_refuse(e, path, "has a strict that is neither true nor false");
    return true;
}

static bool convert_tools(json_t *to, sd_api_request *r, const json_t *from, sd_api_error *e) {
    const json_t *list = sd_field_get(from, "tools");
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
    bool alone = false;
    if (!choice) return true;
    const char *type = sd_field_text(choice, "type"), *name = sd_field_text(choice, "name");
    if (!type) return sd_api_refuse(e, "tool_choice", "is not an object with a type");
    if (!sd_field_bool(choice, "disable_parallel_tool_use", &alone, e)) return false;
    if (alone) json_object_set_new(to, "parallel_tool_calls", json_false());
    if (strcmp(type, "auto") == 0 || strcmp(type, "none") == 0) {
        json_object_set_new(to, "tool_choice", json_string(type));
    } else if (strcmp(type, "any") == 0) {
        json_object_set_new(to, "tool_choice", json_string("required"));
    } else if (strcmp(type, "tool") == 0 && name) {
        json_object_set_new(
            to, "tool_choice",
            json_pack("{s:s, s:{s:s}}", "type", "function", "function", "name", name));
    } else {
        return sd_api_refuse(e, "tool_choice",
                             "has a type other than auto, any, none, and tool with a name");
    }
    return true;
}

// ---- the rest

static bool convert_thinking(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *thinking = sd_field_get(from, "thinking");
    int64_t budget = -1;
    if (!thinking) return true;
    if (is_type(thinking, "disabled")) {
        json_object_set_new(to, "reasoning_effort", json_string("none"));
        return true;
    }
    if (is_type(thinking, "adaptive") || is_type(thinking, "between_tools")) return true;
    if (!is_type(thinking, "enabled"))
        return sd_api_refuse(e, "thinking",
                             "has a type other than enabled, adaptive, between_tools, disabled");
    if (!sd_field_int(thinking, "budget_tokens", 0, SD_API_MAX_BUDGET, &budget, e)) return false;
    if (budget >= 0) json_object_set_new(to, "reasoning_budget", json_integer(budget));
    return true;
}

static bool convert_format(json_t *to, const json_t *format, const char *path, sd_api_error *e) {
    json_t *schema = json_object_get(format, "schema");
    if (!format) return true;
    if (!is_type(format, "json_schema") || !json_is_object(schema))
        return sd_api_refuse(e, path, "is not {\"type\": \"json_schema\", \"schema\": {...}}");
    json_object_set_new(to, "response_format",
                        json_pack("{s:s, s:{s:s, s:O}}", "type", "json_schema", "json_schema",
                                  "name", "output", "schema", schema));
    return true;
}

static bool convert_output(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *config = sd_field_get(from, "output_config");
    const char *effort = sd_field_text(config, "effort");
    if (config && !json_is_object(config))
        return sd_api_refuse(e, "output_config", "is not an object");
    if (sd_field_get(config, "effort")) {
        static const char *const words[] = {"low", "medium", "high", "xhigh", "max"};
        bool known = false;
        for (int i = 0; effort && i < 5; i++) known |= strcmp(effort, words[i]) == 0;
        if (!known)
            return sd_api_refuse(e, "output_config.effort",
                                 "is not low, medium, high, xhigh or max");
        // Thinking that is switched off stays off.
        if (!json_object_get(to, "reasoning_effort"))
            json_object_set_new(to, "reasoning_effort",
                                json_string(strcmp(effort, "max") == 0 ? "xhigh" : effort));
    }
    const json_t *format = sd_field_get(config, "format");
    return format ? convert_format(to, format, "output_config.format", e)
                  : convert_format(to, sd_field_get(from, "output_format"), "output_format", e);
}

static bool convert_stops(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *list = sd_field_get(from, "stop_sequences");
    json_t *stop;
    size_t i;
    if (!list) return true;
    if (!json_is_array(list) || json_array_size(list) > SD_MAX_STOPS) {
        sd_api_fail(e, 400, "stop_sequences",
                    "stop_sequences is not an array of at most %d strings", SD_MAX_STOPS);
        return false;
    }
    json_array_foreach(list, i, stop) {
        char path[48];
        size_t n = sd_json_is_text(stop) ? json_string_length(stop) : 0;
        snprintf(path, sizeof path, "stop_sequences[%zu]", i);
        if (n == 0 || n > 1024 || strlen(json_string_value(stop)) != n)
            return sd_api_refuse(e, path, "is not a string of 1 to 1024 bytes without NUL");
    }
    json_object_set(to, "stop", (json_t *)(uintptr_t)list);
    return true;
}

static bool convert_length(json_t *to, const json_t *from, sd_api_error *e) {
    int64_t most = 0;
    if (!sd_field_get(from, "max_tokens"))
        return sd_api_refuse(e, "max_tokens", "is missing; give the most tokens of the answer");
    if (!sd_field_int(from, "max_tokens", 1, INT32_MAX, &most, e)) return false;
    // More than any context holds.
    json_object_set_new(to, "max_tokens", json_integer(most < 1 << 24 ? most : 1 << 24));
    return true;
}

static bool convert_user(json_t *to, const json_t *from, sd_api_error *e) {
    const json_t *metadata = sd_field_get(from, "metadata");
    if (metadata && !json_is_object(metadata))
        return sd_api_refuse(e, "metadata", "is not an object");
    const json_t *user = sd_field_get(metadata, "user_id");
    if (!user) return true;
    if (!sd_field_text(metadata, "user_id"))
        return sd_api_refuse(e, "metadata.user_id", "is not a string");
    json_object_set(to, "user", (json_t *)(uintptr_t)user);
    return true;
}

int sd_anthropic_parse(sd_api_request *out, bool counts, const char *body, size_t len,
                       sd_api_error *e) {
    if (sd_api_request_begin(out, SD_API_CHAT, body, len, e) != 0) {
        sd_api_request_free(out);
        return e->status;
    }
    const json_t *from = out->root;
    json_t *to = json_object();
    sd_convert_settings(to, from);
    if (counts) json_object_del(to, "stream");
    bool ok = (counts || convert_length(to, from, e)) && convert_messages(to, from, e) &&
              convert_tools(to, out, from, e) && convert_choice(to, from, e) &&
              convert_thinking(to, from, e) && convert_output(to, from, e) &&
              convert_stops(to, from, e) && convert_user(to, from, e);
    if (!ok) {
        json_decref(to);
        sd_api_request_free(out);
        return e->status;
    }
    if (sd_convert_finish(out, to, e) != 0) return e->status;
    out->budget_is_wish = true;
    return 0;
}
