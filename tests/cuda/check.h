// Tests of kernels: each runs in a process of its own under several orders of threads, and is one line of TAP.
//
//     TEST("a sentence about behaviour") {
//         ...
//         check(x == y, "x is %d, want %d", x, y);
//     }
//
// EMU_ORDERS=n runs n random orders behind the forward and the reverse one (3 where it is not set; one in all under
// ThreadSanitizer, which sees what is not ordered in any). A program's argument runs only the tests
// whose sentences contain it.
#pragma once

#include "tests/cuda/emu/host.h"

#include <functional>
#include <math.h>
#include <string>
#include <vector>

struct Test {
    const char *sentence;
    void (*run)();
    bool one; // in one random order alone: for what stands on kernels that have tests of their own
    Test(const char *sentence, void (*run)(), bool one = false);
};
#define TEST_NAME2(line) test_##line
#define TEST_NAME(line) TEST_NAME2(line)
#define TEST_AT(sentence, line)                                                                    \
    static void TEST_NAME(line)();                                                                 \
    static Test TEST_NAME(line##_of)(sentence, TEST_NAME(line));                                   \
    static void TEST_NAME(line)()
#define TEST_LINE(sentence, line) TEST_AT(sentence, line)
#define TEST(sentence) TEST_LINE(sentence, __LINE__)

/// Ends the test as failed unless ok.
extern "C" void check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/// First in a test that has more than ThreadSanitizer's 8128 threads in a grid, or would take it minutes: a skip there.
void not_under_tsan();
/// Where a test takes fewer cases: a thread of a grid costs ThreadSanitizer a millisecond.
bool under_tsan();
/// First in a test that itself reads memory that nobody wrote: a skip under MemorySanitizer.
void not_under_msan();

/// Whether `run`, in a process of its own, ends as the emulator's errors do, with `word` in the message.
bool ends_with(const std::function<void()> &run, const char *word);

/// The same numbers in every run: [-1, 1).
float uniform();
std::vector<float> random_floats(size_t n, float size = 1);
/// To bf16 and back: what a bf16 instance is given.
float rounded_bf16(float x);
uint16_t bf16_bits(float x);
float bf16_float(uint16_t bits);

/// Every y within its tolerance of the reference; NaN is in nobody's.
void check_close(const std::vector<float> &y, const std::vector<double> &want,
                 const std::vector<double> &tolerance, const char *what);
/// n values that a kernel wrote.
std::vector<float> read_real(const void *p, size_t n, bool bf16);
