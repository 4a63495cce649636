#include "tests/cuda/weights.h"

#include "kernels/dequantize.h"

const std::vector<sd_dtype> all_types = {SD_Q4_0, SD_Q4_1, SD_Q4_K,   SD_Q5_0, SD_Q5_1, SD_Q5_K,
                                         SD_Q6_K, SD_Q8_0, SD_IQ4_NL, SD_BF16, SD_F16,  SD_F32};

static uint16_t random_half(bool wild) {
    static const float ends[] = {65504, -65504, 0x1p-24f, -0x1p-20f, 0, -0.0f};
    if (wild && uniform() > 0.5f) return sd_float_to_half(ends[size_t((uniform() + 1) * 3) % 6]);
    return sd_float_to_half(0.02f * uniform());
}

void random_stored(Stored *s, sd_dtype t, int M, int K, bool wild) {
    const size_t stride = sd_row_bytes(t, K), block = size_t(sd_dtype_block_bytes(t));
    s->bytes.resize(size_t(M) * stride);
    for (uint8_t &b : s->bytes) b = uint8_t(int((uniform() + 1) * 128));
    if (!sd_dtype_quantised(t)) {
        for (size_t i = 0; i < size_t(M) * size_t(K); i++) {
            const float v = 0.1f * uniform();
            const uint16_t h = t == SD_F16 ? sd_float_to_half(v) : bf16_bits(v);
            if (t == SD_F32)
                memcpy(&s->bytes[4 * i], &v, 4);
            else
                memcpy(&s->bytes[2 * i], &h, 2);
        }
    }
    for (size_t at = 0; sd_dtype_quantised(t) && at < s->bytes.size(); at += block) {
        const uint16_t d = random_half(wild), m = random_half(wild);
        memcpy(&s->bytes[at + (t == SD_Q6_K ? 208 : 0)], &d, 2);
        if (sd_dtype_has_min(t)) memcpy(&s->bytes[at + 2], &m, 2);
    }
    s->w = {t, M, K, s->bytes.data()};
}

sd_cuda_weight on_device(const sd_weight &w) {
    sd_cuda_weight d = sd_cuda_weight_of(&w);
    void *to = emu::device_alloc(d.bytes);
    sd_cuda_weight_pack(to, &d, &w);
    d.data = to;
    return d;
}

std::vector<float> stored_row(const sd_weight &w, int m) {
    std::vector<float> y(size_t(w.cols));
    sd_dequantise(y.data(), w.dtype,
                  static_cast<const uint8_t *>(w.data) + size_t(m) * sd_row_bytes(w.dtype, w.cols),
                  w.cols);
    return y;
}
