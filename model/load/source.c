#include "model/load/source.h"

#include "model/model_private.h"

bool sd_model_is_gguf(const sd_model *m) {
    return m->owned->gguf != NULL;
}
const sd_gguf *sd_model_gguf(const sd_model *m) {
    return m->owned->gguf;
}
const sd_safetensors *sd_model_safetensors(const sd_model *m) {
    return m->owned->st;
}

int sd_model_source_count(const sd_model *m) {
    return m->owned->gguf ? sd_gguf_file_count(m->owned->gguf)
                          : sd_safetensors_file_count(m->owned->st);
}
const char *sd_model_source_path(const sd_model *m, int i) {
    return m->owned->gguf ? sd_gguf_file_path(m->owned->gguf, i)
                          : sd_safetensors_file_at(m->owned->st, i);
}
sd_map *sd_model_source(const sd_model *m, int i) {
    const sd_model_owned *o = m->owned;
    return o->gguf ? sd_gguf_file_map(o->gguf, i) : sd_safetensors_source(o->st, i);
}

sd_status sd_model_check_sources(const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; st == SD_OK && i < sd_model_source_count(m); i++)
        st = sd_map_check(sd_model_source(m, i), sd_model_source_path(m, i), err);
    return st;
}

const sd_map *sd_model_map_of(const sd_model *m, const void *p, size_t bytes) {
    const sd_model_owned *o = m->owned;
    return o->gguf ? sd_gguf_map(o->gguf, p, bytes) : sd_safetensors_map(o->st, p, bytes);
}

void sd_model_forget(const sd_model *m) {
    sd_gguf_forget(m->owned->gguf);
    sd_safetensors_forget(m->owned->st);
}
