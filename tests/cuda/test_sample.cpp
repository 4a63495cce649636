// Tokens picked on the device are those of sd_sample, which the engine's exactness rests on.
#include "kernels/cuda/cuda.h"
#include "tests/cuda/check.h"

extern "C" {
#include "kernels/sample/sampler.h"
}

static sd_cuda_pick pick_of(const sd_sampling &p, int64_t position) {
    sd_cuda_pick d = {};
    d.temperature = p.temperature, d.top_k = p.top_k, d.top_p = p.top_p;
    d.has_min_p = p.min_p > 0;
    d.log_min_p = p.min_p < 1 ? double(p.temperature) * log(double(p.min_p)) : 0;
    d.seed = p.seed, d.choice = p.choice, d.position = uint32_t(position);
    return d;
}

// One row for each of `all`, the same logits.
static void compare(const std::vector<float> &logits, const std::vector<sd_sampling> &all,
                    const sd_shaping *shaping, const char *what) {
    const int V = int(logits.size()), N = int(all.size());
    sd_sampler *s = sd_sampler_open(V);
    std::vector<float> rows;
    std::vector<sd_cuda_pick> picks;
    for (int n = 0; n < N; n++) {
        rows.insert(rows.end(), logits.begin(), logits.end());
        picks.push_back(pick_of(all[size_t(n)], 100 + n));
        const size_t words = size_t(V + 31) / 32;
        if (shaping && shaping->allowed)
            picks.back().allowed =
                emu::device_copy(std::vector<uint32_t>(shaping->allowed, shaping->allowed + words));
        if (shaping && shaping->also_allowed)
            picks.back().also_allowed = emu::device_copy(
                std::vector<uint32_t>(shaping->also_allowed, shaping->also_allowed + words));
    }
    int32_t *token = emu::device_array<int32_t>(size_t(N));
    check(sd_cuda_sample(token, emu::device_copy(rows), emu::device_copy(picks), N, V, nullptr) ==
              0,
          "refused");
    emu::synchronise();
    for (int n = 0; n < N; n++) {
        const int32_t want = sd_sample(s, logits.data(), shaping, &all[size_t(n)], 100 + n);
        check(token[n] == want, "%s, row %d (T %g, k %d, p %g, min-p %g): %d, want %d", what, n,
              double(all[size_t(n)].temperature), all[size_t(n)].top_k,
              double(all[size_t(n)].top_p), double(all[size_t(n)].min_p), token[n], want);
    }
    sd_sampler_close(s);
}

static std::vector<sd_sampling> settings(uint64_t seed) {
    std::vector<sd_sampling> all;
    for (float T : {0.0f, 0.7f, 1.5f}) {
        all.push_back({T, 0, 1, 0, seed, 0});
        all.push_back({T, 7, 1, 0, seed + 1, 1});
        all.push_back({T, 0, 0.8f, 0, seed + 2, 2});
        all.push_back({T, 0, 1, 0.05f, seed + 3, 3});
        all.push_back({T, 40, 0.9f, 0.02f, seed + 4, 0});
        all.push_back({T, 1, 1, 0, seed + 5, 0});
        all.push_back({T, 0, 0, 0, seed + 6, 0});
    }
    return all;
}

TEST("tokens are those of the host's sampler under every truncation") {
    for (uint64_t i = 0; i < 3; i++)
        compare(random_floats(i == 0 ? 1003 : 257, 6), settings(1000 * i), nullptr, "random");
}
TEST("ties go by the lowest id, within top-k and top-p too") {
    not_under_tsan();
    std::vector<float> x(300, 1.0f);
    for (size_t i = 0; i < x.size(); i += 3) x[i] = i % 2 ? 0.0f : -0.0f;
    compare(x, settings(77), nullptr, "ties");
}
TEST("tokens that are not allowed are not picked, and where none is there is none") {
    const auto x = random_floats(300, 4);
    std::vector<uint32_t> odd(10, 0xaaaaaaaau), low(10), none(10);
    low[0] = low[1] = 0xffffffffu;
    sd_shaping s = {};
    s.allowed = odd.data();
    compare(x, settings(5), &s, "odd");
    s.also_allowed = low.data();
    compare(x, settings(6), &s, "odd and low");
    s.also_allowed = none.data();
    compare(x, settings(7), &s, "none");
}
TEST("logits that are no law give no token, and minus infinity is never picked") {
    auto x = random_floats(100, 4);
    x[3] = -INFINITY, x[50] = -INFINITY;
    compare(x, settings(9), nullptr, "minus infinity");
    x[70] = NAN;
    compare(x, settings(9), nullptr, "NaN");
    x[70] = INFINITY;
    compare(x, settings(9), nullptr, "infinity");
    compare(std::vector<float>(40, -INFINITY), settings(9), nullptr, "nothing");
}
TEST("the longest prefix of picked drafts is accepted") {
    const std::vector<int32_t> token = {9, 1, 2, 3, /**/ 9, 4, /**/ 9, /**/ 9, 5, 6},
                               picked = {1, 2, 7, 0, /**/ 8, 4, /**/ 5, /**/ 5, 6, 1};
    const std::vector<sd_cuda_row_tile> rows = {{0, 4}, {4, 2}, {6, 1}, {7, 3}};
    int32_t *accepted = emu::device_array<int32_t>(4);
    check(sd_cuda_accept(accepted, emu::device_copy(picked), emu::device_copy(token),
                         emu::device_copy(rows), 4, nullptr) == 0,
          "refused");
    emu::synchronise();
    const int want[4] = {2, 0, 0, 2};
    for (int i = 0; i < 4; i++)
        check(accepted[i] == want[i], "sequence %d: %d, want %d", i, accepted[i], want[i]);
}
