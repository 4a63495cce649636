// Values are a function of (seed, tensor, index), so both formats write the same model without
// sharing memory. Tensors are numbered by layer and role.
#include "tests/unit/support/tiny_model.h"

#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/formats/gguf_write.h"
#include "model/formats/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N_MERGES = 29, N_TOKENS = 256 + N_MERGES + 3 };

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
    MATRIX
} role;

typedef struct {
    role role;
    int layer;
    const sd_linear_kind *kind; // of BIAS and MATRIX
    int rows, cols;             // rows 1: a vector
} tensor;

sd_tiny_model sd_tiny_default(const sd_arch *arch) {
    return (sd_tiny_model){.arch = arch,
                           .L = 2,
                           .C = 64,
                           .H = 4,
                           .G = 2,
                           .D = arch == &sd_arch_qwen3 ? 24 : 16,
                           .F = 96,
                           .V = N_TOKENS,
                           .ctx = 512,
                           .tied = arch == &sd_arch_qwen3,
                           .dtype = SD_F32,
                           .seed = 1,
                           .tokenizer = true,
                           .rope_base = 10000,
                           .rope_factor = 4,
                           .rope_low = 1,
                           .rope_high = 4,
                           .rope_beta_fast = 32,
                           .rope_beta_slow = 1,
                           .rope_orig_ctx = 64};
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
        n += list_linears(out + n, t, l);
    }
    return n;
}

static void name_of(char out[96], const sd_tiny_model *t, const tensor *x, bool gguf) {
    const sd_norm_names *norms = gguf ? &t->arch->gguf : &t->arch->folder;
    const char *leaf = x->kind ? (gguf ? x->kind->gguf : x->kind->module) : NULL;
    switch (x->role) {
    case EMBEDDING:
        snprintf(out, 96, "%s", gguf ? "token_embd.weight" : "model.embed_tokens.weight");
        return;
    case OUT_NORM:
        snprintf(out, 96, "%s", gguf ? "output_norm.weight" : "model.norm.weight");
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
    case BIAS:
    case MATRIX:
        break;
    }
    snprintf(out, 96, "%s%d.%s.%s", gguf ? "blk." : "model.layers.", x->layer, leaf,
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
        return 1 + 0.2f * u;
    case BIAS:
        return 0.2f * u;
    default:
        return u * sqrtf(3.0f / (float)x->cols);
    }
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
    uint8_t *data = sd_alloc(*bytes, 1);
    float *v = sd_alloc((size_t)x->cols, sizeof *v);
    for (int r = 0; data && v && r < x->rows; r++) {
        int from = source_row(t, x, r, gguf);
        for (int c = 0; c < x->cols; c++) v[c] = value(t, x, from, c);
        if (sd_quantise(data + (size_t)r * stride, type, v, x->cols)) continue;
        random_blocks(data, *bytes, type, t->seed, id_of(x, 0));
        break;
    }
    free(v);
    return data;
}

// ---- the tokenizer

#define SPACE "\xc4\xa0" // how byte-level BPE spells it
static const char *const merges[N_MERGES][2] = {
    {SPACE, "t"},      {"h", "e"},   {SPACE "t", "he"}, {"i", "n"},   {"e", "r"}, {"o", "n"},
    {"a", "n"},        {SPACE, "a"}, {"r", "e"},        {SPACE, "s"}, {"e", "n"}, {"a", "t"},
    {"o", "r"},        {"e", "s"},   {"i", "s"},        {SPACE, "w"}, {"i", "t"}, {SPACE, "o"},
    {"a", "r"},        {"a", "l"},   {"l", "l"},        {SPACE, "c"}, {"n", "d"}, {SPACE "o", "f"},
    {SPACE "a", "nd"}, {"in", "g"},  {SPACE, "in"},     {SPACE, "p"}, {"o", "u"}};
