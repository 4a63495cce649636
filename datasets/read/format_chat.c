// Conversations. Everything that a chat template will see is checked here: templates then find
// strings where they expect strings, and an error names the user's field instead of a line of
// Jinja.
#include "base/json.h"
#include "datasets/read/format_json.h"
#include "datasets/read/format_private.h"
#include "datasets/read/record_json.h"

#include <stdio.h>
#include <string.h>

// The record's own words for a message and its parts.
typedef struct {
    char at[64]; // "messages[3]"
    const char *role, *content;
} words;

static sd_status check_role(const json_t *j, const words *w, sd_error *err) {
    static const char *const known[] = {"system", "developer", "user", "assistant", "tool", NULL};
    if (!json_is_string(j))
        return sd_fail(err, SD_EFORMAT, "%s.%s: is %s, want a string", w->at, w->role,
                       sd_json_type_word(j));
    const char *role = json_string_value(j);
    for (int k = 0; known[k]; k++)
        if (strcmp(role, known[k]) == 0 && json_string_length(j) == strlen(role)) return SD_OK;
    return sd_fail(err, SD_EFORMAT,
                   "%s.%s: is \"%.40s\", want system, developer, user%s, assistant%s or tool",
                   w->at, w->role, role, w->role[0] == 'f' ? " or human" : "",
                   w->role[0] == 'f' ? " or gpt" : "");
}

// OpenAI's content parts: [{"type": "text", "text": "..."}], joined.
static sd_status join_parts(json_t *message, const json_t *parts, const words *w, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(SD_READER_MAX_RECORD);
    size_t k;
    json_t *part;
    json_array_foreach(parts, k, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *t = json_object_get(part, "text");
        SD_CHECK(type && strcmp(type, "text") == 0 && json_is_string(t), err, SD_EFORMAT,
                 "%s.%s[%zu]: is not a text part; only text is supported", w->at, w->content, k);
        SD_CHECK(sd_buf_add(&text, json_string_value(t), json_string_length(t)), err, SD_ENOMEM,
                 "out of memory");
    }
    json_t *joined = json_stringn(text.data ? text.data : "", text.len);
    SD_CHECK(json_object_set_new(message, "content", joined) == 0, err, SD_ENOMEM, "out of memory");
out:
    sd_buf_free(&text);
    return st;
}

// Arguments come as a string of JSON (OpenAI) or as the object itself; templates want the object.
static sd_status check_calls(json_t *message, const json_t *given, const words *w, sd_error *err) {
    sd_status st = SD_OK;
    const json_t *calls;
    json_t *copy = NULL, *call, *arguments = NULL, *inside = NULL;
    char name[96];
    size_t k;
    snprintf(name, sizeof name, "%s.tool_calls", w->at);
    SD_TRY(sd_want_array(&calls, &inside, given, name, err));
    copy = json_deep_copy(calls);
    SD_CHECK_ALLOC(copy, err);
    json_array_foreach(copy, k, call) {
        json_t *function = json_object_get(call, "function");
        if (!function) function = call;
        SD_CHECK(json_is_string(json_object_get(function, "name")), err, SD_EFORMAT,
                 "%s[%zu].function.name: is %s, want a string", name, k,
                 sd_json_type_word(sd_field(function, "name")));
        const json_t *said = json_object_get(function, "arguments");
        if (!json_is_string(said)) continue;
        arguments = sd_json_inside(said);
        SD_CHECK(json_is_object(arguments), err, SD_EFORMAT,
                 "%s[%zu].function.arguments: is a string that is not a JSON object", name, k);
        int bad = json_object_set(function, "arguments", arguments);
        json_decref(arguments);
        arguments = NULL;
        SD_CHECK(bad == 0, err, SD_ENOMEM, "out of memory");
    }
    SD_CHECK(json_object_set(message, "tool_calls", copy) == 0, err, SD_ENOMEM, "out of memory");
out:
    json_decref(arguments);
    json_decref(inside);
    json_decref(copy);
    return st;
}

