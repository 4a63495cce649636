// The engine's behaviour: ends, stop strings, limits, cancelling, the queue, logprobs, threads.
#include "decode/engine/engine.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { PROMPT = 40, N = 60 };

static sd_model *tiny(void) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

static sd_request request(const int32_t *prompt, int n) {
    return (sd_request){.prompt = prompt,
                        .n_prompt = n,
                        .max_tokens = N,
                        .sampling = {.temperature = 1, .top_p = 1, .seed = 17},
                        .ignore_end = true,
                        .logprobs = -1};
}

typedef struct {
    sd_model *model;
    int32_t prompt[PROMPT];
    test_answer full; // N tokens without any stop
} world;

static world make_world(void) {
    world w = {.model = tiny()};
    test_repetitive(w.prompt, PROMPT, 5, 200);
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.slots = 1, .spec = SD_SPEC_OFF});
    sd_request r = request(w.prompt, PROMPT);
    test_run(e, &r, &w.full);
    cr_assert_eq(w.full.ids.n, N);
    sd_engine_close(e);
    return w;
}

static void free_world(world *w) {
    test_answer_free(&w->full);
    sd_model_release(w->model);
}

// The bytes of the first n tokens of the full answer, as text.
static sd_buf text_of(const world *w, int n) {
    sd_buf b = sd_buf_make(1 << 16);
    sd_utf8_stream u = {0};
    for (int i = 0; i < n; i++) {
        size_t len;
        if (sd_tokenizer_is_special(w->model->tokenizer, w->full.ids.id[i])) continue;
        const char *bytes = sd_tokenizer_bytes(w->model->tokenizer, w->full.ids.id[i], &len);
        sd_utf8_stream_add(&u, bytes, len, &b);
    }
    return b;
}

Test(engine, text_is_complete_utf8_and_equals_the_tokens_text) {
    world w = make_world();
    sd_buf want = text_of(&w, N);
    sd_utf8_stream u = {0};
    cr_assert_geq(w.full.text.len, want.len);
    cr_assert_eq(memcmp(w.full.text.data, want.data, want.len), 0);
    for (size_t i = 0; i < w.full.text.len;) { // every code point has its bytes
        unsigned char c = (unsigned char)w.full.text.data[i++];
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
        cr_assert(c < 0x80 || c >= 0xc0);
        for (; more > 0; more--)
            cr_assert(i < w.full.text.len && ((unsigned char)w.full.text.data[i++] & 0xc0) == 0x80);
    }
    (void)u;
    sd_buf_free(&want);
    free_world(&w);
}

Test(engine, a_stop_string_is_cut_off_exactly_wherever_token_borders_fall) {
    world w = make_world();
    const char *text = w.full.text.data;
    size_t len = w.full.text.len;
    int across = 0, checked = 0;
    for (int spec_length = 0; spec_length <= 8; spec_length += 8) {
        sd_engine *e = test_engine_open(
            w.model, &(sd_engine_options){.slots = 2, .threads = 1, .spec_length = spec_length});
        for (size_t at = 3; at + 4 < len; at += 3) {
            char stop[8] = {0};
            size_t n = 1 + at % 4, begin = at;
            while (begin < len && ((unsigned char)text[begin] & 0xc0) == 0x80) begin++;
            size_t end = begin + n;
            while (end < len && ((unsigned char)text[end] & 0xc0) == 0x80) end++;
            if (end - begin > 7 || end > len || memchr(text + begin, 0, end - begin)) continue;
            memcpy(stop, text + begin, end - begin);
            const char *first = memmem(text, len, stop, end - begin);
            sd_request r = request(w.prompt, PROMPT);
            r.stop[0] = stop, r.n_stop = 1;
            test_answer a = {0};
            test_run(e, &r, &a);
            cr_assert_eq(a.finish, SD_FINISH_STOP);
            cr_assert_eq(a.text.len, (size_t)(first - text), "stop '%s': %zu bytes, want %zu", stop,
                         a.text.len, (size_t)(first - text));
            cr_assert(a.text.len == 0 || memcmp(a.text.data, text, a.text.len) == 0);
            cr_assert_eq(memcmp(a.ids.id, w.full.ids.id, (size_t)a.ids.n * 4), 0);
            // Not a token more than was needed to see the stop string.
            sd_buf before = text_of(&w, a.ids.n - 1);
            cr_assert(!before.len || !memmem(before.data, before.len, stop, end - begin));
            across += before.len > (size_t)(first - text);
            checked++;
            sd_buf_free(&before);
            test_answer_free(&a);
        }
        sd_engine_close(e);
    }
    cr_assert_gt(checked, 20);
    cr_assert_gt(across, 3, "%d stop strings began in an earlier token than they ended", across);
    free_world(&w);
}

