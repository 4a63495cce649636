// specdec export: an adapter for other tools, or merged into its base; what was written is loaded
// again and compared.
#include "base/files/file.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/pool.h"
#include "cli/common.h"
#include "cli/verbs.h"
#include "model/adapter/chat_template.h"
#include "model/adapter/defaults.h"
#include "model/infer/compare_logits.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { TO_PEFT, TO_GGUF_LORA, TO_MERGED, TO_GGUF };

typedef struct {
    const char *model, *out, *text, *base_id;
    int to;
    bool verify, other_base;
    int64_t threads;
} args;

static const sd_option rows[] = {
    {.name = "to",
     .type = SD_OPT_ENUM,
     .offset = offsetof(args, to),
     .value = "peft|gguf-lora|merged|gguf",
     .required = true,
     .help = "merged: in the base's own form; gguf: merged, from a GGUF base"},
    SD_OUTPUT_ROW(args, out, "PATH", true,
                  "folder (peft, merged from a folder) or file (gguf-lora, merged from a GGUF)"),
    {.name = "model",
     .letter = 'm',
     .type = SD_OPT_STRING,
     .offset = offsetof(args, model),
     .value = "MODEL",
     .help = "the base; may be left out for a run, whose manifest names it"},
    {.name = "base-id",
     .type = SD_OPT_STRING,
     .offset = offsetof(args, base_id),
     .value = "ID",
     .help = "peft: what AutoPeftModel loads the base by, such as HuggingFaceTB/SmolLM2-135M; left "
             "out: the base's folder, nothing for a GGUF"},
    {.name = "verify",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, verify),
     .def = "true",
     .help = "hold what was written against base and adapter before it gets its name "
             "(--no-verify: do not)"},
    {.name = "verify-text",
     .type = SD_OPT_STRING,
     .offset = offsetof(args, text),
     .value = "FILE",
     .help = "text to compare on; a short built-in one when left out"},
    SD_THREADS_ROW(args, threads, "one per processor"),
    SD_OTHER_BASE_ROW(args, other_base),
    {0}};

