#include "tests/cuda/device_emu.h"

#include "kernels/cuda/plugin/operations.h"
#include "tests/cuda/emu/host.h"
#include "tests/cuda/lt_emu.h"
#include "tests/cuda/nccl_emu.h"

#include <stdio.h>

enum { NO_DEVICE = 101 };
static int refuse;

static const char *error_text(int status) {
    return status >= SD_CUDA_COMM_ERROR   ? sd_cuda_comm_error_text(status)
           : status >= SD_CUDA_BLAS_ERROR ? sd_cuda_blas_error_text(status)
           : status == SD_CUDA_ENOMEM     ? "out of memory"
                                          : "an error of the emulator";
}
static int count(int *n) {
    *n = EMULATED_DEVICES;
    return 0;
}
static int choose(int device) {
    if (device < 0 || device >= EMULATED_DEVICES) return NO_DEVICE;
    emu::choose(device);
    return 0;
}
static int properties(sd_cuda_properties *out, int device) {
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "emulated device %d", device);
    out->major = 9, out->multiprocessors = 132;
    out->memory = size_t(1) << 36, out->left = out->memory - emu::device_bytes();
    return choose(device);
}

// ---- memory

static bool refused() {
    return refuse > 0 && --refuse == 0;
}
static int device_alloc(void **out, size_t bytes) {
    *out = nullptr;
    if (refused()) return SD_CUDA_ENOMEM;
    *out = emu::device_alloc(bytes);
    return 0;
}
static int device_free(void *p) {
    emu::device_free(p);
    return 0;
}
static int host_alloc(void **out, size_t bytes) {
    *out = nullptr;
    if (refused()) return SD_CUDA_ENOMEM;
    *out = emu::host_alloc(bytes);
    return 0;
}
static int host_free(void *p) {
    emu::host_free(p);
    return 0;
}

// Memory of malloc would make a copy wait on a device, or fail in a graph.
static void must_reach(const void *p, size_t bytes, const char *what) {
    const char *last = static_cast<const char *>(p) + (bytes ? bytes - 1 : 0);
    if (!(emu::is_device(p) && emu::is_device(last)) && !(emu::is_host(p) && emu::is_host(last)))
        emu::fail("%s is neither the device's memory nor of host_alloc", what);
}
static int copy(void *to, const void *from, size_t bytes, sd_cuda_stream *s) {
    must_reach(to, bytes, "what a copy writes");
    must_reach(from, bytes, "what a copy reads");
    emu::copy_async(to, from, bytes, s);
    return 0;
}

// ---- streams and events

static int stream_open(sd_cuda_stream **out) {
    *out = static_cast<sd_cuda_stream *>(emu::stream_open());
    return 0;
}
static int stream_close(sd_cuda_stream *s) {
    emu::stream_close(s);
    return 0;
}
static int stream_wait(sd_cuda_stream *s) {
    emu::stream_synchronise(s);
    return 0;
}
static int event_open(sd_cuda_event **out) {
    *out = static_cast<sd_cuda_event *>(emu::event_open());
    return 0;
}
static int event_close(sd_cuda_event *e) {
    emu::event_close(e);
    return 0;
}
static int event_record(sd_cuda_event *e, sd_cuda_stream *s) {
    emu::event_record(e, s);
    return 0;
}
static int event_wait(sd_cuda_event *e) {
    emu::event_synchronise(e);
    return 0;
}
static int stream_follow(sd_cuda_stream *s, sd_cuda_event *e) {
    emu::stream_wait(s, e);
    return 0;
}

// ---- graphs

static int graphs;
static int capture_begin(sd_cuda_stream *s) {
    emu::capture_begin(s);
    return 0;
}
static int capture_end(sd_cuda_graph **out, sd_cuda_stream *s) {
    *out = static_cast<sd_cuda_graph *>(emu::capture_end(s));
    graphs++;
    return 0;
}
static int graph_launch(sd_cuda_graph *g, sd_cuda_stream *s) {
    emu::graph_launch(g, s);
    return 0;
}
static int graph_close(sd_cuda_graph *g) {
    emu::graph_close(g);
    graphs--;
    return 0;
}

