// The room's inside, from the ground up:
//
//   pattern/    patterns and bounds of numbers as DFAs over characters
//   vocab.c     the vocabulary's trie            builder.c   expressions
//   nodes.c     expressions to nodes             automaton.c nodes to states, as they are needed
//   mask.c      states to masks of tokens        forced.c    what alone can come next
//   json.c      JSON's strings and values
//   schema/     JSON Schemas to expressions; a value against its schema; texts of requests to grammars
#pragma once

#include "model/grammar/grammar.h"
#include "model/grammar/pattern/dfa.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

// ---- the trie: nodes in depth-first order, so that a walk reads them one after the other

typedef struct {
    int32_t skip;  // the first node that is not below this one
    int32_t token; // its tokens: ids from here to the next node's
    int16_t depth; // 1: a first byte
    uint8_t byte;
} sd_vocab_node;

typedef struct {
    sd_vocab_node *node; // [n + 1]
    int32_t *id;
    int n;
} sd_vocab_trie;

struct sd_vocab {
    atomic_int refs;
    const sd_tokenizer *t;
    int V, longest;         // bytes of the longest token
    int32_t spaced;         // some token that begins with a space; -1: none
    sd_vocab_trie all, odd; // odd: those that are not plain
    int32_t *plain;         // ids by number of characters, ascending
    int *plain_upto;        // [most_chars + 1] how many of them have at most so many
    int most_chars;
    uint32_t *plain_mask; // [(V + 31) / 32]
    // Masks that were asked for and walks that made one, of all grammars over it, gone ones too.
    atomic_llong masks, masks_made, mask_ns;
};

// ---- expressions

typedef enum {
    E_EMPTY,
    E_LITERAL, // a: where its bytes begin, b: how many
    E_CLASS,   // a: where its 32 bytes begin
    E_CHARS,   // a: where its ranges begin in the list of numbers, b: how many
    E_SEQ,     // a: where its parts begin there, b: how many
    E_ALT,     // likewise
    E_CHOICE,  // a: where its (begin, length) pairs begin there, b: how many
    E_REPEAT,  // a: of what, b: min, c: max
    E_RULE,    // a: the rule
    E_TOKEN,   // a: the id
    E_DFA,     // a: its place in the list, b: spelled as in a JSON string
    E_SPACE,   // at most one space, which a model writes always or never
    E_PLAIN    // one plain character of a JSON string
} sd_gexpr_kind;

typedef struct {
    sd_gexpr_kind kind;
    int32_t a, b, c;
    int depth; // of expressions below it
} sd_gexpr;

// What a JSON string's pattern, format and length became: equal ones share it.
typedef struct {
    uint64_t hash;
    char *pattern, *format; // NULL: none
    int min, max, e;
} sd_gtext;

struct sd_grammar_builder {
    sd_gexpr *e;
    int n, cap;
    char *bytes;
    int n_bytes, cap_bytes;
    int32_t *num;
    int n_num, cap_num;
    int32_t *rule; // the expression of each; -1: undefined yet
    int n_rules, cap_rules;
    sd_dfa **dfa;
    int n_dfa, cap_dfa;
    sd_gtext *text;
    int n_texts, cap_texts;
    int json_string, json_char;     // made once; -1
    int64_t steps_left, bytes_left; // of the account
    sd_grammar_checker checker;     // of what is compiled
    sd_error err;                   // the first failure
};

