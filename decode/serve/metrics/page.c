// First what vLLM has too, then what is our own, each from the whole to its parts.
#include "decode/serve/metrics/page.h"

#include "decode/serve/metrics/process.h"
#include "decode/serve/metrics/text.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define WORD(name, word) word,

// ---- vLLM's

static void histogram_lines(sd_metrics_text *t, const char *name, const sd_histogram *h,
                            const char *adapter) {
    char full[96], bound[32];
    int64_t total = 0;
    snprintf(full, sizeof full, "%s_bucket", name);
    for (int i = 0; i <= h->n; i++) {
        total += h->count[i];
        snprintf(bound, sizeof bound, i < h->n ? "%g" : "+Inf", i < h->n ? h->bound[i] : 0);
        SD_TEXT_LINE(t, full, (double)total, {"adapter", adapter}, {"le", bound});
    }
    snprintf(full, sizeof full, "%s_sum", name);
    SD_TEXT_LINE(t, full, h->sum, {"adapter", adapter});
    snprintf(full, sizeof full, "%s_count", name);
    SD_TEXT_LINE(t, full, (double)total, {"adapter", adapter});
}

// The base's, and those of adapters once they were asked for something: a model's are 190 lines.
static bool has_histograms(const sd_metrics *m, const sd_model_counts *c) {
    int64_t ended = 0;
    for (int i = 0; i < SD_FINISH_COUNT; i++) ended += c->finished[i];
    const sd_histogram *first = &c->histogram[SD_H_time_to_first_token_seconds];
    for (int i = 0; i <= first->n; i++) ended += first->count[i];
    return c == m->models || ended > 0;
}

static void write_histograms(sd_metrics_text *t, const sd_metrics *m) {
    static const char *const names[] = {
#define NAME(name, help) #name,
        SD_HISTOGRAMS(NAME)
#undef NAME
    };
    static const char *const helps[] = {
#define HELP(name, help) help,
        SD_HISTOGRAMS(HELP)
#undef HELP
    };
    for (int i = 0; i < SD_H_COUNT; i++) {
        sd_text_head(t, names[i], "histogram", helps[i]);
        for (const sd_model_counts *c = m->models; c; c = c->next)
            if (has_histograms(m, c)) histogram_lines(t, names[i], &c->histogram[i], c->name);
    }
}

static void write_ended(sd_metrics_text *t, const sd_metrics *m) {
    static const char *const words[SD_FINISH_COUNT] = {[SD_FINISH_STOP] = "stop",
                                                       [SD_FINISH_LENGTH] = "length",
                                                       [SD_FINISH_CANCELLED] = "abort",
                                                       [SD_FINISH_ERROR] = "error"};
    sd_text_head(t, "request_success_total", "counter", "Answers that ended, by how.");
    for (const sd_model_counts *c = m->models; c; c = c->next)
        for (sd_finish f = SD_FINISH_STOP; f <= SD_FINISH_ERROR; f++)
            SD_TEXT_LINE(t, "request_success_total", (double)c->finished[f], {"adapter", c->name},
                         {"finished_reason", words[f]});
}

static void write_speculation(sd_metrics_text *t, const sd_spec_stats *s) {
    static const char per_position[] = "spec_decode_num_accepted_tokens_per_pos_total";
    sd_text_single(t, "spec_decode_num_drafts_total", "counter", "Rounds of speculation.",
                   (double)s->rounds);
    sd_text_single(t, "spec_decode_num_draft_tokens_total", "counter", "Tokens drafted.",
                   (double)s->drafted);
    sd_text_single(t, "spec_decode_num_accepted_tokens_total", "counter",
                   "Drafted tokens accepted.", (double)s->accepted);
    sd_text_head(t, per_position, "counter", "Drafted tokens accepted, by position in the draft.");
    for (int i = 0; i < SD_MAX_DRAFT; i++) {
        char position[16];
        if (i >= 8 && s->accepted_at[i] == 0) continue;
        snprintf(position, sizeof position, "%d", i);
        SD_TEXT_LINE(t, per_position, (double)s->accepted_at[i], {"position", position});
    }
}

