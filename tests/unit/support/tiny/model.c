// Values are a function of (seed, tensor, index), so both formats write the same model without
// sharing memory. Tensors are numbered by layer and role.
#include "tests/unit/support/tiny/model.h"

#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/formats/safetensors.h"
#include "tests/unit/support/tiny/parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// A matrix of the block and its bias have the role of the first plus its number: a linear map that
// holds several has the values of several maps.
typedef enum {
    EMBEDDING,
    OUT_NORM,
    HEAD,
    ATTN_NORM,
    FFN_NORM,
    BIAS,
    QN = BIAS + 3,
    KN,
    MATRIX,
    POST_ATTN,
    POST_FFN
} role;

typedef struct {
    role role;
    int layer;
    const sd_linear_kind *kind; // of BIAS and MATRIX
    int rows, cols;             // rows 1: a vector
} tensor;

sd_tiny_model sd_tiny_default(const sd_arch *arch) {
    bool gemma = strcmp(sd_arch_name(arch), "gemma3") == 0,
         phi = strcmp(sd_arch_name(arch), "phi3") == 0;
    return (sd_tiny_model){.arch = arch,
                           .L = 2,
                           .C = 64,
                           .H = 4,
                           .G = 2,
                           .D = arch == &sd_arch_qwen3 || gemma ? 24 : 16,
                           .F = 96,
                           .V = SD_TINY_TOKENS,
                           .ctx = 512,
                           .tied = arch == &sd_arch_qwen3 || gemma,
                           .dtype = SD_F32,
                           .seed = 1,
                           .tokenizer = true,
                           .rope_base = 10000,
                           .rope_factor = 4,
                           .rope_low = 1,
                           .rope_high = 4,
                           .rope_beta_fast = 32,
                           .rope_beta_slow = 1,
                           .rope_orig_ctx = 64,
                           .rope_dim = phi ? 12 : 0,
                           .window = gemma ? 16 : 0,
                           .pattern = 2,
                           .local_base = 3000};
}

int sd_tiny_window(const sd_tiny_model *t, int layer) {
    bool all = sd_tiny_is(t, "gemma3") && (layer + 1) % t->pattern == 0;
    return all ? 0 : t->window;
}

// ---- the tensors

static sd_hparams hparams_of(const sd_tiny_model *t) {
    return (sd_hparams){
        .arch = t->arch, .L = t->L, .C = t->C, .H = t->H, .G = t->G, .D = t->D, .F = t->F};
}

static int list_linears(tensor *out, const sd_tiny_model *t, int l) {
    sd_hparams hp = hparams_of(t);
    int n = 0;
    for (int i = 0; i < t->arch->linears; i++) {
        const sd_linear_kind *kind = &t->arch->linear[i];
        int all = 0, rows, cols = 0;
        for (int k = 0; k < kind->matrices; k++) {
            sd_proj_shape(&hp, (sd_proj)((int)kind->first + k), &rows, &cols);
            all += rows;
        }
        if (t->arch->qkv_bias && kind->first <= SD_WV) out[n++] = (tensor){BIAS, l, kind, 1, all};
        out[n++] = (tensor){MATRIX, l, kind, all, cols};
    }
    return n;
}

static int list(tensor *out, const sd_tiny_model *t) {
    int n = 0;
    out[n++] = (tensor){EMBEDDING, 0, NULL, t->V, t->C};
    out[n++] = (tensor){OUT_NORM, 0, NULL, 1, t->C};
    if (!t->tied) out[n++] = (tensor){HEAD, 0, NULL, t->V, t->C};
    for (int l = 0; l < t->L; l++) {
        out[n++] = (tensor){ATTN_NORM, l, NULL, 1, t->C};
        out[n++] = (tensor){FFN_NORM, l, NULL, 1, t->C};
        if (t->arch->gguf.q_norm) {
            out[n++] = (tensor){QN, l, NULL, 1, t->D};
            out[n++] = (tensor){KN, l, NULL, 1, t->D};
        }
        if (sd_tiny_is(t, "gemma3")) {
            out[n++] = (tensor){POST_ATTN, l, NULL, 1, t->C};
            out[n++] = (tensor){POST_FFN, l, NULL, 1, t->C};
        }
        n += list_linears(out + n, t, l);
    }
    return n;
}

