#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static atomic_int max_level = SD_LOG_INFO;

void sd_log_set_level(sd_log_level level) {
    atomic_store(&max_level, (int)level);
}

void sd_log(sd_log_level level, const char *fmt, ...) {
    static const char *const mark[] = {"error: ", "warning: ", "", "debug: "};
    if ((int)level > atomic_load(&max_level)) return;
    char line[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fprintf(stderr, "specdec: %s%s\n", mark[level], line);
}
