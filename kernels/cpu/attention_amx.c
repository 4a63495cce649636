// Attention on the matrix unit, over keys and values in bf16 or int8. A query head of a row is a
// lane; 16 lanes share what is read of a block of 64 keys:
//
//     scores [64 keys][16 lanes]   <- keys (as cached, 16 positions to a register) times queries
//     weights                      <- e^(score - the lane's top), down the lanes: nothing is summed
//                                     across a vector
//     out [16 lanes][D]            <- weights, turned and in bf16, times values
//
// The right operand of a product has two terms of a sum side by side, so queries are brought into
// that order once a call and values once a block. Positions beyond what any row sees are zeros
// there and never read from the cache; what a lane itself does not see has a weight of exactly 0.
// A lane's bits are its own: the unit's sums of one do not depend on the others, and blocks follow
// each other from position 0 on.
//
// Codes of int8 are bf16 too; a position's scale is a factor of its scores, and of its weights
// before the values.
//
// The tests also compile this file over plain C: the includer provides the intrinsics.
#include "kernels/cpu/amx.h"
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/simd_exp.h"
#include "kernels/cpu/tile_avx512.h"

#include <math.h>

enum { LANE = 16, STEP = 32, KEYS = SD_KEY_BLOCK, BYTES = 64 }; // STEP: terms of one product
#define UNSEEN (-1e30f)

// Registers of the unit, as macros since they become names. Sums are 0 to 3.
#define LEFT 4
#define RIGHT 6

// The lanes of a group, and what they carry from block to block.
typedef struct {
    _Alignas(BYTES) float top[LANE], sum[LANE], keep[LANE];
    // The positions [first, len) that the lane's row sees; of lanes without a row all.
    int32_t first[LANE], len[LANE];
    int32_t from[LANE], seen[LANE]; // [from, seen) of the block
    __mmask16 begins;               // lanes that have seen nothing before the block
    int lanes;
} lane_group;

typedef struct {
    int D;
    int sure_from, sure; // [sure_from, sure) of the block: positions that every row sees
    int from, count;     // [from, count) of the block: positions that some row sees
    int parts;           // count in parts of 32
    uint8_t *q;          // [groups][D / 32][16 pairs of terms][16 lanes][2]
    lane_group *group;   // [groups]
    // of a block
    const uint8_t *k; // [KEYS][D] bf16
    uint8_t *k_part;  // the same where it is not so in the cache, or the block not whole
    uint8_t *v;       // [KEYS / 32][D / 16][16 pairs of positions][16][2]
    float *scale[2];  // [KEYS] of keys and values under int8
    // of a block and group
    float *score;    // [KEYS][LANE]
    uint8_t *weight; // [KEYS / 32][LANE][32]
    float *pv;       // [LANE][D]
} work_space;

static void configure(void) {
    sd_tile_config c = {0};
    for (int i = 0; i < 8; i++) c.rows[i] = LANE, c.bytes[i] = BYTES;
    sd_tiles_configure(&c);
}

// To the nearest bf16, ties to even: in the upper half of a lane, below it what was cut.
SD_INLINE __m512i rounded(__m512 x) {
    __m512i i = _mm512_castps_si512(x);
    __m512i even = _mm512_and_si512(_mm512_srli_epi32(i, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(i, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff)));
}
// low goes to the lower half of each lane, high to the upper one.
SD_INLINE __m512i beside(__m512i low, __m512i high) {
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    return _mm512_or_si512(_mm512_srli_epi32(low, 16), _mm512_and_si512(high, upper));
}

// The upper halves of the lanes of low and then of high.
SD_INLINE __m512i upper_halves(__m512i low, __m512i high) {
    const __m512i odd = _mm512_setr_epi32(0x00030001, 0x00070005, 0x000b0009, 0x000f000d, //
                                          0x00130011, 0x00170015, 0x001b0019, 0x001f001d, //
                                          0x00230021, 0x00270025, 0x002b0029, 0x002f002d, //
                                          0x00330031, 0x00370035, 0x003b0039, 0x003f003d);
    return _mm512_permutex2var_epi16(low, odd, high);
}

