#include "tests/cuda/model/pass.h"

#include "base/memory.h"
#include "tests/unit/trainer/support_gradcheck.h"

#include <math.h>
#include <string.h>

void open_case(train_case *c, sd_model *m, const char *which, unsigned layers, int r) {
    *c = (train_case){.m = m};
    check(m, "no model");
    train_layout(&c->lay, m, which, layers, r, false);
    c->theta = sd_alloc(c->lay.n_params, sizeof *c->theta);
    check(c->theta, "out of memory");
    gradcheck_fill_f32(c->theta, c->lay.n_params, 11, 0, 0.3);
    train_batch(&c->d, m->hp.V);
    c->o = (sd_train_options){.max_tokens = TRAIN_ROWS * TRAIN_T, .compute = SD_TRAIN_FP32};
}

void close_case(train_case *c) {
    free(c->theta);
    sd_lora_layout_free(&c->lay);
    sd_model_release(c->m);
}

sd_learner open_train_on(const train_case *c, int devices) {
    sd_learner t;
    sd_error err = {0};
    must(sd_cuda_learner_open(&t, c->m, &c->lay, NULL, &c->o, (sd_cuda_devices){0, devices}, &err),
         &err);
    return t;
}
sd_learner open_train(const train_case *c) {
    return open_train_on(c, 1);
}

way open_way(const train_case *c, int devices) {
    const size_t n = c->lay.n_params;
    sd_error err = {0};
    way w = {
        .a = {sd_alloc(n, sizeof(float)), sd_alloc(n, sizeof(float)), sd_alloc(n, sizeof(float))}};
    check(w.a.theta && w.a.m && w.a.v, "out of memory");
    memcpy(w.a.theta, c->theta, n * sizeof(float));
    if (devices)
        w.learner = open_train_on(c, devices);
    else
        must(sd_learner_open_cpu(&w.learner, c->m, &c->lay, NULL, &c->o, &err), &err);
    must(w.learner.attach(w.learner.ctx, &w.a, &err), &err);
    return w;
}
void close_way(way *w) {
    sd_learner_close(&w->learner);
    free(w->a.theta), free(w->a.m), free(w->a.v);
}

sd_train_batch part_of(const train_case *c, int i, int n) {
    const int row = i % TRAIN_ROWS, cut = i * TRAIN_T / (3 * n);
    const size_t at = (size_t)row * TRAIN_T + (size_t)cut;
    return (sd_train_batch){.rows = 1,
                            .T = TRAIN_T - cut,
                            .token = c->d.token + at,
                            .label = c->d.label + at,
                            .segment = c->d.segment + at};
}

static train_result empty_result(const train_case *c, sd_train_batch *b, bool backward) {
    train_result r = {0};
    *b = c->d.batch;
    check(sd_train_segments(b) <= MOST_SEGMENTS, "%d segments", sd_train_segments(b));
    if (!backward) return r;
    r.grad = sd_alloc(c->lay.n_params, sizeof *r.grad);
    check(r.grad, "out of memory");
    return r;
}

train_result on_device(const sd_learner *t, const train_case *c, bool backward) {
    sd_error err = {0};
    sd_train_batch b;
    train_result r = empty_result(c, &b, backward);
    b.logp = r.logp;
    must(t->attach(t->ctx, &(sd_learner_arrays){.theta = c->theta}, &err), &err);
    must(backward ? t->accumulate(t->ctx, &b, &err) : t->loss(t->ctx, &b, &err), &err);
    must(t->finish(t->ctx, &r.sum, &err), &err);
    if (backward) must(sd_cuda_learner_look(t, 0, NULL, r.grad, &err), &err);
    return r;
}

train_result on_cpu(const train_case *c, bool backward) {
    sd_error err = {0};
    sd_train *t = NULL;
    sd_train_batch b;
    train_result r = empty_result(c, &b, backward);
    b.logp = r.logp;
    must(sd_train_open(&t, c->m, &c->lay, NULL, &c->o, &err), &err);
    must(backward ? sd_train_accumulate(t, c->theta, r.grad, &b, &r.sum, &err)
                  : sd_train_loss(t, c->theta, &b, &r.sum, &err),
         &err);
    sd_train_close(t);
    return r;
}

void free_result(train_result *r) {
    free(r->grad);
    *r = (train_result){0};
}

double worst_gradient(const float *got, const float *want, const sd_lora_layout *lay) {
    double worst = 0;
    for (int i = 0; i < lay->n_linears; i++) {
        const sd_lora_slot *s = &lay->slot[i];
        const size_t begin[] = {s->a, s->b}, width[] = {(size_t)s->in, (size_t)s->out};
        for (int k = 0; k < 2 && s->r; k++) {
            const double off = distance(got + begin[k], want + begin[k], (size_t)s->r * width[k]);
            if (!(off <= worst)) worst = off; // NaN stays
        }
    }
    return worst;
}

void must_agree(const train_result *got, const train_result *want, const train_case *c,
                double share, const char *what) {
    check(got->sum.supervised == want->sum.supervised && got->sum.tokens == want->sum.tokens,
          "%s: other tokens are counted", what);
    check(fabs(got->sum.loss - want->sum.loss) <= share * fabs(want->sum.loss),
          "%s: the loss is %.9g, want %.9g", what, got->sum.loss, want->sum.loss);
    for (int i = 0; i < sd_train_segments(&c->d.batch); i++)
        check(fabs(got->logp[i] - want->logp[i]) <= share * fabs(want->logp[i]) + 1e-12,
              "%s: segment %d has %.9g, want %.9g", what, i, got->logp[i], want->logp[i]);
    if (!want->grad) return;
    const double off = worst_gradient(got->grad, want->grad, &c->lay);
    check(off <= share, "%s: a gradient is off by %.3g", what, off);
}

bool same_bits(const train_result *a, const train_result *b, const train_case *c) {
    return memcmp(a->grad, b->grad, c->lay.n_params * sizeof *a->grad) == 0 &&
           a->sum.loss == b->sum.loss && memcmp(a->logp, b->logp, sizeof a->logp) == 0;
}
