// Text to token ids and back: byte-level BPE, and SentencePiece's BPE with byte fallback, identical to
// Hugging Face `tokenizers`.
//
// Sources: a Hugging Face tokenizer.json, or the metadata of a GGUF file
// (model/load/tokenizer_gguf.h).
// Immutable after opening, so all threads share one.
//
//     SD_TRY(sd_tokenizer_encode(tok, text, len, SD_TOK_SPECIAL, &ids, err));
#pragma once

#include "base/memory.h"
#include "base/status.h"

#include <stdint.h>

typedef struct sd_tokenizer sd_tokenizer;

/// Ids in malloc'ed memory. Zeroed is a valid empty list; append grows it.
typedef struct {
    int32_t *id;
    int n, cap;
} sd_ids;
bool sd_ids_add(sd_ids *l, const int32_t *id, int n); // false when out of memory
void sd_ids_free(sd_ids *l);

/// From a Hugging Face folder: tokenizer.json (and tokenizer_config.json for bos/eos where it is
/// there).
sd_status sd_tokenizer_from_folder(sd_tokenizer **out, const char *folder, sd_error *err);
/// From the bytes of a tokenizer.json.
sd_status sd_tokenizer_from_json(sd_tokenizer **out, const char *json, size_t len, sd_error *err);
void sd_tokenizer_close(sd_tokenizer *t); // NULL is fine

enum {
    SD_TOK_SPECIAL = 1,   // special tokens written out in the text ("<|im_end|>") become their ids;
                          // without it they are plain text. Added tokens that are not special
                          // ("<tool_call>") are found either way, as in Hugging Face's tokenizers
    SD_TOK_ADD_BOS = 2,   // put bos first when the model says so (add_bos_token)
    SD_TOK_GOES_ON = 4,   // the text goes on from another: no space is put in front of it
    SD_TOK_ADD_LAST = 16, // put the token last that the tokenizer puts behind a text, where it does
    SD_TOK_GUARDED = 8    // parts of the text went through sd_tokenizer_guard
};

/// Appends the ids of text [len bytes, any bytes] to out. Invalid UTF-8 is tokenised
/// as HF does on lossily decoded text: see encode.c. 1 MB of one letter takes milliseconds.
sd_status sd_tokenizer_encode(const sd_tokenizer *t, const char *text, size_t len, int flags,
                              sd_ids *out, sd_error *err);

/// Appends text [len], which is valid UTF-8, so that no special token, and no added one that looks like a mark
/// ("<think>"), is found in it where it stands in a text that is encoded with SD_TOK_GUARDED: these are their letters
/// then. Tokens of one letter stay. control: the text may have such tokens. Of U+FDD0, which guards and is no
/// character of any text, it is freed either way.
sd_status sd_tokenizer_guard(const sd_tokenizer *t, const char *text, size_t len, bool control,
                             sd_buf *out, sd_error *err);

int sd_tokenizer_size(const sd_tokenizer *t);    // V: ids are 0 <= id < V
int32_t sd_tokenizer_bos(const sd_tokenizer *t); // -1: none
int32_t sd_tokenizer_eos(const sd_tokenizer *t);
bool sd_tokenizer_is_special(const sd_tokenizer *t, int32_t id);
/// The id of an added token by its text, -1 when there is none.
int32_t sd_tokenizer_find(const sd_tokenizer *t, const char *text);
/// The raw bytes a token stands for (may be part of a UTF-8 sequence); special tokens give their
/// text. *len 0 for an id out of range.
const char *sd_tokenizer_bytes(const sd_tokenizer *t, int32_t id, size_t *len);

/// The token that is `id` without the space that begins it; -1 where it begins with none, is nothing else, or the rest
/// is no token.
int32_t sd_tokenizer_unspaced(const sd_tokenizer *t, int32_t id);

/// Appends the text of ids, which begin a text: the space that some tokenizers put in front of it is
/// stripped. skip_special leaves special tokens out.
sd_status sd_tokenizer_decode(const sd_tokenizer *t, const int32_t *id, int n, bool skip_special,
                              sd_buf *out, sd_error *err);

/// The same for ids that may stand anywhere: sd_tokenizer_bytes one after the other.
sd_status sd_tokenizer_spell(const sd_tokenizer *t, const int32_t *id, int n, bool skip_special,
                             sd_buf *out, sd_error *err);

/// Bytes at the front of token id that are not its text when it follows token `before` (-1: nothing)
/// and begins what is shown: 1 for the space that the tokenizer puts before a text, which begins anew
/// behind a special token; else 0.
size_t sd_tokenizer_prefix_bytes(const sd_tokenizer *t, int32_t before, int32_t id);

// Two hashes, of 64 hex digits.
/// Over what the tokens are: each id that has a text, with its bytes. Two models may share a draft iff theirs
/// are equal. A vocabulary has the same one from GGUF and from tokenizer.json.
const char *sd_tokenizer_fingerprint(const sd_tokenizer *t);
/// Over what decides a text's ids too: merges or their scores, kinds of tokens, where spaces go, in the form
/// that the file has of them. For what was made of texts: prepared data.
const char *sd_tokenizer_encoding(const sd_tokenizer *t);
/// Whether it is t's fingerprint; files that were written before there was this one have the encoding's.
bool sd_tokenizer_has_fingerprint(const sd_tokenizer *t, const char *fingerprint);

// Streaming decode: valid UTF-8 only; the bytes of an unfinished code point are held back.
typedef struct {
    char held[8];
    int n;
} sd_utf8_stream;
/// Appends to out what is complete after these bytes; an invalid byte becomes U+FFFD. At the end
/// pass bytes NULL to flush.
bool sd_utf8_stream_add(sd_utf8_stream *s, const char *bytes, size_t len, sd_buf *out);