static const char *const specials[3] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
static const char chatml[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";

// GPT-2's spelling of bytes: printable Latin-1 stands for itself, the others from U+0100 on.
static void spell_byte(char out[4], int byte) {
    int code = byte;
    bool itself =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    if (!itself) {
        code = 256;
        for (int b = 0; b < byte; b++)
            if (!((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255)))
                code++;
    }
    if (code < 128)
        snprintf(out, 4, "%c", code);
    else
        snprintf(out, 4, "%c%c", (char)(0xc0 | code >> 6), (char)(0x80 | (code & 63)));
}

static void spell_token(char out[32], int id) {
    if (id < 256) {
        char s[4];
        spell_byte(s, id);
        snprintf(out, 32, "%s", s);
    } else if (id < 256 + N_MERGES) {
        snprintf(out, 32, "%s%s", merges[id - 256][0], merges[id - 256][1]);
    } else if (id < N_TOKENS) {
        snprintf(out, 32, "%s", specials[id - 256 - N_MERGES]);
    } else {
        snprintf(out, 32, "[PAD%d]", id);
    }
}

static const char *template_of(const sd_tiny_model *t) {
    if (t->chat_template) return *t->chat_template ? t->chat_template : NULL;
    return t->tokenizer ? chatml : NULL;
}

static bool add_array_head(sd_buf *b, sd_gguf_type type, uint64_t n) {
    uint32_t e = (uint32_t)type;
    return sd_buf_add(b, &e, 4) && sd_buf_add(b, &n, 8);
}
static bool add_str(sd_buf *b, const char *s) {
    uint64_t n = strlen(s);
    return sd_buf_add(b, &n, 8) && sd_buf_adds(b, s);
}

static sd_status put_tokenizer(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf tokens = sd_buf_make(1 << 24), types = sd_buf_make(1 << 24),
           pairs = sd_buf_make(1 << 20);
    bool ok = add_array_head(&tokens, SD_GGUF_STRING, (uint64_t)t->V) &&
              add_array_head(&types, SD_GGUF_I32, (uint64_t)t->V) &&
              add_array_head(&pairs, SD_GGUF_STRING, N_MERGES);
    for (int i = 0; ok && i < t->V; i++) {
        char s[32];
        int32_t type = i < 256 + N_MERGES ? 1 : i < N_TOKENS ? 3 : 5;
        spell_token(s, i);
        ok = add_str(&tokens, s) && sd_buf_add(&types, &type, 4);
    }
    for (int i = 0; ok && i < N_MERGES; i++) {
        char s[32];
        snprintf(s, sizeof s, "%s %s", merges[i][0], merges[i][1]);
        ok = add_str(&pairs, s);
    }
    SD_CHECK_ALLOC(ok, err);
    SD_TRY(sd_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", err));
    SD_TRY(sd_gguf_put_str(w, "tokenizer.ggml.pre", "gpt-2", err));
    SD_TRY(
        sd_gguf_put_raw(w, "tokenizer.ggml.tokens", SD_GGUF_ARRAY, tokens.data, tokens.len, err));
    SD_TRY(
        sd_gguf_put_raw(w, "tokenizer.ggml.token_type", SD_GGUF_ARRAY, types.data, types.len, err));
    SD_TRY(sd_gguf_put_raw(w, "tokenizer.ggml.merges", SD_GGUF_ARRAY, pairs.data, pairs.len, err));
    SD_TRY(sd_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 256 + N_MERGES, err));
    SD_TRY(sd_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", N_TOKENS - 1, err));
    SD_TRY(sd_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false, err));
out:
    sd_buf_free(&tokens);
    sd_buf_free(&types);
    sd_buf_free(&pairs);
    return st;
}

// ---- GGUF

static sd_status put_u32(sd_gguf_writer *w, const char *arch, const char *leaf, int v,
                         sd_error *err) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, leaf);
    return sd_gguf_put_u32(w, key, (uint32_t)v, err);
}
static sd_status put_f32(sd_gguf_writer *w, const char *arch, const char *leaf, float v,
                         sd_error *err) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, leaf);
    return sd_gguf_put_f32(w, key, v, err);
}

static sd_status put_scaling(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    const char *arch = sd_arch_name(t->arch);
    char key[96];
    if (t->scaling != SD_ROPE_LINEAR && t->scaling != SD_ROPE_YARN) goto out;
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    SD_TRY(sd_gguf_put_str(w, key, t->scaling == SD_ROPE_LINEAR ? "linear" : "yarn", err));
    SD_TRY(put_f32(w, arch, "rope.scaling.factor", t->rope_factor, err));
    SD_TRY(put_u32(w, arch, "rope.scaling.original_context_length", t->rope_orig_ctx, err));
    SD_TRY(put_f32(w, arch, "rope.scaling.yarn_beta_fast", t->rope_beta_fast, err));
    SD_TRY(put_f32(w, arch, "rope.scaling.yarn_beta_slow", t->rope_beta_slow, err));
out:
    return st;
}

