#include "decode/serve/http/request_log.h"

#include "base/json.h"

#include <string.h>
#include <time.h>

bool sd_log_is_trace(const char *text) {
    // version - trace id - parent id - flags
    static const char form[] = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
    if (strlen(text) != sizeof form - 1) return false;
    for (size_t i = 0; i < sizeof form - 1; i++)
        if (form[i] == '-' ? text[i] != '-' : !strchr("0123456789abcdef", text[i])) return false;
    return true;
}

void sd_log_request(sd_access_log *log, const sd_logged *r) {
    struct timespec now;
    struct tm tm;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_t *v = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:f, s:I}", "time", stamp, "id", r->id,
                          "remote", r->remote, "method", r->method, "path", r->path, "status",
                          r->status, "ms", r->ms, "bytes", (json_int_t)r->bytes);
    if (r->key[0]) json_object_set_new(v, "key", json_string(r->key));
    if (r->trace) json_object_set_new(v, "trace", json_string(r->trace));
    if (r->facts.user[0]) json_object_set_new(v, "user", json_string(r->facts.user));
    if (r->facts.model[0]) {
        json_object_set_new(v, "model", json_string(r->facts.model));
        if (r->facts.generation) {
            json_object_set_new(v, "adapter", json_string(r->facts.model));
            json_object_set_new(v, "generation", json_integer((json_int_t)r->facts.generation));
        }
        json_object_set_new(v, "prompt_tokens", json_integer(r->facts.prompt_tokens));
        json_object_set_new(v, "completion_tokens", json_integer(r->facts.completion_tokens));
        if (r->facts.ttft_ms >= 0) json_object_set_new(v, "ttft_ms", json_real(r->facts.ttft_ms));
        if (r->facts.defaults[0])
            json_object_set_new(v, "defaults", json_string(r->facts.defaults));
        if (r->facts.departs[0]) json_object_set_new(v, "departs", json_string(r->facts.departs));
        if (r->facts.finish) json_object_set_new(v, "finish", json_string(r->facts.finish));
    }
    char *text = NULL, lost[64];
    if (sd_json_dump(&text, v, JSON_COMPACT | JSON_REAL_PRECISION(6), NULL) != SD_OK)
        snprintf(lost, sizeof lost, "{\"status\":%d,\"lost\":\"out of memory\"}", r->status);
    sd_access_log_add(log, text ? text : lost, strlen(text ? text : lost));
    free(text);
    json_decref(v);
}
