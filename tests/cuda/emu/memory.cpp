// Memory of the device, and of blocks. An allocation ends at a page that nobody may touch, so that the first
// byte beyond it faults (what lies between it and its pages' ends, as much as 15 bytes behind it, holds a
// pattern that is looked at when it is freed). Freed memory stays a hole. Under a sanitizer the sanitizer's malloc does that.
#include "internal.h"

#include <map>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

namespace emu {

struct Block {
    char *map;
    size_t map_bytes, bytes;
    bool device, host; // neither: a block's
    bool low;
    int on; // the device that was chosen
};
// Never destroyed: programs that end do not run over it.
static std::map<char *, Block> &blocks = *new std::map<char *, Block>;
enum : size_t { PAGE = 4096 };
enum : unsigned char { SLACK = 0xa5 };

static int now;
void choose(int device) {
    now = device;
}
int chosen() {
    return now;
}

static const Block *block_of(const char *p, const char **begin) {
    auto it = blocks.upper_bound(const_cast<char *>(p));
    if (it == blocks.begin()) return nullptr;
    --it;
    *begin = it->first;
    return &it->second;
}

#if !defined(EMU_ASAN) && !defined(EMU_TSAN)
static void on_fault(int, siginfo_t *info, void *) {
    const char *p = static_cast<const char *>(info->si_addr), *begin;
    const Block *b = block_of(p, &begin);
    if (b && p < begin + b->bytes + PAGE)
        fail("%p lies %td bytes behind the end of an allocation of %zu bytes",
             static_cast<const void *>(p), p - (begin + b->bytes), b->bytes);
    fail("no memory at %p", static_cast<const void *>(p));
}

static void watch_faults() {
    static char stack[64 << 10];
    static bool done;
    if (done) return;
    done = true;
    stack_t alternative = {};
    alternative.ss_sp = stack, alternative.ss_size = sizeof stack;
    sigaltstack(&alternative, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

// low: an address of 32 bits, as the PTX of a kernel has it.
static Block map_block(char **p, size_t bytes, size_t align, bool low) {
    watch_faults();
    const size_t room = (bytes + align - 1) / align * align;
    const size_t pages = (room + PAGE - 1) / PAGE * PAGE;
    void *map = mmap(nullptr, pages + 2 * PAGE, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | (low ? MAP_32BIT : 0), -1, 0);
    if (map == MAP_FAILED ||
        mprotect(static_cast<char *>(map) + PAGE, pages, PROT_READ | PROT_WRITE))
        fail("no memory for %zu bytes", bytes);
    *p = static_cast<char *>(map) + PAGE + pages - room;
    memset(static_cast<char *>(map) + PAGE, SLACK, size_t(*p - static_cast<char *>(map)) - PAGE);
    memset(*p + bytes, SLACK, room - bytes);
    return {static_cast<char *>(map), pages + 2 * PAGE, bytes, false, false, low, 0};
}

static void check_block(const char *p, const Block &b) {
    const char *end = b.map + b.map_bytes - PAGE;
    for (const char *s = b.map + PAGE; s < p; s++)
        if (static_cast<unsigned char>(*s) != SLACK)
            fail("something was written %td bytes before an allocation of %zu bytes", p - s,
                 b.bytes);
    for (const char *s = p + b.bytes; s < end; s++)
        if (static_cast<unsigned char>(*s) != SLACK)
            fail("something was written %td bytes behind the end of an allocation of %zu bytes",
                 s - (p + b.bytes), b.bytes);
}

static void unmap_block(const char *p, const Block &b) {
    check_block(p, b);
    if (b.low) { // of which there is not enough for holes
        munmap(b.map, b.map_bytes);
        return;
    }
    // A hole from now on. Its address is not given out again.
    mmap(b.map, b.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
         0);
}
#else
static Block map_block(char **p, size_t bytes, size_t align, bool low) {
    if (low) fail("PTX runs without sanitizers: they keep no memory below 2 GB");
    void *q;
    if (posix_memalign(&q, align, bytes)) fail("no memory for %zu bytes", bytes);
    *p = static_cast<char *>(q);
    return {*p, 0, bytes, false, false, false, 0};
}
static void check_block(const char *, const Block &) {}
static void unmap_block(const char *p, const Block &) {
    free(const_cast<char *>(p));
}
#endif

static char *take(size_t bytes, size_t align, bool device, bool host = false) {
    char *p;
    const bool low = !device && !host && translation_of;
    Block b = map_block(&p, bytes ? bytes : 1, align, low);
    b.device = device, b.host = host, b.on = now;
    blocks[p] = b;
    return p;
}

static void give_back(void *p, bool device, bool host = false) {
    auto it = blocks.find(static_cast<char *>(p));
    if (it == blocks.end() || it->second.device != device || it->second.host != host)
        fail("%p is freed, which is no allocation", p);
    unmap_block(it->first, it->second);
    blocks.erase(it);
}

void *guarded_alloc(size_t bytes, size_t align) {
    return take(bytes, align, false);
}
void guarded_free(void *p) {
    give_back(p, false);
}

void *device_alloc(size_t bytes) {
    char *p = take(bytes, 16, true);
    poison(p, bytes);
    return p;
}
void device_free(void *p) {
    if (p) give_back(p, true);
}
void *host_alloc(size_t bytes) {
    char *p = take(bytes, 64, false, true);
    poison(p, bytes);
    return p;
}
void host_free(void *p) {
    if (p) give_back(p, false, true);
}
bool is_host(const void *p) {
    const char *begin;
    const Block *b = block_of(static_cast<const char *>(p), &begin);
    return b && b->host && static_cast<const char *>(p) < begin + b->bytes;
}
size_t host_bytes() {
    size_t n = 0;
    for (auto &b : blocks) n += b.second.host ? b.second.bytes : 0;
    return n;
}
bool is_device(const void *p) {
    const char *begin;
    const Block *b = block_of(static_cast<const char *>(p), &begin);
    return b && b->device && static_cast<const char *>(p) < begin + b->bytes;
}
int memory_device(const void *p) {
    const char *begin;
    return is_device(p) ? block_of(static_cast<const char *>(p), &begin)->on : -1;
}
bool is_here(const void *p) {
    return memory_device(p) == now;
}
void device_check() {
    for (auto &b : blocks) check_block(b.first, b.second);
}
size_t device_bytes() {
    size_t n = 0;
    for (auto &b : blocks) n += b.second.device ? b.second.bytes : 0;
    return n;
}

void check_pointer(const char *kernel, int argument, const void *v) {
    if (v && !is_device(v))
        fail("%s: argument %d does not point into the device's memory", kernel, argument);
    if (v && !is_here(v))
        fail("%s: argument %d points into the memory of device %d, and %d is chosen", kernel,
             argument, memory_device(v), now);
}

} // namespace emu
