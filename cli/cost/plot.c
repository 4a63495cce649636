#include "cli/cost/plot.h"

#include "base/status.h"

#include <math.h>

enum { WIDTH = 860, HEIGHT = 380, LEFT = 84, RIGHT = 20, TOP = 16, BOTTOM = 48 };

void sd_html_text(FILE *f, const char *s) {
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '<')
            fputs("&lt;", f);
        else if (c == '>')
            fputs("&gt;", f);
        else if (c == '&')
            fputs("&amp;", f);
        else if (c == '"')
            fputs("&quot;", f);
        else if (c >= 0x20)
            fputc(c, f);
    }
}

static void open_figure(FILE *f, const char *title, int height) {
    fputs("<figure><figcaption>", f);
    sd_html_text(f, title);
    fprintf(f, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH,
            height);
    sd_html_text(f, title);
    fputs("\">\n", f);
}
static void close_figure(FILE *f) {
    fputs("</svg></figure>\n", f);
}

static void text_at(FILE *f, double x, double y, const char *anchor, const char *text) {
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    sd_html_text(f, text);
    fputs("</text>\n", f);
}

static void line_at(FILE *f, const char *class, double x1, double y1, double x2, double y2) {
    fprintf(f, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class, x1,
            y1, x2, y2);
}

// Below the plot, in one row.
static void legend_begin(FILE *f) {
    fputs("</svg>\n<p class=\"legend\">", f);
}
static void legend_item(FILE *f, const char *name, int color) {
    fprintf(f, "<span><i style=\"background: var(--line-%d)\"></i>", color);
    sd_html_text(f, name);
    fputs("</span>", f);
}
static void legend_end(FILE *f) {
    fputs("</p></figure>\n", f);
}

// ---- logarithmic axes

typedef struct {
    FILE *f;
    double x0, x1, y0, y1; // log10 of the window
} window;

static double at_x(const window *w, double x) {
    return LEFT + (log10(x) - w->x0) / (w->x1 - w->x0) * (WIDTH - LEFT - RIGHT);
}
static double at_y(const window *w, double y) {
    return HEIGHT - BOTTOM - (log10(y) - w->y0) / (w->y1 - w->y0) * (HEIGHT - TOP - BOTTOM);
}

// The curves' window, on the y axis a little wider; false: there is nothing to draw.
static bool find_window(window *w, const sd_plot *p) {
    double x0 = INFINITY, x1 = 0, y0 = INFINITY, y1 = 0;
    for (int i = 0; i < p->n_lines; i++)
        for (int k = 0; k < p->line[i].n; k++) {
            double x = p->line[i].x[k], y = p->line[i].y[k];
            if (!(y > 0) || !(x > 0)) continue;
            x0 = fmin(x0, x), x1 = fmax(x1, x);
            y0 = fmin(y0, y), y1 = fmax(y1, y);
        }
    if (!(x1 > x0)) return false;
    w->x0 = log10(x0), w->x1 = log10(x1);
    w->y0 = log10(y0) - 0.08, w->y1 = log10(y1) + 0.08;
    return true;
}

static const char *short_number(double v, char *to, size_t size) {
    static const char *const unit[] = {"", "k", "M", "G", "T"};
    int i = 0;
    double shown = v;
    while (shown >= 999.5 && i < 4) shown /= 1000, i++;
    if (v > 0 && v < 1e-4)
        snprintf(to, size, "%.0e", v);
    else
        snprintf(to, size, "%.4g%s", shown, unit[i]);
    return to;
}

// Lines at the decades of one axis; with few decades also at 2 and 5 times of them.
static void ticks(const window *w, bool of_x) {
    double lo = of_x ? w->x0 : w->y0, hi = of_x ? w->x1 : w->y1;
    int stride = (int)ceil((hi - lo) / 10);
    char text[32];
    for (int d = (int)floor(lo); d <= (int)ceil(hi); d++) {
        if (d % stride != 0) continue;
        for (int m = 1; m <= 5; m += m == 1 ? 1 : 3) {
            double v = m * pow(10, d);
            if (log10(v) < lo - 1e-9 || log10(v) > hi + 1e-9) continue;
            if (m > 1 && hi - lo > 2.5) continue;
            short_number(v, text, sizeof text);
            if (of_x) {
                line_at(w->f, "grid", at_x(w, v), TOP, at_x(w, v), HEIGHT - BOTTOM);
                text_at(w->f, at_x(w, v), HEIGHT - BOTTOM + 18, "middle", text);
            } else {
                line_at(w->f, "grid", LEFT, at_y(w, v), WIDTH - RIGHT, at_y(w, v));
                text_at(w->f, LEFT - 8, at_y(w, v) + 4, "end", text);
            }
        }
    }
}

