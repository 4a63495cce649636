// A step takes from milliseconds (tiny models in tests) to minutes, so lines are limited to one a
// second, and the rows are kept in memory (80 bytes each) for the plot and for a resume.
#include "trainer/report/metrics.h"

#include "base/clock.h"
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/list.h"
#include "base/memory.h"
#include "trainer/report/plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char HEADER[] =
    "step,loss,eval_loss,lr,grad_norm,tokens,supervised_tokens,tok_s,mem_mb,wall_s\n";

struct sd_metrics {
    sd_metrics_options o;
    char *dir, *title;
    FILE *csv, *jsonl;
    sd_metric *row;
    int64_t n, cap;
    bool bar, open_line;
    double last_line, speed; // speed: seconds a step, smoothed
    double last_wall;
    double last_eval; // with its step, for the bar
    int64_t last_eval_step;
};

double sd_peak_memory_mb(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

static bool keep(sd_metrics *s, const sd_metric *m) {
    if (!SD_GROW(s->row, s->n + 1, s->cap)) return false;
    s->row[s->n++] = *m;
    return true;
}

/// The two numbers that may be unknown, or what stands for that.
static const char *eval_text(char text[32], const sd_metric *m, const char *unknown) {
    if (isnan(m->eval_loss)) return unknown;
    snprintf(text, 32, "%.9g", m->eval_loss);
    return text;
}
static const char *speed_text(char text[32], const sd_metric *m, const char *unknown) {
    if (isnan(m->tok_s)) return unknown;
    snprintf(text, 32, "%.1f", m->tok_s);
    return text;
}

static bool print_csv(FILE *f, const sd_metric *m) {
    char eval[32], speed[32];
    return fprintf(f, "%lld,%.9g,%s,%.9g,%.9g,%lld,%lld,%s,%.1f,%.2f\n", (long long)m->step,
                   m->loss, eval_text(eval, m, ""), m->lr, m->grad_norm, (long long)m->tokens,
                   (long long)m->supervised, speed_text(speed, m, ""), m->mem_mb, m->wall_s) > 0;
}

static bool print_jsonl(FILE *f, const sd_metric *m) {
    char eval[32], speed[32];
    return fprintf(f,
                   "{\"step\": %lld, \"loss\": %.9g, \"eval_loss\": %s, \"lr\": %.9g, "
                   "\"grad_norm\": %.9g, \"tokens\": %lld, \"supervised_tokens\": %lld, "
                   "\"tok_s\": %s, \"mem_mb\": %.1f, \"wall_s\": %.2f}\n",
                   (long long)m->step, m->loss, eval_text(eval, m, "null"), m->lr, m->grad_norm,
                   (long long)m->tokens, (long long)m->supervised, speed_text(speed, m, "null"),
                   m->mem_mb, m->wall_s) > 0;
}

/// One line of metrics.csv; false when it is not one (cut by a kill, say).
static bool parse_row(sd_metric *m, const char *line) {
    double value[10];
    for (int i = 0; i < 10; i++) {
        char *end;
        value[i] = strtod(line, &end);
        if (end == line && (i == 2 || i == 7))
            value[i] = NAN;
        else if (end == line)
            return false;
        if (*end != (i < 9 ? ',' : '\0')) return false;
        line = end + 1;
    }
    *m = (sd_metric){(int64_t)value[0], value[1],          value[2], value[3], value[4],
                     (int64_t)value[5], (int64_t)value[6], value[7], value[8], value[9]};
    return true;
}

static sd_status read_rows(sd_metrics *s, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    sd_path_kind kind;
    if (s->o.keep_until <= 0) return SD_OK;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_NONE) return SD_OK;
    SD_TRY(sd_file_read(&text, &len, path, (size_t)1 << 30, err));
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        sd_metric m;
        *end = '\0';
        if (!parse_row(&m, line) || m.step > s->o.keep_until) continue;
        if (s->n && m.step <= s->row[s->n - 1].step) continue;
        SD_CHECK(keep(s, &m), err, SD_ENOMEM, "out of memory while reading %s", path);
    }
out:
    free(text);
    return st;
}

/// Rewrites the file with the rows that are kept and leaves it open for more.
static sd_status open_log(FILE **f, sd_metrics *s, const char *path, const char *header,
                          bool (*print)(FILE *, const sd_metric *), sd_error *err) {
    sd_replace r;
    sd_status st = sd_replace_open(&r, path, err);
    if (st != SD_OK) return st;
    fputs(header, r.f);
    for (int64_t i = 0; i < s->n; i++) print(r.f, &s->row[i]);
    st = sd_replace_commit(&r, err);
    if (st != SD_OK) return st;
    *f = fopen(path, "abe");
    return *f ? SD_OK : sd_fail(err, SD_EIO, "%s: cannot be opened for writing", path);
}

