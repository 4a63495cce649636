// The kinds of requests that canaries ask: all sorts of them (both endpoints, n, lists of prompts, stop
// strings, logprobs, adapters, greedy and sampled, echo), each by a rule from its number.
//
// With tenants each kind is one's: it is asked with that one's key, and its texts and what its answer is held
// to (a schema, a pattern, a choice) carry that one's marker, behind a beginning that all tenants share.
#pragma once

#include "base/memory.h"

#include <stdbool.h>

enum { KIND_TENANTS = 16, KIND_MARKER = 16 };

typedef struct {
    uint64_t state;
} kind_dice;
uint32_t kind_roll(kind_dice *d, uint32_t n); // 0 to n - 1

typedef struct {
    const char *path;
    const char *key;      // the client's; NULL: none
    int tenant;           // -1: none
    char *whole, *stream; // bodies
    char *bytes;          // "choices" to the end of "usage" of the whole answer
    char *meaning;        // text, logprobs, ends, usage
} kind;

typedef struct {
    const char *key;
    char marker[KIND_MARKER];
} kind_tenant;

/// A word of letters that no other tenant has, and no model says by chance.
void kind_mark(kind_tenant *t, int number);
/// model [n_models]: names to choose from. tenant [n_tenants]; 0: none. bytes and meaning are left NULL.
void kind_make(kind *k, int number, char *const *model, int n_models, const kind_tenant *tenant,
               int n_tenants);
/// A prompt that none of the kinds has, asked of a tenant's: the body of a completion, the caller's.
char *kind_probe(int number, const char *model);