// v [16][16] turned.
SD_INLINE void transpose(__m512i v[LANE]) {
    __m512i t[LANE];
    SD_UNROLL for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    SD_UNROLL for (int i = 0; i < LANE; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    SD_UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xdd);
    }
    SD_UNROLL for (int i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        v[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        v[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        v[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}
SD_INLINE void store_all(uint8_t *to, const __m512i v[LANE]) {
    SD_UNROLL for (int i = 0; i < LANE; i++) _mm512_storeu_si512((void *)(to + i * BYTES), v[i]);
}

// ---- once a call

// A head's query of 32 terms from q on, two to a lane.
SD_INLINE __m512i query_pairs(const float *q) {
    return upper_halves(rounded(_mm512_loadu_ps(q)), rounded(_mm512_loadu_ps(q + LANE)));
}

static void open_group(work_space *w, int group, const sd_attention_rows *r,
                       const sd_attention_shape *s) {
    const int heads = s->H / s->G, all = r->N * heads, first = group * LANE;
    const float *query[LANE];
    lane_group *g = &w->group[group];
    g->lanes = all - first < LANE ? all - first : LANE;
    for (int i = 0, row = first / heads, h = first % heads; i < LANE; i++) {
        const bool there = i < g->lanes;
        query[i] = there ? r->q + ((size_t)row * s->H + r->g * heads + h) * s->D : NULL;
        g->len[i] = there ? r->len[row] : INT32_MAX;
        g->first[i] = there ? sd_attention_first(s->window, r->len[row]) : 0;
        g->top[i] = -INFINITY, g->sum[i] = 0;
        if (++h == heads) h = 0, row++;
    }
    for (int d = 0; d < s->D; d += STEP) {
        __m512i v[LANE];
        for (int i = 0; i < LANE; i++)
            v[i] = query[i] ? query_pairs(query[i] + d) : _mm512_setzero_si512();
        transpose(v);
        store_all(w->q + ((size_t)group * s->D + d) * LANE * 2, v);
    }
}

// ---- once a block

// Where position t stands in a cache that begins at c.
SD_INLINE const uint8_t *position(const void *c, int D, int t, int d, bool int8) {
    return (const uint8_t *)c + ((size_t)t * D + d) * (int8 ? 1 : 2);
}

// 32 codes as bf16: whole numbers of 7 bits.
static __m512i from_codes(const uint8_t *p) {
    __m512 low = _mm512_cvtepi32_ps(load_s8(p)), high = _mm512_cvtepi32_ps(load_s8(p + LANE));
    return upper_halves(_mm512_castps_si512(low), _mm512_castps_si512(high));
}

// Terms [d, d + 32) of position t; zeros where no row sees it.
SD_INLINE __m512i terms(const void *c, const work_space *w, int t, int d, bool int8) {
    if (t < w->from || t >= w->count) return _mm512_setzero_si512();
    const uint8_t *p = position(c, w->D, t, d, int8);
    return int8 ? from_codes(p) : load(p);
}

// A row that does not see a position gives it the weight 0, but its value may hold Inf or NaN, and
// 0 * Inf would poison the sum: such values become zeros. The rows that see the position lose nothing:
// its key comes from the same row of activations and is not finite either.
SD_INLINE __m512i value(const void *c, const work_space *w, int t, int d, bool int8) {
    const __m512i finite = _mm512_set1_epi16(0x7f7f); // the largest
    __m512i v = terms(c, w, t, d, int8);
    if ((t >= w->sure_from && t < w->sure) || int8) return v;
    __m512i size = _mm512_and_si512(v, _mm512_set1_epi16(0x7fff));
    return _mm512_maskz_mov_epi16(_mm512_cmpge_epi16_mask(finite, size), v);
}
static void open_scales(work_space *w, const float *k, const float *v) {
    for (int t = 0; t < KEYS; t++) {
        const bool there = t >= w->from && t < w->count, sure = t >= w->sure_from && t < w->sure;
        w->scale[0][t] = there ? k[t] : 0;
        w->scale[1][t] = there && (sure || isfinite(v[t])) ? v[t] : 0;
    }
}

// Values of two positions side by side: w->v [KEYS / 32][D / 16][16 pairs of positions][16][2].
// whole: every row sees the whole block, and the cache holds bf16.
SD_INLINE void pair_values(const work_space *w, const uint8_t *v, bool whole, bool int8) {
    const __m512i low = _mm512_setr_epi32(0x00200000, 0x00210001, 0x00220002, 0x00230003, //
                                          0x00240004, 0x00250005, 0x00260006, 0x00270007, //
                                          0x00280008, 0x00290009, 0x002a000a, 0x002b000b, //
                                          0x002c000c, 0x002d000d, 0x002e000e, 0x002f000f);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(LANE));
    const int tiles = w->D / LANE;
    for (int t = 0; t < (whole ? KEYS : w->parts * STEP); t += 2)
        for (int d = 0; d < w->D; d += STEP) {
            __m512i even = whole ? load(position(v, w->D, t, d, false)) : value(v, w, t, d, int8);
            __m512i odd =
                whole ? load(position(v, w->D, t + 1, d, false)) : value(v, w, t + 1, d, int8);
            uint8_t *to = w->v + ((t / STEP * tiles + d / LANE) * LANE + t % STEP / 2) * BYTES;
            _mm512_storeu_si512((void *)to, _mm512_permutex2var_epi16(even, low, odd));
            _mm512_storeu_si512((void *)(to + LANE * BYTES),
                                _mm512_permutex2var_epi16(even, high, odd));
        }
}

SD_INLINE void open_block(work_space *w, const uint8_t *k, const uint8_t *v, bool int8) {
    const bool as_cached = w->from == 0 && w->count == KEYS && !int8;
    w->k = as_cached ? k : w->k_part;
    for (int t = 0; !as_cached && t < w->parts * STEP; t++)
        for (int d = 0; d < w->D; d += STEP)
            _mm512_storeu_si512((void *)(w->k_part + ((size_t)t * w->D + d) * 2),
                                terms(k, w, t, d, int8));
    if (as_cached && w->sure_from <= 0 && w->sure >= KEYS)
        pair_values(w, v, true, false);
    else
        pair_values(w, v, false, int8);
}

// ---- once a block and group

static void scores(const work_space *w, int group) {
    const uint8_t *q = w->q + (size_t)group * w->D * LANE * 2, *k = w->k;
    const size_t row = (size_t)w->D * 2;
    __asm__ volatile("" : : : "memory"); // the unit reads what was just stored
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int d = 0; d < w->D; d += STEP, q += LANE * BYTES, k += BYTES) {
        _tile_loadd(RIGHT, q, BYTES);
        _tile_loadd(LEFT, k, row);
        _tile_dpbf16ps(0, LEFT, RIGHT);
        _tile_loadd(LEFT, k + LANE * row, row);
        _tile_dpbf16ps(1, LEFT, RIGHT);
        if (w->parts == 1) continue;
        _tile_loadd(LEFT, k + 2 * LANE * row, row);
        _tile_dpbf16ps(2, LEFT, RIGHT);
        _tile_loadd(LEFT, k + 3 * LANE * row, row);
        _tile_dpbf16ps(3, LEFT, RIGHT);
    }
    _tile_stored(0, w->score, BYTES);
    _tile_stored(1, w->score + LANE * LANE, BYTES);
    if (w->parts > 1) {
        _tile_stored(2, w->score + 2 * LANE * LANE, BYTES);
        _tile_stored(3, w->score + 3 * LANE * LANE, BYTES);
    }
    __asm__ volatile("" : : : "memory");
}

// What the lanes see of a block: `width` positions from `from` on.
typedef struct {
    __m512i from, width;
} lane_view;

// The scores of position t. whole: every lane sees the whole block.
SD_INLINE __m512 score_at(const work_space *w, int t, lane_view see, bool whole, bool int8) {
    __m512 v = _mm512_loadu_ps(w->score + t * LANE);
    if (int8) v = _mm512_mul_ps(v, _mm512_set1_ps(w->scale[0][t]));
    if (whole) return v;
    __m512i at = _mm512_sub_epi32(_mm512_set1_epi32(t), see.from); // before it: as unsigned, large
    __mmask16 hidden = _mm512_cmpge_epu32_mask(at, see.width);
    return _mm512_mask_mov_ps(v, hidden, _mm512_set1_ps(UNSEEN));
}

// Two positions' weights as bf16, to the nearest: there are no ties to speak of.
SD_INLINE __m512i weights(__m512 even, __m512 odd) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    return beside(_mm512_add_epi32(_mm512_castps_si512(even), half),
                  _mm512_add_epi32(_mm512_castps_si512(odd), half));
}

