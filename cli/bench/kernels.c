// specdec bench kernels: each op at the shapes of real models, against the limits of this machine
// measured just before in the same process.
//
// Weights are read cold, as a decode step reads them: copies of the packed weight that together
// pass the last-level cache are used in turn. The figure is the lower decile of single calls: like
// the limits, it asks what the kernel does when the machine's other tenants leave it alone.
#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/pool.h"
#include "cli/bench/bench.h"
#include "cli/verb.h"
#include "kernels/huge_arena.h"
#include "kernels/ops.h"
#include "kernels/roofline/roofline.h"
#include "kernels/train/gemm.h"
#include "kernels/train/gemm_packed.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    COLD_BYTES = 96 << 20,
    REPS = 15,
    MIN_CALLS = 10,
    MAX_CALLS = 1000,
    MAX_COPIES = 1024,
    TASK_TILES = 4
};

typedef struct {
    int64_t threads;
    const char *isa, *type;
    bool json;
} bench_args;

static const sd_option rows[] = {{.name = "threads",
                                  .type = SD_OPT_INT,
                                  .offset = offsetof(bench_args, threads),
                                  .def = "0",
                                  .min = 0,
                                  .max = 256,
                                  .help = "worker threads; 0: one per processor"},
                                 {.name = "isa",
                                  .type = SD_OPT_STRING,
                                  .offset = offsetof(bench_args, isa),
                                  .value = "NAME",
                                  .help = "plain, avx2, avx512 or amx; default: the best here"},
                                 {.name = "type",
                                  .type = SD_OPT_STRING,
                                  .offset = offsetof(bench_args, type),
                                  .value = "TYPE",
                                  .help = "matmul of this weight type only (Q4_1, Q6_K, ...)"},
                                 {.name = "json",
                                  .type = SD_OPT_FLAG,
                                  .offset = offsetof(bench_args, json),
                                  .help = "one JSON object a line"},
                                 {0}};

static const struct {
    const char *where;
    sd_dtype t;
    int M, K;
} shapes[] = {
    {"SmolLM2-135M qkv", SD_Q4_1, 960, 576},   {"SmolLM2-135M gate+up", SD_Q4_1, 3072, 576},
    {"SmolLM2-135M down", SD_Q4_1, 576, 1536}, {"SmolLM2-135M head", SD_Q8_0, 49152, 576},
    {"Qwen-0.5B gate", SD_Q5_0, 4864, 896},    {"Qwen-1.5B gate", SD_Q4_K, 8960, 1536},
    {"Qwen-1.5B down", SD_Q6_K, 1536, 8960},   {"Qwen-1.5B F16", SD_F16, 1536, 1536},
};
// d(in) of a map is the product with the transposed weights: outputs and terms change places.
static const struct {
    const char *where;
    int M, K;
} train_shapes[] = {
    {"135M gate+up", 3072, 576},     {"135M gate+up, d(in)", 576, 3072}, {"135M down", 576, 1536},
    {"135M down, d(in)", 1536, 576}, {"1.5B gate", 8960, 1536},          {"1.5B down", 1536, 8960},
};
static const int row_counts[] = {1, 2, 3, 4, 6, 8, 16, 48, 256};

typedef struct {
    bench_args a;
    const sd_ops *ops;
    sd_pool *pool;
    sd_roofline limit;
} bench;

typedef struct {
    const sd_ops *ops;
    const sd_packed_weight *w;
    const sd_quant_rows *x;
    float *y;
    int N;
} matmul_job;

static void matmul_task(void *ctx, int task, int worker) {
    (void)worker;
    const matmul_job *j = ctx;
    int M = j->w->w.rows, m0 = task * TASK_TILES * SD_TILE_M, m1 = m0 + TASK_TILES * SD_TILE_M;
    j->ops->matmul(j->y, M, j->w, j->x, j->N, m0, m1 < M ? m1 : M);
}

typedef struct {
    const char *op, *shape, *type;
    int rows;
    double seconds, bytes, ops; // of one call
    double peak;                // GOP/s of this machine
    double ratio;               // of the time to one row's; 0: not said
} measured;

