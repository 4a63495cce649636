#include "decode/serve/life/service.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 }; // of those that are handed in

// A path, or a name that begins with '@' in the abstract space.
static bool address_of(struct sockaddr_un *a, socklen_t *len, const char *path) {
    size_t n = strlen(path);
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if ((path[0] != '/' && path[0] != '@') || n < 2 || n >= sizeof a->sun_path) return false;
    memcpy(a->sun_path, path, n);
    if (path[0] == '@') a->sun_path[0] = '\0';
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    return true;
}

void sd_service_notify(const char *fmt, ...) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a;
    socklen_t len;
    char text[512];
    va_list ap;
    if (!path || !address_of(&a, &len, path)) return;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n <= 0) return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    size_t bytes = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    sendto(fd, text, bytes, MSG_NOSIGNAL, (struct sockaddr *)&a, len);
    close(fd);
}

void sd_service_notify_reloading(void) {
    sd_service_notify("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(sd_now_ns() / 1000));
}

sd_status sd_service_check_socket(int fd, const char *from, sd_error *err) {
    sd_status st = SD_OK;
    int family = 0, listens = 0;
    socklen_t n = sizeof family, m = sizeof listens;
    bool ok = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n) == 0 &&
              getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &m) == 0;
    SD_CHECK(ok && listens && (family == AF_INET || family == AF_INET6), err, SD_EINVAL,
             "%s: descriptor %d is no TCP socket that listens; hand in one, as by "
             "ListenStream=127.0.0.1:8080",
             from, fd);
    int flags = fcntl(fd, F_GETFL);
    SD_CHECK(flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
                 fcntl(fd, F_SETFD, FD_CLOEXEC) == 0,
             err, SD_EIO, "%s: descriptor %d: %s", from, fd, strerror(errno));
out:
    return st;
}

sd_status sd_service_socket(int *fd, sd_error *err) {
    sd_status st = SD_OK;
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    char *end = NULL;
    *fd = 0;
    if (!pid || !fds || strtol(pid, NULL, 10) != (long)getpid()) return SD_OK; // another's
    long n = strtol(fds, &end, 10);
    SD_CHECK(*fds && !*end && n == 1, err, SD_EINVAL,
             "LISTEN_FDS=%.20s: one socket is served; give one ListenStream=", fds);
    SD_TRY(sd_service_check_socket(FIRST_FD, "LISTEN_FDS", err));
    *fd = FIRST_FD;
out:
    unsetenv("LISTEN_PID"), unsetenv("LISTEN_FDS"), unsetenv("LISTEN_FDNAMES");
    return st;
}
