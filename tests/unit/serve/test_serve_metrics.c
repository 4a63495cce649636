// What the server counts, and the page of it.
#include "decode/serve/metrics/page.h"

#include <criterion/criterion.h>
#include <string.h>

static sd_metrics counted(int ctx) {
    sd_metrics m;
    sd_metrics_init(&m, 0);
    sd_metrics_ready(&m, ctx, 0);
    return m;
}

static char *write_page(const sd_metrics_page *p) {
    sd_buf b = sd_buf_make(1 << 20);
    cr_assert(sd_metrics_write(&b, p));
    return b.data;
}

static void has(const char *page, const char *line) {
    cr_expect(strstr(page, line), "missing: %s", line);
}

Test(metrics, a_value_falls_into_the_bucket_whose_bound_it_does_not_pass) {
    sd_metrics m = counted(100);
    sd_model_counts *base = sd_metrics_model(&m, "base");
    sd_histogram *h = &base->histogram[SD_H_time_to_first_token_seconds];
    sd_histogram_observe(h, 0.001, 1);
    sd_histogram_observe(h, 0.0011, 2);
    sd_histogram_observe(h, 1e9, 1);
    cr_assert_eq(h->count[0], 1);
    cr_assert_eq(h->count[1], 2);
    cr_assert_eq(h->count[h->n], 1);
    cr_assert_eq(base->histogram[SD_H_request_prompt_tokens].n, 7); // 1 2 5 10 20 50 100
    sd_metrics_free(&m);
}

Test(metrics, a_name_has_one_count_and_no_key_has_none) {
    sd_metrics m = counted(100);
    sd_model_counts *base = sd_metrics_model(&m, "base"), *other = sd_metrics_model(&m, "other");
    cr_assert_eq(sd_metrics_model(&m, "base"), base);
    cr_assert_neq(other, base);
    cr_assert_eq(m.models, base, "the base stays the first");
    cr_assert_null(sd_metrics_key(&m, ""));
    sd_key_counts *k = sd_metrics_key(&m, "alice");
    cr_assert_eq(sd_metrics_key(&m, "alice"), k);
    sd_metrics_free(&m);
}

Test(metrics, tokens_of_an_answer_that_was_cut_count_once_its_prompt_was_read) {
    sd_metrics m = counted(100);
    sd_model_counts *base = sd_metrics_model(&m, "base");
    sd_key_counts *key = sd_metrics_key(&m, "alice");
    const sd_request_stats waited = {.prompt_tokens = 50},
                           began = {.prompt_tokens = 7, .cached_tokens = 4, .generated = 3};
    sd_metrics_finish(base, key, SD_FINISH_CANCELLED, &waited, 1);
    cr_assert_eq(base->tokens.prompt, 0);
    sd_metrics_finish(base, key, SD_FINISH_CANCELLED, &began, 1);
    sd_metrics_finish(base, NULL, SD_FINISH_STOP, &began, 1);
    cr_assert_eq(base->tokens.prompt, 14);
    cr_assert_eq(base->tokens.cached, 8);
    cr_assert_eq(base->tokens.generated, 6);
    cr_assert_eq(key->tokens.prompt, 7);
    cr_assert_eq(key->ended, 2);
    cr_assert_eq(base->histogram[SD_H_e2e_request_latency_seconds].sum, 1,
                 "of the whole one alone");
    sd_metrics_free(&m);
}

