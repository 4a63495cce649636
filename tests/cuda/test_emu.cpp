// The emulator itself: what it must let pass, and what it must refuse. A judge that never says no proves nothing.
#include "kernels/cuda/scalar.cuh"
#include "tests/cuda/check.h"

static int launch_one(void (*kernel)(float *), float *y, unsigned threads = 64, size_t shared = 0,
                      unsigned blocks = 1) {
    const int status = SD_LAUNCH(kernel, dim3(blocks), dim3(threads), shared, nullptr, y);
    emu::synchronise();
    return status;
}
static bool refused(void (*kernel)(float *), const char *word, unsigned threads = 64,
                    size_t shared = 0) {
    return ends_with([=] { launch_one(kernel, emu::device_array<float>(64), threads, shared); },
                     word);
}
#if defined(__SANITIZE_ADDRESS__)
static const char beyond[] = "AddressSanitizer",
                  beyond_array[] = "out of bounds"; // whose size its type says
#elif defined(__SANITIZE_THREAD__)
static const char beyond[] = "", beyond_array[] = ""; // ThreadSanitizer does not look at bounds
#else
static const char beyond[] = "behind the end", *const beyond_array = beyond;
#endif

// ---- barriers

static void exchange(float *y) {
    SD_SHARED(float, all, 64);
    all[threadIdx.x] = float(threadIdx.x);
    __syncthreads();
    y[threadIdx.x] = all[63 - threadIdx.x];
}
TEST("emu: behind a barrier every thread sees what others wrote before it") {
    float *y = emu::device_array<float>(64);
    check(launch_one(exchange, y) == 0, "not launched");
    for (int i = 0; i < 64; i++) check(y[i] == float(63 - i), "thread %d sees %g", i, double(y[i]));
}

static void some_end(float *y) {
    if (threadIdx.x >= 32) return;
    __syncthreads();
    y[threadIdx.x] = 1;
}
TEST("emu: threads that have ended hold no barrier back") {
    float *y = emu::device_array<float>(64);
    check(launch_one(some_end, y) == 0 && y[31] == 1, "not launched");
}

static void diverge(float *) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
TEST("emu: a barrier in two branches is refused") {
    check(refused(diverge, "divergent barrier"), "it passed");
}

static void half_warp(float *y) {
    if (threadIdx.x < 16) y[0] = sd_warp_sum(1.0f);
}
TEST("emu: a shuffle of all lanes that half a warp comes to is a deadlock") {
    check(refused(half_warp, "deadlock"), "it passed");
}

static void two_shuffles(float *y) {
    float v = 1;
    if (threadIdx.x % 2)
        v = __shfl_xor_sync(SD_ALL_LANES, v, 1);
    else
        v = __shfl_xor_sync(SD_ALL_LANES, v, 1);
    y[threadIdx.x] = v;
}
TEST("emu: lanes of one warp at two shuffles are refused") {
    check(refused(two_shuffles, "diverged warp"), "it passed");
}

// ---- memory

static void unwritten(float *y) {
    SD_SHARED(float, all, 64);
    y[blockIdx.x * 64 + threadIdx.x] = all[threadIdx.x];
    all[threadIdx.x] = 1; // and the next block does not find it
}
TEST("emu: shared and global memory that nobody wrote is NaN, in every block") {
    float *y = emu::device_array<float>(128), *z = emu::device_array<float>(64);
    for (int i = 0; i < 128; i++) y[i] = 0;
    launch_one(unwritten, y, 64, 0, 2);
    for (int i = 0; i < 128; i++) check(isnan(y[i]) && isnan(z[i / 2]), "value %d is one", i);
}

static void beyond_shared(float *y) {
    SD_SHARED(float, all, 64);
    all[threadIdx.x + 1] = 1;
    y[threadIdx.x] = 1;
}
static void beyond_global(float *y) {
    y[threadIdx.x + 1] = 1;
}
static void beyond_dynamic(float *y) {
    SD_DYNAMIC_SHARED(all);
    y[threadIdx.x] = all[threadIdx.x * 16 + 16];
}
TEST("emu: an index beyond a shared, dynamic or global array is refused") {
    if (!*beyond) return;
    check(refused(beyond_shared, beyond_array), "shared passed");
    check(refused(beyond_global, beyond), "global passed");
    check(refused(beyond_dynamic, beyond, 64, 1024), "dynamic passed");
}

