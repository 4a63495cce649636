// Fibers: a stack each, and a switch that saves what the calling convention asks a callee to keep. A switch
// costs some 2 ns, where swapcontext would cost a system call for the signal mask.
#include "internal.h"

#include <stdlib.h>
#include <sys/mman.h>

#ifdef EMU_ASAN
#include <sanitizer/common_interface_defs.h>
extern "C" void __asan_loadN(uintptr_t p, size_t n);
extern "C" void __asan_storeN(uintptr_t p, size_t n);
#endif
#ifdef EMU_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void *p, unsigned long n);
extern "C" void __tsan_write_range(void *p, unsigned long n);
#endif

#ifdef EMU_MSAN
#include <sanitizer/msan_interface.h>
extern "C" __thread unsigned long long __msan_param_tls[100], __msan_retval_tls[100];
#endif

#ifndef __x86_64__
#error "the emulator's switch is written for x86-64"
#endif

// void emu_switch(void **save, void *load): the stack pointer moves from one fiber to the other.
asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
.section .note.GNU-stack,"",@progbits
.text
)");
extern "C" void emu_switch(void **save, void *load);

namespace emu {

static void *scheduler_sp;
static Fiber *running;
#ifdef EMU_ASAN
static const void *scheduler_bottom;
static size_t scheduler_size;
static void *scheduler_fake;
#endif
#ifdef EMU_TSAN
static void *scheduler_tsan;
#endif

static char *map_stacks(size_t n) {
    void *p = mmap(nullptr, n * STACK_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fail("no memory for %zu stacks", n);
    char *stacks = static_cast<char *>(p);
    for (size_t i = 0; i < n; i++) // a stack that overflows faults
        if (mprotect(stacks + i * STACK_BYTES, 4096, PROT_NONE)) fail("no guard below a stack");
    return stacks;
}

char *fiber_stacks(size_t n) {
    static char *stacks;
    static size_t have;
#ifdef EMU_TSAN
    const bool fresh = true;
#else
    const bool fresh = have < n;
#endif
    if (!fresh) return stacks;
    if (stacks) munmap(stacks, have * STACK_BYTES);
    have = n;
    return stacks = map_stacks(n);
}

// MemorySanitizer hands arguments' and results' states over in memory of the thread, where another fiber has left its own.
static void forget_states() {
#ifdef EMU_MSAN
    for (auto *tls : {__msan_param_tls, __msan_retval_tls})
        for (int i = 0; i < 100; i++) tls[i] = 0;
#endif
}

static void begin() {
    forget_states();
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
    running->entry();
    __builtin_trap();
}

void fiber_init(Fiber *f, char *stack, void (*entry)()) {
    f->stack = stack;
    f->entry = entry;
    f->fake = nullptr;
    f->tsan = nullptr;
    void **sp = reinterpret_cast<void **>(stack + STACK_BYTES - 64);
    *--sp = nullptr; // begin's return address: there is none
    *--sp = reinterpret_cast<void *>(begin);
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    f->sp = sp;
#ifdef EMU_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
}

void fiber_free(Fiber *f) {
#ifdef EMU_TSAN
    if (f->tsan) __tsan_destroy_fiber(f->tsan);
#endif
    f->tsan = nullptr;
}

void fiber_enter(Fiber *f) {
    running = f;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(&scheduler_fake, f->stack, STACK_BYTES);
#endif
#ifdef EMU_TSAN
    scheduler_tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    emu_switch(&scheduler_sp, f->sp);
    forget_states();
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

void fiber_leave(Fiber *f, bool ends) {
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(ends ? nullptr : &f->fake, scheduler_bottom, scheduler_size);
#endif
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(scheduler_tsan, __tsan_switch_to_fiber_no_sync);
#endif
    (void)ends;
    emu_switch(&f->sp, scheduler_sp);
    forget_states();
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(f->fake, &scheduler_bottom, &scheduler_size);
#endif
}

// ---- sanitizers

void acquire(const void *token) {
#ifdef EMU_TSAN
    __tsan_acquire(const_cast<void *>(token));
#endif
    (void)token;
}

void release(const void *token) {
#ifdef EMU_TSAN
    __tsan_release(const_cast<void *>(token));
#endif
    (void)token;
}

void announce_read(const void *p, size_t n) {
#if defined(EMU_TSAN)
    __tsan_read_range(const_cast<void *>(p), n);
#elif defined(EMU_ASAN)
    __asan_loadN(reinterpret_cast<uintptr_t>(p), n);
#endif
    (void)p, (void)n;
}

void announce_write(void *p, size_t n) {
#if defined(EMU_TSAN)
    __tsan_write_range(p, n);
#elif defined(EMU_ASAN)
    __asan_storeN(reinterpret_cast<uintptr_t>(p), n);
#endif
    (void)p, (void)n;
}

void copy_registers(void *dst, const void *src, size_t n) {
    auto *d = static_cast<volatile unsigned char *>(dst);
    auto *s = static_cast<const volatile unsigned char *>(src);
    for (size_t i = 0; i < n; i++) d[i] = s[i];
#ifdef EMU_MSAN
    __msan_copy_shadow(dst, src, n);
#endif
}

void announce_written(void *p, size_t n) {
#ifdef EMU_MSAN
    __msan_unpoison(p, n);
#endif
    (void)p, (void)n;
}

void need_written(const void *p, size_t n) {
#ifdef EMU_MSAN
    __msan_check_mem_is_initialized(p, n);
#endif
    (void)p, (void)n;
}

void poison(void *p, size_t n) {
    auto *d = static_cast<unsigned char *>(p);
    for (size_t i = 0; i < n; i++) d[i] = 0xff;
#ifdef EMU_MSAN
    __msan_poison(p, n);
#endif
}

} // namespace emu