static void write_like_vllm(sd_metrics_text *t, const sd_metrics_page *p) {
    const sd_engine_stats *e = p->engine;
    sd_text_single(t, "num_requests_running", "gauge", "Requests in a slot.", e->running);
    sd_text_single(t, "num_requests_waiting", "gauge", "Requests in the queue.", e->waiting);
    if (e->kv_total)
        sd_text_single(t, "kv_cache_usage_perc", "gauge",
                       "Share of the KV positions in use, 0 to 1.",
                       (double)e->kv_used / (double)e->kv_total);
    sd_text_single(t, "prompt_tokens_total", "counter", "Prompt tokens read.",
                   (double)e->prompt_tokens);
    sd_text_single(t, "generation_tokens_total", "counter", "Tokens generated.",
                   (double)e->generated_tokens);
    sd_text_single(t, "num_preemptions_total", "counter", "Requests put back into the queue.",
                   (double)e->preemptions);
    if (e->prefix_cache) {
        sd_text_single(t, "prefix_cache_queries_total", "counter",
                       "Tokens of prompts that were looked for in the prefix cache.",
                       (double)e->prefix_queries);
        sd_text_single(t, "prefix_cache_hits_total", "counter",
                       "Tokens of prompts that were found there and not computed.",
                       (double)e->prefix_hits);
    }
    write_speculation(t, &e->spec);
    write_ended(t, p->counted);
    write_histograms(t, p->counted);
}

// Whether requests run by the name of row i, and no row before it said so.
static bool runs_first(const sd_metrics_page *p, int i) {
    bool runs = p->model[i].running > 0;
    for (int k = 1; k < i; k++)
        runs = runs && (p->model[k].counts != p->model[i].counts || !p->model[k].running);
    return runs;
}

// In vLLM's own form: the adapters that are at work stand in a label, and the value is the time.
static void write_vllm_adapters(sd_metrics_text *t, const sd_metrics_page *p) {
    sd_buf running = sd_buf_make(1 << 20);
    char loaded[16];
    bool ok = sd_buf_adds(&running, "");
    for (int i = 1; i < p->n_models && ok; i++)
        if (runs_first(p, i))
            ok = (running.len == 0 || sd_buf_addc(&running, ',')) &&
                 sd_buf_adds(&running, p->model[i].counts->name);
    t->ok = t->ok && ok;
    snprintf(loaded, sizeof loaded, "%d", p->n_models - 1);
    sd_text_head(t, "lora_requests_info", "gauge", "The time, and which adapters are at work.");
    if (t->ok)
        SD_TEXT_LINE(t, "lora_requests_info", (double)p->started + p->now_s - p->counted->started_s,
                     {"max_lora", loaded}, {"running_lora_adapters", running.data},
                     {"waiting_lora_adapters", ""});
    sd_buf_free(&running);
}

// ---- our own: the engine

static void write_engine(sd_metrics_text *t, const sd_metrics_page *p) {
    const sd_engine_stats *e = p->engine;
    double up = p->now_s - p->counted->started_s;
    sd_text_head(t, "engine_info", "gauge", "1, with the device that the model runs on.");
    SD_TEXT_LINE(t, "engine_info", 1, {"device", e->device ? e->device : ""});
    sd_text_single(t, "num_slots", "gauge", "Requests that can be in a slot at once.", e->slots);
    sd_text_single(t, "queue_size", "gauge", "Requests that may wait beyond the slots.", e->queue);
    sd_text_single(t, "nonfinite_logits_total", "counter",
                   "Requests that ended because the model's logits were not finite.",
                   (double)e->nonfinite);
    sd_text_single(t, "busy_seconds_total", "counter", "Time the engine was at work.", e->busy_s);
    sd_text_single(
        t, "constraint_seconds_total", "counter",
        "Of that, time for making and finding the masks that hold answers to their constraint.",
        e->constraint_s);
    sd_text_single(t, "idle_seconds_total", "counter", "Time the engine had nothing to do.",
                   up > e->busy_s ? up - e->busy_s : 0);
    if (e->sleeps > 0) {
        sd_text_single(t, "is_sleeping", "gauge", "1 while the memory of weights is given back.",
                       e->asleep);
        sd_text_single(t, "wake_ups_total", "counter", "Times that the engine woke.",
                       (double)e->wake_ups);
        sd_text_single(t, "wake_up_seconds_total", "counter", "Time of waking.", e->wake_s);
        if (e->wake_ups > 0)
            sd_text_single(t, "last_wake_up_seconds", "gauge", "Time of the last waking.",
                           e->last_wake_s);
    }
    sd_text_single(t, "slot_seconds_total", "counter",
                   "Time of the engine's steps, each once for each request in it.", e->slot_s);
}

