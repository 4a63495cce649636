// Keys and values in pages: what a pool lends, takes back and lends to several, and that the bits of
// logits depend on none of it.
#include "base/memory.h"
#include "base/rng.h"
#include "model/infer/forward.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <string.h>

enum { V = 288, T = 3 * SD_KV_PAGE + 9, CTX = 4 * SD_KV_PAGE };

typedef struct {
    sd_model *m;
    sd_context *cx;
    sd_kv_pool *pool;
} world;

// A pool of so many pages.
static world open_world(sd_kv_type type, int pages) {
    world w = {0};
    sd_error err = {0};
    const sd_kv_pool_size size = {pages, SD_KV_PAGE, T, 0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    w.m = sd_tiny_open(&t, true);
    cr_assert_not_null(w.m);
    const sd_context_options o = {.max_rows = T, .kv = type};
    cr_assert_eq(sd_context_open(&w.cx, w.m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_pool_open(&w.pool, w.cx, &size, &err), SD_OK, "%s", err.message);
    return w;
}
static void close_world(world *w) {
    sd_kv_pool_close(w->pool);
    sd_context_close(w->cx);
    sd_model_release(w->m);
}

static sd_kv *open_kv(const world *w) {
    sd_kv *kv = NULL;
    cr_assert_eq(sd_kv_open_in(&kv, w->pool, CTX, NULL), SD_OK);
    return kv;
}

static int32_t token(int t) {
    uint32_t r[4];
    sd_philox(r, 7, 1, (uint64_t)t);
    return (int32_t)(r[0] % V);
}

// Rows [kv->len, to) of the text, committed; logits [T, V].
static void run(const world *w, sd_kv *kv, int to, float *logits) {
    sd_row row[T];
    int n = 0;
    for (int t = kv->len; t < to; t++)
        row[n++] = (sd_row){.token = token(t), .pos = t, .kv = kv, .want_logits = true};
    sd_error err = {0};
    cr_assert(sd_kv_reserve(kv, to));
    cr_assert_eq(sd_forward(w->cx, row, n, logits + (size_t)kv->len * V, &err), SD_OK, "%s",
                 err.message);
    kv->len = to;
}

static float *new_logits(void) {
    return sd_alloc((size_t)T * V, sizeof(float));
}

static void same_from(const float *a, const float *b, int from, const char *how) {
    cr_assert_eq(
        memcmp(a + (size_t)from * V, b + (size_t)from * V, (size_t)(T - from) * V * sizeof *a), 0,
        "%s", how);
}

Test(kv_cache, a_pool_lends_what_it_has_and_no_more) {
    world w = open_world(SD_KV_AUTO, 5);
    sd_kv *a = open_kv(&w), *b = open_kv(&w);
    cr_assert_eq(sd_kv_pool_left(w.pool, 0), 5);
    cr_assert(sd_kv_reserve(a, 1));
    cr_assert_eq(sd_kv_pool_left(w.pool, 0), 4);
    cr_assert(sd_kv_reserve(a, SD_KV_PAGE));
    cr_assert_eq(sd_kv_pool_left(w.pool, 0), 4, "the page holds them all");
    cr_assert(sd_kv_reserve(b, 3 * SD_KV_PAGE + 1));
    cr_assert_eq(sd_kv_pool_left(w.pool, 0), 0);
    cr_assert_not(sd_kv_reserve(a, SD_KV_PAGE + 1), "none is left");
    cr_assert_eq(a->pages, 1);
    cr_assert_not(sd_kv_reserve(b, CTX + 1), "more than the sequence may have");
    b->len = SD_KV_PAGE + 1;
    cr_assert_eq(sd_kv_truncate(b, 2 * SD_KV_PAGE), SD_KV_PAGE + 1, "it was no longer");
    cr_assert_eq(sd_kv_pool_left(w.pool, 0), 2);
    cr_assert(sd_kv_reserve(a, 3 * SD_KV_PAGE));
    sd_kv_close(a);
    sd_kv_close(b);
    cr_assert_eq(sd_kv_pool_left(w.pool, 0), 5);
    close_world(&w);
}

Test(kv_cache, a_row_without_a_page_is_refused) {
    world w = open_world(SD_KV_AUTO, 2);
    sd_kv *kv = open_kv(&w);
    sd_error err = {0};
    sd_row row = {.token = 1, .kv = kv};
    cr_assert_eq(sd_forward(w.cx, &row, 1, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "no page was reserved"), "%s", err.message);
    sd_kv_close(kv);
    close_world(&w);
}

Test(kv_cache, pages_in_any_order_give_the_same_bits) {
    for (int type = SD_KV_F16; type < SD_KV_TYPES; type++) {
        world w = open_world((sd_kv_type)type, 12);
        float *want = new_logits(), *got = new_logits();
        sd_kv *whole = NULL;
        cr_assert_eq(sd_kv_open(&whole, w.cx, T, NULL), SD_OK);
        run(&w, whole, T, want);
        // Three take turns, page by page, so that the pages of each lie apart; one is closed midway.
        sd_kv *a = open_kv(&w), *b = open_kv(&w), *c = open_kv(&w);
        for (int t = 40; t < T; t += 50) {
            run(&w, b, t, got);
            if (c) run(&w, c, t, got);
            run(&w, a, t, got);
            if (t > 100) sd_kv_close(c), c = NULL;
        }
        run(&w, a, T, got);
        cr_assert(a->page[1] != a->page[0] + 1, "the case is what it is meant to be");
        same_from(got, want, 0, sd_kv_name((sd_kv_type)type));
        cr_assert(sd_kv_equal(a, whole, T));
        sd_kv_close(a);
        sd_kv_close(b);
        sd_kv_close(whole);
        free(want), free(got);
        close_world(&w);
    }
}

// ---- windows

enum { LAYERS = 3, LONG = 600, LONG_CTX = 640, STEP = 100 };

// Layers with such windows, and a pool for two sequences of LONG_CTX.
static world open_windows(sd_kv_type type, const int *window, const char *isa) {
    world w = {0};
    sd_error err = {0};
    const sd_kv_pool_size size = {2, LONG_CTX, STEP, 0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    t.L = LAYERS, t.D = 32, t.ctx = 4096;
    w.m = sd_tiny_open(&t, true);
    cr_assert_not_null(w.m);
    for (int l = 0; l < LAYERS; l++) w.m->layer[l].window = window[l];
    const sd_context_options o = {.max_rows = STEP, .kv = type, .isa = isa};
    cr_assert_eq(sd_context_open(&w.cx, w.m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_pool_open(&w.pool, w.cx, &size, &err), SD_OK, "%s", err.message);
    return w;
}
static sd_kv *open_long(const world *w) {
    sd_kv *kv = NULL;
    cr_assert_eq(sd_kv_open_in(&kv, w->pool, LONG_CTX, NULL), SD_OK);
    return kv;
}

// The pages that a sequence has of layer l, by what they leave to others.
static int pages_lent(const world *w, int l, int of) {
    return of - sd_kv_pool_left(w->pool, l);
}

// Rows [kv->len, to) in steps of changing sizes; logits [LONG, V] of all.
static void run_long(const world *w, sd_kv *kv, int to, float *logits) {
    static const int steps[] = {1, 64, 37, STEP, 5, 63, 2};
    sd_row row[STEP];
    sd_error err = {0};
    for (int step = kv->len; kv->len < to; step++) {
        int n = steps[step % 7] < to - kv->len ? steps[step % 7] : to - kv->len;
        cr_assert(sd_kv_reserve(kv, kv->len + n), "at %d", kv->len);
        for (int i = 0; i < n; i++)
            row[i] = (sd_row){
                .token = token(kv->len + i), .pos = kv->len + i, .kv = kv, .want_logits = true};
        cr_assert_eq(sd_forward(w->cx, row, n, logits + (size_t)kv->len * V, &err), SD_OK, "%s",
                     err.message);
        kv->len += n;
    }
}
static float *long_logits(void) {
    return sd_alloc((size_t)LONG * V, sizeof(float));
}
static void same_rows(const float *a, const float *b, int from, int to, const char *how) {
    for (int t = from; t < to; t++)
        cr_assert_eq(memcmp(a + (size_t)t * V, b + (size_t)t * V, V * sizeof *a), 0, "%s: row %d",
                     how, t);
}

// The pages of n positions wherever in a page they begin.
static int most_pages(int n) {
    return (n + SD_KV_PAGE - 2) / SD_KV_PAGE + 1;
}

// Two sequences of a pool take turns, so that what one gives back the other writes; both against a
// sequence that keeps all.
static void pages_come_and_go(sd_kv_type type, const int *window, const char *isa) {
    world w = open_windows(type, window, isa);
    float *want = long_logits(), *got = long_logits();
    sd_kv *whole = NULL;
    cr_assert_eq(sd_kv_open(&whole, w.cx, LONG, NULL), SD_OK);
    int left[LAYERS];
    for (int l = 0; l < LAYERS; l++) left[l] = sd_kv_pool_left(w.pool, l);
    run_long(&w, whole, LONG, want);
    sd_kv *a = open_long(&w), *b = open_long(&w);
    for (int to = 90; to < LONG + 90; to += 90) {
        run_long(&w, a, to < LONG ? to : LONG, got);
        run_long(&w, b, to < LONG ? to : LONG, got);
        for (int l = 0; l < LAYERS; l++)
            if (window[l])
                cr_assert_leq(pages_lent(&w, l, left[l]), 2 * most_pages(window[l] - 1 + STEP));
    }
    same_rows(got, want, 0, LONG, isa);
    run_long(&w, a, LONG, got);
    cr_assert(sd_kv_equal(a, whole, LONG) && sd_kv_equal(b, whole, LONG));
    for (int l = 0; l < LAYERS; l++)
        if (window[l] && window[l] < 200)
            cr_assert_lt(pages_lent(&w, l, left[l]), 2 * sd_kv_pages(LONG) - 6, "some were");
    sd_kv_close(a), sd_kv_close(b), sd_kv_close(whole);
    for (int l = 0; l < LAYERS; l++) cr_assert_eq(sd_kv_pool_left(w.pool, l), left[l]);
    free(want), free(got);
    close_world(&w);
}

Test(kv_window, pages_that_come_and_go_change_no_bit_and_are_few) {
    static const int windows[][LAYERS] = {{0, 100, 1}, {65, 64, 65}, {130, 0, 500}};
    pages_come_and_go(SD_KV_F16, windows[0], "plain");
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        for (int type = SD_KV_F16; type < SD_KV_TYPES; type++)
            if (i == 0 || type == SD_KV_INT8) pages_come_and_go((sd_kv_type)type, windows[i], NULL);
    }
}

// A token reaches as far as the layers' windows together, and no further: one bit more or less of the
// window would be seen.
Test(kv_window, a_token_is_seen_as_far_as_the_windows_reach) {
    static const int windows[][LAYERS] = {{20, 20, 20}, {64, 1, 30}, {70, 65, 2}};
    enum { AT = 130 };
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        const int *window = windows[i], last = AT + window[0] + window[1] + window[2] - LAYERS;
        world w = open_windows(SD_KV_F32, window, NULL);
        float *logits[2] = {long_logits(), long_logits()};
        for (int k = 0; k < 2; k++) {
            sd_kv *kv = open_long(&w);
            sd_error err = {0};
            for (int t = 0; t < 400; t++) {
                sd_row row = {.token = t == AT ? 5 + k : token(t), .pos = t, .kv = kv};
                row.want_logits = true;
                cr_assert(sd_kv_reserve(kv, t + 1));
                cr_assert_eq(sd_forward(w.cx, &row, 1, logits[k] + (size_t)t * V, &err), SD_OK);
                kv->len++;
            }
            sd_kv_close(kv);
        }
        same_rows(logits[0], logits[1], 0, AT, "before it");
        same_rows(logits[0], logits[1], last + 1, 400, "behind what sees it");
        cr_assert_neq(
            memcmp(logits[0] + (size_t)last * V, logits[1] + (size_t)last * V, V * sizeof **logits),
            0, "the last that sees it");
        free(logits[0]), free(logits[1]);
        close_world(&w);
    }
}

Test(kv_window, what_reaches_over_all_positions_is_none) {
    float *logits[2] = {long_logits(), long_logits()};
    for (int k = 0; k < 2; k++) {
        world w = open_windows(SD_KV_AUTO, (const int[LAYERS]){k * LONG, 0, k * LONG}, NULL);
        sd_kv *kv = open_long(&w);
        run_long(&w, kv, LONG, logits[k]);
        sd_kv_close(kv);
        close_world(&w);
    }
    same_rows(logits[0], logits[1], 0, LONG, "none");
    free(logits[0]), free(logits[1]);
}

Test(kv_window, a_sequence_goes_back_as_far_as_its_pages_reach_or_begins_anew) {
    world w = open_windows(SD_KV_AUTO, (const int[LAYERS]){0, 100, 40}, NULL);
    float *want = long_logits(), *got = long_logits();
    sd_kv *kv = open_long(&w);
    int left[LAYERS];
    for (int l = 0; l < LAYERS; l++) left[l] = sd_kv_pool_left(w.pool, l);
    run_long(&w, kv, 425, want);
    uint32_t version = kv->version;
    cr_assert(sd_kv_reserve(kv, 426), "what nobody sees from 425 on is given back");
    cr_assert_neq(kv->version, version, "its pages are others, though it has no new one");
    // Layer 1 has the pages from 320 on (425 + 1 - 100 = 326), layer 2 those from 384 on.
    cr_assert_eq(sd_kv_truncate(kv, 424), 424);
    run_long(&w, kv, 500, want);
    cr_assert_eq(sd_kv_truncate(kv, 490), 490);
    run_long(&w, kv, 500, got);
    same_rows(got, want, 490, 500, "cut and computed again");
    // A row at the position sees what is gone: it is refused, and a cut to there leaves nothing.
    sd_error err = {0};
    sd_row row = {.token = 1, .pos = 300, .kv = kv};
    cr_assert_eq(sd_forward(w.cx, &row, 1, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "given back"), "%s", err.message);
    cr_assert_eq(sd_kv_truncate(kv, 300), 0);
    for (int l = 0; l < LAYERS; l++) cr_assert_eq(sd_kv_pool_left(w.pool, l), left[l]);
    run_long(&w, kv, 500, got);
    same_rows(got, want, 0, 500, "begun anew");
    sd_kv_close(kv);
    free(want), free(got);
    close_world(&w);
}

Test(kv_window, a_pool_has_the_pages_of_a_window_and_a_step) {
    world w = open_windows(SD_KV_INT8, (const int[LAYERS]){0, 512, 4096}, NULL);
    const sd_kv_pool_size size = {3, 1024, 200, 0};
    sd_kv_pool *pool = NULL;
    sd_error err = {0};
    const size_t head = 2 * (size_t)w.m->hp.G * (size_t)(w.m->hp.D + 4);
    cr_assert_eq(sd_kv_pool_open(&pool, w.cx, &size, &err), SD_OK);
    cr_assert_eq(sd_kv_pool_left(pool, 0), 3 * 16);
    cr_assert_eq(sd_kv_pool_left(pool, 1), 3 * 13, "711 positions touch 13 pages at most");
    cr_assert_eq(sd_kv_pool_left(pool, 2), 3 * 16, "never more than the context");
    cr_assert_eq(sd_kv_pool_bytes(pool), (size_t)(3 * 45 * SD_KV_PAGE) * head);
    cr_assert_eq(sd_kv_bytes_per_position(w.cx), head, "of one layer: the others keep no more");
    sd_kv_pool_close(pool);
    cr_assert_eq(sd_kv_pool_open(&pool, w.cx, &(sd_kv_pool_size){1, 0, 1, 0}, &err), SD_EINVAL);
    cr_assert_eq(sd_kv_pool_open(&pool, w.cx, &(sd_kv_pool_size){INT_MAX, INT_MAX, 1, 0}, &err),
                 SD_EINVAL);
    close_world(&w);
}
