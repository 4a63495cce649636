// A conversation as the template takes it: a new list, whose messages are made anew only where they change.
#include "base/json.h"
#include "base/memory.h"
#include "model/dialogue/dialogue.h"

#include <string.h>

enum { MAX_TEXT = 64 << 20 };

typedef struct {
    const sd_dialogue *d;
    const json_t *messages;
    json_t *out;
    sd_buf text;
    bool lost;        // memory was short
    bool joining;     // a user's turn is being made, which is not in out yet
    json_t *user;     // it, but for its content
    sd_buf user_text; // that
} folding;

static const char *role_of(const json_t *m) {
    const char *r = json_string_value(json_object_get(m, "role"));
    return r ? r : "";
}

static void add(folding *f, const char *s) {
    if (!sd_buf_adds(&f->text, s)) f->lost = true;
}

static void add_string(folding *f, const json_t *s) {
    if (json_is_string(s) && !sd_buf_add(&f->text, json_string_value(s), json_string_length(s)))
        f->lost = true;
}

static void add_json(folding *f, const json_t *v) {
    char *text = NULL;
    sd_error err;
    if (sd_json_dump(&text, v, JSON_ENCODE_ANY, &err) != SD_OK)
        f->lost = true;
    else
        add(f, text);
    free(text);
}

static json_t *take_text(folding *f) {
    json_t *s = json_stringn(f->text.data ? f->text.data : "", f->text.len);
    if (!s) f->lost = true;
    sd_buf_clear(&f->text);
    return s;
}

// The user's turn that is being joined goes out: something else follows.
static void flush(folding *f) {
    if (!f->joining) return;
    f->joining = false;
    json_t *text = json_stringn(f->user_text.data ? f->user_text.data : "", f->user_text.len);
    sd_buf_clear(&f->user_text);
    if (json_object_set_new(f->user, "content", text) != 0 ||
        json_array_append_new(f->out, f->user) != 0)
        f->lost = true;
    f->user = NULL;
}

static void append(folding *f, json_t *m) {
    flush(f);
    if (!m || json_array_append_new(f->out, m) != 0) f->lost = true;
}

// ---- a user's turn out of something else, joined with those beside it

static void join(folding *f, const char *text, size_t len) {
    if ((f->user_text.len && !sd_buf_adds(&f->user_text, "\n\n")) ||
        !sd_buf_add(&f->user_text, text, len))
        f->lost = true;
}

static void join_content(folding *f, const json_t *m) {
    const json_t *content = json_object_get(m, "content");
    if (json_string_length(content))
        join(f, json_string_value(content), json_string_length(content));
}

// f->text holds such a turn.
static void add_folded(folding *f) {
    if (!f->joining) {
        size_t n = json_array_size(f->out);
        const json_t *last = n ? json_array_get(f->out, n - 1) : NULL;
        bool user = last && strcmp(role_of(last), "user") == 0;
        f->user = user ? json_copy((json_t *)(uintptr_t)last) : json_pack("{s:s}", "role", "user");
        f->joining = f->user != NULL;
        if (!f->user) f->lost = true;
        if (user) join_content(f, last);
        if (user && json_array_remove(f->out, n - 1) != 0) f->lost = true;
    }
    if (f->text.len) join(f, f->text.data, f->text.len);
    sd_buf_clear(&f->text);
}

static void add_plain(folding *f, const json_t *m) {
    if (f->joining && strcmp(role_of(m), "user") == 0)
        join_content(f, m);
    else
        append(f, json_incref((json_t *)(uintptr_t)m));
}

// ---- calls

static const json_t *function_of(const json_t *call) {
    return json_object_get(call, "function");
}

// Arguments as an object; new.
static json_t *arguments_object(folding *f, const json_t *arguments) {
    json_t *v = NULL;
    sd_error err;
    if (json_is_object(arguments)) return json_incref((json_t *)(uintptr_t)arguments);
    const char *text = json_string_value(arguments);
    size_t len = json_string_length(arguments);
    if (text && len && sd_json_load(&v, text, len, JSON_ALLOW_NUL, NULL, &err) != SD_OK)
        f->lost = true;
    if (json_is_object(v)) return v;
    json_decref(v);
    if (!text || len == 0) return json_object();
    return json_pack("{s:s%}", "arguments", text, len);
}

static json_t *arguments_text(folding *f, const json_t *arguments) {
    if (json_is_string(arguments) && json_string_length(arguments))
        return json_incref((json_t *)(uintptr_t)arguments);
    if (!json_is_object(arguments)) return json_string("{}");
    add_json(f, arguments);
    return take_text(f);
}

// The last nine letters and digits, behind zeros where there are fewer.
static json_t *short_id(const json_t *id) {
    char out[10] = "000000000";
    const char *s = json_string_value(id);
    int at = 9;
    for (size_t i = s ? strlen(s) : 0; i > 0 && at > 0; i--) {
        char c = s[i - 1];
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            out[--at] = c;
    }
    return json_string(out);
}

