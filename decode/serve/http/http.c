// The head is collected into one bounded buffer, line by line. A line ends with CRLF and nothing
// else: a bare LF, a bare CR and a NUL are refused when they are seen. Request smuggling lives on
// messages that two parsers delimit differently, so everything about the length of a body has one
// spelling here: one Content-Length of digits alone, or one "Transfer-Encoding: chunked", never
// both; chunk sizes of one to eight hex digits. A chunk's extensions are read by their grammar and
// ignored (RFC 9112, 7.1.1).
//
// The request line and the fields are noted as offsets while the buffer may still move and become
// pointers when the head is complete.
#include "decode/serve/http/http.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { // states
    REQUEST_LINE,
    FIELDS,
    HEAD_READY, // SD_HTTP_HEAD was said; the body follows
    BODY,
    CHUNK_SIZE,
    CHUNK_DATA,
    CHUNK_END, // the CRLF after a chunk's data
    TRAILERS,
    COMPLETE,
    FAILED
};
enum { MAX_CHUNK_LINE = 512, MAX_TRAILERS = 4096, MAX_EXTENSIONS = 64 * 1024 };

void sd_http_init(sd_http *h) {
    *h = (sd_http){.head.length = -1};
    h->text = sd_buf_make(SD_HTTP_MAX_HEAD + 1);
    h->body = sd_buf_make(SD_HTTP_MAX_BODY + 1);
    h->small = sd_buf_make(MAX_TRAILERS + 1);
}

void sd_http_reset(sd_http *h) {
    sd_buf text = h->text, body = h->body, small = h->small;
    sd_buf_free(&body); // an idle connection holds no body, however small
    sd_buf_clear(&text);
    sd_buf_clear(&small);
    *h = (sd_http){.head.length = -1, .text = text, .body = body, .small = small};
}

void sd_http_free(sd_http *h) {
    sd_buf_free(&h->text);
    sd_buf_free(&h->body);
    sd_buf_free(&h->small);
}

bool sd_http_is_idle(const sd_http *h) {
    return h->state == REQUEST_LINE && h->text.len == 0;
}

static sd_http_result bad(sd_http *h, int status, const char *reason) {
    h->state = FAILED;
    h->status = status;
    h->reason = reason;
    return SD_HTTP_BAD;
}

// tchar of RFC 9110, 5.6.2.
static bool is_token_char(unsigned char c) {
    return isalnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!is_token_char((unsigned char)s[i])) return false;
    return n > 0;
}

// reg-name, IPv4 or [IPv6], with an optional port: characters only, the name is not looked up.
static bool is_host(const char *s) {
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("-._~%!$&'()*+,;=:[]", *s)) return false;
    return true;
}

// METHOD SP target SP HTTP/1.x, with single spaces.
static sd_http_result take_request_line(sd_http *h, char *line, size_t n) {
    char *space = memchr(line, ' ', n);
    if (!space) return bad(h, 400, "the request line has no target");
    if (!is_token(line, (size_t)(space - line))) return bad(h, 400, "the method is not a token");
    char *target = space + 1, *end = line + n;
    char *second = memchr(target, ' ', (size_t)(end - target));
    if (!second) return bad(h, 400, "the request line has no HTTP version");
    if (second == target) return bad(h, 400, "the request line has two spaces or an empty target");
    if (second - target > SD_HTTP_MAX_URI) return bad(h, 414, "the URI is longer than 4 KB");
    for (char *c = target; c < second; c++)
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f || *c == '#')
            return bad(h, 400, "the target has a character that must be percent-encoded");
    const char *version = second + 1;
    size_t version_len = (size_t)(end - version);
    if (version_len != 8 || memcmp(version, "HTTP/", 5) != 0 ||
        !isdigit((unsigned char)version[5]) || version[6] != '.' ||
        !isdigit((unsigned char)version[7]))
        return bad(h, 400, "the request line does not end with an HTTP version");
    if (version[5] != '1' || version[7] > '1')
        return bad(h, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    h->head.minor = version[7] - '0';
    *space = *second = '\0';
    h->method_at = (size_t)(line - h->text.data);
    h->target_at = (size_t)(target - h->text.data);
    h->state = FIELDS;
    return SD_HTTP_MORE;
}

