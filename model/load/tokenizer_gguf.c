// A tokenizer out of GGUF metadata:
//
//   tokenizer.ggml.model        "gpt2": byte-level BPE; "llama": SentencePiece's BPE, pieces_gguf.c
//   tokenizer.ggml.pre          the pre-tokeniser's name
//   tokenizer.ggml.tokens       [V] texts, bytes as printable characters
//   tokenizer.ggml.token_type   [V] 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
//   tokenizer.ggml.merges       "left right" by rank
//   tokenizer.ggml.bos_token_id, eos_token_id, add_bos_token, add_eos_token
#include "model/load/tokenizer_gguf.h"

#include "base/log.h"
#include "model/tokenizer/internal.h"

#include <string.h>

enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4 };

typedef struct {
    const char *name;
    const char *pattern;
    bool digits;        // each digit alone before the pattern
    bool ignore_merges; // as the model's tokenizer.json has it
} pre_tokeniser;

static const pre_tokeniser PRE[] = {
    {"default", SD_REGEX_GPT2, false, false},    {"gpt-2", SD_REGEX_GPT2, false, false},
    {"llama-bpe", SD_REGEX_LLAMA3, false, true}, {"llama3", SD_REGEX_LLAMA3, false, true},
    {"llama-v3", SD_REGEX_LLAMA3, false, true},  {"smollm", SD_REGEX_GPT2, true, false},
    {"qwen2", SD_REGEX_QWEN2, false, false},     {"deepseek-r1-qwen", SD_REGEX_QWEN2, false, false},
    {"qwen35", SD_REGEX_QWEN35, false, false},   {"gpt-4o", SD_REGEX_GPT4O, false, false},
    {"tekken", SD_REGEX_TEKKEN, false, true},
};

static sd_status read_pre(sd_tokenizer *t, const sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_string name = {"default", 7};
    const pre_tokeniser *pre = NULL;
    bool has;
    SD_TRY(sd_gguf_str(g, "tokenizer.ggml.pre", &name, &has, err));
    if (!has)
        sd_log(
            SD_LOG_WARN,
            "%s: the pre-tokeniser is not named (tokenizer.ggml.pre); GPT-2's splitting is taken, "
            "the ids may be wrong: convert the model again",
            sd_gguf_path(g));
    for (size_t i = 0; i < sizeof PRE / sizeof PRE[0]; i++)
        if (strlen(PRE[i].name) == name.len && memcmp(PRE[i].name, name.data, name.len) == 0)
            pre = &PRE[i];
    SD_CHECK(pre, err, SD_EFORMAT,
             "%s: pre-tokeniser \"%.*s\" is not supported; default, gpt-2, llama-bpe, smollm, "
             "qwen2, deepseek-r1-qwen, qwen35, gpt-4o and tekken are",
             sd_gguf_path(g), (int)(name.len < 64 ? name.len : 64), name.data);
    t->bpe.ignore_merges = pre->ignore_merges;
    if (pre->digits)
        SD_TRY(sd_tokenizer_add_step(
            t, (sd_split_step){.kind = SD_STEP_DIGITS, .behaviour = SD_SPLIT_ISOLATED}, err));
    SD_TRY(sd_tokenizer_add_regex(t, pre->pattern, strlen(pre->pattern), false, SD_SPLIT_ISOLATED,
                                  false, err));
out:
    return st;
}

static sd_status read_token(sd_tokenizer *t, int id, sd_gguf_string s, int64_t type,
                            sd_error *err) {
    sd_status st = SD_OK;
    sd_buf bytes = sd_buf_make((size_t)1 << 24);
    bool added = type == TYPE_CONTROL || type == TYPE_USER || type == TYPE_UNKNOWN, printable;
    SD_CHECK_ALLOC(sd_bytes_from_printable(&bytes, s.data, s.len, &printable), err);
    if (printable)
        SD_TRY(sd_bpe_set(&t->bpe, id, bytes.data, bytes.len, true, err));
    else
        SD_TRY(sd_bpe_set(&t->bpe, id, s.data, s.len, false, err));
    if (added) {
        sd_added_token a = {.id = id, .text = (char *)(uintptr_t)s.data, .len = s.len};
        a.special = type != TYPE_USER;
        SD_TRY(sd_tokenizer_add_added_token(t, &a, err));
    }
out:
    sd_buf_free(&bytes);
    return st;
}

static sd_status read_tokens(sd_tokenizer *t, const sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    size_t n = 0, n_types = 0;
    SD_TRY(sd_gguf_strings(g, "tokenizer.ggml.tokens", &n, err));
    SD_TRY(sd_gguf_integers(g, "tokenizer.ggml.token_type", &n_types, err));
    SD_CHECK(n > 0 && n <= SD_TOK_MAX_VOCAB, err, SD_EFORMAT,
             "%s: tokenizer.ggml.tokens has %zu entries, 1 to %d are supported", sd_gguf_path(g), n,
             SD_TOK_MAX_VOCAB);
    SD_TRY(sd_bpe_init(&t->bpe, (int)n, err));
    if (n_types == 0)
        sd_log(SD_LOG_WARN,
               "%s: the tokens have no types (tokenizer.ggml.token_type); none is taken as special",
               sd_gguf_path(g));
    SD_CHECK(n_types == 0 || n_types == n, err, SD_EFORMAT,
             "%s: %zu token types for %zu tokens; convert the model again", sd_gguf_path(g),
             n_types, n);
    for (size_t i = 0; i < n; i++) {
        sd_gguf_string s;
        int64_t type = 1;
        if (n_types) (void)sd_gguf_array_int(g, "tokenizer.ggml.token_type", i, &type);
        SD_CHECK(sd_gguf_array_str(g, "tokenizer.ggml.tokens", i, &s), err, SD_EFORMAT,
                 "%s: token %zu cannot be read", sd_gguf_path(g), i);
        SD_TRY(read_token(t, (int)i, s, type, err));
    }
out:
    return st;
}