static sd_status put_metadata(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    const char *arch = sd_arch_name(t->arch);
    SD_TRY(sd_gguf_put_str(w, "general.architecture", arch, err));
    SD_TRY(sd_gguf_put_str(w, "general.name", "tiny", err));
    SD_TRY(put_u32(w, arch, "block_count", t->L, err));
    SD_TRY(put_u32(w, arch, "context_length", t->ctx, err));
    SD_TRY(put_u32(w, arch, "embedding_length", t->C, err));
    SD_TRY(put_u32(w, arch, "feed_forward_length", t->F, err));
    SD_TRY(put_u32(w, arch, "attention.head_count", t->H, err));
    SD_TRY(put_u32(w, arch, "attention.head_count_kv", t->G, err));
    SD_TRY(put_u32(w, arch, "attention.key_length", t->D, err));
    SD_TRY(put_u32(w, arch, "attention.value_length", t->D, err));
    SD_TRY(put_u32(w, arch, "rope.dimension_count", t->D, err));
    SD_TRY(put_f32(w, arch, "rope.freq_base", t->rope_base, err));
    SD_TRY(put_f32(w, arch, "attention.layer_norm_rms_epsilon", 1e-6f, err));
    SD_TRY(put_scaling(w, t, err));
    if (t->tokenizer) SD_TRY(put_tokenizer(w, t, err));
    if (template_of(t)) SD_TRY(sd_gguf_put_str(w, "tokenizer.chat_template", template_of(t), err));
out:
    return st;
}

// Llama 3's rule as converters store it: a divisor per frequency.
static void rope_divisors(float *out, const sd_tiny_model *t) {
    sd_rotation r = {.base = t->rope_base,
                     .scaling = SD_ROPE_LLAMA3,
                     .factor = t->rope_factor,
                     .low = t->rope_low,
                     .high = t->rope_high,
                     .orig_ctx = t->rope_orig_ctx};
    double scaled[256], plain[256], one;
    sd_rope_frequencies(&r, t->D, scaled, &one);
    r.scaling = SD_ROPE_NONE;
    sd_rope_frequencies(&r, t->D, plain, &one);
    for (int i = 0; i < t->D / 2; i++) out[i] = (float)(plain[i] / scaled[i]);
}

sd_status sd_tiny_write_gguf(const char *path, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_writer *w = NULL;
    tensor *list_of = sd_alloc((size_t)t->L * 16 + 8, sizeof *list_of);
    SD_CHECK_ALLOC(list_of, err);
    int n = list(list_of, t);
    bool factors = t->scaling == SD_ROPE_LLAMA3;
    SD_TRY(sd_gguf_writer_open(&w, path, err));
    SD_TRY(put_metadata(w, t, err));
    if (factors)
        SD_TRY(sd_gguf_declare(w, "rope_freqs.weight", SD_F32, 1, (int64_t[]){t->D / 2}, err));
    for (int i = 0; i < n; i++) {
        const tensor *x = &list_of[i];
        char name[96];
        name_of(name, t, x, true);
        SD_TRY(sd_gguf_declare(w, name, type_of(t, x, true), x->rows == 1 ? 1 : 2,
                               (int64_t[]){x->cols, x->rows}, err));
    }
    if (factors) {
        float d[256];
        rope_divisors(d, t);
        SD_TRY(sd_gguf_write_tensor(w, d, (size_t)t->D / 2 * sizeof *d, err));
    }
    for (int i = 0; i < n; i++) {
        size_t bytes;
        void *data = bytes_of(t, &list_of[i], true, &bytes);
        SD_CHECK_ALLOC(data, err);
        st = sd_gguf_write_tensor(w, data, bytes, err);
        free(data);
        if (st != SD_OK) goto out;
    }
    st = sd_gguf_writer_commit(w, err);
    w = NULL;
out:
    sd_gguf_writer_abort(w);
    free(list_of);
    return st;
}

// ---- folder

