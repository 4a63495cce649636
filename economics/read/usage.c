#include "economics/read/usage.h"

#include "base/json.h"
#include "base/list.h"
#include "economics/read/day.h"

#include <math.h>
#include <string.h>

enum { MAX_LINE_DOCUMENT = 1 << 20 };
static const double DAY = 86400, HOUR = 3600;

typedef struct {
    double begin, end; // seconds since 1970
} span;

// Sums over the lines. Counts of tokens as doubles: exact to 2^53.
typedef struct {
    span *item;
    size_t n, cap;
    double in, out, cached, write_5m, write_1h, reasoning;
    double usd;
    int64_t unpriced;
    bool timed; // every line has total_ms
} log_sums;

// ---- one line

static bool digits(const char **p, int n, int *out) {
    for (*out = 0; n > 0; n--, (*p)++) {
        if (**p < '0' || **p > '9') return false;
        *out = *out * 10 + (**p - '0');
    }
    return true;
}

// Days since 1970-01-01 (Howard Hinnant, days_from_civil), for years from 1970 on.
static int64_t days_since_1970(int y, int m, int d) {
    y -= m <= 2;
    int era = y / 400, of_era = y - era * 400;
    int of_year = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int day = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    return (int64_t)era * 146097 + day - 719468;
}

// RFC 3339, years 1970 to 2399.
static bool parse_time(double *out, const char *p) {
    int y, mon, d, h, min, s, zone = 0, zh, zm;
    if (!digits(&p, 4, &y) || *p++ != '-' || !digits(&p, 2, &mon) || *p++ != '-' ||
        !digits(&p, 2, &d) || (*p != 'T' && *p != 't' && *p != ' '))
        return false;
    p++;
    if (!digits(&p, 2, &h) || *p++ != ':' || !digits(&p, 2, &min) || *p++ != ':' ||
        !digits(&p, 2, &s))
        return false;
    if (y < 1970 || y >= 2400 || mon < 1 || mon > 12 || d < 1 || d > sd_days_of_month(y, mon) ||
        h > 23 || min > 59 || s > 60)
        return false;
    double part = 0, unit = 0.1;
    if (*p == '.') {
        if (p[1] < '0' || p[1] > '9') return false;
        for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10) part += (*p - '0') * unit;
    }
    if (*p == '+' || *p == '-') {
        int sign = *p++ == '+' ? 1 : -1;
        if (!digits(&p, 2, &zh) || *p++ != ':' || !digits(&p, 2, &zm) || zh > 23 || zm > 59)
            return false;
        zone = sign * (zh * 60 + zm) * 60;
    } else if (*p != 'Z' && *p != 'z') {
        return false;
    } else {
        p++;
    }
    *out = (double)(days_since_1970(y, mon, d) * 86400 + h * 3600 + min * 60 + s - zone) + part;
    return *p == '\0';
}

// A count under another name (prompt_tokens is OpenAI's) would be one of 0.
static sd_status check_names(const json_t *tokens, const char *const *names, int n,
                             const char *where, sd_error *err) {
    static const char *const words =
        "uncached, cache_read, write_5m, write_1h, output and reasoning";
    const char *key;
    json_t *value;
    int counts = 0;
    json_object_foreach((json_t *)(uintptr_t)tokens, key, value) {
        bool known = false;
        for (int i = 0; i < n; i++) known |= strcmp(names[i], key) == 0;
        if (!known)
            return sd_fail(err, SD_EFORMAT,
                           "%s: tokens has %.60s, which is not one of %s; rename it", where, key,
                           words);
        counts += !json_is_null(value);
    }
    if (counts > 0) return SD_OK;
    return sd_fail(err, SD_EFORMAT, "%s: tokens is empty; it holds %s", where, words);
}

static sd_status take_tokens(log_sums *u, const json_t *o, const char *where, sd_error *err) {
    sd_status st = SD_OK;
    static const char *const names[] = {"uncached", "cache_read", "write_5m",
                                        "write_1h", "output",     "reasoning"};
    json_t *tokens = NULL;
    int64_t n[6];
    SD_TRY(sd_key_object(&tokens, o, "tokens", where, err));
    SD_CHECK(tokens, err, SD_EFORMAT, "%s: tokens is missing; it holds uncached and output", where);
    SD_TRY(check_names(tokens, names, 6, where, err));
    for (int i = 0; i < 6; i++)
        SD_TRY(sd_key_int(&n[i], tokens, names[i], 0, 0, 1000000000, where, err));
    SD_CHECK(n[5] <= n[4], err, SD_EFORMAT,
             "%s: reasoning is a part of output and larger than it; correct the line", where);
    u->in += (double)(n[0] + n[1] + n[2] + n[3]);
    u->cached += (double)n[1], u->write_5m += (double)n[2], u->write_1h += (double)n[3];
    u->out += (double)n[4], u->reasoning += (double)n[5];
out:
    return st;
}

static sd_status take_cost(log_sums *u, const json_t *o, const char *where, sd_error *err) {
    sd_status st = SD_OK;
    json_t *cost = sd_key(o, "cost");
    int64_t pico = 0;
    if (!cost || (json_is_string(cost) && strcmp(json_string_value(cost), "unpriced") == 0)) {
        u->unpriced++;
        return SD_OK;
    }
    SD_TRY(sd_key_int(&pico, o, "cost", 0, 0, INT64_MAX, where, err));
    u->usd += (double)pico * 1e-12;
out:
    return st;
}

