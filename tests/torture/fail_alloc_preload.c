// LD_PRELOAD: lets allocations of a program fail, those of its libraries included.
//
// The program is steered, and looked at, through a small file that both sides map: FAIL_CONTROL
// names it, its words are those of `control` below. The n-th allocation after arming returns NULL,
// or that one and all behind it. What a process allocates before main() is not counted. A crash is
// told on stderr with its frames, so that it can be laid at the door of a library or of the
// program.
//
// Under AddressSanitizer it stands before the sanitizer's own library
// (ASAN_OPTIONS=verify_asan_link_order=0) and lets through what does not fail.
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    _Atomic int64_t at;    // the allocation to fail, counted from 1; 0: none
    _Atomic int64_t all;   // 1: those behind it as well
    _Atomic int64_t count; // allocations since it was armed
    _Atomic int64_t failed;
    _Atomic int64_t trace; // 1: the frames of the first failure go to stderr
} control;

static control off, *now = &off;
static bool running; // main() began

static void frames(const char *what) {
    void *frame[48];
    if (write(STDERR_FILENO, what, strlen(what)) < 0) return;
    backtrace_symbols_fd(frame, backtrace(frame, 48), STDERR_FILENO);
}

static bool fails(void) {
    if (!running || atomic_load_explicit(&now->at, memory_order_relaxed) == 0) return false;
    int64_t at = atomic_load(&now->at), n = atomic_fetch_add(&now->count, 1) + 1;
    if (n != at && !(n > at && atomic_load(&now->all))) return false;
    if (atomic_fetch_add(&now->failed, 1) == 0 && atomic_load(&now->trace)) {
        atomic_store(&now->trace, 0);
        running = false;
        frames("*** failed here\n");
        running = true;
    }
    errno = ENOMEM;
    return true;
}

// ---- the next allocator in line
//
// dlsym may itself allocate while it looks one up: that comes from here and is never freed.

static _Alignas(64) char early[16384];
static size_t early_used;

static void *early_alloc(size_t n) {
    size_t at = early_used;
    early_used += (n + 63) & ~(size_t)63;
    return early_used <= sizeof early ? early + at : NULL;
}

static bool is_early(const void *p) {
    return (const char *)p >= early && (const char *)p < early + sizeof early;
}

static struct {
    void *(*malloc)(size_t), *(*calloc)(size_t, size_t), *(*realloc)(void *, size_t);
    void *(*aligned_alloc)(size_t, size_t), *(*memalign)(size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void (*free)(void *);
} next;

static bool looking;

static void *look(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

// False while the lookup itself allocates.
static bool ready(void) {
    if (next.free) return true;
    if (looking) return false;
    looking = true;
    *(void **)&next.malloc = look("malloc");
    *(void **)&next.calloc = look("calloc");
    *(void **)&next.realloc = look("realloc");
    *(void **)&next.aligned_alloc = look("aligned_alloc");
    *(void **)&next.memalign = look("memalign");
    *(void **)&next.posix_memalign = look("posix_memalign");
    *(void **)&next.free = look("free");
    looking = false;
    return true;
}

void *malloc(size_t n) {
    if (!ready()) return early_alloc(n);
    return fails() ? NULL : next.malloc(n);
}

void *calloc(size_t a, size_t b) {
    if (!ready()) return early_alloc(a * b);
    return fails() ? NULL : next.calloc(a, b);
}

void *realloc(void *p, size_t n) {
    if (!ready()) return NULL;
    return fails() ? NULL : next.realloc(is_early(p) ? NULL : p, n);
}

void *aligned_alloc(size_t align, size_t n) {
    return !ready() || fails() ? NULL : next.aligned_alloc(align, n);
}

void *memalign(size_t align, size_t n) {
    return !ready() || fails() ? NULL : next.memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n) {
    return !ready() || fails() ? ENOMEM : next.posix_memalign(out, align, n);
}

void free(void *p) {
    if (is_early(p) || !ready()) return;
    next.free(p);
}

// ---- around main

static void on_crash(int sig) {
    running = false;
    char text[] = "*** crash by signal 00\n";
    text[20] = (char)('0' + sig / 10);
    text[21] = (char)('0' + sig % 10);
    frames(text);
    signal(sig, SIG_DFL);
    raise(sig);
}

static int (*real_main)(int, char **, char **);

static int main_with_failures(int argc, char **argv, char **env) {
    static const int crashes[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
    static _Alignas(16) char stack[64 * 1024];
    const char *path = getenv("FAIL_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return real_main(argc, argv, env);
    void *map = mmap(NULL, sizeof(control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return 97;
    now = map;
    void *frame[4];
    backtrace(frame, 4); // loads what it needs while memory is there
    if (!getenv("FAIL_NO_HANDLER")) {
        sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
        for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
            sigaction(crashes[i],
                      &(struct sigaction){.sa_handler = on_crash, .sa_flags = SA_ONSTACK}, NULL);
    }
    running = true;
    int status = real_main(argc, argv, env);
    return status;
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end);

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end) {
    int (*start)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
                 void (*)(void), void *);
    *(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = main;
    return start(main_with_failures, argc, argv, init, fini, rtld_fini, stack_end);
}
