// What a context takes of the device: as it was planned, given back, and an error where it is refused.
#include "tests/cuda/model/check.h"

#include "base/log.h"
#include "base/memory.h"
#include "model/infer/cuda/private.h"
#include "tests/cuda/device_emu.h"

#include <stdio.h>
#include <string.h>

enum { CTX = 100, T = 70 };

static sd_adapter *open_adapter(const sd_model *m, int r) {
    return random_adapter(m, r, (uint64_t)r);
}

// Takes what a context may take: rows of two adapters, logits, picks on the device and on the host.
static sd_status use(sd_context *cx, sd_adapter *const a[2], sd_error *err) {
    sd_status st = SD_OK;
    const int V = sd_context_model(cx)->hp.V;
    const sd_sampling law = {.temperature = 1, .top_p = 1};
    const sd_token_bias bias = {5, 4};
    const sd_shaping shaping = {.bias = &bias, .n_bias = 1};
    const sd_pick picks[2] = {{.sampling = &law}, {.sampling = &law, .shaping = &shaping}};
    sd_kv_pool *pool = NULL;
    sd_kv *kv = NULL;
    sd_picked token[2];
    sd_row row[T];
    float *logits = sd_alloc((size_t)2 * (size_t)V, sizeof *logits);
    SD_CHECK_ALLOC(logits, err);
    const sd_kv_pool_size size = {.sequences = 1, .ctx = CTX, .step = T};
    SD_TRY(sd_kv_pool_open(&pool, cx, &size, err));
    SD_TRY(sd_kv_open_in(&kv, pool, CTX, err));
    SD_CHECK(sd_kv_reserve(kv, T), err, SD_ENOMEM, "no pages");
    for (int i = 0; i < T; i++)
        row[i] = (sd_row){.token = token_at(0, i, V),
                          .pos = i,
                          .kv = kv,
                          .adapter = a[i % 2],
                          .want_logits = i == T - 2,
                          .pick = i >= T - 2 ? &picks[i % 2] : NULL};
    SD_TRY(sd_forward_pick(cx, row, T, logits, token, err));
out:
    free(logits);
    sd_kv_close(kv);
    sd_kv_pool_close(pool);
    return st;
}

TEST("a context takes what was planned for it, and gives everything back") {
    for (int i = 0; sd_arch_at(i); i++)
        for (int kind = 0; kind < 3; kind++) { // bf16, fp32, codes
            const bool fp32 = kind == 1, codes = kind == 2;
            const sd_tiny_model t = sd_tiny_default(sd_arch_at(i));
            sd_model *m = open_tiny(&t);
            sd_error err = {0};
            sd_adapter *a[2] = {open_adapter(m, 4), open_adapter(m, 7)};
            int ranks[2][64];
            for (int k = 0; k < 2; k++)
                for (int n = 0; n < m->n_linears; n++) ranks[k][n] = a[k]->lora[n].r;
            const int *const rank[2] = {ranks[0], ranks[1]};
            const sd_context_options o = {.max_rows = T,
                                          .max_picked = 4,
                                          .compute = fp32 ? SD_COMPUTE_FP32 : SD_COMPUTE_AUTO,
                                          .kv = codes ? SD_KV_INT8 : SD_KV_AUTO,
                                          .backend = &sd_backend_cuda};
            sd_context_plan plan;
            sd_context_memory now;
            sd_context *cx = NULL;
            must(sd_context_plan_open(&plan, m, &o, 1, CTX, rank, 2, &err), &err);
            check(emulated_bytes() == 0, "a plan takes %zu bytes", emulated_bytes());
            must(sd_context_open(&cx, m, NULL, &o, &err), &err);
            sd_context_get_memory(cx, &now);
            check(now.weights == plan.memory.weights && now.steps == plan.memory.steps,
                  "weights %zu of %zu, steps %zu of %zu", now.weights, plan.memory.weights,
                  now.steps, plan.memory.steps);
            check(emulated_bytes() == now.weights + now.steps, "%zu bytes are there, %zu counted",
                  emulated_bytes(), now.weights + now.steps);
            check(sd_context_bytes(cx) == emulated_bytes(), "bytes");
            check(plan.kv_bytes == sd_cuda_kv_bytes(cx) && plan.kv == (codes  ? SD_KV_INT8
                                                                       : fp32 ? SD_KV_F32
                                                                              : SD_KV_BF16),
                  "a position's bytes");
            must(use(cx, a, &err), &err);
            sd_context_get_memory(cx, &now);
            const size_t all = now.weights + now.steps + now.adapters + now.splits;
            check(now.adapters == plan.memory.adapters, "adapters %zu of %zu", now.adapters,
                  plan.memory.adapters);
            check(now.splits <= plan.memory.splits, "%zu of %zu for long sequences", now.splits,
                  plan.memory.splits);
            check(emulated_bytes() == all, "%zu bytes are there, %zu counted", emulated_bytes(),
                  all);
            sd_context_close(cx);
            check(emulated_bytes() == 0, "%zu bytes are left", emulated_bytes());
            for (int k = 0; k < 2; k++) sd_adapter_release(a[k]); // behind their context
            sd_model_release(m);
        }
}

