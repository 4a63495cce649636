// Writing adapters for other tools. The readers of both forms have silent traps, so everything that
// could differ is folded into B: llama.cpp scales by alpha / rank of the tensor with one alpha for
// the file, and some servers ignore PEFT's rank and alpha patterns. Hence one alpha and (for PEFT)
// one rank for all: smaller ranks are padded with zeros, and a slot's own scale goes into B. A slot
// of the commonest kind is written bit for bit.
#include "model/adapter/adapter.h"

#include "base/files/cleanup.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/adapter/base_sketch.h"
#include "model/adapter/basis.h"
#include "model/adapter/chat_template.h"
#include "model/arch/arch.h"
#include "model/chat.h"
#include "model/formats/gguf_write.h"
#include "model/formats/safetensors.h"

#include <math.h>
#include <string.h>

// The alpha that leaves the first slot of the largest rank as it is.
static double common_alpha(const sd_adapter *a) {
    for (int i = 0; i < a->n_linears; i++)
        if (a->lora[i].r == a->max_r) return (double)a->lora[i].scale * a->max_r;
    return 1;
}

// B [rows, r] -> out [rows, r_out] times factor, rows in the file's order.
static void lay_out_b(float *out, const sd_lora *l, int rows, int r_out, double factor, bool moves,
                      bool file_interleaved, int D) {
    for (int row = 0; row < rows; row++) {
        int other = moves ? sd_adapter_interleave_row(row, D) : row;
        int from = file_interleaved ? row : other, to = file_interleaved ? other : row;
        const float *b = l->B + (size_t)from * (size_t)l->r;
        float *y = out + (size_t)to * (size_t)r_out;
        for (int k = 0; k < l->r; k++) y[k] = factor == 1 ? b[k] : (float)(b[k] * factor);
        for (int k = l->r; k < r_out; k++) y[k] = 0;
    }
}

// ---- which base it is for

// The model that the adapter was trained on: what its own file said, else `base`.
typedef struct {
    sd_sha256 sha256;
    char *sketch; // NULL: not known
} record;

static sd_status make_record(record *r, const sd_adapter *a, sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    *r = (record){.sha256 = a->base_sha256};
    if (!r->sha256.hex[0]) {
        SD_TRY(sd_model_sha256(base, &r->sha256, err));
        SD_TRY(sd_base_sketch(&r->sketch, base, err));
    } else if (a->base_sketch) {
        r->sketch = sd_strdup(a->base_sketch);
        SD_CHECK_ALLOC(r->sketch, err);
    }
out:
    return st;
}

// ---- PEFT

// Some layer has factors of this kind.
static bool kind_used(const sd_adapter *a, const sd_model *base, const sd_linear_kind *kind) {
    for (int i = 0; i < a->n_linears; i++)
        if (base->linear[i].kind == kind && a->lora[i].r) return true;
    return false;
}

static sd_status write_config(const char *path, const sd_adapter *a, const sd_model *base,
                              const char *base_id, double alpha, sd_error *err) {
    if (!base_id && !sd_model_is_gguf(base)) base_id = base->path;
    sd_status st = SD_OK;
    char *text = NULL;
    json_t *targets = json_array();
    for (int i = 0; i < base->n_linears / base->hp.L; i++)
        if (kind_used(a, base, base->linear[i].kind))
            json_array_append_new(targets, json_string(base->linear[i].kind->leaf));
    json_t *number = alpha == floor(alpha) && fabs(alpha) < 1e15 ? json_integer((json_int_t)alpha)
                                                                 : json_real(alpha);
    json_t *root = json_pack(
        "{s:s, s:s, s:s?, s:b, s:i, s:o, s:f, s:o, s:s, s:b, s:b, s:{}, s:{}, s:b, s:b, s:n, s:n, "
        "s:n, s:n}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base_id,
        "inference_mode", 1, "r", a->max_r, "lora_alpha", number, "lora_dropout", 0.0,
        "target_modules", targets, "bias", "none", "use_rslora", 0, "use_dora", 0, "rank_pattern",
        "alpha_pattern", "fan_in_fan_out", 0, "init_lora_weights", 1, "modules_to_save",
        "layers_to_transform", "layers_pattern", "revision");
    SD_CHECK(root || sd_memory_lost(), err, SD_EINVAL,
             "%s: the base's id or path is not UTF-8, as JSON must be; give another",
             base_id ? base_id : "");
    SD_CHECK_ALLOC(root, err);
    SD_TRY(sd_json_dump(&text, root, JSON_INDENT(2) | JSON_SORT_KEYS, err));
    SD_TRY(sd_file_write(path, text, strlen(text), err));
out:
    free(text);
    json_decref(root);
    return st;
}

