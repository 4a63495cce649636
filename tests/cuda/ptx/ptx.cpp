#include "tests/cuda/ptx/ptx.h"

#include <immintrin.h>
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string>

namespace ptx {

struct Known {
    const Entry *entry;
    bool noted;
};
static std::map<std::string, Known> &known() {
    static auto *all = new std::map<std::string, Known>;
    return *all;
}

// PTX_LOG names a file to which each launched kernel's name is added, so that the ladder sees which ones no test launched.
static void note_launch(const char *name) {
    const char *log = getenv("PTX_LOG");
    FILE *f = log ? fopen(log, "a") : nullptr;
    if (!f) return;
    fprintf(f, "%s\n", name);
    fclose(f);
}

const Entry *entry_of(const char *name) {
    const auto it = known().find(name);
    if (it == known().end()) emu::fail("%s has no PTX", name);
    if (!it->second.noted) note_launch(name);
    it->second.noted = true;
    return it->second.entry;
}
static emu::Translation find(const char *name) {
    return entry_of(name)->run;
}

File::File(const Entry *entries) {
    for (; entries->name; entries++) known()[entries->name] = {entries, false};
    emu::translation_of = find;
}

void refuse(const char *what, uint64_t value) {
    emu::fail("PTX: %s: 0x%llx", what, static_cast<unsigned long long>(value));
}

float fma_down(float a, float b, float c) {
    const unsigned before = _mm_getcsr();
    __m128 x = _mm_set_ss(a);
    const __m128 y = _mm_set_ss(b), z = _mm_set_ss(c);
    _mm_setcsr((before & ~unsigned(_MM_ROUND_MASK)) | _MM_ROUND_DOWN);
    asm volatile("vfmadd213ss %2, %1, %0" : "+x"(x) : "x"(y), "x"(z));
    _mm_setcsr(before);
    return _mm_cvtss_f32(x);
}

// To the nearest, ties to even, once: the double's low bits are kept as one bit below the last of float.
static uint32_t bf16_of(double x) {
    float f = float(x);
    if (f != f) return 0x7fff;
    uint32_t u = bits<uint32_t>(f);
    if (double(f) != x && (u & 0x7fffffffu) < 0x7f800000u) {
        const bool beyond = (x < 0 ? -x : x) < double(bits<float>(u & 0x7fffffffu));
        u = (beyond ? u - 1 : u) | 1; // odd: to the smaller magnitude, with the bit
    }
    return (u + 0x7fffu + (u >> 16 & 1)) >> 16;
}
static double low(uint32_t r) {
    return double(bits<float>(r << 16));
}
static double high(uint32_t r) {
    return double(bits<float>(r & 0xffff0000u));
}
uint32_t pack_bf16(float l, float h) {
    return bf16_of(double(l)) | bf16_of(double(h)) << 16;
}
uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    return bf16_of(low(a) * low(b) + low(c)) | bf16_of(high(a) * high(b) + high(c)) << 16;
}

double about_inverse(double x) {
    return bits<double>(bits<uint64_t>(1 / x) & 0xffffffff00000000u);
}

static float flushed(float x) {
    return __builtin_fabsf(x) < 0x1p-126f ? x * 0.0f : x;
}
float exp2_flushed(float x) {
    return flushed(__builtin_exp2f(flushed(x)));
}

uint32_t shuffle(int kind, uint32_t v, uint32_t lane, uint32_t clamp, uint32_t mask, emu::Site at) {
    if (clamp != 31) refuse("shfl over parts of a warp is not known: c is", clamp);
    uint32_t r;
    emu::shuffle(kind, mask, &v, &r, sizeof r, int(lane), at);
    return r;
}

} // namespace ptx
