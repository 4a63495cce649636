// Attention of training, forward and backward, against the CPU's in double precision: packed segments, windows, groups, every
// instance's head size; and a segment's bits in other company.
#include "tests/cuda/train/real.h"

#include <algorithm>
#include <limits.h>

struct Case {
    int H, G, D, window;
    sd_cuda_real type;
    std::vector<int> segments; // their rows; a row that is nobody's stands before each
};
struct Data {
    Case c;
    int N;
    std::vector<int> begin;
    std::vector<float> qkv, dout; // what the device reads: rounded as the type is
    sd_cuda_flash a;
    const float *device_dout;
};
struct Result {
    std::vector<float> out, lse, dqkv;
};

static Data data_of(const Case &c) {
    Data d = {};
    d.c = c;
    std::vector<sd_cuda_flash_tile> tiles;
    for (int len : c.segments) {
        std::vector<sd_cuda_flash_tile> of(size_t(len / SD_CUDA_FLASH_ROWS + 1));
        d.begin.push_back(++d.N);
        of.resize(size_t(sd_cuda_flash_tiles(of.data(), d.N, len)));
        tiles.insert(tiles.end(), of.begin(), of.end());
        d.N += len;
    }
    const size_t ld = size_t((c.H + 2 * c.G) * c.D), ld_out = size_t(c.H * c.D);
    d.qkv = random_floats(size_t(d.N) * ld, 1.5f), d.dout = random_floats(size_t(d.N) * ld_out);
    for (int b : d.begin) // rows of no segment
        for (size_t i = 0; i < ld; i++) d.qkv[size_t(b - 1) * ld + i] = NAN;
    d.a.N = d.N, d.a.H = c.H, d.a.G = c.G, d.a.D = c.D, d.a.window = c.window;
    d.a.scale = 1 / sqrtf(float(c.D)), d.a.type = c.type;
    d.a.tile = emu::device_copy(tiles), d.a.tiles = int(tiles.size());
    d.a.qkv = real_copy(&d.qkv, c.type);
    d.a.out = emu::device_alloc(d.dout.size() * sd_cuda_real_bytes(c.type));
    d.a.lse = emu::device_array<float>(size_t(d.N * c.H));
    d.device_dout = emu::device_copy(d.dout);
    for (float &x : d.dout)
        if (c.type == SD_CUDA_BF16) x = rounded_bf16(x); // as the kernels round it
    return d;
}

static Result run(const Data &d) {
    const size_t out = d.dout.size(), bytes = sd_cuda_real_bytes(d.c.type);
    float *dqkv = emu::device_array<float>(d.qkv.size()),
          *delta = emu::device_array<float>(size_t(d.N * d.c.H));
    void *stream = emu::stream_open(), *rounded = emu::device_alloc(out * bytes);
    auto *s = static_cast<sd_cuda_stream *>(stream);
    check(sd_cuda_flash_forward(&d.a, s) == 0, "forward refused");
    check(sd_cuda_flash_backward(dqkv, d.device_dout, rounded, delta, &d.a, s) == 0,
          "backward refused");
    emu::stream_close(stream);
    return {read_real(d.a.out, out, d.c.type == SD_CUDA_BF16),
            read_real(d.a.lse, size_t(d.N * d.c.H), false), read_real(dqkv, d.qkv.size(), false)};
}

// A segment's head in double, with what each value's error may be.
//
// A score is D / 16 steps of 17 roundings with three terms left out, in units of sum |q k|: e^score carries that over, and its
// own argument's rounding and 2 ulp. A row's sums are chains of its keys by 16, rescaled each time. In bf16, weights and
// slopes are rounded when a product takes them, and out when it is stored.
struct Head {
    const Data &d;
    int begin, len, h, g;
    std::vector<double> P, dP, err_P, err_dS; // [len, len]; err_P relative
    std::vector<double> lse, delta;

    const float *row(int r, int head) const {
        return &d.qkv[size_t(((begin + r) * (d.c.H + 2 * d.c.G) + head) * d.c.D)];
    }
    const float *dout(int r) const { return &d.dout[size_t(((begin + r) * d.c.H + h) * d.c.D)]; }
    int from(int r) const { return d.c.window > 0 ? std::max(0, r + 1 - d.c.window) : 0; }
    double dot(const float *x, const float *y, double *size) const {
        double sum = 0;
        *size = 0;
        for (int i = 0; i < d.c.D; i++)
            sum += double(x[i]) * y[i], *size += fabs(double(x[i]) * y[i]);
        return sum;
    }
};
static double chain(double n) {
    return (n / 16 + 2) * 18 * u;
}

