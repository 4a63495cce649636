// Buckets are those of vLLM 0.10+, so that dashboards made for it work after a change of prefix. Small
// models say a token in a few milliseconds: between tokens there are finer ones below its first.
#include "decode/serve/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double ttft_bounds[] = {0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                                     0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                                     20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
static const double itl_bounds[] = {0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05,
                                    0.075, 0.1,   0.15,  0.2,   0.3,    0.4,  0.5,   0.75,
                                    1.0,   2.5,   5.0,   7.5,   10.0,   20.0, 40.0,  80.0};
static const double latency_bounds[] = {0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,
                                        5.0,  10.0,  15.0,  20.0,  30.0,  40.0,   50.0,
                                        60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};

static void set_bounds(sd_histogram *h, const double *bounds, size_t n) {
    memcpy(h->bound, bounds, n * sizeof *bounds);
    h->n = (int)n;
}

// 1, 2, 5, 10, ... up to max.
static void set_125_bounds(sd_histogram *h, int max) {
    static const int mantissa[] = {1, 2, 5};
    h->n = 0;
    for (double scale = 1; h->n < SD_MAX_BUCKETS; scale *= 10)
        for (int i = 0; i < 3; i++) {
            if (mantissa[i] * scale > max || h->n == SD_MAX_BUCKETS) return;
            h->bound[h->n++] = mantissa[i] * scale;
        }
}

#define SET(h, bounds) set_bounds(&(h), bounds, sizeof bounds / sizeof bounds[0])

void sd_metrics_init(sd_metrics *m, int ctx, double now_s) {
    *m = (sd_metrics){.started_s = now_s};
    SET(m->histogram[SD_H_time_to_first_token_seconds], ttft_bounds);
    SET(m->histogram[SD_H_inter_token_latency_seconds], itl_bounds);
    for (int i = SD_H_e2e_request_latency_seconds; i <= SD_H_request_decode_time_seconds; i++)
        SET(m->histogram[i], latency_bounds);
    set_125_bounds(&m->histogram[SD_H_request_prompt_tokens], ctx);
    set_125_bounds(&m->histogram[SD_H_request_generation_tokens], ctx);
}

void sd_histogram_observe(sd_histogram *h, double value, int64_t times) {
    int i = 0;
    while (i < h->n && value > h->bound[i]) i++;
    h->count[i] += times;
    h->sum += value * (double)times;
}

void sd_metrics_finish(sd_metrics *m, sd_finish finish, const sd_request_stats *s, double e2e_s) {
    m->finished[finish]++;
    if (finish == SD_FINISH_CANCELLED || finish == SD_FINISH_ERROR) return;
    sd_histogram *h = m->histogram;
    sd_histogram_observe(&h[SD_H_e2e_request_latency_seconds], e2e_s, 1);
    sd_histogram_observe(&h[SD_H_request_queue_time_seconds], s->queue_ms * 1e-3, 1);
    sd_histogram_observe(&h[SD_H_request_prefill_time_seconds], s->prefill_ms * 1e-3, 1);
    sd_histogram_observe(&h[SD_H_request_decode_time_seconds], s->decode_ms * 1e-3, 1);
    sd_histogram_observe(&h[SD_H_request_prompt_tokens], s->prompt_tokens, 1);
    sd_histogram_observe(&h[SD_H_request_generation_tokens], s->generated, 1);
}

// A label's value: backslash, quote and line feed are escaped.
static bool add_label(sd_buf *out, const char *name, const char *value) {
    bool ok = sd_buf_printf(out, "%s=\"", name);
    for (; *value && ok; value++) {
        if (*value == '\n')
            ok = sd_buf_adds(out, "\\n");
        else
            ok = (*value != '"' && *value != '\\') || sd_buf_addc(out, '\\'),
            ok = ok && sd_buf_addc(out, *value);
    }
    return ok && sd_buf_addc(out, '"');
}