// One field line, ended with 0 by the caller. Checks everything, notes it when `store`.
static sd_http_result take_field(sd_http *h, char *line, size_t n, bool store) {
    if (line[0] == ' ' || line[0] == '\t')
        return bad(h, 400, "a field line is folded; put it on one line");
    char *colon = memchr(line, ':', n);
    if (!colon) return bad(h, 400, "a field line has no colon");
    if (!is_token(line, (size_t)(colon - line)))
        return bad(h, 400, "a field name is empty, or has a space or another bad character");
    char *value = colon + 1, *end = line + n;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
    for (char *c = value; c < end; c++)
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
            return bad(h, 400, "a field value has a control character");
    if (!store) return SD_HTTP_MORE;
    if (h->head.n_fields == SD_HTTP_MAX_FIELDS)
        return bad(h, 431, "the request has more than 64 fields");
    *colon = *end = '\0';
    size_t *at = h->field_at[h->head.n_fields++];
    at[0] = (size_t)(line - h->text.data);
    at[1] = (size_t)(value - h->text.data);
    return SD_HTTP_MORE;
}

const char *sd_http_field_get(const sd_http_head *head, const char *name) {
    for (int i = 0; i < head->n_fields; i++)
        if (strcasecmp(head->field[i].name, name) == 0) return head->field[i].value;
    return NULL;
}

const char *sd_http_field_last(const sd_http_head *head, const char *name) {
    for (int i = head->n_fields; i-- > 0;)
        if (strcasecmp(head->field[i].name, name) == 0) return head->field[i].value;
    return NULL;
}

static int count_fields(const sd_http_head *head, const char *name) {
    int n = 0;
    for (int i = 0; i < head->n_fields; i++) n += strcasecmp(head->field[i].name, name) == 0;
    return n;
}

// True when the comma-separated list holds the word.
static bool list_has(const char *list, const char *word) {
    size_t n = strlen(word);
    while (list && *list) {
        list += strspn(list, ", \t");
        size_t len = strcspn(list, ",");
        while (len && (list[len - 1] == ' ' || list[len - 1] == '\t')) len--;
        if (len == n && strncasecmp(list, word, n) == 0) return true;
        list += strcspn(list, ",");
    }
    return false;
}

// The one reading of the body's length.
static sd_http_result take_length(sd_http *h) {
    sd_http_head *head = &h->head;
    int lengths = count_fields(head, "Content-Length");
    int codings = count_fields(head, "Transfer-Encoding");
    if (lengths > 1) return bad(h, 400, "the request has two Content-Length fields");
    if (codings > 1) return bad(h, 400, "the request has two Transfer-Encoding fields");
    if (lengths && codings)
        return bad(h, 400, "the request has both Content-Length and Transfer-Encoding");
    if (codings) {
        if (head->minor == 0) return bad(h, 400, "HTTP/1.0 has no Transfer-Encoding");
        const char *coding = sd_http_field_get(head, "Transfer-Encoding");
        size_t n = strlen(coding);
        if (strcasecmp(coding, "chunked") != 0) {
            // A body that ends with its last chunk could be read by who knows the other codings;
            // any other has no end that two parsers agree on.
            bool last = n > 8 && strcasecmp(coding + n - 7, "chunked") == 0 && coding[n - 8] == ' ';
            return bad(h, last ? 501 : 400, "the only Transfer-Encoding known here is chunked");
        }
        head->chunked = head->has_body = true;
    }
    if (lengths) {
        const char *s = sd_http_field_get(head, "Content-Length");
        int64_t n = 0;
        size_t digits = strspn(s, "0123456789");
        if (digits == 0 || s[digits]) return bad(h, 400, "Content-Length is not a decimal number");
        for (size_t i = 0; i < digits && n <= SD_HTTP_MAX_BODY; i++) n = n * 10 + (s[i] - '0');
        if (n > SD_HTTP_MAX_BODY) return bad(h, 413, "the body is larger than 16 MB");
        head->length = n;
        head->has_body = n > 0;
    }
    return SD_HTTP_MORE;
}