// out [len, D], lse, P.
static void reference_forward(Head *f, std::vector<double> *out, std::vector<double> *tolerance,
                              std::vector<double> *lse_tolerance) {
    const Case &c = f->d.c;
    const double scale = double(f->d.a.scale), last = c.type == SD_CUDA_BF16 ? v : u;
    const size_t len = size_t(f->len);
    f->P.assign(len * len, 0), f->err_P.assign(len * len, 0), f->lse.assign(len, 0);
    out->assign(len * size_t(c.D), 0), tolerance->assign(len * size_t(c.D), 0);
    for (int r = 0; r < f->len; r++) {
        double *P = &f->P[size_t(r) * len], top = -INFINITY, most = 0, total = 0, size;
        for (int k = f->from(r); k <= r; k++) {
            P[k] = scale * f->dot(f->row(r, f->h), f->row(k, c.H + f->g), &size);
            most = fmax(most, size * scale), top = fmax(top, P[k]);
        }
        for (int k = f->from(r); k <= r; k++) total += exp(P[k] - top);
        f->lse[size_t(r)] = top + log(total);
        const double of_score = most * (c.D / 16 * 17 + 22) * u,
                     of_exp = (4 + 2 * fabs(top) + 3 * most) * u, of_sum = chain(r + 1) + 30 * u;
        const double relative = 2 * (of_score + of_exp + of_sum);
        lse_tolerance->push_back(relative + 4 * u * (fabs(f->lse[size_t(r)]) + 1));
        for (int k = f->from(r); k <= r; k++) {
            P[k] = exp(P[k] - f->lse[size_t(r)]);
            f->err_P[size_t(r) * len + size_t(k)] =
                of_score + of_exp + lse_tolerance->back() + 2 * u;
        }
        for (int i = 0; i < c.D; i++) {
            double sum = 0, sizes = 0;
            for (int k = f->from(r); k <= r; k++) {
                const double x = P[k] * f->row(k, c.H + c.G + f->g)[i];
                sum += x, sizes += fabs(x);
            }
            (*out)[size_t(r * c.D + i)] = sum;
            (*tolerance)[size_t(r * c.D + i)] = sizes * (relative + last) + fabs(sum) * last;
        }
    }
}

// dP, delta, and the error of dS = P (dP - delta).
static void reference_slopes(Head *f, const std::vector<double> &out) {
    const Case &c = f->d.c;
    const double last = c.type == SD_CUDA_BF16 ? v : u;
    const size_t len = size_t(f->len);
    f->dP.assign(len * len, 0), f->err_dS.assign(len * len, 0), f->delta.assign(len, 0);
    for (int r = 0; r < f->len; r++) {
        double sizes = 0, size;
        for (int i = 0; i < c.D; i++) {
            const double x = f->dout(r)[i] * out[size_t(r * c.D + i)];
            f->delta[size_t(r)] += x, sizes += fabs(x);
        }
        double values = 0; // what out's own error may bring into delta
        for (int k = f->from(r); k <= r; k++) {
            const size_t at = size_t(r) * len + size_t(k);
            f->dP[at] = f->dot(f->dout(r), f->row(k, c.H + c.G + f->g), &size);
            values += f->P[at] * size * (2 * f->err_P[at] + last + chain(r + 1));
        }
        const double of_delta = sizes * ((c.D / 32 + 8) * u + last) + values;
        for (int k = f->from(r); k <= r; k++) {
            const size_t at = size_t(r) * len + size_t(k);
            f->dot(f->dout(r), f->row(k, c.H + c.G + f->g), &size);
            const double slope = fabs(f->dP[at] - f->delta[size_t(r)]);
            f->err_dS[at] = f->P[at] * (slope * (f->err_P[at] + 3 * u + last) + of_delta +
                                        size * (c.D / 16 * 17 + 22) * u);
        }
    }
}

static void check_value(double is, double want, double tolerance, const Case &c, const char *what,
                        int row, int i) {
    check(fabs(is - want) <= tolerance,
          "H %d G %d D %d window %d %s: %s of row %d, value %d is %.9g, want %.9g +- %.2g", c.H,
          c.G, c.D, c.window, c.type == SD_CUDA_BF16 ? "bf16" : "fp32", what, row, i, is, want,
          tolerance);
}

// Sums over heads of the kv head's gradients.
struct Gradient {
    std::vector<double> k, v, err_k, err_v; // [len, D]
};

