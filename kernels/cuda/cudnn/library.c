// cuDNN, opened when it is used first: linked, it would cost every start of the program some 100 ms and 200 MB.
#include "base/memory.h"
#include "kernels/cuda/cudnn/private.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

sd_status sd_cudnn_open(sd_cudnn **out, sd_error *err) {
    sd_status st = SD_OK;
    sd_cudnn *c = sd_alloc(1, sizeof *c);
    SD_CHECK(c, err, SD_ENOMEM, "out of memory for cuDNN");
    c->library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    SD_CHECK(c->library, err, SD_ENOTFOUND,
             "cuDNN 9 cannot be opened: %s; install it, or leave its attention off", dlerror());
#define SD_CUDNN_SYMBOL(name)                                                                      \
    *(void **)&c->name = dlsym(c->library, #name);                                                 \
    SD_CHECK(c->name, err, SD_ENOTFOUND, "libcudnn.so.9 has no %s; install a newer cuDNN 9", #name);
    SD_CUDNN_LIST(SD_CUDNN_SYMBOL)
#undef SD_CUDNN_SYMBOL
    *out = c, c = NULL;
out:
    sd_cudnn_close(c);
    return st;
}

void sd_cudnn_close(sd_cudnn *c) {
    if (!c) return;
    if (c->handle) c->cudnnDestroy(c->handle);
    if (c->library) dlclose(c->library);
    free(c);
}

size_t sd_cudnn_version(const sd_cudnn *c) {
    return c->cudnnGetVersion();
}

// ---- descriptors

void sd_cudnn_failed(sd_cudnn_graph *g, cudnnStatus_t status, const char *what) {
    if (g->st != SD_OK) return;
    char said[400] = "";
    g->c->cudnnGetLastErrorString(said, sizeof said);
    for (char *p = said; *p; p++)
        if ((unsigned char)*p < ' ') *p = ' ';
    bool cannot = status / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000;
    g->st = sd_fail(g->err, cannot ? SD_ENOTFOUND : SD_EINVAL, "cuDNN: %s: %s%s%s", what,
                    g->c->cudnnGetErrorString(status), *said ? ": " : "", said);
}

cudnnBackendDescriptor_t sd_cudnn_new(sd_cudnn_graph *g, cudnnBackendDescriptorType_t type) {
    if (g->st != SD_OK) return NULL;
    if (g->n == SD_CUDNN_DESCRIPTORS) {
        g->st = sd_fail(g->err, SD_ELIMIT, "cuDNN: a graph of more than %d descriptors", g->n);
        return NULL;
    }
    cudnnStatus_t status = g->c->cudnnBackendCreateDescriptor(type, &g->made[g->n]);
    if (status != CUDNN_STATUS_SUCCESS) {
        sd_cudnn_failed(g, status, "a descriptor cannot be made");
        return NULL;
    }
    return g->made[g->n++];
}

void sd_cudnn_set(sd_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t n, const void *values) {
    if (g->st != SD_OK) return;
    cudnnStatus_t status = g->c->cudnnBackendSetAttribute(d, name, type, n, values);
    if (status != CUDNN_STATUS_SUCCESS) {
        char what[48];
        snprintf(what, sizeof what, "attribute %d cannot be set", (int)name);
        sd_cudnn_failed(g, status, what);
    }
}

void sd_cudnn_finalize(sd_cudnn_graph *g, cudnnBackendDescriptor_t d, const char *what) {
    if (g->st != SD_OK) return;
    cudnnStatus_t status = g->c->cudnnBackendFinalize(d);
    if (status != CUDNN_STATUS_SUCCESS) sd_cudnn_failed(g, status, what);
}

void sd_cudnn_graph_free(sd_cudnn_graph *g) {
    while (g->n) g->c->cudnnBackendDestroyDescriptor(g->made[--g->n]);
}
