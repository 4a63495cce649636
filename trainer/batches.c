// Rows are a few kB and a step takes seconds, so a micro-batch is simply copied together; what
// counts is that the same (epoch, index) gives the same batch after any number of interruptions.
#include "trainer/batches.h"

#include <stdlib.h>
#include <string.h>

sd_status sd_rows_open(sd_rows *out, const sd_dataset *d, sd_error *err) {
    sd_status st = SD_OK;
    int64_t rows = sd_dataset_rows(d);
    *out = (sd_rows){.data = d, .n = rows};
    out->tokens = sd_alloc((size_t)rows, sizeof *out->tokens);
    SD_CHECK_ALLOC(out->tokens, err);
    for (int64_t i = 0; i < rows; i++) {
        sd_dataset_row row;
        SD_TRY(sd_dataset_read(d, i, &row, err));
        out->tokens[i] = row.used;
        out->total += row.used;
        if (row.used > out->longest) out->longest = row.used;
    }
    out->labelled = sd_dataset_supervised(d);
out:
    if (st != SD_OK) sd_rows_close(out);
    return st;
}

void sd_rows_close(sd_rows *r) {
    free(r->tokens);
    *r = (sd_rows){0};
}

int64_t sd_order_item(const sd_order *o, int64_t epoch, int64_t index) {
    return sd_dataset_permute(o->rows->n, o->seed, epoch, index, o->shuffle);
}

int64_t sd_order_step(const sd_order *o, int64_t epoch, int64_t index, int64_t *tokens) {
    int64_t n = 0, sum = 0, left = o->rows->n - index;
    for (; n < left; n++) {
        int64_t t = o->rows->tokens[sd_order_item(o, epoch, index + n)];
        bool full = o->batch_rows ? n == o->batch_rows : n > 0 && sum + t > o->batch_tokens;
        if (full) break;
        sum += t;
    }
    if (tokens) *tokens = sum;
    return n > 0 ? n : 0;
}

int64_t sd_order_steps(const sd_order *o, int64_t epochs, int64_t *largest) {
    int64_t steps = 0, max = 0;
    for (int64_t e = 0; e < epochs; e++) {
        for (int64_t at = 0, tokens; at < o->rows->n; steps++) {
            at += sd_order_step(o, e, at, &tokens);
            if (tokens > max) max = tokens;
        }
    }
    if (largest) *largest = max;
    return steps;
}

void sd_batch_free(sd_batch *b) {
    free(b->token);
    free(b->label);
    free(b->segment);
    *b = (sd_batch){0};
}

static sd_status reserve(sd_batch *b, size_t places, sd_error *err) {
    if (places <= b->cap) return SD_OK;
    sd_batch_free(b);
    b->token = sd_alloc(places, sizeof *b->token);
    b->label = sd_alloc(places, sizeof *b->label);
    b->segment = sd_alloc(places, sizeof *b->segment);
    if (!b->token || !b->label || !b->segment) {
        sd_batch_free(b);
        return sd_fail(err, SD_ENOMEM,
                       "out of memory for a batch of %zu places; lower "
                       "train.micro_batch_tokens",
                       places);
    }
    b->cap = places;
    return SD_OK;
}

sd_status sd_batch_fill(sd_batch *b, const sd_rows *r, const int64_t *item, int n, sd_error *err) {
    sd_status st = SD_OK;
    int T = 0;
    size_t places;
    for (int i = 0; i < n; i++)
        if (r->tokens[item[i]] > T) T = r->tokens[item[i]];
    SD_CHECK(sd_mul_size(&places, (size_t)n, (size_t)T), err, SD_ELIMIT, "a batch is too large");
    SD_TRY(reserve(b, places, err));
    for (int i = 0; i < n; i++) {
        sd_dataset_row row;
        size_t at = (size_t)i * (size_t)T, end = at + (size_t)T;
        SD_TRY(sd_dataset_read(r->data, item[i], &row, err));
        for (int t = 0; t < row.used; t++, at++) {
            b->token[at] = row.token[t];
            b->label[at] = row.label[t];
            b->segment[at] = row.segment[t];
        }
        for (; at < end; at++) b->token[at] = 0, b->label[at] = SD_NO_LABEL, b->segment[at] = -1;
    }
    b->batch = (sd_train_batch){
        .rows = n, .T = T, .token = b->token, .label = b->label, .segment = b->segment};
out:
    return st;
}
