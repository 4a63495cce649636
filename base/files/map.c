// The guard: a handler of SIGBUS looks for the address among the open maps and puts zero pages over
// the rest of that map. It runs between any two instructions, so it takes no lock: maps stand in
// fixed places, written before their first page can fault and emptied before they are unmapped.
#include "base/files/map.h"

#include "base/files/beneath.h"
#include "base/files/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_MAPS = 8192 }; // twice the shards of the largest model
static struct {
    atomic_bool taken, lost;
    atomic_uintptr_t begin; // 0: nothing is mapped
    atomic_size_t size;
} guards[MAX_MAPS];
static atomic_int guards_used; // all beyond were never taken
static struct sigaction earlier;
static size_t page_bytes;

static bool fill_with_zeros(uintptr_t at) {
    for (int i = 0, n = atomic_load(&guards_used); i < n; i++) {
        uintptr_t begin = atomic_load(&guards[i].begin);
        size_t size = atomic_load(&guards[i].size);
        if (!begin || at < begin || at - begin >= (size + page_bytes - 1) / page_bytes * page_bytes)
            continue;
        // A cut file lacks all that follows.
        uintptr_t page = at / page_bytes * page_bytes;
        void *p = mmap((void *)page, begin + size - page, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (p == MAP_FAILED) return false;
        atomic_store(&guards[i].lost, true);
        return true;
    }
    return false;
}

static void on_bus_error(int sig, siginfo_t *info, void *context) {
    int keep = errno;
    // si_code > 0: the kernel sent it for an address.
    bool filled = info->si_code > 0 && fill_with_zeros((uintptr_t)info->si_addr);
    errno = keep;
    if (filled) return;
    if (earlier.sa_flags & SA_SIGINFO)
        earlier.sa_sigaction(sig, info, context);
    else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN)
        earlier.sa_handler(sig);
    else
        sigaction(SIGBUS, &(struct sigaction){.sa_handler = SIG_DFL}, NULL), raise(SIGBUS);
}

static void install(void) {
    struct sigaction sa = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&sa.sa_mask);
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    sigaction(SIGBUS, &sa, &earlier);
}

static int take_guard(void) {
    for (int i = 0; i < MAX_MAPS; i++) {
        if (atomic_exchange(&guards[i].taken, true)) continue;
        atomic_store(&guards[i].lost, false);
        for (int n = atomic_load(&guards_used);
             n <= i && !atomic_compare_exchange_weak(&guards_used, &n, i + 1);)
            ;
        return i;
    }
    return -1;
}

// ---- what a file is

sd_status sd_file_id_of(sd_file_id *out, int fd, const char *path, sd_error *err) {
    struct stat sb;
    *out = (sd_file_id){0};
    if (fstat(fd, &sb) != 0) return sd_fail_errno(err, path, "stat");
    *out = (sd_file_id){.device = sb.st_dev,
                        .inode = sb.st_ino,
                        .links = sb.st_nlink,
                        .size = sb.st_size,
                        .changed_s = sb.st_mtim.tv_sec,
                        .changed_ns = sb.st_mtim.tv_nsec,
                        .inode_changed_s = sb.st_ctim.tv_sec,
                        .inode_changed_ns = sb.st_ctim.tv_nsec,
                        .mode = sb.st_mode & 07777};
    if (!S_ISREG(sb.st_mode))
        return sd_fail(err, SD_EFORMAT, "%s: is not a regular file; give the path of a file", path);
    return SD_OK;
}

static bool same_contents(const sd_file_id *a, const sd_file_id *b) {
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed_s == b->changed_s && a->changed_ns == b->changed_ns;
}

bool sd_file_id_equal(const sd_file_id *a, const sd_file_id *b) {
    return same_contents(a, b) && a->inode_changed_s == b->inode_changed_s &&
           a->inode_changed_ns == b->inode_changed_ns;
}

// ---- maps

