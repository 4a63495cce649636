// JSON text, written piece by piece into a buffer: what an answer is made of.
//
// A document of megabytes is never a tree in memory here, and never written in one go. A piece that
// finds no room marks the text as lost and everything after it is dropped, so that a writer looks
// once, at its end.
//
//     sd_json_out t = {.buf = sd_buf_make(1 << 20)};
//     sd_jt_raw(&t, "{\"text\":");
//     sd_jt_string(&t, text, len);
//     sd_jt_raw(&t, "}");
//     if (t.lost) ...                                        // out of memory, or over the ceiling
#pragma once

#include "base/memory.h"

typedef struct {
    sd_buf buf;
    bool lost;
} sd_json_out;

void sd_jt_raw(sd_json_out *t, const char *json); // as it is
void sd_jt_printf(sd_json_out *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/// A string with its quotes. Bytes that are not UTF-8 become U+FFFD.
void sd_jt_string(sd_json_out *t, const char *s, size_t len);
void sd_jt_word(sd_json_out *t, const char *s); // a 0-terminated string; NULL is null
/// A part of a string, without quotes. s must be valid UTF-8, or a piece of it: it may end
/// anywhere.
void sd_jt_chars(sd_json_out *t, const char *s, size_t len);
/// Nine digits, and always a number with a point or an exponent. JSON has no infinity and no NaN:
/// give neither.
void sd_jt_real(sd_json_out *t, double x);