// Scores become weights, turned and in bf16, and the lanes' tops and sums grow.
SD_INLINE void softmax_block(const work_space *w, lane_group *g, float scale, bool begins,
                             bool whole, bool int8) {
    const __m512 log2e = _mm512_set1_ps(1.44269504f);
    const __m512i from_at = _mm512_loadu_si512((const void *)g->from);
    const __m512i seen = _mm512_loadu_si512((const void *)g->seen);
    const lane_view see = {from_at, _mm512_sub_epi32(seen, from_at)};
    __m512 most[4], total[4], top = _mm512_loadu_ps(g->top);
    SD_UNROLL for (int j = 0; j < 4; j++) {
        most[j] = score_at(w, j, see, whole, int8);
        total[j] = _mm512_setzero_ps();
    }
    for (int t = 4; t < w->parts * STEP; t += 4) {
        SD_UNROLL for (int j = 0; j < 4; j++) most[j] =
            _mm512_max_ps(most[j], score_at(w, t + j, see, whole, int8));
    }
    most[0] = _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3]));
    __m512 now = _mm512_max_ps(top, _mm512_mul_ps(most[0], _mm512_set1_ps(scale)));
    __m512 by = _mm512_mul_ps(_mm512_set1_ps(scale), log2e), from = _mm512_mul_ps(now, log2e);
    for (int part = 0; part < w->parts; part++) {
        __m512i v[LANE];
        SD_UNROLL for (int i = 0; i < LANE; i++) {
            const int t = part * STEP + 2 * i;
            __m512 a = sd_exp2_16(_mm512_fmsub_ps(score_at(w, t, see, whole, int8), by, from));
            __m512 b = sd_exp2_16(_mm512_fmsub_ps(score_at(w, t + 1, see, whole, int8), by, from));
            total[2 * i % 4] = _mm512_add_ps(total[2 * i % 4], a);
            total[2 * i % 4 + 1] = _mm512_add_ps(total[2 * i % 4 + 1], b);
            if (int8) {
                a = _mm512_mul_ps(a, _mm512_set1_ps(w->scale[1][t]));
                b = _mm512_mul_ps(b, _mm512_set1_ps(w->scale[1][t + 1]));
            }
            v[i] = weights(a, b);
        }
        transpose(v);
        store_all(w->weight + part * LANE * BYTES, v);
    }
    __m512 sum =
        _mm512_add_ps(_mm512_add_ps(total[0], total[1]), _mm512_add_ps(total[2], total[3]));
    if (!begins) {
        __m512 keep = sd_exp2_16(_mm512_mul_ps(_mm512_sub_ps(top, now), log2e));
        sum = _mm512_fmadd_ps(_mm512_loadu_ps(g->sum), keep, sum);
        _mm512_storeu_ps(g->keep, keep);
    }
    _mm512_storeu_ps(g->sum, sum);
    _mm512_storeu_ps(g->top, now);
}

