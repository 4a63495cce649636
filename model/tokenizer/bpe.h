// BPE: a vocabulary with its merges, and the ids of one word. Its symbols are bytes, as GPT-2 has it,
// or characters with bytes to fall back on, as SentencePiece has it.
#pragma once

#include "model/tokenizer/tokenizer.h"

enum { SD_TOK_MAX_VOCAB = 1 << 24 };

typedef struct {
    uint64_t pair; // left << 32 | right; SD_NO_PAIR: empty slot
    uint32_t rank; // the lowest of a word is merged first
    int32_t id;    // of the token that they become
} sd_merge;
#define SD_NO_PAIR UINT64_MAX

typedef struct {
    int V;
    uint64_t seed;    // of the hashes: no file can choose texts or merges that collide
    sd_buf text;      // the bytes of all tokens, one after the other
    uint32_t *start;  // [V] into text
    uint32_t *length; // [V] 0: the id stands for nothing
    uint8_t *flags;   // [V] SD_TOKEN_*
    int32_t *slot;    // [n_slots] token by its bytes, -1: empty; only what merging may produce
    size_t n_slots;   // a power of two
    sd_merge *merge;  // [n_merge_slots]
    size_t n_merge_slots;
    int32_t *merged; // [n_ranks] the token that rank r makes; NULL: merges may share a rank
    int n_merges, n_ranks;
    uint32_t *token_rank; // [V] of merges by score (scores.c), SD_NO_RANK: none makes it; else NULL
    bool by_character; // a word's symbols are its characters, and byte_id is for those without one
    int32_t byte_id[256];      // -1: the vocabulary lacks this byte
    int32_t ascii_symbol[128]; // sd_bpe_symbol, by character
    int32_t unk;               // for such a byte, or a character with one; -1: it is dropped
    bool fuse_unk;             // a run of them is one unk
    bool ignore_merges;        // a word that is a token is that token, whatever the merges say
} sd_bpe;

#define SD_NO_RANK UINT32_MAX

enum { SD_TOKEN_SPECIAL = 1, SD_TOKEN_ADDED = 2 };

typedef struct {
    int32_t at, next; // position of a pair; the next entry of its list, -1: none
} sd_bpe_entry;

typedef struct {
    uint32_t rank;
    int32_t head, tail; // entries, ascending; head -1: empty
} sd_bpe_list;

/// Scratch memory of one encoding, for words that are long. Zeroed is valid.
typedef struct {
    uint64_t *heap; // ranks whose list is not empty
    uint64_t *late; // rank << 32 | position of the pairs that came too late for their list's order
    sd_bpe_list *list;
    sd_bpe_entry *entry;
    int32_t *list_of;  // [n_ranks] a rank's list, -1: none yet
    size_t long_bytes; // of words so far that were too long for a scan
    bool lists;        // they are in use
    size_t n_heap, cap_heap, n_late, cap_late, n_list, cap_list, n_entry, cap_entry;
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
/// Where the merge of two symbols stands or belongs in the table.
sd_merge *sd_bpe_merge_slot(const sd_bpe *b, int32_t left, int32_t right);
/// Merge number n_merges: the two parts in their byte form. Parts or result that are no tokens are
/// SD_EFORMAT.
sd_status sd_bpe_add_merge(sd_bpe *b, const char *left, size_t n_left, const char *right,
                           size_t n_right, sd_error *err);
/// SentencePiece's merges (scores.c): two neighbours whose texts together are a mergeable token may
/// become it, that of the highest score first, the leftmost of equal ones. score [V], finite; those
/// of other tokens are not read. Called once, after the last sd_bpe_set, by_character set.
sd_status sd_bpe_merge_by_score(sd_bpe *b, const float *score, sd_error *err);
/// After the last sd_bpe_set: finds the symbols of bytes or ASCII.
void sd_bpe_finish(sd_bpe *b);
/// The mergeable token with these bytes, -1 when there is none.
int32_t sd_bpe_find(const sd_bpe *b, const char *bytes, size_t len);
/// A character's symbol: its token, or V + its code point where it is none.
int32_t sd_bpe_symbol(const sd_bpe *b, const char *bytes, size_t len, int32_t cp);
/// Appends the ids of one word [len > 0 bytes, valid UTF-8 by character].
sd_status sd_bpe_word(const sd_bpe *b, const char *word, size_t len, sd_bpe_scratch *s, sd_ids *out,
                      sd_error *err);
void sd_bpe_scratch_free(sd_bpe_scratch *s);

// ---- reading vocabularies (printable.c)

/// Vocabularies write bytes as printable characters (GPT-2's table). Appends the bytes of such a
/// text; *ok false: a character is not in the table and nothing was added. The result is false when
/// memory is out.
bool sd_bytes_from_printable(sd_buf *out, const char *text, size_t len, bool *ok);
