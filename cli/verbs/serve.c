// specdec serve: options into sd_serve_options; the plan's table.
#include "decode/serve/plan/plan.h"

#include "base/json.h"
#include "base/log.h"
#include "cli/common.h"
#include "cli/decoding.h"
#include "cli/verbs.h"
#include "model/dialogue/format.h"
#include "model/infer/weight_cache/place.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    sd_model_args common;
    sd_strings adapters, names, proxies, origins;
    const char *draft, *draft_adapter, *chat_template, *host, *key_file, *access_log;
    int64_t kv_memory, port, ctx, slots, queue, body_memory, spec_length, draft_kv;
    double drain;
    int spec, prefix_cache, tool_format;
    bool insecure_no_key, no_run_defaults, plain_user_text, plan, json;
} args;

#define ROW(field_name, kind, member, ...)                                                         \
    { .name = field_name, .type = kind, .offset = offsetof(args, member), __VA_ARGS__ }

static const sd_option rows[] = {
    SD_COMMON_ROWS(args),
    ROW("adapter", SD_OPT_LIST, adapters, .letter = 'a', .value = "[NAME=]PATH",
        .help = "serve an adapter (PEFT folder, GGUF-LoRA or run) under NAME, else under the last "
                "part of its path; repeat for more"),
    ROW("draft", SD_OPT_STRING, draft, .letter = 'd', .value = "DRAFT",
        .help = "a draft model, a corpus index, or a run's folder"),
    SD_DRAFT_MODEL_ROWS(args, draft_adapter, draft_kv),
    SD_CHAT_TEMPLATE_ROW(args, chat_template,
                         "the one that a request's adapter was trained with, else the model's own"),
    ROW("tool-format", SD_OPT_ENUM, tool_format, .def = "auto", .value = SD_TOOL_FORMAT_WORDS,
        .help =
            "how the models write tool calls; auto: as their templates show it; none: answers are "
            "content alone, reasoning too"),
    ROW("spec", SD_OPT_ENUM, spec, .def = "auto", .value = SD_SPEC_MODES,
        .help = "how tokens are drafted"),
    ROW("spec-length", SD_OPT_INT, spec_length, .def = "0", .min = 0, .max = SD_MAX_DRAFT,
        .unit = "tokens", .help = "force every draft to this length; 0: the controller decides"),
    ROW("served-name", SD_OPT_LIST, names, .value = "NAME",
        .help = "what the base is called in requests; repeat for aliases"),
    ROW("host", SD_OPT_STRING, host, .def = "127.0.0.1", .value = "HOST",
        .help = "address to listen at"),
    ROW("port", SD_OPT_INT, port, .def = "8080", .min = 0, .max = 65535,
        .help = "port to listen at; 0 picks a free one and prints it"),
    ROW("api-key-file", SD_OPT_STRING, key_file, .value = "FILE",
        .help = "ask for one of these keys as Authorization: Bearer KEY; a line is a key, or "
                "ID sha256:HEX [admin] (specdec key new); read anew at SIGHUP"),
    ROW("trusted-proxy", SD_OPT_LIST, proxies, .value = "CIDR",
        .help = "an address or network whose X-Forwarded-For says whose a request is, where no key "
                "does; repeat for more"),
    ROW("cors", SD_OPT_LIST, origins, .value = "ORIGIN",
        .help = "let pages of this origin (https://example.com) read answers in a browser, * those "
                "of all; repeat for more"),
    ROW("insecure-no-key", SD_OPT_FLAG, insecure_no_key, .value = NULL,
        .help = "serve an address that others can reach without asking for a key"),
    ROW("plain-user-text", SD_OPT_FLAG, plain_user_text, .value = NULL,
        .help = "read what users and tools say in a chat as letters alone: text that spells a "
                "special token, or a mark such as <think>, is none"),
    ROW("no-run-defaults", SD_OPT_FLAG, no_run_defaults, .value = NULL,
        .help = "do not fill what a request leaves out from a run's manifest, specdec.json or "
                "generation_config.json"),
    ROW("ctx", SD_OPT_INT, ctx, .def = "0", .min = 0, .max = 1 << 24, .unit = "tokens",
        .help = "context of each slot; 0: the smaller of 4096 and the model's"),
    ROW("slots", SD_OPT_INT, slots, .def = "8", .min = 1, .max = 1024,
        .help = "requests decoded at once"),
    SD_KV_POOL_ROWS(args, kv_memory, prefix_cache, "on"),
    ROW("queue", SD_OPT_INT, queue, .def = "64", .min = 1, .max = 65536,
        .help = "requests that may wait beyond the free slots; more are answered 429, but for a "
                "client's equal share"),
    ROW("body-memory", SD_OPT_INT, body_memory, .def = "128", .min = 16, .max = 1 << 20,
        .unit = "MiB",
        .help = "request bodies held at once, from their first byte until their tokens are queued, "
                "and unread answers; more are answered 429, but for a client's equal share"),
    ROW("drain", SD_OPT_FLOAT, drain, .def = "30", .min = 0, .max = 86400, .unit = "s",
        .help =
            "time that running requests get after SIGTERM or SIGINT; a second later all "
            "connections are closed"),
    ROW("access-log", SD_OPT_STRING, access_log, .value = "FILE",
        .help = "one JSON line a request, without prompts; - is standard output"),
    ROW("plan", SD_OPT_FLAG, plan, .value = NULL,
        .help = "print what serving takes of memory, by part, and load nothing"),
    SD_JSON_ROW(args, json, "the plan as one JSON object"),
    {0}};

