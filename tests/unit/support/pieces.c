#include "tests/unit/support/pieces.h"

#include "base/memory.h"
#include "model/load/tokenizer_gguf.h"

#include <stdio.h>
#include <string.h>

static void put(sd_buf *b, const void *data, size_t len) {
    if (!sd_buf_add(b, data, len)) abort();
}
static void put_u32(sd_buf *b, uint32_t v) {
    put(b, &v, sizeof v);
}
static void put_u64(sd_buf *b, uint64_t v) {
    put(b, &v, sizeof v);
}
static void put_text(sd_buf *b, const char *s) {
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static void put_array(sd_buf *b, const char *key, sd_gguf_type type, size_t n, int *keys) {
    put_text(b, key);
    put_u32(b, SD_GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
    ++*keys;
}
static void put_id(sd_buf *b, const char *key, int id, int *keys) {
    put_text(b, key);
    put_u32(b, SD_GGUF_U32);
    put_u32(b, (uint32_t)id);
    ++*keys;
}
static void put_bool(sd_buf *b, const char *key, bool v, int *keys) {
    uint8_t byte = v;
    put_text(b, key);
    put_u32(b, SD_GGUF_BOOL);
    put(b, &byte, 1);
    ++*keys;
}
static void put_str(sd_buf *b, const char *key, const char *v, int *keys) {
    put_text(b, key);
    put_u32(b, SD_GGUF_STRING);
    put_text(b, v);
    ++*keys;
}

static void put_tokens(sd_buf *b, const pieces_recipe *r, size_t n, int *keys) {
    put_array(b, "tokenizer.ggml.tokens", SD_GGUF_STRING, n, keys);
    for (size_t i = 0; i < n; i++) {
        char byte[16];
        snprintf(byte, sizeof byte, "<0x%02X>", (unsigned)(i - (size_t)r->n) & 255);
        put_text(b, i < (size_t)r->n ? r->row[i].text : byte);
    }
    for (size_t i = 0; !r->no_scores && i < n + (size_t)r->scores; i++) {
        float score = i < (size_t)r->n ? r->row[i].score : 0;
        if (i == 0) put_array(b, "tokenizer.ggml.scores", SD_GGUF_F32, n + (size_t)r->scores, keys);
        put(b, &score, sizeof score);
    }
    for (size_t i = 0; !r->no_types && i < n + (size_t)r->types; i++) {
        if (i == 0)
            put_array(b, "tokenizer.ggml.token_type", SD_GGUF_I32, n + (size_t)r->types, keys);
        put_u32(b, (uint32_t)(i < (size_t)r->n ? r->row[i].type : PIECE_BYTE));
    }
}

pieces_file pieces_make(const pieces_recipe *r) {
    sd_buf b = sd_buf_make(1 << 26);
    int keys = 0;
    put(&b, "GGUF", 4);
    put_u32(&b, 3);
    put_u64(&b, 0);
    put_u64(&b, 0); // the keys, below
    put_str(&b, "general.architecture", r->arch ? r->arch : "llama", &keys);
    put_str(&b, "tokenizer.ggml.model", "llama", &keys);
    put_tokens(&b, r, (size_t)r->n + (r->bytes ? 256 : 0), &keys);
    if (r->prefix) put_bool(&b, "tokenizer.ggml.add_space_prefix", r->prefix > 0, &keys);
    if (r->squeeze) put_bool(&b, "tokenizer.ggml.remove_extra_whitespaces", true, &keys);
    if (r->unk) put_id(&b, "tokenizer.ggml.unknown_token_id", r->unk - 1, &keys);
    if (r->bos) put_id(&b, "tokenizer.ggml.bos_token_id", r->bos - 1, &keys);
    memcpy(b.data + 16, &(uint64_t){(uint64_t)keys}, 8);
    return (pieces_file){b.data, b.len};
}

void pieces_free(pieces_file *f) {
    free(f->data);
    *f = (pieces_file){0};
}

sd_tokenizer *pieces_open(const pieces_file *f, sd_error *err) {
    sd_tokenizer *t = NULL;
    sd_gguf *g = NULL;
    if (sd_gguf_from_memory(&g, f->data, f->len, "pieces.gguf", err) == SD_OK)
        (void)sd_tokenizer_from_gguf(&t, g, err);
    sd_gguf_close(g);
    return t;
}
