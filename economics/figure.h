// Numbers as people read them, for a sentence: printf("%s", sd_figure_money(v).text).
#pragma once

#include "economics/units.h"

typedef struct {
    char text[48];
} sd_figure;
sd_figure sd_figure_money(double usd);         // $3,460.00
sd_figure sd_figure_small(double usd);         // $0.008750, of a request
sd_figure sd_figure_million(sd_usd_million m); // $113.753
sd_figure sd_figure_count(double n);           // 13,000.4
sd_figure sd_figure_percent(double share);     // 7.84 %
sd_figure sd_figure_plain(double v);           // six digits
