// The memory of a run by part, before anything runs: the pass's own bytes are counted by the function
// that hands them out.
#include "trainer/pass/plan.h"

#include "trainer/pass/state.h"

#include <stdio.h>

// The program, its libraries, the GEMM's packing buffers, the tokenizer: measured once, rounded up.
static const size_t runtime_bytes = (size_t)64 << 20;

static void add_row(sd_train_plan_report *r, const char *part, size_t bytes) {
    r->row[r->n].part = part;
    r->row[r->n++].bytes = bytes;
    r->total += bytes;
}

static void report_of(sd_train_plan_report *out, const sd_model *m, const sd_lora_layout *lay,
                      const sd_train_options *o, sd_train_compute compute, sd_recompute recompute,
                      int threads) {
    sd_train_memory mem;
    int lowest = sd_lora_lowest(lay);
    const sd_gemm_packed *gemm = sd_gemm_packed_best(compute == SD_TRAIN_BF16);
    sd_train_carve(&mem, NULL, m, lay, gemm, o->max_tokens, recompute, lowest, threads);
    *out = (sd_train_plan_report){.compute = compute, .recompute = recompute};
    snprintf(out->kernels, sizeof out->kernels, "%s", gemm->name);
    add_row(out, "weights (mapped)", m->weight_bytes);
    // theta, its gradient, two moments, the best so far
    add_row(out, "adapter, gradient, optimiser", 5 * sizeof(float) * lay->n_params);
    add_row(out, "activations kept", mem.kept);
    add_row(out, "activations of one block", mem.scratch);
    add_row(out, "dequantised weights of two stacks", mem.weights);
    add_row(out, "loss head", mem.head);
    add_row(out, "scratch of the workers", mem.workers);
    add_row(out, "tables", mem.other);
    if (o->data) add_row(out, "prepared data", o->data);
    add_row(out, "program and libraries", runtime_bytes);
    out->n_total = out->n;
}

sd_status sd_train_plan(sd_train_plan_report *out, const sd_model *m, const sd_lora_layout *lay,
                        const sd_train_options *o, int threads, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(o->max_tokens > 0, err, SD_EINVAL, "a micro-batch of %d tokens; give at least 1",
             o->max_tokens);
    SD_CHECK(lay->n_linears == m->n_linears, err, SD_EINVAL,
             "the adapter's layout is of %d linear maps, the model has %d", lay->n_linears,
             m->n_linears);
    bool has_bf16 = sd_gemm_packed_best(true) != NULL;
    SD_CHECK(has_bf16 || o->compute != SD_TRAIN_BF16, err, SD_EINVAL,
             "compute_dtype bf16: this processor has no bf16 instructions (AVX512_BF16); use auto "
             "or fp32");
    sd_train_compute compute =
        has_bf16 && o->compute != SD_TRAIN_FP32 ? SD_TRAIN_BF16 : SD_TRAIN_FP32;
    sd_recompute from = o->recompute, to = o->recompute;
    if (o->recompute == SD_RECOMPUTE_AUTO) from = SD_RECOMPUTE_NONE, to = SD_RECOMPUTE_BLOCK;
    for (int r = (int)from; r <= (int)to; r++) {
        report_of(out, m, lay, o, compute, (sd_recompute)r, threads);
        if (o->memory_limit == 0 || out->total <= o->memory_limit) break;
    }

    SD_CHECK(o->memory_limit == 0 || out->total <= o->memory_limit, err, SD_ELIMIT,
             "micro-batches of %d tokens need %zu MiB, the limit is %zu MiB; lower "
             "micro_batch_tokens or raise memory_limit",
             o->max_tokens, out->total >> 20, o->memory_limit >> 20);
out:
    return st;
}
