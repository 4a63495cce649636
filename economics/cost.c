#include "economics/cost.h"

#include "economics/figure.h"

#include <math.h>
#include <stdio.h>

double sd_cost_seconds(const sd_cost_input *in) {
    double w = 0;
    if (in->tokens_in > 0) w += in->tokens_in * (1 - in->cached_share) / in->prefill_tok_s;
    if (in->tokens_out > 0) w += in->tokens_out / in->decode_tok_s;
    return w;
}

// Seconds of a mean day in which replicas run.
static double seconds_on(const sd_cost_input *in) {
    return SD_SECONDS_DAY * in->hours_on / SD_HOURS_MONTH;
}

// Replicas kept busy by the mean load.
static double work(const sd_cost_input *in, double requests_day) {
    return requests_day / seconds_on(in) * sd_cost_seconds(in);
}

sd_status sd_cost_replicas(int64_t *n, const sd_cost_input *in, double requests_day,
                           sd_error *err) {
    // A load of exactly cap(n) is n replicas' work, however its factors were rounded.
    double need = ceil(in->peak * work(in, requests_day) / in->max_load * (1 - 1e-12));
    double most = fmax(need, in->min_replicas);
    if (!(most <= SD_COST_MAX_REPLICAS))
        return sd_fail(
            err, SD_ELIMIT,
            "--requests-day: %.6g a day of %.4g s each take %.3g replicas, more than %d; "
            "give a smaller load, or the speed of a larger replica",
            requests_day, sd_cost_seconds(in), most, SD_COST_MAX_REPLICAS);
    *n = (int64_t)most;
    return SD_OK;
}

double sd_cost_utilisation(const sd_cost_input *in, int64_t n, double requests_day) {
    return work(in, requests_day) / (double)n;
}

double sd_cost_capacity(const sd_cost_input *in, int64_t n) {
    return (double)n * in->max_load * seconds_on(in) / (in->peak * sd_cost_seconds(in));
}

// ---- a month's bill

static sd_usd_month replica_gpu(const sd_cost_input *in) {
    if (in->gpu_hour.usd > 0)
        return sd_month_of_hours((sd_usd_hour){in->gpu_hour.usd * in->gpus}, in->hours_on);
    return (sd_usd_month){in->gpus * in->buy.usd * (1 - in->residual) / (12 * in->years)};
}

// Power of one replica's GPUs at so many watts each while it runs.
static sd_usd_month power(const sd_cost_input *in, double watts) {
    double kwh = in->gpus * watts / 1000 * in->pue * in->hours_on;
    return (sd_usd_month){kwh * in->kwh.usd};
}
static sd_usd_month power_of_work(const sd_cost_input *in, double replicas_busy) {
    sd_usd_month one = power(in, in->watts_active - in->watts_idle);
    return (sd_usd_month){one.usd * replicas_busy};
}

static sd_usd_month people(const sd_cost_input *in) {
    sd_usd_month run = sd_month_of_hours(in->engineer_rate, in->engineer_hours);
    sd_usd_month setup = sd_month_of_hours(in->engineer_rate, in->setup_hours / in->setup_months);
    return sd_month_add(run, setup);
}

sd_cost_month sd_cost_of(const sd_cost_input *in, int64_t n, double requests_day) {
    double replicas = (double)n;
    sd_cost_month c = {
        .gpu = {replica_gpu(in).usd * replicas + in->hosting.usd},
        .energy = sd_month_add((sd_usd_month){power(in, in->watts_idle).usd * replicas},
                               power_of_work(in, work(in, requests_day))),
        .people = people(in),
        .other = in->other,
    };
    c.total.usd = c.gpu.usd + c.energy.usd + c.people.usd + c.other.usd;
    return c;
}

sd_cost_million sd_cost_per_million(const sd_cost_input *in, int64_t n, double requests_day) {
    sd_cost_month c = sd_cost_of(in, n, requests_day);
    double requests = requests_day * SD_DAYS_MONTH, w = sd_cost_seconds(in);
    double tokens = in->tokens_in + in->tokens_out;
    sd_cost_million m = {
        .gpu_only = sd_million_of_month(sd_month_add(c.gpu, c.energy), requests * tokens),
        .all_in = sd_million_of_month(c.total, requests * tokens),
    };
    sd_usd_month full = {replica_gpu(in).usd + in->hosting.usd / (double)n +
                         power(in, in->watts_active).usd};
    m.gpu_only_at_full_use =
        sd_million_of_rent((sd_usd_hour){full.usd / in->hours_on}, tokens / w, 1);
    double answer_share = in->tokens_out > 0 ? in->tokens_out / in->decode_tok_s / w : 0;
    if (in->tokens_in > 0)
        m.input = sd_million_of_month((sd_usd_month){c.total.usd * (1 - answer_share)},
                                      requests * in->tokens_in);
    if (in->tokens_out > 0)
        m.output = sd_million_of_month((sd_usd_month){c.total.usd * answer_share},
                                       requests * in->tokens_out);
    return m;
}

// ---- an API

sd_api_price sd_api_flat(sd_usd_million in, sd_usd_million out) {
    return (sd_api_price){
        .in = in, .cached = in, .write_5m = in, .write_1h = in, .out = out, .reasoning = out};
}

