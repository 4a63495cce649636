// What decoding's matrix products reach of the card's bandwidth, and what eight rows cost over one: a line of tab-separated
// figures for each map. Needs a device.
//
//   card        GB/s by the memory's clock and width, GB/s of a copy (read and write)
//   TYPE MxK    µs of one row, GB/s of weights, percent of the card, cost of 4, 8 and 16 rows over that of one
//
// Weights are copied until no cache of the card holds them all, and taken in turn. The least of a few rounds counts.
#include "kernels/cuda/cuda.h"
#include "tests/cuda/gpu/runtime.h"
#include "tests/cuda/weights.h"

#include <stdio.h>

static void must(int status, const char *what) {
    if (status) emu::fail("%s: error %d, %s", what, status, cudaGetErrorString(status));
}

static void *taken(size_t bytes) {
    void *p;
    must(cudaMalloc(&p, bytes), "cudaMalloc");
    return p;
}

static void *begin, *end; // events
enum { ROUNDS = 5 };

// The least time of a call, in µs; each round makes `calls`.
template <class F> static double least_us(int calls, F call) {
    double best = INFINITY;
    for (int r = 0; r <= ROUNDS; r++) { // the first one warms up
        must(cudaEventRecord(begin, nullptr), "an event");
        for (int i = 0; i < calls; i++) must(call(i), "a launch");
        must(cudaEventRecord(end, nullptr), "an event");
        must(cudaEventSynchronize(end), "the device");
        float ms;
        must(cudaEventElapsedTime(&ms, begin, end), "a time");
        if (r > 0) best = fmin(best, double(ms) * 1e3 / calls);
    }
    return best;
}

static double card_rate() {
    enum { MEMORY_CLOCK_KHZ = 36, BUS_BITS = 37 }; // of cudaDeviceAttr
    int khz, bits;
    must(cudaDeviceGetAttribute(&khz, MEMORY_CLOCK_KHZ, 0), "the memory's clock");
    must(cudaDeviceGetAttribute(&bits, BUS_BITS, 0), "the memory's width");
    const double card = 2.0 * khz * 1e3 * bits / 8 / 1e9;
    const size_t bytes = size_t(1) << 30;
    void *a = taken(bytes), *b = taken(bytes);
    must(cudaMemcpyAsync(a, b, bytes, CUDA_COPY_DEFAULT, nullptr), "a copy");
    const double us =
        least_us(4, [=](int) { return cudaMemcpyAsync(a, b, bytes, CUDA_COPY_DEFAULT, nullptr); });
    printf("card\t%.0f\t%.0f\n", card, 2.0 * double(bytes) / us / 1e3);
    must(cudaFree(a), "cudaFree"), must(cudaFree(b), "cudaFree");
    return card;
}

static void time_map(double card, sd_dtype type, int M, int K) {
    enum { COPIES_BYTES = 256 << 20, MOST = 64, ROWS = 16, CALLS = 64 };
    Stored s;
    random_stored(&s, type, M, K, false);
    sd_cuda_weight w = sd_cuda_weight_of(&s.w);
    std::vector<char> packed(w.bytes);
    sd_cuda_weight_pack(packed.data(), &w, &s.w);
    std::vector<sd_cuda_weight> all;
    for (size_t sum = 0; sum < COPIES_BYTES && all.size() < MOST; sum += w.bytes) {
        void *p = taken(w.bytes);
        must(cudaMemcpy(p, packed.data(), w.bytes, CUDA_COPY_DEFAULT), "cudaMemcpy");
        all.push_back(w);
        all.back().data = p;
    }
    auto values = random_floats(size_t(ROWS) * size_t(K));
    std::vector<uint16_t> bits;
    for (float v : values) bits.push_back(bf16_bits(v));
    void *x = taken(bits.size() * 2), *y = taken(size_t(ROWS) * size_t(M) * 4);
    must(cudaMemcpy(x, bits.data(), bits.size() * 2, CUDA_COPY_DEFAULT), "cudaMemcpy");
    double us[4];
    const int rows[4] = {1, 4, 8, 16};
    for (int i = 0; i < 4; i++)
        us[i] = least_us(CALLS, [&](int call) {
            return sd_cuda_matmul(static_cast<float *>(y), M, &all[size_t(call) % all.size()], x,
                                  rows[i], nullptr, false, SD_CUDA_BF16, nullptr);
        });
    const double rate = double(w.bytes) / us[0] / 1e3;
    printf("%s %dx%d\t%.1f\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\n", sd_dtype_name(type), M, K, us[0], rate,
           100 * rate / card, us[1] / us[0], us[2] / us[0], us[3] / us[0]);
    fflush(stdout);
    for (const sd_cuda_weight &c : all) must(cudaFree(const_cast<void *>(c.data)), "cudaFree");
    must(cudaFree(x), "cudaFree"), must(cudaFree(y), "cudaFree");
}

TEST("products and what they reach") {
    must(cudaEventCreateWithFlags(&begin, 0), "an event");
    must(cudaEventCreateWithFlags(&end, 0), "an event");
    const double card = card_rate();
    for (sd_dtype t : {SD_Q4_K, SD_Q4_1, SD_Q6_K, SD_Q8_0, SD_BF16})
        time_map(card, t, 8960, 1536); // a map of 1.5 billion parameters
    const int maps[][2] = {{1536, 8960}, {28672, 4096}, {4096, 14336}}; // and of 8 billion
    for (auto &m : maps) time_map(card, SD_Q4_K, m[0], m[1]);
    time_map(card, SD_Q4_1, 1536, 576); // of 135 million
}
