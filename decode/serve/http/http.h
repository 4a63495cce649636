// HTTP/1.1 requests (RFC 9112), strictly: what two parsers could read in two ways is refused.
//
// Incremental and bounded: bytes go in as they come, and the whole state of the protocol is in the
// return value.
//
//     sd_http h;
//     sd_http_init(&h);
//     for (;;) {
//         size_t used;
//         switch (sd_http_feed(&h, data, len, &used)) {      // the caller drops `used` bytes
//         case SD_HTTP_MORE: wait for more bytes; break;
//         case SD_HTTP_HEAD: look at h.head, refuse early or go on feeding; break;
//         case SD_HTTP_DONE: serve h.head and h.body, then sd_http_reset(&h); break;
//         case SD_HTTP_BAD:  answer h.status with h.reason and close; break;
//         }
//     }
#pragma once

#include "base/memory.h"

enum {
    SD_HTTP_MAX_HEAD = 16 * 1024, // bytes of request line and fields
    SD_HTTP_MAX_FIELDS = 64,
    SD_HTTP_MAX_URI = 4 * 1024,
    SD_HTTP_MAX_BODY = 16 * 1024 * 1024
};

typedef enum { SD_HTTP_MORE, SD_HTTP_HEAD, SD_HTTP_DONE, SD_HTTP_BAD } sd_http_result;

typedef struct {
    const char *name, *value; // 0-terminated, without surrounding blanks
} sd_http_field;

// Valid from SD_HTTP_HEAD until the reset. All strings are 0-terminated and hold no 0 byte.
typedef struct {
    const char *method; // as sent: "GET"
    const char *path;   // origin form, still percent-encoded, without the query
    const char *query;  // after '?', "" when there is none
    int minor;          // HTTP/1.minor
    sd_http_field field[SD_HTTP_MAX_FIELDS];
    int n_fields;
    bool keep_alive; // as the request wants it
    bool expect;     // Expect: 100-continue
    bool has_body;   // Content-Length > 0 or chunked
    int64_t length;  // Content-Length; -1: none or chunked
    bool chunked;
} sd_http_head;

typedef struct {
    sd_http_head head;
    sd_buf body;        // complete at SD_HTTP_DONE
    int status;         // of SD_HTTP_BAD: 400, 413, 414, 417, 431, 501 or 505
    const char *reason; // of SD_HTTP_BAD: one sentence, static
    // private
    int state;
    sd_buf text;       // the head's bytes; does not move once the head is complete
    sd_buf small;      // a line of the chunked framing
    size_t line;       // where the current line begins
    int64_t remaining; // of the body or chunk
    int blank_lines;
    size_t field_at[SD_HTTP_MAX_FIELDS][2], target_at, method_at;
    size_t trailer_bytes, extension_bytes;
} sd_http;

void sd_http_init(sd_http *h);
void sd_http_reset(sd_http *h); // ready for the connection's next request; keeps its small buffers
void sd_http_free(sd_http *h);  // a zeroed one is fine

/// Takes bytes. *used says how many; less than len at HEAD, DONE (the rest is the next request) and
/// BAD. After BAD every call says BAD again.
sd_http_result sd_http_feed(sd_http *h, const char *data, size_t len, size_t *used);

/// True while nothing of a request has come yet: a timeout here is an idle connection.
bool sd_http_is_idle(const sd_http *h);

/// The field's value by name (letter case ignored), or NULL.
const char *sd_http_field_get(const sd_http_head *head, const char *name);
/// Likewise, of the last field of that name.
const char *sd_http_field_last(const sd_http_head *head, const char *name);

/// Percent-decodes a path segment into out (0-terminated). False on a bad escape, an encoded 0, or
/// when it does not fit.
bool sd_http_unescape(char *out, size_t cap, const char *text);

/// "Not Found" for 404; "Unknown" for codes this server does not send.
const char *sd_http_reason(int status);
