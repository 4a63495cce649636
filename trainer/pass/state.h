// What the parts of the training pass share (private to trainer/pass).
//
// A stack's weights (trainer/pass/layout.h) are dequantised into one of two buffers while the stack
// before it is computed from the other, once per micro-batch and direction, for all tokens.
#pragma once

#include "kernels/train/ops.h"
#include "trainer/pass/batch.h"
#include "trainer/pass/pass.h"

enum {
    SD_TRAIN_TILE = SD_GEMM_TILE_ROWS
}; // tokens of a tile at most: worker scratch is sized by it

#define sd_train_acts SD_REAL(sd_train_acts)
#define sd_train_worker SD_REAL(sd_train_worker)
#define sd_train_memory SD_REAL(sd_train_memory)
#define sd_train_carve SD_REAL(sd_train_carve)
#define sd_train_stack SD_REAL(sd_train_stack)
#define sd_train_run SD_REAL(sd_train_run)
#define sd_train_work SD_REAL(sd_train_work)
#define sd_train_need SD_REAL(sd_train_need)
#define sd_train_forward SD_REAL(sd_train_forward)
#define sd_train_recompute SD_REAL(sd_train_recompute)
#define sd_train_backward SD_REAL(sd_train_backward)
#define sd_train_loss_head SD_REAL(sd_train_loss_head)
#define sd_train_tile_rows SD_REAL(sd_train_tile_rows)
#define sd_train_dequantise SD_REAL(sd_train_dequantise)
#define sd_train_pack SD_REAL(sd_train_pack)

/// A layer's activations that its backward pass reads. Under recompute some of it is scratch shared
/// by the layers.
typedef struct {
    real *x;             // [N, C]          the block's input
    real *rstd1, *rstd2; // [N]
    real *raw;           // [N, (H+G)*D]    q, k before QK-norm; NULL without it
    real *rstd_qk;       // [N, H+G]
    real *qkv;           // [N, (H+2G)*D]   rotated
    real *att;           // [N, H*D]
    real *lse;           // [N, H]
    real *x2;            // [N, C]          after attention
    real *o, *down; // [N, C]          what attention and the feed-forward add, before their norm;
                    //                 NULL where it is added as it is
    real *rstd_o, *rstd_down; // [N]
    real *gu;                 // [N, 2F]
    real *u[SD_STACKS];       // [N, R of the stack]
} sd_train_acts;

typedef struct {
    float *rows;        // [SD_GEMM_PACK_ROWS, widest] dequantised, on their way into panels
    void *gemm_scratch; // SD_GEMM_SCRATCH bytes
    real *attention;    // sd_causal_scratch
    real *logits;       // [SD_TRAIN_TILE, head chunk]
    real *dn;           // [SD_TRAIN_TILE, C]
} sd_train_worker;

/// Everything a pass owns, carved from one allocation. With base NULL only the sizes are counted:
/// the plan and the run cannot disagree.
typedef struct {
    sd_train_acts *acts; // [L + 1]; the last holds only x: the final hidden state
    sd_train_worker *worker;
    sd_train_rows rows;
    real *cosine, *sine; // [ropes, max_tokens, rope_dim/2]
    void *W[2]; // a stack's weights: q k v and gate up in the first, o and down in the second
    void *head_W[2][2]; // [head_chunk, C] packed both ways; double: rows in the first
    real *n;            // [N, C]   the normalised input of a stack
    real *dx;           // [N, C]   gradient of the residual stream
    real *wide;         // [N, max(2F, (H+2G)*D)]  d(gate, up) or d(q, k, v)
    real *mid;          // [N, max(F, H*D)]        the activation, its gradient, d(att)
    real *du;           // [N, largest R]
    real *
        dy; // [N, C]   gradient of what a half of the block adds, before its norm; NULL without such
    real *h, *dh, *acc;         // [N, C]   supervised rows of the head
    real *rstd_h;               // [N]
    double *max, *sum, *target; // [N]
    int head_chunk;             // classes of a chunk
    // bytes by part
    size_t bytes, kept, scratch, weights, head, workers, other;
} sd_train_memory;

typedef struct {
    int layer, stack; // layer -1: nothing
    bool back;        // packed for the backward pass
} sd_stack_id;

struct sd_train {
    sd_model *m;
    sd_lora_layout lay;
    sd_pool *pool;
    sd_train_options o;
    const sd_gemm_packed *gemm;
    sd_recompute recompute;
    int lowest; // the lowest adapted layer
    sd_causal causal;
    sd_train_memory mem;
    void *block;         // what mem points into
    sd_stack_id in_W[2]; // what the two weight buffers hold
    // of the current call
    const real *theta;
    real *grad;          // NULL: loss only
    const float *weight; // [segments]; NULL: 1
    double *logp;        // [segments]; NULL: not wanted
};

// ---- memory_real.c

/// Assigns every pointer of `mem` from base (NULL: counts only).
void sd_train_carve(sd_train_memory *mem, char *base, const sd_model *model,
                    const sd_lora_layout *lay, const sd_gemm_packed *gemm, int max_tokens,
                    sd_recompute recompute, int lowest, int threads);

// ---- stack_real.c

/// The stack's maps with the current theta; W is its buffer, as packed for whichever pass runs.
sd_linear_stack sd_train_stack(const sd_train *t, int layer, int stack, int worker);

/// One parallel region: tiles of tokens, then other tasks, then the rows of `next` into its weight
/// buffer, all independent of each other.
typedef struct {
    sd_train *t;
    int layer;
    void (*tile)(sd_train *t, int layer, int n0, int n1, int worker); // NULL: none
    int n_extra;
    void (*extra)(sd_train *t, int layer, int i, int worker);
    sd_stack_id next;
    int tiles, tile_rows; // filled by sd_train_run
} sd_train_work;
void sd_train_run(sd_train_work *w);
/// Dequantises the stack now unless it is in its buffer.
void sd_train_need(sd_train *t, sd_stack_id id);
/// Rows of a tile for N tokens: depends on N and the kernel.
int sd_train_tile_rows(const sd_train *t, int N);
/// Row m of w into y [cols]; room: cols floats.
void sd_train_dequantise(real *y, const sd_weight *w, int m, float *room);
/// Rows [m0, m0 + count) of a matrix [M, K], which stand in the worker's rows, into its packed
/// forms (NULL: not that one). The double build copies them as rows into `forward`.
void sd_train_pack(const sd_train *t, int worker, void *forward, void *backward, int m0, int count,
                   int M, int K);

// ---- block_real.c

void sd_train_forward(sd_train *t, int layer);   // acts[layer].x -> acts[layer+1].x
void sd_train_recompute(sd_train *t, int layer); // what recompute dropped
void sd_train_backward(sd_train *t, int layer);

// ---- loss_head_real.c

/// Loss of the supervised rows from acts[L].x; with t->grad also t->mem.dx.
double sd_train_loss_head(sd_train *t);
