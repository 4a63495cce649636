// The names in a folder of checkpoints. Private to trainer/checkpoint*.c.
#pragma once

#include "trainer/checkpoint.h"

#define SD_CHECKPOINT_TMP ".tmp-" // then the step, then the process

typedef struct {
    int64_t *step; // [n] ascending, malloc'ed
    int n, cap;
} sd_steps;
/// Steps of the folders named step-N; none where dir is not there.
sd_status sd_checkpoints_list(sd_steps *l, const char *dir, sd_error *err);
char *sd_checkpoint_path(const char *dir, int64_t step); // malloc'ed; NULL when out of memory

/// The finished folder tmp becomes the checkpoint of `step`, which is one's own from here on.
sd_status sd_checkpoints_add(sd_checkpoints *all, int64_t step, const char *tmp, sd_error *err);
/// After `step` was added: gives up later ones, removes one's own beyond the newest all->keep.
sd_status sd_checkpoints_tidy(sd_checkpoints *all, int64_t step, sd_error *err);
