// A real model on the emulated device: greedy answers to four prompts in one batch, and each step's logits against the
// CPU's in fp32 of the same tokens. Minutes: a step of a 135M model is some three million emulated threads.
//
//   SPECDEC_MODEL=MODEL.gguf [TOKENS=16] [SKIP=0] build/release/cuda_tests/real_model
//
// TOKENS: of each answer. SKIP: so many are taken from the CPU first, for a run in parts. The device computes in bf16. A naive
// forward of that precision rounds six times in a block, by 2^-9 of a value at most, and its errors add as those of a
// random walk do; twice that is the bound.
#include "tests/cuda/model/check.h"

#include "base/clock.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PROMPTS = 4, MOST = 64 };
static const char *const prompts[PROMPTS] = {"The capital of France is",
                                             "def fibonacci(n):", "Once upon a time there was a",
                                             "The three primary colours are"};

typedef struct {
    int32_t id[2 * MOST];
    int n, prompt;
} text;

typedef struct {
    sd_context *cx;
    sd_kv *kv[PROMPTS];
} place;

static place open_place(const sd_backend *b, sd_model *m, sd_compute compute) {
    place p = {open_on(b, m, compute, PROMPTS * MOST, PROMPTS), {0}};
    for (int i = 0; i < PROMPTS; i++) p.kv[i] = open_kv(p.cx, 2 * MOST);
    return p;
}
static void close_place(place *p) {
    for (int i = 0; i < PROMPTS; i++) sd_kv_close(p->kv[i]);
    sd_context_close(p->cx);
}

// logits [PROMPTS, V] <- behind each text's last token: one step over all that the cache lacks.
static void step(place *p, const text t[PROMPTS], float *logits) {
    sd_row row[PROMPTS * MOST];
    sd_error err = {0};
    int n = 0;
    for (int i = 0; i < PROMPTS; i++) {
        for (int pos = p->kv[i]->len; pos < t[i].n; pos++)
            row[n++] = (sd_row){.token = t[i].id[pos],
                                .pos = pos,
                                .kv = p->kv[i],
                                .want_logits = pos == t[i].n - 1};
        p->kv[i]->len = t[i].n;
    }
    must(sd_forward(p->cx, row, n, logits, &err), &err);
}

static int number(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

TEST("a real model's greedy answers, and its logits beside the CPU's") {
    const char *path = getenv("SPECDEC_MODEL");
    const int tokens = number("TOKENS", 16), skip = number("SKIP", 0);
    check(path, "SPECDEC_MODEL names no model");
    sd_model *m = NULL;
    sd_error err = {0};
    text t[PROMPTS] = {0};
    must(sd_model_open(&m, path, &err), &err);
    const int V = m->hp.V;
    const double bound = 2 * 0x1p-9 * sqrt(6.0 * m->hp.L + 2);
    for (int i = 0; i < PROMPTS; i++) {
        sd_ids ids = {0};
        must(sd_tokenizer_encode(m->tokenizer, prompts[i], strlen(prompts[i]), 0, &ids, &err),
             &err);
        check(ids.n < MOST && tokens >= 0 && skip >= 0 && tokens + skip < MOST, "too long");
        memcpy(t[i].id, ids.id, (size_t)ids.n * sizeof *ids.id);
        t[i].n = t[i].prompt = (int)ids.n;
        sd_ids_free(&ids);
    }
    float *got = sd_alloc((size_t)PROMPTS * (size_t)V, sizeof *got),
          *want = sd_alloc((size_t)PROMPTS * (size_t)V, sizeof *want);
    place cpu = open_place(&sd_backend_cpu, m, SD_COMPUTE_FP32),
          cuda = open_place(&sd_backend_cuda, m, SD_COMPUTE_AUTO);
    for (int s = 0; s < skip; s++) {
        step(&cpu, t, want);
        for (int i = 0; i < PROMPTS; i++)
            t[i].id[t[i].n++] = sd_greedy(want + (size_t)i * (size_t)V, V);
    }
    int same = 0;
    double worst = 0;
    for (int s = 0; s < tokens; s++) {
        const double begin = sd_now_s();
        step(&cuda, t, got);
        const double seconds = sd_now_s() - begin;
        step(&cpu, t, want);
        printf("# step %2d, %5.1f s:", s + 1, seconds);
        for (int i = 0; i < PROMPTS; i++) {
            const float *g = got + (size_t)i * (size_t)V, *w = want + (size_t)i * (size_t)V;
            const double off = distance(g, w, (size_t)V);
            const int32_t token = sd_greedy(g, V);
            check(off <= bound, "prompt %d, token %d: off by %.3g of at most %.3g", i, s, off,
                  bound);
            same += token == sd_greedy(w, V);
            worst = off > worst ? off : worst;
            printf(" %.2g", off);
            t[i].id[t[i].n++] = token;
        }
        printf("\n");
        fflush(stdout);
    }
    for (int i = 0; i < PROMPTS; i++) {
        printf("# %s >", prompts[i]);
        for (int k = t[i].prompt; k < t[i].n; k++) {
            sd_buf b = sd_buf_make(256);
            must(sd_tokenizer_decode(m->tokenizer, &t[i].id[k], 1, false, &b, &err), &err);
            for (size_t c = 0; c < b.len; c++) putchar(b.data[c] == '\n' ? ' ' : b.data[c]);
            sd_buf_free(&b);
        }
        putchar('\n');
    }
    printf("# %d of %d tokens are the CPU's; logits off by %.3g at most, %.3g allowed\n", same,
           PROMPTS * tokens, worst, bound);
    close_place(&cpu), close_place(&cuda);
    free(got), free(want);
    sd_model_release(m);
}
