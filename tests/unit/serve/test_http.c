// The HTTP parser: what it reads, what it refuses, and that the cutting of the bytes changes
// nothing.
#include "decode/serve/http/http.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

// Feeds text in pieces of `step` bytes until a request is complete or refused; returns the result.
static sd_http_result feed_all(sd_http *h, const char *text, size_t len, size_t step, size_t *end) {
    size_t at = 0;
    sd_http_result r = SD_HTTP_MORE;
    for (;;) {
        size_t n = len - at < step ? len - at : step, used = 0;
        r = sd_http_feed(h, text + at, n, &used);
        cr_assert_leq(used, n);
        at += used;
        if (r == SD_HTTP_DONE || r == SD_HTTP_BAD) break;
        if (r == SD_HTTP_MORE && at == len) break;
    }
    if (end) *end = at;
    return r;
}

static const char simple[] = "POST /v1/completions?x=1 HTTP/1.1\r\nHost: localhost:80\r\n"
                             "Content-Length: 5\r\nX-Request-Id:  abc \r\n\r\nhello";
static const char chunked[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "3\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n";

Test(http, a_request_reads_the_same_however_its_bytes_are_cut) {
    for (size_t step = 1; step <= sizeof simple; step++) {
        sd_http h;
        sd_http_init(&h);
        cr_assert_eq(feed_all(&h, simple, strlen(simple), step, NULL), SD_HTTP_DONE);
        cr_assert_str_eq(h.head.method, "POST");
        cr_assert_str_eq(h.head.path, "/v1/completions");
        cr_assert_str_eq(h.head.query, "x=1");
        cr_assert_str_eq(sd_http_field_get(&h.head, "x-request-id"), "abc");
        cr_assert_str_eq(h.body.data, "hello");
        cr_assert(h.head.keep_alive);
        sd_http_free(&h);
    }
}

Test(http, a_chunked_body_reads_the_same_however_its_bytes_are_cut) {
    for (size_t step = 1; step <= sizeof chunked; step++) {
        sd_http h;
        sd_http_init(&h);
        cr_assert_eq(feed_all(&h, chunked, strlen(chunked), step, NULL), SD_HTTP_DONE,
                     "step %zu: %s", step, h.reason);
        cr_assert_str_eq(h.body.data, "hello");
        cr_assert_str_eq(h.head.path, "/");
        sd_http_free(&h);
    }
}

Test(http, pipelined_requests_come_out_one_by_one) {
    char two[512];
    int n = snprintf(two, sizeof two, "%s%s", simple, chunked);
    sd_http h;
    sd_http_init(&h);
    size_t end;
    cr_assert_eq(feed_all(&h, two, n, 1000, &end), SD_HTTP_DONE);
    cr_assert_eq(end, strlen(simple));
    sd_http_reset(&h);
    cr_assert(sd_http_is_idle(&h));
    cr_assert_eq(feed_all(&h, two + end, n - end, 1000, &end), SD_HTTP_DONE);
    cr_assert_eq(end, strlen(chunked));
    sd_http_free(&h);
}

#define HOST "Host: a\r\n"
#define CHUNKED "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
// Every request here must be refused with this status, whole and byte by byte.
static const struct {
    int status;
    const char *text;
} refused[] = {
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\na"},
    {400,
     "POST / HTTP/1.1\r\n" HOST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\na"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\na"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\na"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1 1\r\n\r\na"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST
          "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n"}, // folded
    {400, "GET / HTTP/1.1\r\n" HOST "\tX: a\r\n\r\n"},     // folded
    {400, "GET / HTTP/1.1\n" HOST "\r\n"},                 // bare LF
    {400, "GET / HTTP/1.1\r\n" HOST "X: a\nY: b\r\n\r\n"}, // bare LF
    {400, "GET / HTTP/1.1\r\n" HOST "X: a\rY: b\r\n\r\n"}, // bare CR
    {400, "GET / HTTP/1.1\r\n" HOST "X: a\r\r\n\r\n"},     // CR CR LF
    {400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"},           // space before the colon
    {400, "GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n"},        // no name
    {400, "GET / HTTP/1.1\r\n" HOST "nocolon\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "X: \x01\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n\r\n"},                    // no Host
    {400, "GET / HTTP/1.1\r\n" HOST "Host: b\r\n\r\n"}, // two Hosts
    {400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
    {400, "GET http://b/ HTTP/1.1\r\n" HOST "\r\n"}, // another host
    {400, "GET http://a HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET a/ HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET * HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /#x HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n"},
    {400, "G(T / HTTP/1.1\r\n" HOST "\r\n"},
    {400, " GET / HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET  / HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET / HTTP/1.1 \r\n" HOST "\r\n"},
    {400, "GET /\r\n" HOST "\r\n"},
    {400, "GET / HTTX/1.1\r\n" HOST "\r\n"},
    {400, "\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n"},
    {505, "GET / HTTP/2.0\r\n" HOST "\r\n"},
    {417, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nExpect: tea\r\n\r\na"},
    {413, "POST / HTTP/1.1\r\n" HOST "Content-Length: 16777217\r\n\r\n"},
    {413, "POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999999\r\n\r\n"},
    {413, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nffffffff\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n100000000\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-1\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n"},
    {400, CHUNKED "1;\r\na\r\n"},
    {400, CHUNKED "1;=b\r\na\r\n"},
    {400, CHUNKED "1;a=\r\na\r\n"},
    {400, CHUNKED "1;a b\r\na\r\n"},
    {400, CHUNKED "1;a=\"b\r\na\r\n"},
    {400, CHUNKED "1;a=\"b\\\"\r\na\r\n"},
    {400, CHUNKED "1;\"a\"\r\na\r\n"},
    {400, CHUNKED "1;a=b \r\na\r\n"},
    {400, CHUNKED "1 a\r\na\r\n"},
    {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\na\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\nX : a\r\n\r\n"},
};

Test(http, ambiguous_and_malformed_requests_are_refused) {
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        for (size_t step = 1; step <= 1000; step += 999) {
            sd_http h;
            sd_http_init(&h);
            sd_http_result r = feed_all(&h, refused[i].text, strlen(refused[i].text), step, NULL);
            cr_assert_eq(r, SD_HTTP_BAD, "accepted: %s", refused[i].text);
            cr_assert_eq(h.status, refused[i].status, "%d for: %s", h.status, refused[i].text);
            cr_assert_not_null(h.reason);
            size_t used;
            cr_assert_eq(sd_http_feed(&h, "GET", 3, &used), SD_HTTP_BAD);
            sd_http_free(&h);
        }
    }
}

Test(http, a_nul_byte_in_the_head_is_refused) {
    static const char nul[] = "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n";
    sd_http h;
    sd_http_init(&h);
    cr_assert_eq(feed_all(&h, nul, sizeof nul - 1, 1, NULL), SD_HTTP_BAD);
    cr_assert_eq(h.status, 400);
    sd_http_free(&h);
}

Test(http, limits_hold_before_the_head_is_complete) {
    static char big[SD_HTTP_MAX_HEAD + 100];
    sd_http h;
    sd_http_init(&h);
    int n = snprintf(big, sizeof big, "GET /");
    memset(big + n, 'a', sizeof big - n);
    cr_assert_eq(feed_all(&h, big, sizeof big, 64, NULL), SD_HTTP_BAD);
    cr_assert_eq(h.status, 414);
    sd_http_free(&h);
    sd_http_init(&h);
    n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(big + n, 'a', sizeof big - n);
    cr_assert_eq(feed_all(&h, big, sizeof big, 64, NULL), SD_HTTP_BAD);
    cr_assert_eq(h.status, 431);
    cr_assert_leq(h.text.cap, 2 * SD_HTTP_MAX_HEAD);
    sd_http_free(&h);
    sd_http_init(&h);
    n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < SD_HTTP_MAX_FIELDS; i++)
        n += snprintf(big + n, sizeof big - n, "X%d: a\r\n", i);
    cr_assert_eq(feed_all(&h, big, n, 64, NULL), SD_HTTP_BAD);
    cr_assert_eq(h.status, 431);
    sd_http_free(&h);
}

Test(http, connection_and_expect_are_read_as_the_version_means_them) {
    static const struct {
        const char *text;
        bool keep, expect;
    } rows[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", true, false},
        {"GET / HTTP/1.1\r\n" HOST "Connection: foo, Close\r\n\r\n", false, false},
        {"GET / HTTP/1.0\r\n\r\n", false, false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, false},
        {"GET http://a/ HTTP/1.1\r\n" HOST "\r\n", true, false},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nExpect: 100-continue\r\n\r\na", true,
         true},
        {"\r\nGET / HTTP/1.1\r\n" HOST "\r\n", true, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sd_http h;
        sd_http_init(&h);
        cr_assert_eq(feed_all(&h, rows[i].text, strlen(rows[i].text), 7, NULL), SD_HTTP_DONE,
                     "%s: %s", rows[i].text, h.reason);
        cr_assert_eq(h.head.keep_alive, rows[i].keep);
        cr_assert_eq(h.head.expect, rows[i].expect);
        cr_assert_str_eq(h.head.path, "/");
        sd_http_free(&h);
    }
}

Test(http, escapes_decode_or_are_refused) {
    char out[8];
    cr_assert(sd_http_unescape(out, sizeof out, "a%2Fb%41"));
    cr_assert_str_eq(out, "a/bA");
    cr_assert_not(sd_http_unescape(out, sizeof out, "%4"));
    cr_assert_not(sd_http_unescape(out, sizeof out, "%zz"));
    cr_assert_not(sd_http_unescape(out, sizeof out, "%00"));
    cr_assert_not(sd_http_unescape(out, sizeof out, "12345678"));
}

Test(http, extensions_of_chunks_are_read_past_and_bounded) {
    static const char body[] = CHUNKED "1;a\r\nx\r\n1 ; a = b;c=\"d;\\\"e\"\r\ny\r\n"
                                       "0;last=1\r\nX-T: 1\r\n\r\n";
    for (size_t step = 1; step <= sizeof body; step++) {
        sd_http h;
        sd_http_init(&h);
        cr_assert_eq(feed_all(&h, body, sizeof body - 1, step, NULL), SD_HTTP_DONE, "%s", h.reason);
        cr_assert_eq(h.body.len, 2);
        cr_assert_eq(memcmp(h.body.data, "xy", 2), 0);
        sd_http_free(&h);
    }
    // 400 bytes that say nothing beside each byte of the body: refused before they are 100 KB.
    sd_buf many = sd_buf_make(1 << 20);
    sd_buf_adds(&many, CHUNKED);
    for (int i = 0; i < 1000; i++) sd_buf_printf(&many, "1;a=%0400d\r\nx\r\n", i);
    sd_http h;
    size_t end = 0;
    sd_http_init(&h);
    cr_assert_eq(feed_all(&h, many.data, many.len, 1000, &end), SD_HTTP_BAD);
    cr_assert_eq(h.status, 400);
    cr_assert_lt(end, 100000);
    sd_http_free(&h);
    sd_buf_free(&many);
}