// The keys are those of `specdec serve --plan --json`.
static void write_memory(sd_metrics_text *t, const sd_metrics_page *p) {
    const struct {
        const char *part;
        size_t bytes;
    } parts[] = {
#define PART(member, grows, words) {#member, p->engine->memory.member},
        SD_ENGINE_MEMORY_LIST(PART)
#undef PART
            {"adapter_factors", p->adapter_factors},
        {"indexes", p->indexes},
        {"grammars", p->grammar_bytes},
        {"request_bodies", (size_t)p->body_bytes}};
    sd_text_head(t, "memory_bytes", "gauge", "Memory by part, as serve --plan counts it.");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (parts[i].bytes)
            SD_TEXT_LINE(t, "memory_bytes", (double)parts[i].bytes, {"part", parts[i].part});
}

static void write_constraints(sd_metrics_text *t, const sd_metrics_page *p) {
    static const char *const results[SD_CHECK_COUNT] = {SD_CHECKS(WORD)};
    const int64_t *checked = p->counted->checked;
    sd_text_head(t, "constraint_checks_total", "counter",
                 "Whole answers that were checked against their constraint, by result.");
    for (int i = 0; i < SD_CHECK_COUNT; i++)
        SD_TEXT_LINE(t, "constraint_checks_total", (double)checked[i], {"result", results[i]});
    sd_text_single(t, "constraint_failures_total", "counter",
                   "Answers that did not fit what they were held to: errors of the server.",
                   (double)checked[SD_CHECK_FAILED]);
    const sd_grammar_cache_stats *g = p->grammars;
    if (!g) return;
    sd_text_single(t, "constraint_compiled_total", "counter", "Constraints that were compiled.",
                   (double)g->compiled);
    sd_text_single(t, "constraint_refused_total", "counter",
                   "Constraints that could not be compiled: errors of requests.",
                   (double)g->refused);
    sd_text_single(t, "constraint_compile_seconds_total", "counter",
                   "Time of compiling constraints, refused ones too.", g->compile_s);
    sd_text_single(t, "constraint_cache_hits_total", "counter",
                   "Constraints that were found compiled.", (double)g->found);
    sd_text_single(t, "constraint_masks_total", "counter", "Masks of tokens that were asked for.",
                   (double)g->masks);
    sd_text_single(t, "constraint_masks_computed_total", "counter",
                   "Masks of tokens that were not known and were computed.", (double)g->masks_made);
    sd_text_single(t, "constraint_mask_seconds_total", "counter", "Time of computing masks.",
                   g->mask_s);
}

// ---- our own: models and keys

static void write_served(sd_metrics_text *t, const sd_metrics_page *p) {
    sd_text_head(t, "lora_requests_info", "gauge",
                 "Requests in a slot or in the queue, by adapter.");
    for (const sd_model_counts *c = p->counted->models; c; c = c->next) {
        int running = 0, rows = 0;
        for (int i = 0; i < p->n_models; i++)
            if (p->model[i].counts == c) running += p->model[i].running, rows++;
        if (rows) SD_TEXT_LINE(t, "lora_requests_info", running, {"adapter", c->name});
    }
    sd_text_head(t, "adapter_info", "gauge",
                 "1 for each generation of an adapter that is served or drains.");
    for (int i = 0; i < p->n_models; i++) {
        const sd_metrics_served *m = &p->model[i];
        char generation[24];
        snprintf(generation, sizeof generation, "%llu", (unsigned long long)m->generation);
        if (m->sha256)
            SD_TEXT_LINE(t, "adapter_info", 1, {"adapter", m->counts->name},
                         {"generation", generation}, {"sha256", m->sha256}, {"draft", m->draft});
    }
}

