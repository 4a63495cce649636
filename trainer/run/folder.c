// The run's folder: made when it is missing, locked while a process works in it, swept of what a
// killed one left, and taken away again when nothing was put into it. A plan only asks whether all
// of that would succeed.
#include "base/files/cleanup.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "trainer/run/private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- made

/// Removes what a run that was killed while it wrote has left: a merged model may be gigabytes.
static sd_status sweep(const sd_run_folder *f, sd_error *err) {
    static const char *const parts[] = {"", "data", "adapter", "draft"};
    sd_status st = SD_OK;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && st == SD_OK; i++) {
        char *path = sd_path_join(f->dir, parts[i]);
        if (!path) return sd_fail(err, SD_ENOMEM, "out of memory");
        st = sd_replace_sweep(path, err);
        free(path);
    }
    return st;
}

static sd_status locked_by_another(const sd_run_folder *f, sd_error *err) {
    return sd_fail(err, SD_EINVAL,
                   "%s: another specdec train is at work in this folder; wait for it, or give "
                   "another name=",
                   f->dir);
}

/// *taken: another process holds the lock. It ends with its process: two trainers in one folder
/// would mix their checkpoints. Where the file system has no locks, that is said.
static sd_status lock_folder(bool *taken, int fd, const char *dir, sd_error *err) {
    int failed;
    *taken = false;
    do failed = flock(fd, LOCK_EX | LOCK_NB);
    while (failed && errno == EINTR);
    if (!failed) return SD_OK;
    switch (errno) {
    case EWOULDBLOCK:
        *taken = true;
        return SD_OK;
    case ENOLCK:
    case ENOSYS:
    case EOPNOTSUPP:
    case EINVAL:
        sd_log(SD_LOG_WARN,
               "%s: this file system has no locks (%s), so a second specdec train in this folder "
               "would not be noticed; start none",
               dir, strerror(errno));
        return SD_OK;
    default:
        return sd_fail(err, SD_EIO, "%s: cannot be locked: %s", dir, strerror(errno));
    }
}

static sd_status make_folder(sd_run_folder *f, bool given, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind own, parent;
    SD_TRY(sd_path_look(&own, f->dir, err));
    SD_TRY(sd_path_look(&parent, "runs", err));
    f->made = own == SD_PATH_NONE;
    // An interruption before the first step takes away what is made here.
    f->made_parent = given || parent != SD_PATH_NONE ? NULL : sd_strdup("runs");
    sd_cleanup_add(f->made_parent);
    if (f->made) sd_cleanup_add(f->dir), sd_cleanup_add(f->data_path), sd_cleanup_add(f->lock_path);
    SD_TRY(sd_mkdirs(f->dir, err));
    f->lock = open(f->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    SD_CHECK(f->lock >= 0, err, SD_EIO, "%s: cannot be created: %s; check the permissions",
             f->lock_path, strerror(errno));
    bool taken;
    SD_TRY(lock_folder(&taken, f->lock, f->dir, err));
    if (taken) return locked_by_another(f, err);
    struct stat sb; // one that just gave up may have removed the file that we now hold
    SD_CHECK(fstat(f->lock, &sb) == 0 && sb.st_nlink > 0, err, SD_EIO,
             "%s: was removed by another specdec train; run again", f->lock_path);
    SD_TRY(sweep(f, err));
out:
    return st;
}

/// A folder that this process made and put nothing into goes again; rmdir refuses any other.
static void remove_if_empty(const sd_run_folder *f) {
    (void)rmdir(f->data_path);
    sd_names in;
    bool empty = sd_folder_list(&in, f->dir, NULL) == SD_OK;
    for (int i = 0; i < in.n; i++) empty = empty && strcmp(in.name[i], ".lock") == 0;
    sd_names_free(&in);
    if (empty && unlink(f->lock_path) == 0 && rmdir(f->dir) == 0 && f->made_parent)
        (void)rmdir(f->made_parent);
}

void sd_run_keep_folder(const sd_run_folder *f) {
    sd_cleanup_drop(f->lock_path);
    sd_cleanup_drop(f->data_path);
    sd_cleanup_drop(f->dir);
    sd_cleanup_drop(f->made_parent);
}

// ---- asked for

/// Fails where make_folder would, and leaves no trace.
static sd_status check_folder(const sd_run_folder *f, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    char *at = sd_strdup(f->dir);
    SD_CHECK_ALLOC(at, err);
    for (;;) { // the part of the path that is there
        SD_TRY(sd_path_look(&kind, at, err));
        if (kind != SD_PATH_NONE) break;
        char *slash = strrchr(at, '/');
        if (slash)
            slash[slash == at] = '\0';
        else
            strcpy(at, ".");
    }
    SD_CHECK(kind == SD_PATH_FOLDER, err, SD_EINVAL, "%s: %s is a file; give another path", f->dir,
             at);
    SD_CHECK(access(at, W_OK | X_OK) == 0, err, SD_EIO,
             "%s: nothing can be written into %s: %s; check the permissions", f->dir, at,
             strerror(errno));
    bool taken = false;
    int lock = open(f->lock_path, O_RDWR | O_CLOEXEC);
    SD_CHECK(lock >= 0 || errno == ENOENT || errno == ENOTDIR, err, SD_EIO,
             "%s: cannot be opened: %s; check the permissions", f->lock_path, strerror(errno));
    if (lock >= 0) {
        st = lock_folder(&taken, lock, f->dir, err);
        close(lock);
    }
    if (st == SD_OK && taken) st = locked_by_another(f, err);
out:
    free(at);
    return st;
}

// ---- both

sd_status sd_run_open_folder(sd_run_folder *f, const char *given, const char *name, bool plan,
                             sd_error *err) {
    sd_status st = SD_OK;
    *f = (sd_run_folder){.lock = -1};
    f->dir = given ? sd_strdup(given) : sd_sprintf("runs/%s", name);
    SD_CHECK_ALLOC(f->dir, err);
    SD_CHECK(f->dir[0], err, SD_EINVAL, "the run's folder has an empty name; give a path");
    SD_CHECK(strlen(f->dir) < SD_RUN_MAX_PATH, err, SD_EINVAL, "%.80s...: too long a path", f->dir);
    f->lock_path = sd_path_join(f->dir, ".lock");
    f->data_path = sd_path_join(f->dir, "data");
    SD_CHECK_ALLOC(f->lock_path, err);
    SD_CHECK_ALLOC(f->data_path, err);
    if (plan) {
        SD_TRY(check_folder(f, err));
        SD_TRY(sd_scratch_open(&f->scratch, "specdec-plan", err));
    } else {
        SD_TRY(make_folder(f, given != NULL, err));
    }
out:
    return st;
}

void sd_run_close_folder(sd_run_folder *f) {
    if (f->made && f->lock >= 0) remove_if_empty(f);
    sd_run_keep_folder(f);
    if (f->lock >= 0) close(f->lock);
    sd_scratch_close(f->scratch);
    free(f->made_parent);
    free(f->lock_path);
    free(f->data_path);
    free(f->dir);
}
