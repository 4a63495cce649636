// Stored values: the layouts against blocks that another implementation read and wrote.
#include "base/files/file.h"
#include "base/memory.h"
#include "kernels/dequantize.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static const char *next(const char **p, size_t n) {
    const char *at = *p;
    *p += n;
    return at;
}
static uint32_t next_u32(const char **p) {
    uint32_t v;
    memcpy(&v, next(p, 4), 4);
    return v;
}

// Calls each on every type of the golden file.
typedef void (*golden_fn)(sd_dtype t, int n, const char *stored, const char *values, int written,
                          const char *x, const char *bytes);
static void each_golden(golden_fn fn) {
    char *data;
    size_t len;
    cr_assert_eq(sd_file_read(&data, &len, TEST_DATA "/quant_golden.bin", 1 << 20, NULL), SD_OK);
    const char *p = data, *end = data + len;
    int types = 0;
    while (p < end) {
        sd_dtype t = (sd_dtype)next_u32(&p);
        int n = (int)next_u32(&p);
        cr_assert(sd_dtype_known(t));
        size_t bytes = sd_dtype_block_bytes(t), elements = sd_dtype_block(t);
        const char *stored = next(&p, n * bytes), *values = next(&p, n * elements * 4);
        int w = (int)next_u32(&p);
        const char *x = next(&p, w * elements * 4), *written = next(&p, w * bytes);
        fn(t, n, stored, values, w, x, written);
        types++;
    }
    cr_assert_eq(p, end);
    cr_assert_eq(types, 12);
    free(data);
}

static void check_read(sd_dtype t, int n, const char *stored, const char *values, int written,
                       const char *x, const char *bytes) {
    (void)written, (void)x, (void)bytes;
    float y[1024];
    int count = n * sd_dtype_block(t);
    sd_dequantise(y, t, stored, count);
    cr_assert_eq(memcmp(y, values, (size_t)count * 4), 0, "%s reads otherwise", sd_dtype_name(t));
}
Test(quant, every_type_reads_the_reference_values_bit_for_bit) {
    each_golden(check_read);
}

static void check_write(sd_dtype t, int n, const char *stored, const char *values, int written,
                        const char *x, const char *bytes) {
    (void)n, (void)stored, (void)values;
    uint8_t out[1024];
    if (t == SD_IQ4_NL) { // only read
        float zero[32] = {0};
        cr_assert(written == 0 && !sd_quantise(out, t, zero, 32));
        return;
    }
    cr_assert_gt(written, 0);
    int count = written * sd_dtype_block(t);
    float v[1024];
    memcpy(v, x, (size_t)count * 4);
    cr_assert(sd_quantise(out, t, v, count));
    cr_assert_eq(memcmp(out, bytes, sd_row_bytes(t, count)), 0, "%s writes otherwise",
                 sd_dtype_name(t));
}
Test(quant, every_type_writes_the_reference_bytes) {
    each_golden(check_write);
}

Test(quant, every_half_survives_the_way_through_float) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = sd_half_to_float((uint16_t)h);
        bool nan = (h & 0x7fff) > 0x7c00;
        cr_assert_eq(isnan(f) != 0, nan);
        cr_assert_eq(sd_float_to_half(f), nan ? (h | 0x200) : h, "half %04x", h);
        float g = sd_bf16_to_float((uint16_t)h);
        if (!isnan(g)) cr_assert_eq(sd_float_to_bf16(g), h);
    }
}

// Between two neighbouring halves the nearer wins, and at the exact middle the even one.
Test(quant, floats_round_to_the_nearest_even_half) {
    for (uint32_t h = 0; h < 0x7bff; h++) {
        double a = sd_half_to_float((uint16_t)h), b = sd_half_to_float((uint16_t)(h + 1));
        float middle = (float)((a + b) / 2);
        cr_assert_eq(sd_float_to_half(middle), h % 2 ? h + 1 : h);
        cr_assert_eq(sd_float_to_half(nextafterf(middle, 0)), h);
        cr_assert_eq(sd_float_to_half(nextafterf(middle, 1e9f)), h + 1);
    }
    cr_assert_eq(sd_float_to_half(65519.0f), 0x7bff);
    cr_assert_eq(sd_float_to_half(65520.0f), 0x7c00);
    cr_assert_eq(sd_float_to_bf16(1.00390625f), 0x3f80); // the middle of 0x3f80 and 0x3f81
}

// A code is at most half a step from its value; a step of the range is (max - min) / codes, and d
// in fp16 moves the far end by up to 2^-11 of the range.
Test(quant, a_round_trip_errs_by_at_most_a_step) {
    static const struct {
        sd_dtype t;
        double steps;
    } types[] = {{SD_Q4_0, 7.5}, {SD_Q4_1, 15}, {SD_Q5_0, 15.5}, {SD_Q5_1, 31}, {SD_Q8_0, 254}};
    uint32_t state = 7;
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
        float x[32], y[32], lo = 0, hi = 0;
        for (int i = 0; i < 32; i++) {
            state = state * 1664525 + 1013904223;
            x[i] = (float)(state >> 8) * 0x1p-23f - 1;
            lo = fminf(lo, x[i]), hi = fmaxf(hi, x[i]);
        }
        uint8_t row[64];
        cr_assert(sd_quantise(row, types[k].t, x, 32));
        sd_dequantise(y, types[k].t, row, 32);
        double range = 2 * fmax(-lo, hi), limit = range / types[k].steps + range * 0x1p-10;
        for (int i = 0; i < 32; i++) cr_assert_leq(fabs((double)x[i] - y[i]), limit);
    }
}

// What cannot be stored (NaN, infinity, values beyond fp16's range) must not be undefined: bytes
// come out, and reading them is defined too.
Test(quant, absurd_values_are_written_as_something) {
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f};
    for (uint32_t t = 0; t < 32; t++) {
        if (!sd_dtype_known(t) || t == SD_IQ4_NL) continue; // the latter is only read
        for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++) {
            float x[256], y[256];
            uint8_t row[1024];
            for (int i = 0; i < 256; i++) x[i] = i % 3 ? 0.01f * (float)i : bad[b];
            cr_assert(sd_quantise(row, (sd_dtype)t, x, 256));
            sd_dequantise(y, (sd_dtype)t, row, 256);
        }
    }
}

Test(quant, unknown_type_numbers_are_refused) {
    cr_assert_not(sd_dtype_known(4));
    cr_assert_not(sd_dtype_known(31));
    cr_assert_not(sd_dtype_known(UINT32_MAX));
    cr_assert_eq(sd_row_bytes(SD_Q4_K, 512), 288);
}
