// Price files, usage logs, pages of metrics and benches: what is read out of them, and how what is wrong in them is named.
#include "economics/read/bench.h"
#include "economics/read/day.h"
#include "economics/read/metrics.h"
#include "economics/read/prices.h"
#include "economics/read/usage.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define NEAR(got, want)                                                                            \
    cr_assert_float_eq(got, want, 1e-9 * (1 + fabs((double)(want))), #got " is %.12g",             \
                       (double)(got))

// ---- prices

static const char litellm[] =
    "{\"sample_spec\": {\"input_cost_per_token\": 0.0, \"output_cost_per_token\": 0.0},\n"
    "\"gpt-a\": {\"litellm_provider\": \"openai\", \"mode\": \"chat\", \"max_input_tokens\": "
    "1000000,\n"
    "  \"input_cost_per_token\": 2.5e-06, \"output_cost_per_token\": 1e-05, "
    "\"cache_read_input_token_cost\": 1.25e-06,\n"
    "  \"input_cost_per_token_batches\": 1.25e-06, \"output_cost_per_token_batches\": 5e-06,\n"
    "  \"input_cost_per_token_above_272k_tokens\": 5e-06, "
    "\"output_cost_per_token_above_272k_tokens\": 1.5e-05,\n"
    "  \"input_cost_per_token_above_200k_tokens\": 4e-06,\n"
    "  \"input_cost_per_token_above_272k_tokens_batches\": 2.6e-06,\n"
    "  \"deprecation_date\": \"2027-01-14\", \"supports_vision\": true, \"unknown\": [{\"deep\": "
    "null}]},\n"
    "\"model-b\": {\"input_cost_per_token\": 3e-06, \"output_cost_per_token\": 1.5e-05,\n"
    "  \"cache_read_input_token_cost\": 3e-07, \"cache_creation_input_token_cost\": 3.75e-06,\n"
    "  \"cache_creation_input_token_cost_above_1hr\": 6e-06, \"output_cost_per_reasoning_token\": "
    "2e-05,\n"
    "  \"input_cost_per_request\": 0.001, \"deprecation_date\": null},\n"
    "\"eu.model-b\": {\"input_cost_per_token\": 3.3e-06, \"output_cost_per_token\": 1.65e-05},\n"
    "\"x/same\": {\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 2e-06},\n"
    "\"y/same\": {\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 2e-06, "
    "\"max_tokens\": \"8k\"},\n"
    "\"x/other\": {\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 2e-06},\n"
    "\"y/other\": {\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 3e-06},\n"
    "\"one-rate\": {\"input_cost_per_token\": 1e-06},\n"
    "\"negative\": {\"input_cost_per_token\": -1e-06, \"output_cost_per_token\": 0},\n"
    "\"words\": {\"input_cost_per_token\": \"2\", \"output_cost_per_token\": 0},\n"
    "\"millions\": {\"input_cost_per_token\": 2.5, \"output_cost_per_token\": 10},\n"
    "\"cached-null\": {\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 2e-06, "
    "\"cache_read_input_token_cost\": null},\n"
    "\"ends-someday\": {\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 2e-06, "
    "\"deprecation_date\": \"soon\"},\n"
    "\"short\": {\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 2e-06, "
    "\"max_input_tokens\": 1000},\n"
    "\"odd-threshold\": {\"input_cost_per_token\": 1e-07, \"output_cost_per_token\": 5e-07, "
    "\"input_cost_per_token_above_100k_tokens\": 5e-07, "
    "\"output_cost_per_token_above_32k_tokens\": 7e-07, "
    "\"input_cost_per_token_above_1hr\": 1, \"output_cost_per_token_above_-5k_tokens\": 1},\n"
    "\"tiers\": {\"input_cost_per_token\": 1e-06, \"output_cost_per_token\": 2e-06, "
    "\"tiered_pricing\": [{}]},\n"
    "\"list\": []}";

static sd_prices *open_prices(void) {
    sd_prices *p = NULL;
    sd_error err;
    cr_assert_eq(sd_prices_open(&p, litellm, strlen(litellm), "p.json", &err), SD_OK, "%s",
                 err.message);
    return p;
}

