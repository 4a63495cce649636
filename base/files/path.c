// What stands at a path. "I cannot look" is never "it is not there": a run that took the one for
// the other began anew and gave its checkpoints up, a model lost its chat template.
#include "base/files/path.h"

#include "base/files/beneath.h"
#include "base/files/file.h"
#include "base/list.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

sd_status sd_path_look(sd_path_kind *kind, const char *path, sd_error *err) {
    struct stat sb;
    *kind = SD_PATH_NONE;
    if (sd_beneath_stat(path, &sb) != 0) {
        // Nothing can stand under a name that is too long for the file system, nor below a file.
        if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG) return SD_OK;
        if (errno == EXDEV) return sd_fail_errno(err, path, "look");
        return sd_fail(err, SD_EIO,
                       "%s: cannot be looked at: %s; check the permissions and the disk", path,
                       strerror(errno));
    }
    *kind = S_ISREG(sb.st_mode)   ? SD_PATH_FILE
            : S_ISDIR(sb.st_mode) ? SD_PATH_FOLDER
                                  : SD_PATH_OTHER;
    return SD_OK;
}

sd_status sd_path_look_in(sd_path_kind *kind, const char *folder, const char *name, sd_error *err) {
    char *path = sd_path_join(folder, name);
    *kind = SD_PATH_NONE;
    if (!path) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = sd_path_look(kind, path, err);
    free(path);
    return st;
}

bool sd_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

char *sd_path_join(const char *dir, const char *name) {
    size_t n = strlen(dir);
    return sd_sprintf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

const char *sd_path_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// ---- what a folder holds

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static sd_status add_name(sd_names *l, int *cap, const char *name, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK_ALLOC(SD_GROW(l->name, l->n + 1, *cap), err);
    l->name[l->n] = sd_strdup(name);
    SD_CHECK_ALLOC(l->name[l->n], err);
    l->n++;
out:
    return st;
}

sd_status sd_folder_list(sd_names *out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    int cap = 0;
    *out = (sd_names){0};
    int fd = sd_beneath_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d && fd >= 0) close(fd);
    if (!d && (errno == ENOENT || errno == ENOTDIR))
        return sd_fail(err, SD_ENOTFOUND, "%s: no such folder; check the path", path);
    if (!d) return sd_fail(err, SD_EIO, "%s: cannot be read: %s", path, strerror(errno));
    for (;;) {
        errno = 0; // readdir's NULL is the end or an error
        const struct dirent *e = readdir(d);
        SD_CHECK(e || errno == 0, err, SD_EIO, "%s: cannot be read: %s", path, strerror(errno));
        if (!e) break;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        SD_TRY(add_name(out, &cap, e->d_name, err));
    }
    if (out->n) qsort(out->name, (size_t)out->n, sizeof *out->name, compare_names);
out:
    closedir(d);
    if (st != SD_OK) sd_names_free(out);
    return st;
}

void sd_names_free(sd_names *l) {
    for (int i = 0; i < l->n; i++) free(l->name[i]);
    free(l->name);
    *l = (sd_names){0};
}

// ---- folders and names that last

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return sd_strdup(".");
    return sd_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

sd_status sd_fsync_path(const char *path, sd_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return sd_fail_errno(err, path, "open");
    sd_status st = SD_OK;
    struct stat sb;
    // Some file systems know no fsync of a folder and say EINVAL; there is nothing else to call.
    if (fsync(fd) != 0 && !(errno == EINVAL && fstat(fd, &sb) == 0 && S_ISDIR(sb.st_mode)))
        st = sd_fail_errno(err, path, "fsync");
    close(fd);
    return st;
}

sd_status sd_fsync_parent(const char *path, sd_error *err) {
    char *dir = parent_of(path);
    if (!dir) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = sd_fsync_path(dir, err);
    free(dir);
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
            SD_TRY(sd_fsync_parent(
                p, err)); // else a power cut may take the folder and all that is in it
        } else if (errno != EEXIST) {
            SD_CHECK(errno != ENOTDIR, err, SD_EINVAL,
                     "%s: a part of the path is a file; give another path", path);
            st = sd_fail_errno(err, p, "create the directory");
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
        return sd_fail_errno(err, to, "rename");
    }
    return sd_fsync_parent(to, err);
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
        return sd_fail_errno(err, path, "remove");
    return SD_OK;
}

// ---- who may read

static atomic_uint taken;

unsigned sd_private_bits(void) {
    return atomic_load(&taken);
}

/// The bits that a copy of it may not have: others', and the group's too unless it is our own and may
/// read.
static mode_t bits_to_take(const struct stat *sb) {
    if (sb->st_mode & S_IROTH) return 0;
    return sb->st_mode & S_IRGRP && sb->st_gid == getegid() ? S_IRWXO : S_IRWXG | S_IRWXO;
}

sd_status sd_keep_private(const char *path, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    sd_names in = {0};
    SD_CHECK(stat(path, &sb) == 0, err, errno == ENOENT ? SD_ENOTFOUND : SD_EIO, "%s: %s", path,
             strerror(errno));
    mode_t take = bits_to_take(&sb);
    if (S_ISDIR(sb.st_mode)) SD_TRY(sd_folder_list(&in, path, err));
    for (int i = 0; i < in.n; i++) {
        char *file = sd_path_join(path, in.name[i]);
        SD_CHECK_ALLOC(file, err);
        // One that vanished meanwhile, or a broken link, is nothing that could be copied.
        if (stat(file, &sb) == 0 && S_ISREG(sb.st_mode)) take |= bits_to_take(&sb);
        free(file);
    }
    if (take) umask(umask(0077) | take);
    atomic_fetch_or(&taken, (unsigned)take);
out:
    sd_names_free(&in);
    return st;
}