// Splits the target into path and query; an absolute form must name the same host as Host does.
static sd_http_result take_target(sd_http *h) {
    sd_http_head *head = &h->head;
    char *target = h->text.data + h->target_at;
    int hosts = count_fields(head, "Host");
    const char *host = sd_http_field_get(head, "Host");
    if (hosts > 1) return bad(h, 400, "the request has two Host fields");
    if (!host && head->minor >= 1) return bad(h, 400, "the request has no Host field");
    if (host && !is_host(host)) return bad(h, 400, "the Host field is not a host name");
    if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
        const char *authority = strchr(target, ':') + 3;
        size_t n = strcspn(authority, "/?");
        if (host && (strlen(host) != n || strncasecmp(authority, host, n) != 0))
            return bad(h, 400, "the target names another host than the Host field");
        if (authority[n] != '/') return bad(h, 400, "the target has no path");
        target += (authority - target) + (ptrdiff_t)n;
    } else if (strcmp(target, "*") == 0) {
        if (strcmp(h->text.data + h->method_at, "OPTIONS") != 0)
            return bad(h, 400, "the target '*' is for OPTIONS alone");
    } else if (target[0] != '/') {
        return bad(h, 400, "the target does not begin with '/'");
    }
    char *question = strchr(target, '?');
    if (question) *question = '\0';
    head->path = target;
    head->query = question ? question + 1 : "";
    return SD_HTTP_MORE;
}

static sd_http_result finish_head(sd_http *h) {
    sd_http_head *head = &h->head;
    head->method = h->text.data + h->method_at;
    for (int i = 0; i < head->n_fields; i++) {
        head->field[i].name = h->text.data + h->field_at[i][0];
        head->field[i].value = h->text.data + h->field_at[i][1];
    }
    if (take_length(h) == SD_HTTP_BAD || take_target(h) == SD_HTTP_BAD) return SD_HTTP_BAD;
    const char *expect = sd_http_field_get(head, "Expect");
    if (expect && head->minor >= 1) {
        if (strcasecmp(expect, "100-continue") != 0)
            return bad(h, 417, "the only expectation known here is 100-continue");
        head->expect = head->has_body;
    }
    const char *connection = sd_http_field_get(head, "Connection");
    head->keep_alive =
        head->minor >= 1 ? !list_has(connection, "close") : list_has(connection, "keep-alive");
    h->state = HEAD_READY;
    return SD_HTTP_HEAD;
}

// A complete line of the head stands in text from h->line on, without its CRLF and 0-terminated.
static sd_http_result take_head_line(sd_http *h) {
    char *line = h->text.data + h->line;
    size_t n = h->text.len - h->line;
    if (h->state == REQUEST_LINE) {
        if (n > 0) return take_request_line(h, line, n);
        // One empty line before a request is an old client's habit (RFC 9112, 2.2).
        if (++h->blank_lines > 1) return bad(h, 400, "the request begins with empty lines");
        return SD_HTTP_MORE;
    }
    if (n == 0) return finish_head(h);
    return take_field(h, line, n, true);
}

