// Tests of the training pass on the emulated device: a micro-batch on it and on the CPU, and how far apart they are.
#pragma once

#include "tests/cuda/model/check.h"
#include "tests/unit/trainer/support_train.h"
#include "trainer/pass/cuda/pass.h"

enum { MOST_SEGMENTS = 16 };

/// The results of one micro-batch.
typedef struct {
    sd_train_sum sum;
    float *grad;                // [n_params]
    double logp[MOST_SEGMENTS]; // of each segment
} train_result;

typedef struct {
    sd_model *m;
    sd_lora_layout lay;
    float *theta; // [n_params] random
    train_data d;
    sd_train_options o; // fp32 micro-batches that hold the data
} train_case;

/// which, layers, r: as train_layout has them. c->d.batch points into c, so c stays where it is.
void open_case(train_case *c, sd_model *m, const char *which, unsigned layers, int r);
void close_case(train_case *c); // and the model

sd_learner open_train(const train_case *c);
sd_learner open_train_on(const train_case *c, int devices); // the first ones
/// A learner that begins from c->theta, with its own arrays; on so many devices, 0: on the CPU.
typedef struct {
    sd_learner learner;
    sd_learner_arrays a;
} way;
way open_way(const train_case *c, int devices);
void close_way(way *w);
/// Micro-batch i of n: a row of the data, the later the more of its beginning is left out.
sd_train_batch part_of(const train_case *c, int i, int n);
/// One step from c->theta; backward false: losses alone, and grad is NULL. Freed by free_result.
train_result on_device(const sd_learner *t, const train_case *c, bool backward);
train_result on_cpu(const train_case *c, bool backward);
void free_result(train_result *r);

/// Loss, log probabilities, and each factor's gradient on its own, within a share of their norm.
void must_agree(const train_result *got, const train_result *want, const train_case *c,
                double share, const char *what);
/// The largest distance of a factor's gradient, relative to its norm.
double worst_gradient(const float *got, const float *want, const sd_lora_layout *lay);
bool same_bits(const train_result *a, const train_result *b, const train_case *c);
