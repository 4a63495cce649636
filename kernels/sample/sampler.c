// Gumbel-max with position-keyed noise.
//
// A vocabulary has 49,152 to 151,936 tokens, and a logarithm pair for each would cost as much as a
// decode step of a small model. Nearly all tokens cannot win, and that is decided exactly and
// cheaply, in this order:
//
//   1. truncation, by the few candidates near the top; where too many are near, by a histogram over
//      the distance to the largest logit with one bucket sorted exactly;
//   2. noise from a 32-bit word lies in (-3.14, 22.88): a block of 32 logits whose largest would
//      not win even with 22.88 is passed over without drawing;
//   3. Gumbel(u) = -log(-log u) <= -log(1 - u) <= ln 2 * (leading ones of the word + 1): a block
//      whose largest logit with its largest word stays below is done; of the others, only a token
//      that passes this bound pays for logarithms.
//
// Skipped tokens are those that provably lose, so the result is that of the full argmax.
#include "kernels/sample/sampler.h"
#include "base/memory.h"
#include "base/rng.h"
#include "kernels/cpu/sampler_simd.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK = SD_SAMPLE_BLOCK,
    NEAR = 2048,  // candidates that are sorted directly
    MAX_K = 256,  // top-k that looks for candidates by block
    PER_UNIT = 16 // histogram buckets of one unit of logit / T
};
// Distances beyond this hold less than e^-27 * V of the mass; a token there cannot win either,
// since the noise spans less than 27.
#define HISTOGRAM_RANGE 27.0f
enum { BUCKETS = 27 * PER_UNIT + 1 };
#define GUMBEL_MAX 22.9

struct sd_sampler {
    int V, blocks;
    const sd_sampler_simd *simd;
    float *block_max; // [blocks]
    int32_t count[BUCKETS + 1];
    double mass[BUCKETS + 1];
    int32_t *pick; // [V] candidates, or the ids of one bucket
    float heap[MAX_K];
    float *shaped; // [V]
};

static int blocks_of(int V) {
    return (V + BLOCK - 1) / BLOCK;
}

size_t sd_sampler_bytes(int V) {
    return sizeof(sd_sampler) + (size_t)blocks_of(V) * sizeof(float) +
           (size_t)V * (sizeof(int32_t) + sizeof(float));
}

sd_sampler *sd_sampler_open(int V) {
    sd_sampler *s = V > 0 ? sd_alloc(1, sizeof *s) : NULL;
    if (!s) return NULL;
    s->V = V;
    s->blocks = blocks_of(V);
    s->simd = sd_sampler_simd_best();
    s->block_max = sd_alloc((size_t)s->blocks, sizeof *s->block_max);
    s->pick = sd_alloc((size_t)V, sizeof *s->pick);
    s->shaped = sd_alloc((size_t)V, sizeof *s->shaped);
    if (s->pick && s->block_max && s->shaped) return s;
    sd_sampler_close(s);
    return NULL;
}

void sd_sampler_close(sd_sampler *s) {
    if (!s) return;
    free(s->block_max);
    free(s->pick);
    free(s->shaped);
    free(s);
}

// The largest value; -INFINITY when all are NaN. `a > b ? a : b` drops a NaN in a.
static float largest(const float *x, int n) {
    float lane[16];
    for (int l = 0; l < 16; l++) lane[l] = -INFINITY;
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    float m = -INFINITY;
    for (; i < n; i++) m = x[i] > m ? x[i] : m;
    for (int l = 0; l < 16; l++) m = lane[l] > m ? lane[l] : m;
    return m;
}

static int32_t first_equal(const float *x, int n, float value) {
    for (int i = 0; i < n; i++)
        if (x[i] == value) return i;
    return 0;
}

// By pieces, so that only the one that has the largest is searched for it.
int32_t sd_greedy(const float *x, int n) {
    enum { PIECE = 1024 };
    float max = -INFINITY;
    int begin = 0, len = n; // all of it while only NaN and minus infinity were seen
    for (int i = 0; i < n; i += PIECE) {
        int piece = n - i < PIECE ? n - i : PIECE;
        float m = largest(x + i, piece);
        if (m > max) max = m, begin = i, len = piece;
    }
    return begin + first_equal(x + begin, len, max);
}

// What truncation leaves: every logit above `above`, and those equal to it with an id up to
// `last_id`.
typedef struct {
    float above;
    int32_t last_id;
} cut;

static bool keeps(const cut *c, float logit, int32_t id) {
    return logit > c->above || (logit == c->above && id <= c->last_id);
}

static int bucket_of(float distance) { // distance >= 0, in units of logit / T
    return distance < HISTOGRAM_RANGE ? (int)(distance * PER_UNIT) : BUCKETS - 1;
}

