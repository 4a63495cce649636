// Weights on the device: no value is lost on the way; the product of few rows against double precision; a row's bits
// in every company.
#include "kernels/cuda/cuda.h"
#include "tests/cuda/weights.h"

static const sd_cuda_real types[] = {SD_CUDA_F32, SD_CUDA_BF16};

TEST("weights of every type keep every value in the device's form") {
    for (sd_dtype t : all_types)
        for (bool wild : {false, true}) {
            const int M = 21, K = sd_dtype_block(t) == 256  ? 512
                                  : sd_dtype_block(t) == 32 ? 96
                                                            : 100;
            Stored s;
            random_stored(&s, t, M, K, wild);
            const sd_cuda_weight d = sd_cuda_weight_of(&s.w);
            std::vector<uint8_t> packed(d.bytes);
            sd_cuda_weight_pack(packed.data(), &d, &s.w);
            std::vector<float> y(size_t(K), NAN);
            for (int m = 0; m < M; m++) {
                const auto want = stored_row(s.w, m);
                sd_cuda_weight_unpack(y.data(), packed.data(), &d, m);
                for (int k = 0; k < K; k++)
                    check(y[size_t(k)] == want[size_t(k)], "%s as %s: [%d, %d] is %g, want %g",
                          sd_dtype_name(t), sd_cuda_format_name(d.format), m, k,
                          double(y[size_t(k)]), double(want[size_t(k)]));
            }
        }
}

TEST("an embedding is its row's values, and zeros where there is no such row") {
    for (sd_dtype t : all_types) {
        const int M = 35, K = sd_dtype_block(t) == 256 ? 512 : sd_dtype_block(t) == 32 ? 96 : 100;
        Stored s;
        random_stored(&s, t, M, K, true);
        const sd_cuda_weight d = on_device(s.w);
        const std::vector<int32_t> id = {34, 0, -1, 9, 35};
        float *x = emu::device_array<float>(id.size() * size_t(K));
        check(sd_cuda_embedding(x, &d, emu::device_copy(id), int(id.size()), 2, nullptr) == 0,
              "refused");
        emu::synchronise();
        for (size_t n = 0; n < id.size(); n++) {
            const bool known = id[n] >= 0 && id[n] < M;
            const auto want = known ? stored_row(s.w, id[n]) : std::vector<float>(size_t(K));
            for (size_t k = 0; k < size_t(K); k++)
                check(x[n * size_t(K) + k] == 2 * want[k], "%s: row %d, value %zu is %g, want %g",
                      sd_dtype_name(t), id[n], k, double(x[n * size_t(K) + k]),
                      double(2 * want[k]));
        }
    }
}

TEST("dequantised rows are the file's values, in bf16 to the nearest") {
    for (sd_dtype t : all_types) {
        const int M = 35, m0 = 16, rows = 17,
                  K = sd_dtype_block(t) == 256  ? 512
                      : sd_dtype_block(t) == 32 ? 96
                                                : 100;
        Stored s;
        random_stored(&s, t, M, K, true);
        const sd_cuda_weight d = on_device(s.w);
        const size_t n = size_t(rows * K);
        float *y = emu::device_array<float>(n);
        uint16_t *z = emu::device_array<uint16_t>(n);
        check(sd_cuda_dequantise(y, &d, m0, rows, SD_CUDA_F32, nullptr) == 0 &&
                  sd_cuda_dequantise(z, &d, m0, rows, SD_CUDA_BF16, nullptr) == 0,
              "refused");
        emu::synchronise();
        for (int m = 0; m < rows; m++) {
            const auto want = stored_row(s.w, m0 + m);
            for (int k = 0; k < K; k++) {
                const size_t at = size_t(m * K + k);
                const float w = want[size_t(k)];
                check(y[at] == w && z[at] == bf16_bits(w), "%s: row %d, value %d is %g, want %g",
                      sd_dtype_name(t), m, k, double(y[at]), double(w));
            }
        }
        check(sd_cuda_dequantise(y, &d, 8, 8, SD_CUDA_F32, nullptr) == SD_CUDA_EINVAL, "m0");
        check(sd_cuda_dequantise(y, &d, 16, 20, SD_CUDA_F32, nullptr) == SD_CUDA_EINVAL, "rows");
    }
}

