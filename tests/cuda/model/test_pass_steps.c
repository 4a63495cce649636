// Whole steps on the emulated device: gradients there, AdamW on the host, beside the CPU's.
#include "tests/cuda/model/pass.h"

#include "base/memory.h"
#include "trainer/optim/adamw.h"

#include <stdio.h>
#include <string.h>

// Both start from the same parameters and go their own ways; on the device's way, its gradient is the CPU's at the same parameters.
static void train_ten(const sd_arch *arch) {
    enum { STEPS = 10, DEVICE = 0, CPU = 1 };
    const sd_adamw_options adamw = {0.9, 0.999, 1e-8, 0.01};
    train_case c;
    open_case(&c, train_model(arch, 13), "qkvogud", 7, 3);
    // A row that sees itself alone gives q and k no gradient but roundings, and AdamW makes whole steps of them.
    for (int l = 0; l < c.m->hp.L; l++)
        if (c.m->layer[l].window) c.m->layer[l].window += 2;
    const size_t n = c.lay.n_params;
    float *theta[2], *m[2], *v[2], *own = c.theta;
    double worst = 0;
    for (int i = 0; i < 2; i++) {
        m[i] = sd_alloc(n, sizeof(float)), v[i] = sd_alloc(n, sizeof(float));
        theta[i] = sd_alloc(n, sizeof(float));
        check(theta[i] && m[i] && v[i], "out of memory");
        memcpy(theta[i], own, n * sizeof(float));
    }
    sd_cuda_train *t = open_train(&c);
    for (int step = 1; step <= STEPS; step++) {
        c.theta = theta[DEVICE];
        train_result got = on_device(t, &c, true), want = on_cpu(&c, true);
        must_agree(&got, &want, &c, 1e-5, sd_arch_name(arch));
        const double off = worst_gradient(got.grad, want.grad, &c.lay);
        worst = off > worst ? off : worst;
        c.theta = theta[CPU];
        train_result other = on_cpu(&c, true);
        const double scale = 1 / (double)want.sum.supervised;
        sd_adamw_step(theta[DEVICE], m[DEVICE], v[DEVICE], got.grad, n, scale, 5e-3, step, &adamw,
                      NULL);
        sd_adamw_step(theta[CPU], m[CPU], v[CPU], other.grad, n, scale, 5e-3, step, &adamw, NULL);
        free_result(&want), free_result(&got), free_result(&other);
    }
    const double apart = distance(theta[DEVICE], theta[CPU], n),
                 moved = distance(theta[CPU], own, n);
    check(moved > 0.05, "%s: weights moved by %.3g alone", sd_arch_name(arch), moved);
    check(apart <= 1e-3, "%s: weights are %.3g apart", sd_arch_name(arch), apart);
    printf("# %s: gradients of %d steps within %.2g; weights moved by %.2g and are %.2g apart\n",
           sd_arch_name(arch), STEPS, worst, moved, apart);
    for (int i = 0; i < 2; i++) free(theta[i]), free(m[i]), free(v[i]);
    c.theta = own;
    sd_cuda_train_close(t);
    close_case(&c);
}
TEST("ten steps of AdamW lead to the CPU's weights in each architecture") {
    for (int i = 0; sd_arch_at(i); i++) train_ten(sd_arch_at(i));
}
