// What every part of a run uses: a line for people, and a path in the run's folder.
#include "base/files/file.h"
#include "trainer/run/private.h"

#include <stdarg.h>
#include <stdio.h>

void sd_run_say(const sd_run *r, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (r->o->say) r->o->say(text);
}

char *sd_run_path(const sd_run *r, const char *name) {
    return sd_path_join(r->dir, name);
}
