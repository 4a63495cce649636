#include "decode/serve/api/json_text.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void add(sd_json_out *t, const char *s, size_t len) {
    if (!t->lost && !sd_buf_add(&t->buf, s, len)) t->lost = true;
}

void sd_jt_raw(sd_json_out *t, const char *json) {
    add(t, json, strlen(json));
}

void sd_jt_printf(sd_json_out *t, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text)
        t->lost = true;
    else
        add(t, text, (size_t)n);
}

void sd_jt_chars(sd_json_out *t, const char *s, size_t len) {
    size_t begin = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        add(t, s + begin, i - begin);
        begin = i + 1;
        if (c == '"' || c == '\\')
            add(t, (char[]){'\\', (char)c}, 2);
        else if (c == '\n')
            add(t, "\\n", 2);
        else if (c == '\r')
            add(t, "\\r", 2);
        else if (c == '\t')
            add(t, "\\t", 2);
        else
            sd_jt_printf(t, "\\u%04X", c);
    }
    add(t, s + begin, len - begin);
}

void sd_jt_string(sd_json_out *t, const char *s, size_t len) {
    add(t, "\"", 1);
    if (sd_utf8_valid_prefix(s, len) == len) {
        sd_jt_chars(t, s, len);
    } else {
        sd_buf valid = sd_buf_make(t->buf.max);
        if (sd_utf8_lossy(&valid, s, len))
            sd_jt_chars(t, valid.data ? valid.data : "", valid.len);
        else
            t->lost = true;
        sd_buf_free(&valid);
    }
    add(t, "\"", 1);
}

void sd_jt_word(sd_json_out *t, const char *s) {
    if (s)
        sd_jt_string(t, s, strlen(s));
    else
        sd_jt_raw(t, "null");
}

void sd_jt_real(sd_json_out *t, double x) {
    char text[40];
    int n = snprintf(text, sizeof text, "%.9g", x);
    add(t, text, (size_t)n);
    if (!strpbrk(text, ".e")) add(t, ".0", 2);
}
