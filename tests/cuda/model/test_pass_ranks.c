// Training on several emulated devices: the bytes of one, whatever their number.
//
// Pieces in which gradients meet are of some hundred parameters here (tests/cuda/CMakeLists.txt), so that a tiny adapter has many.
#include "tests/cuda/device_emu.h"
#include "tests/cuda/model/pass.h"
#include "tests/cuda/nccl_emu.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

enum { STEPS = 2, MOST_DEVICES = 4, MOST_BATCHES = 7 };

// What a run of some steps leaves.
typedef struct {
    way w;
    double loss[STEPS], norm[STEPS], eval;
} trained;

static trained train_on(const train_case *c, int devices, int batches) {
    const sd_learner_range all = {0, c->lay.n_params, 1};
    sd_error err = {0};
    trained r = {.w = open_way(c, devices)};
    const sd_learner *l = &r.w.learner;
    for (int step = 0; step < STEPS; step++) {
        const sd_learner_update u = {.adamw = {0.9, 0.999, 1e-8, 0.01},
                                     .lr = 5e-3,
                                     .step = step + 1,
                                     .range = &all,
                                     .ranges = 1};
        sd_train_sum sum;
        for (int i = 0; i < batches; i++) {
            const sd_train_batch b = part_of(c, i, MOST_BATCHES);
            must(l->accumulate(l->ctx, &b, &err), &err);
        }
        must(l->finish(l->ctx, &sum, &err), &err);
        r.loss[step] = sum.loss;
        must(l->norm(l->ctx, &r.norm[step], 1 / (double)sum.supervised, 0.5, &err), &err);
        must(l->update(l->ctx, &u, &err), &err);
    }
    sd_train_sum eval;
    for (int i = 0; i < batches; i++) {
        const sd_train_batch b = part_of(c, i, MOST_BATCHES);
        must(l->loss(l->ctx, &b, &err), &err);
    }
    must(l->finish(l->ctx, &eval, &err), &err);
    r.eval = eval.loss;
    must(l->read(l->ctx, true, &err), &err);
    return r;
}

static void must_be_same(const trained *got, const trained *want, size_t n, int devices,
                         int batches) {
    for (int i = 0; i < STEPS; i++)
        check(got->loss[i] == want->loss[i] && got->norm[i] == want->norm[i],
              "%d devices, %d micro-batches, step %d: loss %.17g and norm %.17g, on one %.17g and "
              "%.17g",
              devices, batches, i + 1, got->loss[i], got->norm[i], want->loss[i], want->norm[i]);
    check(got->eval == want->eval, "%d devices: the loss at the end is %.17g, on one %.17g",
          devices, got->eval, want->eval);
    const sd_learner_arrays *a = &got->w.a, *b = &want->w.a;
    check(memcmp(a->theta, b->theta, n * sizeof(float)) == 0 &&
              memcmp(a->m, b->m, n * sizeof(float)) == 0 &&
              memcmp(a->v, b->v, n * sizeof(float)) == 0,
          "%d devices, %d micro-batches: parameters or their state have other bytes", devices,
          batches);
}

// Each rank has what is read from the first.
static void must_agree_among(const trained *t, size_t n, int devices) {
    sd_error err = {0};
    float *theta = sd_alloc(n, sizeof *theta), *grad = sd_alloc(2 * n, sizeof *grad);
    check(theta && grad, "out of memory");
    for (int r = 0; r < devices; r++) {
        float *own = r ? grad + n : grad;
        must(sd_cuda_learner_look(&t->w.learner, r, theta, own, &err), &err);
        check(memcmp(theta, t->w.a.theta, n * sizeof *theta) == 0 &&
                  memcmp(grad, own, n * sizeof *grad) == 0,
              "device %d of %d has other parameters or another gradient", r, devices);
    }
    free(theta), free(grad);
}

static void compare_counts(train_case *c, int batches) {
    const size_t n = c->lay.n_params;
    trained one = train_on(c, 1, batches);
    for (int devices = 2; devices <= MOST_DEVICES; devices++) {
        trained r = train_on(c, devices, batches);
        must_be_same(&r, &one, n, devices, batches);
        must_agree_among(&r, n, devices);
        close_way(&r.w);
        check(emulated_nccl_open() == 0, "%d communicators are left", emulated_nccl_open());
    }
    close_way(&one.w);
}