static sd_model_price find(const char *name, sd_tier tier, double tokens_in) {
    sd_prices *p = open_prices();
    sd_model_price m = {0};
    sd_error err;
    cr_assert_eq(sd_prices_find(&m, p, name, tier, tokens_in, &err), SD_OK, "%s", err.message);
    m.model = NULL; // the file's
    sd_prices_close(p);
    return m;
}

static void refuses(const char *name, sd_tier tier, double tokens_in, const char *says) {
    sd_prices *p = open_prices();
    sd_model_price m;
    sd_error err;
    sd_status st = sd_prices_find(&m, p, name, tier, tokens_in, &err);
    cr_assert(st != SD_OK && sd_status_exit_code(st) == 2, "%s was taken", name);
    cr_assert(strstr(err.message, says) && strstr(err.message, name), "'%s' lacks '%s'",
              err.message, says);
    sd_prices_close(p);
}

Test(cost_prices, rates_are_read_for_a_million_tokens) {
    sd_model_price m = find("gpt-a", SD_TIER_STANDARD, 1500);
    NEAR(m.price.in.usd, 2.5);
    NEAR(m.price.out.usd, 10);
    NEAR(m.price.cached.usd, 1.25);
    NEAR(m.price.reasoning.usd, 10); // no rate of its own
    cr_assert(m.cached_rate && m.above_k == 0);
    cr_assert_str_eq(m.ends, "2027-01-14");
    m = find("model-b", SD_TIER_STANDARD, 1500);
    NEAR(m.price.write_5m.usd, 3.75);
    NEAR(m.price.write_1h.usd, 6);
    NEAR(m.price.reasoning.usd, 20);
    NEAR(m.price.request.usd, 0.001);
    cr_assert_str_eq(m.ends, "");
}

Test(cost_prices, a_missing_rate_is_not_zero) {
    refuses("one-rate", SD_TIER_STANDARD, 10, "no output_cost_per_token");
    refuses("gpt-a", SD_TIER_FLEX, 10, "no input_cost_per_token_flex");
    sd_model_price m = find("cached-null", SD_TIER_STANDARD, 10);
    NEAR(m.price.cached.usd, 1); // as any token of a prompt
    cr_assert_not(m.cached_rate);
    m = find("gpt-a", SD_TIER_BATCHES, 10);
    NEAR(m.price.in.usd, 1.25);
    NEAR(m.price.cached.usd,
         1.25); // the batch's price of a prompt, not the standard's of a cached one
}

Test(cost_prices, a_threshold_reprices_the_whole_request) {
    sd_model_price m = find("gpt-a", SD_TIER_STANDARD, 272000);
    cr_assert_eq(m.above_k, 200); // not above 272,000
    NEAR(m.price.in.usd, 4);
    NEAR(m.price.out.usd, 10); // the file names no other rate there
    m = find("gpt-a", SD_TIER_STANDARD, 272001);
    cr_assert_eq(m.above_k, 272);
    NEAR(m.price.in.usd, 5);
    NEAR(m.price.out.usd, 15);
    m = find("gpt-a", SD_TIER_BATCHES, 300000);
    NEAR(m.price.in.usd, 2.6);
    NEAR(m.price.out.usd, 5);
}

Test(cost_prices, any_threshold_counts_and_what_is_not_read_is_refused) {
    sd_model_price m = find("odd-threshold", SD_TIER_STANDARD, 32000);
    cr_assert_eq(m.above_k, 0);
    m = find("odd-threshold", SD_TIER_STANDARD, 99000);
    cr_assert_eq(m.above_k, 32);
    NEAR(m.price.in.usd, 0.1);
    NEAR(m.price.out.usd, 0.7);
    m = find("odd-threshold", SD_TIER_STANDARD, 100001);
    NEAR(m.price.in.usd, 0.5);
    refuses("tiers", SD_TIER_STANDARD, 10, "tiered_pricing");
}

