// The drafters' inside, for the tests that compare it.
#pragma once

#include "decode/draft/drafter.h"

/// The cache of a drafter of sd_drafter_model; len: how many of its positions are committed.
const sd_kv *sd_drafter_model_kv(const sd_drafter *d);
