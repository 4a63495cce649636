// A backend's table: the tokens that a step picks are those of its logits, bit for bit, and what the
// checks before a step refuse.
#include "base/memory.h"
#include "model/infer/prefix_cache.h"
#include "tests/unit/support/counting_backend.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { V = 288, T = 40, WANTED = 24 };

static sd_model *open_model(void) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

static sd_context *open_context(sd_model *m, sd_pool *pool, const sd_backend *b) {
    sd_context *cx = NULL;
    sd_error err = {0};
    sd_context_options o = {.max_rows = T, .backend = b, .max_picked = WANTED};
    cr_assert_eq(sd_context_open(&cx, m, pool, &o, &err), SD_OK, "%s", err.message);
    return cx;
}

static sd_kv *open_kv(const sd_context *cx) {
    sd_kv *kv = NULL;
    cr_assert_eq(sd_kv_open(&kv, cx, T, NULL), SD_OK);
    return kv;
}

static sd_row row_at(int pos, sd_kv *kv) {
    return (sd_row){.token = (pos * 31 + 7) % V, .pos = pos, .kv = kv};
}

static const sd_sampling laws[] = {{.top_p = 1},
                                   {.temperature = .7f, .top_p = 1, .seed = 3},
                                   {.temperature = 2, .top_p = .9f, .top_k = 9, .seed = 4},
                                   {.temperature = 1, .top_p = 1, .min_p = .1f, .choice = 2}};
static const sd_token_bias bias[] = {{5, 4}, {7, -90}};
static const sd_token_seen seen[] = {{11, 2}, {250, 0}};
static const uint32_t nothing[(V + 31) / 32] = {0};
static const sd_shaping shapings[] = {
    {.bias = bias, .n_bias = 2, .seen = seen, .n_seen = 2, .repetition = 1.3f, .presence = .5f},
    {.allowed = nothing}};

// What row i wants: a token, its logits, both or neither; the token by one of the laws.
static bool wants_token(int i) {
    return i % 5 == 1 || i % 5 == 3;
}
static bool wants_logits(int i) {
    return i % 5 == 2 || i % 5 == 3;
}
static sd_pick pick_of(int i) {
    return (sd_pick){.sampling = &laws[i % 4],
                     .shaping = i % 7 == 1 ? &shapings[0]
                                : i == 31  ? &shapings[1]
                                           : NULL,
                     .logprob = i % 2 == 0};
}

// All rows of the text's logits, as sd_forward gives them.
static float *all_logits(sd_model *m) {
    float *logits = sd_alloc((size_t)T * V, sizeof *logits);
    sd_context *cx = open_context(m, NULL, NULL);
    sd_kv *kv = open_kv(cx);
    sd_row row[T];
    for (int i = 0; i < T; i++) row[i] = row_at(i, kv), row[i].want_logits = true;
    cr_assert_eq(sd_forward(cx, row, T, logits, NULL), SD_OK);
    sd_kv_close(kv);
    sd_context_close(cx);
    return logits;
}

