// A model's life once it is read: counting references, and what readers add to it.
#include "model/model_private.h"

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

sd_model *sd_model_acquire(sd_model *m) {
    atomic_fetch_add(&m->owned->references, 1);
    return m;
}

void sd_model_release(sd_model *m) {
    if (!m) return;
    sd_model_owned *o = m->owned;
    if (o && atomic_fetch_sub(&o->references, 1) > 1) return;
    sd_template_close(m->chat);
    sd_tokenizer_close(m->tokenizer);
    free(m->layer);
    free(m->linear);
    free(m->path);
    free(m->name);
    free(m->output.pair);
    free(m->chat_error);
    free(m->tokenizer_error);
    if (o) {
        sd_gguf_close(o->gguf);
        sd_safetensors_close(o->st);
        sd_arena_free(&o->arena);
        free(o->row_sum);
        pthread_mutex_destroy(&o->lock);
    }
    free(o);
    free(m);
}