static void report(const bench *b, const measured *m) {
    double gb = m->bytes / m->seconds * 1e-9, g = m->ops / m->seconds * 1e-9;
    double read_percent = gb / b->limit.read_gb * 100, compute_percent = g / m->peak * 100;
    if (b->a.json) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "op",
                              m->op, "shape", m->shape, "type", m->type, "isa", b->ops->name,
                              "rows", m->rows, "us", m->seconds * 1e6, "gb_per_s", gb, "gop_per_s",
                              g, "read_limit_percent", read_percent, "compute_limit_percent",
                              compute_percent, "cost_ratio", m->ratio);
        sd_json_print(stdout, o, JSON_COMPACT | JSON_REAL_PRECISION(6), NULL); // main() knows
        json_decref(o);
        putchar('\n');
        return;
    }
    printf("%-10s %-22s %-5s %4d %10.1f us %7.1f GB/s %5.1f %% %8.1f GOP/s %5.1f %%", m->op,
           m->shape, m->type, m->rows, m->seconds * 1e6, gb, read_percent, g, compute_percent);
    if (m->ratio > 0) printf("  x%.2f", m->ratio);
    putchar('\n');
}

// Seconds of one matmul with N rows over cold weights.
static double time_matmul(const bench *b, sd_packed_weight *copy, int copies,
                          const sd_quant_rows *x, float *y, int N) {
    double t[MAX_CALLS], began = sd_now_s();
    int M = copy->w.rows, tasks = (M + TASK_TILES * SD_TILE_M - 1) / (TASK_TILES * SD_TILE_M);
    int n = 0;
    for (; n < MAX_CALLS && (n < MIN_CALLS || sd_now_s() - began < 0.05); n++) {
        matmul_job j = {b->ops, &copy[n % copies], x, y, N};
        double t0 = sd_now_s();
        sd_pool_run(b->pool, tasks, matmul_task, &j);
        t[n] = sd_now_s() - t0;
    }
    qsort(t, (size_t)n, sizeof *t, sd_by_value);
    return t[n / 10];
}

static sd_status bench_matmul(const bench *b, const char *where, sd_dtype t, int M, int K,
                              sd_error *err) {
    sd_status st = SD_OK;
    enum { MAX_N = 256 };
    sd_packed_weight *copy = sd_alloc(MAX_COPIES, sizeof *copy);
    sd_quant_rows act = {0};
    size_t stride = sd_row_bytes(t, K);
    uint8_t *data = sd_alloc((size_t)M, stride);
    float *x = sd_alloc(MAX_N, (size_t)K * sizeof *x);
    float *y = sd_alloc(MAX_N, (size_t)M * sizeof *y);
    int copies = 1;
    SD_CHECK_ALLOC(copy && data && x && y, err);
    // Any codes will do, but small halves and no NaN: every byte below 0x20.
    for (size_t i = 0; i < (size_t)M * stride; i++) data[i] = (uint8_t)(i * 2654435761u >> 13 & 31);
    for (size_t i = 0; i < (size_t)MAX_N * (size_t)K; i++) x[i] = (float)(i % 97) * 0.02f - 1;
    sd_weight w = {.dtype = t, .rows = M, .cols = K, .data = data};
    SD_TRY(b->ops->pack(&copy[0], &w, SD_COMPUTE_AUTO, NULL, err));
    size_t bytes = copy[0].bytes ? copy[0].bytes : (size_t)M * stride;
    for (; copies < MAX_COPIES && copies * bytes < COLD_BYTES && copy[0].data; copies++) {
        copy[copies] = copy[0];
        copy[copies].arena = NULL;
        copy[copies].data = sd_huge_arena_alloc(&copy[copies].arena, bytes);
        SD_CHECK_ALLOC(copy[copies].data, err);
        memcpy(copy[copies].data, copy[0].data, bytes);
    }
    SD_TRY(sd_quant_rows_init(&act, MAX_N, K, SD_COMPUTE_AUTO, err));
    bool floats = sd_dtype_block(t) == 1;
    double one = 0;
    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        int N = row_counts[i];
        sd_quant_rows_shape(&act, N, K, sd_quant_rows_group(t));
        b->ops->quantize_rows(&act, x, 0, N);
        double s = time_matmul(b, copy, copies, &act, y, N);
        if (N == 1) one = s;
        report(b, &(measured){.op = "matmul",
                              .shape = where,
                              .type = sd_dtype_name(t),
                              .rows = N,
                              .seconds = s,
                              .bytes = (double)bytes,
                              .ops = 2.0 * M * K * N,
                              .peak = floats ? b->limit.fma_g : b->limit.int8_g,
                              .ratio = s / one});
        if (sd_interrupted) break;
    }
