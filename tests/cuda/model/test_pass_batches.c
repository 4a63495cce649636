// Micro-batches of the training pass on the emulated device: weights, company, repetition, bounds, memory.
#include "tests/cuda/model/pass.h"

#include "base/memory.h"
#include "tests/cuda/device_emu.h"

#include <math.h>
#include <string.h>

static const sd_cuda_devices ONE = {0, 1};

TEST("a run repeats bit for bit, in bf16 and in fp32") {
    for (int compute = SD_TRAIN_FP32; compute <= SD_TRAIN_BF16; compute++) {
        train_case c;
        open_case(&c, train_model(&sd_arch_gemma3, 21), "qkvogud", 7, 3);
        c.o.compute = (sd_train_compute)compute;
        train_result r[3];
        sd_learner t = open_train(&c);
        r[0] = on_device(&t, &c, true);
        r[1] = on_device(&t, &c, true); // what the first left in memory is no part of it
        sd_learner_close(&t);
        t = open_train(&c);
        r[2] = on_device(&t, &c, true);
        sd_learner_close(&t);
        check(same_bits(&r[0], &r[1], &c), "the second micro-batch differs");
        check(same_bits(&r[0], &r[2], &c), "another run differs");
        for (int i = 0; i < 3; i++) free_result(&r[i]);
        close_case(&c);
    }
}
TEST("segments' weights multiply their gradients, and losses stay") {
    train_case c;
    open_case(&c, train_model(&sd_arch_qwen2, 2), "qkvogud", 7, 3);
    static const float weight[MOST_SEGMENTS] = {0.5f, -2, 0, 3, 1, 0.25f, 7};
    check(sd_train_segments(&c.d.batch) == 7, "%d segments", sd_train_segments(&c.d.batch));
    sd_learner t = open_train(&c);
    train_result plain = on_device(&t, &c, true);
    c.d.batch.weight = weight;
    train_result got = on_device(&t, &c, true), want = on_cpu(&c, true);
    must_agree(&got, &want, &c, 1e-5, "weighted");
    check(got.sum.loss == plain.sum.loss, "the loss is weighted");
    free_result(&plain), free_result(&got), free_result(&want);
    sd_learner_close(&t);
    close_case(&c);
}
TEST("gradients of micro-batches add up, and a smaller one leaves nothing of the one before") {
    train_case c;
    open_case(&c, train_model(&sd_arch_llama, 4), "qkvogud", 7, 3);
    sd_learner t = open_train(&c);
    train_result want = on_cpu(&c, true), sum = on_device(&t, &c, true);
    sd_error err = {0};
    for (int row = 0; row < TRAIN_ROWS; row++) {
        const size_t at = (size_t)row * TRAIN_T;
        const sd_train_batch one = {.rows = 1,
                                    .T = TRAIN_T,
                                    .token = c.d.token + at,
                                    .label = c.d.label + at,
                                    .segment = c.d.segment + at};
        must(t.accumulate(t.ctx, &one, &err), &err);
    }
    must(t.finish(t.ctx, &sum.sum, &err), &err);
    must(sd_cuda_learner_look(&t, 0, NULL, sum.grad, &err), &err);
    memcpy(sum.logp, want.logp, sizeof want.logp);
    must_agree(&sum, &want, &c, 1e-5, "three micro-batches");
    free_result(&want), free_result(&sum);
    sd_learner_close(&t);
    close_case(&c);
}
// A micro-batch's arrays go to the device while those before it compute: of its own two sets one is read then, and the host may write neither too soon.
TEST("micro-batches of one step are as if each had been waited for") {
    enum { BATCHES = 7 };
    train_case c;
    open_case(&c, train_model(&sd_arch_gemma3, 4), "qkvogud", 7, 3);
    sd_error err = {0};
    train_result sum = {.grad = sd_alloc(c.lay.n_params, sizeof(float))},
                 want = {.grad = sd_alloc(c.lay.n_params, sizeof(float))};
    check(sum.grad && want.grad, "out of memory");
    sd_train_batch part[BATCHES];
    for (int i = 0; i < BATCHES; i++) part[i] = part_of(&c, i, BATCHES);
    sd_learner t = open_train(&c);
    const sd_train_batch all = c.d.batch;
    for (int i = 0; i < BATCHES; i++) { // each a step of its own
        c.d.batch = part[i];
        train_result one = on_device(&t, &c, true);
        for (size_t k = 0; k < c.lay.n_params; k++) want.grad[k] += one.grad[k];
        want.sum.loss += one.sum.loss;
        free_result(&one);
    }
    for (int i = 0; i < BATCHES; i++) must(t.accumulate(t.ctx, &part[i], &err), &err);
    must(t.finish(t.ctx, &sum.sum, &err), &err);
    must(sd_cuda_learner_look(&t, 0, NULL, sum.grad, &err), &err);
    check(same_bits(&sum, &want, &c), "the loss is %.17g, want %.17g; or gradients differ",
          sum.sum.loss, want.sum.loss);
    sum.sum.loss = 0;
    for (int i = 0; i < BATCHES; i++) must(t.loss(t.ctx, &part[i], &err), &err);
    must(t.finish(t.ctx, &sum.sum, &err), &err);
    check(sum.sum.loss == want.sum.loss, "losses alone: %.17g, want %.17g", sum.sum.loss,
          want.sum.loss);
    // A step that is given up leaves nothing in the one behind it, whichever set of arrays it had.
    for (int i = 0; i < 2; i++) {
        must(t.loss(t.ctx, part, &err), &err);
        must(t.finish(t.ctx, &want.sum, &err), &err);
        must(t.accumulate(t.ctx, &part[5], &err), &err);
        must(t.attach(t.ctx, &(sd_learner_arrays){.theta = c.theta}, &err), &err);
        must(t.loss(t.ctx, part, &err), &err);
        must(t.finish(t.ctx, &sum.sum, &err), &err);
        check(sum.sum.loss == want.sum.loss && sum.sum.tokens == want.sum.tokens,
              "behind a step that was given up: %.17g, want %.17g", sum.sum.loss, want.sum.loss);
    }
    c.d.batch = all;
    free_result(&sum), free_result(&want);
    sd_learner_close(&t);
    close_case(&c);
}
// cuBLASLt adds by the number of rows, so a segment's bits depend on its company; its numbers do not.
TEST("a segment alone has the log probability that it has beside others") {
    train_case c;
    open_case(&c, train_model(&sd_arch_phi3, 6), "qkvogud", 7, 3);
    c.o.context = 64;
    sd_learner t = open_train(&c);
    train_result all = on_device(&t, &c, false);
    const sd_train_batch full = c.d.batch;
    int k = 0;
    for (int i = 0; i < full.rows * full.T; k++) {
        int n = 1;
        while ((i + n) % full.T && full.segment[i + n] == full.segment[i]) n++;
        if (full.segment[i] < 0) {
            i += n, k--;
            continue;
        }
        const sd_train_batch one = {.rows = 1,
                                    .T = n,
                                    .token = full.token + i,
                                    .label = full.label + i,
                                    .segment = full.segment + i};
        c.d.batch = one;
        train_result alone = on_device(&t, &c, false);
        check(fabs(alone.logp[0] - all.logp[k]) <= 1e-5 * fabs(all.logp[k]),
              "segment %d has %.9g alone, %.9g beside others", k, alone.logp[0], all.logp[k]);
        i += n;
    }
    check(k == 7, "%d segments", k);
    sd_learner_close(&t);
    close_case(&c);
}
TEST("a vocabulary of several chunks has the CPU's loss and gradients") {
    sd_tiny_model tiny = sd_tiny_default(&sd_arch_llama);
    tiny.V = 4096 + 70, tiny.L = 1, tiny.C = 32, tiny.tokenizer = false;
    train_case c;
    open_case(&c, open_tiny(&tiny), "qkvogud", 1, 2);
    c.d.token[3] = c.d.label[3] = tiny.V - 1;
    c.d.token[4] = c.d.label[4] = 4096;
    sd_learner t = open_train(&c);
    train_result got = on_device(&t, &c, true), want = on_cpu(&c, true);
    must_agree(&got, &want, &c, 1e-5, "two chunks");
    free_result(&got), free_result(&want);
    sd_learner_close(&t);
    close_case(&c);
}

