// State and functions that the parts of the CUDA training pass share: memory.c and plan.c (what it takes), open.c, pass.c (a micro-batch), stack.c (products),
// block_forward.c, block_backward.c, loss_head.c, parameters.c (AdamW's step), learner.c (what the loop sees of all this), ranks.c (several devices).
//
// A micro-batch is queued on one stream and its arrays are sent on another, so that those of the next are there when it ends: there are two sets of
// them, of the host and of the device. The host waits for a micro-batch when it needs its set again, and for all at the end of a step. T is what
// enters products: bf16, or fp32 under compute_dtype fp32.
#pragma once

#include "model/cuda/weights.h"
#include "trainer/pass/batch.h"
#include "trainer/pass/cuda/pass.h"

/// A layer's activations that its backward pass reads. Under recompute some of it is scratch that layers share.
typedef struct {
    float *x;   // [N, C]  the block's input
    float *raw; // [N, (H+2G)D]  q, k, v before QK-norm; the shared scratch without it
    void *qkv;  // [N, (H+2G)D] T  rotated
    void *att;  // [N, H D] T
    float *lse; // [N, H]
    float *x2;  // [N, C]  after attention
    float *o,
        *down; // [N, C]  what attention and the feed-forward add, before their norm; NULL where it is added as it is
    float *gu; // [N, 2F]
    void *u[SD_STACKS]; // [N, R of the stack] T
} sd_cuda_acts;

typedef struct {
    int32_t *token, *pos, *row, *label; // [N] as in sd_train_rows
    int32_t *place;                     // [N] the supervised row of a token; -1: none
    float *weight;                      // [N] of supervised rows
    sd_cuda_flash_tile *tile;           // [N]
} sd_cuda_batch;

/// All memory beside the weights, carved from one piece of the device's and one of the host's. With both bases NULL it is only counted: the plan and
/// the run cannot disagree.
typedef struct {
    sd_cuda_acts *
        acts; // [L + 1] the caller's; the last has only x: the final hidden state. NULL: counted alone
    // ---- parameters
    float *theta, *m, *v;   // [n_params]
    float *grad, *grad_sum; // [n_params] of a micro-batch; of a step
    void *factors;          // [n_params] theta as T
    double *norm;           // [2] of the step's gradient; what AdamW multiplies it by
    double *norm_partial;   // grad_partials
    float *gathered; // [ranks, bucket] a piece of all devices' gradients; NULL: there is one device
    size_t bucket;
    // ---- a block's
    void *W;       // [out, in of the largest stack] T
    void *n;       // [N, C] T  the normalised input of a stack
    void *dy;      // [N, C] T  the gradient of what a half of the block adds
    float *wide;   // [N, (H+2G)D]  q, k, v on their way, and their gradient
    void *dwide;   // [N, max(2F, (H+2G)D)] T  d(gate, up) or d(q, k, v)
    void *act;     // [N, F] T
    float *mid;    // [N, max(F, H D, C)]  the gradient of a stack's input
    void *rounded; // [N, H D] T  of attention's backward pass
    float *delta;  // [N, H]
    void *du;      // [N, largest R] T
    float *dx;     // [N, C]  the gradient of the residual stream
    // ---- the head's, of supervised rows
    float *rows_x, *rows_d, *dh;      // [N, C]
    void *h;                          // [N, C] T
    void *head_W;                     // [head_chunk, C] T
    void *slopes;                     // [N, head_chunk] T
    float *max, *sum, *target, *loss; // [N]
    double *total;                    // [1]
    float *partial;                   // head_floats
    int head_chunk;                   // classes of a chunk
    float *cosine, *sine;             // [ropes, max_tokens, rope_dim/2]
    void *workspace;                  // SD_CUDA_BLAS_WORKSPACE
    // ---- a micro-batch's arrays, of the host and as they are on the device: this one's, and the one's before or behind it
    sd_cuda_batch here[2], there[2];
    char *batch_here[2], *batch_there[2]; // all of them, in one copy of batch_bytes
    size_t batch_bytes;
    // ---- what comes back, of the host
    double *total_here; // [2]
    double *norm_here;  // [1]
    float *loss_here;   // [N]
    float *staging;     // [n_staging] parameters on their way, either way
    size_t n_staging;
    // ---- bytes by part
    size_t device_bytes, host_bytes;
    size_t parameters, kept, scratch, weights, head, tables;
} sd_cuda_train_memory;

