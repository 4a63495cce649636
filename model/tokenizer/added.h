// Added tokens: texts that become one id wherever they stand, before any splitting.
#pragma once

#include "model/tokenizer/tokenizer.h"

typedef struct {
    int32_t id;
    char *text;
    size_t len;
    bool special, lstrip, rstrip, single_word, normalized;
} sd_added_token;

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

/// The next added token at or after `from`, leftmost and longest. false: none.
typedef struct {
    const sd_added_token *token;
    size_t start, end;
} sd_added_token_match;
bool sd_trie_find(const sd_trie *trie, const sd_added_token *added, const char *text, size_t len,
                  size_t from, sd_added_token_match *m);
/// Whether text [len > 0] begins with an added token that controls: a special one, or one that looks like a mark of a
/// template's ("<think>", "[INST]"). Runs of spaces and the like are text.
bool sd_trie_controls(const sd_trie *trie, const sd_added_token *added, const char *text,
                      size_t len);
sd_status sd_trie_add(sd_trie *trie, const char *text, size_t len, int32_t token, sd_error *err);
void sd_trie_init(sd_trie *trie);
void sd_trie_free(sd_trie *trie);

// ---- normalisation (normalise.c)

/// Unicode normalisation of valid UTF-8 into out. form: UTF8PROC_* options.
sd_status sd_normalise(sd_buf *out, int form, const char *text, size_t len, sd_error *err);
