// Deterministic automata over code points: what patterns, formats and bounds of numbers become.
// Every state can reach an accepting one, so that a text that was begun can be ended.
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct {
    int32_t lo, hi, to; // code points; state
} sd_dfa_edge;

typedef struct {
    int n;             // states; 0 is the first. 0 of them: no text at all
    int *first;        // [n + 1] where the edges of each begin
    sd_dfa_edge *edge; // ascending, without overlap within a state
    uint8_t *accept;   // [n]
    int64_t work;      // steps of making it
} sd_dfa;

enum {
    SD_DFA_STATES = 8192,
    SD_DFA_EDGES = 1 << 17,
    SD_DFA_WORK = 3000000, // steps of making one: some 20 ms
    SD_DFA_STEPS = 2000    // of making the smallest, which clears a table
};

void sd_dfa_free(sd_dfa *d); // NULL is fine

/// A DFA that is made state by state; states are numbered as they are found.
typedef struct {
    int n, cap_first, cap_accept, cap_edges, n_edges;
    int *first;
    sd_dfa_edge *edge;
    uint8_t *accept;
} sd_dfa_maker;
/// Begins the next state. False: out of memory or over SD_DFA_STATES.
bool sd_dfa_state(sd_dfa_maker *m, bool accept);
/// An edge of the state that was begun last; ascending. Neighbours to the same state become one.
bool sd_dfa_edge_add(sd_dfa_maker *m, int32_t lo, int32_t hi, int32_t to);
/// *out <- what was made, without the states that lead nowhere. Frees m in any case.
sd_status sd_dfa_finish(sd_dfa **out, sd_dfa_maker *m, sd_error *err);

/// Lengths of its texts: *longest -1 where there is no bound.
void sd_dfa_lengths(const sd_dfa *d, int *shortest, int *longest);
/// *out <- the texts of d with min to max characters (max -1: no bound). SD_ELIMIT.
sd_status sd_dfa_with_length(sd_dfa **out, const sd_dfa *d, int min, int max, sd_error *err);
/// *out <- the texts of both.
sd_status sd_dfa_both(sd_dfa **out, const sd_dfa *a, const sd_dfa *b, sd_error *err);
/// *out <- the texts in which none of n > 0 texts stands, of 1 to 256 characters each. SD_ELIMIT.
sd_status sd_dfa_without(sd_dfa **out, const char *const *text, const size_t *len, int n,
                         sd_error *err);
// Beginnings of texts: whole ones, and openers with a word behind them. ASCII; no opener begins another one, a
// whole one, or with white space.
typedef struct {
    const char *const *whole, *const *opener, *const *word;
    int n_whole, n_openers, n_words;
} sd_beginnings;
/// *out <- the texts that do not begin so behind white space. SD_ELIMIT.
sd_status sd_dfa_not_begun(sd_dfa **out, const sd_beginnings *x, sd_error *err);
bool sd_dfa_matches(const sd_dfa *d, const char *text, size_t len); // UTF-8

/// *out <- the texts of a pattern in ECMAScript's syntax, without backreferences, lookaround, \b and
/// \p, which are SD_EINVAL by their names. whole: the pattern is all of the text; else it stands
/// somewhere in it, where ^ and $ bind it to the ends. SD_ELIMIT names the bound. *work <- the steps that
/// it took, also where nothing came of it.
sd_status sd_regex_dfa(sd_dfa **out, const char *pattern, size_t len, bool whole, int64_t *work,
                       sd_error *err);

// A decimal number with a bound: digits, "-" before them, and a point.
typedef struct {
    bool has_min, has_max, no_min, no_max; // no_: the bound itself is left out
    char min[48], max[48];                 // as JSON writes them without an exponent
    bool integer;
    int64_t multiple; // integers: of this; 0 or 1: of any
    int fraction;     // digits behind the point at most
} sd_decimal;
sd_status sd_decimal_dfa(sd_dfa **out, const sd_decimal *d, sd_error *err);
/// out [48] <- x without an exponent, as few digits as give x back. False: it takes more than 40.
bool sd_decimal_text(char out[48], double x);
