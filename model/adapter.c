// Reading adapters. Two file forms (PEFT folder, GGUF-LoRA) end in one memory form: fp32 factors in
// the basis of the base they were opened for.
//
// The basis matters for q and k of GGUF files of architecture llama alone. There the converter
// reorders each head's rows from (half, pair) to (pair, half), so that rotation pairs stand side by
// side; the rows of B follow W, A is untouched.
#include "model/adapter.h"

#include "base/file.h"
#include "base/json.h"
#include "model/adapter_basis.h"
#include "model/adapter_pack.h"
#include "model/gguf.h"
#include "model/safetensors.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <math.h>
#include <pcre2.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>

enum { MAX_CONFIG_BYTES = 1 << 20 };

typedef struct {
    atomic_int references;
    float *factors; // all A and B, one after another
    sd_adapter_cache packs;
} owner;

static atomic_uint_fast64_t next_generation = 1;

bool sd_adapter_row_moves(const sd_model *base, sd_proj p, bool file_interleaved) {
    return (p == SD_WQ || p == SD_WK) && base->hp.rope_interleaved != file_interleaved;
}

int sd_adapter_interleave_row(int row, int D) {
    int head = row / D, within = row % D, half = within / (D / 2), pair = within % (D / 2);
    return head * D + 2 * pair + half;
}

// ---- life

static sd_status new_adapter(sd_adapter **out, const char *name, const char *path,
                             const sd_model *base, size_t floats, sd_error *err) {
    sd_status st = SD_OK;
    owner *o = NULL;
    sd_adapter *a = sd_alloc(1, sizeof *a);
    SD_CHECK_ALLOC(a, err);
    o = sd_alloc(1, sizeof *o);
    SD_CHECK_ALLOC(o, err);
    a->owned = o;
    sd_adapter_cache_init(&o->packs);
    atomic_init(&o->references, 1);
    o->factors = sd_alloc(floats, sizeof(float));
    a->name = sd_strdup(name);
    a->path = sd_strdup(path ? path : "");
    a->L = base->hp.L;
    a->lora = sd_alloc((size_t)base->hp.L * SD_PROJ_COUNT, sizeof *a->lora);
    a->generation = atomic_fetch_add(&next_generation, 1);
    if (!o->factors || !a->name || !a->path || !a->lora)
        st = sd_fail(err, SD_ENOMEM, "%s: out of memory", name);
out:
    if (st != SD_OK) {
        if (a && !o)
            free(a);
        else
            sd_adapter_release(a);
        a = NULL;
    }
    *out = a;
    return st;
}

sd_adapter *sd_adapter_acquire(sd_adapter *a) {
    if (a) atomic_fetch_add(&((owner *)a->owned)->references, 1);
    return a;
}

void sd_adapter_release(sd_adapter *a) {
    if (!a) return;
    owner *o = a->owned;
    if (atomic_fetch_sub(&o->references, 1) != 1) return;
    sd_adapter_cache_free(&o->packs, a->L * SD_PROJ_COUNT);
    free(o->factors);
    free(o);
    free(a->name);
    free(a->path);
    free(a->lora);
    free(a);
}

sd_status sd_adapter_packed(const sd_adapter_packs **out, const sd_adapter *a, const sd_model *base,
                            const sd_ops *ops, sd_compute compute, sd_error *err) {
    owner *o = a->owned;
    return sd_adapter_cache_get(out, &o->packs, a, base, ops, compute, err);
}

static void summarise(sd_adapter *a, const sd_model *base) {
    for (int i = 0; i < a->L * SD_PROJ_COUNT; i++) {
        int out, in, r = a->lora[i].r;
        sd_proj_shape(&base->hp, (sd_proj)(i % SD_PROJ_COUNT), &out, &in);
        if (r > a->max_r) a->max_r = r;
        a->n_params += (int64_t)r * (out + in);
    }
}

