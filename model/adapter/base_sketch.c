#include "model/adapter/base_sketch.h"

#include "base/memory.h"
#include "base/rng.h"
#include "model/adapter/basis.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 64 };

typedef struct {
    float value, rms;
} map_sketch;

static sd_dtype main_type(const sd_model *m) {
    int64_t values[256] = {0};
    int best = 0;
    for (int i = 0; i < m->n_linears; i++) {
        const sd_weight *w = &m->linear[i].w;
        values[(uint8_t)w->dtype] += (int64_t)w->rows * w->cols;
    }
    for (int t = 1; t < 256; t++)
        if (values[t] > values[best]) best = t;
    return (sd_dtype)best;
}

// Rows are counted as Hugging Face's folders have them, so that q and k of a llama GGUF are the
// same.
static void sketch_map(map_sketch *out, const sd_model *m, int map, float *row) {
    const sd_weight *w = &m->linear[map].w;
    int n = w->rows < ROWS ? w->rows : ROWS;
    size_t bytes = sd_row_bytes(w->dtype, w->cols);
    bool moves = sd_adapter_row_moves(m, map, false);
    double sum = 0, square = 0;
    for (int i = 0; i < n; i++) {
        int r = (int)((int64_t)i * w->rows / n),
            at = moves ? sd_adapter_interleave_row(r, m->hp.D) : r;
        sd_dequantise(row, w->dtype, (const char *)w->data + (size_t)at * bytes, w->cols);
        uint64_t bits = 0;
        for (int k = 0; k < w->cols; k++) {
            if (k % 64 == 0)
                bits = sd_mix64(((uint64_t)map << 40) ^ ((uint64_t)r << 16) ^ (uint64_t)(k / 64) ^
                                0x5d);
            double x = (double)row[k];
            sum += bits >> (k % 64) & 1 ? x : -x;
            square += x * x;
        }
    }
    double count = (double)n * w->cols;
    *out = (map_sketch){(float)(sum / sqrt(count)), (float)sqrt(square / count)};
}

static sd_status sketch_maps(map_sketch **out, const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    int n = m->n_linears, widest = 0;
    float *row = NULL;
    *out = sd_alloc((size_t)n, sizeof **out);
    SD_CHECK_ALLOC(*out, err);
    for (int i = 0; i < n; i++)
        if (m->linear[i].w.cols > widest) widest = m->linear[i].w.cols;
    row = sd_alloc((size_t)widest, sizeof *row);
    SD_CHECK_ALLOC(row, err);
    for (int i = 0; i < n; i++) sketch_map(&(*out)[i], m, i, row);
out:
    free(row);
    return st;
}

static void add_vector(sd_hasher *h, const float *x, int n) {
    for (int i = 0; x && i < n; i++) {
        uint16_t v = sd_float_to_bf16(x[i]);
        sd_hasher_add(h, &v, sizeof v);
    }
}

static sd_status hash_norms(sd_sha256 *out, const sd_model *m, sd_error *err) {
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    add_vector(h, m->out_norm, m->hp.C);
    for (int l = 0; l < m->hp.L; l++) {
        const sd_layer *x = &m->layer[l];
        add_vector(h, x->attn_norm, m->hp.C);
        add_vector(h, x->ffn_norm, m->hp.C);
        add_vector(h, x->post_attn_norm, m->hp.C);
        add_vector(h, x->post_ffn_norm, m->hp.C);
        add_vector(h, x->q_norm, m->hp.D);
        add_vector(h, x->k_norm, m->hp.D);
    }
    *out = sd_hasher_close(h);
    return SD_OK;
}

// "1 Q4_1 <hash of the norms> <maps>", then for each map its value and root mean square, as 8
// hexadecimal digits of the fp32.
sd_status sd_base_sketch(char **text, const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    map_sketch *maps = NULL;
    sd_sha256 norms;
    int n = m->n_linears;
    sd_buf b = sd_buf_make(SD_SKETCH_MAX);
    *text = NULL;
    SD_TRY(hash_norms(&norms, m, err));
    SD_TRY(sketch_maps(&maps, m, err));
    bool ok = sd_buf_printf(&b, "1 %s %s %d ", sd_dtype_name(main_type(m)), norms.hex, n);
    for (int i = 0; ok && i < n; i++) {
        uint32_t v[2];
        memcpy(v, &maps[i], sizeof v);
        ok = sd_buf_printf(&b, "%08x%08x", v[0], v[1]);
    }
    SD_CHECK_ALLOC(ok, err);
    *text = b.data;
    b.data = NULL;
out:
    free(maps);
    sd_buf_free(&b);
    return st;
}

static bool hex8(uint32_t *out, const char *s) {
    *out = 0;
    for (int i = 0; i < 8; i++) {
        int d = s[i] >= '0' && s[i] <= '9'   ? s[i] - '0'
                : s[i] >= 'a' && s[i] <= 'f' ? s[i] - 'a' + 10
                                             : -1;
        if (d < 0) return false;
        *out = *out << 4 | (uint32_t)d;
    }
    return true;
}

// False when text is no sketch of a model of n maps, or holds what no model has.
static bool parse(sd_sketch_difference *out, sd_sha256 *norms, map_sketch *maps, int n,
                  const char *text, size_t len) {
    char head[128];
    int count = 0, at = 0;
    snprintf(head, sizeof head, "%.*s", (int)(len < 127 ? len : 127), text);
    if (sscanf(head, "1 %15s %64s %d %n", out->type, norms->hex, &count, &at) != 3) return false;
    if (at == 0 || count != n || len != (size_t)at + 16 * (size_t)n) return false;
    for (int i = 0; i < n; i++) {
        uint32_t v[2];
        if (!hex8(&v[0], text + at + 16 * i) || !hex8(&v[1], text + at + 16 * i + 8)) return false;
        memcpy(&maps[i], v, sizeof v);
        if (!isfinite(maps[i].value) || !isfinite(maps[i].rms) || !(maps[i].rms > 0)) return false;
    }
    return true;
}

sd_status sd_base_sketch_compare(sd_sketch_difference *out, const char *text, size_t len,
                                 const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    int n = m->n_linears;
    sd_sha256 norms, was = {{0}};
    map_sketch *mine = NULL, *theirs = sd_alloc((size_t)n, sizeof *theirs);
    double sum = 0;
    *out = (sd_sketch_difference){.m_type = sd_dtype_name(main_type(m))};
    SD_CHECK_ALLOC(theirs, err);
    if (!parse(out, &was, theirs, n, text, len)) goto out;
    SD_TRY(hash_norms(&norms, m, err));
    SD_TRY(sketch_maps(&mine, m, err));
    for (int i = 0; i < n; i++) {
        double d = ((double)mine[i].value - (double)theirs[i].value) / (double)theirs[i].rms;
        sum += d * d;
    }
    out->known = true;
    out->same_norms = sd_sha256_equal(&norms, &was);
    out->same_type = strcmp(out->type, out->m_type) == 0;
    out->difference = sqrt(sum / n);
out:
    free(mine);
    free(theirs);
    return st;
}
