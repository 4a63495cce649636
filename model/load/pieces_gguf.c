// SentencePiece's BPE out of GGUF metadata, as Llama 2, Mistral, Phi 3 and Gemma files have it:
//
//   tokenizer.ggml.tokens            [V] pieces, a space as U+2581
//   tokenizer.ggml.scores            [V] the highest is merged first
//   tokenizer.ggml.token_type        [V] sd_piece_type
//   tokenizer.ggml.unknown_token_id  for a character that has no piece and no bytes
//   tokenizer.ggml.add_space_prefix  true where it is absent
//   tokenizer.ggml.remove_extra_whitespaces  must be false
//
// Two families need what their files do not say. Gemma's pieces merge in the order of the vocabulary,
// runs of spaces first, which its file has as user-defined and written with spaces. In Phi 3's
// tokenizer.json white space behind a special token belongs to the token. Both are told by
// general.architecture, as transformers and llama.cpp tell them.
#include "model/load/tokenizer_gguf.h"

#include "model/tokenizer/internal.h"

#include <string.h>

static const char TOKENS[] = "tokenizer.ggml.tokens", SCORES[] = "tokenizer.ggml.scores",
                  TYPES[] = "tokenizer.ggml.token_type";

static bool arch_begins_with(const sd_gguf *g, const char *name) {
    sd_gguf_string s;
    bool has;
    return sd_gguf_str(g, "general.architecture", &s, &has, NULL) == SD_OK && has &&
           s.len >= strlen(name) && memcmp(s.data, name, strlen(name)) == 0;
}

static sd_status read_options(sd_pieces_options *o, const sd_gguf *g, size_t n, sd_error *err) {
    sd_status st = SD_OK;
    bool squeeze = false;
    *o = (sd_pieces_options){.prefix = true};
    SD_TRY(sd_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &o->prefix, NULL, err));
    SD_TRY(sd_gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &squeeze, NULL, err));
    SD_CHECK(!squeeze, err, SD_EFORMAT,
             "%s: tokenizer.ggml.remove_extra_whitespaces is true, which is not supported; use a "
             "model whose tokenizer keeps spaces",
             sd_gguf_path(g));
    SD_TRY(sd_gguf_token(g, "tokenizer.ggml.unknown_token_id", &o->unk, err));
    SD_CHECK(o->unk < 0 || (size_t)o->unk < n, err, SD_EFORMAT,
             "%s: the key tokenizer.ggml.unknown_token_id is %d, but there are %zu tokens",
             sd_gguf_path(g), o->unk, n);
    o->by_position = arch_begins_with(g, "gemma");
    o->strip_after = arch_begins_with(g, "phi3");
out:
    return st;
}

sd_status sd_tokenizer_read_gguf_pieces(sd_tokenizer *t, const sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    sd_pieces_options o;
    sd_piece *piece = NULL;
    size_t n, n_scores, n_types;
    SD_TRY(sd_gguf_strings(g, TOKENS, &n, err));
    SD_TRY(sd_gguf_floats(g, SCORES, &n_scores, err));
    SD_TRY(sd_gguf_integers(g, TYPES, &n_types, err));
    SD_CHECK(n_scores == n && n_types == n, err, SD_EFORMAT,
             "%s: %zu tokens have %zu scores (%s) and %zu types (%s); convert the model again",
             sd_gguf_path(g), n, n_scores, SCORES, n_types, TYPES);
    SD_CHECK(n > 0 && n <= SD_TOK_MAX_VOCAB, err, SD_EFORMAT,
             "%s: %s has %zu entries, 1 to %d are supported", sd_gguf_path(g), TOKENS, n,
             SD_TOK_MAX_VOCAB);
    SD_TRY(read_options(&o, g, n, err));
    piece = sd_alloc(n, sizeof *piece);
    SD_CHECK_ALLOC(piece, err);
    for (size_t i = 0; i < n; i++) {
        sd_gguf_string s;
        SD_CHECK(sd_gguf_array_str(g, TOKENS, i, &s) &&
                     sd_gguf_array_f32(g, SCORES, i, &piece[i].score) &&
                     sd_gguf_array_int(g, TYPES, i, &piece[i].type),
                 err, SD_EFORMAT, "%s: token %zu cannot be read", sd_gguf_path(g), i);
        piece[i].text = s.data;
        piece[i].len = s.len;
    }
    st = sd_tokenizer_set_pieces(t, piece, n, &o, err);
    if (st != SD_OK) sd_error_prefix(err, "%s", sd_gguf_path(g));
out:
    free(piece);
    return st;
}