sd_status sd_adapter_from_factors(sd_adapter **out, const char *name, const sd_lora *lora,
                                  const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    sd_adapter *a = NULL;
    size_t floats = 0;
    int slots = base->hp.L * SD_PROJ_COUNT, rows, cols;
    *out = NULL;
    for (int i = 0; i < slots; i++) {
        SD_CHECK(lora[i].r >= 0 && lora[i].r <= SD_MAX_RANK, err, SD_EINVAL,
                 "%s: r is %d, at most %d is supported", name, lora[i].r, SD_MAX_RANK);
        sd_proj_shape(&base->hp, (sd_proj)(i % SD_PROJ_COUNT), &rows, &cols);
        floats += (size_t)lora[i].r * (size_t)(rows + cols);
    }
    SD_TRY(new_adapter(&a, name, NULL, base, floats, err));
    float *next = ((owner *)a->owned)->factors;
    for (int i = 0; i < slots; i++) {
        if (!lora[i].r) continue;
        sd_proj_shape(&base->hp, (sd_proj)(i % SD_PROJ_COUNT), &rows, &cols);
        size_t n_a = (size_t)lora[i].r * (size_t)cols, n_b = (size_t)lora[i].r * (size_t)rows;
        memcpy(next, lora[i].A, n_a * sizeof *next);
        memcpy(next + n_a, lora[i].B, n_b * sizeof *next);
        a->lora[i] = (sd_lora){lora[i].r, next, next + n_a, lora[i].scale};
        next += n_a + n_b;
    }
    summarise(a, base);
    *out = a;
    a = NULL;
out:
    sd_adapter_release(a);
    return st;
}

// ---- what both file forms share: a list of found factors, then one copy into the adapter

typedef struct {
    const char *name; // of the tensor, for messages
    sd_dtype dtype;
    int64_t rows, cols;
    const void *data;
} factor;

typedef struct {
    factor a, b;
    float scale;
} found_slot;

static sd_status check_pair(const found_slot *f, const sd_model *base, int slot, const char *path,
                            sd_error *err) {
    sd_status st = SD_OK;
    int out_rows, in_cols;
    sd_proj_shape(&base->hp, (sd_proj)(slot % SD_PROJ_COUNT), &out_rows, &in_cols);
    SD_CHECK(f->a.data && f->b.data, err, SD_EFORMAT,
             "%s: %s has no partner (lora_A and lora_B come in pairs)", path,
             f->a.data ? f->a.name : f->b.name);
    SD_CHECK(f->a.rows >= 1 && f->a.rows <= SD_MAX_RANK, err, SD_EFORMAT,
             "%s: %s: rank %lld, 1 to %d is supported", path, f->a.name, (long long)f->a.rows,
             SD_MAX_RANK);
    SD_CHECK(f->b.cols == f->a.rows, err, SD_EFORMAT,
             "%s: %s has rank %lld and %s has rank %lld; they must agree", path, f->a.name,
             (long long)f->a.rows, f->b.name, (long long)f->b.cols);
    SD_CHECK(f->a.cols == in_cols && f->b.rows == out_rows, err, SD_EINVAL,
             "%s: %s and its partner are for a [%lld, %lld] weight, but %s has [%d, %d]; the "
             "adapter belongs to another base; give that one",
             path, f->a.name, (long long)f->b.rows, (long long)f->a.cols, base->path, out_rows,
             in_cols);
    SD_CHECK(isfinite(f->scale), err, SD_EFORMAT, "%s: the scale of %s is not finite", path,
             f->a.name);
out:
    return st;
}