static json_t *rope_json(const sd_tiny_model *t) {
    static const char *const types[] = {"default", "linear", "llama3", "yarn"};
    json_t *r = json_pack("{s:s}", "rope_type", types[t->scaling]);
    if (t->scaling != SD_ROPE_NONE) json_object_set_new(r, "factor", json_real(t->rope_factor));
    if (t->scaling == SD_ROPE_LLAMA3 || t->scaling == SD_ROPE_YARN)
        json_object_set_new(r, "original_max_position_embeddings", json_integer(t->rope_orig_ctx));
    if (t->scaling == SD_ROPE_LLAMA3) {
        json_object_set_new(r, "low_freq_factor", json_real(t->rope_low));
        json_object_set_new(r, "high_freq_factor", json_real(t->rope_high));
    }
    if (t->scaling == SD_ROPE_YARN) {
        json_object_set_new(r, "beta_fast", json_real(t->rope_beta_fast));
        json_object_set_new(r, "beta_slow", json_real(t->rope_beta_slow));
    }
    return r;
}

static json_t *config_json(const sd_tiny_model *t) {
    char class[64];
    snprintf(class, sizeof class, "%c%sForCausalLM", t->arch->name[0] - 'a' + 'A',
             t->arch->name + 1);
    json_t *c =
        json_pack("{s:s, s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:b, s:s, s:b}",
                  "model_type", sd_arch_name(t->arch), "architectures", class, "num_hidden_layers",
                  t->L, "hidden_size", t->C, "intermediate_size", t->F, "num_attention_heads", t->H,
                  "num_key_value_heads", t->G, "head_dim", t->D, "vocab_size", t->V,
                  "max_position_embeddings", t->ctx, "hidden_act", "silu", "rms_norm_eps", 1e-6,
                  "tie_word_embeddings", (int)t->tied, "torch_dtype",
                  t->dtype == SD_F32   ? "float32"
                  : t->dtype == SD_F16 ? "float16"
                                       : "bfloat16",
                  "attention_bias", 0);
    json_t *r = rope_json(t);
    if (!t->old_config) {
        json_object_set_new(r, "rope_theta", json_real(t->rope_base));
        json_object_set_new(c, "rope_parameters", r);
        return c;
    }
    json_object_set_new(c, "rope_theta", json_real(t->rope_base));
    if (t->scaling != SD_ROPE_NONE)
        json_object_set_new(c, "rope_scaling", r);
    else
        json_decref(r);
    return c;
}

static sd_status write_json(const char *dir, const char *name, json_t *value, sd_error *err) {
    char *path = sd_path_join(dir, name), *text = json_dumps(value, JSON_INDENT(1));
    sd_status st = path && text ? sd_file_write(path, text, strlen(text), err)
                                : sd_fail(err, SD_ENOMEM, "out of memory");
    json_decref(value);
    free(text);
    free(path);
    return st;
}

static json_t *tokenizer_json(void) {
    json_t *vocab = json_object(), *pairs = json_array(), *added = json_array();
    for (int i = 0; i < 256 + N_MERGES; i++) {
        char s[32];
        spell_token(s, i);
        json_object_set_new(vocab, s, json_integer(i));
    }
    for (int i = 0; i < N_MERGES; i++)
        json_array_append_new(pairs, json_pack("[s, s]", merges[i][0], merges[i][1]));
    for (int i = 0; i < 3; i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id",
                                               256 + N_MERGES + i, "content", specials[i],
                                               "single_word", 0, "lstrip", 0, "rstrip", 0,
                                               "normalized", 0, "special", 1));
    return json_pack(
        "{s:s, s:n, s:n, s:o, s:n, s:{s:s, s:b, s:b, s:b}, s:n, s:{s:s, s:b, s:b, s:b}, "
        "s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}}",
        "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
        "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
        1, "post_processor", "decoder", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets",
        1, "use_regex", 1, "model", "type", "BPE", "dropout", "unk_token",
        "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
        "ignore_merges", 0, "vocab", vocab, "merges", pairs);
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
    SD_TRY(write_json(dir, "config.json", config_json(t), err));
    SD_TRY(write_weights(dir, t, err));
    if (t->tokenizer) {
        json_t *c = json_pack("{s:s, s:s, s:b, s:s, s:b}", "bos_token", specials[0], "eos_token",
                              specials[2], "add_bos_token", 0, "tokenizer_class",
                              "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", 0);
        if (template_of(t)) json_object_set_new(c, "chat_template", json_string(template_of(t)));
        SD_TRY(write_json(dir, "tokenizer.json", tokenizer_json(), err));
        SD_TRY(write_json(dir, "tokenizer_config.json", c, err));
        SD_TRY(write_json(dir, "generation_config.json",
                          json_pack("{s:[i, i]}", "eos_token_id", N_TOKENS - 1, N_TOKENS - 3),
                          err));
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