Test(cost_prices, a_bare_name_must_mean_one_price) {
    NEAR(find("same", SD_TIER_STANDARD, 10).price.out.usd, 2);
    NEAR(find("y/other", SD_TIER_STANDARD, 10).price.out.usd, 3);
    NEAR(find("eu.model-b", SD_TIER_STANDARD, 10).price.in.usd, 3.3);
    refuses("other", SD_TIER_STANDARD, 10, "x/other and y/other");
    refuses("gpt-aa", SD_TIER_STANDARD, 10, "did you mean gpt-a?");
    refuses("sample_spec", SD_TIER_STANDARD, 10, "has no model");
}

Test(cost_prices, what_is_no_price_is_refused_by_field) {
    refuses("negative", SD_TIER_STANDARD, 10, "input_cost_per_token");
    refuses("words", SD_TIER_STANDARD, 10, "input_cost_per_token");
    refuses("millions", SD_TIER_STANDARD, 10, "input_cost_per_token"); // a price of 10^6 tokens
    refuses("ends-someday", SD_TIER_STANDARD, 10, "deprecation_date");
    refuses("list", SD_TIER_STANDARD, 10, "an array");
    refuses("short", SD_TIER_STANDARD, 1001, "at most 1000 tokens");
    static const char *const files[] = {
        "",    "[]", "7", "{\"a\": 1", "{\"a\": {}, \"a\": {}}", "\xff\xfe{}", "{\"a\": 1e999}",
        "null"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        sd_prices *p = NULL;
        sd_error err;
        sd_status st = sd_prices_open(&p, files[i], strlen(files[i]), "p.json", &err);
        cr_assert(st != SD_OK && sd_status_exit_code(st) == 2 && !p, "%s", files[i]);
        cr_assert(strncmp(err.message, "p.json: ", 8) == 0, "%s", err.message);
    }
}

// ---- usage

static sd_usage_figures usage(const char *text) {
    sd_usage_figures u;
    sd_error err;
    cr_assert_eq(sd_usage_read(&u, text, strlen(text), "u.jsonl", &err), SD_OK, "%s", err.message);
    return u;
}
static void usage_refuses(const char *text, const char *says) {
    sd_usage_figures u;
    sd_error err;
    sd_status st = sd_usage_read(&u, text, strlen(text), "u.jsonl", &err);
    cr_assert(st != SD_OK && sd_status_exit_code(st) == 2, "%s was taken", text);
    cr_assert(strncmp(err.message, "u.jsonl: ", 9) == 0 && strstr(err.message, says),
              "'%s' lacks '%s'", err.message, says);
}

Test(cost_usage, tokens_costs_and_times_are_summed) {
    sd_usage_figures u = usage(
        "{\"time\": \"2026-05-04T12:00:10Z\", \"tokens\": {\"uncached\": 100, \"cache_read\": 300, "
        "\"output\": 50, \"reasoning\": 20}, \"cost\": 2500000000, \"total_ms\": 10000, \"key\": "
        "\"a\"}\r\n"
        "\n"
        "{\"time\": \"2026-05-04T14:00:00.5+02:00\", \"tokens\": {\"uncached\": 300, \"write_5m\": "
        "200, \"write_1h\": 100, \"output\": 150}, \"cost\": \"unpriced\", \"total_ms\": 15000}\n"
        "{\"time\": \"2026-05-04 12:01:00Z\", \"tokens\": {\"output\": 0}, \"total_ms\": 0}");
    cr_assert_eq(u.requests, 3);
    cr_assert_eq(u.unpriced, 2);
    NEAR(u.priced_usd, 0.0025);
    NEAR(u.tokens_in, 1000 / 3.0);
    NEAR(u.tokens_out, 200 / 3.0);
    NEAR(u.cached_share, 0.3);
    NEAR(u.write_5m_share, 0.2);
    NEAR(u.write_1h_share, 0.1);
    NEAR(u.reasoning_share, 0.1);
    // From 0.5 s to 60 s; work from 0.5 to 15.5 and from 10 to 20.
    NEAR(u.days, 59.5 / 86400);
    NEAR(u.requests_day, 2 / 59.5 * 86400);
    NEAR(u.busy_share, 19.5 / 59.5);
    cr_assert_not(u.by_hour);
}

