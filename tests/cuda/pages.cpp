#include "tests/cuda/pages.h"

Pages pages_open(int sequences, int positions, int G, int D, sd_cuda_real type, bool codes) {
    Pages p = {G, D, sequences, (positions + SD_CUDA_PAGE - 1) / SD_CUDA_PAGE, type, {}, {}};
    const size_t rows = size_t(G * SD_CUDA_PAGE),
                 half = rows * size_t(D) * (codes ? 1 : sd_cuda_real_bytes(type));
    p.kv.k = 16, p.kv.v = p.kv.k + half + 32; // neither side by side nor at the begin
    p.kv.page_bytes = p.kv.v + half + 48;
    if (codes) {
        p.kv.codes = true;
        p.kv.k_scale = p.kv.page_bytes, p.kv.v_scale = p.kv.k_scale + 4 * rows + 16;
        p.kv.page_bytes = p.kv.v_scale + 4 * rows + 16;
    }
    const int pages = sequences * p.of_a_sequence;
    p.kv.layer = emu::device_alloc(size_t(pages) * p.kv.page_bytes);
    for (int i = 0; i < pages; i++) p.table.push_back(i);
    for (int i = pages - 1; i > 0; i--)
        std::swap(p.table[size_t(i)], p.table[size_t((uniform() + 1) / 2 * float(i))]);
    return p;
}

static char *page_of(const Pages &p, int sequence, int position) {
    const int32_t page = p.table[size_t(sequence * p.of_a_sequence + position / SD_CUDA_PAGE)];
    return static_cast<char *>(p.kv.layer) + size_t(page) * p.kv.page_bytes;
}
static size_t row_of(int position, int g) {
    return size_t(g) * SD_CUDA_PAGE + size_t(position % SD_CUDA_PAGE);
}
static void *head_of(const Pages &p, bool value, int sequence, int position, int g) {
    const size_t bytes = p.kv.codes ? 1 : sd_cuda_real_bytes(p.type);
    return page_of(p, sequence, position) + (value ? p.kv.v : p.kv.k) +
           row_of(position, g) * size_t(p.D) * bytes;
}
const int8_t *pages_codes(const Pages &p, bool value, int sequence, int position, int g) {
    return static_cast<const int8_t *>(head_of(p, value, sequence, position, g));
}
float *pages_scale(const Pages &p, bool value, int sequence, int position, int g) {
    void *scales = page_of(p, sequence, position) + (value ? p.kv.v_scale : p.kv.k_scale);
    return static_cast<float *>(scales) + row_of(position, g);
}
float pages_get(const Pages &p, bool value, int sequence, int position, int g, int d) {
    const void *head = head_of(p, value, sequence, position, g);
    if (p.kv.codes)
        return *pages_scale(p, value, sequence, position, g) *
               float(static_cast<const int8_t *>(head)[d]);
    return p.type == SD_CUDA_BF16 ? bf16_float(static_cast<const uint16_t *>(head)[d])
                                  : static_cast<const float *>(head)[d];
}
void pages_put(const Pages &p, bool value, int sequence, int position, int g,
               const std::vector<float> &x) {
    void *head = head_of(p, value, sequence, position, g);
    std::vector<int> codes;
    if (p.kv.codes) *pages_scale(p, value, sequence, position, g) = codes_of(&codes, x);
    for (size_t d = 0; d < x.size(); d++)
        if (p.kv.codes)
            static_cast<int8_t *>(head)[d] = int8_t(codes[d]);
        else if (p.type == SD_CUDA_BF16)
            static_cast<uint16_t *>(head)[d] = bf16_bits(x[d]);
        else
            static_cast<float *>(head)[d] = x[d];
}

float codes_of(std::vector<int> *codes, const std::vector<float> &x) {
    float most = 0;
    bool finite = true;
    for (float v : x) most = fmaxf(most, fabsf(v)), finite = finite && isfinite(v);
    const bool some = finite && most > 1e-30f;
    for (float v : x) codes->push_back(some ? int(rintf(v * (127 / most))) : 0);
    return !finite ? NAN : some ? most / 127 : 0;
}

int32_t *pages_table(const Pages &p, const std::vector<int> &sequence_of_row) {
    std::vector<int32_t> all;
    for (int s : sequence_of_row)
        all.insert(all.end(), p.table.begin() + s * p.of_a_sequence,
                   p.table.begin() + (s + 1) * p.of_a_sequence);
    return emu::device_copy(all);
}

void *real_copy(std::vector<float> *x, sd_cuda_real type) {
    if (type == SD_CUDA_F32) return emu::device_copy(*x);
    std::vector<uint16_t> bits;
    for (float &v : *x) {
        bits.push_back(bf16_bits(v));
        v = bf16_float(bits.back());
    }
    return emu::device_copy(bits);
}
