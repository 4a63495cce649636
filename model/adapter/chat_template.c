#include "model/adapter/chat_template.h"

#include "base/files/hash.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/chat.h"
#include "model/formats/gguf.h"

#include <string.h>

// What a run's manifest says of its template; *sha256 stays "" when it names none.
static sd_status named_by_manifest(char sha256[65], const char *run, sd_error *err) {
    enum { MAX_MANIFEST = 1 << 20 };
    sd_status st = SD_OK;
    json_t *root = NULL;
    sd_path_kind kind;
    char *path = sd_path_join(run, "manifest.json");
    sha256[0] = '\0';
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_NONE) goto out;
    SD_TRY(
        sd_json_read(&root, path, MAX_MANIFEST, JSON_REJECT_DUPLICATES, "the run is damaged", err));
    const json_t *entry = json_object_get(json_object_get(root, "artefacts"), "chat_template");
    const char *sum = json_string_value(json_object_get(entry, "sha256"));
    SD_CHECK(!entry || (sum && strlen(sum) == 64), err, SD_EFORMAT,
             "%s: names a chat template without its SHA-256; the run is damaged", path);
    if (entry) memcpy(sha256, sum, 65);
out:
    json_decref(root);
    free(path);
    return st;
}

// The template in a GGUF-LoRA file.
static sd_status from_gguf(sd_template **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf *g = NULL;
    sd_gguf_string s;
    bool has;
    SD_TRY(sd_gguf_open(&g, path, err));
    SD_TRY(sd_gguf_str(g, SD_GGUF_TEMPLATE_KEY, &s, &has, err));
    if (!has) goto out;
    st = sd_template_open(out, s.data, s.len, err);
    if (st != SD_OK) sd_error_prefix(err, "%s", path);
out:
    sd_gguf_close(g);
    return st;
}

sd_status sd_adapter_template(sd_template **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind, config, there;
    char *folder = NULL, *file = NULL, want[65] = "";
    sd_sha256 is;
    *out = NULL;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind != SD_PATH_FOLDER) return from_gguf(out, path, err);
    SD_TRY(sd_path_look_in(&config, path, "adapter_config.json", err));
    bool is_run = config == SD_PATH_NONE;
    folder = is_run ? sd_path_join(path, "adapter") : sd_strdup(path);
    file = folder ? sd_path_join(folder, SD_TEMPLATE_FILE) : NULL;
    SD_CHECK_ALLOC(file, err);
    if (is_run) SD_TRY(named_by_manifest(want, path, err));
    SD_TRY(sd_path_look(&there, file, err));
    SD_CHECK(there != SD_PATH_NONE || !want[0], err, SD_EINVAL,
             "%s: is missing, and the run's manifest names it; restore it, or give a chat template "
             "with --chat-template",
             file);
    if (there == SD_PATH_NONE) goto out;
    SD_CHECK(there != SD_PATH_OTHER, err, SD_EINVAL,
             "%s: is no regular file; restore it, or give a chat template with --chat-template",
             file);
    SD_TRY(sd_chat_template_read(out, file, err));
    const char *source = sd_template_source(*out);
    SD_TRY(sd_sha256_of(&is, source, strlen(source), err));
    SD_CHECK(!want[0] || strcmp(want, is.hex) == 0, err, SD_EINVAL,
             "%s: has SHA-256 %.12s..., the run's manifest says %.12s...; it changed after "
             "training, restore it or give a chat template with --chat-template",
             file, is.hex, want);
out:
    if (st != SD_OK) {
        sd_template_close(*out);
        *out = NULL;
    }
    free(folder);
    free(file);
    return st;
}

sd_status sd_adapter_bring_template(sd_model *base, const char *path, sd_error *err) {
    sd_template *t;
    sd_status st = sd_adapter_template(&t, path, err);
    return st == SD_OK && t ? sd_model_take_template(base, t, err) : st;
}

sd_status sd_adapter_write_template(const char *dir, const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    if (!sd_model_template_is_taken(base)) return SD_OK;
    const char *source = sd_template_source(base->chat);
    char *file = sd_path_join(dir, SD_TEMPLATE_FILE);
    SD_CHECK_ALLOC(file, err);
    SD_TRY(sd_file_write(file, source, strlen(source), err));
out:
    free(file);
    return st;
}
