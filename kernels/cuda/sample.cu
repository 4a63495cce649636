// The token at a position, picked on the device: ids come back and not V floats a row. It is the token that sd_sample
// (kernels/sample/sampler.h) picks from the same logits, by the same law:
//
//     argmax_t( (logit_t - max) / T + Gumbel(seed, choice, position, t) ) over what the allowed sets, min-p, top-k and
//     top-p leave; ties to the lowest id.
//
// The arithmetic is the host's: the quotient in fp32, noise and sum in double. Only exp and log are another library's,
// so a token may differ where two sums lie within their last bits, or a prefix's mass within 1e-7 of top-p.
//
// A block has a row. Truncation finds the last token of the prefix by its key's bits, one pass over the logits a bit:
// sums of a fixed order, no sorting, no atomics. A token pays for logarithms only where a bound of its noise (the
// leading ones of its word) lets it win against the best so far.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/scalar.cuh"

enum { THREADS = 256, WARPS = THREADS / 32, STREAM_SAMPLE = 4 }; // SD_STREAM_SAMPLE of base/rng.h

struct sample_row {
    const float *logits;
    const sd_cuda_pick *pick;
    int V;
    float max, above; // kept: above `above`, or equal to it with an id up to last
    int last;
    double *part; // shared [WARPS]
    int *part_id; // shared [WARPS]
};

// ---- sums and maxima over the block, in every thread

SD_DEVICE double sum_all(double v, double *part) {
    SD_UNROLL
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(SD_ALL_LANES, v, d);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    double total = 0;
    SD_UNROLL
    for (int w = 0; w < WARPS; w++) total += part[w];
    __syncthreads(); // part is used again
    return total;
}

struct winner {
    double sum;
    int id; // -1: none
};
SD_DEVICE winner better(winner a, winner b) {
    const bool second = b.id >= 0 && (a.id < 0 || b.sum > a.sum || (b.sum == a.sum && b.id < a.id));
    return second ? b : a;
}
SD_DEVICE winner best_of_all(winner w, const sample_row &r) {
    SD_UNROLL
    for (int d = 16; d; d >>= 1) {
        const winner other = {__shfl_xor_sync(SD_ALL_LANES, w.sum, d),
                              __shfl_xor_sync(SD_ALL_LANES, w.id, d)};
        w = better(w, other);
    }
    if (threadIdx.x % 32 == 0) r.part[threadIdx.x / 32] = w.sum, r.part_id[threadIdx.x / 32] = w.id;
    __syncthreads();
    winner best = {0, -1};
    SD_UNROLL
    for (int i = 0; i < WARPS; i++) {
        const winner other = {r.part[i], r.part_id[i]};
        best = better(best, other);
    }
    __syncthreads();
    return best;
}

// ---- logits

SD_DEVICE float logit_at(const sample_row &r, int t) {
    const uint32_t *allowed = r.pick->allowed, *also = r.pick->also_allowed;
    const bool may =
        (!allowed || (allowed[t / 32] >> t % 32 & 1)) && (!also || (also[t / 32] >> t % 32 & 1));
    return may ? r.logits[t] : -INFINITY;
}
SD_DEVICE bool keeps(const sample_row &r, float x, int t) {
    return x > r.above || (x == r.above && t <= r.last);
}
// Bits that are ordered as the values are; both zeros are one.
SD_DEVICE uint32_t key_of(float x) {
    const uint32_t u = sd_float_bits(x + 0.0f);
    return u >> 31 ? ~u : u | 0x80000000u;
}
SD_DEVICE float value_of(uint32_t key) {
    return sd_bits_float(key >> 31 ? key & 0x7fffffffu : ~key);
}
SD_DEVICE double mass_of(const sample_row &r, float x) {
    return (double)expf((x - r.max) / r.pick->temperature);
}

// ---- truncation: prefixes of the order by (logit descending, id ascending)

// What the kept tokens with keys of at least `least` weigh: their mass, or 1 each.
SD_DEVICE double weight_from(const sample_row &r, uint32_t least, bool by_mass) {
    double sum = 0;
    for (int t = threadIdx.x; t < r.V; t += THREADS) {
        const float x = logit_at(r, t);
        if (keeps(r, x, t) && key_of(x) >= least) sum += by_mass ? mass_of(r, x) : 1.0;
    }
    return sum_all(sum, r.part);
}
// The kept tokens with this key and an id up to `last`.
SD_DEVICE double ties_up_to(const sample_row &r, uint32_t key, int last) {
    double sum = 0;
    for (int t = threadIdx.x; t < r.V && t <= last; t += THREADS) {
        const float x = logit_at(r, t);
        if (keeps(r, x, t) && key_of(x) == key) sum += 1;
    }
    return sum_all(sum, r.part);
}

// Cuts behind the shortest prefix that weighs `want` (more than nothing).
SD_DEVICE void cut(sample_row *r, double want, bool by_mass) {
    uint32_t key = 0; // the largest from which on there is as much
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1)
        if (weight_from(*r, key | bit, by_mass) >= want) key |= bit;
    double seen = key == 0xffffffffu ? 0 : weight_from(*r, key + 1, by_mass);
    const double each = by_mass ? mass_of(*r, value_of(key)) : 1.0,
                 ties = ties_up_to(*r, key, r->V);
    double need = 0; // of the ties, one after the other as a sorted list would add them
    while (need < ties && (need < 1 || seen < want)) seen += each, need += 1;
    int below = -1; // the largest id up to which there are too few
    for (int bit = 1 << 30; bit; bit >>= 1)
        if (below + bit < r->V && ties_up_to(*r, key, below + bit) < need) below += bit;
    r->above = value_of(key), r->last = below + 1;
}

