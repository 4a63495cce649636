// Plans: the first engine that cuDNN's heuristics propose for a graph, that compiles.
#include "base/memory.h"
#include "kernels/cuda/cudnn/private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIPTOR CUDNN_TYPE_BACKEND_DESCRIPTOR
enum { ENGINES = 8 };

struct sd_cudnn_plan {
    sd_cudnn_graph g;
    sd_cudnn_sdpa shape;
    cudnnBackendDescriptor_t plan;
    size_t engine_bytes, sums_bytes, dq_bytes; // parts of the workspace, in this order
};

static sd_status check_shape(const sd_cudnn_sdpa *s, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(s->B > 0 && s->S > 0 && s->H > 0 && s->G > 0 && s->D > 0, err, SD_EINVAL,
             "cuDNN: a shape of attention has a size below 1");
    SD_CHECK(s->H % s->G == 0, err, SD_EINVAL,
             "cuDNN: %lld query heads are no multiple of %lld heads of keys", (long long)s->H,
             (long long)s->G);
    SD_CHECK(isfinite(s->scale), err, SD_EINVAL, "cuDNN: the scale of attention is not finite");
    // Strides of scores are int64.
    SD_CHECK(s->B <= 1 << 20 && s->S <= 1 << 24 && s->H <= 1 << 12 && s->D <= 1 << 12, err,
             SD_EINVAL, "cuDNN: %lld sequences of %lld positions, %lld heads of %lld are too many",
             (long long)s->B, (long long)s->S, (long long)s->H, (long long)s->D);
out:
    return st;
}

static cudnnBackendDescriptor_t describe_device(sd_cudnn_graph *g, const char *device) {
    cudnnBackendDescriptor_t d = sd_cudnn_new(g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    sd_cudnn_set(g, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                 (int64_t)strlen(device) + 1, device);
    sd_cudnn_finalize(g, d, "the description of a device");
    return d;
}

static void take_handle(sd_cudnn_graph *g) {
    if (g->st != SD_OK || g->c->handle) return;
    cudnnStatus_t status = g->c->cudnnCreate(&g->c->handle);
    if (status != CUDNN_STATUS_SUCCESS) sd_cudnn_failed(g, status, "there is no device for it");
}

// The first engine's that compiles. What the others failed by is forgotten once one does.
static void compile(sd_cudnn_plan *p, const cudnnBackendDescriptor_t *config, int64_t n,
                    cudnnBackendDescriptor_t device) {
    sd_cudnn_graph *g = &p->g;
    cudnnStatus_t last = CUDNN_STATUS_NOT_SUPPORTED;
    for (int64_t i = 0; i < n && g->st == SD_OK && !p->plan; i++) {
        cudnnBackendDescriptor_t plan = sd_cudnn_new(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        sd_cudnn_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, DESCRIPTOR, 1, &config[i]);
        if (device)
            sd_cudnn_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, DESCRIPTOR, 1, &device);
        else
            sd_cudnn_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                         &g->c->handle);
        if (g->st != SD_OK) return;
        last = g->c->cudnnBackendFinalize(plan);
        if (last == CUDNN_STATUS_SUCCESS) p->plan = plan;
    }
    if (g->st == SD_OK && !p->plan)
        sd_cudnn_failed(g, last, "there is no kernel of this attention");
}

static void choose(sd_cudnn_plan *p, cudnnBackendDescriptor_t graph,
                   cudnnBackendDescriptor_t device) {
    sd_cudnn_graph *g = &p->g;
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t heuristics = sd_cudnn_new(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR),
                             config[ENGINES];
    sd_cudnn_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, DESCRIPTOR, 1, &graph);
    sd_cudnn_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (device)
        sd_cudnn_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, DESCRIPTOR, 1, &device);
    sd_cudnn_finalize(g, heuristics, "a kernel for this attention");
    for (int i = 0; i < ENGINES; i++)
        config[i] = sd_cudnn_new(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->st != SD_OK) return;
    int64_t n = 0;
    cudnnStatus_t status = g->c->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                          DESCRIPTOR, ENGINES, &n, config);
    if (status != CUDNN_STATUS_SUCCESS) {
        sd_cudnn_failed(g, status, "what kernels there are cannot be asked");
        return;
    }
    compile(p, config, n < ENGINES ? n : ENGINES, device);
}

static size_t up(size_t n) {
    return (n + 255) / 256 * 256;
}