// A request every `step` seconds for `seconds`, and `more` times as many from 12:00 to 13:00.
static char *even_log(int seconds, int step, int more) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    for (int t = 0; t <= seconds; t += step)
        for (int k = 0; k < (t / 3600 % 24 == 12 ? more : 1); k++)
            fprintf(f,
                    "{\"time\": \"2026-05-%02dT%02d:%02d:%02dZ\", \"tokens\": {\"uncached\": 1, "
                    "\"output\": 1}}\n",
                    1 + t / 86400, t / 3600 % 24, t / 60 % 60, t % 60);
    fclose(f);
    return text;
}

Test(cost_usage, hours_are_counted_by_the_time_that_the_log_holds_of_them) {
    // Two and a half days: the hours before noon are covered three times, the others twice.
    char *text = even_log(60 * 3600 - 1, 60, 3);
    sd_usage_figures u = usage(text);
    free(text);
    cr_assert(u.by_hour);
    for (int h = 0; h < 24; h++)
        cr_assert_float_eq(u.hour[h], h == 12 ? 180 : 60, 1.1, "hour %d: %g", h, u.hour[h]);
    cr_assert_float_eq(u.requests_day, 23 * 60 + 180, 4, "%g", u.requests_day);
    cr_assert_float_eq(u.peak, 180.0 * 24 / (23 * 60 + 180), 0.02, "%g", u.peak);
    cr_assert_lt(u.busy_share, 0); // the lines do not say how long they took
}

Test(cost_usage, a_log_of_less_than_a_day_has_no_hours) {
    char *text = even_log(86399, 600, 2);
    cr_assert_not(usage(text).by_hour);
    free(text);
}

Test(cost_usage, one_moment_is_no_rate) {
    sd_usage_figures u = usage("{\"time\": \"2026-05-04T12:00:00Z\", \"tokens\": {\"output\": 1}}");
    cr_assert_eq(u.requests_day, 0);
    NEAR(u.tokens_out, 1);
}

Test(cost_usage, a_wrong_line_is_named_by_its_number_and_field) {
#define GOOD "{\"time\": \"2026-05-04T12:00:00Z\", \"tokens\": {\"output\": 1}}\n"
#define TOKENS(t) GOOD "{\"time\": \"2026-05-04T12:00:00Z\", \"tokens\": " t "}"
    usage_refuses("", "no requests");
    usage_refuses("\n\n", "no requests");
    usage_refuses(GOOD "{", "line 2");
    usage_refuses(GOOD "[]", "line 2: is an array, where an object is needed");
    usage_refuses(GOOD "{\"cost\": 1e999}", "line 2: real number overflow");
    usage_refuses(GOOD "{\"cost\": 99999999999999999999}", "line 2: too big integer");
    usage_refuses(GOOD "{\"tokens\": {}}", "time");
    usage_refuses(GOOD "{\"time\": 5, \"tokens\": {}}", "time");
    usage_refuses(GOOD "{\"time\": \"2026-05-04T12:00:00Z\"}", "tokens is missing");
    usage_refuses(TOKENS("5"), "tokens");
    usage_refuses(TOKENS("{\"output\": -1}"), "output");
    usage_refuses(TOKENS("{\"output\": 1.5}"), "output");
    usage_refuses(TOKENS("{\"output\": 1e12}"), "output");
    usage_refuses(TOKENS("{\"output\": \"1\"}"), "output");
    usage_refuses(TOKENS("{\"output\": 1, \"reasoning\": 2}"), "reasoning");
    usage_refuses(TOKENS("{}"), "line 2: tokens is empty");
    usage_refuses(TOKENS("{\"output\": null}"), "line 2: tokens is empty");
    usage_refuses(TOKENS("{\"prompt_tokens\": 9, \"completion_tokens\": 9}"),
                  "line 2: tokens has prompt_tokens, which is not one of uncached,");
    usage_refuses(TOKENS("{\"output\": 9, \"input\": 9}"), "line 2: tokens has input,");
#define TOKEN "{\"output\": 1}"
    usage_refuses(TOKENS(TOKEN ", \"cost\": -1"), "cost");
    usage_refuses(TOKENS(TOKEN ", \"cost\": 0.5"), "cost");
    usage_refuses(TOKENS(TOKEN ", \"cost\": \"free\""), "cost");
    usage_refuses(TOKENS(TOKEN ", \"total_ms\": -5"), "total_ms");
    usage_refuses(TOKENS(TOKEN ", \"time\": \"2026-05-04T12:00:00Z\""),
                  "line 2: duplicate object key");
    static const char *const times[] = {"2026-02-29T00:00:00Z",
                                        "2026-13-01T00:00:00Z",
                                        "2026-05-04T24:00:00Z",
                                        "2026-05-04T12:00Z",
                                        "2026-05-04T12:00:00",
                                        "2026-05-04T12:00:00.Z",
                                        "1969-12-31T23:59:59Z",
                                        "2026-05-04T12:00:00Z ",
                                        "2026-05-04T12:00:00+2",
                                        "20260504T120000Z",
                                        ""};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char line[160];
        snprintf(line, sizeof line, "{\"time\": \"%s\", \"tokens\": {}}", times[i]);
        usage_refuses(line, "time is no moment");
    }
}