TEST("each request for memory that is refused ends in one sentence, and nothing is left") {
    sd_tiny_model t = sd_tiny_default(&sd_arch_gemma3);
    t.L = 1;
    sd_model *m = open_tiny(&t);
    sd_adapter *a[2] = {open_adapter(m, 2), open_adapter(m, 3)};
    const sd_context_options o = {.max_rows = T, .max_picked = 4, .backend = &sd_backend_cuda};
    int refused = 0;
    for (int n = 1;; n++) {
        sd_context *cx = NULL;
        sd_error err = {0};
        emulated_refuse(n);
        sd_status st = sd_context_open(&cx, m, NULL, &o, &err);
        if (st == SD_OK) st = use(cx, a, &err);
        emulated_refuse(0);
        if (cx && st != SD_OK) { // and what failed succeeds the next time
            sd_error again = {0};
            must(use(cx, a, &again), &again);
        }
        sd_context_close(cx);
        check(emulated_bytes() == 0, "%zu bytes are left behind failure %d", emulated_bytes(), n);
        if (st == SD_OK) break;
        check(st == SD_ENOMEM && strstr(err.message, "CUDA: the device has no memory for "),
              "failure %d: %s", n, err.message);
        refused++;
    }
    check(refused > 30, "%d requests were refused", refused);
    for (int k = 0; k < 2; k++) sd_adapter_release(a[k]);
    sd_model_release(m);
}

TEST("an adapter's memory goes with it, and its place is another's") {
    const sd_tiny_model t = sd_tiny_default(&sd_arch_phi3);
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_FP32, T, 0);
    sd_kv *kv = open_kv(cx, CTX);
    sd_error err = {0};
    float logits[288], want[288], base[288];
    run_rows(base, cx, kv, 0, 0, 1, NULL);
    sd_adapter *keep = random_adapter(m, 3, 4);
    run_rows(want, cx, kv, 0, 0, 1, keep);
    check(memcmp(base, want, sizeof base) != 0, "an adapter changes nothing");
    size_t most = 0;
    for (int i = 0; i < 20; i++) { // more than there are places at first, but never at once
        sd_adapter *a = random_adapter(m, 3, 100 + 2 * (uint64_t)i);
        must(sd_context_take_adapter(cx, a, &err), &err);
        run_rows(logits, cx, kv, 0, 0, 1, a);
        check(memcmp(logits, want, sizeof want) != 0, "adapter %d is another one", i);
        run_rows(logits, cx, kv, 0, 0, 1, keep);
        check(memcmp(logits, want, sizeof want) == 0, "adapter %d changes its neighbour", i);
        if (i == 0) most = emulated_bytes();
        check(emulated_bytes() == most, "%zu bytes, %zu with the first", emulated_bytes(), most);
        sd_adapter_release(a);
        run_rows(logits, cx, kv, 0, 0, 1, NULL);
        check(memcmp(logits, base, sizeof base) == 0, "the base is not what it was");
        check(emulated_bytes() < most, "an adapter's memory stays");
    }
    sd_adapter *many[20];
    for (int i = 0; i < 20; i++) {
        many[i] = random_adapter(m, 2, 200 + 2 * (uint64_t)i);
        must(sd_context_take_adapter(cx, many[i], &err), &err);
    }
    run_rows(logits, cx, kv, 0, 0, 1, keep);
    check(memcmp(logits, want, sizeof want) == 0, "twenty adapters change one");
    for (int i = 0; i < 20; i++) sd_adapter_release(many[i]);
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_adapter_release(keep);
    check(emulated_bytes() == 0, "%zu bytes are left", emulated_bytes());
    sd_model_release(m);
}

