// A case is put together in the order of trust: what the command line says, then what a usage log, a page of metrics and a bench
// measured, then the defaults.
#include "cli/cost/case.h"

#include "base/files/file.h"
#include "base/files/hash.h"
#include "base/utf8.h"
#include "cli/cost/args.h"
#include "cli/cost/rivals.h"
#include "economics/read/bench.h"
#include "economics/read/day.h"
#include "economics/read/metrics.h"
#include "economics/read/usage.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_LOG = 1 << 30, MAX_PAGE = 64 << 20 };

const char *sd_cost_source_word(sd_cost_source s) {
    static const char *const words[] = {"default", "given", "measured"};
    return words[s];
}

static void note(sd_cost_case *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(sd_cost_case *c, const char *fmt, ...) {
    if (c->n_notes == (int)(sizeof c->notes / sizeof *c->notes)) return;
    va_list ap;
    va_start(ap, fmt);
    char *text = c->notes[c->n_notes++];
    vsnprintf(text, sizeof c->notes[0], fmt, ap);
    va_end(ap);
    text[sd_utf8_valid_prefix(text, strlen(text))] = '\0'; // not in the middle of a character
}

// A figure, unless a source that counts more has set the input. True: it was taken.
static bool take(sd_cost_case *c, double *input, double v, sd_cost_source source,
                 const char *from) {
    if (!(v > 0)) return false;
    for (int i = 0; i < SD_COST_INPUT_COUNT; i++) {
        if (sd_cost_at(&c->in, &sd_cost_rows[i]) != input) continue;
        if (c->source[i] != SD_SOURCE_DEFAULT) return false;
        c->source[i] = source, c->from[i] = from;
        *input = v;
        return true;
    }
    return false;
}
static bool measured(sd_cost_case *c, double *input, double v, const char *from) {
    return take(c, input, v, SD_SOURCE_MEASURED, from);
}

// The path stands in JSON and on a page afterwards.
static sd_status read_text(char **text, size_t *len, const char *path, size_t max,
                           const char *option, sd_error *err) {
    if (sd_utf8_valid_prefix(path, strlen(path)) < strlen(path))
        return sd_fail(err, SD_EINVAL, "%s: the path is not UTF-8; rename the file", option);
    bool url = strncmp(path, "http://", 7) == 0 || strncmp(path, "https://", 8) == 0;
    if (url)
        return sd_fail(err, SD_EINVAL,
                       "%s: %s is a URL, and this program fetches none; give curl -s %s | specdec "
                       "cost %s - ...",
                       option, path, path, option);
    return sd_stream_read(text, len, strcmp(path, "-") == 0 ? "/dev/stdin" : path, max, err);
}

// ---- the sources

static void take_usage(sd_cost_case *c, const sd_usage_figures *u, const char *path) {
    measured(c, &c->in.requests_day, u->requests_day, path);
    measured(c, &c->in.tokens_in, u->tokens_in, path);
    measured(c, &c->in.tokens_out, u->tokens_out, path);
    measured(c, &c->in.cached_share, u->cached_share, path);
    if (u->by_hour) measured(c, &c->in.peak, u->peak, path);
    c->in.write_5m_share = u->write_5m_share, c->in.write_1h_share = u->write_1h_share;
    c->in.reasoning_share = u->reasoning_share;
    if (u->by_hour && !c->by_hour) {
        c->by_hour = true, c->hour_source = SD_SOURCE_MEASURED;
        memcpy(c->hour, u->hour, sizeof c->hour);
    }
    if (c->busy < 0 && u->busy_share >= 0)
        c->busy = u->busy_share, c->busy_source = SD_SOURCE_MEASURED;
    c->logged = true, c->logged_usd = u->priced_usd;
    c->logged_requests = u->requests, c->unpriced_requests = u->unpriced;
    note(c, "%s: %lld requests in %.4g days%s", path, (long long)u->requests, u->days,
         u->by_hour ? "" : ", less than one: the peak is not measured");
}

static sd_status read_usage(sd_cost_case *c, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    sd_usage_figures u;
    SD_TRY(read_text(&text, &len, path, MAX_LOG, "--usage", err));
    SD_TRY(sd_usage_read(&u, text, len, path, err));
    take_usage(c, &u, path);
out:
    free(text);
    return st;
}

static void take_load(sd_cost_case *c, const sd_metrics_figures *m, const char *path) {
    if (measured(c, &c->in.requests_day, m->requests_day, path))
        note(c, "%s: %.0f requests in %.4g days of the server%s; the peak is not measured", path,
             m->requests, m->days,
             m->days < 1 ? ", less than one: a day's load is extrapolated" : "");
    measured(c, &c->in.tokens_in, m->tokens_in, path);
    measured(c, &c->in.tokens_out, m->tokens_out, path);
    measured(c, &c->in.cached_share, m->cached_share, path);
    if (c->busy < 0 && m->busy_share >= 0)
        c->busy = m->busy_share, c->busy_source = SD_SOURCE_MEASURED;
}

// Taken last: a bench at the latency limit says more than what happened to be asked of a server.
static void take_speed(sd_cost_case *c, const sd_metrics_figures *m, const char *path) {
    bool read = measured(c, &c->in.prefill_tok_s, m->prefill_tok_s, path);
    bool made = measured(c, &c->in.decode_tok_s, m->decode_tok_s, path);
    if (read || made)
        note(c,
             "%s: speeds at the load that there was, %.2f requests at once: fuller batches exceed "
             "them, so the capacity is at least what is shown",
             path, m->requests_at_once);
}

static sd_status read_metrics(sd_metrics_figures *m, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    SD_TRY(read_text(&text, &len, path, MAX_PAGE, "--metrics", err));
    SD_TRY(sd_metrics_read(m, text, len, path, err));
out:
    free(text);
    return st;
}

// w is computed from two speeds; what the bench's own requests took says how well that holds.
static void hold_against(sd_cost_case *c, const sd_bench_figures *f, const char *from) {
    if (f->mix_seconds == 0 || c->in.prefill_tok_s == 0 || c->in.decode_tok_s == 0) return;
    double says = f->mix_in / c->in.prefill_tok_s + f->mix_out / c->in.decode_tok_s;
    note(c,
         "%s: a request of the bench (%.0f tokens in, %.0f out) took %.4g s of the replica; the "
         "speeds say %.4g s",
         from, f->mix_in, f->mix_out, f->mix_seconds, says);
}

// The speed of a full batch is needed.
static void note_alone(sd_cost_case *c, const sd_bench_figures *f, const char *from) {
    static const char rest[] = "and stands for all of a replica's requests together, which make "
                               "more: measure them with bench spec --clients N";
    if (f->at_once == 1 && f->decode_depth > 0)
        note(c, "%s: decode-tok-s is of one request at a time (context of %d), %s", from,
             f->decode_depth, rest);
    else if (f->at_once == 1)
        note(c, "%s: decode-tok-s is of one request at a time, %s", from, rest);
    else if (f->at_once == 0)
        note(c, "%s: does not say of how many requests at once decode-tok-s is", from);
}

static sd_status read_benches(sd_cost_case *c, const sd_strings *paths, sd_error *err) {
    sd_status st = SD_OK;
    sd_bench_figures f = {0};
    char *text = NULL;
    for (int i = 0; i < paths->n; i++) {
        size_t len;
        SD_TRY(read_text(&text, &len, paths->item[i], MAX_PAGE, "--bench", err));
        SD_TRY(sd_bench_read(&f, text, len, paths->item[i], c->in.tokens_in, err));
        free(text), text = NULL;
    }
    if (paths->n == 0) return SD_OK;
    const char *from = paths->n == 1 ? paths->item[0] : "--bench";
    measured(c, &c->in.prefill_tok_s, f.prefill_tok_s, from);
    if (measured(c, &c->in.decode_tok_s, f.decode_tok_s, from)) {
        measured(c, &c->in.plain_decode_tok_s, f.plain_decode_tok_s, from);
        note_alone(c, &f, from);
    }
    hold_against(c, &f, from);
out:
    free(text);
    return st;
}

static sd_status read_hours(sd_cost_case *c, const char *text, sd_error *err) {
    sd_status st = SD_OK;
    double sum = 0, most = 0;
    char *end;
    int n = 0;
    for (const char *p = text; n < SD_HOURS_DAY; p = end + 1) {
        double v;
        SD_CHECK(sd_read_decimal(&v, p, &end) && v >= 0 && v <= 1e12 && (*end == ',' || !*end), err,
                 SD_EINVAL, "--by-hour: '%.60s' is no number of requests from 0 to 1e12; give 24",
                 p);
        c->hour[n++] = v;
        sum += v, most = fmax(most, v);
        if (!*end) break;
    }
    SD_CHECK(n == SD_HOURS_DAY && !*end, err, SD_EINVAL,
             "--by-hour: %s numbers than 24; give one for each hour of a day",
             n < SD_HOURS_DAY ? "fewer" : "more");
    SD_CHECK(sum > 0, err, SD_EINVAL, "--by-hour: all hours are 0; give a load");
    c->by_hour = true, c->hour_source = SD_SOURCE_GIVEN;
    take(c, &c->in.requests_day, sum, SD_SOURCE_GIVEN, "--by-hour");
    take(c, &c->in.peak, most * SD_HOURS_DAY / sum, SD_SOURCE_GIVEN, "--by-hour");
out:
    return st;
}

// ---- prices

static sd_status set_date(sd_cost_case *c, const sd_cost_args *a, sd_error *err) {
    const char *p = a->prices_date;
    if (p) {
        if (!sd_is_day(p))
            return sd_fail(err, SD_EINVAL, "--prices-date: '%s' is no day such as 2026-05-04", p);
        memcpy(c->prices_date, p, sizeof c->prices_date);
        return SD_OK;
    }
    struct stat s;
    struct tm tm;
    if (stat(a->prices, &s) == 0 && gmtime_r(&s.st_mtime, &tm) &&
        strftime(c->prices_date, sizeof c->prices_date, "%Y-%m-%d", &tm))
        return SD_OK;
    return sd_fail(err, SD_EINVAL, "%s: has no date; give the day of its prices, --prices-date",
                   a->prices);
}

static bool is_hex(const char *text, size_t digits) {
    return strlen(text) == digits && strspn(text, "0123456789abcdefABCDEF") == digits;
}

static sd_status open_prices(sd_cost_case *c, const sd_cost_args *a, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    sd_sha256 hash;
    if (!a->prices) return SD_OK;
    SD_CHECK(!a->prices_sha256 || is_hex(a->prices_sha256, sizeof hash.hex - 1), err, SD_EINVAL,
             "--prices-sha256: '%s' is no SHA-256; give its 64 hexadecimal digits",
             a->prices_sha256);
    SD_TRY(read_text(&text, &len, a->prices, MAX_PAGE, "--prices", err));
    SD_TRY(sd_sha256_of(&hash, text, len, err));
    SD_CHECK(!a->prices_sha256 || strcasecmp(hash.hex, a->prices_sha256) == 0, err, SD_EMISMATCH,
             "%s: its SHA-256 is %s, and --prices-sha256 asks for %s; look at what changed",
             a->prices, hash.hex, a->prices_sha256);
    SD_TRY(sd_prices_open(&c->prices, text, len, a->prices, err));
    SD_TRY(set_date(c, a, err));
    c->prices_path = a->prices;
    memcpy(c->prices_sha256, hash.hex, sizeof hash.hex);
out:
    free(text);
    return st;
}

// ---- all together

// Values out of range are left to sd_cost_check.
static sd_status check_given(const sd_cost_case *c, const sd_cost_args *a, sd_error *err) {
    sd_status st = SD_OK;
    const char *log = a->usage ? a->usage : a->metrics;
    bool load = c->in.requests_day != 0, tokens = c->in.tokens_in != 0 || c->in.tokens_out != 0;
    SD_CHECK(load || !a->usage, err, SD_EINVAL,
             "%s: has one moment alone (%lld request%s), and a load needs two; give --requests-day",
             a->usage, (long long)c->logged_requests, c->logged_requests == 1 ? "" : "s");
    SD_CHECK(load || !a->metrics, err, SD_EINVAL,
             "%s: does not say how long the server has run; give --requests-day", a->metrics);
    SD_CHECK(tokens || !log, err, SD_EINVAL,
             "%s: its requests have no tokens; give those of a mean request, --in and --out", log);
    SD_CHECK(load, err, SD_EINVAL,
             "--requests-day is missing; give it, --usage, or --metrics of specdec's own page");
    SD_CHECK(tokens, err, SD_EINVAL,
             "--in and --out are missing; give the tokens of a mean request, --usage or --metrics");
    SD_CHECK(
        c->in.tokens_in == 0 || c->in.prefill_tok_s != 0, err, SD_EINVAL,
        "--prefill-tok-s is missing; give it, or --bench with what bench model --json printed");
    SD_CHECK(c->in.tokens_out == 0 || c->in.decode_tok_s != 0, err, SD_EINVAL,
             "--decode-tok-s is missing; give it, or --bench with what bench spec --json printed");
out:
    return st;
}

// The hours say how the load is spread; how large it is may be said by another source.
static void scale_hours(sd_cost_case *c, bool peak_given) {
    double sum = 0;
    if (!c->by_hour) return;
    for (int h = 0; h < SD_HOURS_DAY; h++) sum += c->hour[h];
    for (int h = 0; h < SD_HOURS_DAY; h++) c->hour[h] *= c->in.requests_day / sum;
    c->hour_peak = peak_given ? c->in.peak : 1;
}

sd_status sd_cost_case_read(sd_cost_case *out, sd_cost_outputs *outputs, int argc, char **argv,
                            sd_error *err) {
    sd_status st = SD_OK;
    sd_cost_args a = {0};
    sd_metrics_figures m;
    SD_TRY(sd_cost_args_read(&a, argc, argv, err));
    *outputs = (sd_cost_outputs){a.json, a.html};
    out->in = a.in;
    for (int i = 0; i < SD_COST_INPUT_COUNT; i++)
        if (a.given[i]) out->source[i] = SD_SOURCE_GIVEN;
    out->busy = a.busy, out->busy_source = SD_SOURCE_GIVEN;
    out->local_share = a.local_share, out->escalated_share = a.escalate;
    if (a.by_hour) SD_TRY(read_hours(out, a.by_hour, err));
    if (a.usage) SD_TRY(read_usage(out, a.usage, err));
    if (a.metrics) {
        SD_TRY(read_metrics(&m, a.metrics, err));
        take_load(out, &m, a.metrics);
    }
    SD_TRY(read_benches(out, &a.bench, err));
    if (a.metrics) take_speed(out, &m, a.metrics);
    SD_TRY(check_given(out, &a, err));
    SD_TRY(sd_cost_check(&out->in, err));
    scale_hours(out, sd_cost_is_given(&a, "peak"));
    SD_TRY(open_prices(out, &a, err));
    SD_TRY(sd_cost_rivals_read(out, &a, err));
out:
    return st;
}

void sd_cost_case_free(sd_cost_case *c) {
    sd_prices_close(c->prices);
    c->prices = NULL;
}