SD_DEVICE void truncate(sample_row *r) {
    const sd_cuda_pick *p = r->pick;
    if (p->has_min_p) r->above = (float)((double)r->max + p->log_min_p), r->last = r->V;
    if (p->top_k > 0 && p->top_k < r->V && weight_from(*r, 0, false) > p->top_k)
        cut(r, p->top_k, false);
    if (p->top_p < 1) {
        const double want = (double)p->top_p * weight_from(*r, 0, true);
        cut(r, want > 0 ? want : 1e-300, true);
    }
}

// ---- noise: Philox4x32-10 with the counter (choice and stream, position and token / 4), as base/rng.h has it

SD_DEVICE void philox(uint32_t (&out)[4], const sd_cuda_pick &p, uint32_t quad) {
    uint32_t c0 = quad, c1 = p.position, c2 = p.choice, c3 = STREAM_SAMPLE;
    uint32_t k0 = (uint32_t)p.seed, k1 = (uint32_t)(p.seed >> 32);
    SD_UNROLL
    for (int i = 0; i < 10; i++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}
SD_DEVICE double gumbel(uint32_t word) {
    return -log(-log(((double)word + 0.5) * 0x1p-32));
}
// An upper bound of gumbel(word): -log(1 - u) <= ln 2 * (leading ones + 1).
SD_DEVICE double gumbel_bound(uint32_t word) {
    int ones = 0;
    for (; ones < 32 && word >> 31; word <<= 1) ones++;
    return 0.69314719 * (ones + 1) + 1e-6;
}

SD_DEVICE void draw_quad(winner *w, const sample_row &r, int quad) {
    uint32_t word[4];
    bool drawn = false;
    SD_UNROLL
    for (int i = 0; i < 4; i++) {
        const int t = 4 * quad + i;
        if (t >= r.V) continue;
        const float x = logit_at(r, t);
        if (!keeps(r, x, t)) continue;
        const double scaled = (double)((x - r.max) / r.pick->temperature);
        if (w->id >= 0 && scaled + 22.9 < w->sum) continue; // noise is less than that
        if (!drawn) philox(word, *r.pick, (uint32_t)quad);
        drawn = true;
        if (w->id >= 0 && scaled + gumbel_bound(word[i]) < w->sum) continue;
        const winner mine = {scaled + gumbel(word[i]), t};
        *w = better(*w, mine);
    }
}

SD_KERNEL(THREADS)
sd_sample_f32(int32_t *token, const float *logits, const sd_cuda_pick *pick, int V) {
    SD_SHARED(double, part, WARPS);
    SD_SHARED(int, part_id, WARPS);
    sample_row r = {
        logits + (size_t)blockIdx.x * V, pick + blockIdx.x, V, 0, -INFINITY, -1, part, part_id};
    winner w = {0, -1};
    double bad = 0;
    for (int t = threadIdx.x; t < V; t += THREADS) {
        const float x = logit_at(r, t);
        const winner mine = {(double)x, t};
        if (x != x) bad += 1;
        if (x > -INFINITY) w = better(w, mine);
    }
    bad = sum_all(bad, part);
    const winner top = best_of_all(w, r);
    const bool law = bad == 0 && top.id >= 0 && top.sum < (double)INFINITY;
    if (!law || !(r.pick->temperature > 0)) { // the same in the whole block
        if (threadIdx.x == 0) token[blockIdx.x] = law ? top.id : -1;
        return;
    }
    r.max = (float)top.sum;
    truncate(&r);
    w.id = -1;
    if (threadIdx.x == 0) draw_quad(&w, r, top.id / 4); // a good one first, for the bounds
    w = best_of_all(w, r);
    for (int quad = threadIdx.x; quad < (V + 3) / 4; quad += THREADS) draw_quad(&w, r, quad);
    w = best_of_all(w, r);
    if (threadIdx.x == 0) token[blockIdx.x] = w.id;
}

extern "C" int sd_cuda_sample(int32_t *token, const float *logits, const sd_cuda_pick *pick, int N,
                              int V, sd_cuda_stream *s) {
    if (!token || !logits || !pick || N < 1 || V < 1) return SD_CUDA_EINVAL;
    return SD_LAUNCH(sd_sample_f32, dim3(N), THREADS, 0, s, token, logits, pick, V);
}

// ---- matching: a thread for a sequence

SD_KERNEL(THREADS)
sd_accept(int32_t *accepted, const int32_t *picked, const int32_t *token,
          const sd_cuda_row_tile *rows, int n) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const int first = rows[i].first, drafts = rows[i].rows - 1;
    int j = 0;
    while (j < drafts && picked[first + j] == token[first + j + 1]) j++;
    accepted[i] = j;
}

extern "C" int sd_cuda_accept(int32_t *accepted, const int32_t *picked, const int32_t *token,
                              const sd_cuda_row_tile *rows, int n, sd_cuda_stream *s) {
    if (!accepted || !picked || !token || !rows || n < 1) return SD_CUDA_EINVAL;
    return SD_LAUNCH(sd_accept, dim3((n + THREADS - 1) / THREADS), THREADS, 0, s, accepted, picked,
                     token, rows, n);
}
