#include "base/files/json_file.h"

#include "base/files/file.h"
#include "base/files/path.h"

#include <stdlib.h>

sd_status sd_json_read(json_t **out, const char *path, size_t max, size_t flags, const char *remedy,
                       sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    json_error_t why;
    json_t *root = NULL;
    *out = NULL;
    if (!remedy) remedy = "correct it";
    SD_TRY(sd_file_read(&text, &len, path, max, err));
    SD_TRY(sd_json_load(&root, text, len, flags, &why, err));
    SD_CHECK(root, err, SD_EFORMAT, "%s: line %d, column %d: is not JSON: %s; %s", path, why.line,
             why.column, why.text, remedy);
    SD_CHECK(json_is_object(root), err, SD_EFORMAT, "%s: is not a JSON object; %s", path, remedy);
    *out = root, root = NULL;
out:
    json_decref(root);
    free(text);
    return st;
}

sd_status sd_json_read_in(json_t **out, char **path, const char *folder, const char *name,
                          size_t max, const char *remedy, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    *out = NULL;
    *path = sd_path_join(folder, name);
    SD_CHECK_ALLOC(*path, err);
    SD_TRY(sd_path_look(&kind, *path, err));
    if (kind != SD_PATH_NONE)
        SD_TRY(sd_json_read(out, *path, max, JSON_REJECT_DUPLICATES, remedy, err));
out:
    return st;
}