static void name_of(char out[96], const sd_tiny_model *t, const tensor *x, bool gguf) {
    const sd_norm_names *norms = gguf ? &t->arch->gguf : &t->arch->folder;
    const char *before = gguf || t->bare ? "" : "model.";
    const char *leaf = x->kind ? (gguf ? x->kind->gguf : x->kind->module) : NULL;
    switch (x->role) {
    case EMBEDDING:
        snprintf(out, 96, "%s%s", before, gguf ? "token_embd.weight" : "embed_tokens.weight");
        return;
    case OUT_NORM:
        snprintf(out, 96, "%s%s", before, gguf ? "output_norm.weight" : "norm.weight");
        return;
    case HEAD:
        snprintf(out, 96, "%s", gguf ? "output.weight" : "lm_head.weight");
        return;
    case ATTN_NORM:
        leaf = norms->attn_norm;
        break;
    case FFN_NORM:
        leaf = norms->ffn_norm;
        break;
    case QN:
        leaf = norms->q_norm;
        break;
    case KN:
        leaf = norms->k_norm;
        break;
    case POST_ATTN:
        leaf = gguf ? "post_attention_norm" : "post_attention_layernorm";
        break;
    case POST_FFN:
        leaf = gguf ? "post_ffw_norm" : "post_feedforward_layernorm";
        break;
    case BIAS:
    case MATRIX:
        break;
    }
    snprintf(out, 96, "%s%s%d.%s.%s", before, gguf ? "blk." : "layers.", x->layer, leaf,
             x->role == BIAS ? "bias" : "weight");
}

// What makes one tensor's values another's: a map's matrices are told apart.
static uint64_t id_of(const tensor *x, int matrix) {
    uint64_t r = (uint64_t)x->role, p = x->kind ? (uint64_t)x->kind->first + (uint64_t)matrix : 0;
    if (x->role == BIAS) r += p, p = 0;
    return r << 32 | p << 16 | (uint64_t)x->layer;
}

// The matrix of a map that holds this row (of a bias: column), and *at <- where it stands there.
static int matrix_of(const sd_tiny_model *t, const tensor *x, int row, int *at) {
    sd_hparams hp = hparams_of(t);
    int k = 0, rows, cols;
    for (*at = row; x->kind; k++, *at -= rows) {
        sd_proj_shape(&hp, (sd_proj)((int)x->kind->first + k), &rows, &cols);
        if (*at < rows) break;
    }
    return k;
}

static float value(const sd_tiny_model *t, const tensor *x, int row, int col) {
    uint32_t r[4];
    int at, matrix = matrix_of(t, x, x->role == BIAS ? col : row, &at);
    if (x->role == BIAS)
        sd_philox(r, t->seed, id_of(x, matrix), (uint64_t)at);
    else
        sd_philox(r, t->seed, id_of(x, matrix), (uint64_t)at * (uint64_t)x->cols + (uint64_t)col);
    float u = 2 * sd_uniform(r[0]) - 1;
    switch (x->role) {
    case OUT_NORM:
    case ATTN_NORM:
    case FFN_NORM:
    case QN:
    case KN:
    case POST_ATTN:
    case POST_FFN:
        return sd_tiny_is(t, "gemma3") ? 0.2f * u : 1 + 0.2f * u;
    case BIAS:
        return 0.2f * u;
    default:
        return u * sqrtf(3.0f / (float)x->cols);
    }
}

void sd_tiny_values(float *out, const sd_tiny_model *t, sd_tiny_tensor what, int layer, int rows,
                    int cols) {
    static const role roles[] = {[SD_TINY_EMBEDDING] = EMBEDDING,
                                 [SD_TINY_OUT_NORM] = OUT_NORM,
                                 [SD_TINY_HEAD] = HEAD,
                                 [SD_TINY_ATTN_NORM] = ATTN_NORM,
                                 [SD_TINY_FFN_NORM] = FFN_NORM,
                                 [SD_TINY_Q_NORM] = QN,
                                 [SD_TINY_K_NORM] = KN,
                                 [SD_TINY_POST_ATTN_NORM] = POST_ATTN,
                                 [SD_TINY_POST_FFN_NORM] = POST_FFN};
    role r = what == SD_TINY_HEAD && t->tied ? EMBEDDING : roles[what];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++)
            *out++ = value(t, &(tensor){r, layer, NULL, rows, cols}, i, j);
}

void sd_tiny_matrix(float *out, const sd_tiny_model *t, sd_proj p, int layer, int rows, int cols) {
    const sd_linear_kind one = {.first = p, .matrices = 1};
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++)
            *out++ = value(t, &(tensor){MATRIX, layer, &one, rows, cols}, i, j);
}

void sd_tiny_bias(float *out, const sd_tiny_model *t, sd_proj p, int layer, int n) {
    const sd_linear_kind one = {.first = p, .matrices = 1};
    for (int j = 0; j < n; j++) *out++ = value(t, &(tensor){BIAS, layer, &one, 1, n}, 0, j);
}

// The row of the folder's matrix that stands at `row` of a llama GGUF's q or k: rotation pairs are
// neighbours there and half a head apart here.
static int source_row(const sd_tiny_model *t, const tensor *x, int row, bool gguf) {
    bool permuted = gguf && t->arch->gguf_interleaved && x->role == MATRIX &&
                    (x->kind->first == SD_WQ || x->kind->first == SD_WK);
    if (!permuted) return row;
    int head = row / t->D, i = row % t->D;
    return head * t->D + i % 2 * (t->D / 2) + i / 2;
}

