// The device's errors as the program's, and memory that goes with its owner.
#include "model/cuda/memory.h"

#include "base/memory.h"
#include "kernels/cuda/plugin/find.h"

sd_status sd_cuda_find_device(const sd_cuda_device **dev, int device, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_device *found;
    int devices = 0;
    *dev = NULL;
    SD_TRY(sd_cuda_find(&found, &devices, err));
    SD_CHECK(device >= 0 && device < devices, err, SD_EINVAL,
             "CUDA: there is no device %d; give cuda:0 to cuda:%d", device, devices - 1);
    *dev = found;
out:
    return st;
}

sd_status sd_cuda_status(const sd_cuda_device *dev, int status, const char *doing, sd_error *err) {
    if (!status) return SD_OK;
    if (status == SD_CUDA_ENOMEM)
        return sd_fail(err, SD_ENOMEM,
                       "CUDA: the device has no memory for %s; run less at once (a shorter "
                       "context, fewer sequences, smaller micro-batches), or a smaller model",
                       doing);
    return sd_fail(err, SD_EIO, "CUDA: %s failed (error %d: %s); see nvidia-smi", doing, status,
                   dev->error_text(status));
}

// ---- owned memory

static bool room_for_one(void ***list, int n, int *cap) {
    if (n < *cap) return true;
    const int more = *cap ? 2 * *cap : 64;
    void **p = sd_realloc(*list, (size_t)more, sizeof *p);
    if (!p) return false;
    *list = p, *cap = more;
    return true;
}

sd_status sd_cuda_take(sd_cuda_owned *o, void **out, size_t bytes, const char *what,
                       sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    SD_CHECK_ALLOC(room_for_one(&o->device, o->n_device, &o->cap_device), err);
    SD_CUDA_TRY(o->dev, o->dev->alloc(out, bytes), what);
    o->device[o->n_device++] = *out;
    o->bytes += bytes;
out:
    return st;
}

sd_status sd_cuda_take_host(sd_cuda_owned *o, void **out, size_t bytes, const char *what,
                            sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    SD_CHECK_ALLOC(room_for_one(&o->host, o->n_host, &o->cap_host), err);
    SD_CUDA_TRY(o->dev, o->dev->host_alloc(out, bytes), what);
    o->host[o->n_host++] = *out;
    o->bytes += bytes;
out:
    return st;
}

void sd_cuda_free_owned(sd_cuda_owned *o) {
    for (int i = 0; i < o->n_device; i++) o->dev->free(o->device[i]);
    for (int i = 0; i < o->n_host; i++) o->dev->host_free(o->host[i]);
    free(o->device);
    free(o->host);
    *o = (sd_cuda_owned){.dev = o->dev};
}
