// Plots as SVG inside a page, whose style sheet has the classes and the colours --line-0 ... --line-7.
#pragma once

#include <stdbool.h>
#include <stdio.h>

/// Text for an element or an attribute in double quotes.
void sd_html_text(FILE *f, const char *s);

// A curve; points whose y is not above 0 are left out.
typedef struct {
    const char *name;
    const double *x, *y; // [n], x ascending
    int n;
    int color; // 0 to 7
} sd_plot_line;

typedef struct {
    double x, y;
    const char *what;
    int color;
} sd_plot_mark;

typedef struct {
    const char *title, *x_label, *y_label;
    const sd_plot_line *line;
    int n_lines;
    const sd_plot_mark *mark;
    int n_marks;
    double now; // x of a vertical line; 0: none
} sd_plot;

/// Both axes logarithmic, with decades and their labels.
void sd_plot_log(FILE *f, const sd_plot *p);

// A bar from low to high around a middle.
typedef struct {
    const char *name;
    double low, high;
} sd_plot_bar;
/// Bars below each other, the values in y_label's unit.
void sd_plot_tornado(FILE *f, const char *title, const char *unit, double middle,
                     const sd_plot_bar *bar, int n);

/// Columns of hours 0 to n - 1: part [n] of all [n] in color 0, the rest on top of it in color 1.
void sd_plot_hours(FILE *f, const char *title, const char *part_name, const char *rest_name,
                   const double *all, const double *part, int n);
