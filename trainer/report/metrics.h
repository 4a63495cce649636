// The reports of a run while it goes: metrics.csv, metrics.jsonl, a progress bar or lines on
// standard error, loss.svg. The files are rewritten from memory at a resume, so that they hold each
// step once whatever was interrupted.
//
// metrics.csv: step, loss, eval_loss, lr, grad_norm, tokens, supervised_tokens, tok_s, mem_mb,
// wall_s. tokens and supervised_tokens are of that step; loss is the mean over its supervised
// tokens, before its update; tok_s is the step's; mem_mb is the peak of the process; wall_s counts
// from the run's start over all its resumes; eval_loss is empty where nothing was evaluated,
// tok_s where another process did the step and only its evaluation was left.
#pragma once

#include "base/option.h"
#include "base/status.h"

#include <stdint.h>

typedef struct {
    int64_t step;
    double loss, eval_loss; // eval_loss NaN: none
    double lr, grad_norm;
    int64_t tokens, supervised;
    double tok_s; // NaN: not known
    double mem_mb, wall_s;
} sd_metric;

typedef struct sd_metrics sd_metrics;

typedef struct {
    const char *dir, *title;
    bool tty, csv, jsonl, plot;
    int64_t every;      // steps between rows
    int64_t total;      // steps of the run
    int64_t keep_until; // rows up to this step are kept from an earlier start; 0: begin anew
} sd_metrics_options;

sd_status sd_metrics_open(sd_metrics **out, const sd_metrics_options *o, sd_error *err);
/// A finished step. Rows between log.every are shown but not written, unless evaluated or last.
sd_status sd_metrics_add(sd_metrics *s, const sd_metric *m, sd_error *err);
/// Between steps: what goes on ("evaluating", "step"), done of total.
void sd_metrics_busy(sd_metrics *s, const char *what, int64_t done, int64_t total);
/// Writes loss.svg now.
sd_status sd_metrics_plot(sd_metrics *s, sd_error *err);
/// Ends the progress line, so that other text can follow.
void sd_metrics_quiet(sd_metrics *s);
const sd_metric *sd_metrics_all(const sd_metrics *s, int64_t *n);
void sd_metrics_close(sd_metrics *s); // NULL is fine

double sd_peak_memory_mb(void);