static json_t *id_for(const folding *f, const json_t *id) {
    if (f->d->short_ids) return short_id(id);
    return id ? json_incref((json_t *)(uintptr_t)id) : json_string("");
}

static json_t *call_for(folding *f, const json_t *call) {
    const json_t *fn = function_of(call), *given = json_object_get(fn, "arguments");
    json_t *arguments =
        f->d->text_arguments ? arguments_text(f, given) : arguments_object(f, given);
    return json_pack("{s:o, s:s, s:{s:O, s:o}}", "id", id_for(f, json_object_get(call, "id")),
                     "type", "function", "function", "name", json_object_get(fn, "name"),
                     "arguments", arguments);
}

// How a call is written where the template writes none: before the name, before the arguments, behind them.
typedef struct {
    const char *before, *between, *behind;
} call_form;

static call_form form_of(sd_tool_format format) {
    switch (format) {
    case SD_TOOL_GEMMA:
        return (call_form){"```tool_code\n{\"name\": ", ", \"parameters\": ", "}\n```"};
    case SD_TOOL_LLAMA3:
        return (call_form){"{\"name\": ", ", \"parameters\": ", "}"};
    case SD_TOOL_MISTRAL:
        return (call_form){"[TOOL_CALLS][{\"name\": ", ", \"arguments\": ", "}]"};
    case SD_TOOL_PHI4:
        return (call_form){"<|tool_call|>[{\"name\": ", ", \"arguments\": ", "}]<|/tool_call|>"};
    default:
        return (call_form){"<tool_call>\n{\"name\": ", ", \"arguments\": ", "}\n</tool_call>"};
    }
}

static void write_call(folding *f, const json_t *call) {
    const json_t *fn = function_of(call);
    call_form form = form_of(f->d->format);
    json_t *arguments = arguments_object(f, json_object_get(fn, "arguments"));
    if (f->text.len) add(f, "\n");
    add(f, form.before);
    add_json(f, json_object_get(fn, "name"));
    add(f, form.between);
    add_json(f, arguments);
    add(f, form.behind);
    json_decref(arguments);
}

// Harmony's template takes one text in front of a call: the reasoning, with the content behind it.
static void one_analysis(folding *f, json_t *turn) {
    const json_t *reasoning = json_object_get(turn, "reasoning_content"),
                 *content = json_object_get(turn, "content");
    if (!json_string_length(reasoning)) return;
    add_string(f, reasoning);
    if (json_string_length(content)) add(f, "\n\n");
    add_string(f, content);
    if (json_object_set_new(turn, "content", take_text(f)) != 0) f->lost = true;
    json_object_del(turn, "reasoning_content");
    json_object_del(turn, "reasoning");
    json_object_del(turn, "thinking");
}

// A copy of an assistant's turn with `calls` (owned; NULL: none) and the text (owned; NULL: its own).
static json_t *turn_with(folding *f, const json_t *m, json_t *calls, json_t *content) {
    json_t *copy = json_copy((json_t *)(uintptr_t)m);
    if (!copy) f->lost = true;
    if (calls && f->d->format == SD_TOOL_HARMONY) one_analysis(f, copy);
    json_object_del(copy, "tool_calls");
    if (calls && json_object_set_new(copy, "tool_calls", calls) != 0) f->lost = true;
    if (content && json_object_set_new(copy, "content", content) != 0) f->lost = true;
    return copy;
}

// Whether the call has this id; both without one count as the same.
static bool same_id(const json_t *a, const json_t *b) {
    return a && b ? json_equal(a, b) : !a && !b;
}

// The name of the call that a result answers, in the last turn with calls before message i; NULL: none.
static const json_t *name_of_result(const folding *f, size_t i, const json_t *result) {
    const json_t *id = json_object_get(result, "tool_call_id");
    while (i-- > 0) {
        const json_t *calls = json_object_get(json_array_get(f->messages, i), "tool_calls");
        size_t k;
        json_t *call;
        json_array_foreach(calls, k,
                           call) if (same_id(json_object_get(call, "id"),
                                             id)) return json_object_get(function_of(call), "name");
        if (calls) return NULL;
    }
    return NULL;
}

static void add_result(folding *f, size_t i, const json_t *m) {
    if (!f->d->history) {
        add(f, "<tool_response>\n");
        add_string(f, json_object_get(m, "content"));
        add(f, "\n</tool_response>");
        add_folded(f);
        return;
    }
    json_t *copy = json_copy((json_t *)(uintptr_t)m);
    const json_t *name = name_of_result(f, i, m);
    if (!copy) f->lost = true;
    if (name && !json_object_get(m, "name") &&
        json_object_set(copy, "name", (json_t *)(uintptr_t)name) != 0)
        f->lost = true;
    if (json_object_set_new(copy, "tool_call_id", id_for(f, json_object_get(m, "tool_call_id"))) !=
        0)
        f->lost = true;
    append(f, copy);
}

