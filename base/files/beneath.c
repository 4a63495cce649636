#include "base/files/beneath.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LONGEST = 4096 };

static _Thread_local const sd_root *here; // NULL: opened as always

static int open_beneath(int root, const char *path, int flags) {
    struct open_how how = {.flags = (unsigned)flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd;
    // EAGAIN: something was renamed meanwhile, and the kernel could not tell whether the path leads out.
    for (int i = 0; (fd = syscall(SYS_openat2, root, path, &how, sizeof how)) < 0 &&
                    (errno == EINTR || (errno == EAGAIN && i < 100));
         i++) {
    }
    return (int)fd;
}

sd_status sd_root_open(sd_root *r, const char *folder, size_t most, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    size_t n = strlen(folder);
    *r = (sd_root){.fd = -1, .most = most};
    while (n > 1 && folder[n - 1] == '/') n--;
    // A relative one is made absolute; one that is absolute stays as clients know it, links and all.
    r->path = folder[0] == '/' ? sd_strndup(folder, n) : realpath(folder, NULL);
    SD_CHECK(r->path || folder[0] == '/', err, SD_EINVAL,
             "%s: cannot be opened as a folder: %s; check the path", folder, strerror(errno));
    SD_CHECK_ALLOC(r->path, err);
    r->fd = open(r->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    SD_CHECK(r->fd >= 0 && fstat(r->fd, &sb) == 0, err, SD_EINVAL,
             "%s: cannot be opened as a folder: %s; check the path", folder, strerror(errno));
    int self = open_beneath(r->fd, ".", O_PATH | O_CLOEXEC);
    SD_CHECK(
        self >= 0, err, SD_EINVAL,
        "%s: this system cannot keep paths below a folder (openat2: %s); it takes Linux 5.6 and "
        "a sandbox that allows openat2",
        folder, strerror(errno));
    close(self);
out:
    return st;
}

void sd_root_close(sd_root *r) {
    if (r->path && r->fd >= 0) close(r->fd);
    free(r->path);
    *r = (sd_root){.fd = -1};
}

// What stands behind the root in a path of it; NULL: it is none.
static const char *behind(const sd_root *r, const char *path) {
    const size_t n = strlen(r->path);
    if (strncmp(path, r->path, n) != 0) return NULL;
    if (path[n] == '\0') return ".";
    if (n == 1) return path + 1 + strspn(path + 1, "/"); // the root is "/"
    return path[n] == '/' ? path + n + strspn(path + n, "/") : NULL;
}

sd_status sd_root_path(char **out, const sd_root *r, const char *name, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    const char *rest = name[0] == '/' ? behind(r, name) : name;
    SD_CHECK(strlen(name) < LONGEST, err, SD_EINVAL,
             "a path of %zu bytes is too long; give one of less than %d", strlen(name), LONGEST);
    SD_CHECK(rest && rest[0] && strcmp(rest, ".") != 0, err, SD_EINVAL,
             "'%s' is not below the adapters' folder; give a path relative to it", name);
    *out = sd_sprintf("%s%s%s", r->path, r->path[1] ? "/" : "", rest);
    SD_CHECK_ALLOC(*out, err);
out:
    return st;
}

void sd_root_enter(const sd_root *r) {
    here = r;
}

void sd_root_leave(void) {
    here = NULL;
}

int sd_beneath_open(const char *path, int flags) {
    const char *rest = here ? behind(here, path) : NULL;
    if (!rest) return open(path, flags);
    int fd = open_beneath(here->fd, rest[0] ? rest : ".", flags);
    // Links that the kernel does not follow here are the path's fault, not the disk's.
    if (fd < 0 && errno == ELOOP) errno = EXDEV;
    return fd;
}

int sd_beneath_stat(const char *path, struct stat *sb) {
    if (!here || !behind(here, path)) return stat(path, sb);
    int fd = sd_beneath_open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) return -1;
    int rc = fstat(fd, sb), why = errno;
    close(fd);
    errno = why;
    return rc;
}

sd_status sd_beneath_check_size(const char *path, long long size, sd_error *err) {
    if (!here || !behind(here, path) || size < 0 || (unsigned long long)size <= here->most)
        return SD_OK;
    return sd_fail(err, SD_ELIMIT,
                   "%s: has %lld bytes, and %zu are allowed; give a smaller file or allow more",
                   path, size, here->most);
}
