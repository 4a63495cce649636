// The rotary embedding under every scaling of its frequencies, with QK-norm, and the write into pages.
#include "kernels/cuda/cuda.h"
#include "tests/cuda/pages.h"

#include <stdlib.h>

static const sd_cuda_real types[] = {SD_CUDA_F32, SD_CUDA_BF16};

// Frequencies of every rule that models have (model/rope.c makes the real ones; here they need only differ): plain,
// all divided (linear), a piecewise rule (llama3, YaRN), and factors of their own (LongRoPE) with a scale of both.
static void make_tables(std::vector<float> *cosines, std::vector<float> *sines, int positions,
                        int rot, int scaling) {
    for (int p = 0; p < positions; p++)
        for (int i = 0; i < rot / 2; i++) {
            double f = pow(10000, -2.0 * i / rot), scale = 1;
            if (scaling == 1) f /= 4;
            if (scaling == 2) f /= i < rot / 8 ? 1 : i < rot / 4 ? 1 + 7.0 * i / rot : 8;
            if (scaling == 3) f /= 1 + 0.37 * i, scale = 1.19;
            cosines->push_back(float(scale * cos(p * f)));
            sines->push_back(float(scale * sin(p * f)));
        }
}

struct Case {
    int N, H, G, D, rot, scaling;
    bool interleaved, norm;
    sd_cuda_real type;
};

// A head in double: value i behind norm and turn, and the sizes that were summed.
static void reference(std::vector<double> *y, std::vector<double> *size, const float *x,
                      const float *norm, double eps, const Case &c, const float *cosine,
                      const float *sine) {
    std::vector<double> z(x, x + c.D);
    if (norm) {
        double sum = 0;
        for (double v : z) sum += v * v;
        for (int i = 0; i < c.D; i++) z[size_t(i)] *= norm[i] / sqrt(sum / c.D + eps);
    }
    *y = z, *size = z;
    for (double &v : *size) v = fabs(v);
    for (int i = 0; i < c.rot / 2; i++) {
        const size_t a = size_t(c.interleaved ? 2 * i : i),
                     b = size_t(c.interleaved ? 2 * i + 1 : i + c.rot / 2);
        (*y)[a] = z[a] * cosine[i] - z[b] * sine[i], (*y)[b] = z[a] * sine[i] + z[b] * cosine[i];
        (*size)[a] = fabs(z[a] * cosine[i]) + fabs(z[b] * sine[i]);
        (*size)[b] = fabs(z[a] * sine[i]) + fabs(z[b] * cosine[i]);
    }
}

