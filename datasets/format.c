// Each format names the fields that it needs; a record's format is the one whose fields it has.
// What reaches a chat template is checked here, so that templates see strings where they expect
// strings and an error names the field instead of a line of Jinja.
#include "datasets/format.h"

#include <string.h>

typedef struct {
    sd_data_format format;
    const char *field[2]; // all that are named must be there
} shape;

static const shape shapes[] = {
    {SD_FORMAT_MESSAGES, {"messages", NULL}},
    {SD_FORMAT_MESSAGES, {"conversations", NULL}},
    {SD_FORMAT_ALPACA, {"instruction", "output"}},
    {SD_FORMAT_COMPLETION, {"prompt", "completion"}},
    {SD_FORMAT_TEXT, {"text", NULL}},
};

const char *sd_format_name(sd_data_format f) {
    static const char *const names[] = {"auto", "messages", "alpaca", "completion", "text"};
    return names[f];
}

static const char *type_word(const json_t *j) {
    if (!j) return "missing";
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

static sd_status detect(const json_t *rec, sd_data_format *out, sd_error *err) {
    const shape *found = NULL;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        if (!json_object_get(rec, s->field[0]) ||
            (s->field[1] && !json_object_get(rec, s->field[1])))
            continue;
        if (found && found->format != s->format)
            return sd_fail(err, SD_EFORMAT,
                           "has the fields of both %s (%s) and %s (%s); say which with --format",
                           sd_format_name(found->format), found->field[0],
                           sd_format_name(s->format), s->field[0]);
        found = s;
    }
    if (!found)
        return sd_fail(err, SD_EFORMAT,
                       "has none of the fields messages, conversations, instruction + output, "
                       "prompt + completion, text");
    *out = found->format;
    return SD_OK;
}