Test(cost_usage, a_line_without_end_is_named_and_not_held) {
    enum { LONG = 5 << 20 };
    char *text = malloc(LONG + 256);
    int n = snprintf(text, 128, GOOD "{\"key\": \"");
    memset(text + n, 'x', LONG);
    strcpy(text + n + LONG, "\"}");
    usage_refuses(text, "u.jsonl: line 2: has 5242");
    free(text);
}

Test(cost_days, a_day_is_one_that_the_calendar_has) {
    static const char *const days[] = {"2026-05-04", "2024-02-29", "2000-02-29", "1999-12-31"};
    static const char *const none[] = {"2026-02-29", "1900-02-29", "2026-13-01", "2026-00-10",
                                       "2026-04-31", "2026-05-00", "2026-5-04",  "2026-05-04 ",
                                       "26-05-2004", "2026/05/04", "soon",       ""};
    for (size_t i = 0; i < sizeof days / sizeof *days; i++) cr_assert(sd_is_day(days[i]));
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        cr_assert_not(sd_is_day(none[i]), "%s", none[i]);
}

// ---- metrics

static const char page[] =
    "# HELP specdec_busy_seconds_total Time the engine was at work.\n"
    "# TYPE specdec_busy_seconds_total counter\n"
    "specdec_busy_seconds_total{model_name=\"a \\\"} 9\"} 1800\n"
    "specdec_idle_seconds_total{model_name=\"a\"} 8200\n"
    "specdec_slot_seconds_total{model_name=\"a\"} 3600\n"
    "specdec_prompt_tokens_total{model_name=\"a\"} 150000\n"
    "specdec_generation_tokens_total{model_name=\"a\"} 50000\n"
    "specdec_prefix_cache_queries_total{model_name=\"a\"} 100000\n"
    "specdec_prefix_cache_hits_total{model_name=\"a\"} 30000\n"
    "specdec_request_prompt_tokens_bucket{le=\"1\"} 0\n"
    "specdec_request_prompt_tokens_sum{model_name=\"a\"} 150000\n"
    "specdec_request_prompt_tokens_count{model_name=\"a\"} 100\n"
    "specdec_request_generation_tokens_sum{model_name=\"a\"} 50000\n"
    "specdec_request_prefill_time_seconds_sum 600\n"
    "specdec_request_decode_time_seconds_sum{model_name=\"a\"} 1200 1714820000000\n"
    "vllm:request_prompt_tokens_sum{model_name=\"a\"} 9\n" // again under another prefix: not counted twice
    "vllm:request_prompt_tokens_count{model_name=\"a\"} 9\n"
    "node_load1 NaN\n";

static sd_metrics_figures metrics(const char *text) {
    sd_metrics_figures m;
    sd_error err;
    cr_assert_eq(sd_metrics_read(&m, text, strlen(text), "m.txt", &err), SD_OK, "%s", err.message);
    return m;
}

