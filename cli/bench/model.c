// specdec bench model: what a model costs on this machine.
//
// Prefill, decode at several depths, and the price of verifying n rows over one (the figure that
// decides whether speculation pays), each the median of interleaved rounds; memory bandwidth is
// measured in the same minute, right before decoding. A cold start is measured from outside: a
// fresh process of this program, from exec to its first token, with a warm page cache.
#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/bench/bench.h"
#include "cli/decoding.h"
#include "cli/open_model.h"
#include "model/infer/weight_cache/cache.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_POINTS = 8, MAX_ROUNDS = 64, START_PROMPT = 16, START_TOKENS = 64 };
static const int verify_rows[] = {2, 4, 8, 16, 48};
enum { VERIFY_POINTS = 5 };

typedef struct {
    sd_model_args common;
    const char *prefill, *depth;
    int64_t rounds;
    bool json, child, start;
} model_args;

static const sd_option rows[] = {
    SD_COMMON_ROWS(model_args),
    {.name = "prefill",
     .type = SD_OPT_STRING,
     .value = "N,N,...",
     .def = "512",
     .unit = "tokens",
     .offset = offsetof(model_args, prefill),
     .help = "prompt lengths to time"},
    {.name = "depth",
     .type = SD_OPT_STRING,
     .value = "N,N,...",
     .def = "0,256",
     .unit = "tokens",
     .offset = offsetof(model_args, depth),
     .help = "context depths at which decoding is timed"},
    {.name = "rounds",
     .type = SD_OPT_INT,
     .def = "12",
     .min = 1,
     .max = MAX_ROUNDS,
     .offset = offsetof(model_args, rounds),
     .help = "steps of each kind; the median counts"},
    {.name = "start",
     .type = SD_OPT_FLAG,
     .def = "true",
     .offset = offsetof(model_args, start),
     .help = "also measure a cold start in a fresh process"},
    {.name = "child",
     .type = SD_OPT_FLAG,
     .offset = offsetof(model_args, child),
     .help = "be that process: 16 tokens in, 64 out, then the resident memory"},
    SD_JSON_ROW(model_args, json, "one JSON object instead of a table"),
    {0}};

typedef struct {
    int n;
    int at[MAX_POINTS];
    double tok_s[MAX_POINTS];
} points;

typedef struct {
    const model_args *a;
    sd_model *model;
    char *cache_dir; // where packed weights are kept; NULL: nowhere
    sd_pool *pool;
    sd_context *cx;
    sd_kv *kv;
    sd_row *rows;
    float *logits;
    int max_rows;
    points prefill, decode;
    double verify[VERIFY_POINTS], one_row_s;
    double bandwidth; // bytes per second
    double start_s, rss_mb, file_mb;
} bench;

static sd_status parse_points(points *p, const char *text, const char *option, sd_error *err) {
    sd_status st = SD_OK;
    while (*text) {
        char *end;
        errno = 0;
        long v = strtol(text, &end, 10);
        SD_CHECK(end != text && errno == 0 && v >= 0 && v <= 1 << 20 && (!*end || *end == ','), err,
                 SD_EINVAL, "--%s: '%s' is not a list of numbers like 0,256", option, text);
        SD_CHECK(p->n < MAX_POINTS, err, SD_EINVAL, "--%s: at most %d numbers are possible", option,
                 MAX_POINTS);
        p->at[p->n++] = (int)v;
        text = *end ? end + 1 : end;
    }
out:
    return st;
}

static double median(double *t, int n) {
    qsort(t, (size_t)n, sizeof *t, sd_by_value);
    return n % 2 ? t[n / 2] : (t[n / 2 - 1] + t[n / 2]) / 2;
}

// ---- bandwidth: the pool reads a buffer that no cache holds

enum { READ_TASKS = 64 };
typedef struct {
    const uint64_t *data;
    size_t words;
    uint64_t sum[READ_TASKS];
} read_job;

