// Grammars as constraints on tokens: which tokens may come next, so that the bytes said so far can
// still become a text of the grammar.
//
// A grammar is built from expressions over bytes, compiled for one vocabulary, and is immutable
// then; it is counted, and any number of sequences follow it, each with a state of its own. The
// automaton is a pushdown whose sets of configurations are found as they are needed and kept: a
// sequence's state is a number, its mask a walk of the vocabulary's trie that is made once.
//
//     sd_grammar_builder *b = sd_grammar_builder_open();
//     int call = sd_gb_seq(b, (int[]){sd_gb_literal(b, "<call>", 6), body, sd_gb_literal(b, "</call>", 7)}, 3);
//     SD_TRY(sd_grammar_compile(&g, b, call, vocab, err));   // the first failure of any call above
//     sd_grammar_builder_close(b);
//
//     sd_grammar_state s;
//     sd_grammar_begin(&s, g, -1);
//     sd_grammar_fill(&s, allowed, V);                        // what the next token may be
//     if (!sd_grammar_accept(&s, token)) ...                  // it was not allowed
//     if (sd_grammar_can_end(&s)) ...                         // the text may end here
//     sd_grammar_end(&s);
//
// Every state can be continued to a text of the grammar: what cannot is removed when the grammar is
// compiled, and where nesting or ambiguity would pass a bound, the choices that need more are not
// offered. So a bound costs choices, never the promise. A grammar is thread-safe; a state belongs to
// one thread at a time.
#pragma once

#include "model/grammar/pattern/dfa.h"
#include "model/grammar/vocab.h"

typedef struct sd_grammar sd_grammar;
typedef struct sd_grammar_builder sd_grammar_builder;

enum {
    SD_GRAMMAR_NODES = 1 << 18,   // of a compiled grammar
    SD_GRAMMAR_EXPRS = 1 << 18,   // of a builder
    SD_GRAMMAR_STEPS = 4000000,   // of making a builder's expressions: some 30 ms
    SD_GRAMMAR_BYTES = 32 << 20,  // of what is kept meanwhile
    SD_GRAMMAR_DEPTH = 200,       // rules that are open at once
    SD_GRAMMAR_NESTING = 400,     // expressions within expressions
    SD_GRAMMAR_CHOICES = 4096,    // texts of one choice
    SD_GRAMMAR_CONFIGS = 512,     // ways to read the same bytes that are followed at once
    SD_GRAMMAR_CACHE = 48 << 20,  // bytes of states and masks that a grammar keeps
    SD_GRAMMAR_LEAST = 320 << 10, // bytes of one that nobody follows, beside its rules
    SD_GRAMMAR_FORCED = 64,       // tokens of a forced run at most
    // What one mask may find that was not known, and what the masks of one step may find together. It
    // grows with the ways to read a token, not with the vocabulary: a usual schema's takes some tens of
    // states and up to 150,000 steps (thousands of optional members), a choice of 4,096 texts a state
    // for each of their beginnings, 14,000 or more. Patterns that count letters would take 440 million steps and 320 MB on 60,000 tokens.
    // A step takes some 10 ns and a state some 1.2 KB, so that a mask is given up within some 50 ms.
    SD_GRAMMAR_MASK_STATES = 1 << 16,
    SD_GRAMMAR_MASK_WORK = 1 << 22, // steps of closures, and edges that are looked at
    SD_GRAMMAR_MASK_BYTES = 80 << 20
};

// ---- building. Each call gives an expression, or -1 after a failure, which later calls pass on and
// sd_grammar_compile reports. An expression may be used any number of times.

sd_grammar_builder *sd_grammar_builder_open(void);    // NULL when out of memory
void sd_grammar_builder_close(sd_grammar_builder *b); // NULL is fine

