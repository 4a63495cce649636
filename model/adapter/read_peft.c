// PEFT folders: adapter_config.json says what the factors mean, adapter_model.safetensors holds
// them.
#include "model/adapter/pattern.h"
#include "model/adapter/read.h"

#include "base/files/json_file.h"
#include "base/files/map.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/formats/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { MAX_CONFIG_BYTES = 1 << 20 };

// ---- adapter_config.json

typedef struct {
    double alpha;
    bool rslora;
    json_t *alpha_pattern;       // NULL: none
    sd_module_pattern **pattern; // of its keys, each NULL until it is needed
} peft_config;

// What changes the mathematics and is not computed here.
static sd_status refuse_others(const json_t *root, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    static const char *const unsupported[] = {"use_dora", "fan_in_fan_out", "lora_bias"};
    for (int i = 0; i < 3; i++) {
        bool on;
        SD_TRY(sd_key_bool(&on, root, unsupported[i], false, path, err));
        SD_CHECK(!on, err, SD_EFORMAT, "%s: %s is true, which is not supported", path,
                 unsupported[i]);
    }
    // These also change the base when they begin, or apply to a part of the prompt alone.
    static const char *const replaces[] = {"pissa", "olora", "corda", "loftq", NULL};
    const char *init = json_string_value(json_object_get(root, "init_lora_weights"));
    for (int i = 0; init && replaces[i]; i++)
        SD_CHECK(strncasecmp(init, replaces[i], strlen(replaces[i])) != 0, err, SD_EFORMAT,
                 "%s: init_lora_weights is %.32s, whose factors go with a changed base; convert "
                 "them to plain LoRA when saving",
                 path, init);
    SD_CHECK(!sd_key(root, "alora_invocation_tokens"), err, SD_EFORMAT,
             "%s: alora_invocation_tokens is set, which is not supported", path);
    json_t *save;
    SD_TRY(sd_key_array(&save, root, "modules_to_save", path, err));
    SD_CHECK(json_array_size(save) == 0, err, SD_EFORMAT,
             "%s: modules_to_save is not empty; only LoRA factors are supported", path);
out:
    return st;
}

static sd_status read_config(json_t **root, peft_config *c, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    const char *type;
    SD_TRY(sd_json_read(root, path, MAX_CONFIG_BYTES, JSON_REJECT_DUPLICATES, NULL, err));
    SD_TRY(sd_key_str(&type, *root, "peft_type", NULL, path, err));
    SD_CHECK(type && strcmp(type, "LORA") == 0, err, SD_EFORMAT,
             "%s: peft_type is %.64s, only LORA is supported", path, type ? type : "missing");
    SD_TRY(refuse_others(*root, path, err));
    SD_CHECK(sd_key(*root, "lora_alpha"), err, SD_EFORMAT, "%s: lora_alpha is missing", path);
    SD_TRY(sd_key_number(&c->alpha, *root, "lora_alpha", 0, path, err));
    SD_TRY(sd_key_bool(&c->rslora, *root, "use_rslora", false, path, err));
    SD_TRY(sd_key_object(&c->alpha_pattern, *root, "alpha_pattern", path, err));
out:
    return st;
}

// The pattern of the i-th key of alpha_pattern, compiled when it is first asked for.
static sd_status alpha_pattern(const sd_module_pattern **out, peft_config *c, size_t i,
                               const char *key, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    if (!c->pattern) {
        c->pattern = sd_alloc(json_object_size(c->alpha_pattern), sizeof *c->pattern);
        SD_CHECK_ALLOC(c->pattern, err);
    }
    sd_status made = c->pattern[i] ? SD_OK : sd_module_pattern_open(&c->pattern[i], key);
    SD_CHECK(made != SD_ENOMEM, err, SD_ENOMEM, "%s: out of memory", path);
    SD_CHECK(made == SD_OK, err, SD_EFORMAT,
             "%s: alpha_pattern holds \"%.64s\", which is no regular expression", path, key);
    *out = c->pattern[i];
out:
    return st;
}

