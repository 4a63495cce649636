// POST /v1/decisions, OpenAI's (beta):
//
//     {"input": text or user messages, "questions": [{"type": ..., "name": ..., "instructions": ...}]}
//     predicate                                               -> {"probability": .94}
//     choice     choices [{"value": text or bool, "description"}]  -> choice, probabilities, confidence
//     score      levels [{"label", "description"}]            -> score, probabilities, confidence
#include "decode/serve/api/decisions/read.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/convert.h"

#include <stdio.h>
#include <string.h>

enum { PATH = 96, AT = PATH + 96 }; // bytes of the path of a member, and of a part of it

static bool is(const char *s, const char *word) {
    return s && strcmp(s, word) == 0;
}

// ---- what is asked about

// One user's message: its texts behind those before it.
static bool read_message(sd_decide *d, const json_t *m, size_t i, sd_api_error *e) {
    static const char *const types[] = {"input_text", "text", NULL};
    char path[PATH];
    const json_t *content = sd_field_get(m, "content");
    snprintf(path, sizeof path, "input[%zu].role", i);
    if (!is(sd_field_text(m, "role"), "user")) return sd_api_refuse(e, path, "is not user");
    snprintf(path, sizeof path, "input[%zu].content", i);
    json_t *text = NULL;
    if (json_is_array(content)) {
        text = sd_convert_texts(content, path, types, "\n", e);
    } else if (content && sd_json_is_text(content)) {
        text = json_incref((json_t *)(uintptr_t)content);
    } else {
        return sd_api_refuse(e, path, "is neither a string nor an array of text parts");
    }
    bool ok = text && (i == 0 || sd_buf_adds(&d->text, "\n\n"));
    if (text && !ok) sd_api_fail(e, 500, path, "out of memory");
    ok = ok && sd_decide_state(d, text, path, e);
    json_decref(text);
    return ok;
}