// ---- bounds and memory

TEST("a micro-batch that is none is refused or costs nothing") {
    train_case c;
    open_case(&c, train_model(&sd_arch_qwen2, 2), "q", 7, 3);
    c.o.max_tokens = 20;
    sd_learner t = open_train(&c);
    sd_error err = {0};
    sd_train_sum sum = {0};
    must(t.attach(t.ctx, &(sd_learner_arrays){.theta = c.theta}, &err), &err);
    check(t.loss(t.ctx, &c.d.batch, &err) == SD_ELIMIT, "too many tokens");
    sd_train_batch b = c.d.batch;
    b.rows = 1, b.T = 7;
    const int32_t token = c.d.token[2];
    c.d.token[2] = c.m->hp.V;
    check(t.accumulate(t.ctx, &b, &err) == SD_EINVAL, "a token beyond V");
    must(t.finish(t.ctx, &sum, &err), &err);
    check(sum.tokens == 0 && sum.supervised == 0, "a refused micro-batch is counted");
    c.d.token[2] = token;
    for (int i = 0; i < 7; i++) c.d.label[i] = -100;
    must(t.accumulate(t.ctx, &b, &err), &err);
    must(t.finish(t.ctx, &sum, &err), &err);
    check(sum.tokens == 7 && sum.supervised == 0 && sum.loss == 0, "nothing supervised");
    sd_learner_close(&t);
    close_case(&c);
}
TEST("a pass takes what was planned for it and gives everything back") {
    const size_t before = emulated_bytes();
    for (int i = 0; sd_arch_at(i); i++)
        for (int how = SD_RECOMPUTE_NONE; how <= SD_RECOMPUTE_BLOCK; how++) {
            train_case c;
            open_case(&c, train_model(sd_arch_at(i), 3), "qkvogud", 6, 3);
            c.o.compute = SD_TRAIN_BF16, c.o.recompute = (sd_recompute)how;
            sd_train_plan_report plan;
            sd_error err = {0};
            must(sd_cuda_train_plan(&plan, c.m, &c.lay, &c.o, ONE, &err), &err);
            size_t planned = 0, reserved = 0;
            for (int k = 0; k < plan.n; k++) {
                const char *part = plan.row[k].part;
                if (strcmp(part, "driver and libraries") == 0) reserved += plan.row[k].bytes;
                if (strncmp(part, "of the process", 14) != 0) planned += plan.row[k].bytes;
            }
            check(planned == plan.total, "parts are %zu bytes, the total %zu", planned, plan.total);
            sd_learner t = open_train(&c);
            const size_t device = emulated_device_bytes(), host = emulated_bytes() - device;
            check(device == planned - reserved, "%zu bytes are taken, %zu planned", device,
                  planned - reserved);
            check(host <= plan.row[plan.n - 1].bytes, "%zu bytes of the host, %zu planned", host,
                  plan.row[plan.n - 1].bytes);
            train_result r = on_device(&t, &c, true);
            check(emulated_bytes() == device + host, "a micro-batch takes memory");
            free_result(&r);
            sd_learner_close(&t);
            check(emulated_bytes() == before, "%zu bytes are left", emulated_bytes() - before);
            close_case(&c);
        }
}
TEST("auto takes the fastest way that fits, and what nothing fits is refused") {
    train_case c;
    open_case(&c, train_model(&sd_arch_qwen3, 3), "qkvogud", 7, 3);
    sd_error err = {0};
    size_t total[4] = {0};
    sd_train_plan_report plan;
    for (int how = SD_RECOMPUTE_NONE; how <= SD_RECOMPUTE_BLOCK; how++) {
        c.o.recompute = (sd_recompute)how;
        must(sd_cuda_train_plan(&plan, c.m, &c.lay, &c.o, ONE, &err), &err);
        total[how] = plan.total;
    }
    check(total[SD_RECOMPUTE_NONE] > total[SD_RECOMPUTE_ATTN] &&
              total[SD_RECOMPUTE_ATTN] > total[SD_RECOMPUTE_BLOCK],
          "computing twice saves nothing");
    c.o.recompute = SD_RECOMPUTE_AUTO;
    for (int how = SD_RECOMPUTE_NONE; how <= SD_RECOMPUTE_BLOCK; how++) {
        c.o.memory_limit = total[how];
        must(sd_cuda_train_plan(&plan, c.m, &c.lay, &c.o, ONE, &err), &err);
        check(plan.recompute == (sd_recompute)how, "%d is chosen, not %d", plan.recompute, how);
    }
    c.o.memory_limit = total[SD_RECOMPUTE_BLOCK] - 1;
    check(sd_cuda_train_plan(&plan, c.m, &c.lay, &c.o, ONE, &err) == SD_ELIMIT &&
              strstr(err.message, "micro_batch_tokens"),
          "too little memory is enough");
    c.o.memory_limit = 0;
    must(sd_cuda_train_plan(&plan, c.m, &c.lay, &c.o, ONE, &err), &err);
    check(strcmp(plan.kernels, "cuda-sm90-fp32-lt130000") == 0, "the kernels are '%s'",
          plan.kernels);
    close_case(&c);
}
TEST("each request for memory that is refused ends in one sentence, and nothing is left") {
    train_case c;
    open_case(&c, train_model(&sd_arch_gemma3, 3), "qkvogud", 7, 3);
    sd_error err = {0};
    sd_learner t;
    int refused = 1;
    for (;; refused++) {
        emulated_refuse(refused);
        const sd_status st = sd_cuda_learner_open(&t, c.m, &c.lay, NULL, &c.o, ONE, &err);
        if (st == SD_OK) break;
        check(st == SD_ENOMEM && !t.ctx && strstr(err.message, "no memory for"), "request %d: %s",
              refused, err.message);
        check(emulated_bytes() == 0, "request %d: %zu bytes are left", refused, emulated_bytes());
    }
    emulated_refuse(0);
    check(refused > 20, "%d requests", refused);
    sd_learner_close(&t);
    close_case(&c);
}
TEST("without cuBLASLt, and on a device that is not there, one sentence says so") {
    train_case c;
    open_case(&c, train_model(&sd_arch_llama, 3), "q", 7, 3);
    sd_error err = {0};
    sd_learner t;
    emulated_without_blas(true);
    check(sd_cuda_learner_open(&t, c.m, &c.lay, NULL, &c.o, ONE, &err) == SD_ENOTFOUND &&
              strstr(err.message, "libcublasLt.so.13") && !t.ctx,
          "no cuBLASLt: %s", err.message);
    emulated_without_blas(false);
    check(sd_cuda_learner_open(&t, c.m, &c.lay, NULL, &c.o, (sd_cuda_devices){EMULATED_DEVICES, 1},
                               &err) == SD_EINVAL &&
              strstr(err.message, "no device 4") && !t.ctx,
          "no device: %s", err.message);
    close_case(&c);
}
