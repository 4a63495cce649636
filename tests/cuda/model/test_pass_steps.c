// Whole steps on the emulated device, AdamW's among them, beside the CPU's.
#include "tests/cuda/model/pass.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CPU, DEVICE, WAYS };
static const double SHARE = 1e-5; // of a norm, for gradients from equal parameters

// *norm <- of the step, whose update is done.
static void take_step(way *w, const train_case *c, int step, sd_train_sum *sum, double *norm) {
    const size_t half = c->lay.n_params / 2;
    const sd_learner_range range[] = {{0, half, 1}, {half, c->lay.n_params - half, 3}};
    const sd_learner_update u = {
        .adamw = {0.9, 0.999, 1e-8, 0.01}, .lr = 3e-3, .step = step, .range = range, .ranges = 2};
    const sd_learner *l = &w->learner;
    sd_error err = {0};
    must(l->accumulate(l->ctx, &c->d.batch, &err), &err);
    must(l->finish(l->ctx, sum, &err), &err);
    must(l->norm(l->ctx, norm, 1 / (double)sum->supervised, 0.5, &err), &err);
    must(l->update(l->ctx, &u, &err), &err);
}

// Both start from the same parameters and go their own ways; on the device's way, its gradient is the CPU's at the same parameters.
static void train_ten(const sd_arch *arch) {
    enum { STEPS = 10 };
    train_case c;
    open_case(&c, train_model(arch, 13), "qkvogud", 7, 3);
    // A row that sees itself alone gives q and k no gradient but roundings, and AdamW makes whole steps of them.
    for (int l = 0; l < c.m->hp.L; l++)
        if (c.m->layer[l].window) c.m->layer[l].window += 2;
    const size_t n = c.lay.n_params;
    const char *name = sd_arch_name(arch);
    sd_error err = {0};
    double worst = 0;
    way w[WAYS] = {open_way(&c, 0), open_way(&c, 1)};
    float *own = c.theta;
    train_result got = {.grad = sd_alloc(n, sizeof(float))};
    check(got.grad, "out of memory");
    const sd_learner *device = &w[DEVICE].learner;
    for (int step = 1; step <= STEPS; step++) {
        sd_train_sum sum;
        double norm;
        must(device->read(device->ctx, false, &err), &err);
        c.theta = w[DEVICE].a.theta;
        train_result want = on_cpu(&c, true);
        take_step(&w[DEVICE], &c, step, &got.sum, &norm);
        must(sd_cuda_learner_look(device, 0, NULL, got.grad, &err), &err);
        memcpy(got.logp, want.logp, sizeof got.logp);
        must_agree(&got, &want, &c, SHARE, name);
        double length = 0;
        for (size_t i = 0; i < n; i++) length += pow((double)got.grad[i], 2);
        length = sqrt(length) / (double)got.sum.supervised;
        check(fabs(norm - length) <= 1e-10 * length, "%s: the norm is %.12g, want %.12g", name,
              norm, length);
        const double off = worst_gradient(got.grad, want.grad, &c.lay);
        worst = off > worst ? off : worst;
        free_result(&want);
        take_step(&w[CPU], &c, step, &sum, &norm);
    }
    for (int i = 0; i < WAYS; i++) must(w[i].learner.read(w[i].learner.ctx, true, &err), &err);
    const double apart = distance(w[DEVICE].a.theta, w[CPU].a.theta, n),
                 moved = distance(w[CPU].a.theta, own, n),
                 m = distance(w[DEVICE].a.m, w[CPU].a.m, n),
                 v = distance(w[DEVICE].a.v, w[CPU].a.v, n);
    check(moved > 0.05, "%s: weights moved by %.3g alone", name, moved);
    check(apart <= 1e-3 && m <= 1e-3 && v <= 1e-3,
          "%s: weights are %.3g apart, their moments %.3g and %.3g", name, apart, m, v);
    printf("# %s: gradients of %d steps within %.2g; weights moved by %.2g and are %.2g apart, "
           "their moments %.2g and %.2g\n",
           name, STEPS, worst, moved, apart, m, v);
    c.theta = own;
    free_result(&got);
    for (int i = 0; i < WAYS; i++) close_way(&w[i]);
    close_case(&c);
}
TEST("ten steps of AdamW lead to the CPU's weights in each architecture") {
    for (int i = 0; sd_arch_at(i); i++) train_ten(sd_arch_at(i));
}
// What a checkpoint holds is what the CPU's would hold: it goes there and back.
TEST("parameters and their state cross to the device and back with every bit") {
    train_case c;
    open_case(&c, train_model(&sd_arch_qwen2, 13), "qkvogud", 7, 3);
    const size_t n = c.lay.n_params;
    sd_error err = {0};
    way w = open_way(&c, 1);
    float *const all[] = {w.a.theta, w.a.m, w.a.v};
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; k < n; k++) all[i][k] = (float)((i + 1) * 1e-3 * sin((double)k));
    float *before = sd_alloc(3 * n, sizeof *before);
    check(before, "out of memory");
    for (int i = 0; i < 3; i++) memcpy(before + (size_t)i * n, all[i], n * sizeof *before);
    must(w.learner.attach(w.learner.ctx, &w.a, &err), &err);
    for (int i = 0; i < 3; i++) memset(all[i], 0xff, n * sizeof *before);
    must(w.learner.read(w.learner.ctx, true, &err), &err);
    for (int i = 0; i < 3; i++)
        check(memcmp(all[i], before + (size_t)i * n, n * sizeof *before) == 0, "array %d", i);
    free(before);
    close_way(&w);
    close_case(&c);
}
TEST("behind a step in bf16 products take the new parameters") {
    train_case c;
    open_case(&c, train_model(&sd_arch_llama, 13), "qkvogud", 7, 3);
    c.o.compute = SD_TRAIN_BF16;
    sd_error err = {0};
    way w = open_way(&c, 1), fresh = open_way(&c, 1);
    const sd_learner *l = &w.learner, *f = &fresh.learner;
    sd_train_sum before, after, again;
    double norm;
    take_step(&w, &c, 1, &before, &norm);
    must(l->loss(l->ctx, &c.d.batch, &err), &err);
    must(l->finish(l->ctx, &after, &err), &err);
    must(l->read(l->ctx, true, &err), &err);
    must(f->attach(f->ctx, &w.a, &err), &err);
    must(f->loss(f->ctx, &c.d.batch, &err), &err);
    must(f->finish(f->ctx, &again, &err), &err);
    check(after.loss < before.loss && after.loss == again.loss,
          "the loss is %.9g behind the step, %.9g before it, %.9g from its parameters", after.loss,
          before.loss, again.loss);
    close_way(&w), close_way(&fresh);
    close_case(&c);
}
