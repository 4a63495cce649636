// A model's life: opening by what the path is, counting references, its hash, and the names that
// other rooms use for its parts.
#include "model/model.h"

#include "base/files/file.h"
#include "base/log.h"
#include "model/formats/gguf.h"
#include "model/formats/safetensors.h"
#include "model/infer/weight_cache/cache.h"
#include "model/model_private.h"

#include <string.h>

static const char *const arch_names[SD_ARCH_COUNT] = {"llama", "qwen2", "qwen3"};

static const struct {
    const char *leaf, *gguf, *module;
} projs[SD_PROJ_COUNT] = {
    [SD_WQ] = {"q_proj", "attn_q", "self_attn.q_proj"},
    [SD_WK] = {"k_proj", "attn_k", "self_attn.k_proj"},
    [SD_WV] = {"v_proj", "attn_v", "self_attn.v_proj"},
    [SD_WO] = {"o_proj", "attn_output", "self_attn.o_proj"},
    [SD_WGATE] = {"gate_proj", "ffn_gate", "mlp.gate_proj"},
    [SD_WUP] = {"up_proj", "ffn_up", "mlp.up_proj"},
    [SD_WDOWN] = {"down_proj", "ffn_down", "mlp.down_proj"},
};

const char *sd_arch_name(sd_arch a) {
    return (unsigned)a < SD_ARCH_COUNT ? arch_names[a] : "unknown";
}
bool sd_arch_from_name(const char *name, sd_arch *out) {
    for (int a = 0; a < SD_ARCH_COUNT; a++) {
        if (strcmp(name, arch_names[a]) != 0) continue;
        *out = (sd_arch)a;
        return true;
    }
    return false;
}
const char *sd_proj_name(sd_proj p) {
    return projs[p].leaf;
}
const char *sd_proj_gguf_name(sd_proj p) {
    return projs[p].gguf;
}
const char *sd_proj_module(sd_proj p) {
    return projs[p].module;
}

void sd_proj_shape(const sd_hparams *hp, sd_proj p, int *out_rows, int *in_cols) {
    const int q = hp->H * hp->D, kv = hp->G * hp->D;
    const int rows[SD_PROJ_COUNT] = {q, kv, kv, hp->C, hp->F, hp->F, hp->C},
              cols[SD_PROJ_COUNT] = {hp->C, hp->C, hp->C, q, hp->C, hp->C, hp->F};
    *out_rows = rows[p];
    *in_cols = cols[p];
}

bool sd_model_is_end(const sd_model *m, int32_t token) {
    for (int i = 0; i < m->n_end_tokens; i++)
        if (m->end_token[i] == token) return true;
    return false;
}

void sd_model_add_end(sd_model *m, int64_t token) {
    if (token < 0 || token >= m->hp.V || m->n_end_tokens == SD_MAX_END_TOKENS) return;
    if (!sd_model_is_end(m, (int32_t)token)) m->end_token[m->n_end_tokens++] = (int32_t)token;
}

sd_status sd_model_set_template(sd_model *m, const char *source, size_t len, sd_error *err) {
    sd_error why = {0};
    sd_status st = sd_template_open(&m->chat, source, len, &why);
    if (st == SD_OK || st == SD_ENOMEM) {
        if (st != SD_OK && err) *err = why;
        return st;
    }
    m->chat = NULL;
    m->chat_error = sd_strdup(why.message);
    return m->chat_error ? SD_OK : sd_fail(err, SD_ENOMEM, "%s: out of memory", m->path);
}

// A template ends a turn with a token that metadata often forgets; these are the ones in use.
static void add_turn_ends(sd_model *m) {
    static const char *const texts[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>",
                                        "<|endoftext|>"};
    if (!m->tokenizer) return;
    sd_model_add_end(m, sd_tokenizer_eos(m->tokenizer));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int32_t id = sd_tokenizer_find(m->tokenizer, texts[i]);
        if (id >= 0 && sd_tokenizer_is_special(m->tokenizer, id)) sd_model_add_end(m, id);
    }
}

