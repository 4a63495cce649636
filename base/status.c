#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

sd_status sd_fail(sd_error *err, sd_status status, const char *fmt, ...) {
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->status = status;
        vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
    }
    return status;
}

void sd_error_prefix(sd_error *err, const char *fmt, ...) {
    if (!err) return;
    char prefix[512], old[sizeof err->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    memcpy(old, err->message, sizeof old);
    old[sizeof old - 1] = '\0';
    int used = snprintf(err->message, sizeof err->message, "%s: ", prefix);
    if (used < 0 || (size_t)used >= sizeof err->message) return;
    size_t room = sizeof err->message - (size_t)used - 1, len = strlen(old);
    memcpy(err->message + used, old, len < room ? len : room);
    err->message[(size_t)used + (len < room ? len : room)] = '\0';
}

bool sd_status_is_damage(sd_status status) {
    return status == SD_EFORMAT || status == SD_EMISMATCH || status == SD_ENOTFOUND ||
           status == SD_ELIMIT;
}

const char *sd_status_word(sd_status status) {
    switch (status) {
#define SD_STATUS_WORD(name, exit_code, word)                                                      \
    case name:                                                                                     \
        return word;
        SD_STATUS_LIST(SD_STATUS_WORD)
#undef SD_STATUS_WORD
    }
    return "unknown status";
}

int sd_status_exit_code(sd_status status) {
    switch (status) {
#define SD_STATUS_EXIT(name, exit_code, word)                                                      \
    case name:                                                                                     \
        return exit_code;
        SD_STATUS_LIST(SD_STATUS_EXIT)
#undef SD_STATUS_EXIT
    }
    return 1;
}

void sd_assert_failed(const char *cond, const char *file, int line) {
    fprintf(stderr, "specdec: a bug: %s does not hold (%s:%d); please report it\n", cond, file,
            line);
    abort();
}