static sd_status build(sd_adapter **out, const found_slot *slots, const char *path, sd_model *base,
                       bool interleaved, sd_error *err) {
    sd_status st = SD_OK;
    sd_adapter *a = NULL;
    size_t floats = 0;
    int n = base->hp.L * SD_PROJ_COUNT, D = base->hp.D;
    for (int i = 0; i < n; i++) {
        if (!slots[i].a.data && !slots[i].b.data) continue;
        SD_TRY(check_pair(&slots[i], base, i, path, err));
        floats += (size_t)slots[i].a.rows * (size_t)(slots[i].a.cols + slots[i].b.rows);
    }
    SD_CHECK(floats > 0, err, SD_EFORMAT, "%s: holds no LoRA factors", path);
    const char *slash = strrchr(path, '/');
    SD_TRY(new_adapter(&a, slash && slash[1] ? slash + 1 : path, path, base, floats, err));
    float *next = ((owner *)a->owned)->factors;
    for (int i = 0; i < n; i++) {
        const found_slot *f = &slots[i];
        if (!f->a.data) continue;
        int r = (int)f->a.rows, in = (int)f->a.cols, rows = (int)f->b.rows;
        float *A = next, *B = next + (size_t)r * (size_t)in;
        next = B + (size_t)r * (size_t)rows;
        sd_dequantise(A, f->a.dtype, f->a.data, r * in);
        bool moves = sd_adapter_row_moves(base, (sd_proj)(i % SD_PROJ_COUNT), interleaved);
        size_t row_bytes = sd_row_bytes(f->b.dtype, r);
        for (int row = 0; row < rows; row++) {
            // `to` walks the rows in the half layout; its partner index is the interleaved one.
            int other = moves ? sd_adapter_interleave_row(row, D) : row;
            int from = interleaved ? other : row, to = interleaved ? row : other;
            sd_dequantise(B + (size_t)to * (size_t)r, f->b.dtype,
                          (const char *)f->b.data + (size_t)from * row_bytes, r);
        }
        a->lora[i] = (sd_lora){r, A, B, f->scale};
    }
    summarise(a, base);
    *out = a;
    a = NULL;
out:
    sd_adapter_release(a);
    return st;
}

static sd_status check_base_hash(sd_adapter *a, const char *recorded, size_t len, sd_model *base,
                                 sd_error *err) {
    sd_status st = SD_OK;
    if (!recorded || len != 64) return SD_OK;
    sd_sha256 have;
    memcpy(a->base_sha256.hex, recorded, 64);
    SD_TRY(sd_model_sha256(base, &have, err));
    SD_CHECK(sd_sha256_equal(&have, &a->base_sha256), err, SD_EINVAL,
             "%s was trained on a base with SHA-256 %.12s..., but %s has %.12s...; give the base "
             "it was trained on",
             a->path, a->base_sha256.hex, base->path, have.hex);
out:
    return st;
}

// ---- PEFT folder

typedef struct {
    double alpha;
    bool rslora;
    const json_t *alpha_pattern;
} peft_config;

static sd_status read_config(json_t **root, peft_config *c, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    json_error_t je;
    SD_TRY(sd_file_read(&text, &len, path, MAX_CONFIG_BYTES, err));
    SD_TRY(sd_json_load(root, text, len, JSON_REJECT_DUPLICATES, &je, err));
    SD_CHECK(json_is_object(*root), err, SD_EFORMAT, "%s:%d:%d: not a JSON object: %s", path,
             je.line, je.column, je.text);
    const char *type = json_string_value(json_object_get(*root, "peft_type"));
    SD_CHECK(type && strcmp(type, "LORA") == 0, err, SD_EFORMAT,
             "%s: peft_type is %s, only LORA is supported", path, type ? type : "missing");
    static const char *const unsupported[] = {"use_dora", "fan_in_fan_out", "lora_bias", NULL};
    for (int i = 0; unsupported[i]; i++)
        SD_CHECK(!json_is_true(json_object_get(*root, unsupported[i])), err, SD_EFORMAT,
                 "%s: %s is true, which is not supported", path, unsupported[i]);
    // These also change the base when they begin, or apply to a part of the prompt alone.
    static const char *const replaces[] = {"pissa", "olora", "corda", "loftq", NULL};
    const char *init = json_string_value(json_object_get(*root, "init_lora_weights"));
    for (int i = 0; init && replaces[i]; i++)
        SD_CHECK(strncasecmp(init, replaces[i], strlen(replaces[i])) != 0, err, SD_EFORMAT,
                 "%s: init_lora_weights is %.32s, whose factors go with a changed base; convert "
                 "them to plain LoRA when saving",
                 path, init);
    const json_t *invocation = json_object_get(*root, "alora_invocation_tokens");
    SD_CHECK(!invocation || json_is_null(invocation), err, SD_EFORMAT,
             "%s: alora_invocation_tokens is set, which is not supported", path);
    const json_t *save = json_object_get(*root, "modules_to_save");
    SD_CHECK(!json_is_array(save) || json_array_size(save) == 0, err, SD_EFORMAT,
             "%s: modules_to_save is not empty; only LoRA factors are supported", path);
    const json_t *alpha = json_object_get(*root, "lora_alpha");
    SD_CHECK(json_is_number(alpha), err, SD_EFORMAT, "%s: lora_alpha is missing or not a number",
             path);
    c->alpha = json_number_value(alpha);
    c->rslora = json_is_true(json_object_get(*root, "use_rslora"));
    c->alpha_pattern = json_object_get(*root, "alpha_pattern");
out:
    free(text);
    return st;
}

