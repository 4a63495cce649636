// The table of serve's options, and how file and command line come together: defaults, then the file,
// then the command line over it.
#include "cli/serve/args.h"

#include "base/files/file.h"
#include "base/files/yaml.h"
#include "base/json.h"
#include "cli/decoding.h"
#include "model/dialogue/format.h"

#include <jansson.h>
#include <string.h>

#define ROW(field_name, kind, member, ...)                                                         \
    { .name = field_name, .type = kind, .offset = offsetof(sd_serve_args, member), __VA_ARGS__ }

const sd_option sd_serve_rows[] = {
    SD_COMMON_ROWS(sd_serve_args),
    ROW("adapter", SD_OPT_LIST, adapters, .letter = 'a', .value = "[NAME=]PATH",
        .help = "serve an adapter (PEFT folder, GGUF-LoRA or run) under NAME, else under the last "
                "part of its path; repeat for more"),
    ROW("alias", SD_OPT_LIST, aliases, .value = "NAME=ADAPTER",
        .help = "a further name of an adapter, or of the base; repeat for more"),
    ROW("adapter-root", SD_OPT_STRING, adapter_root, .value = "DIR",
        .help =
            "let administrators load, replace and unload adapters while serving, from below this "
            "folder (docs/adapters.md)"),
    ROW("adapter-memory", SD_OPT_INT, adapter_memory, .def = "1024", .min = 1, .max = 1 << 24,
        .unit = "MiB",
        .help = "factors and indexes of adapters that loads may come to, those of -a too; a load "
                "beyond it is refused. Packed for the kernels they take about as much again"),
    ROW("draft", SD_OPT_STRING, draft, .letter = 'd', .value = "DRAFT",
        .help = "a draft model, a corpus index, or a run's folder"),
    SD_DRAFT_MODEL_ROWS(sd_serve_args, draft_adapter, draft_kv),
    SD_CHAT_TEMPLATE_ROW(sd_serve_args, chat_template,
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
    ROW("config", SD_OPT_STRING, config, .value = "FILE.yaml",
        .help = "take options from this file: its keys are their names with underscores, and "
                "listen (HOST:PORT), keys, adapters; what the command line gives goes before it; "
                "read anew at SIGHUP"),
    ROW("print-config", SD_OPT_FLAG, print_config,
        .help = "print all options as such a file, and serve nothing"),
    ROW("host", SD_OPT_STRING, host, .def = "127.0.0.1", .value = "HOST",
        .help = "address to listen at"),
    ROW("port", SD_OPT_INT, port, .def = "8080", .min = 0, .max = 65535,
        .help = "port to listen at; 0 picks a free one and prints it"),
    ROW("api-key-file", SD_OPT_STRING, key_file, .value = "FILE",
        .help = "ask for one of these keys as Authorization: Bearer KEY; a line is a key, or "
                "ID sha256:HEX [admin] (specdec key new); read anew at SIGHUP"),
    ROW("tls-cert", SD_OPT_STRING, tls_cert, .value = "FILE",
        .help = "speak TLS with this certificate: PEM, the server's own, then those above it; read "
                "anew at SIGHUP"),
    ROW("tls-key", SD_OPT_STRING, tls_key, .value = "FILE",
        .help = "its private key: PEM without a passphrase, in a file that others cannot open"),
    ROW("trusted-proxy", SD_OPT_LIST, proxies, .value = "CIDR",
        .help = "an address or network whose X-Forwarded-For says whose a request is, where no key "
                "does; repeat for more"),
    ROW("cors", SD_OPT_LIST, origins, .value = "ORIGIN",
        .help = "let pages of this origin (https://example.com) read answers in a browser, * those "
                "of all; repeat for more"),
    ROW("insecure-no-key", SD_OPT_FLAG, insecure_no_key,
        .help = "serve an address that others can reach without asking for a key"),
    ROW("plain-user-text", SD_OPT_FLAG, plain_user_text,
        .help = "read what users and tools say in a chat as letters alone: text that spells a "
                "special token, or a mark such as <think>, is none"),
    ROW("no-run-defaults", SD_OPT_FLAG, no_run_defaults,
        .help = "do not fill what a request leaves out from a run's manifest, specdec.json or "
                "generation_config.json"),
    ROW("ctx", SD_OPT_INT, ctx, .def = "0", .min = 0, .max = 1 << 24, .unit = "tokens",
        .help = "context of each slot; 0: the smaller of 4096 and the model's"),
    ROW("slots", SD_OPT_INT, slots, .def = "8", .min = 1, .max = 1024,
        .help = "requests decoded at once"),
    SD_KV_POOL_ROWS(sd_serve_args, kv_memory, prefix_cache, "on"),
    ROW("queue", SD_OPT_INT, queue, .def = "64", .min = 1, .max = 65536,
        .help = "requests that may wait beyond the free slots; more are answered 429, but for a "
                "client's equal share"),
    ROW("body-memory", SD_OPT_INT, body_memory, .def = "128", .min = 16, .max = 1 << 20,
        .unit = "MiB",
        .help = "request bodies held at once, from their first byte until their tokens are queued, "
                "and unread answers; more are answered 429, but for a client's equal share"),
    ROW("drain", SD_OPT_FLOAT, drain, .def = "30", .min = 0, .max = 86400, .unit = "s",
        .help = "time that running requests get after SIGTERM or SIGINT; a second later all "
                "connections are closed"),
    ROW("sleep-idle", SD_OPT_FLOAT, sleep_idle, .def = "0", .min = 0, .max = 1e9, .unit = "s",
        .help = "give the memory of the weights back after so long without a request; the next one "
                "wakes the server. 0: never"),
    ROW("access-log", SD_OPT_STRING, access_log, .value = "FILE",
        .help = "one JSON line a request, without prompts; - is standard output"),
    ROW("vllm-metrics", SD_OPT_FLAG, vllm_metrics,
        .help = "on /metrics vLLM's series stand under its own names (vllm:...) too"),
    ROW("plan", SD_OPT_FLAG, plan,
        .help = "print what serving takes of memory, by part, and load nothing"),
    SD_JSON_ROW(sd_serve_args, json, "the plan as one JSON object"),
    {0}};

sd_status sd_serve_args_read(sd_serve_args *a, int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    sd_strings rest = {0};
    bool had[SD_MAX_OPTIONS];
    char *text = NULL;
    size_t len = 0;
    *a = (sd_serve_args){0};
    memset(had, true, sizeof had); // the file may bring what is missing
    SD_TRY(sd_options_parse_over(&rest, sd_serve_rows, a, had, argc, argv, err));
    const char *path = a->config;
    *a = (sd_serve_args){0};
    memset(had, false, sizeof had);
    sd_options_defaults(sd_serve_rows, a);
    if (path) {
        SD_TRY(sd_file_read(&text, &len, path, SD_YAML_MAX_BYTES,
                            err)); // read anew while serving: no pipe is waited for
        SD_TRY(sd_serve_config_parse(a, had, path, text, len, err));
    }
    SD_TRY(sd_options_parse_over(&rest, sd_serve_rows, a, had, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL,
             "serve: '%s' is not an option; give models with -m and -a", rest.item[0]);
out:
    free(text);
    if (st != SD_OK) sd_serve_args_free(a);
    return st;
}

void sd_serve_args_free(sd_serve_args *a) {
    sd_keys_free(&a->keys);
    if (a->arena) sd_arena_free(a->arena);
    free(a->arena);
    *a = (sd_serve_args){0};
}

// ---- as a file

static json_t *value_json(const sd_option *o, const sd_serve_args *a) {
    const void *at = (const char *)a + o->offset;
    size_t len;
    const char *word;
    json_t *list;
    switch (o->type) {
    case SD_OPT_FLAG:
        return json_boolean(*(const bool *)at);
    case SD_OPT_INT:
        return json_integer(*(const int64_t *)at);
    case SD_OPT_FLOAT:
        return json_real(*(const double *)at);
    case SD_OPT_STRING:
        return json_string(*(const char *const *)at); // NULL of NULL
    case SD_OPT_ENUM:
        word = sd_option_word(&len, o->value, *(const int *)at);
        return json_stringn(word, len);
    case SD_OPT_LIST:
        list = json_array();
        for (int i = 0; i < ((const sd_strings *)at)->n; i++)
            json_array_append_new(list, json_string(((const sd_strings *)at)->item[i]));
        return list;
    }
    return NULL;
}

// JSON is YAML.
static sd_status print_value(const char *key, json_t *v, sd_error *err) {
    char *text = NULL;
    sd_status st = sd_json_dump(&text, v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17), err);
    if (st == SD_OK) printf("%s: %s\n", key, text);
    free(text);
    json_decref(v);
    return st;
}

sd_status sd_serve_args_print(const sd_serve_args *a, sd_error *err) {
    sd_status st = SD_OK;
    for (const sd_option *o = sd_serve_rows; o->name; o++) {
        char key[SD_SERVE_KEY];
        bool has_text = o->type != SD_OPT_STRING ||
                        *(const char *const *)(const void *)((const char *)a + o->offset);
        if (!sd_serve_config_has(o) || !has_text) continue;
        sd_serve_config_key(key, o);
        SD_TRY(print_value(key, value_json(o, a), err));
    }
    json_t *keys = json_array();
    for (int i = 0; i < a->keys.n; i++) {
        const sd_api_key *k = &a->keys.key[i];
        json_array_append_new(
            keys, json_sprintf("%s sha256:%s%s", k->id, k->hash.hex, k->admin ? " admin" : ""));
    }
    if (a->keys.n)
        SD_TRY(print_value("keys", keys, err));
    else
        json_decref(keys);
out:
    return st;
}
