#include "model/adapter/defaults.h"

#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/memory.h"

// *found: the run has a manifest with such a part.
static sd_status of_manifest(sd_defaults *d, bool *found, const char *run, sd_error *err) {
    enum { MAX_MANIFEST = 1 << 20 };
    sd_status st = SD_OK;
    json_t *root = NULL;
    char *path = NULL;
    *found = false;
    SD_TRY(sd_json_read_in(&root, &path, run, "manifest.json", MAX_MANIFEST, "the run is damaged",
                           err));
    if (!root) goto out;
    const json_t *serve = sd_key(root, "serve");
    *found = serve != NULL;
    SD_TRY(sd_defaults_read(d, serve, path, err));
out:
    json_decref(root);
    free(path);
    return st;
}

sd_status sd_adapter_defaults(sd_defaults *d, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind, config;
    char *nested = NULL;
    bool found = false;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind != SD_PATH_FOLDER) return sd_defaults_read_beside(d, path, err);
    SD_TRY(sd_path_look_in(&config, path, "adapter_config.json", err));
    const char *folder = path;
    if (config == SD_PATH_NONE) {
        folder = nested = sd_path_join(path, "adapter");
        SD_CHECK_ALLOC(nested, err);
        SD_TRY(of_manifest(d, &found, path, err));
    }
    if (!found) SD_TRY(sd_defaults_read_beside(d, folder, err));
    SD_TRY(sd_defaults_add_config(d, folder, SD_FROM_ADAPTER, err));
out:
    free(nested);
    return st;
}
