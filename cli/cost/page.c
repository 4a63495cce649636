// The page is one file that can be mailed: a style sheet and plots inside it, no script, nothing fetched. Colours follow the reader's
// light or dark setting.
#include "cli/cost/show.h"

#include "base/files/replace.h"
#include "cli/cost/plot.h"

#include <math.h>

enum { POINTS = 300, MAX_CURVES = 8 };

static const char style[] =
    ":root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --text: #1d2320; --soft: "
    "#5d6963; --grid: #dce1de;\n"
    "  --line-0: #1f7a53; --line-1: #3a66c4; --line-2: #b3641c; --line-3: #7a3e9d; --line-4: "
    "#b3261e; --line-5: #5d6963;\n"
    "  --line-6: #0b7285; --line-7: #8a6d00; }\n"
    "@media (prefers-color-scheme: dark) { :root { --back: #141715; --card: #1b1f1d; --text: "
    "#e4e9e6; --soft: #9aa6a0; --grid: #323a36;\n"
    "  --line-0: #4fb987; --line-1: #7fa5f5; --line-2: #e39a56; --line-3: #c79be6; --line-4: "
    "#ff8a80; --line-5: #9aa6a0;\n"
    "  --line-6: #5fc3d6; --line-7: #d8bd4a; } }\n"
    "body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 920px; padding: "
    "1.5rem 1rem; background: var(--back);\n"
    "  color: var(--text); }\n"
    "h1 { font-size: 1.3rem; margin: 0 0 .5rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; "
    "}\n"
    ".verdict { font-size: 1.15rem; font-weight: 600; border-left: 4px solid var(--line-0); "
    "padding: .3rem .8rem; margin: 0; }\n"
    ".soft, figcaption { color: var(--soft); }\n"
    ".wide { overflow-x: auto; }\n"
    "table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }\n"
    "th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--grid); "
    "vertical-align: top; }\n"
    "th { color: var(--soft); font-weight: 500; vertical-align: bottom; }\n"
    "th:first-child, td:first-child, .text { text-align: left; } td:first-child { white-space: "
    "nowrap; }\n"
    ".says { min-width: 15rem; }\n"
    "figure { margin: 1rem 0; background: var(--card); border: 1px solid var(--grid); "
    "border-radius: .5rem; padding: .75rem; }\n"
    "figure { overflow-x: auto; } svg { width: 100%; min-width: 560px; height: auto; display: "
    "block; font-size: 12px; } svg text { fill: "
    "var(--soft); }\n"
    ".grid { stroke: var(--grid); } .axis { stroke: var(--soft); } .now { stroke: var(--text); "
    "stroke-dasharray: 4 4; }\n"
    ".curve { fill: none; stroke-width: 2.5; stroke-linejoin: round; }\n"
    ".legend { margin: .4rem 0 0; } .legend span { margin-right: 1.2rem; white-space: nowrap; }\n"
    ".legend i { display: inline-block; width: 1rem; height: .25rem; margin-right: .4rem; "
    "vertical-align: middle; border-radius: 2px; }\n"
    "code { word-break: break-all; }\n";

static void element(FILE *f, const char *open, const char *text, const char *close) {
    fputs(open, f);
    sd_html_text(f, text);
    fputs(close, f);
}
static void cell(FILE *f, const char *text) {
    element(f, "<td>", text, "</td>");
}
static void text_cell(FILE *f, const char *text) {
    element(f, "<td class=\"text\">", text, "</td>");
}

// ---- tables

