// The dialect of the kernels: one source for nvcc and for g++ or clang++.
//
// Under nvcc this is CUDA. Elsewhere <emu.h> (tests/cuda/emu) supplies CUDA's names and runs the kernels on
// emulated threads. All that differs stands in this file: how a kernel is declared and launched, shared memory,
// and the instructions that C++ has no words for. A kernel includes nothing else of CUDA.
//
//     SD_KERNEL(256) sd_twice(float *y, const float *x, int n) {
//         SD_SHARED(float, part, 8);
//         ...
//     }
//     extern "C" int sd_cuda_twice(float *y, const float *x, int n, sd_cuda_stream *s) {
//         return SD_LAUNCH(sd_twice, dim3(blocks), 256, 0, s, y, x, n);
//     }
//
// Kernels have C names, so that a table of registers, a PTX runner and a profiler call them by the same word.
// Nothing is contracted (-fmad=false): where a product and a sum are fused, the source says fmaf.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__

#define SD_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define SD_DEVICE static __device__ __forceinline__
#define SD_SHARED(type, name, count) __shared__ type name[count]
#define SD_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define SD_LAUNCH(kernel, grid, block, shared, stream, ...)                                        \
    (kernel<<<(grid), (block), (shared), (cudaStream_t)(stream)>>>(__VA_ARGS__),                   \
     (int)cudaGetLastError())
/// Before a launch with more than 48 KB of dynamic shared memory. 0, or CUDA's error number.
#define SD_ALLOW_SHARED(kernel, bytes)                                                             \
    ((int)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))
#define SD_UNROLL _Pragma("unroll")

#else

#include <emu.h>

#define SD_KERNEL(threads) extern "C" void
#define SD_DEVICE static inline
#define SD_SHARED(type, name, count)                                                               \
    static const char name##_key = 0;                                                              \
    type(&name)[count] = *static_cast<type(*)[count]>(                                             \
        emu::shared_array(&name##_key, sizeof(type[count]), alignof(type)))
#define SD_DYNAMIC_SHARED(name)                                                                    \
    unsigned char *const name = static_cast<unsigned char *>(emu::dynamic_shared())
#define SD_LAUNCH(kernel, grid, block, shared, stream, ...)                                        \
    emu::launch_kernel(#kernel, kernel, (grid), (block), (shared), (stream), __VA_ARGS__)
#define SD_ALLOW_SHARED(kernel, bytes) ((void)(kernel), (void)(bytes), 0)
#define SD_UNROLL

#endif

enum : unsigned { SD_ALL_LANES = 0xffffffffu };

// ---- instructions

#ifdef __CUDACC__

/// d [16, 8] += a [16, 16] b [16, 8] of a warp, in fp32. Registers: "Matrix Fragments for mma.m16n8k16" of the
/// PTX ISA.
SD_DEVICE void sd_mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// Four 8 x 8 matrices of 16-bit values out of shared memory; lane l names row l % 8 of matrix l / 8.
SD_DEVICE void sd_ldmatrix(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}
/// The same, each matrix transposed.
SD_DEVICE void sd_ldmatrix_transposed(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}
/// 16 bytes into shared memory that arrive later; zeros where take is false (src must be valid all the same).
SD_DEVICE void sd_copy_async(void *dst, const void *src, bool take) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(dst)),
                 "l"(src), "r"(take ? 16 : 0)
                 : "memory");
}
/// Closes a group of this thread's copies.
SD_DEVICE void sd_copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/// All but the last `left` groups of this thread have arrived. Other threads see them behind a barrier.
template <int left> SD_DEVICE void sd_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}
/// lo and hi to bf16, to the nearest, ties to even: lo in bits 0..15.
SD_DEVICE uint32_t sd_pack_bf16(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
/// a + b of two pairs of bf16.
SD_DEVICE uint32_t sd_add_bf16x2(uint32_t a, uint32_t b) {
    uint32_t r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(0x3f803f80u), "r"(b));
    return r;
}
SD_DEVICE float sd_half_value(uint16_t h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
/// 2^x; within 2 ulp, and 0 for minus infinity.
SD_DEVICE float sd_exp2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
/// Weights are read once: they need not displace what is read again.
SD_DEVICE uint4 sd_load_once(const uint4 *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
SD_DEVICE float sd_bits_float(uint32_t u) {
    return __uint_as_float(u);
}
SD_DEVICE uint32_t sd_float_bits(float f) {
    return __float_as_uint(f);
}

#else

SD_DEVICE float sd_bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
SD_DEVICE uint32_t sd_float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
SD_DEVICE void sd_mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                      emu::Site at = emu::here()) {
    emu::mma_m16n8k16_bf16(d, a, b, at);
}
SD_DEVICE void sd_ldmatrix(uint32_t (&r)[4], const void *row, emu::Site at = emu::here()) {
    emu::ldmatrix_x4(r, row, false, at);
}
SD_DEVICE void sd_ldmatrix_transposed(uint32_t (&r)[4], const void *row,
                                      emu::Site at = emu::here()) {
    emu::ldmatrix_x4(r, row, true, at);
}
SD_DEVICE void sd_copy_async(void *dst, const void *src, bool take, emu::Site at = emu::here()) {
    emu::cp_async16(dst, src, take, at);
}
SD_DEVICE void sd_copy_commit() {
    emu::cp_async_commit();
}
template <int left> SD_DEVICE void sd_copy_wait() {
    emu::cp_async_wait(left);
}
SD_DEVICE uint32_t sd_one_bf16(float f) {
    const uint32_t u = sd_float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff; // cvt gives one NaN
    return (u + 0x7fffu + (u >> 16 & 1)) >> 16;
}
SD_DEVICE uint32_t sd_pack_bf16(float lo, float hi) {
    return sd_one_bf16(lo) | sd_one_bf16(hi) << 16;
}
SD_DEVICE uint32_t sd_add_bf16x2(uint32_t a, uint32_t b) {
    return sd_pack_bf16(sd_bits_float(a << 16) + sd_bits_float(b << 16),
                        sd_bits_float(a & 0xffff0000u) + sd_bits_float(b & 0xffff0000u));
}
SD_DEVICE float sd_half_value(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, e = h >> 10 & 31, f = h & 0x3ff;
    if (e == 31) return sd_bits_float(sign | 0x7f800000u | f << 13 | (f ? 0x400000u : 0));
    if (e) return sd_bits_float(sign | (e + 112) << 23 | f << 13);
    const float y = float(f) * 0x1p-24f;
    return sign ? -y : y;
}
SD_DEVICE float sd_exp2(float x) {
    return __builtin_exp2f(x);
}
SD_DEVICE uint4 sd_load_once(const uint4 *p) {
    return *p;
}
SD_DEVICE float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}

#endif
