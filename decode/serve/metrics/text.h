// Prometheus' text format, version 0.0.4: heads, and lines with labels.
//
//     sd_metrics_text t = {.out = &buf, .prefix = "specdec_", .model = "base", .ok = true};
//     sd_text_head(&t, "requests_total", "counter", "Requests that ended.");
//     SD_TEXT_LINE(&t, "requests_total", 3, {"adapter", name}, {"reason", "stop"});
#pragma once

#include "base/memory.h"

#include <stdbool.h>

typedef struct {
    const char *name, *value;
} sd_text_label;

typedef struct {
    sd_buf *out;
    const char *prefix; // of every name
    const char *model;  // every line's label model_name; NULL: none
    bool ok;            // false once a line did not fit, or memory ran out
} sd_metrics_text;

void sd_text_head(sd_metrics_text *t, const char *name, const char *type, const char *help);
/// Values of labels are escaped.
void sd_text_line(sd_metrics_text *t, const char *name, double value, const sd_text_label *label,
                  int n_labels);
#define SD_TEXT_LINE(t, name, value, ...)                                                          \
    sd_text_line(t, name, value, (const sd_text_label[]){__VA_ARGS__},                             \
                 (int)(sizeof((const sd_text_label[]){__VA_ARGS__}) / sizeof(sd_text_label)))
/// Head and one line without labels of its own.
void sd_text_single(sd_metrics_text *t, const char *name, const char *type, const char *help,
                    double value);
