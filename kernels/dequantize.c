// Stored values to floats, bit for bit as ggml's reference gives them: one multiplication, then one
// addition, each rounded (the build forbids contraction). Everything goes through sd_block_decode,
// so that packing, the plain kernels and this file cannot disagree about a layout.
#include "kernels/dequantize.h"

#include "base/status.h"

#include <math.h>
#include <string.h>

typedef struct {
    sd_dtype type;
    const char *name;
    int block, bytes;
    bool has_min;
} dtype_row;

static const dtype_row dtypes[] = {
    {SD_F32, "F32", 1, 4, false},       {SD_F16, "F16", 1, 2, false},
    {SD_BF16, "BF16", 1, 2, false},     {SD_Q4_0, "Q4_0", 32, 18, false},
    {SD_Q4_1, "Q4_1", 32, 20, true},    {SD_Q5_0, "Q5_0", 32, 22, false},
    {SD_Q5_1, "Q5_1", 32, 24, true},    {SD_Q8_0, "Q8_0", 32, 34, false},
    {SD_Q4_K, "Q4_K", 256, 144, true},  {SD_Q5_K, "Q5_K", 256, 176, true},
    {SD_Q6_K, "Q6_K", 256, 210, false}, {SD_IQ4_NL, "IQ4_NL", 32, 18, false},
};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

static const dtype_row *find(uint32_t number) {
    for (int i = 0; i < DTYPES; i++)
        if ((uint32_t)dtypes[i].type == number) return &dtypes[i];
    return NULL;
}

static const dtype_row *row_of(sd_dtype t) {
    const dtype_row *r = find((uint32_t)t);
    SD_ASSERT(r != NULL); // readers check sd_dtype_known first
    return r;
}

bool sd_dtype_known(uint32_t number) {
    return find(number) != NULL;
}
const char *sd_dtype_name(sd_dtype t) {
    const dtype_row *r = find((uint32_t)t);
    return r ? r->name : "unknown";
}
int sd_dtype_block(sd_dtype t) {
    return row_of(t)->block;
}
int sd_dtype_block_bytes(sd_dtype t) {
    return row_of(t)->bytes;
}
bool sd_dtype_quantised(sd_dtype t) {
    return row_of(t)->block > 1;
}
bool sd_dtype_has_min(sd_dtype t) {
    return row_of(t)->has_min;
}

size_t sd_row_bytes(sd_dtype t, int K) {
    const dtype_row *r = row_of(t);
    return (size_t)(K / r->block) * (size_t)r->bytes;
}

float sd_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, f = h & 0x3ff, bits;
    float y;
    if (e == 31) {
        bits = sign | 0x7f800000 | f << 13 | (f ? 0x400000 : 0); // a NaN comes out quiet
    } else if (e) {
        bits = sign | (e + 112) << 23 | f << 13;
    } else { // f * 2^-24 is exact
        y = (float)f * 0x1p-24f;
        return sign ? -y : y;
    }
    memcpy(&y, &bits, 4);
    return y;
}

uint16_t sd_float_to_half(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    uint32_t sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); // rounds to 2^16 or more
    if (a < 0x38800000) {                                  // subnormal: the sum rounds at 2^-24
        float t;
        memcpy(&t, &a, 4);
        t += 0.5f;
        uint32_t r;
        memcpy(&r, &t, 4);
        return (uint16_t)(sign | (r - 0x3f000000));
    }
    uint32_t r = a - (112u << 23);
    r += 0xfff + (r >> 13 & 1);
    return (uint16_t)(sign | r >> 13);
}

float sd_bf16_to_float(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float y;
    memcpy(&y, &u, 4);
    return y;
}

const int8_t sd_iq4_value[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};

static uint16_t u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static float half_at(const uint8_t *p) {
    return sd_half_to_float(u16(p));
}
static uint32_t u32(const uint8_t *p) {
    return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16;
}

void sd_k_scales(uint8_t scale[8], uint8_t min[8], const uint8_t b[12]) {
    for (int i = 0; i < 4; i++) {
        scale[i] = b[i] & 63;
        min[i] = b[i + 4] & 63;
        scale[i + 4] = (uint8_t)((b[i + 8] & 15) | (b[i] >> 6) << 4);
        min[i + 4] = (uint8_t)(b[i + 8] >> 4 | (b[i + 4] >> 6) << 4);
    }
}

