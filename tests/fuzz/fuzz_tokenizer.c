// Three inputs in one, by the first byte. Odd: a text for the four known pre-tokenisers over the 256
// bytes, whose ids must give the text back. 2 of 4: pieces, as type, score, length and text each, up
// to a length of 255; then a text that must come back. Else: a tokenizer.json, then a text.
#include "model/tokenizer/internal.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static sd_tokenizer *make(const char *pattern, bool digits) {
    sd_tokenizer *t = sd_alloc(1, sizeof *t);
    sd_error err;
    sd_split_step step = {.kind = SD_STEP_DIGITS, .behaviour = SD_SPLIT_ISOLATED};
    t->bos = t->eos = -1;
    if (sd_bpe_init(&t->bpe, 260, &err) != SD_OK) __builtin_trap();
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        sd_bpe_set(&t->bpe, i, &c, 1, true, &err);
    }
    sd_bpe_set(&t->bpe, 256, "aa", 2, true, &err);
    sd_bpe_set(&t->bpe, 257, "aaaa", 4, true, &err);
    sd_bpe_set(&t->bpe, 258, "  ", 2, true, &err);
    sd_bpe_set(&t->bpe, 259, "<x>", 3, false, &err);
    sd_bpe_reserve_merges(&t->bpe, 3, &err);
    sd_bpe_add_merge(&t->bpe, "a", 1, "a", 1, &err);
    sd_bpe_add_merge(&t->bpe, "aa", 2, "aa", 2, &err);
    sd_bpe_add_merge(&t->bpe, " ", 1, " ", 1, &err);
    sd_added_token a = {.id = 259, .text = (char *)(uintptr_t) "<x>", .len = 3, .special = true};
    sd_tokenizer_add_added_token(t, &a, &err);
    if (digits) sd_tokenizer_add_step(t, step, &err);
    if (sd_tokenizer_add_regex(t, pattern, strlen(pattern), false, SD_SPLIT_ISOLATED, false,
                               &err) ||
        sd_tokenizer_finish(t, &err))
        __builtin_trap();
    return t;
}

static void round_trip(const sd_tokenizer *t, const char *text, size_t len) {
    sd_ids ids = {0};
    sd_error err;
    sd_buf valid = sd_buf_make(1 << 24), back = sd_buf_make(1 << 24),
           streamed = sd_buf_make(1 << 24);
    sd_utf8_stream stream = {0};
    sd_utf8_lossy(&valid, text, len);
    if (sd_tokenizer_encode(t, text, len, SD_TOK_SPECIAL, &ids, &err) != SD_OK) __builtin_trap();
    sd_tokenizer_decode(t, ids.id, ids.n, false, &back, &err);
    for (int i = 0; i < ids.n; i++) {
        size_t n;
        const char *bytes = sd_tokenizer_bytes(t, ids.id[i], &n);
        sd_utf8_stream_add(&stream, bytes, n, &streamed);
    }
    sd_utf8_stream_add(&stream, NULL, 0, &streamed);
    if (back.len != valid.len || (back.len && memcmp(back.data, valid.data, back.len) != 0) ||
        streamed.len != valid.len ||
        (streamed.len && memcmp(streamed.data, valid.data, streamed.len) != 0))
        __builtin_trap();
    sd_ids_free(&ids);
    sd_buf_free(&valid);
    sd_buf_free(&back);
    sd_buf_free(&streamed);
}

// A vocabulary of the pieces in the input, and the 256 bytes. Control pieces are left out: they keep
// U+2581, which the text loses.
static void pieces(const char *data, size_t size, bool by_position) {
    static const sd_piece_type types[] = {SD_PIECE_NORMAL, SD_PIECE_USER, SD_PIECE_UNUSED,
                                          SD_PIECE_NORMAL};
    static char bytes[256][8];
    sd_piece piece[64 + 256] = {0};
    size_t n = 0, at = 0;
    for (; at + 3 <= size && (unsigned char)data[at + 2] != 255 && n < 64; n++) {
        size_t len = (unsigned char)data[at + 2];
        if (len > size - at - 3) break;
        piece[n] = (sd_piece){data + at + 3, len, (float)data[at + 1], types[data[at] & 3]};
        at += 3 + len;
    }
    for (int i = 0; i < 256; i++) {
        snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", (unsigned)i);
        piece[n++] = (sd_piece){bytes[i], 6, 0, SD_PIECE_BYTE};
    }
    at = at + 3 < size ? at + 3 : size;
    sd_error err;
    sd_tokenizer *t = sd_alloc(1, sizeof *t);
    sd_pieces_options o = {.by_position = by_position, .unk = -1};
    t->bos = t->eos = -1;
    if (sd_tokenizer_set_pieces(t, piece, n, &o, &err) == SD_OK &&
        sd_tokenizer_finish(t, &err) == SD_OK) {
        sd_buf text = sd_buf_make(1 << 24);
        if (!sd_tokenizer_spaces(&text, data + at, size - at, false)) __builtin_trap();
        round_trip(t, text.data ? text.data : "", text.len);
        sd_buf_free(&text);
    }
    sd_tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sd_tokenizer *known[4];
    if (!known[0]) {
        known[0] = make(SD_REGEX_GPT2, false);
        known[1] = make(SD_REGEX_GPT2, true);
        known[2] = make(SD_REGEX_LLAMA3, false);
        known[3] = make(SD_REGEX_QWEN2, false);
    }
    if (size < 1) return 0;
    const char *text = (const char *)data + 1;
    size--;
    if (data[0] & 1) {
        round_trip(known[data[0] >> 1 & 3], text, size);
        return 0;
    }
    if ((data[0] & 3) == 2) {
        pieces(text, size, data[0] & 4);
        return 0;
    }
    sd_tokenizer *t = NULL;
    sd_error err;
    const char *zero = memchr(text, 0, size);
    size_t n = zero ? (size_t)(zero - text) : size;
    if (sd_tokenizer_from_json(&t, text, n, &err) == SD_OK) {
        sd_ids ids = {0};
        size_t rest = size - n < 512 ? size - n : 512;
        sd_tokenizer_encode(t, text + n, rest, SD_TOK_SPECIAL, &ids, &err);
        sd_ids_free(&ids);
    }
    sd_tokenizer_close(t);
    return 0;
}
