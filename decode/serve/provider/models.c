#include "decode/serve/provider/models.h"

#include "decode/draft/open.h"
#include "model/adapter/chat_template.h"
#include "model/adapter/defaults.h"
#include "model/chat.h"
#include "model/dialogue/tool_grammar.h"
#include "model/infer/weight_cache/cache.h"

#include <string.h>

enum { MAX_NAME = 64 };

static bool good_name(const char *s) {
    size_t n = strlen(s);
    return n >= 1 && n <= MAX_NAME &&
           strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

// The last component, without ".gguf": a run is called by its folder.
static char *name_of_path(const char *path) {
    size_t end = strlen(path), n;
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    n = end - begin;
    if (n > 5 && memcmp(path + end - 5, ".gguf", 5) == 0) n -= 5;
    return sd_strndup(path + begin, n);
}

const char *sd_models_adapter_path(const char *spec) {
    const char *equals = strchr(spec, '=');
    return equals ? equals + 1 : spec;
}

static sd_status open_adapter(sd_models *m, const char *spec, const sd_models_options *o,
                              sd_error *err) {
    sd_status st = SD_OK;
    char *who = NULL;
    const char *equals = strchr(spec, '='), *path = sd_models_adapter_path(spec);
    sd_models_row *row = &m->row[m->n];
    SD_CHECK(*path, err, SD_EINVAL, "-a %s: give NAME=PATH, such as my-model=runs/my, or a path",
             spec);
    row->name = equals ? sd_strndup(spec, (size_t)(equals - spec)) : name_of_path(path);
    SD_CHECK_ALLOC(row->name, err);
    m->n++;
    SD_CHECK(good_name(row->name), err, SD_EINVAL,
             "-a %s: a name has 1 to %d letters, digits, '.', '_' or '-'; give NAME=PATH", spec,
             MAX_NAME);
    for (int i = 0; i < m->n - 1; i++)
        SD_CHECK(!sd_model_card_is(&m->row[i].card, row->name), err, SD_EINVAL,
                 "-a %s: the name '%s' is taken; give another", spec, row->name);
    SD_TRY(sd_adapter_open(&row->adapter, path, m->model, o->other_base, err));
    who = sd_sprintf("adapter %s", row->name);
    SD_CHECK_ALLOC(who, err);
    if (!sd_model_template_is_taken(m->model)) SD_TRY(sd_adapter_template(&row->chat, path, err));
    row->end_token = -1;
    if (row->chat) SD_TRY(sd_template_end_token(&row->end_token, m->model, row->chat, err));
    SD_TRY(sd_draft_of_run(&row->corpus, path, who, row->adapter, m->model, err));
    if (!o->no_run_defaults) {
        SD_TRY(sd_adapter_defaults(&row->defaults, path, err));
        sd_defaults_under(&row->defaults, &m->row[0].defaults);
    }
    row->card = (sd_model_card){.name = row->name,
                                .sha256 = row->adapter->sha256.hex,
                                .generation = row->adapter->generation,
                                .draft = row->corpus ? "index" : "none",
                                .has_corpus = row->corpus != NULL};
out:
    free(who);
    return st;
}

static sd_status add_alias(sd_models *m, const char *name, size_t n, sd_error *err) {
    sd_status st = SD_OK;
    if (n == 0) return SD_OK;
    m->alias[m->n_alias] = sd_strndup(name, n);
    SD_CHECK_ALLOC(m->alias[m->n_alias], err);
    m->n_alias++;
out:
    return st;
}

static bool given_before(const sd_strings *names, int i) {
    for (int k = 0; k < i; k++)
        if (strcmp(names->item[k], names->item[i]) == 0) return true;
    return false;
}

// The base is called by --served-name, else by its file's name without ".gguf". Requests may also
// say the file's name, the path, or the name the model has for itself: these are not shown.
static sd_status name_base(sd_models *m, const sd_models_options *o, sd_error *err) {
    sd_status st = SD_OK;
    const sd_strings *names = o->served_names;
    const char *path = o->model, *own = m->model->name ? m->model->name : "";
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    size_t n = end - begin;
    m->alias = sd_alloc((size_t)(names ? names->n : 0) + 4, sizeof *m->alias);
    SD_CHECK_ALLOC(m->alias, err);
    for (int i = 1; names && i < names->n; i++)
        if (!given_before(names, i))
            SD_TRY(add_alias(m, names->item[i], strlen(names->item[i]), err));
    int shown = m->n_alias;
    SD_TRY(add_alias(m, path + begin, n, err));
    if (n > 5 && memcmp(path + end - 5, ".gguf", 5) == 0) n -= 5;
    SD_TRY(add_alias(m, path + begin, n, err));
    SD_TRY(add_alias(m, path, strlen(path), err));
    SD_TRY(add_alias(m, own, strlen(own), err));
    m->row[0].name = names && names->n ? sd_strdup(names->item[0]) : sd_strndup(path + begin, n);
    SD_CHECK_ALLOC(m->row[0].name, err);
    m->n = 1;
    m->row[0].card = (sd_model_card){.name = m->row[0].name,
                                     .alias = (const char *const *)m->alias,
                                     .n_alias = m->n_alias,
                                     .n_shown = shown,
                                     .draft = o->has_draft ? "draft" : "none"};
out:
    return st;
}

sd_status sd_models_open(sd_models *m, const sd_models_options *o, const atomic_bool *stop,
                         sd_error *err) {
    sd_status st = SD_OK;
    int n = o->adapters ? o->adapters->n : 0;
    *m = (sd_models){0};
    SD_TRY(sd_model_open_stoppable(&m->model, o->model, stop, err));
    if (o->chat_template) {
        sd_template *t;
        SD_TRY(sd_chat_template_read(&t, o->chat_template, err));
        SD_TRY(sd_model_take_template(m->model, t, err));
    }
    if (o->pack_dir) sd_weight_cache_attach(m->model, o->pack_dir);
    m->row = sd_alloc((size_t)n + 1, sizeof *m->row);
    SD_CHECK_ALLOC(m->row, err);
    SD_TRY(name_base(m, o, err));
    if (!o->no_run_defaults) SD_TRY(sd_defaults_of_model(&m->row[0].defaults, m->model, err));
    for (int i = 0; i < n && !atomic_load(stop); i++)
        SD_TRY(open_adapter(m, o->adapters->item[i], o, err));
    for (int i = 0; i < m->n && !atomic_load(stop); i++)
        SD_TRY(sd_dialogue_of(&m->row[i].dialogue, m->model,
                              m->row[i].chat ? m->row[i].chat : m->model->chat, o->tool_format - 1,
                              err));
    const sd_tokenizer *tok = m->model->tokenizer;
    if (tok) SD_TRY(sd_grammar_cache_open(&m->grammars, tok, err));
    if (m->grammars) sd_grammar_cache_take_calls(m->grammars, sd_gb_tool_rules);
    for (int i = 0; tok && i < sd_tokenizer_size(tok); i++) {
        size_t len;
        sd_tokenizer_bytes(tok, i, &len);
        if (len > m->longest_token) m->longest_token = len;
    }
out:
    return st;
}

void sd_models_close(sd_models *m) {
    for (int i = 0; i < m->n; i++) {
        sd_corpus_close(m->row[i].corpus);
        sd_template_close(m->row[i].chat);
        sd_defaults_free(&m->row[i].defaults);
        sd_adapter_release(m->row[i].adapter);
        free(m->row[i].name);
    }
    for (int i = 0; i < m->n_alias; i++) free(m->alias[i]);
    free(m->alias);
    free(m->row);
    sd_grammar_cache_close(m->grammars);
    sd_model_release(m->model);
    *m = (sd_models){0};
}
