// What the tokenizer's files share and nobody else sees.
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8

#include "base/files/hash.h"
#include "model/tokenizer/tokenizer.h"

#include <pcre2.h>

enum {
    SD_TOK_MAX_VOCAB = 1 << 24,
    SD_TOK_MAX_STEPS = 16,
    SD_TOK_MAX_TEXT = 1 << 30 // bytes of one text, so that positions fit 32 bits
};

// ---- vocabulary and merges (bpe.c)

typedef struct {
    uint64_t pair; // left << 32 | right; SD_NO_PAIR: empty slot
    uint32_t rank;
    int32_t id; // what they become
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
    int32_t *merged; // [n_merges] what rank r makes
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
/// The model's token with these bytes, -1 when there is none.
int32_t sd_bpe_find(const sd_bpe *b, const char *bytes, size_t len);
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

/// Vocabularies write bytes as printable characters (GPT-2's table). Appends the bytes of such a
/// text; *ok false: a character is not in the table and nothing was added. The result is false when
/// memory is out.
bool sd_bytes_from_printable(sd_buf *out, const char *text, size_t len, bool *ok);

// ---- pre-tokenisers (split.c, regex.c)

typedef enum {
    SD_STEP_REGEX,
    SD_STEP_DIGITS, // by characters of category N
    SD_STEP_PREFIX  // a space before each piece that has none
} sd_step_kind;

typedef enum {
    SD_SPLIT_REMOVED,
    SD_SPLIT_ISOLATED,
    SD_SPLIT_PREVIOUS, // merged with the previous piece
    SD_SPLIT_NEXT,
    SD_SPLIT_CONTIGUOUS
} sd_split_behaviour;

typedef struct {
    sd_step_kind kind;
    sd_split_behaviour behaviour;
    bool invert;
    pcre2_code *code;
} sd_step;

#define SD_REGEX_GPT2                                                                              \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SD_REGEX_LLAMA3                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "                     \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SD_REGEX_QWEN2                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "                          \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/// Rewrites a pattern of Hugging Face's engine (Oniguruma) for PCRE2 with the same meaning.
sd_status sd_regex_translate(sd_buf *out, const char *pattern, size_t len, sd_error *err);
/// Category N of Unicode 17, as Rust's char::is_numeric sees it.
bool sd_is_numeric(int32_t cp);
/// \w: a letter, mark, number or connector. -1 is none.
bool sd_is_word(int32_t cp);

// ---- added tokens (added.c)

typedef struct {
    int32_t id;
    char *text;
    size_t len;
    bool special, lstrip, rstrip, single_word, normalized;
} sd_added;

typedef struct {
    int32_t child, sibling; // -1: none
    int32_t token;          // index into added, -1: none ends here
    unsigned char byte;
} sd_trie_node;

typedef struct {
    sd_trie_node *node;
    int n, cap;
    int32_t root[256];
} sd_trie;

// ---- the whole

struct sd_tokenizer {
    sd_bpe bpe;
    sd_step step[SD_TOK_MAX_STEPS];
    int n_steps;
    bool nfc; // or a compatibility form
    int normal_form;
    sd_added *added;
    int n_added, cap_added;
    sd_trie raw, normal; // tokens found before and after normalisation
    int32_t bos, eos;
    bool add_bos;
    char fingerprint[65];
};

sd_status sd_tokenizer_add_regex(sd_tokenizer *t, const char *pattern, size_t len, bool literal,
                                 sd_split_behaviour behaviour, bool invert, sd_error *err);
sd_status sd_tokenizer_add_step(sd_tokenizer *t, sd_step step, sd_error *err);
sd_status sd_tokenizer_add_added(sd_tokenizer *t, const sd_added *a, sd_error *err);
/// Tries and fingerprint; the last step of opening.
sd_status sd_tokenizer_finish(sd_tokenizer *t, sd_error *err);

/// Splits valid UTF-8 into words and appends their ids.
typedef struct sd_encoder sd_encoder;
struct sd_encoder {
    const sd_tokenizer *t;
    sd_ids *out;
    sd_bpe_scratch scratch;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    sd_error *err;
};
sd_status sd_encoder_open(sd_encoder *e, const sd_tokenizer *t, sd_ids *out, sd_error *err);
void sd_encoder_close(sd_encoder *e);
sd_status sd_encoder_text(sd_encoder *e, const char *text, size_t len, sd_error *err);

/// The next added token at or after `from`, leftmost and longest. false: none.
typedef struct {
    const sd_added *token;
    size_t start, end;
} sd_added_match;
bool sd_trie_find(const sd_trie *trie, const sd_added *added, const char *text, size_t len,
                  size_t from, sd_added_match *m);
sd_status sd_trie_add(sd_trie *trie, const char *text, size_t len, int32_t token, sd_error *err);
void sd_trie_init(sd_trie *trie);
void sd_trie_free(sd_trie *trie);
/// Unicode normalisation of valid UTF-8 into out. form: UTF8PROC_* options.
sd_status sd_normalise(sd_buf *out, int form, const char *text, size_t len, sd_error *err);
