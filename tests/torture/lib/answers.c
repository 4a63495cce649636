#include "tests/torture/lib/answers.h"

#include "tests/torture/lib/client.h"

#include <jansson.h>
#include <string.h>

char *answer_bytes(const sd_buf *body) {
    const char *from = body->data ? strstr(body->data, "\"choices\":") : NULL;
    const char *to = from ? strstr(from, ",\"prompt_tokens_details\":") : NULL;
    return to ? sd_strndup(from, (size_t)(to - from)) : NULL;
}

enum { MAX_ANSWERS = 64 };
typedef struct {
    sd_buf text[MAX_ANSWERS];
    json_t *logprobs[MAX_ANSWERS];
    const char *finish[MAX_ANSWERS]; // static
    json_t *usage;
    int n;
} collected;

static const char *finish_word(const json_t *v) {
    const char *s = json_string_value(v);
    return !s ? NULL : strcmp(s, "stop") == 0 ? "stop" : strcmp(s, "length") == 0 ? "length" : "?";
}

static void append_logprobs(json_t **to, json_t *more) {
    const char *key;
    json_t *list;
    if (!more || json_is_null(more)) return;
    if (!*to) {
        *to = json_deep_copy(more);
        return;
    }
    json_object_foreach(more, key, list) {
        if (json_is_array(list)) json_array_extend(json_object_get(*to, key), list);
    }
}

static void collect(collected *a, json_t *root) {
    size_t i;
    json_t *choice;
    json_array_foreach(json_object_get(root, "choices"), i, choice) {
        int index = (int)json_integer_value(json_object_get(choice, "index"));
        if (index < 0 || index >= MAX_ANSWERS) client_die("a choice of index %d", index);
        if (index >= a->n) a->n = index + 1;
        json_t *part = json_object_get(choice, "message"), *text;
        if (!part) part = json_object_get(choice, "delta");
        text = part ? json_object_get(part, "content") : json_object_get(choice, "text");
        if (!a->text[index].max) a->text[index] = sd_buf_make(1 << 24);
        if (text && !sd_buf_add(&a->text[index], json_string_value(text), json_string_length(text)))
            client_die("out of memory");
        const char *finish = finish_word(json_object_get(choice, "finish_reason"));
        if (finish) a->finish[index] = finish;
        append_logprobs(&a->logprobs[index], json_object_get(choice, "logprobs"));
    }
    json_t *usage = json_object_get(root, "usage");
    if (usage && json_is_object(usage)) {
        json_decref(a->usage);
        a->usage = json_incref(usage);
        json_object_del(a->usage, "prompt_tokens_details"); // what the cache had: no two are alike
    }
}

static char *meaning_of(collected *a) {
    json_t *all = json_array();
    for (int i = 0; i < a->n; i++) {
        json_t *lp = a->logprobs[i] ? a->logprobs[i] : json_null();
        json_array_append_new(
            all, json_pack("[o, s?, o]",
                           json_stringn(a->text[i].data ? a->text[i].data : "", a->text[i].len),
                           a->finish[i], lp));
        sd_buf_free(&a->text[i]);
    }
    json_array_append_new(all, a->usage ? a->usage : json_null());
    char *out = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    *a = (collected){0};
    return out;
}

char *answer_meaning_of_whole(const sd_buf *body) {
    collected a = {0};
    json_t *root = json_loadb(body->data, body->len, JSON_ALLOW_NUL, NULL);
    if (root) collect(&a, root);
    char *out = meaning_of(&a);
    json_decref(root);
    return out;
}

char *answer_meaning_of_stream(const sd_buf *body) {
    collected a = {0};
    bool done = false, bad = false;
    const char *at = body->data, *end = at ? at + body->len : at;
    while (at < end && !bad) {
        const char *stop = memmem(at, (size_t)(end - at), "\n\n", 2);
        if (!stop || strncmp(at, "data: ", 6) != 0) break;
        if (strncmp(at, "data: [DONE]", 12) == 0) {
            done = stop + 2 == end;
        } else {
            json_t *root = json_loadb(at + 6, (size_t)(stop - at) - 6, JSON_ALLOW_NUL, NULL);
            if (!root || json_object_get(root, "error")) bad = true;
            if (root) collect(&a, root);
            json_decref(root);
        }
        at = stop + 2;
    }
    char *out = meaning_of(&a);
    if (done && !bad) return out;
    free(out);
    return NULL;
}