Test(cost_metrics, load_and_speed_are_read) {
    sd_metrics_figures m = metrics(page);
    NEAR(m.requests, 100);
    NEAR(m.requests_day, 864);
    NEAR(m.days, 10000 / 86400.0);
    NEAR(m.tokens_in, 1500);
    NEAR(m.tokens_out, 500);
    NEAR(m.cached_share, 0.3);
    NEAR(m.busy_share, 0.18);
    NEAR(m.requests_at_once, 2);
    // A third of the busy time went to the 120,000 tokens of prompts that were computed.
    NEAR(m.prefill_tok_s, 120000 / 600.0);
    NEAR(m.decode_tok_s, 50000 / 1200.0);
}

Test(cost_metrics, vllms_page_has_no_time_but_tokens) {
    sd_metrics_figures m = metrics(
        "vllm:prompt_tokens_total{engine=\"0\"} 300\nvllm:prompt_tokens_total{engine=\"1\"} 300\n"
        "vllm:generation_tokens_total 90\nvllm:request_prompt_tokens_sum 600\n"
        "vllm:request_prompt_tokens_count 3.0\n");
    NEAR(m.tokens_in, 200);
    NEAR(m.tokens_out, 30);
    cr_assert_eq(m.requests_day, 0);
    cr_assert_lt(m.busy_share, 0);
    cr_assert_eq(m.decode_tok_s, 0);
}

