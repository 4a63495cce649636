// The verdict and what it rests on, on one screen.
#include "cli/cost/show.h"

#include <stdio.h>
#include <string.h>

enum { WIDTH = 96 };

// Text in lines of at most WIDTH, behind a head of its own in the first.
static void paragraph(const char *head, const char *text) {
    int column = printf("%-12s", head);
    for (const char *p = text; *p; p += *p == ' ') {
        int len = (int)strcspn(p, " ");
        if (column + 1 + len > WIDTH) column = printf("\n%12s", "") - 1;
        column += printf(" %.*s", len, p);
        p += len;
    }
    putchar('\n');
}

static void print_bill(const sd_cost_case *c, const sd_cost_result *r) {
    printf("\n%-24s %16s %14s %14s\n", "", "a month", "a request", "million tokens");
    printf("%-24s %16s %14s %14s\n", "self-hosted", sd_figure_money(r->month.total.usd).text,
           sd_figure_small(r->request.usd).text, sd_figure_million(r->million.all_in).text);
    for (int i = 0; i < c->n_rivals; i++) {
        const sd_rival_result *x = &r->rival[i];
        printf("%-24.24s %16s %14s %14s%s\n", c->rival[i].name, sd_figure_money(x->month.usd).text,
               sd_figure_small(x->request.usd).text, sd_figure_million(x->million).text,
               c->rival[i].decision ? "  labels, no text" : "");
    }
    if (c->n_rivals > 0) putchar('\n');
    for (int i = 0; i < c->n_rivals; i++) {
        char says[400], text[512];
        sd_cost_even_says(says, sizeof says, &r->rival[i].even);
        snprintf(text, sizeof text, "%s: %s", c->rival[i].name, says);
        paragraph(i == 0 ? "break-even" : "", text);
    }
}

static void print_own(const sd_cost_case *c, const sd_cost_result *r) {
    const sd_cost_month *m = &r->month;
    char text[512];
    putchar('\n');
    snprintf(text, sizeof text, "%s GPUs + %s people + %s power + %s other, a month of 730 hours%s",
             sd_figure_money(m->gpu.usd).text, sd_figure_money(m->people.usd).text,
             sd_figure_money(m->energy.usd).text, sd_figure_money(m->other.usd).text,
             m->people.usd > 0 ? ""
                               : "; nobody's time is counted (--engineer-hours, --engineer-rate)");
    paragraph("self-hosted", text);
    snprintf(
        text, sizeof text,
        "tokens: %s of GPUs alone, %s all in (of prompts %s, of answers %s); at full use, which "
        "nobody has, %s of GPUs alone",
        sd_figure_million(r->million.gpu_only).text, sd_figure_million(r->million.all_in).text,
        sd_figure_million(r->million.input).text, sd_figure_million(r->million.output).text,
        sd_figure_million(r->million.gpu_only_at_full_use).text);
    paragraph("a million", text);
    snprintf(
        text, sizeof text,
        "%s of the capacity of %lld replica%s: %.6f s of one for a request, within the limit %s "
        "requests/day",
        sd_figure_percent(r->utilisation).text, (long long)r->replicas, r->replicas == 1 ? "" : "s",
        r->seconds, sd_figure_count(r->capacity_day).text);
    paragraph("utilisation", text);
    if (c->busy >= 0)
        snprintf(text, sizeof text, "%s of the time with work (%s), which says nothing of room",
                 sd_figure_percent(c->busy).text, sd_cost_source_word(c->busy_source));
    else
        snprintf(text, sizeof text,
                 "share of the time with work: not measured (--metrics, --usage or --busy)");
    paragraph("", text);
}

static void print_mixtures(const sd_cost_case *c, const sd_cost_result *r) {
    char text[512];
    if (r->has_hybrid) {
        snprintf(text, sizeof text,
                 "%s here (%lld replica%s), the rest at %s: %s a month against %s all there "
                 "(%+.1f %%) and %s all here",
                 sd_figure_percent(r->hybrid.local_share).text, (long long)r->hybrid.replicas,
                 r->hybrid.replicas == 1 ? "" : "s", c->rival[0].name,
                 sd_figure_money(r->hybrid.total.usd).text,
                 sd_figure_money(r->hybrid.all_api.usd).text, r->hybrid.change * 100,
                 sd_figure_money(r->month.total.usd).text);
        paragraph("hybrid", text);
    }
    if (r->has_cascade) {
        snprintf(text, sizeof text, "all here, %s asked of %s again: %s a month, %s a request",
                 sd_figure_percent(c->escalated_share).text, c->rival[0].name,
                 sd_figure_money(r->cascade.usd).text,
                 sd_figure_small(r->cascade_request.usd).text);
        paragraph("cascade", text);
    }
    if (r->has_burst && r->burst.replicas == 0) {
        snprintf(text, sizeof text, "least without a replica: all at %s, %s a month",
                 c->rival[0].name, sd_figure_money(r->burst.total.usd).text);
        paragraph("by hour", text);
    } else if (r->has_burst) {
        snprintf(
            text, sizeof text,
            "least with %lld replica%s, and %s above them: %s of the requests here, %s a month "
            "against %s all there",
            (long long)r->burst.replicas, r->burst.replicas == 1 ? "" : "s", c->rival[0].name,
            sd_figure_percent(r->burst.local_share).text, sd_figure_money(r->burst.total.usd).text,
            sd_figure_money(r->burst.all_api.usd).text);
        paragraph("by hour", text);
    }
}

