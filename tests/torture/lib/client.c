#include "tests/torture/lib/client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void client_die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    printf("not ok - ");
    vprintf(fmt, ap);
    printf("\n");
    exit(1);
}

void *client_must(void *p) {
    if (!p) client_die("out of memory");
    return p;
}

bool client_dial(client *c, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    c->at = c->len = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {CLIENT_PATIENCE_S, 0};
    int on = 1;
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) == 0) return true;
    close(c->fd);
    c->fd = -1;
    return false;
}

void client_hang_up(client *c, bool reset) {
    struct linger now = {1, 0};
    if (c->fd < 0) return;
    if (reset) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(c->fd);
    c->fd = -1;
}

bool client_put(client *c, const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        data += n, len -= (size_t)n;
    }
    return true;
}

static int get(client *c) {
    if (c->at == c->len) {
        ssize_t n = recv(c->fd, c->in, sizeof c->in, 0);
        if (n <= 0) return -1;
        c->at = 0, c->len = (size_t)n;
    }
    return (unsigned char)c->in[c->at++];
}

static bool get_line(client *c, char *line, size_t cap) {
    size_t n = 0;
    for (int b; (b = get(c)) >= 0;) {
        if (b == '\n') {
            line[n] = '\0';
            return true;
        }
        if (b != '\r' && n + 1 < cap) line[n++] = (char)b;
    }
    return false;
}

static bool get_bytes(client *c, sd_buf *out, size_t len) {
    while (len > 0) {
        int b = get(c);
        if (b < 0) return false;
        c->at--;
        size_t n = c->len - c->at < len ? c->len - c->at : len;
        if (!sd_buf_add(out, c->in + c->at, n)) client_die("out of memory");
        c->at += n, len -= n;
    }
    return true;
}

int client_read_answer(client *c, sd_buf *body, bool *keep) {
    char line[1024];
    int status = 0;
    sd_buf_clear(body);
    do { // 100 Continue may stand before it
        if (!get_line(c, line, sizeof line) || sscanf(line, "HTTP/1.1 %d", &status) != 1) return 0;
        if (status == 100 && !get_line(c, line, sizeof line)) return 0;
    } while (status == 100);
    bool chunked = false;
    size_t length = 0;
    *keep = true;
    for (;;) {
        if (!get_line(c, line, sizeof line)) return 0;
        if (!line[0]) break;
        sscanf(line, "Content-Length: %zu", &length);
        if (strcmp(line, "Transfer-Encoding: chunked") == 0) chunked = true;
        if (strcmp(line, "Connection: close") == 0) *keep = false;
    }
    if (!chunked) return get_bytes(c, body, length) ? status : 0;
    for (;;) {
        size_t size;
        if (!get_line(c, line, sizeof line) || sscanf(line, "%zx", &size) != 1) return 0;
        if (!get_bytes(c, body, size) || !get_line(c, line, sizeof line)) return 0;
        if (size == 0) return status;
    }
}

size_t client_write_request(sd_buf *out, const char *path, const char *key, const char *body) {
    sd_buf_clear(out);
    if (!sd_buf_printf(out,
                       "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       "%s%s%sContent-Length: %zu\r\n\r\n%s",
                       path, key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "",
                       strlen(body), body))
        client_die("out of memory");
    return out->len;
}