Test(cost_metrics, what_is_no_page_or_no_count_is_refused_by_line) {
#define COUNT(v) "specdec_request_prompt_tokens_sum 5\nspecdec_request_prompt_tokens_count" v
    static const struct {
        const char *text, *says;
    } cases[] = {{"", "give a server's page"},
                 {"<html>", "give a server's page"},
                 {COUNT(" 0"), "no request has ended"},
                 {COUNT(" NaN"), "line 2"},
                 {COUNT(" +Inf"), "line 2"},
                 {COUNT(" -1"), "line 2"},
                 {COUNT(" x"), "line 2"},
                 {COUNT(""), "line 2"},
                 {COUNT("\n5"), "line 2"},
                 {COUNT("{a=\"}"), "line 2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sd_metrics_figures m;
        sd_error err;
        sd_status st = sd_metrics_read(&m, cases[i].text, strlen(cases[i].text), "m.txt", &err);
        cr_assert(st != SD_OK && sd_status_exit_code(st) == 2, "%s", cases[i].text);
        cr_assert(strstr(err.message, cases[i].says), "'%s' lacks '%s'", err.message,
                  cases[i].says);
    }
}

// ---- benches

static sd_bench_figures bench(const char *text, sd_bench_figures f, double tokens_in) {
    sd_error err;
    cr_assert_eq(sd_bench_read(&f, text, strlen(text), "b.json", tokens_in, &err), SD_OK, "%s",
                 err.message);
    return f;
}

static const char model_bench[] =
    "{\"model\": \"m\", \"prefill_tok_s\": {\"512\": 3391.0, \"2048\": 2500.0, \"16\": 900}, "
    "\"decode_tok_s\": {\"256\": 290.0, "
    "\"2048\": 245.5}, \"verify_cost\": {\"2\": 1.1}, \"rss_mb\": 118.0}";
static const char spec_bench[] =
    "{\"tasks\": [{\"task\": \"a\", \"answers\": 2, \"prompt_tokens\": 80, \"tokens\": 100, "
    "\"decode\": {\"plain_tok_s\": 50.0, "
    "\"spec_tok_s\": 100.0}, \"request\": {\"plain_tok_s\": 40.0, \"spec_tok_s\": 50.0}}, "
    "{\"task\": \"b\", \"answers\": 3, "
    "\"prompt_tokens\": 20, \"tokens\": 300, \"decode\": {\"plain_tok_s\": 100.0, \"spec_tok_s\": "
    "300.0}, \"request\": "
    "{\"plain_tok_s\": 90.0, \"spec_tok_s\": 100.0}}, {\"task\": \"empty\", \"tokens\": 0, "
    "\"decode\": {\"plain_tok_s\": 0.0, "
    "\"spec_tok_s\": 0.0}}], \"identical\": 2}";

Test(cost_bench, the_longest_length_that_fits_counts) {
    sd_bench_figures f = bench(model_bench, (sd_bench_figures){0}, 1500);
    NEAR(f.prefill_tok_s, 3391);
    cr_assert_eq(f.prefill_tokens, 512);
    NEAR(f.decode_tok_s, 290);
    cr_assert(f.decode_depth == 256 && f.at_once == 1);
    cr_assert_eq(f.plain_decode_tok_s, 0);
    NEAR(bench(model_bench, (sd_bench_figures){0}, 9000).prefill_tok_s, 2500);
    NEAR(bench(model_bench, (sd_bench_figures){0}, 3).prefill_tok_s, 900); // the shortest
}

Test(cost_bench, speculation_is_measured_over_all_answers_and_takes_precedence) {
    sd_bench_figures f = bench(spec_bench, (sd_bench_figures){0}, 1500);
    NEAR(f.plain_decode_tok_s, 400 / (2.0 + 3.0));
    NEAR(f.decode_tok_s, 400 / (1.0 + 1.0));
    cr_assert_eq(f.prefill_tok_s, 0);
    NEAR(f.mix_in, 100 / 5.0);
    NEAR(f.mix_out, 400 / 5.0);
    NEAR(f.mix_seconds, (2.0 + 3.0) / 5);
    f = bench(model_bench, f, 1500);
    NEAR(f.decode_tok_s, 200);
    NEAR(f.prefill_tok_s, 3391);
    f = bench(spec_bench, bench(model_bench, (sd_bench_figures){0}, 1500), 1500);
    NEAR(f.decode_tok_s, 200);
    cr_assert(f.decode_depth == 0 && f.at_once == 0); // a bench of before says nothing of it
}

Test(cost_bench, how_many_requests_a_speed_is_of_is_read) {
    char text[1024];
    snprintf(text, sizeof text, "{\"clients\": 16, %s", spec_bench + 1);
    sd_bench_figures f = bench(text, bench(model_bench, (sd_bench_figures){0}, 9), 9);
    cr_assert_eq(f.at_once, 16);
    snprintf(text, sizeof text, "{\"clients\": 0, %s", spec_bench + 1);
    f = (sd_bench_figures){0};
    cr_assert_eq(sd_bench_read(&f, text, strlen(text), "b.json", 9, NULL), SD_EFORMAT);
}

Test(cost_bench, a_second_file_of_a_kind_is_refused) {
    static const char *const kinds[] = {model_bench, spec_bench};
    for (int i = 0; i < 2; i++) {
        sd_bench_figures f = bench(kinds[i], (sd_bench_figures){0}, 9);
        sd_error err;
        cr_assert_eq(sd_bench_read(&f, kinds[i], strlen(kinds[i]), "b.json", 9, &err), SD_EINVAL);
        cr_assert(strstr(err.message, i ? "b.json is a second file of bench spec"
                                        : "b.json is a second file of bench model"),
                  "%s", err.message);
    }
}

Test(cost_bench, what_is_no_bench_is_refused) {
    static const char *const files[] = {"",
                                        "[]",
                                        "{}",
                                        "{\"tasks\": []}",
                                        "{\"tasks\": {}}",
                                        "{\"tasks\": [7]}",
                                        "{\"prefill_tok_s\": 5}",
                                        "{\"prefill_tok_s\": {\"x\": 5}}",
                                        "{\"prefill_tok_s\": {\"512\": -5}}",
                                        "{\"prefill_tok_s\": {\"512\": \"5\"}}",
                                        "{\"prefill_tok_s\": {\"512\": 1e15}}"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        sd_bench_figures f = {0};
        sd_error err;
        sd_status st = sd_bench_read(&f, files[i], strlen(files[i]), "b.json", 10, &err);
        cr_assert(st != SD_OK && sd_status_exit_code(st) == 2, "%s", files[i]);
        cr_assert(strncmp(err.message, "b.json: ", 8) == 0, "%s", err.message);
    }
}
