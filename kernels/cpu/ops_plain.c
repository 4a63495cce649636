// The reference table: portable C, written to be read. Everything else is tested against it, and it
// runs where no faster table does. Row invariance comes from doing each row by itself.
#include "kernels/cpu/cpu.h"
#include "kernels/dequantize.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 256, ROWS = 16 };

static sd_status pack(sd_packed_weight *out, const sd_weight *w, sd_compute compute,
                      const atomic_bool *stop, sd_error *err) {
    (void)stop, (void)err;
    *out = (sd_packed_weight){.w = *w, .compute = compute};
    return SD_OK;
}

// The scale max|x| / 127 of int8 codes, and the factor that gives them. The bits of |x| order like
// the values and put NaN on top, so that one comparison finds what cannot be quantised: that
// becomes NaN. Below 1e-30 all is zero, and so is the factor of both.
static float scale_of(float *inverse, const float *x, int n) {
    uint32_t top = 0, u;
    for (int i = 0; i < n; i++) {
        memcpy(&u, &x[i], 4);
        u &= 0x7fffffff;
        if (u > top) top = u;
    }
    float amax;
    memcpy(&amax, &top, 4);
    bool finite = top < 0x7f800000, some = finite && amax > 1e-30f;
    *inverse = some ? 127.0f / amax : 0;
    return !finite ? NAN : some ? amax / 127.0f : 0;
}

static void write_codes(int8_t *q, const float *x, int n, float inverse) {
    for (int i = 0; i < n; i++) q[i] = (int8_t)(inverse != 0 ? (int)rintf(x[i] * inverse) : 0);
}

static float quantize_i8(int8_t *q, const float *x, int n) {
    float inverse, scale = scale_of(&inverse, x, n);
    write_codes(q, x, n, inverse);
    return scale;
}

// Block b of row n from its `left` values, 32 or, at the end of a row, fewer.
static void quantize_block(sd_quant_rows *a, int n, int b, const float *x, int left, float scale,
                           float inverse) {
    size_t at = sd_quant_rows_at(a, n, b);
    int8_t *q = sd_quant_rows_codes(a, n, b);
    write_codes(q, x, left, inverse);
    memset(q + left, 0, (size_t)(SD_QBLOCK - left));
    int sum[2] = {0, 0};
    for (int i = 0; i < SD_QBLOCK; i++) sum[i / 16] += q[i];
    a->scale[at] = scale;
    *sd_quant_rows_isum(a, n, b) = (int16_t)(sum[0] + sum[1]);
    for (int i = 0; i < 2; i++) a->isum16[2 * at + (size_t)i] = (int16_t)sum[i];
    a->sum[at] = scale * (float)(sum[0] + sum[1]);
}

static void quantize_rows(sd_quant_rows *a, const float *x, int n0, int n1) {
    __atomic_store_n(&a->x, x, __ATOMIC_RELAXED); // every range of the same rows stores the same
    if (a->compute == SD_COMPUTE_FP32) return;
    for (int n = n0; n < n1; n++) {
        const float *row = x + (size_t)n * a->K;
        for (int k = 0; k < a->K; k += a->group) {
            int end = a->K - k < a->group ? a->K : k + a->group;
            float inverse, scale = scale_of(&inverse, row + k, end - k);
            for (int i = k; i < end; i += SD_QBLOCK)
                quantize_block(a, n, i / SD_QBLOCK, row + i,
                               end - i < SD_QBLOCK ? end - i : SD_QBLOCK, scale, inverse);
        }
    }
}

