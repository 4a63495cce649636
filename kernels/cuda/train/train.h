// The CUDA kernels of training: their launchers, which know no model. What they compute is defined by kernels/train/ops.h and
// trainer/optim/adamw.h; conventions are those of kernels/cuda/cuda.h.
//
// What enters a matrix product (activations forward, their gradients backward) is bf16 or fp32 (sd_cuda_real: "T" below); what a product gives,
// the residual stream and its gradient are fp32. Frozen weights have no gradient. Every sum has one order, which depends neither on the grid
// nor on what else is in the batch: two runs give the same bits, and so does a segment in other company.
#pragma once

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- rows (rows_train.cu)

/// y [n] bf16 <- x fp32, to the nearest.
int sd_cuda_round(void *y, const float *x, size_t n, sd_cuda_stream *s);
/// y [N, ldy], its first M of a row, += b [M].
int sd_cuda_bias(float *y, int ldy, const float *b, int N, int M, sd_cuda_stream *s);
/// y [N, C] <- rows row[n] of x; zeros where row[n] is below 0.
int sd_cuda_take_rows(float *y, const float *x, const int32_t *row, int N, int C,
                      sd_cuda_stream *s);

// ---- rows (rows_backward.cu). The norm's factor is computed again from x: the bits of the forward pass, nothing kept.

/// dx [N, C] <- the gradient through y = norm(x) w, += where add. dy, x [N, C] fp32; w [C]. dx: fp32 where it adds (the residual stream's), else of
/// `type` (where a norm stands behind a product). dx may be neither dy nor x.
int sd_cuda_rmsnorm_backward(void *dx, const float *dy, const float *x, const float *w, int N,
                             int C, float eps, bool add, sd_cuda_real type, sd_cuda_stream *s);
/// dgu [N, 2F] of `type` <- the gradient of gate and up, y [N, F] of `type` <- act(gate) * up again (its adapter's gradient needs it).
/// dy [N, F], gu [N, 2F] fp32: gate, then up, in each row.
int sd_cuda_glu_backward(void *dgu, void *y, const float *dy, const float *gu, int N, int F,
                         bool gelu, sd_cuda_real type, sd_cuda_stream *s);

// ---- rotary embedding with QK-norm, rows of [q of H heads, k of G, v of G], D each (rope_train.cu)

typedef struct {
    int N, H, G, D;
    const float *q_norm, *k_norm; // [D]; NULL: none
    float eps;
    const float *cos, *sin; // [positions, rot / 2], as in sd_cuda_rope
    int rot;
    bool interleaved;
    const int32_t *pos; // [N]
    sd_cuda_real type;
} sd_cuda_turn;
/// out [N, (H + 2G) D] of `type` <- qkv fp32: q and k normed and turned, v as it is.
int sd_cuda_turn_forward(void *out, const float *qkv, const sd_cuda_turn *a, sd_cuda_stream *s);
/// d [N, (H + 2G) D] of `type` <- the gradient of qkv, from dout fp32, that of sd_cuda_turn_forward's result. qkv: read under a norm only.
int sd_cuda_turn_backward(void *d, const float *dout, const float *qkv, const sd_cuda_turn *a,
                          sd_cuda_stream *s);

// ---- causal attention over packed segments (flash_forward.cu, flash_backward.cu, flash_backward_keys.cu)

enum { SD_CUDA_FLASH_ROWS = 64 };
/// Up to SD_CUDA_FLASH_ROWS rows [first, first + rows) of the segment [begin, end).
typedef struct {
    int32_t first, rows, begin, end;
} sd_cuda_flash_tile;
/// Writes the tiles of a segment of `len` rows; returns how many there are: len / SD_CUDA_FLASH_ROWS, rounded up.
int sd_cuda_flash_tiles(sd_cuda_flash_tile *tile, int begin, int len);