// What was copied of a page is that page, as far as it was copied.
static void copy_pages(sd_context *cx, float *logits) {
    sd_kv *a = open_kv(cx, CTX), *b = open_kv(cx, CTX), *e = open_kv(cx, CTX);
    run_rows(logits, cx, a, 0, 0, T, NULL);
    run_rows(logits, cx, b, 1, 0, T, NULL);
    check(!sd_kv_equal(a, b, 1), "two texts have the same keys");
    check(sd_kv_equal(a, a, T), "a sequence is not itself");
    const int32_t first = a->page[0], second = a->page[1]; // the same in all layers
    for (int l = 0; l < sd_context_model(cx)->hp.L; l++)
        sd_cuda_kv_copy_page(a->pool->memory, l, second, first, 30);
    a->page[0] = second, a->page[1] = first; // the copy is seen at the first page's place
    run_rows(logits, cx, e, 0, 0, T, NULL);
    check(sd_kv_equal(a, e, 30), "30 positions were copied");
    check(!sd_kv_equal(a, e, 31), "no more than 30");
    sd_kv_close(a), sd_kv_close(b), sd_kv_close(e);
}

TEST("pages are copied as far as they are asked for, and belong to their kind of context") {
    const sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = open_tiny(&t);
    sd_context *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, T, 0),
               *codes = open_typed(&sd_backend_cuda, m, SD_COMPUTE_AUTO, SD_KV_INT8, T, 0),
               *other = open_on(&sd_backend_cuda, m, SD_COMPUTE_FP32, T, 0),
               *cpu = open_on(&sd_backend_cpu, m, SD_COMPUTE_FP32, T, 0);
    float *logits = sd_alloc((size_t)T * (size_t)t.V, sizeof *logits);
    copy_pages(cx, logits), copy_pages(codes, logits);
    sd_kv *a = open_kv(cx, CTX), *b = open_kv(codes, CTX), *c = open_kv(other, CTX),
          *d = open_kv(cpu, CTX);
    sd_row row = {.kv = c, .want_logits = true};
    sd_error err = {0};
    check(sd_forward(cx, &row, 1, logits, &err) == SD_EINVAL &&
              strstr(err.message, "its cache was not made for this model"),
          "%s", err.message);
    row.kv = b;
    check(sd_forward(cx, &row, 1, logits, &err) == SD_EINVAL, "pages of codes");
    row.kv = d;
    check(sd_forward(cx, &row, 1, logits, &err) == SD_EINVAL, "pages of the CPU");
    row.kv = a;
    check(sd_forward(cpu, &row, 1, logits, &err) == SD_EINVAL, "pages of a device");
    free(logits);
    sd_kv_close(a), sd_kv_close(b), sd_kv_close(c), sd_kv_close(d);
    sd_context_close(cx), sd_context_close(codes), sd_context_close(other), sd_context_close(cpu);
    sd_model_release(m);
}

