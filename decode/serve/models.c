// The models a server answers for: the base under its names, and the adapters.
#include "base/files/file.h"
#include "base/log.h"
#include "decode/serve/server.h"

#include <string.h>

enum { MAX_NAME = 64 };

static bool good_name(const char *s) {
    size_t n = strlen(s);
    return n >= 1 && n <= MAX_NAME &&
           strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static bool is_base_name(const sd_server *s, const char *name) {
    for (int i = 0; i < s->n_alias; i++)
        if (strcmp(s->alias[i], name) == 0) return true;
    const sd_strings *names = s->o->served_names;
    for (int i = 0; names && i < names->n; i++)
        if (strcmp(names->item[i], name) == 0) return true;
    return s->n_served > 0 && strcmp(s->served[0].name, name) == 0;
}

sd_served *sd_server_find(sd_server *s, const char *name) {
    if (!name || !*name || is_base_name(s, name)) return &s->served[0];
    for (int i = 1; i < s->n_served; i++)
        if (strcmp(s->served[i].name, name) == 0) return &s->served[i];
    return NULL;
}

// The run's corpus index, when it belongs to this adapter and this tokenizer; else a warning and
// NULL.
static sd_corpus *open_corpus(const char *name, const char *folder, const sd_adapter *a,
                              const sd_model *m) {
    char *path = sd_path_join(folder, "draft/corpus.idx");
    sd_corpus *c = NULL;
    sd_error err = {0};
    sd_path_kind kind;
    if (!path) goto out;
    sd_status st = sd_path_look(&kind, path, &err);
    if (st == SD_OK && kind == SD_PATH_NONE) goto out;
    if (st == SD_OK) st = sd_corpus_open(&c, path, &err);
    if (st != SD_OK) {
        sd_log(SD_LOG_WARN, "adapter %s: its corpus index is left out: %s", name, err.message);
        goto out;
    }
    const char *why = NULL;
    if (!sd_sha256_equal(sd_corpus_adapter(c), &a->sha256))
        why = "was written for another adapter";
    else if (!m->tokenizer ||
             strcmp(sd_corpus_tokenizer(c), sd_tokenizer_fingerprint(m->tokenizer)) != 0)
        why = "was written for another tokenizer";
    if (why) {
        sd_log(SD_LOG_WARN, "adapter %s: %s %s and is left out; export the pair of one run", name,
               path, why);
        sd_corpus_close(c);
        c = NULL;
    }
out:
    free(path);
    return c;
}

sd_status sd_server_open_adapter(sd_server *s, const char *spec, sd_error *err) {
    sd_status st = SD_OK;
    const char *equals = strchr(spec, '=');
    sd_served *row = &s->served[s->n_served];
    SD_CHECK(equals && equals[1], err, SD_EINVAL, "-a %s: give NAME=PATH, such as my-model=runs/my",
             spec);
    row->name = sd_strndup(spec, (size_t)(equals - spec));
    SD_CHECK_ALLOC(row->name, err);
    s->n_served++;
    SD_CHECK(good_name(row->name), err, SD_EINVAL,
             "-a %s: a name has 1 to %d letters, digits, '.', '_' or '-'", spec, MAX_NAME);
    for (int i = 0; i < s->n_served - 1; i++)
        SD_CHECK(strcmp(s->served[i].name, row->name) != 0 && !is_base_name(s, row->name), err,
                 SD_EINVAL, "-a %s: the name '%s' is taken; give another", spec, row->name);
    SD_TRY(sd_adapter_open(&row->adapter, equals + 1, s->model, err));
    row->corpus = open_corpus(row->name, equals + 1, row->adapter, s->model);
    row->draft = row->corpus ? "index" : "none";
out:
    return st;
}

static sd_status add_alias(sd_server *s, const char *name, size_t n, sd_error *err) {
    sd_status st = SD_OK;
    if (n == 0) return SD_OK;
    s->alias[s->n_alias] = sd_strndup(name, n);
    SD_CHECK_ALLOC(s->alias[s->n_alias], err);
    s->n_alias++;
out:
    return st;
}

// The base is called by --served-name, else by its file's name without ".gguf". Requests may also
// say the file's name, the path, or the name the model has for itself.
sd_status sd_server_name_base(sd_server *s, sd_error *err) {
    sd_status st = SD_OK;
    const sd_strings *names = s->o->served_names;
    const char *path = s->o->model, *own = s->model->name ? s->model->name : "";
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    size_t n = end - begin;
    SD_TRY(add_alias(s, path + begin, n, err));
    if (n > 5 && memcmp(path + end - 5, ".gguf", 5) == 0) n -= 5;
    SD_TRY(add_alias(s, path + begin, n, err));
    SD_TRY(add_alias(s, path, strlen(path), err));
    SD_TRY(add_alias(s, own, strlen(own), err));
    s->served[0].name = names && names->n ? sd_strdup(names->item[0]) : sd_strndup(path + begin, n);
    SD_CHECK_ALLOC(s->served[0].name, err);
    s->served[0].draft = s->o->engine.draft ? "draft" : "none";
    s->n_served = 1;
out:
    return st;
}

void sd_server_release_models(sd_server *s) {
    for (int i = 0; i < s->n_served; i++) {
        sd_corpus_close(s->served[i].corpus);
        sd_adapter_release(s->served[i].adapter);
        free(s->served[i].name);
    }
    for (int i = 0; i < s->n_alias; i++) free(s->alias[i]);
    free(s->served);
    sd_model_release(s->model);
}
