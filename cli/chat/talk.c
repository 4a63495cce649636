#include "cli/chat/talk.h"

#include "base/files/file.h"
#include "base/files/replace.h"

#include <stdlib.h>
#include <string.h>

sd_status sd_talk_add(json_t *messages, const char *role, const char *text, size_t len,
                      sd_error *err) {
    sd_status st = SD_OK;
    json_t *m = json_pack("{s:s, s:s%}", "role", role, "content", text, len);
    SD_CHECK(m, err, SD_EINVAL, "the %s message is not valid UTF-8; a message must be", role);
    SD_CHECK(json_array_append_new(messages, m) == 0, err, SD_ENOMEM,
             "out of memory for the conversation");
out:
    return st;
}

void sd_talk_cut(json_t *messages, size_t n) {
    while (json_array_size(messages) > n)
        json_array_remove(messages, json_array_size(messages) - 1);
}

const char *sd_talk_system(const json_t *messages) {
    const json_t *first = json_array_get(messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    return role && strcmp(role, "system") == 0
               ? json_string_value(json_object_get(first, "content"))
               : NULL;
}

void sd_talk_clear(json_t *messages) {
    sd_talk_cut(messages, sd_talk_system(messages) != NULL);
}

sd_status sd_talk_begin(json_t *messages, const char *system, sd_error *err) {
    json_array_clear(messages);
    if (!system || !*system) return SD_OK;
    return sd_talk_add(messages, "system", system, strlen(system), err);
}

sd_status sd_talk_save(const json_t *messages, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    sd_replace r = {0};
    json_t *whole = json_pack("{s:O}", "messages", messages);
    SD_CHECK_ALLOC(whole, err);
    SD_TRY(sd_json_dump(&text, whole, JSON_COMPACT, err));
    SD_TRY(sd_replace_open_mode(&r, path, 0600, err)); // people say things that are not for others
    fprintf(r.f, "%s\n", text);
    SD_TRY(sd_replace_commit(&r, err));
out:
    sd_replace_abort(&r);
    free(text);
    json_decref(whole);
    return st;
}

static sd_status check_message(const json_t *m, size_t i, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    const char *role = json_string_value(json_object_get(m, "role"));
    SD_CHECK(role && json_is_string(json_object_get(m, "content")), err, SD_EFORMAT,
             "%s: message %zu is not {\"role\": TEXT, \"content\": TEXT}", path, i + 1);
    SD_CHECK(strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0 ||
                 (i == 0 && strcmp(role, "system") == 0),
             err, SD_EFORMAT,
             "%s: message %zu is of the role '%.40s'; a chat has user and "
             "assistant, and a system message first",
             path, i + 1, role);
out:
    return st;
}

sd_status sd_talk_load(json_t *messages, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    json_t *whole = NULL;
    json_error_t why;
    SD_TRY(sd_file_read(&text, &len, path, SD_TALK_MAX_BYTES, err));
    SD_CHECK(sd_json_load(&whole, text, len, JSON_REJECT_DUPLICATES, &why, err) == SD_OK, err,
             SD_EFORMAT, "%s: line %d: %s; a chat's file is what /save writes", path, why.line,
             why.text);
    const json_t *list = json_object_get(whole, "messages");
    SD_CHECK(json_is_array(list), err, SD_EFORMAT, "%s: has no list \"messages\"", path);
    for (size_t i = 0; i < json_array_size(list); i++)
        SD_TRY(check_message(json_array_get(list, i), i, path, err));
    json_array_clear(messages);
    SD_CHECK(json_array_extend(messages, (json_t *)(uintptr_t)list) == 0, err, SD_ENOMEM,
             "out of memory for the conversation");
out:
    free(text);
    json_decref(whole);
    return st;
}
