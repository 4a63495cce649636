// Backward passes of norm, gate and rotation against the CPU's in double precision.
#include "tests/cuda/train/real.h"

#include <algorithm>

// The factor's relative error: half of the sum's (test_rows.cpp) and three roundings.
static double factor_error(int n, int lanes) {
    return ((n / lanes + 14) / 2.0 + 6) * u;
}

// r w dy - r^3 / C (sum of dy w x) x: two terms, each with its own chain; the second's sum is relative to the sizes summed.
static void norm_tolerance(std::vector<double> *tolerance, const float *dy, const float *x,
                           const float *w, int C, int lanes, double r) {
    double dot = 0, sizes = 0;
    for (int c = 0; c < C; c++) {
        const double term = double(dy[c]) * w[c] * x[c];
        dot += term, sizes += fabs(term);
    }
    const double e = factor_error(C, lanes);
    const double pull =
        r * r * r / C * (fabs(dot) * (3 * e + 8 * u) + sizes * (C / lanes + 15) * u);
    for (int c = 0; c < C; c++)
        tolerance->push_back(fabs(r * w[c] * dy[c]) * (e + 5 * u) + pull * fabs(x[c]) +
                             fabs(r * r * r / C * dot * x[c]) * 2 * u);
}

TEST("the gradient through a norm is the CPU's, written or added") {
    for (sd_cuda_real type : types)
        for (bool add : {false, true})
            for (int C : under_tsan() ? std::vector<int>{300} : std::vector<int>{1, 7, 256, 600}) {
                const int N = under_tsan() ? 1 : 3;
                const float eps = 1e-5f;
                const auto x = random_floats(size_t(N * C), 2), dy = random_floats(size_t(N * C)),
                           w = random_floats(size_t(C)), before = random_floats(size_t(N * C), 3);
                const bool bf16 = type == SD_CUDA_BF16 && !add;
                void *dx = add ? emu::device_copy(before)
                               : emu::device_alloc(size_t(N * C) * sd_cuda_real_bytes(type));
                check(sd_cuda_rmsnorm_backward(dx, emu::device_copy(dy), emu::device_copy(x),
                                               emu::device_copy(w), N, C, eps, add, type,
                                               nullptr) == 0,
                      "refused");
                emu::synchronise();
                auto want = add ? in_double(before) : std::vector<double>(size_t(N * C));
                std::vector<double> y(size_t(N * C)), rstd(static_cast<size_t>(N)), tolerance;
                const auto rx = in_double(x), rdy = in_double(dy);
                sd_rmsnorm(y.data(), rstd.data(), rx.data(), w.data(), N, C, double(eps));
                sd_rmsnorm_backward(want.data(), rdy.data(), rx.data(), w.data(), rstd.data(), N,
                                    C);
                for (int n = 0; n < N; n++)
                    norm_tolerance(&tolerance, &dy[size_t(n * C)], &x[size_t(n * C)], w.data(), C,
                                   256, rstd[size_t(n)]);
                for (size_t i = 0; i < want.size(); i++)
                    tolerance[i] += fabs(want[i]) * (bf16 ? v : u);
                check_close(read_real(dx, want.size(), bf16), want, tolerance, "norm's gradient");
            }
}

// The exponential's 2 ulp and its sum with 1, the argument's error (4 roundings of gelu's polynomial), products. Where
// an exponential overflows, what is left of it is below 1e-35.
TEST("the gradient through the gates is the CPU's, at both ends too") {
    const int N = under_tsan() ? 1 : 3, F = 300;
    auto gu = random_floats(size_t(N * 2 * F), 4);
    const auto dy = random_floats(size_t(N * F));
    const float ends[] = {0, -0.0f, 1e-30f, -1e-30f, 8, -8, 30, -30, 88, -88, 200, -200};
    for (size_t i = 0; i < 12; i++) gu[i] = ends[i];
    const auto rgu = in_double(gu), rdy = in_double(dy);
    for (sd_cuda_real type : types)
        for (bool gelu : {false, true}) {
            const size_t n = size_t(N * F), bytes = sd_cuda_real_bytes(type);
            void *dgu = emu::device_alloc(2 * n * bytes), *y = emu::device_alloc(n * bytes);
            check(sd_cuda_glu_backward(dgu, y, emu::device_copy(dy), emu::device_copy(gu), N, F,
                                       gelu, type, nullptr) == 0,
                  "refused");
            emu::synchronise();
            std::vector<double> want(2 * n), want_y(n), tolerance(2 * n), tolerance_y(n);
            (gelu ? sd_geglu_backward : sd_swiglu_backward)(want.data(), want_y.data(), rdy.data(),
                                                            rgu.data(), N, F);
            const double last = type == SD_CUDA_BF16 ? v : 0;
            for (size_t i = 0; i < n; i++) {
                const size_t at = i / size_t(F) * size_t(2 * F) + i % size_t(F);
                const double g = rgu[at], up = rgu[at + size_t(F)], d = rdy[i];
                const double linear = 2 * sqrt(2 / M_PI), cubic = 0.044715 * linear * g * g;
                const double a = gelu ? g * (linear + cubic) : g,
                             slope = gelu ? linear + 3 * cubic : 1;
                const double on = 1 / (1 + exp(-a)), off = 1 / (1 + exp(a));
                const double e = (7 + (gelu ? 4 : 0) * fabs(a)) * u;
                const double deep = fabs(g) * slope * on * off * (2 * e + 8 * u);
                tolerance[at] =
                    fabs(d * up) * (on * (e + 4 * u) + deep) + fabs(want[at]) * last + 1e-35;
                tolerance[at + size_t(F)] = fabs(want[at + size_t(F)]) * (e + 3 * u + last) + 1e-35;
                tolerance_y[i] = fabs(want_y[i]) * (e + 3 * u + last) + 1e-35;
            }
            check_close(read_real(dgu, 2 * n, type == SD_CUDA_BF16), want, tolerance,
                        gelu ? "geglu's gradient" : "swiglu's gradient");
            check_close(read_real(y, n, type == SD_CUDA_BF16), want_y, tolerance_y,
                        "the gate again");
        }
}

