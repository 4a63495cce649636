// What stands behind PTX's instructions, by the examples and the corner cases of "PTX ISA". A wrong one would make a kernel's test fail at
// best, and hide a kernel's error at worst.
#include "tests/cuda/check.h"
#include "tests/cuda/ptx/ptx.h"

static void same(uint64_t is, uint64_t want, const char *what) {
    check(is == want, "%s is 0x%llx, want 0x%llx", what, static_cast<unsigned long long>(is),
          static_cast<unsigned long long>(want));
}

TEST("shifts beyond the width leave nothing but signs, funnel shifts wrap") {
    same(ptx::shl<uint32_t>(1, 31), 0x80000000u, "shl 31");
    same(ptx::shl<uint32_t>(1, 32), 0, "shl 32");
    same(ptx::shl<uint64_t>(1, 63), 1ull << 63, "shl 63");
    same(ptx::shr<uint32_t>(0x80000000u, 40), 0, "shr.u32 40");
    same(uint32_t(ptx::shr<int32_t>(-8, 1)), uint32_t(-4), "shr.s32 1");
    same(uint32_t(ptx::shr<int32_t>(-8, 99)), uint32_t(-1), "shr.s32 99");
    same(uint16_t(ptx::shr<int16_t>(-2, 16)), 0xffff, "shr.s16 16");
    same(ptx::funnel_l(0x80000001u, 0x12345678u, 4), 0x23456788u, "shf.l 4");
    same(ptx::funnel_r(0x80000001u, 0x12345678u, 36), 0x88000000u, "shf.r 36");
}
TEST("fields are put where they belong, and bytes are permuted with their signs") {
    same(ptx::bfi(0xff, 0, 4, 8), 0xff0, "bfi");
    same(ptx::bfi(0xffffffffu, 0x12345678u, 8, 0), 0x12345678u, "bfi of no bits");
    same(ptx::bfi(0xabcdef01u, 0, 0, 32), 0xabcdef01u, "bfi of all bits");
    same(ptx::bfi(0xffffffffu, 0, 28, 8), 0xf0000000u, "bfi over the end");
    same(ptx::bfi(1, 7, 32, 4), 7, "bfi beyond the end");
    same(ptx::prmt(0x33221100u, 0x77665544u, 0x6420), 0x66442200u, "prmt");
    same(ptx::prmt(0x00008000u, 0, 0x0009), 0x000000ffu, "prmt of a sign");
}
TEST("conversions to integers saturate, and quotients of the least number do not trap") {
    same(uint32_t(ptx::to_integer<int32_t>(3e9)), 0x7fffffffu, "3e9");
    same(uint32_t(ptx::to_integer<int32_t>(-3e9)), 0x80000000u, "-3e9");
    same(uint32_t(ptx::to_integer<int32_t>(NAN)), 0, "NaN");
    same(ptx::to_integer<uint32_t>(-1), 0, "-1 as unsigned");
    same(uint32_t(ptx::to_integer<int32_t>(ptx::round_n(2.5f))), 2, "2.5 to even");
    same(uint32_t(ptx::to_integer<int32_t>(ptx::round_m(-2.5f))), uint32_t(-3), "-2.5 down");
    same(uint32_t(ptx::div<int32_t>(INT32_MIN, -1)), 0x80000000u, "the least by -1");
    same(uint32_t(ptx::rem<int32_t>(-7, 2)), uint32_t(-1), "-7 mod 2");
}
TEST("bf16 is rounded once, to even in a tie, and NaN is one") {
    same(ptx::pack_bf16(1, -2), 0xc0003f80u, "1, -2");
    same(ptx::pack_bf16(ptx::bits<float>(0x3f808000u), ptx::bits<float>(0x3f818000u)), 0x3f823f80u,
         "two ties");
    same(ptx::pack_bf16(NAN, INFINITY), 0x7f807fffu, "NaN, infinity");
    same(ptx::pack_bf16(3.4e38f, 0), 0x00007f80u, "beyond the largest");
    // 1.0625^2 is a tie, and 2^-30 beside it is less than fp32 sees: rounded twice, both would go to even.
    same(ptx::fma_bf16x2(0x3f88, 0x3f88, 0x3080), 0x3f91, "a sum just above a tie");
    same(ptx::fma_bf16x2(0x3f88, 0x3f88, 0xb080), 0x3f90, "a sum just below a tie");
    same(ptx::fma_bf16x2(0x3f80, 0x3f80, 0x3b80), 0x3f80, "1 + 2^-8: a tie goes to even");
    same(ptx::fma_bf16x2(0x3f80, 0x3f81, 0x3b80), 0x3f82, "1 + 2^-7 + 2^-8: a tie goes to even");
    same(ptx::fma_bf16x2(0x3f80 << 16, 0x3f80 << 16, 0x40000000u), 0x40400000u, "the upper half");
}
TEST("directed, approximate and flushed values are what the ISA allows") {
    check(ptx::fma_down(0x1p-30f, 1, 1) == 1, "1 + 2^-30 down");
    check(ptx::fma_down(-0x1p-30f, 1, 1) == 1 - 0x1p-24f, "1 - 2^-30 down");
    check(ptx::exp2_flushed(-INFINITY) == 0 && ptx::exp2_flushed(3) == 8, "powers of two");
    check(ptx::exp2_flushed(-130) == 0, "a subnormal power");
    check(ptx::saturated(NAN) == 0 && ptx::saturated(-1) == 0 && ptx::saturated(2) == 1 &&
              ptx::saturated(0.5f) == 0.5f,
          "saturated");
    check(fabs(ptx::about_inverse(3) * 3 - 1) < 0x1p-19, "an inverse");
    same(ptx::bits<uint64_t>(ptx::about_inverse(3)) & 0xffffffffu, 0, "an inverse's low word");
    check(ptx::half_value(0x3c00) == 1 && ptx::half_value(0x8001) == -0x1p-24f &&
              ptx::half_value(0x7bff) == 65504 && isinf(ptx::half_value(0x7c00)),
          "halves");
}

TEST(
    "addresses of shared memory are not generic ones, and vectors lie at multiples of their size") {
    const uint32_t at = 0x1000;
    check(ptx::to_shared(ptx::from_shared(at)) == at, "there and back");
    check(uint32_t(ptx::from_shared(at)) != at, "cutting a generic address gives the shared one");
    check(ends_with([] { ptx::to_shared(0x1000); }, "not one of shared memory"), "to_shared");
    check(ends_with([] { ptx::to_global(ptx::from_shared(0x1000)); }, "not one of global memory"),
          "to_global");
    check(ends_with([] { ptx::of_global<ptx::Vector<float, 1>>(0x1000); }, "another space"),
          "a global address");
    float *x = emu::device_array<float>(8);
    check(ends_with(
              [=] { ptx::of_global<ptx::Vector<float, 4>>(reinterpret_cast<uintptr_t>(x + 1)); },
              "not a multiple"),
          "a vector at 4 bytes");
    check(ends_with([] { ptx::whole_or_nothing(8); }, "cp.async"), "half a copy");
}