// PEFT takes a pattern's key as a regular expression for the end of a module's name, after a dot or
// from the start.
static bool pattern_matches(const char *key, const char *module) {
    bool hit = false;
    char *expression = sd_sprintf("^(.*\\.)?(%s)$", key);
    if (!expression) return false;
    int code;
    PCRE2_SIZE at;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL);
    pcre2_match_data *md = re ? pcre2_match_data_create_from_pattern(re, NULL) : NULL;
    pcre2_match_context *mc = md ? pcre2_match_context_create(NULL) : NULL;
    if (mc) {
        pcre2_set_match_limit(mc, 100000);
        hit = pcre2_match(re, (PCRE2_SPTR)module, strlen(module), 0, 0, md, mc) >= 0;
    }
    pcre2_match_context_free(mc);
    pcre2_match_data_free(md);
    pcre2_code_free(re);
    free(expression);
    return hit;
}

static double slot_alpha(const peft_config *c, const char *module) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)c->alpha_pattern, key, value) {
        if (json_is_number(value) && pattern_matches(key, module)) return json_number_value(value);
    }
    return c->alpha;
}

// "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight" -> slot, 'B'; the module's name is
// what stands before ".lora_".
static bool parse_peft_name(const char *name, int L, int *slot, char *which, char *module,
                            size_t module_size) {
    int layer, used = 0;
    if (strncmp(name, "base_model.model.", 17) != 0) return false;
    const char *at = strstr(name, "layers.");
    if (!at || sscanf(at, "layers.%d.%n", &layer, &used) != 1 || !used || layer < 0 || layer >= L)
        return false;
    const char *lora = strstr(at, ".lora_");
    if (!lora || (lora[6] != 'A' && lora[6] != 'B') || strcmp(lora + 7, ".weight") != 0)
        return false;
    for (int p = 0; p < SD_PROJ_COUNT; p++) {
        const char *m = sd_proj_module((sd_proj)p);
        size_t n = strlen(m);
        if ((size_t)(lora - (at + used)) != n || memcmp(at + used, m, n) != 0) continue;
        *slot = layer * SD_PROJ_COUNT + p;
        *which = lora[6];
        snprintf(module, module_size, "%.*s", (int)(lora - (name + 17)), name + 17);
        return true;
    }
    return false;
}

