// Which maps of the model get an adapter, with what rank and alpha: PEFT's target_modules,
// rank_pattern and alpha_pattern, over the paths that PEFT sees
// ("model.layers.3.self_attn.q_proj").
#pragma once

#include "trainer/recipe/recipe.h"

/// rank, alpha [n_linears] <- by the recipe; rank 0: not adapted. A target or a pattern
/// that matches nothing is refused by name.
sd_status sd_lora_targets(int *rank, double *alpha, const sd_recipe *r, const sd_model *m,
                          sd_error *err);