static void random_blocks(uint8_t *data, size_t bytes, sd_dtype type, uint64_t seed, uint64_t id) {
    size_t size = (size_t)sd_dtype_block_bytes(type);
    for (size_t i = 0; i < bytes; i += 4) {
        uint32_t r[4];
        sd_philox(r, seed, ~id, i);
        memcpy(data + i, r, bytes - i < 4 ? bytes - i : 4);
    }
    for (size_t b = 0; b < bytes; b += size) {
        uint32_t r[4];
        sd_philox(r, seed, ~id, b << 32);
        // Codes of Q6_K reach 32 with scales up to 127; those of Q4_K and Q5_K 31 with scales
        // to 63.
        float small = type == SD_Q6_K ? 2e-5f : 1e-4f;
        uint16_t d = sd_float_to_half(small * (1 + sd_uniform(r[0]))),
                 m = sd_float_to_half(8 * small * (1 + sd_uniform(r[1])));
        memcpy(data + b + (type == SD_Q6_K ? 208 : 0), &d, 2);
        if (type != SD_Q6_K) memcpy(data + b + 2, &m, 2);
    }
}

static sd_dtype type_of(const sd_tiny_model *t, const tensor *x, bool gguf) {
    return x->rows == 1 && gguf ? SD_F32 : t->dtype;
}

// The tensor's bytes in malloc'ed memory; NULL when out of memory or when the type cannot hold it.
static void *bytes_of(const sd_tiny_model *t, const tensor *x, bool gguf, size_t *bytes) {
    sd_dtype type = type_of(t, x, gguf);
    if (x->cols % sd_dtype_block(type)) return NULL;
    size_t stride = sd_row_bytes(type, x->cols);
    *bytes = stride * (size_t)x->rows;
    // Gemma's norms multiply by 1 + w, which is what its GGUF files hold.
    bool one_more = gguf && x->rows == 1 && sd_tiny_is(t, "gemma3");
    uint8_t *data = sd_alloc(*bytes, 1);
    float *v = sd_alloc((size_t)x->cols, sizeof *v);
    const bool noise = data && t->noise && type != SD_F32;
    if (noise) random_blocks(data, *bytes, type, t->seed, id_of(x, 0));
    for (int r = 0; !noise && data && v && r < x->rows; r++) {
        int from = source_row(t, x, r, gguf);
        for (int c = 0; c < x->cols; c++) v[c] = value(t, x, from, c);
        for (int c = 0; one_more && c < x->cols; c++) v[c] += 1;
        if (sd_quantise(data + (size_t)r * stride, type, v, x->cols)) continue;
        random_blocks(data, *bytes, type, t->seed, id_of(x, 0));
        break;
    }
    free(v);
    return data;
}

// ---- GGUF

float sd_tiny_label(int label, int col) {
    return 0.05f * (float)((col * 29 + label * 7) % 13 - 6);
}

static sd_status write_classifier(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    float *rows = sd_alloc((size_t)t->labels * (size_t)t->C, sizeof *rows);
    if (!rows) return sd_fail(err, SD_ENOMEM, "out of memory");
    for (int i = 0; i < t->labels * t->C; i++) rows[i] = sd_tiny_label(i / t->C, i % t->C);
    sd_status st =
        sd_gguf_write_tensor(w, rows, (size_t)t->labels * (size_t)t->C * sizeof *rows, err);
    free(rows);
    return st;
}

sd_status sd_tiny_write_gguf(const char *path, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_writer *w = NULL;
    tensor *list_of = sd_alloc((size_t)t->L * 16 + 8, sizeof *list_of);
    SD_CHECK_ALLOC(list_of, err);
    int n = list(list_of, t);
    sd_tiny_rope_tensor ropes[2];
    int n_ropes = sd_tiny_rope_tensors(ropes, t);
    SD_TRY(sd_gguf_writer_open(&w, path, err));
    SD_TRY(sd_tiny_put_keys(w, t, err));
    for (int i = 0; i < n_ropes; i++)
        SD_TRY(sd_gguf_declare(w, ropes[i].name, SD_F32, 1, (int64_t[]){ropes[i].n}, err));
    for (int i = 0; i < n; i++) {
        const tensor *x = &list_of[i];
        char name[96];
        name_of(name, t, x, true);
        SD_TRY(sd_gguf_declare(w, name, type_of(t, x, true), x->rows == 1 ? 1 : 2,
                               (int64_t[]){x->cols, x->rows}, err));
    }
    if (t->labels)
        SD_TRY(
            sd_gguf_declare(w, "cls.output.weight", SD_F32, 2, (int64_t[]){t->C, t->labels}, err));
    for (int i = 0; i < n_ropes; i++)
        SD_TRY(sd_gguf_write_tensor(w, ropes[i].v, (size_t)ropes[i].n * sizeof(float), err));
    for (int i = 0; i < n; i++) {
        size_t bytes;
        void *data = bytes_of(t, &list_of[i], true, &bytes);
        SD_CHECK_ALLOC(data, err);
        st = sd_gguf_write_tensor(w, data, bytes, err);
        free(data);
        if (st != SD_OK) goto out;
    }
    if (t->labels) SD_TRY(write_classifier(w, t, err));
    st = sd_gguf_writer_commit(w, err);
    w = NULL;
out:
    sd_gguf_writer_abort(w);
    free(list_of);
    return st;
}