static sd_status open_peft(sd_adapter **out, const char *folder, sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    json_t *root = NULL;
    sd_safetensors *s = NULL;
    found_slot *slots = NULL;
    peft_config c = {0};
    sd_adapter *a = NULL;
    char *config_path = sd_path_join(folder, "adapter_config.json");
    char *weights_path = sd_path_join(folder, "adapter_model.safetensors");
    SD_CHECK_ALLOC(config_path, err);
    SD_CHECK_ALLOC(weights_path, err);
    SD_TRY(read_config(&root, &c, config_path, err));
    SD_TRY(sd_safetensors_open(&s, weights_path, err));
    slots = sd_alloc((size_t)base->hp.L * SD_PROJ_COUNT, sizeof *slots);
    SD_CHECK_ALLOC(slots, err);
    for (int i = 0; i < sd_safetensors_count(s); i++) {
        const sd_st_tensor *t = sd_safetensors_at(s, i);
        int slot;
        char which, module[256];
        SD_CHECK(
            parse_peft_name(t->name, base->hp.L, &slot, &which, module, sizeof module), err,
            SD_EINVAL,
            "%s: %s has no place in %s (%d layers, all linear maps of a block are known); give the "
            "base it was trained on",
            weights_path, t->name, base->path, base->hp.L);
        SD_CHECK(t->n_dims == 2 && t->data, err, SD_EFORMAT,
                 "%s: %s: not a matrix of F32, F16 or BF16 (%s)", weights_path, t->name,
                 t->dtype_name);
        factor f = {t->name, t->dtype, t->shape[0], t->shape[1], t->data};
        SD_CHECK(!(which == 'A' ? slots[slot].a.data : slots[slot].b.data), err, SD_EFORMAT,
                 "%s: %s names a factor that another tensor holds already", weights_path, t->name);
        if (which == 'B') {
            slots[slot].b = f;
            continue;
        }
        slots[slot].a = f;
        double r = t->shape[0] > 0 ? (double)t->shape[0] : 1, alpha = slot_alpha(&c, module);
        slots[slot].scale = (float)(alpha / (c.rslora ? sqrt(r) : r));
    }
    SD_TRY(build(&a, slots, folder, base, false, err));
    SD_TRY(sd_sha256_of_map(&a->sha256, sd_safetensors_source(s, 0), weights_path, err));
    SD_TRY(sd_safetensors_check(s, err)); // the factors and the hash are of the same bytes
    const char *recorded = sd_safetensors_metadata(s, "specdec.base_sha256");
    SD_TRY(check_base_hash(a, recorded, recorded ? strlen(recorded) : 0, base, err));
    *out = a;
    a = NULL;
out:
    sd_adapter_release(a);
    free(slots);
    sd_safetensors_close(s);
    json_decref(root);
    free(config_path);
    free(weights_path);
    return st;
}

// ---- GGUF-LoRA

// "blk.3.ffn_up.weight.lora_b"
static bool parse_gguf_name(const char *name, int L, int *slot, char *which) {
    int layer, used = 0;
    if (sscanf(name, "blk.%d.%n", &layer, &used) != 1 || !used || layer < 0 || layer >= L)
        return false;
    for (int p = 0; p < SD_PROJ_COUNT; p++) {
        const char *g = sd_proj_gguf_name((sd_proj)p);
        size_t n = strlen(g);
        if (strncmp(name + used, g, n) != 0) continue;
        const char *rest = name + used + n;
        if (strcmp(rest, ".weight.lora_a") != 0 && strcmp(rest, ".weight.lora_b") != 0) continue;
        *slot = layer * SD_PROJ_COUNT + p;
        *which = (char)(rest[13] - 'a' + 'A');
        return true;
    }
    return false;
}

static sd_status open_gguf(sd_adapter **out, const char *path, sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf *g = NULL;
    found_slot *slots = NULL;
    sd_adapter *a = NULL;
    sd_gguf_string s = {0};
    float alpha = 0;
    bool has;
    SD_TRY(sd_gguf_open(&g, path, err));
    SD_TRY(sd_gguf_refuse_split(g, err));
    SD_CHECK(sd_gguf_str_is(g, "general.type", "adapter"), err, SD_EFORMAT,
             "%s: is a GGUF file but not an adapter (general.type)", path);
    SD_CHECK(sd_gguf_str_is(g, "adapter.type", "lora"), err, SD_EFORMAT,
             "%s: adapter.type is not lora; only LoRA is supported", path);
    const char *arch = sd_arch_name(base->hp.arch);
    SD_TRY(sd_gguf_str(g, "general.architecture", &s, &has, err));
    SD_CHECK(has, err, SD_EFORMAT, "%s: general.architecture is missing", path);
    SD_CHECK(sd_gguf_str_is(g, "general.architecture", arch), err, SD_EINVAL,
             "%s: is for architecture %.*s, but %s is %s; give the base it was trained on", path,
             (int)(s.len < 64 ? s.len : 64), s.data, base->path, arch);
    SD_TRY(sd_gguf_f32(g, "adapter.lora.alpha", &alpha, &has, err));
    SD_CHECK(has, err, SD_EFORMAT, "%s: adapter.lora.alpha is missing", path);
    slots = sd_alloc((size_t)base->hp.L * SD_PROJ_COUNT, sizeof *slots);
    SD_CHECK_ALLOC(slots, err);
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        int slot;
        char which;
        SD_CHECK(parse_gguf_name(t->name, base->hp.L, &slot, &which), err, SD_EINVAL,
                 "%s: %s has no place in %s (%d layers); give the base it was trained on", path,
                 t->name, base->path, base->hp.L);
        SD_CHECK(t->n_dims == 2 &&
                     (t->dtype == SD_F32 || t->dtype == SD_F16 || t->dtype == SD_BF16),
                 err, SD_EFORMAT, "%s: %s: not a matrix of F32, F16 or BF16", path, t->name);
        factor f = {t->name, t->dtype, t->ne[1], t->ne[0], t->data};
        SD_CHECK(!(which == 'A' ? slots[slot].a.data : slots[slot].b.data), err, SD_EFORMAT,
                 "%s: %s names a factor that another tensor holds already", path, t->name);
        if (which == 'A')
            slots[slot].a = f;
        else
            slots[slot].b = f;
        if (which == 'A')
            slots[slot].scale = (float)((double)alpha / (double)(t->ne[1] > 0 ? t->ne[1] : 1));
    }
    SD_TRY(build(&a, slots, path, base, base->hp.arch == SD_ARCH_LLAMA, err));
    SD_TRY(sd_sha256_of_map(&a->sha256, sd_gguf_source(g), path, err));
    SD_TRY(sd_gguf_check(g, err)); // the factors and the hash are of the same bytes
    SD_TRY(sd_gguf_str(g, "specdec.base_sha256", &s, &has, err));
    SD_TRY(check_base_hash(a, has ? s.data : NULL, has ? s.len : 0, base, err));
    *out = a;
    a = NULL;
