// A GGUF file of any bytes: opening, every getter, the tokenizer in it.
#include "model/load/tokenizer_gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sd_gguf *g = NULL;
    sd_error err;
    if (sd_gguf_from_memory(&g, data, size, "input", &err) != SD_OK) return 0;
    sd_buf b = sd_buf_make(1 << 20);
    for (int i = 0; i < sd_gguf_key_count(g); i++) {
        sd_gguf_type type;
        size_t bytes;
        const char *key = sd_gguf_key_at(g, i, &type);
        uint32_t u;
        int32_t id;
        float f;
        bool flag, has;
        sd_gguf_string s;
        size_t n;
        int64_t v;
        sd_gguf_u32(g, key, &u, &has, &err);
        sd_gguf_token(g, key, &id, &err);
        sd_gguf_f32(g, key, &f, &has, &err);
        sd_gguf_bool(g, key, &flag, &has, &err);
        sd_gguf_str(g, key, &s, &has, &err);
        sd_gguf_value_raw(g, i, &bytes);
        sd_buf_clear(&b);
        sd_gguf_describe(g, i, &b);
        if (sd_gguf_strings(g, key, &n, &err) == SD_OK)
            for (size_t k = 0; k < n && k < 100; k++) sd_gguf_array_str(g, key, k, &s);
        if (sd_gguf_integers(g, key, &n, &err) == SD_OK)
            for (size_t k = 0; k < n && k < 100; k++) sd_gguf_array_int(g, key, k, &v);
        if (sd_gguf_floats(g, key, &n, &err) == SD_OK)
            for (size_t k = 0; k < n && k < 100; k++) sd_gguf_array_f32(g, key, k, &f);
    }
    volatile uint8_t sum = 0;
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        for (size_t k = 0; k < t->bytes; k++) sum ^= ((const uint8_t *)t->data)[k];
        sd_gguf_tensor_find(g, t->name);
    }
    sd_tokenizer *tok = NULL;
    if (sd_tokenizer_from_gguf(&tok, g, &err) == SD_OK) {
        sd_ids ids = {0};
        sd_tokenizer_encode(tok, "a text, 12 <|im_end|>", 21, SD_TOK_SPECIAL | SD_TOK_ADD_BOS, &ids,
                            &err);
        sd_ids_free(&ids);
    }
    sd_tokenizer_close(tok);
    sd_buf_free(&b);
    sd_gguf_close(g);
    return 0;
}
