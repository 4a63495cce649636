// Architectures and the linear maps of their blocks: the names that files and other rooms use.
#include "model/arch/table.h"

#include <string.h>

static const sd_arch_row archs[SD_ARCH_COUNT] = {
    [SD_ARCH_LLAMA] = {.name = "llama", .gguf_interleaved = true, .always_window = true},
    [SD_ARCH_QWEN2] = {.name = "qwen2", .qkv_bias = true},
    [SD_ARCH_QWEN3] = {.name = "qwen3", .qk_norm = true, .head_dim = 128},
};

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

const sd_arch_row *sd_arch_row_of(sd_arch a) {
    return &archs[a];
}
const char *sd_arch_name(sd_arch a) {
    return (unsigned)a < SD_ARCH_COUNT ? archs[a].name : "unknown";
}
bool sd_arch_from_name(const char *name, sd_arch *out) {
    for (int a = 0; a < SD_ARCH_COUNT; a++) {
        if (strcmp(name, archs[a].name) != 0) continue;
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
