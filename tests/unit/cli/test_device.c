// Everything that runs a model runs on the backend that it is given: the engine, a draft model, the
// benches and the verbs' own opening. The counting backend stands in for a device; it is what
// --device chooses here, since this file's sd_device_choose() comes before the library's.
#include "cli/bench/bench.h"
#include "cli/open_model.h"
#include "tests/unit/support/counting_backend.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include "base/files/path.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// cli/main.c has these, and is no part of a library.
volatile int sd_interrupted;
void sd_catch_interrupts(void) {}
bool sd_verb_help(const char *usage, const char *help, const sd_option *rows, int argc,
                  char **argv) {
    (void)usage, (void)help, (void)rows, (void)argc, (void)argv;
    return false;
}

sd_status sd_device_choose(const sd_backend **backend, int *device, const char *text,
                           sd_error *err) {
    if (strcmp(text, "none") == 0) return sd_fail(err, SD_ENOTFOUND, "no such device here");
    *backend = strcmp(text, "cpu") == 0 ? &sd_backend_cpu : &test_counting_backend;
    *device = 0;
    return SD_OK;
}

enum { PROMPT = 40, N = 32 };

typedef struct {
    char *dir, *model, *draft;
} world;

static world make_world(void) {
    world w = {.dir = sd_tiny_dir()};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2), near = t;
    near.dtype = SD_Q8_0;
    w.model = sd_path_join(w.dir, "tiny.gguf");
    w.draft = sd_path_join(w.dir, "draft.gguf");
    cr_assert_eq(sd_tiny_write_gguf(w.model, &t, NULL), SD_OK);
    cr_assert_eq(sd_tiny_write_gguf(w.draft, &near, NULL), SD_OK);
    return w;
}

static void free_world(world *w) {
    cr_assert_eq(test_counted.opened, test_counted.closed);
    free(w->model), free(w->draft);
    sd_tiny_remove(w->dir);
}

Test(device, the_engine_and_its_draft_model_run_on_it_and_hand_out_no_logits) {
    world w = make_world();
    sd_model *m = NULL;
    int32_t prompt[PROMPT], want[N];
    const sd_sampling law = {.temperature = .6f, .top_p = .95f, .seed = 8};
    cr_assert_eq(sd_model_open(&m, w.model, NULL), SD_OK);
    test_repetitive(prompt, PROMPT, 3, 250);
    test_plain(want, NULL, N, m, prompt, PROMPT, &law, NULL, false);
    cr_assert_eq(test_counted.opened, 0, "plain decoding is the CPU's here");
    for (int logprobs = -1; logprobs < 1; logprobs++) {
        test_counted = (test_backend_counts){0};
        sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = 128,
                                                                .slots = 2,
                                                                .threads = 2,
                                                                .spec_length = 3,
                                                                .draft = w.draft,
                                                                .step_ms = 100,
                                                                .backend = &test_counting_backend});
        cr_assert_eq(test_counted.opened, 2, "the model and the draft");
        cr_assert_eq(test_counted.kv_opened, 2, "the engine's pages and the draft's");
        cr_assert_eq(test_counted.costs, 1);
        test_answer a = {0};
        sd_request r = {.prompt = prompt,
                        .n_prompt = PROMPT,
                        .max_tokens = N,
                        .sampling = law,
                        .ignore_end = true,
                        .logprobs = logprobs};
        test_run(e, &r, &a);
        cr_assert(a.ids.n == N && memcmp(a.ids.id, want, sizeof want) == 0);
        const sd_spec_stats *s = &a.stats.spec;
        cr_assert(s->drafted > N / 2 && s->accepted > 0);
        // The prompt's last row, each round's rows, and at least one row of the draft a round.
        cr_assert_geq(test_counted.picked, 1 + s->rounds + s->drafted + s->rounds - 1);
        cr_assert_eq(test_counted.logits, logprobs < 0 ? 0 : 1 + s->rounds + s->drafted);
        test_answer_free(&a);
        sd_engine_close(e);
    }
    sd_model_release(m);
    free_world(&w);
}

static void silence(void) {
    fflush(stdout);
    cr_assert_not_null(freopen("/dev/null", "w", stdout));
}

#define RUN(verb, ...)                                                                             \
    do {                                                                                           \
        char *args[] = {__VA_ARGS__};                                                              \
        sd_error err = {0};                                                                        \
        cr_assert_eq(verb((int)(sizeof args / sizeof *args), args, &err), SD_OK, "%s",             \
                     err.message);                                                                 \
    } while (0)

Test(device, the_bench_of_a_model_runs_on_it, .timeout = 120) {
    world w = make_world();
    silence();
    RUN(sd_bench_model, "-m", w.model, "--rounds", "1", "--prefill", "8", "--depth", "0",
        "--no-start", "--no-pack-cache", "--threads", "1", "--json");
    cr_assert_eq(test_counted.opened, 1);
    cr_assert_gt(test_counted.forwards, 5);
    cr_assert_gt(test_counted.logits, 64);
    test_backend_counts before = test_counted;
    RUN(sd_bench_model, "-m", w.model, "--rounds", "1", "--prefill", "8", "--depth", "0",
        "--no-start", "--no-pack-cache", "--threads", "1", "--json", "--device", "cpu");
    cr_assert_eq(memcmp(&before, &test_counted, sizeof before), 0, "--device decides");
    free_world(&w);
}

Test(device, the_bench_of_speculation_runs_on_it) {
    world w = make_world();
    char *prompts = sd_path_join(w.dir, "prompts.jsonl");
    FILE *f = fopen(prompts, "w");
    cr_assert_not_null(f);
    fputs("{\"task\":\"t\",\"max_tokens\":24,\"prompt\":\"abab abab abab abab\"}\n", f);
    fclose(f);
    silence();
    RUN(sd_bench_spec, "-m", w.model, "-d", w.draft, "--spec-length", "2", "--no-pack-cache",
        "--threads", "1", "--json", prompts);
    cr_assert_eq(test_counted.opened, 2);
    cr_assert_gt(test_counted.picked, 48);
    cr_assert_eq(test_counted.logits, 0);
    free(prompts);
    free_world(&w);
}

Test(device, a_verb_that_reads_logits_opens_its_model_on_it) {
    world w = make_world();
    sd_run_model r;
    sd_error err = {0};
    sd_model_args a = {.model = w.model, .device = "auto", .threads = 1, .no_pack_cache = true};
    cr_assert_eq(sd_run_model_open(&r, &a, NULL, 8, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_context_backend(r.cx), &test_counting_backend);
    sd_run_model_close(&r);
    a.device = "cpu";
    cr_assert_eq(sd_run_model_open(&r, &a, NULL, 8, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_context_backend(r.cx), &sd_backend_cpu);
    sd_run_model_close(&r);
    a.device = "none";
    cr_assert_eq(sd_run_model_open(&r, &a, NULL, 8, &err), SD_ENOTFOUND);
    cr_assert_str_eq(err.message, "no such device here");
    free_world(&w);
}