static void write_loads(sd_metrics_text *t, const sd_metrics_page *p) {
    const sd_metrics *m = p->counted;
    if (!p->loads_adapters) return;
    sd_text_head(t, "adapter_loads_total", "counter",
                 "Loads of adapters while serving, by result.");
    SD_TEXT_LINE(t, "adapter_loads_total", (double)m->loads.done, {"result", "done"});
    SD_TEXT_LINE(t, "adapter_loads_total", (double)m->loads.refused, {"result", "refused"});
    sd_text_single(t, "adapter_unloads_total", "counter",
                   "Adapters that were unloaded while serving.", (double)m->loads.unloaded);
    sd_text_single(t, "adapters_draining", "gauge",
                   "Generations that only requests of before still use.", p->n_draining);
    sd_text_single(t, "adapter_load_seconds_total", "counter",
                   "Time of loads, from their turn to the generation's first request.",
                   m->loads.read_s);
    sd_text_single(t, "adapter_swap_seconds_total", "counter",
                   "Of that, time that steps of the engine waited.", m->loads.waited_s);
    sd_text_single(t, "adapter_swap_longest_seconds", "gauge",
                   "The longest that a step waited for a load.", m->loads.longest_s);
}

static const sd_metrics_served *last_served(const sd_metrics_page *p, const sd_model_counts *c) {
    for (int i = p->n_models - 1; i >= 0; i--)
        if (p->model[i].counts == c) return &p->model[i];
    return NULL;
}

static void write_model_counts(sd_metrics_text *t, const sd_metrics_page *p) {
    const sd_model_counts *first = p->counted->models;
    static const struct {
        const char *name, *help;
        size_t at;
    } tokens[] = {{"adapter_prompt_tokens_total", "Tokens of the prompts of ended answers.",
                   offsetof(sd_token_counts, prompt)},
                  {"adapter_cached_tokens_total", "Of these, found and not computed.",
                   offsetof(sd_token_counts, cached)},
                  {"adapter_generation_tokens_total", "Tokens of ended answers.",
                   offsetof(sd_token_counts, generated)}};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        sd_text_head(t, tokens[i].name, "counter", tokens[i].help);
        for (const sd_model_counts *c = first; c; c = c->next) {
            const char *counts = (const char *)&c->tokens;
            SD_TEXT_LINE(t, tokens[i].name, (double)*(const int64_t *)(counts + tokens[i].at),
                         {"adapter", c->name});
        }
    }
    sd_text_head(t, "adapter_accept_length", "gauge",
                 "Tokens of a round of speculation, by adapter and its draft.");
    for (const sd_model_counts *c = first; c; c = c->next) {
        const sd_metrics_served *m = last_served(p, c);
        if (m && c->spec.rounds)
            SD_TEXT_LINE(t, "adapter_accept_length",
                         1 + (double)c->spec.accepted / (double)c->spec.rounds,
                         {"adapter", c->name}, {"draft", m->draft});
    }
    for (int accepted = 0; accepted < 2; accepted++) {
        const char *name =
            accepted ? "adapter_accepted_tokens_total" : "adapter_draft_tokens_total";
        sd_text_head(t, name, "counter",
                     accepted ? "Drafted tokens accepted, of ended answers, by adapter and source."
                              : "Tokens drafted, of ended answers, by adapter and source.");
        for (const sd_model_counts *c = first; c; c = c->next)
            for (int by = 0; by < SD_MAX_DRAFTERS; by++) {
                int64_t drafted = c->spec.by[by].drafted, held = c->spec.by[by].accepted;
                if (drafted)
                    SD_TEXT_LINE(t, name, (double)(accepted ? held : drafted), {"adapter", c->name},
                                 {"source", c->spec.by[by].name});
            }
    }
}