static void count_workspace(sd_cudnn_plan *p) {
    sd_cudnn_graph *g = &p->g;
    if (g->st != SD_OK) return;
    int64_t bytes = 0, n = 0;
    cudnnStatus_t status = g->c->cudnnBackendGetAttribute(
        p->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &bytes);
    if (status != CUDNN_STATUS_SUCCESS || bytes < 0) {
        sd_cudnn_failed(g, status, "the workspace's size cannot be asked");
        return;
    }
    const sd_cudnn_sdpa *s = &p->shape;
    size_t heads = (size_t)s->B * (size_t)s->H * (size_t)s->S;
    p->engine_bytes = up((size_t)bytes);
    p->sums_bytes = s->backward ? up(heads * sizeof(float)) : 0;
    p->dq_bytes = s->backward ? up(heads * (size_t)s->D * sizeof(float)) : 0;
}

sd_status sd_cudnn_plan_open(sd_cudnn_plan **out, sd_cudnn *c, const sd_cudnn_sdpa *shape,
                             const char *device, sd_error *err) {
    sd_status st = SD_OK;
    sd_cudnn_plan *p = NULL;
    SD_TRY(check_shape(shape, err));
    p = sd_alloc(1, sizeof *p);
    SD_CHECK(p, err, SD_ENOMEM, "out of memory for a plan of attention");
    p->g = (sd_cudnn_graph){.c = c, .err = err};
    p->shape = *shape;
    cudnnBackendDescriptor_t described = NULL;
    if (device)
        described = describe_device(&p->g, device);
    else
        take_handle(&p->g);
    cudnnBackendDescriptor_t graph = sd_cudnn_sdpa_graph(&p->g, shape);
    choose(p, graph, described);
    count_workspace(p);
    st = p->g.st;
    p->g.err = NULL; // the caller's, and gone when this returns
    if (st == SD_OK) *out = p, p = NULL;
out:
    sd_cudnn_plan_close(p);
    return st;
}

void sd_cudnn_plan_close(sd_cudnn_plan *p) {
    if (!p) return;
    sd_cudnn_graph_free(&p->g);
    free(p);
}

size_t sd_cudnn_plan_workspace(const sd_cudnn_plan *p) {
    return p->engine_bytes + p->sums_bytes + p->dq_bytes;
}

// ---- running

enum { TENSORS = SD_CUDNN_ONE };

// Names and places of what the graph has stored.
static int64_t variants(const sd_cudnn_plan *p, const sd_cudnn_tensors *t, char *workspace,
                        float numbers[3], int64_t name[TENSORS], void *place[TENSORS]) {
    int64_t n = 0;
#define VARIANT(what, where) name[n] = what, place[n++] = (void *)(uintptr_t)(where)
    VARIANT(SD_CUDNN_Q, t->q);
    VARIANT(SD_CUDNN_K, t->k);
    VARIANT(SD_CUDNN_V, t->v);
    VARIANT(SD_CUDNN_O, t->o);
    VARIANT(SD_CUDNN_STATS, t->stats);
    VARIANT(SD_CUDNN_SCALE, &numbers[0]);
    VARIANT(SD_CUDNN_MASKED, &numbers[1]);
    if (p->shape.backward) {
        VARIANT(SD_CUDNN_DO, t->d_o);
        VARIANT(SD_CUDNN_DQ, t->dq);
        VARIANT(SD_CUDNN_DK, t->dk);
        VARIANT(SD_CUDNN_DV, t->dv);
        VARIANT(SD_CUDNN_SUMS, workspace + p->engine_bytes);
        VARIANT(SD_CUDNN_DQ_SUM, workspace + p->engine_bytes + p->sums_bytes);
        VARIANT(SD_CUDNN_ONE, &numbers[2]);
    }
#undef VARIANT
    return n;
}

sd_status sd_cudnn_run(sd_cudnn_plan *p, const sd_cudnn_tensors *t, void *workspace, void *stream,
                       sd_error *err) {
    sd_cudnn_graph g = {.c = p->g.c, .err = err};
    float numbers[3] = {p->shape.scale, -INFINITY, 1};
    int64_t name[TENSORS];
    void *place[TENSORS];
    int64_t n = variants(p, t, workspace, numbers, name, place);
    take_handle(&g);
    cudnnBackendDescriptor_t pack = sd_cudnn_new(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    sd_cudnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, name);
    sd_cudnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, place);
    sd_cudnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    sd_cudnn_finalize(&g, pack, "the places of tensors");
    if (g.st == SD_OK) {
        cudnnStatus_t status = g.c->cudnnSetStream(g.c->handle, stream);
        if (status == CUDNN_STATUS_SUCCESS)
            status = g.c->cudnnBackendExecute(g.c->handle, p->plan, pack);
        if (status != CUDNN_STATUS_SUCCESS) sd_cudnn_failed(&g, status, "attention did not run");
    }
    sd_cudnn_graph_free(&g);
    return g.st;
}
