// The loss head over chunks of classes against the CPU's in double precision: loss, and the hidden states' gradient.
#include "tests/cuda/train/real.h"

#include <algorithm>

struct Case {
    int N, C, V;
    std::vector<int> chunks; // classes of each, V in all
    bool weighted;
    sd_cuda_real type;
};
struct Data {
    Case c;
    std::vector<float> h, W, weight;
    std::vector<int32_t> label;
    sd_cuda_head a;
    const char *device_W;
};
static Data data_of(const Case &c) {
    Data d = {};
    d.c = c;
    d.h = random_floats(size_t(c.N * c.C), 2), d.W = random_floats(size_t(c.V * c.C), 0.7f);
    d.weight = random_floats(size_t(c.N), 2);
    for (int n = 0; n < c.N; n++)
        d.label.push_back(n == 0   ? 0
                          : n == 1 ? c.V - 1
                          : n == 2 ? std::min(c.V - 1, c.chunks[0])
                                   : (n * 977) % c.V);
    d.a.N = c.N, d.a.C = c.C, d.a.V = c.V, d.a.type = c.type;
    d.a.h = real_copy(&d.h, c.type), d.device_W = static_cast<char *>(real_copy(&d.W, c.type));
    d.a.label = emu::device_copy(d.label);
    d.a.weight = c.weighted ? emu::device_copy(d.weight) : nullptr;
    const size_t n = size_t(c.N);
    d.a.max = emu::device_array<float>(n), d.a.sum = emu::device_array<float>(n);
    d.a.target = emu::device_array<float>(n), d.a.loss = emu::device_array<float>(n);
    d.a.total = emu::device_array<double>(1);
    const int most = *std::max_element(c.chunks.begin(), c.chunks.end());
    d.a.partial = emu::device_array<float>(sd_cuda_head_floats(c.N, most));
    return d;
}

static float *run(const Data &d) {
    const Case &c = d.c;
    const int most = *std::max_element(c.chunks.begin(), c.chunks.end());
    const size_t bytes = sd_cuda_real_bytes(c.type);
    float *dh = emu::device_array<float>(size_t(c.N * c.C));
    void *p = emu::device_alloc(size_t(c.N * ((most + 7) / 8 * 8)) * bytes),
         *stream = emu::stream_open();
    auto *s = static_cast<sd_cuda_stream *>(stream);
    for (int pass = 0; pass < 2; pass++) {
        int v0 = 0;
        for (int n_v : c.chunks) {
            const void *W = d.device_W + size_t(v0 * c.C) * bytes;
            check((pass ? sd_cuda_head_gradient(dh, p, &d.a, W, v0, n_v, s)
                        : sd_cuda_head_chunk(&d.a, W, v0, n_v, s)) == 0,
                  "refused at class %d", v0);
            v0 += n_v;
        }
        if (pass == 0) check(sd_cuda_head_loss(&d.a, s) == 0, "no loss");
    }
    emu::stream_close(stream);
    return dh;
}

// A row's losses and probabilities in double.
//
// A logit is C / 16 steps of 17 roundings and what is left out of three terms, in units of sum |h w|. A sum over classes: chains of 16
// values a tile, tiles, splits, chunks. A slope is rounded once more as a product takes it; the product is a chain of all classes.
struct Row {
    std::vector<double> logit, slope, err; // err: of the slope
    double loss, tolerance;
};
static Row reference(const Data &d, int n) {
    const Case &c = d.c;
    Row r = {};
    double most = 0, top = -INFINITY, sum = 0;
    for (int j = 0; j < c.V; j++) {
        double dot = 0, size = 0;
        for (int i = 0; i < c.C; i++) {
            const double x = double(d.h[size_t(n * c.C + i)]) * d.W[size_t(j * c.C + i)];
            dot += x, size += fabs(x);
        }
        r.logit.push_back(dot), top = fmax(top, dot), most = fmax(most, size);
    }
    for (double x : r.logit) sum += exp(x - top);
    r.loss = top + log(sum) - r.logit[size_t(d.label[size_t(n)])];
    const double of_logit = most * (c.C / 16 * 17 + 22) * u, range = 2 * most * 2 * u + 6 * u,
                 of_sum = (c.V / 64.0 * 18 + 40) * u + 2 * of_logit + range;
    r.tolerance = 2 * of_logit + of_sum + 8 * u * (1 + fabs(top) + fabs(r.loss));
    const double weight = c.weighted ? double(d.weight[size_t(n)]) : 1,
                 last = c.type == SD_CUDA_BF16 ? v : u;
    for (int j = 0; j < c.V; j++) {
        const double p = exp(r.logit[size_t(j)] - top) / sum,
                     slope = p - (j == d.label[size_t(n)] ? 1 : 0);
        r.slope.push_back(weight * slope);
        r.err.push_back(fabs(weight) * (p * (2 * of_logit + range + of_sum + 4 * u) +
                                        fabs(slope) * (last + 2 * u)));
    }
    return r;
}

