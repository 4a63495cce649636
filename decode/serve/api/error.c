#include "decode/serve/api/error.h"

#include <stdarg.h>
#include <stdio.h>

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
    return status;
}

json_t *sd_error_json(const sd_api_error *e) {
    json_t *message = json_string(e->message);
    if (!message) message = json_string("the request is refused"); // it quoted invalid UTF-8
    return json_pack("{s:{s:o, s:s, s:s?, s:s?}}", "error", "message", message, "type", e->type,
                     "param", e->param[0] ? e->param : NULL, "code", e->code);
}
