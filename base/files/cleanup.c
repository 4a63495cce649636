// The signal handler may run between any two instructions, so it takes no lock and no memory: paths
// stand in fixed places, and a scratch folder is emptied by system calls.
#include "base/files/cleanup.h"

#include "base/files/path.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_OPEN = 64, MAX_SCRATCH = 4 };
static _Atomic(char *) unfinished[MAX_OPEN];   // temporary files and new folders
static _Atomic(char *) scratched[MAX_SCRATCH]; // folders that go with what is in them

static bool put(_Atomic(char *) *list, int n, char *path) {
    for (int i = 0; path && i < n; i++) {
        char *none = NULL;
        if (atomic_compare_exchange_strong(&list[i], &none, path)) return true;
    }
    return false;
}

static void take(_Atomic(char *) *list, int n, char *path) {
    for (int i = 0; path && i < n; i++) {
        char *same = path;
        if (atomic_compare_exchange_strong(&list[i], &same, NULL)) return;
    }
}

void sd_cleanup_add(char *path) {
    put(unfinished, MAX_OPEN, path);
}

void sd_cleanup_drop(char *path) {
    take(unfinished, MAX_OPEN, path);
}

// struct linux_dirent64 is not in any header: inode 8 bytes, offset 8, length 2, type 1, name.
static void empty_folder(const char *path) {
    enum { LENGTH_AT = 16, NAME_AT = 19 };
    char buf[4096];
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (bool removed = fd >= 0; removed;) { // again: removing may hide names from the listing
        removed = false;
        if (lseek(fd, 0, SEEK_SET) != 0) break;
        for (long n; (n = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0;) {
            for (long at = 0; at < n;) {
                if (unlinkat(fd, buf + at + NAME_AT, 0) == 0) removed = true;
                at += (unsigned char)buf[at + LENGTH_AT] |
                      (long)(unsigned char)buf[at + LENGTH_AT + 1] << 8;
            }
        }
    }
    if (fd >= 0) close(fd);
}

void sd_cleanup_run(void) {
    for (int i = 0; i < MAX_SCRATCH; i++) {
        const char *path = atomic_load(&scratched[i]);
        if (!path) continue;
        empty_folder(path);
        (void)rmdir(path);
    }
    for (int i = 0; i < MAX_OPEN; i++) {
        const char *path = atomic_load(&unfinished[i]);
        if (path) (void)unlink(path);
    }
    for (bool removed = true; removed;) { // the folders that this empties, and those around them
        removed = false;
        for (int i = 0; i < MAX_OPEN; i++) {
            const char *path = atomic_load(&unfinished[i]);
            if (path && rmdir(path) == 0) removed = true;
        }
    }
}

void sd_memory_exhausted(const char *where) {
    char line[256];
    int n = snprintf(line, sizeof line,
                     "specdec: out of memory in %s; free some or ask for less at once\n", where);
    sd_cleanup_run();
    if (n < 0 || write(STDERR_FILENO, line, (size_t)n) < 0) _exit(1);
    _exit(1);
}

sd_status sd_scratch_open(char **dir, const char *name, sd_error *err) {
    sd_status st = SD_OK;
    const char *tmp = getenv("TMPDIR");
    char *d = sd_sprintf("%s/%s-XXXXXX", tmp && tmp[0] ? tmp : "/tmp", name);
    *dir = NULL;
    SD_CHECK_ALLOC(d, err);
    SD_CHECK(mkdtemp(d), err, SD_EIO, "%s: cannot be created; set TMPDIR to a writable folder", d);
    put(scratched, MAX_SCRATCH, d);
    *dir = d, d = NULL;
out:
    free(d);
    return st;
}

void sd_scratch_close(char *dir) {
    if (!dir) return;
    sd_remove_tree(dir, NULL);
    take(scratched, MAX_SCRATCH, dir);
    free(dir);
}