// The values of the block by their weights.
static void pv(const work_space *w) {
    const int tiles = w->D / LANE;
    const size_t row = (size_t)w->D * 4;
    __asm__ volatile("" : : : "memory");
    _tile_loadd(4, w->weight, BYTES);
    if (w->parts > 1) _tile_loadd(5, w->weight + LANE * BYTES, BYTES);
    for (int j = 0; j < tiles; j += 2) {
        const uint8_t *v = w->v + (size_t)j * LANE * BYTES, *v2 = v + (size_t)tiles * LANE * BYTES;
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(6, v, BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, v + LANE * BYTES, BYTES);
        _tile_dpbf16ps(1, 4, 7);
        if (w->parts > 1) {
            _tile_loadd(6, v2, BYTES);
            _tile_dpbf16ps(0, 5, 6);
            _tile_loadd(7, v2 + LANE * BYTES, BYTES);
            _tile_dpbf16ps(1, 5, 7);
        }
        _tile_stored(0, w->pv + j * LANE, row);
        _tile_stored(1, w->pv + (j + 1) * LANE, row);
    }
    __asm__ volatile("" : : : "memory");
}

// partial [lanes], `each` apart: what it was by the lane's keep, and the block's values by their weights.
static void accumulate_v(float *partial, size_t each, const work_space *w, const lane_group *g) {
    const float *pv = w->pv;
    for (int i = 0; i < g->lanes; i++, partial += each, pv += w->D) {
        if (g->seen[i] <= g->from[i]) continue; // not even the sign of a zero may change
        const bool begins = g->begins >> i & 1;
        const __m512 keep = _mm512_set1_ps(g->keep[i]);
        for (int d = 0; d < w->D; d += LANE) {
            __m512 v = _mm512_loadu_ps(pv + d);
            if (!begins) v = _mm512_fmadd_ps(_mm512_loadu_ps(partial + d), keep, v);
            _mm512_storeu_ps(partial + d, v);
        }
    }
}