// Logit descending, id ascending. A heap sort: no allocation, and V equal logits stay n log n.
static bool before(const float *logits, int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}
static void sift(int32_t *id, int i, int n, const float *logits) {
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(logits, id[child], id[child + 1])) child++;
        if (!before(logits, id[i], id[child])) return;
        int32_t t = id[i];
        id[i] = id[child], id[child] = t;
    }
}
static void sort_ids(int32_t *id, int n, const float *logits) {
    for (int i = n / 2 - 1; i >= 0; i--) sift(id, i, n, logits);
    for (int end = n - 1; end > 0; end--) {
        int32_t t = id[0];
        id[0] = id[end], id[end] = t;
        sift(id, 0, end, logits);
    }
}

// The kept ids of bucket b in order, in s->pick.
static int bucket_ids(sd_sampler *s, int b, const float *logits, float max, float T, const cut *c) {
    int n = 0;
    for (int32_t i = 0; i < s->V; i++) {
        float x = logits[i];
        if (!(x > -INFINITY) || !keeps(c, x, i)) continue;
        if (bucket_of((max - x) / T) == b) s->pick[n++] = i;
    }
    sort_ids(s->pick, n, logits);
    return n;
}

// Counts (and, if wanted, masses relative to the largest) of what c keeps.
static void fill_histogram(sd_sampler *s, const float *logits, float max, float T, const cut *c,
                           bool masses) {
    for (int b = 0; b <= BUCKETS; b++) s->count[b] = 0, s->mass[b] = 0;
    for (int32_t i = 0; i < s->V; i++) {
        float x = logits[i];
        if (!(x > -INFINITY) || !keeps(c, x, i)) continue;
        float d = (max - x) / T;
        int b = bucket_of(d);
        s->count[b]++;
        if (masses && d < 40) s->mass[b] += (double)expf(-d);
    }
}

static void cut_top_k(sd_sampler *s, const float *logits, float max, float T, int k, cut *c) {
    fill_histogram(s, logits, max, T, c, false);
    int b = 0, seen = 0;
    while (b < BUCKETS && seen + s->count[b] < k) seen += s->count[b++];
    if (b == BUCKETS) return; // fewer than k tokens are possible at all
    int n = bucket_ids(s, b, logits, max, T, c);
    if (k - seen <= n) *c = (cut){logits[s->pick[k - seen - 1]], s->pick[k - seen - 1]};
}

static void cut_top_p(sd_sampler *s, const float *logits, float max, float T, double p, cut *c) {
    fill_histogram(s, logits, max, T, c, true);
    double total = 0;
    for (int b = 0; b < BUCKETS; b++) total += s->mass[b];
    double want = p * total, seen = 0;
    int b = 0;
    while (b < BUCKETS && (s->count[b] == 0 || seen + s->mass[b] < want)) seen += s->mass[b++];
    if (b == BUCKETS) return;
    int n = bucket_ids(s, b, logits, max, T, c);
    for (int i = 0; i < n; i++) {
        float d = (max - logits[s->pick[i]]) / T;
        seen += d < 40 ? (double)expf(-d) : 0;
        if (seen >= want || i == n - 1) {
            *c = (cut){logits[s->pick[i]], s->pick[i]};
            return;
        }
    }
}

// All ids with logits >= floor, sorted, in s->pick; -1 when there are more than NEAR.
static int near_ids(sd_sampler *s, const float *logits, float floor) {
    int n = 0;
    for (int b = 0; b < s->blocks; b++) {
        if (!(s->block_max[b] >= floor)) continue;
        int end = (b + 1) * BLOCK < s->V ? (b + 1) * BLOCK : s->V;
        for (int32_t i = b * BLOCK; i < end; i++) {
            if (!(logits[i] >= floor)) continue;
            if (n == NEAR) return -1;
            s->pick[n++] = i;
        }
    }
    sort_ids(s->pick, n, logits);
    return n;
}

// The k-th largest of the blocks' maxima: k tokens at least are no smaller. A heap with the
// smallest on top.
static float kth_block_max(sd_sampler *s, int k) {
    float *h = s->heap;
    int n = 0;
    for (int b = 0; b < s->blocks; b++) {
        float v = s->block_max[b];
        int i;
        if (n < k) {
            for (i = n++; i > 0 && h[(i - 1) / 2] > v; i = (i - 1) / 2) h[i] = h[(i - 1) / 2];
        } else {
            if (!(v > h[0])) continue;
            i = 0;
            for (int child; (child = 2 * i + 1) < n; i = child) {
                if (child + 1 < n && h[child + 1] < h[child]) child++;
                if (h[child] >= v) break;
                h[i] = h[child];
            }
        }
        h[i] = v;
    }
    return h[0];
}

