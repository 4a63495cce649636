#include "decode/engine/bad_words.h"

#include "base/memory.h"

#include <string.h>

// The tokens of the text where it goes on from another, behind their number.
static sd_status add_sequence(sd_ids *out, const sd_tokenizer *t, const char *text, size_t len,
                              sd_error *err) {
    sd_status st = SD_OK;
    const int at = out->n, flags = SD_TOK_SPECIAL | SD_TOK_GOES_ON;
    SD_CHECK_ALLOC(sd_ids_add(out, &(int32_t){0}, 1), err);
    SD_TRY(sd_tokenizer_encode(t, text, len, flags, out, err));
    out->id[at] = out->n - at - 1;
    SD_CHECK(out->id[at] >= 1 && out->id[at] <= SD_MAX_BAD_WORD_TOKENS, err, SD_EINVAL,
             "the word has %d tokens; 1 to %d are possible", out->id[at], SD_MAX_BAD_WORD_TOKENS);
out:
    return st;
}

sd_status sd_bad_word_add(sd_ids *out, const sd_model *m, const char *word, size_t len,
                          sd_error *err) {
    sd_status st = SD_OK;
    const int at = out->n;
    sd_buf spaced = sd_buf_make(len + 1);
    SD_CHECK(m->tokenizer, err, SD_EINVAL,
             "bad words need a tokenizer and this model has none; ban tokens by logit_bias");
    while (len > 0 && *word == ' ') word++, len--;
    SD_CHECK(len > 0, err, SD_EINVAL, "the word is empty or nothing but spaces; give one to ban");
    SD_CHECK_ALLOC(sd_buf_addc(&spaced, ' ') && sd_buf_add(&spaced, word, len), err);
    SD_TRY(add_sequence(out, m->tokenizer, word, len, err));
    int n = out->n - at;
    SD_TRY(add_sequence(out, m->tokenizer, spaced.data, spaced.len, err));
    if (out->n - at == 2 * n &&
        memcmp(out->id + at, out->id + at + n, (size_t)n * sizeof *out->id) == 0)
        out->n = at + n;
out:
    if (st != SD_OK) out->n = at;
    sd_buf_free(&spaced);
    return st;
}
