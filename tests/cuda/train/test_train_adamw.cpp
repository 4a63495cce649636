// AdamW and the gradient's norm against the CPU's.
#include "tests/cuda/train/real.h"

extern "C" {
#include "trainer/optim/adamw.h"
}

struct Norm {
    double *norm, *factor, *partial;
};
static Norm norm_of(const float *grad, size_t n, double scale, double max_norm) {
    const Norm r = {emu::device_array<double>(1), emu::device_array<double>(1),
                    emu::device_array<double>(sd_cuda_grad_partials(n))};
    void *stream = emu::stream_open();
    check(sd_cuda_grad_norm(r.norm, r.factor, r.partial, grad, n, scale, max_norm,
                            static_cast<sd_cuda_stream *>(stream)) == 0,
          "refused");
    emu::stream_close(stream);
    return r;
}

// Sums of n positive doubles in two orders: at most n 2^-53 apart, far less than 1e-10 here.
TEST("the gradient's norm is the CPU's, and clips as the CPU does") {
    for (size_t n : {1, 255, 16384, 16385, 40000}) {
        if (under_tsan() && n != 16385) continue;
        const auto grad = random_floats(n, 3);
        for (double max_norm : {0.0, 1.0, 1e9}) {
            const Norm r = norm_of(emu::device_copy(grad), n, 0.25, max_norm);
            const double want = sd_grad_norm(grad.data(), n, 0.25, nullptr),
                         factor = 0.25 * sd_clip_factor(*r.norm, max_norm);
            check(fabs(*r.norm - want) <= 1e-10 * want, "n %zu: norm %.17g, want %.17g", n, *r.norm,
                  want);
            check(*r.factor == factor, "n %zu: factor %.17g, want %.17g", n, *r.factor, factor);
        }
    }
}
TEST("a gradient that is not finite has a norm that is not") {
    auto grad = random_floats(20000);
    grad[17000] = INFINITY;
    check(!isfinite(*norm_of(emu::device_copy(grad), grad.size(), 1, 1).norm), "infinity");
    grad[17000] = NAN;
    check(!isfinite(*norm_of(emu::device_copy(grad), grad.size(), 1, 1).norm), "NaN");
}

TEST("gradients are added in their order, as one host would add them") {
    for (size_t n : {1, 255, 257, 1000})
        for (int count : {1, 2, 4, 7}) {
            if (under_tsan() && n > 257) continue;
            const size_t stride = n + 3;
            const auto parts = random_floats(stride * size_t(count), 3), first = random_floats(n);
            for (bool begins : {false, true}) {
                float *sum = emu::device_copy(first);
                if (begins) // what was there is no part of it
                    for (size_t i = 0; i < n; i++) sum[i] = NAN;
                check(sd_cuda_gradient_add(sum, emu::device_copy(parts), n, stride, count, begins,
                                           nullptr) == 0,
                      "refused");
                emu::synchronise();
                for (size_t i = 0; i < n; i++) {
                    float want = begins ? 0 : first[i];
                    for (int k = 0; k < count; k++) want += parts[size_t(k) * stride + i];
                    check(sum[i] == want, "%zu of %zu, %d parts: %.9g, want %.9g", i, n, count,
                          double(sum[i]), double(want));
                }
            }
        }
}

TEST("ten steps of AdamW give the CPU's bits") {
    const size_t n = under_tsan() ? 300 : 1000;
    const sd_adamw_options o = {0.9, 0.999, 1e-8, 0.01};
    const sd_cuda_adamw_options device = {0.9, 0.999, 1e-8, 0.01};
    auto theta = random_floats(n), m = std::vector<float>(n), v2 = std::vector<float>(n);
    float *dtheta = emu::device_copy(theta), *dm = emu::device_copy(m), *dv = emu::device_copy(v2);
    for (int step = 1; step <= (under_tsan() ? 3 : 10); step++) {
        auto grad = random_floats(n, step == 5 ? 1e4f : 1e-2f);
        grad[0] = 0, grad[1] = 1e-30f;
        const double lr = 1e-3 / step, scale = sd_clip_factor(step, 3.0) / 7;
        sd_adamw_step(theta.data(), m.data(), v2.data(), grad.data(), n, scale, lr, step, &o,
                      nullptr);
        check(sd_cuda_adamw(dtheta, dm, dv, emu::device_copy(grad), n,
                            emu::device_copy(std::vector<double>{scale}), lr, step, &device,
                            nullptr) == 0,
              "refused");
        emu::synchronise();
        check(memcmp(theta.data(), dtheta, n * 4) == 0 && memcmp(m.data(), dm, n * 4) == 0 &&
                  memcmp(v2.data(), dv, n * 4) == 0,
              "step %d differs", step);
    }
}
TEST("AdamW refuses what it cannot do") {
    float *x = emu::device_array<float>(4);
    double *d = emu::device_array<double>(4);
    const sd_cuda_adamw_options o = {0.9, 0.999, 1e-8, 0};
    check(sd_cuda_adamw(x, x, x, x, 4, d, 1, 0, &o, nullptr) == SD_CUDA_EINVAL, "step 0");
    check(sd_cuda_adamw(x, x, x, x, 0, d, 1, 1, &o, nullptr) == SD_CUDA_EINVAL, "no parameters");
    check(sd_cuda_grad_norm(d, d, d, x, 4, 1, -1, nullptr) == SD_CUDA_EINVAL, "a negative norm");
    check(sd_cuda_gradient_add(x, x, 4, 3, 2, false, nullptr) == SD_CUDA_EINVAL, "parts overlap");
    check(sd_cuda_gradient_add(x, x, 4, 4, 0, false, nullptr) == SD_CUDA_EINVAL, "no part");
}
