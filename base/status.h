// Errors as values. A function that can fail returns sd_status and takes `sd_error *err` last; the
// message is one sentence that names the thing, the value and the remedy. Only main() turns a
// status into an exit code.
//
//     sd_status load(thing **out, const char *path, sd_error *err) {
//         sd_status st = SD_OK;
//         SD_TRY(open_it(path, err));
//         SD_CHECK(n <= MAX, err, SD_EFORMAT, "%s: %d layers, at most %d work", path, n, MAX);
//     out:
//         release_what_is_left();
//         return st;
//     }
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

// One row per kind of failure: name, the exit code of the command line, the word for it.
#define SD_STATUS_LIST(X)                                                                          \
    X(SD_OK, 0, "ok")                                                                              \
    X(SD_EINVAL, 2, "invalid argument")                                                            \
    X(SD_EFORMAT, 2, "malformed input")                                                            \
    X(SD_ENOTFOUND, 2, "not found")                                                                \
    X(SD_ELIMIT, 2, "over a limit")                                                                \
    X(SD_EIO, 1, "input/output error")                                                             \
    X(SD_ENOMEM, 1, "out of memory")                                                               \
    X(SD_EMISMATCH, 1, "verification failed")                                                      \
    X(SD_EINTERRUPTED, 130, "interrupted")

typedef enum {
#define SD_STATUS_ENUM(name, exit_code, word) name,
    SD_STATUS_LIST(SD_STATUS_ENUM)
#undef SD_STATUS_ENUM
} sd_status;

typedef struct {
    sd_status status;
    char message[1024]; // one sentence, no newline, valid UTF-8 as far as its sources are
} sd_error;

/// Records the failure in err (which may be NULL) and returns `status`. The first failure wins only
/// by convention: callers return at once, so a later call overwrites.
sd_status sd_fail(sd_error *err, sd_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/// Puts "prefix: " before the message that is already in err.
void sd_error_prefix(sd_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/// The thing itself is at fault (malformed, damaged, of something else, a part missing), not the
/// reading of it: only then may it be passed over.
bool sd_status_is_damage(sd_status status);

const char *sd_status_word(sd_status status);
int sd_status_exit_code(sd_status status);

// Both macros need `sd_status st` and a label `out` in the function.
#define SD_CHECK(cond, err, status, ...)                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            st = sd_fail((err), (status), __VA_ARGS__);                                            \
            goto out;                                                                              \
        }                                                                                          \
    } while (0)
#define SD_TRY(call)                                                                               \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != SD_OK) goto out;                                                                 \
    } while (0)
/// SD_CHECK for an allocation: its result, or whether it succeeded.
#define SD_CHECK_ALLOC(got, err)                                                                   \
    SD_CHECK(got, err, SD_ENOMEM, "out of memory; free some or use a smaller model")

// For bugs only, never for input. Stays on in release builds.
#define SD_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (!(cond)) sd_assert_failed(#cond, __FILE__, __LINE__);                                  \
    } while (0)
_Noreturn void sd_assert_failed(const char *cond, const char *file, int line);
