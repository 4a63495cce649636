// Rounding, bias and rows by their numbers.
#include "tests/cuda/train/real.h"

TEST("values are rounded to bf16 as the host rounds them, an odd one at the end too") {
    for (size_t n : {size_t(1), size_t(2), size_t(513), size_t(600)}) {
        auto x = random_floats(n, 3);
        x[0] = 1 + 0x1p-8f, x[n - 1] = -0.0f; // a tie; the sign of nothing
        if (n > 4) x[1] = INFINITY, x[2] = 1e-40f, x[3] = 3.4e38f;
        uint16_t *y = emu::device_array<uint16_t>(n);
        check(sd_cuda_round(y, emu::device_copy(x), n, nullptr) == 0, "refused");
        emu::synchronise();
        for (size_t i = 0; i < n; i++)
            check(y[i] == bf16_bits(x[i]), "value %zu is %04x, want %04x", i, y[i],
                  bf16_bits(x[i]));
    }
    check(sd_cuda_round(nullptr, nullptr, 1, nullptr) == SD_CUDA_EINVAL, "no memory");
}
TEST("a bias is added to the first columns of each row") {
    const int N = 3, M = under_tsan() ? 40 : 300, ld = M + 7;
    const auto y = random_floats(size_t(N * ld)), b = random_floats(size_t(M));
    float *got = emu::device_copy(y);
    check(sd_cuda_bias(got, ld, emu::device_copy(b), N, M, nullptr) == 0, "refused");
    emu::synchronise();
    for (int i = 0; i < N * ld; i++) {
        const float want = i % ld < M ? y[size_t(i)] + b[size_t(i % ld)] : y[size_t(i)];
        check(got[i] == want, "value %d is %g, want %g", i, double(got[i]), double(want));
    }
    check(sd_cuda_bias(got, M - 1, emu::device_copy(b), N, M, nullptr) == SD_CUDA_EINVAL, "ldy");
}
TEST("rows come by their numbers, and zeros where there is none") {
    const int C = under_tsan() ? 40 : 300;
    const auto x = random_floats(size_t(4 * C));
    const std::vector<int32_t> row = {2, -1, 0, 3, 2};
    float *y = emu::device_array<float>(size_t(5 * C));
    check(sd_cuda_take_rows(y, emu::device_copy(x), emu::device_copy(row), 5, C, nullptr) == 0,
          "refused");
    emu::synchronise();
    for (int i = 0; i < 5 * C; i++) {
        const int from = row[size_t(i / C)];
        const float want = from < 0 ? 0 : x[size_t(from * C + i % C)];
        check(y[i] == want, "value %d is %g, want %g", i, double(y[i]), double(want));
    }
    check(sd_cuda_take_rows(y, y, emu::device_copy(row), 5, C, nullptr) == SD_CUDA_EINVAL,
          "y is x");
}
