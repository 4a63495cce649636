// Resolves what says auto. Small micro-batches are only chosen to keep a memory limit.
#include "trainer/run/private.h"

// Tokens: products are efficient from there, activations still small.
enum { AUTO_MICRO_BATCH = 2048, AUTO_MICRO_BATCH_CUDA = 16384 };

static int larger(int a, int b) {
    return a > b ? a : b;
}

sd_status sd_run_resolve(sd_train_options *pass, sd_train_plan_report *plan, sd_recipe *e,
                         const sd_run_base *base, const sd_run_data *data, sd_error *err) {
    sd_status st = SD_OK;
    const int longest = data->train.longest, few = e->device.kind == SD_TRAIN_DEVICE_CUDA
                                                       ? AUTO_MICRO_BATCH_CUDA
                                                       : AUTO_MICRO_BATCH;
    int micro = (int)e->train.micro_batch_tokens;
    bool chosen = micro == 0;
    if (micro && micro < longest)
        return sd_recipe_fail(e, "train.micro_batch_tokens", err,
                              "%d is less than the longest row of %d tokens, and rows are not cut; "
                              "give at least that, or auto",
                              micro, longest);
    if (chosen) {
        // Each device has a micro-batch of a step, if the step is that large.
        const int64_t share = (data->counts.step_tokens + e->device.count - 1) / e->device.count;
        micro = larger(longest, share < few ? (int)share : few);
    }
    size_t held = sd_dataset_memory(data->train_set);
    if (data->eval_set) held += sd_dataset_memory(data->eval_set);
    for (;;) {
        *pass = (sd_train_options){.data = held,
                                   .max_tokens = larger(micro, data->eval.longest),
                                   .context = (int)e->data.sequence_len,
                                   .compute = e->base.compute_dtype,
                                   .recompute = e->train.recompute,
                                   .memory_limit = (size_t)e->device.memory_limit};
        st = sd_run_plan_pass(plan, e, base, pass, err);
        if (st != SD_ELIMIT || !chosen || micro == longest) break;
        micro = larger(longest, micro / 2);
    }
    SD_TRY(st);
    e->train.micro_batch_tokens = micro;
    e->base.compute_dtype = plan->compute;
    e->train.recompute = plan->recompute;
    pass->compute = plan->compute;
    pass->recompute = plan->recompute;
out:
    return st;
}
