#include "base/files/replace.h"

#include "base/files/cleanup.h"
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- what stands at the path

enum { MOST_LINKS = 40, DEFAULT_MODE = 0644 }; // MOST_LINKS: as the kernel's

typedef struct {
    char *path; // behind links; malloc'ed
    bool there; // a regular file, of this mode
    mode_t mode;
    bool direct; // a pipe or a device
} target;

static bool is_stream(mode_t mode) {
    return S_ISFIFO(mode) || S_ISCHR(mode);
}

/// The path that a link names, from the folder that the link stands in. NULL without memory.
static char *named_by(const char *link, const char *text) {
    const char *name = sd_path_name(link);
    if (text[0] == '/' || name == link) return sd_strdup(text);
    return sd_sprintf("%.*s%s", (int)(name - link), link, text);
}

/// One step along a link. /proc holds links to what a process has open (/dev/stdout leads there): their text need not be a
/// path, and a file that is replaced loses what still goes to the open one.
static sd_status follow(char **path, const struct stat *sb, sd_error *err) {
    sd_status st = SD_OK;
    char text[PATH_MAX];
    struct stat proc;
    char *next = NULL;
    SD_CHECK(stat("/proc", &proc) != 0 || proc.st_dev != sb->st_dev, err, SD_EINVAL,
             "%s: leads to a file that is open already; give the path of a file", *path);
    ssize_t n = readlink(*path, text, sizeof text - 1);
    if (n < 0) {
        st = sd_fail_errno(err, *path, "look");
        goto out;
    }
    text[n] = '\0';
    next = named_by(*path, text);
    SD_CHECK_ALLOC(next, err);
    free(*path);
    *path = next;
out:
    return st;
}

static sd_status refuse(const char *path, mode_t mode, sd_error *err) {
    const char *what = S_ISDIR(mode) ? "a folder" : S_ISBLK(mode) ? "a block device" : "a socket";
    return sd_fail(err, SD_EINVAL, "%s: is %s; give the path of a file", path, what);
}

static sd_status find_target(target *t, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    *t = (target){.path = sd_strdup(path), .mode = DEFAULT_MODE};
    SD_CHECK_ALLOC(t->path, err);
    SD_CHECK(
        strcmp(path, "-") != 0, err, SD_EINVAL,
        "-: standard output is not taken for a file; give a path, ./- for a file of that name");
    for (int links = 0;; links++) {
        SD_CHECK(links <= MOST_LINKS, err, SD_EINVAL, "%s: links without end; give another path",
                 path);
        if (lstat(t->path, &sb) != 0) {
            if (errno == ENOENT || errno == ENOTDIR) break; // the open says what is missing
            st = sd_fail_errno(err, path, "look");
            goto out;
        }
        if (!S_ISLNK(sb.st_mode)) {
            t->there = S_ISREG(sb.st_mode), t->direct = is_stream(sb.st_mode);
            if (!t->there && !t->direct) st = refuse(path, sb.st_mode, err);
            if (t->there) t->mode = sb.st_mode & 0777 & ~(mode_t)sd_private_bits();
            break;
        }
        struct stat end; // a pipe that a process has open stands behind a link and has no path
        if (stat(t->path, &end) == 0 && is_stream(end.st_mode)) {
            t->direct = true;
            break;
        }
        SD_TRY(follow(&t->path, &sb, err));
    }
out:
    if (st != SD_OK) {
        free(t->path);
        *t = (target){0};
    }
    return st;
}

static sd_status refuse_stream(const target *t, sd_error *err) {
    if (!t->direct) return SD_OK;
    return sd_fail(err, SD_EINVAL,
                   "%s: is a pipe or a device, and what is written there must be a file; give the "
                   "path of a file",
                   t->path);
}

// ---- opening

static sd_status take_fd(sd_replace *r, int fd, sd_error *err) {
    r->f = fdopen(fd, "wb");
    if (r->f) return SD_OK;
    close(fd);
    return sd_fail(err, SD_ENOMEM, "out of memory");
}

/// Takes path, which is malloc'ed.
static sd_status open_beside(sd_replace *r, char *path, mode_t mode, sd_error *err) {
    static atomic_uint serial;
    sd_status st = SD_OK;
    *r = (sd_replace){.path = path};
    int fd = -1;
    // In a container every run may have the same process id: a killed one's file is stepped over.
    for (int tries = 0; fd < 0 && tries < 1000; tries++) {
        free(r->tmp);
        r->tmp = sd_sprintf("%s.tmp.%d.%u", path, (int)getpid(), atomic_fetch_add(&serial, 1));
        SD_CHECK_ALLOC(r->tmp, err);
        fd = open(r->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0 && errno != EEXIST) break;
    }
    if (fd < 0) {
        st = errno == ENOENT
                 ? sd_fail(err, SD_ENOTFOUND,
                           "%s: its folder does not exist; make it, or give another path", path)
                 : sd_fail_errno(err, path, "create");
        free(r->tmp);
        r->tmp = NULL;
        goto out;
    }
    sd_cleanup_add(r->tmp);
    SD_TRY(take_fd(r, fd, err));
out:
    if (st != SD_OK) sd_replace_abort(r);
    return st;
}