static void nothing(float *) {}
TEST("emu: a host pointer is refused, and so is memory that was freed before its launch ran") {
    float host = 0;
    check(ends_with([&] { launch_one(nothing, &host); }, "does not point into the device's memory"),
          "passed");
    check(*beyond == 0 || ends_with(
                              [] {
                                  float *y = emu::device_array<float>(64);
                                  SD_LAUNCH(exchange, dim3(1), dim3(64), 0, nullptr, y);
                                  emu::device_free(y);
                                  emu::synchronise();
                              },
                              *beyond == 'A' ? beyond : "no memory"),
          "a freed array was written");
}
static void one_beyond(float *y) {
    if (threadIdx.x == 0) y[63] = 1;
}
TEST("emu: a write into the few bytes behind an array that is no multiple of 16 bytes is found at "
     "the end") {
    if (!*beyond) return;
    check(ends_with(
              [] {
                  launch_one(one_beyond, emu::device_array<float>(63));
                  emu::device_check();
              },
              *beyond == 'A' ? beyond : "behind the end"),
          "it passed");
}
TEST("emu: a launch without a valid configuration gives CUDA's error number") {
    float *y = emu::device_array<float>(64);
    check(launch_one(nothing, y, 1025) == 9 && launch_one(nothing, y, 0) == 9, "threads");
    check(launch_one(nothing, y, 64, 0, 0) == 9 && launch_one(nothing, y, 64, 1 << 20) == 1,
          "grid");
}

// ---- copies that arrive late

static const float *source;
static void late(float *y) {
    SD_SHARED(float, all, 256);
    sd_copy_async(all + 4 * threadIdx.x, source + 4 * threadIdx.x, threadIdx.x != 5);
    sd_copy_commit();
    y[threadIdx.x] = all[4 * threadIdx.x];
    sd_copy_wait<0>();
    y[threadIdx.x + 64] = all[4 * threadIdx.x];
    __syncthreads();
    y[threadIdx.x + 128] = all[4 * ((threadIdx.x + 32) % 64)];
}
TEST("emu: what cp.async brings is there behind its wait, and not before") {
    std::vector<float> x(256);
    for (size_t i = 0; i < x.size(); i++) x[i] = float(i);
    source = emu::device_copy(x);
    float *y = emu::device_array<float>(192);
    launch_one(late, y);
    for (int i = 0; i < 64; i++) {
        const int other = (i + 32) % 64;
        check(isnan(y[i]), "thread %d has it before its wait", i);
        check(y[i + 64] == (i == 5 ? 0.0f : float(4 * i)), "thread %d has %g", i,
              double(y[i + 64]));
        check(y[i + 128] == (other == 5 ? 0.0f : float(4 * other)), "thread %d has not the other's",
              i);
    }
}
static void never_waits(float *) {
    SD_SHARED(float, all, 256);
    sd_copy_async(all + 4 * threadIdx.x, source + 4 * threadIdx.x, true);
    sd_copy_commit();
}
TEST("emu: a thread that ends before its copies is refused") {
    source = emu::device_copy(std::vector<float>(256));
    check(refused(never_waits, "before its cp.async has arrived"), "it passed");
}

// ---- fragments

static void product(float *y) { // C [16, 8] = A [16, 16] B [16, 8], both out of shared memory
    SD_SHARED(uint16_t, a, 256);
    SD_SHARED(uint16_t, b, 128);
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) sd_store((bf16 *)a + i, source[i]);
    for (int i = lane; i < 128; i += 32) sd_store((bf16 *)b + i, source[256 + i]);
    __syncwarp();
    uint32_t fa[4], fb4[4];
    // Matrices 0..3: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15: registers 0..3 of A.
    sd_ldmatrix(fa, a + (lane % 16) * 16 + lane / 16 * 8);
    // B lies as [k][n]; its registers want pairs along k: transposed.
    sd_ldmatrix_transposed(fb4, b + (lane % 16) * 8);
    const uint32_t fb[2] = {fb4[0], fb4[1]};
    float c[4] = {0, 0, 0, 0};
    sd_mma(c, fa, fb);
    for (int i = 0; i < 4; i++) y[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = c[i];
}
TEST("emu: ldmatrix and mma by the ISA's layouts are a product of matrices") {
    std::vector<float> x(384);
    for (float &v : x) v = float(int(8 * uniform())); // small integers: exact
    source = emu::device_copy(x);
    float *y = emu::device_array<float>(128);
    launch_one(product, y, 32);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = 0;
            for (int k = 0; k < 16; k++) want += x[size_t(i * 16 + k)] * x[size_t(256 + k * 8 + j)];
            check(y[i * 8 + j] == want, "[%d, %d] is %g, want %g", i, j, double(y[i * 8 + j]),
                  double(want));
        }
}

