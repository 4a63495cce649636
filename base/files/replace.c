#include "base/files/replace.h"

#include "base/files/cleanup.h"
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
                 : sd_fail_errno(err, path, "create");
        free(r->tmp);
        r->tmp = NULL;
        goto out;
    }
    sd_cleanup_add(r->tmp);
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
        st = sd_fail_errno(err, r->path, "write");
        goto out;
    }
    FILE *f = r->f;
    r->f = NULL;
    if (fclose(f) != 0 || rename(r->tmp, r->path) != 0) {
        st = sd_fail_errno(err, r->path, "replace");
        goto out;
    }
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