Test(metrics, the_page_is_prometheus_text_with_cumulative_buckets) {
    sd_metrics m = counted(100);
    sd_model_counts *base = sd_metrics_model(&m, "a\"b"), *ad = sd_metrics_model(&m, "ad");
    sd_key_counts *key = sd_metrics_key(&m, "alice");
    sd_request_stats s = {.prompt_tokens = 7, .generated = 3, .decode_ms = 400};
    sd_metrics_finish(base, key, SD_FINISH_STOP, &s, 0.6);
    sd_metrics_finish(base, NULL, SD_FINISH_CANCELLED, &s, 0.6);
    s.spec = (sd_spec_stats){.rounds = 10,
                             .drafted = 35,
                             .accepted = 20,
                             .by = {[0] = {"suffix", 5, 0}, [2] = {"index", 30, 20}}};
    sd_metrics_finish(ad, NULL, SD_FINISH_LENGTH, &s, 0.6);
    sd_metrics_reject(&m, key, SD_REJECT_QUEUE_FULL);
    const sd_engine_stats e = {.device = "cpu",
                               .running = 2,
                               .waiting = 1,
                               .slots = 4,
                               .kv_used = 1,
                               .kv_total = 4,
                               .slot_s = 2.5,
                               .prefix_cache = true,
                               .prefix_queries = 30,
                               .prefix_hits = 12};
    // The second row is an older generation, whose requests go on.
    const sd_metrics_served rows[] = {
        {base, "none", NULL, 0, 1}, {ad, "none", "beef", 4, 1}, {ad, "index", "cafe", 5, 2}};
    const int64_t answered[600] = {[200] = 3, [429] = 1};
    char *page = write_page(&(sd_metrics_page){.counted = &m,
                                               .ready = true,
                                               .engine = &e,
                                               .model = rows,
                                               .n_models = 3,
                                               .now_s = 5,
                                               .answered = answered,
                                               .n_answered = 600});
    static const char *const lines[] = {
        "\nspecdec_build_info{version=\"" SPECDEC_VERSION "\"} 1\n",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_open_fds ",
        "\nspecdec_ready{model_name=\"a\\\"b\"} 1\n",
        "\nspecdec_num_requests_running{model_name=\"a\\\"b\"} 2\n",
        "\nspecdec_kv_cache_usage_perc{model_name=\"a\\\"b\"} 0.25\n",
        "\nspecdec_prefix_cache_queries_total{model_name=\"a\\\"b\"} 30\n",
        "\nspecdec_prefix_cache_hits_total{model_name=\"a\\\"b\"} 12\n",
        "\nspecdec_request_success_total{model_name=\"a\\\"b\",adapter=\"a\\\"b\",finished_reason="
        "\"stop\"} 1\n",
        "\nspecdec_request_success_total{model_name=\"a\\\"b\",adapter=\"a\\\"b\",finished_reason="
        "\"abort\"} 1\n",
        "\nspecdec_request_success_total{model_name=\"a\\\"b\",adapter=\"ad\",finished_reason="
        "\"length\"} 1\n",
        "\nspecdec_e2e_request_latency_seconds_bucket{model_name=\"a\\\"b\",adapter=\"a\\\"b\",le="
        "\"0.5\"} 0\n",
        "\nspecdec_e2e_request_latency_seconds_bucket{model_name=\"a\\\"b\",adapter=\"a\\\"b\",le="
        "\"0.8\"} 1\n",
        "\nspecdec_e2e_request_latency_seconds_bucket{model_name=\"a\\\"b\",adapter=\"a\\\"b\",le="
        "\"+Inf\"} 1\n",
        "\nspecdec_e2e_request_latency_seconds_count{model_name=\"a\\\"b\",adapter=\"ad\"} 1\n",
        "\nspecdec_lora_requests_info{model_name=\"a\\\"b\",adapter=\"ad\"} 3\n",
        "\nspecdec_adapter_info{model_name=\"a\\\"b\",adapter=\"ad\",generation=\"5\",sha256="
        "\"cafe\",draft=\"index\"} 1\n",
        "\nspecdec_adapter_accept_length{model_name=\"a\\\"b\",adapter=\"ad\",draft=\"index\"} 3\n",
        "\nspecdec_adapter_generation_tokens_total{model_name=\"a\\\"b\",adapter=\"a\\\"b\"} 6\n",
        "\nspecdec_adapter_draft_tokens_total{model_name=\"a\\\"b\",adapter=\"ad\",source=\"index"
        "\"} 30\n",
        "\nspecdec_adapter_accepted_tokens_total{model_name=\"a\\\"b\",adapter=\"ad\",source="
        "\"suffix\"} 0\n",
        "\nspecdec_key_requests_total{model_name=\"a\\\"b\",key=\"alice\"} 1\n",
        "\nspecdec_key_rejections_total{model_name=\"a\\\"b\",key=\"alice\"} 1\n",
        "\nspecdec_admission_rejections_total{model_name=\"a\\\"b\",reason=\"queue_full\"} 1\n",
        "\nspecdec_http_responses_total{model_name=\"a\\\"b\",code=\"429\"} 1\n",
        "\nspecdec_engine_info{model_name=\"a\\\"b\",device=\"cpu\"} 1\n",
        "\nspecdec_num_slots{model_name=\"a\\\"b\"} 4\n",
        "\nspecdec_slot_seconds_total{model_name=\"a\\\"b\"} 2.5\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) has(page, lines[i]);
    cr_expect_null(strstr(page, "vllm:"));
    free(page);
    sd_metrics_free(&m);
}

Test(metrics, loads_and_waking_are_printed_where_there_are_any) {
    sd_metrics m = counted(100);
    sd_model_counts *base = sd_metrics_model(&m, "base");
    m.loads.done = 3, m.loads.refused = 2, m.loads.unloaded = 1, m.loads.longest_s = .25;
    const sd_metrics_served rows[] = {{base, "none", NULL, 0, 0}};
    sd_engine_stats e = {.slots = 1};
    sd_metrics_page p = {.counted = &m, .engine = &e, .model = rows, .n_models = 1};
    char *page = write_page(&p);
    cr_expect_null(strstr(page, "adapter_loads"), "none can be loaded");
    cr_expect_null(strstr(page, "wake_up"), "it never slept");
    free(page);
    p.loads_adapters = true, p.n_draining = 4;
    e.sleeps = 2, e.wake_ups = 1, e.asleep = true, e.last_wake_s = .5;
    page = write_page(&p);
    has(page, "\nspecdec_adapter_loads_total{model_name=\"base\",result=\"done\"} 3\n");
    has(page, "\nspecdec_adapter_loads_total{model_name=\"base\",result=\"refused\"} 2\n");
    has(page, "\nspecdec_adapter_unloads_total{model_name=\"base\"} 1\n");
    has(page, "\nspecdec_adapters_draining{model_name=\"base\"} 4\n");
    has(page, "\nspecdec_adapter_swap_longest_seconds{model_name=\"base\"} 0.25\n");
    has(page, "\nspecdec_is_sleeping{model_name=\"base\"} 1\n");
    has(page, "\nspecdec_last_wake_up_seconds{model_name=\"base\"} 0.5\n");
    free(page);
    sd_metrics_free(&m);
}

Test(metrics, what_is_not_measured_is_not_printed) {
    sd_metrics m;
    sd_metrics_init(&m, 0);
    char *page = write_page(&(sd_metrics_page){.counted = &m});
    has(page, "\nspecdec_ready 0\n");
    cr_expect_null(strstr(page, "tokens_total"), "there is no engine yet");
    cr_expect_null(strstr(page, "access_log"), "no log is written");
    free(page);
    sd_metrics_ready(&m, 100, 0);
    const sd_metrics_served rows[] = {{sd_metrics_model(&m, "base"), "none", NULL, 0, 0},
                                      {sd_metrics_model(&m, "unused"), "none", "beef", 1, 0}};
    const sd_engine_stats e = {0};
    page =
        write_page(&(sd_metrics_page){.counted = &m, .engine = &e, .model = rows, .n_models = 2});
    cr_expect_null(strstr(page, "prefix_cache"), "the cache is off");
    cr_expect_null(strstr(page, "specdec_key_"), "there are no keys");
    cr_expect_null(strstr(page, "constraint_compiled"), "there is no tokenizer");
    cr_expect_null(strstr(page, "specdec_e2e_request_latency_seconds_count{model_name=\"base\","
                                "adapter=\"unused\""));
    has(page,
        "\nspecdec_e2e_request_latency_seconds_count{model_name=\"base\",adapter=\"base\"} 0");
    free(page);
    sd_metrics_free(&m);
}

Test(metrics, a_key_sees_its_own_lines) {
    sd_metrics m = counted(100);
    const sd_metrics_served row = {sd_metrics_model(&m, "base"), "none", NULL, 0, 0};
    const sd_engine_stats e = {0};
    sd_metrics_key(&m, "alice"), sd_metrics_key(&m, "bob");
    char *page = write_page(&(sd_metrics_page){
        .counted = &m, .engine = &e, .model = &row, .n_models = 1, .key = "bob"});
    has(page, "\nspecdec_key_requests_total{model_name=\"base\",key=\"bob\"} 0\n");
    cr_expect_null(strstr(page, "alice"));
    free(page);
    sd_metrics_free(&m);
}

Test(metrics, vllms_series_stand_under_its_names_too_when_asked_for) {
    sd_metrics m = counted(100);
    const sd_metrics_served rows[] = {{sd_metrics_model(&m, "base"), "none", NULL, 0, 1},
                                      {sd_metrics_model(&m, "a"), "none", "x", 1, 1},
                                      {sd_metrics_model(&m, "b"), "none", "y", 2, 0},
                                      {sd_metrics_model(&m, "c"), "none", "z", 3, 1}};
    const sd_engine_stats e = {.running = 3, .kv_total = 4};
    char *page = write_page(&(sd_metrics_page){.counted = &m,
                                               .engine = &e,
                                               .model = rows,
                                               .n_models = 4,
                                               .vllm = true,
                                               .now_s = 5,
                                               .started = 1000});
    has(page, "\nspecdec_num_requests_running{model_name=\"base\"} 3\n");
    has(page, "\nvllm:num_requests_running{model_name=\"base\"} 3\n");
    has(page, "\nvllm:e2e_request_latency_seconds_sum{model_name=\"base\",adapter=\"base\"} 0\n");
    has(page, "\nvllm:lora_requests_info{model_name=\"base\",max_lora=\"3\",running_lora_adapters="
              "\"a,c\",waiting_lora_adapters=\"\"} 1005\n");
    cr_expect_null(strstr(page, "vllm:memory_bytes"), "our own have one name");
    free(page);
    sd_metrics_free(&m);
}
