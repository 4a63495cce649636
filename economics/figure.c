#include "economics/figure.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// A number with `digits` decimals and commas between thousands.
static sd_figure grouped(const char *before, double v, int digits) {
    sd_figure f;
    char plain[400];
    if (!(fabs(v) < 1e15)) {
        snprintf(f.text, sizeof f.text, "%s%.4g", before, v);
        return f;
    }
    snprintf(plain, sizeof plain, "%.*f", digits, fabs(v));
    size_t whole = strcspn(plain, "."),
           n = (size_t)snprintf(f.text, sizeof f.text, "%s%s", v < 0 ? "-" : "", before);
    for (size_t i = 0; plain[i] && n + 2 < sizeof f.text; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0) f.text[n++] = ',';
        f.text[n++] = plain[i];
    }
    f.text[n] = '\0';
    return f;
}

sd_figure sd_figure_money(double usd) {
    return grouped("$", usd, 2);
}

// Below a tenth of a cent four digits that matter, without the zeros behind them.
sd_figure sd_figure_small(double usd) {
    if (usd == 0 || fabs(usd) >= 1e-3) return grouped("$", usd, 6);
    sd_figure f;
    int digits = 3 - (int)floor(log10(fabs(usd)));
    if (digits > 15) {
        snprintf(f.text, sizeof f.text, "$%.3g", usd);
        return f;
    }
    size_t n = (size_t)snprintf(f.text, sizeof f.text, "$%.*f", digits, usd);
    while (f.text[n - 1] == '0') f.text[--n] = '\0';
    return f;
}

sd_figure sd_figure_million(sd_usd_million m) {
    double v = m.usd;
    return grouped("$", v, v >= 1000 ? 2 : v >= 10 || v == 0 ? 3 : v >= 0.001 ? 4 : 7);
}

sd_figure sd_figure_count(double n) {
    return grouped("", n, n >= 100000 || n == floor(n) ? 0 : n >= 1 ? 1 : 4);
}

sd_figure sd_figure_percent(double share) {
    sd_figure f;
    snprintf(f.text, sizeof f.text, "%.*f %%", share < 0.01 ? 4 : 2, share * 100);
    return f;
}

sd_figure sd_figure_plain(double v) {
    sd_figure f;
    snprintf(f.text, sizeof f.text, "%.6g", v);
    return f;
}
