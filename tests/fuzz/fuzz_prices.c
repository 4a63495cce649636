// What specdec cost reads, of any bytes: the first byte says as what. Figures that are taken are finite and in range, and prices at
// least 0.
#include "economics/read/bench.h"
#include "economics/read/metrics.h"
#include "economics/read/prices.h"
#include "economics/read/usage.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok) {
    if (!ok) __builtin_trap();
}
static void share(double v) {
    must(v >= 0 && v <= 1 + 1e-9);
}
static void count(double v) {
    must(v >= 0 && isfinite(v));
}

static void read_prices(const char *text, size_t len) {
    static const char *const names[] = {"a", "b", "sample_spec", "x/a"};
    sd_prices *p = NULL;
    sd_error err;
    if (sd_prices_open(&p, text, len, "p", &err) != SD_OK) return;
    for (int i = 0; i < 4; i++)
        for (int tier = 0; tier < 4; tier++) {
            sd_model_price m;
            if (sd_prices_find(&m, p, names[i], (sd_tier)tier, 300000, &err) != SD_OK) continue;
            const double rates[] = {m.price.in.usd,       m.price.out.usd,
                                    m.price.cached.usd,   m.price.write_5m.usd,
                                    m.price.write_1h.usd, m.price.reasoning.usd,
                                    m.price.request.usd};
            for (size_t k = 0; k < sizeof rates / sizeof *rates; k++)
                must(rates[k] >= 0 && rates[k] <= 1e6);
            must(strlen(m.ends) == 0 || strlen(m.ends) == 10);
        }
    sd_prices_close(p);
}

static void read_usage(const char *text, size_t len) {
    sd_usage_figures u;
    sd_error err;
    if (sd_usage_read(&u, text, len, "u", &err) != SD_OK) return;
    must(u.requests > 0 && u.unpriced <= u.requests);
    count(u.days), count(u.requests_day), count(u.tokens_in), count(u.tokens_out);
    share(u.cached_share), share(u.write_5m_share), share(u.write_1h_share);
    share(u.reasoning_share), count(u.priced_usd);
    must(u.busy_share < 0 || u.busy_share <= 1 + 1e-6);
    for (int h = 0; h < 24 && u.by_hour; h++) count(u.hour[h]);
}

static void read_metrics(const char *text, size_t len) {
    sd_metrics_figures m;
    sd_error err;
    if (sd_metrics_read(&m, text, len, "m", &err) != SD_OK) return;
    count(m.requests_day), count(m.tokens_in), count(m.tokens_out), share(m.cached_share);
    must(m.busy_share < 0 || m.busy_share <= 1);
    must(m.prefill_tok_s >= 0 && m.decode_tok_s >= 0 && m.requests_at_once >= 0);
}

static void read_bench(const char *text, size_t len) {
    sd_bench_figures f = {0};
    sd_error err;
    if (sd_bench_read(&f, text, len, "b", 1500, &err) != SD_OK) return;
    count(f.prefill_tok_s), count(f.decode_tok_s), count(f.plain_decode_tok_s);
    count(f.mix_in), count(f.mix_out), count(f.mix_seconds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const as[])(const char *, size_t) = {read_prices, read_usage, read_metrics,
                                                       read_bench};
    if (size == 0) return 0;
    char *text = malloc(size); // ended by 0, as files are that were read
    must(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    as[data[0] % 4](text, size - 1);
    free(text);
    return 0;
}
