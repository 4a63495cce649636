// Sampling as a function: the token at a position is decided by the logits, the parameters and
// (seed, choice, position) alone, so plain decoding and the verification of a draft take the same
// token (identity mode).
//
//     x = argmax_t( logit_t / T + Gumbel(seed, choice, position, t) ) over the tokens that top-k,
//     top-p and min-p leave; ties to the lowest id.
//
// This is exact sampling from softmax(logit / T) restricted to those tokens (the Gumbel-max trick).
// T = 0 is argmax.
//
// A request may shape its logits first, in this order:
//
//     1. bias         logit_t += bias_t                                       (OpenAI's logit_bias)
//     2. repetition   logit_t / r where positive, else * r, of each token seen    (arXiv:1909.05858)
//     3. frequency    logit_t -= f * (how often t stands in the answer)                   (OpenAI's)
//     4. presence     logit_t -= p where t stands in the answer                           (OpenAI's)
//     5. allowed      logit_t = -infinity outside the allowed sets, and where t is banned
//
// The allowed sets come before the truncations, which therefore never leave nothing. Log
// probabilities are those of the logits before all this.
//
// A request's fields stand there as follows: allowed_token_ids and a constraint are the allowed
// sets; banned are what min_tokens forbids at the answer's beginning (the tokens that would end it)
// and the last token of each of bad_words whose other tokens have just been said.
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct {
    float temperature; // 0: greedy
    int top_k;         // 0: off
    float top_p;       // 1: off
    float min_p;       // 0: off
    uint64_t seed;
    uint32_t choice; // index of the choice when n > 1
} sd_sampling;

typedef struct {
    int32_t token;
    float bias;
} sd_token_bias;

typedef struct {
    int32_t token;
    int32_t answered; // how often it stands in the answer; 0: only in the prompt
} sd_token_seen;

enum { SD_MAX_RECENT = 64 };

/// Changes to logits before a token is drawn. Zeroed does nothing. Tokens outside the
/// vocabulary are ignored; each stands once in `seen`, and one that stands twice in `bias` gets both.
typedef struct {
    const uint32_t *allowed;      // [(V + 31) / 32] bit t % 32 of word t / 32; NULL: all
    const uint32_t *also_allowed; // likewise: a token must stand in both
    const int32_t *banned;        // [n_banned] tokens that are not allowed either
    int n_banned;
    const sd_token_bias *bias;
    int n_bias;
    const sd_token_seen *seen;
    int n_seen;
    // What the text's last tokens made of `seen`: an entry holds in place of its token's there, and
    // of those before it in this list.
    const sd_token_seen *recent;
    int n_recent;     // at most SD_MAX_RECENT
    float repetition; // r > 0; 0 and 1: off
    float frequency, presence;
} sd_shaping;

/// Scratch for a vocabulary of V; one per thread.
typedef struct sd_sampler sd_sampler;
sd_sampler *sd_sampler_open(int V); // NULL when out of memory
void sd_sampler_close(sd_sampler *s);
size_t sd_sampler_bytes(int V); // of one

/// The token at absolute position `position`. logits [V] is only read. shaping NULL: none. The
/// truncations are prefixes
/// of the order by (logit descending, id ascending), count the tempered probabilities, and come in
/// vLLM's order: min-p keeps those with probability >= min_p times the largest; top-k the first k
/// of these (exactly k: vLLM also keeps all that tie with the k-th); top-p the shortest prefix
/// whose share of what is left is >= p. The first token always stays. A temperature that is not
/// positive is greedy. -1 when the logits are no law: one is NaN, or the largest is infinite; -1
/// also when no token is allowed. A single minus infinity is a token that cannot be drawn.
int32_t sd_sample(sd_sampler *s, const float *logits, const sd_shaping *shaping,
                  const sd_sampling *p, int64_t position);

/// The tokens that may be drawn under p: ids [V] <- their ids ascending; returns how many. NaN
/// counts as minus infinity.
int sd_sample_kept(sd_sampler *s, int32_t *ids, const float *logits, const sd_shaping *shaping,
                   const sd_sampling *p);

/// log sum exp of the untempered logits: a token's log probability is its logit less this.
float sd_log_total(const float *logits, int V);
/// log softmax of the untempered logits at `token`.
float sd_logprob(const float *logits, int V, int32_t token);

/// The n (<= V) most probable tokens, best first, ties to the lowest id: ids [n].
void sd_top_tokens(int32_t *ids, int n, const float *logits, int V);

/// Index of the largest of x [n]: ties to the lowest index, NaN never wins, 0 when nothing does.
int32_t sd_greedy(const float *x, int n);
