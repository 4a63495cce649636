#include "base/files/file.h"

#include "base/files/beneath.h"
#include "base/list.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

sd_status sd_fail_errno(sd_error *err, const char *path, const char *doing) {
    int e = errno;
    switch (e) {
    case ENOENT:
    case ENOTDIR:
        return sd_fail(err, SD_ENOTFOUND, "%s: no such file or directory; check the path", path);
    case EISDIR:
        return sd_fail(err, SD_EINVAL, "%s: is a folder; give the path of a file", path);
    case EXDEV:
        return sd_fail(err, SD_EINVAL,
                       "%s: leads out of the folder that it must stay in, or through links without "
                       "end; give a path below that folder",
                       path);
    case ENAMETOOLONG:
        return sd_fail(err, SD_EINVAL, "%.200s...: the path is too long; give a shorter one", path);
    case ENOSPC:
    case EDQUOT:
        return sd_fail(err, SD_EIO, "%s: %s: the disk is full; free space and run again", path,
                       doing);
    case EACCES:
    case EPERM:
    case EROFS:
        return sd_fail(err, SD_EIO, "%s: %s: %s; check the permissions", path, doing, strerror(e));
    default:
        return sd_fail(err, SD_EIO, "%s: %s: %s", path, doing, strerror(e));
    }
}

// The open of a pipe that nobody writes to waits for ever: it is opened without waiting and then
// looked at. The flag means nothing for a regular file.
sd_status sd_open_regular(int *out, size_t *size, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    *out = -1;
    int fd = sd_beneath_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return sd_fail_errno(err, path, "open");
    if (fstat(fd, &sb) != 0) {
        st = sd_fail_errno(err, path, "stat");
        goto out;
    }
    SD_CHECK(!S_ISDIR(sb.st_mode), err, SD_EINVAL, "%s: is a folder; give the path of a file",
             path);
    SD_CHECK(S_ISREG(sb.st_mode), err, SD_EFORMAT,
             "%s: is not a regular file; give the path of a file", path);
    SD_TRY(sd_beneath_check_size(path, sb.st_size, err));
    *size = (size_t)sb.st_size;
    *out = fd, fd = -1;
out:
    if (fd >= 0) close(fd);
    return st;
}

enum { PIECE = 16384 }; // room for the next read, at least

/// Everything up to the end of fd into a malloc'ed, 0-terminated buffer.
static sd_status read_all(char **data, size_t *len, int fd, const char *path, size_t max,
                          sd_error *err) {
    sd_status st = SD_OK;
    char *p = NULL;
    size_t used = 0, cap = 0;
    for (;;) {
        if (used + 1 >= cap) SD_CHECK_ALLOC(SD_GROW(p, used + PIECE, cap), err);
        ssize_t n = read(fd, p + used, cap - used - 1);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = sd_fail_errno(err, path, "read");
            goto out;
        }
        if (n == 0) break;
        used += (size_t)n;
        SD_CHECK(used <= max, err, SD_ELIMIT, "%s: is larger than %zu bytes; give a smaller file",
                 path, max);
    }
    p[used] = '\0';
    *data = p;
    *len = used;
    p = NULL;
out:
    free(p);
    return st;
}

sd_status sd_file_read(char **data, size_t *len, const char *path, size_t max, sd_error *err) {
    size_t size;
    int fd;
    *data = NULL;
    *len = 0;
    sd_status st = sd_open_regular(&fd, &size, path, err);
    if (st != SD_OK) return st;
    st = read_all(data, len, fd, path, max, err);
    close(fd);
    return st;
}

sd_status sd_stream_read(char **data, size_t *len, const char *path, size_t max, sd_error *err) {
    *data = NULL;
    *len = 0;
    int fd = sd_beneath_open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sd_fail_errno(err, path, "open");
    sd_status st = read_all(data, len, fd, path, max, err);
    close(fd);
    return st;
}

sd_status sd_file_head(void *head, size_t bytes, size_t *got, const char *path, sd_error *err) {
    size_t size;
    int fd;
    *got = 0;
    sd_status st = sd_open_regular(&fd, &size, path, err);
    if (st != SD_OK) return st;
    while (*got < bytes) {
        ssize_t n = read(fd, (char *)head + *got, bytes - *got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) st = sd_fail_errno(err, path, "read");
        if (n <= 0) break;
        *got += (size_t)n;
    }
    close(fd);
    return st;
}