static void write_keys(sd_metrics_text *t, const sd_metrics_page *p) {
    static const struct {
        const char *name, *help;
        size_t at;
    } rows[] = {
        {"key_requests_total", "Answers that ended, by key.", offsetof(sd_key_counts, ended)},
        {"key_rejections_total", "Requests turned away, by key.",
         offsetof(sd_key_counts, rejected)},
        {"key_prompt_tokens_total", "Tokens of the prompts of ended answers, by key.",
         offsetof(sd_key_counts, tokens.prompt)},
        {"key_cached_tokens_total", "Of these, found and not computed.",
         offsetof(sd_key_counts, tokens.cached)},
        {"key_generation_tokens_total", "Tokens of ended answers, by key.",
         offsetof(sd_key_counts, tokens.generated)}};
    if (!p->counted->keys) return;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sd_text_head(t, rows[i].name, "counter", rows[i].help);
        for (const sd_key_counts *k = p->counted->keys; k; k = k->next)
            if (!p->key || strcmp(p->key, k->id) == 0)
                SD_TEXT_LINE(t, rows[i].name,
                             (double)*(const int64_t *)((const char *)k + rows[i].at),
                             {"key", k->id});
    }
}

// ---- our own: the front

static void write_front(sd_metrics_text *t, const sd_metrics_page *p) {
    static const char *const reasons[SD_REJECT_COUNT] = {SD_REJECTS(WORD)};
    int64_t rejected[SD_REJECT_COUNT];
    memcpy(rejected, p->counted->rejected, sizeof rejected);
    rejected[SD_REJECT_CONNECTIONS] += p->sockets_refused;
    rejected[SD_REJECT_BODY_MEMORY] += p->bodies_refused;
    sd_text_single(t, "ready", "gauge", "1 while requests are answered, as /health says.",
                   p->ready);
    sd_text_head(t, "admission_rejections_total", "counter", "Requests turned away, by reason.");
    for (int i = 0; i < SD_REJECT_COUNT; i++)
        SD_TEXT_LINE(t, "admission_rejections_total", (double)rejected[i], {"reason", reasons[i]});
    sd_text_head(t, "http_responses_total", "counter", "Responses of any path, by status.");
    for (int i = 0; i < p->n_answered; i++) {
        char code[16];
        snprintf(code, sizeof code, "%d", i);
        if (p->answered[i])
            SD_TEXT_LINE(t, "http_responses_total", (double)p->answered[i], {"code", code});
    }
    sd_text_single(t, "num_requests_reading", "gauge", "Requests whose body is being made tokens.",
                   (double)p->counted->reading);
    sd_text_single(t, "request_body_bytes", "gauge",
                   "Bytes of request bodies, kept logprobs and unread answers held.",
                   (double)p->body_bytes);
    sd_text_single(t, "connections_displaced_total", "counter",
                   "Idle connections closed to make room for newcomers.", (double)p->displaced);
    if (p->log_lost)
        sd_text_single(t, "access_log_lost_lines_total", "counter",
                       "Lines of the access log that could not be written.", (double)*p->log_lost);
}

bool sd_metrics_write(sd_buf *out, const sd_metrics_page *p) {
    sd_metrics_text plain = {.out = out, .prefix = "specdec_", .ok = true}, t = plain;
    sd_metrics_text process = {.out = out, .prefix = "process_", .ok = true};
    sd_text_head(&plain, "build_info", "gauge", "1, with the version that runs.");
    SD_TEXT_LINE(&plain, "build_info", 1, {"version", SPECDEC_VERSION});
    sd_process_write(&process, p->started);
    if (p->engine && p->n_models) t.model = p->counted->models->name;
    write_front(&t, p);
    if (p->engine && p->n_models) {
        write_like_vllm(&t, p);
        write_engine(&t, p);
        write_memory(&t, p);
        write_constraints(&t, p);
        write_served(&t, p);
        write_loads(&t, p);
        write_model_counts(&t, p);
        write_keys(&t, p);
        if (p->vllm) {
            sd_metrics_text same = t;
            same.prefix = "vllm:";
            write_like_vllm(&same, p);
            write_vllm_adapters(&same, p);
            t.ok = same.ok;
        }
    }
    return plain.ok && process.ok && t.ok;
}