// A folder that is no model is most often an adapter or a run given in its base's place.
static sd_status check_folder(const char *folder, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind config, adapter, manifest;
    SD_TRY(sd_path_look_in(&config, folder, "config.json", err));
    if (config != SD_PATH_NONE) goto out;
    SD_TRY(sd_path_look_in(&adapter, folder, "adapter_config.json", err));
    SD_TRY(sd_path_look_in(&manifest, folder, "manifest.json", err));
    SD_CHECK(adapter == SD_PATH_NONE && manifest == SD_PATH_NONE, err, SD_EINVAL,
             "%s: is an adapter or a run, not a model; give its base as the model (-m) and this as "
             "the adapter (-a)",
             folder);
    st = sd_fail(err, SD_ENOTFOUND,
                 "%s: holds no config.json; give a GGUF file or a Hugging Face folder", folder);
out:
    return st;
}

// ---- the files that the model is read from

int sd_model_source_count(const sd_model *m) {
    return m->is_gguf ? 1 : sd_safetensors_file_count(m->st);
}
const char *sd_model_source_path(const sd_model *m, int i) {
    return m->is_gguf ? m->path : sd_safetensors_file_at(m->st, i);
}
sd_map *sd_model_source(const sd_model *m, int i) {
    return m->is_gguf ? sd_gguf_source(m->gguf) : sd_safetensors_source(m->st, i);
}

static sd_status hash_sources(const sd_model *m, sd_sha256 *out, sd_error *err) {
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    for (int i = 0; st == SD_OK && i < sd_model_source_count(m); i++)
        st = sd_hasher_add_map(h, sd_model_source(m, i), sd_model_source_path(m, i), m->stop, err);
    *out = sd_hasher_close(h);
    return st;
}

// Something was done to a file of the model since it was opened: its permissions, a name, its
// times, or its bytes. Only the bytes matter, and where their hash is known they can be looked at.
// Under the lock.
static sd_status accept_same_bytes(const sd_model *m, const sd_model_owned *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_sha256 now;
    int n = sd_model_source_count(m);
    sd_file_id *before = sd_alloc((size_t)n, sizeof *before), after;
    SD_CHECK_ALLOC(before, err);
    for (int i = 0; i < n; i++)
        SD_TRY(
            sd_file_id_of(&before[i], sd_model_source(m, i)->fd, sd_model_source_path(m, i), err));
    SD_TRY(hash_sources(m, &now, err));
    SD_CHECK(sd_sha256_equal(&now, &o->sha256), err, SD_EIO,
             "%s: changed since it was loaded; restore it, or start again with what it is now",
             m->path);
    for (int i = 0; i < n; i++) {
        const char *path = sd_model_source_path(m, i);
        SD_TRY(sd_file_id_of(&after, sd_model_source(m, i)->fd, path, err));
        SD_CHECK(sd_file_id_equal(&before[i], &after), err, SD_EIO,
                 "%s: changes while it is read; run again when nothing writes to it", path);
    }
    for (int i = 0; i < n; i++) sd_map_accept(sd_model_source(m, i), &before[i]);
out:
    free(before);
    return st;
}

static sd_status check_sources(const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; st == SD_OK && i < sd_model_source_count(m); i++)
        st = sd_map_check(sd_model_source(m, i), sd_model_source_path(m, i), err);
    return st;
}

sd_status sd_model_check(const sd_model *m, sd_error *err) {
    sd_model_owned *o = m->owned;
    if (!m->gguf && !m->st) return SD_OK; // made in memory
    pthread_mutex_lock(&o->lock);
    sd_map_state worst = SD_MAP_SAME;
    for (int i = 0; i < sd_model_source_count(m); i++) {
        sd_map_state now = sd_map_look(sd_model_source(m, i));
        if (now > worst) worst = now;
    }
    sd_status st = SD_OK;
    if (worst == SD_MAP_CHANGED && o->hashed)
        st = accept_same_bytes(m, o, err);
    else if (worst >= SD_MAP_CHANGED)
        st = check_sources(m, err);
    pthread_mutex_unlock(&o->lock);
    return st;
}

// The kept hash counts only for the very state that was opened.
sd_status sd_model_sha256(sd_model *m, sd_sha256 *out, sd_error *err) {
    sd_model_owned *o = m->owned;
    sd_status st = SD_OK;
    sd_sha256 hash;
    pthread_mutex_lock(&o->lock);
    if (!o->hashed) {
        if (!sd_pack_source_sha256(m, &hash)) SD_TRY(hash_sources(m, &hash, err));
        SD_TRY(check_sources(m, err));
        o->sha256 = hash;
        o->hashed = true;
    }
    *out = o->sha256;
out:
    pthread_mutex_unlock(&o->lock);
    return st;
}

