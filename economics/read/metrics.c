#include "economics/read/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Sums over all label sets (one a model) of the counters that are needed.
#define COUNTERS(X)                                                                                \
    X(prompt_tokens_total)                                                                         \
    X(generation_tokens_total)                                                                     \
    X(prefix_cache_queries_total)                                                                  \
    X(prefix_cache_hits_total)                                                                     \
    X(busy_seconds_total)                                                                          \
    X(idle_seconds_total)                                                                          \
    X(slot_seconds_total)                                                                          \
    X(request_prompt_tokens_sum)                                                                   \
    X(request_prompt_tokens_count)                                                                 \
    X(request_generation_tokens_sum)                                                               \
    X(request_prefill_time_seconds_sum)                                                            \
    X(request_decode_time_seconds_sum)

enum {
#define AS_ENUM(name) name,
    COUNTERS(AS_ENUM)
#undef AS_ENUM
        COUNT
};
static const char *const names[COUNT] = {
#define AS_TEXT(name) #name,
    COUNTERS(AS_TEXT)
#undef AS_TEXT
};

typedef struct {
    double sum[COUNT];
    bool found[COUNT];
} counters;

static int find(const char *name, size_t len) {
    for (int i = 0; i < COUNT; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) return i;
    return COUNT;
}

// Behind the labels, whose values may hold braces inside quotes; NULL: they do not end.
static const char *after_labels(const char *p, const char *end) {
    bool quoted = false;
    for (p++; p < end; p++) {
        if (quoted && *p == '\\' && p + 1 < end)
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (*p == '}' && !quoted)
            return p + 1;
    }
    return NULL;
}

// A page of specdec's may have the series once more under vLLM's prefix: only one set counts.
enum { OURS, VLLM, PREFIXES };
static const char *const prefixes[PREFIXES] = {"specdec_", "vllm:"};

// One line, end excluded, which a 0 or a line feed follows. Lines of other names are passed over.
static sd_status take(counters sets[PREFIXES], const char *p, const char *end, const char *path,
                      int line, sd_error *err) {
    sd_status st = SD_OK;
    const char *name = NULL;
    counters *c = NULL;
    for (int i = 0; i < PREFIXES; i++)
        if (strncmp(p, prefixes[i], strlen(prefixes[i])) == 0)
            name = p + strlen(prefixes[i]), c = &sets[i];
    if (!name) return SD_OK;
    size_t len = strcspn(name, "{ \t\r\n");
    int which = find(name, len);
    if (which == COUNT) return SD_OK;
    const char *value = name + len;
    if (value < end && *value == '{') value = after_labels(value, end);
    SD_CHECK(value && value < end, err, SD_EFORMAT, "%s: line %d: %s has no value", path, line,
             names[which]);
    char *stop;
    double v = strtod(value, &stop);
    SD_CHECK(stop > value && stop <= end && v >= 0 && v <= 1e18, err, SD_EFORMAT,
             "%s: line %d: %s has no count from 0 to 1e18 behind it", path, line, names[which]);
    c->sum[which] += v, c->found[which] = true;
out:
    return st;
}

// 0 where there is nothing to divide by: less than a microsecond, or no token.
static double over(double a, double b) {
    return b > 1e-6 ? a / b : 0;
}

static void derive(sd_metrics_figures *f, const counters *c) {
    const double *s = c->sum;
    double up = s[busy_seconds_total] + s[idle_seconds_total];
    double prefill_s = s[request_prefill_time_seconds_sum];
    double decode_s = s[request_decode_time_seconds_sum];
    double answered = c->found[request_generation_tokens_sum] ? s[request_generation_tokens_sum]
                                                              : s[generation_tokens_total];
    *f = (sd_metrics_figures){0};
    f->requests = s[request_prompt_tokens_count];
    f->days = up / 86400;
    f->requests_day = over(f->requests * 86400, up);
    f->tokens_in = s[request_prompt_tokens_sum] / f->requests;
    f->tokens_out = answered / f->requests;
    f->cached_share = fmin(1, over(s[prefix_cache_hits_total], s[prefix_cache_queries_total]));
    f->busy_share = up > 0 ? s[busy_seconds_total] / up : -1;
    f->requests_at_once = over(s[slot_seconds_total], s[busy_seconds_total]);
    double busy = s[busy_seconds_total], prefill_share = over(prefill_s, prefill_s + decode_s);
    double read = fmax(0, s[prompt_tokens_total] - s[prefix_cache_hits_total]);
    f->prefill_tok_s = over(read, busy * prefill_share);
    if (decode_s > 0)
        f->decode_tok_s = over(s[generation_tokens_total], busy * (1 - prefill_share));
}

sd_status sd_metrics_read(sd_metrics_figures *out, const char *text, size_t len, const char *path,
                          sd_error *err) {
    sd_status st = SD_OK;
    counters sets[PREFIXES] = {0};
    int line = 1;
    for (const char *p = text, *end = text + len; p < end; line++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        SD_TRY(take(sets, p, nl ? nl : end, path, line, err));
        p = (nl ? nl : end) + 1;
    }
    const counters *c = &sets[sets[OURS].found[request_prompt_tokens_count] ? OURS : VLLM];
    SD_CHECK(c->found[request_prompt_tokens_count] && c->found[request_prompt_tokens_sum], err,
             SD_EFORMAT,
             "%s: has no request_prompt_tokens of specdec_ or vllm:; give a server's page /metrics",
             path);
    SD_CHECK(c->sum[request_prompt_tokens_count] >= 1, err, SD_EINVAL,
             "%s: no request has ended yet; give the page of a server that has been used", path);
    derive(out, c);
out:
    return st;
}
