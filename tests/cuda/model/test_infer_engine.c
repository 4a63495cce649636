// The engine on the emulated device: a request's tokens are those of one row at a time there, with speculation and
// without, alone and beside others.
#include "tests/cuda/model/check.h"

#include "tests/cuda/device_emu.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/sanitized.h"

#include "base/files/path.h"

#include <stdio.h>
#include <string.h>

enum { PROMPT = 40, N = 12, REQUESTS = 8 };

static void prompt_of(int32_t *out, int request) {
    test_repetitive(out, PROMPT, 3 + (uint64_t)request, 250);
}
static sd_sampling law_of(int request) {
    return request % 2 ? (sd_sampling){.temperature = .6f, .top_p = .95f, .seed = 8}
                       : (sd_sampling){.top_p = 1};
}

// The prompt in one step, then one row and one token at a time.
static void plain(int32_t *out, sd_model *m, sd_compute compute, int request) {
    sd_context *cx = open_on(&sd_backend_cuda, m, compute, PROMPT, 1);
    sd_kv *kv = open_kv(cx, PROMPT + N);
    int32_t prompt[PROMPT];
    const sd_sampling law = law_of(request);
    const sd_pick pick = {.sampling = &law};
    sd_error err = {0};
    prompt_of(prompt, request);
    sd_row row[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        row[i] = (sd_row){
            .token = prompt[i], .pos = i, .kv = kv, .pick = i == PROMPT - 1 ? &pick : NULL};
    for (int made = 0, n = PROMPT; made < N; n = 1) {
        sd_picked got;
        must(sd_forward_pick(cx, row, n, NULL, &got, &err), &err);
        out[made] = got.token;
        kv->len = PROMPT + made;
        row[0] = (sd_row){.token = got.token, .pos = PROMPT + made++, .kv = kv, .pick = &pick};
    }
    sd_kv_close(kv);
    sd_context_close(cx);
}

static sd_engine *open_engine(sd_model *m, sd_compute compute, sd_spec_mode spec, const char *draft,
                              int slots) {
    return test_engine_open(m, &(sd_engine_options){.ctx = 128,
                                                    .slots = slots,
                                                    .threads = 1,
                                                    .compute = compute,
                                                    .prefill_chunk = 24,
                                                    .spec = spec,
                                                    .spec_length = spec == SD_SPEC_OFF ? 0 : 3,
                                                    .draft = draft,
                                                    .backend = &sd_backend_cuda});
}

static sd_request request_of(int32_t *prompt, int request) {
    prompt_of(prompt, request);
    return (sd_request){.prompt = prompt,
                        .n_prompt = PROMPT,
                        .max_tokens = N,
                        .sampling = law_of(request),
                        .ignore_end = true,
                        .logprobs = -1};
}

static void same(const test_answer *a, const int32_t *want, const char *how, int request) {
    check(a->ids.n == N && !a->error[0], "%s, request %d: %zu tokens, %s", how, request,
          (size_t)a->ids.n, a->error);
    for (int i = 0; i < N; i++)
        check(a->ids.id[i] == want[i], "%s, request %d: token %d is %d, want %d", how, request, i,
              a->ids.id[i], want[i]);
}

// A batch of eight, then one of the requests alone.
static void run_all(sd_model *m, sd_compute compute, sd_spec_mode spec, const char *draft,
                    int32_t want[REQUESTS][N], const char *how) {
    sd_engine *e = open_engine(m, compute, spec, draft, REQUESTS);
    test_answer a[REQUESTS] = {0};
    int32_t prompt[PROMPT];
    int64_t drafted = 0, accepted = 0;
    sd_error err = {0};
    for (int i = 0; i < REQUESTS; i++) {
        sd_request r = request_of(prompt, i);
        r.on_event = test_collect, r.ctx = &a[i];
        must(sd_engine_submit(e, &r, NULL, &err), &err);
    }
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < REQUESTS; i++) {
        same(&a[i], want[i], how, i);
        drafted += a[i].stats.spec.drafted, accepted += a[i].stats.spec.accepted;
        test_answer_free(&a[i]);
    }
    check(spec == SD_SPEC_OFF ? drafted == 0 : drafted > N && accepted > 0,
          "%s: %lld drafted, %lld accepted", how, (long long)drafted, (long long)accepted);
    sd_request r = request_of(prompt, 1);
    test_answer one = {0};
    test_run(e, &r, &one);
    same(&one, want[1], how, 1);
    test_answer_free(&one);
    sd_engine_close(e);
    check(emulated_bytes() == 0, "%zu bytes are left", emulated_bytes());
}