// top-k and top-p by the candidates near the top; false when there are too many (or too few).
// least: the smallest logit that min-p left.
static bool cut_near(sd_sampler *s, const float *logits, float max, const sd_sampling *p,
                     float least, cut *c) {
    float T = p->temperature, floor = max - 10 * T;
    int k = p->top_k > 0 && p->top_k < s->V ? p->top_k : 0;
    if (k > MAX_K || (k > 0 && k > s->blocks)) return false;
    if (k > 0) floor = kth_block_max(s, k);
    if (!(floor > -INFINITY)) return false;
    bool all = least >= floor; // the candidates are all that min-p left
    if (all) floor = least;
    if (!all && k == 0 && least > -INFINITY) return false; // part of the mass lies below
    int n = near_ids(s, logits, floor);
    if (n <= 0) return false;
    if (k > 0 && n > k) n = k;
    double total = 0, seen = 0;
    if (p->top_p < 1) {
        if (k > 0 || all)
            for (int i = 0; i < n; i++) total += (double)expf((logits[s->pick[i]] - max) / T);
        else
            total = s->simd->exp_sum(logits, s->V, max, T);
        double want = (double)(p->top_p > 0 ? p->top_p : 0) * total;
        int i = 0;
        while (i < n) {
            seen += (double)expf((logits[s->pick[i++]] - max) / T);
            if (seen >= want) break;
        }
        if (k == 0 && !all && seen < want) return false;
        n = i;
    }
    *c = (cut){logits[s->pick[n - 1]], s->pick[n - 1]};
    return true;
}

static cut truncate(sd_sampler *s, const float *logits, float max, const sd_sampling *p) {
    cut c = {-INFINITY, -1};
    float T = p->temperature;
    bool by_k = p->top_k > 0 && p->top_k < s->V, by_p = p->top_p < 1;
    if (p->min_p > 0) {
        // p_t >= min_p * p_max  <=>  logit_t >= max + T log(min_p)
        float floor = p->min_p < 1 ? (float)(max + (double)T * log((double)p->min_p)) : max;
        c = (cut){floor, INT32_MAX};
    }
    if ((by_k || by_p) && !cut_near(s, logits, max, p, c.above, &c)) {
        if (by_k) cut_top_k(s, logits, max, T, p->top_k, &c);
        if (by_p) cut_top_p(s, logits, max, T, p->top_p > 0 ? (double)p->top_p : 0, &c);
    }
    return c;
}

static double gumbel(uint32_t word) {
    return -log(-log(((double)word + 0.5) * 0x1p-32));
}

static sd_noise_key key_of(const sd_sampling *p, int64_t position) {
    return (sd_noise_key){p->seed, (uint64_t)SD_STREAM_SAMPLE << 32 | p->choice,
                          (uint32_t)position};
}

static uint32_t noise_word(const sd_noise_key *k, int32_t token) {
    uint32_t w[4];
    sd_philox(w, k->seed, k->hi, (uint64_t)k->position << 32 | (uint32_t)(token >> 2));
    return w[token & 3];
}

// An upper bound of gumbel(word), with room for the rounding of both.
static double gumbel_bound(uint32_t word) {
    int ones = word == UINT32_MAX ? 32 : __builtin_clz(~word);
    return 0.69314719 * (ones + 1) + 1e-6;
}

typedef struct {
    double sum;
    int32_t id;
} winner;

// The tokens [i, i + n) of a block against the best so far.
static void try_block(winner *w, const sd_sampler *s, const float *logits, int32_t i, float max,
                      float T, const cut *c, const sd_noise_key *k) {
    uint32_t word[BLOCK];
    int n = s->V - i < BLOCK ? s->V - i : BLOCK;
    uint32_t most = s->simd->noise(word, k, i);
    double top = (double)((s->block_max[i / BLOCK] - max) / T);
    if (top + gumbel_bound(most) < w->sum) return;
    for (int l = 0; l < n; l++) {
        float x = logits[i + l];
        if (!keeps(c, x, i + l)) continue; // also NaN
        double scaled = (double)((x - max) / T);
        if (scaled + gumbel_bound(word[l]) < w->sum) continue;
        double sum = scaled + gumbel(word[l]);
        if (sum > w->sum || (sum == w->sum && i + l < w->id)) *w = (winner){sum, i + l};
    }
}

// ---- shaping

static void penalise(float *x, const sd_shaping *h, const sd_token_seen *seen) {
    if (h->repetition > 0) *x = *x > 0 ? *x / h->repetition : *x * h->repetition;
    *x -= h->frequency * (float)seen->answered;
    if (seen->answered > 0) *x -= h->presence;
}

