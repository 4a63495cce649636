// What steps of 1 to 64 rows cost on the device, timed from the host: from a step's begin until its stream has been waited
// for, with tokens picked there, as an engine's steps are. Behind a prompt that is read first, so memory of keys is memory that
// somebody wrote.
#include "model/infer/cuda/private.h"

#include "base/clock.h"
#include "base/log.h"

enum { DEPTH = 128 };

typedef struct {
    sd_context *cx;
    sd_kv *kv;
} probe;

// Rows [pos, pos + n), the last `picks` of which pick a token.
static sd_status step(const probe *p, int pos, int n, int picks, sd_error *err) {
    static const sd_sampling greedy = {.top_p = 1};
    static const sd_pick pick = {.sampling = &greedy};
    sd_row row[SD_STEP_COST_MOST];
    sd_picked picked[SD_STEP_COST_MOST];
    for (int i = 0; i < n; i++)
        row[i] = (sd_row){.token = (i * 7919 + 1) % p->cx->model->hp.V,
                          .pos = pos + i,
                          .kv = p->kv,
                          .pick = i >= n - picks ? &pick : NULL};
    return sd_forward_pick(p->cx, row, n, NULL, picked, err);
}

static sd_status time_step(double *ms, void *ctx, int n, sd_error *err) {
    const probe *p = ctx;
    const int most = p->cx->max_picked;
    const double begin = sd_now_s();
    const sd_status st = step(p, DEPTH, n, n < most ? n : most, err);
    *ms = (sd_now_s() - begin) * 1e3;
    return st;
}

static sd_status measure(sd_step_costs *out, sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    probe p = {.cx = cx};
    SD_TRY(sd_kv_open(&p.kv, cx, DEPTH + SD_STEP_COST_MOST, err));
    for (int pos = 0; pos < DEPTH; pos += SD_STEP_COST_MOST)
        SD_TRY(step(&p, pos, SD_STEP_COST_MOST, 0, err));
    // Twice before they are timed: then each is recorded (graph.c), as in an engine that goes on.
    for (int i = 0; i < 2 * SD_STEP_COSTS; i++) {
        double ignored;
        SD_TRY(time_step(&ignored, &p, sd_step_cost_rows[i % SD_STEP_COSTS], err));
    }
    SD_TRY(sd_step_costs_measure(out, time_step, &p, err));
out:
    sd_kv_close(p.kv);
    return st;
}

bool sd_cuda_step_costs(sd_step_costs *out, sd_context *cx) {
    sd_error err;
    if (cx->max_rows < SD_STEP_COST_MOST) return false;
    const bool known = measure(out, cx, &err) == SD_OK;
    if (!known && err.status != SD_EINTERRUPTED)
        sd_log(SD_LOG_WARN, "%s; the costs of steps are learnt anew", err.message);
    return known;
}