sd_usd_request sd_api_request(const sd_api_price *p, const sd_cost_input *in, double tokens) {
    double a = in->tokens_in * tokens, b = in->tokens_out * tokens;
    double plain = 1 - in->cached_share - in->write_5m_share - in->write_1h_share;
    double sum = p->request.usd;
    sum += sd_request_of_tokens(p->in, a * fmax(plain, 0)).usd;
    sum += sd_request_of_tokens(p->cached, a * in->cached_share).usd;
    sum += sd_request_of_tokens(p->write_5m, a * in->write_5m_share).usd;
    sum += sd_request_of_tokens(p->write_1h, a * in->write_1h_share).usd;
    sum += sd_request_of_tokens(p->out, b * (1 - in->reasoning_share)).usd;
    sum += sd_request_of_tokens(p->reasoning, b * in->reasoning_share).usd;
    return (sd_usd_request){sum};
}

sd_usd_month sd_api_migration(const sd_cost_input *in) {
    return sd_month_of_hours(in->engineer_rate, in->migration_hours / 12);
}

// ---- break-even

// C(n) = F + n G + c_var q D, and the API takes c_api q D: with V = cap(1) D (c_api - c_var), the work that one replica takes from
// the API, n replicas pay within their capacity where F + n G <= n V. Without V > G no n does.
typedef struct {
    double fixed, replica, carries; // F, G, V
    double margin;                  // c_api - c_var
} sides;

static sides sides_of(const sd_cost_input *in, sd_usd_request api) {
    sides s = {.fixed = people(in).usd + in->other.usd + in->hosting.usd - sd_api_migration(in).usd,
               .replica = replica_gpu(in).usd + power(in, in->watts_idle).usd};
    double a_day = power_of_work(in, work(in, 1)).usd; // of one request a day, a month long
    s.margin = api.usd - a_day / SD_DAYS_MONTH;
    s.carries = sd_cost_capacity(in, 1) * SD_DAYS_MONTH * s.margin;
    return s;
}

// The smallest n >= n_min with F + n G <= n V.
static double smallest(const sides *s, double fixed, double least) {
    double n = fmax(least, ceil(fixed / (s->carries - s->replica) * (1 - 1e-12)));
    return n > 1 ? n : 1;
}

sd_break_even sd_cost_break_even(const sd_cost_input *in, sd_usd_request api) {
    sides s = sides_of(in, api);
    sd_break_even b = {
        .replica = {s.replica}, .carries = {s.carries}, .capacity_day = sd_cost_capacity(in, 1)};
    if (api.usd <= 0)
        b.never = SD_NEVER_FREE;
    else if (s.margin <= 0)
        b.never = SD_NEVER_POWER;
    else if (s.carries <= s.replica &&
             s.fixed + in->min_replicas * s.replica > in->min_replicas * s.carries)
        b.never = SD_NEVER_REPLICA;
    if (b.never) return b;
    double n = s.carries > s.replica ? smallest(&s, s.fixed, in->min_replicas) : in->min_replicas;
    if (n > SD_COST_MAX_REPLICAS) {
        b.never = SD_NEVER_REPLICAS;
        return b;
    }
    b.replicas = (int64_t)n;
    b.capacity_day = sd_cost_capacity(in, b.replicas);
    b.requests_day = fmax(0, (s.fixed + n * s.replica) / (SD_DAYS_MONTH * s.margin));
    b.utilisation = sd_cost_utilisation(in, b.replicas, b.requests_day);
    // For good: also the first load behind cap(m - 1) is cheaper on m replicas, and so for all above m.
    if (s.carries > s.replica) {
        double m = smallest(&s, s.fixed + s.replica, n);
        if (m <= SD_COST_MAX_REPLICAS)
            b.for_good_day = fmax(0, (s.fixed + m * s.replica) / (SD_DAYS_MONTH * s.margin));
    }
    return b;
}

void sd_break_even_reason(char *out, size_t size, const sd_break_even *b) {
    switch (b->never) {
    case SD_NEVER_NOT:
        snprintf(out, size, "%s", "");
        break;
    case SD_NEVER_FREE:
        snprintf(out, size, "the API takes nothing for such a request");
        break;
    case SD_NEVER_POWER:
        snprintf(out, size, "a request's power alone costs what the API takes for the request");
        break;
    case SD_NEVER_REPLICA:
        snprintf(out, size, "a further replica costs %s a month and carries API work worth %s",
                 sd_figure_money(b->replica.usd).text, sd_figure_money(b->carries.usd).text);
        break;
    case SD_NEVER_REPLICAS:
        snprintf(out, size, "it would take more than %d replicas", SD_COST_MAX_REPLICAS);
        break;
    }
}

// ---- mixtures

sd_status sd_cost_hybrid(sd_hybrid *out, const sd_cost_input *in, sd_usd_request api,
                         double local_share, sd_error *err) {
    double own = in->requests_day * local_share, sent = in->requests_day * (1 - local_share);
    sd_hybrid h = {.local_share = local_share};
    sd_status st = sd_cost_replicas(&h.replicas, in, own, err);
    if (st != SD_OK) return st;
    h.all_api = sd_month_of_requests(api, in->requests_day);
    h.total = sd_month_add(sd_cost_of(in, h.replicas, own).total, sd_month_of_requests(api, sent));
    h.change = h.all_api.usd > 0 ? h.total.usd / h.all_api.usd - 1 : 0;
    *out = h;
    return SD_OK;
}

sd_usd_request sd_cost_cascade(sd_usd_request own, double escalated_share, sd_usd_request api) {
    return (sd_usd_request){own.usd + escalated_share * api.usd};
}