static void read_task(void *ctx, int task, int worker) {
    (void)worker;
    read_job *j = ctx;
    size_t n = j->words / READ_TASKS, begin = n * (size_t)task;
    uint64_t s[8] = {0};
    for (size_t i = begin; i + 8 <= begin + n; i += 8)
        for (int l = 0; l < 8; l++) s[l] += j->data[i + (size_t)l];
    j->sum[task] = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

static sd_status measure_bandwidth(bench *b, sd_error *err) {
    sd_status st = SD_OK;
    enum { BYTES = 256 << 20, PASSES = 7 };
    read_job j = {.data = sd_alloc(BYTES, 1), .words = BYTES / 8};
    SD_CHECK_ALLOC(j.data, err);
    double t[PASSES];
    volatile uint64_t sink = 0;
    for (int i = 0; i < PASSES; i++) {
        double begin = sd_now_s();
        sd_pool_run(b->pool, READ_TASKS, read_task, &j);
        t[i] = sd_now_s() - begin;
        for (int k = 0; k < READ_TASKS; k++) sink += j.sum[k];
    }
    b->bandwidth = BYTES / median(t, PASSES);
out:
    free((void *)(uintptr_t)j.data);
    return st;
}

// ---- steps

// One step of n rows at `depth`, logits for the last `want`. What the cache holds does not matter
// for the time.
static sd_status step(bench *b, int depth, int n, int want, double *seconds, sd_error *err) {
    for (int i = 0; i < n; i++)
        b->rows[i] = (sd_row){.token = (i * 7919 + depth) % b->model->hp.V,
                              .pos = depth + i,
                              .kv = b->kv,
                              .want_logits = i >= n - want};
    double begin = sd_now_s();
    sd_status st = sd_forward(b->cx, b->rows, n, want ? b->logits : NULL, err);
    *seconds = sd_now_s() - begin;
    return st;
}

static sd_status time_prefill(bench *b, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < b->prefill.n; i++) {
        double total[3];
        for (int r = 0; r < 3; r++) {
            total[r] = 0;
            for (int pos = 0; pos < b->prefill.at[i];) {
                int n = b->prefill.at[i] - pos < b->max_rows ? b->prefill.at[i] - pos : b->max_rows;
                double t;
                SD_TRY(step(b, pos, n, pos + n == b->prefill.at[i], &t, err));
                total[r] += t;
                pos += n;
            }
            SD_CHECK(!sd_interrupted, err, SD_EINTERRUPTED, "interrupted");
        }
        b->prefill.tok_s[i] = b->prefill.at[i] / median(total, 3);
    }
out:
    return st;
}

static sd_status time_decode(bench *b, sd_error *err) {
    sd_status st = SD_OK;
    int rounds = (int)b->a->rounds;
    for (int i = 0; i < b->decode.n; i++) {
        double t[MAX_ROUNDS];
        for (int r = 0; r < rounds; r++) SD_TRY(step(b, b->decode.at[i] + r, 1, 1, &t[r], err));
        b->decode.tok_s[i] = 1 / median(t, rounds);
        SD_CHECK(!sd_interrupted, err, SD_EINTERRUPTED, "interrupted");
    }
out:
    return st;
}

static sd_status time_verify(bench *b, sd_error *err) {
    sd_status st = SD_OK;
    int rounds = (int)b->a->rounds;
    double one[MAX_ROUNDS], t[VERIFY_POINTS][MAX_ROUNDS];
    for (int r = 0; r < rounds; r++) {
        SD_TRY(step(b, 256, 1, 1, &one[r], err));
        for (int i = 0; i < VERIFY_POINTS; i++)
            SD_TRY(step(b, 256, verify_rows[i], verify_rows[i], &t[i][r], err));
        SD_CHECK(!sd_interrupted, err, SD_EINTERRUPTED, "interrupted");
    }
    b->one_row_s = median(one, rounds);
    for (int i = 0; i < VERIFY_POINTS; i++) b->verify[i] = median(t[i], rounds) / b->one_row_s;
out:
    return st;
}

// ---- cold start

static void on_event(void *ctx, const sd_event *ev) {
    bool *first = ctx;
    if (ev->n > 0 && !*first) {
        *first = true;
        printf("first\n");
        fflush(stdout);
    }
}

