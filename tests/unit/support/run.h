// What a training run leaves behind, without training.
#pragma once

#include "model/adapter/adapter.h"

/// The folder of a run for `base`, which has a tokenizer: adapter/ as PEFT writes it, with factors of rank 4 up to
/// `spread` on all maps, and draft/corpus.idx, bound to that adapter or to another one. Fails the test where it
/// cannot.
void test_write_run(const char *run, sd_model *base, uint64_t seed, float spread, bool bound);