// A checked copy of one message.
static sd_status add_message(sd_example *ex, const json_t *given, const words *w, sd_error *err) {
    sd_status st = SD_OK;
    json_t *m = NULL;
    size_t i = json_array_size(ex->messages);
    SD_CHECK(json_is_object(given), err, SD_EFORMAT, "%s: is %s, want an object", w->at,
             sd_json_type_word(given));
    const json_t *role = sd_field(given, "role"), *content = sd_field(given, "content");
    const json_t *calls = sd_field(given, "tool_calls");
    SD_TRY(check_role(role, w, err));
    SD_CHECK(json_is_string(content) || json_is_array(content) || (calls && !content), err,
             SD_EFORMAT, "%s.%s: is %s, want a string", w->at, w->content,
             sd_json_type_word(json_object_get(given, "content")));
    m = json_copy((json_t *)(uintptr_t)given);
    SD_CHECK_ALLOC(m, err);
    if (json_is_array(content)) SD_TRY(join_parts(m, content, w, err));
    if (calls) SD_TRY(check_calls(m, calls, w, err));
    bool assistant = strcmp(json_string_value(role), "assistant") == 0;
    SD_TRY(sd_take_weights(m, assistant, w->at, &ex->unweighted[i], err));
    SD_TRY(sd_refuse_odd_numbers(m, w->at, err));
    SD_CHECK(json_array_append(ex->messages, m) == 0, err, SD_ENOMEM, "out of memory");
out:
    json_decref(m);
    return st;
}

// ---- from and value ----------------------------------------------------------------------------

// LLaMA-Factory's turn function_call: its value is {"name", "arguments"} as JSON, or a list of
// them.
static sd_status call_of(json_t *turn, const json_t *value, const words *w, sd_error *err) {
    sd_status st = SD_OK;
    json_t *calls = json_is_string(value) ? sd_json_inside(value) : json_deep_copy(value);
    json_t *list = NULL, *wrapped = json_array(), *one;
    size_t k;
    SD_CHECK(json_is_object(calls) || json_is_array(calls), err, SD_EFORMAT,
             "%s.value: of a function_call, want a JSON object with name and arguments", w->at);
    list = json_is_array(calls) ? json_incref(calls) : json_pack("[O]", calls);
    SD_CHECK_ALLOC(list, err);
    json_array_foreach(list, k, one)
        SD_CHECK(json_array_append_new(
                     wrapped, json_pack("{s:s, s:O}", "type", "function", "function", one)) == 0,
                 err, SD_ENOMEM, "out of memory");
    SD_CHECK(json_object_set_new(turn, "role", json_string("assistant")) == 0 &&
                 json_object_set_new(turn, "content", json_string("")) == 0 &&
                 json_object_set(turn, "tool_calls", wrapped) == 0,
             err, SD_ENOMEM, "out of memory");
out:
    json_decref(calls);
    json_decref(list);
    json_decref(wrapped);
    return st;
}

// {"from", "value", ...} as {"role", "content", ...}, every other field kept; other objects pass
// unchanged and are judged by add_message.
static sd_status from_sharegpt(json_t **out, words *w, const json_t *turn, sd_error *err) {
    static const char *const role[][2] = {
        {"human", "user"},       {"gpt", "assistant"},          {"model", "assistant"},
        {"observation", "tool"}, {"function_response", "tool"},
    };
    sd_status st = SD_OK;
    const json_t *from = sd_field(turn, "from"), *value = sd_field(turn, "value");
    *out = json_copy((json_t *)(uintptr_t)turn);
    SD_CHECK_ALLOC(*out, err);
    if (!from || sd_field(turn, "role")) goto out;
    w->role = "from", w->content = "value";
    json_object_del(*out, "from");
    json_object_del(*out, "value");
    if (json_is_string(from) && strcmp(json_string_value(from), "function_call") == 0) {
        SD_TRY(call_of(*out, value, w, err));
        goto out;
    }
    const json_t *as = from;
    json_t *known = NULL;
    for (size_t k = 0; json_is_string(from) && k < sizeof role / sizeof *role; k++)
        if (strcmp(json_string_value(from), role[k][0]) == 0) as = known = json_string(role[k][1]);
    bool ok = json_object_set(*out, "role", (json_t *)(uintptr_t)as) == 0;
    if (value) ok = json_object_set(*out, "content", (json_t *)(uintptr_t)value) == 0 && ok;
    json_decref(known);
    SD_CHECK(ok, err, SD_ENOMEM, "out of memory");
out:
    return st;
}

// ---- beside the messages -----------------------------------------------------------------------

// A system text beside the list becomes its first message.
static sd_status take_system(sd_example *ex, const json_t *rec, const json_t *list, sd_error *err) {
    sd_status st = SD_OK;
    const json_t *system = sd_field(rec, "system"), *other = sd_field(rec, "system_prompt");
    const char *field = system ? "system" : "system_prompt";
    SD_CHECK(!system || !other || json_equal(system, other), err, SD_EFORMAT,
             "system and system_prompt say different things; keep one of them");
    if (!system) system = other;
    if (!system) return SD_OK;
    SD_CHECK(json_is_string(system), err, SD_EFORMAT, "%s: is %s, want a string", field,
             sd_json_type_word(system));
    if (json_string_length(system) == 0) return SD_OK;
    const json_t *first = json_array_get(list, 0);
    const json_t *role = sd_field(first, "role"), *content = sd_field(first, "content");
    if (!role) role = sd_field(first, "from"), content = sd_field(first, "value");
    const char *r = json_string_value(role);
    if (r && (strcmp(r, "system") == 0 || strcmp(r, "developer") == 0)) {
        SD_CHECK(json_equal(content, system), err, SD_EFORMAT,
                 "%s: says something else than the system turn that the conversation begins with; "
                 "keep one of them",
                 field);
        return SD_OK;
    }
    SD_CHECK(json_array_append_new(
                 ex->messages, json_pack("{s:s, s:O}", "role", "system", "content", system)) == 0,
             err, SD_ENOMEM, "out of memory");
    ex->added = 1;
out:
    return st;
}

