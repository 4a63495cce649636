// The picture must be readable in a README and in a browser's dark mode alike, so it has its own
// background and few elements: two curves, points, a grid. The smoothed curve is an exponential
// mean over about a twentieth of the steps with its bias corrected, as optimisers do. At most
// MAX_POINTS of the raw curve are drawn (the mean of each stretch), so a long run's file stays
// small.
#include "trainer/report/plot.h"

#include "base/files/replace.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 860, HEIGHT = 440, LEFT = 72, RIGHT = 24, TOP = 68, BOTTOM = 56, MAX_POINTS = 1500 };

typedef struct {
    FILE *f;
    double x0, x1, y0, y1; // the data's window
} canvas;

static double at_x(const canvas *c, double step) {
    return LEFT + (step - c->x0) / (c->x1 - c->x0) * (WIDTH - LEFT - RIGHT);
}
static double at_y(const canvas *c, double loss) {
    double y = loss < c->y1 ? loss : c->y1; // what lies above the window runs along its edge
    return HEIGHT - BOTTOM - (y - c->y0) / (c->y1 - c->y0) * (HEIGHT - TOP - BOTTOM);
}

double sd_nice_step(double lo, double hi, int want) {
    double raw = (hi - lo) / want;
    if (!(raw > 0)) return 1;
    double power = pow(10, floor(log10(raw))), part = raw / power;
    return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static void add_escaped(FILE *f, const char *s) {
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '<')
            fputs("&lt;", f);
        else if (c == '>')
            fputs("&gt;", f);
        else if (c == '&')
            fputs("&amp;", f);
        else if (c >= 0x20)
            fputc(c, f);
    }
}

static void grid(const canvas *c) {
    double step = sd_nice_step(c->y0, c->y1, 6);
    int digits = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    for (double v = ceil(c->y0 / step) * step; v <= c->y1 + step * 1e-6; v += step) {
        double y = at_y(c, v);
        fprintf(c->f,
                "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.*f</text>\n",
                LEFT, WIDTH - RIGHT, y, y, LEFT - 8, y + 4, digits, fabs(v) < step / 2 ? 0 : v);
    }
    step = sd_nice_step(c->x0, c->x1, 8);
    if (step < 1) step = 1;
    for (double v = ceil(c->x0 / step) * step; v <= c->x1 + step * 1e-6; v += step) {
        double x = at_x(c, v);
        fprintf(c->f,
                "<line class=\"tick\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n"
                "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>\n",
                x, x, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 5, x, HEIGHT - BOTTOM + 20, v);
    }
    fprintf(c->f,
            "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>\n"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">step</text>\n"
            "<text x=\"18\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 18 %d)\">"
            "loss (nats per supervised token)</text>\n",
            LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 14, (TOP + HEIGHT - BOTTOM) / 2, (TOP + HEIGHT - BOTTOM) / 2);
}

/// smooth [n] <- the mean of an exponential mean from the left and one from the right, so that the
/// curve does not lag behind the values; each with its bias corrected, as optimisers do.
static void smoothen(double *smooth, const sd_metric *rows, int64_t n) {
    double keep = 1 - 1 / fmax(2, (double)n / 25), mean = 0, weight = 0;
    for (int64_t i = 0; i < n; i++) {
        mean = keep * mean + (1 - keep) * rows[i].loss;
        weight = keep * weight + (1 - keep);
        smooth[i] = mean / weight / 2;
    }
    mean = weight = 0;
    for (int64_t i = n; i-- > 0;) {
        mean = keep * mean + (1 - keep) * rows[i].loss;
        weight = keep * weight + (1 - keep);
        smooth[i] += mean / weight / 2;
    }
}

/// At most MAX_POINTS points, each the mean of a stretch. smooth NULL: the losses themselves.
static void curve(const canvas *c, const sd_metric *rows, const double *smooth, int64_t n) {
    int64_t stretch = (n + MAX_POINTS - 1) / MAX_POINTS;
    fprintf(c->f, "<polyline class=\"%s\" points=\"", smooth ? "smooth" : "raw");
    for (int64_t i = 0; i < n; i += stretch) {
        double sum = 0;
        int64_t end = i + stretch < n ? i + stretch : n;
        for (int64_t j = i; j < end; j++) sum += smooth ? smooth[j] : rows[j].loss;
        fprintf(c->f, "%.1f,%.1f ", at_x(c, (double)rows[end - 1].step),
                at_y(c, sum / (double)(end - i)));
    }
    fputs("\"/>\n", c->f);
}

