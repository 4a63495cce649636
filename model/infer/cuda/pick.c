// The end of a step: logits of the rows that want them or a token, some rows at a time. Tokens are picked on the device
// as far as its sampler goes, and then only they come back; what it lacks (biases, penalties, log probabilities) is the
// host's, from the same logits, so a token does not depend on who picked it.
#include "model/infer/cuda/private.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static bool penalises(const sd_shaping *s) {
    return (s->n_seen || s->n_recent) &&
           ((s->repetition != 0 && s->repetition != 1) || s->frequency != 0 || s->presence != 0);
}

bool sd_cuda_picks(const sd_pick *p) {
    const sd_shaping *s = p->shaping;
    return !p->logprob && (!s || (!s->n_banned && !s->n_bias && !penalises(s)));
}

sd_cuda_pick sd_cuda_pick_of(const sd_row *r) {
    const sd_sampling *p = r->pick->sampling;
    const bool warm = p->temperature > 0, min_p = p->min_p > 0;
    return (sd_cuda_pick){
        .temperature = warm ? p->temperature : 0,
        .top_k = p->top_k,
        .top_p = p->top_p,
        .has_min_p = min_p,
        .log_min_p = min_p && p->min_p < 1 ? (double)p->temperature * log((double)p->min_p) : 0,
        .seed = p->seed,
        .choice = p->choice,
        .position = (uint32_t)r->pos + 1};
}

static sd_status open_samplers(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const int n = sd_pool_threads(cx->pool);
    if (cx->samplers == n) goto out;
    if (!cx->sampler) cx->sampler = sd_alloc((size_t)n, sizeof(sd_sampler *));
    SD_CHECK_ALLOC(cx->sampler, err);
    for (; cx->samplers < n; cx->samplers++) {
        cx->sampler[cx->samplers] = sd_sampler_open(cx->model->hp.V);
        SD_CHECK_ALLOC(cx->sampler[cx->samplers], err);
    }
out:
    return st;
}

void sd_cuda_pick_close(sd_context *cx) {
    for (int i = 0; i < cx->samplers; i++) sd_sampler_close(cx->sampler[i]);
    free(cx->sampler);
}

// ---- some rows: [k0, k0 + n) of those that are kept

static bool wants_host(const sd_context *cx, int k) {
    return cx->kept_row[k]->want_logits || cx->host_pick[k];
}

// Logits of neighbouring rows come in one copy.
static sd_status fetch_logits(sd_context *cx, int k0, int n, sd_error *err) {
    sd_status st = SD_OK;
    const size_t row = (size_t)cx->model->hp.V;
    for (int i = 0, end; i < n; i = end) {
        const bool wanted = wants_host(cx, k0 + i);
        for (end = i + 1; end < n && wants_host(cx, k0 + end) == wanted;) end++;
        if (!wanted) continue;
        SD_TRY(sd_cuda_grow(cx, &cx->to_host, (size_t)cx->logit_rows * row * sizeof(float), false,
                            true, "logits", err));
        CUDA_TRY(cx->dev->copy((float *)cx->to_host.host + (size_t)i * row,
                               cx->logits + (size_t)i * row,
                               (size_t)(end - i) * row * sizeof(float), cx->stream),
                 "copying logits");
    }
out:
    return st;
}

typedef struct {
    sd_context *cx;
    const float *logits; // [n, V]
    int k0;
    struct {
        int i; // row of the n
        sd_picked *to;
    } task[]; // those that the host picks
} host_picks;

static void pick_task(void *ctx, int task, int worker) {
    const host_picks *j = ctx;
    const sd_row *r = j->cx->kept_row[j->k0 + j->task[task].i];
    const sd_pick *p = r->pick;
    const int V = j->cx->model->hp.V;
    const float *logits = j->logits + (size_t)j->task[task].i * (size_t)V;
    sd_picked got = {.token = sd_sample(j->cx->sampler[worker], logits, p->shaping, p->sampling,
                                        (int64_t)r->pos + 1)};
    if (p->logprob && got.token >= 0) got.logprob = sd_logprob(logits, V, got.token);
    *j->task[task].to = got;
}

// Behind the wait: *logits and *picked <- what the rows wanted; both go on to the next rows' places.
static sd_status hand_out(sd_context *cx, int k0, int n, float **logits, sd_picked **picked,
                          sd_error *err) {
    sd_status st = SD_OK;
    const size_t V = (size_t)cx->model->hp.V;
    int tasks = 0;
    host_picks *j = sd_alloc(1, sizeof *j + (size_t)n * sizeof j->task[0]);
    SD_CHECK_ALLOC(j, err);
    *j = (host_picks){.cx = cx, .logits = cx->to_host.host, .k0 = k0};
    for (int i = 0; i < n; i++) {
        const sd_row *r = cx->kept_row[k0 + i];
        if (r->want_logits) {
            memcpy(*logits, j->logits + (size_t)i * V, V * sizeof **logits);
            *logits += V;
        }
        if (!r->pick) continue;
        if (cx->host_pick[k0 + i])
            j->task[tasks].i = i, j->task[tasks++].to = *picked;
        else
            **picked = (sd_picked){.token = cx->token_host[i]};
        ++*picked;
    }
    if (tasks) SD_TRY(open_samplers(cx, err));
    sd_pool_run(cx->pool, tasks, pick_task, j);
out:
    free(j);
    return st;
}

sd_status sd_cuda_queue_head(sd_context *cx, int k, int n, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const size_t row = (size_t)hp->C * sd_cuda_real_bytes(cx->real);
    CUDA_TRY(cx->dev->matmul(cx->logits, hp->V, &cx->weights.head,
                             (const char *)cx->h + (size_t)k * row, n, NULL, false, cx->real,
                             cx->stream),
             "the head");
    if (cx->pick) {
        CUDA_TRY(cx->dev->sample(cx->token, cx->logits, cx->pick + k, n, hp->V, cx->stream),
                 "picking tokens");
        CUDA_TRY(
            cx->dev->copy(cx->token_host, cx->token, (size_t)n * sizeof *cx->token, cx->stream),
            "copying tokens");
    }
out:
    return st;
}

sd_status sd_cuda_finish(sd_context *cx, float *logits, sd_picked *picked, sd_error *err) {
    sd_status st = SD_OK;
    for (int k = 0, n; k < cx->kept.n; k += n) {
        n = cx->kept.n - k < cx->logit_rows ? cx->kept.n - k : cx->logit_rows;
        SD_TRY(sd_cuda_queue_head(cx, k, n, err));
        SD_TRY(fetch_logits(cx, k, n, err));
        CUDA_TRY(cx->dev->stream_wait(cx->stream), "a step");
        SD_TRY(hand_out(cx, k, n, &logits, &picked, err));
    }
out:
    return st;
}
