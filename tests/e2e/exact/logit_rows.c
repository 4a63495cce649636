#include "tests/e2e/exact/logit_rows.h"

#include "base/memory.h"

#include <string.h>

enum { CHUNK = 33, LAST_ROWS = 49, WHOLE = 512 };

typedef struct {
    int32_t *token; // [n]
    int n, first;   // rows first..n-1 are compared
    float *logits;  // [n - first, V]: the reference
    sd_kv *kv;
} sequence;

typedef struct {
    sd_model *model;
    sd_adapter *adapter;
    sd_context *cx;
    float *got; // [LAST_ROWS, V]
    sequence q[EXACT_BATCH];
    int n;
    int64_t *equal, *all;
} rows;

// Rows from..to-1 of one sequence in steps of `block`; their logits from `first` on are compared, or are
// the reference (block 1).
static sd_status forward_rows(rows *r, const sequence *q, int from, int to, int block,
                              bool reference, sd_error *err) {
    sd_status st = SD_OK;
    size_t V = (size_t)r->model->hp.V;
    sd_row row[WHOLE];
    for (int pos = from; pos < to; pos += block) {
        int n = to - pos < block ? to - pos : block, want = 0;
        for (int i = 0; i < n; i++) {
            bool wanted = pos + i >= q->first;
            row[i] = (sd_row){q->token[pos + i], pos + i, q->kv, r->adapter, wanted, NULL, NULL};
            want += wanted;
        }
        int first = pos + n - want - q->first; // of the reference's rows
        float *known = want ? q->logits + (size_t)first * V : NULL;
        SD_TRY(sd_forward(r->cx, row, n, reference ? known : r->got, err));
        q->kv->len = pos + n;
        for (int i = 0; !reference && i < want; i++)
            *r->equal +=
                memcmp(r->got + (size_t)i * V, known + (size_t)i * V, V * sizeof *known) == 0;
    }
out:
    return st;
}

// One row of every sequence a step: what a batch decodes.
static sd_status forward_batch(rows *r, sd_error *err) {
    sd_status st = SD_OK;
    size_t V = (size_t)r->model->hp.V;
    for (int j = 0;; j++) {
        sd_row row[EXACT_BATCH];
        int n = 0, of[EXACT_BATCH];
        for (int k = 0; k < r->n; k++) {
            const sequence *q = &r->q[k];
            int pos = q->first + j;
            if (pos >= q->n) continue;
            of[n] = k;
            row[n++] = (sd_row){q->token[pos], pos, q->kv, r->adapter, true, NULL, NULL};
        }
        if (n == 0) break;
        SD_TRY(sd_forward(r->cx, row, n, r->got, err));
        for (int i = 0; i < n; i++) {
            const sequence *q = &r->q[of[i]];
            q->kv->len = q->first + j + 1;
            *r->equal += memcmp(r->got + (size_t)i * V, q->logits + (size_t)j * V,
                                V * sizeof *q->logits) == 0;
        }
        *r->all += n;
    }
out:
    return st;
}

static sd_status make_sequence(sequence *q, const rows *r, const exact_text *t, sd_error *err) {
    sd_status st = SD_OK;
    q->n = t->n_prompt + t->n_answer;
    int last = t->n_answer + 1 < LAST_ROWS ? t->n_answer + 1 : LAST_ROWS;
    q->first = q->n - last;
    q->token = sd_alloc((size_t)q->n, sizeof *q->token);
    q->logits = sd_alloc((size_t)last * (size_t)r->model->hp.V, sizeof *q->logits);
    SD_CHECK_ALLOC(q->token && q->logits, err);
    memcpy(q->token, t->prompt, (size_t)t->n_prompt * sizeof *q->token);
    if (t->n_answer)
        memcpy(q->token + t->n_prompt, t->answer, (size_t)t->n_answer * sizeof *q->token);
    SD_TRY(sd_kv_open(&q->kv, r->cx, q->n, err));
out:
    return st;
}

// The prompt's chunks take turns too; the last block takes prompt and answer at once.
static sd_status forward_blocks(rows *r, const sequence *q, sd_error *err) {
    static const int blocks[] = {2, 4, 9, LAST_ROWS, WHOLE};
    sd_status st = SD_OK;
    for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++) {
        int from = blocks[b] == WHOLE ? 0 : q->first;
        SD_TRY(forward_rows(r, q, 0, from, b % 2 ? CHUNK : WHOLE, false, err));
        SD_TRY(forward_rows(r, q, from, q->n, blocks[b], false, err));
        *r->all += q->n - q->first;
    }
out:
    return st;
}

sd_status exact_compare_rows(int64_t *equal, int64_t *all, sd_model *m, sd_adapter *adapter,
                             const exact_text *text, int n, sd_error *err) {
    sd_status st = SD_OK;
    sd_pool *pool = NULL;
    rows r = {.model = m, .adapter = adapter, .n = n, .equal = equal, .all = all};
    r.got = sd_alloc((size_t)LAST_ROWS * (size_t)m->hp.V, sizeof *r.got);
    SD_CHECK_ALLOC(r.got, err);
    for (int threads = 1; threads <= 2; threads++) {
        SD_TRY(sd_pool_open(&pool, threads, err));
        SD_TRY(sd_context_open(&r.cx, m, pool, &(sd_context_options){.max_rows = WHOLE}, err));
        for (int k = 0; k < n; k++) {
            if (threads == 1) {
                SD_TRY(make_sequence(&r.q[k], &r, &text[k], err));
                SD_TRY(forward_rows(&r, &r.q[k], 0, r.q[k].n, 1, true, err));
            }
            SD_TRY(forward_blocks(&r, &r.q[k], err));
        }
        SD_TRY(forward_batch(&r, err));
        sd_context_close(r.cx), r.cx = NULL;
        sd_pool_close(pool), pool = NULL;
    }
out:
    sd_context_close(r.cx);
    sd_pool_close(pool);
    for (int k = 0; k < n; k++) {
        sd_kv_close(r.q[k].kv);
        free(r.q[k].token);
        free(r.q[k].logits);
    }
    free(r.got);
    return st;
}