// ---- operations whose pointers stand in structs, where the emulator does not see them

static void must_be_device(const void *p, const char *what) {
    if (!emu::is_here(p)) emu::fail("%s does not point into the device's memory", what);
}
static int rope_store(const sd_cuda_rope *a, sd_cuda_stream *s) {
    const void *const all[] = {a->qkv, a->cos, a->sin, a->pos, a->table, a->kv.layer, a->q};
    for (const void *p : all) must_be_device(p, "a part of sd_cuda_rope");
    if (a->q_norm) must_be_device(a->q_norm, "a norm of queries");
    if (a->key_scale) must_be_device(a->key_scale, "scales of keys");
    if (a->k_norm) must_be_device(a->k_norm, "a norm of keys");
    return sd_cuda_rope_store(a, s);
}
static int attend(const sd_cuda_attention *a, sd_cuda_stream *s) {
    const void *const all[] = {a->y, a->q, a->pos, a->table, a->kv.layer, a->tile, a->partial};
    for (const void *p : all) must_be_device(p, "a part of sd_cuda_attention");
    return sd_cuda_attend(a, s);
}
static int matmul(float *y, int ldy, const sd_cuda_weight *w, const void *x, int N,
                  const float *bias, bool add, sd_cuda_real type, sd_cuda_stream *s) {
    must_be_device(y, "a product");
    must_be_device(x, "a product's input");
    must_be_device(w->data, "a weight");
    if (bias) must_be_device(bias, "a bias");
    return sd_cuda_matmul(y, ldy, w, x, N, bias, add, type, s);
}
static int embedding(float *x, const sd_cuda_weight *w, const int32_t *id, int N, float scale,
                     sd_cuda_stream *s) {
    must_be_device(x, "embeddings");
    must_be_device(id, "tokens");
    must_be_device(w->data, "the embedding");
    return sd_cuda_embedding(x, w, id, N, scale, s);
}

static void must_be_turn(const sd_cuda_turn *a) {
    const void *const all[] = {a->cos, a->sin, a->pos};
    for (const void *p : all) must_be_device(p, "a part of sd_cuda_turn");
    if (a->q_norm) must_be_device(a->q_norm, "a norm of queries");
    if (a->k_norm) must_be_device(a->k_norm, "a norm of keys");
}
static int turn_forward(void *out, const float *qkv, const sd_cuda_turn *a, sd_cuda_stream *s) {
    must_be_turn(a);
    return sd_cuda_turn_forward(out, qkv, a, s);
}
static int turn_backward(void *d, const float *dout, const float *qkv, const sd_cuda_turn *a,
                         sd_cuda_stream *s) {
    must_be_turn(a);
    return sd_cuda_turn_backward(d, dout, qkv, a, s);
}
static void must_be_flash(const sd_cuda_flash *a) {
    const void *const all[] = {a->tile, a->qkv, a->out, a->lse};
    for (const void *p : all) must_be_device(p, "a part of sd_cuda_flash");
}
static int flash_forward(const sd_cuda_flash *a, sd_cuda_stream *s) {
    must_be_flash(a);
    return sd_cuda_flash_forward(a, s);
}
static int flash_backward(float *dqkv, const float *dout, void *rounded, float *delta,
                          const sd_cuda_flash *a, sd_cuda_stream *s) {
    must_be_flash(a);
    return sd_cuda_flash_backward(dqkv, dout, rounded, delta, a, s);
}
static void must_be_head(const sd_cuda_head *a) {
    const void *const all[] = {a->h,      a->label, a->max,   a->sum,
                               a->target, a->loss,  a->total, a->partial};
    for (const void *p : all) must_be_device(p, "a part of sd_cuda_head");
    if (a->weight) must_be_device(a->weight, "weights of rows");
}
static int head_chunk(const sd_cuda_head *a, const void *W, int v0, int n_v, sd_cuda_stream *s) {
    must_be_head(a);
    must_be_device(W, "the head");
    return sd_cuda_head_chunk(a, W, v0, n_v, s);
}
static int head_loss(const sd_cuda_head *a, sd_cuda_stream *s) {
    must_be_head(a);
    return sd_cuda_head_loss(a, s);
}
static int head_gradient(float *dh, void *p, const sd_cuda_head *a, const void *W, int v0, int n_v,
                         sd_cuda_stream *s) {
    must_be_head(a);
    const void *const all[] = {dh, p, W};
    for (const void *x : all) must_be_device(x, "a part of the head's gradient");
    return sd_cuda_head_gradient(dh, p, a, W, v0, n_v, s);
}
static int dequantise(void *y, const sd_cuda_weight *w, int m0, int rows, sd_cuda_real type,
                      sd_cuda_stream *s) {
    must_be_device(w->data, "a weight");
    return sd_cuda_dequantise(y, w, m0, rows, type, s);
}