/// A micro-batch under way, with one of the two sets of arrays.
typedef struct {
    sd_cuda_event *sent, *done; // its arrays are on the device; its loss is in total_here
    bool flying;                // the host has not waited for it
    size_t number;              // of the losses it belongs to
} sd_cuda_flight;

/// Losses of micro-batches by their numbers, which is the order in which they are added.
typedef struct {
    double *of;
    size_t n, cap;
} sd_cuda_losses;

typedef struct sd_cuda_train sd_cuda_train;
struct sd_cuda_train {
    sd_model *m;
    sd_lora_layout lay;
    sd_train_options o;
    int device;
    sd_cuda_real type;
    sd_recompute recompute;
    int lowest; // the lowest adapted layer
    const sd_cuda_device *dev;
    sd_cuda_stream *stream, *copies; // of work; of arrays on their way there
    // Where there are other devices, else NULL: the stream on which gradients meet; when a micro-batch's is there, and when it has been added.
    sd_cuda_stream *meeting;
    sd_cuda_event *there, *added;
    sd_cuda_blas *blas;
    sd_cuda_weights weights;
    sd_cuda_owned owned; // the two pieces that mem points into
    sd_cuda_train_memory mem;
    sd_train_rows rows; // its arrays are mem.here's, but for the segments
    sd_cuda_flight flight[2];
    // ---- of the current micro-batch
    int at;              // its flight, and its set of arrays
    int tiles;           // of attention
    bool backward;       // gradients are wanted
    const float *weight; // [segments]; NULL: 1
    double *logp;        // [segments]; NULL: not wanted
};

/// In a function with `sd_status st`, `err`, `t` and a label `out`.
#define CUDA_TRY(call, doing) SD_CUDA_TRY(t->dev, (call), (doing))

// ---- open.c

/// One of so many devices. Takes all its memory here, and reads the model's weights. Holds a reference to m and copies lay; pool (NULL: one thread)
/// packs. o: nothing of it says auto.
sd_status sd_cuda_train_open(sd_cuda_train **out, sd_model *m, const sd_lora_layout *lay,
                             sd_pool *pool, const sd_train_options *o, int device, int ranks,
                             sd_error *err);
void sd_cuda_train_close(sd_cuda_train *t); // NULL is fine

// ---- pass.c

/// Queues a micro-batch, with gradients that replace those in mem.grad where `backward`; *queued false: nothing of it is supervised. sum: its counts
/// are added. Its loss goes to losses->of[losses->n++] when it is collected.
sd_status sd_cuda_train_run(sd_cuda_train *t, const sd_train_batch *b, bool backward, bool *queued,
                            sd_train_sum *sum, sd_cuda_losses *losses, sd_error *err);
/// Waits for the micro-batch of flight i, if there is one, and writes its loss.
sd_status sd_cuda_train_collect(sd_cuda_train *t, int i, sd_cuda_losses *losses, sd_error *err);

// ---- parameters.c

/// The device's parameters <- these, and its state where m and v are not NULL. Waits.
sd_status sd_cuda_train_load(sd_cuda_train *t, const float *theta, const float *m, const float *v,
                             sd_error *err);
/// to [n_params] <- from, one of the device's arrays, behind all that is queued. Waits.
sd_status sd_cuda_train_read(sd_cuda_train *t, float *to, const float *from, sd_error *err);
/// Queues the norm of scale * mem.grad_sum, and what AdamW multiplies it by. With `wanted` it waits: *wanted <- the norm.
sd_status sd_cuda_train_norm(sd_cuda_train *t, double *wanted, double scale, double max_norm,
                             sd_error *err);
/// Queues AdamW's step over mem.grad_sum.
sd_status sd_cuda_train_update(sd_cuda_train *t, const sd_learner_update *u, sd_error *err);

// ---- ranks.c

