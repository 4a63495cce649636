// What an adapter brings along for requests that do not say how they want to be answered.
#pragma once

#include "model/defaults.h"

/// From what sd_adapter_open took at `path`: a run's manifest, else specdec.json beside the adapter,
/// and for fields that neither has generation_config.json in its folder. d is the caller's also after
/// an error; what is in a run's own file and cannot be is refused by its name.
sd_status sd_adapter_defaults(sd_defaults *d, const char *path, sd_error *err);
