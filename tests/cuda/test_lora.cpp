// Rows of several adapters, and of none, in one batch.
#include "kernels/cuda/cuda.h"
#include "tests/cuda/pages.h"

static const sd_cuda_real types[] = {SD_CUDA_F32, SD_CUDA_BF16};
enum { N = 5, K = 100, M = 300, MOST_R = 16, LDU = 20 };

struct Adapters {
    std::vector<float> A[3], B[3];
    std::vector<sd_cuda_lora> of;
};
static void make_adapters(Adapters *a) {
    const int r[3] = {16, 1, 9};
    for (int i = 0; i < 3; i++) {
        a->A[i] = random_floats(size_t(r[i] * K)), a->B[i] = random_floats(size_t(M * r[i]));
        a->of.push_back(
            {emu::device_copy(a->A[i]), emu::device_copy(a->B[i]), r[i], 0.5f * float(i + 1)});
    }
}

static float *run(const sd_cuda_lora *adapters, const std::vector<int32_t> &which, const void *x,
                  const std::vector<float> &y0, sd_cuda_real type) {
    const int n = int(which.size());
    float *u = emu::device_array<float>(size_t(n * LDU)), *y = emu::device_copy(y0);
    const int32_t *w = emu::device_copy(which);
    check(sd_cuda_lora_shrink(u, LDU, adapters, w, x, n, K, MOST_R, type, nullptr) == 0, "shrink");
    check(sd_cuda_lora_expand(y, M, adapters, w, u, LDU, n, M, nullptr) == 0, "expand");
    emu::synchronise();
    return y;
}

TEST("each row gets its own adapter's part, and a row without one nothing") {
    for (sd_cuda_real type : types) {
        Adapters a;
        make_adapters(&a);
        const std::vector<int32_t> which = {2, 0, -1, 1, 0};
        auto x = random_floats(N * K);
        const auto y0 = random_floats(N * M);
        const void *dx = real_copy(&x, type);
        const float *y = run(emu::device_copy(a.of), which, dx, y0, type);
        for (int n = 0; n < N; n++)
            for (int m = 0; m < M; m++) {
                double want = y0[size_t(n * M + m)], size = fabs(want);
                const int w = which[size_t(n)];
                for (int r = 0; w >= 0 && r < a.of[size_t(w)].r; r++) {
                    const double b =
                        double(a.of[size_t(w)].scale) * a.B[w][size_t(m * a.of[size_t(w)].r + r)];
                    for (int k = 0; k < K; k++) {
                        const double part = b * a.A[w][size_t(r * K + k)] * x[size_t(n * K + k)];
                        want += part, size += fabs(part);
                    }
                }
                // K / 32 + 1 fused sums and 5 levels of a tree, the scale, then r fused sums and the last one.
                const double tolerance = size * (K / 32 + 1 + 5 + 1 + MOST_R + 1) * 0x1p-24;
                check(fabs(y[n * M + m] - want) <= tolerance, "[%d, %d] is %.9g, want %.9g", n, m,
                      double(y[n * M + m]), want);
                if (w < 0) check(y[n * M + m] == y0[size_t(n * M + m)], "row %d has no adapter", n);
            }
    }
}

TEST("a row's part has the same bits alone and in a batch of other adapters") {
    Adapters a;
    make_adapters(&a);
    const sd_cuda_lora *adapters = emu::device_copy(a.of);
    const auto x = random_floats(N * K), y0 = random_floats(N * M);
    const std::vector<int32_t> which = {2, 0, -1, 1, 0};
    const float *dx = emu::device_copy(x), *all = run(adapters, which, dx, y0, SD_CUDA_F32);
    for (int n = 0; n < N; n++) {
        const std::vector<float> own(y0.begin() + n * M, y0.begin() + (n + 1) * M);
        const float *alone = run(adapters, {which[size_t(n)]}, dx + n * K, own, SD_CUDA_F32);
        check(memcmp(alone, all + n * M, M * 4) == 0, "row %d differs", n);
    }
}
