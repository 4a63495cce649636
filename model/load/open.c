// Opening a model by what the path is: a GGUF file or a Hugging Face folder.
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/load/read.h"
#include "model/load/source.h"

// A template ends a turn with a token that metadata often forgets; these are the ones in use.
static void add_turn_ends(sd_model *m) {
    static const char *const texts[] = {"<|im_end|>", "<|eot_id|>",    "<|eom_id|>",
                                        "<|end|>",    "<|endoftext|>", "<end_of_turn>"};
    if (!m->tokenizer) return;
    sd_model_add_end(m, sd_tokenizer_eos(m->tokenizer));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int32_t id = sd_tokenizer_find(m->tokenizer, texts[i]);
        if (id >= 0 && sd_tokenizer_is_special(m->tokenizer, id)) sd_model_add_end(m, id);
    }
}

// A folder that is no model is most often an adapter or a run given in its base's place.
sd_status sd_model_check_folder(const char *folder, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind config, adapter, manifest;
    bool vocabulary;
    SD_TRY(sd_path_look_in(&config, folder, "config.json", err));
    if (config != SD_PATH_NONE) goto out;
    SD_TRY(sd_path_look_in(&adapter, folder, "adapter_config.json", err));
    SD_TRY(sd_path_look_in(&manifest, folder, "manifest.json", err));
    SD_CHECK(adapter == SD_PATH_NONE && manifest == SD_PATH_NONE, err, SD_EINVAL,
             "%s: is an adapter or a run, not a model; give its base as the model (-m) and this as "
             "the adapter (-a)",
             folder);
    SD_TRY(sd_folder_is_vocabulary(&vocabulary, folder, err));
    if (vocabulary) return sd_refuse_vocabulary(folder, err);
    st = sd_fail(err, SD_ENOTFOUND,
                 "%s: holds no config.json; give a GGUF file or a Hugging Face folder", folder);
out:
    return st;
}

sd_status sd_model_open(sd_model **out, const char *path, sd_error *err) {
    return sd_model_open_stoppable(out, path, NULL, err);
}

sd_status sd_model_open_stoppable(sd_model **out, const char *path, const atomic_bool *stop,
                                  sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_model *m = sd_alloc(1, sizeof *m);
    SD_CHECK_ALLOC(m, err);
    sd_model_owned *o = sd_alloc(1, sizeof *o);
    m->owned = o;
    SD_CHECK_ALLOC(o, err);
    pthread_mutex_init(&o->lock, NULL);
    atomic_store(&o->references, 1);
    o->stop = stop;
    m->path = sd_strdup(path);
    SD_CHECK_ALLOC(m->path, err);
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_FOLDER) SD_TRY(sd_model_check_folder(path, err));
    SD_TRY(kind == SD_PATH_FOLDER ? sd_model_read_folder(m, err) : sd_model_read_gguf(m, err));
    SD_TRY(sd_model_check_sources(m, err));
    add_turn_ends(m);
    // Out of memory must not pass for a tokenizer or template that is not understood.
    SD_CHECK(!sd_memory_lost(), err, SD_ENOMEM, "%s: out of memory", path);
    if (m->tokenizer_error) sd_log(SD_LOG_WARN, "no tokenizer: %s", m->tokenizer_error);
    *out = m;
    m = NULL;
out:
    sd_model_release(m);
    return st;
}
