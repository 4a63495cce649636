// The architectures that there are, and what most of them share.
#include "model/arch/arch.h"

#include <stdio.h>
#include <string.h>

static const sd_arch *const archs[] = {&sd_arch_llama, &sd_arch_qwen2, &sd_arch_qwen3,
                                       &sd_arch_gemma3, &sd_arch_phi3};
enum { ARCHS = sizeof archs / sizeof archs[0] };

const sd_linear_kind sd_plain_linears[SD_PROJ_COUNT] = {
    {"q_proj", "self_attn.q_proj", "attn_q", SD_WQ, 1},
    {"k_proj", "self_attn.k_proj", "attn_k", SD_WK, 1},
    {"v_proj", "self_attn.v_proj", "attn_v", SD_WV, 1},
    {"o_proj", "self_attn.o_proj", "attn_output", SD_WO, 1},
    {"gate_proj", "mlp.gate_proj", "ffn_gate", SD_WGATE, 1},
    {"up_proj", "mlp.up_proj", "ffn_up", SD_WUP, 1},
    {"down_proj", "mlp.down_proj", "ffn_down", SD_WDOWN, 1},
};

const sd_arch *sd_arch_at(int i) {
    return i >= 0 && i < ARCHS ? archs[i] : NULL;
}

const char *sd_arch_name(const sd_arch *a) {
    return a ? a->name : "unknown";
}

const sd_arch *sd_arch_find(const char *name) {
    for (int i = 0; i < ARCHS; i++)
        if (strcmp(name, archs[i]->name) == 0) return archs[i];
    return NULL;
}

const sd_arch *sd_arch_of_config(const char *model_type) {
    for (int i = 0; i < ARCHS; i++)
        for (int k = 0; archs[i]->model_type[k]; k++)
            if (strcmp(model_type, archs[i]->model_type[k]) == 0) return archs[i];
    return NULL;
}

static const char *join(char *room, size_t size, const char *const *name, int n) {
    size_t at = 0;
    room[0] = 0;
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(room + at, size - at, "%s%s",
                               i == 0       ? ""
                               : i == n - 1 ? " and "
                                            : ", ",
                               name[i]);
    return room;
}

const char *sd_arch_names(char *room, size_t size, bool of_config) {
    const char *name[2 * ARCHS + 1];
    int n = 0;
    for (int i = 0; i < ARCHS; i++) {
        if (!of_config) name[n++] = archs[i]->name;
        for (int k = 0; of_config && k < 2 && archs[i]->model_type[k]; k++)
            name[n++] = archs[i]->model_type[k];
    }
    return join(room, size, name, n);
}

const char *sd_linear_names(char *room, size_t size, const sd_model *m) {
    const char *name[SD_PROJ_COUNT];
    int n = m->hp.arch->linears;
    for (int i = 0; i < n; i++) name[i] = m->hp.arch->linear[i].leaf;
    return join(room, size, name, n);
}

void sd_proj_shape(const sd_hparams *hp, sd_proj p, int *out_rows, int *in_cols) {
    const int q = hp->H * hp->D, kv = hp->G * hp->D;
    const int rows[SD_PROJ_COUNT] = {q, kv, kv, hp->C, hp->F, hp->F, hp->C},
              cols[SD_PROJ_COUNT] = {hp->C, hp->C, hp->C, q, hp->C, hp->C, hp->F};
    *out_rows = rows[p];
    *in_cols = cols[p];
}
