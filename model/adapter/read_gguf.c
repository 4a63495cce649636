// GGUF-LoRA files, as llama.cpp's convert_lora_to_gguf.py writes them.
#include "model/adapter/read.h"

#include "base/files/map.h"
#include "base/memory.h"
#include "model/arch/arch.h"
#include "model/formats/gguf.h"

#include <stdio.h>
#include <string.h>

// "blk.3.ffn_up.weight.lora_b"
static bool parse_gguf_name(const char *name, const sd_model *base, int *linear, char *which) {
    int layer, used = 0;
    if (sscanf(name, "blk.%d.%n", &layer, &used) != 1 || !used || layer < 0 || layer >= base->hp.L)
        return false;
    const int each = base->n_linears / base->hp.L;
    for (int i = layer * each; i < (layer + 1) * each; i++) {
        const char *g = base->linear[i].kind->gguf;
        size_t n = strlen(g);
        if (strncmp(name + used, g, n) != 0) continue;
        const char *rest = name + used + n;
        if (strcmp(rest, ".weight.lora_a") != 0 && strcmp(rest, ".weight.lora_b") != 0) continue;
        *linear = i;
        *which = (char)(rest[13] - 'a' + 'A');
        return true;
    }
    return false;
}

// What the file must say before its tensors mean anything; *alpha of all slots.
static sd_status read_keys(float *alpha, const sd_gguf *g, const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    const char *path = sd_gguf_path(g), *arch = sd_arch_name(base->hp.arch);
    sd_gguf_string s = {0};
    bool has;
    SD_TRY(sd_gguf_refuse_split(g, err));
    SD_CHECK(sd_gguf_str_is(g, "general.type", "adapter"), err, SD_EFORMAT,
             "%s: is a GGUF file but not an adapter (general.type)", path);
    SD_CHECK(sd_gguf_str_is(g, "adapter.type", "lora"), err, SD_EFORMAT,
             "%s: adapter.type is not lora; only LoRA is supported", path);
    SD_TRY(sd_gguf_str(g, "general.architecture", &s, &has, err));
    SD_CHECK(has, err, SD_EFORMAT, "%s: general.architecture is missing", path);
    SD_CHECK(sd_gguf_str_is(g, "general.architecture", arch), err, SD_EINVAL,
             "%s: is for architecture %.*s, but %s is %s; give the base it was trained on", path,
             (int)(s.len < 64 ? s.len : 64), s.data, base->path, arch);
    SD_TRY(sd_gguf_f32(g, "adapter.lora.alpha", alpha, &has, err));
    SD_CHECK(has, err, SD_EFORMAT, "%s: adapter.lora.alpha is missing", path);
out:
    return st;
}

static sd_status read_factors(sd_factor_pair *pairs, const sd_gguf *g, float alpha,
                              const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    const char *path = sd_gguf_path(g);
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        int linear;
        char which;
        SD_CHECK(parse_gguf_name(t->name, base, &linear, &which), err, SD_EINVAL,
                 "%s: %s has no place in %s (%d layers, the linear maps of a block); give the base "
                 "it was trained on",
                 path, t->name, base->path, base->hp.L);
        SD_CHECK(t->n_dims == 2 &&
                     (t->dtype == SD_F32 || t->dtype == SD_F16 || t->dtype == SD_BF16),
                 err, SD_EFORMAT, "%s: %s: not a matrix of F32, F16 or BF16", path, t->name);
        sd_factor *f = which == 'A' ? &pairs[linear].a : &pairs[linear].b;
        *f = (sd_factor){t->name, t->dtype, t->ne[1], t->ne[0], t->data}; // names are unique
        if (which == 'A') pairs[linear].scale = (float)((double)alpha / (double)t->ne[1]);
    }
out:
    return st;
}

static sd_status read_record(sd_base_record *r, const sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_string sha256 = {0}, sketch = {0};
    SD_TRY(sd_gguf_str(g, "specdec.base_sha256", &sha256, NULL, err));
    SD_TRY(sd_gguf_str(g, "specdec.base_sketch", &sketch, NULL, err));
    *r = (sd_base_record){sha256.data, sketch.data, sha256.len, sketch.len};
out:
    return st;
}

sd_status sd_adapter_ranks_gguf(int *rank, const char *path, const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf *g = NULL;
    sd_factor_pair *pairs = NULL;
    float alpha = 0;
    SD_TRY(sd_gguf_open(&g, path, err));
    SD_TRY(read_keys(&alpha, g, base, err));
    pairs = sd_alloc((size_t)base->n_linears, sizeof *pairs);
    SD_CHECK_ALLOC(pairs, err);
    SD_TRY(read_factors(pairs, g, alpha, base, err));
    SD_TRY(sd_adapter_ranks_of(rank, pairs, path, base, err));
out:
    free(pairs);
    sd_gguf_close(g);
    return st;
}

sd_status sd_adapter_read_gguf(sd_adapter **out, const char *path, sd_model *base, bool any_base,
                               sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf *g = NULL;
    sd_factor_pair *pairs = NULL;
    sd_adapter *a = NULL;
    sd_base_record r;
    float alpha = 0;
    void *data = NULL;
    size_t size;
    SD_TRY(sd_file_load(&data, &size, path, err));
    SD_TRY(sd_gguf_from_memory(&g, data, size, path, err));
    SD_TRY(read_keys(&alpha, g, base, err));
    pairs = sd_alloc((size_t)base->n_linears, sizeof *pairs);
    SD_CHECK_ALLOC(pairs, err);
    SD_TRY(read_factors(pairs, g, alpha, base, err));
    SD_TRY(sd_adapter_build(&a, pairs, path, base, base->hp.arch->gguf_interleaved, err));
    SD_TRY(sd_sha256_of(&a->sha256, data, size, err));
    SD_TRY(read_record(&r, g, err));
    SD_TRY(sd_adapter_check_base(a, &r, base, any_base, err));
    *out = a;
    a = NULL;
out:
    sd_adapter_release(a);
    free(pairs);
    sd_gguf_close(g);
    free(data);
    return st;
}