// Activations in device memory; `x` becomes what the instance is given.
static void *activations(std::vector<float> *x, sd_cuda_real type) {
    if (type == SD_CUDA_F32) return emu::device_copy(*x);
    std::vector<uint16_t> bits;
    for (float &v : *x) {
        bits.push_back(bf16_bits(v));
        v = bf16_float(bits.back());
    }
    return emu::device_copy(bits);
}

// The products of W's values and x, as the kernel has them, in double; `size` sums their sizes with codes and minimums
// apart, since that is what is rounded. A code is at most 128 times d, and |d q| + |m| at most 2 |w| + 2 |m|: sizes
// take (|w| + |smallest value of its 32|) on.
static void product(double *sum, double *size, const std::vector<float> &w, const float *x,
                    bool blocks) {
    *sum = *size = 0;
    for (size_t k = 0; k < w.size(); k++) {
        double least = 0;
        for (size_t i = k / 32 * 32; blocks && i < k / 32 * 32 + 32 && i < w.size(); i++)
            least = fmax(least, fabs(w[i]));
        *sum += double(w[k]) * x[k];
        *size += (fabs(w[k]) + 2 * least) * fabs(x[k]);
    }
}

// Roundings of one output, each 2^-24 of the sizes at most: in a tile of 64 k the tensor core adds 16 k at a time (16
// roundings, as the emulator has them), then 4 or fewer blocks under a scale and a minimum (4 each); a warp has every
// eighth tile; 8 partial sums, bias, and the sum with y. The value d q + m that the reference starts from is rounded
// twice. The terms left out of fp32 by fp32 products are 3 * 2^-24.
static double roundings(int K) {
    const int tiles = (K + 63) / 64, of_a_warp = (tiles + 7) / 8;
    return of_a_warp * (16 + 4 * 4) + 10 + 2 + 3;
}

static void check_product(sd_dtype t, sd_cuda_real type, int M, int K, int N, bool add, bool bias) {
    Stored s;
    random_stored(&s, t, M, K, false);
    const sd_cuda_weight d = on_device(s.w);
    auto x = random_floats(size_t(N * K));
    void *dx = activations(&x, type);
    const int ldy = M + 3;
    const auto before = random_floats(size_t(N * ldy)), b = random_floats(size_t(M));
    float *y = emu::device_copy(before);
    check(sd_cuda_matmul(y, ldy, &d, dx, N, bias ? emu::device_copy(b) : nullptr, add, type,
                         nullptr) == 0,
          "refused");
    emu::synchronise();
    for (int m = 0; m < M; m++) {
        const auto w = stored_row(s.w, m);
        for (int n = 0; n < N; n++) {
            double sum, size;
            product(&sum, &size, w, &x[size_t(n * K)], sd_dtype_block(t) > 1);
            const double first =
                (add ? before[size_t(n * ldy + m)] : 0) + (bias ? b[size_t(m)] : 0);
            const double want = sum + first, tolerance = (size + 2) * roundings(K) * 0x1p-24;
            const double is = y[n * ldy + m];
            check(fabs(is - want) <= tolerance,
                  "%s %s M %d K %d N %d: [%d, %d] is %.9g, want %.9g +- %.2g", sd_dtype_name(t),
                  type == SD_CUDA_F32 ? "f32" : "bf16", M, K, N, n, m, is, want, tolerance);
        }
    }
    for (int n = 0; n < N; n++) // between the rows
        for (int m = M; m < ldy; m++)
            check(y[n * ldy + m] == before[size_t(n * ldy + m)], "beyond row %d", n);
}

