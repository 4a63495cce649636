// inspect: where models can run here, and what is missing of the rest.
#include "base/memory.h"
#include "base/pool.h"
#include "cli/inspect/inspect.h"
#include "kernels/cpu/features.h"
#include "kernels/cuda/plugin/find.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <unistd.h>

static json_t *cpu_json(void) {
    char name[128];
    sd_cpu_name(name, sizeof name);
    return json_pack("{s:s, s:s, s:i}", "name", name, "instruction_set", sd_ops_best()->name,
                     "threads", sd_pool_count(0));
}

static sd_status add_cuda_devices(json_t *list, const sd_cuda_device *d, int n, sd_error *err) {
    for (int i = 0; i < n; i++) {
        sd_cuda_properties p;
        char word[24];
        const int status = d->properties(&p, i);
        if (status)
            return sd_fail(err, SD_EIO, "CUDA: device %d does not tell what it is (error %d: %s)",
                           i, status, d->error_text(status));
        snprintf(word, sizeof word, "cuda:%d", i);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:f, s:i, s:I, s:I}", "device", word, "name",
                                        p.name, "compute_capability", p.major + p.minor / 10.0,
                                        "multiprocessors", p.multiprocessors, "memory_bytes",
                                        (json_int_t)p.memory, "left_bytes", (json_int_t)p.left));
    }
    return SD_OK;
}

// What training asks for besides: the first always, the second on several devices.
static void add_libraries(json_t *o, const sd_cuda_device *d) {
    size_t version;
    json_object_set_new(o, "cublaslt_there", json_boolean(d->blas_version(&version) == 0));
    json_object_set_new(o, "nccl_there", json_boolean(d->comm_find() == 0));
}

// "missing" is the sentence that --device cuda ends with.
static json_t *cuda_json(json_t *devices) {
    const sd_cuda_device *d = NULL;
    sd_error why = {0};
    int n = 0;
    char *plugin = sd_cuda_plugin_path();
    sd_status st = sd_cuda_find(&d, &n, &why);
    if (st == SD_OK) st = add_cuda_devices(devices, d, n, &why);
    json_t *o =
        json_pack("{s:b, s:s, s:s, s:b, s:s}", "usable", st == SD_OK, "driver", SD_CUDA_DRIVER,
                  "plugin", plugin ? plugin : SD_CUDA_PLUGIN, "plugin_there",
                  plugin && access(plugin, F_OK) == 0, "plugin_build", sd_cuda_build());
    if (st == SD_OK) add_libraries(o, d);
    if (st != SD_OK) json_object_set_new(o, "missing", json_string(why.message));
    free(plugin);
    return o;
}

sd_status sd_inspect_devices(json_t **out, sd_error *err) {
    sd_status st = SD_OK;
    json_t *devices = json_array(), *cuda = cuda_json(devices);
    *out = NULL;
    *out = json_pack("{s:s, s:s, s:o, s:O, s:O}", "kind", "devices", "auto",
                     json_array_size(devices) ? "cuda:0" : "cpu", "cpu", cpu_json(), "cuda", cuda,
                     "cuda_devices", devices);
    SD_CHECK_ALLOC(*out, err);
out:
    json_decref(cuda);
    json_decref(devices);
    return st;
}