// ---- folder

static sd_status write_json(const char *dir, const char *name, json_t *value, sd_error *err) {
    char *path = sd_path_join(dir, name), *text = json_dumps(value, JSON_INDENT(1));
    sd_status st = path && text ? sd_file_write(path, text, strlen(text), err)
                                : sd_fail(err, SD_ENOMEM, "out of memory");
    json_decref(value);
    free(text);
    free(path);
    return st;
}

static sd_status write_weights(const char *dir, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    size_t cap = (size_t)t->L * 16 + 8;
    tensor *list_of = sd_alloc(cap, sizeof *list_of);
    sd_st_tensor *out = sd_alloc(cap, sizeof *out);
    char(*names)[96] = sd_alloc(cap, sizeof *names);
    void **data = sd_alloc(cap, sizeof *data);
    char *path = sd_path_join(dir, "model.safetensors");
    json_t *meta = json_pack("{s:s}", "format", "pt");
    int n = 0;
    SD_CHECK_ALLOC(list_of && out && names && data && path && meta, err);
    n = list(list_of, t);
    for (int i = 0; i < n; i++) {
        const tensor *x = &list_of[i];
        name_of(names[i], t, x, false);
        out[i] =
            (sd_st_tensor){.name = names[i], .dtype = t->dtype, .n_dims = x->rows == 1 ? 1 : 2};
        out[i].shape[0] = x->rows == 1 ? x->cols : x->rows;
        out[i].shape[1] = x->cols;
        data[i] = bytes_of(t, x, false, &out[i].bytes);
        SD_CHECK_ALLOC(data[i], err);
        out[i].data = data[i];
    }
    SD_TRY(sd_safetensors_write(path, out, n, meta, err));
out:
    for (int i = 0; data && i < n; i++) free(data[i]);
    json_decref(meta);
    free(path);
    free(data);
    free(names);
    free(out);
    free(list_of);
    return st;
}

sd_status sd_tiny_write_folder(const char *dir, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_mkdirs(dir, err));
    SD_TRY(write_json(dir, "config.json", sd_tiny_config_json(t), err));
    SD_TRY(write_weights(dir, t, err));
    if (t->tokenizer) {
        json_t *c =
            json_pack("{s:s, s:s, s:b, s:s, s:b}", "bos_token", sd_tiny_specials[0], "eos_token",
                      sd_tiny_specials[2], "add_bos_token", 0, "tokenizer_class",
                      "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", 0);
        if (sd_tiny_template(t))
            json_object_set_new(c, "chat_template", json_string(sd_tiny_template(t)));
        SD_TRY(write_json(dir, "tokenizer.json", sd_tiny_tokenizer_json(), err));
        SD_TRY(write_json(dir, "tokenizer_config.json", c, err));
        SD_TRY(write_json(
            dir, "generation_config.json",
            json_pack("{s:[i, i]}", "eos_token_id", SD_TINY_TOKENS - 1, SD_TINY_TOKENS - 3), err));
    }
out:
    return st;
}

// ---- directories

char *sd_tiny_dir(void) {
    char *dir = sd_strdup("/tmp/specdec_tiny_XXXXXX");
    if (dir && !mkdtemp(dir)) {
        free(dir);
        return NULL;
    }
    return dir;
}

void sd_tiny_remove(char *dir) {
    if (dir) sd_remove_tree(dir, NULL);
    free(dir);
}

sd_model *sd_tiny_open(const sd_tiny_model *t, bool gguf) {
    sd_model *m = NULL;
    sd_error err = {0};
    char *dir = sd_tiny_dir(), *path = dir ? sd_path_join(dir, gguf ? "tiny.gguf" : "tiny") : NULL;
    sd_status st =
        !path ? SD_ENOMEM
              : (gguf ? sd_tiny_write_gguf(path, t, &err) : sd_tiny_write_folder(path, t, &err));
    if (st == SD_OK) st = sd_model_open(&m, path, &err);
    if (st != SD_OK) printf("# sd_tiny_open: %s\n", err.message);
    free(path);
    sd_tiny_remove(dir);
    return m;
}