static void check_picks(sd_context *cx, const float *want, bool logits_too) {
    sd_kv *kv = open_kv(cx);
    sd_pick pick[T];
    sd_row row[T];
    sd_picked got[WANTED];
    float *logits = sd_alloc((size_t)T * V, sizeof *logits);
    sd_error err = {0};
    for (int i = 0; i < T; i++) {
        pick[i] = pick_of(i);
        row[i] = row_at(i, kv);
        row[i].pick = wants_token(i) ? &pick[i] : NULL;
        row[i].want_logits = logits_too && wants_logits(i);
    }
    cr_assert_eq(sd_forward_pick(cx, row, T, logits_too ? logits : NULL, got, &err), SD_OK, "%s",
                 err.message);
    sd_sampler *s = sd_sampler_open(V);
    int tokens = 0, rows = 0, none = 0;
    for (int i = 0; i < T; i++) {
        const float *of = want + (size_t)i * V;
        if (row[i].want_logits)
            cr_assert_eq(memcmp(logits + (size_t)rows++ * V, of, V * sizeof *of), 0, "row %d", i);
        if (!row[i].pick) continue;
        int32_t token = sd_sample(s, of, pick[i].shaping, pick[i].sampling, i + 1);
        cr_assert_eq(got[tokens].token, token, "row %d: %d, not %d", i, got[tokens].token, token);
        float p = pick[i].logprob && token >= 0 ? sd_logprob(of, V, token) : 0;
        cr_assert_eq(got[tokens].logprob, p, "row %d", i);
        none += token < 0;
        tokens++;
    }
    cr_assert(tokens == 16 && rows == (logits_too ? 16 : 0), "%d tokens, %d rows", tokens, rows);
    cr_assert_eq(none, 1, "one row allows no token");
    sd_sampler_close(s);
    free(logits);
    sd_kv_close(kv);
}

Test(backend, picked_tokens_are_those_of_the_logits_bit_for_bit) {
    sd_model *m = open_model();
    float *want = all_logits(m);
    for (int threads = 1; threads <= 4; threads += 3)
        for (int counted = 0; counted < 2; counted++) {
            sd_pool *pool = NULL;
            cr_assert_eq(sd_pool_open(&pool, threads, NULL), SD_OK);
            sd_context *cx = open_context(m, pool, counted ? &test_counting_backend : NULL);
            check_picks(cx, want, false);
            check_picks(cx, want, true);
            check_picks(cx, want, false);
            sd_context_close(cx);
            sd_pool_close(pool);
        }
    cr_assert(test_counted.forwards == 6 && test_counted.rows == 6 * T);
    cr_assert(test_counted.picked == 6 * 16 && test_counted.logits == 2 * 16);
    cr_assert(test_counted.opened == 2 && test_counted.closed == 2);
    free(want);
    sd_model_release(m);
}

// With logits for all that want a token nothing is copied: the caller's memory is the head's.
Test(backend, tokens_beside_their_own_logits_are_the_same) {
    sd_model *m = open_model();
    float *want = all_logits(m), *logits = sd_alloc((size_t)WANTED * V, sizeof *logits);
    sd_context *cx = open_context(m, NULL, NULL);
    sd_kv *kv = open_kv(cx);
    sd_row row[WANTED];
    sd_pick pick[WANTED];
    sd_picked got[WANTED];
    for (int i = 0; i < WANTED; i++) {
        pick[i] = pick_of(i);
        row[i] = row_at(i, kv);
        row[i].want_logits = true;
        row[i].pick = &pick[i];
    }
    cr_assert_eq(sd_forward_pick(cx, row, WANTED, logits, got, NULL), SD_OK);
    cr_assert_eq(memcmp(logits, want, (size_t)WANTED * V * sizeof *want), 0);
    sd_sampler *s = sd_sampler_open(V);
    for (int i = 0; i < WANTED; i++)
        cr_assert_eq(got[i].token,
                     sd_sample(s, want + (size_t)i * V, pick[i].shaping, pick[i].sampling, i + 1));
    sd_sampler_close(s);
    sd_kv_close(kv);
    sd_context_close(cx);
    free(want), free(logits);
    sd_model_release(m);
}

static void refused(sd_context *cx, const sd_row *row, int n, float *logits, sd_picked *picked,
                    const char *part) {
    sd_error err = {0};
    cr_assert_eq(sd_forward_pick(cx, row, n, logits, picked, &err), SD_EINVAL);
    cr_assert(strstr(err.message, part), "%s", err.message);
}

