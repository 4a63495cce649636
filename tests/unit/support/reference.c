// Row after row and head after head, as the configurations describe the models.
#include "tests/unit/support/reference.h"

#include "base/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// What an architecture has beside llama's block.
typedef struct {
    const char *name;
    bool qkv_bias, qk_norm;
    bool post_norms;  // what attention and feed-forward add is normed
    bool one_plus;    // norms multiply by 1 + w
    bool root_of_c;   // embeddings are multiplied by sqrt(C)
    bool gelu;        // tanh form; else silu
    bool local_bases; // layers with a window turn by local_base, unscaled
} kind;

static const kind kinds[] = {{.name = "llama"},
                             {.name = "qwen2", .qkv_bias = true},
                             {.name = "qwen3", .qk_norm = true},
                             {.name = "gemma3",
                              .qk_norm = true,
                              .post_norms = true,
                              .one_plus = true,
                              .root_of_c = true,
                              .gelu = true,
                              .local_bases = true},
                             {.name = "phi3"}};

typedef struct {
    const sd_tiny_model *t;
    const kind *a;
    int n, capacity;
    double *x;               // [n, C]
    double (*round)(double); // what enters a product
} pass;

static double as_it_is(double x) {
    return x;
}

static const kind *kind_of(const sd_tiny_model *t) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, sd_arch_name(t->arch)) == 0) return &kinds[i];
    SD_ASSERT(!"an architecture without a row in this table");
    return NULL;
}

static double *zeros(size_t rows, int cols) {
    double *p = calloc(rows * (size_t)cols, sizeof *p);
    SD_ASSERT(p);
    return p;
}

static float *floats(int rows, int cols) {
    float *p = calloc((size_t)rows * (size_t)cols, sizeof *p);
    SD_ASSERT(p);
    return p;
}

// ---- the parts

static void multiply(const pass *p, double *out, const double *in, const float *w, int n, int rows,
                     int cols) {
    for (int i = 0; i < n; i++)
        for (int r = 0; r < rows; r++) {
            double sum = 0;
            for (int c = 0; c < cols; c++)
                sum += (double)w[(size_t)r * (size_t)cols + (size_t)c] *
                       p->round(in[(size_t)i * (size_t)cols + (size_t)c]);
            out[(size_t)i * (size_t)rows + (size_t)r] = sum;
        }
}

static double *linear(const pass *p, const double *in, sd_proj which, int layer, int rows,
                      int cols) {
    double *out = zeros((size_t)p->n, rows);
    float *w = floats(rows, cols);
    sd_tiny_matrix(w, p->t, which, layer, rows, cols);
    multiply(p, out, in, w, p->n, rows, cols);
    if (p->a->qkv_bias && which <= SD_WV) {
        sd_tiny_bias(w, p->t, which, layer, rows);
        for (int i = 0; i < p->n * rows; i++) out[i] += (double)w[i % rows];
    }
    free(w);
    return out;
}

// x [n, d] in place
static void norm(const pass *p, double *x, int n, int d, sd_tiny_tensor which, int layer) {
    float *w = floats(1, d);
    sd_tiny_values(w, p->t, which, layer, 1, d);
    for (int i = 0; i < n; i++) {
        double *row = x + (size_t)i * (size_t)d, sum = 0;
        for (int c = 0; c < d; c++) sum += row[c] * row[c];
        double scale = 1 / sqrt(sum / d + (double)1e-6f);
        for (int c = 0; c < d; c++) row[c] *= scale * ((double)w[c] + (p->a->one_plus ? 1 : 0));
    }
    free(w);
}

// ---- rotary positions

static const double pi = 3.14159265358979323846;

// Llama 3.1: short waves stay, long ones are stretched, between them it goes over.
static double llama3(const sd_tiny_model *t, double f) {
    double wave = 2 * pi / f, longest = t->rope_orig_ctx / (double)t->rope_low,
           shortest = t->rope_orig_ctx / (double)t->rope_high;
    if (wave < shortest) return f;
    if (wave > longest) return f / (double)t->rope_factor;
    double s =
        (t->rope_orig_ctx / wave - (double)t->rope_low) / (double)(t->rope_high - t->rope_low);
    return (1 - s) * f / (double)t->rope_factor + s * f;
}

