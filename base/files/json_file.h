// JSON objects that stand in files by themselves: configurations, manifests, indexes.
#pragma once

#include "base/json.h"

/// *out is the object in the regular file at path (of at most max bytes), the caller's; NULL after
/// a failure. flags are json_loadb's. A file that is no JSON object is SD_EFORMAT: "PATH: line 3, column 7:
/// is not JSON: WHY; REMEDY"; remedy NULL: "correct it".
sd_status sd_json_read(json_t **out, const char *path, size_t max, size_t flags, const char *remedy,
                       sd_error *err);
/// The same of a file in a folder, which need not be there, nor the folder a folder: *out is NULL then.
/// *path <- where it would stand, malloc'ed, for further messages; the caller frees it also after an error.
sd_status sd_json_read_in(json_t **out, char **path, const char *folder, const char *name,
                          size_t max, const char *remedy, sd_error *err);
