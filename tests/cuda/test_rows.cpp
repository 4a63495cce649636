// Norms, gates, sums and quantisation against double precision. u = 2^-24 is a rounding of fp32, v = 2^-8 one to
// bf16 (the last, of the bf16 instances).
#include "kernels/cuda/cuda.h"
#include "tests/cuda/check.h"

static const double u = 0x1p-24, v = 0x1p-8;
static const sd_cuda_real types[] = {SD_CUDA_F32, SD_CUDA_BF16};

// A row's sum of squares is a chain of C / 256 fused additions of positive terms and 5 + 8 levels of a tree:
// relative C / 256 + 13 roundings, half of that behind the root; then the mean, eps, root, quotient and two products.
static double norm_error(int C) {
    return ((C / 256 + 14) / 2.0 + 6) * u;
}

TEST("rmsnorm equals the norm in double, of one element to several a thread") {
    for (sd_cuda_real type : types)
        for (int C : {1, 7, 256, 576, 1000}) {
            const int N = 3;
            const auto x = random_floats(size_t(N * C), 2), w = random_floats(size_t(C));
            void *y = emu::device_alloc(size_t(N * C) * sd_cuda_real_bytes(type));
            check(sd_cuda_rmsnorm(y, emu::device_copy(x), emu::device_copy(w), N, C, 1e-5f, type,
                                  nullptr) == 0,
                  "C = %d", C);
            emu::synchronise();
            std::vector<double> want, tolerance;
            for (int n = 0; n < N; n++) {
                double sum = 0;
                for (int c = 0; c < C; c++)
                    sum += double(x[size_t(n * C + c)]) * x[size_t(n * C + c)];
                for (int c = 0; c < C; c++) {
                    want.push_back(x[size_t(n * C + c)] / sqrt(sum / C + double(1e-5f)) *
                                   w[size_t(c)]);
                    tolerance.push_back(fabs(want.back()) *
                                        (norm_error(C) + (type == SD_CUDA_BF16 ? v : 0)));
                }
            }
            check_close(read_real(y, size_t(N * C), type == SD_CUDA_BF16), want, tolerance,
                        "rmsnorm");
        }
}

TEST("a row's norm has the same bits in any company") {
    const int C = 600;
    const auto x = random_floats(size_t(5 * C)), w = random_floats(size_t(C));
    float *all = emu::device_array<float>(size_t(5 * C)),
          *one = emu::device_array<float>(size_t(C));
    const float *dx = emu::device_copy(x), *dw = emu::device_copy(w);
    sd_cuda_rmsnorm(all, dx, dw, 5, C, 1e-6f, SD_CUDA_F32, nullptr);
    sd_cuda_rmsnorm(one, dx + 3 * C, dw, 1, C, 1e-6f, SD_CUDA_F32, nullptr);
    emu::synchronise();
    check(memcmp(all + 3 * C, one, size_t(C) * 4) == 0, "bits differ");
}

TEST("rmsnorm_add adds the norm of what a block adds") {
    const int N = 2, C = 300;
    const auto x = random_floats(size_t(N * C)), d = random_floats(size_t(N * C)),
               w = random_floats(size_t(C));
    float *dx = emu::device_copy(x);
    check(sd_cuda_rmsnorm_add(dx, emu::device_copy(d), emu::device_copy(w), N, C, 1e-5f, nullptr) ==
              0,
          "refused");
    emu::synchronise();
    std::vector<double> want, tolerance;
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int c = 0; c < C; c++) sum += double(d[size_t(n * C + c)]) * d[size_t(n * C + c)];
        for (int c = 0; c < C; c++) {
            const size_t i = size_t(n * C + c);
            const double added = d[i] / sqrt(sum / C + double(1e-5f)) * w[size_t(c)];
            want.push_back(x[i] + added);
            tolerance.push_back(fabs(added) * norm_error(C) + fabs(want.back()) * u);
        }
    }
    check_close(read_real(dx, size_t(N * C), false), want, tolerance, "rmsnorm_add");
}

