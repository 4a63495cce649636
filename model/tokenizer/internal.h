// The tokenizer as its own files see it, and the opening of one by the readers of files
// (from_json.c, model/load/tokenizer_gguf.c).
//
// The room, from the ground up:
//
//   ids.c      a growing list of ids            printable.c   bytes as vocabularies write them
//   bpe.c      word -> ids                      added.c       added tokens
//   scores.c   merges out of scores             normalise.c   Unicode's forms
//   regex.c    patterns for PCRE2               split.c       text -> words
//   pieces.c   vocabularies of SentencePiece    tokenizer.c   opening, closing, questions
//   encode.c   text -> ids                      decode.c      ids -> text
#pragma once

#include "model/tokenizer/added.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/split.h"

enum { SD_TOK_MAX_TEXT = 1 << 30 }; // bytes of one text, so that positions fit 32 bits

// Where a space is put before text, in tokenizers of pieces.
typedef enum {
    SD_PREFIX_NONE,
    SD_PREFIX_ALWAYS,  // before every text between added tokens
    SD_PREFIX_MISSING, // the same, but not before a text that begins with a space
    SD_PREFIX_FIRST    // at the beginning alone, where the text does not begin with a space
} sd_prefix;

struct sd_tokenizer {
    sd_bpe bpe;
    // SentencePiece's way: tokens are texts of characters in which a space is written U+2581. In here
    // both are a space: the vocabulary's text is what it decodes to, and U+2581 in a text that is
    // encoded becomes a space, as that becomes U+2581 elsewhere.
    bool pieces;
    sd_prefix prefix;
    bool strip_prefix; // decoding drops a space at the very beginning
    bool spaces_late;  // spaces are written, and the prefix put, after normalised tokens were found
    sd_split_step step[SD_TOK_MAX_STEPS];
    int n_steps;
    bool normalises; // to normal_form (UTF8PROC_* options)
    int normal_form;
    sd_added_token *added;
    int n_added, cap_added;
    sd_trie raw, normal; // tokens found before and after normalisation
    int32_t bos, eos;
    int32_t last; // stands behind a text where add_last
    bool add_bos, add_last;
    char fingerprint[65], encoding[65];
};

sd_status sd_tokenizer_add_regex(sd_tokenizer *t, const char *pattern, size_t len, bool literal,
                                 sd_split_behaviour behaviour, bool invert, sd_error *err);
sd_status sd_tokenizer_add_step(sd_tokenizer *t, sd_split_step step, sd_error *err);
sd_status sd_tokenizer_add_added_token(sd_tokenizer *t, const sd_added_token *a, sd_error *err);
/// Text as added tokens that are normalized see it: *text and *len, in out where they are not as
/// they came. out is empty and has a ceiling. flags: of sd_tokenizer_encode.
sd_status sd_tokenizer_normalise(const sd_tokenizer *t, int flags, sd_buf *out, const char **text,
                                 size_t *len, sd_error *err);
/// Appends text [len bytes] as pieces see it: every U+2581 a space, one more in front with prefix.
bool sd_tokenizer_spaces(sd_buf *out, const char *text, size_t len, bool prefix);

// ---- vocabularies of SentencePiece (pieces.c)

typedef enum { // as ModelProto and GGUF number them
    SD_PIECE_NORMAL = 1,
    SD_PIECE_UNKNOWN,
    SD_PIECE_CONTROL,
    SD_PIECE_USER,
    SD_PIECE_UNUSED,
    SD_PIECE_BYTE
} sd_piece_type;

typedef struct {
    const char *text; // UTF-8, a space as U+2581; of a byte "<0x00>" to "<0xFF>"
    size_t len;       // 0: the id stands for nothing
    float score;      // read for NORMAL and UNUSED
    int64_t type;
} sd_piece;

typedef struct {
    bool prefix;      // a space before text (add_dummy_prefix)
    bool by_position; // earlier pieces merge first
    bool strip_after; // white space behind added tokens belongs to them
    int32_t unk;      // -1: none
} sd_pieces_options;

/// Fills t (zeroed) with the vocabulary piece [n], whose texts are copied. SD_EFORMAT names a piece
/// that is not one, or is there twice.
sd_status sd_tokenizer_set_pieces(sd_tokenizer *t, const sd_piece *piece, size_t n,
                                  const sd_pieces_options *o, sd_error *err);
/// The byte that a piece "<0x41>" stands for; -1 when the text is not written so.
int sd_byte_of_piece(const char *text, size_t len);

/// Tries and hashes; the last step of opening.
sd_status sd_tokenizer_finish(sd_tokenizer *t, sd_error *err);
