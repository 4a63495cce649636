// What was said: a JSON array of {"role", "content"}, a system message first where there is one, and the file that a
// conversation is kept in: {"messages": [...]}, which is a record of training data too.
#pragma once

#include "base/json.h"
#include "base/status.h"

enum { SD_TALK_MAX_BYTES = 64 << 20 }; // of a file

/// SD_EINVAL: the text is not valid UTF-8.
sd_status sd_talk_add(json_t *messages, const char *role, const char *text, size_t len,
                      sd_error *err);
/// The first n messages stay.
void sd_talk_cut(json_t *messages, size_t n);
/// The system message, or NULL.
const char *sd_talk_system(const json_t *messages);
/// Empties the conversation; the system message stays.
void sd_talk_clear(json_t *messages);
/// Empties the conversation and begins it with a system message; NULL or "": with none.
sd_status sd_talk_begin(json_t *messages, const char *system, sd_error *err);

sd_status sd_talk_save(const json_t *messages, const char *path, sd_error *err);
/// messages <- the file's; as they were after an error. SD_EFORMAT names what is wrong with the file.
sd_status sd_talk_load(json_t *messages, const char *path, sd_error *err);
