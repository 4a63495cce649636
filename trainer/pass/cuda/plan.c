// The memory of a run on the device by part, before anything of it is taken.
#include "trainer/pass/cuda/private.h"

#include <stdio.h>

enum { MAX_TOKENS = 65535 }; // rows of a grid
static const size_t reserve = (size_t)256
                              << 20; // of the device: its own tables, and what cuBLASLt loads

static void add_row(sd_train_plan_report *r, const char *part, size_t bytes) {
    r->row[r->n].part = part;
    r->row[r->n++].bytes = bytes;
}

static void report_of(sd_train_plan_report *out, const sd_model *m, const sd_lora_layout *lay,
                      const sd_train_options *o, const sd_cuda_device *dev,
                      sd_train_compute compute, sd_recompute recompute, int ranks) {
    sd_cuda_train_memory mem;
    const sd_cuda_real type = compute == SD_TRAIN_FP32 ? SD_CUDA_F32 : SD_CUDA_BF16;
    sd_cuda_train_carve(&mem, NULL, NULL, NULL, m, lay, dev, type, o->max_tokens, recompute, ranks);
    const size_t weights = sd_cuda_weight_sum(m);
    out->n = 0;
    out->compute = compute, out->recompute = recompute;
    add_row(out, "weights", weights);
    add_row(out, "adapter, gradient, optimiser", mem.parameters);
    add_row(out, "activations kept", mem.kept);
    add_row(out, "activations of one block", mem.scratch);
    add_row(out, "dequantised weights of a stack", mem.weights);
    add_row(out, "loss head", mem.head);
    add_row(out, "tables, work space of products", mem.tables);
    add_row(out, "driver and libraries", reserve);
    out->n_total = out->n;
    out->total = weights + mem.device_bytes + reserve;
    add_row(out, "of the process: parameters, copies",
            (size_t)ranks * mem.host_bytes +
                4 * sizeof(float) * lay->n_params); // theta, m, v, the best so far
    if (o->data) add_row(out, "of the process: prepared data", o->data);
}

static sd_status check_shapes(const sd_model *m, const sd_lora_layout *lay,
                              const sd_train_options *o, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &m->hp;
    SD_CHECK(o->max_tokens > 0 && o->max_tokens <= MAX_TOKENS, err, SD_EINVAL,
             "a micro-batch of %d tokens; give 1 to %d", o->max_tokens, MAX_TOKENS);
    SD_CHECK(lay->n_linears == m->n_linears, err, SD_EINVAL,
             "the adapter's layout is of %d linear maps, the model has %d", lay->n_linears,
             m->n_linears);
    SD_CHECK(hp->D % 8 == 0 && hp->D <= SD_CUDA_MOST_D, err, SD_EINVAL,
             "%s: heads of %d values; on a CUDA device they have a multiple of 8, at most %d; "
             "train it with device.kind=cpu",
             m->path, hp->D, SD_CUDA_MOST_D);
    SD_CHECK(hp->C % 8 == 0, err, SD_EINVAL,
             "%s: %d channels; on a CUDA device they are a multiple of 8; train it with "
             "device.kind=cpu",
             m->path, hp->C);
out:
    return st;
}

// How this device rounds: its architecture, the precision, the library that adds.
static sd_status name_kernels(sd_train_plan_report *out, const sd_cuda_device *dev,
                              const sd_cuda_properties *p, sd_error *err) {
    sd_status st = SD_OK;
    size_t version = 0;
    const int status = dev->blas_version(&version);
    SD_CHECK(status != SD_CUDA_ENOBLAS, err, SD_ENOTFOUND,
             "CUDA: libcublasLt.so.13 cannot be opened, and training needs it; install cuBLAS of "
             "CUDA 13, or train with device.kind=cpu");
    SD_CUDA_TRY(dev, status, "opening cuBLASLt");
    snprintf(out->kernels, sizeof out->kernels, "cuda-sm%d%d-%s-lt%zu", p->major, p->minor,
             out->compute == SD_TRAIN_FP32 ? "fp32" : "bf16", version);
out:
    return st;
}