// ---- wide products

static bool no_blas;
static int blas_version(size_t *out) {
    *out = no_blas ? 0 : EMULATED_LT_VERSION;
    return no_blas ? SD_CUDA_ENOBLAS : 0;
}
static int blas_open(sd_cuda_blas **out, void *workspace, size_t bytes) {
    *out = nullptr;
    return no_blas ? SD_CUDA_ENOBLAS : sd_cuda_blas_open(out, emulated_lt(), workspace, bytes);
}

// ---- several devices

static bool no_nccl;
static int comm_find() {
    return no_nccl ? SD_CUDA_ENOCOMM : 0;
}
static int comm_open(sd_cuda_comm **out, int ranks, const int *device) {
    *out = nullptr;
    return no_nccl ? SD_CUDA_ENOCOMM : sd_cuda_comm_open(out, emulated_nccl(), ranks, device);
}

// ---- the table

static sd_cuda_device make_table() {
    sd_cuda_device d;
    memset(&d, 0, sizeof d);
    d.abi = SD_CUDA_ABI;
    snprintf(d.build, sizeof d.build, "%s", SD_CUDA_BUILD);
    d.error_text = error_text;
    d.count = count, d.properties = properties, d.choose = choose;
    d.alloc = device_alloc, d.free = device_free;
    d.host_alloc = host_alloc, d.host_free = host_free, d.copy = copy;
    d.stream_open = stream_open, d.stream_close = stream_close, d.stream_wait = stream_wait;
    d.event_open = event_open, d.event_close = event_close;
    d.event_record = event_record, d.event_wait = event_wait, d.stream_follow = stream_follow;
    d.capture_begin = capture_begin, d.capture_end = capture_end;
    d.graph_launch = graph_launch, d.graph_close = graph_close;
    sd_cuda_set_operations(&d);
    d.turn_forward = turn_forward, d.turn_backward = turn_backward;
    d.flash_forward = flash_forward, d.flash_backward = flash_backward;
    d.head_chunk = head_chunk, d.head_loss = head_loss, d.head_gradient = head_gradient;
    d.dequantise = dequantise, d.blas_version = blas_version, d.blas_open = blas_open;
    d.comm_find = comm_find, d.comm_open = comm_open;
    d.rope_store = rope_store, d.attend = attend, d.matmul = matmul, d.embedding = embedding;
    return d;
}

const sd_cuda_device *emulated_device() {
    static const sd_cuda_device table = make_table();
    return &table;
}
void emulated_without_blas(bool without) {
    no_blas = without;
}
void emulated_refuse(int n) {
    refuse = n;
}
void emulated_without_nccl(bool without) {
    no_nccl = without;
}
size_t emulated_device_bytes() {
    return emu::device_bytes();
}
size_t emulated_bytes() {
    return emu::device_bytes() + emu::host_bytes();
}
int emulated_graphs() {
    return graphs;
}