static void run_case(const Case &c) {
    const int positions = 150, heads = c.H + 2 * c.G;
    Pages p = pages_open(2, positions, c.G, c.D, c.type);
    std::vector<float> cosines, sines;
    make_tables(&cosines, &sines, positions, c.rot, c.scaling);
    const auto qkv = random_floats(size_t(c.N * heads * c.D)), q_norm = random_floats(size_t(c.D)),
               k_norm = random_floats(size_t(c.D));
    std::vector<int32_t> pos;
    std::vector<int> sequence;
    for (int n = 0; n < c.N; n++)
        pos.push_back(n == 0 ? 63 : n == 1 ? 64 : 149 - n), sequence.push_back(n % 2);
    const size_t q_size = size_t(c.N * c.H * c.D);
    sd_cuda_rope a = {};
    a.qkv = emu::device_copy(qkv);
    a.N = c.N, a.H = c.H, a.G = c.G, a.D = c.D;
    a.q_norm = c.norm ? emu::device_copy(q_norm) : nullptr,
    a.k_norm = c.norm ? emu::device_copy(k_norm) : nullptr;
    a.eps = 1e-6f;
    a.cos = emu::device_copy(cosines), a.sin = emu::device_copy(sines), a.rot = c.rot,
    a.interleaved = c.interleaved;
    a.pos = emu::device_copy(pos), a.table = pages_table(p, sequence), a.table_ld = p.of_a_sequence;
    a.kv = p.kv;
    a.q = emu::device_alloc(q_size * sd_cuda_real_bytes(c.type)), a.type = c.type;
    check(sd_cuda_rope_store(&a, nullptr) == 0, "refused");
    emu::synchronise();
    const auto q = read_real(a.q, q_size, c.type == SD_CUDA_BF16);
    // The norm: D / 32 fused sums, a tree of 5, six more roundings (half of the sum's count), two for the turn.
    const double u = 0x1p-24, last = c.type == SD_CUDA_BF16 ? 0x1p-8 : 0;
    const double error = (c.norm ? (c.D / 32 + 6) / 2.0 + 6 : 0) * u + 3 * u + last;
    for (int n = 0; n < c.N; n++)
        for (int h = 0; h < heads; h++) {
            const float *x = &qkv[size_t((n * heads + h) * c.D)];
            const size_t at = size_t(pos[size_t(n)] * c.rot / 2);
            const bool is_value = h >= c.H + c.G;
            std::vector<double> want(x, x + c.D), size(x, x + c.D);
            const float *norm = !c.norm ? nullptr : h < c.H ? q_norm.data() : k_norm.data();
            if (!is_value)
                reference(&want, &size, x, norm, double(a.eps), c, cosines.data() + at,
                          sines.data() + at);
            for (int i = 0; i < c.D; i++) {
                const double is =
                    h < c.H
                        ? double(q[size_t((n * c.H + h) * c.D + i)])
                        : double(pages_get(p, is_value, n % 2, pos[size_t(n)], (h - c.H) % c.G, i));
                check(fabs(is - want[size_t(i)]) <= fabs(size[size_t(i)]) * error,
                      "row %d head %d value %d is %.9g, want %.9g", n, h, i, is, want[size_t(i)]);
            }
        }
}

