// The one operation of a warp: every lane of a mask arrives with its operands, and the last one to come works
// for all of them. Shuffles, votes, ldmatrix and mma are uses of it.
//
// Only __syncwarp orders memory between lanes; the others do not, so that a kernel which relies on them
// for that is a race under ThreadSanitizer.
#include "internal.h"

namespace emu {

typedef void (*Work)(unsigned mask, void *const *operand);
struct Meeting {
    unsigned mask, arrived;
    Site site;
    Work work;
    void *operand[WARP];
};
static std::vector<Meeting> meetings[MAX_THREADS / WARP];
static char tokens[MAX_THREADS / WARP];

void warps_begin(unsigned threads) {
    for (unsigned w = 0; w < (threads + WARP - 1) / WARP; w++) meetings[w].clear();
}

static Meeting *meeting_of(unsigned warp, unsigned mask) {
    for (Meeting &m : meetings[warp])
        if (m.mask == mask) return &m;
    meetings[warp].push_back({});
    meetings[warp].back().mask = mask;
    return &meetings[warp].back();
}

static void meet(unsigned mask, void *operand, Work work, bool orders_memory, Site at) {
    Lane *me = self();
    const unsigned number = lane_number(me), warp = number / WARP, lane = number % WARP;
    if (!(mask >> lane & 1))
        fail("%s:%d: lane %u is not in its own mask %08x", at.file, at.line, lane, mask);
    Meeting *m = meeting_of(warp, mask);
    if (m->arrived &&
        (m->site.line != at.line || strcmp(m->site.file, at.file) != 0 || m->work != work))
        fail("diverged warp: lane %u came to %s:%d while others of mask %08x wait at %s:%d", lane,
             at.file, at.line, mask, m->site.file, m->site.line);
    m->site = at, m->work = work;
    m->operand[lane] = operand;
    m->arrived |= 1u << lane;
    if (orders_memory) release(&tokens[warp]);
    if (m->arrived != mask) {
        lane_wait(me, AT_WARP, at);
    } else {
        stats.collectives++;
        work(mask, m->operand);
        m->arrived = 0;
        for (unsigned l = 0; l < WARP; l++)
            if ((mask >> l & 1) && l != lane) lane_wake(lane_at(warp * WARP + l));
    }
    if (orders_memory) acquire(&tokens[warp]);
}

void sync_warp(unsigned mask, Site at) {
    meet(
        mask, nullptr, [](unsigned, void *const *) {}, true, at);
}

struct Shuffle {
    int kind, arg, size;
    const void *v;
    void *result;
};
static void do_shuffle(unsigned mask, void *const *operand) {
    for (int l = 0; l < WARP; l++) {
        if (!(mask >> l & 1)) continue;
        auto *s = static_cast<Shuffle *>(operand[l]);
        int from = s->kind == SHFL_XOR    ? l ^ s->arg
                   : s->kind == SHFL_DOWN ? l + s->arg
                   : s->kind == SHFL_UP   ? l - s->arg
                                          : s->arg % WARP;
        if (from < 0 || from >= WARP) from = l; // beyond the warp a lane reads itself
        if (!(mask >> from & 1))
            fail("a shuffle reads lane %d, which is not in mask %08x", from, mask);
        copy_registers(s->result, static_cast<Shuffle *>(operand[from])->v, size_t(s->size));
    }
}
void shuffle(int kind, unsigned mask, const void *v, void *result, int size, int arg, Site at) {
    Shuffle s = {kind, arg, size, v, result};
    meet(mask, &s, do_shuffle, false, at);
}

struct Vote {
    bool yes;
    unsigned result;
};
unsigned ballot(unsigned mask, int predicate, Site at) {
    Vote v = {predicate != 0, 0};
    meet(
        mask, &v,
        [](unsigned voters, void *const *operand) {
            unsigned bits = 0;
            for (unsigned l = 0; l < WARP; l++)
                if ((voters >> l & 1) && static_cast<Vote *>(operand[l])->yes) bits |= 1u << l;
            for (unsigned l = 0; l < WARP; l++)
                if (voters >> l & 1) static_cast<Vote *>(operand[l])->result = bits;
        },
        false, at);
    return v.result;
}

// ---- fragments, by "Matrix Fragments for mma.m16n8k16" of the PTX ISA. With g = lane / 4 and t = lane % 4:
//
//     A 16 x 16, four registers of two values   row g + 8 * (r % 2), columns 2 t, 2 t + 1 (+ 8 where r > 1)
//     B 16 x 8, two registers of two values     rows 2 t, 2 t + 1 (+ 8 * r), column g
//     C 16 x 8, four floats                     row g + 8 * (i / 2), column 2 t + i % 2

struct Mma {
    float *d;
    const uint32_t *a, *b;
};
static float low(uint32_t r) {
    uint32_t u = r << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static float high(uint32_t r) {
    uint32_t u = r & 0xffff0000u;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static void do_mma(unsigned, void *const *operand) {
    float A[16][16], B[16][8];
    for (int l = 0; l < WARP; l++) {
        auto *m = static_cast<Mma *>(operand[l]);
        const int g = l / 4, t = l % 4;
        for (int r = 0; r < 4; r++) {
            const int row = g + 8 * (r % 2), col = 2 * t + 8 * (r / 2);
            A[row][col] = low(m->a[r]), A[row][col + 1] = high(m->a[r]);
        }
        for (int r = 0; r < 2; r++)
            B[2 * t + 8 * r][g] = low(m->b[r]), B[2 * t + 8 * r + 1][g] = high(m->b[r]);
    }
    float C[16][8];
    for (int row = 0; row < 16; row++) {
        float sum[8] = {0};
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < 8; c++) sum[c] += A[row][k] * B[k][c];
        for (int c = 0; c < 8; c++) C[row][c] = sum[c];
    }
    for (int l = 0; l < WARP; l++) {
        auto *m = static_cast<Mma *>(operand[l]);
        for (int i = 0; i < 4; i++) m->d[i] += C[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2];
    }
}
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site at) {
    need_written(d, sizeof d), need_written(a, sizeof a), need_written(b, sizeof b);
    Mma m = {d, a, b};
    meet(0xffffffffu, &m, do_mma, false, at);
}

struct LoadMatrix {
    uint32_t *r;
    const uint16_t *row;
    bool transposed;
};
static void do_ldmatrix(unsigned, void *const *operand) {
    for (int l = 0; l < WARP; l++) {
        auto *to = static_cast<LoadMatrix *>(operand[l]);
        for (int m = 0; m < 4; m++) { // lanes 8 m .. 8 m + 7 name the rows of matrix m
            auto at = [&](int row, int col) {
                return uint32_t(static_cast<LoadMatrix *>(operand[8 * m + row])->row[col]);
            };
            const int i = l / 4, j = 2 * (l % 4);
            to->r[m] =
                to->transposed ? at(j, i) | at(j + 1, i) << 16 : at(i, j) | at(i, j + 1) << 16;
        }
    }
}
void ldmatrix_x4(uint32_t (&r)[4], const void *row, bool transposed, Site at) {
    if (reinterpret_cast<uintptr_t>(row) % 16)
        fail("%s:%d: ldmatrix: a row's address is not a multiple of 16", at.file, at.line);
    uint16_t mine[8]; // read by the lane that names it, so that a sanitizer sees who reads
    announce_read(row, 16);
    need_written(row, 16);
    announce_written(r, sizeof r);
    copy_registers(mine, row, 16);
    LoadMatrix m = {r, mine, transposed};
    meet(0xffffffffu, &m, do_ldmatrix, false, at);
}

} // namespace emu
