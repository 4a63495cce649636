// Adapters of any bytes on a tiny base. The first byte says how the rest is meant:
//
//   0  a GGUF-LoRA file
//   1  a PEFT folder: u16 bytes of adapter_config.json, that text, then adapter_model.safetensors
//   2  a PEFT folder whose safetensors is well formed: the bytes choose names, types, shapes, values
//
// What opens is finite, and written out in both forms it opens again as the same factors.
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/adapter/adapter.h"
#include "model/formats/gguf_write.h"
#include "model/infer/cpu/lora_weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *dir;
static sd_model *base;

static void put(const char *name, const void *p, size_t n) {
    char *path = sd_path_join(dir, name);
    FILE *f = path ? fopen(path, "wb") : NULL;
    if (!f || (n && fwrite(p, 1, n, f) != n) || fclose(f) != 0) __builtin_trap();
    free(path);
}

static void need(sd_status st, const sd_error *err) {
    if (st == SD_OK) return;
    fprintf(stderr, "%s\n", err->message);
    __builtin_trap();
}

// One layer: C 8, two heads of 4 over one, F 12, 16 tokens.
static void make_base(const char *path) {
    static const struct {
        const char *name;
        int64_t cols, rows;
    } t[] = {{"token_embd.weight", 8, 16},     {"output_norm.weight", 8, 1},
             {"blk.0.attn_norm.weight", 8, 1}, {"blk.0.ffn_norm.weight", 8, 1},
             {"blk.0.attn_q.weight", 8, 8},    {"blk.0.attn_k.weight", 8, 4},
             {"blk.0.attn_v.weight", 8, 4},    {"blk.0.attn_output.weight", 8, 8},
             {"blk.0.ffn_gate.weight", 8, 12}, {"blk.0.ffn_up.weight", 8, 12},
             {"blk.0.ffn_down.weight", 12, 8}};
    enum { N = sizeof t / sizeof t[0] };
    static const struct {
        const char *key;
        uint32_t value;
    } k[] = {{"llama.block_count", 1},          {"llama.embedding_length", 8},
             {"llama.context_length", 64},      {"llama.feed_forward_length", 12},
             {"llama.attention.head_count", 2}, {"llama.attention.head_count_kv", 1},
             {"llama.rope.freq_base", 10000}};
    float values[16 * 8];
    sd_gguf_writer *w;
    sd_error err;
    for (int i = 0; i < 128; i++) values[i] = 0.1f * (float)(i % 13 - 6) + 0.05f;
    need(sd_gguf_writer_open(&w, path, &err), &err);
    need(sd_gguf_put_str(w, "general.architecture", "llama", &err), &err);
    for (size_t i = 0; i < sizeof k / sizeof k[0]; i++)
        need(sd_gguf_put_u32(w, k[i].key, k[i].value, &err), &err);
    need(sd_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f, &err), &err);
    for (int i = 0; i < N; i++)
        need(sd_gguf_declare(w, t[i].name, SD_F32, t[i].rows > 1 ? 2 : 1,
                             (int64_t[]){t[i].cols, t[i].rows}, &err),
             &err);
    for (int i = 0; i < N; i++)
        need(sd_gguf_write_tensor(w, values, (size_t)(t[i].cols * t[i].rows) * 4, &err), &err);
    need(sd_gguf_writer_commit(w, &err), &err);
}

static void remove_dir(void) {
    sd_model_release(base);
    sd_remove_tree(dir, NULL);
    free(dir);
}