/// Takes steps, of some 7 ns, and bytes off the one account of all that the builder makes. False, with
/// SD_ELIMIT: it is used up; or the builder failed before.
bool sd_gb_spend(sd_grammar_builder *b, int64_t steps, int64_t bytes);
int sd_gb_empty(sd_grammar_builder *b);
int sd_gb_literal(sd_grammar_builder *b, const char *bytes, size_t len);
/// One byte of a set: bit c % 32 of word c / 32.
int sd_gb_bytes(sd_grammar_builder *b, const uint32_t set[8]);
/// One character, as UTF-8, in one of n ranges [lo, hi] of code points; surrogates are left out.
int sd_gb_chars(sd_grammar_builder *b, const int32_t (*range)[2], int n);
int sd_gb_seq(sd_grammar_builder *b, const int *e, int n);
int sd_gb_any_of(sd_grammar_builder *b, const int *e, int n);
/// One of n texts, read along a trie.
int sd_gb_choice(sd_grammar_builder *b, const char *const *text, const size_t *len, int n);
int sd_gb_repeat(sd_grammar_builder *b, int e, int min, int max); // max -1: no bound
/// A rule that is defined later, so that it can contain itself; an undefined one is a failure.
int sd_gb_rule(sd_grammar_builder *b);
void sd_gb_define(sd_grammar_builder *b, int rule, int e);
int sd_gb_ref(sd_grammar_builder *b, int rule);
/// A token by its id, special ones alone reached so: the text of a special token is never a text.
int sd_gb_token(sd_grammar_builder *b, int32_t id);
/// Any bytes of whole UTF-8 characters in which the text does not stand: followed by a literal of
/// the same text, everything up to the first place where it stands.
int sd_gb_text_without(sd_grammar_builder *b, const char *text, size_t len);
// A text by what it is not: none of n texts stands in it, and it does not begin in some ways.
typedef struct {
    const char *const *without; // [n > 0] UTF-8, of 1 to 256 characters
    const size_t *len;
    int n;
    sd_beginnings begun; // none: any beginning
} sd_free_text;
/// Any bytes of whole UTF-8 characters that are such a text.
int sd_gb_free_text(sd_grammar_builder *b, const sd_free_text *x);
/// A whole text of the pattern (pattern/dfa.h), one character after the other.
int sd_gb_regex(sd_grammar_builder *b, const char *pattern, size_t len);
/// Any JSON object (schema/schema.h has those of a schema), nested at most `depth` deep.
int sd_gb_json_object(sd_grammar_builder *b, int depth);

typedef sd_status (*sd_grammar_check_fn)(const void *ctx, const char *text, size_t len,
                                         sd_error *err);
// How a whole text is checked by another way than the automaton's. ctx is given to free_ctx at the end, unless it
// is NULL.
typedef struct {
    sd_grammar_check_fn check; // NULL: it is not
    void (*free_ctx)(void *ctx);
    void *ctx;
    size_t bytes; // that ctx takes
} sd_grammar_checker;
/// The check of what the builder compiles: taken, also where nothing is compiled. One before it is freed.
void sd_gb_set_check(sd_grammar_builder *b, sd_grammar_checker c);
/// Gives it back: the caller's.
sd_grammar_checker sd_gb_take_check(sd_grammar_builder *b);

/// *out <- the texts of e, as tokens of v, which is acquired. SD_ELIMIT names the bound that is
/// passed, SD_EINVAL or SD_EFORMAT what is wrong with the first expression that failed.
sd_status sd_grammar_compile(sd_grammar **out, sd_grammar_builder *b, int e, sd_vocab *v,
                             sd_error *err);
sd_grammar *sd_grammar_acquire(sd_grammar *g);
void sd_grammar_release(sd_grammar *g); // NULL is fine

// ---- sequences

typedef struct {
    sd_grammar *g;
    int32_t at;  // 0: nothing is allowed any more
    bool strip;  // the next token loses the space that the tokenizer puts before a text
    bool spaced; // the last optional space was written
    bool lost;   // the last token was refused for want of memory
} sd_grammar_state;

/// What masks may still find: states, steps and edges for them, bytes.
typedef struct {
    int64_t made, work;
    size_t bytes;
} sd_gspend;
static inline sd_gspend sd_gspend_of_a_mask(void) {
    return (sd_gspend){SD_GRAMMAR_MASK_STATES, SD_GRAMMAR_MASK_WORK, SD_GRAMMAR_MASK_BYTES};
}