/// Takes path, which is malloc'ed.
static sd_status open_directly(sd_replace *r, char *path, sd_error *err) {
    *r = (sd_replace){.path = path};
    int fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    sd_status st = fd < 0 ? sd_fail_errno(err, path, "open") : take_fd(r, fd, err);
    if (st != SD_OK) sd_replace_abort(r);
    return st;
}

static sd_status open_target(sd_replace *r, target *t, sd_error *err) {
    if (t->direct) return open_directly(r, t->path, err);
    sd_status st = open_beside(r, t->path, t->mode, err);
    // The umask is for what is new. A file system without modes refuses, which leaves the narrower one.
    if (st == SD_OK && t->there) (void)fchmod(fileno(r->f), t->mode);
    return st;
}

sd_status sd_replace_open(sd_replace *r, const char *path, sd_error *err) {
    target t;
    *r = (sd_replace){0};
    sd_status st = find_target(&t, path, err);
    return st != SD_OK ? st : open_target(r, &t, err);
}

sd_status sd_replace_open_mode(sd_replace *r, const char *path, unsigned mode, sd_error *err) {
    target t;
    *r = (sd_replace){0};
    sd_status st = find_target(&t, path, err);
    t.there = false, t.mode = (mode_t)mode;
    return st != SD_OK ? st : open_target(r, &t, err);
}

sd_status sd_replace_open_whole(sd_replace *r, const char *path, sd_error *err) {
    target t;
    *r = (sd_replace){0};
    sd_status st = find_target(&t, path, err);
    if (st != SD_OK) return st;
    st = refuse_stream(&t, err);
    if (st == SD_OK) return open_target(r, &t, err);
    free(t.path);
    return st;
}

sd_status sd_replace_open_own(sd_replace *r, const char *path, unsigned mode, sd_error *err) {
    *r = (sd_replace){0};
    char *copy = sd_strdup(path);
    if (!copy) return sd_fail(err, SD_ENOMEM, "out of memory");
    return open_beside(r, copy, (mode_t)mode, err);
}

static sd_status check_writable(const char *path, bool whole, sd_error *err) {
    sd_replace r;
    target t;
    sd_status st = find_target(&t, path, err);
    if (st != SD_OK) return st;
    if (whole) SD_TRY(refuse_stream(&t, err));
    if (t.direct) {
        if (access(t.path, W_OK) != 0) st = sd_fail_errno(err, path, "open");
    } else {
        st = open_target(&r, &t, err);
        t.path = NULL; // the replacement has it
        if (st == SD_OK) sd_replace_abort(&r);
    }
out:
    free(t.path);
    return st;
}

sd_status sd_check_writable(const char *path, sd_error *err) {
    return check_writable(path, false, err);
}

sd_status sd_check_writable_whole(const char *path, sd_error *err) {
    return check_writable(path, true, err);
}

// ---- the end

sd_status sd_replace_commit(sd_replace *r, sd_error *err) {
    sd_status st = SD_OK;
    // The errno of an fwrite that failed before this call is gone.
    SD_CHECK(!ferror(r->f), err, SD_EIO, "%s: write failed; is the disk full?", r->path);
    // A pipe and a device have no fsync.
    if (fflush(r->f) != 0 || (r->tmp && fsync(fileno(r->f)) != 0)) {
        st = sd_fail_errno(err, r->path, "write");
        goto out;
    }
    FILE *f = r->f;
    r->f = NULL;
    if (fclose(f) != 0 || (r->tmp && rename(r->tmp, r->path) != 0)) {
        st = sd_fail_errno(err, r->path, r->tmp ? "replace" : "write");
        goto out;
    }
    if (!r->tmp) goto out;
    sd_cleanup_drop(r->tmp);
    free(r->tmp);
    r->tmp = NULL;
    SD_TRY(sd_fsync_parent(r->path, err));
out:
    sd_replace_abort(r);
    return st;
}

void sd_replace_abort(sd_replace *r) {
    if (r->f) fclose(r->f);
    if (r->tmp) unlink(r->tmp);
    sd_cleanup_drop(r->tmp);
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
        if (unlink(path) != 0 && errno != ENOENT) st = sd_fail_errno(err, path, "remove");
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
        st = sd_fail_errno(err, path, "write");
        goto out;
    }
    SD_TRY(sd_replace_commit(&r, err));
out:
    sd_replace_abort(&r);
    return st;
}