static sd_status slot_alpha(double *alpha, peft_config *c, const char *module, const char *path,
                            sd_error *err) {
    sd_status st = SD_OK;
    const char *key;
    json_t *value;
    size_t i = 0;
    *alpha = c->alpha;
    json_object_foreach(c->alpha_pattern, key, value) {
        const sd_module_pattern *p = NULL;
        bool hit = false;
        SD_TRY(alpha_pattern(&p, c, i++, key, path, err));
        sd_status matched = sd_module_pattern_match(&hit, p, module);
        SD_CHECK(matched != SD_ENOMEM, err, SD_ENOMEM, "%s: out of memory", path);
        SD_CHECK(matched == SD_OK, err, SD_EFORMAT,
                 "%s: alpha_pattern's \"%.64s\" takes too long to match", path, key);
        if (!hit) continue;
        SD_TRY(sd_key_number(alpha, c->alpha_pattern, key, c->alpha, path, err));
        break;
    }
out:
    return st;
}

static void free_config(peft_config *c) {
    for (size_t i = 0; c->pattern && i < json_object_size(c->alpha_pattern); i++)
        sd_module_pattern_close(c->pattern[i]);
    free(c->pattern);
}

// ---- adapter_model.safetensors

typedef struct {
    int linear;
    char which;       // 'A' or 'B'
    char module[256]; // what patterns are matched with
} place;

// What stands between ".lora_A" and ".weight": nothing, or the adapter's name in the model that it
// was saved from ("default" as a rule), as a state dict has it.
static bool is_factor_end(const char *s) {
    if (*s == '.' && strcmp(s, ".weight") != 0) {
        s = strchr(s + 1, '.');
        if (!s) return false;
    }
    return strcmp(s, ".weight") == 0;
}

// "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight"; the module's name is what stands
// before ".lora_".
static sd_status find_place(place *p, const char *name, const sd_model *base, const char *path,
                            sd_error *err) {
    sd_status st = SD_OK;
    int layer = -1, used = 0;
    char known[128];
    const char *lora = strstr(name, ".lora_"), *at = strstr(name, "layers.");
    SD_CHECK(strncmp(name, "base_model.model.", 17) == 0 && lora &&
                 (lora[6] == 'A' || lora[6] == 'B') && is_factor_end(lora + 7),
             err, SD_EFORMAT,
             "%s: %s is not named as PEFT names a factor of a linear map "
             "(base_model.model.*.lora_A.weight); save with PEFT's save_pretrained, plain LoRA on "
             "the linear maps of the blocks",
             path, name);
    SD_CHECK(
        at && at < lora && sscanf(at, "layers.%d.%n", &layer, &used) == 1 && used && layer >= 0,
        err, SD_EFORMAT,
        "%s: %s is not of a block's layer; only the linear maps of the blocks may have factors",
        path, name);
    SD_CHECK(layer < base->hp.L, err, SD_EINVAL,
             "%s: %s is for layer %d, but %s has %d layers; give the base it was trained on", path,
             name, layer, base->path, base->hp.L);
    const int each = base->n_linears / base->hp.L;
    for (int i = layer * each; i < (layer + 1) * each; i++) {
        const char *m = base->linear[i].kind->module;
        size_t n = strlen(m);
        if (lora - (at + used) != (ptrdiff_t)n || memcmp(at + used, m, n) != 0) continue;
        p->linear = i;
        p->which = lora[6];
        snprintf(p->module, sizeof p->module, "%.*s", (int)(lora - (name + 17)), name + 17);
        return SD_OK;
    }
    st =
        sd_fail(err, SD_EFORMAT, "%s: %s is of a module that has no factors here; %s may have them",
                path, name, sd_linear_names(known, sizeof known, base));
out:
    return st;
}

static sd_status read_factors(sd_factor_pair *pairs, const sd_safetensors *s, peft_config *c,
                              const sd_model *base, const char *path, const char *config_path,
                              sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < sd_safetensors_count(s); i++) {
        const sd_st_tensor *t = sd_safetensors_at(s, i);
        place p;
        double alpha;
        SD_TRY(find_place(&p, t->name, base, path, err));
        bool floats = t->dtype == SD_F32 || t->dtype == SD_F16 || t->dtype == SD_BF16;
        SD_CHECK(t->n_dims == 2 && t->bytes > 0 && floats, err, SD_EFORMAT,
                 "%s: %s: not a matrix of F32, F16 or BF16 (%s)", path, t->name, t->dtype_name);
        sd_factor *f = p.which == 'A' ? &pairs[p.linear].a : &pairs[p.linear].b;
        SD_CHECK(!f->data, err, SD_EFORMAT,
                 "%s: %s and %s are the same factor of two adapters; save one adapter", path,
                 f->name, t->name);
        *f = (sd_factor){t->name, t->dtype, t->shape[0], t->shape[1], t->data};
        if (p.which != 'A') continue;
        double r = (double)t->shape[0];
        SD_TRY(slot_alpha(&alpha, c, p.module, config_path, err));
        pairs[p.linear].scale = (float)(alpha / (c->rslora ? sqrt(r) : r));
    }