// The base that a run was trained on, from its manifest.
static sd_status base_of_run(char **out, const char *run, sd_error *err) {
    sd_status st = SD_OK;
    char *path = sd_path_join(run, "manifest.json");
    json_t *root = NULL;
    sd_path_kind kind;
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_path_look(&kind, run, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_ENOTFOUND, "%s: no such run or adapter; check the path",
             run);
    SD_TRY(sd_path_look(&kind, path, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_EINVAL,
             "--model is missing, and %s is no run that names its base; give --model MODEL", run);
    SD_TRY(sd_json_read(&root, path, 1 << 20, JSON_REJECT_DUPLICATES, "give --model MODEL", err));
    const char *base = json_string_value(json_object_get(json_object_get(root, "base"), "path"));
    SD_CHECK(base, err, SD_EFORMAT, "%s: does not name the base; give --model MODEL", path);
    *out = sd_strdup(base);
    SD_CHECK_ALLOC(*out, err);
out:
    json_decref(root);
    free(path);
    return st;
}

static const char sample[] = "The report lists every package by name, version and section. A "
                             "library is read once, kept in memory and shared; "
                             "its answer is one JSON object: {\"name\": \"example\", \"size\": 42, "
                             "\"tags\": [\"small\", \"exact\"]}.\n"
                             "def area(width, height):\n    return width * height\n";

static sd_status verify_tokens(sd_ids *ids, const sd_model *m, const char *file, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len = sizeof sample - 1;
    if (file) SD_TRY(sd_stream_read(&text, &len, file, 1 << 20, err));
    if (m->tokenizer) {
        SD_TRY(
            sd_tokenizer_encode(m->tokenizer, text ? text : sample, len, SD_TOK_SPECIAL, ids, err));
    } else {
        for (int32_t i = 0; i < 64; i++) {
            int32_t id = i * 7919 % m->hp.V;
            SD_CHECK(sd_ids_add(ids, &id, 1), err, SD_ENOMEM, "out of memory");
        }
    }
    SD_CHECK(ids->n > 0, err, SD_EINVAL, "%s: holds no text to compare on; give another file",
             file ? file : "--verify-text");
    if (ids->n > 512) ids->n = 512;
out:
    free(text);
    return st;
}

// The model written at `path` is opened again and compared with base + adapter.
static sd_status verify(const args *a, const char *path, sd_model *base, const sd_adapter *adapter,
                        const sd_ids *ids, sd_error *err) {
    sd_status st = SD_OK;
    sd_pool *pool = NULL;
    sd_model *written = NULL;
    sd_adapter *reloaded = NULL;
    sd_logit_difference d;
    sd_merge_report merge = {.survived = 1};
    bool merged = a->to == TO_MERGED || a->to == TO_GGUF;
    SD_TRY(sd_pool_open(&pool, (int)a->threads, err));
    if (merged) {
        SD_TRY(sd_model_open(&written, path, err));
        SD_TRY(sd_verify_merged(&merge, &d, written, adapter, base, ids->id, ids->n, pool, err));
    } else {
        SD_TRY(sd_adapter_open(&reloaded, path, base, a->other_base, err));
        SD_TRY(sd_compare_logits(&d, base, adapter, base, reloaded, ids->id, ids->n, pool, err));
        // A folded scale rounds once more per weight; anything beyond 1e-5 nats is another adapter.
        SD_CHECK(d.max_kl <= 1e-5, err, SD_EMISMATCH,
                 "%s: does not give the adapter's logits (KL %.2e); do not use it", path, d.max_kl);
    }
    printf("verified on %d tokens: KL mean %.2e, max %.2e; same most likely token %.2f %%; largest "
           "logit difference %.2e\n",
           d.positions, d.mean_kl, d.max_kl, 100 * d.top1, d.max_abs);
    if (merged)
        printf("of the adapter's change %.1f %% is in the file, after the rounding to its types\n",
               100 * merge.survived);
    if (merged && merge.survived < 0.5)
        sd_log(SD_LOG_WARN,
               "%s: most of the tuning was lost to rounding; serve the adapter on its base instead "
               "(-a), or merge into an F16 or BF16 base",
               a->out);
out:
    sd_adapter_release(reloaded);
    sd_model_release(written);
    sd_pool_close(pool);
    return st;
}

// The parts that are exported.
typedef struct {
    const sd_adapter *adapter;
    sd_model *base;
    sd_defaults defaults; // of the run or the adapter, to stand beside it
} export;

static sd_status write(const args *a, const char *path, const export *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    if (a->to == TO_PEFT)
        SD_TRY(sd_adapter_write_peft(path, e->adapter, e->base, a->base_id, err));
    else if (a->to == TO_GGUF_LORA)
        SD_TRY(sd_adapter_write_gguf(path, e->adapter, e->base, err));
    else
        SD_TRY(sd_adapter_write_merged(path, e->adapter, e->base, err));
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_FOLDER && sd_defaults_any(&e->defaults))
        SD_TRY(sd_defaults_write_beside(&e->defaults, path, err));
out:
    return st;
}

/// What stands beside a file, once it bears its name; a folder has it inside.
static sd_status write_beside(const args *a, const export *e, sd_error *err) {
    sd_path_kind kind;
    sd_status st = sd_path_look(&kind, a->out, err);
    if (st != SD_OK || kind == SD_PATH_FOLDER || !sd_defaults_any(&e->defaults)) return st;
    return sd_defaults_write_beside(&e->defaults, a->out, err);
}

// Nothing bears the asked name before it is verified: it is written beside it as NAME.unverified,
// which is what a killed export leaves. One that does not hold is removed.
static sd_status write_verified(const args *a, const export *e, const sd_ids *text, sd_error *err) {
    sd_status st = SD_OK;
    bool made = false;
    size_t n = strlen(a->out);
    while (n > 1 && a->out[n - 1] == '/') n--;
    char *path = sd_sprintf("%.*s.unverified", (int)n, a->out);
    SD_CHECK_ALLOC(path, err);
    sd_path_kind there;
    SD_TRY(sd_path_look(&there, path, err));
    SD_CHECK(there == SD_PATH_NONE, err, SD_EINVAL,
             "%s: is there already, from an export that was stopped; remove it", path);
    made = true;
    SD_TRY(write(a, path, e, err));
    SD_TRY(verify(a, path, e->base, e->adapter, text, err));
    SD_TRY(sd_rename_new(path, a->out, err));
    SD_TRY(write_beside(a, e, err));
    printf("wrote %s\n", a->out);
out:
    if (st != SD_OK && made) (void)sd_remove_tree(path, NULL);
    free(path);
    return st;
}

