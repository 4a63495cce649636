// Getters that name the field they refuse, and the table of what is known but not built.
#include "decode/serve/api/field.h"

#include "base/json.h"
#include "datasets/read/record_json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *sd_field_type_word(const json_t *v) {
    return json_is_string(v) && sd_json_odd_number(v) ? "a number" : sd_json_type_word(v);
}

const json_t *sd_field_get(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v) ? v : NULL;
}

static bool wrong_type(const char *key, const json_t *v, const char *want, sd_api_error *e) {
    sd_api_fail(e, 400, key, "%s is %s; give %s", key, sd_field_type_word(v), want);
    return false;
}

bool sd_json_is_text(const json_t *v) {
    return json_is_string(v) && !sd_json_odd_number(v);
}

// A number of the text that no 64 bits hold, in the words of the one who wrote it.
static bool refuse_odd(const char *key, const json_t *v, const char *want, sd_api_error *e) {
    const char *odd = json_is_string(v) ? sd_json_odd_number(v) : NULL;
    if (!odd) return false;
    sd_api_fail(e, 400, key, "%s is %.60s%s; give %s", key, odd, strlen(odd) > 60 ? "..." : "",
                want);
    return true;
}

bool sd_field_bool(const json_t *o, const char *key, bool *out, sd_api_error *e) {
    const json_t *v = sd_field_get(o, key);
    if (!v) return true;
    if (!json_is_boolean(v)) return wrong_type(key, v, "true or false", e);
    *out = json_is_true(v);
    return true;
}

bool sd_field_int(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out,
                  sd_api_error *e) {
    const json_t *v = sd_field_get(o, key);
    if (!v) return true;
    char want[96];
    snprintf(want, sizeof want, "an integer from %lld to %lld", (long long)min, (long long)max);
    if (refuse_odd(key, v, want, e)) return false;
    int64_t n;
    if (!sd_json_whole(v, &n)) return wrong_type(key, v, "an integer", e);
    if (n < min || n > max) {
        sd_api_fail(e, 400, key, "%s is %lld; give %s", key, (long long)n, want);
        return false;
    }
    *out = n;
    return true;
}

bool sd_field_number(const json_t *o, const char *key, double min, double max, double *out,
                     sd_api_error *e) {
    const json_t *v = sd_field_get(o, key);
    if (!v) return true;
    char want[96];
    snprintf(want, sizeof want, "a number from %g to %g", min, max);
    if (refuse_odd(key, v, want, e)) return false;
    if (!json_is_number(v)) return wrong_type(key, v, "a number", e);
    double x = json_number_value(v);
    if (!(x >= min && x <= max)) {
        sd_api_fail(e, 400, key, "%s is %g; give %s", key, x, want);
        return false;
    }
    *out = x;
    return true;
}

bool sd_field_string(const json_t *o, const char *key, const char **out, sd_api_error *e) {
    const json_t *v = sd_field_get(o, key);
    if (!v) return true;
    if (!sd_json_is_text(v)) return wrong_type(key, v, "a string", e);
    if (strlen(json_string_value(v)) != json_string_length(v)) {
        sd_api_fail(e, 400, key, "%s has a NUL character (\\u0000); leave it out", key);
        return false;
    }
    *out = json_string_value(v);
    return true;
}

_Static_assert(SD_API_MAX_DEPTH == 64 && SD_API_MAX_CONTAINERS == 65536 &&
                   SD_API_MAX_VALUES == 1048576,
               "the phrases say so");

const char *sd_json_over_limit(const char *text, size_t len) {
    int depth = 0, containers = 0, values = 0;
    bool string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (string) {
            if (c == '\\') i++;
            string = c != '"';
        } else if (c == '"') {
            string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > SD_API_MAX_DEPTH) return "is nested deeper than 64 levels";
            if (++containers > SD_API_MAX_CONTAINERS)
                return "has more than 65536 arrays and objects";
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == ',') {
            if (++values > SD_API_MAX_VALUES) return "has more than 1048576 values";
        }
    }
    return NULL;
}

// The values that mean "off".
typedef enum { OFF_NEVER, OFF_EMPTY, OFF_ZERO, OFF_ONE, OFF_FALSE, OFF_NONE_WORD, OFF_TRUE } off;

// name, its neutral value, where it matters.
static const struct {
    const char *name;
    off neutral;
    const char *why;
} unsupported[] = {
    {"functions", OFF_EMPTY, "this name; give tools"},
    {"function_call", OFF_NONE_WORD, "this name; give tool_choice"},
    {"repeat_penalty", OFF_ONE, "this name; give repetition_penalty"},
    {"suffix", OFF_EMPTY, "insertion"},
    {"use_beam_search", OFF_FALSE, "beam search"},
    {"prompt_logprobs", OFF_FALSE, "logprobs of the prompt"},
    {"truncate_prompt_tokens", OFF_NEVER, "truncation; shorten the prompt"},
    {"include_stop_str_in_output", OFF_FALSE, "stop strings in the output"},
    {"skip_special_tokens", OFF_TRUE, "special tokens in the output"},
    {"prediction", OFF_NEVER, "predicted output"},
    {"audio", OFF_NEVER, "audio"},
    {"chat_template", OFF_NEVER, "a template from a request; the model's own is used"},
    {"guided_grammar", OFF_NEVER, "grammars in EBNF; give a schema, a regex or a choice"},
    {"guided_whitespace_pattern", OFF_NEVER, "white space by a pattern"},
    {"grammar", OFF_NEVER, "grammars in GBNF; give a schema, a regex or a choice"},
};

static bool is_off(const json_t *v, off neutral) {
    switch (neutral) {
    case OFF_EMPTY:
        return (json_is_array(v) && json_array_size(v) == 0) ||
               (json_is_object(v) && json_object_size(v) == 0) ||
               (json_is_string(v) && json_string_length(v) == 0);
    case OFF_ZERO:
        return json_is_number(v) && json_number_value(v) == 0;
    case OFF_ONE:
        return json_is_number(v) && json_number_value(v) == 1;
    case OFF_FALSE:
        return json_is_false(v);
    case OFF_TRUE:
        return json_is_true(v);
    case OFF_NONE_WORD:
        return json_is_string(v) && strcmp(json_string_value(v), "none") == 0;
    default:
        return false;
    }
}

bool sd_field_refuse_unsupported(const json_t *root, sd_api_error *e) {
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        const json_t *v = sd_field_get(root, unsupported[i].name);
        if (!v || is_off(v, unsupported[i].neutral)) continue;
        sd_api_fail(e, 400, unsupported[i].name,
                    "%s: this server does not do %s yet; leave the field out", unsupported[i].name,
                    unsupported[i].why);
        return false;
    }
    return true;
}

const char *sd_field_text(const json_t *o, const char *key) {
    const json_t *v = sd_field_get(o, key);
    bool good = v && sd_json_is_text(v) && strlen(json_string_value(v)) == json_string_length(v);
    return good ? json_string_value(v) : NULL;
}

bool sd_api_refuse(sd_api_error *e, const char *path, const char *what) {
    sd_api_fail(e, 400, path, "%s %s", path, what);
    return false;
}