Test(engine, text_held_back_for_a_stop_string_comes_when_it_does_not_follow) {
    world w = make_world();
    // A stop string that begins with every byte of the end of the text and never completes.
    char stop[16] = {0};
    size_t len = w.full.text.len, begin = len - 3;
    while (begin > 0 && ((unsigned char)w.full.text.data[begin] & 0xc0) == 0x80) begin--;
    memcpy(stop, w.full.text.data + begin, len - begin);
    strcat(stop, "~~~");
    if (memchr(w.full.text.data + begin, 0, len - begin)) cr_skip_test("the text ends in a NUL");
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.slots = 1});
    sd_request r = request(w.prompt, PROMPT);
    r.stop[0] = stop, r.n_stop = 1;
    test_answer a = {0};
    test_run(e, &r, &a);
    cr_assert_eq(a.finish, SD_FINISH_LENGTH);
    cr_assert_eq(a.text.len, len);
    cr_assert_eq(memcmp(a.text.data, w.full.text.data, len), 0);
    test_answer_free(&a);
    sd_engine_close(e);
    free_world(&w);
}

Test(engine, a_stop_token_ends_the_answer_and_is_not_part_of_it) {
    world w = make_world();
    int at = 20;
    for (int i = 0; i < at; i++)
        if (w.full.ids.id[i] == w.full.ids.id[at]) at = i;
    int32_t stop = w.full.ids.id[at];
    for (int spec_length = 0; spec_length <= 5; spec_length += 5) {
        sd_engine *e =
            test_engine_open(w.model, &(sd_engine_options){.slots = 1, .spec_length = spec_length});
        sd_request r = request(w.prompt, PROMPT);
        r.stop_token = &stop, r.n_stop_token = 1;
        test_answer a = {0};
        test_run(e, &r, &a);
        cr_assert_eq(a.finish, SD_FINISH_STOP);
        cr_assert_eq(a.ids.n, at);
        cr_assert_eq(a.stats.generated, at + 1, "the end token counts, as in vLLM");
        test_answer_free(&a);
        sd_engine_close(e);
    }
    free_world(&w);
}

// An adapter's conversation may end where the base's does not: the end is the request's, and whoever
// runs beside it goes on.
Test(engine, a_requests_own_end_token_ends_it_and_no_other) {
    world w = make_world();
    int at = 20;
    for (int i = 0; i < at; i++)
        if (w.full.ids.id[i] == w.full.ids.id[at]) at = i;
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.slots = 2});
    for (int ignore = 0; ignore < 2; ignore++) {
        sd_request r[2] = {request(w.prompt, PROMPT), request(w.prompt, PROMPT)};
        r[0].end_token[0] = w.full.ids.id[at], r[0].n_end_tokens = 1;
        r[0].ignore_end = ignore;
        for (int i = 0; i < 2; i++) {
            test_answer a = {0};
            test_run(e, &r[i], &a);
            bool ends = i == 0 && !ignore;
            cr_assert_eq(a.finish, ends ? SD_FINISH_STOP : SD_FINISH_LENGTH, "%d %d", i, ignore);
            cr_assert_eq(a.ids.n, ends ? at : w.full.ids.n, "%d %d", i, ignore);
            test_answer_free(&a);
        }
    }
    sd_engine_close(e);
    free_world(&w);
}

