// Tools in a chat request: what is offered, what must be called, and calls in the history. OpenAI's shapes.

#include "base/json.h"
#include "base/memory.h"
#include "datasets/read/record_json.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/request.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *o, const char *key) {
    const json_t *v = sd_field_get(o, key);
    return v && sd_json_is_text(v) && strlen(json_string_value(v)) == json_string_length(v)
               ? json_string_value(v)
               : NULL;
}

bool sd_openai_is_tool_name(const json_t *v) {
    const char *s = v && sd_json_is_text(v) ? json_string_value(v) : "";
    size_t n = strlen(s);
    return n >= 1 && n == json_string_length(v) && n <= SD_API_MAX_TOOL_NAME &&
           strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

static bool check_name(const json_t *function, const char *param, sd_api_error *e) {
    if (sd_openai_is_tool_name(json_object_get(function, "name"))) return true;
    sd_api_fail(e, 400, param, "%s.name is not a name of 1 to %d letters, digits, '_' or '-'",
                param, SD_API_MAX_TOOL_NAME);
    return false;
}

static bool is_function(const json_t *v) {
    const char *type = text_of(v, "type");
    return type && strcmp(type, "function") == 0 && json_is_object(json_object_get(v, "function"));
}

static bool check_tool(sd_api_request *r, const json_t *tool, size_t i, sd_api_error *e) {
    char param[64];
    snprintf(param, sizeof param, "tools[%zu]", i);
    if (!json_is_object(tool) || !is_function(tool)) {
        sd_api_fail(e, 400, param,
                    "%s is not {\"type\": \"function\", \"function\": {...}}, the one kind of tool "
                    "there is",
                    param);
        return false;
    }
    const json_t *f = json_object_get(tool, "function"),
                 *parameters = sd_field_get(f, "parameters");
    snprintf(param, sizeof param, "tools[%zu].function", i);
    bool strict = false;
    const char *description = NULL;
    if (!check_name(f, param, e) || !sd_field_bool(f, "strict", &strict, e) ||
        !sd_field_string(f, "description", &description, e))
        return false;
    if (parameters && !json_is_object(parameters)) {
        sd_api_fail(e, 400, param, "%s.parameters is %s; give a JSON schema", param,
                    sd_field_type_word(parameters));
        return false;
    }
    for (size_t k = 0; k < i; k++) {
        const json_t *other = json_object_get(json_array_get(r->tools, k), "function");
        if (!json_equal(json_object_get(other, "name"), json_object_get(f, "name"))) continue;
        sd_api_fail(e, 400, param, "%s: the name '%s' is taken by tools[%zu]", param,
                    text_of(f, "name"), k);
        return false;
    }
    r->strict |= strict;
    return true;
}

static bool parse_list(sd_api_request *r, sd_api_error *e) {
    const json_t *list = sd_field_get(r->root, "tools");
    if (!list) return true;
    if (!json_is_array(list) || json_array_size(list) > SD_API_MAX_TOOLS) {
        sd_api_fail(e, 400, "tools", "tools is %s; give an array of at most %d functions",
                    json_is_array(list) ? "too long" : sd_field_type_word(list), SD_API_MAX_TOOLS);
        return false;
    }
    if (json_array_size(list) == 0) return true;
    const char *odd = sd_json_odd_number(list);
    if (odd) {
        sd_api_fail(e, 400, "tools",
                    "tools has the number %.60s, which no 64 bits hold; give a string", odd);
        return false;
    }
    char *text = NULL;
    sd_error err;
    if (sd_json_dump(&text, list, JSON_COMPACT, &err) != SD_OK) {
        sd_api_fail(e, 500, "tools", "out of memory");
        return false;
    }
    r->tools_bytes = strlen(text);
    free(text);
    if (r->tools_bytes > SD_API_MAX_TOOLS_BYTES) {
        sd_api_fail(e, 400, "tools", "tools has %zu bytes; at most %d are possible", r->tools_bytes,
                    SD_API_MAX_TOOLS_BYTES);
        return false;
    }
    r->tools = json_incref(json_object_get(r->root, "tools"));
    size_t i;
    json_t *tool;
    json_array_foreach(r->tools, i, tool) if (!check_tool(r, tool, i, e)) return false;
    return true;
}

// The one tool that must be called.
static bool parse_named(sd_api_request *r, const json_t *choice, sd_api_error *e) {
    const json_t *f = json_object_get(choice, "function");
    size_t i;
    json_t *tool;
    if (!json_is_object(choice) || !is_function(choice) || !text_of(f, "name")) {
        sd_api_fail(e, 400, "tool_choice",
                    "tool_choice is neither \"none\", \"auto\" or \"required\" nor {\"type\": "
                    "\"function\", "
                    "\"function\": {\"name\": ...}}");
        return false;
    }
    json_array_foreach(r->tools, i, tool) {
        if (!json_equal(json_object_get(json_object_get(tool, "function"), "name"),
                        json_object_get(f, "name")))
            continue;
        r->tool_choice = SD_API_TOOL_NAMED;
        r->tool_index = (int)i;
        return true;
    }
    sd_api_fail(e, 400, "tool_choice", "tool_choice names '%.64s', which is none of the tools",
                text_of(f, "name"));
    return false;
}

static bool parse_choice(sd_api_request *r, sd_api_error *e) {
    const json_t *choice = sd_field_get(r->root, "tool_choice");
    const char *word = text_of(r->root, "tool_choice");
    r->tool_choice = r->tools ? SD_API_TOOL_AUTO : SD_API_TOOL_NONE;
    if (!choice) return true;
    if (word && strcmp(word, "none") == 0) {
        r->tool_choice = SD_API_TOOL_NONE;
        return true;
    }
    bool automatic = word && strcmp(word, "auto") == 0;
    if (!r->tools && !automatic) {
        sd_api_fail(e, 400, "tool_choice", "tool_choice is given without tools");
        return false;
    }
    if (automatic) return true;
    if (!word || strcmp(word, "required") != 0) return parse_named(r, choice, e);
    r->tool_choice = SD_API_TOOL_REQUIRED;
    return true;
}

// OpenAI's word is an argument of the template; "none" switches thinking off, unless chat_template_kwargs says
// otherwise.
static bool parse_effort(sd_api_request *r, sd_api_error *e) {
    static const char *const words[] = {"none", "minimal", "low", "medium", "high", "xhigh"};
    const char *effort = NULL;
    bool known = false;
    if (!sd_field_string(r->root, "reasoning_effort", &effort, e)) return false;
    for (int i = 0; effort && i < 6; i++) known |= strcmp(effort, words[i]) == 0;
    if (!effort) return true;
    if (!known) {
        sd_api_fail(e, 400, "reasoning_effort",
                    "reasoning_effort is '%.40s'; give none, minimal, low, medium, high or xhigh",
                    effort);
        return false;
    }
    json_t *more = r->template_arguments ? json_copy(r->template_arguments) : json_object();
    bool ok = more != NULL;
    if (ok && !json_object_get(more, "reasoning_effort"))
        ok = json_object_set_new(more, "reasoning_effort", json_string(effort)) == 0;
    if (ok && strcmp(effort, "none") == 0 && !json_object_get(more, "enable_thinking"))
        ok = json_object_set_new(more, "enable_thinking", json_false()) == 0;
    json_decref(r->template_arguments);
    r->template_arguments = more;
    if (!ok) sd_api_fail(e, 500, "reasoning_effort", "out of memory");
    return ok;
}

static bool take_budget(sd_api_request *r, const json_t *from, const char *key, const char *param,
                        sd_api_error *e) {
    int64_t budget = -1;
    if (!sd_field_get(from, key)) return true;
    if (!sd_field_int(from, key, -1, SD_API_MAX_BUDGET, &budget, e)) return false;
    if (r->reasoning_param && r->reasoning_budget != (int)budget) {
        sd_api_fail(e, 400, param, "%s is %d and %s %d; give one of them", param, (int)budget,
                    r->reasoning_param, r->reasoning_budget);
        return false;
    }
    r->reasoning_budget = (int)budget;
    r->reasoning_param = param;
    return true;
}

bool sd_openai_reasoning_parse(sd_api_request *r, sd_api_error *e) {
    // llama-server's, vLLM's and Qwen's, and others that clients send.
    static const char *const names[] = {"reasoning_budget",      "reasoning_budget_tokens",
                                        "thinking_budget",       "thinking_budget_tokens",
                                        "thinking_token_budget", "max_thinking_tokens"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!take_budget(r, r->root, names[i], names[i], e)) return false;
    // The template gets it as well.
    const json_t *more = sd_field_get(r->root, "chat_template_kwargs");
    if (json_is_integer(sd_field_get(more, "thinking_budget")) &&
        !take_budget(r, more, "thinking_budget", "chat_template_kwargs.thinking_budget", e))
        return false;
    if (r->kind == SD_API_CHAT || r->reasoning_budget < 0) return true;
    sd_api_fail(e, 400, r->reasoning_param,
                "%s: a completion has no reasoning that could be bounded; use /v1/chat/completions",
                r->reasoning_param);
    return false;
}

bool sd_openai_tools_parse(sd_api_request *r, sd_api_error *e) {
    r->parallel_calls = true;
    return parse_list(r, e) && parse_choice(r, e) &&
           sd_field_bool(r->root, "parallel_tool_calls", &r->parallel_calls, e) &&
           parse_effort(r, e);
}

bool sd_openai_calls_check(const json_t *calls, size_t message, sd_api_error *e) {
    char param[80];
    snprintf(param, sizeof param, "messages[%zu].tool_calls", message);
    if (!json_is_array(calls) || json_array_size(calls) > SD_API_MAX_TOOLS) {
        sd_api_fail(e, 400, param, "%s is %s; give an array of at most %d calls", param,
                    json_is_array(calls) ? "too long" : sd_field_type_word(calls),
                    SD_API_MAX_TOOLS);
        return false;
    }
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call) {
        const json_t *f = json_object_get(call, "function"), *id = sd_field_get(call, "id"),
                     *arguments = sd_field_get(f, "arguments");
        snprintf(param, sizeof param, "messages[%zu].tool_calls[%zu]", message, i);
        if (!json_is_object(call) || !json_is_object(f) || (id && !sd_json_is_text(id)) ||
            (arguments && !sd_json_is_text(arguments) && !json_is_object(arguments))) {
            sd_api_fail(
                e, 400, param,
                "%s is not {\"id\": ..., \"type\": \"function\", \"function\": {\"name\": ..., "
                "\"arguments\": a string}}",
                param);
            return false;
        }
        snprintf(param, sizeof param, "messages[%zu].tool_calls[%zu].function", message, i);
        const char *name = text_of(f, "name");
        if (!name || !*name || strlen(name) > 4 * SD_API_MAX_TOOL_NAME) {
            sd_api_fail(e, 400, param, "%s.name is not a name", param);
            return false;
        }
    }
    return true;
}
