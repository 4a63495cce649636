// Where a model runs: the backends that there are, by their words (--device), the best first.
//
// A new one is an sd_backend (model/infer/backend.h) and a row here.
#pragma once

// X(backend, word): sd_backend_<backend> goes by the word.
#define SD_DEVICE_LIST(X) X(cpu, "cpu")

#define SD_DEVICE_BAR_WORD(backend, word) "|" word
#define SD_DEVICES "auto" SD_DEVICE_LIST(SD_DEVICE_BAR_WORD) // for options

typedef struct sd_backend sd_backend;

/// The backend of a choice among SD_DEVICES; 0, auto: the first that is available here.
const sd_backend *sd_device_backend(int choice);