// The page's state while it is written: the buffer and the label all lines carry.
typedef struct {
    sd_buf *out;
    sd_buf label; // model_name="..."
    bool ok;
} page;

static void head(page *p, const char *name, const char *type, const char *help) {
    p->ok = p->ok && sd_buf_printf(p->out, "# HELP specdec:%s %s\n# TYPE specdec:%s %s\n", name,
                                   help, name, type);
}

// extra: further labels with a leading comma, or "".
static void line(page *p, const char *name, const char *extra, double value) {
    p->ok = p->ok &&
            sd_buf_printf(p->out, "specdec:%s{%s%s} %.15g\n", name, p->label.data, extra, value);
}

static void single(page *p, const char *name, const char *type, const char *help, double value) {
    head(p, name, type, help);
    line(p, name, "", value);
}

static void histogram(page *p, const char *name, const char *help, const sd_histogram *h) {
    head(p, name, "histogram", help);
    char full[96], extra[48];
    snprintf(full, sizeof full, "%s_bucket", name);
    int64_t total = 0;
    for (int i = 0; i < h->n; i++) {
        total += h->count[i];
        snprintf(extra, sizeof extra, ",le=\"%g\"", h->bound[i]);
        line(p, full, extra, (double)total);
    }
    total += h->count[h->n];
    line(p, full, ",le=\"+Inf\"", (double)total);
    snprintf(full, sizeof full, "%s_sum", name);
    line(p, full, "", h->sum);
    snprintf(full, sizeof full, "%s_count", name);
    line(p, full, "", (double)total);
}

static void write_engine(page *p, const sd_metrics *m, const sd_engine_stats *e, double now_s) {
    single(p, "num_requests_running", "gauge", "Requests in a slot.", e->running);
    single(p, "num_requests_waiting", "gauge", "Requests in the queue.", e->waiting);
    single(p, "num_slots", "gauge", "Requests that can be in a slot at once.", e->slots);
    single(p, "kv_cache_usage_perc", "gauge", "Share of the KV positions in use, 0 to 1.",
           e->kv_total ? (double)e->kv_used / (double)e->kv_total : 0);
    single(p, "prompt_tokens_total", "counter", "Prompt tokens read.", (double)e->prompt_tokens);
    single(p, "generation_tokens_total", "counter", "Tokens generated.",
           (double)e->generated_tokens);
    single(p, "nonfinite_logits_total", "counter",
           "Requests that ended because the model's logits were not finite.", (double)e->nonfinite);
    single(p, "num_preemptions_total", "counter", "Requests put back into the queue.",
           (double)e->preemptions);
    if (e->prefix_cache) {
        single(p, "prefix_cache_queries_total", "counter",
               "Tokens of prompts that were looked for in the prefix cache.",
               (double)e->prefix_queries);
        single(p, "prefix_cache_hits_total", "counter",
               "Tokens of prompts that were found there and not computed.", (double)e->prefix_hits);
    }
    single(p, "spec_decode_num_drafts_total", "counter", "Rounds of speculation.",
           (double)e->spec.rounds);
    single(p, "spec_decode_num_draft_tokens_total", "counter", "Tokens drafted.",
           (double)e->spec.drafted);
    single(p, "spec_decode_num_accepted_tokens_total", "counter", "Drafted tokens accepted.",
           (double)e->spec.accepted);
    head(p, "spec_decode_num_accepted_tokens_per_pos_total", "counter",
         "Drafted tokens accepted, by position in the draft.");
    for (int i = 0; i < SD_MAX_DRAFT; i++) {
        char extra[32];
        if (i >= 8 && e->spec.accepted_at[i] == 0) continue;
        snprintf(extra, sizeof extra, ",position=\"%d\"", i);
        line(p, "spec_decode_num_accepted_tokens_per_pos_total", extra,
             (double)e->spec.accepted_at[i]);
    }
    double up = now_s - m->started_s;
    single(p, "busy_seconds_total", "counter", "Time the engine was at work.", e->busy_s);
    single(p, "constraint_seconds_total", "counter",
           "Of that, time for making and finding the masks that hold answers to their constraint.",
           e->constraint_s);
    single(p, "idle_seconds_total", "counter", "Time the engine had nothing to do.",
           up > e->busy_s ? up - e->busy_s : 0);
    single(p, "slot_seconds_total", "counter",
           "Time of the engine's steps, each once for each request in it.", e->slot_s);
}

