// Shared by the verbs that decode: their options, and everything that is open while they run.
#pragma once

#include "cli/common.h"
#include "datasets/corpus/corpus_index.h"
#include "decode/engine/engine.h"
#include "model/defaults.h"

typedef struct {
    const char *adapter, *draft, *draft_adapter, *chat_template;
    int spec;
    int prefix_cache; // 0: on, 1: off
    int64_t spec_length, ctx, draft_kv, kv_memory;
    double temperature, top_p, min_p;
    int64_t top_k, seed;
    bool given[SD_DEFAULTS], no_run_defaults; // of sampling, and of the verb's length
} sd_decoding_args;

// clang-format off
// What a draft model is given beside the target's options.
#define SD_DRAFT_MODEL_ROWS(values, adapter_member, kv_member)                                     \
    {.name = "draft-adapter", .type = SD_OPT_STRING, .value = "ADAPTER",                           \
     .offset = offsetof(values, adapter_member),                                                   \
     .help = "adapter of the draft model: PEFT folder, GGUF-LoRA file, or a run's folder"},        \
    {.name = "draft-kv", .type = SD_OPT_INT, .def = "0", .min = 0, .max = 1 << 30,                 \
     .unit = "tokens", .offset = offsetof(values, kv_member),                                      \
     .help = "positions that the draft model keeps for all requests together, at least one "       \
             "context; 0: a context for each"}

// The memory of keys and values. usual: "on" or "off".
#define SD_KV_POOL_ROWS(values, memory_member, cache_member, usual)                                \
    {.name = "kv-memory", .type = SD_OPT_INT, .def = "0", .min = 0, .max = 1 << 24,                \
     .unit = "MiB", .offset = offsetof(values, memory_member),                                     \
     .help = "keys and values of all requests, and of earlier ones as far as there is room; 0: "   \
             "as much as all slots need at their longest"},                                        \
    {.name = "prefix-cache", .type = SD_OPT_ENUM, .def = usual, .value = "on|off",                 \
     .offset = offsetof(values, cache_member),                                                     \
     .help = "keep keys and values of earlier requests; one that begins alike does not compute "   \
             "them again"}

// Rows for a table whose struct has the member `sd_decoding_args decoding`: of verbs that are greedy
// where nothing else is said, and with a verb's own temperature, top-p and min-p.
#define SD_DECODING_ROWS(values) SD_DECODING_ROWS_WITH(values, "0", "1", "0")
#define SD_DECODING_ROWS_WITH(values, usual_temp, usual_top_p, usual_min_p)                        \
    {.name = "adapter", .letter = 'a', .type = SD_OPT_STRING, .value = "ADAPTER",                  \
     .offset = offsetof(values, decoding.adapter),                                                 \
     .help = "PEFT folder, GGUF-LoRA file, or a run's folder (its corpus index then drafts too)"}, \
    {.name = "draft", .letter = 'd', .type = SD_OPT_STRING, .value = "DRAFT",                      \
     .offset = offsetof(values, decoding.draft),                                                   \
     .help = "draft model, corpus index, or a run's folder or its draft/"},                        \
    SD_DRAFT_MODEL_ROWS(values, decoding.draft_adapter, decoding.draft_kv),                        \
    SD_CHAT_TEMPLATE_ROW(values, decoding.chat_template,                                           \
                         "the one that the adapter was trained with, else the model's own"),       \
    {.name = "spec", .type = SD_OPT_ENUM, .def = "auto", .value = SD_SPEC_MODES,                   \
     .offset = offsetof(values, decoding.spec), .help = "where drafted tokens come from"},         \
    {.name = "spec-length", .type = SD_OPT_INT, .def = "0", .min = 0, .max = SD_MAX_DRAFT,         \
     .offset = offsetof(values, decoding.spec_length), .unit = "tokens",                           \
     .help = "force drafts of this length (for tests); 0: as long as they pay"},                   \
    {.name = "ctx", .type = SD_OPT_INT, .def = "0", .min = 0, .max = 1 << 24,                      \
     .offset = offsetof(values, decoding.ctx), .unit = "tokens",                                   \
     .help = "context; 0: 4096 or what the request needs, at most what the model was trained for"},\
    {.name = "temp", .type = SD_OPT_FLOAT, .def = usual_temp, .min = 0, .max = 100,                       \
     .offset = offsetof(values, decoding.temperature), .given = offsetof(values, decoding.given[SD_DEFAULT_TEMPERATURE]), .help = "temperature; 0: greedy"},          \
    {.name = "top-k", .type = SD_OPT_INT, .def = "0", .min = 0, .max = 1 << 24,                    \
     .offset = offsetof(values, decoding.top_k), .given = offsetof(values, decoding.given[SD_DEFAULT_TOP_K]), .unit = "tokens",                                 \
     .help = "draw from the k most probable; 0: off"},                                             \
    {.name = "top-p", .type = SD_OPT_FLOAT, .def = usual_top_p, .min = 0, .max = 1,                        \
     .offset = offsetof(values, decoding.top_p), .given = offsetof(values, decoding.given[SD_DEFAULT_TOP_P]),                                                   \
     .help = "draw from the smallest set of this probability; 1: off"},                            \
    {.name = "min-p", .type = SD_OPT_FLOAT, .def = usual_min_p, .min = 0, .max = 1,                        \
     .offset = offsetof(values, decoding.min_p), .given = offsetof(values, decoding.given[SD_DEFAULT_MIN_P]),                                                   \
     .help = "draw from tokens at least so probable relative to the best; 0: off"},                \
    {.name = "seed", .type = SD_OPT_INT, .def = "0",                                               \
     .offset = offsetof(values, decoding.seed), .help = "the same seed gives the same answer"}