// YaRN: pairs that turn often in the original context stay, those that turn seldom are stretched.
static double yarn(const sd_tiny_model *t, double f, int pair, int dim) {
    double ends[2], turns[2] = {(double)t->rope_beta_fast, (double)t->rope_beta_slow};
    for (int k = 0; k < 2; k++)
        ends[k] =
            dim * log(t->rope_orig_ctx / (turns[k] * 2 * pi)) / (2 * log((double)t->rope_base));
    double low = fmax(floor(ends[0]), 0), high = fmin(ceil(ends[1]), dim - 1);
    double stretched = fmin(fmax((pair - low) / (high > low ? high - low : 0.001), 0), 1);
    return f * (1 - stretched) + f / (double)t->rope_factor * stretched;
}

static double frequency(const pass *p, int layer, int pair, int dim) {
    const sd_tiny_model *t = p->t;
    bool local = p->a->local_bases && sd_tiny_window(t, layer) > 0;
    double f = pow((double)(local ? t->local_base : t->rope_base), -2.0 * pair / dim);
    if (local) return f;
    if (t->longrope) return f / (double)sd_tiny_longrope(t, p->capacity > t->rope_orig_ctx, pair);
    if (t->scaling == SD_ROPE_LINEAR) return f / (double)t->rope_factor;
    if (t->scaling == SD_ROPE_LLAMA3) return llama3(t, f);
    if (t->scaling == SD_ROPE_YARN) return yarn(t, f, pair, dim);
    return f;
}

// What cos and sin are multiplied by.
static double amplitude(const sd_tiny_model *t) {
    if (t->longrope)
        return sqrt(1 + log((double)t->ctx / t->rope_orig_ctx) / log((double)t->rope_orig_ctx));
    return t->scaling == SD_ROPE_YARN ? 0.1 * log((double)t->rope_factor) + 1 : 1;
}

// x [n, heads, D] in place: the first `dim` of a head turn, i with i + dim/2.
static void rotate(const pass *p, double *x, int heads, int layer) {
    int D = p->t->D, dim = p->t->rope_dim ? p->t->rope_dim : D, half = dim / 2;
    double gain = amplitude(p->t);
    for (int pos = 0; pos < p->n; pos++)
        for (int h = 0; h < heads; h++) {
            double *v = x + ((size_t)pos * (size_t)heads + (size_t)h) * (size_t)D;
            for (int i = 0; i < half; i++) {
                double angle = pos * frequency(p, layer, i, dim), a = v[i], b = v[i + half];
                v[i] = gain * (a * cos(angle) - b * sin(angle));
                v[i + half] = gain * (b * cos(angle) + a * sin(angle));
            }
        }
}

// ---- the block

// One head of one row over the keys that it sees.
static void attend(double *out, const pass *p, const double *q, const double *k, const double *v,
                   int pos, int layer) {
    int D = p->t->D, stride = p->t->G * D, window = sd_tiny_window(p->t, layer);
    int first = window && pos + 1 > window ? pos + 1 - window : 0;
    double by = p->t->query_scalar > 0 ? (double)p->t->query_scalar : D, total = 0, top = -INFINITY;
    double *score = zeros((size_t)pos + 1, 1);
    for (int j = first; j <= pos; j++) {
        for (int i = 0; i < D; i++)
            score[j] += p->round(q[i]) * p->round(k[(size_t)j * (size_t)stride + (size_t)i]);
        score[j] /= sqrt(by);
        top = fmax(top, score[j]);
    }
    for (int j = first; j <= pos; j++) total += score[j] = exp(score[j] - top);
    for (int i = 0; i < D; i++) {
        out[i] = 0;
        for (int j = first; j <= pos; j++)
            out[i] +=
                p->round(score[j]) / total * p->round(v[(size_t)j * (size_t)stride + (size_t)i]);
    }
    free(score);
}

