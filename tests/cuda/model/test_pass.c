// The training pass of every architecture on the emulated device against the CPU's, in fp32.
#include "tests/cuda/model/pass.h"

#include <string.h>

static const double SHARE =
    1e-5; // of a norm: chains of some hundred roundings of fp32 on both sides

static void compare(train_case *c, const char *what) {
    sd_learner t = open_train(c);
    for (int backward = 0; backward < 2; backward++) {
        train_result got = on_device(&t, c, backward), want = on_cpu(c, backward);
        must_agree(&got, &want, c, SHARE, what);
        free_result(&got), free_result(&want);
    }
    sd_learner_close(&t);
}

TEST("loss, log probabilities and every gradient of each architecture are the CPU's") {
    for (int i = 0; sd_arch_at(i); i++) {
        train_case c;
        open_case(&c, train_model(sd_arch_at(i), 7), "qkvogud", 7, 3);
        c.o.context = i % 2 ? 16 : 64; // LongRoPE's factors on either side of 16
        compare(&c, sd_arch_name(sd_arch_at(i)));
        close_case(&c);
    }
}
TEST("and they are with an adapter on some maps of some layers") {
    static const struct {
        const char *which;
        unsigned layers;
    } some[] = {{"qv", 7}, {"d", 4}, {"g", 6}, {"o", 2}, {"k", 4}, {"ud", 1}};
    for (int i = 0; sd_arch_at(i); i++)
        for (size_t k = 0; k < sizeof some / sizeof *some; k++) {
            sd_model *m = train_model(sd_arch_at(i), 5);
            const bool fused =
                m->n_linears / m->hp.L < SD_PROJ_COUNT; // its maps go by "q", "o", "g", "d"
            if (fused && strcmp(some[k].which, "k") == 0) {
                sd_model_release(m);
                continue;
            }
            train_case c;
            open_case(&c, m, some[k].which, some[k].layers, 4);
            compare(&c, some[k].which);
            close_case(&c);
        }
}
TEST("and they are with weights in blocks") {
    static const sd_dtype types[] = {SD_Q4_0, SD_Q4_1, SD_Q8_0, SD_BF16};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        train_case c;
        open_case(&c, train_model_quantised(&sd_arch_qwen3, 9, types[i]), "qkvogud", 7, 2);
        compare(&c, sd_dtype_name(types[i]));
        close_case(&c);
    }
}
TEST("what is computed twice has the bits of what was kept") {
    for (int i = 0; sd_arch_at(i); i++) {
        train_result kept = {0};
        train_case c;
        open_case(&c, train_model(sd_arch_at(i), 3), "qkvogud", i % 2 ? 7 : 6, 3);
        for (int how = SD_RECOMPUTE_NONE; how <= SD_RECOMPUTE_BLOCK; how++) {
            c.o.recompute = (sd_recompute)how;
            sd_learner t = open_train(&c);
            train_result r = on_device(&t, &c, true);
            if (kept.grad)
                check(same_bits(&r, &kept, &c), "%s: way %d", sd_arch_name(sd_arch_at(i)), how);
            else
                kept = r;
            if (r.grad != kept.grad) free_result(&r);
            sd_learner_close(&t);
        }
        free_result(&kept);
        close_case(&c);
    }
}
