// What the emulator's files share.
#pragma once

#include "host.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define EMU_TSAN 1
#endif
#endif

namespace emu {

enum { WARP = 32, MAX_THREADS = 1024 };

// ---- fiber.cpp: stacks, and the switch between them

struct Fiber {
    void *sp;
    char *stack;
    void *tsan;      // its handle under ThreadSanitizer
    void *fake;      // AddressSanitizer's
    void (*entry)(); // must not return: it ends with fiber_leave(true)
};
enum : size_t {
#ifdef EMU_ASAN
    STACK_BYTES = 256 << 10
#else
    STACK_BYTES = 64 << 10
#endif
};
/// Stacks for n fibers, fresh ones under ThreadSanitizer, which remembers who wrote where.
char *fiber_stacks(size_t n);
void fiber_init(Fiber *f, char *stack, void (*entry)());
void fiber_free(Fiber *f);
void fiber_enter(Fiber *f);               // from the scheduler
void fiber_leave(Fiber *self, bool ends); // back to it

// Happens-before edges, for ThreadSanitizer; else nothing.
void acquire(const void *token);
void release(const void *token);

// The emulator's own files are not instrumented: what it reads and writes in a thread's name is announced.
void announce_read(const void *p, size_t n);
void announce_write(void *p, size_t n);
/// The same for MemorySanitizer: it has a value now; a value must be there (an error where there is none).
void announce_written(void *p, size_t n);
void need_written(const void *p, size_t n);
/// A copy that no sanitizer's memcpy sees: the operands are registers.
void copy_registers(void *dst, const void *src, size_t n);
/// 0xff: NaN as fp32, fp16 and bf16, -1 as an integer.
void poison(void *p, size_t n);

// ---- block.cpp: a grid's blocks, their threads

enum State : uint8_t { READY, AT_BARRIER, AT_WARP, DONE };
struct Copy {
    void *dst;
    const void *src;
    bool take;
};
struct Lane : Thread { // a CUDA thread
    Fiber fiber;
    State state;
    Site site;
    std::vector<Copy> open;                // cp.async since the last commit
    std::vector<std::vector<Copy>> groups; // and the commits that nobody waited for
};
Lane *self();
unsigned lane_number(const Lane *l); // within the block
Lane *lane_at(unsigned number);
void lane_wait(Lane *l, State why, Site at); // returns when somebody has called lane_wake
void lane_wake(Lane *l);
const char *kernel_name(); // NULL outside
uint64_t random_word();

// ---- warp.cpp

void warps_begin(unsigned threads);

// ---- shared.cpp

void shared_begin_grid();
void shared_begin_block(size_t dynamic);
void shared_end_grid();
void copies_end(Lane *l); // all that were issued must have been waited for

// ---- memory.cpp

/// Memory whose end is watched. Freed with guarded_free.
void *guarded_alloc(size_t bytes, size_t align);
void guarded_free(void *p);
int memory_device(const void *p); // -1: not a device's

} // namespace emu