out:
    for (int i = 0; copy && i < MAX_COPIES; i++) sd_packed_weight_free(&copy[i]);
    sd_quant_rows_free(&act);
    free(copy), free(data), free(x), free(y);
    return st;
}

// Ops on rows: one call after the other on data in cache.
enum { CTX = 4096, HEAD = 128 };
enum { SCALES = SD_KV_PAGE * 4, CODES = SD_KV_PAGE * HEAD * 2, PAGE = 2 * (SCALES + CODES) };
typedef struct {
    const sd_ops *ops;
    float *x, *y, *z;
    float cos[32], sin[32]; // of angles: RoPE keeps the size of what it turns over and over
    uint16_t *weights;      // [CTX * HEAD]
    char *pages;            // of one kv head: CTX positions
    int32_t page[CTX / SD_KV_PAGE];
    float *scratch;
    sd_quant_rows act;
    sd_packed_weight A, B; // of an adapter: [16, 1536], [1536, 16]
    int len, rows;
    sd_attention_shape shape;
} row_job;
enum { MAX_ROWS = 16 };

static void run_norm(row_job *j) {
    j->ops->rmsnorm(j->y, j->x, j->z, 1, 1536, 1e-5f);
}
static void run_act(row_job *j) {
    j->ops->quantize_rows(&j->act, j->x, 0, 1);
}
static void run_swiglu(row_job *j) {
    j->ops->swiglu(j->y, j->x, j->z, 1536);
}
static void run_rope(row_job *j) {
    j->ops->rope(j->y, j->cos, j->sin, 64, 64, true);
}
static void run_attention(row_job *j) {
    int len[MAX_ROWS];
    for (int n = 0; n < j->rows; n++) len[n] = j->len - j->rows + 1 + n;
    sd_attention_rows r = {.q = j->x,
                           .len = len,
                           .N = j->rows,
                           .layer = j->pages,
                           .page_bytes = PAGE,
                           .page = j->page,
                           .k = 2 * SCALES,
                           .v = 2 * SCALES + CODES,
                           .v_scale = SCALES};
    for (int split = 0; split < sd_attention_splits(j->len); split++)
        j->ops->attention(j->y, &r, split, &j->shape, j->scratch);
}
static void run_shrink(row_job *j) {
    sd_quant_rows x = {.compute = SD_COMPUTE_FP32, .K = 1536, .x = j->x};
    j->ops->matmul(j->y, 16, &j->A, &x, j->rows, 0, 16);
}
static void run_expand(row_job *j) {
    sd_quant_rows u = {.compute = SD_COMPUTE_FP32, .K = 16, .x = j->x};
    j->ops->matmul_add(j->y, 1536, &j->B, &u, j->rows, 0, 1536);
}

static double time_row(row_job *j, void (*run)(row_job *)) {
    double t[REPS];
    for (int r = 0; r < REPS; r++) {
        int n = 0;
        double t0 = sd_now_s(), t1;
        do {
            for (int i = 0; i < 8; i++, n++) run(j);
            t1 = sd_now_s();
        } while (t1 - t0 < 1e-3);
        t[r] = (t1 - t0) / n;
    }
    qsort(t, REPS, sizeof *t, sd_by_value);
    return t[REPS / 10];
}

