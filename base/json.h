// JSON through jansson, in a process whose memory may run out.
//
// jansson 2.14 forgets that an allocation failed: its parser drops bytes of a token whose buffer
// could not grow (and then reads beyond it, or aborts), and what builds a document from parts loses
// the parts that could not be made. So its allocator is ours: a parse that runs out is fed from a
// reserve until it ends, and any other failure leaves sd_memory_lost() behind on the thread. A
// document is therefore read with sd_json_load and written with sd_json_dump or sd_json_print; what
// jansson's own loaders and dumpers return may have holes.
//
//     json_t *root = NULL;
//     json_error_t why;
//     SD_TRY(sd_json_load(&root, text, len, JSON_REJECT_DUPLICATES, &why, err));
//     SD_CHECK(root, err, SD_EFORMAT, "%s: line %d: %s", path, why.line, why.text);
#pragma once

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/// *out is the document, the caller's, or NULL where the text is not JSON and `why` (which may be
/// NULL) says where. flags are json_loadb's. SD_ENOMEM when memory ran out; sd_memory_lost() is
/// then true as well, for callers of callers that take no document for an answer.
sd_status sd_json_load(json_t **out, const char *text, size_t len, size_t flags, json_error_t *why,
                       sd_error *err);

/// As sd_json_load, for text of strangers: SD_ELIMIT when the document takes more than max_bytes
/// of memory, whatever the text looks like.
sd_status sd_json_load_within(json_t **out, const char *text, size_t len, size_t flags,
                              size_t max_bytes, json_error_t *why, sd_error *err);

/// Bytes of memory that a document takes, some of the allocator's too; NULL: 0.
size_t sd_json_bytes(const json_t *v);

/// *out is v as text, ended by 0 and freed with free(); flags are json_dumps'. SD_ENOMEM when v is
/// NULL or cannot be written, or when a library's allocation failed on this thread since
/// sd_memory_lost_clear(): v may then lack a part.
sd_status sd_json_dump(char **out, const json_t *v, size_t flags, sd_error *err);

/// Writes what sd_json_dump gives, and nothing when that fails. Errors of f stay on f.
sd_status sd_json_print(FILE *f, const json_t *v, size_t flags, sd_error *err);

// ---- keys of an object out of a file: an absent key and null are the default; a key that holds
// another type is SD_EFORMAT with the file, the key and what stands there, since a default in its
// place would be another model, another adapter or another text.

/// NULL for an absent key and for null.
json_t *sd_key(const json_t *o, const char *key);
sd_status sd_key_bool(bool *out, const json_t *o, const char *key, bool def, const char *file,
                      sd_error *err);
/// A whole number from min to max; 4096.0 is one.
sd_status sd_key_int(int64_t *out, const json_t *o, const char *key, int64_t def, int64_t min,
                     int64_t max, const char *file, sd_error *err);
/// A finite number of at most 1e30.
sd_status sd_key_number(double *out, const json_t *o, const char *key, double def, const char *file,
                        sd_error *err);
/// In the JSON's memory; def may be NULL.
sd_status sd_key_str(const char **out, const json_t *o, const char *key, const char *def,
                     const char *file, sd_error *err);
/// NULL when absent or null; anything but an object (an array) is SD_EFORMAT.
sd_status sd_key_object(json_t **out, const json_t *o, const char *key, const char *file,
                        sd_error *err);
sd_status sd_key_array(json_t **out, const json_t *o, const char *key, const char *file,
                       sd_error *err);
/// SD_EFORMAT: "FILE: KEY is VALUE, where WANT is needed", for conditions of a caller's own.
sd_status sd_key_refuse(const json_t *value, const char *key, const char *want, const char *file,
                        sd_error *err);
bool sd_json_whole(const json_t *v, int64_t *out); // an integer, or a real that is one
/// What v is, for a sentence: "a string", "missing" (NULL), ...
const char *sd_json_type_word(const json_t *v);