typedef struct {
    int N, H, G, D;                 // H a multiple of G; D a multiple of 8, at most SD_CUDA_MOST_D
    float scale;                    // of the scores
    int window;                     // rows that a row sees, its own included; 0: all before it
    const sd_cuda_flash_tile *tile; // [tiles] in device memory, each row in one of them
    int tiles;
    const void *qkv; // [N, (H + 2G) D] of `type`
    void *out;       // [N, H D] of `type`
    float *lse;      // [N, H]: log of the row's sum of exp
    sd_cuda_real type;
} sd_cuda_flash;
/// out <- softmax(scale q k) v over the rows of its segment that each row sees; lse.
int sd_cuda_flash_forward(const sd_cuda_flash *a, sd_cuda_stream *s);
/// dqkv [N, (H + 2G) D] fp32 <- the gradient of q, k and v. dout [N, H D] fp32. Scratch: rounded [N, H D] of `type`, delta [N, H]. Reads
/// qkv, out and lse.
int sd_cuda_flash_backward(float *dqkv, const float *dout, void *rounded, float *delta,
                           const sd_cuda_flash *a, sd_cuda_stream *s);

// ---- loss head: softmax cross-entropy over V classes, of which the weights come in chunks (loss_head.cu)
//
//     for each chunk: sd_cuda_head_chunk(&h, W, v0, n_v, s);        // statistics of the logits, which are never written
//     sd_cuda_head_loss(&h, s);
//     for each chunk: sd_cuda_head_gradient(dh, p, &h, W, v0, n_v, s);

enum { SD_CUDA_HEAD_SPLIT = 1024 }; // classes of a block's share
typedef struct {
    int N, C, V;          // C a multiple of 8
    const void *h;        // [N, C] of `type`
    const int32_t *label; // [N] in [0, V)
    const float *weight;  // [N] multiplies the row's gradient; NULL: 1
    float *max, *sum;     // [N] of exp(l - max), running
    float *target;        // [N] the label's logit
    float *loss;          // [N] max + log(sum) - target
    double *total;        // [1] the losses' sum
    float *partial;       // sd_cuda_head_floats(N, most classes of a chunk) scratch
    sd_cuda_real type;
} sd_cuda_head;
size_t sd_cuda_head_floats(int N, int n_v);
/// Classes [v0, v0 + n_v): W [n_v, C] of `type`. Chunks come in ascending order, v0 a multiple of SD_CUDA_HEAD_SPLIT; the one at 0 begins
/// anew.
int sd_cuda_head_chunk(const sd_cuda_head *a, const void *W, int v0, int n_v, sd_cuda_stream *s);
int sd_cuda_head_loss(const sd_cuda_head *a, sd_cuda_stream *s);
/// dh [N, C] fp32 += weight (softmax - onehot) W of these classes; the chunk at 0 begins anew. p: [N, n_v rounded up to 8] of `type`, scratch.
int sd_cuda_head_gradient(float *dh, void *p, const sd_cuda_head *a, const void *W, int v0, int n_v,
                          sd_cuda_stream *s);

// ---- the gradient and AdamW (adamw.cu)

/// sum [n] <- sum + parts, in ascending order, one after the other: `count` of them, part i at parts + i * stride. begins: sum was 0.
int sd_cuda_gradient_add(float *sum, const float *parts, size_t n, size_t stride, int count,
                         bool begins, sd_cuda_stream *s);

/// norm [1] <- the L2 norm of grad [n] times scale, and factor [1] <- scale * min(1, max_norm / (norm + 1e-6)), or scale where max_norm is 0: in
/// device memory. partial: sd_cuda_grad_partials(n) doubles of scratch.
int sd_cuda_grad_norm(double *norm, double *factor, double *partial, const float *grad, size_t n,
                      double scale, double max_norm, sd_cuda_stream *s);
size_t sd_cuda_grad_partials(size_t n);

typedef struct {
    double beta1, beta2, epsilon, weight_decay;
} sd_cuda_adamw_options;
/// One step of trainer/optim/adamw.h on theta, m, v [n] with g = factor[0] * grad: the same bits as there for the same factor.
int sd_cuda_adamw(float *theta, float *m, float *v, const float *grad, size_t n,
                  const double *factor, double lr, int64_t step, const sd_cuda_adamw_options *o,
                  sd_cuda_stream *s);

#ifdef __cplusplus
}
#endif