static void eval_points(const canvas *c, const sd_metric *rows, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isnan(rows[i].eval_loss))
            fprintf(c->f,
                    "<circle class=\"eval\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>step %lld: eval "
                    "%.4f</title></circle>\n",
                    at_x(c, (double)rows[i].step), at_y(c, rows[i].eval_loss),
                    (long long)rows[i].step, rows[i].eval_loss);
}

static void legend(FILE *f, bool eval) {
    int x = WIDTH - RIGHT - (eval ? 290 : 210), y = TOP - 16;
    fprintf(f,
            "<line class=\"raw\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>"
            "<text x=\"%d\" y=\"%d\">each step</text>\n"
            "<line class=\"smooth\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>"
            "<text x=\"%d\" y=\"%d\">smoothed</text>\n",
            x, x + 24, y, y, x + 30, y + 4, x + 112, x + 136, y, y, x + 142, y + 4);
    if (eval)
        fprintf(f,
                "<circle class=\"eval\" cx=\"%d\" cy=\"%d\" r=\"4\"/>"
                "<text x=\"%d\" y=\"%d\">held out</text>\n",
                x + 224, y, x + 234, y + 4);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/// The axis goes from 0 (a loss has a natural zero) to a value that 99 of 100 stay below: one spike
/// must not flatten the rest.
static sd_status window(canvas *c, const sd_metric *rows, int64_t n, sd_error *err) {
    double *v = sd_alloc((size_t)n * 2, sizeof *v), top = 0;
    int64_t m = 0;
    if (!v) return sd_fail(err, SD_ENOMEM, "out of memory for the plot");
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(rows[i].loss)) v[m++] = rows[i].loss;
        if (isfinite(rows[i].eval_loss)) v[m++] = rows[i].eval_loss;
    }
    if (m) {
        qsort(v, (size_t)m, sizeof *v, by_value);
        top = v[(m - 1) * 99 / 100] * 1.08;
        if (v[m - 1] <= top * 1.25) top = v[m - 1] * 1.04;
    }
    free(v);
    if (!(top > 0)) top = 1;
    double step = sd_nice_step(0, top, 6);
    *c = (canvas){c->f, 0, (double)rows[n - 1].step, 0, ceil(top / step) * step};
    if (c->x1 < 1) c->x1 = 1;
    return SD_OK;
}

sd_status sd_plot_loss(const char *path, const char *title, const sd_metric *rows, int64_t n,
                       sd_error *err) {
    sd_status st = SD_OK;
    sd_replace r = {0};
    canvas c = {0};
    bool eval = false;
    double *smooth = sd_alloc((size_t)n, sizeof *smooth);
    SD_CHECK_ALLOC(smooth, err);
    for (int64_t i = 0; i < n; i++) eval = eval || !isnan(rows[i].eval_loss);
    SD_TRY(window(&c, rows, n, err));
    SD_TRY(sd_replace_open(&r, path, err));
    c.f = r.f;
    fprintf(r.f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\">\n<style>text{font:13px sans-serif;fill:#333}.title{font-size:16px;"
            "font-weight:bold}.grid{stroke:#e4e4e4}.axis,.tick{stroke:#888}"
            ".raw{fill:none;stroke:#9fc3e8;stroke-width:1}"
            ".smooth{fill:none;stroke:#1b5fa8;stroke-width:2.2;stroke-linejoin:round}"
            ".eval{fill:#d9541e;stroke:#fff}</style>\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n<text class=\"title\" x=\"%d\" "
            "y=\"27\">",
            WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT);
    add_escaped(r.f, title);
    fputs("</text>\n", r.f);
    grid(&c);
    curve(&c, rows, NULL, n);
    smoothen(smooth, rows, n);
    curve(&c, rows, smooth, n);
    eval_points(&c, rows, n);
    legend(r.f, eval);
    fputs("</svg>\n", r.f);
    SD_TRY(sd_replace_commit(&r, err));
out:
    free(smooth);
    sd_replace_abort(&r);
    return st;
}
