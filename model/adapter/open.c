// Opening an adapter by what the path is: a PEFT folder, a run's folder, a GGUF-LoRA file.
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/adapter/read.h"

#include <string.h>

enum { MAX_CONFIG_BYTES = 1 << 20 };

// A finished run's manifest binds its adapter: bytes that changed since are not the adapter that
// was trained and verified. A run without a manifest has nothing to hold against.
static sd_status check_manifest(const sd_adapter *a, const char *run, sd_error *err) {
    sd_status st = SD_OK;
    char *path = NULL;
    json_t *root = NULL;
    SD_TRY(sd_json_read_in(&root, &path, run, "manifest.json", MAX_CONFIG_BYTES,
                           "the run is damaged", err));
    if (!root) goto out;
    const char *want = json_string_value(
        json_object_get(json_object_get(json_object_get(root, "artefacts"), "adapter"), "sha256"));
    SD_CHECK(want, err, SD_EFORMAT, "%s: names no adapter with its SHA-256; the run is damaged",
             path);
    SD_CHECK(strcmp(want, a->sha256.hex) == 0, err, SD_EINVAL,
             "%s: the adapter has SHA-256 %.12s..., its run's manifest says %.12s...; it changed "
             "after training, restore it or train again",
             a->path, a->sha256.hex, want);
out:
    json_decref(root);
    free(path);
    return st;
}

// What the path is: *folder <- of PEFT's files, malloc'ed, NULL where it is a file; *is_run: below the path.
static sd_status look(char **folder, bool *is_run, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *nested = NULL;
    sd_path_kind kind, config, nested_config;
    *folder = NULL, *is_run = false;
    SD_TRY(sd_path_look(&kind, path, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_ENOTFOUND, "%s: no such adapter; check the path", path);
    if (kind != SD_PATH_FOLDER) return SD_OK;
    nested = sd_path_join(path, "adapter");
    SD_CHECK_ALLOC(nested, err);
    SD_TRY(sd_path_look_in(&config, path, "adapter_config.json", err));
    SD_TRY(sd_path_look_in(&nested_config, nested, "adapter_config.json", err));
    *is_run = config == SD_PATH_NONE;
    SD_CHECK(!*is_run || nested_config != SD_PATH_NONE, err, SD_ENOTFOUND,
             "%s: holds neither adapter_config.json nor adapter/adapter_config.json; give a PEFT "
             "folder, a run's folder or a GGUF-LoRA file",
             path);
    if (*is_run)
        *folder = nested, nested = NULL;
    else
        *folder = sd_strdup(path);
    SD_CHECK_ALLOC(*folder, err);
out:
    free(nested);
    return st;
}

sd_status sd_adapter_open(sd_adapter **out, const char *path, sd_model *base, bool any_base,
                          sd_error *err) {
    sd_status st = SD_OK;
    char *folder = NULL;
    bool is_run;
    *out = NULL;
    SD_TRY(look(&folder, &is_run, path, err));
    if (!folder) return sd_adapter_read_gguf(out, path, base, any_base, err);
    SD_TRY(sd_adapter_read_peft(out, folder, base, any_base, err));
    if (is_run) SD_TRY(check_manifest(*out, path, err));
    SD_CHECK(!sd_memory_lost(), err, SD_ENOMEM, "%s: out of memory", path);
out:
    if (st != SD_OK) {
        sd_adapter_release(*out);
        *out = NULL;
    }
    free(folder);
    return st;
}

sd_status sd_adapter_ranks(int *rank, const char *path, const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    char *folder = NULL;
    bool is_run;
    SD_TRY(look(&folder, &is_run, path, err));
    SD_TRY(folder ? sd_adapter_ranks_peft(rank, folder, base, err)
                  : sd_adapter_ranks_gguf(rank, path, base, err));
out:
    free(folder);
    return st;
}