out:
    return st;
}

// A pickle is a program: reading one would run it.
static sd_status refuse_pickle(const char *folder, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind weights, bin;
    SD_TRY(sd_path_look_in(&weights, folder, "adapter_model.safetensors", err));
    SD_TRY(sd_path_look_in(&bin, folder, "adapter_model.bin", err));
    SD_CHECK(weights != SD_PATH_NONE || bin == SD_PATH_NONE, err, SD_EFORMAT,
             "%s/adapter_model.bin: is a pickle, which is not read because it may run code; save "
             "the adapter as safetensors (PEFT: save_pretrained(..., safe_serialization=True))",
             folder);
out:
    return st;
}

static sd_base_record recorded(const sd_safetensors *s) {
    sd_base_record r = {sd_safetensors_metadata(s, "specdec.base_sha256"),
                        sd_safetensors_metadata(s, "specdec.base_sketch"), 0, 0};
    if (r.sha256) r.sha256_len = strlen(r.sha256);
    if (r.sketch) r.sketch_len = strlen(r.sketch);
    return r;
}

// A folder of PEFT, open: its names, its configuration and its weights.
typedef struct {
    char *config_path, *weights_path;
    json_t *root;
    peft_config config;
    void *data; // of the weights' file where it is read and not mapped
    size_t size;
    sd_safetensors *weights;
    sd_factor_pair *pairs; // [n_linears]
} peft_folder;

static void close_folder(peft_folder *f) {
    free(f->pairs);
    sd_safetensors_close(f->weights);
    free(f->data);
    free_config(&f->config);
    json_decref(f->root);
    free(f->config_path);
    free(f->weights_path);
}

// whole: the file is read to f->data. After an error too f is to be closed.
static sd_status open_folder(peft_folder *f, const char *folder, const sd_model *base, bool whole,
                             sd_error *err) {
    sd_status st = SD_OK;
    f->config_path = sd_path_join(folder, "adapter_config.json");
    f->weights_path = sd_path_join(folder, "adapter_model.safetensors");
    SD_CHECK_ALLOC(f->config_path, err);
    SD_CHECK_ALLOC(f->weights_path, err);
    SD_TRY(read_config(&f->root, &f->config, f->config_path, err));
    SD_TRY(refuse_pickle(folder, err));
    if (whole) {
        SD_TRY(sd_file_load(&f->data, &f->size, f->weights_path, err));
        SD_TRY(sd_safetensors_from_memory(&f->weights, f->data, f->size, f->weights_path, err));
    } else {
        SD_TRY(sd_safetensors_open(&f->weights, f->weights_path, err));
    }
    f->pairs = sd_alloc((size_t)base->n_linears, sizeof *f->pairs);
    SD_CHECK_ALLOC(f->pairs, err);
    SD_TRY(
        read_factors(f->pairs, f->weights, &f->config, base, f->weights_path, f->config_path, err));
out:
    return st;
}

sd_status sd_adapter_ranks_peft(int *rank, const char *folder, const sd_model *base,
                                sd_error *err) {
    sd_status st = SD_OK;
    peft_folder f = {0};
    SD_TRY(open_folder(&f, folder, base, false, err));
    SD_TRY(sd_adapter_ranks_of(rank, f.pairs, folder, base, err));
out:
    close_folder(&f);
    return st;
}

sd_status sd_adapter_read_peft(sd_adapter **out, const char *folder, sd_model *base, bool any_base,
                               sd_error *err) {
    sd_status st = SD_OK;
    peft_folder f = {0};
    sd_adapter *a = NULL;
    SD_TRY(open_folder(&f, folder, base, true, err));
    SD_TRY(sd_adapter_build(&a, f.pairs, folder, base, false, err));
    SD_TRY(sd_sha256_of(&a->sha256, f.data, f.size, err));
    sd_base_record r = recorded(f.weights);
    SD_TRY(sd_adapter_check_base(a, &r, base, any_base, err));
    *out = a;
    a = NULL;
out:
    sd_adapter_release(a);
    close_folder(&f);
    return st;
}