static bool has_token(const sd_sampler *s, int32_t t) {
    return t >= 0 && t < s->V;
}

static void allow_only(sd_sampler *s, const uint32_t *set) {
    for (int32_t w = 0; set && w * 32 < s->V; w++) {
        if (set[w] == UINT32_MAX) continue;
        for (int32_t t = w * 32; t < s->V && t < w * 32 + 32; t++)
            if (!(set[w] >> (t & 31) & 1)) s->shaped[t] = -INFINITY;
    }
}

// A copy of the logits as the request wants them. A recent token is penalised anew from what the
// bias left of its logit: the same few operations as if its count had stood in `seen`, so the same
// bits.
static const float *shape(sd_sampler *s, const float *logits, const sd_shaping *h) {
    float biased[SD_MAX_RECENT];
    int n_recent = h->n_recent < SD_MAX_RECENT ? h->n_recent : SD_MAX_RECENT;
    memcpy(s->shaped, logits, (size_t)s->V * sizeof *logits);
    for (int i = 0; i < h->n_bias; i++)
        if (has_token(s, h->bias[i].token)) s->shaped[h->bias[i].token] += h->bias[i].bias;
    for (int i = 0; i < n_recent; i++)
        biased[i] = has_token(s, h->recent[i].token) ? s->shaped[h->recent[i].token] : 0;
    for (int i = 0; i < h->n_seen; i++)
        if (has_token(s, h->seen[i].token)) penalise(&s->shaped[h->seen[i].token], h, &h->seen[i]);
    for (int i = 0; i < n_recent; i++) {
        if (!has_token(s, h->recent[i].token)) continue;
        float *x = &s->shaped[h->recent[i].token];
        *x = biased[i];
        penalise(x, h, &h->recent[i]);
    }
    allow_only(s, h->allowed);
    allow_only(s, h->also_allowed);
    for (int i = 0; i < h->n_banned; i++)
        if (has_token(s, h->banned[i])) s->shaped[h->banned[i]] = -INFINITY;
    return s->shaped;
}

int32_t sd_sample(sd_sampler *s, const float *logits, const sd_shaping *shaping,
                  const sd_sampling *p, int64_t position) {
    if (shaping) logits = shape(s, logits, shaping);
    float T = p->temperature;
    if (s->simd->has_nan(logits, s->V)) return -1;
    if (!(T > 0)) {
        int32_t best = sd_greedy(logits, s->V);
        return isfinite(logits[best]) ? best : -1;
    }
    float max = s->simd->block_max(s->block_max, logits, s->V);
    if (!isfinite(max)) return -1;
    int32_t top = first_equal(logits, s->V, max);
    cut c = truncate(s, logits, max, p);
    sd_noise_key k = key_of(p, position);
    winner w = {gumbel(noise_word(&k, top)), top};
    for (int b = 0; b < s->blocks; b++) {
        float m = s->block_max[b];
        if (m < c.above || (double)((m - max) / T) + GUMBEL_MAX < w.sum) continue;
        try_block(&w, s, logits, b * BLOCK, max, T, &c, &k);
    }
    return w.id;
}

int sd_sample_kept(sd_sampler *s, int32_t *ids, const float *logits, const sd_shaping *shaping,
                   const sd_sampling *p) {
    if (shaping) logits = shape(s, logits, shaping);
    float max = s->simd->block_max(s->block_max, logits, s->V);
    int n = 0;
    if (!(p->temperature > 0) || !isfinite(max)) {
        ids[n++] = first_equal(logits, s->V, max);
        return n;
    }
    cut c = truncate(s, logits, max, p);
    for (int32_t i = 0; i < s->V; i++)
        if (logits[i] > -INFINITY && keeps(&c, logits[i], i)) ids[n++] = i;
    return n;
}

float sd_log_total(const float *logits, int V) {
    float max = largest(logits, V);
    if (!isfinite(max)) return max;
    return max + (float)log(sd_sampler_simd_best()->exp_sum(logits, V, max, 1));
}

float sd_logprob(const float *logits, int V, int32_t token) {
    float total = sd_log_total(logits, V);
    if (!isfinite(total)) return token == sd_greedy(logits, V) ? 0.0f : -INFINITY;
    return logits[token] - total;
}

void sd_top_tokens(int32_t *ids, int n, const float *logits, int V) {
    int have = 0;
    for (int32_t i = 0; i < V; i++) {
        float x = isnan(logits[i]) ? -INFINITY : logits[i];
        if (have == n && !(n > 0 && x > logits[ids[n - 1]])) continue;
        int at = have < n ? have++ : n - 1;
        for (; at > 0 && x > logits[ids[at - 1]]; at--) ids[at] = ids[at - 1];
        ids[at] = i;
    }
}
