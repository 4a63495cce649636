// The training pass in bf16: its error against double precision is that of a naive pass whose products are given bf16.
#define SD_REAL_DOUBLE
#include "tests/cuda/model/pass.h"
#include "tests/cuda/model/rounded.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    double *grad, logp[MOST_SEGMENTS], loss;
} exact_result;

static exact_result in_double(const train_case *c, const double *theta, bool rounded) {
    exact_result r = {.grad = sd_alloc(c->lay.n_params, sizeof *r.grad)};
    sd_error err = {0};
    sd_train *t = NULL;
    sd_train_batch b = c->d.batch;
    sd_train_sum sum = {0};
    check(r.grad, "out of memory");
    sd_train_options o = c->o;
    o.compute = SD_TRAIN_FP32; // what a processor may lack
    b.logp = r.logp;
    products_are_rounded = rounded;
    must(sd_train_open(&t, c->m, &c->lay, NULL, &o, &err), &err);
    must(sd_train_accumulate(t, theta, r.grad, &b, &sum, &err), &err);
    sd_train_close(t);
    r.loss = sum.loss;
    return r;
}

static double off(const double *x, const double *want, size_t n) {
    double d = 0, size = 0;
    for (size_t i = 0; i < n; i++)
        d += (x[i] - want[i]) * (x[i] - want[i]), size += want[i] * want[i];
    return sqrt(d / size);
}

// The largest error of a kind of factor over all layers (A or B of a layer's i-th linear map), in those of the naive pass.
static double worst_share(const train_case *c, const float *got, const double *naive,
                          const double *exact) {
    double worst = 0;
    for (int i = 0; i < 2 * c->lay.linears; i++) {
        double mine = 0, allowed = 0;
        for (int l = 0; l < c->m->hp.L; l++) {
            const sd_lora_slot *s = &c->lay.slot[l * c->lay.linears + i / 2];
            const size_t at = i % 2 ? s->b : s->a,
                         n = (size_t)s->r * (size_t)(i % 2 ? s->out : s->in);
            for (size_t k = at; k < at + n; k++) {
                mine += pow((double)got[k] - exact[k], 2);
                allowed += pow(naive[k] - exact[k], 2);
            }
        }
        check(allowed > 0, "a naive pass has no error");
        const double share = sqrt(mine / allowed);
        if (!(share <= worst)) worst = share; // NaN stays
    }
    return worst;
}

TEST("in bf16 losses and every kind of gradient are off by at most twice what a naive pass is") {
    for (int i = 0; sd_arch_at(i); i++) {
        train_case c;
        open_case(&c, train_model_quantised(sd_arch_at(i), 17, SD_BF16), "qkvogud", 7, 8);
        c.o.compute = SD_TRAIN_BF16, c.o.context = 64;
        const char *name = sd_arch_name(sd_arch_at(i));
        double *theta = sd_alloc(c.lay.n_params, sizeof *theta), got_logp[MOST_SEGMENTS];
        check(theta, "out of memory");
        for (size_t k = 0; k < c.lay.n_params; k++) theta[k] = (double)c.theta[k];
        exact_result exact = in_double(&c, theta, false), naive = in_double(&c, theta, true);
        sd_learner t = open_train(&c);
        train_result got = on_device(&t, &c, true);
        const int n = sd_train_segments(&c.d.batch);
        memcpy(got_logp, got.logp, sizeof got_logp);
        const double allowed = off(naive.grad, exact.grad, c.lay.n_params),
                     share = worst_share(&c, got.grad, naive.grad, exact.grad),
                     loss = off(got_logp, exact.logp, (size_t)n),
                     loss_allowed = off(naive.logp, exact.logp, (size_t)n);
        printf("# %s: gradients at most %.2f of a naive pass's error, which is %.2g of their norm; "
               "log probabilities %.2g, naive %.2g\n",
               name, share, allowed, loss, loss_allowed);
        check(allowed > 1e-4 && allowed < 0.2, "%s: a naive pass is off by %.3g", name, allowed);
        check(share <= 2, "%s: a gradient has %.2f of a naive pass's error", name, share);
        check(loss <= 2 * loss_allowed, "%s: log probabilities are off by %.3g, naive by %.3g",
              name, loss, loss_allowed);
        free(theta), free(exact.grad), free(naive.grad);
        free_result(&got);
        sd_learner_close(&t);
        close_case(&c);
    }
}