sd_status sd_map_open(sd_map *m, const char *path, sd_error *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sd_status st = SD_OK;
    sd_file_id id;
    int guard = -1;
    *m = (sd_map){0};
    pthread_once(&once, install);
    int fd =
        sd_beneath_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO would wait for a writer
    if (fd < 0) return sd_fail_errno(err, path, "open");
    SD_TRY(sd_file_id_of(&id, fd, path, err));
    SD_TRY(sd_beneath_check_size(path, id.size, err));
    m->id = id;
    if (id.size == 0) goto out;
    guard = take_guard();
    SD_CHECK(guard >= 0, err, SD_ELIMIT, "%s: more than %d files are open at once; use fewer", path,
             MAX_MAPS);
    void *p = mmap(NULL, (size_t)id.size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        st = sd_fail_errno(err, path, "map");
        atomic_store(&guards[guard].taken, false);
        goto out;
    }
    *m = (sd_map){p, (size_t)id.size, fd, guard, id};
    atomic_store(&guards[guard].size, m->size);
    atomic_store(&guards[guard].begin, (uintptr_t)p);
out:
    if (!m->data) close(fd);
    return st;
}

void sd_map_close(sd_map *m) {
    if (m->data) {
        atomic_store(&guards[m->guard].begin, 0);
        munmap((void *)(uintptr_t)m->data, m->size);
        close(m->fd);
        atomic_store(&guards[m->guard].taken, false);
    }
    *m = (sd_map){0};
}

sd_map_state sd_map_look(const sd_map *m) {
    sd_file_id now;
    if (!m->data) return SD_MAP_SAME;
    if (atomic_load(&guards[m->guard].lost)) return SD_MAP_LOST;
    if (sd_file_id_of(&now, m->fd, "", NULL) != SD_OK) return SD_MAP_LOST;
    if (sd_file_id_equal(&now, &m->id)) return SD_MAP_SAME;
    return same_contents(&now, &m->id) && now.links != m->id.links ? SD_MAP_RELINKED
                                                                   : SD_MAP_CHANGED;
}

sd_status sd_map_check(const sd_map *m, const char *path, sd_error *err) {
    switch (sd_map_look(m)) {
    case SD_MAP_LOST:
        return sd_fail(err, SD_EIO,
                       "%s: a part of it could not be read; is the disk there, the file whole?",
                       path);
    case SD_MAP_CHANGED:
        return sd_fail(err, SD_EIO,
                       "%s: changed while it was read; run again when nothing writes to it", path);
    default:
        return SD_OK;
    }
}

void sd_map_accept(sd_map *m, const sd_file_id *now) {
    m->id = *now;
}

bool sd_map_holds(const sd_map *m, const void *p, size_t bytes) {
    uintptr_t begin = (uintptr_t)m->data, at = (uintptr_t)p;
    return m->data && at >= begin && at - begin <= m->size && bytes <= m->size - (at - begin);
}

bool sd_map_read(void *to, const sd_map *m, const void *from, size_t bytes) {
    off_t at = (const uint8_t *)from - m->data;
    for (ssize_t n; bytes > 0; to = (char *)to + n, at += n, bytes -= (size_t)n) {
        n = pread(m->fd, to, bytes, at);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n <= 0)
            return false;
    }
    return true;
}

void sd_map_forget(const sd_map *m) {
    if (!m->data) return;
    void *p = (void *)(uintptr_t)m->data;
    madvise(p, m->size, MADV_NOHUGEPAGE); // a file may lie in the page cache by 2 MB
    madvise(p, m->size, MADV_DONTNEED);
}

sd_status sd_file_load(void **data, size_t *size, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_map m = {0};
    void *own = NULL;
    *data = NULL;
    *size = 0;
    SD_TRY(sd_map_open(&m, path, err));
    own = sd_alloc(m.size, 1);
    SD_CHECK_ALLOC(own, err);
    SD_CHECK(m.size == 0 || sd_map_read(own, &m, m.data, m.size), err, SD_EIO,
             "%s: its %zu bytes could not be read; is the disk there, the file whole?", path,
             m.size);
    *data = own, own = NULL;
    *size = m.size;
out:
    free(own);
    sd_map_close(&m);
    return st;
}
