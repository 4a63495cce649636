// Requests that read their prompt: their values are those of decoding, to the bit, however they run and whoever
// runs beside them; what they find in the prefix cache they need not compute.
#include "base/memory.h"
#include "decode/engine/private.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { CTX = 512, LONG = 300, MANY = 12, TOKENS = 3 };
static const int32_t asked[TOKENS] = {7, 0, 200};

typedef struct {
    float value[TOKENS];
    int n, tokens, ends;
    sd_finish finish;
    sd_request_stats stats;
    char error[256];
} reading;

static void on_event(void *ctx, const sd_event *ev) {
    reading *r = ctx;
    r->tokens += ev->n;
    if (!ev->finish) return;
    r->ends++;
    r->finish = ev->finish;
    r->stats = *ev->stats;
    r->n = ev->n_values;
    snprintf(r->error, sizeof r->error, "%s", ev->error ? ev->error : "");
    if (ev->n_values) memcpy(r->value, ev->values, (size_t)ev->n_values * sizeof(float));
}

static sd_request read_of(const int32_t *prompt, int n, reading *r) {
    return (sd_request){.prompt = prompt,
                        .n_prompt = n,
                        .logprobs = -1,
                        .reading = {SD_READ_TOKENS, asked, TOKENS},
                        .on_event = on_event,
                        .ctx = r};
}

static sd_model *tiny(void) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.ctx = CTX;
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

// What plain decoding says of the tokens behind the prompt.
static void expect(const reading *r, sd_model *m, const int32_t *prompt, int n) {
    const int V = m->hp.V;
    float *logits = sd_alloc((size_t)V, sizeof *logits);
    int32_t next;
    test_plain(&next, logits, 1, m, prompt, n, &(sd_sampling){0}, NULL, false);
    const float total = sd_log_total(logits, V);
    cr_assert_eq(r->finish, SD_FINISH_STOP, "%s", r->error);
    cr_assert(r->ends == 1 && r->n == TOKENS && r->tokens == 0);
    for (int i = 0; i < TOKENS; i++) {
        float want = logits[asked[i]] - total;
        cr_assert_eq(memcmp(&r->value[i], &want, sizeof want), 0, "%g, not %g", (double)r->value[i],
                     (double)want);
    }
    free(logits);
}

Test(engine_reading, values_are_those_of_decoding_in_any_chunks_and_found_again) {
    int32_t prompt[LONG];
    sd_model *m = tiny();
    test_repetitive(prompt, LONG, 3, 200);
    for (int chunk = 1; chunk <= 192; chunk += 95) {
        sd_engine *e = test_engine_open(
            m, &(sd_engine_options){.ctx = CTX, .slots = 2, .prefill_chunk = chunk});
        for (int again = 0; again < 2; again++) {
            reading r = {0};
            sd_request q = read_of(prompt, LONG, &r);
            cr_assert_eq(sd_engine_submit(e, &q, NULL, NULL), SD_OK);
            while (sd_engine_step(e)) {
            }
            expect(&r, m, prompt, LONG);
            cr_assert_eq(r.stats.cached_tokens, again ? LONG - 1 : 0);
            cr_assert_eq(r.stats.generated, 0);
        }
        sd_engine_close(e);
    }
    sd_model_release(m);
}

Test(engine_reading, a_prompt_of_one_token_is_read) {
    sd_model *m = tiny();
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 1});
    int32_t one = 65;
    reading r = {0};
    sd_request q = read_of(&one, 1, &r);
    cr_assert_eq(sd_engine_submit(e, &q, NULL, NULL), SD_OK);
    while (sd_engine_step(e)) {
    }
    expect(&r, m, &one, 1);
    sd_engine_close(e);
    sd_model_release(m);
}

// Short questions about one text, among answers: nobody's numbers change, and the text is computed once.
Test(engine_reading, many_readings_of_one_text_run_beside_answers) {
    int32_t prompt[MANY][LONG];
    reading r[MANY] = {0}, first = {0};
    sd_model *m = tiny();
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 4});
    for (int i = 0; i < MANY; i++) {
        test_repetitive(prompt[i], LONG, 9, 200);
        for (int k = LONG - 4; k < LONG; k++) prompt[i][k] = 10 * i + k % 7;
    }
    sd_request q = read_of(prompt[0], LONG, &first);
    cr_assert_eq(sd_engine_submit(e, &q, NULL, NULL), SD_OK);
    while (sd_engine_step(e)) {
    }
    test_answer a = {0}, b = {0};
    sd_request talk = {.prompt = prompt[1],
                       .n_prompt = 50,
                       .max_tokens = 40,
                       .sampling = {.temperature = 1, .top_p = 1, .seed = 5},
                       .ignore_end = true,
                       .logprobs = 0,
                       .on_event = test_collect,
                       .ctx = &a};
    cr_assert_eq(sd_engine_submit(e, &talk, NULL, NULL), SD_OK);
    for (int i = 0; i < MANY; i++) {
        q = read_of(prompt[i], LONG, &r[i]);
        cr_assert_eq(sd_engine_submit(e, &q, NULL, NULL), SD_OK);
    }
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < MANY; i++) {
        expect(&r[i], m, prompt[i], LONG);
        cr_assert_geq(r[i].stats.cached_tokens, LONG - 4, "of the text %d were found",
                      r[i].stats.cached_tokens);
    }
    sd_engine_close(e);
    e = test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 1});
    test_run(e, &talk, &b);
    cr_assert_eq(a.ids.n, 40);
    cr_assert(a.ids.n == b.ids.n &&
              memcmp(a.ids.id, b.ids.id, (size_t)a.ids.n * sizeof *a.ids.id) == 0);
    test_answer_free(&a), test_answer_free(&b);
    sd_engine_close(e);
    sd_model_release(m);
}

Test(engine_reading, what_cannot_be_read_is_refused_by_name) {
    sd_model *m = tiny();
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 1});
    int32_t prompt[4] = {1, 2, 3, 4}, outside = 9999;
    reading r = {0};
    const struct {
        sd_request_reading reading;
        int logprobs;
        const char *names;
    } bad[] = {{{SD_READ_TOKENS, asked, 0}, -1, "0 tokens"},
               {{SD_READ_TOKENS, asked, SD_MAX_READ_TOKENS + 1}, -1, "tokens are read"},
               {{SD_READ_TOKENS, NULL, 1}, -1, "tokens are read"},
               {{SD_READ_TOKENS, &outside, 1}, -1, "vocabulary"},
               {{SD_READ_KINDS, asked, 1}, -1, "kind"},
               {{SD_READ_TOKENS, asked, 1}, 2, "no answer"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sd_error err = {0};
        sd_request q = read_of(prompt, 4, &r);
        q.reading = bad[i].reading, q.logprobs = bad[i].logprobs;
        cr_expect_eq(sd_engine_submit(e, &q, NULL, &err), SD_EINVAL);
        cr_expect(strstr(err.message, bad[i].names), "%s", err.message);
    }
    cr_assert_eq(r.ends, 0);
    sd_engine_close(e);
    sd_model_release(m);
}