// 18,000 rows in the embedding and in the head: in fp32 18 MB each, which is more than both halves of the host's memory;
// in other types several slices, whose scales lie apart.
static void load_many(sd_dtype dtype) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.L = 1, t.C = t.F = 256, t.D = 64, t.V = 18000, t.dtype = dtype;
    sd_model *m = open_tiny(&t);
    sd_pool *pool = NULL;
    sd_error err = {0};
    const size_t n = 2 * (size_t)t.V;
    float *got = sd_alloc(n, sizeof *got), *want = sd_alloc(n, sizeof *want);
    must(sd_pool_open(&pool, 3, &err), &err);
    for (int device = 0; device < 2; device++) {
        sd_context *cx = NULL;
        const sd_context_options o = {.max_rows = 2,
                                      .compute = SD_COMPUTE_FP32,
                                      .backend = device ? &sd_backend_cuda : &sd_backend_cpu};
        must(sd_context_open(&cx, m, pool, &o, &err), &err);
        sd_kv *kv = open_kv(cx, 8);
        sd_row row[2] = {{.token = 5},
                         {.token = t.V - 7, .pos = 1}}; // of the first and a later wave
        for (int i = 0; i < 2; i++) row[i].kv = kv, row[i].want_logits = true;
        must(sd_forward(cx, row, 2, device ? got : want, &err), &err);
        sd_kv_close(kv);
        sd_context_close(cx);
    }
    const double off = distance(got, want, n);
    check(off <= 1e-5, "%s: off by %.3g", sd_dtype_name(dtype), off);
    free(got), free(want);
    sd_pool_close(pool);
    sd_model_release(m);
}

TEST("weights that need many slices and waves arrive whole") {
    static const sd_dtype types[] = {SD_F32, SD_Q8_0, SD_Q4_K};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) load_many(types[i]);
}

// Their values are a device's; that each is there, and what is left when the device fails, is not.
TEST("steps of each number of rows are timed, and what that took is given back") {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    t.L = 1;
    sd_model *m = open_tiny(&t);
    sd_context *few = open_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, SD_STEP_COST_MOST - 1, 4),
               *cx = open_on(&sd_backend_cuda, m, SD_COMPUTE_AUTO, SD_STEP_COST_MOST, 4);
    sd_step_costs costs;
    check(!sd_step_costs_get(&costs, few), "a context of 63 rows times 64");
    sd_log_set_level(SD_LOG_ERROR);
    const size_t before = emulated_bytes();
    for (int n = 1; n <= 3; n++) { // tables of pages, of angles: before anything is timed
        emulated_refuse(n);
        check(!sd_step_costs_get(&costs, cx), "times without memory");
        emulated_refuse(0);
    }
    check(sd_step_costs_get(&costs, cx), "no times");
    for (int i = 0; i < SD_STEP_COSTS; i++)
        check(costs.ms[i] > 0 && costs.ms[i] < 1e6, "%d rows: %g ms", sd_step_cost_rows[i],
              costs.ms[i]);
    sd_context_memory now;
    sd_context_get_memory(cx, &now);
    check(emulated_bytes() == before + now.splits, "%zu bytes are there, %zu were, %zu for steps",
          emulated_bytes(), before, now.splits);
    sd_context_close(few), sd_context_close(cx);
    check(emulated_bytes() == 0, "bytes are left");
    sd_model_release(m);
}

TEST("options that a device has not are refused by name") {
    const sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_model *m = open_tiny(&t);
    const struct {
        sd_context_options o;
        const char *part;
    } bad[] = {{{.kv = SD_KV_F16},
                "keys and values of f16 are not there on a CUDA device, which has bf16"},
               {{.kv = SD_KV_F16}, "which has bf16 or int8 here"},
               {{.kv = SD_KV_BF16, .compute = SD_COMPUTE_FP32}, "which has f32 or int8 here"},
               {{.device = 4}, "there is no device 4; give cuda:0 to cuda:3"},
               {{.max_rows = 70000}, "70000 rows a step, 1 to 65535 are allowed"},
               {{.max_rows = 4, .max_picked = 5}, "tokens of 5 rows a step, 0 to 4"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sd_context *cx = NULL;
        sd_error err = {0};
        sd_context_options o = bad[i].o;
        o.backend = &sd_backend_cuda;
        check(sd_context_open(&cx, m, NULL, &o, &err) == SD_EINVAL &&
                  strstr(err.message, bad[i].part) && !cx,
              "%s", err.message);
        sd_context_plan plan;
        check(sd_context_plan_open(&plan, m, &o, 1, 64, NULL, 0, &err) == SD_EINVAL, "a plan");
    }
    check(emulated_bytes() == 0, "bytes are left");
    sd_model_release(m);
}
