#include "decode/serve/api/decisions/read.h"

#include "base/json.h"
#include "datasets/read/record_json.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/convert.h"
#include "decode/serve/api/openai/request.h"

#include <stdio.h>
#include <string.h>

enum { MAX_STATE = 16 << 20 };

int sd_decide_begin(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    if (sd_api_request_begin(out, SD_API_CHAT, body, len, e) == 0) {
        out->decide = sd_alloc(1, sizeof *out->decide);
        if (out->decide) {
            out->decide->kept = json_array();
            out->decide->text = sd_buf_make(MAX_STATE);
            out->decide->permute = 1;
            return 0;
        }
        sd_api_fail(e, 500, NULL, "out of memory");
    }
    sd_api_request_free(out);
    return e->status;
}

bool sd_decide_reserve(sd_decide *d, const json_t *questions, size_t n, sd_api_error *e) {
    if (!questions || n == 0 || n > SD_DECIDE_MAX_QUESTIONS) {
        sd_api_fail(e, 400, "questions", "questions is %s; give 1 to %d of them",
                    !questions ? "missing, or of another type"
                    : n        ? "too long"
                               : "empty",
                    SD_DECIDE_MAX_QUESTIONS);
        return false;
    }
    d->question = sd_alloc(n, sizeof *d->question);
    if (!d->question) sd_api_fail(e, 500, "questions", "out of memory");
    return d->question != NULL;
}

bool sd_decide_labels(sd_decide_question *q, const char *path, size_t n, size_t least, size_t most,
                      sd_api_error *e) {
    if (n < least || n > most) {
        sd_api_fail(e, 400, path, "%s has %zu entries; give %zu to %zu", path, n, least, most);
        return false;
    }
    q->label = sd_alloc(n, sizeof *q->label);
    if (!q->label) sd_api_fail(e, 500, path, "out of memory");
    if (q->label) q->n_labels = (int)n;
    return q->label != NULL;
}

static bool refuse_odd(const json_t *v, const char *path, sd_api_error *e) {
    const char *odd = sd_json_odd_number(v);
    if (!odd) return false;
    sd_api_fail(e, 400, path, "%s has the number %.60s, which no 64 bits hold; give a string", path,
                odd);
    return true;
}

// Its text, new; NULL after an error.
static char *dumped(const json_t *v, const char *path, sd_api_error *e) {
    char *text = NULL;
    sd_error err = {0};
    if (refuse_odd(v, path, e)) return NULL;
    if (sd_json_dump(&text, v, JSON_COMPACT | JSON_ENCODE_ANY, &err) != SD_OK)
        sd_api_fail(e, 500, path, "%s", err.message);
    return text;
}

static bool keep(sd_decide *d, json_t *text, const char **out, const char *path, sd_api_error *e) {
    d->bytes += json_string_length(text);
    *out = json_string_value(text);
    if (json_array_append_new(d->kept, text) == 0) return true;
    sd_api_fail(e, 500, path, "out of memory");
    return false;
}

bool sd_decide_text(sd_decide *d, const char **out, const json_t *v, const char *path, bool json,
                    sd_api_error *e) {
    if (json && (json_is_object(v) || json_is_array(v))) {
        char *text = dumped(v, path, e);
        json_t *s = text ? json_string(text) : NULL;
        free(text);
        return !e->status && keep(d, s, out, path, e);
    }
    if (!v || !sd_json_is_text(v))
        return sd_api_refuse(e, path, v ? "is not a string" : "is missing; give a string");
    if (strlen(json_string_value(v)) != json_string_length(v))
        return sd_api_refuse(e, path, "has a NUL character (\\u0000); leave it out");
    return keep(d, json_incref((json_t *)(uintptr_t)v), out, path, e);
}

bool sd_decide_text_or(sd_decide *d, const char **out, const json_t *v, const char *path, bool json,
                       sd_api_error *e) {
    return !v || json_is_null(v) || sd_decide_text(d, out, v, path, json, e);
}

bool sd_decide_label_text(sd_decide *d, sd_decide_label *label, const json_t *v, const char *path,
                          sd_api_error *e) {
    if (!sd_decide_text(d, &label->text, v, path, false, e)) return false;
    const size_t n = strlen(label->text);
    label->value = v;
    if (n >= 1 && n <= SD_DECIDE_MAX_LABEL && strcspn(label->text, "\r\n") == n) return true;
    sd_api_fail(e, 400, path, "%s has the label '%.60s%s' of %zu bytes; give one line of 1 to %d",
                path, label->text, n > 60 ? "..." : "", n, SD_DECIDE_MAX_LABEL);
    return false;
}

void sd_decide_own_labels(sd_decide_question *q) {
    static const char *const levels[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
    static const char *const truth[] = {"yes", "no"};
    _Static_assert(sizeof levels / sizeof *levels == SD_DECIDE_MAX_LEVELS, "a digit each");
    for (int k = 0; k < q->n_labels; k++)
        q->label[k].text = q->kind == SD_DECIDE_YES_NO ? truth[k] : levels[k];
}

static bool refuse_state(const json_t *v, const char *path, sd_api_error *e) {
    sd_api_fail(e, 400, path, "%s is %s; give a string, an object or an array", path,
                v ? sd_field_type_word(v) : "missing");
    return false;
}

bool sd_decide_state(sd_decide *d, const json_t *v, const char *path, sd_api_error *e) {
    bool ok = true;
    if (v && sd_json_is_text(v)) {
        ok = sd_buf_add(&d->text, json_string_value(v), json_string_length(v));
    } else {
        if (!json_is_object(v) && !json_is_array(v)) return refuse_state(v, path, e);
        char *text = dumped(v, path, e);
        if (!text) return false;
        ok = sd_buf_adds(&d->text, text);
        free(text);
    }
    if (!ok) sd_api_fail(e, 500, path, "out of memory");
    return ok;
}

// A conversation is read as OpenAI's, with a message that stands for the prompts to come.
int sd_decide_end(sd_api_request *r, bool ok, sd_api_error *e) {
    static const char *const names[] = {"model", "priority", "cache_salt", "chat_template_kwargs"};
    sd_decide *d = r->decide;
    int64_t permute = d->permute;
    ok = ok && sd_field_int(r->root, "permute", 1, SD_DECIDE_MAX_PERMUTE, &permute, e);
    if (!ok) {
        sd_api_request_free(r);
        return e->status;
    }
    d->permute = (int)permute;
    sd_decide_name(d);
    json_t *to = json_pack("{s:[{s:s, s:s}], s:s}", "messages", "role", "user", "content", "",
                           "reasoning_effort", "none");
    for (size_t i = 0; to && i < sizeof names / sizeof *names; i++) {
        json_t *v = json_object_get(r->root, names[i]);
        if (v) json_object_set(to, names[i], v);
    }
    return sd_convert_finish(r, to, e);
}
