// Gumbel-max with position-keyed noise.
//
// A vocabulary has 49,152 to 151,936 tokens, and a logarithm pair for each would cost as much as a
// decode step of a small model. Nearly all tokens cannot win, and that is decided exactly and
// cheaply, in this order:
//
//   1. truncation (a histogram over the distance to the largest logit, one bucket sorted exactly);
//   2. noise from a 32-bit word lies in (-3.14, 22.88): a block of 16 logits whose largest would
//      not win even with 22.88 is passed over without drawing;
//   3. Gumbel(u) = -log(-log u) <= -log(1 - u) <= ln 2 * (leading ones of the word + 1): only a
//      token that passes this bound pays for logarithms.
//
// Skipped tokens are those that provably lose, so the result is that of the full argmax.
#include "decode/sampler.h"
#include "base/memory.h"
#include "base/rng.h"

#include <math.h>

enum {
    BLOCK = 16,   // logits passed over at once; 4 Philox calls
    PER_UNIT = 16 // histogram buckets of one unit of logit / T
};
// Distances beyond this hold less than e^-27 * V of the mass; a token there cannot win either,
// since the noise spans less than 27.
#define HISTOGRAM_RANGE 27.0f
enum { BUCKETS = 27 * PER_UNIT + 1 };
#define GUMBEL_MAX 22.9

struct sd_sampler {
    int V;
    int32_t count[BUCKETS + 1];
    double mass[BUCKETS + 1];
    int32_t *pick; // [V] ids of one bucket
};

sd_sampler *sd_sampler_open(int V) {
    sd_sampler *s = V > 0 ? sd_alloc(1, sizeof *s) : NULL;
    if (!s) return NULL;
    s->V = V;
    s->pick = sd_alloc((size_t)V, sizeof *s->pick);
    if (!s->pick) {
        free(s);
        return NULL;
    }
    return s;
}

void sd_sampler_close(sd_sampler *s) {
    if (!s) return;
    free(s->pick);
    free(s);
}

// The largest value; -INFINITY when all are NaN. `a > b ? a : b` drops a NaN in a.
static float largest(const float *x, int n) {
    float lane[BLOCK];
    for (int l = 0; l < BLOCK; l++) lane[l] = -INFINITY;
    int i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int l = 0; l < BLOCK; l++) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    float m = -INFINITY;
    for (; i < n; i++) m = x[i] > m ? x[i] : m;
    for (int l = 0; l < BLOCK; l++) m = lane[l] > m ? lane[l] : m;
    return m;
}

static int32_t first_equal(const float *x, int n, float value) {
    for (int i = 0; i < n; i++)
        if (x[i] == value) return i;
    return 0;
}

int32_t sd_greedy(const float *x, int n) {
    return first_equal(x, n, largest(x, n));
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

static cut truncate(sd_sampler *s, const float *logits, float max, const sd_sampling *p) {
    cut c = {-INFINITY, -1};
    float T = p->temperature;
    if (p->top_k > 0 && p->top_k < s->V) cut_top_k(s, logits, max, T, p->top_k, &c);
    if (p->top_p < 1) cut_top_p(s, logits, max, T, p->top_p > 0 ? p->top_p : 0, &c);
    if (p->min_p > 0) {
        // p_t >= min_p * p_max  <=>  logit_t >= max + T log(min_p)
        float floor = p->min_p < 1 ? (float)(max + (double)T * log((double)p->min_p)) : max;
        if (floor > c.above) c = (cut){floor, INT32_MAX};
    }
    return c;
}

static double gumbel(uint32_t word) {
    return -log(-log(((double)word + 0.5) * 0x1p-32));
}

typedef struct {
    uint64_t seed, hi, lo;
} noise_key;

static noise_key key_of(const sd_sampling *p, int64_t position) {
    return (noise_key){p->seed, (uint64_t)SD_STREAM_SAMPLE << 32 | p->choice,
                       (uint64_t)position << 32};
}

static uint32_t noise_word(const noise_key *k, int32_t token) {
    uint32_t w[4];
    sd_philox(w, k->seed, k->hi, k->lo | (uint32_t)(token >> 2));
    return w[token & 3];
}

typedef struct {
    double sum;
    int32_t id;
} winner;

// The tokens [i, i + n) (i a multiple of 4) against the best so far.
static void try_block(winner *w, const float *logits, int32_t i, int n, float max, float T,
                      const cut *c, const noise_key *k) {
    for (int g = 0; g < n; g += 4) {
        uint32_t word[4];
        bool drawn = false;
        for (int l = g; l < g + 4 && l < n; l++) {
            float x = logits[i + l];
            if (!keeps(c, x, i + l)) continue; // also NaN
            double scaled = (double)((x - max) / T);
            if (!(scaled + GUMBEL_MAX >= w->sum)) continue;
            if (!drawn) sd_philox(word, k->seed, k->hi, k->lo | (uint32_t)((i + g) >> 2));
            drawn = true;
            uint32_t r = word[l - g];
            int ones = r == UINT32_MAX ? 32 : __builtin_clz(~r);
            if (scaled + 0.69314719 * (ones + 1) + 1e-6 < w->sum) continue;
            double sum = scaled + gumbel(r);
            if (sum > w->sum || (sum == w->sum && i + l < w->id)) *w = (winner){sum, i + l};
        }
    }
}

int32_t sd_sample(sd_sampler *s, const float *logits, const sd_sampling *p, int64_t position) {
    float max = largest(logits, s->V);
    int32_t top = first_equal(logits, s->V, max);
    float T = p->temperature;
    if (!(T > 0) || !isfinite(max)) return top;
    cut c = truncate(s, logits, max, p);
    noise_key k = key_of(p, position);
    winner w = {gumbel(noise_word(&k, top)), top};
    for (int32_t i = 0; i < s->V; i += BLOCK) {
        int n = s->V - i < BLOCK ? s->V - i : BLOCK;
        float m = -INFINITY;
        if (n == BLOCK) {
            float lane[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
            for (int l = 0; l < BLOCK; l++)
                lane[l & 3] = logits[i + l] > lane[l & 3] ? logits[i + l] : lane[l & 3];
            for (int l = 0; l < 4; l++) m = lane[l] > m ? lane[l] : m;
        } else {
            m = largest(logits + i, n);
        }
        if (m < c.above || (double)((m - max) / T) + GUMBEL_MAX < w.sum) continue;
        try_block(&w, logits, i, n, max, T, &c, &k);
    }
    return w.id;
}

int sd_sample_kept(sd_sampler *s, int32_t *ids, const float *logits, const sd_sampling *p) {
    float max = largest(logits, s->V);
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

float sd_logprob(const float *logits, int V, int32_t token) {
    float max = largest(logits, V);
    if (!isfinite(max)) return token == first_equal(logits, V, max) ? 0.0f : -INFINITY;
    double sum = 0;
    for (int i = 0; i < V; i++) {
        float d = logits[i] - max;
        if (d > -40) sum += (double)expf(d);
    }
    return (float)((double)(logits[token] - max) - log(sum));
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
