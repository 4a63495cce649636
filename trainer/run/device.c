// Where a run trains: which device has what learns.
#include "base/log.h"
#include "model/cuda/memory.h"
#include "trainer/pass/cuda/pass.h"
#include "trainer/run/private.h"

#include <stdio.h>

// As --device auto chooses: a device that is there but does not fit is worth a word, one that is not there is not.
static bool can_use_cuda(int index) {
    const sd_cuda_device *dev;
    sd_error why;
    const sd_status st = sd_cuda_find_device(&dev, index, &why);
    if (st != SD_OK && st != SD_ENOTFOUND)
        sd_log(SD_LOG_WARN, "%s; training on the CPU", why.message);
    return st == SD_OK;
}

static sd_cuda_devices devices_of(const sd_recipe *r) {
    return (sd_cuda_devices){(int)r->device.index, (int)r->device.count};
}

sd_status sd_run_choose_device(sd_recipe *r, bool resumes, sd_error *err) {
    const sd_cuda_device *dev;
    const int index = (int)r->device.index;
    if (r->device.kind == SD_TRAIN_DEVICE_CUDA) return sd_cuda_find_device(&dev, index, err);
    // A checkpoint that does not say where it was made was made by a version that had the CPU alone.
    const bool cuda = r->device.kind == SD_TRAIN_DEVICE_AUTO && !resumes && can_use_cuda(index);
    r->device.kind = cuda ? SD_TRAIN_DEVICE_CUDA : SD_TRAIN_DEVICE_CPU;
    if (!cuda && r->device.count > 1)
        return sd_recipe_fail(r, "device.count", err,
                              "%d CUDA devices, and this run trains on the CPU; leave it at 1, or "
                              "say device.kind=cuda",
                              (int)r->device.count);
    return SD_OK;
}

void sd_run_name_device(char *out, size_t cap, const sd_recipe *r) {
    const int first = (int)r->device.index, last = first + (int)r->device.count - 1;
    if (r->device.kind != SD_TRAIN_DEVICE_CUDA)
        snprintf(out, cap, "cpu");
    else if (last == first)
        snprintf(out, cap, "cuda:%d", first);
    else
        snprintf(out, cap, "cuda:%d to cuda:%d", first, last);
}

sd_status sd_run_plan_pass(sd_train_plan_report *out, const sd_recipe *r, const sd_run_base *base,
                           const sd_train_options *o, sd_error *err) {
    if (r->device.kind == SD_TRAIN_DEVICE_CUDA)
        return sd_cuda_train_plan(out, base->model, &base->layout, o, devices_of(r), err);
    return sd_train_plan(out, base->model, &base->layout, o, sd_pool_threads(base->pool), err);
}

sd_status sd_run_open_learner(sd_learner *out, const sd_recipe *r, const sd_run_base *base,
                              const sd_train_options *o, sd_error *err) {
    if (r->device.kind == SD_TRAIN_DEVICE_CUDA)
        return sd_cuda_learner_open(out, base->model, &base->layout, base->pool, o, devices_of(r),
                                    err);
    return sd_learner_open_cpu(out, base->model, &base->layout, base->pool, o, err);
}
