// inspect: adapters, and files of tensors alone.
#include "base/files/hash.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "cli/inspect/parts.h"

#include <string.h>

static void set_gguf_str(json_t *o, const char *name, const sd_gguf *g, const char *key) {
    sd_gguf_string s;
    bool has;
    if (sd_gguf_str(g, key, &s, &has, NULL) == SD_OK && has)
        json_object_set_new(o, name, sd_json_text(s.data, s.len));
}

static sd_status set_file_hash(json_t *o, const char *path, sd_error *err) {
    sd_sha256 h;
    sd_status st = sd_sha256_of_file(&h, path, err);
    if (st == SD_OK) json_object_set_new(o, "sha256", json_string(h.hex));
    return st;
}

sd_status sd_inspect_gguf_adapter(json_t **out, const char *path, const sd_inspect_options *options,
                                  sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf *g = NULL;
    float alpha = 0;
    bool has;
    json_t *o = json_object();
    SD_TRY(sd_gguf_open(&g, path, err));
    json_object_set_new(o, "kind", json_string("adapter"));
    json_object_set_new(o, "format", json_string("GGUF-LoRA"));
    json_object_set_new(o, "path", sd_inspect_text(path));
    set_gguf_str(o, "name", g, "general.name");
    set_gguf_str(o, "architecture", g, "general.architecture");
    set_gguf_str(o, "type", g, "adapter.type");
    SD_TRY(sd_gguf_f32(g, "adapter.lora.alpha", &alpha, &has, err));
    if (has) json_object_set_new(o, "alpha", json_real((double)alpha));
    int64_t params = 0, rank = 0;
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        size_t n = strlen(t->name);
        params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        if (n > 7 && strcmp(t->name + n - 7, ".lora_a") == 0 && t->ne[1] > rank) rank = t->ne[1];
    }
    json_object_set_new(o, "rank", json_integer(rank));
    json_object_set_new(o, "parameters", json_integer(params));
    SD_TRY(set_file_hash(o, path, err));
    sd_inspect_add_tensors(o, g, NULL, options->tensors);
    if (options->metadata) sd_inspect_add_metadata(o, g);
    *out = json_incref(o);
out:
    json_decref(o);
    sd_gguf_close(g);
    return st;
}

static int64_t parameters_of(const sd_safetensors *s) {
    int64_t n = 0;
    for (int i = 0; i < sd_safetensors_count(s); i++) {
        const sd_st_tensor *t = sd_safetensors_at(s, i);
        int64_t k = t->bytes > 0; // dimensions beside a 0 may be of any size
        for (int d = 0; d < t->n_dims && k; d++) k *= t->shape[d];
        n += k;
    }
    return n;
}

sd_status sd_inspect_safetensors(json_t **out, const char *path, const sd_inspect_options *options,
                                 sd_error *err) {
    sd_status st = SD_OK;
    sd_safetensors *s = NULL;
    json_t *o = json_pack("{s:s, s:s, s:o}", "kind", "tensors", "format", "safetensors", "path",
                          sd_inspect_text(path));
    SD_TRY(sd_safetensors_open(&s, path, err));
    json_object_set_new(o, "parameters", json_integer(parameters_of(s)));
    SD_TRY(set_file_hash(o, path, err));
    sd_inspect_add_tensors(o, NULL, s, options->tensors);
    *out = json_incref(o);
out:
    json_decref(o);
    sd_safetensors_close(s);
    return st;
}

sd_status sd_inspect_peft(json_t **out, const char *folder, const sd_inspect_options *options,
                          sd_error *err) {
    enum { MAX_CONFIG = 16 << 20 };
    static const char *const keys[] = {"peft_type",
                                       "task_type",
                                       "r",
                                       "lora_alpha",
                                       "use_rslora",
                                       "use_dora",
                                       "target_modules",
                                       "rank_pattern",
                                       "alpha_pattern",
                                       "bias",
                                       "base_model_name_or_path"};
    sd_status st = SD_OK;
    json_t *config = NULL, *o = json_object();
    sd_safetensors *s = NULL;
    char *path = sd_path_join(folder, "adapter_config.json"),
         *weights = sd_path_join(folder, "adapter_model.safetensors");
    SD_CHECK_ALLOC(path && weights, err);
    SD_TRY(sd_json_read(&config, path, MAX_CONFIG, JSON_REJECT_DUPLICATES, NULL, err));
    json_object_set_new(o, "kind", json_string("adapter"));
    json_object_set_new(o, "format", json_string("PEFT folder"));
    json_object_set_new(o, "path", sd_inspect_text(folder));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_object_get(config, keys[i]))
            json_object_set(o, keys[i], json_object_get(config, keys[i]));
    SD_TRY(sd_safetensors_open(&s, weights, err));
    json_object_set_new(o, "parameters", json_integer(parameters_of(s)));
    SD_TRY(set_file_hash(o, weights, err));
    sd_inspect_add_tensors(o, NULL, s, options->tensors);
    *out = json_incref(o);
out:
    json_decref(o);
    json_decref(config);
    sd_safetensors_close(s);
    free(path);
    free(weights);
    return st;
}