Test(backend, a_step_without_a_place_for_what_it_wants_is_refused_for_each_backend) {
    static float logits[T * V];
    sd_model *m = open_model();
    const sd_backend *const all[] = {&sd_backend_cpu, &test_counting_backend};
    for (int b = 0; b < 2; b++) {
        sd_context *cx = open_context(m, NULL, all[b]);
        sd_kv *kv = open_kv(cx);
        sd_pick pick = pick_of(0);
        sd_row row[T];
        sd_picked got[T];
        for (int i = 0; i < T; i++) row[i] = row_at(i, kv), row[i].pick = &pick;
        refused(cx, row, T, NULL, got,
                "40 rows want logits or tokens, this context was opened for 24");
        refused(cx, row, WANTED, NULL, NULL, "no place for them");
        refused(cx, row, T + 1, NULL, got, "41 rows in a step, 1 to 40 are possible");
        for (int i = 1; i < T; i++) row[i].pick = NULL, row[i].want_logits = true;
        row[0].want_logits = false;
        refused(cx, row, T, logits, got, "40 rows want logits or tokens");
        for (int i = 1; i < T; i++) row[i].pick = &pick, row[i].want_logits = false;
        row[3].token = V;
        refused(cx, row, WANTED, NULL, got, "token 288 is not in the vocabulary of 288");
        row[3].token = 0;
        row[3].want_logits = true;
        refused(cx, row, WANTED, NULL, got, "no place for them");
        row[3].want_logits = false;
        cr_assert_eq(sd_forward_pick(cx, row, WANTED, NULL, got, NULL), SD_OK);
        sd_kv_close(kv);
        sd_context_close(cx);
    }
    sd_context *cx = NULL;
    sd_error err = {0};
    sd_context_options o = {.max_rows = 4, .max_picked = 5};
    cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "5 rows") && !cx, "%s", err.message);
    sd_model_release(m);
}

// Two contexts of a process, of two models and two backends: neither takes the other's caches.
Test(backend, a_cache_belongs_to_contexts_of_its_model_and_backend) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    t.G = 4;
    sd_model *m = open_model(), *other = sd_tiny_open(&t, true);
    sd_context *a = open_context(m, NULL, &test_counting_backend),
               *b = open_context(other, NULL, NULL);
    sd_kv *of_a = open_kv(a), *of_b = open_kv(b);
    sd_pick pick = {.sampling = &laws[0]};
    sd_picked got;
    for (int i = 0; i < 2; i++) {
        sd_row row = row_at(0, i ? of_a : of_b);
        row.pick = &pick;
        refused(i ? b : a, &row, 1, NULL, &got, "its cache was not made for this model");
        cr_assert_eq(sd_forward_pick(i ? a : b, &row, 1, NULL, &got, NULL), SD_OK);
    }
    cr_assert_not(sd_kv_equal(of_a, of_b, 1));
    cr_assert_eq(sd_context_model(a), m);
    cr_assert_eq(sd_context_max_rows(a), T);
    cr_assert_eq(sd_kv_bytes_per_position(b), 2 * sd_kv_bytes_per_position(a));
    sd_kv_close(of_a), sd_kv_close(of_b);
    sd_context_close(a), sd_context_close(b);
    sd_model_release(m), sd_model_release(other);
}