// Without its tolerances the reference is the CPU's.
static void check_definition(const Data &d, const std::vector<double> &dh, double total) {
    const Case &c = d.c;
    const size_t n = size_t(c.N), nc = size_t(c.N * c.C);
    const auto W = in_double(d.W), h = in_double(d.h);
    std::vector<double> most(n), sum(n), target(n), acc(nc), got(nc), logits(n * size_t(c.V));
    for (int i = 0; i < c.N; i++)
        std::copy_n(W.begin() + d.label[size_t(i)] * c.C, c.C, got.begin() + i * c.C);
    const sd_head_rows rows = {most.data(), sum.data(), target.data(), acc.data(), got.data()};
    const sd_frozen frozen = {W.data(), nullptr, nullptr, nullptr, nullptr};
    sd_head_begin(&rows, c.N, c.C);
    sd_head_chunk(&rows, h.data(), d.label.data(), c.N, c.C, &frozen, 0, c.V, logits.data());
    const double loss = sd_head_finish(&rows, c.N, c.C);
    check(fabs(loss - total) < 1e-8, "the reference's loss is not the CPU's");
    for (size_t i = 0; i < nc; i++) {
        const double weight = c.weighted ? double(d.weight[i / size_t(c.C)]) : 1;
        check(fabs(weight * got[i] - dh[i]) < 1e-9, "the reference's gradient is not the CPU's");
    }
}

static void run_case(const Case &c) {
    const Data d = data_of(c);
    const float *dh = run(d);
    std::vector<double> all_dh(size_t(c.N * c.C)), tolerance(size_t(c.N * c.C)), loss,
        loss_tolerance;
    double total = 0, total_tolerance = 0;
    for (int n = 0; n < c.N; n++) {
        const Row r = reference(d, n);
        loss.push_back(r.loss), loss_tolerance.push_back(r.tolerance);
        total += r.loss, total_tolerance += r.tolerance;
        const double chain = (c.V / 16.0 + 2) * 18 * u + double(c.chunks.size()) * u;
        for (int j = 0; j < c.V; j++)
            for (int i = 0; i < c.C; i++) {
                const double w = d.W[size_t(j * c.C + i)];
                all_dh[size_t(n * c.C + i)] += r.slope[size_t(j)] * w;
                tolerance[size_t(n * c.C + i)] +=
                    fabs(w) * (r.err[size_t(j)] + fabs(r.slope[size_t(j)]) * chain);
            }
    }
    check_definition(d, all_dh, total);
    check_close(read_real(d.a.loss, size_t(c.N), false), loss, loss_tolerance, "loss");
    check(fabs(*d.a.total - total) <= total_tolerance, "total %.12g, want %.12g +- %.2g",
          *d.a.total, total, total_tolerance);
    check_close(read_real(dh, all_dh.size(), false), all_dh, tolerance,
                "the hidden states' gradient");
}

TEST("the loss and its gradient are the CPU's for one chunk of few classes") {
    for (sd_cuda_real type : types) {
        run_case({3, 8, 5, {5}, false, type});
        run_case({65, 72, 100, {100}, true, type});
    }
}
TEST("classes in several splits and chunks, the last ones no whole tile") {
    run_case({5, 24, 2500, {1024, 1024, 452}, true, SD_CUDA_BF16});
    if (under_tsan()) return;
    run_case({5, 24, 2500, {2048, 452}, false, SD_CUDA_F32});
    run_case({2, 136, 130, {130}, false, SD_CUDA_F32}); // more columns than a block of dh has
}
TEST("a row's loss and gradient have the same bits alone") {
    const Data all = data_of({70, 40, 300, {300}, false, SD_CUDA_F32});
    const float *dh = run(all);
    for (int n : {1, 66}) {
        Data one = data_of({1, 40, 300, {300}, false, SD_CUDA_F32});
        std::vector<float> h(all.h.begin() + n * 40, all.h.begin() + (n + 1) * 40);
        one.a.h = emu::device_copy(h), one.device_W = all.device_W;
        one.a.label = emu::device_copy(std::vector<int32_t>{all.label[size_t(n)]});
        const float *mine = run(one);
        check(memcmp(mine, dh + n * 40, 160) == 0 && one.a.loss[0] == all.a.loss[n],
              "row %d differs", n);
    }
}
TEST("the loss has the same bits in any chunks") {
    not_under_tsan();
    const Data some = data_of({3, 16, 2500, {1024, 1024, 452}, false, SD_CUDA_F32});
    Data one = some;
    one.c.chunks = {2500};
    one.a.partial = emu::device_array<float>(sd_cuda_head_floats(3, 2500));
    one.a.loss = emu::device_array<float>(3), one.a.total = emu::device_array<double>(1);
    run(some);
    run(one);
    check(memcmp(one.a.loss, some.a.loss, 12) == 0 && *one.a.total == *some.a.total,
          "the loss differs");
}
TEST("the loss head refuses what it cannot do") {
    Data d = data_of({2, 8, 20, {20}, false, SD_CUDA_F32});
    check(sd_cuda_head_chunk(&d.a, d.device_W, 8, 12, nullptr) == SD_CUDA_EINVAL, "v0");
    check(sd_cuda_head_chunk(&d.a, d.device_W, 0, 21, nullptr) == SD_CUDA_EINVAL, "n_v");
    d.a.C = 9;
    check(sd_cuda_head_chunk(&d.a, d.device_W, 0, 20, nullptr) == SD_CUDA_EINVAL, "C");
}