static void write_constraints(page *p, const sd_metrics *m) {
#define WORD(name, word) word,
    static const char *const results[SD_CHECK_COUNT] = {SD_CHECKS(WORD)};
#undef WORD
    char extra[48];
    head(p, "constraint_checks_total", "counter",
         "Whole answers that were checked against their constraint, by result.");
    for (int i = 0; i < SD_CHECK_COUNT; i++) {
        snprintf(extra, sizeof extra, ",result=\"%s\"", results[i]);
        line(p, "constraint_checks_total", extra, (double)m->checked[i]);
    }
    single(p, "constraint_failures_total", "counter",
           "Answers that did not fit what they were held to: errors of the server.",
           (double)m->checked[SD_CHECK_FAILED]);
    if (!m->has_grammars) return;
    const sd_grammar_cache_stats *g = &m->grammars;
    single(p, "constraint_compiled_total", "counter", "Constraints that were compiled.",
           (double)g->compiled);
    single(p, "constraint_refused_total", "counter",
           "Constraints that could not be compiled: errors of requests.", (double)g->refused);
    single(p, "constraint_compile_seconds_total", "counter",
           "Time of compiling constraints, refused ones too.", g->compile_s);
    single(p, "constraint_cache_hits_total", "counter", "Constraints that were found compiled.",
           (double)g->found);
    single(p, "constraint_masks_total", "counter", "Masks of tokens that were asked for.",
           (double)g->masks);
    single(p, "constraint_masks_computed_total", "counter",
           "Masks of tokens that were not known and were computed.", (double)g->masks_made);
    single(p, "constraint_mask_seconds_total", "counter", "Time of computing masks.", g->mask_s);
}

static void write_memory_line(page *p, const char *part, size_t bytes) {
    char extra[64];
    if (bytes == 0) return;
    snprintf(extra, sizeof extra, ",part=\"%s\"", part);
    line(p, "memory_bytes", extra, (double)bytes);
}

// The keys are those of `specdec serve --plan --json`.
static void write_memory(page *p, const sd_metrics *m, const sd_engine_stats *e) {
    head(p, "memory_bytes", "gauge", "Memory by part, as serve --plan counts it.");
#define LINE(member, grows, words) write_memory_line(p, #member, e->memory.member);
    SD_ENGINE_MEMORY_LIST(LINE)
#undef LINE
    write_memory_line(p, "adapter_factors", m->adapter_factors);
    write_memory_line(p, "indexes", m->indexes);
    write_memory_line(p, "grammars", m->grammar_bytes);
    write_memory_line(p, "request_bodies", (size_t)m->body_bytes);
}