static void bench_attention(const bench *b, row_job *j, sd_kv_type kv, double fma) {
    static const struct {
        const char *name;
        int H, G, D, len;
    } heads[] = {{"3 heads D 64 len 256", 9, 3, 64, 256},
                 {"3 heads D 64 len 2048", 9, 3, 64, 2048},
                 {"6 heads D 128 len 2048", 12, 2, 128, 2048}};
    for (int i = 0; i < 3; i++) {
        int H = heads[i].H, G = heads[i].G, D = heads[i].D;
        j->shape = (sd_attention_shape){.H = H, .G = G, .D = D, .scale = 0.1f, .kv = kv};
        j->len = heads[i].len;
        double values = 2.0 * j->len * D, one = 0;
        for (j->rows = 1; j->rows <= MAX_ROWS; j->rows *= 4) {
            double s = time_row(j, run_attention);
            if (j->rows == 1) one = s;
            report(b, &(measured){.op = "attention",
                                  .shape = heads[i].name,
                                  .type = sd_kv_name(kv),
                                  .rows = j->rows,
                                  .seconds = s,
                                  .bytes = values * (double)sd_kv_value_bytes(kv),
                                  .ops = 2 * values * j->rows * H / G,
                                  .peak = fma,
                                  .ratio = s / one});
        }
    }
}

static sd_status bench_rows(const bench *b, sd_error *err) {
    sd_status st = SD_OK;
    enum { FLOATS = 65536 };
    row_job j = {.ops = b->ops};
    j.x = sd_alloc(FLOATS, sizeof(float)), j.y = sd_alloc(FLOATS, sizeof(float));
    j.z = sd_alloc(FLOATS, sizeof(float)), j.weights = sd_alloc(CTX * HEAD, 2);
    j.pages = sd_alloc(CTX / SD_KV_PAGE, PAGE);
    j.scratch = sd_alloc(FLOATS, sizeof(float));
    SD_CHECK_ALLOC(j.x && j.y && j.z && j.weights && j.pages && j.scratch, err);
    for (int i = 0; i < FLOATS; i++) j.x[i] = (float)(i % 89) * 0.02f - 1, j.z[i] = 0.5f;
    for (int i = 0; i < CTX * HEAD; i++) j.weights[i] = (uint16_t)(0x3000 + i % 511);
    for (int i = 0; i < CTX / SD_KV_PAGE; i++) {
        char *page = j.pages + (size_t)i * PAGE;
        j.page[i] = i;
        memcpy(page, j.z, 2 * SCALES);
        memcpy(page + 2 * SCALES, j.weights, CODES);
        memcpy(page + 2 * SCALES + CODES, j.weights, CODES);
    }
    for (int i = 0; i < 32; i++) j.cos[i] = (float)cos(i), j.sin[i] = (float)sin(i);
    SD_TRY(sd_quant_rows_init(&j.act, 1, 1536, SD_COMPUTE_AUTO, err));
    double fma = b->limit.fma_g / sd_pool_threads(b->pool);
    const measured single[] = {
        {"rmsnorm", "C 1536", "F32", 1, time_row(&j, run_norm), 1536 * 8, 1536 * 4, fma, 0},
        {"quantize_rows", "K 1536", "int8", 1, time_row(&j, run_act), 1536 * 4, 1536 * 3, fma, 0},
        {"swiglu", "F 1536", "F32", 1, time_row(&j, run_swiglu), 1536 * 12, 1536 * 22, fma, 0},
        {"rope", "D 64", "F32", 1, time_row(&j, run_rope), 512, 192, fma, 0},
    };
    for (size_t i = 0; i < sizeof single / sizeof *single; i++) report(b, &single[i]);
    SD_TRY(b->ops->pack(&j.A,
                        &(sd_weight){.dtype = SD_BF16, .rows = 16, .cols = 1536, .data = j.weights},
                        SD_COMPUTE_AUTO, NULL, err));
    SD_TRY(b->ops->pack(&j.B,
                        &(sd_weight){.dtype = SD_BF16, .rows = 1536, .cols = 16, .data = j.weights},
                        SD_COMPUTE_AUTO, NULL, err));
    for (int lora = 0; lora < 2; lora++) {
        double one = 0;
        for (j.rows = 1; j.rows <= MAX_ROWS; j.rows *= 4) {
            double s = time_row(&j, lora ? run_expand : run_shrink);
            if (j.rows == 1) one = s;
            report(b, &(measured){.op = lora ? "lora B" : "lora A",
                                  .shape = lora ? "R 16 M 1536" : "R 16 K 1536",
                                  .type = "BF16",
                                  .rows = j.rows,
                                  .seconds = s,
                                  .bytes = 16 * 1536 * 2,
                                  .ops = 2.0 * 16 * 1536 * j.rows,
                                  .peak = fma,
                                  .ratio = s / one});
        }
    }
    for (int kv = SD_KV_F16; kv <= SD_KV_INT8; kv++) bench_attention(b, &j, (sd_kv_type)kv, fma);
out:
    free(j.x), free(j.y), free(j.z), free(j.weights), free(j.pages), free(j.scratch);
    sd_packed_weight_free(&j.A), sd_packed_weight_free(&j.B);
    sd_quant_rows_free(&j.act);
    return st;
}