// ---- rotation

struct Turn {
    int N, H, G, D, rot;
    bool interleaved, norm;
    sd_cuda_real type;
};
struct TurnData {
    Turn c;
    std::vector<float> qkv, dout, q_norm, k_norm, cosine, sine;
    std::vector<int32_t> pos;
    sd_cuda_turn a;
};
static TurnData turn_data(const Turn &c) {
    TurnData t = {};
    const int positions = 40;
    t.c = c;
    const size_t n = size_t(c.N * (c.H + 2 * c.G) * c.D);
    t.qkv = random_floats(n, 2), t.dout = random_floats(n);
    t.q_norm = random_floats(size_t(c.D)), t.k_norm = random_floats(size_t(c.D));
    for (int i = 0; i < positions * c.rot / 2; i++)
        t.cosine.push_back(float(1.1 * cos(i * 0.37))),
            t.sine.push_back(float(1.1 * sin(i * 0.37)));
    for (int i = 0; i < c.N; i++) t.pos.push_back((i * 17 + 3) % positions);
    t.a.N = c.N, t.a.H = c.H, t.a.G = c.G, t.a.D = c.D, t.a.eps = 1e-6f;
    t.a.q_norm = c.norm ? emu::device_copy(t.q_norm) : nullptr,
    t.a.k_norm = c.norm ? emu::device_copy(t.k_norm) : nullptr;
    t.a.cos = emu::device_copy(t.cosine), t.a.sin = emu::device_copy(t.sine), t.a.rot = c.rot;
    t.a.interleaved = c.interleaved, t.a.pos = emu::device_copy(t.pos), t.a.type = c.type;
    return t;
}

// The CPU's passes in double: out <- forward, d <- backward.
static void turn_reference(std::vector<double> *out, std::vector<double> *d,
                           std::vector<double> *rstd, const TurnData &t) {
    const Turn &c = t.c;
    const int heads = c.H + c.G, ld = (c.H + 2 * c.G) * c.D, q = c.H * c.D;
    const auto cosine = in_double(t.cosine), sine = in_double(t.sine), raw = in_double(t.qkv);
    const double eps = double(t.a.eps);
    *out = raw, *d = in_double(t.dout);
    rstd->assign(size_t(c.N * heads), 1);
    if (c.norm) {
        sd_headnorm(out->data(), ld, rstd->data(), heads, t.q_norm.data(), c.N, c.H, c.D, eps);
        sd_headnorm(out->data() + q, ld, rstd->data() + c.H, heads, t.k_norm.data(), c.N, c.G, c.D,
                    eps);
    }
    sd_rope(out->data(), ld, cosine.data(), sine.data(), t.pos.data(), c.N, heads, c.D, c.rot,
            c.interleaved);
    sd_rope_backward(d->data(), ld, cosine.data(), sine.data(), t.pos.data(), c.N, heads, c.D,
                     c.rot, c.interleaved);
    if (!c.norm) return;
    sd_headnorm_backward(d->data(), ld, raw.data(), ld, rstd->data(), heads, t.q_norm.data(), c.N,
                         c.H, c.D);
    sd_headnorm_backward(d->data() + q, ld, raw.data() + q, ld, rstd->data() + c.H, heads,
                         t.k_norm.data(), c.N, c.G, c.D);
}