TEST("a step on two, three and four devices has the bytes of one, in fp32") {
    train_case c;
    open_case(&c, train_model(&sd_arch_llama, 13), "qkvogud", 7, 3);
    // Seven are odd for two, three and four: the last round is an uneven one. What one device gives is the CPU's (test_pass_steps).
    compare_counts(&c, MOST_BATCHES);
    close_case(&c);
}
TEST("and in bf16, with fewer micro-batches than devices") {
    train_case c;
    open_case(&c, train_model(&sd_arch_gemma3, 13), "qv", 7, 3);
    c.o.compute = SD_TRAIN_BF16;
    compare_counts(&c, 3);
    close_case(&c);
}
TEST("a micro-batch without a supervised token takes no turn, and another device's is its own") {
    train_case c;
    open_case(&c, train_model(&sd_arch_qwen2, 13), "qkvogud", 7, 3);
    sd_error err = {0};
    double loss[2];
    float *grad[2];
    for (int k = 0; k < 2; k++) {
        sd_learner t = open_train_on(&c, k ? 3 : 1);
        sd_train_sum sum;
        must(t.attach(t.ctx, &(sd_learner_arrays){.theta = c.theta}, &err), &err);
        for (int i = 0; i < 4; i++) {
            int32_t none[TRAIN_T];
            for (int n = 0; n < TRAIN_T; n++) none[n] = -100;
            sd_train_batch b = part_of(&c, i, MOST_BATCHES), empty = b;
            empty.label = none;
            must(t.accumulate(t.ctx, &b, &err), &err);
            must(t.accumulate(t.ctx, &empty, &err), &err);
        }
        must(t.finish(t.ctx, &sum, &err), &err);
        grad[k] = sd_alloc(c.lay.n_params, sizeof(float));
        check(grad[k], "out of memory");
        must(sd_cuda_learner_look(&t, k ? 2 : 0, NULL, grad[k], &err), &err);
        loss[k] = sum.loss;
        sd_learner_close(&t);
    }
    check(loss[0] == loss[1] && memcmp(grad[0], grad[1], c.lay.n_params * sizeof(float)) == 0,
          "losses %.17g and %.17g, or the gradients differ", loss[0], loss[1]);
    free(grad[0]), free(grad[1]);
    close_case(&c);
}
TEST("each device takes what was planned for it, and gives it back") {
    train_case c;
    open_case(&c, train_model(&sd_arch_qwen3, 3), "qkvogud", 6, 3);
    const size_t before = emulated_bytes();
    for (int devices = 1; devices <= MOST_DEVICES; devices++) {
        sd_train_plan_report plan;
        sd_error err = {0};
        must(sd_cuda_train_plan(&plan, c.m, &c.lay, &c.o, (sd_cuda_devices){0, devices}, &err),
             &err);
        size_t reserved = 0;
        for (int k = 0; k < plan.n; k++)
            if (strcmp(plan.row[k].part, "driver and libraries") == 0)
                reserved += plan.row[k].bytes;
        sd_learner t = open_train_on(&c, devices);
        const size_t device = emulated_device_bytes(), host = emulated_bytes() - device;
        check(device == (size_t)devices * (plan.total - reserved),
              "%d devices take %zu bytes, %zu are planned for each", devices, device,
              plan.total - reserved);
        check(host <= plan.row[plan.n - 1].bytes, "%zu bytes of the host, %zu planned", host,
              plan.row[plan.n - 1].bytes);
        sd_learner_close(&t);
        check(emulated_bytes() == before, "%zu bytes are left", emulated_bytes() - before);
    }
    close_case(&c);
}
TEST("each request for memory on several devices that is refused ends in one sentence") {
    train_case c;
    open_case(&c, train_model(&sd_arch_llama, 3), "q", 7, 3);
    sd_error err = {0};
    sd_learner t;
    int refused = 1;
    for (;; refused++) {
        emulated_refuse(refused);
        const sd_status st =
            sd_cuda_learner_open(&t, c.m, &c.lay, NULL, &c.o, (sd_cuda_devices){1, 2}, &err);
        if (st == SD_OK) break;
        check(st == SD_ENOMEM && !t.ctx && emulated_bytes() == 0, "request %d: %s", refused,
              err.message);
    }
    emulated_refuse(0);
    check(refused > 40, "%d requests", refused);
    sd_learner_close(&t);
    close_case(&c);
}
TEST("without NCCL, and with more devices than there are, one sentence says so") {
    train_case c;
    open_case(&c, train_model(&sd_arch_llama, 3), "q", 7, 3);
    sd_error err = {0};
    sd_learner t;
    emulated_without_nccl(true);
    check(sd_cuda_learner_open(&t, c.m, &c.lay, NULL, &c.o, (sd_cuda_devices){0, 2}, &err) ==
                  SD_ENOTFOUND &&
              strstr(err.message, "libnccl.so.2") && strstr(err.message, "device.count=1") &&
              !t.ctx,
          "no NCCL: %s", err.message);
    t = open_train(&c); // one device needs none
    sd_learner_close(&t);
    emulated_without_nccl(false);
    static const struct {
        sd_cuda_devices devices;
        const char *says;
    } wrong[] = {{{2, 3}, "from device 2 on there are 2"},
                 {{0, 0}, "give 1 to 16"},
                 {{0, 17}, "give 1 to 16"},
                 {{EMULATED_DEVICES, 2}, "no device 4"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check(sd_cuda_learner_open(&t, c.m, &c.lay, NULL, &c.o, wrong[i].devices, &err) ==
                      SD_EINVAL &&
                  strstr(err.message, wrong[i].says) && !t.ctx,
              "%zu: %s", i, err.message);
    close_case(&c);
}
