// What the C++ made by ptx2cpp.py calls: PTX instructions that are no single expression, by "PTX ISA", and memory.
//
// An address in shared memory is 32 bits, and the emulator keeps shared memory below 4 GB, so it is the host's. The generic
// address of the same place is another number, as on a device: whoever forgets to convert it meets no memory.
#pragma once

#include "tests/cuda/emu/host.h"

#include <limits>

namespace ptx {

struct Entry {
    const char *name;
    emu::Translation run;
    size_t bytes[32]; // of each parameter; 0 behind the last
};
/// What was translated under this name; ends the test where nothing was.
const Entry *entry_of(const char *name);
/// Makes a file's kernels known to launches. entries end with a NULL name.
struct File {
    explicit File(const Entry *entries);
};

/// Ends the test: what an instruction must not be given.
[[noreturn]] void refuse(const char *what, uint64_t value);

// ---- memory

template <class T, int N> struct alignas(sizeof(T) * N) Vector { T v[N]; };

enum : uint64_t {
    GENERIC_SHARED = 0x0100000060000000u, // on top of an address in shared memory
    SHARED_END = 1ull << 32
};

inline uint32_t shared_address(const void *p) {
    return uint32_t(reinterpret_cast<uintptr_t>(p));
}
inline void *shared_pointer(uint32_t at) {
    return reinterpret_cast<void *>(uintptr_t(at));
}
inline const void *global_pointer(uint64_t at) {
    if (at < SHARED_END) refuse("an address of global memory lies in another space", at);
    return reinterpret_cast<const void *>(at);
}
inline uint64_t from_shared(uint64_t at) {
    if (at >= SHARED_END) refuse("an address of shared memory has more than 32 bits", at);
    return at + GENERIC_SHARED;
}
inline bool is_shared(uint64_t at) {
    return at - GENERIC_SHARED < SHARED_END;
}
inline uint64_t to_shared(uint64_t at) {
    if (!is_shared(at)) refuse("a generic address is not one of shared memory", at);
    return at - GENERIC_SHARED;
}
inline uint64_t to_global(uint64_t at) {
    if (is_shared(at)) refuse("a generic address is not one of global memory", at);
    return at;
}

template <class V> inline V &at_host(uint64_t at) {
    if (at % sizeof(V)) refuse("an address is not a multiple of what is read or written there", at);
    return *reinterpret_cast<V *>(at);
}
template <class V> inline V &of_shared(uint32_t at) {
    return at_host<V>(at);
}
template <class V> inline V &of_global(uint64_t at) {
    if (at < SHARED_END) refuse("an address of global memory lies in another space", at);
    return at_host<V>(at);
}
template <class V> inline V &of_generic(uint64_t at) {
    return at_host<V>(is_shared(at) ? at - GENERIC_SHARED : at);
}
/// Parameters lie as the host's compiler aligns them.
template <class V> inline V of_parameter(const void *parameter, size_t offset) {
    V v;
    memcpy(&v, static_cast<const char *>(parameter) + offset, sizeof v);
    return v;
}
/// cp.async's source size.
inline bool whole_or_nothing(uint32_t bytes) {
    if (bytes != 0 && bytes != 16) refuse("cp.async takes so many of 16 bytes", bytes);
    return bytes != 0;
}

// ---- integers

template <class T, class R> inline T bits(R r) {
    static_assert(sizeof(T) == sizeof(R), "a register of another size");
    T t;
    memcpy(&t, &r, sizeof t);
    return t;
}
template <class T> inline T div(T a, T b) {
    if (b == 0) refuse("a division by zero of", uint64_t(a));
    return std::is_signed<T>::value && b == T(-1) ? T(0 - uint64_t(a)) : T(a / b);
}
template <class T> inline T rem(T a, T b) {
    if (b == 0) refuse("a division by zero of", uint64_t(a));
    return std::is_signed<T>::value && b == T(-1) ? T(0) : T(a % b);
}
// Beyond the width nothing is left but signs.
template <class T> inline T shl(T a, uint32_t n) {
    return n >= 8 * sizeof(T) ? T(0) : T(uint64_t(a) << n);
}
template <class T> inline T shr(T a, uint32_t n) {
    const uint32_t most = 8 * sizeof(T) - 1;
    return n <= most ? T(a >> n) : std::is_signed<T>::value ? T(a >> most) : T(0);
}
inline uint32_t funnel_l(uint32_t low, uint32_t high, uint32_t n) {
    return uint32_t((uint64_t(high) << 32 | low) << (n & 31) >> 32);
}
inline uint32_t funnel_r(uint32_t low, uint32_t high, uint32_t n) {
    return uint32_t((uint64_t(high) << 32 | low) >> (n & 31));
}
/// The low `length` bits of a in b, from `first` on.
inline uint32_t bfi(uint32_t a, uint32_t b, uint32_t first, uint32_t length) {
    first &= 255, length &= 255;
    if (first > 31) return b;
    const uint64_t ones = length > 31 ? 0xffffffffu : (1u << length) - 1;
    const uint32_t mask = uint32_t(ones << first);
    return (b & ~mask) | (uint32_t(uint64_t(a) << first) & mask);
}
/// Byte i of the result is the byte of {b, a} that nibble i of the selector names, or its sign.
inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = uint64_t(b) << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t n = selector >> (4 * i);
        uint32_t byte = uint32_t(both >> (8 * (n & 7))) & 255;
        if (n & 8) byte = byte & 128 ? 255 : 0;
        r |= byte << (8 * i);
    }
    return r;
}

// ---- values

inline float half_value(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    const float small = float(fraction) * 0x1p-24f;
    if (exponent == 0) return sign ? -small : small;
    return bits<float>(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}
float fma_down(float a, float b, float c); // rounded to minus infinity
uint32_t pack_bf16(float low, float high);
uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c);
/// 1 / x to some 20 bits, the low word of the result zero.
double about_inverse(double x);
float exp2_flushed(float x); // subnormal numbers are zeros
inline float saturated(float x) {
    return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; // NaN: 0
}

inline float round_n(float x) {
    return __builtin_rintf(x);
}
inline float round_z(float x) {
    return __builtin_truncf(x);
}
inline float round_m(float x) {
    return __builtin_floorf(x);
}
inline float round_p(float x) {
    return __builtin_ceilf(x);
}
inline double round_n(double x) {
    return __builtin_rint(x);
}
inline double round_z(double x) {
    return __builtin_trunc(x);
}
inline double round_m(double x) {
    return __builtin_floor(x);
}
inline double round_p(double x) {
    return __builtin_ceil(x);
}
/// The nearest whole number there is; NaN gives 0.
template <class T> inline T to_integer(double x) {
    typedef std::numeric_limits<T> L;
    if (x != x) return 0;
    return x <= double(L::min()) ? L::min() : x >= double(L::max()) ? L::max() : T(x);
}

// ---- warps

/// shfl over whole warps: `clamp` is operand c.
uint32_t shuffle(int kind, uint32_t v, uint32_t lane, uint32_t clamp, uint32_t mask, emu::Site at);

} // namespace ptx
