// The table is shared by its context and by every adapter that has weights in it: each adapter
// tells it when it goes, and the last of them all frees it. So a context may be closed before or
// after its adapters, and an adapter may go on any thread.
//
// Where activations are rounded to 8 bits the factors are held in fewer bits, as a step of many
// adapters waits for their bytes: A as Q8_0, whose products take the rounded activations that the
// base's take, B, whose rows are too short for that, in bf16.
#include "model/infer/cpu/lora_weights.h"

#include "kernels/dequantize.h"

#include <pthread.h>
#include <string.h>

struct sd_lora_table {
    const sd_ops *ops;
    sd_compute compute;
    pthread_mutex_t lock; // of what follows
    int holders;          // the context, and adapters that will tell when they go
    sd_lora_weights *first;
};

// B's values <- x * scale in type t, F32 or BF16; returns the room they took.
static size_t store_b(char *values, const float *x, size_t n, float scale, sd_dtype t) {
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * scale;
        if (t == SD_F32) {
            memcpy(values + 4 * i, &v, 4);
        } else {
            uint16_t h = sd_float_to_bf16(v);
            memcpy(values + 2 * i, &h, 2);
        }
    }
    return n * (t == SD_F32 ? 4 : 2);
}

// A's values <- x [r, cols] in type t, F32, BF16 or Q8_0; returns the room they took.
static size_t store_a(char *values, const float *x, int r, int cols, sd_dtype t) {
    if (t != SD_Q8_0) return store_b(values, x, (size_t)r * (size_t)cols, 1, t);
    const size_t row = sd_row_bytes(t, cols);
    for (int i = 0; i < r; i++)
        sd_quantise(values + (size_t)i * row, t, x + (size_t)i * (size_t)cols, cols);
    return (size_t)r * row;
}

static void free_weights(sd_lora_weights *w) {
    for (int i = 0; w->of && i < w->n_linears; i++) {
        sd_packed_weight_free(&w->of[i].A);
        for (int k = 0; k < 3; k++) sd_packed_weight_free(&w->of[i].B[k]);
    }
    free(w->values);
    free(w->of);
    free(w);
}

static sd_dtype b_type(sd_compute compute) {
    return compute == SD_COMPUTE_FP32 ? SD_F32 : SD_BF16;
}

// A meets what the map's own weight meets: int8 where that is quantised.
static sd_dtype a_type(sd_compute compute, const sd_linear *m) {
    return compute == SD_COMPUTE_AUTO && sd_dtype_quantised(m->w.dtype) ? SD_Q8_0 : b_type(compute);
}

// A packed form is a copy, or refers to the values.
static size_t bytes_of(const sd_ops *ops, sd_dtype t, int rows, int cols) {
    sd_weight w = {.dtype = t, .rows = rows, .cols = cols};
    return ops->layout ? ops->pack_bytes(&w) : (size_t)rows * sd_row_bytes(t, cols);
}

size_t sd_lora_weights_bytes(const int *rank, const sd_model *base, const sd_ops *ops,
                             sd_compute compute) {
    const int n = base->n_linears;
    sd_dtype t = b_type(compute);
    size_t sum = sizeof(sd_lora_weights) + (size_t)n * sizeof(sd_lora_packed);
    for (int i = 0; i < n; i++) {
        const sd_linear *m = &base->linear[i];
        if (!rank[i]) continue;
        sum += bytes_of(ops, a_type(compute, m), rank[i], m->w.cols);
        for (int k = 0; k < m->kind->matrices; k++) {
            int rows, cols;
            sd_proj_shape(&base->hp, (sd_proj)((int)m->kind->first + k), &rows, &cols);
            sum += bytes_of(ops, t, rows, rank[i]);
        }
    }
    return sum;
}

