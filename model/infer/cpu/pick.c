// Tokens from a step's logits, where they are: one row a task, each thread with a sampler of its own.
//
// When every wanted row wants its logits too, the head writes them where the caller wants them, and
// nothing is copied. Otherwise they stay here.
#include "model/infer/cpu/private.h"

#include "base/memory.h"

#include <string.h>

static size_t logits_bytes(const sd_context *cx) {
    return (size_t)cx->max_picked * (size_t)cx->model->hp.V * sizeof(float);
}

// One token is picked on the calling thread.
static int samplers_of(int max_picked, int threads) {
    return max_picked > 1 ? threads : 1;
}

size_t sd_pick_bytes(int max_picked, int V, int threads) {
    const size_t samplers = (size_t)samplers_of(max_picked, threads);
    if (max_picked == 0) return 0;
    return (size_t)max_picked * ((size_t)V * sizeof(float) + sizeof(int)) +
           samplers * (sizeof(sd_sampler *) + sd_sampler_bytes(V));
}

sd_status sd_pick_open(sd_context *cx, int max_picked, sd_error *err) {
    sd_status st = SD_OK;
    int samplers = samplers_of(max_picked, sd_pool_threads(cx->pool));
    SD_CHECK(max_picked >= 0 && max_picked <= cx->max_rows, err, SD_EINVAL,
             "tokens of %d rows a step, 0 to %d are possible", max_picked, cx->max_rows);
    if (max_picked == 0) goto out;
    cx->max_picked = max_picked;
    cx->pick_row = sd_alloc((size_t)max_picked, sizeof *cx->pick_row);
    cx->samplers = samplers;
    cx->sampler = sd_alloc((size_t)samplers, sizeof(sd_sampler *));
    SD_CHECK_ALLOC(cx->pick_row && cx->sampler, err);
    for (int i = 0; i < samplers; i++) {
        cx->sampler[i] = sd_sampler_open(cx->model->hp.V);
        SD_CHECK_ALLOC(cx->sampler[i], err);
    }
    cx->logits = map_zero(logits_bytes(cx));
    SD_CHECK(cx->logits, err, SD_ENOMEM, "out of memory for %d rows of %d logits; use fewer",
             max_picked, cx->model->hp.V);
out:
    return st;
}

void sd_pick_close(sd_context *cx) {
    if (cx->logits) munmap(cx->logits, logits_bytes(cx));
    for (int i = 0; cx->sampler && i < cx->samplers; i++) sd_sampler_close(cx->sampler[i]);
    free(cx->sampler);
    free(cx->pick_row);
}

sd_status sd_pick_check(const sd_context *cx, const sd_row *rows, int n, sd_error *err) {
    int wanted = 0, picks = 0;
    for (int i = 0; i < n; i++) {
        picks += rows[i].pick != NULL;
        wanted += rows[i].pick || rows[i].want_logits;
    }
    if (picks == 0 || wanted <= cx->max_picked) return SD_OK;
    return sd_fail(err, SD_EINVAL, "%d rows want logits or tokens, this context was opened for %d",
                   wanted, cx->max_picked);
}

float *sd_pick_logits(sd_context *cx, float *logits) {
    for (int i = 0; i < cx->n; i++)
        if (!cx->row[i].want_logits) return cx->logits;
    return logits;
}

typedef struct {
    sd_context *cx;
    const float *logits; // [n, V]
    sd_picked *picked;
} pick_job;

static void pick_task(void *ctx, int task, int worker) {
    const pick_job *j = ctx;
    const sd_row *row = &j->cx->row[j->cx->pick_row[task]];
    const sd_pick *pick = row->pick;
    int V = j->cx->model->hp.V;
    const float *logits = j->logits + (size_t)j->cx->pick_row[task] * (size_t)V;
    sd_picked p = {.token = sd_sample(j->cx->sampler[worker], logits, pick->shaping, pick->sampling,
                                      (int64_t)row->pos + 1)};
    if (pick->logprob && p.token >= 0) p.logprob = sd_logprob(logits, V, p.token);
    j->picked[task] = p;
}

void sd_pick_tokens(sd_context *cx, const float *from, float *logits, sd_picked *picked) {
    size_t V = (size_t)cx->model->hp.V;
    int picks = 0, copied = 0;
    for (int i = 0; i < cx->n; i++) {
        if (cx->row[i].pick) cx->pick_row[picks++] = i;
        if (cx->row[i].want_logits && from != logits)
            memcpy(logits + V * (size_t)copied++, from + V * (size_t)i, V * sizeof *logits);
    }
    pick_job j = {cx, from, picked};
    sd_pool_run(cx->pool, picks, pick_task, &j);
}
