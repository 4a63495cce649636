#include "decode/serve/api/error.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// What a message quotes may be cut within a character.
static void drop_malformed(char *s) {
    char *to = s;
    for (size_t left = strlen(s); left > 0;) {
        int32_t cp;
        const int n = sd_utf8_next(s, left, &cp, NULL);
        if (cp >= 0) memmove(to, s, (size_t)n), to += n;
        s += n, left -= (size_t)n;
    }
    *to = '\0';
}

int sd_api_fail(sd_api_error *e, int status, const char *param, const char *fmt, ...) {
    e->status = status;
    e->type = status == 401   ? "authentication_error"
              : status == 404 ? "not_found_error"
              : status == 429 ? "rate_limit_error"
              : status >= 500 ? "server_error"
                              : "invalid_request_error";
    e->code = NULL;
    e->retry_s = 0;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    drop_malformed(e->param);
    drop_malformed(e->message);
    return status;
}

json_t *sd_error_json(const sd_api_error *e) {
    json_t *message = json_string(e->message);
    return json_pack("{s:{s:o, s:s, s:s?, s:s?}}", "error", "message", message, "type", e->type,
                     "param", e->param[0] ? e->param : NULL, "code", e->code);
}
