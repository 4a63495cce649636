#include "tests/cuda/pages.h"

Pages pages_open(int sequences, int positions, int G, int D, sd_cuda_real type) {
    Pages p = {G, D,       sequences, (positions + SD_CUDA_PAGE - 1) / SD_CUDA_PAGE, type, 0, 0,
               0, nullptr, {}};
    const size_t half = size_t(G * SD_CUDA_PAGE * D) * sd_cuda_real_bytes(type);
    p.k = 16, p.v = p.k + half + 32,
    p.page_bytes = p.v + half + 48; // neither side by side nor at the begin
    const int pages = sequences * p.of_a_sequence;
    p.layer = static_cast<char *>(emu::device_alloc(size_t(pages) * p.page_bytes));
    for (int i = 0; i < pages; i++) p.table.push_back(i);
    for (int i = pages - 1; i > 0; i--)
        std::swap(p.table[size_t(i)], p.table[size_t((uniform() + 1) / 2 * float(i))]);
    return p;
}

static char *place(const Pages &p, bool value, int sequence, int position, int g, int d) {
    const int32_t page = p.table[size_t(sequence * p.of_a_sequence + position / SD_CUDA_PAGE)];
    const size_t at =
        (size_t(g) * SD_CUDA_PAGE + size_t(position % SD_CUDA_PAGE)) * size_t(p.D) + size_t(d);
    return p.layer + size_t(page) * p.page_bytes + (value ? p.v : p.k) +
           at * sd_cuda_real_bytes(p.type);
}
float pages_get(const Pages &p, bool value, int sequence, int position, int g, int d) {
    const void *at = place(p, value, sequence, position, g, d);
    return p.type == SD_CUDA_BF16 ? bf16_float(*static_cast<const uint16_t *>(at))
                                  : *static_cast<const float *>(at);
}
void pages_put(const Pages &p, bool value, int sequence, int position, int g, int d, float x) {
    void *at = place(p, value, sequence, position, g, d);
    if (p.type == SD_CUDA_BF16)
        *static_cast<uint16_t *>(at) = bf16_bits(x);
    else
        *static_cast<float *>(at) = x;
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
