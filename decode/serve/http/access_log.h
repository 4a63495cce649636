// The access log: lines go through a bounded queue to a thread that writes them. A full disk or a
// pipe that nobody reads holds up that thread alone, never the event loop; what finds no room is
// counted and said.
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct sd_access_log sd_access_log;

/// path "-" is standard output, which stays open; a file is appended to. SD_EINVAL names what cannot
/// be written, a pipe without a reader among them.
sd_status sd_access_log_open(sd_access_log **out, const char *path, sd_error *err);
/// Queues a line (without its line feed). Never waits.
void sd_access_log_add(sd_access_log *log, const char *line, size_t len);
/// Opens the file anew, as after a rotation: the thread does it before its next line, and says so where it cannot.
void sd_access_log_reopen(sd_access_log *log);
/// Lines that found no room or could not be written. From any thread.
int64_t sd_access_log_lost(const sd_access_log *log);
/// Writes what is queued, for a second at most. NULL is fine.
void sd_access_log_close(sd_access_log *log);