static void write_requests(page *p, const sd_metrics *m) {
#define WORD(name, word) word,
    static const char *const reject_names[SD_REJECT_COUNT] = {SD_REJECTS(WORD)};
#undef WORD
    char extra[64];
    head(p, "request_success_total", "counter", "Requests that ended, by how.");
    for (sd_finish f = SD_FINISH_STOP; f <= SD_FINISH_ERROR; f++) {
        snprintf(extra, sizeof extra, ",finished_reason=\"%s\"",
                 f == SD_FINISH_STOP        ? "stop"
                 : f == SD_FINISH_LENGTH    ? "length"
                 : f == SD_FINISH_CANCELLED ? "abort"
                                            : "error");
        line(p, "request_success_total", extra, (double)m->finished[f]);
    }
    head(p, "admission_rejections_total", "counter", "Requests turned away, by reason.");
    for (int i = 0; i < SD_REJECT_COUNT; i++) {
        snprintf(extra, sizeof extra, ",reason=\"%s\"", reject_names[i]);
        line(p, "admission_rejections_total", extra, (double)m->rejected[i]);
    }
    single(p, "num_requests_reading", "gauge", "Requests whose body is being made tokens.",
           (double)m->reading);
    single(p, "request_body_bytes", "gauge",
           "Bytes of request bodies, kept logprobs and unread answers held.",
           (double)m->body_bytes);
    single(p, "connections_displaced_total", "counter",
           "Idle connections closed to make room for newcomers.", (double)m->displaced);
    if (m->has_log)
        single(p, "access_log_lost_lines_total", "counter",
               "Lines of the access log that could not be written.", (double)m->log_lost);
#define WRITE_HISTOGRAM(name, help) histogram(p, #name, help, &m->histogram[SD_H_##name]);
    SD_HISTOGRAMS(WRITE_HISTOGRAM)
#undef WRITE_HISTOGRAM
}

static void write_adapters(page *p, const sd_metrics_adapter *a, int n) {
    head(p, "lora_requests_info", "gauge", "Requests running, by adapter.");
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            head(p, "adapter_accept_length", "gauge",
                 "Tokens of a round of speculation, by adapter and its draft.");
        for (int i = 0; i < n; i++) {
            sd_buf extra = sd_buf_make(1024);
            p->ok =
                p->ok && sd_buf_addc(&extra, ',') && add_label(&extra, "adapter", a[i].name) &&
                (pass == 0 || (sd_buf_addc(&extra, ',') && add_label(&extra, "draft", a[i].draft)));
            if (p->ok && pass == 0) line(p, "lora_requests_info", extra.data, a[i].running);
            if (p->ok && pass == 1 && a[i].spec->rounds)
                line(p, "adapter_accept_length", extra.data,
                     1 + (double)a[i].spec->accepted / (double)a[i].spec->rounds);
            sd_buf_free(&extra);
        }
    }
}

// Drafted and accepted tokens of finished requests, by adapter and by the drafter that proposed them.
static void write_sources(page *p, const sd_metrics_adapter *a, int n) {
    for (int accepted = 0; accepted < 2; accepted++) {
        const char *name =
            accepted ? "adapter_accepted_tokens_total" : "adapter_draft_tokens_total";
        head(p, name, "counter",
             accepted ? "Drafted tokens accepted, of finished requests, by adapter and source."
                      : "Tokens drafted, of finished requests, by adapter and source.");
        for (int i = 0; i < n * SD_MAX_DRAFTERS; i++) {
            const sd_metrics_adapter *of = &a[i / SD_MAX_DRAFTERS];
            const sd_spec_stats *s = of->spec;
            int by = i % SD_MAX_DRAFTERS;
            if (s->by[by].drafted == 0) continue;
            sd_buf extra = sd_buf_make(1024);
            p->ok = p->ok && sd_buf_addc(&extra, ',') && add_label(&extra, "adapter", of->name) &&
                    sd_buf_addc(&extra, ',') && add_label(&extra, "source", s->by[by].name);
            if (p->ok)
                line(p, name, extra.data,
                     (double)(accepted ? s->by[by].accepted : s->by[by].drafted));
            sd_buf_free(&extra);
        }
    }
}

bool sd_metrics_write(sd_buf *out, const sd_metrics *m, const sd_engine_stats *e, const char *model,
                      const sd_metrics_adapter *adapters, int n_adapters, double now_s) {
    page p = {out, sd_buf_make(4096), true};
    p.ok = add_label(&p.label, "model_name", model);
    if (p.ok) {
        write_engine(&p, m, e, now_s);
        write_memory(&p, m, e);
        write_requests(&p, m);
        write_constraints(&p, m);
        write_adapters(&p, adapters, n_adapters);
        write_sources(&p, adapters, n_adapters);
    }
    sd_buf_free(&p.label);
    return p.ok;
}