// For verbs that ask as an adapter or a model wants to be asked.
#define SD_DEFAULTS_ROW(values)                                                                    \
    {.name = "no-run-defaults", .type = SD_OPT_FLAG,                                               \
     .offset = offsetof(values, decoding.no_run_defaults),                                         \
     .help = "do not take sampling, length and system text from the run's manifest, specdec.json " \
             "or generation_config.json where no option says them"}
#define SD_SYSTEM_ROW(values, member)                                                              \
    {.name = "system", .type = SD_OPT_STRING, .value = "TEXT|@FILE", .offset = offsetof(values, member), \
     .help = "the system message, or the file that holds it; left out: the one that the adapter "  \
             "was trained with"}
// clang-format on

/// Open model, adapter, the adapter's own corpus index, engine. Zeroed is valid and closed.
typedef struct {
    sd_model *model;
    sd_adapter *adapter;
    sd_corpus *corpus;
    sd_engine *engine;
    char *cache_dir;        // where packed weights are kept; NULL: nowhere
    sd_defaults defaults;   // as sd_decoding_defaults left them
    struct sd_trace *trace; // the caller's, before sd_decoding_start; NULL: none
} sd_decoding;

/// The model and the adapter only; so that a prompt can be tokenised before the context is sized.
sd_status sd_decoding_load(sd_decoding *d, const sd_model_args *m, const sd_decoding_args *a,
                           sd_error *err);
/// The engine, with `slots` slots and a context for `need` tokens at least (0: the default).
sd_status sd_decoding_start(sd_decoding *d, const sd_model_args *m, const sd_decoding_args *a,
                            int slots, int64_t need, sd_error *err);
void sd_decoding_close(sd_decoding *d);
sd_sampling sd_decoding_sampling(const sd_decoding_args *a);

/// For conversations: d->defaults <- what stands beside the adapter and, where `model` says so, the
/// model, unless --no-run-defaults. Options that were not given, and *max_tokens, become what is there;
/// what changed by it is said.
sd_status sd_decoding_defaults(sd_decoding *d, sd_decoding_args *a, int64_t *max_tokens, bool model,
                               sd_error *err);
const char *sd_default_source_name(sd_default_source s); // "its run", ...
/// *out <- TEXT, or what the file of @FILE holds but the line feeds at its end, malloc'ed.
sd_status sd_system_text(char **out, const char *text_or_file, sd_error *err);
/// One line on standard error: context, memory of keys and values, threads.
void sd_decoding_announce(const sd_decoding *d);

/// {mean_accepted, rounds, drafted, accepted, by_source{suffix{drafted, accepted}, ...}}
json_t *sd_spec_json(const sd_spec_stats *s);
/// Generated tokens per second between the first and the last; 0 for fewer than two.
double sd_decode_speed(const sd_request_stats *s);