static void write_bill(FILE *f, const sd_cost_case *c, const sd_cost_result *r) {
    fputs("<div class=\"wide\"><table><tr><th></th><th>a month</th><th>a "
          "request</th><th>a million tokens</th>"
          "<th class=\"text\">self-hosting is cheaper</th></tr>\n<tr>",
          f);
    cell(f, "self-hosted");
    cell(f, sd_figure_money(r->month.total.usd).text);
    cell(f, sd_figure_small(r->request.usd).text);
    cell(f, sd_figure_million(r->million.all_in).text);
    fputs("<td></td></tr>\n", f);
    for (int i = 0; i < c->n_rivals; i++) {
        const sd_rival_result *x = &r->rival[i];
        char says[400];
        sd_cost_even_says(says, sizeof says, &x->even);
        fputs("<tr>", f);
        cell(f, c->rival[i].name);
        cell(f, sd_figure_money(x->month.usd).text);
        cell(f, sd_figure_small(x->request.usd).text);
        cell(f, sd_figure_million(x->million).text);
        element(f, "<td class=\"text says\">", says, "</td>");
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

static void row(FILE *f, const char *name, const char *value, const char *remark) {
    fputs("<tr>", f);
    cell(f, name);
    cell(f, value);
    text_cell(f, remark);
    fputs("</tr>\n", f);
}

static void write_own(FILE *f, const sd_cost_case *c, const sd_cost_result *r) {
    const sd_cost_month *m = &r->month;
    char text[160];
    fputs("<div class=\"wide\"><table>\n", f);
    row(f, "GPUs", sd_figure_money(m->gpu.usd).text, "a month of 730 hours");
    row(f, "people", sd_figure_money(m->people.usd).text,
        m->people.usd > 0 ? "" : "nobody's time is counted");
    row(f, "power", sd_figure_money(m->energy.usd).text, "");
    row(f, "other", sd_figure_money(m->other.usd).text, "");
    row(f, "a million tokens, GPUs alone", sd_figure_million(r->million.gpu_only).text,
        "with idle time");
    row(f, "a million tokens, all in", sd_figure_million(r->million.all_in).text, "with idle time");
    row(f, "a million tokens, GPUs at full use",
        sd_figure_million(r->million.gpu_only_at_full_use).text,
        "for comparison only: nobody has that load");
    row(f, "a million prompt tokens", sd_figure_million(r->million.input).text, "all in");
    row(f, "a million answer tokens", sd_figure_million(r->million.output).text, "all in");
    snprintf(text, sizeof text, "of %lld replica%s; %.6g s of one for a request",
             (long long)r->replicas, r->replicas == 1 ? "" : "s", r->seconds);
    row(f, "capacity used", sd_figure_percent(r->utilisation).text, text);
    row(f, "time with work", c->busy >= 0 ? sd_figure_percent(c->busy).text : "-",
        c->busy >= 0 ? sd_cost_source_word(c->busy_source) : "not measured");
    fputs("</table></div>\n", f);
}

static void take_assumption(void *ctx, const char *name, double value, const char *unit,
                            sd_cost_source source, const char *from) {
    FILE *f = ctx;
    fputs("<tr>", f);
    cell(f, name);
    cell(f, sd_figure_plain(value).text);
    text_cell(f, unit ? unit : "");
    text_cell(f, sd_cost_source_word(source));
    text_cell(f, from ? from : "");
    fputs("</tr>\n", f);
}

static void write_assumptions(FILE *f, const sd_cost_case *c) {
    fputs("<h2>Assumptions</h2>\n<div class=\"wide\"><table><tr><th>input</th><th>value</th><th "
          "class=\"text\">unit</th>"
          "<th class=\"text\">source</th><th class=\"text\">from</th></tr>\n",
          f);
    sd_cost_assumptions(c, take_assumption, f);
    fputs("</table></div>\n", f);
    if (c->prices) {
        element(f, "<p class=\"soft\">Prices: ", c->prices_path, " of ");
        element(f, "", c->prices_date, ", SHA-256 <code>");
        element(f, "", c->prices_sha256, "</code></p>\n");
    }
    for (int i = 0; i < c->n_notes; i++) element(f, "<p class=\"soft\">", c->notes[i], "</p>\n");
}

// ---- plots

// Curves over the load: own replicas, then the first APIs.
typedef struct {
    double x[POINTS], month[MAX_CURVES][POINTS], million[MAX_CURVES][POINTS];
    int n, n_curves;
} curves;

static void sample(curves *v, const sd_cost_case *c, const sd_cost_result *r) {
    double lo = c->in.requests_day / 10, hi = c->in.requests_day * 10;
    double tokens = (c->in.tokens_in + c->in.tokens_out) * SD_DAYS_MONTH;
    v->n_curves = 1 + (c->n_rivals < MAX_CURVES - 1 ? c->n_rivals : MAX_CURVES - 1);
    for (int i = 0; i < r->n_loads; i++)
        lo = fmin(lo, r->load[i].requests_day / 2), hi = fmax(hi, r->load[i].requests_day * 2);
    for (int i = 0; i < POINTS; i++) {
        sd_load_row row;
        double q = lo * pow(hi / lo, i / (POINTS - 1.0));
        if (sd_cost_load(&row, c, r, q, NULL) != SD_OK) break;
        v->x[v->n] = q;
        for (int k = 0; k < v->n_curves; k++) {
            double usd = k == 0 ? row.own.usd : row.rival[k - 1].usd;
            v->month[k][v->n] = usd;
            v->million[k][v->n] = usd / (q * tokens) * 1e6;
        }
        v->n++;
    }
}

static void write_curves(FILE *f, const sd_cost_case *c, const sd_cost_result *r) {
    curves v = {.n = 0};
    sd_plot_line month[MAX_CURVES], million[MAX_CURVES];
    sd_plot_mark mark[MAX_CURVES];
    int n_marks = 0;
    sample(&v, c, r);
    for (int k = 0; k < v.n_curves; k++) {
        const char *name = k == 0 ? "self-hosted, all in" : c->rival[k - 1].name;
        month[k] = (sd_plot_line){name, v.x, v.month[k], v.n, k};
        million[k] = (sd_plot_line){name, v.x, v.million[k], v.n, k};
        if (k == 0 || k > c->n_llm) continue;
        const sd_break_even *e = &r->rival[k - 1].even;
        sd_load_row row;
        if (!e->never && e->requests_day > 0 &&
            sd_cost_load(&row, c, r, e->requests_day, NULL) == SD_OK)
            mark[n_marks++] =
                (sd_plot_mark){e->requests_day, row.rival[k - 1].usd, "break-even", k};
    }
    sd_plot p = {.title = "Cost of a month; dots: from there on self-hosting is cheaper",
                 .x_label = "requests a day",
                 .y_label = "USD a month",
                 .line = month,
                 .n_lines = v.n_curves,
                 .mark = mark,
                 .n_marks = n_marks,
                 .now = c->in.requests_day};
    sd_plot_log(f, &p);
    p = (sd_plot){.title = "Price of a million tokens of this mix, idle time and people included",
                  .x_label = "requests a day",
                  .y_label = "USD for a million tokens",
                  .line = million,
                  .n_lines = v.n_curves,
                  .now = c->in.requests_day};
    sd_plot_log(f, &p);
}

static void write_sensitivity(FILE *f, const sd_cost_result *r) {
    sd_plot_bar bar[SD_SENSITIVITY_MAX];
    for (int i = 0; i < r->n_sensitivity; i++) {
        const sd_sensitivity *s = &r->sensitivity[i];
        bar[i] = (sd_plot_bar){s->row->name, s->low.usd, s->high.usd};
    }
    sd_plot_tornado(f, "What a million own tokens cost with one input changed",
                    "USD for a million tokens, all in", r->million.all_in.usd, bar,
                    r->n_sensitivity);
}

static void write_body(FILE *f, const sd_cost_case *c, const sd_cost_result *r) {
    char text[512];
    fputs("<h1>Own replicas or an API</h1>\n", f);
    sd_cost_verdict(text, sizeof text, c, r);
    element(f, "<p class=\"verdict\">", text, "</p>\n");
    sd_cost_turns(text, sizeof text, r);
    element(f, "<p>", text, "</p>\n");
    element(f, "<p>Speculation: ", r->speculation_says, "</p>\n");
    write_bill(f, c, r);
    write_curves(f, c, r);
    fputs("<h2>Own replicas</h2>\n", f);
    write_own(f, c, r);
    write_sensitivity(f, r);
    if (r->has_burst)
        sd_plot_hours(f, "Each hour's load on the number of replicas that costs least",
                      "own replicas", c->rival[0].name, c->hour, r->burst.local, SD_HOURS_DAY);
    write_assumptions(f, c);
}

sd_status sd_cost_html(const char *path, const sd_cost_case *c, const sd_cost_result *r,
                       sd_error *err) {
    sd_replace file = {0};
    sd_status st = sd_replace_open(&file, path, err);
    if (st != SD_OK) return st;
    fprintf(file.f,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
            "'unsafe-inline'\">\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
            "<title>Own replicas or an API</title>\n<style>\n%s</style></head>\n<body>\n",
            style);
    write_body(file.f, c, r);
    fputs("</body></html>\n", file.f);
    st = sd_replace_commit(&file, err);
    sd_replace_abort(&file);
    return st;
}
