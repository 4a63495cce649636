// What requests ask for, as grammars: compiled once, kept while they are asked for.
//
// A constraint is a kind and a text, so that it can be sent between processes and compared; who
// receives one compiles it, or finds it here.
//
//     sd_grammar_spec want = {SD_GRAMMAR_SCHEMA, text, len};
//     SD_TRY(sd_grammar_cache_get(&g, cache, &want, err));      // 400 when SD_EINVAL or SD_ELIMIT
//     ...
//     sd_grammar_release(g);
#pragma once

#include "model/grammar/grammar.h"

typedef enum {
    SD_GRAMMAR_NONE,
    SD_GRAMMAR_OBJECT, // any JSON object; the text is empty
    SD_GRAMMAR_SCHEMA, // a JSON Schema
    SD_GRAMMAR_REGEX,  // a pattern that the whole answer matches
    SD_GRAMMAR_CHOICE, // a JSON array of texts, of which the answer is one
    SD_GRAMMAR_CALLS, // an answer with tool calls; sd_grammar_cache_take_calls says who reads the text
    SD_GRAMMAR_KINDS
} sd_grammar_kind;

typedef struct {
    sd_grammar_kind kind;
    const char *text; // [len]
    size_t len;
} sd_grammar_spec;

enum {
    SD_GRAMMAR_TEXT = 1 << 20,     // bytes of a constraint's text at most
    SD_GRAMMAR_KEPT = 32,          // grammars that nobody holds; those that are held stay
    SD_GRAMMAR_MEMORY = 256 << 20, // bytes of all that is kept, beyond which the oldest of these go
    SD_GRAMMAR_OBJECT_DEPTH = 16   // of "any JSON object"
};

/// A constraint but SD_GRAMMAR_CALLS as an expression, with the check of its texts as the builder's; -1: err says why,
/// unless the builder does.
int sd_gb_spec(sd_grammar_builder *b, const sd_grammar_spec *want, sd_error *err);

typedef struct sd_grammar_cache sd_grammar_cache;

/// The tokenizer must outlive it. Cheap: the vocabulary's trie is made for the first grammar.
sd_status sd_grammar_cache_open(sd_grammar_cache **out, const sd_tokenizer *t, sd_error *err);
void sd_grammar_cache_close(sd_grammar_cache *c); // NULL is fine; grammars in use live on

/// *out <- the grammar, acquired. Thread-safe; compiling takes some 50 ms at most and keeps nobody
/// waiting but the caller. SD_EINVAL, SD_EFORMAT and SD_ELIMIT say what is wrong with the text.
sd_status sd_grammar_cache_get(sd_grammar **out, sd_grammar_cache *c, const sd_grammar_spec *want,
                               sd_error *err);
/// Likewise for one of several tenants (0 above): each finds its own grammars alone, so that nobody can
/// tell by the time whether others have asked for a text before.
sd_status sd_grammar_cache_get_for(sd_grammar **out, sd_grammar_cache *c, uint64_t tenant,
                                   const sd_grammar_spec *want, sd_error *err);

/// Releases one that the cache gave, and keeps to the memory: what nobody holds any more goes, the oldest
/// first, and what is held while no sequence follows it rests (sd_grammar_rest).
void sd_grammar_cache_put(sd_grammar_cache *c, sd_grammar *g);

/// Makes an expression of a text of SD_GRAMMAR_CALLS, or -1; err says why, unless the builder does.
typedef int (*sd_grammar_calls_fn)(sd_grammar_builder *b, const sd_tokenizer *t, const char *text,
                                   size_t len, sd_error *err);
/// Before the cache is shared. Without it such texts are SD_EINVAL.
void sd_grammar_cache_take_calls(sd_grammar_cache *c, sd_grammar_calls_fn calls);

/// Bytes of what it keeps: the vocabulary's trie, texts, rules, states and masks.
size_t sd_grammar_cache_bytes(sd_grammar_cache *c);

typedef struct {
    int64_t found, compiled, refused;
    double compile_s, vocab_s; // of what was compiled and refused; of the vocabulary's trie
    int64_t masks, masks_made; // asked for; made by a walk. Of all grammars that there were
    double mask_s;             // of the walks
} sd_grammar_cache_stats;
/// Waits for no grammar.
void sd_grammar_cache_get_stats(sd_grammar_cache *c, sd_grammar_cache_stats *out);
