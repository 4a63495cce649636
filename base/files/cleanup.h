// A registry of files and folders that are removed when the program is interrupted: those that are
// not whole yet, and scratch folders. cli/main.c's signal handler runs it.
//
//     sd_cleanup_add(path);
//     SD_TRY(make_it_at(path, err));
//     sd_cleanup_drop(path);
#pragma once

#include "base/status.h"

/// Between the two calls, which take the same pointer, a file or an empty folder at path goes when
/// the program is interrupted. Every open replacement does this by itself.
void sd_cleanup_add(char *path);
void sd_cleanup_drop(char *path); // harmless for NULL and for what was never added
/// For a signal handler that then calls _exit: only unlink and rmdir.
void sd_cleanup_run(void);
/// A folder of one's own under $TMPDIR, for files that are wanted for a while; *dir malloc'ed. It
/// goes with all its files (no folders inside) at the close and when the program is interrupted.
sd_status sd_scratch_open(char **dir, const char *name, sd_error *err);
void sd_scratch_close(char *dir); // frees dir; NULL is fine

/// For where no error can be returned, below a library that ends the process itself: one sentence,
/// sd_cleanup_run, exit 1. Checkpoints and finished files stay.
_Noreturn void sd_memory_exhausted(const char *where);
