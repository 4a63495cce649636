// What Prometheus' clients say of their own process.
#pragma once

#include "decode/serve/metrics/text.h"

/// Processor time, memory, descriptors, start. started: s since 1970. What the system does not tell is left out.
void sd_process_write(sd_metrics_text *t, int64_t started);