// What the devices have in common: *p of the first, with what the one that has least has left.
static sd_status ask(sd_cuda_properties *p, const sd_cuda_device *dev, sd_cuda_devices devices,
                     sd_error *err) {
    sd_status st = SD_OK;
    sd_cuda_properties other;
    SD_CUDA_TRY(dev, dev->properties(p, devices.first), "asking the device");
    for (int i = 1; i < devices.count; i++) {
        SD_CUDA_TRY(dev, dev->properties(&other, devices.first + i), "asking the device");
        SD_CHECK(other.major == p->major && other.minor == p->minor, err, SD_EINVAL,
                 "CUDA: device %d is %.100s and device %d %.100s, which round otherwise; choose "
                 "devices of one kind by device.index and device.count",
                 devices.first, p->name, devices.first + i, other.name);
        if (other.left < p->left) p->left = other.left;
    }
out:
    return st;
}

static sd_status find_devices(const sd_cuda_device **dev, sd_cuda_devices devices, sd_error *err) {
    sd_status st = SD_OK;
    int there;
    SD_TRY(sd_cuda_find_device(dev, devices.first, err));
    SD_CHECK(devices.count >= 1 && devices.count <= SD_CUDA_TRAIN_DEVICES, err, SD_EINVAL,
             "device.count is %d; give 1 to %d", devices.count, SD_CUDA_TRAIN_DEVICES);
    SD_CUDA_TRY(*dev, (*dev)->count(&there), "asking for devices");
    SD_CHECK(devices.count <= there - devices.first, err, SD_EINVAL,
             "CUDA: device.count is %d, and from device %d on there are %d; lower device.count",
             devices.count, devices.first, there - devices.first);
    if (devices.count == 1) goto out;
    const int status = (*dev)->comm_find();
    SD_CHECK(status != SD_CUDA_ENOCOMM, err, SD_ENOTFOUND,
             "CUDA: libnccl.so.2 cannot be opened, and training on %d devices needs it; install "
             "NCCL for CUDA 13, or train with device.count=1",
             devices.count);
    SD_CUDA_TRY(*dev, status, "opening NCCL");
out:
    return st;
}

sd_status sd_cuda_train_plan(sd_train_plan_report *out, const sd_model *m,
                             const sd_lora_layout *lay, const sd_train_options *o,
                             sd_cuda_devices devices, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_device *dev;
    sd_cuda_properties p;
    *out = (sd_train_plan_report){0};
    SD_TRY(check_shapes(m, lay, o, err));
    SD_TRY(find_devices(&dev, devices, err));
    SD_TRY(ask(&p, dev, devices, err));
    const sd_train_compute compute = o->compute == SD_TRAIN_FP32 ? SD_TRAIN_FP32 : SD_TRAIN_BF16;
    const size_t limit = o->memory_limit ? o->memory_limit : p.left;
    sd_recompute from = o->recompute, to = o->recompute;
    if (o->recompute == SD_RECOMPUTE_AUTO) from = SD_RECOMPUTE_NONE, to = SD_RECOMPUTE_BLOCK;
    for (int r = (int)from; r <= (int)to; r++) {
        report_of(out, m, lay, o, dev, compute, (sd_recompute)r, devices.count);
        if (out->total <= limit) break;
    }
    SD_CHECK(out->total <= limit, err, SD_ELIMIT,
             "micro-batches of %d tokens need %zu MiB of %s, %s %zu MiB; lower micro_batch_tokens",
             o->max_tokens, out->total >> 20,
             devices.count > 1 ? "each CUDA device" : "the CUDA device",
             o->memory_limit ? "device.memory_limit is" : "which has left", limit >> 20);
    SD_TRY(name_kernels(out, dev, &p, err));
out:
    return st;
}