// ---- the products of training with frozen weights, against oneDNN's fp32 one

enum { TRAIN_TOKENS = 4 * SD_GEMM_TILE_ROWS };
typedef struct {
    const sd_gemm_packed *gemm; // NULL: oneDNN
    const float *x, *w;         // w [out, k]
    const void *packed;
    float *y;
    char *scratch; // of each worker
    int out, k;
} train_job;

static void train_task(void *ctx, int task, int worker) {
    const train_job *j = ctx;
    const float *x = j->x + (size_t)task * SD_GEMM_TILE_ROWS * (size_t)j->k;
    float *y = j->y + (size_t)task * SD_GEMM_TILE_ROWS * (size_t)j->out;
    if (j->gemm)
        j->gemm->matmul(y, j->out, x, j->k, j->packed, SD_GEMM_TILE_ROWS, j->out, j->k, false,
                        j->scratch + (size_t)worker * SD_GEMM_SCRATCH);
    else
        sd_gemm(false, true, SD_GEMM_TILE_ROWS, j->out, j->k, 1, x, j->k, j->w, j->k, 0, y, j->out);
}

static void report_train(const bench *b, train_job *j, const char *where, const char *type,
                         double bytes, double peak) {
    double t[REPS];
    for (int r = 0; r < REPS; r++) {
        double t0 = sd_now_s();
        sd_pool_run(b->pool, TRAIN_TOKENS / SD_GEMM_TILE_ROWS, train_task, j);
        t[r] = sd_now_s() - t0;
    }
    qsort(t, REPS, sizeof *t, sd_by_value);
    report(b, &(measured){.op = j->gemm ? "train" : "train, oneDNN",
                          .shape = where,
                          .type = type,
                          .rows = TRAIN_TOKENS,
                          .seconds = t[REPS / 10],
                          .bytes = bytes,
                          .ops = 2.0 * TRAIN_TOKENS * j->out * j->k,
                          .peak = peak});
}