sd_status sd_metrics_open(sd_metrics **out, const sd_metrics_options *o, sd_error *err) {
    sd_status st = SD_OK;
    char *csv = sd_path_join(o->dir, "metrics.csv"), *jsonl = sd_path_join(o->dir, "metrics.jsonl");
    sd_metrics *s = calloc(1, sizeof *s);
    SD_CHECK_ALLOC(s, err);
    SD_CHECK_ALLOC(csv, err);
    SD_CHECK_ALLOC(jsonl, err);
    s->o = *o;
    s->last_eval = NAN;
    s->dir = sd_strdup(o->dir);
    s->title = sd_strdup(o->title);
    SD_CHECK_ALLOC(s->dir, err);
    SD_CHECK_ALLOC(s->title, err);
    s->bar = isatty(STDERR_FILENO) == 1;
    SD_TRY(read_rows(s, csv, err)); // also when only another sink is wanted: the plot needs them
    if (s->n) s->last_wall = s->row[s->n - 1].wall_s;
    if (o->csv) SD_TRY(open_log(&s->csv, s, csv, HEADER, print_csv, err));
    if (o->jsonl) SD_TRY(open_log(&s->jsonl, s, jsonl, "", print_jsonl, err));
    *out = s, s = NULL;
out:
    sd_metrics_close(s);
    free(csv);
    free(jsonl);
    return st;
}

static void show(sd_metrics *s, const sd_metric *m) {
    double now = sd_now_s(), eta = s->speed * (double)(s->o.total - m->step);
    bool last = m->step >= s->o.total;
    char eval[64] = "", speed[32] = "", left[32];
    if (!isnan(m->tok_s)) snprintf(speed, sizeof speed, "  %.0f tok/s", m->tok_s);
    if (s->bar && !isnan(s->last_eval))
        snprintf(eval, sizeof eval, "  eval %.4f at %lld", s->last_eval,
                 (long long)s->last_eval_step);
    else if (!s->bar && !isnan(m->eval_loss))
        snprintf(eval, sizeof eval, "  eval %.4f", m->eval_loss);
    int minutes = (int)(eta / 60);
    snprintf(left, sizeof left, "%d:%02d:%02d", minutes / 60, minutes % 60, (int)eta % 60);
    if (s->bar) {
        enum { WIDTH = 20 };
        int full = s->o.total > 0 ? (int)(m->step * WIDTH / s->o.total) : WIDTH;
        if (full > WIDTH) full = WIDTH;
        fprintf(stderr, "\r[%.*s%*s] %lld/%lld  loss %.4f%s%s  %.0f MB  eta %s\033[K", full,
                "====================", WIDTH - full, "", (long long)m->step, (long long)s->o.total,
                m->loss, eval, speed, m->mem_mb, left);
        s->open_line = true;
        if (last) sd_metrics_quiet(s);
    } else if (last || !isnan(m->eval_loss) || now - s->last_line >= 1) {
        fprintf(stderr, "step %lld/%lld  loss %.4f%s  lr %.3g%s  %.0f MB  eta %s\n",
                (long long)m->step, (long long)s->o.total, m->loss, eval, m->lr, speed, m->mem_mb,
                left);
        s->last_line = now;
    }
}

sd_status sd_metrics_add(sd_metrics *s, const sd_metric *m, sd_error *err) {
    double seconds = m->wall_s - s->last_wall;
    s->last_wall = m->wall_s;
    s->speed = s->speed > 0 ? 0.9 * s->speed + 0.1 * seconds : seconds;
    if (!isnan(m->eval_loss)) s->last_eval = m->eval_loss, s->last_eval_step = m->step;
    bool write = m->step % s->o.every == 0 || !isnan(m->eval_loss) || m->step >= s->o.total;
    if (write) {
        if (!keep(s, m)) return sd_fail(err, SD_ENOMEM, "out of memory for the metrics");
        if ((s->csv && (!print_csv(s->csv, m) || fflush(s->csv) != 0)) ||
            (s->jsonl && (!print_jsonl(s->jsonl, m) || fflush(s->jsonl) != 0)))
            return sd_fail(err, SD_EIO,
                           "%s: the metrics cannot be written; free disk space and resume", s->dir);
    }
    if (s->o.tty) show(s, m);
    return SD_OK;
}

void sd_metrics_busy(sd_metrics *s, const char *what, int64_t done, int64_t total) {
    if (!s->o.tty || !s->bar) return;
    fprintf(stderr, "\r%s %lld/%lld\033[K", what, (long long)done, (long long)total);
    s->open_line = true;
}

void sd_metrics_quiet(sd_metrics *s) {
    if (s->open_line) fputc('\n', stderr);
    s->open_line = false;
}

sd_status sd_metrics_plot(sd_metrics *s, sd_error *err) {
    if (!s->o.plot || s->n == 0) return SD_OK;
    char *path = sd_path_join(s->dir, "loss.svg");
    if (!path) return sd_fail(err, SD_ENOMEM, "out of memory for the plot");
    sd_status st = sd_plot_loss(path, s->title, s->row, s->n, err);
    free(path);
    return st;
}

const sd_metric *sd_metrics_all(const sd_metrics *s, int64_t *n) {
    *n = s->n;
    return s->row;
}

void sd_metrics_close(sd_metrics *s) {
    if (!s) return;
    sd_metrics_quiet(s);
    if (s->csv) fclose(s->csv);
    if (s->jsonl) fclose(s->jsonl);
    free(s->row);
    free(s->dir);
    free(s->title);
    free(s);
}