/// The devices that learn together, each with all parameters: rank r has the micro-batches r, r + n, r + 2 n, ... of a step.
typedef struct {
    int n;
    sd_cuda_train *rank[SD_CUDA_MOST_RANKS];
    sd_cuda_comm *comm; // NULL: there is one
} sd_cuda_ranks;
sd_status sd_cuda_ranks_open(sd_cuda_ranks *out, sd_model *m, const sd_lora_layout *lay,
                             sd_pool *pool, const sd_train_options *o, int device, int n,
                             sd_error *err);
void sd_cuda_ranks_close(sd_cuda_ranks *l); // harmless on a zeroed one
/// Queues grad_sum += the gradients of the first `micro_batches` ranks, in their order, on all of them.
sd_status sd_cuda_ranks_add(const sd_cuda_ranks *l, int micro_batches, bool begins, sd_error *err);
/// What is queued on each from now on comes behind what was added.
sd_status sd_cuda_ranks_settle(const sd_cuda_ranks *l, sd_error *err);

// ---- memory.c

/// Assigns every pointer of `mem` from the two bases (NULL: counts only). acts: the caller's [L + 1], or NULL with them.
void sd_cuda_train_carve(sd_cuda_train_memory *mem, sd_cuda_acts *acts, char *device, char *host,
                         const sd_model *m, const sd_lora_layout *lay, const sd_cuda_device *dev,
                         sd_cuda_real type, int max_tokens, sd_recompute recompute, int ranks);

// ---- stack.c

/// The linear maps of a layer that read one input, one below the other: their shapes and their factors' places.
typedef struct {
    int layer, stack, in, out, R;
    size_t a; // offset in theta of the stacked A [R, in]
    int n_parts;
    struct {
        int row, rows; // its outputs inside the stack
        int r, u;      // rank (0: not adapted), first column inside u [N, R]
        float s;
        size_t b; // offset in theta of B [rows, r]
    } part[3];
} sd_cuda_stack;
sd_cuda_stack sd_cuda_stack_of(const sd_cuda_train *t, int layer, int stack);
/// y [N, out] fp32 <- (add: +=) x [N, in] W^T + s u B^T; u [N, R] <- x A^T.
sd_status sd_cuda_stack_forward(sd_cuda_train *t, const sd_cuda_stack *l, float *y, void *u,
                                const void *x, bool add, sd_error *err);
/// mem.du [N, R] <- s dy B; dy [N, out] T.
sd_status sd_cuda_stack_down(sd_cuda_train *t, const sd_cuda_stack *l, const void *dy,
                             sd_error *err);
/// dx [N, in] fp32 <- dy W + du A.
sd_status sd_cuda_stack_backward(sd_cuda_train *t, const sd_cuda_stack *l, float *dx,
                                 const void *dy, sd_error *err);
/// The stack's dA and dB into mem.grad; x [N, in], u [N, R] T.
sd_status sd_cuda_stack_grads(sd_cuda_train *t, const sd_cuda_stack *l, const void *dy,
                              const void *x, const void *u, sd_error *err);

// ---- block_forward.c, block_backward.c

sd_status sd_cuda_block_forward(sd_cuda_train *t, int layer,
                                sd_error *err); // acts[layer].x -> [layer + 1].x
sd_status sd_cuda_block_recompute(sd_cuda_train *t, int layer,
                                  sd_error *err); // what recompute dropped
sd_status sd_cuda_block_backward(sd_cuda_train *t, int layer, sd_error *err);
/// y [N, C] T <- norm(x) w.
sd_status sd_cuda_block_norm(sd_cuda_train *t, void *y, const float *x, const float *w,
                             sd_error *err);
/// mem.act [N, F] T <- act(gate) up.
sd_status sd_cuda_block_gate(sd_cuda_train *t, const float *gu, sd_error *err);
sd_cuda_turn sd_cuda_block_turn(const sd_cuda_train *t, int layer);
sd_cuda_flash sd_cuda_block_attention(const sd_cuda_train *t, int layer);

// ---- loss_head.c

/// Queues the loss of the supervised rows from acts[L].x; with t->backward also mem.dx.
sd_status sd_cuda_train_head(sd_cuda_train *t, sd_error *err);
