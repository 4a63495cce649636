#include "trainer/run/private.h"

#include <stdarg.h>
#include <stdio.h>

void sd_run_say(const sd_run_options *o, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (o->say) o->say(text);
}