// The tensors of the file, one rank R for all.
typedef struct {
    const sd_adapter *a;
    const sd_model *base;
    double alpha;
    sd_st_tensor *tensor; // [2 * n_linears], n of them
    int n;
    float *data; // their values
    sd_arena names;
} peft_job;

static sd_status add_tensor(peft_job *j, const sd_linear *m, char which, int rows, int cols,
                            const float *data, sd_error *err) {
    sd_status st = SD_OK;
    sd_st_tensor *t = &j->tensor[j->n];
    char name[160];
    int len = snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_%c.weight",
                       m->layer, m->kind->module, which);
    *t = (sd_st_tensor){.name = sd_arena_strndup(&j->names, name, (size_t)len),
                        .dtype = SD_F32,
                        .dtype_name = "F32",
                        .n_dims = 2,
                        .shape = {rows, cols},
                        .data = data,
                        .bytes = (size_t)rows * (size_t)cols * sizeof *data};
    SD_CHECK_ALLOC(t->name, err);
    j->n++;
out:
    return st;
}

// A target module that one layer lacks is written as zeros.
static sd_status peft_tensors(peft_job *j, sd_error *err) {
    sd_status st = SD_OK;
    const sd_adapter *a = j->a;
    const int R = a->max_r;
    size_t floats = 0;
    for (int i = 0; i < a->n_linears; i++) {
        const sd_linear *m = &j->base->linear[i];
        if (kind_used(a, j->base, m->kind)) floats += (size_t)R * (size_t)(m->w.rows + m->w.cols);
    }
    j->tensor = sd_alloc((size_t)a->n_linears * 2, sizeof *j->tensor);
    j->data = sd_alloc(floats, sizeof *j->data);
    SD_CHECK_ALLOC(j->tensor && j->data, err);
    float *next = j->data;
    for (int i = 0; i < a->n_linears; i++) {
        const sd_linear *m = &j->base->linear[i];
        const sd_lora *l = &a->lora[i];
        const int rows = m->w.rows, cols = m->w.cols;
        if (!kind_used(a, j->base, m->kind)) continue;
        float *A = next, *B = next + (size_t)R * (size_t)cols;
        next = B + (size_t)R * (size_t)rows;
        if (l->r) {
            memcpy(A, l->A, (size_t)l->r * (size_t)cols * sizeof *A);
            bool same = (double)l->scale == j->alpha / R || l->scale == (float)(j->alpha / R);
            double factor = same ? 1 : (double)l->scale * R / j->alpha;
            lay_out_b(B, l, rows, R, factor, sd_adapter_row_moves(j->base, i, false), false,
                      j->base->hp.D);
        }
        SD_TRY(add_tensor(j, m, 'A', R, cols, A, err));
        SD_TRY(add_tensor(j, m, 'B', rows, R, B, err));
    }
out:
    return st;
}

// The files of the folder, which is made; nothing half-written stays of one that was not there.
static sd_status write_folder(const char *dir, const peft_job *j, const record *of,
                              const char *base_id, sd_error *err) {
    sd_status st = SD_OK;
    char *config = sd_path_join(dir, "adapter_config.json"),
         *weights = sd_path_join(dir, "adapter_model.safetensors"), *folder = NULL;
    json_t *metadata = json_pack("{s:s, s:s, s:s*}", "format", "pt", "specdec.base_sha256",
                                 of->sha256.hex, "specdec.base_sketch", of->sketch);
    sd_path_kind there;
    bool made = false;
    SD_CHECK_ALLOC(config && weights && metadata, err);
    SD_TRY(sd_path_look(&there, dir, err));
    made = there == SD_PATH_NONE;
    folder = made ? sd_strdup(dir) : NULL;
    sd_cleanup_add(folder);
    SD_TRY(sd_mkdirs(dir, err));
    SD_TRY(sd_safetensors_write(weights, j->tensor, j->n, metadata, err));
    SD_TRY(write_config(config, j->a, j->base, base_id, j->alpha, err));
    SD_TRY(sd_adapter_write_template(dir, j->base, err));
out:
    if (st != SD_OK && made) (void)sd_remove_tree(dir, NULL);
    sd_cleanup_drop(folder);
    free(folder);
    json_decref(metadata);
    free(config);
    free(weights);
    return st;
}