// q <- 32 codes from 16 bytes of nibbles, plus 16 where the bit of `high` is set, minus centre.
static void nibbles(int8_t q[32], const uint8_t *p, uint32_t high, int centre) {
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((p[i] & 15) + (int)(high >> i & 1) * 16 - centre);
        q[i + 16] = (int8_t)((p[i] >> 4) + (int)(high >> (i + 16) & 1) * 16 - centre);
    }
}

static void decode_k45(sd_block32 *o, const uint8_t *p, int j, bool five) {
    uint8_t scale[8], min[8];
    sd_k_scales(scale, min, p + 4);
    o->d[0] = o->d[1] = half_at(p) * scale[j];
    o->m = -(half_at(p + 2) * min[j]);
    const uint8_t *high = p + 16, *low = p + (five ? 48 : 16) + j / 2 * 32;
    for (int i = 0; i < 32; i++) {
        int q = low[i] >> (j % 2 * 4) & 15;
        if (five) q |= (high[i] >> j & 1) << 4;
        o->q[i] = (int8_t)q;
    }
}

static void decode_k6(sd_block32 *o, const uint8_t *p, int j) {
    const uint8_t *low = p + j / 4 * 64 + j % 2 * 32, *high = p + 128 + j / 4 * 32;
    float d = half_at(p + 208);
    for (int i = 0; i < 32; i++) {
        int q = (low[i] >> (j % 4 / 2 * 4) & 15) | (high[i] >> (j % 4 * 2) & 3) << 4;
        o->q[i] = (int8_t)(q - 32);
    }
    o->d[0] = d * (int8_t)p[192 + 2 * j];
    o->d[1] = d * (int8_t)p[192 + 2 * j + 1];
}

void sd_block_decode(sd_block32 *o, sd_dtype t, const void *row, int b) {
    const dtype_row *r = row_of(t);
    const uint8_t *p = row;
    p += (size_t)(b / (r->block / 32)) * (size_t)r->bytes;
    int j = b % (r->block / 32); // which 32 of a 256
    o->m = 0;
    if (r->block == 32) o->d[0] = o->d[1] = half_at(p);
    switch (t) {
    case SD_Q4_0:
        nibbles(o->q, p + 2, 0, 8);
        break;
    case SD_Q4_1:
        o->m = half_at(p + 2), nibbles(o->q, p + 4, 0, 0);
        break;
    case SD_Q5_0:
        nibbles(o->q, p + 6, u32(p + 2), 16);
        break;
    case SD_Q5_1:
        o->m = half_at(p + 2), nibbles(o->q, p + 8, u32(p + 4), 0);
        break;
    case SD_Q8_0:
        memcpy(o->q, p + 2, 32);
        break;
    case SD_IQ4_NL:
        nibbles(o->q, p + 2, 0, 0);
        for (int i = 0; i < 32; i++) o->q[i] = sd_iq4_value[o->q[i]];
        break;
    case SD_Q4_K:
        decode_k45(o, p, j, false);
        break;
    case SD_Q5_K:
        decode_k45(o, p, j, true);
        break;
    case SD_Q6_K:
        decode_k6(o, p, j);
        break;
    default:
        SD_ASSERT(!"a quantised type");
    }
}

void sd_dequantise(float *y, sd_dtype t, const void *row, int count) {
    const dtype_row *r = row_of(t);
    const uint8_t *p = row;
    if (t == SD_F32) {
        memcpy(y, row, (size_t)count * 4);
    } else if (t == SD_F16) {
        for (int i = 0; i < count; i++) y[i] = half_at(p + 2 * (size_t)i);
    } else if (t == SD_BF16) {
        for (int i = 0; i < count; i++) y[i] = sd_bf16_to_float(u16(p + 2 * (size_t)i));
    } else {
        for (int b = 0; b < count / 32; b++, y += 32) {
            sd_block32 k;
            sd_block_decode(&k, t, row, b);
            for (int i = 0; i < 32; i++) y[i] = k.d[i / 16] * (float)k.q[i];
            if (r->has_min)
                for (int i = 0; i < 32; i++) y[i] += k.m;
        }
    }
}