TEST("heads turn by their position under every scaling, in both orders of pairs") {
    for (sd_cuda_real type : types)
        for (int scaling = 0; scaling < 4; scaling++)
            for (bool interleaved : {false, true})
                run_case({3, 2, 1, 64, 64, scaling, interleaved, false, type});
}
TEST("a part of a head turns, and the rest is as it was") {
    for (sd_cuda_real type : types) run_case({2, 3, 3, 96, 72, 3, false, false, type});
}
TEST("QK-norm comes before the turn, head by head") {
    for (sd_cuda_real type : types) run_case({2, 4, 2, 128, 128, 0, false, true, type});
    run_case({1, 2, 1, 16, 8, 1, true, true, SD_CUDA_F32});
}
// The fp32 instance stores what is quantised here. Channels' scales are powers of two, so nothing else is rounded.
static void run_codes(const Case &c, bool levelled) {
    const int positions = 150, heads = c.H + 2 * c.G;
    std::vector<float> cosines, sines, sizes;
    make_tables(&cosines, &sines, positions, c.rot, c.scaling);
    for (int i = 0; i < c.G * c.D; i++) sizes.push_back(ldexpf(1, i * 7 % 5));
    const auto qkv = random_floats(size_t(c.N * heads * c.D)), norm = random_floats(size_t(c.D));
    std::vector<int32_t> pos;
    std::vector<int> sequence;
    for (int n = 0; n < c.N; n++) pos.push_back(62 + n), sequence.push_back(n % 2);
    const size_t q_size = size_t(c.N * c.H * c.D);
    Pages p[2];
    std::vector<float> q[2];
    for (int codes = 0; codes < 2; codes++) {
        p[codes] = pages_open(2, positions, c.G, c.D, codes ? c.type : SD_CUDA_F32, codes);
        sd_cuda_rope a = {};
        a.qkv = emu::device_copy(qkv), a.N = c.N, a.H = c.H, a.G = c.G, a.D = c.D;
        a.q_norm = a.k_norm = c.norm ? emu::device_copy(norm) : nullptr, a.eps = 1e-6f;
        a.cos = emu::device_copy(cosines), a.sin = emu::device_copy(sines), a.rot = c.rot;
        a.pos = emu::device_copy(pos), a.table = pages_table(p[codes], sequence),
        a.table_ld = p[codes].of_a_sequence, a.kv = p[codes].kv;
        a.key_scale = codes && levelled ? emu::device_copy(sizes) : nullptr;
        a.type = p[codes].type, a.q = emu::device_alloc(q_size * sd_cuda_real_bytes(a.type));
        check(sd_cuda_rope_store(&a, nullptr) == 0, "refused");
        emu::synchronise();
        q[codes] = read_real(a.q, q_size, a.type == SD_CUDA_BF16);
    }
    for (size_t i = 0; i < q_size; i++) {
        const size_t g = i / size_t(c.D) % size_t(c.H) / size_t(c.H / c.G);
        const float size = levelled ? sizes[g * size_t(c.D) + i % size_t(c.D)] : 1,
                    want = q[0][i] * size;
        check(q[1][i] == (c.type == SD_CUDA_BF16 ? rounded_bf16(want) : want), "query %zu", i);
    }
    for (int n = 0; n < c.N; n++)
        for (int g = 0; g < c.G; g++)
            for (bool value : {false, true}) {
                std::vector<float> x;
                std::vector<int> want;
                for (int d = 0; d < c.D; d++)
                    x.push_back(pages_get(p[0], value, n % 2, pos[size_t(n)], g, d) /
                                (levelled && !value ? sizes[size_t(g * c.D + d)] : 1));
                const float scale = codes_of(&want, x);
                check(*pages_scale(p[1], value, n % 2, pos[size_t(n)], g) == scale,
                      "row %d head %d: the scale", n, g);
                const int8_t *is = pages_codes(p[1], value, n % 2, pos[size_t(n)], g);
                for (int d = 0; d < c.D; d++)
                    check(is[d] == want[size_t(d)], "row %d head %d: code %d is %d, want %d", n, g,
                          d, is[d], want[size_t(d)]);
            }
}

TEST("codes are the CPU's of the keys and values, whose channels may be levelled first") {
    for (sd_cuda_real type : types)
        for (bool levelled : {false, true}) {
            run_codes({3, 4, 2, 64, 64, 0, false, false, type}, levelled);
            run_codes({3, 2, 2, 96, 72, 3, false, true, type}, levelled);
        }
}
TEST("a write into pages touches its own position alone") {
    not_under_msan();
    Pages p = pages_open(1, 128, 2, 32, SD_CUDA_F32);
    const size_t bytes = size_t(p.of_a_sequence) * p.kv.page_bytes;
    const char *layer = static_cast<const char *>(p.kv.layer);
    std::vector<float> cosines, sines;
    make_tables(&cosines, &sines, 128, 32, 0);
    sd_cuda_rope a = {};
    a.qkv = emu::device_copy(random_floats(6 * 32));
    a.N = 1, a.H = 2, a.G = 2, a.D = 32, a.rot = 32;
    a.cos = emu::device_copy(cosines), a.sin = emu::device_copy(sines);
    a.pos = emu::device_copy(std::vector<int32_t>{70}), a.table = pages_table(p, {0}),
    a.table_ld = 2;
    a.kv = p.kv;
    a.q = emu::device_array<float>(64), a.type = SD_CUDA_F32;
    const std::vector<char> before(layer, layer + bytes);
    check(sd_cuda_rope_store(&a, nullptr) == 0, "refused");
    emu::synchronise();
    size_t changed = 0;
    for (size_t i = 0; i < bytes; i += 4) changed += memcmp(layer + i, &before[i], 4) != 0;
    check(changed == 2 * 2 * 32, "%zu values changed", changed);
    a.rot = 33;
    check(sd_cuda_rope_store(&a, nullptr) == SD_CUDA_EINVAL, "an odd number of values turns");
}