// ---- the plan

static double mib(size_t bytes) {
    return (double)bytes / 1048576;
}

static void print_row(const char *part, size_t bytes) {
    printf("  %-44s %10.1f MiB\n", part, mib(bytes));
}

static void print_kv(const sd_serve_plan *p) {
    const sd_engine_memory_plan *e = &p->engine;
    printf("keys and values as %s: %lld tokens, %d of one request at most\n",
           sd_kv_name(e->kv_type), (long long)e->kv.positions, e->kv.longest);
    for (int i = 0; i < e->kv.windows && i < SD_KV_PLANNED_WINDOWS; i++) {
        long long tokens = (long long)e->kv.of[i].pages * SD_KV_PAGE;
        printf("  %d layers that see ", e->kv.of[i].layers);
        if (e->kv.of[i].window > 0)
            printf("%d tokens", e->kv.of[i].window);
        else
            printf("all tokens");
        printf(": %d pages of %d, %lld tokens\n", e->kv.of[i].pages, SD_KV_PAGE, tokens);
    }
    printf("  1000 tokens more:");
    for (sd_kv_type t = SD_KV_F16; t < SD_KV_TYPES; t++)
        printf("%s %.1f MiB as %s", t > SD_KV_F16 ? "," : "", mib(1000 * p->kv_position[t]),
               sd_kv_name(t));
    printf("\n  the prefix cache has what no running request needs of this, and no more\n");
}

static void print_plan(const sd_serve_plan *p, const char *model) {
    const sd_engine_memory_plan *e = &p->engine;
    printf("%s: context %d tokens, %d slots, queue %d, %d threads\n\n", model, e->ctx, e->slots,
           e->queue, e->threads);
    for (int i = 0; i < p->n; i++) {
        if (i > 0 && p->row[i].grows && !p->row[i - 1].grows) {
            print_row("taken when the server opens", p->start);
            printf("\n  at most, as requests need it:\n");
        }
        print_row(p->row[i].part, p->row[i].bytes);
    }
    print_row("total at most", p->most);
    if (p->available) print_row("available", p->available);
    printf("\nfiles: %.1f MiB are mapped, which the system takes back when memory is short\n",
           mib(p->mapped));
    print_kv(p);
}