// A turn is two products and a sum of values up to `most` of the head; the norm's backward pass adds its own chain.
static void run_turn(const Turn &c) {
    const TurnData t = turn_data(c);
    const size_t n = t.qkv.size(), bytes = sd_cuda_real_bytes(c.type);
    const float *qkv = emu::device_copy(t.qkv), *dout = emu::device_copy(t.dout);
    void *out = emu::device_alloc(n * bytes), *d = emu::device_alloc(n * bytes);
    check(sd_cuda_turn_forward(out, qkv, &t.a, nullptr) == 0 &&
              sd_cuda_turn_backward(d, dout, c.norm ? qkv : nullptr, &t.a, nullptr) == 0,
          "refused");
    emu::synchronise();
    std::vector<double> want, want_d, rstd, tolerance(n), tolerance_d(n);
    turn_reference(&want, &want_d, &rstd, t);
    const double last = c.type == SD_CUDA_BF16 ? v : u;
    const int heads = c.H + c.G;
    for (size_t at = 0; at < n; at += size_t(c.D)) {
        const size_t row = at / size_t(c.D) / size_t(heads + c.G),
                     head = at / size_t(c.D) % size_t(heads + c.G);
        const bool turns = head < size_t(heads), normed = turns && c.norm;
        const double r = normed ? rstd[row * size_t(heads) + head] : 1;
        const float *w = head < size_t(c.H) ? t.q_norm.data() : t.k_norm.data();
        double most = 0, most_d = 0, dot = 0;
        for (int i = 0; i < c.D; i++) {
            const double x = fabs(t.qkv[at + size_t(i)]), g = normed ? fabs(w[i]) : 1;
            most = std::max(most, x * g * r);
            most_d = std::max(most_d, 2.2 * fabs(double(t.dout[at + size_t(i)])));
        }
        for (int i = 0; i < c.D && normed; i++)
            dot += most_d * fabs(w[i]) * fabs(t.qkv[at + size_t(i)]);
        const double e = factor_error(c.D, 32);
        for (int i = 0; i < c.D; i++) {
            const double x = fabs(t.qkv[at + size_t(i)]), g = normed ? fabs(w[i]) : 1;
            tolerance[at + size_t(i)] =
                (turns ? 2.2 * most * (4 * u + (normed ? e + 2 * u : 0)) : 0) +
                fabs(want[at + size_t(i)]) * last;
            tolerance_d[at + size_t(i)] =
                (turns ? most_d * 4 * u : 0) * r * g +
                (normed ? most_d * r * g * (e + 4 * u) +
                              r * r * r / c.D * dot * x * (3 * e + (c.D / 32 + 16) * u)
                        : 0) +
                fabs(want_d[at + size_t(i)]) * last;
        }
    }
    check_close(read_real(out, n, c.type == SD_CUDA_BF16), want, tolerance, "turned");
    check_close(read_real(d, n, c.type == SD_CUDA_BF16), want_d, tolerance_d, "turned back");
}

TEST("heads turn and their gradient turns back, in both orders of pairs, in part or whole") {
    for (sd_cuda_real type : types)
        for (bool interleaved : {false, true})
            for (int rot : {16, 64})
                if (!under_tsan() || interleaved == (rot == 16))
                    run_turn({under_tsan() ? 1 : 5, 4, 2, 64, rot, interleaved, false, type});
    run_turn({2, 2, 1, 96, 96, false, false, SD_CUDA_F32});
}
TEST("the gradient goes through QK-norm, head by head, and a value's is as it was") {
    for (sd_cuda_real type : types)
        for (bool interleaved : {false, true})
            for (int D : {8, 64, 128})
                if (!under_tsan() || D == 64) run_turn({3, 2, 1, D, D, interleaved, true, type});
}

TEST("launchers of training's rows refuse what they cannot do") {
    float *x = emu::device_array<float>(64), *y = emu::device_array<float>(64);
    sd_cuda_turn a = {};
    check(sd_cuda_rmsnorm_backward(x, y, nullptr, x, 1, 4, 0, false, SD_CUDA_F32, nullptr) ==
              SD_CUDA_EINVAL,
          "no x");
    check(sd_cuda_rmsnorm_backward(x, y, x, y, 1, 4, 0, true, SD_CUDA_F32, nullptr) ==
              SD_CUDA_EINVAL,
          "in place");
    check(sd_cuda_glu_backward(x, y, x, y, 0, 4, false, SD_CUDA_F32, nullptr) == SD_CUDA_EINVAL,
          "no rows");
    check(sd_cuda_turn_forward(x, y, &a, nullptr) == SD_CUDA_EINVAL, "nothing to turn");
}
