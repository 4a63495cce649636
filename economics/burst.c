#include "economics/burst.h"

#include <math.h>

// The bill with n replicas; *served <- requests of a day that they answer.
static sd_usd_month bill(const sd_cost_input *in, const double *load, int64_t n, sd_usd_request api,
                         double *served) {
    double room = sd_cost_capacity(in, n) / SD_HOURS_DAY, local = 0, sent = 0;
    for (int h = 0; h < SD_HOURS_DAY; h++) {
        double here = fmin(load[h], room);
        local += here, sent += load[h] - here;
    }
    *served = local;
    sd_usd_month own = n > 0 ? sd_cost_of(in, n, local).total : (sd_usd_month){0};
    return sd_month_add(own, sd_month_of_requests(api, sent));
}

sd_status sd_cost_burst(sd_burst *out, const sd_cost_input *in, const double load[SD_HOURS_DAY],
                        double peak, sd_usd_request api, sd_error *err) {
    sd_cost_input by_hour = *in;
    double sum = 0, most = 0, served;
    int64_t all = 0;
    for (int h = 0; h < SD_HOURS_DAY; h++) sum += load[h], most = fmax(most, load[h]);
    by_hour.peak = peak;
    sd_status st = sd_cost_replicas(&all, &by_hour, most * SD_HOURS_DAY, err);
    if (st != SD_OK) return st;
    sd_burst b = {.all_api = sd_month_of_requests(api, sum)};
    b.total = b.all_api;
    int64_t least = (int64_t)in->min_replicas;
    for (int64_t n = least; n <= all; n++) {
        sd_usd_month total = bill(&by_hour, load, n, api, &served);
        if (sd_month_cheaper(total, b.total))
            b.total = total, b.replicas = n, b.local_share = served / sum;
    }
    double room = sd_cost_capacity(&by_hour, b.replicas) / SD_HOURS_DAY;
    for (int h = 0; h < SD_HOURS_DAY; h++) b.local[h] = fmin(load[h], room);
    *out = b;
    return SD_OK;
}