/// An export holds the numbers of the base or of the adapter, so it is as private as both are. A run
/// keeps its adapter's in adapter/.
static sd_status keep_private(const char *base, const char *adapter, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    char *nested = sd_path_join(adapter, "adapter");
    SD_CHECK_ALLOC(nested, err);
    SD_TRY(sd_keep_private(base, err));
    SD_TRY(sd_keep_private(adapter, err));
    SD_TRY(sd_path_look(&kind, nested, err));
    if (kind != SD_PATH_NONE) SD_TRY(sd_keep_private(nested, err));
out:
    free(nested);
    return st;
}

/// A link that leads nowhere is there too: a rename would not take its place.
static sd_status check_new(const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind there;
    struct stat link;
    SD_CHECK(strcmp(path, "-") != 0, err, SD_EINVAL,
             "-: an export is a file or a folder; give its path with --output");
    SD_TRY(sd_path_look(&there, path, err));
    SD_CHECK(there == SD_PATH_NONE && lstat(path, &link) != 0, err, SD_EINVAL,
             "%s: exists already; give another --output", path);
out:
    return st;
}

sd_status sd_verb_export(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    char *base_path = NULL, *beside = NULL;
    sd_model *base = NULL;
    sd_adapter *adapter = NULL;
    export e = {0};
    sd_ids text = {0};
    sd_path_kind there;
    if (sd_verb_help("export RUN|ADAPTER --to FORMAT -o PATH [-m MODEL]",
                     "Writes an adapter for other tools, or merges it.", rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 1, err, SD_EINVAL, "export: give one run's folder or adapter, not %d",
             rest.n);
    SD_CHECK(!a.base_id || (a.to == TO_PEFT && a.base_id[0]), err, SD_EINVAL, "--base-id %s: %s",
             a.base_id,
             a.base_id[0] ? "only --to peft writes it; leave it out"
                          : "is empty; give a repository's id");
    if (!a.model) SD_TRY(base_of_run(&base_path, rest.item[0], err));
    SD_TRY(sd_model_open(&base, a.model ? a.model : base_path, err));
    SD_CHECK(
        a.to != TO_GGUF || sd_model_is_gguf(base), err, SD_EINVAL,
        "--to gguf: %s is a folder; a merged GGUF needs a GGUF base, --to merged writes a folder",
        base->path);
    SD_TRY(check_new(a.out, err));
    SD_TRY(sd_defaults_path(&beside, a.out, err));
    SD_TRY(sd_path_look(&there, beside, err));
    SD_CHECK(there == SD_PATH_NONE, err, SD_EINVAL,
             "%s: exists already, and says how %s is asked; remove it or give another --output",
             beside, a.out);
    if (a.verify) SD_TRY(verify_tokens(&text, base, a.text, err)); // refused before it is written
    SD_TRY(sd_adapter_open(&adapter, rest.item[0], base, a.other_base, err));
    SD_TRY(sd_adapter_bring_template(base, rest.item[0], err));
    SD_TRY(keep_private(base->path, rest.item[0], err));
    if (a.to == TO_PEFT && !a.base_id && sd_model_is_gguf(base))
        sd_log(SD_LOG_INFO,
               "adapter_config.json names no base, as PEFT loads none from a GGUF file; "
               "give --base-id ID for AutoPeftModel");
    SD_TRY(sd_adapter_defaults(&e.defaults, rest.item[0], err));
    e.adapter = adapter, e.base = base;
    if (a.verify) {
        SD_TRY(write_verified(&a, &e, &text, err));
    } else {
        SD_TRY(write(&a, a.out, &e, err));
        SD_TRY(write_beside(&a, &e, err));
        printf("wrote %s\n", a.out);
    }
out:
    sd_ids_free(&text);
    sd_adapter_release(adapter);
    sd_model_release(base);
    sd_defaults_free(&e.defaults);
    free(beside);
    free(base_path);
    return st;
}
