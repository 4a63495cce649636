// Floats to stored values with the rounding of ggml's reference, so that a merged export equals
// what ggml's own tools would write. The types of 32 divide by the largest value; the K types
// search scale and minimum by weighted least squares.
#include "kernels/quantize.h"

#include <math.h>
#include <string.h>

static void put16(uint8_t *p, float x) {
    uint16_t h = sd_float_to_half(x);
    p[0] = (uint8_t)h, p[1] = (uint8_t)(h >> 8);
}

// Truncation of x, limited to [0, hi]; NaN gives 0.
static uint8_t code(float x, int hi) {
    return x >= (float)hi ? (uint8_t)hi : x > 0 ? (uint8_t)x : 0;
}

// Codes of 4 or 5 bits: low nibbles to p, high bits to high (NULL: none).
static void put_codes(uint8_t *p, uint8_t *high, const uint8_t q[32]) {
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++) p[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    if (!high) return;
    for (int i = 0; i < 32; i++) bits |= (uint32_t)(q[i] >> 4) << i;
    for (int i = 0; i < 4; i++) high[i] = (uint8_t)(bits >> 8 * i);
}

// Q4_0, Q5_0: the value of largest size becomes -half.
static void write_centred(uint8_t *p, const float *x, int half) {
    float extreme = 0, size = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > size) size = fabsf(x[i]), extreme = x[i];
    float d = extreme / (float)-half, inverse = d != 0 ? 1.0f / d : 0;
    uint8_t q[32];
    for (int i = 0; i < 32; i++) q[i] = code(x[i] * inverse + ((float)half + 0.5f), 2 * half - 1);
    put16(p, d);
    if (half == 8)
        put_codes(p + 2, NULL, q);
    else
        put_codes(p + 6, p + 2, q);
}

// Q4_1, Q5_1: from the minimum to the maximum in `top` steps.
static void write_ranged(uint8_t *p, const float *x, int top) {
    float lo = x[0], hi = x[0];
    for (int i = 1; i < 32; i++) {
        if (x[i] < lo) lo = x[i];
        if (x[i] > hi) hi = x[i];
    }
    float d = (hi - lo) / (float)top, inverse = d != 0 ? 1.0f / d : 0;
    uint8_t q[32];
    for (int i = 0; i < 32; i++) q[i] = code((x[i] - lo) * inverse + 0.5f, top);
    put16(p, d);
    put16(p + 2, lo);
    if (top == 15)
        put_codes(p + 4, NULL, q);
    else
        put_codes(p + 8, p + 4, q);
}

static void write_q8_0(uint8_t *p, const float *x) {
    float size = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > size) size = fabsf(x[i]);
    float d = size / 127.0f, inverse = d != 0 ? 1.0f / d : 0;
    put16(p, d);
    for (int i = 0; i < 32; i++) {
        float v = roundf(x[i] * inverse);
        p[2 + i] = (uint8_t)(int8_t)(v >= -127 && v <= 127 ? (int)v : 0);
    }
}

bool sd_quantise(void *row, sd_dtype t, const float *y, int count) {
    uint8_t *p = row;
    int block = sd_dtype_block(t), bytes = sd_dtype_block_bytes(t);
    if (t == SD_F32) {
        memcpy(row, y, (size_t)count * 4);
        return true;
    }
    for (int i = 0; i < count; i += block, p += bytes) {
        const float *x = y + i;
        switch (t) {
        case SD_F16:
            put16(p, *x);
            break;
        case SD_BF16: {
            uint16_t h = sd_float_to_bf16(*x);
            p[0] = (uint8_t)h, p[1] = (uint8_t)(h >> 8);
            break;
        }
        case SD_Q4_0:
            write_centred(p, x, 8);
            break;
        case SD_Q5_0:
            write_centred(p, x, 16);
            break;
        case SD_Q4_1:
            write_ranged(p, x, 15);
            break;
        case SD_Q5_1:
            write_ranged(p, x, 31);
            break;
        case SD_Q8_0:
            write_q8_0(p, x);
            break;
        case SD_Q4_K:
        case SD_Q5_K:
            sd_write_q45_k(p, x, t == SD_Q5_K);
            break;
        case SD_Q6_K:
            sd_write_q6_k(p, x);
            break;
        default:
            return false;
        }
    }
    return true;
}
