// A client of the server's on one connection, which waits long and trusts what it is answered: it is
// for judging answers, not for attacking. What cannot go on ends the program with a line of TAP.
#pragma once

#include "base/memory.h"

#include <stdbool.h>

enum { CLIENT_PATIENCE_S = 600 };

typedef struct {
    int fd;
    char in[1 << 16];
    size_t at, len;
} client;

void client_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void *client_must(void *p); // NULL: out of memory

bool client_dial(client *c, int port);
void client_hang_up(client *c, bool reset); // one that is not dialled (fd -1) is fine
bool client_put(client *c, const char *data, size_t len);
/// Replaces *out by a POST of body and returns its length. key: as Authorization; NULL: none.
size_t client_write_request(sd_buf *out, const char *path, const char *key, const char *body);
/// An answer's status, 0 when the connection ended first; its body. keep: the connection stays.
int client_read_answer(client *c, sd_buf *body, bool *keep);
