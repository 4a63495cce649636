#include "economics/speculation.h"

#include "economics/figure.h"

#include <math.h>
#include <stdio.h>

// n - 1 replicas carry the load where k lambda w' / max_load <= n - 1; what prompts take of w' stays.
static double fewer_at(const sd_cost_input *in, int64_t n) {
    if (n <= (int64_t)in->min_replicas || in->tokens_out <= 0) return 0;
    double w = sd_cost_seconds(in), answer = in->tokens_out / in->decode_tok_s;
    double wanted = w * sd_cost_capacity(in, n - 1) / in->requests_day - (w - answer);
    return wanted > 0 ? answer / wanted : 0;
}

sd_status sd_cost_speculation(sd_speculation *out, const sd_cost_input *in, sd_error *err) {
    sd_speculation s = {.seconds = sd_cost_seconds(in)};
    sd_status st = sd_cost_replicas(&s.replicas, in, in->requests_day, err);
    if (st != SD_OK) return st;
    s.fewer_at = fewer_at(in, s.replicas);
    if (in->plain_decode_tok_s > 0) {
        sd_cost_input plain = *in;
        plain.decode_tok_s = in->plain_decode_tok_s;
        st = sd_cost_replicas(&s.plain_replicas, &plain, in->requests_day, err);
        if (st != SD_OK) return st;
        s.measured = true;
        s.speed_up = in->decode_tok_s / in->plain_decode_tok_s;
        s.plain_seconds = sd_cost_seconds(&plain);
        s.saves.usd = sd_cost_of(&plain, s.plain_replicas, in->requests_day).total.usd -
                      sd_cost_of(in, s.replicas, in->requests_day).total.usd;
    }
    *out = s;
    return SD_OK;
}

static const char *plural(int64_t n) {
    return n == 1 ? "" : "s";
}

static int say_measured(char *out, size_t size, const sd_speculation *s) {
    if (s->replicas != s->plain_replicas)
        return snprintf(
            out, size,
            "decodes %.2f times as fast, and takes %lld replica%s in place of %lld: it %s %s "
            "a month.",
            s->speed_up, (long long)s->replicas, plural(s->replicas), (long long)s->plain_replicas,
            s->saves.usd >= 0 ? "saves" : "costs", sd_figure_money(fabs(s->saves.usd)).text);
    int len = snprintf(out, size,
                       "decodes %.2f times as fast, and the load takes %lld replica%s with it or "
                       "without: it buys latency, not dollars",
                       s->speed_up, (long long)s->replicas, plural(s->replicas));
    if (fabs(s->saves.usd) >= 0.005)
        len += snprintf(out + len, size - (size_t)len, " (but for power: %s a month)",
                        sd_figure_money(s->saves.usd).text);
    return len + snprintf(out + len, size - (size_t)len, ".");
}

void sd_speculation_says(char *out, size_t size, const sd_speculation *s, const sd_cost_input *in) {
    int len = 0;
    if (in->tokens_out <= 0) {
        snprintf(out, size, "no tokens are generated: there is nothing to speculate on.");
        return;
    }
    if (s->measured)
        len = say_measured(out, size, s);
    else if (s->fewer_at == 0)
        len = snprintf(out, size, "buys latency here, not dollars.");
    out += len, size -= (size_t)len;
    if (s->fewer_at > 0)
        snprintf(out, size,
                 "%sOne replica fewer would carry the load if decoding were %.2f times as fast%s.",
                 len ? " " : "", s->fewer_at,
                 s->measured ? " again" : "; until then it buys latency, not dollars");
    else if (s->replicas <= (int64_t)in->min_replicas)
        snprintf(out, size, " No fewer than %lld replica%s run%s, however fast decoding is.",
                 (long long)in->min_replicas, plural((int64_t)in->min_replicas),
                 in->min_replicas == 1 ? "s" : "");
    else
        snprintf(out, size, " Reading the prompts alone takes %lld replicas.",
                 (long long)s->replicas);
}
