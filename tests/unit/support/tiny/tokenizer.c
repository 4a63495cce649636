// The tokenizer of tiny models, in both formats: byte-level BPE.
#include "base/memory.h"
#include "tests/unit/support/tiny/parts.h"

#include <stdio.h>
#include <string.h>

#define SPACE "\xc4\xa0" // how byte-level BPE spells it
static const char *const merges[SD_TINY_MERGES][2] = {
    {SPACE, "t"},      {"h", "e"},   {SPACE "t", "he"}, {"i", "n"},   {"e", "r"}, {"o", "n"},
    {"a", "n"},        {SPACE, "a"}, {"r", "e"},        {SPACE, "s"}, {"e", "n"}, {"a", "t"},
    {"o", "r"},        {"e", "s"},   {"i", "s"},        {SPACE, "w"}, {"i", "t"}, {SPACE, "o"},
    {"a", "r"},        {"a", "l"},   {"l", "l"},        {SPACE, "c"}, {"n", "d"}, {SPACE "o", "f"},
    {SPACE "a", "nd"}, {"in", "g"},  {SPACE, "in"},     {SPACE, "p"}, {"o", "u"}};
const char *const sd_tiny_specials[3] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
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
    } else if (id < 256 + SD_TINY_MERGES) {
        snprintf(out, 32, "%s%s", merges[id - 256][0], merges[id - 256][1]);
    } else if (id < SD_TINY_TOKENS) {
        snprintf(out, 32, "%s", sd_tiny_specials[id - 256 - SD_TINY_MERGES]);
    } else {
        snprintf(out, 32, "[PAD%d]", id);
    }
}

const char *sd_tiny_template(const sd_tiny_model *t) {
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

sd_status sd_tiny_put_tokenizer(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf tokens = sd_buf_make(1 << 24), types = sd_buf_make(1 << 24),
           pairs = sd_buf_make(1 << 20);
    bool ok = add_array_head(&tokens, SD_GGUF_STRING, (uint64_t)t->V) &&
              add_array_head(&types, SD_GGUF_I32, (uint64_t)t->V) &&
              add_array_head(&pairs, SD_GGUF_STRING, SD_TINY_MERGES);
    for (int i = 0; ok && i < t->V; i++) {
        char s[32];
        int32_t type = i < 256 + SD_TINY_MERGES ? 1 : i < SD_TINY_TOKENS ? 3 : 5;
        spell_token(s, i);
        int further = i - SD_TINY_TOKENS;
        const char *text = further >= 0 && further < t->n_added ? t->added[further] : s;
        if (text != s) type = *text == '<' ? 3 : 4;
        ok = add_str(&tokens, text) && sd_buf_add(&types, &type, 4);
    }
    for (int i = 0; ok && i < SD_TINY_MERGES; i++) {
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
    SD_TRY(sd_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 256 + SD_TINY_MERGES, err));
    SD_TRY(sd_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", SD_TINY_TOKENS - 1, err));
    SD_TRY(sd_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false, err));
out:
    sd_buf_free(&tokens);
    sd_buf_free(&types);
    sd_buf_free(&pairs);
    return st;
}

json_t *sd_tiny_tokenizer_json(void) {
    json_t *vocab = json_object(), *pairs = json_array(), *added = json_array();
    for (int i = 0; i < 256 + SD_TINY_MERGES; i++) {
        char s[32];
        spell_token(s, i);
        json_object_set_new(vocab, s, json_integer(i));
    }
    for (int i = 0; i < SD_TINY_MERGES; i++)
        json_array_append_new(pairs, json_pack("[s, s]", merges[i][0], merges[i][1]));
    for (int i = 0; i < 3; i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id",
                                               256 + SD_TINY_MERGES + i, "content",
                                               sd_tiny_specials[i], "single_word", 0, "lstrip", 0,
                                               "rstrip", 0, "normalized", 0, "special", 1));
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