static double *attention(const pass *p, const double *h, int layer) {
    int C = p->t->C, H = p->t->H, G = p->t->G, D = p->t->D;
    double *q = linear(p, h, SD_WQ, layer, H * D, C), *k = linear(p, h, SD_WK, layer, G * D, C),
           *v = linear(p, h, SD_WV, layer, G * D, C), *a = zeros((size_t)p->n, H * D);
    if (p->a->qk_norm) {
        norm(p, q, p->n * H, D, SD_TINY_Q_NORM, layer);
        norm(p, k, p->n * G, D, SD_TINY_K_NORM, layer);
    }
    rotate(p, q, H, layer);
    rotate(p, k, G, layer);
    for (int pos = 0; pos < p->n; pos++)
        for (int head = 0; head < H; head++) {
            size_t at = ((size_t)pos * (size_t)H + (size_t)head) * (size_t)D;
            int shared = head / (H / G) * D;
            attend(a + at, p, q + at, k + shared, v + shared, pos, layer);
        }
    double *out = linear(p, a, SD_WO, layer, C, H * D);
    free(q), free(k), free(v), free(a);
    return out;
}

static double *feed_forward(const pass *p, const double *h, int layer) {
    int C = p->t->C, F = p->t->F;
    double *gate = linear(p, h, SD_WGATE, layer, F, C), *up = linear(p, h, SD_WUP, layer, F, C);
    for (int i = 0; i < p->n * F; i++) {
        double g = gate[i];
        up[i] *= p->a->gelu ? g / 2 * (1 + tanh(sqrt(2 / pi) * (g + 0.044715 * g * g * g)))
                            : g / (1 + exp(-g));
    }
    double *out = linear(p, up, SD_WDOWN, layer, C, F);
    free(gate), free(up);
    return out;
}

// x += norm'(part(norm(x))), both halves of a block.
static void add_part(pass *p, double *(*part)(const pass *, const double *, int),
                     sd_tiny_tensor before, sd_tiny_tensor after, int layer) {
    int C = p->t->C;
    double *h = zeros((size_t)p->n, C);
    memcpy(h, p->x, (size_t)p->n * (size_t)C * sizeof *h);
    norm(p, h, p->n, C, before, layer);
    double *out = part(p, h, layer);
    if (p->a->post_norms) norm(p, out, p->n, C, after, layer);
    for (int i = 0; i < p->n * C; i++) p->x[i] += out[i];
    free(h), free(out);
}

void reference_logits(double *out, const sd_tiny_model *t, const int32_t *token, int n,
                      int capacity) {
    reference_rounded_logits(out, t, token, n, capacity, as_it_is);
}

void reference_rounded_logits(double *out, const sd_tiny_model *t, const int32_t *token, int n,
                              int capacity, double (*round)(double)) {
    pass p = {t, kind_of(t), n, capacity, zeros((size_t)n, t->C), round};
    float *e = floats(t->V, t->C);
    sd_tiny_values(e, t, SD_TINY_EMBEDDING, 0, t->V, t->C);
    for (int i = 0; i < n * t->C; i++)
        p.x[i] = (double)e[token[i / t->C] * t->C + i % t->C] *
                 (p.a->root_of_c ? sqrt((double)t->C) : 1);
    for (int l = 0; l < t->L; l++) {
        add_part(&p, attention, SD_TINY_ATTN_NORM, SD_TINY_POST_ATTN_NORM, l);
        add_part(&p, feed_forward, SD_TINY_FFN_NORM, SD_TINY_POST_FFN_NORM, l);
    }
    norm(&p, p.x, n, t->C, SD_TINY_OUT_NORM, 0);
    sd_tiny_values(e, t, SD_TINY_HEAD, 0, t->V, t->C);
    multiply(&p, out, p.x, e, n, t->V, t->C);
    free(e), free(p.x);
}

// A sum of K products in fp32 is off by 2^-24 sqrt(K) of its size as a rule; a block has six steps
// in a row, whose errors add as those of a random walk do. Four times that is the limit.
double reference_tolerance(const sd_tiny_model *t, double largest) {
    double steps = 6.0 * t->L + 2, terms = fmax(fmax(t->F, t->C), t->H * t->D);
    return 4 * sqrt(steps) * sqrt(terms) * 0x1p-24 * largest;
}