out:
    sd_adapter_release(a);
    free(slots);
    sd_gguf_close(g);
    return st;
}

// A finished run's manifest binds its adapter: bytes that changed since are not the adapter that
// was trained and verified. A run without a manifest has nothing to hold against.
static sd_status check_manifest(const sd_adapter *a, const char *run, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL, *path = sd_path_join(run, "manifest.json");
    json_t *root = NULL;
    size_t len;
    SD_CHECK_ALLOC(path, err);
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_NONE) goto out;
    SD_TRY(sd_file_read(&text, &len, path, MAX_CONFIG_BYTES, err));
    SD_TRY(sd_json_load(&root, text, len, JSON_REJECT_DUPLICATES, NULL, err));
    const char *want = json_string_value(
        json_object_get(json_object_get(json_object_get(root, "artefacts"), "adapter"), "sha256"));
    SD_CHECK(want, err, SD_EFORMAT, "%s: names no adapter with its SHA-256; the run is damaged",
             path);
    SD_CHECK(strcmp(want, a->sha256.hex) == 0, err, SD_EINVAL,
             "%s: the adapter has SHA-256 %.12s..., its run's manifest says %.12s...; it changed "
             "after training, restore it or train again",
             a->path, a->sha256.hex, want);
out:
    json_decref(root);
    free(text);
    free(path);
    return st;
}

sd_status sd_adapter_open(sd_adapter **out, const char *path, sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    char *nested = NULL;
    sd_path_kind kind, config, nested_config;
    *out = NULL;
    SD_TRY(sd_path_look(&kind, path, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_ENOTFOUND, "%s: no such adapter; check the path", path);
    if (kind != SD_PATH_FOLDER) return open_gguf(out, path, base, err);
    nested = sd_path_join(path, "adapter");
    SD_CHECK_ALLOC(nested, err);
    SD_TRY(sd_path_look_in(&config, path, "adapter_config.json", err));
    SD_TRY(sd_path_look_in(&nested_config, nested, "adapter_config.json", err));
    bool is_run = config == SD_PATH_NONE;
    SD_CHECK(!is_run || nested_config != SD_PATH_NONE, err, SD_ENOTFOUND,
             "%s: holds neither adapter_config.json nor adapter/adapter_config.json; give a PEFT "
             "folder, a run's folder or a GGUF-LoRA file",
             path);
    SD_TRY(open_peft(out, is_run ? nested : path, base, err));
    if (is_run) SD_TRY(check_manifest(*out, path, err));
out:
    if (st != SD_OK) {
        sd_adapter_release(*out);
        *out = NULL;
    }
    free(nested);
    return st;
}
