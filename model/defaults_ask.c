// A request is filled field by field, and what was filled or departs is said in words that go into
// headers: names and numbers alone, never a text of anyone's.
#include "model/defaults.h"

#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void sd_defaults_fill(sd_asked *a, const sd_defaults *d) {
    for (int i = 0; i < SD_DEFAULTS; i++)
        if (!a->given[i] && d->from[i] != SD_FROM_NOTHING) a->value[i] = d->value[i];
}

bool sd_defaults_fills_system(const sd_defaults *d) {
    return d->system && d->system_share >= SD_SYSTEM_SHARE;
}

sd_status sd_defaults_fill_system(sd_system_use *use, json_t *messages, const sd_defaults *d,
                                  sd_error *err) {
    size_t i;
    const json_t *m;
    *use = SD_SYSTEM_LEFT;
    if (!sd_defaults_fills_system(d)) return SD_OK;
    json_array_foreach(messages, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        const char *text = json_string_value(json_object_get(m, "content"));
        if (!role || strcmp(role, "system") != 0) continue;
        if (!text || strcmp(text, d->system) != 0) *use = SD_SYSTEM_OTHER;
        return SD_OK;
    }
    json_t *turn = json_pack("{s:s, s:s}", "role", "system", "content", d->system);
    if (!turn || json_array_insert_new(messages, 0, turn) != 0)
        return sd_fail(err, SD_ENOMEM, "out of memory");
    *use = SD_SYSTEM_FILLED;
    return SD_OK;
}

// Appends to a list; what finds no room is cut off.
__attribute__((format(printf, 3, 4))) static void say(char *room, size_t size, const char *fmt,
                                                      ...) {
    size_t n = strlen(room);
    va_list args;
    if (n) n += (size_t)snprintf(room + n, size - n, ", ");
    if (n >= size) return;
    va_start(args, fmt);
    vsnprintf(room + n, size - n, fmt, args);
    va_end(args);
}

// As floats, which sampling computes with: a request may have passed through one.
static bool differs(const sd_defaults *d, const sd_asked *asked, int i) {
    return (float)d->value[i] != (float)asked->value[i];
}

void sd_defaults_say_filled(char *room, size_t size, const sd_asked *asked, const sd_defaults *d,
                            sd_system_use use) {
    room[0] = '\0';
    for (int i = 0; i < SD_DEFAULTS; i++)
        if (!asked->given[i] && d->from[i] != SD_FROM_NOTHING && differs(d, asked, i))
            say(room, size, "%s", sd_default_name[i]);
    if (use == SD_SYSTEM_FILLED) say(room, size, "system");
}

void sd_defaults_say_departs(char *room, size_t size, const sd_asked *asked, const sd_defaults *d,
                             sd_system_use use) {
    static const bool whole[SD_DEFAULTS] = {
#define WHOLE(index, name, least, most, own, whole) whole,
        SD_DEFAULT_LIST(WHOLE)
#undef WHOLE
    };
    room[0] = '\0';
    for (int i = 0; i < SD_DEFAULTS; i++) {
        char given[32];
        if (!asked->given[i] || d->from[i] != SD_FROM_RUN || !differs(d, asked, i)) continue;
        snprintf(given, sizeof given, whole[i] ? "%.0f" : "%.6g", asked->value[i]);
        bool point = whole[i] || strpbrk(given, ".e");
        say(room, size, whole[i] ? "%s=%s%s (%.0f)" : "%s=%s%s (%.6g)", sd_default_name[i], given,
            point ? "" : ".0", d->value[i]);
    }
    if (use == SD_SYSTEM_OTHER) say(room, size, "system");
}
