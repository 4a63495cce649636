#include "base/files/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sd_status fail_errno(sd_error *err, const char *path, const char *doing) {
    int e = errno;
    switch (e) {
    case ENOENT:
    case ENOTDIR:
        return sd_fail(err, SD_ENOTFOUND, "%s: no such file or directory; check the path", path);
    case EISDIR:
        return sd_fail(err, SD_EINVAL, "%s: is a folder; give the path of a file", path);
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

sd_status sd_fail_errno(sd_error *err, const char *path, const char *doing) {
    return fail_errno(err, path, doing);
}

// The open of a pipe that nobody writes to waits for ever: it is opened without waiting and then
// looked at. The flag means nothing for a regular file.
sd_status sd_open_regular(int *out, size_t *size, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    *out = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_errno(err, path, "open");
    if (fstat(fd, &sb) != 0) {
        st = fail_errno(err, path, "stat");
        goto out;
    }
    SD_CHECK(!S_ISDIR(sb.st_mode), err, SD_EINVAL, "%s: is a folder; give the path of a file",
             path);
    SD_CHECK(S_ISREG(sb.st_mode), err, SD_EFORMAT,
             "%s: is not a regular file; give the path of a file", path);
    *size = (size_t)sb.st_size;
    *out = fd, fd = -1;
out:
    if (fd >= 0) close(fd);
    return st;
}

/// Everything up to the end of fd into a malloc'ed, 0-terminated buffer.
static sd_status read_all(char **data, size_t *len, int fd, const char *path, size_t max,
                          sd_error *err) {
    sd_status st = SD_OK;
    char *p = NULL;
    size_t used = 0, cap = 0;
    for (;;) {
        if (used + 1 >= cap) {
            size_t want = cap ? cap * 2 : 16384;
            char *q = sd_realloc_marked(p, want);
            SD_CHECK_ALLOC(q, err);
            p = q;
            cap = want;
        }
        ssize_t n = read(fd, p + used, cap - used - 1);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = fail_errno(err, path, "read");
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
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno(err, path, "open");
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
        if (n < 0) st = fail_errno(err, path, "read");
        if (n <= 0) break;
        *got += (size_t)n;
    }
    close(fd);
    return st;
}

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return sd_strdup(".");
    return sd_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

sd_status sd_fsync_path(const char *path, sd_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_errno(err, path, "open");
    sd_status st = SD_OK;
    struct stat sb;
    // Some file systems know no fsync of a folder and say EINVAL; there is nothing else to call.
    if (fsync(fd) != 0 && !(errno == EINVAL && fstat(fd, &sb) == 0 && S_ISDIR(sb.st_mode)))
        st = fail_errno(err, path, "fsync");
    close(fd);
    return st;
}

static sd_status fsync_parent(const char *path, sd_error *err) {
    char *dir = parent_of(path);
    if (!dir) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = sd_fsync_path(dir, err);
    free(dir);
    return st;
}

sd_status sd_replace_open(sd_replace *r, const char *path, sd_error *err) {
    return sd_replace_open_mode(r, path, 0644, err);
}

sd_status sd_replace_open_mode(sd_replace *r, const char *path, unsigned mode, sd_error *err) {
    static atomic_uint serial;
    sd_status st = SD_OK;
    *r = (sd_replace){0};
    int fd = -1;
    r->path = sd_strdup(path);
    SD_CHECK_ALLOC(r->path, err);
    // In a container every run may have the same process id: a killed one's file is stepped over.
    for (int tries = 0; fd < 0 && tries < 1000; tries++) {
        free(r->tmp);
        r->tmp = sd_sprintf("%s.tmp.%d.%u", path, (int)getpid(), atomic_fetch_add(&serial, 1));
        SD_CHECK_ALLOC(r->tmp, err);
        fd = open(r->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
        if (fd < 0 && errno != EEXIST) break;
    }
    if (fd < 0) {
        st = errno == ENOENT
                 ? sd_fail(err, SD_ENOTFOUND,
                           "%s: its folder does not exist; make it, or give another path", path)
                 : fail_errno(err, path, "create");
        free(r->tmp);
        r->tmp = NULL;
        goto out;
    }
    sd_unfinished(r->tmp);
    r->f = fdopen(fd, "wb");
    if (!r->f) close(fd);
    SD_CHECK_ALLOC(r->f, err);
out:
    if (st != SD_OK) sd_replace_abort(r);
    return st;
}

sd_status sd_check_writable(const char *path, sd_error *err) {
    sd_replace r;
    sd_path_kind kind;
    sd_status st = sd_path_look(&kind, path, err);
    if (st != SD_OK) return st;
    if (kind == SD_PATH_FOLDER)
        return sd_fail(err, SD_EINVAL, "%s: is a folder; give the path of a file", path);
    st = sd_replace_open(&r, path, err);
    if (st == SD_OK) sd_replace_abort(&r);
    return st;
}

sd_status sd_replace_commit(sd_replace *r, sd_error *err) {
    sd_status st = SD_OK;
    // The errno of an fwrite that failed before this call is gone.
    SD_CHECK(!ferror(r->f), err, SD_EIO, "%s: write failed; is the disk full?", r->path);
    if (fflush(r->f) != 0 || fsync(fileno(r->f)) != 0) {
        st = fail_errno(err, r->path, "write");
        goto out;
    }
    FILE *f = r->f;
    r->f = NULL;
    if (fclose(f) != 0 || rename(r->tmp, r->path) != 0) {
        st = fail_errno(err, r->path, "replace");
        goto out;
    }
    sd_finished(r->tmp);
    free(r->tmp);
    r->tmp = NULL;
    SD_TRY(fsync_parent(r->path, err));
out:
    sd_replace_abort(r);
    return st;
}

void sd_replace_abort(sd_replace *r) {
    if (r->f) fclose(r->f);
    if (r->tmp) unlink(r->tmp);
    sd_finished(r->tmp);
    free(r->tmp);
    free(r->path);
    *r = (sd_replace){0};
}

static bool is_leftover(const char *name) {
    const char *at = NULL;
    for (const char *p = name; (p = strstr(p, ".tmp.")); p++) at = p + 5;
    size_t pid = at ? strspn(at, "0123456789") : 0;
    if (pid == 0 || at[pid] != '.') return false;
    const char *serial = at + pid + 1;
    return *serial && strspn(serial, "0123456789") == strlen(serial);
}

sd_status sd_replace_sweep(const char *dir, sd_error *err) {
    char *path = NULL;
    sd_names in;
    sd_status st = sd_folder_list(&in, dir, err);
    if (st == SD_ENOTFOUND) return SD_OK;
    for (int i = 0; i < in.n && st == SD_OK; i++) {
        if (!is_leftover(in.name[i])) continue;
        path = sd_path_join(dir, in.name[i]);
        SD_CHECK_ALLOC(path, err);
        if (unlink(path) != 0 && errno != ENOENT) st = fail_errno(err, path, "remove");
        free(path);
        path = NULL;
    }
out:
    sd_names_free(&in);
    return st;
}

sd_status sd_file_write(const char *path, const void *data, size_t len, sd_error *err) {
    sd_replace r;
    sd_status st = SD_OK;
    SD_TRY(sd_replace_open(&r, path, err));
    if (len && fwrite(data, 1, len, r.f) != len) {
        st = fail_errno(err, path, "write");
        goto out;
    }
    SD_TRY(sd_replace_commit(&r, err));
out:
    sd_replace_abort(&r);
    return st;
}

sd_status sd_mkdirs(const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    char *p = sd_strdup(path);
    SD_CHECK_ALLOC(p, err);
    for (char *s = p + 1; *p; s++) {
        if (*s != '/' && *s != '\0') continue;
        char keep = *s;
        *s = '\0';
        if (mkdir(p, 0755) == 0) {
            SD_TRY(
                fsync_parent(p, err)); // else a power cut may take the folder and all that is in it
        } else if (errno != EEXIST) {
            SD_CHECK(errno != ENOTDIR, err, SD_EINVAL,
                     "%s: a part of the path is a file; give another path", path);
            st = fail_errno(err, p, "create the directory");
            goto out;
        }
        *s = keep;
        if (!keep) break;
    }
    SD_TRY(sd_path_look(&kind, path, err));
    SD_CHECK(kind == SD_PATH_FOLDER, err, SD_EINVAL, "%s: is not a directory; give another path",
             path);
out:
    free(p);
    return st;
}

// Filesystems without the flag (NFS) say EINVAL. There the look and the rename are two steps, but a
// folder is still never renamed over one that holds files.
static int rename_without_replacing(const char *from, const char *to) {
    struct stat sb;
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    if (lstat(to, &sb) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

sd_status sd_rename_new(const char *from, const char *to, sd_error *err) {
    if (rename_without_replacing(from, to) != 0) {
        if (errno == EEXIST || errno == ENOTEMPTY)
            return sd_fail(err, SD_EINVAL, "%s: exists already; remove it or give another path",
                           to);
        return fail_errno(err, to, "rename");
    }
    return fsync_parent(to, err);
}

sd_status sd_rename_aside(char **got, const char *from, const char *to, sd_error *err) {
    sd_status st = SD_OK;
    char *name = sd_strdup(to);
    *got = NULL;
    SD_CHECK_ALLOC(name, err);
    for (int i = 2;; i++) {
        st = sd_rename_new(from, name, err);
        if (st != SD_EINVAL || i > 9999) break; // EINVAL: there is one of that name
        free(name);
        name = sd_sprintf("%s.%d", to, i);
        SD_CHECK_ALLOC(name, err);
    }
    if (st == SD_OK) *got = name, name = NULL;
out:
    free(name);
    return st;
}

static int remove_entry(const char *path, const struct stat *sb, int kind, struct FTW *ftw) {
    (void)sb, (void)kind, (void)ftw;
    return remove(path);
}

sd_status sd_remove_tree(const char *path, sd_error *err) {
    struct stat sb;
    if (lstat(path, &sb) != 0 && errno == ENOENT) return SD_OK;
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return fail_errno(err, path, "remove");
    return SD_OK;
}