static sd_status settle_format(const sd_record *rec, sd_data_format *format, sd_error *err) {
    sd_data_format is = SD_FORMAT_TEXT;
    if (rec->json && *format == SD_FORMAT_AUTO) return detect(rec->json, format, err);
    if (!rec->json) {
        if (*format == SD_FORMAT_AUTO) *format = is;
        return *format == is ? SD_OK
                             : sd_fail(err, SD_EFORMAT, "is a text, but the format is %s",
                                       sd_format_name(*format));
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (shapes[i].format == *format && json_object_get(rec->json, shapes[i].field[0]) &&
            (!shapes[i].field[1] || json_object_get(rec->json, shapes[i].field[1])))
            return SD_OK;
    sd_error why;
    if (detect(rec->json, &is, &why) != SD_OK)
        return sd_fail(err, SD_EFORMAT, "is not of the format %s: it %s", sd_format_name(*format),
                       why.message);
    return sd_fail(err, SD_EFORMAT,
                   "is of the format %s, but the records before it or --format "
                   "say %s; a file holds one format",
                   sd_format_name(is), sd_format_name(*format));
}

// ---- conversations -----------------------------------------------------------------------------

static sd_status check_role(const char *role, size_t i, sd_error *err) {
    static const char *const known[] = {"system", "developer", "user", "assistant", "tool", NULL};
    for (int k = 0; known[k]; k++)
        if (strcmp(role, known[k]) == 0) return SD_OK;
    return sd_fail(err, SD_EFORMAT,
                   "messages[%zu].role: is \"%.40s\", want system, developer, user, assistant or "
                   "tool",
                   i, role);
}

// OpenAI's content parts: [{"type": "text", "text": "..."}], joined.
static sd_status join_parts(json_t *message, const json_t *parts, size_t i, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(SD_READER_MAX_RECORD);
    size_t k;
    json_t *part;
    json_array_foreach(parts, k, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *t = json_object_get(part, "text");
        SD_CHECK(type && strcmp(type, "text") == 0 && json_is_string(t), err, SD_EFORMAT,
                 "messages[%zu].content[%zu]: is not a text part; only text is supported", i, k);
        SD_CHECK_ALLOC(
            sd_buf_add(&text, json_string_value(t), json_string_length(t)) ? &text : NULL, err);
    }
    json_t *joined = json_stringn(text.data ? text.data : "", text.len);
    SD_CHECK(json_object_set_new(message, "content", joined) == 0, err, SD_ENOMEM, "out of memory");
out:
    sd_buf_free(&text);
    return st;
}

// Arguments come as a string of JSON (OpenAI) or as the object itself; templates want the object.
static sd_status check_calls(json_t *message, const json_t *calls, size_t i, sd_error *err) {
    sd_status st = SD_OK;
    json_t *copy = NULL, *call, *arguments = NULL;
    size_t k;
    SD_CHECK(json_is_array(calls), err, SD_EFORMAT,
             "messages[%zu].tool_calls: is %s, want an array", i, type_word(calls));
    copy = json_deep_copy(calls);
    SD_CHECK_ALLOC(copy, err);
    json_array_foreach(copy, k, call) {
        json_t *function = json_object_get(call, "function");
        if (!function) function = call;
        SD_CHECK(json_is_string(json_object_get(function, "name")), err, SD_EFORMAT,
                 "messages[%zu].tool_calls[%zu].function.name: is %s, want a string", i, k,
                 type_word(json_object_get(function, "name")));
        const json_t *given = json_object_get(function, "arguments");
        if (!json_is_string(given)) continue;
        arguments = json_loadb(json_string_value(given), json_string_length(given), 0, NULL);
        SD_CHECK(json_is_object(arguments), err, SD_EFORMAT,
                 "messages[%zu].tool_calls[%zu].function.arguments: is a string that is not a JSON "
                 "object",
                 i, k);
        int bad = json_object_set(function, "arguments", arguments);
        json_decref(arguments);
        arguments = NULL;
        SD_CHECK(bad == 0, err, SD_ENOMEM, "out of memory");
    }
    SD_CHECK(json_object_set(message, "tool_calls", copy) == 0, err, SD_ENOMEM, "out of memory");
out:
    json_decref(arguments);
    json_decref(copy);
    return st;
}

static sd_status check_weight(json_t *message, size_t i, bool *unweighted, sd_error *err) {
    const json_t *w = json_object_get(message, "weight");
    if (!w) return SD_OK;
    if (!json_is_number(w) || (json_number_value(w) != 0 && json_number_value(w) != 1))
        return sd_fail(err, SD_EFORMAT, "messages[%zu].weight: is %s, want 0 or 1", i,
                       json_is_number(w) ? "another number" : type_word(w));
    *unweighted = json_number_value(w) == 0;
    json_object_del(message, "weight");
    return SD_OK;
}

// A checked copy of one message.
static sd_status add_message(sd_example *ex, const json_t *given, size_t i, sd_error *err) {
    sd_status st = SD_OK;
    json_t *m = NULL;
    SD_CHECK(json_is_object(given), err, SD_EFORMAT, "messages[%zu]: is %s, want an object", i,
             type_word(given));
    const json_t *role = json_object_get(given, "role"),
                 *content = json_object_get(given, "content");
    const json_t *calls = json_object_get(given, "tool_calls");
    SD_CHECK(json_is_string(role), err, SD_EFORMAT, "messages[%zu].role: is %s, want a string", i,
             type_word(role));
    SD_TRY(check_role(json_string_value(role), i, err));
    bool calling = calls && !json_is_null(calls);
    SD_CHECK(json_is_string(content) || json_is_array(content) ||
                 (calling && (!content || json_is_null(content))),
             err, SD_EFORMAT, "messages[%zu].content: is %s, want a string", i, type_word(content));
    m = json_copy((json_t *)(uintptr_t)given);
    SD_CHECK_ALLOC(m, err);
    if (json_is_array(content)) SD_TRY(join_parts(m, content, i, err));
    if (calling) SD_TRY(check_calls(m, calls, i, err));
    SD_TRY(check_weight(m, i, &ex->unweighted[i], err));
    SD_CHECK(json_array_append(ex->messages, m) == 0, err, SD_ENOMEM, "out of memory");
out:
    json_decref(m);
    return st;
}

// {"from", "value"} as {"role", "content"}; other objects pass unchanged and are judged by
// add_message.
static json_t *from_sharegpt(const json_t *turn) {
    static const char *const role[][2] = {
        {"human", "user"},          {"user", "user"},     {"gpt", "assistant"},
        {"assistant", "assistant"}, {"system", "system"}, {"observation", "tool"},
        {"tool", "tool"},
    };
    const char *from = json_string_value(json_object_get(turn, "from"));
    json_t *value = json_object_get(turn, "value");
    for (size_t k = 0; from && value && k < sizeof role / sizeof *role; k++)
        if (strcmp(from, role[k][0]) == 0)
            return json_pack("{s:s, s:O}", "role", role[k][1], "content", value);
    if (from && value) return json_pack("{s:s, s:O}", "role", from, "content", value);
    return json_incref((json_t *)(uintptr_t)turn);
}

static sd_status make_messages(sd_example *ex, const json_t *rec, sd_error *err) {
    sd_status st = SD_OK;
    json_t *turn = NULL;
    const char *field = json_object_get(rec, "messages") ? "messages" : "conversations";
    const json_t *list = json_object_get(rec, field), *tools = json_object_get(rec, "tools");
    SD_CHECK(json_is_array(list), err, SD_EFORMAT, "%s: is %s, want an array", field,
             type_word(list));
    size_t n = json_array_size(list);
    SD_CHECK(n > 0, err, SD_EFORMAT, "%s: is empty", field);
    SD_CHECK(n <= SD_MAX_MESSAGES, err, SD_ELIMIT, "%s: %zu messages, at most %d are supported",
             field, n, SD_MAX_MESSAGES);
    ex->messages = json_array();
    ex->unweighted = sd_alloc(n, sizeof(bool));
    SD_CHECK(ex->messages && ex->unweighted, err, SD_ENOMEM, "out of memory");
    bool alias = field[0] == 'c';
    for (size_t i = 0; i < n; i++) {
        const json_t *given = json_array_get(list, i);
        turn = alias ? from_sharegpt(given) : json_incref((json_t *)(uintptr_t)given);
        SD_CHECK_ALLOC(turn, err);
        SD_TRY(add_message(ex, turn, i, err));
        json_decref(turn);
        turn = NULL;
    }
    if (tools && !json_is_null(tools)) {
        SD_CHECK(json_is_array(tools), err, SD_EFORMAT, "tools: is %s, want an array",
                 type_word(tools));
        if (json_array_size(tools)) ex->tools = json_incref((json_t *)(uintptr_t)tools);
    }
out:
    json_decref(turn);
    return st;
}

static sd_status want_string(const json_t *rec, const char *field, const char **s, size_t *len,
                             bool optional, sd_error *err) {
    const json_t *j = json_object_get(rec, field);
    *s = "";
    *len = 0;
    if (optional && (!j || json_is_null(j))) return SD_OK;
    if (!json_is_string(j))
        return sd_fail(err, SD_EFORMAT, "%s: is %s, want a string", field, type_word(j));
    *s = json_string_value(j);
    *len = json_string_length(j);
    return SD_OK;
}

static sd_status make_alpaca(sd_example *ex, const json_t *rec, sd_error *err) {
    sd_status st = SD_OK;
    const char *instruction, *input, *output, *system;
    size_t n_instruction, n_input, n_output, n_system;
    sd_buf question = sd_buf_make(SD_READER_MAX_RECORD);
    SD_TRY(want_string(rec, "instruction", &instruction, &n_instruction, false, err));
    SD_TRY(want_string(rec, "input", &input, &n_input, true, err));
    SD_TRY(want_string(rec, "output", &output, &n_output, false, err));
    SD_TRY(want_string(rec, "system", &system, &n_system, true, err));
    bool ok = sd_buf_add(&question, instruction, n_instruction);
    if (n_input) ok = ok && sd_buf_adds(&question, "\n\n") && sd_buf_add(&question, input, n_input);
    ex->unweighted = sd_alloc(3, sizeof(bool));
    ex->messages = json_array();
    ok = ok && ex->unweighted && ex->messages;
    if (ok && n_system)
        ok = json_array_append_new(ex->messages, json_pack("{s:s, s:s%}", "role", "system",
                                                           "content", system, n_system)) == 0;
    ok = ok && json_array_append_new(
                   ex->messages, json_pack("{s:s, s:s%}", "role", "user", "content",
                                           question.data ? question.data : "", question.len)) == 0;
    ok = ok && json_array_append_new(ex->messages, json_pack("{s:s, s:s%}", "role", "assistant",
                                                             "content", output, n_output)) == 0;
    SD_CHECK(ok, err, SD_ENOMEM, "out of memory");
out:
    sd_buf_free(&question);
    return st;
}

static sd_status join_texts(sd_example *ex, const char *a, size_t na, const char *b, size_t nb,
                            sd_error *err) {
    ex->text = malloc(na + nb + 1);
    if (!ex->text) return sd_fail(err, SD_ENOMEM, "out of memory");
    if (na) memcpy(ex->text, a, na);
    if (nb) memcpy(ex->text + na, b, nb);
    ex->text[na + nb] = '\0';
    ex->prompt_len = na;
    ex->len = na + nb;
    return SD_OK;
}

sd_status sd_example_make(sd_example *ex, const sd_record *rec, sd_data_format *format,
                          sd_error *err) {
    sd_status st = SD_OK;
    const char *a, *b;
    size_t na, nb;
    *ex = (sd_example){0};
    SD_TRY(settle_format(rec, format, err));
    switch (*format) {
    case SD_FORMAT_MESSAGES:
        SD_TRY(make_messages(ex, rec->json, err));
        break;
    case SD_FORMAT_ALPACA:
        SD_TRY(make_alpaca(ex, rec->json, err));
        break;
    case SD_FORMAT_COMPLETION:
        ex->kind = SD_EXAMPLE_COMPLETION;
        SD_TRY(want_string(rec->json, "prompt", &a, &na, false, err));
        SD_TRY(want_string(rec->json, "completion", &b, &nb, false, err));
        SD_TRY(join_texts(ex, a, na, b, nb, err));
        break;
    default:
        ex->kind = SD_EXAMPLE_TEXT;
        if (rec->json) {
            SD_TRY(want_string(rec->json, "text", &a, &na, false, err));
            SD_TRY(join_texts(ex, "", 0, a, na, err));
        } else {
            SD_TRY(join_texts(ex, "", 0, rec->bytes, rec->len, err));
        }
    }
out:
    return st;
}

void sd_example_free(sd_example *ex) {
    json_decref(ex->messages);
    json_decref(ex->tools);
    free(ex->unweighted);
    free(ex->text);
    *ex = (sd_example){0};
}