static bool read_input(sd_decide *d, const json_t *input, sd_api_error *e) {
    const size_t n = json_array_size(input);
    if (input && sd_json_is_text(input)) return sd_decide_state(d, input, "input", e);
    if (n == 0 || n > SD_API_MAX_MESSAGES) {
        sd_api_fail(e, 400, "input", "input is neither a string nor an array of 1 to %d messages",
                    SD_API_MAX_MESSAGES);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (!read_message(d, json_array_get(input, i), i, e)) return false;
    return true;
}

// ---- questions

static bool read_choices(sd_decide *d, sd_decide_question *q, const json_t *list, const char *path,
                         sd_api_error *e) {
    if (!json_is_array(list))
        return sd_api_refuse(e, path, "is not an array; give [{\"value\": ...}, ...]");
    if (!sd_decide_labels(q, path, json_array_size(list), 2, SD_DECIDE_MAX_LABELS, e)) return false;
    for (int k = 0; k < q->n_labels; k++) {
        char at[AT];
        const json_t *choice = json_array_get(list, (size_t)k),
                     *value = sd_field_get(choice, "value");
        snprintf(at, sizeof at, "%s[%d]", path, k);
        if (!json_is_object(choice))
            return sd_api_refuse(e, at, "is not an object; give {\"value\": ...}");
        snprintf(at, sizeof at, "%s[%d].value", path, k);
        if (!value || !(json_is_boolean(value) || sd_json_is_text(value)))
            return sd_api_refuse(e, at,
                                 value ? "is neither a string nor a boolean"
                                       : "is missing; give a string or a boolean");
        json_t *word = json_is_boolean(value) ? json_string(json_is_true(value) ? "true" : "false")
                                              : json_incref((json_t *)(uintptr_t)value);
        bool ok = sd_decide_label_text(d, &q->label[k], word, at, e);
        json_decref(word); // kept, where it is good
        snprintf(at, sizeof at, "%s[%d].description", path, k);
        ok = ok && sd_decide_text_or(d, &q->label[k].about, sd_field_get(choice, "description"), at,
                                     false, e);
        if (!ok) return false;
        if (json_is_boolean(value)) q->label[k].value = value; // one of jansson's own two
    }
    return true;
}

// A level is known by its label and, where it has one, its description.
static bool read_levels(sd_decide *d, sd_decide_question *q, const json_t *list, const char *path,
                        sd_api_error *e) {
    if (!json_is_array(list))
        return sd_api_refuse(e, path, "is not an array; give [{\"label\": ...}, ...]");
    if (!sd_decide_labels(q, path, json_array_size(list), 2, SD_DECIDE_MAX_LEVELS, e)) return false;
    sd_decide_own_labels(q);
    for (int k = 0; k < q->n_labels; k++) {
        const json_t *level = json_array_get(list, (size_t)k);
        const char *label, *about = NULL;
        char at[AT];
        snprintf(at, sizeof at, "%s[%d]", path, k);
        if (!json_is_object(level))
            return sd_api_refuse(e, at, "is not an object; give {\"label\": ...}");
        snprintf(at, sizeof at, "%s[%d].label", path, k);
        if (!sd_decide_text(d, &label, sd_field_get(level, "label"), at, false, e)) return false;
        snprintf(at, sizeof at, "%s[%d].description", path, k);
        if (!sd_decide_text_or(d, &about, sd_field_get(level, "description"), at, false, e))
            return false;
        q->label[k].value = json_array_get(d->kept, json_array_size(d->kept) - 1 - (about != NULL));
        q->label[k].about = label;
        if (!about) continue;
        json_t *both = json_sprintf("%s (%s)", label, about);
        bool ok = sd_decide_text(d, &q->label[k].about, both, path, false, e);
        json_decref(both);
        if (!ok) return false;
    }
    return true;
}

static bool read_question(sd_decide *d, const json_t *v, size_t i, sd_api_error *e) {
    sd_decide_question *q = &d->question[d->n++];
    const char *type = sd_field_text(v, "type");
    char path[PATH];
    snprintf(path, sizeof path, "questions[%zu]", i);
    if (!json_is_object(v)) return sd_api_refuse(e, path, "is not an object");
    snprintf(path, sizeof path, "questions[%zu].name", i);
    if (!sd_decide_text_or(d, &q->name, sd_field_get(v, "name"), path, false, e)) return false;
    snprintf(path, sizeof path, "questions[%zu].instructions", i);
    if (!sd_decide_text(d, &q->instructions, sd_field_get(v, "instructions"), path, false, e))
        return false;
    if (is(type, "choice")) {
        q->kind = SD_DECIDE_CHOICE;
        snprintf(path, sizeof path, "questions[%zu].choices", i);
        return read_choices(d, q, sd_field_get(v, "choices"), path, e);
    }
    if (is(type, "score")) {
        q->kind = SD_DECIDE_SCORE;
        snprintf(path, sizeof path, "questions[%zu].levels", i);
        return read_levels(d, q, sd_field_get(v, "levels"), path, e);
    }
    snprintf(path, sizeof path, "questions[%zu].type", i);
    if (!is(type, "predicate")) return sd_api_refuse(e, path, "is not predicate, choice or score");
    q->kind = SD_DECIDE_YES_NO;
    if (!sd_decide_labels(q, path, 2, 2, 2, e)) return false;
    sd_decide_own_labels(q);
    return true;
}

static int parse(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    if (sd_decide_begin(out, body, len, e)) return e->status;
    sd_decide *d = out->decide;
    const json_t *list = sd_field_get(out->root, "questions");
    const size_t n = json_array_size(list);
    bool ok = read_input(d, sd_field_get(out->root, "input"), e) &&
              sd_decide_reserve(d, json_is_array(list) ? list : NULL, n, e);
    for (size_t i = 0; ok && i < n; i++) ok = read_question(d, json_array_get(list, i), i, e);
    return sd_decide_end(out, ok, e);
}

// ---- the answer

static void value_write(sd_json_out *t, const json_t *v) {
    if (json_is_boolean(v))
        sd_jt_raw(t, json_is_true(v) ? "true" : "false");
    else
        sd_jt_string(t, json_string_value(v), json_string_length(v));
}

static void probabilities_write(sd_json_out *t, const sd_decide_question *q) {
    sd_jt_raw(t, ",\"probabilities\":[");
    for (int k = 0; k < q->n_labels; k++) {
        sd_jt_raw(t, k ? ",{\"value\":" : "{\"value\":");
        if (q->kind == SD_DECIDE_SCORE) sd_jt_printf(t, "%d,\"label\":", k);
        value_write(t, q->label[k].value);
        sd_jt_raw(t, ",\"probability\":");
        sd_jt_real(t, q->p[k]);
        sd_jt_raw(t, "}");
    }
    sd_jt_raw(t, "],\"confidence\":");
    sd_jt_real(t, sd_decide_confidence(q));
}

static void answer_write(sd_json_out *t, const sd_decide_question *q) {
    static const char *const types[] = {[SD_DECIDE_YES_NO] = "predicate",
                                        [SD_DECIDE_CHOICE] = "choice",
                                        [SD_DECIDE_SCORE] = "score"};
    sd_jt_printf(t, "{\"type\":\"%s\",\"name\":", types[q->kind]);
    sd_jt_word(t, q->name);
    if (q->kind == SD_DECIDE_YES_NO) {
        sd_jt_raw(t, ",\"probability\":");
        sd_jt_real(t, q->p[0]);
    } else if (q->kind == SD_DECIDE_CHOICE) {
        sd_jt_raw(t, ",\"choice\":");
        value_write(t, q->label[sd_decide_likeliest(q)].value);
        probabilities_write(t, q);
    } else {
        sd_jt_raw(t, ",\"score\":");
        sd_jt_real(t, sd_decide_score(q));
        probabilities_write(t, q);
    }
    sd_jt_raw(t, "}");
}

static bool answers_write(sd_json_out *t, sd_whole *w, const sd_answer *a, const sd_readings *r,
                          const sd_usage *usage, size_t limit) {
    const sd_decide *d = r->decide;
    if (w->choice == 0) {
        sd_jt_raw(t, "{\"id\":");
        sd_jt_word(t, a->id);
        sd_jt_raw(t, ",\"object\":\"decision\",\"model\":");
        sd_jt_word(t, a->model);
        sd_jt_raw(t, ",\"answers\":[");
    }
    for (; w->choice < d->n; w->choice++) {
        if (t->lost || t->buf.len >= limit) return false;
        if (w->choice) sd_jt_raw(t, ",");
        answer_write(t, &d->question[w->choice]);
    }
    sd_jt_printf(t,
                 "],\"usage\":{\"input_tokens\":%d,\"input_tokens_details\":{\"cached_tokens\":%d,"
                 "\"cache_write_tokens\":0},\"output_tokens\":0,\"output_tokens_details\":{"
                 "\"reasoning_tokens\":0},\"total_tokens\":%d}}",
                 usage->prompt, usage->cached, usage->prompt);
    return true;
}

const sd_dialect sd_openai_decisions = {.kind = SD_API_CHAT,
                                        .id_prefix = "dec-",
                                        .prompt_field = "input",
                                        .parse = parse,
                                        .whole_type = "application/json",
                                        .readings = answers_write};
