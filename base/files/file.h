// Bounded reads of whole files and of their heads. base/files/map.h maps a file instead,
// base/files/replace.h writes one, base/files/path.h asks what stands at a path.
#pragma once

#include "base/status.h"

/// The sentence for errno after a call on path that was `doing` ("open", "write").
sd_status sd_fail_errno(sd_error *err, const char *path, const char *doing);

/// The whole file into a malloc'ed, 0-terminated buffer. More than max bytes is SD_ELIMIT. Only a
/// regular file is read, as by sd_map_open: a pipe would be waited for.
sd_status sd_file_read(char **data, size_t *len, const char *path, size_t max, sd_error *err);
/// The same for a path that the user gives for text: pipes and devices too (/dev/stdin, <(...)).
sd_status sd_stream_read(char **data, size_t *len, const char *path, size_t max, sd_error *err);
/// The first bytes of a regular file; *got is less than `bytes` where the file is shorter.
sd_status sd_file_head(void *head, size_t bytes, size_t *got, const char *path, sd_error *err);
/// A descriptor for reading and the size in bytes. Never waits: SD_EINVAL for a folder, SD_EFORMAT
/// for a pipe, socket or device.
sd_status sd_open_regular(int *fd, size_t *size, const char *path, sd_error *err);