static sd_status read_merges(sd_tokenizer *t, const sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf left = sd_buf_make((size_t)1 << 24), right = left;
    size_t n = 0;
    SD_TRY(sd_gguf_strings(g, "tokenizer.ggml.merges", &n, err));
    SD_CHECK(n <= SD_TOK_MAX_VOCAB, err, SD_EFORMAT, "%s: %zu merges, at most %d are supported",
             sd_gguf_path(g), n, SD_TOK_MAX_VOCAB);
    SD_TRY(sd_bpe_reserve_merges(&t->bpe, (int)n, err));
    for (size_t i = 0; i < n; i++) {
        sd_gguf_string s;
        bool ok1 = false, ok2 = false;
        SD_CHECK(sd_gguf_array_str(g, "tokenizer.ggml.merges", i, &s), err, SD_EFORMAT,
                 "%s: merge %zu cannot be read", sd_gguf_path(g), i);
        const char *space = s.len > 2 ? memchr(s.data + 1, ' ', s.len - 2) : NULL;
        SD_CHECK(space, err, SD_EFORMAT, "%s: merge %zu is not two tokens with a space between",
                 sd_gguf_path(g), i);
        sd_buf_clear(&left);
        sd_buf_clear(&right);
        size_t n_left = (size_t)(space - s.data);
        SD_CHECK_ALLOC(sd_bytes_from_printable(&left, s.data, n_left, &ok1) &&
                           sd_bytes_from_printable(&right, space + 1, s.len - n_left - 1, &ok2),
                       err);
        SD_CHECK(ok1 && ok2, err, SD_EFORMAT, "%s: merge %zu is not written in GPT-2's characters",
                 sd_gguf_path(g), i);
        SD_TRY(sd_bpe_add_merge(&t->bpe, left.data, left.len, right.data, right.len, err));
    }
out:
    sd_buf_free(&left);
    sd_buf_free(&right);
    return st;
}

static sd_status read_id(int32_t *id, const sd_tokenizer *t, const sd_gguf *g, const char *key,
                         sd_error *err) {
    sd_status st = sd_gguf_token(g, key, id, err);
    if (st == SD_OK && *id >= t->bpe.V)
        st = sd_fail(err, SD_EFORMAT, "%s: the key %s is %d, but there are %d tokens",
                     sd_gguf_path(g), key, *id, t->bpe.V);
    return st;
}

static sd_status read_kind(bool *pieces, const sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_string model;
    bool has;
    SD_TRY(sd_gguf_str(g, "tokenizer.ggml.model", &model, &has, err));
    SD_CHECK(has, err, SD_ENOTFOUND,
             "%s: holds no tokenizer (tokenizer.ggml.model); convert the model with its tokenizer",
             sd_gguf_path(g));
    *pieces = sd_gguf_str_is(g, "tokenizer.ggml.model", "llama");
    SD_CHECK(*pieces || sd_gguf_str_is(g, "tokenizer.ggml.model", "gpt2"), err, SD_EFORMAT,
             "%s: tokenizer model \"%.*s\" is not supported; byte-level BPE (\"gpt2\") and "
             "SentencePiece's BPE (\"llama\") are",
             sd_gguf_path(g), (int)(model.len < 64 ? model.len : 64), model.data);
out:
    return st;
}

sd_status sd_tokenizer_from_gguf(sd_tokenizer **out, const sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    bool has, pieces = false;
    *out = NULL;
    sd_tokenizer *t = sd_alloc(1, sizeof *t);
    SD_CHECK_ALLOC(t, err);
    SD_TRY(read_kind(&pieces, g, err));
    if (pieces) {
        SD_TRY(sd_tokenizer_read_gguf_pieces(t, g, err));
    } else {
        SD_TRY(read_tokens(t, g, err));
        SD_TRY(read_merges(t, g, err));
        SD_TRY(read_pre(t, g, err));
    }
    SD_TRY(read_id(&t->bos, t, g, "tokenizer.ggml.bos_token_id", err));
    SD_TRY(read_id(&t->eos, t, g, "tokenizer.ggml.eos_token_id", err));
    SD_TRY(sd_gguf_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, &has, err));
    if (!has) t->add_bos = pieces || t->bpe.ignore_merges; // llama.cpp's rule: the file is silent
    SD_TRY(sd_gguf_bool(g, "tokenizer.ggml.add_eos_token", &t->add_last, NULL, err));
    t->last = t->eos;
    t->add_last = t->add_last && t->last >= 0;
    SD_TRY(sd_tokenizer_finish(t, err));
    *out = t;
    t = NULL;
out:
    sd_tokenizer_close(t);
    return st;
}
