// The plugin's table: CUDA's runtime, which is linked into the plugin, and the launchers. Its numbers are the
// runtime's own.
#include "kernels/cuda/plugin/blas.h"
#include "kernels/cuda/plugin/comm.h"
#include "kernels/cuda/plugin/operations.h"

#include <cuda_runtime.h>
#include <stdio.h>
#include <string.h>

static const char *error_text(int status) {
    return status >= SD_CUDA_COMM_ERROR   ? sd_cuda_comm_error_text(status)
           : status >= SD_CUDA_BLAS_ERROR ? sd_cuda_blas_error_text(status)
                                          : cudaGetErrorString((cudaError_t)status);
}

// A failure is its caller's alone: left in the runtime, the next launch would report it as its own.
static int taken(cudaError_t status) {
    if (status) (void)cudaGetLastError();
    return status;
}

// ---- devices

static int count(int *n) {
    *n = 0; // the call leaves it unwritten where it fails
    const int status = taken(cudaGetDeviceCount(n));
    if (status) *n = 0;
    return status;
}
static int choose(int device) {
    return taken(cudaSetDevice(device));
}
static int properties(sd_cuda_properties *out, int device) {
    cudaDeviceProp p;
    size_t left = 0, total = 0;
    memset(out, 0, sizeof *out);
    int status = taken(cudaGetDeviceProperties(&p, device));
    if (status) return status;
    snprintf(out->name, sizeof out->name, "%s", p.name);
    out->major = p.major, out->minor = p.minor, out->multiprocessors = p.multiProcessorCount;
    status = choose(device);
    if (!status) status = taken(cudaMemGetInfo(&left, &total));
    out->memory = total, out->left = left;
    return status;
}

// ---- memory

static int device_alloc(void **out, size_t bytes) {
    *out = NULL;
    const int status = taken(cudaMalloc(out, bytes));
    if (status) *out = NULL;
    return status;
}
static int device_free(void *p) {
    return taken(cudaFree(p));
}
static int host_alloc(void **out, size_t bytes) {
    *out = NULL;
    const int status = taken(cudaMallocHost(out, bytes));
    if (status) *out = NULL;
    return status;
}
static int host_free(void *p) {
    return taken(cudaFreeHost(p));
}
static int copy(void *to, const void *from, size_t bytes, sd_cuda_stream *s) {
    return taken(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, (cudaStream_t)s));
}

// ---- streams and events

static int stream_open(sd_cuda_stream **out) {
    return taken(cudaStreamCreateWithFlags((cudaStream_t *)out, cudaStreamNonBlocking));
}
static int stream_close(sd_cuda_stream *s) {
    return taken(cudaStreamDestroy((cudaStream_t)s));
}
static int stream_wait(sd_cuda_stream *s) {
    return taken(cudaStreamSynchronize((cudaStream_t)s));
}
static int event_open(sd_cuda_event **out) {
    return taken(cudaEventCreateWithFlags((cudaEvent_t *)out, cudaEventDisableTiming));
}
static int event_close(sd_cuda_event *e) {
    return taken(cudaEventDestroy((cudaEvent_t)e));
}
static int event_record(sd_cuda_event *e, sd_cuda_stream *s) {
    return taken(cudaEventRecord((cudaEvent_t)e, (cudaStream_t)s));
}
static int event_wait(sd_cuda_event *e) {
    return taken(cudaEventSynchronize((cudaEvent_t)e));
}
static int stream_follow(sd_cuda_stream *s, sd_cuda_event *e) {
    return taken(cudaStreamWaitEvent((cudaStream_t)s, (cudaEvent_t)e, 0));
}

// ---- graphs

// The capture is this thread's alone: others may allocate meanwhile.
static int capture_begin(sd_cuda_stream *s) {
    return taken(cudaStreamBeginCapture((cudaStream_t)s, cudaStreamCaptureModeThreadLocal));
}
static int capture_end(sd_cuda_graph **out, sd_cuda_stream *s) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t made = NULL;
    int status = taken(cudaStreamEndCapture((cudaStream_t)s, &graph));
    if (!status) status = taken(cudaGraphInstantiate(&made, graph, 0));
    if (graph) (void)taken(cudaGraphDestroy(graph));
    *out = status ? NULL : (sd_cuda_graph *)made;
    return status;
}
static int graph_launch(sd_cuda_graph *g, sd_cuda_stream *s) {
    return taken(cudaGraphLaunch((cudaGraphExec_t)g, (cudaStream_t)s));
}
static int graph_close(sd_cuda_graph *g) {
    return taken(cudaGraphExecDestroy((cudaGraphExec_t)g));
}

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
    d.blas_version = sd_cuda_plugin_blas_version, d.blas_open = sd_cuda_plugin_blas_open;
    d.comm_find = sd_cuda_plugin_comm_find, d.comm_open = sd_cuda_plugin_comm_open;
    return d;
}

extern "C" const sd_cuda_device *sd_cuda_plugin(void) {
    static const sd_cuda_device table = make_table();
    return &table;
}
