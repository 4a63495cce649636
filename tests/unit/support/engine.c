#include "tests/unit/support/engine.h"
#include "base/rng.h"

#include <stdio.h>
#include <string.h>

static void must(sd_status st, const sd_error *err) {
    if (st == SD_OK) return;
    fprintf(stderr, "%s\n", err->message);
    abort(); // reported by the test runner as a crash, with this line before it
}

void test_collect(void *ctx, const sd_event *ev) {
    test_answer *a = ctx;
    a->events++;
    for (int i = 0; i < ev->n; i++) {
        if (a->ids.n < 1024) a->logprob[a->ids.n] = ev->tokens[i].logprob;
        if (!sd_ids_add(&a->ids, &ev->tokens[i].token, 1)) abort();
    }
    if (!a->text.max) a->text.max = 1 << 20;
    if (ev->text_len && !sd_buf_add(&a->text, ev->text, ev->text_len)) abort();
    if (!ev->finish) return;
    a->finish = ev->finish;
    a->stats = *ev->stats;
    snprintf(a->error, sizeof a->error, "%s", ev->error ? ev->error : "");
}

void test_answer_free(test_answer *a) {
    sd_ids_free(&a->ids);
    sd_buf_free(&a->text);
    memset(a, 0, sizeof *a);
}

int test_plain(int32_t *out, float *logits, int n, sd_model *m, const int32_t *prompt, int n_prompt,
               const sd_sampling *p, const sd_adapter *adapter, bool ends) {
    sd_error err = {0};
    sd_context *cx = NULL;
    sd_kv *kv = NULL;
    int V = m->hp.V, made = 0;
    must(sd_context_open(&cx, m, NULL, &(sd_context_options){.max_rows = 1}, &err), &err);
    must(sd_kv_open(&kv, cx, n_prompt + n, &err), &err);
    sd_sampler *s = sd_sampler_open(V);
    float *row_logits = sd_alloc((size_t)V, sizeof *row_logits);
    if (!s || !row_logits) abort();
    for (int pos = 0; made < n; pos++) {
        sd_row row = {.token = pos < n_prompt ? prompt[pos] : out[pos - n_prompt],
                      .pos = pos,
                      .kv = kv,
                      .adapter = adapter,
                      .want_logits = true};
        must(sd_forward(cx, &row, 1, row_logits, &err), &err);
        kv->len = pos + 1;
        if (pos < n_prompt - 1) continue;
        if (logits) memcpy(logits + (size_t)made * V, row_logits, (size_t)V * sizeof *logits);
        int32_t x = sd_sample(s, row_logits, NULL, p, pos + 1);
        if (ends && sd_model_is_end(m, x)) break;
        out[made++] = x;
    }
    free(row_logits);
    sd_sampler_close(s);
    sd_kv_close(kv);
    sd_context_close(cx);
    return made;
}

void test_repetitive(int32_t *ids, int n, uint64_t seed, int alphabet) {
    for (int i = 0; i < n; i++) {
        uint32_t r[4];
        sd_philox(r, seed, SD_STREAM_INIT, (uint64_t)i);
        bool fresh = i < 12 || r[0] % 9 == 0;
        ids[i] = fresh ? (int32_t)(r[1] % (uint32_t)alphabet) : ids[i - 12];
    }
}

sd_engine *test_engine_open(sd_model *m, const sd_engine_options *o) {
    sd_engine *e = NULL;
    sd_error err = {0};
    must(sd_engine_open(&e, m, o, &err), &err);
    return e;
}

void test_run(sd_engine *e, const sd_request *r, test_answer *out) {
    sd_error err = {0};
    sd_request q = *r;
    q.on_event = test_collect, q.ctx = out;
    must(sd_engine_submit(e, &q, NULL, &err), &err);
    while (sd_engine_step(e)) {
    }
}