typedef enum { SEES_NONE, SEES_SOME, SEES_ALL } view;

// What the lanes of a group see of the block at t0 of a split: all of a whole block, some, or none.
// What a lane gathered before it sees anything counts for nothing.
static view look(lane_group *g, int t0, int count, bool split_begins) {
    const __m512i zero = _mm512_setzero_si512(), at = _mm512_set1_epi32(t0);
    __m512i from = _mm512_sub_epi32(load((const uint8_t *)g->first), at);
    __m512i seen = _mm512_sub_epi32(load((const uint8_t *)g->len), at);
    g->begins = split_begins ? 0xffff : _mm512_cmpge_epi32_mask(from, zero);
    from = _mm512_max_epi32(from, zero);
    seen = _mm512_min_epi32(_mm512_max_epi32(seen, zero), _mm512_set1_epi32(count));
    _mm512_storeu_si512((void *)g->from, from);
    _mm512_storeu_si512((void *)g->seen, seen);
    if (g->begins && !split_begins) {
        const __m512 top = _mm512_loadu_ps(g->top), sum = _mm512_loadu_ps(g->sum);
        _mm512_storeu_ps(g->top, _mm512_mask_mov_ps(top, g->begins, _mm512_set1_ps(-INFINITY)));
        _mm512_storeu_ps(g->sum, _mm512_mask_mov_ps(sum, g->begins, _mm512_setzero_ps()));
    }
    if (_mm512_cmple_epi32_mask(_mm512_set1_epi32(KEYS), _mm512_sub_epi32(seen, from)) == 0xffff)
        return SEES_ALL;
    return _mm512_cmpgt_epi32_mask(seen, from) & ((1u << g->lanes) - 1) ? SEES_SOME : SEES_NONE;
}

// What the rows see of the block at t0; false: none sees any of it.
static bool look_at_block(work_space *w, const sd_attention_rows *r, const sd_attention_shape *s,
                          int t0) {
    w->from = KEYS, w->count = 0;
    for (int n = 0; n < r->N; n++) {
        int from = sd_attention_first(s->window, r->len[n]) - t0, count = r->len[n] - t0;
        if (from < 0) from = 0;
        if (count > KEYS) count = KEYS;
        if (from >= count) continue;
        if (from < w->from) w->from = from;
        if (count > w->count) w->count = count;
    }
    w->sure_from = sd_attention_first(s->window, r->len[r->N - 1]) - t0;
    w->sure = r->len[0] - t0;
    w->parts = (w->count + STEP - 1) / STEP;
    return w->count > 0;
}

static uint8_t *take(uint8_t **at, size_t bytes) { // of multiples of 64
    uint8_t *p = *at;
    *at += bytes;
    return p;
}

static work_space place_work(float *scratch, int D, int groups) {
    const size_t d = (size_t)D;
    uint8_t *at = (uint8_t *)(((uintptr_t)scratch + BYTES - 1) / BYTES * BYTES);
    work_space w = {.D = D};
    w.group = (lane_group *)(void *)take(&at, (size_t)groups * sizeof *w.group);
    w.q = take(&at, (size_t)groups * LANE * d * 2);
    w.k_part = take(&at, KEYS * d * 2);
    w.v = take(&at, KEYS * d * 2);
    w.score = (float *)(void *)take(&at, KEYS * LANE * sizeof(float));
    for (int i = 0; i < 2; i++) w.scale[i] = (float *)(void *)take(&at, KEYS * sizeof(float));
    w.weight = take(&at, KEYS * LANE * 2);
    w.pv = (float *)(void *)take(&at, LANE * d * sizeof(float));
    return w;
}

