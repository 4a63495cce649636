// inspect: datasets, corpus indexes and runs.
#include "base/files/file.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/inspect/inspect.h"
#include "datasets/corpus/corpus_index.h"
#include "datasets/dataset.h"

#include <string.h>

static json_t *text(const char *s) {
    return sd_json_text(s, strlen(s));
}

sd_status sd_inspect_dataset(json_t **out, const char *path, sd_error *err) {
    sd_dataset *d = NULL;
    sd_status st = sd_dataset_open(&d, path, err);
    if (st != SD_OK) return st;
    int64_t rows = sd_dataset_rows(d), tokens = sd_dataset_tokens(d);
    double places = (double)rows * sd_dataset_sequence_len(d);
    *out = json_pack("{s:s, s:s, s:o, s:I, s:i, s:I, s:I, s:f, s:s, s:s}", "kind", "dataset",
                     "format", "HDF5", "path", text(path), "rows", (json_int_t)rows, "sequence_len",
                     sd_dataset_sequence_len(d), "tokens", (json_int_t)tokens, "supervised",
                     (json_int_t)sd_dataset_supervised(d), "packing_efficiency",
                     places > 0 ? (double)tokens / places : 0, "tokenizer_fingerprint",
                     sd_dataset_tokenizer(d), "sha256", sd_dataset_sha256(d)->hex);
    sd_dataset_close(d);
    return *out ? SD_OK : sd_fail(err, SD_ENOMEM, "%s: out of memory", path);
}

sd_status sd_inspect_corpus(json_t **out, const char *path, sd_error *err) {
    sd_corpus *c = NULL;
    sd_status st = sd_corpus_open(&c, path, err);
    if (st != SD_OK) return st;
    *out = json_pack("{s:s, s:o, s:I, s:I, s:s, s:s}", "kind", "corpus index", "path", text(path),
                     "tokens", (json_int_t)sd_corpus_tokens(c), "copies",
                     (json_int_t)sd_corpus_n_copies(c), "tokenizer_fingerprint",
                     sd_corpus_tokenizer(c), "adapter_sha256", sd_corpus_adapter(c)->hex);
    sd_corpus_close(c);
    return *out ? SD_OK : sd_fail(err, SD_ENOMEM, "%s: out of memory", path);
}

// The header and the last complete line of metrics.csv as an object; *out NULL without one.
static sd_status last_metrics(json_t **out, const char *folder, sd_error *err) {
    enum { MAX_METRICS = 256 << 20 };
    sd_status st = SD_OK;
    char *path = sd_path_join(folder, "metrics.csv"), *csv = NULL;
    size_t len;
    *out = NULL;
    SD_CHECK_ALLOC(path, err);
    st = sd_file_read(&csv, &len, path, MAX_METRICS, err);
    if (st == SD_ENOTFOUND) st = SD_OK, len = 0;
    if (st != SD_OK) goto out;
    while (len > 0 && csv[len - 1] != '\n') csv[--len] = '\0';
    if (len > 0) csv[--len] = '\0';
    char *head = csv, *first = len > 0 ? strchr(csv, '\n') : NULL;
    if (!first) goto out;
    char *last = strrchr(csv, '\n') + 1;
    *first = '\0';
    *out = json_object();
    SD_CHECK_ALLOC(*out, err);
    while (head && last) {
        char *name = strsep(&head, ","), *value = strsep(&last, ",");
        if (*value)
            SD_CHECK(json_object_set_new(*out, name, text(value)) == 0, err, SD_ENOMEM,
                     "out of memory");
    }
out:
    free(csv);
    free(path);
    return st;
}

static sd_status add_names(json_t *to, const char *folder, const char *sub, sd_error *err) {
    sd_status st = SD_OK;
    sd_names in = {0};
    char *path = sd_path_join(folder, sub);
    json_t *a = json_array();
    SD_CHECK_ALLOC(path, err);
    SD_CHECK_ALLOC(a, err);
    st = sd_folder_list(&in, path, err);
    if (st == SD_ENOTFOUND) st = SD_OK;
    if (st != SD_OK) goto out;
    for (int i = 0; i < in.n; i++)
        if (in.name[i][0] != '.')
            SD_CHECK(json_array_append_new(a, text(in.name[i])) == 0, err, SD_ENOMEM,
                     "out of memory");
    SD_CHECK(json_object_set(to, sub, a) == 0, err, SD_ENOMEM, "out of memory");
out:
    sd_names_free(&in);
    json_decref(a);
    free(path);
    return st;
}

/// manifest.json of a finished run; *out NULL where the run is not finished.
static sd_status manifest_of(json_t **out, const char *folder, sd_error *err) {
    enum { MAX_MANIFEST = 16 << 20 };
    sd_status st = SD_OK;
    const char *remedy = "it is damaged: remove it, and specdec train writes it again";
    char *path = sd_path_join(folder, "manifest.json");
    *out = NULL;
    SD_CHECK_ALLOC(path, err);
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_NONE) goto out;
    SD_TRY(sd_json_read(out, path, MAX_MANIFEST, JSON_REJECT_DUPLICATES, remedy, err));
    if (json_integer_value(json_object_get(*out, "specdec_run")) != 1) {
        json_decref(*out);
        *out = NULL;
        st = sd_fail(err, SD_EFORMAT,
                     "%s: is not the manifest of a run (specdec_run: 1 is missing); %s", path,
                     remedy);
    }
out:
    free(path);
    return st;
}

sd_status sd_inspect_run(json_t **out, const char *folder, sd_error *err) {
    static const char *const subs[] = {"checkpoints", "adapter", "draft"};
    sd_status st = SD_OK;
    json_t *m = NULL, *metrics = NULL, *o = NULL;
    *out = NULL;
    SD_TRY(manifest_of(&m, folder, err));
    SD_TRY(last_metrics(&metrics, folder, err));
    o = json_pack("{s:s, s:o}", "kind", "run", "path", text(folder));
    SD_CHECK_ALLOC(o, err);
    if (metrics)
        SD_CHECK(json_object_set(o, "last_metrics", metrics) == 0, err, SD_ENOMEM, "out of memory");
    for (int i = 0; i < 3; i++) SD_TRY(add_names(o, folder, subs[i], err));
    if (m) SD_CHECK(json_object_set(o, "manifest", m) == 0, err, SD_ENOMEM, "out of memory");
    *out = o, o = NULL;
out:
    json_decref(o);
    json_decref(m);
    json_decref(metrics);
    return st;
}