static sd_status make(sd_lora_weights **out, const sd_adapter *a, const sd_model *base,
                      const sd_ops *ops, sd_compute compute, sd_error *err) {
    sd_status st = SD_OK;
    sd_dtype t = b_type(compute);
    int n = a->n_linears;
    *out = NULL;
    sd_lora_weights *w = sd_alloc(1, sizeof *w);
    SD_CHECK_ALLOC(w, err);
    w->generation = a->generation;
    w->n_linears = n;
    w->bytes = sizeof *w + (size_t)n * sizeof *w->of;
    w->of = sd_alloc((size_t)n, sizeof *w->of);
    w->values = sd_alloc((size_t)a->n_params, t == SD_F32 ? 4 : 2);
    SD_CHECK_ALLOC(w->of && w->values, err);
    char *next = w->values;
    for (int i = 0; i < n; i++) {
        const sd_lora *l = &a->lora[i];
        if (!l->r) continue;
        const sd_linear *m = &base->linear[i];
        sd_weight A = {.dtype = a_type(compute, m), .rows = l->r, .cols = m->w.cols, .data = next};
        next += store_a(next, l->A, l->r, m->w.cols, A.dtype);
        SD_TRY(ops->pack(&w->of[i].A, &A, compute, NULL, err));
        w->bytes += w->of[i].A.bytes;
        const float *rows_of_b = l->B;
        for (int k = 0; k < m->kind->matrices; k++) {
            int rows, cols;
            sd_proj_shape(&base->hp, (sd_proj)((int)m->kind->first + k), &rows, &cols);
            sd_weight B = {.dtype = t, .rows = rows, .cols = l->r, .data = next};
            next += store_b(next, rows_of_b, (size_t)l->r * (size_t)rows, l->scale, t);
            rows_of_b += (size_t)l->r * (size_t)rows;
            SD_TRY(ops->pack(&w->of[i].B[k], &B, compute, NULL, err));
            w->bytes += w->of[i].B[k].bytes;
        }
        w->of[i].r = l->r;
    }
    if (ops->layout) { // the packed forms are copies
        free(w->values);
        w->values = NULL;
    } else {
        w->bytes += (size_t)(next - w->values);
    }
    *out = w;
    w = NULL;
out:
    if (w) free_weights(w);
    return st;
}

// ---- who holds the table

sd_status sd_lora_table_open(sd_lora_table **out, const sd_ops *ops, sd_compute compute,
                             sd_error *err) {
    sd_status st = SD_OK;
    sd_lora_table *t = sd_alloc(1, sizeof *t);
    SD_CHECK_ALLOC(t, err);
    t->ops = ops;
    t->compute = compute;
    t->holders = 1;
    pthread_mutex_init(&t->lock, NULL);
out:
    *out = t;
    return st;
}

// One holder less, and with it the weights of one adapter, or of all (generation 0).
static void let_go(sd_lora_table *t, uint64_t generation) {
    sd_lora_weights *gone = NULL;
    pthread_mutex_lock(&t->lock);
    for (sd_lora_weights **at = &t->first; *at;) {
        sd_lora_weights *w = *at;
        if (generation && w->generation != generation) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = gone, gone = w;
    }
    bool last = --t->holders == 0;
    pthread_mutex_unlock(&t->lock);
    for (sd_lora_weights *next; gone; gone = next) {
        next = gone->next;
        free_weights(gone);
    }
    if (!last) return;
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static void adapter_gone(void *table, uint64_t generation) {
    let_go(table, generation);
}

void sd_lora_table_close(sd_lora_table *t) {
    if (t) let_go(t, 0);
}

// ---- what is in it

static sd_lora_weights *find_locked(const sd_lora_table *t, uint64_t generation) {
    sd_lora_weights *w = t->first;
    while (w && w->generation != generation) w = w->next;
    return w;
}

static sd_lora_weights *find(sd_lora_table *t, uint64_t generation) {
    pthread_mutex_lock(&t->lock);
    sd_lora_weights *w = find_locked(t, generation);
    pthread_mutex_unlock(&t->lock);
    return w;
}

sd_status sd_lora_table_get(const sd_lora_weights **out, sd_lora_table *t, const sd_adapter *a,
                            const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    sd_lora_weights *made = NULL;
    *out = find(t, a->generation);
    if (*out) return SD_OK;
    // Without the lock: others' steps go on meanwhile.
    SD_TRY(make(&made, a, base, t->ops, t->compute, err));
    pthread_mutex_lock(&t->lock);
    *out = find_locked(t, a->generation); // another thread may have been quicker
    if (!*out) st = sd_adapter_on_release(a, adapter_gone, t, err);
    if (!*out && st == SD_OK) {
        t->holders++;
        made->next = t->first;
        *out = t->first = made;
        made = NULL;
    }
    pthread_mutex_unlock(&t->lock);
out:
    if (made) free_weights(made);
    return st;
}

size_t sd_lora_table_bytes(sd_lora_table *t) {
    size_t sum = 0;
    pthread_mutex_lock(&t->lock);
    for (const sd_lora_weights *w = t->first; w; w = w->next) sum += w->bytes;
    pthread_mutex_unlock(&t->lock);
    return sum;
}

int sd_lora_table_count(sd_lora_table *t) {
    int n = 0;
    pthread_mutex_lock(&t->lock);
    for (const sd_lora_weights *w = t->first; w; w = w->next) n++;
    pthread_mutex_unlock(&t->lock);
    return n;
}