static bool on_unit(const sd_attention_shape *s) {
    return s->D % STEP == 0 && (s->kv == SD_KV_BF16 || s->kv == SD_KV_INT8);
}

size_t sd_attention_scratch_amx(const sd_attention_shape *s, int N) {
    if (!on_unit(s)) return sd_attention_scratch_of_block(s, N);
    const size_t lanes = (size_t)N * (size_t)(s->H / s->G), d = (size_t)s->D;
    const size_t groups = (lanes + LANE - 1) / LANE;
    size_t bytes = BYTES + groups * (sizeof(lane_group) + LANE * d * 2) + 2 * KEYS * d * 2;
    bytes += KEYS * (LANE * (sizeof(float) + 2) + 2 * sizeof(float)) + LANE * d * sizeof(float);
    return bytes / sizeof(float);
}

SD_INLINE void attend(float *partial, const sd_attention_rows *r, int split,
                      const sd_attention_shape *s, float *scratch, bool int8) {
    const int lanes = r->N * (s->H / s->G), groups = (lanes + LANE - 1) / LANE;
    const size_t each = sd_attention_partial(s);
    const int begin = split * SD_KV_SPLIT, last = r->len[r->N - 1];
    const int end = last < begin + SD_KV_SPLIT ? last : begin + SD_KV_SPLIT;
    const int first = sd_attention_first(s->window, r->len[0]);
    work_space w = place_work(scratch, s->D, groups);
    configure();
    for (int i = 0; i < groups; i++) open_group(&w, i, r, s);
    for (int t0 = first > begin ? first / KEYS * KEYS : begin; t0 < end; t0 += KEYS) {
        const bool begins = t0 == begin;
        if (!look_at_block(&w, r, s, t0)) continue;
        const char *page = sd_attention_page(r, t0);
        open_block(&w, (const uint8_t *)page + r->k, (const uint8_t *)page + r->v, int8);
        if (int8)
            open_scales(&w, (const void *)(page + r->k_scale), (const void *)(page + r->v_scale));
        for (int i = 0; i < groups; i++) {
            lane_group *g = &w.group[i];
            const view v = look(g, t0, w.count, begins);
            if (v == SEES_NONE) continue;
            const bool whole = v == SEES_ALL;
            scores(&w, i);
            if (int8)
                softmax_block(&w, g, s->scale, begins, whole, true);
            else if (whole)
                softmax_block(&w, g, s->scale, begins, true, false);
            else
                softmax_block(&w, g, s->scale, begins, false, false);
            pv(&w);
            accumulate_v(partial + (size_t)i * LANE * each, each, &w, g);
        }
    }
    _tile_release();
    for (int i = 0; i < lanes; i++) {
        const lane_group *g = &w.group[i / LANE];
        partial[(size_t)i * each + s->D] = g->sum[i % LANE];
        partial[(size_t)i * each + s->D + 1] = g->top[i % LANE];
    }
}

static __attribute__((noinline)) void attend_int8(float *partial, const sd_attention_rows *r,
                                                  int split, const sd_attention_shape *s,
                                                  float *scratch) {
    attend(partial, r, split, s, scratch, true);
}
static __attribute__((noinline)) void attend_bf16(float *partial, const sd_attention_rows *r,
                                                  int split, const sd_attention_shape *s,
                                                  float *scratch) {
    attend(partial, r, split, s, scratch, false);
}

void sd_attention_amx(float *partial, const sd_attention_rows *r, int split,
                      const sd_attention_shape *s, float *scratch) {
    if (!on_unit(s))
        sd_attention_avx512(partial, r, split, s, scratch);
    else if (s->kv == SD_KV_BF16)
        attend_bf16(partial, r, split, s, scratch);
    else
        attend_int8(partial, r, split, s, scratch);
}
