#include "decode/serve/api/openai/convert.h"

#include "base/memory.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/request.h"

#include <stdio.h>
#include <string.h>

void sd_convert_settings(json_t *to, const json_t *from) {
    static const char *const names[] = {"model",
                                        "temperature",
                                        "top_p",
                                        "top_k",
                                        "min_p",
                                        "seed",
                                        "stream",
                                        "stop_token_ids",
                                        "ignore_eos",
                                        "logit_bias",
                                        "presence_penalty",
                                        "frequency_penalty",
                                        "bad_words",
                                        "allowed_token_ids",
                                        "repetition_penalty",
                                        "min_tokens",
                                        "priority",
                                        "cache_salt",
                                        "user",
                                        "speculative",
                                        "chat_template_kwargs"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *v = json_object_get(from, names[i]);
        if (v) json_object_set(to, names[i], v);
    }
}

static bool is_one_of(const json_t *type, const char *const *types) {
    const char *s = json_string_value(type);
    for (; s && *types; types++)
        if (strcmp(s, *types) == 0) return true;
    return false;
}

json_t *sd_convert_texts(const json_t *list, const char *path, const char *const *types,
                         const char *between, sd_api_error *e) {
    sd_buf text = sd_buf_make(16 << 20);
    json_t *out = NULL, *part;
    size_t i;
    json_array_foreach(list, i, part) {
        const json_t *piece = json_object_get(part, "text");
        char param[96];
        snprintf(param, sizeof param, "%s[%zu]", path, i);
        if (!is_one_of(json_object_get(part, "type"), types) || !sd_json_is_text(piece)) {
            sd_api_fail(e, 400, param,
                        "%s is not {\"type\": \"%s\", \"text\": ...}; this server reads text alone",
                        param, types[0]);
            goto out;
        }
        size_t len = json_string_length(piece);
        if (len == 0) continue;
        if ((text.len && !sd_buf_adds(&text, between)) ||
            !sd_buf_add(&text, json_string_value(piece), len)) {
            sd_api_fail(e, 500, param, "out of memory");
            goto out;
        }
    }
    out = json_stringn(text.data ? text.data : "", text.len);
    if (!out) sd_api_fail(e, 500, path, "out of memory");
out:
    sd_buf_free(&text);
    return out;
}

// The list is a header's value: a client's word goes into it only if it is made of harmless characters.
void sd_convert_skip_tool(sd_api_request *r, const char *kind) {
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    size_t n = strlen(r->skipped), len = kind ? strlen(kind) : 0;
    if (len == 0 || len > 64 || strspn(kind, good) != len) kind = "unknown";
    snprintf(r->skipped + n, sizeof r->skipped - n, "%s%s", n ? ", " : "", kind);
}

int sd_convert_finish(sd_api_request *r, json_t *root, sd_api_error *e) {
    json_decref(r->root);
    r->root = root;
    if (!root) {
        sd_api_fail(e, 500, NULL, "out of memory");
        sd_api_request_free(r);
        return e->status;
    }
    r->continuous_usage = true;
    return sd_api_request_finish(r, e);
}