static void print_loads(const sd_cost_case *c, const sd_cost_result *r) {
    enum { SHOWN = 3 };
    int n = c->n_rivals < SHOWN ? c->n_rivals : SHOWN;
    printf("\n%13s %9s %10s %14s", "requests/day", "replicas", "capacity", "self-hosted");
    for (int k = 0; k < n; k++) printf(" %14.14s", c->rival[k].name);
    printf("%s\n", n < c->n_rivals ? "  ..." : "");
    for (int i = 0; i < r->n_loads; i++) {
        const sd_load_row *l = &r->load[i];
        printf("%13s %9lld %10s %14s", sd_figure_count(l->requests_day).text,
               (long long)l->replicas, sd_figure_percent(l->utilisation).text,
               sd_figure_money(l->own.usd).text);
        for (int k = 0; k < n; k++) printf(" %14s", sd_figure_money(l->rival[k].usd).text);
        putchar('\n');
    }
}

static const char *even_word(double day, char *to, size_t size) {
    snprintf(to, size, "%s", day > 0 ? sd_figure_count(day).text : "never");
    return to;
}

static void print_sensitivity(const sd_cost_case *c, const sd_cost_result *r) {
    char low[48], high[48];
    printf("\n%-16s %23s", "-25 %, +25 %", "million tokens, all in");
    if (r->cheapest >= 0) printf("   break-even with %s, requests/day", c->rival[r->even].name);
    putchar('\n');
    for (int i = 0; i < r->n_sensitivity; i++) {
        const sd_sensitivity *s = &r->sensitivity[i];
        printf("%-16s %11s %11s", s->row->name, sd_figure_million(s->low).text,
               sd_figure_million(s->high).text);
        if (r->cheapest >= 0)
            printf("   %12s %12s%s", even_word(s->break_even_low, low, sizeof low),
                   even_word(s->break_even_high, high, sizeof high),
                   s->flips ? "  turns the verdict" : "");
        putchar('\n');
    }
}

// Assumptions of one source, side by side.
typedef struct {
    sd_cost_source source;
    const char *head;
    int column, n;
} assumption_line;

static void take_assumption(void *ctx, const char *name, double value, const char *unit,
                            sd_cost_source source, const char *from) {
    assumption_line *a = ctx;
    char text[512];
    bool shown = from && source == SD_SOURCE_MEASURED;
    (void)unit;
    if (source != a->source) return;
    snprintf(text, sizeof text, "%s %s%s%s%s", name, sd_figure_plain(value).text, shown ? " (" : "",
             shown ? from : "", shown ? ")" : "");
    if (a->n++ == 0)
        a->column = printf("%-13s", a->head);
    else if (a->column + 2 + (int)strlen(text) > WIDTH)
        a->column = printf(",\n%13s", "") - 2;
    else
        a->column += printf(", ");
    a->column += printf("%s", text);
}

static void print_assumptions(const sd_cost_case *c) {
    static const sd_cost_source order[] = {SD_SOURCE_MEASURED, SD_SOURCE_GIVEN, SD_SOURCE_DEFAULT};
    putchar('\n');
    for (int i = 0; i < 3; i++) {
        assumption_line a = {.source = order[i], .head = sd_cost_source_word(order[i])};
        sd_cost_assumptions(c, take_assumption, &a);
        if (a.n) putchar('\n');
    }
    if (c->prices)
        printf("%-13s%s of %s, SHA-256 %s\n", "prices", c->prices_path, c->prices_date,
               c->prices_sha256);
    for (int i = 0; i < c->n_rivals; i++) {
        const sd_cost_rival *r = &c->rival[i];
        if (r->from_file && r->model.ends[0])
            printf("%13s%s ends on %s%s\n", "", r->name, r->model.ends,
                   c->in.migration_hours > 0 ? "" : ": moving costs --migration-hours");
    }
    for (int i = 0; i < c->n_notes; i++) paragraph("note", c->notes[i]);
}

void sd_cost_print(const sd_cost_case *c, const sd_cost_result *r) {
    char text[512];
    sd_cost_verdict(text, sizeof text, c, r);
    paragraph("VERDICT", text);
    sd_cost_turns(text, sizeof text, r);
    if (*text) paragraph("", text);
    print_bill(c, r);
    print_own(c, r);
    paragraph("speculation", r->speculation_says);
    print_mixtures(c, r);
    if (c->logged)
        printf("%-13s%s for %lld of %lld requests; the others are unpriced\n", "logged",
               sd_figure_money(c->logged_usd).text,
               (long long)(c->logged_requests - c->unpriced_requests),
               (long long)c->logged_requests);
    if (c->n_rivals == c->n_llm)
        paragraph("labels", "if the answers are labels, a decision API is a third way: --decision");
    print_loads(c, r);
    print_sensitivity(c, r);
    print_assumptions(c);
}