static void begin(void) {
    const char *tmp = getenv("TMPDIR");
    sd_error err;
    dir = sd_sprintf("%s/fuzz_adapter-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!dir || !mkdtemp(dir)) __builtin_trap();
    char *path = sd_path_join(dir, "base.gguf");
    make_base(path);
    need(sd_model_open(&base, path, &err), &err);
    free(path);
    sd_log_set_level(SD_LOG_ERROR);
    atexit(remove_dir);
}

// ---- a well-formed safetensors out of the bytes

typedef struct {
    const uint8_t *p;
    size_t n;
} bytes;

static unsigned take(bytes *b) {
    if (b->n == 0) return 0;
    b->n--;
    return *b->p++;
}

static void put_shaped(bytes b) {
    static const char *const modules[] = {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",    "mlp.experts"};
    static const char *const ends[] = {"lora_A.weight", "lora_B.weight", "lora_A.default.weight",
                                       "lora_B.default.weight"};
    static const int dims[] = {8, 4, 12, 1, 2, 3, 0, 16};
    sd_buf head = sd_buf_make(1 << 16), body = sd_buf_make(1 << 20), file = sd_buf_make(1 << 21);
    unsigned tensors = take(&b) % 9;
    sd_buf_printf(&head, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (unsigned i = 0; i < tensors; i++) {
        unsigned what = take(&b), shape = take(&b), type = take(&b) % 3, layer = take(&b) % 16;
        int rows = dims[shape & 7], cols = dims[shape >> 3 & 7];
        size_t from = body.len, each = type == 0 ? 4 : 2;
        for (size_t k = 0; k < (size_t)(rows * cols) * each; k++)
            sd_buf_addc(&body, (char)take(&b));
        sd_buf_printf(&head,
                      ",\"base_model.model.model.layers.%u.%s.%s\":{\"dtype\":\"%s\",\"shape\":[%d,"
                      "%d],\"data_offsets\":[%zu,%zu]}",
                      layer == 15 ? 1 : 0, modules[what & 7], ends[what >> 3 & 3],
                      type == 0   ? "F32"
                      : type == 1 ? "F16"
                                  : "BF16",
                      rows, cols, from, body.len);
    }
    sd_buf_addc(&head, '}');
    uint64_t n = head.len;
    sd_buf_add(&file, &n, 8);
    sd_buf_add(&file, head.data, head.len);
    if (body.len) sd_buf_add(&file, body.data, body.len);
    put("adapter_model.safetensors", file.data, file.len);
    sd_buf_free(&head);
    sd_buf_free(&body);
    sd_buf_free(&file);
    char config[128];
    snprintf(config, sizeof config, "{\"peft_type\":\"LORA\",\"lora_alpha\":%d,\"use_rslora\":%s}",
             (int)take(&b), take(&b) & 1 ? "true" : "false");
    put("adapter_config.json", config, strlen(config));
}

// ---- what opened

static void check_same(const sd_adapter *a, const sd_adapter *b) {
    for (int i = 0; i < a->n_linears; i++) {
        const sd_lora *x = &a->lora[i], *y = &b->lora[i];
        int rows, cols;
        if (!x->r) continue;
        rows = base->linear[i].w.rows, cols = base->linear[i].w.cols;
        if (y->r < x->r) __builtin_trap();
        for (int r = 0; r < x->r; r++)
            for (int k = 0; k < cols; k++)
                if (x->A[r * cols + k] != y->A[r * cols + k]) __builtin_trap();
        for (int m = 0; m < rows; m++)
            for (int r = 0; r < x->r; r++) {
                float u = x->B[m * x->r + r] * x->scale, v = y->B[m * y->r + r] * y->scale;
                if (!isfinite(u) || fabsf(u - v) > 1e-5f * fabsf(u) + 1e-30f) __builtin_trap();
            }
    }
}

static void check(const sd_adapter *a) {
    static char *folder, *file;
    if (!folder) folder = sd_path_join(dir, "again"), file = sd_path_join(dir, "again.gguf");
    sd_error err;
    sd_adapter *b;
    const sd_lora_weights *weights;
    sd_lora_table *t;
    check_same(a, a);
    need(sd_lora_table_open(&t, sd_ops_best(), SD_COMPUTE_AUTO, &err), &err);
    need(sd_lora_table_get(&weights, t, a, base, &err), &err);
    sd_lora_table_close(t);
    // A scale that is folded anew may leave the range of fp32: then it is refused, not written.
    if (sd_adapter_write_peft(folder, a, base, NULL, &err) == SD_OK &&
        sd_adapter_open(&b, folder, base, true, &err) == SD_OK) {
        check_same(a, b);
        sd_adapter_release(b);
    }
    if (sd_adapter_write_gguf(file, a, base, &err) == SD_OK &&
        sd_adapter_open(&b, file, base, true, &err) == SD_OK) {
        check_same(a, b);
        sd_adapter_release(b);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sd_adapter *a = NULL;
    sd_error err;
    if (!dir) begin();
    if (size < 3) return 0;
    char *path = NULL;
    if (data[0] % 3 == 0) {
        put("input.gguf", data + 1, size - 1);
        path = sd_path_join(dir, "input.gguf");
    } else if (data[0] % 3 == 1) {
        size_t n = (size_t)(data[1] | data[2] << 8);
        if (n > size - 3) n = size - 3;
        put("adapter_config.json", data + 3, n);
        put("adapter_model.safetensors", data + 3 + n, size - 3 - n);
    } else {
        put_shaped((bytes){data + 1, size - 1});
    }
    if (sd_adapter_open(&a, path ? path : dir, base, true, &err) == SD_OK) check(a);
    sd_adapter_release(a);
    free(path);
    return 0;
}
