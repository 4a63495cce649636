// What the loop sees of training on one device or several. A micro-batch leaves its gradient where the next one of its device writes its own, so
// gradients are added to the step's as soon as each device has had a micro-batch.
#include "trainer/pass/cuda/private.h"

#include "base/memory.h"

typedef struct {
    sd_cuda_ranks ranks;
    sd_learner_arrays a; // the caller's
    int next;            // the rank of the next micro-batch
    int waiting;         // ranks [0, waiting) have a gradient that is not in the step's
    bool begins;         // the step's gradient is that of the step before
    sd_train_sum sum;    // its counts
    sd_cuda_losses losses;
} learner;

static void forget(learner *l) {
    l->next = l->waiting = 0;
    l->begins = true;
    l->sum = (sd_train_sum){0};
    l->losses.n = 0;
}

static sd_status collect_all(learner *l, sd_error *err) {
    sd_status st = SD_OK;
    for (int r = 0; r < l->ranks.n; r++)
        for (int i = 0; i < 2; i++)
            SD_TRY(sd_cuda_train_collect(l->ranks.rank[r], i, &l->losses, err));
out:
    return st;
}

static sd_status attach(void *ctx, const sd_learner_arrays *a, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    l->a = *a;
    SD_TRY(collect_all(l, err)); // of a step that was given up
    forget(l);
    for (int r = 0; r < l->ranks.n; r++)
        SD_TRY(sd_cuda_train_load(l->ranks.rank[r], a->theta, a->m, a->v, err));
out:
    return st;
}

// All ranks have the same.
static sd_status read_arrays(void *ctx, bool state, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    sd_cuda_train *t = l->ranks.rank[0];
    SD_TRY(sd_cuda_train_read(t, l->a.theta, t->mem.theta, err));
    if (!state) goto out;
    SD_TRY(sd_cuda_train_read(t, l->a.m, t->mem.m, err));
    SD_TRY(sd_cuda_train_read(t, l->a.v, t->mem.v, err));
out:
    return st;
}

static sd_status add_waiting(learner *l, sd_error *err) {
    sd_status st = SD_OK;
    if (!l->waiting) goto out;
    SD_TRY(sd_cuda_ranks_add(&l->ranks, l->waiting, l->begins, err));
    l->begins = false;
    l->waiting = 0;
out:
    return st;
}

// On the next rank, unless nothing of it is supervised.
static sd_status run(learner *l, const sd_train_batch *b, bool backward, bool *queued,
                     sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(
        sd_cuda_train_run(l->ranks.rank[l->next], b, backward, queued, &l->sum, &l->losses, err));
    if (*queued) l->next = (l->next + 1) % l->ranks.n;
out:
    return st;
}

static sd_status accumulate(void *ctx, const sd_train_batch *b, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    bool queued;
    SD_TRY(run(l, b, true, &queued, err));
    l->waiting += queued;
    if (l->waiting == l->ranks.n) SD_TRY(add_waiting(l, err));
out:
    return st;
}

static sd_status loss(void *ctx, const sd_train_batch *b, sd_error *err) {
    bool queued;
    return run(ctx, b, false, &queued, err);
}

static sd_status finish(void *ctx, sd_train_sum *sum, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    SD_TRY(add_waiting(l, err));
    SD_TRY(sd_cuda_ranks_settle(&l->ranks, err));
    SD_TRY(collect_all(l, err));
    *sum = l->sum;
    for (size_t i = 0; i < l->losses.n; i++) sum->loss += l->losses.of[i];
    forget(l);
out:
    return st;
}

// Each rank's, from the same sums.
static sd_status norm(void *ctx, double *out, double scale, double max_norm, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    for (int r = l->ranks.n - 1; r >= 0; r--)
        SD_TRY(sd_cuda_train_norm(l->ranks.rank[r], r ? NULL : out, scale, max_norm, err));
out:
    return st;
}

static sd_status update(void *ctx, const sd_learner_update *u, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    for (int r = 0; r < l->ranks.n; r++) SD_TRY(sd_cuda_train_update(l->ranks.rank[r], u, err));
out:
    return st;
}

static void close_learner(void *ctx) {
    learner *l = ctx;
    if (!l) return;
    sd_cuda_ranks_close(&l->ranks);
    free(l->losses.of);
    free(l);
}

sd_status sd_cuda_learner_open(sd_learner *out, sd_model *m, const sd_lora_layout *lay,
                               sd_pool *pool, const sd_train_options *o, sd_cuda_devices devices,
                               sd_error *err) {
    sd_status st = SD_OK;
    sd_train_plan_report plan;
    sd_train_options resolved = *o;
    learner *l = sd_alloc(1, sizeof *l);
    *out = (sd_learner){0};
    SD_CHECK_ALLOC(l, err);
    SD_TRY(sd_cuda_train_plan(&plan, m, lay, o, devices, err));
    resolved.compute = plan.compute, resolved.recompute = plan.recompute;
    SD_TRY(
        sd_cuda_ranks_open(&l->ranks, m, lay, pool, &resolved, devices.first, devices.count, err));
    *out = (sd_learner){.ctx = l,
                        .attach = attach,
                        .read = read_arrays,
                        .accumulate = accumulate,
                        .loss = loss,
                        .finish = finish,
                        .norm = norm,
                        .update = update,
                        .close = close_learner};
    l = NULL;
out:
    close_learner(l);
    return st;
}

sd_status sd_cuda_learner_look(const sd_learner *l, int rank, float *theta, float *grad,
                               sd_error *err) {
    sd_status st = SD_OK;
    sd_cuda_train *t = ((learner *)l->ctx)->ranks.rank[rank];
    if (theta) SD_TRY(sd_cuda_train_read(t, theta, t->mem.theta, err));
    if (grad) SD_TRY(sd_cuda_train_read(t, grad, t->mem.grad_sum, err));
out:
    return st;
}
