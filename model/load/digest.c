// The files that a model is read from: their hash, and whether they are still what was opened.
#include "base/files/map.h"
#include "base/memory.h"
#include "model/load/source.h"
#include "model/model_private.h"

static sd_status hash_sources(const sd_model *m, sd_sha256 *out, sd_error *err) {
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    for (int i = 0; st == SD_OK && i < sd_model_source_count(m); i++)
        st = sd_hasher_add_map(h, sd_model_source(m, i), sd_model_source_path(m, i), m->owned->stop,
                               err);
    *out = sd_hasher_close(h);
    return st;
}

// A file of the model was touched since it was opened: its permissions, a name, its times, or its
// bytes. Only the bytes matter, and where their hash is known they can be compared. The lock is held.
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

sd_status sd_model_check(const sd_model *m, sd_error *err) {
    sd_model_owned *o = m->owned;
    if (!o->gguf && !o->st) return SD_OK; // made in memory
    pthread_mutex_lock(&o->lock);
    sd_map_state worst = SD_MAP_SAME;
    int at = 0;
    for (int i = 0; i < sd_model_source_count(m); i++) {
        sd_map_state now = sd_map_look(sd_model_source(m, i));
        if (now > worst) worst = now, at = i;
    }
    sd_status st = SD_OK;
    if (worst < SD_MAP_CHANGED && o->known) o->hashed = true; // of the state that was opened
    if (worst == SD_MAP_CHANGED && o->hashed)
        st = accept_same_bytes(m, o, err);
    else if (worst == SD_MAP_CHANGED)
        st = sd_fail(err, SD_EIO,
                     "%s: changed since it was opened, and what it was is not known; start again "
                     "when nothing writes to it",
                     sd_model_source_path(m, at));
    else if (worst > SD_MAP_CHANGED)
        st = sd_model_check_sources(m, err);
    pthread_mutex_unlock(&o->lock);
    return st;
}

void sd_model_know_sha256(sd_model *m, const sd_sha256 *sum) {
    sd_model_owned *o = m->owned;
    pthread_mutex_lock(&o->lock);
    if (!o->hashed) {
        o->sha256 = *sum;
        o->known = true;
    }
    pthread_mutex_unlock(&o->lock);
}

// A hash that was handed in counts only for the very state that was opened.
sd_status sd_model_sha256(sd_model *m, sd_sha256 *out, sd_error *err) {
    sd_model_owned *o = m->owned;
    sd_status st = SD_OK;
    sd_sha256 hash;
    pthread_mutex_lock(&o->lock);
    if (!o->hashed) {
        hash = o->sha256;
        if (!o->known) SD_TRY(hash_sources(m, &hash, err));
        SD_TRY(sd_model_check_sources(m, err));
        o->sha256 = hash;
        o->hashed = true;
    }
    *out = o->sha256;
out:
    pthread_mutex_unlock(&o->lock);
    return st;
}
