// The corpus index: a suffix array over the token sequences of a fine-tuning run's completions, so
// that a decoder can look up what followed a context there. Written beside the adapter at the end
// of a run and bound to it by hash: adapter + index are one artefact, the tuned pair.
//
// Lookup: the longest suffix of the given context that occurs in the corpus, and the most frequent
// continuation, token by token. Beside the completions stands what each of them repeats of its own prompt
// (trainer/run/copies.h), so that a decoder can repeat the like of another prompt there.
#pragma once

#include "base/files/hash.h"
#include "base/memory.h"

typedef struct sd_corpus sd_corpus;

/// Tokens [at, at + n) of the corpus, which a completion repeats of its prompt.
typedef struct {
    int32_t at, n;
    int32_t before[3]; // what stands ahead of it in the prompt, in its order; -1: the prompt begins
    int32_t behind;    // the prompt's next token; -1: it ends there
    int32_t unspaced; // 1: the first token is the prompt's without the space that begins it; else 0
} sd_corpus_copy;

/// sequences: token ids with each completion followed by -1; copies in ascending order, none within another.
/// Written atomically.
sd_status sd_corpus_write(const char *path, const int32_t *tokens, int64_t n,
                          const sd_corpus_copy *copies, int64_t n_copies,
                          const char *tokenizer_fingerprint, const sd_sha256 *adapter,
                          sd_error *err);
/// Read into memory (8 bytes a token) and verified there: magic, sizes, checksum, order of the
/// suffix array. The file may change afterwards.
sd_status sd_corpus_open(sd_corpus **out, const char *path, sd_error *err);
/// The same of a file's bytes, which must outlive c and stand at a multiple of 8.
sd_status sd_corpus_from_memory(sd_corpus **out, const void *data, size_t size, const char *name,
                                sd_error *err);
/// Whoever has it once more closes it once more; the last close frees it. Any thread.
sd_corpus *sd_corpus_acquire(sd_corpus *c); // NULL is fine
void sd_corpus_close(sd_corpus *c);
int64_t sd_corpus_tokens(const sd_corpus *c);
size_t
sd_corpus_bytes(const sd_corpus *c); // of the file's content; beside it stands half as much at most
const char *sd_corpus_tokenizer(const sd_corpus *c);
const sd_sha256 *sd_corpus_adapter(const sd_corpus *c);

int64_t sd_corpus_n_copies(const sd_corpus *c);

/// One step of a proposal: the interval of suffixes that begin with the matched context, narrowed
/// by each token taken.
typedef struct {
    int64_t lo, hi; // suffix-array interval [lo, hi)
    int depth;      // tokens matched
} sd_corpus_state;

/// The longest suffix of context [n] that occurs, at most max_match tokens long. depth 0 when not
/// even the last token occurs.
sd_corpus_state sd_corpus_match(const sd_corpus *c, const int32_t *context, int n, int max_match);
/// The most frequent next token after the state and its share of the occurrences (0..1); -1 at the
/// end of every occurrence. Ties to the lowest id.
int32_t sd_corpus_next(const sd_corpus *c, const sd_corpus_state *s, float *share, int64_t *count);
/// The state after taking `token`; depth 0 and an empty interval when it never follows.
sd_corpus_state sd_corpus_advance(const sd_corpus *c, const sd_corpus_state *s, int32_t token);

/// Places in the corpus where the state's next token stands in some of the occurrences, evenly over all; returns how
/// many, at most `most`.
int sd_corpus_places(const sd_corpus *c, const sd_corpus_state *s, int64_t *place, int most);
/// Places where completions begin, likewise.
int sd_corpus_begins(const sd_corpus *c, int64_t *place, int most);
/// The token at a place in the corpus; -1: a completion ends there.
int32_t sd_corpus_token(const sd_corpus *c, int64_t place);
/// The copy that begins at a place in the corpus; NULL: none does.
const sd_corpus_copy *sd_corpus_copy_at(const sd_corpus *c, int64_t place);