static sd_status bench_train(const bench *b, const char *where, int out, int k, sd_error *err) {
    sd_status st = SD_OK;
    size_t values = (size_t)out * (size_t)k, threads = (size_t)sd_pool_threads(b->pool);
    const sd_gemm_packed *kinds[] = {sd_gemm_packed_best(false), sd_gemm_packed_best(true)};
    float *x = sd_alloc((size_t)TRAIN_TOKENS * (size_t)k, sizeof *x);
    float *y = sd_alloc((size_t)TRAIN_TOKENS * (size_t)out, sizeof *y);
    float *w = sd_alloc(values, sizeof *w);
    void *packed = sd_alloc(sd_gemm_packed_bytes(kinds[0], out, k), 1);
    char *scratch = sd_alloc(threads, SD_GEMM_SCRATCH);
    SD_CHECK_ALLOC(x && y && w && packed && scratch, err);
    for (size_t i = 0; i < values; i++) w[i] = (float)(i % 89) * 0.02f - 1;
    for (size_t i = 0; i < (size_t)TRAIN_TOKENS * (size_t)k; i++)
        x[i] = (float)(i % 97) * 0.02f - 1;
    train_job j = {
        .x = x, .w = w, .packed = packed, .y = y, .scratch = scratch, .out = out, .k = k};
    report_train(b, &j, where, "F32", (double)values * sizeof(float), b->limit.fma_g);
    for (int i = 0; i < 2 && !sd_interrupted; i++) {
        if (!(j.gemm = kinds[i])) continue;
        bool bf16 = j.gemm->bf16;
        sd_gemm_pack_forward(j.gemm, packed, w, 0, out, out, k);
        report_train(b, &j, where, bf16 ? "BF16" : "F32", (double)values * (bf16 ? 2 : 4),
                     bf16 ? b->limit.bf16_g : b->limit.fma_g);
    }
out:
    free(x), free(y), free(w), free(packed), free(scratch);
    return st;
}

static bool find_type(const char *name, sd_dtype *t) {
    for (uint32_t i = 0; i < 64; i++)
        if (sd_dtype_known(i) && strcmp(sd_dtype_name((sd_dtype)i), name) == 0) {
            *t = (sd_dtype)i;
            return true;
        }
    return false;
}

static void report_limits(const bench *b) {
    int threads = sd_pool_threads(b->pool);
    if (b->a.json)
        printf("{\"op\":\"limits\",\"isa\":\"%s\",\"threads\":%d,\"read_gb_per_s\":%.1f,"
               "\"fma_gflop_per_s\":%.1f,\"int8_gop_per_s\":%.1f,\"bf16_gflop_per_s\":%.1f}\n",
               b->ops->name, threads, b->limit.read_gb, b->limit.fma_g, b->limit.int8_g,
               b->limit.bf16_g);
    else
        printf("%s, %d threads: reads %.1f GB/s, fp32 FMA %.0f GFLOP/s, int8 %.0f GOP/s, bf16 %.0f "
               "GFLOP/s\n",
               b->ops->name, threads, b->limit.read_gb, b->limit.fma_g, b->limit.int8_g,
               b->limit.bf16_g);
}

sd_status sd_bench_kernels(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    bench b = {0};
    sd_strings rest;
    sd_dtype type = SD_F32;
    if (sd_verb_help("bench kernels [--threads N] [--isa NAME] [--type TYPE] [--json]",
                     "Times each kernel against this machine's limits.", rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &b.a, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "bench kernels: '%s' is not expected; see --help",
             rest.item[0]);
    SD_CHECK(!b.a.type || find_type(b.a.type, &type), err, SD_EINVAL,
             "bench kernels: --type %s is unknown; give Q4_1, Q8_0, Q4_K, ...", b.a.type);
    b.ops = b.a.isa ? sd_ops_named(b.a.isa) : sd_ops_best();
    SD_CHECK(b.ops, err, SD_EINVAL,
             "bench kernels: --isa %s is not available here; give plain, avx2, avx512 or amx",
             b.a.isa);
    SD_TRY(sd_pool_open(&b.pool, (int)b.a.threads, err));
    SD_TRY(sd_roofline_measure(&b.limit, b.ops->name, b.pool, err));
    sd_catch_interrupts();
    report_limits(&b);
    if (b.a.type) {
        SD_TRY(bench_matmul(&b, "gate+up of C 1536", type, 3072, 1536, err));
        goto out;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && !sd_interrupted; i++)
        SD_TRY(bench_matmul(&b, shapes[i].where, shapes[i].t, shapes[i].M, shapes[i].K, err));
    SD_TRY(bench_rows(&b, err));
    for (size_t i = 0; i < sizeof train_shapes / sizeof train_shapes[0] && !sd_interrupted; i++)
        SD_TRY(bench_train(&b, train_shapes[i].where, train_shapes[i].M, train_shapes[i].K, err));
out:
    sd_pool_close(b.pool);
    return st;
}
