// The parallel regions of a step, over rows or over columns, and what those over columns read.
//
// Rows are prepared (normed, quantised) once for all threads, or, of a few rows, by each thread for
// itself: waking the others would take longer.
#include "model/infer/cpu/private.h"

// A row range is worth a region of its own from this many values on.
enum { REGION_VALUES = 16 * 1024, LORA_A_ROWS = 32 };

// ---- over rows

typedef struct {
    sd_context *cx;
    sd_row_part part;
    int n, tasks;
} row_job;

static void run_row_task(void *ctx, int task, int worker) {
    (void)worker;
    row_job *j = ctx;
    int64_t n = j->n;
    j->part(j->cx, (int)(n * task / j->tasks), (int)(n * (task + 1) / j->tasks));
}

void sd_by_rows(sd_context *cx, sd_row_part part, int values) {
    int tasks = sd_pool_threads(cx->pool) * SD_TASKS_PER_THREAD;
    if (tasks > cx->n) tasks = cx->n;
    if ((int64_t)cx->n * values < REGION_VALUES) tasks = 1;
    row_job j = {cx, part, cx->n, tasks};
    sd_pool_run(cx->pool, tasks, run_row_task, &j);
}

// ---- what a region over columns reads

static void prepare_input(sd_context *cx, sd_prepared_input *to, int n0, int n1) {
    const sd_input *in = &cx->in;
    const size_t at = (size_t)n0 * in->K;
    if (in->norm)
        cx->ops->rmsnorm(to->xn + at, in->x + at, in->norm, n1 - n0, in->K, cx->model->hp.eps);
    cx->ops->quantize_rows(&to->act, in->norm ? to->xn : in->x, n0, n1);
}
static void prepare_rows(sd_context *cx, int n0, int n1) {
    prepare_input(cx, &cx->shared_input, n0, n1);
}

void sd_read_from(sd_context *cx, sd_input in) {
    cx->in = in;
    cx->region++;
    if (cx->n <= cx->own_input_rows) return; // each thread with its first task
    sd_quant_rows_shape(&cx->shared_input.act, cx->n, in.K, in.group);
    sd_by_rows(cx, prepare_rows, in.K);
}

const sd_prepared_input *sd_prepared_input_of(sd_context *cx, int worker) {
    sd_prepared_input *own_input = &cx->own_input[worker];
    if (cx->n > cx->own_input_rows) return &cx->shared_input;
    if (own_input->region != cx->region) {
        sd_quant_rows_shape(&own_input->act, cx->n, cx->in.K, cx->in.group);
        prepare_input(cx, own_input, 0, cx->n);
        own_input->region = cx->region;
    }
    return own_input;
}

// ---- regions over columns

typedef struct {
    sd_context *cx;
    sd_col_part part;
    int lora_a_tasks; // tasks before those of columns, for the maps from first_linear on
    int lora_a_rows;  // rows of one of them at most
    int first_linear;
    int width;      // tiles of columns of a task
    int columns[3]; // of each matrix of the group; 0: fewer matrices
} col_job;

static int tiles_of(int columns) {
    return (columns + SD_TILE_M - 1) / SD_TILE_M;
}

// Rows of many adapters have factors each, which take as long to read as those of one adapter in every
// row: all threads share them, in tasks of about the same length.
static int lora_a_rows(const sd_context *cx) {
    const int parts = sd_pool_threads(cx->pool) * SD_TASKS_PER_THREAD,
              even = (cx->n + parts - 1) / parts;
    return cx->n_segments > 1 && even < LORA_A_ROWS ? even : LORA_A_ROWS;
}

static void run_lora_a(col_job *j, const sd_prepared_input *in, int task) {
    int of_rows = (j->cx->n + j->lora_a_rows - 1) / j->lora_a_rows,
        n0 = task % of_rows * j->lora_a_rows;
    int n1 = n0 + j->lora_a_rows < j->cx->n ? n0 + j->lora_a_rows : j->cx->n;
    sd_lora_a(j->cx, in, j->first_linear + task / of_rows, n0, n1);
    atomic_fetch_sub_explicit(&j->cx->lora_a_left, 1, memory_order_release);
}

static void run_col_task(void *ctx, int task, int worker) {
    col_job *j = ctx;
    const sd_prepared_input *in = sd_prepared_input_of(j->cx, worker);
    if (task < j->lora_a_tasks) {
        run_lora_a(j, in, task);
        return;
    }
    // The tiles of the matrices stand in one row, and a task may end in another one than it began.
    int from = (task - j->lora_a_tasks) * j->width, end = from + j->width;
    for (int i = 0; i < 3; i++) {
        const int tiles = tiles_of(j->columns[i]), t0 = from > 0 ? from : 0;
        const int t1 = end < tiles ? end : tiles, m1 = t1 * SD_TILE_M;
        if (t0 < t1)
            j->part(j->cx, &in->act, i, t0 * SD_TILE_M, m1 < j->columns[i] ? m1 : j->columns[i]);
        from -= tiles, end -= tiles;
    }
}

void sd_by_columns(sd_context *cx, sd_col_part part, sd_input in, int a, int b, int c) {
    col_job j = {.cx = cx, .part = part, .columns = {a, b, c}};
    sd_read_from(cx, in);
    j.lora_a_rows = lora_a_rows(cx);
    int of_rows = (cx->n + j.lora_a_rows - 1) / j.lora_a_rows;
    j.first_linear = cx->linear_of[in.from];
    if (cx->n_segments) j.lora_a_tasks = (cx->linear_of[in.to] - j.first_linear + 1) * of_rows;
    atomic_store_explicit(&cx->lora_a_left, j.lora_a_tasks, memory_order_relaxed);
    const int tiles = tiles_of(a) + tiles_of(b) + tiles_of(c);
    const int parts = sd_pool_threads(cx->pool) * SD_TASKS_PER_THREAD;
    j.width = (tiles + parts - 1) / parts;
    sd_pool_run(cx->pool, j.lora_a_tasks + (tiles + j.width - 1) / j.width, run_col_task, &j);
}
