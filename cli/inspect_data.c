// inspect: datasets, corpus indexes and runs.
#include "base/file.h"
#include "cli/inspect.h"
#include "datasets/corpus_index.h"
#include "datasets/dataset.h"

#include <dirent.h>
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
    *out = json_pack("{s:s, s:o, s:I, s:s, s:s}", "kind", "corpus index", "path", text(path),
                     "tokens", (json_int_t)sd_corpus_tokens(c), "tokenizer_fingerprint",
                     sd_corpus_tokenizer(c), "adapter_sha256", sd_corpus_adapter(c)->hex);
    sd_corpus_close(c);
    return *out ? SD_OK : sd_fail(err, SD_ENOMEM, "%s: out of memory", path);
}

// The header and the last complete line of metrics.csv as an object.
static json_t *last_metrics(const char *folder) {
    enum { MAX_METRICS = 256 << 20 };
    char *path = sd_path_join(folder, "metrics.csv"), *csv = NULL;
    size_t len;
    json_t *o = NULL;
    if (path && sd_file_read(&csv, &len, path, MAX_METRICS, NULL) == SD_OK) {
        while (len > 0 && csv[len - 1] != '\n') csv[--len] = '\0';
        if (len > 0) csv[--len] = '\0';
        char *head = csv, *first = strchr(csv, '\n'), *last = strrchr(csv, '\n');
        if (first) {
            *first = '\0';
            last++;
            o = json_object();
            while (head && last) {
                char *name = strsep(&head, ","), *value = strsep(&last, ",");
                if (*value) json_object_set_new(o, name, text(value));
            }
        }
    }
    free(csv);
    free(path);
    return o;
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static json_t *names_in(const char *folder, const char *sub) {
    enum { MAX_NAMES = 4096 };
    char *path = sd_path_join(folder, sub), **names = sd_alloc(MAX_NAMES, sizeof *names);
    DIR *d = path ? opendir(path) : NULL;
    int n = 0;
    for (struct dirent *e; d && names && n < MAX_NAMES && (e = readdir(d));)
        if (e->d_name[0] != '.' && (names[n] = sd_strdup(e->d_name))) n++;
    if (d) closedir(d);
    json_t *a = json_array();
    if (n) qsort(names, (size_t)n, sizeof *names, compare_strings);
    for (int i = 0; i < n; i++) {
        json_array_append_new(a, text(names[i]));
        free(names[i]);
    }
    free(names);
    free(path);
    return a;
}

/// manifest.json of a finished run; *out NULL where the run is not finished.
static sd_status manifest_of(json_t **out, const char *folder, sd_error *err) {
    enum { MAX_MANIFEST = 16 << 20 };
    sd_status st = SD_OK;
    char *path = sd_path_join(folder, "manifest.json"), *data = NULL;
    size_t len;
    json_error_t why;
    *out = NULL;
    SD_CHECK_ALLOC(path, err);
    if (!sd_path_exists(path)) goto out;
    SD_TRY(sd_file_read(&data, &len, path, MAX_MANIFEST, err));
    *out = json_loadb(data, len, JSON_REJECT_DUPLICATES, &why);
    SD_CHECK(*out, err, SD_EFORMAT,
             "%s: line %d: %s; it is damaged: remove it, and specdec train writes it again", path,
             why.line, why.text);
    if (json_integer_value(json_object_get(*out, "specdec_run")) != 1) {
        json_decref(*out);
        *out = NULL;
        st = sd_fail(err, SD_EFORMAT,
                     "%s: is not the manifest of a run (specdec_run: 1 is missing); it is damaged: "
                     "remove it, and specdec train writes it again",
                     path);
    }
out:
    free(data);
    free(path);
    return st;
}

sd_status sd_inspect_run(json_t **out, const char *folder, sd_error *err) {
    json_t *m = NULL;
    sd_status st = manifest_of(&m, folder, err);
    if (st != SD_OK) return st;
    json_t *o = json_pack("{s:s, s:o}", "kind", "run", "path", text(folder));
    json_t *metrics = last_metrics(folder);
    if (o) {
        if (metrics) json_object_set_new(o, "last_metrics", metrics);
        json_object_set_new(o, "checkpoints", names_in(folder, "checkpoints"));
        json_object_set_new(o, "adapter", names_in(folder, "adapter"));
        json_object_set_new(o, "draft", names_in(folder, "draft"));
        if (m) json_object_set(o, "manifest", m);
    }
    json_decref(m);
    *out = o;
    return o ? SD_OK : sd_fail(err, SD_ENOMEM, "%s: out of memory", folder);
}
