// loss.svg: the loss over the steps, raw and smoothed, with the evaluations as points.
#pragma once

#include "trainer/report/metrics.h"

/// Writes the picture atomically. rows [n], ascending by step, n >= 1.
sd_status sd_plot_loss(const char *path, const char *title, const sd_metric *rows, int64_t n,
                       sd_error *err);

/// A step of 1, 2 or 5 times a power of ten that cuts [lo, hi] into about `want` parts.
double sd_nice_step(double lo, double hi, int want);