// Appends to `to` the bytes up to and with the next LF; says with *complete whether a line is
// there, which then stands from `from` on, 0-terminated and without its CRLF. over: the status when
// the buffer would pass max bytes.
static sd_http_result collect_line(sd_http *h, sd_buf *to, size_t from, size_t max, int over,
                                   const char *data, size_t len, size_t *used, bool *complete) {
    *complete = false;
    const char *lf = memchr(data, '\n', len);
    size_t n = lf ? (size_t)(lf - data) + 1 : len;
    if (memchr(data, '\0', n)) return bad(h, 400, "the head has a NUL byte");
    if (n > max || to->len > max - n) return bad(h, over, "a part of the head is too large");
    if (!sd_buf_add(to, data, n)) return bad(h, 503, "out of memory");
    *used += n;
    const char *text = to->data + from;
    size_t total = to->len - from;
    // A CR is good only right before the LF: the last byte so far may still get one.
    const char *cr = memchr(text, '\r', total);
    if (cr && cr != text + total - 1 && !(lf && cr == text + total - 2))
        return bad(h, 400, "a line has a carriage return that ends no line");
    if (!lf) return SD_HTTP_MORE;
    if (total < 2 || text[total - 2] != '\r')
        return bad(h, 400, "a line ends with a bare line feed; end it with CRLF");
    to->len -= 2;
    to->data[to->len] = '\0';
    *complete = true;
    return SD_HTTP_MORE;
}

static sd_http_result feed_head(sd_http *h, const char *data, size_t len, size_t *used) {
    while (*used < len) {
        bool complete;
        if (collect_line(h, &h->text, h->line, SD_HTTP_MAX_HEAD, 431, data + *used, len - *used,
                         used, &complete) == SD_HTTP_BAD)
            return SD_HTTP_BAD;
        if (h->state == REQUEST_LINE && h->text.len > SD_HTTP_MAX_URI + 64)
            return bad(h, 414, "the URI is longer than 4 KB");
        if (!complete) return SD_HTTP_MORE;
        sd_http_result r = take_head_line(h);
        if (r != SD_HTTP_MORE) return r;
        // The 0 that ended the line stays: strings of the head end there.
        if (h->text.len > h->line) sd_buf_addc(&h->text, '\0');
        h->line = h->text.len;
    }
    return SD_HTTP_MORE;
}

static const char *skip_blanks(const char *s) {
    return s + strspn(s, " \t");
}

// After a token or a quoted string; NULL when there is neither.
static const char *skip_word(const char *s) {
    const char *begin = s;
    if (*s != '"') {
        while (is_token_char((unsigned char)*s)) s++;
        return s > begin ? s : NULL;
    }
    for (s++; *s && *s != '"'; s++) {
        if (*s == '\\') s++;
        if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f) return NULL;
    }
    return *s ? s + 1 : NULL;
}

// *( BWS ";" BWS name [ BWS "=" BWS value ] ), and nothing behind it.
static bool is_extensions(const char *s) {
    for (;;) {
        if (!*s) return true;
        s = skip_blanks(s);
        if (*s != ';') return false;
        s = skip_blanks(s + 1);
        if (*s == '"' || !(s = skip_word(s))) return false;
        const char *after = skip_blanks(s);
        if (*after != '=') continue;
        if (!(s = skip_word(skip_blanks(after + 1)))) return false;
    }
}

static sd_http_result take_chunk_size(sd_http *h) {
    const char *s = h->small.data;
    size_t n = strspn(s, "0123456789abcdefABCDEF");
    if (n == 0 || n > 8 || (s[n] && s[n] != ';' && s[n] != ' ' && s[n] != '\t'))
        return bad(h, 400, "a chunk size is not one to eight hex digits");
    if (!is_extensions(s + n)) return bad(h, 400, "a chunk's extension is malformed");
    // Bytes that carry nothing are bounded over the whole body, or a client could send for ever.
    h->extension_bytes += strlen(s + n);
    if (h->extension_bytes > MAX_EXTENSIONS)
        return bad(h, 400, "the extensions of the chunks are too large");
    int64_t size = strtoll(s, NULL, 16);
    if (size + (int64_t)h->body.len > SD_HTTP_MAX_BODY)
        return bad(h, 413, "the body is larger than 16 MB");
    h->remaining = size;
    h->state = size ? CHUNK_DATA : TRAILERS;
    return SD_HTTP_MORE;
}