TEST("the product equals the sum in double for every type of weight") {
    for (sd_dtype t : all_types)
        for (sd_cuda_real type : types)
            check_product(t, type, 20, sd_dtype_block(t) == 256 ? 256 : 96, 3, false, true);
}
TEST("a value times one is the value to its last bit: no term of fp32 and fp16 is lost") {
    const int K = 64;
    for (sd_dtype t : {SD_F32, SD_F16, SD_BF16}) {
        Stored s, unit;
        random_stored(&s, t, K, K, false);
        random_stored(&unit, SD_F32, K, K, false);
        std::vector<float> identity(size_t(K * K));
        for (int i = 0; i < K; i++) identity[size_t(i * K + i)] = 1;
        memcpy(unit.bytes.data(), identity.data(), unit.bytes.size());
        const sd_cuda_weight d = on_device(s.w), one = on_device(unit.w);
        const auto x = random_floats(size_t(16 * K), 3);
        float *y = emu::device_array<float>(size_t(16 * K)),
              *z = emu::device_array<float>(size_t(16 * K));
        sd_cuda_matmul(y, K, &d, emu::device_copy(identity), 16, nullptr, false, SD_CUDA_F32,
                       nullptr);
        sd_cuda_matmul(z, K, &one, emu::device_copy(x), 16, nullptr, false, SD_CUDA_F32, nullptr);
        emu::synchronise();
        for (int m = 0; m < K; m++) {
            const auto w = stored_row(s.w, m);
            for (int n = 0; n < 16; n++) {
                check(y[n * K + m] == w[size_t(n)], "%s: weight [%d, %d]", sd_dtype_name(t), m, n);
                check(z[n * K + m] == x[size_t(n * K + m)], "x [%d, %d]", n, m);
            }
        }
    }
}
TEST("the product holds beyond sixteen rows, and for many tiles of k") {
    check_product(SD_Q4_K, SD_CUDA_BF16, 16, 1280, 17, true, false);
    check_product(SD_Q4_1, SD_CUDA_BF16, 33, 576, 9, false, false);
    check_product(SD_F32, SD_CUDA_F32, 5, 4, 1, true, true);
}
TEST("two tiles of rows share a block where W has many") {
    not_under_tsan();
    check_product(SD_Q8_0, SD_CUDA_BF16, 4100, 32, 2, false, false);
}

TEST("a row of a product has the same bits for every n from 1 to 16, at every place, under every "
     "number of tiles") {
    not_under_tsan();
    for (sd_dtype t : {SD_Q4_K, SD_Q6_K, SD_Q4_0, SD_F16})
        for (sd_cuda_real type : types) {
            const int M = 24, K = sd_dtype_block(t) == 256 ? 768 : 576, most = 16;
            Stored s;
            random_stored(&s, t, M, K, false);
            const sd_cuda_weight d = on_device(s.w);
            auto x = random_floats(size_t(most * K));
            char *dx = static_cast<char *>(activations(&x, type));
            const size_t row = size_t(K) * sd_cuda_real_bytes(type);
            float *alone = emu::device_array<float>(size_t(most * M)),
                  *y = emu::device_array<float>(size_t(most * M));
            for (int n = 0; n < most; n++)
                sd_cuda_matmul(alone + n * M, M, &d, dx + size_t(n) * row, 1, nullptr, false, type,
                               nullptr);
            for (int first = 0; first < most; first += 5)
                for (int N = 1; first + N <= most; N++) {
                    sd_cuda_matmul(y, M, &d, dx + size_t(first) * row, N, nullptr, false, type,
                                   nullptr);
                    emu::synchronise();
                    check(memcmp(y, alone + first * M, size_t(N * M) * 4) == 0,
                          "%s: rows %d to %d differ", sd_dtype_name(t), first, first + N - 1);
                }
        }
}

TEST("matmul refuses what it cannot do") {
    Stored s;
    random_stored(&s, SD_F32, 4, 6, false);
    sd_cuda_weight d = on_device(s.w);
    float *y = emu::device_array<float>(64);
    check(sd_cuda_matmul(y, 4, &d, y, 1, nullptr, false, SD_CUDA_F32, nullptr) == SD_CUDA_EINVAL,
          "K");
    d.K = 4;
    check(sd_cuda_matmul(y, 3, &d, y, 1, nullptr, false, SD_CUDA_F32, nullptr) == SD_CUDA_EINVAL,
          "ldy");
    check(sd_cuda_matmul(y, 4, &d, y, 0, nullptr, false, SD_CUDA_F32, nullptr) == SD_CUDA_EINVAL,
          "N");
}