static sd_status take_line(log_sums *u, const char *text, size_t len, const char *where,
                           sd_error *err) {
    sd_status st = SD_OK;
    json_t *o = NULL;
    json_error_t why;
    const char *time = NULL;
    double ms = -1;
    span s;
    st = sd_json_load_within(&o, text, len, JSON_REJECT_DUPLICATES, MAX_LINE_DOCUMENT, &why, err);
    SD_CHECK(st != SD_ELIMIT, err, SD_ELIMIT,
             "%s: has %zu bytes, which is more than a request has to say; take the line out", where,
             len);
    SD_TRY(st);
    SD_CHECK(o, err, SD_EFORMAT, "%s: %s; correct the line", where, why.text);
    SD_CHECK(json_is_object(o), err, SD_EFORMAT, "%s: is %s, where an object is needed", where,
             sd_json_type_word(o));
    SD_TRY(sd_key_str(&time, o, "time", NULL, where, err));
    SD_CHECK(time && parse_time(&s.begin, time), err, SD_EFORMAT,
             "%s: time is no moment such as 2026-05-04T09:30:00Z; correct it", where);
    SD_TRY(take_tokens(u, o, where, err));
    SD_TRY(take_cost(u, o, where, err));
    SD_TRY(sd_key_number(&ms, o, "total_ms", -1, where, err));
    SD_CHECK(ms == -1 || (ms >= 0 && ms <= 1e10), err, SD_EFORMAT,
             "%s: total_ms is %.6g, where milliseconds from 0 on are needed; correct it", where,
             ms);
    u->timed = u->timed && ms >= 0;
    s.end = s.begin + fmax(ms, 0) / 1e3;
    SD_CHECK_ALLOC(SD_GROW(u->item, u->n + 1, u->cap), err);
    u->item[u->n++] = s;
out:
    json_decref(o);
    return st;
}

// ---- what the lines say together

static int by_begin(const void *a, const void *b) {
    const span *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

// Seconds in which at least one request was being answered.
static double busy_seconds(const log_sums *u) {
    double sum = 0, until = 0;
    for (size_t i = 0; i < u->n; i++) {
        double from = fmax(u->item[i].begin, until);
        if (u->item[i].end > from) sum += u->item[i].end - from;
        until = fmax(until, u->item[i].end);
    }
    return sum;
}

// Hours are not covered equally by a log of two and a half days: each counts by the time that the log holds of it.
static void count_hours(sd_usage_figures *f, const log_sums *u) {
    double first = u->item[0].begin, last = u->item[u->n - 1].begin;
    double whole = floor((last - first) / DAY), covered[24], requests[24] = {0}, sum = 0, most = 0;
    for (int h = 0; h < 24; h++) covered[h] = whole * HOUR;
    for (double t = first + whole * DAY; t < last;) {
        double next = fmin(last, (floor(t / HOUR) + 1) * HOUR);
        covered[(int)fmod(floor(t / HOUR), 24)] += next - t;
        t = next;
    }
    for (size_t i = 0; i < u->n; i++) requests[(int)fmod(floor(u->item[i].begin / HOUR), 24)]++;
    for (int h = 0; h < 24; h++) {
        f->hour[h] = requests[h] / covered[h] * HOUR;
        sum += f->hour[h], most = fmax(most, f->hour[h]);
    }
    f->by_hour = true;
    f->requests_day = sum;
    f->peak = most * 24 / sum;
}

static double share(double part, double of) {
    return of > 0 ? part / of : 0;
}

static void derive(sd_usage_figures *f, log_sums *u) {
    qsort(u->item, u->n, sizeof *u->item, by_begin);
    double first = u->item[0].begin, last = u->item[u->n - 1].begin, end = last, n = (double)u->n;
    for (size_t i = 0; i < u->n; i++) end = fmax(end, u->item[i].end);
    *f = (sd_usage_figures){
        .requests = (int64_t)u->n,
        .days = (last - first) / DAY,
        .tokens_in = u->in / n,
        .tokens_out = u->out / n,
        .cached_share = share(u->cached, u->in),
        .write_5m_share = share(u->write_5m, u->in),
        .write_1h_share = share(u->write_1h, u->in),
        .reasoning_share = share(u->reasoning, u->out),
        .busy_share = u->timed && end > first ? busy_seconds(u) / (end - first) : -1,
        .priced_usd = u->usd,
        .unpriced = u->unpriced,
    };
    // n requests have n - 1 times between them.
    if (last > first) f->requests_day = (n - 1) / (last - first) * DAY;
    if (last - first >= DAY) count_hours(f, u);
}

sd_status sd_usage_read(sd_usage_figures *out, const char *text, size_t len, const char *path,
                        sd_error *err) {
    sd_status st = SD_OK;
    log_sums u = {.timed = true};
    int64_t line = 1;
    for (const char *p = text, *end = text + len; p < end; line++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        const char *stop = nl ? nl : end;
        if (stop > p && !(stop == p + 1 && *p == '\r')) {
            char where[512];
            snprintf(where, sizeof where, "%.400s: line %lld", path, (long long)line);
            SD_TRY(take_line(&u, p, (size_t)(stop - p), where, err));
        }
        p = stop + 1;
    }
    SD_CHECK(u.n > 0, err, SD_EINVAL, "%s: has no requests; give a usage log with some", path);
    derive(out, &u);
out:
    free(u.item);
    return st;
}