static sd_http_result take_trailer(sd_http *h) {
    size_t n = h->small.len;
    if (n == 0) {
        h->state = COMPLETE;
        return SD_HTTP_DONE;
    }
    h->trailer_bytes += n;
    if (h->trailer_bytes > MAX_TRAILERS) return bad(h, 431, "the trailer fields are too large");
    return take_field(h, h->small.data, n, false);
}

// One line of the chunked framing: a size, the end of a chunk's data, or a trailer field.
static sd_http_result feed_chunk_line(sd_http *h, const char *data, size_t len, size_t *used) {
    bool complete;
    size_t max = h->state == TRAILERS ? MAX_TRAILERS : MAX_CHUNK_LINE;
    sd_http_result r = collect_line(h, &h->small, 0, max, 400, data, len, used, &complete);
    if (r == SD_HTTP_BAD || !complete) return r;
    if (h->state == CHUNK_SIZE) {
        r = take_chunk_size(h);
    } else if (h->state == TRAILERS) {
        r = take_trailer(h);
    } else if (h->small.len > 0) {
        r = bad(h, 400, "a chunk is longer than its size says");
    } else {
        h->state = CHUNK_SIZE;
    }
    sd_buf_clear(&h->small);
    return r;
}

static sd_http_result feed_data(sd_http *h, const char *data, size_t len, size_t *used) {
    size_t n = (int64_t)len < h->remaining ? len : (size_t)h->remaining;
    if (!sd_buf_add(&h->body, data, n)) return bad(h, 503, "out of memory");
    *used += n;
    h->remaining -= (int64_t)n;
    if (h->remaining > 0) return SD_HTTP_MORE;
    h->state = h->head.chunked ? CHUNK_END : COMPLETE;
    return h->state == COMPLETE ? SD_HTTP_DONE : SD_HTTP_MORE;
}

// After the head was shown: where the body begins, if there is one.
static sd_http_result begin_body(sd_http *h) {
    h->remaining = h->head.length;
    if (!h->head.has_body) {
        h->state = COMPLETE;
        return SD_HTTP_DONE;
    }
    h->state = h->head.chunked ? CHUNK_SIZE : BODY;
    return SD_HTTP_MORE;
}

sd_http_result sd_http_feed(sd_http *h, const char *data, size_t len, size_t *used) {
    sd_http_result r = SD_HTTP_MORE;
    *used = 0;
    if (h->state == FAILED) return SD_HTTP_BAD;
    if (h->state == COMPLETE) return SD_HTTP_DONE;
    if (h->state == HEAD_READY) r = begin_body(h);
    while (r == SD_HTTP_MORE && *used < len) {
        size_t taken = 0;
        const char *rest = data + *used;
        size_t n = len - *used;
        if (h->state <= FIELDS)
            r = feed_head(h, rest, n, &taken);
        else if (h->state == BODY || h->state == CHUNK_DATA)
            r = feed_data(h, rest, n, &taken);
        else
            r = feed_chunk_line(h, rest, n, &taken);
        *used += taken;
    }
    return r;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool sd_http_unescape(char *out, size_t cap, const char *text) {
    size_t n = 0;
    while (*text) {
        int c = (unsigned char)*text++;
        if (c == '%') {
            int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);
            if (low < 0) return false;
            c = high * 16 + low;
            text += 2;
            if (c == 0) return false;
        }
        if (n + 1 >= cap) return false;
        out[n++] = (char)c;
    }
    if (n >= cap) return false;
    out[n] = '\0';
    return true;
}

const char *sd_http_reason(int status) {
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {100, "Continue"},
        {200, "OK"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status) return reasons[i].text;
    return "Unknown";
}