static void shuffles(float *y) {
    const float v = float(threadIdx.x);
    y[threadIdx.x] = __shfl_xor_sync(SD_ALL_LANES, v, 5);
    y[32 + threadIdx.x] = __shfl_down_sync(SD_ALL_LANES, v, 3);
    y[64 + threadIdx.x] = __shfl_up_sync(SD_ALL_LANES, v, 3);
    y[96 + threadIdx.x] = float(__ballot_sync(SD_ALL_LANES, threadIdx.x % 3 == 0) % 4096);
}
TEST("emu: shuffles and votes") {
    float *y = emu::device_array<float>(128);
    launch_one(shuffles, y, 32);
    for (int i = 0; i < 32; i++) {
        check(y[i] == float(i ^ 5), "xor");
        check(y[32 + i] == float(i + 3 < 32 ? i + 3 : i), "down");
        check(y[64 + i] == float(i - 3 >= 0 ? i - 3 : i), "up");
        check(y[96 + i] == float(0x49249249u % 4096), "ballot");
    }
}

// ---- streams

static void twice(float *y) {
    y[threadIdx.x] *= 2;
}
static void plus_one(float *y) {
    y[threadIdx.x] += 1;
}
// What two streams leave, with and without the second one waiting for the first.
static float raced(bool waits, uint64_t seed) {
    emu::options.seed = seed;
    void *a = emu::stream_open(), *b = emu::stream_open(), *e = emu::event_open();
    float *y = emu::device_copy(std::vector<float>(32, 1.0f));
    SD_LAUNCH(twice, dim3(1), dim3(32), 0, a, y);
    emu::event_record(e, a);
    if (waits) emu::stream_wait(b, e);
    SD_LAUNCH(plus_one, dim3(1), dim3(32), 0, b, y);
    emu::synchronise();
    emu::stream_close(a), emu::stream_close(b), emu::event_close(e);
    return y[0];
}
TEST("emu: a stream that waits for an event comes behind it, one that does not comes before it "
     "too") {
    bool before = false, behind = false;
    for (uint64_t i = 0; i < 20; i++) {
        check(raced(true, i) == 3, "seed %u: the wait was passed", unsigned(i));
        const float y = raced(false, i);
        before |= y == 4, behind |= y == 3;
    }
    check(before && behind, "one order of two is never taken");
}
TEST("what a stream records runs when it is started, as often as it is, and reads what is there "
     "then") {
    float *x = emu::device_copy(std::vector<float>{1}), *y = emu::device_array<float>(1);
    void *stream = emu::stream_open();
    emu::capture_begin(stream);
    emu::copy_async(y, x, 4, stream);
    void *graph = emu::capture_end(stream);
    emu::stream_synchronise(stream);
    check(y[0] != y[0], "it ran while it was recorded");
    for (int i = 2; i < 5; i++) {
        x[0] = float(i);
        emu::graph_launch(graph, stream);
        emu::stream_synchronise(stream);
        check(y[0] == float(i), "%d: %g", i, double(y[0]));
    }
    emu::graph_close(graph);
    check(ends_with([=] { emu::capture_begin(stream), emu::stream_synchronise(stream); },
                    "a stream that records is waited for"),
          "a wait");
    emu::stream_close(stream);
}
TEST("emu: memory, streams and events are of the device that was chosen for them") {
    float *here = emu::device_array<float>(64);
    emu::choose(1);
    float *there = emu::device_array<float>(64);
    void *stream = emu::stream_open(), *event = emu::event_open();
    check(emu::device_of(here) == 0 && emu::device_of(there + 63) == 1 &&
              emu::device_of(stream) == 1 && emu::device_of(&here) == -1 && emu::is_here(there) &&
              !emu::is_here(here),
          "something lies elsewhere");
    check(ends_with([=] { launch_one(nothing, here); }, "memory of device 0, and 1 is chosen"),
          "another device's memory");
    emu::choose(0);
    check(ends_with([=] { emu::launch_kernel("nothing", nothing, 1, 32, 0, stream, here); },
                    "the stream is of device 1, and 0 is chosen"),
          "another device's stream");
    check(ends_with([=] { emu::event_record(event, emu::stream_open()); },
                    "an event of device 1 is recorded on a stream of device 0"),
          "another device's event");
    void *mine = emu::stream_open(); // but copies and waits cross
    emu::choose(1);
    emu::call_async([=] { there[0] = 7; }, stream);
    emu::event_record(event, stream);
    emu::stream_wait(mine, event);
    emu::copy_async(here, there, 4, mine);
    emu::stream_synchronise(mine);
    check(here[0] == 7, "a copy came before what it waits for: %g", double(here[0]));
}
TEST("emu: a host buffer is read when its copy runs, not when it is queued") {
    float host[4] = {1, 1, 1, 1}, *y = emu::device_array<float>(4);
    emu::copy_async(y, host, sizeof host, nullptr);
    host[0] = 2; // too soon
    emu::synchronise();
    check(y[0] == 2 && y[1] == 1, "%g", double(y[0]));
}