sd_status sd_adapter_write_peft(const char *dir, const sd_adapter *a, sd_model *base,
                                const char *base_id, sd_error *err) {
    sd_status st = SD_OK;
    peft_job j = {.a = a, .base = base, .alpha = common_alpha(a)};
    record of = {0};
    SD_TRY(make_record(&of, a, base, err));
    SD_TRY(peft_tensors(&j, err));
    SD_TRY(write_folder(dir, &j, &of, base_id, err));
out:
    free(of.sketch);
    sd_arena_free(&j.names);
    free(j.data);
    free(j.tensor);
    return st;
}

// ---- GGUF

typedef struct {
    sd_gguf_writer *w;
    const sd_adapter *a;
    const sd_model *base;
    double alpha;
    float *b; // scratch for one B
} gguf_job;

static sd_status gguf_tensors(gguf_job *j, bool declare, sd_error *err) {
    sd_status st = SD_OK;
    bool interleaved = j->base->hp.arch->gguf_interleaved;
    for (int i = 0; i < j->a->n_linears; i++) {
        const sd_linear *m = &j->base->linear[i];
        const sd_lora *l = &j->a->lora[i];
        const int rows = m->w.rows, cols = m->w.cols;
        if (!l->r) continue;
        for (int which = 0; which < 2; which++) {
            int64_t ne[2] = {which ? l->r : cols, which ? rows : l->r};
            size_t bytes = (size_t)(ne[0] * ne[1]) * sizeof(float);
            if (declare) {
                char name[96];
                snprintf(name, sizeof name, "blk.%d.%s.weight.lora_%c", m->layer, m->kind->gguf,
                         which ? 'b' : 'a');
                SD_TRY(sd_gguf_declare(j->w, name, SD_F32, 2, ne, err));
                continue;
            }
            if (!which) {
                SD_TRY(sd_gguf_write_tensor(j->w, l->A, bytes, err));
                continue;
            }
            double factor =
                l->scale == (float)(j->alpha / l->r) ? 1 : (double)l->scale * l->r / j->alpha;
            lay_out_b(j->b, l, rows, l->r, factor, sd_adapter_row_moves(j->base, i, interleaved),
                      interleaved, j->base->hp.D);
            SD_TRY(sd_gguf_write_tensor(j->w, j->b, bytes, err));
        }
    }
out:
    return st;
}

sd_status sd_adapter_write_gguf(const char *path, const sd_adapter *a, sd_model *base,
                                sd_error *err) {
    sd_status st = SD_OK;
    gguf_job j = {.a = a, .base = base, .alpha = common_alpha(a)};
    record of = {0};
    size_t largest = 0;
    for (int i = 0; i < a->n_linears; i++) {
        size_t floats = (size_t)base->linear[i].w.rows * (size_t)a->lora[i].r;
        if (floats > largest) largest = floats;
    }
    j.b = sd_alloc(largest, sizeof *j.b);
    SD_CHECK_ALLOC(j.b, err);
    SD_TRY(make_record(&of, a, base, err));
    SD_TRY(sd_gguf_writer_open(&j.w, path, err));
    SD_TRY(sd_gguf_put_str(j.w, "general.type", "adapter", err));
    SD_TRY(sd_gguf_put_str(j.w, "general.architecture", sd_arch_name(base->hp.arch), err));
    SD_TRY(sd_gguf_put_str(j.w, "general.name", a->name, err));
    SD_TRY(sd_gguf_put_str(j.w, "adapter.type", "lora", err));
    SD_TRY(sd_gguf_put_f32(j.w, "adapter.lora.alpha", (float)j.alpha, err));
    SD_TRY(sd_gguf_put_str(j.w, "specdec.base_sha256", of.sha256.hex, err));
    if (of.sketch) SD_TRY(sd_gguf_put_str(j.w, "specdec.base_sketch", of.sketch, err));
    if (sd_model_template_is_taken(base))
        SD_TRY(sd_gguf_put_str(j.w, SD_GGUF_TEMPLATE_KEY, sd_template_source(base->chat), err));
    SD_TRY(gguf_tensors(&j, true, err));
    SD_TRY(gguf_tensors(&j, false, err));
    sd_gguf_writer *w = j.w;
    j.w = NULL; // commit frees it, whatever happens
    SD_TRY(sd_gguf_writer_commit(w, err));
out:
    sd_gguf_writer_abort(j.w);
    free(of.sketch);
    free(j.b);
    return st;
}
