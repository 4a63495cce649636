// Where a model runs: the backends that there are, by their words (--device), the best first.
//
//     sd_context_options o = {.max_rows = 64};
//     SD_TRY(sd_device_choose(&o.backend, &o.device, "cuda:1", err));
//
// A new one is an sd_backend (model/infer/backend.h) and a row here.
#pragma once

#include "base/status.h"

// X(backend, word): sd_backend_<backend> goes by the word. The last one is always there.
#define SD_DEVICE_LIST(X) X(cuda, "cuda") X(cpu, "cpu")

#define SD_DEVICES "auto|cpu|cuda[:N]" // for options

typedef struct sd_backend sd_backend;

/// The backend of a choice among SD_DEVICES, and which of its devices; auto: the first backend that has one here.
/// SD_EINVAL: there is no such word, number or build; SD_ENOTFOUND: what the device needs is not here, and what that is.
sd_status sd_device_choose(const sd_backend **backend, int *device, const char *text,
                           sd_error *err);