// The exponential is within 2 ulp and its sum with 1, the quotient and the product are rounded. Its argument's own
// error matters where it is large: |x| u of a relative e^x, for gelu (4 roundings of its polynomial) |v| 4 u.
TEST("the gates equal silu and gelu's tanh form, at both ends too") {
    const int N = 3, F = 300, ld = 320;
    auto gate = random_floats(size_t(N * ld), 4), up = random_floats(size_t(N * ld));
    const float ends[] = {0, -0.0f, 1e-30f, -1e-30f, 30, -30, 88, -88, 200, -200};
    for (size_t i = 0; i < 10; i++) gate[i] = ends[i];
    const float *dg = emu::device_copy(gate), *du = emu::device_copy(up);
    for (sd_cuda_real type : types)
        for (bool gelu : {false, true}) {
            void *y = emu::device_alloc(size_t(N * F) * sd_cuda_real_bytes(type));
            check(sd_cuda_glu(y, dg, du, N, F, ld, gelu, type, nullptr) == 0, "refused");
            emu::synchronise();
            std::vector<double> want, tolerance;
            for (int n = 0; n < N; n++)
                for (int f = 0; f < F; f++) {
                    const double g = gate[size_t(n * ld + f)], p = up[size_t(n * ld + f)];
                    const double a = gelu ? 2 * sqrt(2 / M_PI) * (g + 0.044715 * g * g * g) : g;
                    want.push_back(g / (1 + exp(-a)) * p);
                    tolerance.push_back(fabs(want.back()) * ((8 + (gelu ? 4 : 0) * fabs(a)) * u +
                                                             (type == SD_CUDA_BF16 ? v : 0)) +
                                        1e-37);
                }
            check_close(read_real(y, size_t(N * F), type == SD_CUDA_BF16), want, tolerance,
                        gelu ? "geglu" : "swiglu");
        }
}

TEST("add adds, to the last element and no further") {
    for (size_t n : {1, 255, 256, 1000}) {
        const auto x = random_floats(n), d = random_floats(n);
        float *dx = emu::device_copy(x);
        check(sd_cuda_add(dx, emu::device_copy(d), n, nullptr) == 0, "refused");
        emu::synchronise();
        for (size_t i = 0; i < n; i++) check(dx[i] == x[i] + d[i], "element %zu of %zu", i, n);
    }
}

TEST("int8 codes are the nearest, ties to even, and a group without a law is zeros under NaN") {
    const int N = 3, K = 256;
    for (int group : {32, 256}) {
        auto x = random_floats(size_t(N * K), 3);
        for (int i = 0; i < 32; i++) x[size_t(i)] = i == 0 ? 127 : float(i) + 0.5f; // scale 1: ties
        for (int i = 0; i < group; i++) x[size_t(K + i)] = 0;
        x[size_t(2 * K + 1)] = INFINITY;
        int8_t *q = emu::device_array<int8_t>(size_t(N * K));
        float *scale = emu::device_array<float>(size_t(N * K / group));
        check(sd_cuda_quantize(q, scale, emu::device_copy(x), N, K, group, nullptr) == 0,
              "refused");
        emu::synchronise();
        for (int g = 0; g < N * K / group; g++) {
            float most = 0;
            for (int i = 0; i < group; i++) most = fmaxf(most, fabsf(x[size_t(g * group + i)]));
            const bool law = isfinite(most);
            check(law ? scale[g] == most / 127 : isnan(scale[g]), "scale %d is %g", g,
                  double(scale[g]));
            for (int i = 0; i < group; i++) {
                const float xi = x[size_t(g * group + i)];
                const int want = law && most > 0 ? int(rintf(xi * (127 / most))) : 0;
                check(q[g * group + i] == want, "code %d of group %d is %d, want %d", i, g,
                      q[g * group + i], want);
            }
        }
    }
}

TEST("launchers of rows refuse what they cannot do") {
    float *y = emu::device_array<float>(64);
    check(sd_cuda_rmsnorm(y, y, nullptr, 1, 4, 0, SD_CUDA_F32, nullptr) == SD_CUDA_EINVAL, "norm");
    check(sd_cuda_glu(y, y, y, 1, 8, 4, false, SD_CUDA_F32, nullptr) == SD_CUDA_EINVAL, "glu");
    check(sd_cuda_add(y, y, 0, nullptr) == SD_CUDA_EINVAL, "add");
    check(sd_cuda_quantize(reinterpret_cast<int8_t *>(y), y, y, 1, 40, 32, nullptr) ==
              SD_CUDA_EINVAL,
          "quantize");
}
