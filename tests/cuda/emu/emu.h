// CUDA's execution model on one CPU thread: what a kernel's source sees of it.
//
// kernels/cuda/dialect.cuh includes this file where nvcc does not compile. Every CUDA thread is a fiber. A
// fiber leaves the processor only where CUDA lets threads wait for each other (barriers, operations of a
// warp), and which one goes on then is decided by a seed: an order that a device may take and that a test
// can repeat. What a device does late, the emulator does as late as it may (cp.async, streams); memory that
// nobody wrote is NaN; every access beyond an allocation faults.
//
// The other side, for tests: host.h.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <type_traits>

// ---- CUDA's vector types, as far as the kernels use them

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace emu {

/// A place in a kernel. Two barriers on one line differ in id.
struct Site {
    const char *file;
    int line, id;
};
constexpr Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE(), int id = 0) {
    return {file, line, id};
}

/// The coordinates of a thread.
struct Thread {
    uint3 tid, bid;
    dim3 bdim, gdim;
};
extern Thread *cur; // the one that runs; NULL outside kernels

// ---- what the dialect's names call

void barrier(Site at);
/// v of the lane that a shuffle reads. kind: SHFL_*.
enum { SHFL_XOR, SHFL_DOWN, SHFL_UP, SHFL_IDX };
void shuffle(int kind, unsigned mask, const void *v, void *result, int size, int arg, Site at);
unsigned ballot(unsigned mask, int predicate, Site at);
void sync_warp(unsigned mask, Site at);
/// d += a b of fragments, by the PTX ISA's register layout of mma.m16n8k16 with bf16 inputs.
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site at);
/// ldmatrix.m8n8.x4 of b16: `row` is the 16 bytes that this lane names.
void ldmatrix_x4(uint32_t (&r)[4], const void *row, bool transposed, Site at);
/// 16 bytes that arrive at the last moment; until then dst holds NaN. take false: zeros.
void cp_async16(void *dst, const void *src, bool take, Site at);
void cp_async_commit();
void cp_async_wait(int groups);

/// The block's array of a __shared__ declaration, by its address; fresh in every block.
void *shared_array(const void *key, size_t bytes, size_t align);
void *dynamic_shared(); // of the launch

// ---- launches

/// A launch with its arguments by value, as a queue keeps it.
struct Launch {
    const char *name;
    dim3 grid, block;
    size_t shared;
};
/// What runs instead of a kernel's source: args point to its arguments.
typedef void (*Translation)(const void *const *args);
struct Body {                          // what one thread does
    Translation translation = nullptr; // NULL: its source
    virtual void run() const = 0;
    virtual ~Body() = default;
};
/// Queues the launch on a stream and takes `body`. 0, or CUDA's error number where the launch has no
/// valid configuration.
int launch(const Launch &l, Body *body, void *stream);
/// Ends the test when v is a pointer to memory that is not the device's.
void check_pointer(const char *kernel, int argument, const void *v);

template <class K, class... T> struct BodyOf final : Body {
    K *kernel;
    std::tuple<T...> args;
    BodyOf(K *k, T... a) : kernel(k), args(a...) {}
    void run() const override {
        if (!translation) return std::apply(kernel, args);
        std::apply(
            [this](const T &...a) {
                const void *const pointers[] = {&a..., nullptr};
                translation(pointers);
            },
            args);
    }
};
template <class T> void check_argument(const char *kernel, int i, T v) {
    if constexpr (std::is_pointer_v<T>) check_pointer(kernel, i, (const void *)v);
    (void)kernel, (void)i, (void)v;
}
template <class... P, class... A>
int launch_kernel(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                  void *stream, A... a) {
    int i = 0;
    (check_argument<P>(name, i++, (P)a), ...);
    return launch({name, grid, block, shared}, new BodyOf<void(P...), P...>(kernel, (P)a...),
                  stream);
}

} // namespace emu

// ---- CUDA's own names

#define threadIdx (emu::cur->tid)
#define blockIdx (emu::cur->bid)
#define blockDim (emu::cur->bdim)
#define gridDim (emu::cur->gdim)
#define __syncthreads() emu::barrier({__FILE__, __LINE__, __COUNTER__})
#define __restrict__ __restrict

template <class T>
inline T __shfl_xor_sync(unsigned mask, T v, int lanes, emu::Site at = emu::here()) {
    T r;
    emu::shuffle(emu::SHFL_XOR, mask, &v, &r, sizeof r, lanes, at);
    return r;
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T v, int lanes, emu::Site at = emu::here()) {
    T r;
    emu::shuffle(emu::SHFL_DOWN, mask, &v, &r, sizeof r, lanes, at);
    return r;
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T v, int lanes, emu::Site at = emu::here()) {
    T r;
    emu::shuffle(emu::SHFL_UP, mask, &v, &r, sizeof r, lanes, at);
    return r;
}
template <class T> inline T __shfl_sync(unsigned mask, T v, int lane, emu::Site at = emu::here()) {
    T r;
    emu::shuffle(emu::SHFL_IDX, mask, &v, &r, sizeof r, lane, at);
    return r;
}
inline unsigned __ballot_sync(unsigned mask, int predicate, emu::Site at = emu::here()) {
    return emu::ballot(mask, predicate, at);
}
inline int __any_sync(unsigned mask, int predicate, emu::Site at = emu::here()) {
    return emu::ballot(mask, predicate, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emu::Site at = emu::here()) {
    return emu::ballot(mask, predicate, at) == mask;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, emu::Site at = emu::here()) {
    emu::sync_warp(mask, at);
}