// ---- its life

sd_status sd_model_open(sd_model **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_model *m = sd_alloc(1, sizeof *m);
    SD_CHECK_ALLOC(m, err);
    sd_model_owned *o = sd_alloc(1, sizeof *o);
    m->owned = o;
    SD_CHECK_ALLOC(o, err);
    pthread_mutex_init(&o->lock, NULL);
    atomic_store(&o->references, 1);
    m->path = sd_strdup(path);
    SD_CHECK_ALLOC(m->path, err);
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, path, err));
    m->is_gguf = kind != SD_PATH_FOLDER;
    if (!m->is_gguf) SD_TRY(check_folder(path, err));
    SD_TRY(m->is_gguf ? sd_model_read_gguf(m, err) : sd_model_read_folder(m, err));
    SD_TRY(check_sources(m, err));
    add_turn_ends(m);
    // A tokenizer or a template that only lacked memory is not one that is not understood.
    SD_CHECK(!sd_memory_lost(), err, SD_ENOMEM, "%s: out of memory", path);
    if (m->tokenizer_error) sd_log(SD_LOG_WARN, "no tokenizer: %s", m->tokenizer_error);
    *out = m;
    m = NULL;
out:
    sd_model_release(m);
    return st;
}

sd_model *sd_model_acquire(sd_model *m) {
    atomic_fetch_add(&sd_owned(m)->references, 1);
    return m;
}

void sd_model_release(sd_model *m) {
    if (!m) return;
    sd_model_owned *o = m->owned;
    if (o && atomic_fetch_sub(&o->references, 1) > 1) return;
    sd_template_close(m->chat);
    sd_tokenizer_close(m->tokenizer);
    sd_gguf_close(m->gguf);
    sd_safetensors_close(m->st);
    free(m->layer);
    free(m->path);
    free(m->pack_dir);
    free(m->name);
    free(m->chat_error);
    free(m->tokenizer_error);
    if (o) {
        sd_arena_free(&o->arena);
        free(o->row_sum);
        pthread_mutex_destroy(&o->lock);
    }
    free(o);
    free(m);
}

// The text of a token for the template's bos_token and eos_token: "" when there is none.
static sd_status token_text(char **out, const sd_tokenizer *t, int32_t id, sd_error *err) {
    size_t len = 0;
    const char *s = id >= 0 ? sd_tokenizer_bytes(t, id, &len) : "";
    *out = sd_strndup(s ? s : "", s ? len : 0);
    return *out ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory");
}

sd_status sd_model_chat_ids(const sd_model *m, const json_t *messages, const json_t *tools,
                            const json_t *extra, bool add_generation_prompt, sd_ids *out,
                            sd_error *err) {
    return sd_model_chat_ids_within(m, messages, tools, extra, add_generation_prompt, NULL, out,
                                    err);
}

sd_status sd_model_chat_ids_within(const sd_model *m, const json_t *messages, const json_t *tools,
                                   const json_t *extra, bool add_generation_prompt,
                                   const sd_template_bounds *bounds, sd_ids *out, sd_error *err) {
    enum { MAX_PROMPT = 256 << 20 };
    sd_status st = SD_OK;
    char *bos = NULL, *eos = NULL;
    sd_buf text = sd_buf_make(MAX_PROMPT);
    SD_CHECK(m->tokenizer, err, SD_EINVAL, "%s: has no tokenizer that is understood%s%s", m->path,
             m->tokenizer_error ? ": " : "", m->tokenizer_error ? m->tokenizer_error : "");
    SD_CHECK(m->chat, err, SD_EINVAL, "%s: has no chat template%s%s", m->path,
             m->chat_error ? " that is understood: " : "; give the prompt as plain text",
             m->chat_error ? m->chat_error : "");
    SD_TRY(token_text(&bos, m->tokenizer, sd_tokenizer_bos(m->tokenizer), err));
    SD_TRY(token_text(&eos, m->tokenizer, sd_tokenizer_eos(m->tokenizer), err));
    SD_TRY(sd_template_render_within(m->chat, messages, tools, extra, add_generation_prompt, bos,
                                     eos, bounds, &text, err));
    SD_TRY(sd_tokenizer_encode(m->tokenizer, text.data ? text.data : "", text.len, SD_TOK_SPECIAL,
                               out, err));
out:
    sd_buf_free(&text);
    free(bos);
    free(eos);
    return st;
}