static void check_queries(const Head &f, const Result &is) {
    const Case &c = f.d.c;
    const double scale = double(f.d.a.scale);
    for (int r = 0; r < f.len; r++)
        for (int i = 0; i < c.D; i++) {
            double sum = 0, err = 0;
            for (int k = f.from(r); k <= r; k++) {
                const size_t at = size_t(r * f.len + k);
                const double dS = f.P[at] * (f.dP[at] - f.delta[size_t(r)]),
                             key = f.row(k, c.H + f.g)[i];
                sum += scale * dS * key;
                err += scale * fabs(key) * (f.err_dS[at] + fabs(dS) * (chain(r + 1) + 4 * u));
            }
            const size_t at = size_t(((f.begin + r) * (c.H + 2 * c.G) + f.h) * c.D + i);
            check_value(is.dqkv[at], sum, err + 1e-30, c, "dq", r, i);
        }
}

static void add_keys(Gradient *to, const Head &f) {
    const Case &c = f.d.c;
    const double scale = double(f.d.a.scale), last = c.type == SD_CUDA_BF16 ? v : u;
    const double of_chain = chain(f.len * (c.H / c.G) + 64);
    for (int k = 0; k < f.len; k++)
        for (int r = k; r < f.len; r++) {
            if (k < f.from(r)) continue;
            const size_t at = size_t(r * f.len + k);
            const double dS = f.P[at] * (f.dP[at] - f.delta[size_t(r)]);
            for (int i = 0; i < c.D; i++) {
                const size_t o = size_t(k * c.D + i);
                const double q = f.row(r, f.h)[i], dout = f.dout(r)[i];
                to->k[o] += scale * dS * q, to->v[o] += f.P[at] * dout;
                to->err_k[o] += scale * fabs(q) * (f.err_dS[at] + fabs(dS) * (of_chain + 4 * u));
                to->err_v[o] += f.P[at] * fabs(dout) * (f.err_P[at] + last + of_chain);
            }
        }
}

// The reference above, without its tolerances, is the CPU's.
static void check_definition(const Data &d, int begin, int len, int g, const Gradient &want) {
    const Case &c = d.c;
    const size_t ld = size_t((c.H + 2 * c.G) * c.D), ld_out = size_t(c.H * c.D);
    const sd_causal causal = {c.H, c.G, c.D, double(d.a.scale), c.window};
    const std::vector<double> qkv(d.qkv.begin() + long(size_t(begin) * ld),
                                  d.qkv.begin() + long(size_t(begin + len) * ld)),
        dout(d.dout.begin() + long(size_t(begin) * ld_out),
             d.dout.begin() + long(size_t(begin + len) * ld_out));
    std::vector<double> out(dout.size()), lse(size_t(len * c.H)), dqkv(qkv.size()),
        scratch(sd_causal_scratch(len, c.D));
    sd_causal_forward(out.data(), lse.data(), qkv.data(), len, 0, c.H, &causal, scratch.data());
    sd_causal_backward(dqkv.data(), dout.data(), out.data(), lse.data(), qkv.data(), len, g,
                       &causal, scratch.data());
    for (int r = 0; r < len; r++)
        for (int i = 0; i < c.D; i++) {
            const size_t at = size_t(r) * ld + size_t((c.H + g) * c.D + i), o = size_t(r * c.D + i);
            check(fabs(dqkv[at] - want.k[o]) < 1e-10 &&
                      fabs(dqkv[at + size_t(c.G * c.D)] - want.v[o]) < 1e-10,
                  "the reference is not the CPU's: row %d value %d", r, i);
        }
}

static void check_group(const Data &d, const Result &is, int begin, int len, int g) {
    const Case &c = d.c;
    Gradient keys;
    for (auto *x : {&keys.k, &keys.v, &keys.err_k, &keys.err_v}) x->assign(size_t(len * c.D), 0);
    for (int h = g * (c.H / c.G); h < (g + 1) * (c.H / c.G); h++) {
        Head f = {d, begin, len, h, g, {}, {}, {}, {}, {}, {}};
        std::vector<double> out, tolerance, lse_tolerance;
        reference_forward(&f, &out, &tolerance, &lse_tolerance);
        for (int r = 0; r < len; r++) {
            const size_t line = size_t((begin + r) * c.H + h);
            check_value(is.lse[line], f.lse[size_t(r)], lse_tolerance[size_t(r)], c, "lse", r, h);
            for (int i = 0; i < c.D; i++)
                check_value(is.out[line * size_t(c.D) + size_t(i)], out[size_t(r * c.D + i)],
                            tolerance[size_t(r * c.D + i)], c, "out", r, i);
        }
        reference_slopes(&f, out);
        check_queries(f, is);
        add_keys(&keys, f);
    }
    check_definition(d, begin, len, g, keys);
    for (int r = 0; r < len; r++)
        for (int i = 0; i < c.D; i++) {
            const size_t at = size_t(((begin + r) * (c.H + 2 * c.G) + c.H + g) * c.D + i),
                         o = size_t(r * c.D + i);
            check_value(is.dqkv[at], keys.k[o], keys.err_k[o] + 1e-30, c, "dk", r, i);
            check_value(is.dqkv[at + size_t(c.G * c.D)], keys.v[o], keys.err_v[o] + 1e-30, c, "dv",
                        r, i);
        }
}

