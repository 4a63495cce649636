#include "decode/draft/open.h"

#include "base/files/file.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"

#include <string.h>

sd_status sd_draft_look(sd_draft_kind *kind, char **file, const char *path, sd_error *err) {
    static const char *const places[] = {"corpus.idx", "draft/corpus.idx"};
    sd_status st = SD_OK;
    char *index = NULL, magic[4] = {0};
    size_t got;
    sd_path_kind there, in;
    *kind = SD_DRAFT_NONE;
    if (file) *file = NULL;
    SD_TRY(sd_path_look(&there, path, err));
    SD_CHECK(there != SD_PATH_NONE, err, SD_ENOTFOUND,
             "%s: there is no such draft; give a model, a corpus index or a run's folder", path);
    if (there != SD_PATH_FOLDER) {
        SD_TRY(sd_file_head(magic, sizeof magic, &got, path, err));
        *kind = memcmp(magic, "GGUF", 4) == 0 ? SD_DRAFT_MODEL : SD_DRAFT_CORPUS;
        goto out;
    }
    for (int i = 0; i < 2 && !index; i++) {
        index = sd_path_join(path, places[i]);
        SD_CHECK_ALLOC(index, err);
        SD_TRY(sd_path_look(&in, index, err));
        if (in == SD_PATH_NONE) free(index), index = NULL;
    }
    *kind = index ? SD_DRAFT_CORPUS : SD_DRAFT_MODEL;
    if (file) *file = index, index = NULL;
out:
    free(index);
    return st;
}

// SD_EINVAL says why the index is not one for this model and, unless it is NULL, this adapter. A
// model without a tokenizer fits none: its tokens are numbers that nobody knows the meaning of.
static sd_status check_fit(const sd_corpus *c, const char *path, const sd_model *m,
                           const sd_adapter *a, sd_error *err) {
    sd_status st = SD_OK;
    const char *want = m->tokenizer ? sd_tokenizer_fingerprint(m->tokenizer) : "none";
    const char *got = sd_corpus_tokenizer(c);
    SD_CHECK(m->tokenizer && sd_tokenizer_has_fingerprint(m->tokenizer, got), err, SD_EINVAL,
             "%s: this index was made with another tokenizer (%.12s, the model has %.12s)", path,
             got, want);
    SD_CHECK(!a || sd_sha256_equal(sd_corpus_adapter(c), &a->sha256), err, SD_EINVAL,
             "%s: this index was made for another adapter (%.12s, this one is %.12s)", path,
             sd_corpus_adapter(c)->hex, a->sha256.hex);
out:
    return st;
}

sd_status sd_draft_open(sd_draft *out, const char *path, const sd_model *target,
                        const atomic_bool *stop, sd_error *err) {
    sd_status st = SD_OK;
    sd_draft d = {0};
    char *index = NULL;
    *out = d;
    SD_TRY(sd_draft_look(&d.kind, &index, path, err));
    if (d.kind == SD_DRAFT_MODEL) {
        SD_TRY(sd_model_open_stoppable(&d.model, path, stop, err));
    } else {
        SD_TRY(sd_corpus_open(&d.corpus, index ? index : path, err));
        SD_TRY(check_fit(d.corpus, path, target, NULL, err));
    }
    *out = d;
    d = (sd_draft){0};
out:
    sd_draft_close(&d);
    free(index);
    return st;
}

// What the manifest beside a draft's adapter says of the target's; zero where it says nothing.
static sd_status read_alignment(sd_sha256 *out, const char *folder, sd_error *err) {
    enum { MAX_MANIFEST = 1 << 20 };
    sd_status st = SD_OK;
    json_t *root = NULL, *draft;
    const char *hex;
    char *path = NULL;
    *out = (sd_sha256){0};
    SD_TRY(sd_json_read_in(&root, &path, folder, "manifest.json", MAX_MANIFEST,
                           "the run is damaged", err));
    if (!root) goto out;
    SD_TRY(sd_key_object(&draft, root, "draft", path, err));
    SD_TRY(sd_key_str(&hex, draft, "target_adapter", NULL, path, err));
    if (!hex) goto out;
    SD_CHECK(strlen(hex) == 64 && strspn(hex, "0123456789abcdef") == 64, err, SD_EFORMAT,
             "%s: draft.target_adapter is no SHA-256 of 64 lower-case digits; the run is damaged",
             path);
    memcpy(out->hex, hex, 65);
out:
    json_decref(root);
    free(path);
    return st;
}

sd_status sd_draft_open_adapter(sd_adapter **out, sd_sha256 *aligned, const char *path, sd_model *m,
                                sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_adapter_open(out, path, m, false, err));
    SD_TRY(read_alignment(aligned, path, err));
out:
    return st;
}

sd_status sd_draft_take_adapter(sd_draft *d, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(d->kind == SD_DRAFT_MODEL, err, SD_EINVAL,
             "%s: an adapter of the draft needs a draft model; give one with -d", path);
    SD_TRY(sd_draft_open_adapter(&d->adapter, &d->aligned, path, d->model, err));
out:
    return st;
}

void sd_draft_close(sd_draft *d) {
    sd_adapter_release(d->adapter);
    sd_model_release(d->model);
    sd_corpus_close(d->corpus);
    *d = (sd_draft){0};
}

static sd_status open_fitting(sd_corpus **out, const char *path, const sd_adapter *a,
                              const sd_model *target, sd_error *err) {
    sd_status st = SD_OK;
    sd_corpus *c = NULL;
    *out = NULL;
    SD_TRY(sd_corpus_open(&c, path, err));
    SD_TRY(check_fit(c, path, target, a, err));
    *out = c, c = NULL;
out:
    sd_corpus_close(c);
    return st;
}

sd_status sd_draft_open_corpus(sd_corpus **out, const char *path, const sd_adapter *a,
                               const sd_model *target, sd_error *err) {
    sd_status st = SD_OK;
    sd_draft_kind kind;
    char *index = NULL;
    *out = NULL;
    SD_TRY(sd_draft_look(&kind, &index, path, err));
    SD_CHECK(kind == SD_DRAFT_CORPUS, err, SD_EINVAL,
             "%s: is a model, not a corpus index; give the index", path);
    SD_TRY(open_fitting(out, index ? index : path, a, target, err));
out:
    free(index);
    return st;
}

sd_status sd_draft_of_run(sd_corpus **out, const char *folder, const char *who, const sd_adapter *a,
                          const sd_model *target, sd_error *err) {
    sd_status st = SD_OK;
    sd_error why = {0};
    sd_path_kind kind;
    char *path = sd_path_join(folder, "draft/corpus.idx");
    *out = NULL;
    SD_CHECK_ALLOC(path, err);
    st = sd_path_look(&kind, path, &why); // below an adapter that is a file there is none
    if (st == SD_OK && kind != SD_PATH_NONE) st = open_fitting(out, path, a, target, &why);
    if (st == SD_OK) goto out;
    if (!who || st == SD_ENOMEM) {
        if (err) *err = why;
        goto out;
    }
    sd_log(SD_LOG_WARN, "%s: its corpus index is left out: %s", who, why.message);
    st = SD_OK;
out:
    free(path);
    return st;
}