static sd_status print_plan_json(const sd_serve_plan *p, sd_error *err) {
    const sd_engine_memory_plan *e = &p->engine;
    json_t *parts = json_object(), *growing = json_object(), *windows = json_array();
    for (int i = 0; i < p->n; i++)
        json_object_set_new(p->row[i].grows ? growing : parts, p->row[i].key,
                            json_integer((json_int_t)p->row[i].bytes));
    for (int i = 0; i < e->kv.windows && i < SD_KV_PLANNED_WINDOWS; i++)
        json_array_append_new(windows,
                              json_pack("{s:i, s:i, s:i, s:I}", "window", e->kv.of[i].window,
                                        "layers", e->kv.of[i].layers, "pages", e->kv.of[i].pages,
                                        "tokens", (json_int_t)e->kv.of[i].pages * SD_KV_PAGE));
    json_t *j = json_pack(
        "{s:i, s:i, s:i, s:i, s:o, s:o, s:I, s:I, s:I, s:I, s:s, s:I, s:i, s:o}", "ctx", e->ctx,
        "slots", e->slots, "queue", e->queue, "threads", e->threads, "memory_bytes", parts,
        "at_most_bytes", growing, "start_bytes", (json_int_t)p->start, "total_bytes",
        (json_int_t)p->most, "available_bytes", (json_int_t)p->available, "mapped_bytes",
        (json_int_t)p->mapped, "kv", sd_kv_name(e->kv_type), "kv_tokens",
        (json_int_t)e->kv.positions, "longest_request", e->kv.longest, "kv_windows", windows);
    if (!j) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = sd_json_print(stdout, j, JSON_COMPACT, err);
    if (st == SD_OK) putchar('\n');
    json_decref(j);
    return st;
}

static sd_status print_plan_of(const sd_serve_options *o, bool json, sd_error *err) {
    sd_serve_plan p;
    sd_status st = sd_serve_plan_make(&p, o, err);
    if (st != SD_OK) return st;
    if (json)
        st = print_plan_json(&p, err);
    else
        print_plan(&p, o->model);
    const char *remedy = sd_serve_plan_remedy(&p);
    if (remedy)
        sd_log(SD_LOG_WARN, "serving takes %.0f MiB at most and %.0f MiB are available; lower %s",
               mib(p.most), mib(p.available), remedy);
    return st;
}

sd_status sd_verb_serve(int argc, char **argv, sd_error *err) {
    args a = {0};
    sd_strings rest = {0};
    sd_status st = SD_OK;
    char *pack_dir = NULL;
    const sd_backend *backend;
    int device;
    if (sd_verb_help("serve -m MODEL [-a [NAME=]PATH ...] [-d DRAFT] [--port N]",
                     "an OpenAI-compatible server", rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    if (!a.plan) sd_outlive_broken_pipes();
    SD_CHECK(rest.n == 0, err, SD_EINVAL,
             "serve: '%s' is not an option; give models with -m and -a", rest.item[0]);
    SD_TRY(sd_device_choose(&backend, &device, a.common.device, err));
    pack_dir = a.common.no_pack_cache ? NULL : sd_weight_cache_dir();
    const sd_serve_options o = {.model = a.common.model,
                                .pack_dir = pack_dir,
                                .chat_template = a.chat_template,
                                .tool_format = a.tool_format,
                                .other_base = a.common.other_base,
                                .no_run_defaults = a.no_run_defaults,
                                .plain_user_text = a.plain_user_text,
                                .adapters = &a.adapters,
                                .served_names = &a.names,
                                .host = a.host,
                                .port = (int)a.port,
                                .key_file = a.key_file,
                                .trusted_proxies = &a.proxies,
                                .origins = &a.origins,
                                .insecure_no_key = a.insecure_no_key,
                                .drain_s = a.drain,
                                .body_memory = (size_t)a.body_memory << 20,
                                .access_log = a.access_log,
                                .engine = {.ctx = (int)a.ctx,
                                           .slots = (int)a.slots,
                                           .queue = (int)a.queue,
                                           .prefill_chunk = (int)a.common.prefill_chunk,
                                           .threads = (int)a.common.threads,
                                           .compute = (sd_compute)a.common.compute,
                                           .kv = (sd_kv_type)a.common.kv,
                                           .kv_memory = (size_t)a.kv_memory << 20,
                                           .no_prefix_cache = a.prefix_cache != 0,
                                           .backend = backend,
                                           .device = device,
                                           .spec = (sd_spec_mode)a.spec,
                                           .spec_length = (int)a.spec_length,
                                           .draft = a.draft,
                                           .draft_adapter = a.draft_adapter,
                                           .draft_kv = a.draft_kv}};
    SD_CHECK(a.plan || !a.json, err, SD_EINVAL,
             "serve: --json is the plan's form; give --plan too");
    SD_TRY(a.plan ? print_plan_of(&o, a.json, err) : sd_serve(&o, err));
out:
    free(pack_dir);
    return st;
}
