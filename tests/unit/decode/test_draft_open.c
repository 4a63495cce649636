// What a draft's path is, and the one rule of which corpus index fits.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "decode/draft/open.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *dir, *file; // file: the model as GGUF
    sd_model *model;
} world;

static world make_world(bool tokenizer) {
    world w = {.dir = sd_tiny_dir()};
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.tokenizer = tokenizer;
    w.file = sd_path_join(w.dir, "tiny.gguf");
    cr_assert_eq(sd_tiny_write_gguf(w.file, &t, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_model_open(&w.model, w.file, &err), SD_OK, "%s", err.message);
    sd_log_set_level(SD_LOG_ERROR);
    return w;
}

static void free_world(world *w) {
    sd_model_release(w->model);
    free(w->file);
    sd_tiny_remove(w->dir);
}

static char *write_index(const world *w, const char *name, const char *tokenizer,
                         const sd_sha256 *adapter) {
    static const int32_t tokens[] = {1, 2, 3, 4, -1};
    sd_error err = {0};
    char *path = sd_path_join(w->dir, name), *slash = strrchr(path, '/');
    *slash = 0;
    cr_assert_eq(sd_mkdirs(path, &err), SD_OK, "%s", err.message);
    *slash = '/';
    cr_assert_eq(sd_corpus_write(path, tokens, 5, NULL, 0, tokenizer, adapter, &err), SD_OK, "%s",
                 err.message);
    return path;
}

static sd_draft_kind look(const char *path, char **file) {
    sd_draft_kind kind;
    sd_error err = {0};
    cr_assert_eq(sd_draft_look(&kind, file, path, &err), SD_OK, "%s", err.message);
    return kind;
}

Test(draft_open, tells_models_from_indexes_by_what_the_path_holds) {
    world w = make_world(true);
    sd_error err = {0};
    sd_draft_kind kind;
    char *file, *index = write_index(&w, "run/draft/corpus.idx", "x", NULL);
    char *run = sd_path_join(w.dir, "run"), *draft = sd_path_join(run, "draft");
    cr_assert_eq(look(w.file, &file), SD_DRAFT_MODEL);
    cr_assert_null(file);
    cr_assert_eq(look(index, &file), SD_DRAFT_CORPUS);
    cr_assert_null(file);
    cr_assert_eq(look(run, &file), SD_DRAFT_CORPUS);
    cr_assert_str_eq(file, index);
    free(file);
    cr_assert_eq(look(draft, &file), SD_DRAFT_CORPUS);
    cr_assert_str_eq(file, index);
    free(file);
    cr_assert_eq(look(w.dir, NULL), SD_DRAFT_MODEL, "a folder without an index");
    cr_assert_eq(sd_draft_look(&kind, NULL, "/nonexistent", &err), SD_ENOTFOUND);
    free(index), free(run), free(draft);
    free_world(&w);
}

Test(draft_open, an_index_must_have_the_models_very_tokenizer) {
    world w = make_world(true), bare = make_world(false);
    sd_error err = {0};
    sd_draft d;
    const char *own = sd_tokenizer_fingerprint(w.model->tokenizer);
    char *good = write_index(&w, "good.idx", own, NULL),
         *bad = write_index(&w, "bad.idx", "x", NULL),
         *none = write_index(&w, "none.idx", NULL, NULL);
    cr_assert_eq(sd_draft_open(&d, good, w.model, NULL, &err), SD_OK, "%s", err.message);
    cr_assert(d.kind == SD_DRAFT_CORPUS && d.corpus && !d.model);
    sd_draft_close(&d);
    // As files have it that were made before the fingerprint was one of the tokens alone.
    char *old = write_index(&w, "old.idx", sd_tokenizer_encoding(w.model->tokenizer), NULL);
    cr_assert_eq(sd_draft_open(&d, old, w.model, NULL, &err), SD_OK, "%s", err.message);
    sd_draft_close(&d);
    free(old);
    cr_assert_eq(sd_draft_open(&d, bad, w.model, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "bad.idx: this index was made with another tokenizer (x, the"),
              "%s", err.message);
    cr_assert_eq(d.kind, SD_DRAFT_NONE);
    cr_assert_eq(sd_draft_open(&d, none, w.model, NULL, &err), SD_EINVAL);
    cr_assert_eq(sd_draft_open(&d, good, bare.model, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "the model has none"), "%s", err.message);
    cr_assert_eq(sd_draft_open(&d, none, bare.model, NULL, &err), SD_EINVAL,
                 "of no tokenizer, for none");
    cr_assert_eq(sd_draft_open(&d, w.file, w.model, NULL, &err), SD_OK, "%s", err.message);
    cr_assert(d.kind == SD_DRAFT_MODEL && d.model && !d.corpus);
    sd_draft_close(&d);
    free(good), free(bad), free(none);
    free_world(&w), free_world(&bare);
}

static bool taken(const world *w, const char *folder, const sd_adapter *a) {
    sd_corpus *c;
    sd_error err = {0};
    char *run = sd_path_join(w->dir, folder);
    cr_assert_eq(sd_draft_of_run(&c, run, "adapter x", a, w->model, &err), SD_OK, "%s",
                 err.message);
    bool there = c != NULL;
    sd_corpus_close(c);
    free(run);
    return there;
}

Test(draft_open, an_index_that_comes_along_must_be_of_the_tokenizer_and_the_adapter) {
    world w = make_world(true), bare = make_world(false);
    sd_error err = {0};
    const char *own = sd_tokenizer_fingerprint(w.model->tokenizer);
    sd_adapter a = {.name = NULL}, b = {.name = NULL};
    cr_assert_eq(sd_sha256_of(&a.sha256, "a", 1, &err), SD_OK);
    cr_assert_eq(sd_sha256_of(&b.sha256, "b", 1, &err), SD_OK);
    free(write_index(&w, "pair/draft/corpus.idx", own, &a.sha256));
    free(write_index(&w, "unbound/draft/corpus.idx", own, NULL));
    free(write_index(&w, "foreign/draft/corpus.idx", "x", &a.sha256));
    cr_assert(taken(&w, "pair", &a));
    cr_assert_not(taken(&w, "pair", &b), "written for another adapter");
    cr_assert_not(taken(&w, "unbound", &a), "written for none");
    cr_assert_not(taken(&w, "foreign", &a), "written with another tokenizer");
    cr_assert_not(taken(&w, "nothing", &a));
    sd_model *m = w.model;
    w.model = bare.model;
    cr_assert_not(taken(&w, "pair", &a), "a model without a tokenizer");
    w.model = m;
    char *index = sd_path_join(w.dir, "pair/draft/corpus.idx");
    cr_assert_eq(sd_file_write(index, "damaged", 7, &err), SD_OK);
    cr_assert_not(taken(&w, "pair", &a), "one that cannot be read");
    free(index);
    free_world(&w), free_world(&bare);
}
