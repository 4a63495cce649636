// Byte-level BPE: a vocabulary with its merges, and the ids of one word.
#pragma once

#include "model/tokenizer/tokenizer.h"

enum { SD_TOK_MAX_VOCAB = 1 << 24 };

typedef struct {
    uint64_t pair; // left << 32 | right; SD_NO_PAIR: empty slot
    uint32_t rank;
    int32_t id; // of the token that they become
} sd_merge;
#define SD_NO_PAIR UINT64_MAX

typedef struct {
    int V;
    sd_buf text;      // the bytes of all tokens, one after the other
    uint32_t *start;  // [V] into text
    uint32_t *length; // [V] 0: the id stands for nothing
    uint8_t *flags;   // [V] SD_TOKEN_*
    int32_t *slot;    // [n_slots] token by its bytes, -1: empty; only what merging may produce
    size_t n_slots;   // a power of two
    sd_merge *merge;  // [n_merge_slots]
    size_t n_merge_slots;
    int32_t *merged; // [n_merges] the token that rank r makes
    int n_merges;
    int32_t byte_id[256]; // -1: the vocabulary lacks this byte
    int32_t unk;          // for such a byte; -1: it is dropped
    bool fuse_unk;        // a run of them is one unk
    bool ignore_merges;   // a word that is a token is that token, whatever the merges say
} sd_bpe;

enum { SD_TOKEN_SPECIAL = 1, SD_TOKEN_ADDED = 2 };

typedef struct {
    int32_t at, next; // position of a pair; the next entry of its list, -1: none
} sd_bpe_entry;

typedef struct {
    uint32_t rank;
    int32_t head, tail; // entries; head -1: empty
    bool unsorted;
} sd_bpe_list;

/// Scratch memory of one encoding, for words that are long. Zeroed is valid.
typedef struct {
    uint32_t *heap; // ranks whose list is not empty
    sd_bpe_list *list;
    sd_bpe_entry *entry;
    int32_t *list_of; // [n_merges] a rank's list, -1: none yet
    size_t n_heap, cap_heap, n_list, cap_list, n_entry, cap_entry;
    int32_t *id, *prev, *next; // [cap] the linked list of symbols
    size_t cap;
} sd_bpe_scratch;

/// Space for V tokens; every id then gets its text by sd_bpe_set.
sd_status sd_bpe_init(sd_bpe *b, int V, sd_error *err);
void sd_bpe_free(sd_bpe *b);
/// Token id's bytes. mergeable: it is part of the model's own vocabulary.
sd_status sd_bpe_set(sd_bpe *b, int id, const char *bytes, size_t len, bool mergeable,
                     sd_error *err);
sd_status sd_bpe_reserve_merges(sd_bpe *b, int n, sd_error *err);
/// Merge number n_merges: the two parts in their byte form. Parts or result that are no tokens are
/// SD_EFORMAT.
sd_status sd_bpe_add_merge(sd_bpe *b, const char *left, size_t n_left, const char *right,
                           size_t n_right, sd_error *err);
/// After the last sd_bpe_set: finds the 256 bytes.
void sd_bpe_finish(sd_bpe *b);
/// Appends the ids of one word [len > 0 bytes].
sd_status sd_bpe_word(const sd_bpe *b, const char *word, size_t len, sd_bpe_scratch *s, sd_ids *out,
                      sd_error *err);
void sd_bpe_scratch_free(sd_bpe_scratch *s);

// ---- reading vocabularies (printable.c)

/// Vocabularies write bytes as printable characters (GPT-2's table). Appends the bytes of such a
/// text; *ok false: a character is not in the table and nothing was added. The result is false when
/// memory is out.
bool sd_bytes_from_printable(sd_buf *out, const char *text, size_t len, bool *ok);
