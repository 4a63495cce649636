// The CPU as a backend: the table of what context.c, forward.c, kv_memory.c and step_cost.c do.
#include "model/infer/cpu/private.h"

static sd_status look(int device, sd_error *err) {
    if (device == 0) return SD_OK;
    return sd_fail(err, SD_EINVAL, "the CPU is one device, not %d; give cpu", device + 1);
}
static sd_model *model_of(const sd_context *cx) {
    return cx->model;
}
static int max_rows_of(const sd_context *cx) {
    return cx->max_rows;
}
static size_t bytes_of(const sd_context *cx) {
    return cx->packed_bytes + cx->scratch_bytes;
}

const sd_backend sd_backend_cpu = {.word = "cpu",
                                   .look = look,
                                   .open = sd_cpu_open,
                                   .close = sd_cpu_close,
                                   .model = model_of,
                                   .max_rows = max_rows_of,
                                   .bytes = bytes_of,
                                   .memory = sd_cpu_memory,
                                   .plan = sd_cpu_plan,
                                   .step_costs = sd_cpu_step_costs,
                                   .prepare_adapter = sd_cpu_prepare_adapter,
                                   .take_adapter = sd_cpu_take_adapter,
                                   .forward = sd_cpu_forward,
                                   .sleep = sd_cpu_sleep,
                                   .wake = sd_cpu_wake,
                                   .kv_bytes = sd_cpu_kv_bytes,
                                   .kv_open = sd_cpu_kv_open,
                                   .kv_close = sd_cpu_kv_close,
                                   .kv_fits = sd_cpu_kv_fits,
                                   .kv_copy_page = sd_cpu_kv_copy_page,
                                   .kv_equal = sd_cpu_kv_equal};
