// What the host asks of a device: one table of C functions. The plugin libspecdec_cuda.so has it over CUDA's runtime
// (kernels/cuda/plugin), tests have it over emulated threads and late queues (tests/cuda/device_emu.h). So the program
// links no CUDA, and what it queues is tested where no device is.
//
//     const sd_cuda_device *d; // sd_cuda_find
//     if (d->choose(0) || d->alloc(&x, bytes) || d->copy(x, host, bytes, stream)) ... d->error_text(status)
//
// Functions return 0 or CUDA's error number. A device is chosen for the calling thread; memory, streams and events
// belong to the one that was chosen when they were made. The operations of cuda.h queue their work on a stream, and so
// does copy: host memory that it reads or writes comes from host_alloc, and is left alone until the stream has been
// waited for.
//
// Program and plugin are of one build: `abi` says how this table is laid out, `build` is a hash of everything in
// kernels/cuda. Whoever opens a plugin compares both before it looks at anything else.
#pragma once

#include "kernels/cuda/blas/blas.h"
#include "kernels/cuda/comm/comm.h"
#include "kernels/cuda/train/train.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SD_CUDA_ABI = 3, SD_CUDA_BUILD_BYTES = 65 };
enum { SD_CUDA_ENOMEM = 2 }; // cudaErrorMemoryAllocation

// The build's hash, which the compiler is given as SD_CUDA_BUILD_ID where a file says it.
#define SD_CUDA_TEXT_OF(x) #x
#define SD_CUDA_TEXT(x) SD_CUDA_TEXT_OF(x)
#define SD_CUDA_BUILD SD_CUDA_TEXT(SD_CUDA_BUILD_ID)

typedef struct sd_cuda_event sd_cuda_event; // a cudaEvent_t
typedef struct sd_cuda_graph sd_cuda_graph; // a cudaGraphExec_t

typedef struct {
    char name[256];
    int major, minor; // compute capability
    int multiprocessors;
    size_t memory, left; // bytes; left: that nobody has now
} sd_cuda_properties;