static float dot(const float *a, const float *b, int n) {
    float s[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) s[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; i++, j++) s[j] += a[i] * b[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

// acc [N] <- one output, activations in fp32.
static void output_fp32(float *acc, const sd_weight *w, const uint8_t *row, const sd_quant_rows *x,
                        int n0, int N) {
    float v[CHUNK];
    for (int k = 0; k < w->cols; k += CHUNK) {
        int c = w->cols - k < CHUNK ? w->cols - k : CHUNK;
        sd_dequantise(v, w->dtype, row + sd_row_bytes(w->dtype, k), c);
        for (int n = 0; n < N; n++) acc[n] += dot(v, x->x + (size_t)(n0 + n) * w->cols + k, c);
    }
}

// acc [N] <- one output, activations in int8.
static void output_int8(float *acc, const sd_weight *w, const uint8_t *row, const sd_quant_rows *x,
                        int n0, int N) {
    int blocks = w->cols / SD_QBLOCK;
    for (int b = 0; b < blocks; b++) {
        sd_block32 k;
        sd_block_decode(&k, w->dtype, row, b);
        for (int n = 0; n < N; n++) {
            size_t at = sd_quant_rows_at(x, n0 + n, b);
            const int8_t *q = sd_quant_rows_codes(x, n0 + n, b);
            int32_t s[2] = {0, 0};
            for (int i = 0; i < SD_QBLOCK; i++) s[i / 16] += k.q[i] * q[i];
            acc[n] += x->scale[at] * (k.d[0] * (float)s[0] + k.d[1] * (float)s[1]);
            acc[n] += k.m * x->sum[at];
        }
    }
}

static void product(float *y, int ldy, const sd_packed_weight *p, const sd_quant_rows *x, int N,
                    int m0, int m1, bool add) {
    const sd_weight *w = &p->w;
    bool int8 = sd_dtype_quantised(w->dtype) && p->compute == SD_COMPUTE_AUTO;
    size_t stride = sd_row_bytes(w->dtype, w->cols);
    for (int m = m0; m < m1; m++) {
        const uint8_t *row = (const uint8_t *)w->data + (size_t)m * stride;
        for (int n0 = 0; n0 < N; n0 += ROWS) {
            int n = N - n0 < ROWS ? N - n0 : ROWS;
            float acc[ROWS] = {0};
            if (int8)
                output_int8(acc, w, row, x, n0, n);
            else
                output_fp32(acc, w, row, x, n0, n);
            for (int i = 0; i < n; i++) {
                float *to = y + (size_t)(n0 + i) * ldy + m;
                *to = add ? *to + acc[i] : acc[i];
            }
        }
    }
}

static void matmul(float *y, int ldy, const sd_packed_weight *p, const sd_quant_rows *x, int N,
                   int m0, int m1) {
    product(y, ldy, p, x, N, m0, m1, false);
}
static void matmul_add(float *y, int ldy, const sd_packed_weight *p, const sd_quant_rows *x, int N,
                       int m0, int m1) {
    product(y, ldy, p, x, N, m0, m1, true);
}

static void rmsnorm(float *y, const float *x, const float *w, int N, int C, float eps) {
    for (int n = 0; n < N; n++, x += C, y += C) {
        double s = 0;
        for (int c = 0; c < C; c++) s += (double)x[c] * x[c];
        float r = (float)(1.0 / sqrt(s / C + (double)eps));
        for (int c = 0; c < C; c++) y[c] = x[c] * r * w[c];
    }
}

static void rope(float *x, const float *cos, const float *sin, int D, int rot, bool interleaved) {
    (void)D; // what lies beyond rot stays
    int half = rot / 2;
    for (int i = 0; i < half; i++) {
        float *a = interleaved ? x + 2 * i : x + i, *b = interleaved ? a + 1 : a + half;
        float u = *a, v = *b;
        *a = u * cos[i] - v * sin[i];
        *b = u * sin[i] + v * cos[i];
    }
}

static void swiglu(float *y, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

// 1 + tanh(u) = 2 / (1 + e^-2u), which loses nothing where tanh is near -1.
static void geglu(float *y, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float g = gate[i], v = g * (SD_GELU_LINEAR + SD_GELU_CUBIC * (g * g));
        y[i] = g / (1.0f + expf(-v)) * up[i];
    }
}

static void add(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] += x[i];
}

// Value i of position t of a page, whose keys or values begin at `begin`; scale_at: under SD_KV_INT8.
static float cache_at(const char *page, size_t begin, size_t scale_at, int t, int i,
                      const sd_attention_shape *s) {
    const void *c = page + begin;
    const float *scale = (const void *)(page + scale_at);
    size_t at = (size_t)t * (size_t)s->D + (size_t)i;
    if (s->kv == SD_KV_BF16) return sd_bf16_to_float(((const uint16_t *)c)[at]);
    if (s->kv == SD_KV_F16) return sd_half_to_float(((const uint16_t *)c)[at]);
    if (s->kv == SD_KV_INT8) return scale[t] * (float)((const int8_t *)c)[at];
    return ((const float *)c)[at];
}

// One head over positions [begin, end): softmax online over key blocks, the running sum rescaled when
// the maximum grows.
static void attend(float *partial, const float *q, const sd_attention_rows *r, int begin, int end,
                   const sd_attention_shape *s, float *score) {
    int D = s->D;
    float top = -INFINITY, total = 0;
    memset(partial, 0, (size_t)D * sizeof *partial);
    for (int t0 = begin / SD_KEY_BLOCK * SD_KEY_BLOCK; t0 < end; t0 += SD_KEY_BLOCK) {
        int from = begin > t0 ? begin - t0 : 0;
        int n = end - t0 < SD_KEY_BLOCK ? end - t0 : SD_KEY_BLOCK;
        float block_top = top;
        const char *page = sd_attention_page(r, t0);
        for (int t = from; t < n; t++) {
            float d = 0;
            for (int i = 0; i < D; i++) d += q[i] * cache_at(page, r->k, r->k_scale, t, i, s);
            score[t] = d * s->scale;
            if (score[t] > block_top) block_top = score[t];
        }
        float keep = expf(top - block_top);
        total *= keep;
        for (int i = 0; i < D; i++) partial[i] *= keep;
        for (int t = from; t < n; t++) {
            float p = expf(score[t] - block_top);
            total += p;
            for (int i = 0; i < D; i++) partial[i] += p * cache_at(page, r->v, r->v_scale, t, i, s);
        }
        top = block_top;
    }
    partial[D] = total;
    partial[D + 1] = top;
}

static void attention(float *partial, const sd_attention_rows *r, int split,
                      const sd_attention_shape *s, float *scratch) {
    int heads = s->H / s->G, t0 = split * SD_KV_SPLIT;
    size_t each = sd_attention_partial(s);
    for (int n = 0; n < r->N; n++) {
        int first = sd_attention_first(s->window, r->len[n]), begin = first > t0 ? first : t0;
        int end = r->len[n] < t0 + SD_KV_SPLIT ? r->len[n] : t0 + SD_KV_SPLIT;
        const float *q = r->q + ((size_t)n * s->H + (size_t)(r->g * heads)) * s->D;
        for (int h = 0; h < heads; h++, partial += each)
            attend(partial, q + (size_t)h * s->D, r, begin, end, s, scratch);
    }
}

static void to_f16(uint16_t *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = sd_float_to_half(x[i]);
}

static void to_bf16(uint16_t *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = sd_float_to_bf16(x[i]);
}

static size_t pack_bytes(const sd_weight *w) {
    (void)w;
    return 0;
}

const sd_ops sd_ops_plain = {.name = "plain",
                             .pack_bytes = pack_bytes,
                             .pack = pack,
                             .quantize_rows = quantize_rows,
                             .matmul = matmul,
                             .matmul_add = matmul_add,
                             .rmsnorm = rmsnorm,
                             .rope = rope,
                             .swiglu = swiglu,
                             .geglu = geglu,
                             .add = add,
                             .attention = attention,
                             .attention_scratch = sd_attention_scratch_of_block,
                             .kv = SD_KV_F16,
                             .to_f16 = to_f16,
                             .to_bf16 = to_bf16,
                             .quantize_i8 = quantize_i8};
