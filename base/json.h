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

/// *out is v as text, ended by 0 and freed with free(); flags are json_dumps'. SD_ENOMEM when v is
/// NULL or cannot be written, or when a library's allocation failed on this thread since
/// sd_memory_lost_clear(): v may then lack a part.
sd_status sd_json_dump(char **out, const json_t *v, size_t flags, sd_error *err);

/// Writes what sd_json_dump gives, and nothing when that fails. Errors of f stay on f.
sd_status sd_json_print(FILE *f, const json_t *v, size_t flags, sd_error *err);