/// The beginning of a text, behind token `before` (-1: none). The grammar is acquired. False: out of
/// memory.
bool sd_grammar_begin(sd_grammar_state *s, sd_grammar *g, int32_t before);
void sd_grammar_end(sd_grammar_state *s); // zeroed is fine
/// to, which may hold a state, becomes what from is.
void sd_grammar_copy(sd_grammar_state *to, const sd_grammar_state *from);
/// Moves over a token. False: it was not allowed (or memory ran out), and the state is unchanged.
bool sd_grammar_accept(sd_grammar_state *s, int32_t token);
bool sd_grammar_allows(const sd_grammar_state *s, int32_t token);
typedef enum {
    SD_GRAMMAR_FILLED,   // also where no token may come
    SD_GRAMMAR_TOO_MUCH, // the mask takes more than SD_GRAMMAR_MASK_*; what was found is forgotten
    SD_GRAMMAR_LATER,    // it takes more than is left; what was found is kept
    SD_GRAMMAR_NO_MEMORY
} sd_grammar_filled;
/// allowed [(V + 31) / 32] <- the tokens that may come next; end tokens are the caller's. All zero
/// unless it is SD_GRAMMAR_FILLED. *left, unless left is NULL, is what several masks may take together:
/// this one takes its part off. A first mask that is given sd_gspend_of_a_mask is never told to come
/// later.
sd_grammar_filled sd_grammar_try_fill(const sd_grammar_state *s, uint32_t *allowed, int V,
                                      sd_gspend *left);
/// allowed [(V + 31) / 32] <- the tokens that may come next; end tokens are the caller's. False: no
/// token may, or the mask could not be made.
bool sd_grammar_fill(const sd_grammar_state *s, uint32_t *allowed, int V);
bool sd_grammar_can_end(const sd_grammar_state *s);
bool sd_grammar_must_end(const sd_grammar_state *s); // it can end and nothing can come
/// token [SD_GRAMMAR_FORCED] <- what the tokenizer writes for the bytes that alone can come next;
/// returns how many. The last may be the beginning of a longer token, as what follows decides:
/// *open is true then.
int sd_grammar_forced(const sd_grammar_state *s, int32_t *token, bool *open);

/// Right after compiling: how a whole text is checked by another way than the automaton's; ctx is
/// taken, and given to free_ctx at the end unless it is NULL.
void sd_grammar_set_check(sd_grammar *g, sd_grammar_check_fn check, void (*free_ctx)(void *ctx),
                          void *ctx);
bool sd_grammar_has_check(const sd_grammar *g);
/// SD_EMISMATCH says what is wrong with a text; SD_OK where there is no check.
sd_status sd_grammar_check(const sd_grammar *g, const char *text, size_t len, sd_error *err);

typedef struct {
    int nodes;                      // of the automaton
    int states;                     // found so far
    size_t bytes;                   // of states and masks
    int64_t masks, mask_misses;     // asked for; made by a walk
    double mask_s;                  // seconds of the walks
    int64_t most_states, most_work; // of one mask: states it found, steps and edges for them
    size_t most_bytes;              // likewise
} sd_grammar_stats;
void sd_grammar_get_stats(sd_grammar *g, sd_grammar_stats *out);
/// Bytes of its rules, which never change, and of what its texts are checked with.
size_t sd_grammar_rule_bytes(const sd_grammar *g);
/// Bytes of its states and masks, and of what finding them takes. Waits for nobody.
size_t sd_grammar_bytes(const sd_grammar *g);
/// Whether anyone but the one who asks holds it; whether a sequence follows it.
bool sd_grammar_is_shared(const sd_grammar *g);
bool sd_grammar_is_followed(const sd_grammar *g);
/// Forgets states and masks where no sequence follows it: they are found again.
void sd_grammar_rest(sd_grammar *g);
