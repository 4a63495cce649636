#include "decode/serve/provider/models.h"

#include "base/log.h"
#include "base/memory.h"
#include "decode/draft/open.h"
#include "model/adapter/chat_template.h"
#include "model/adapter/defaults.h"
#include "model/chat.h"
#include "model/dialogue/tool_grammar.h"
#include "model/infer/weight_cache/cache.h"

#include <string.h>

bool sd_model_name_is_good(const char *name) {
    size_t n = strlen(name);
    return n >= 1 && n <= SD_MODEL_NAME &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

bool sd_served_name_is_good(const char *name) {
    static const char good[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/:";
    size_t n = strlen(name);
    return n >= 1 && n <= SD_SERVED_NAME && strspn(name, good) == n;
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

// ---- rows

static void close_row(sd_models_row *row) {
    if (!row) return;
    sd_corpus_close(row->corpus);
    sd_template_close(row->chat);
    sd_defaults_free(&row->defaults);
    sd_adapter_release(row->adapter);
    sd_adapter_release(row->draft_adapter);
    free(row->name);
    free(row->path);
    free(row);
}

static bool same_weights(const sd_adapter *a, const sd_adapter *b) {
    if (!sd_sha256_equal(&a->sha256, &b->sha256) || a->n_linears != b->n_linears) return false;
    for (int i = 0; i < a->n_linears; i++)
        if (a->lora[i].r != b->lora[i].r || a->lora[i].scale != b->lora[i].scale) return false;
    return true;
}

// Weights that another row has already are not kept twice.
static void share_weights(sd_models *m, sd_models_row *row) {
    sd_adapter *other = NULL;
    pthread_mutex_lock(&m->lock);
    for (int i = 1; i < SD_MODELS_MOST && !other; i++)
        if (m->row[i] && same_weights(m->row[i]->adapter, row->adapter))
            other = sd_adapter_acquire(m->row[i]->adapter);
    pthread_mutex_unlock(&m->lock);
    if (!other) return;
    sd_adapter_release(row->adapter);
    row->adapter = other;
}

static sd_status take_place(sd_models *m, int *at, sd_models_row *row, sd_error *err) {
    pthread_mutex_lock(&m->lock);
    for (*at = 1; *at < SD_MODELS_MOST && m->row[*at]; ++*at) {
    }
    if (*at < SD_MODELS_MOST) m->row[*at] = row;
    pthread_mutex_unlock(&m->lock);
    if (*at < SD_MODELS_MOST) return SD_OK;
    return sd_fail(err, SD_ELIMIT, "%d adapters are loaded, and no more are possible; unload some",
                   SD_MODELS_MOST - 1);
}

static bool counted_before(const sd_models *m, int at, const sd_adapter *a) {
    for (int i = 1; i < at; i++)
        if (m->row[i] && m->row[i]->adapter == a) return true;
    return false;
}

static size_t factor_bytes(const sd_adapter *a) {
    return (size_t)a->n_params * sizeof(float) + (size_t)a->n_linears * sizeof *a->lora;
}

void sd_models_bytes(sd_models *m, size_t *factors, size_t *indexes) {
    *factors = *indexes = 0;
    pthread_mutex_lock(&m->lock);
    for (int i = 1; i < SD_MODELS_MOST; i++) {
        const sd_models_row *row = m->row[i];
        if (!row) continue;
        if (!counted_before(m, i, row->adapter)) *factors += factor_bytes(row->adapter);
        if (row->draft_adapter) *factors += factor_bytes(row->draft_adapter);
        if (row->corpus) *indexes += sd_corpus_bytes(row->corpus);
    }
    pthread_mutex_unlock(&m->lock);
}

static bool is_counted(sd_models *m, const sd_adapter *a) {
    pthread_mutex_lock(&m->lock);
    const bool counted = counted_before(m, SD_MODELS_MOST, a);
    pthread_mutex_unlock(&m->lock);
    return counted;
}

// What it takes beside the others must fit. Weights that it shares are counted already.
static sd_status check_memory(sd_models *m, const sd_models_row *row, size_t most, sd_error *err) {
    sd_status st = SD_OK;
    size_t factors, indexes;
    sd_models_bytes(m, &factors, &indexes);
    size_t sum = factors + indexes;
    if (!is_counted(m, row->adapter)) sum += factor_bytes(row->adapter);
    if (row->draft_adapter) sum += factor_bytes(row->draft_adapter);
    if (row->corpus) sum += sd_corpus_bytes(row->corpus);
    SD_CHECK(
        sum <= most, err, SD_ELIMIT,
        "%s: with it adapters would take %.1f MiB, and --adapter-memory gives %zu; unload some, or "
        "start the server with more",
        row->path, (double)sum / 1048576, most >> 20);
out:
    return st;
}

static sd_status blame_draft(const sd_models_asked *a, sd_status st) {
    if (st != SD_OK && a->bad_draft) *a->bad_draft = true;
    return st;
}

// What drafts for it where the request says so: an index, or an adapter of the draft model.
static sd_status open_draft(sd_models_row *row, const sd_models *m, const sd_models_asked *a,
                            const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_draft_kind kind;
    sd_sha256 aligned;
    SD_TRY(sd_draft_look(&kind, NULL, path, err));
    if (kind == SD_DRAFT_CORPUS)
        return sd_draft_open_corpus(&row->corpus, path, row->adapter, m->model, err);
    SD_CHECK(a->draft, err, SD_EINVAL,
             "%s: is an adapter of a draft model, and this server has none; start it with -d",
             path);
    SD_TRY(sd_draft_open_adapter(&row->draft_adapter, &aligned, path, a->draft, err));
    row->card.pair = !aligned.hex[0]                                    ? SD_PAIR_UNKNOWN
                     : sd_sha256_equal(&aligned, &row->adapter->sha256) ? SD_PAIR_ALIGNED
                                                                        : SD_PAIR_OTHER;
    if (row->card.pair == SD_PAIR_OTHER)
        sd_log(SD_LOG_WARN,
               "adapter %s: %s was made for the target adapter %.12s... and this one is %.12s...; "
               "answers "
               "are the same, fewer drafts will hold",
               row->name, path, aligned.hex, row->adapter->sha256.hex);
out:
    return st;
}

static sd_status read_row(sd_models_row *row, sd_models *m, const sd_models_asked *a,
                          const char *draft, const sd_models_options *o, sd_error *err) {
    sd_status st = SD_OK;
    const char *path = row->path;
    char *who = sd_sprintf("adapter %s", row->name);
    SD_CHECK_ALLOC(who, err);
    SD_TRY(sd_adapter_open(&row->adapter, path, m->model, o->other_base, err));
    if (!sd_model_template_is_taken(m->model)) SD_TRY(sd_adapter_template(&row->chat, path, err));
    row->end_token = -1;
    if (row->chat) SD_TRY(sd_template_end_token(&row->end_token, m->model, row->chat, err));
    if (draft)
        SD_TRY(blame_draft(a, open_draft(row, m, a, draft, err)));
    else
        SD_TRY(
            sd_draft_of_run(&row->corpus, path, a->root ? NULL : who, row->adapter, m->model, err));
    if (!o->no_run_defaults) {
        SD_TRY(sd_adapter_defaults(&row->defaults, path, err));
        sd_defaults_under(&row->defaults, &m->row[0]->defaults);
    }
    SD_TRY(sd_dialogue_of(&row->dialogue, m->model, row->chat ? row->chat : m->model->chat,
                          o->tool_format - 1, err));
out:
    free(who);
    return st;
}

static void fill_card(sd_models_row *row) {
    const sd_adapter *a = row->adapter;
    static atomic_uint_fast64_t next_generation = 1;
    row->card.name = row->name;
    row->card.path = row->path;
    row->card.sha256 = a->sha256.hex;
    row->card.generation = atomic_fetch_add(&next_generation, 1);
    row->card.draft = row->draft_adapter ? "adapter" : row->corpus ? "index" : "none";
    row->card.has_corpus = row->corpus != NULL;
    row->card.rank = a->max_r;
    row->card.bytes =
        (size_t)a->n_params * sizeof(float) + (row->corpus ? sd_corpus_bytes(row->corpus) : 0);
}

sd_status sd_models_add(sd_models *m, int *at, const sd_models_asked *a, const sd_models_options *o,
                        sd_error *err) {
    sd_status st = SD_OK;
    char *draft = NULL;
    sd_models_row *row = sd_alloc(1, sizeof *row);
    SD_CHECK_ALLOC(row, err);
    row->name = sd_strdup(a->name);
    SD_CHECK_ALLOC(row->name, err);
    if (a->root) {
        SD_TRY(sd_root_path(&row->path, a->root, a->path, err));
        if (a->draft_path)
            SD_TRY(blame_draft(a, sd_root_path(&draft, a->root, a->draft_path, err)));
        sd_root_enter(a->root);
    } else {
        row->path = sd_strdup(a->path);
        SD_CHECK_ALLOC(row->path, err);
    }
    st = read_row(row, m, a, draft, o, err);
    sd_root_leave();
    if (st != SD_OK) goto out;
    share_weights(m, row);
    if (a->root) SD_TRY(check_memory(m, row, o->adapter_memory, err));
    fill_card(row);
    SD_TRY(take_place(m, at, row, err));
    row = NULL;
out:
    close_row(row);
    free(draft);
    return st;
}

void sd_models_remove(sd_models *m, int at) {
    pthread_mutex_lock(&m->lock);
    sd_models_row *row = m->row[at];
    m->row[at] = NULL;
    pthread_mutex_unlock(&m->lock);
    close_row(row);
}

// ---- those that the server begins with

static sd_status open_adapter(sd_models *m, const char *spec, const sd_models_options *o,
                              sd_error *err) {
    sd_status st = SD_OK;
    int at;
    const char *equals = strchr(spec, '='), *path = sd_models_adapter_path(spec);
    char *name = equals ? sd_strndup(spec, (size_t)(equals - spec)) : name_of_path(path);
    SD_CHECK_ALLOC(name, err);
    SD_CHECK(*path, err, SD_EINVAL, "-a %s: give NAME=PATH, such as my-model=runs/my, or a path",
             spec);
    SD_CHECK(sd_model_name_is_good(name), err, SD_EINVAL,
             "-a %s: a name has 1 to %d letters, digits, '.', '_' or '-'; give NAME=PATH", spec,
             SD_MODEL_NAME);
    for (int i = 0; i < m->n; i++)
        SD_CHECK(!sd_model_card_is(&m->row[i]->card, name), err, SD_EINVAL,
                 "-a %s: the name '%s' is taken; give another", spec, name);
    SD_TRY(sd_models_add(m, &at, &(sd_models_asked){.name = name, .path = path}, o, err));
    m->n = at + 1;
out:
    free(name);
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
    sd_models_row *row = m->row[0];
    row->name = names && names->n ? sd_strdup(names->item[0]) : sd_strndup(path + begin, n);
    SD_CHECK_ALLOC(row->name, err);
    row->card = (sd_model_card){.name = row->name,
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
    pthread_mutex_init(&m->lock, NULL);
    m->row = sd_alloc(SD_MODELS_MOST, sizeof *m->row);
    SD_CHECK_ALLOC(m->row, err);
    m->row[0] = sd_alloc(1, sizeof **m->row);
    SD_CHECK_ALLOC(m->row[0], err);
    m->n = 1;
    SD_CHECK(n < SD_MODELS_MOST, err, SD_EINVAL, "-a: %d adapters; at most %d are possible", n,
             SD_MODELS_MOST - 1);
    SD_TRY(sd_model_open_stoppable(&m->model, o->model, stop, err));
    if (o->chat_template) {
        sd_template *t;
        SD_TRY(sd_chat_template_read(&t, o->chat_template, err));
        SD_TRY(sd_model_take_template(m->model, t, err));
    }
    if (o->pack_dir) sd_weight_cache_attach(m->model, o->pack_dir);
    SD_TRY(name_base(m, o, err));
    if (!o->no_run_defaults) SD_TRY(sd_defaults_of_model(&m->row[0]->defaults, m->model, err));
    SD_TRY(sd_dialogue_of(&m->row[0]->dialogue, m->model, m->model->chat, o->tool_format - 1, err));
    for (int i = 0; i < n && !atomic_load(stop); i++)
        SD_TRY(open_adapter(m, o->adapters->item[i], o, err));
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
    for (int i = 0; m->row && i < SD_MODELS_MOST; i++) close_row(m->row[i]);
    for (int i = 0; i < m->n_alias; i++) free(m->alias[i]);
    free(m->alias);
    if (m->n) pthread_mutex_destroy(&m->lock);
    free(m->row);
    sd_grammar_cache_close(m->grammars);
    sd_model_release(m->model);
    *m = (sd_models){0};
}