typedef struct {
    uint32_t abi;                    // SD_CUDA_ABI: the first thing in every version of this table
    char build[SD_CUDA_BUILD_BYTES]; // 64 hex digits and a 0
    const char *(*error_text)(int status);

    // ---- devices

    int (*count)(int *n); // 0 where it fails
    int (*properties)(sd_cuda_properties *out, int device);
    int (*choose)(int device);

    // ---- memory

    int (*alloc)(void **out, size_t bytes); // aligned to 256; NULL where it fails
    int (*free)(void *p);                   // waits for the device; NULL is fine
    int (*host_alloc)(void **out, size_t bytes);
    int (*host_free)(void *p);
    /// Between memory of the device and of host_alloc, either way, or within the device.
    int (*copy)(void *to, const void *from, size_t bytes, sd_cuda_stream *s);

    // ---- streams and events

    int (*stream_open)(sd_cuda_stream **out);
    int (*stream_close)(sd_cuda_stream *s);
    int (*stream_wait)(sd_cuda_stream *s); // the host waits for all that is queued
    int (*event_open)(sd_cuda_event **out);
    int (*event_close)(sd_cuda_event *e);
    int (*event_record)(sd_cuda_event *e, sd_cuda_stream *s);
    int (*event_wait)(sd_cuda_event *e); // the host waits for its last record
    /// What is queued on s from now on comes behind e's last record, which may stand on any stream.
    int (*stream_follow)(sd_cuda_stream *s, sd_cuda_event *e);

    // ---- graphs: what a stream was given while it recorded, started as one. Pointers and sizes are those of then; what they
    // point to is read when it runs.

    int (*capture_begin)(sd_cuda_stream *s); // what is queued from now on is kept, and does not run
    int (*capture_end)(sd_cuda_graph **out, sd_cuda_stream *s); // in any case; NULL where it fails
    int (*graph_launch)(sd_cuda_graph *g, sd_cuda_stream *s);
    int (*graph_close)(sd_cuda_graph *g);

    // ---- operations, as cuda.h has them

    int (*rmsnorm)(void *y, const float *x, const float *w, int N, int C, float eps,
                   sd_cuda_real type, sd_cuda_stream *s);
    int (*rmsnorm_add)(float *x, const float *d, const float *w, int N, int C, float eps,
                       sd_cuda_stream *s);
    int (*glu)(void *y, const float *gate, const float *up, int N, int F, int ld, bool gelu,
               sd_cuda_real type, sd_cuda_stream *s);
    int (*rope_store)(const sd_cuda_rope *a, sd_cuda_stream *s);
    int (*matmul)(float *y, int ldy, const sd_cuda_weight *w, const void *x, int N,
                  const float *bias, bool add, sd_cuda_real type, sd_cuda_stream *s);
    int (*embedding)(float *x, const sd_cuda_weight *w, const int32_t *id, int N, float scale,
                     sd_cuda_stream *s);
    int (*lora_shrink)(float *u, int ldu, const sd_cuda_lora *adapters, const int32_t *which,
                       const void *x, int N, int K, int most_r, sd_cuda_real type,
                       sd_cuda_stream *s);
    int (*lora_expand)(float *y, int ldy, const sd_cuda_lora *adapters, const int32_t *which,
                       const float *u, int ldu, int N, int M, sd_cuda_stream *s);
    int (*attention_rows)(int H, int G);
    size_t (*attention_floats)(int N, int H, int D, int longest);
    int (*attend)(const sd_cuda_attention *a, sd_cuda_stream *s);
    int (*sample)(int32_t *token, const float *logits, const sd_cuda_pick *pick, int N, int V,
                  sd_cuda_stream *s);

    // ---- of training, as train/train.h has them

    int (*dequantise)(void *y, const sd_cuda_weight *w, int m0, int rows, sd_cuda_real type,
                      sd_cuda_stream *s);
    int (*round)(void *y, const float *x, size_t n, sd_cuda_stream *s);
    int (*bias)(float *y, int ldy, const float *b, int N, int M, sd_cuda_stream *s);
    int (*take_rows)(float *y, const float *x, const int32_t *row, int N, int C, sd_cuda_stream *s);
    int (*rmsnorm_backward)(void *dx, const float *dy, const float *x, const float *w, int N, int C,
                            float eps, bool add, sd_cuda_real type, sd_cuda_stream *s);
    int (*glu_backward)(void *dgu, void *y, const float *dy, const float *gu, int N, int F,
                        bool gelu, sd_cuda_real type, sd_cuda_stream *s);
    int (*turn_forward)(void *out, const float *qkv, const sd_cuda_turn *a, sd_cuda_stream *s);
    int (*turn_backward)(void *d, const float *dout, const float *qkv, const sd_cuda_turn *a,
                         sd_cuda_stream *s);
    int (*flash_tiles)(sd_cuda_flash_tile *tile, int begin, int len);
    int (*flash_forward)(const sd_cuda_flash *a, sd_cuda_stream *s);
    int (*flash_backward)(float *dqkv, const float *dout, void *rounded, float *delta,
                          const sd_cuda_flash *a, sd_cuda_stream *s);
    size_t (*head_floats)(int N, int n_v);
    int (*head_chunk)(const sd_cuda_head *a, const void *W, int v0, int n_v, sd_cuda_stream *s);
    int (*head_loss)(const sd_cuda_head *a, sd_cuda_stream *s);
    int (*head_gradient)(float *dh, void *p, const sd_cuda_head *a, const void *W, int v0, int n_v,
                         sd_cuda_stream *s);

    int (*gradient_add)(float *sum, const float *parts, size_t n, size_t stride, int count,
                        bool begins, sd_cuda_stream *s);
    size_t (*grad_partials)(size_t n);
    int (*grad_norm)(double *norm, double *factor, double *partial, const float *grad, size_t n,
                     double scale, double max_norm, sd_cuda_stream *s);
    int (*adamw)(float *theta, float *m, float *v, const float *grad, size_t n,
                 const double *factor, double lr, int64_t step, const sd_cuda_adamw_options *o,
                 sd_cuda_stream *s);

    // ---- wide products, as blas/blas.h has them

    int (*blas_version)(
        size_t *out); // of cuBLASLt, which this opens; SD_CUDA_ENOBLAS: it is not there
    int (*blas_open)(sd_cuda_blas **out, void *workspace, size_t bytes);
    void (*blas_close)(sd_cuda_blas *b);
    int (*blas_multiply)(sd_cuda_blas *b, const sd_cuda_product *p, sd_cuda_stream *s);

    // ---- several devices, as comm/comm.h has them

    int (*comm_find)(void); // opens NCCL; SD_CUDA_ENOCOMM: it is not there
    int (*comm_open)(sd_cuda_comm **out, int ranks, const int *device);
    void (*comm_close)(sd_cuda_comm *c);
    int (*comm_gather)(sd_cuda_comm *c, float *const *to, const float *const *from, size_t n,
                       sd_cuda_stream *const *stream);
} sd_cuda_device;

/// The plugin's one symbol; the table lives as long as the plugin.
#define SD_CUDA_PLUGIN_SYMBOL "sd_cuda_plugin"
typedef const sd_cuda_device *(*sd_cuda_plugin_fn)(void);

#ifdef __cplusplus
}
#endif
