// Attention over pages against double precision: every head size that has an instance, groups that fill the tensor
// core's side and that do not, windows, sinks, drafts; and a row's bits in every company.
#include "kernels/cuda/cuda.h"
#include "tests/cuda/pages.h"

#include <algorithm>
#include <stdlib.h>

struct Case {
    int H, G, D, window;
    bool sinks;
    sd_cuda_real type;
    std::vector<std::vector<int>> rows; // of each sequence, ascending positions
    bool codes = false;                 // pages hold them
};
struct Setup {
    Case c;
    Pages pages;
    std::vector<float> q, sinks;
    std::vector<int32_t> pos;
    std::vector<int> sequence;
    float scale;
    const void *dq;
    const float *dsinks;
    size_t row_bytes; // of q and y
};

static Setup setup(const Case &c) {
    Setup s = {};
    s.c = c;
    int longest = 0;
    for (size_t i = 0; i < c.rows.size(); i++)
        for (int p : c.rows[i])
            s.pos.push_back(p), s.sequence.push_back(int(i)), longest = std::max(longest, p + 1);
    s.pages = pages_open(int(c.rows.size()), longest, c.G, c.D, c.type, c.codes);
    for (size_t i = 0; i < c.rows.size(); i++) { // what no row sees stays NaN
        const int from = c.window > 0 ? std::max(0, c.rows[i].front() + 1 - c.window) : 0;
        for (int p = from; p <= c.rows[i].back(); p++)
            for (int g = 0; g < c.G; g++)
                for (bool value : {false, true})
                    pages_put(s.pages, value, int(i), p, g, random_floats(size_t(c.D)));
    }
    s.q = random_floats(s.pos.size() * size_t(c.H * c.D), 2);
    s.dq = real_copy(&s.q, c.type);
    s.sinks = random_floats(size_t(c.H));
    s.dsinks = c.sinks ? emu::device_copy(s.sinks) : nullptr;
    s.scale = 1 / sqrtf(float(c.D));
    s.row_bytes = size_t(c.H * c.D) * sd_cuda_real_bytes(c.type);
    return s;
}

// Rows [first, first + N) in tiles of `of_a_tile` at most.
static void *attend(const Setup &s, int first, int N, int of_a_tile) {
    const Case &c = s.c;
    std::vector<sd_cuda_row_tile> tiles;
    int longest = 0;
    for (int n = 0; n < N; n++) {
        longest = std::max(longest, s.pos[size_t(first + n)] + 1);
        const bool joins = n > 0 &&
                           s.sequence[size_t(first + n)] == s.sequence[size_t(first + n - 1)] &&
                           tiles.back().rows < of_a_tile;
        if (joins)
            tiles.back().rows++;
        else
            tiles.push_back({n, 1});
    }
    tiles.push_back(
        {0, 0}); // of no rows: nothing, though a position seems to stand ahead of the first
    std::vector<int32_t> pos(s.pos.begin() + first, s.pos.begin() + first + N);
    pos.insert(pos.begin(), 1 << 20);
    const std::vector<int> sequence(s.sequence.begin() + first, s.sequence.begin() + first + N);
    sd_cuda_attention a = {};
    a.y = emu::device_alloc(size_t(N) * s.row_bytes),
    a.q = static_cast<const char *>(s.dq) + size_t(first) * s.row_bytes;
    a.N = N, a.H = c.H, a.G = c.G, a.D = c.D, a.scale = s.scale, a.window = c.window,
    a.sinks = s.dsinks;
    a.pos = emu::device_copy(pos) + 1, a.table = pages_table(s.pages, sequence),
    a.table_ld = s.pages.of_a_sequence;
    a.kv = s.pages.kv;
    a.tile = emu::device_copy(tiles), a.tiles = int(tiles.size()), a.longest = longest;
    a.partial = emu::device_array<float>(sd_cuda_attention_floats(N, c.H, c.D, longest));
    a.type = c.type;
    void *stream = emu::stream_open(); // the default stream's queue would run in any order with it
    check(sd_cuda_attend(&a, static_cast<sd_cuda_stream *>(stream)) == 0, "refused");
    emu::stream_close(stream);
    return a.y;
}

// A row's head in double, and how much each value may be off. fp32: a score is a sum of D products (D / 16 steps of
// 17 roundings, 3 terms left out) in units of sum |q k|; e^score carries that over, twice (its own maximum too), with 4
// ulp of the exponential a merge (block, warp, split); weights and values: a chain of the keys that a warp has. Scales of codes are
// one more rounding of a score and of a weight, and codes have no other. bf16: weights are rounded to 2^-9 of themselves... at most 2^-8, and the result once.
static void check_head(const Setup &s, const float *y, int n, int h) {
    const Case &c = s.c;
    const int len = s.pos[size_t(n)] + 1, from = c.window > 0 ? std::max(0, len - c.window) : 0,
              g = h / (c.H / c.G);
    std::vector<double> score, out(size_t(c.D)), size(size_t(c.D));
    double top = c.sinks ? double(s.sinks[size_t(h)]) : -INFINITY, most = 0;
    for (int p = from; p < len; p++) {
        double dot = 0, sizes = 0;
        for (int d = 0; d < c.D; d++) {
            const double x = double(s.q[size_t((n * c.H + h) * c.D + d)]) *
                             pages_get(s.pages, false, s.sequence[size_t(n)], p, g, d);
            dot += x, sizes += fabs(x);
        }
        score.push_back(dot * s.scale), most = fmax(most, sizes * s.scale),
                                        top = fmax(top, score.back());
    }
    double total = c.sinks ? exp(s.sinks[size_t(h)] - top) : 0;
    for (size_t i = 0; i < score.size(); i++) {
        const double w = exp(score[i] - top);
        total += w;
        for (int d = 0; d < c.D; d++) {
            const double v = pages_get(s.pages, true, s.sequence[size_t(n)], from + int(i), g, d);
            out[size_t(d)] += w * v, size[size_t(d)] += w * fabs(v);
        }
    }
    const double u = 0x1p-24;
    const double of_score = most * (c.D / 16 * 17 + 3 + 3) * u,
                 of_exp = (4 + fabs(top) + 2 * most) * u;
    const double of_sum = (score.size() / 64.0 + 1) * 17 * u + 31 * u;
    const double last = c.type == SD_CUDA_BF16 ? 0x1p-8 : 0;
    for (int d = 0; d < c.D; d++) {
        const double want = out[size_t(d)] / total;
        const double tolerance =
            size[size_t(d)] / total * (2 * (of_score + of_exp + of_sum) + last) + fabs(want) * last;
        const double is = y[(n * c.H + h) * c.D + d];
        check(fabs(is - want) <= tolerance,
              "H %d G %d D %d window %d: row %d head %d value %d is %.9g, want %.9g +- %.2g", c.H,
              c.G, c.D, c.window, n, h, d, is, want, tolerance);
    }
}