/// Remembers the first failure; -1.
int sd_gb_fail(sd_grammar_builder *b, sd_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int sd_gb_fail_with(sd_grammar_builder *b, const sd_error *err);
int sd_gb_add(sd_grammar_builder *b, sd_gexpr_kind kind, int a, int c, int d);
/// Takes d. json: the characters are spelled as in a JSON string, between its quotes.
int sd_gb_dfa(sd_grammar_builder *b, sd_dfa *d, bool json);
int sd_gb_text(sd_grammar_builder *b, const char *text); // a literal

// ---- nodes

typedef enum { N_RETURN, N_EDGES, N_SPLIT, N_CALL, N_LOOP, N_TOKEN } sd_gnode_kind;
enum { F_PLAIN = 1, F_SPACE = 2 };
typedef struct {
    uint8_t kind, flags;
    int32_t a,
        b; // EDGES: first and number. SPLIT: two nodes. CALL: rule, return. LOOP: its place in
           // the list. TOKEN: id, next
} sd_gnode;

typedef struct {
    uint8_t lo, hi;
    int32_t to;
} sd_gedge;

typedef struct {
    int32_t rule, min, max, exit; // max -1: no bound
} sd_gloop;

typedef struct {
    sd_gnode *node; // node 0 returns
    int n, cap;
    sd_gedge *edge;
    int n_edges, cap_edges;
    sd_gloop *loop;
    int n_loops, cap_loops;
    int32_t *start; // [n_rules] the first node of each rule: the builder's, then those made here
    int n_rules;
    uint16_t *need; // [n] frames that the shortest way to the rule's end takes; UINT16_MAX: no way
    int32_t root;
} sd_gnodes;

sd_status sd_gnodes_make(sd_gnodes *out, sd_grammar_builder *b, int e, int V, sd_error *err);
void sd_gnodes_free(sd_gnodes *g);

// ---- the automaton

typedef struct {
    int32_t ret, count, parent; // where to go on, how many times a loop's body was begun; below it
    int32_t depth;
    bool used;
} sd_gframe;

typedef struct {
    int32_t node, stack; // an EDGES or TOKEN node; the frame on top, 0: none
} sd_gconfig;

typedef struct {
    sd_gconfig *c; // [n]
    int n;
    uint32_t hash;
    int refs;    // sequences that stand here
    bool final;  // the text may end here
    bool tokens; // a token by its id may come
    bool forced_open[2];
    uint8_t has_forced; // bit 0: without spaces, bit 1: with
    uint8_t n_forced[2];
    int32_t *to; // [256] the states behind each byte; 0: none, -1: not known; NULL: none known
    uint32_t *mask[2]; // [(V + 31) / 32] second: with a first space stripped; NULL: not made
    int32_t *forced[2];
    int64_t tick; // when it was used last
} sd_gstate;

typedef struct {
    int32_t *slot; // open addressing, ids of what is kept; 0: free
    int cap, n;
} sd_gtable;

struct sd_grammar {
    atomic_int refs;
    sd_vocab *vocab;
    sd_gnodes nodes;
    sd_grammar_check_fn check; // NULL: none
    void (*free_ctx)(void *ctx);
    void *ctx;            // of the check
    size_t check_bytes;   // that ctx takes
    atomic_int followed;  // by so many sequences' states
    pthread_mutex_t lock; // guards everything below
    sd_gframe *frame;     // frame 0 is the empty stack
    int n_frames, cap_frames;
    int32_t *free_frame;
    int n_free_frames, cap_free_frames;
    sd_gtable frames, states;
    sd_gstate **state; // [n_states] state 0 is dead; NULL: free
    int n_states, cap_states;
    int32_t *free_state;
    int n_free_states, cap_free_states;
    int32_t first;       // the beginning
    atomic_size_t bytes; // written under the lock; read without it
    int64_t made, work;  // states that were made; steps of closures and edges that were looked at
    sd_gspend budget;    // of each mask: SD_GRAMMAR_MASK_*
    sd_gspend limit;     // of the mask that is being made
    bool lost;           // a state could not be made since this was cleared
    bool spent;          // because a limit was reached
    int64_t tick;
    // Scratch of a closure.
    struct {
        int32_t node, count, stack;
    } * pending;
    int n_pending, cap_pending;
    struct sd_gseen *seen;
    uint32_t stamp;
    sd_gconfig *found;
    int n_found, cap_found;
    bool found_final, found_tokens;
    int32_t *walk; // [longest + 1]
    sd_grammar_stats stats;
};

/// The state behind a byte; 0: none. Under the lock.
int32_t sd_automaton_step(sd_grammar *g, int32_t state, uint8_t byte);
/// The state behind a token by its id; 0: none.
int32_t sd_automaton_token(sd_grammar *g, int32_t state, int32_t id);
sd_status sd_automaton_open(sd_grammar *g, sd_error *err);
void sd_automaton_close(sd_grammar *g);
/// Forgets what no sequence stands on, when more is kept than the bound allows.
void sd_automaton_collect(sd_grammar *g);
/// Forgets all that no sequence stands on.
void sd_automaton_forget(sd_grammar *g);
/// Bytes of scratch, which no state is counted with.
size_t sd_automaton_scratch_bytes(const sd_grammar *g);
/// States found from here on may take so much more; sd_automaton_unlimited ends it.
void sd_automaton_limit(sd_grammar *g, sd_gspend more);
void sd_automaton_unlimited(sd_grammar *g);
/// Characters of a JSON string that may come here whatever they are: INT32_MAX: any number of them.
int sd_automaton_plain_room(const sd_grammar *g, const sd_gstate *s);
/// Whether the state stands before an optional space.
bool sd_automaton_before_space(const sd_grammar *g, const sd_gstate *s);

// ---- JSON (json.c)

int sd_gb_json_char(sd_grammar_builder *b); // one character inside a string, in any spelling
int sd_gb_json_string(sd_grammar_builder *b, int min, int max); // with its quotes; max -1: no bound
int sd_gb_json_integer(sd_grammar_builder *b);                  // at most 18 digits
int sd_gb_json_number(sd_grammar_builder *b);
int sd_gb_json_value(sd_grammar_builder *b, int depth);
int sd_gb_json_object_of(sd_grammar_builder *b, int value, int min, int max); // any keys
int sd_gb_json_array_of(sd_grammar_builder *b, int item, int min, int max);
int sd_gb_json_comma(sd_grammar_builder *b);
int sd_gb_json_colon(sd_grammar_builder *b);
/// A key, with its quotes, that is none of the n names.
int sd_gb_json_other_key(sd_grammar_builder *b, const char *const *name, int n);
/// The one spelling of a value: ", " and ": " between its parts may lack their space.
int sd_gb_json_constant(sd_grammar_builder *b, const json_t *value);