TEST("tokens are those of one row at a time, in a batch and alone, drafted or not") {
    for (int i = 0; sd_arch_at(i); i++) {
        if (SD_SANITIZED && sd_arch_at(i) != &sd_arch_gemma3)
            continue; // the most of an architecture
        const sd_tiny_model t = sd_tiny_default(sd_arch_at(i));
        sd_model *m = open_tiny(&t);
        int32_t want[REQUESTS][N];
        for (int r = 0; r < REQUESTS; r++) plain(want[r], m, SD_COMPUTE_AUTO, r);
        run_all(m, SD_COMPUTE_AUTO, SD_SPEC_OFF, NULL, want, "plain");
        run_all(m, SD_COMPUTE_AUTO, SD_SPEC_AUTO, NULL, want, "drafted");
        sd_model_release(m);
    }
}

TEST("a draft model on the device drafts, and changes no token") {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "draft.gguf");
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2), near = t;
    sd_error err = {0};
    near.dtype = SD_Q8_0;
    must(sd_tiny_write_gguf(path, &near, &err), &err);
    sd_model *m = open_tiny(&t);
    int32_t want[REQUESTS][N];
    for (int r = 0; r < REQUESTS; r++) plain(want[r], m, SD_COMPUTE_FP32, r);
    run_all(m, SD_COMPUTE_FP32, SD_SPEC_AUTO, path, want, "a draft model");
    sd_model_release(m);
    free(path);
    sd_tiny_remove(dir);
}

// Whole pages are read where they lie, the begun one is copied on the device.
TEST("what is found of an earlier prompt gives the tokens that computing it gives") {
    enum { LONG = 110, SHARED = 100 };
    const sd_tiny_model t = sd_tiny_default(&sd_arch_qwen3);
    sd_model *m = open_tiny(&t);
    int32_t prompt[2][LONG], want[2][N];
    for (int i = 0; i < LONG; i++) {
        prompt[0][i] = token_at(0, i, 250);
        prompt[1][i] = i < SHARED ? prompt[0][i] : token_at(1, i, 250);
    }
    for (int cached = 0; cached < 2; cached++) {
        sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = 128,
                                                                .slots = 2,
                                                                .threads = 1,
                                                                .no_prefix_cache = !cached,
                                                                .spec = SD_SPEC_OFF,
                                                                .backend = &sd_backend_cuda});
        for (int i = 0; i < 2 + cached; i++) {
            test_answer a = {0};
            const sd_request r = {.prompt = prompt[i % 2],
                                  .n_prompt = LONG,
                                  .max_tokens = N,
                                  .sampling = law_of(1),
                                  .ignore_end = true,
                                  .logprobs = -1};
            test_run(e, &r, &a);
            check(a.ids.n == N && !a.error[0], "%d tokens, %s", a.ids.n, a.error);
            if (!cached)
                memcpy(want[i], a.ids.id, sizeof want[i]);
            else
                same(&a, want[i % 2], "a found prompt", i % 2);
            const int least = !cached || i == 0 ? 0 : i == 1 ? SHARED - 1 : LONG - 2;
            check(a.stats.cached_tokens >= least && (least || a.stats.cached_tokens == 0),
                  "request %d: %d tokens were found, %d are there", i, a.stats.cached_tokens,
                  least);
            test_answer_free(&a);
        }
        sd_engine_close(e);
    }
    sd_model_release(m);
}