static void run_case(const Case &c) {
    const Data d = data_of(c);
    const Result is = run(d);
    for (size_t s = 0; s < c.segments.size(); s++)
        for (int g = 0; g < c.G; g++) check_group(d, is, d.begin[s], c.segments[s], g);
}

TEST("flash attention and its gradients are the CPU's for every instance's head size") {
    for (sd_cuda_real type : types)
        for (int D : {8, 64, 96, 128, 256})
            if (!under_tsan() || D == 8 || D > 96)
                run_case({2, 1, D, 0, type, {3, under_tsan() ? 20 : D > 128 ? 37 : 70}});
}
TEST("segments of every length around a tile's are packed side by side, and none sees another") {
    if (under_tsan()) return run_case({1, 1, 16, 0, SD_CUDA_F32, {1, 65}});
    run_case({1, 1, 16, 0, SD_CUDA_F32, {1, 63, 64, 65, 16, 17}});
    run_case({2, 2, 16, 0, SD_CUDA_BF16, {130, 1, 15}});
}
TEST("a kv head's gradients are sums over its query heads") {
    if (under_tsan()) return run_case({3, 1, 16, 0, SD_CUDA_F32, {40}});
    run_case({6, 2, 16, 0, SD_CUDA_F32, {40, 20}});
    run_case({7, 1, 32, 0, SD_CUDA_BF16, {33}});
}
TEST("rows of a window see no more than it, across tiles and inside of one") {
    if (under_tsan()) return run_case({1, 1, 16, 20, SD_CUDA_BF16, {80}});
    for (sd_cuda_real type : types)
        for (int window : {1, 20, 64, 100, INT_MAX}) run_case({2, 1, 16, window, type, {150, 5}});
}

TEST("a segment has the same bits alone, at another place and beside others") {
    not_under_tsan();
    for (sd_cuda_real type : types)
        for (int window : {0, 30}) {
            const Data all = data_of({2, 1, 32, window, type, {66, 9, 70}});
            const Result of_all = run(all);
            for (size_t s = 0; s < 3; s++) {
                const int len = all.c.segments[s];
                Data one = data_of({2, 1, 32, window, type, {len}});
                const size_t ld = all.qkv.size() / size_t(all.N),
                             ld_out = all.dout.size() / size_t(all.N), at = size_t(all.begin[s]),
                             n = size_t(len);
                std::vector<float> qkv(all.qkv.begin() + long((at - 1) * ld),
                                       all.qkv.begin() + long((at + n) * ld)),
                    dout(all.dout.begin() + long((at - 1) * ld_out),
                         all.dout.begin() + long((at + n) * ld_out));
                one.a.qkv = real_copy(&qkv, type), one.device_dout = emu::device_copy(dout);
                const Result r = run(one);
                check(memcmp(&r.out[ld_out], &of_all.out[at * ld_out], n * ld_out * 4) == 0 &&
                          memcmp(&r.lse[2], &of_all.lse[at * 2], n * 2 * 4) == 0,
                      "segment %zu: out differs", s);
                check(memcmp(&r.dqkv[ld], &of_all.dqkv[at * ld], n * ld * 4) == 0,
                      "segment %zu: the gradient differs", s);
            }
        }
}

TEST("flash attention refuses what it cannot do") {
    Data d = data_of({2, 1, 8, 0, SD_CUDA_F32, {4}});
    float *x = emu::device_array<float>(256);
    check(sd_cuda_flash_backward(x, d.device_dout, nullptr, x, &d.a, nullptr) == SD_CUDA_EINVAL,
          "no scratch");
    for (int D : {0, 12, 264}) {
        d.a.D = D;
        check(sd_cuda_flash_forward(&d.a, nullptr) == SD_CUDA_EINVAL, "D %d", D);
    }
    d.a.D = 8, d.a.H = 3, d.a.G = 2;
    check(sd_cuda_flash_forward(&d.a, nullptr) == SD_CUDA_EINVAL, "heads");
}