static void run_case(const Case &c) {
    const Setup s = setup(c);
    const int N = int(s.pos.size());
    const void *y = attend(s, 0, N, sd_cuda_attention_rows(c.H, c.G));
    const auto values = read_real(y, size_t(N * c.H * c.D), c.type == SD_CUDA_BF16);
    for (int n = 0; n < N; n++)
        for (int h = 0; h < c.H; h++) check_head(s, values.data(), n, h);
}

TEST("attention equals the sum in double for every instance's head size") {
    for (sd_cuda_real type : {SD_CUDA_F32, SD_CUDA_BF16})
        for (int D : {8, 64, 96, 256}) run_case({2, 1, D, 0, false, type, {{0}, {76}}});
}
TEST("groups of heads fill the side of 16, leave some of it, or need it twice") {
    run_case({6,
              2,
              16,
              0,
              false,
              SD_CUDA_F32,
              {{30, 31, 32, 33, 34, 35, 36}}});                       // 3 heads: 5 rows a tile
    run_case({14, 2, 16, 0, false, SD_CUDA_BF16, {{99}, {3, 4, 5}}}); // 7
    run_case({20, 1, 16, 0, false, SD_CUDA_F32, {{65, 66}}});         // 20
}
TEST("splits of 512 positions are merged, and rows of one tile may see different ones") {
    run_case({2, 1, 16, 0, false, SD_CUDA_F32, {{510, 511, 512, 1030}}});
    run_case({4, 2, 32, 0, false, SD_CUDA_BF16, {{1100}, {511}}});
}
TEST("a window's rows see no more than it, and never look at what lies before") {
    for (sd_cuda_real type : {SD_CUDA_F32, SD_CUDA_BF16})
        run_case({4, 1, 32, 70, false, type, {{69, 70, 71, 200}, {600}}});
    run_case({2, 2, 16, 1, false, SD_CUDA_F32, {{5, 600}}});
}
TEST("a sink takes its weight and gives no value") {
    run_case({4, 2, 32, 0, true, SD_CUDA_F32, {{0, 1, 600}}});
    run_case({4, 2, 32, 20, true, SD_CUDA_BF16, {{100}}});
}

// ---- int8 codes

TEST("codes are keys and values under their scales, for every instance's head size") {
    for (sd_cuda_real type : {SD_CUDA_F32, SD_CUDA_BF16})
        for (int D : {8, 64, 96, 256}) run_case({2, 1, D, 0, false, type, {{0}, {76}}, true});
    run_case({6, 2, 24, 0, false, SD_CUDA_F32, {{30, 31, 32, 33, 34, 35, 36}}, true});
    run_case({4, 2, 32, 0, true, SD_CUDA_BF16, {{1100}, {511}}, true});
    run_case({4, 1, 32, 70, false, SD_CUDA_F32, {{69, 70, 71, 200}, {600}}, true});
}
TEST("a row is not what a key that it does not see has for a scale") {
    for (float bad : {NAN, 0.0f, INFINITY}) {
        const Case c = {2, 1, 16, 0, false, SD_CUDA_F32, {{30, 40}}, true};
        const Setup s = setup(c);
        for (bool value : {false, true})
            for (int p : {31, 40}) *pages_scale(s.pages, value, 0, p, 0) = bad;
        const void *y = attend(s, 0, 2, 2);
        const auto values = read_real(y, size_t(2 * c.H * c.D), false);
        for (int h = 0; h < c.H; h++) check_head(s, values.data(), 0, h);
        check(bad == 0 || !isfinite(values[size_t(c.H * c.D)]),
              "a scale that is no number is lost");
    }
}

TEST("a row has the same bits by itself, in a draft of any length, in any tile, beside other "
     "sequences") {
    not_under_tsan();
    for (sd_cuda_real type : {SD_CUDA_F32, SD_CUDA_BF16})
        for (int window : {0, 40, -1}) { // -1: all positions, and codes
            const Setup s = setup({8,
                                   2,
                                   32,
                                   std::max(window, 0),
                                   true,
                                   type,
                                   {{508, 509, 510, 511, 512, 513}, {17, 18}},
                                   window < 0});
            const int N = int(s.pos.size());
            const char *all = static_cast<const char *>(attend(s, 0, N, 4));
            for (int first = 0; first < N; first++)
                for (int n : {1, 3}) {
                    if (first + n > N) continue;
                    const void *some = attend(s, first, n, 1 + first % 4);
                    check(memcmp(some, all + size_t(first) * s.row_bytes,
                                 size_t(n) * s.row_bytes) == 0,
                          "rows %d to %d differ", first, first + n - 1);
                }
        }
}
