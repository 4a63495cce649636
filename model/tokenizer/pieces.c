// Vocabularies of SentencePiece's BPE (Kudo and Richardson, arXiv:1808.06226), as they stand in GGUF
// files and in tokenizer.model:
//
//   normal, unused   merged by score. (Unused ones too: llama.cpp and transformers do so.)
//   byte             stands for one byte of a character that is no piece
//   control          special: found in text only on request, as one token
//   user-defined     found in every text, as one token, before anything is merged; the longest where
//                    several begin. So 51 spaces are 31 and 20 with Gemma, whose longest run is 31.
//   unknown          for a character without piece and bytes; found like control
//
// A byte, control or unknown piece is never made by merging, so that plain text cannot become one.
#include "model/tokenizer/internal.h"

#include "base/utf8.h"

#include <string.h>

int sd_byte_of_piece(const char *text, size_t len) {
    int value = 0;
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        static const char digits[] = "0123456789ABCDEF";
        const char *d = text[i] ? strchr(digits, text[i]) : NULL;
        if (!d) return -1;
        value = value * 16 + (int)(d - digits);
    }
    return value;
}

static sd_status set_byte(sd_tokenizer *t, int id, const sd_piece *p, sd_error *err) {
    sd_status st = SD_OK;
    int value = sd_byte_of_piece(p->text, p->len);
    char byte = (char)value;
    SD_CHECK(
        value >= 0, err, SD_EFORMAT,
        "token %d is a byte and is written \"%.*s\", which is none of <0x00> to <0xFF>; convert "
        "the model again",
        id, (int)(p->len < 64 ? p->len : 64), p->text);
    SD_CHECK(t->bpe.byte_id[value] < 0, err, SD_EFORMAT,
             "tokens %d and %d are both the byte <0x%02X>; convert the model again",
             t->bpe.byte_id[value], id, (unsigned)value);
    SD_TRY(sd_bpe_set(&t->bpe, id, &byte, 1, false, err));
    t->bpe.byte_id[value] = id;
out:
    return st;
}

// White space behind these is text, where it belongs to the other added tokens.
static bool keeps_space(const sd_piece *p) {
    static const char *const names[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (p->len == strlen(names[i]) && memcmp(p->text, names[i], p->len) == 0) return true;
    return false;
}

static sd_status set_added(sd_tokenizer *t, int id, const sd_piece *p, const sd_pieces_options *o,
                           sd_buf *text, sd_error *err) {
    sd_status st = SD_OK;
    sd_added_token a = {.id = id, .text = (char *)(uintptr_t)p->text, .len = p->len};
    a.special = p->type != SD_PIECE_USER;
    a.rstrip = o->strip_after && !keeps_space(p);
    if (a.special)
        SD_TRY(sd_bpe_set(&t->bpe, id, p->text, p->len, false, err));
    else
        SD_TRY(sd_bpe_set(&t->bpe, id, text->data, text->len, false, err));
    SD_TRY(sd_tokenizer_add_added_token(t, &a, err));
out:
    return st;
}

static sd_status set_piece(sd_tokenizer *t, int id, const sd_piece *p, const sd_pieces_options *o,
                           sd_buf *text, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(p->type >= SD_PIECE_NORMAL && p->type <= SD_PIECE_BYTE, err, SD_EFORMAT,
             "token %d has type %lld, 1 to 6 are known; convert the model again", id,
             (long long)p->type);
    if (p->type == SD_PIECE_BYTE) return set_byte(t, id, p, err);
    if (p->len == 0) return SD_OK;
    // An added token that began within a character would leave half of it as text.
    SD_CHECK(sd_utf8_valid_prefix(p->text, p->len) == p->len, err, SD_EFORMAT,
             "token %d is no UTF-8; convert the model again", id);
    sd_buf_clear(text);
    SD_CHECK_ALLOC(sd_tokenizer_spaces(text, p->text, p->len, false), err);
    bool merges = p->type == SD_PIECE_NORMAL || p->type == SD_PIECE_UNUSED;
    if (!merges) return set_added(t, id, p, o, text, err);
    // A real space never reaches the merges: it is written U+2581 by then.
    bool reachable = !memchr(p->text, ' ', p->len);
    int32_t twin = reachable ? sd_bpe_find(&t->bpe, text->data, text->len) : -1;
    SD_CHECK(twin < 0, err, SD_EFORMAT,
             "tokens %d and %d have the same text; convert the model again", twin, id);
    SD_TRY(sd_bpe_set(&t->bpe, id, text->data, text->len, reachable, err));
out:
    return st;
}

sd_status sd_tokenizer_set_pieces(sd_tokenizer *t, const sd_piece *piece, size_t n,
                                  const sd_pieces_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make((size_t)1 << 24);
    float *score = NULL;
    SD_CHECK(n > 0 && n <= SD_TOK_MAX_VOCAB, err, SD_EFORMAT,
             "the vocabulary has %zu tokens, 1 to %d are supported; check the file", n,
             SD_TOK_MAX_VOCAB);
    score = sd_alloc(n, sizeof *score);
    SD_CHECK_ALLOC(score, err);
    SD_TRY(sd_bpe_init(&t->bpe, (int)n, err));
    t->pieces = t->bpe.by_character = t->bpe.fuse_unk = true;
    t->bpe.unk = o->unk;
    t->prefix = o->prefix ? SD_PREFIX_ALWAYS : SD_PREFIX_NONE;
    t->strip_prefix = o->prefix;
    for (size_t i = 0; i < n; i++) {
        SD_TRY(set_piece(t, (int)i, &piece[i], o, &text, err));
        score[i] = o->by_position ? -(float)i : piece[i].score;
    }
    SD_TRY(sd_bpe_merge_by_score(&t->bpe, score, err));
out:
    sd_buf_free(&text);
    free(score);
    return st;
}
