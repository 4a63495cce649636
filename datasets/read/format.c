// From a record to an example: alpaca, completions and texts here, conversations in format_chat.c.
#include "datasets/read/format.h"

#include "base/json.h"
#include "datasets/read/format_json.h"
#include "datasets/read/format_private.h"
#include "datasets/read/record_json.h"

#include <string.h>

static sd_status want_string(const json_t *rec, const char *field, const char **s, size_t *len,
                             bool optional, sd_error *err) {
    const json_t *j = sd_field(rec, field);
    const char *odd = sd_json_odd_number(j);
    *s = "";
    *len = 0;
    if (optional && !j) return SD_OK;
    if (!json_is_string(j) || odd)
        return sd_fail(err, SD_EFORMAT, "%s: is %s, want a string%s", field,
                       odd ? "a number" : sd_json_type_word(j),
                       json_is_array(j) ? "; a conversation goes under messages" : "");
    *s = json_string_value(j);
    *len = json_string_length(j);
    return SD_OK;
}

static bool add_turn(sd_example *ex, const char *role, const char *text, size_t len) {
    return json_array_append_new(ex->messages,
                                 json_pack("{s:s, s:s%}", "role", role, "content", text, len)) == 0;
}

// [[question, answer], ...]: turns before the instruction, learnt like every other answer.
static sd_status add_history(sd_example *ex, const json_t *history, sd_error *err) {
    sd_status st = SD_OK;
    for (size_t i = 0; i < json_array_size(history); i++) {
        const json_t *pair = json_array_get(history, i);
        const json_t *q = json_array_get(pair, 0), *a = json_array_get(pair, 1);
        SD_CHECK(json_array_size(pair) == 2 && json_is_string(q) && json_is_string(a), err,
                 SD_EFORMAT, "history[%zu]: is no pair of strings, a question and its answer", i);
        SD_CHECK(add_turn(ex, "user", json_string_value(q), json_string_length(q)) &&
                     add_turn(ex, "assistant", json_string_value(a), json_string_length(a)),
                 err, SD_ENOMEM, "out of memory");
    }
out:
    return st;
}

static sd_status make_alpaca(sd_example *ex, const json_t *rec, sd_error *err) {
    sd_status st = SD_OK;
    const char *instruction, *input, *output, *system;
    size_t n_instruction, n_input, n_output, n_system;
    const json_t *given = sd_field(rec, "history"), *history = NULL;
    json_t *inside = NULL;
    sd_buf question = sd_buf_make(SD_READER_MAX_RECORD);
    ex->list = "turns";
    SD_TRY(want_string(rec, "instruction", &instruction, &n_instruction, false, err));
    SD_TRY(want_string(rec, "input", &input, &n_input, true, err));
    SD_TRY(want_string(rec, "output", &output, &n_output, false, err));
    const char *field = sd_field(rec, "system") ? "system" : "system_prompt";
    SD_TRY(want_string(rec, field, &system, &n_system, true, err));
    if (given && !(json_is_string(given) && json_string_length(given) == 0))
        SD_TRY(sd_want_array(&history, &inside, given, "history", err));
    size_t pairs = json_array_size(history);
    SD_CHECK(pairs <= SD_MAX_MESSAGES / 2, err, SD_ELIMIT,
             "history: %zu turns, at most %d are supported", pairs, SD_MAX_MESSAGES / 2);
    ex->unweighted = sd_alloc(2 * pairs + 3, sizeof(bool));
    ex->messages = json_array();
    SD_CHECK(ex->unweighted && ex->messages && sd_buf_add(&question, instruction, n_instruction),
             err, SD_ENOMEM, "out of memory");
    SD_CHECK(!n_input || (sd_buf_adds(&question, "\n\n") && sd_buf_add(&question, input, n_input)),
             err, SD_ENOMEM, "out of memory");
    SD_CHECK(!n_system || add_turn(ex, "system", system, n_system), err, SD_ENOMEM,
             "out of memory");
    if (history) SD_TRY(add_history(ex, history, err));
    SD_CHECK(add_turn(ex, "user", question.data ? question.data : "", question.len) &&
                 add_turn(ex, "assistant", output, n_output),
             err, SD_ENOMEM, "out of memory");
    SD_TRY(sd_take_tools(ex, rec, err));
out:
    json_decref(inside);
    sd_buf_free(&question);
    return st;
}

static sd_status join_texts(sd_example *ex, const char *a, size_t na, const char *b, size_t nb,
                            sd_error *err) {
    ex->text = sd_malloc_marked(na + nb + 1);
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
    *ex = (sd_example){.list = "messages"};
    SD_TRY(sd_settle_format(rec, format, err));
    SD_TRY(sd_check_record_fields(rec->json, *format, err));
    switch (*format) {
    case SD_FORMAT_MESSAGES:
        SD_TRY(sd_make_messages(ex, rec->json, err));
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
    SD_CHECK(!sd_memory_lost(), err, SD_ENOMEM, "out of memory"); // a field may be missing
out:
    return st;
}

void sd_example_free(sd_example *ex) {
    json_decref(ex->messages);
    json_decref(ex->tools);
    json_decref(ex->kwargs);
    free(ex->unweighted);
    free(ex->text);
    *ex = (sd_example){0};
}