// The results behind an assistant's turn at i; the number of them.
static size_t count_results(const folding *f, size_t i) {
    size_t n = 0;
    while (strcmp(role_of(json_array_get(f->messages, i + 1 + n)), "tool") == 0) n++;
    return n;
}

// Calls one by one, each with its result behind it. Results of no call come last.
static void split_calls(folding *f, size_t i, const json_t *m, const json_t *calls) {
    size_t n = count_results(f, i), k, r;
    json_t *call;
    char *used = sd_alloc(n + 1, 1);
    if (!used) {
        f->lost = true;
        return;
    }
    json_array_foreach(calls, k, call) {
        append(f, turn_with(f, m, json_pack("[o]", call_for(f, call)), k ? json_string("") : NULL));
        for (r = 0; r < n; r++) {
            const json_t *result = json_array_get(f->messages, i + 1 + r);
            if (used[r] ||
                !same_id(json_object_get(result, "tool_call_id"), json_object_get(call, "id")))
                continue;
            used[r] = 1;
            add_result(f, i + 1 + r, result);
            break;
        }
    }
    for (r = 0; r < n; r++)
        if (!used[r]) add_result(f, i + 1 + r, json_array_get(f->messages, i + 1 + r));
    free(used);
}

// How many of the following messages were taken along.
static size_t add_calls(folding *f, size_t i, const json_t *m, const json_t *calls) {
    size_t k;
    json_t *call, *list = NULL;
    if (!f->d->history) {
        add_string(f, json_object_get(m, "content"));
        json_array_foreach(calls, k, call) write_call(f, call);
        append(f, turn_with(f, m, NULL, take_text(f)));
        return 0;
    }
    if (f->d->one_call && json_array_size(calls) > 1) {
        split_calls(f, i, m, calls);
        return count_results(f, i);
    }
    list = json_array();
    json_array_foreach(calls, k, call) if (json_array_append_new(list, call_for(f, call)) != 0)
        f->lost = true;
    append(f, turn_with(f, m, list, NULL));
    return 0;
}

// ---- tools that the template does not write

static void describe_tools(folding *f, const json_t *tools) {
    call_form form = form_of(f->d->format);
    size_t i;
    json_t *tool;
    add(f, "You may call one or more of these functions to answer. Each is described by a line of "
           "JSON:\n");
    json_array_foreach(tools, i, tool) {
        add_json(f, function_of(tool));
        add(f, "\n");
    }
    add(f, "To call a function, write its name and its arguments as JSON in exactly this form, and "
           "nothing "
           "behind it:\n");
    add(f, form.before);
    add(f, "NAME");
    add(f, form.between);
    add(f, "{ARGUMENTS}");
    add(f, form.behind);
}

// The text that stands before everything: a system turn of its own, joined with the first, or in front of
// the user's. take: the first message is a system turn, whose text is to be in it.
static void add_head(folding *f, const json_t *first, const json_t *tools) {
    if (first) add_string(f, json_object_get(first, "content"));
    if (first && tools) add(f, "\n\n");
    if (tools) describe_tools(f, tools);
    if (f->d->system)
        append(f, first ? turn_with(f, first, NULL, take_text(f))
                        : json_pack("{s:s, s:o}", "role", "system", "content", take_text(f)));
    else
        add_folded(f);
}

sd_status sd_dialogue_fold(json_t **out, const sd_dialogue *d, const json_t *messages,
                           const json_t *tools, sd_error *err) {
    sd_status st = SD_OK;
    folding f = {.d = d,
                 .messages = messages,
                 .out = json_array(),
                 .text = sd_buf_make(MAX_TEXT),
                 .user_text = sd_buf_make(MAX_TEXT)};
    const json_t *first = json_array_get(messages, 0);
    bool begins = strcmp(role_of(first), "system") == 0;
    size_t n = json_array_size(messages), i = begins ? 1 : 0;
    if (json_array_size(tools) == 0 || d->tools) tools = NULL;
    // A system turn alone goes to a template as it is, whatever it takes: it may say what is wrong.
    if (tools || (begins && !d->system && n > 1))
        add_head(&f, begins ? first : NULL, tools);
    else
        i = 0;
    for (; i < n && !f.lost; i++) {
        const json_t *m = json_array_get(messages, i), *calls = json_object_get(m, "tool_calls");
        const char *role = role_of(m);
        if (strcmp(role, "tool") == 0) {
            add_result(&f, i, m);
        } else if (json_array_size(calls) > 0) {
            i += add_calls(&f, i, m, calls);
        } else if (i > 0 && strcmp(role, "system") == 0 && !d->late_system) {
            add_string(&f, json_object_get(m, "content"));
            add_folded(&f);
        } else {
            add_plain(&f, m);
        }
    }
    flush(&f);
    SD_CHECK(f.out && !f.lost && !sd_memory_lost(), err, SD_ENOMEM,
             "out of memory for the conversation");
    *out = f.out, f.out = NULL;
out:
    json_decref(f.out);
    json_decref(f.user);
    sd_buf_free(&f.text);
    sd_buf_free(&f.user_text);
    return st;
}
