// The table that the backend's tests ask for (tests/cuda/device_emu.h), of the plugin beside the program: the same functions, but memory is
// counted, and refused where a test wants that.
#include "tests/cuda/device_emu.h"

#include "kernels/cuda/plugin/find.h"
#include "tests/cuda/model/check.h"

#include <stdlib.h>

enum { MOST = 4096 };
static const sd_cuda_device *plugin;
static struct {
    void *p; // NULL: free again
    size_t bytes;
} taken[MOST];
static int refuse, graphs;

static int note(int status, void *p, size_t bytes) {
    int i = 0;
    while (!status && i < MOST && taken[i].p) i++;
    check(i < MOST, "more than %d pieces of memory", MOST);
    if (!status) taken[i].p = p, taken[i].bytes = bytes;
    return status;
}
static void forget(const void *p) {
    for (int i = 0; p && i < MOST; i++)
        if (taken[i].p == p) taken[i].p = NULL;
}
static int take(int (*alloc)(void **, size_t), void **out, size_t bytes) {
    *out = NULL;
    if (refuse > 0 && --refuse == 0) return SD_CUDA_ENOMEM;
    const int status = alloc(out, bytes);
    return note(status, *out, bytes);
}
static int device_alloc(void **out, size_t bytes) {
    return take(plugin->alloc, out, bytes);
}
static int host_alloc(void **out, size_t bytes) {
    return take(plugin->host_alloc, out, bytes);
}
static int device_free(void *p) {
    forget(p);
    return plugin->free(p);
}
static int host_free(void *p) {
    forget(p);
    return plugin->host_free(p);
}

static int capture_end(sd_cuda_graph **out, sd_cuda_stream *s) {
    const int status = plugin->capture_end(out, s);
    graphs += *out != NULL;
    return status;
}
static int graph_close(sd_cuda_graph *g) {
    graphs--;
    return plugin->graph_close(g);
}

const sd_cuda_device *emulated_device(void) {
    static sd_cuda_device table;
    if (plugin) return &table;
    sd_error err = {0};
    int devices;
    char *path = sd_cuda_plugin_path();
    check(path, "nobody knows where this program lies");
    must(sd_cuda_open_plugin(&plugin, &devices, SD_CUDA_DRIVER, path, &err), &err);
    free(path);
    table = *plugin;
    table.alloc = device_alloc, table.free = device_free;
    table.host_alloc = host_alloc, table.host_free = host_free;
    table.capture_end = capture_end, table.graph_close = graph_close;
    return &table;
}
void emulated_refuse(int n) {
    refuse = n;
}
size_t emulated_bytes(void) {
    size_t n = 0;
    for (int i = 0; i < MOST; i++) n += taken[i].p ? taken[i].bytes : 0;
    return n;
}
int emulated_graphs(void) {
    return graphs;
}
