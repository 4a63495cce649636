// What specdec serve is given: options from a file and from the command line, by one table.
//
//     sd_serve_args a;
//     SD_TRY(sd_serve_args_read(&a, argc, argv, err));   // defaults, --config, then the command line
//     ...
//     sd_serve_args_free(&a);                            // texts from the file go with it
#pragma once

#include "cli/common.h"
#include "decode/serve/http/auth.h"

typedef struct {
    sd_model_args common;
    sd_strings adapters, aliases, names, proxies, origins;
    const char *adapter_root, *config, *draft, *draft_adapter, *chat_template, *host, *key_file,
        *access_log, *tls_cert, *tls_key;
    int64_t adapter_memory, kv_memory, port, ctx, slots, queue, body_memory, spec_length, draft_kv;
    double drain, sleep_idle;
    int spec, prefix_cache, tool_format;
    bool insecure_no_key, no_run_defaults, plain_user_text, vllm_metrics, plan, json, print_config;
    sd_keys keys;    // the file's section
    sd_arena *arena; // the file's texts; NULL: there is no file
} sd_serve_args;

extern const sd_option sd_serve_rows[]; // ends with a row without a name

enum { SD_SERVE_KEY = 64 };
/// The option's key in a configuration: its name with '_' for '-'.
void sd_serve_config_key(char out[SD_SERVE_KEY], const sd_option *row);
/// Is the option one that a configuration may give?
bool sd_serve_config_has(const sd_option *row);

sd_status sd_serve_args_read(sd_serve_args *a, int argc, char **argv, sd_error *err);
void sd_serve_args_free(sd_serve_args *a); // a zeroed one is fine
/// Prints all options as a file that --config reads.
sd_status sd_serve_args_print(const sd_serve_args *a, sd_error *err);

/// Sets in *a what a configuration of these bytes gives; had [rows]: which rows. a->arena keeps its texts. The error has the
/// place in the file.
sd_status sd_serve_config_parse(sd_serve_args *a, bool *had, const char *path, const char *data,
                                size_t len, sd_error *err);
