// The messages of a chat request, as the template will see them but for what is folded later
// (model/dialogue/dialogue.h).
#include "base/json.h"
#include "datasets/read/record_json.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/request.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *sd_openai_skip_volatile_line(const char *text, size_t *len) {
    static const char begin[] = "x-anthropic-billing-header:";
    if (*len < sizeof begin - 1 || strncasecmp(text, begin, sizeof begin - 1) != 0) return text;
    const char *end = memchr(text, '\n', *len);
    const char *rest = end ? end + 1 : text + *len;
    *len -= (size_t)(rest - text);
    return rest;
}

// A text of a message; first: nothing of the message stands before it.
static const char *text_of(const json_t *v, const char *role, bool first, size_t *len) {
    const char *text = json_string_value(v);
    *len = json_string_length(v);
    return first && strcmp(role, "system") == 0 ? sd_openai_skip_volatile_line(text, len) : text;
}

// Content parts become one string: templates of text models take strings.
static json_t *join_parts(const json_t *parts, const char *role, size_t message, sd_api_error *e) {
    sd_buf text = sd_buf_make(16 * 1024 * 1024);
    json_t *out = NULL;
    char param[64];
    size_t i;
    json_t *part;
    json_array_foreach(parts, i, part) {
        snprintf(param, sizeof param, "messages[%zu].content[%zu]", message, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *piece = json_object_get(part, "text");
        if (!type || strcmp(type, "text") != 0 || !sd_json_is_text(piece)) {
            sd_api_fail(
                e, 400, param,
                "%s is not {\"type\": \"text\", \"text\": ...}; this server reads text alone",
                param);
            goto out;
        }
        size_t len;
        const char *add = text_of(piece, role, i == 0, &len);
        if (!sd_buf_add(&text, add, len)) {
            sd_api_fail(e, 500, param, "out of memory");
            goto out;
        }
    }
    out = json_stringn(text.data ? text.data : "", text.len);
    if (!out) sd_api_fail(e, 500, "messages", "out of memory");
out:
    sd_buf_free(&text);
    return out;
}

static json_t *take_content(const json_t *message, const char *role, size_t i, sd_api_error *e) {
    const json_t *content = sd_field_get(message, "content");
    char param[64];
    snprintf(param, sizeof param, "messages[%zu].content", i);
    if (content && json_is_array(content)) return join_parts(content, role, i, e);
    if (content && sd_json_is_text(content)) {
        size_t len;
        const char *text = text_of(content, role, true, &len);
        return json_stringn(text, len);
    }
    if (!content && (strcmp(role, "assistant") == 0 || strcmp(role, "tool") == 0))
        return json_string("");
    sd_api_fail(e, 400, param, "%s is %s; give a string or an array of text parts", param,
                content ? sd_field_type_word(content) : "missing");
    return NULL;
}

// Every field reaches the template, as in transformers; null is absent, and so are no tool calls. The
// reasoning of an assistant's turn has one name for it, whichever of the two it came under.
static json_t *message_with(const json_t *message, const char *role, json_t *content, size_t i,
                            sd_api_error *e) {
    json_t *out = json_object();
    bool ok = json_object_set_new(out, "role", json_string(role)) == 0;
    ok = json_object_set_new(out, "content", content) == 0 && ok;
    const char *key;
    json_t *value, *given = (json_t *)(uintptr_t)message; // the iterator wants it so; only read
    json_object_foreach(given, key, value) {
        if (json_is_null(value) || strcmp(key, "role") == 0 || strcmp(key, "content") == 0 ||
            (strcmp(key, "tool_calls") == 0 && json_array_size(value) == 0))
            continue;
        ok = ok && json_object_set(out, key, value) == 0;
    }
    json_t *reasoning = json_object_get(out, "reasoning");
    if (reasoning && !json_object_get(out, "reasoning_content"))
        ok = ok && json_object_set(out, "reasoning_content", reasoning) == 0;
    if (ok) return out;
    json_decref(out);
    sd_api_fail(e, 500, "messages", "out of memory for message %zu", i);
    return NULL;
}

static json_t *take_message(const json_t *message, size_t i, sd_api_error *e) {
    char param[64];
    snprintf(param, sizeof param, "messages[%zu]", i);
    if (!json_is_object(message)) {
        sd_api_fail(e, 400, param, "%s is %s; give an object", param, sd_field_type_word(message));
        return NULL;
    }
    const json_t *given = json_object_get(message, "role");
    const char *role = json_string_value(given);
    if (role && strlen(role) != json_string_length(given)) role = "with a NUL character";
    if (role && strcmp(role, "developer") == 0) role = "system"; // its newer name in OpenAI's API
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    bool known = false;
    for (int k = 0; role && k < 4; k++) known |= strcmp(role, roles[k]) == 0;
    if (!known) {
        snprintf(param, sizeof param, "messages[%zu].role", i);
        if (role)
            sd_api_fail(e, 400, param,
                        "%s is '%.40s'; give system, developer, user, assistant or tool", param,
                        role);
        else
            sd_api_fail(e, 400, param,
                        "%s is missing; give system, developer, user, assistant or tool", param);
        return NULL;
    }
    const json_t *calls = sd_field_get(message, "tool_calls"),
                 *id = sd_field_get(message, "tool_call_id");
    if (calls && strcmp(role, "assistant") != 0 && json_array_size(calls) > 0) {
        snprintf(param, sizeof param, "messages[%zu].tool_calls", i);
        sd_api_fail(e, 400, param, "%s: only an assistant's message has tool calls", param);
        return NULL;
    }
    if (calls && !sd_openai_calls_check(calls, i, e)) return NULL;
    if (id && !sd_json_is_text(id)) {
        snprintf(param, sizeof param, "messages[%zu].tool_call_id", i);
        sd_api_fail(e, 400, param, "%s is %s; give a string", param, sd_field_type_word(id));
        return NULL;
    }
    const char *odd = sd_json_odd_number(message);
    if (odd) { // the template would write it as something else
        sd_api_fail(e, 400, param, "%s has the number %.60s, which no 64 bits hold; give a string",
                    param, odd);
        return NULL;
    }
    json_t *content = take_content(message, role, i, e);
    return content ? message_with(message, role, content, i, e) : NULL;
}

bool sd_openai_messages_parse(sd_api_request *r, sd_api_error *e) {
    const json_t *list = sd_field_get(r->root, "messages");
    size_t count = json_array_size(list);
    if (!list || !json_is_array(list) || count == 0 || count > SD_API_MAX_MESSAGES) {
        sd_api_fail(e, 400, "messages", "messages is %s; give an array of 1 to %d messages",
                    !list                 ? "missing"
                    : json_is_array(list) ? count ? "too long" : "empty"
                                          : sd_field_type_word(list),
                    SD_API_MAX_MESSAGES);
        return false;
    }
    const json_t *arguments = sd_field_get(r->root, "chat_template_kwargs");
    if (arguments && !json_is_object(arguments)) {
        sd_api_fail(e, 400, "chat_template_kwargs", "chat_template_kwargs is %s; give an object",
                    sd_field_type_word(arguments));
        return false;
    }
    if (json_object_size(arguments) > SD_API_MAX_TEMPLATE_ARGUMENTS) {
        sd_api_fail(e, 400, "chat_template_kwargs",
                    "chat_template_kwargs has %zu names; at most %d are allowed",
                    json_object_size(arguments), SD_API_MAX_TEMPLATE_ARGUMENTS);
        return false;
    }
    const char *odd = arguments ? sd_json_odd_number(arguments) : NULL;
    if (odd) {
        sd_api_fail(e, 400, "chat_template_kwargs",
                    "chat_template_kwargs has the number %.60s, which no 64 bits hold; give a "
                    "string",
                    odd);
        return false;
    }
    if (arguments)
        r->template_arguments = json_incref(json_object_get(r->root, "chat_template_kwargs"));
    r->messages = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *m = take_message(json_array_get(list, i), i, e);
        if (!m && e->status) return false;
        if (json_array_append_new(r->messages, m) != 0) {
            sd_api_fail(e, 500, "messages", "out of memory");
            return false;
        }
    }
    return true;
}