static void axes(const window *w, const sd_plot *p) {
    ticks(w, true);
    ticks(w, false);
    line_at(w->f, "axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
    line_at(w->f, "axis", LEFT, TOP, LEFT, HEIGHT - BOTTOM);
    text_at(w->f, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10, "middle", p->x_label);
    fprintf(w->f, "<text x=\"16\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 16 %d)\">",
            (TOP + HEIGHT - BOTTOM) / 2, (TOP + HEIGHT - BOTTOM) / 2);
    sd_html_text(w->f, p->y_label);
    fputs("</text>\n", w->f);
}

static void curve(const window *w, const sd_plot_line *l) {
    fprintf(w->f, "<polyline class=\"curve\" style=\"stroke: var(--line-%d)\" points=\"", l->color);
    for (int i = 0; i < l->n; i++)
        if (l->y[i] > 0) fprintf(w->f, "%.1f,%.1f ", at_x(w, l->x[i]), at_y(w, l->y[i]));
    fputs("\"/>\n", w->f);
}

void sd_plot_log(FILE *f, const sd_plot *p) {
    window w = {.f = f};
    open_figure(f, p->title, HEIGHT);
    if (!find_window(&w, p)) {
        close_figure(f);
        return;
    }
    axes(&w, p);
    if (p->now > 0) {
        line_at(f, "now", at_x(&w, p->now), TOP, at_x(&w, p->now), HEIGHT - BOTTOM);
        text_at(f, at_x(&w, p->now) + 5, TOP + 12, "start", "now");
    }
    for (int i = 0; i < p->n_lines; i++) curve(&w, &p->line[i]);
    for (int i = 0; i < p->n_marks; i++) {
        const sd_plot_mark *m = &p->mark[i];
        fprintf(f, "<circle style=\"fill: var(--line-%d)\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"><title>",
                m->color, at_x(&w, m->x), at_y(&w, m->y));
        sd_html_text(f, m->what);
        fputs("</title></circle>\n", f);
    }
    legend_begin(f);
    for (int i = 0; i < p->n_lines; i++) legend_item(f, p->line[i].name, p->line[i].color);
    legend_end(f);
}

// ---- bars

// 1, 2 or 5 times a power of ten, so that about `count` of them make `range`.
static double tick_step(double range, int count) {
    double raw = range / count, power = pow(10, floor(log10(raw))), part = raw / power;
    return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

void sd_plot_tornado(FILE *f, const char *title, const char *unit, double middle,
                     const sd_plot_bar *bar, int n) {
    enum { ROW = 30, NAMES = 150 };
    int height = TOP + n * ROW + BOTTOM;
    double lo = middle, hi = middle;
    char text[32];
    for (int i = 0; i < n; i++) {
        lo = fmin(lo, fmin(bar[i].low, bar[i].high));
        hi = fmax(hi, fmax(bar[i].low, bar[i].high));
    }
    if (!(hi > lo)) hi = lo * 1.1, lo *= 0.9; // nothing moves it: a thin line in the middle
    double pad = (hi - lo) * 0.04, step = tick_step(hi - lo, 6);
    lo -= pad, hi += pad;
#define X(v) (NAMES + ((v)-lo) / (hi - lo) * (WIDTH - NAMES - RIGHT))
    open_figure(f, title, height);
    for (double v = ceil(lo / step) * step; v <= hi; v += step) {
        line_at(f, "grid", X(v), TOP, X(v), height - BOTTOM);
        text_at(f, X(v), height - BOTTOM + 18, "middle",
                short_number(fabs(v) < step / 2 ? 0 : v, text, sizeof text));
    }
    line_at(f, "axis", NAMES, height - BOTTOM, WIDTH - RIGHT, height - BOTTOM);
    text_at(f, (NAMES + WIDTH - RIGHT) / 2.0, height - 10, "middle", unit);
    for (int i = 0; i < n; i++) {
        double y = TOP + i * ROW + 5, ends[2] = {bar[i].low, bar[i].high};
        for (int k = 0; k < 2; k++) {
            double from = fmin(X(middle), X(ends[k])), to = fmax(X(middle), X(ends[k]));
            fprintf(f,
                    "<rect style=\"fill: var(--line-%d)\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                    "height=\"%d\"/>\n",
                    k, from, y, to - from, ROW - 10);
        }
        text_at(f, NAMES - 8, y + 14, "end", bar[i].name);
    }
    line_at(f, "axis", X(middle), TOP, X(middle), height - BOTTOM);
#undef X
    legend_begin(f);
    legend_item(f, "the input a quarter smaller", 0);
    legend_item(f, "a quarter larger", 1);
    legend_end(f);
}

void sd_plot_hours(FILE *f, const char *title, const char *part_name, const char *rest_name,
                   const double *all, const double *part, int n) {
    double most = 0, wide = (double)(WIDTH - LEFT - RIGHT) / n;
    char text[32];
    for (int i = 0; i < n; i++) most = fmax(most, all[i]);
    open_figure(f, title, HEIGHT);
    if (!(most > 0)) {
        close_figure(f);
        return;
    }
    double step = tick_step(most, 5), top = ceil(most / step - 1e-9) * step;
#define Y(v) (HEIGHT - BOTTOM - (v) / top * (HEIGHT - TOP - BOTTOM))
    for (double v = 0; v <= top * 1.0001; v += step) {
        line_at(f, "grid", LEFT, Y(v), WIDTH - RIGHT, Y(v));
        text_at(f, LEFT - 8, Y(v) + 4, "end", short_number(v, text, sizeof text));
    }
    for (int i = 0; i < n; i++) {
        double x = LEFT + i * wide + 2, ends[3] = {0, part[i], all[i]};
        for (int k = 0; k < 2; k++)
            fprintf(f,
                    "<rect style=\"fill: var(--line-%d)\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                    "height=\"%.1f\"/>\n",
                    k, x, Y(ends[k + 1]), wide - 4, Y(ends[k]) - Y(ends[k + 1]));
        snprintf(text, sizeof text, "%d", i);
        text_at(f, x + wide / 2 - 2, HEIGHT - BOTTOM + 18, "middle", text);
    }
#undef Y
    line_at(f, "axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
    line_at(f, "axis", LEFT, TOP, LEFT, HEIGHT - BOTTOM);
    text_at(f, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10, "middle", "hour of the day");
    fprintf(f,
            "<text x=\"16\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 16 %d)\">"
            "requests</text>\n",
            (TOP + HEIGHT - BOTTOM) / 2, (TOP + HEIGHT - BOTTOM) / 2);
    legend_begin(f);
    legend_item(f, part_name, 0);
    legend_item(f, rest_name, 1);
    legend_end(f);
}