Test(engine, answers_end_at_max_tokens_and_at_the_end_of_the_context) {
    world w = make_world();
    static const int lengths[] = {0, 4, 48};
    for (int l = 0; l < 3; l++) {
        sd_engine *e = test_engine_open(
            w.model,
            &(sd_engine_options){.ctx = PROMPT + 9, .slots = 1, .spec_length = lengths[l]});
        sd_request r = request(w.prompt, PROMPT);
        for (int max = 0; max <= 10; max++) {
            test_answer a = {0};
            r.max_tokens = max;
            test_run(e, &r, &a);
            cr_assert_eq(a.finish, SD_FINISH_LENGTH);
            int want = max == 0 || max > 9 ? 9 : max;
            cr_assert_eq(a.ids.n, want, "%d tokens for max_tokens %d", a.ids.n, max);
            cr_assert_eq(memcmp(a.ids.id, w.full.ids.id, (size_t)want * 4), 0);
            cr_assert_eq(a.stats.prompt_tokens, PROMPT);
            test_answer_free(&a);
        }
        sd_engine_close(e);
    }
    free_world(&w);
}

Test(engine, what_cannot_be_run_is_refused_with_both_numbers) {
    world w = make_world();
    sd_error err;
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = PROMPT, .slots = 1});
    sd_request r = request(w.prompt, PROMPT);
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "40 tokens and the context 40"), "%s", err.message);
    int32_t bad = 288;
    r = request(&bad, 1);
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "288"));
    r = request(w.prompt, 5);
    r.spec = SD_SPEC_DRAFT;
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_EINVAL);
    r = request(w.prompt, 5);
    r.sampling.temperature = NAN;
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_EINVAL);
    r = request(w.prompt, 5);
    r.stop[0] = "", r.n_stop = 1;
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_EINVAL);
    r = request(w.prompt, 0);
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_EINVAL);
    cr_assert_not(sd_engine_step(e), "nothing was admitted");
    sd_engine_close(e);
    e = NULL;
    cr_assert_eq(sd_engine_open(&e, w.model, &(sd_engine_options){.ctx = 1 << 20}, &err),
                 SD_EINVAL);
    cr_assert_eq(sd_engine_open(&e, w.model, &(sd_engine_options){.draft = "/nonexistent"}, &err),
                 SD_ENOTFOUND);
    cr_assert(strstr(err.message, "/nonexistent"));
    cr_assert_null(e);
    free_world(&w);
}

Test(engine, a_full_queue_refuses_and_the_queued_are_served) {
    world w = make_world();
    sd_error err;
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.slots = 1, .queue = 3});
    test_answer a[5] = {0};
    for (int i = 0; i < 5; i++) { // one for the free slot, three for the queue
        sd_request r = request(w.prompt, PROMPT);
        r.max_tokens = 5, r.on_event = test_collect, r.ctx = &a[i];
        cr_assert_eq(sd_engine_has_room(e, 0, 1), i < 4);
        cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), i < 4 ? SD_OK : SD_ELIMIT);
    }
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    cr_assert_eq(s.waiting, 4);
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(a[i].ids.n, 5);
        test_answer_free(&a[i]);
    }
    cr_assert_eq(a[4].events, 0);
    sd_engine_get_stats(e, &s);
    cr_assert(s.waiting == 0 && s.running == 0 && s.generated_tokens == 20);
    cr_assert_eq(s.prompt_tokens, 4 * PROMPT);
    sd_engine_close(e);
    free_world(&w);
}

