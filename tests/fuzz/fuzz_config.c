// A Hugging Face folder whose config.json, generation_config.json, tokenizer_config.json or
// chat_template.jinja is any bytes; the first byte chooses. Beside it stand the weights and the
// tokenizer of a tiny Llama. A model that opens must also render and tokenise a prompt.
#include "base/files/path.h"
#include "base/memory.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { V = 260, C = 8, F = 8 };
static const char *const files[] = {"config.json", "generation_config.json",
                                    "tokenizer_config.json", "chat_template.jinja"};
static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":8,"
    "\"intermediate_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
    "\"num_key_value_heads\":1,\"vocab_size\":260,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"max_position_embeddings\":64,\"tie_word_embeddings\":true,"
    "\"torch_dtype\":\"float32\",\"bos_token_id\":256,\"eos_token_id\":257}";
static char dir[64];

static void put(const char *name, const void *data, size_t len) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0) abort();
}

static void add(sd_buf *head, size_t *at, const char *name, int rows, int columns) {
    size_t bytes = (size_t)rows * (size_t)(columns ? columns : 1) * 4;
    sd_buf_printf(head, "%s\"model.%s.weight\":{\"dtype\":\"F32\",\"shape\":[%d", *at ? "," : "{",
                  name, rows);
    if (columns) sd_buf_printf(head, ",%d", columns);
    sd_buf_printf(head, "],\"data_offsets\":[%zu,%zu]}", *at, *at + bytes);
    *at += bytes;
}

static void put_weights(void) {
    static const struct {
        const char *name;
        int rows, columns;
    } weights[] = {{"embed_tokens", V, C},
                   {"norm", C, 0},
                   {"layers.0.input_layernorm", C, 0},
                   {"layers.0.post_attention_layernorm", C, 0},
                   {"layers.0.self_attn.q_proj", C, C},
                   {"layers.0.self_attn.k_proj", C / 2, C},
                   {"layers.0.self_attn.v_proj", C / 2, C},
                   {"layers.0.self_attn.o_proj", C, C},
                   {"layers.0.mlp.gate_proj", F, C},
                   {"layers.0.mlp.up_proj", F, C},
                   {"layers.0.mlp.down_proj", C, F}};
    sd_buf head = sd_buf_make(1 << 20), all = sd_buf_make(1 << 20);
    size_t at = 0;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        add(&head, &at, weights[i].name, weights[i].rows, weights[i].columns);
    sd_buf_addc(&head, '}');
    while (head.len % 8) sd_buf_addc(&head, ' ');
    uint64_t len = head.len;
    char *zeros = calloc(at, 1);
    sd_buf_add(&all, &len, 8);
    sd_buf_add(&all, head.data, head.len);
    sd_buf_add(&all, zeros, at);
    put("model.safetensors", all.data, all.len);
    free(zeros);
    sd_buf_free(&head);
    sd_buf_free(&all);
}

// 256 bytes under GPT-2's letters, then <s>, </s>, <|im_start|>, <|im_end|>.
static void put_tokenizer(void) {
    sd_buf t = sd_buf_make(1 << 20);
    static const char *const special[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>"};
    sd_buf_adds(&t, "{\"added_tokens\":[");
    for (int i = 0; i < 4; i++)
        sd_buf_printf(&t, "%s{\"id\":%d,\"content\":\"%s\",\"special\":true}", i ? "," : "",
                      256 + i, special[i]);
    sd_buf_adds(&t, "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                    "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    int extra = 256;
    for (int b = 0; b < 256; b++) {
        bool keep = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        sd_buf_printf(&t, "%s\"\\u%04x\":%d", b ? "," : "", keep ? b : extra++, b);
    }
    sd_buf_adds(&t, "}}}");
    put("tokenizer.json", t.data, t.len);
    sd_buf_free(&t);
}

static sd_status open_model(void) {
    sd_model *m = NULL;
    sd_error err;
    sd_ids ids = {0};
    sd_status st = sd_model_open(&m, dir, &err);
    if (st == SD_OK && m->tokenizer) {
        json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi \n there");
        sd_model_chat_ids(m, messages, NULL, NULL, true, &ids, &err);
        json_decref(messages);
    }
    sd_ids_free(&ids);
    sd_model_release(m);
    return st;
}

static void clear_up(void) {
    if (dir[0]) sd_remove_tree(dir, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[128];
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/dev/shm/fuzz_config_%d", (int)getpid());
        mkdir(dir, 0700);
        atexit(clear_up);
        put_weights();
        put_tokenizer();
        put("config.json", config, sizeof config - 1);
        if (open_model() != SD_OK) abort(); // the good folder is good
    }
    if (size < 1) return 0;
    int which = data[0] % 4;
    put(files[which], data + 1, size - 1);
    open_model();
    snprintf(path, sizeof path, "%s/%s", dir, files[which]);
    unlink(path);
    if (which == 0) put("config.json", config, sizeof config - 1);
    return 0;
}