static double resident_mb(void) {
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = 0, resident = 0;
    if (f && fscanf(f, "%ld %ld", &pages, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static sd_status be_child(const model_args *a, sd_error *err) {
    sd_status st = SD_OK;
    sd_decoding d = {0};
    sd_decoding_args none = {.top_p = 1};
    int32_t prompt[START_PROMPT];
    bool first = false;
    SD_TRY(sd_decoding_load(&d, &a->common, &none, err));
    SD_TRY(sd_decoding_start(&d, &a->common, &none, 1, 0, err));
    for (int i = 0; i < START_PROMPT; i++) prompt[i] = (100 + 37 * i) % d.model->hp.V;
    sd_request r = {.prompt = prompt,
                    .n_prompt = START_PROMPT,
                    .max_tokens = START_TOKENS,
                    .sampling = {.top_p = 1},
                    .ignore_end = true,
                    .logprobs = -1,
                    .on_event = on_event,
                    .ctx = &first};
    SD_TRY(sd_engine_submit(d.engine, &r, NULL, err));
    while (sd_engine_step(d.engine)) {
    }
    printf("rss %.3f\n", resident_mb());
out:
    sd_decoding_close(&d);
    return st;
}

// The child's arguments are this process's model options.
static void exec_child(const model_args *a) {
    char threads[32], compute[16];
    snprintf(threads, sizeof threads, "%lld", (long long)a->common.threads);
    snprintf(compute, sizeof compute, "%s", a->common.compute == SD_COMPUTE_FP32 ? "fp32" : "auto");
    execl("/proc/self/exe", "specdec", "bench", "model", "--child", "-m", a->common.model,
          "--threads", threads, "--device", a->common.device, "--compute", compute, "--kv",
          sd_kv_name((sd_kv_type)a->common.kv),
          a->common.no_pack_cache ? "--no-pack-cache" : (char *)NULL, (char *)NULL);
    _exit(127);
}

static sd_status run_child(const model_args *a, double *seconds, double *rss, sd_error *err) {
    sd_status st = SD_OK;
    int fd[2] = {-1, -1}, exit_status = 0;
    FILE *f = NULL;
    char line[128];
    *seconds = *rss = 0;
    SD_CHECK(pipe(fd) == 0, err, SD_EIO, "bench model: no pipe: %s", strerror(errno));
    double begin = sd_now_s();
    pid_t pid = fork();
    SD_CHECK(pid >= 0, err, SD_EIO, "bench model: no process: %s", strerror(errno));
    if (pid == 0) {
        dup2(fd[1], STDOUT_FILENO);
        close(fd[0]), close(fd[1]);
        exec_child(a);
    }
    close(fd[1]), fd[1] = -1;
    f = fdopen(fd[0], "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strcmp(line, "first\n") == 0) *seconds = sd_now_s() - begin;
        if (strncmp(line, "rss ", 4) == 0) *rss = strtod(line + 4, NULL);
    }
    waitpid(pid, &exit_status, 0);
    SD_CHECK(exit_status == 0 && *seconds > 0, err, SD_EIO,
             "bench model: the cold start's process failed; its message stands above");
out:
    if (f)
        fclose(f);
    else if (fd[0] >= 0)
        close(fd[0]);
    if (fd[1] >= 0) close(fd[1]);
    return st;
}

static sd_status time_start(bench *b, sd_error *err) {
    sd_status st = SD_OK;
    double t[3], rss[3];
    double ignored;
    SD_TRY(run_child(b->a, &ignored, &ignored, err)); // warms the page cache
    for (int i = 0; i < 3; i++) SD_TRY(run_child(b->a, &t[i], &rss[i], err));
    b->start_s = median(t, 3);
    b->rss_mb = median(rss, 3);
out:
    return st;
}

// ---- the report

// Bytes of weights that one token reads: all matrices of the blocks and the head.
static double bytes_a_token(const sd_model *m) {
    double sum = (double)sd_row_bytes(m->head.dtype, m->head.cols) * m->head.rows;
    for (int i = 0; i < m->n_linears; i++) {
        const sd_weight *w = &m->linear[i].w;
        sum += (double)sd_row_bytes(w->dtype, w->cols) * w->rows;
    }
    return sum;
}

// The type that holds most of the blocks' weights.
static const char *main_type(const sd_model *m) {
    double held[64] = {0};
    int best = 0;
    for (int i = 0; i < m->n_linears; i++) {
        const sd_weight *w = &m->linear[i].w;
        if ((unsigned)w->dtype < 64) held[w->dtype] += (double)w->rows * w->cols;
    }
    for (int i = 0; i < 64; i++)
        if (held[i] > held[best]) best = i;
    return sd_dtype_name((sd_dtype)best);
}

static void set_map(json_t *o, const char *key, const int *at, const double *value, int n) {
    json_t *map = json_object();
    char name[16];
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%d", at[i]);
        json_object_set_new(map, name, json_real(value[i]));
    }
    json_object_set_new(o, key, map);
}

static sd_status report(const bench *b, sd_error *err) {
    sd_status st = SD_OK;
    double percent = 100 * bytes_a_token(b->model) * b->decode.tok_s[0] / b->bandwidth;
    json_t *o = json_pack("{s:s, s:s, s:i}", "model", b->model->name ? b->model->name : "", "quant",
                          main_type(b->model), "threads", sd_pool_threads(b->pool));
    SD_CHECK_ALLOC(o, err);
    if (b->a->json) {
        set_map(o, "prefill_tok_s", b->prefill.at, b->prefill.tok_s, b->prefill.n);
        set_map(o, "decode_tok_s", b->decode.at, b->decode.tok_s, b->decode.n);
        set_map(o, "verify_cost", verify_rows, b->verify, VERIFY_POINTS);
        json_object_set_new(o, "one_row_ms", json_real(b->one_row_s * 1e3));
        json_object_set_new(o, "read_bandwidth_gb_s", json_real(b->bandwidth / 1e9));
        json_object_set_new(o, "percent_of_bandwidth", json_real(percent));
        json_object_set_new(o, "cold_start_first_token_s", json_real(b->start_s));
        json_object_set_new(o, "rss_mb", json_real(b->rss_mb));
        json_object_set_new(o, "file_mb", json_real(b->file_mb));
        SD_TRY(sd_json_print(stdout, o, JSON_COMPACT, err));
        fputc('\n', stdout);
        goto out;
    }
    printf("%s, %s, %d threads\n", b->model->name ? b->model->name : "", main_type(b->model),
           sd_pool_threads(b->pool));
    for (int i = 0; i < b->prefill.n; i++)
        printf("prefill %5d tokens  %8.1f tok/s\n", b->prefill.at[i], b->prefill.tok_s[i]);
    for (int i = 0; i < b->decode.n; i++)
        printf("decode at depth %4d  %8.1f tok/s\n", b->decode.at[i], b->decode.tok_s[i]);
    printf("cost of n rows      ");
    for (int i = 0; i < VERIFY_POINTS; i++) printf(" %d: %.2f", verify_rows[i], b->verify[i]);
    printf("\nread bandwidth       %8.1f GB/s, decoding uses %.0f %%\n", b->bandwidth / 1e9,
           percent);
    if (b->a->start)
        printf("cold start           %8.3f s to the first token; %.0f MB resident, file %.0f MB\n",
               b->start_s, b->rss_mb, b->file_mb);
out:
    json_decref(o);
    return st;
}

static double file_mb(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 ? (double)s.st_size / 1e6 : 0;
}

static sd_status open_bench(bench *b, const model_args *a, sd_error *err) {
    sd_status st = SD_OK;
    b->a = a;
    SD_TRY(parse_points(&b->prefill, a->prefill, "prefill", err));
    SD_TRY(parse_points(&b->decode, a->depth, "depth", err));
    SD_CHECK(b->decode.n > 0, err, SD_EINVAL, "--depth: give one number at least");
    sd_context_options o = {.compute = (sd_compute)a->common.compute,
                            .kv = (sd_kv_type)a->common.kv};
    SD_TRY(sd_device_choose(&o.backend, &o.device, a->common.device, err));
    SD_TRY(sd_open_model(&b->model, &b->cache_dir, &a->common, err));
    SD_TRY(sd_pool_open(&b->pool, (int)a->common.threads, err));
    b->max_rows = a->common.prefill_chunk > 64 ? (int)a->common.prefill_chunk : 64;
    o.max_rows = b->max_rows;
    o.cache = (sd_weight_cache){b->cache_dir, SD_WEIGHT_CACHE_LEAST};
    SD_TRY(sd_context_open(&b->cx, b->model, b->pool, &o, err));
    int deepest = 512;
    for (int i = 0; i < b->prefill.n; i++)
        if (b->prefill.at[i] > deepest) deepest = b->prefill.at[i];
    for (int i = 0; i < b->decode.n; i++)
        if (b->decode.at[i] > deepest) deepest = b->decode.at[i];
    SD_TRY(sd_kv_open(&b->kv, b->cx, deepest + MAX_ROUNDS, err));
    b->rows = sd_alloc((size_t)b->max_rows, sizeof *b->rows);
    b->logits = sd_alloc((size_t)64 * (size_t)b->model->hp.V, sizeof *b->logits);
    SD_CHECK_ALLOC(b->rows && b->logits, err);
    b->file_mb = sd_model_is_gguf(b->model) ? file_mb(a->common.model)
                                            : (double)b->model->weight_bytes / 1e6;
out:
    return st;
}

static void close_bench(bench *b) {
    free(b->logits);
    free(b->rows);
    sd_kv_close(b->kv);
    sd_context_close(b->cx);
    sd_pool_close(b->pool);
    sd_model_release(b->model);
    free(b->cache_dir);
}

sd_status sd_bench_model(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    model_args a = {0};
    sd_strings rest;
    bench b = {0};
    if (sd_verb_help("bench model -m MODEL", "Prefill, decode and verification speed of a model.",
                     rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "bench model: '%s' is not an option", rest.item[0]);
    if (a.child) return be_child(&a, err);
    SD_TRY(open_bench(&b, &a, err)); // a signal ends it at once: there is nothing to say yet
    sd_catch_interrupts();
    double warm;
    SD_TRY(step(&b, 0, 64, 64, &warm, err)); // touches every weight and the buffers
    SD_TRY(measure_bandwidth(&b, err));
    SD_TRY(time_decode(&b, err));
    SD_TRY(time_verify(&b, err));
    SD_TRY(time_prefill(&b, err));
    if (a.start) SD_TRY(time_start(&b, err));
    SD_TRY(report(&b, err));
out:
    close_bench(&b);
    return st;
}