Test(engine, cancelling_frees_the_slot_at_the_next_step) {
    world w = make_world();
    sd_engine *e =
        test_engine_open(w.model, &(sd_engine_options){.slots = 1, .queue = 4, .prefill_chunk = 8});
    test_answer a[3] = {0};
    uint64_t id[3];
    for (int i = 0; i < 3; i++) {
        sd_request r = request(w.prompt, PROMPT);
        r.on_event = test_collect, r.ctx = &a[i];
        cr_assert_eq(sd_engine_submit(e, &r, &id[i], NULL), SD_OK);
    }
    sd_engine_step(e); // the first is in the middle of its prompt
    sd_engine_cancel(e, id[0]);
    sd_engine_cancel(e, id[1]); // waits
    sd_engine_cancel(e, 12345); // nobody
    sd_engine_step(e);
    cr_assert(a[0].finish == SD_FINISH_CANCELLED && a[0].ids.n == 0);
    cr_assert(a[1].finish == SD_FINISH_CANCELLED && a[1].events == 1);
    for (int i = 0; i < 12; i++) sd_engine_step(e);
    cr_assert_gt(a[2].ids.n, 2);
    int had = a[2].ids.n;
    sd_engine_cancel(e, id[2]);
    cr_assert_not(sd_engine_step(e));
    cr_assert(a[2].finish == SD_FINISH_CANCELLED && a[2].ids.n == had);
    cr_assert_eq(memcmp(a[2].ids.id, w.full.ids.id, (size_t)had * 4), 0);
    test_answer again = {0};
    sd_request r = request(w.prompt, PROMPT);
    test_run(e, &r, &again);
    cr_assert_eq(memcmp(again.ids.id, w.full.ids.id, N * 4), 0, "the slot is as new");
    for (int i = 0; i < 3; i++) test_answer_free(&a[i]);
    test_answer_free(&again);
    sd_engine_close(e);
    free_world(&w);
}

Test(engine, closing_cancels_what_is_left_and_says_so) {
    world w = make_world();
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.slots = 1});
    test_answer a[2] = {0};
    for (int i = 0; i < 2; i++) {
        sd_request r = request(w.prompt, PROMPT);
        r.on_event = test_collect, r.ctx = &a[i];
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
    }
    sd_engine_step(e);
    sd_engine_close(e);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(a[i].finish, SD_FINISH_CANCELLED);
        test_answer_free(&a[i]);
    }
    free_world(&w);
}

Test(engine, logprobs_are_those_of_the_untempered_law_whatever_was_drafted) {
    world w = make_world();
    test_answer a[2] = {0};
    for (int i = 0; i < 2; i++) {
        sd_engine *e =
            test_engine_open(w.model, &(sd_engine_options){.slots = 1, .spec_length = i * 5});
        sd_request r = request(w.prompt, PROMPT);
        r.logprobs = 3;
        r.sampling.temperature = 0; // this model repeats itself only when it is greedy
        r.spec = i ? SD_SPEC_AUTO : SD_SPEC_OFF;
        test_run(e, &r, &a[i]);
        sd_engine_close(e);
    }
    cr_assert_gt(a[1].stats.spec.accepted, 0);
    cr_assert_eq(memcmp(a[0].logprob, a[1].logprob, N * sizeof(float)), 0);
    float *logits = malloc((size_t)N * w.model->hp.V * sizeof *logits);
    int32_t ids[N];
    sd_request r = request(w.prompt, PROMPT);
    r.sampling.temperature = 0;
    test_plain(ids, logits, N, w.model, w.prompt, PROMPT, &r.sampling, NULL, false);
    for (int i = 0; i < N; i++)
        cr_assert_eq(a[0].logprob[i],
                     sd_logprob(logits + (size_t)i * w.model->hp.V, w.model->hp.V, ids[i]));
    free(logits);
    test_answer_free(&a[0]), test_answer_free(&a[1]);
    free_world(&w);
}