// What a backend with block tables in its own memory goes by.
Test(backend, a_sequences_version_tells_when_its_pages_are_others) {
    sd_model *m = open_model();
    sd_context *cx = open_context(m, NULL, NULL);
    sd_kv_pool *pool = NULL;
    sd_kv *a = NULL, *b = NULL;
    cr_assert_eq(sd_kv_pool_open(&pool, cx, &(sd_kv_pool_size){4, SD_KV_PAGE, 1, 0}, NULL), SD_OK);
    cr_assert_eq(sd_kv_open_in(&a, pool, 3 * SD_KV_PAGE, NULL), SD_OK);
    cr_assert_eq(sd_kv_open_in(&b, pool, 3 * SD_KV_PAGE, NULL), SD_OK);
    cr_assert_neq(a->id, b->id);
    cr_assert(sd_kv_reserve(a, 2 * SD_KV_PAGE));
    uint32_t before = a->version;
    cr_assert(sd_kv_reserve(a, 2 * SD_KV_PAGE));
    a->len = 2 * SD_KV_PAGE;
    cr_assert_eq(a->version, before, "nothing changed");
    int32_t page = a->page[1];
    // Given back, lent to b, and another one taken: as many pages, but others.
    sd_kv_truncate(a, SD_KV_PAGE);
    cr_assert_neq(a->version, before);
    before = a->version;
    cr_assert(sd_kv_reserve(b, SD_KV_PAGE));
    cr_assert(sd_kv_reserve(a, 2 * SD_KV_PAGE));
    cr_assert(a->pages == 2 && a->page[1] != page);
    cr_assert_neq(a->version, before);
    // b takes the page that a has published.
    int32_t ids[SD_KV_PAGE] = {0};
    cr_assert_eq(sd_prefix_open(pool, NULL), SD_OK);
    sd_kv_truncate(a, 0), sd_kv_truncate(b, 0);
    sd_prefix_begin(a, &(sd_prefix_owner){0}), sd_prefix_begin(b, &(sd_prefix_owner){0});
    cr_assert(sd_kv_reserve(a, SD_KV_PAGE));
    a->len = SD_KV_PAGE;
    sd_prefix_publish(a, ids);
    before = b->version;
    cr_assert_eq(sd_prefix_take(b, ids, SD_KV_PAGE), SD_KV_PAGE);
    cr_assert_eq(b->page[0], a->page[0]);
    cr_assert_neq(b->version, before);
    sd_kv_close(a), sd_kv_close(b);
    sd_kv_pool_close(pool);
    sd_context_close(cx);
    sd_model_release(m);
}

Test(backend, each_of_the_list_goes_by_its_word) {
    static const char *const words[] = {
#define WORD(backend, word) word,
        SD_DEVICE_LIST(WORD)};
    int n = 0;
    for (; sd_backends[n]; n++) {
        cr_assert_str_eq(sd_backends[n]->word, words[n]);
        const sd_backend *got;
        int device;
        sd_error err;
        if (sd_backends[n]->look(0, &err) == SD_OK) {
            cr_assert_eq(sd_device_choose(&got, &device, words[n], &err), SD_OK);
            cr_assert(got == sd_backends[n] && device == 0);
        }
    }
    cr_assert_eq(n, (int)(sizeof words / sizeof *words));
    cr_assert_eq(sd_backends[n - 1], &sd_backend_cpu, "the last one is always there");
    cr_assert_eq(sd_backend_cpu.look(0, NULL), SD_OK);
}

Test(backend, words_of_no_device_are_refused_and_auto_always_finds_one) {
    static const char *const wrong[] = {"",       "gpu", "cpu:",    "cuda:x",    "cuda:-1",
                                        "auto:0", "cud", "cuda:1x", "cuda:9999", "cpu:0 ",
                                        "AUTO",   "CPU", "cuda::0", "cpu:1:1"};
    const sd_backend *got;
    int device;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sd_error err = {0};
        cr_assert_eq(sd_device_choose(&got, &device, wrong[i], &err), SD_EINVAL, "%s", wrong[i]);
        cr_assert(strstr(err.message, "is unknown; choose one of auto|cpu|cuda[:N]"), "%s: %s",
                  wrong[i], err.message);
    }
    sd_error err = {0};
    cr_assert_eq(sd_device_choose(&got, &device, "cpu:1", &err), SD_EINVAL);
    cr_assert(strstr(err.message, "the CPU is one device, not 2"), "%s", err.message);
    cr_assert_eq(sd_device_choose(&got, &device, "auto", NULL), SD_OK);
    cr_assert_eq(got->look(device, NULL), SD_OK);
    cr_assert_eq(sd_device_choose(&got, &device, "cpu:0", NULL), SD_OK);
    cr_assert(got == &sd_backend_cpu && device == 0);
}
