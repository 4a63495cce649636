// One build's matrix products, for matmul_in_turns.c: it is linked with that build's whole library
// into a shared object, so that two builds stand in one process. Compiled against each checkout's own
// headers.
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 192, MAX_TYPE = 64, COPIES = 64, COLD = 256 << 20 }; // COLD: bytes of copies
static const sd_ops *ops;
static sd_packed_weight copy[COPIES];
static int copies, M, K;
static sd_quant_rows rows;
static float *x, *y;

int open_matmul(const char *isa, const char *type, int m, int k);
void set_rows(int n);
void run_matmul(int turn, int n);

// Codes and scales that are finite in every type, and not all equal.
static void *some_weights(size_t bytes) {
    uint8_t *data = malloc(bytes);
    for (size_t i = 0; data && i < bytes; i++) data[i] = (uint8_t)(i * 2654435761u >> 13 & 31);
    return data;
}

static int find_type(const char *name) {
    for (int t = 0; t < MAX_TYPE; t++)
        if (sd_dtype_known((uint32_t)t) && strcmp(sd_dtype_name((sd_dtype)t), name) == 0) return t;
    return -1;
}

// The product y [n, m] = x [n, k] w^T for up to MAX_ROWS rows, with as many copies of w as no cache
// holds. 0: this machine has no such instructions.
int open_matmul(const char *isa, const char *type, int m, int k) {
    sd_error err = {0};
    int t = find_type(type);
    ops = sd_ops_named(isa);
    if (!ops) return 0;
    if (t < 0) {
        fprintf(stderr, "type %s is unknown\n", type);
        exit(1);
    }
    M = m, K = k;
    size_t bytes = (size_t)m * sd_row_bytes((sd_dtype)t, k);
    void *data = some_weights(bytes);
    x = malloc((size_t)MAX_ROWS * (size_t)k * sizeof *x);
    y = malloc((size_t)MAX_ROWS * (size_t)m * sizeof *y);
    if (!data || !x || !y) exit(1);
    for (size_t i = 0; i < (size_t)MAX_ROWS * (size_t)k; i++) x[i] = (float)(i % 97) * .02f - 1;
    const sd_weight w = {.dtype = (sd_dtype)t, .rows = m, .cols = k, .data = data};
    sd_status st = sd_quant_rows_init(&rows, MAX_ROWS, k, SD_COMPUTE_AUTO, &err);
    for (copies = 0; st == SD_OK && copies < COPIES && (size_t)copies * bytes < COLD; copies++)
        st = ops->pack(&copy[copies], &w, SD_COMPUTE_AUTO, NULL, &err);
    if (st != SD_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    return 1;
}

// The rows that the next products have.
void set_rows(int n) {
    sd_quant_rows_shape(&rows, n, K, sd_quant_rows_group(copy[0].w.dtype));
    ops->quantize_rows(&rows, x, 0, n);
}

void run_matmul(int turn, int n) {
    ops->matmul(y, M, &copy[turn % copies], &rows, n, 0, M);
}