// An adapter of ones with `bad` among the factors of the first matrix.
static sd_adapter *adapter_with(sd_model *m, float bad) {
    int slots = m->n_linears;
    sd_lora *lora = sd_alloc((size_t)slots, sizeof *lora);
    for (int i = 0; i < slots; i++) {
        int rows, cols;
        rows = m->linear[i].w.rows, cols = m->linear[i].w.cols;
        float *f = sd_alloc((size_t)(rows + cols), sizeof *f);
        for (int k = 0; k < rows + cols; k++) f[k] = i == 0 && k == 3 ? bad : 1e-3f;
        lora[i] = (sd_lora){.r = 1, .A = f, .B = f + cols, .scale = 1};
    }
    sd_adapter *a = NULL;
    sd_error err = {0};
    cr_assert_eq(sd_adapter_from_factors(&a, "bad", lora, m, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < slots; i++) free((void *)(uintptr_t)lora[i].A);
    free(lora);
    return a;
}

Test(engine, logits_that_are_not_finite_end_their_own_request_and_no_other) {
    world w = make_world();
    sd_adapter *bad = adapter_with(w.model, NAN);
    for (int temperature = 0; temperature < 2; temperature++) {
        sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.slots = 2});
        test_answer a = {0}, b = {0};
        sd_request good = request(w.prompt, PROMPT), r = good;
        good.on_event = r.on_event = test_collect, good.ctx = &a, r.ctx = &b;
        r.adapter = bad;
        r.sampling.temperature = (float)temperature;
        cr_assert_eq(sd_engine_submit(e, &good, NULL, NULL), SD_OK);
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        while (sd_engine_step(e)) {
        }
        cr_assert_eq(a.finish, SD_FINISH_LENGTH);
        cr_assert_eq(memcmp(a.ids.id, w.full.ids.id, N * sizeof *a.ids.id), 0);
        cr_assert_eq(b.finish, SD_FINISH_ERROR);
        cr_assert_eq(b.ids.n, 0, "token 0 is not an answer");
        cr_assert(strstr(b.error, "not finite"), "%s", b.error);
        sd_engine_stats stats;
        sd_engine_get_stats(e, &stats);
        cr_assert_eq(stats.nonfinite, 1);
        test_answer_free(&a), test_answer_free(&b);
        sd_engine_close(e);
    }
    sd_adapter_release(bad);
    free_world(&w);
}

// ---- threads

typedef struct {
    sd_engine *e;
    const world *w;
    atomic_int ended, cancelled, wrong;
    atomic_bool stop;
} traffic;

static void count_end(void *ctx, const sd_event *ev) {
    traffic *t = ctx;
    if (!ev->finish) return;
    if (ev->finish == SD_FINISH_CANCELLED) atomic_fetch_add(&t->cancelled, 1);
    if (ev->finish == SD_FINISH_ERROR) atomic_fetch_add(&t->wrong, 1);
    atomic_fetch_add(&t->ended, 1);
}

static void *serve(void *ctx) {
    traffic *t = ctx;
    while (!atomic_load(&t->stop))
        if (!sd_engine_step(t->e)) sd_engine_wait(t->e, 1000);
    return NULL;
}

static void *submit_many(void *ctx) {
    traffic *t = ctx;
    for (int i = 0; i < 40;) {
        sd_request r = request(t->w->prompt, PROMPT - i % 7);
        r.max_tokens = 6 + i % 5, r.on_event = count_end, r.ctx = t;
        uint64_t id;
        if (sd_engine_submit(t->e, &r, &id, NULL) != SD_OK) {
            usleep(200);
            continue;
        }
        if (i % 4 == 0) sd_engine_cancel(t->e, id);
        sd_engine_stats s;
        sd_engine_get_stats(t->e, &s);
        i++;
    }
    return NULL;
}

Test(engine, requests_from_many_threads_each_end_once) {
    world w = make_world();
    traffic t = {.w = &w};
    t.e = test_engine_open(w.model, &(sd_engine_options){.slots = 4, .queue = 8, .threads = 1});
    pthread_t server, clients[3];
    pthread_create(&server, NULL, serve, &t);
    for (int i = 0; i < 3; i++) pthread_create(&clients[i], NULL, submit_many, &t);
    for (int i = 0; i < 3; i++) pthread_join(clients[i], NULL);
    for (int i = 0; i < 20000 && atomic_load(&t.ended) < 120; i++) usleep(1000);
    atomic_store(&t.stop, true);
    sd_engine_wake(t.e);
    pthread_join(server, NULL);
    cr_assert_eq(atomic_load(&t.ended), 120);
    cr_assert_gt(atomic_load(&t.cancelled), 0);
    cr_assert_eq(atomic_load(&t.wrong), 0);
    sd_engine_close(t.e);
    free_world(&w);
}
