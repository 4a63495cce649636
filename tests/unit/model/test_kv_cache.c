// Keys and values in pages: what a pool lends, takes back and lends to several, and that the bits of
// logits depend on none of it.
#include "base/memory.h"
#include "base/rng.h"
#include "model/infer/forward.h"
#include "tests/unit/support/tiny_model.h"

#include <criterion/criterion.h>
#include <string.h>

enum { V = 288, T = 3 * SD_KV_PAGE + 9, CTX = 4 * SD_KV_PAGE };

typedef struct {
    sd_model *m;
    sd_context *cx;
    sd_kv_pool *pool;
} world;

static world open_world(sd_kv_type type, int pages) {
    world w = {0};
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    w.m = sd_tiny_open(&t, true);
    cr_assert_not_null(w.m);
    const sd_context_options o = {.max_rows = T, .kv = type};
    cr_assert_eq(sd_context_open(&w.cx, w.m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_pool_open(&w.pool, w.cx, pages, &err), SD_OK, "%s", err.message);
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
    cr_assert_eq(sd_kv_pool_left(w.pool), 5);
    cr_assert(sd_kv_reserve(a, 1));
    cr_assert_eq(sd_kv_pool_left(w.pool), 4);
    cr_assert(sd_kv_reserve(a, SD_KV_PAGE));
    cr_assert_eq(sd_kv_pool_left(w.pool), 4, "the page holds them all");
    cr_assert(sd_kv_reserve(b, 3 * SD_KV_PAGE + 1));
    cr_assert_eq(sd_kv_pool_left(w.pool), 0);
    cr_assert_not(sd_kv_reserve(a, SD_KV_PAGE + 1), "none is left");
    cr_assert_eq(a->pages, 1);
    cr_assert_not(sd_kv_reserve(b, CTX + 1), "more than the sequence may have");
    b->len = SD_KV_PAGE + 1;
    cr_assert_eq(sd_kv_truncate(b, 2 * SD_KV_PAGE), SD_KV_PAGE + 1, "it was no longer");
    cr_assert_eq(sd_kv_pool_left(w.pool), 2);
    cr_assert(sd_kv_reserve(a, 3 * SD_KV_PAGE));
    sd_kv_close(a);
    sd_kv_close(b);
    cr_assert_eq(sd_kv_pool_left(w.pool), 5);
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

Test(kv_cache, what_is_reused_gives_the_same_bits_and_is_written_by_nobody) {
    for (int type = SD_KV_F16; type < SD_KV_TYPES; type++) {
        world w = open_world((sd_kv_type)type, 16);
        float *want = new_logits(), *got = new_logits();
        sd_kv *a = open_kv(&w), *b = open_kv(&w), *c = open_kv(&w);
        run(&w, a, T, want);
        int left = sd_kv_pool_left(w.pool);
        cr_assert_eq(sd_kv_reuse(b, a, T - 1), 3 * SD_KV_PAGE, "full pages only");
        cr_assert_eq(sd_kv_pool_left(w.pool), left, "which take no memory");
        run(&w, b, T, got);
        same_from(got, want, 3 * SD_KV_PAGE, "what follows the reused pages");
        // Cut within a page that a reads too: back to its begin, and computed again.
        cr_assert_eq(sd_kv_truncate(b, 2 * SD_KV_PAGE + 5), 2 * SD_KV_PAGE);
        run(&w, b, T, got);
        same_from(got, want, 2 * SD_KV_PAGE, "what follows the cut");
        cr_assert(sd_kv_equal(a, b, T));
        // The first owner goes; the pages stay as long as anybody has them.
        cr_assert_eq(sd_kv_reuse(c, b, 70), SD_KV_PAGE);
        sd_kv_close(a);
        run(&w, c, T, got);
        same_from(got, want, SD_KV_PAGE, "after its first owner went");
        cr_assert(sd_kv_equal(b, c, T));
        cr_assert_eq(sd_kv_reuse(c, b, T), T, "only an empty one begins with another's");
        sd_kv_close(b);
        sd_kv_close(c);
        cr_assert_eq(sd_kv_pool_left(w.pool), 16);
        free(want), free(got);
        close_world(&w);
    }
}