sd_status sd_take_tools(sd_example *ex, const json_t *rec, sd_error *err) {
    sd_status st = SD_OK;
    const json_t *tools = sd_field(rec, "tools"), *functions = sd_field(rec, "functions");
    const json_t *kwargs = sd_field(rec, "chat_template_kwargs"), *list;
    const char *field = tools ? "tools" : "functions";
    json_t *inside = NULL, *out = NULL, *one = NULL;
    SD_CHECK(!tools || !functions, err, SD_EFORMAT,
             "tools and functions are both given; keep one of them");
    if (kwargs) {
        ex->kwargs = json_is_string(kwargs) ? sd_json_inside(kwargs)
                                            : json_incref((json_t *)(uintptr_t)kwargs);
        SD_CHECK(json_is_object(ex->kwargs), err, SD_EFORMAT,
                 "chat_template_kwargs: is %s, want an object", sd_json_type_word(kwargs));
        SD_TRY(sd_refuse_odd_numbers(ex->kwargs, "chat_template_kwargs", err));
    }
    if (!tools) tools = functions;
    if (!tools || (json_is_string(tools) && json_string_length(tools) == 0)) goto out;
    SD_TRY(sd_want_array(&list, &inside, tools, field, err));
    out = json_array();
    SD_CHECK_ALLOC(out, err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *given = json_array_get(list, i);
        one =
            json_is_string(given) ? sd_json_inside(given) : json_incref((json_t *)(uintptr_t)given);
        SD_CHECK(json_is_object(one), err, SD_EFORMAT, "%s[%zu]: is %s, want an object", field, i,
                 json_is_string(given) ? "a string that is not a JSON object"
                                       : sd_json_type_word(given));
        json_t *wrapped = field[0] == 'f'
                              ? json_pack("{s:s, s:O}", "type", "function", "function", one)
                              : json_incref(one);
        SD_CHECK(json_array_append_new(out, wrapped) == 0, err, SD_ENOMEM, "out of memory");
        json_decref(one);
        one = NULL;
    }
    SD_TRY(sd_refuse_odd_numbers(out, field, err));
    if (json_array_size(out)) ex->tools = out, out = NULL;
out:
    json_decref(one);
    json_decref(out);
    json_decref(inside);
    return st;
}

sd_status sd_make_messages(sd_example *ex, const json_t *rec, sd_error *err) {
    sd_status st = SD_OK;
    json_t *turn = NULL, *inside = NULL;
    const json_t *list;
    ex->list = sd_field(rec, "messages") ? "messages" : "conversations";
    SD_TRY(sd_want_array(&list, &inside, sd_field(rec, ex->list), ex->list, err));
    size_t n = json_array_size(list);
    SD_CHECK(n > 0, err, SD_EFORMAT, "%s: is empty", ex->list);
    SD_CHECK(n <= SD_MAX_MESSAGES, err, SD_ELIMIT, "%s: %zu messages, at most %d are supported",
             ex->list, n, SD_MAX_MESSAGES);
    ex->messages = json_array();
    ex->unweighted = sd_alloc(n + 1, sizeof(bool));
    SD_CHECK(ex->messages && ex->unweighted, err, SD_ENOMEM, "out of memory");
    SD_TRY(take_system(ex, rec, list, err));
    for (size_t i = 0; i < n; i++) {
        words w = {.role = "role", .content = "content"};
        snprintf(w.at, sizeof w.at, "%s[%zu]", ex->list, i);
        const json_t *given = json_array_get(list, i);
        if (json_is_object(given))
            SD_TRY(from_sharegpt(&turn, &w, given, err));
        else
            turn = json_incref((json_t *)(uintptr_t)given);
        SD_TRY(add_message(ex, turn, &w, err));
        json_decref(turn);
        turn = NULL;
    }
    SD_TRY(sd_take_tools(ex, rec, err));
out:
    json_decref(turn);
    json_decref(inside);
    return st;
}
