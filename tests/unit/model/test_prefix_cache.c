// The prefix cache over pages: what is found, by whom, and that no bit of logits depends on it.
#include "base/memory.h"
#include "base/rng.h"
#include "model/infer/forward.h"
#include "model/infer/prefix_cache.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <string.h>

enum { V = 288, LAYERS = 3, T = 600, CTX = 640, STEP = 100, SEQUENCES = 3, PAGE = SD_KV_PAGE };

typedef struct {
    sd_model *m;
    sd_context *cx;
    sd_kv_pool *pool;
    sd_kv *kv[SEQUENCES];
    float *want, *got; // [T, V]
    int32_t ids[T];
} world;

static int32_t token(uint64_t seed, int t) {
    uint32_t r[4];
    sd_philox(r, seed, 1, (uint64_t)t);
    return (int32_t)(r[0] % V);
}

// A pool for `sequences` of them.
static world open_world(sd_kv_type type, const int *window, int sequences) {
    world w = {0};
    sd_error err = {0};
    const sd_kv_pool_size size = {sequences, CTX, STEP, 0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    t.L = LAYERS, t.D = 32, t.ctx = 4096;
    w.m = sd_tiny_open(&t, true);
    cr_assert_not_null(w.m);
    for (int l = 0; l < LAYERS; l++) w.m->layer[l].window = window[l];
    const sd_context_options o = {.max_rows = STEP, .kv = type};
    cr_assert_eq(sd_context_open(&w.cx, w.m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_pool_open(&w.pool, w.cx, &size, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_prefix_open(w.pool, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < SEQUENCES; i++)
        cr_assert_eq(sd_kv_open_in(&w.kv[i], w.pool, CTX, NULL), SD_OK);
    w.want = sd_alloc((size_t)T * V, sizeof(float));
    w.got = sd_alloc((size_t)T * V, sizeof(float));
    for (int i = 0; i < T; i++) w.ids[i] = token(7, i);
    return w;
}

static void close_world(world *w) {
    for (int i = 0; i < SEQUENCES; i++) sd_kv_close(w->kv[i]);
    for (int l = 0; l < LAYERS; l++) cr_assert_gt(sd_kv_pool_left(w->pool, l), 0);
    sd_kv_pool_close(w->pool);
    sd_context_close(w->cx);
    sd_model_release(w->m);
    free(w->want), free(w->got);
}

static void check(const world *w) {
    cr_assert(sd_prefix_sound(w->pool, w->kv, SEQUENCES));
}

static int begin(const world *w, sd_kv *kv, uint64_t tenant, const int32_t *ids, int positions) {
    sd_prefix_begin(kv, &(sd_prefix_owner){.tenant = tenant});
    int n = sd_prefix_take(kv, ids, positions);
    check(w);
    return n;
}

// Rows [kv->len, to) of ids in steps of changing sizes, published as they are committed.
static void run(const world *w, sd_kv *kv, const int32_t *ids, int to, float *logits) {
    static const int steps[] = {1, 64, 37, STEP, 5, 63, 2};
    sd_row row[STEP];
    sd_error err = {0};
    for (int step = kv->len; kv->len < to; step++) {
        int n = steps[step % 7] < to - kv->len ? steps[step % 7] : to - kv->len;
        cr_assert(sd_kv_reserve(kv, kv->len + n), "at %d", kv->len);
        for (int i = 0; i < n; i++)
            row[i] = (sd_row){
                .token = ids[kv->len + i], .pos = kv->len + i, .kv = kv, .want_logits = true};
        cr_assert_eq(sd_forward(w->cx, row, n, logits + (size_t)kv->len * V, &err), SD_OK, "%s",
                     err.message);
        kv->len += n;
        sd_prefix_publish(kv, ids);
        check(w);
    }
}

static void same_rows(const world *w, int from, int to) {
    cr_assert_eq(memcmp(w->want + (size_t)from * V, w->got + (size_t)from * V,
                        (size_t)(to - from) * V * sizeof(float)),
                 0, "rows %d to %d", from, to);
}

static const int none[LAYERS] = {0, 0, 0}, mixed[LAYERS] = {0, 100, 1}, all[LAYERS] = {70, 70, 65};
static const int *const windows[] = {none, mixed, all};

Test(prefix_cache, what_is_found_gives_the_same_bits_and_is_written_by_nobody) {
    for (int i = 0; i < 3; i++)
        for (int type = SD_KV_F16; type < SD_KV_TYPES; type++) {
            world w = open_world((sd_kv_type)type, windows[i], 4);
            sd_kv *a = w.kv[0], *b = w.kv[1], *c = w.kv[2];
            cr_assert_eq(begin(&w, a, 0, w.ids, T), 0);
            run(&w, a, w.ids, 330, w.want);
            // While it still runs, its full pages are found; in layers with a window as long as they
            // are kept.
            cr_assert_eq(begin(&w, b, 0, w.ids, 329), 320);
            run(&w, b, w.ids, 400, w.got);
            same_rows(&w, 320, 330);
            run(&w, a, w.ids, 400, w.want);
            cr_assert(sd_kv_equal(a, b, 400));
            cr_assert_eq(a->page[5], b->page[5], "who comes later reads the page of the first");
            // Ended, all is found, the last page by copy; short of the last token.
            sd_prefix_end(a, w.ids);
            check(&w);
            cr_assert(a->len == 0 && a->pages == 0);
            cr_assert_eq(begin(&w, c, 0, w.ids, 399), 399);
            cr_assert_neq(c->page[6], b->page[6]);
            run(&w, c, w.ids, 450, w.got);
            run(&w, b, w.ids, 450, w.want);
            same_rows(&w, 399, 450);
            cr_assert(sd_kv_equal(b, c, 450));
            sd_prefix_end(b, w.ids), sd_prefix_end(c, w.ids);
            check(&w);
            close_world(&w);
        }
}

Test(prefix_cache, a_text_that_differs_is_found_up_to_there) {
    static const int at[] = {0, 1, 63, 64, 65, 100, 128, 191, 250};
    for (int type = SD_KV_F16; type < SD_KV_TYPES; type++) {
        world w = open_world((sd_kv_type)type, none, 8);
        begin(&w, w.kv[0], 0, w.ids, T);
        run(&w, w.kv[0], w.ids, 260, w.want);
        sd_prefix_end(w.kv[0], w.ids);
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
            int32_t ids[T];
            for (int t = 0; t < T; t++) ids[t] = t < at[i] ? w.ids[t] : token(9 + i, t);
            ids[at[i]] = (w.ids[at[i]] + 1 + (int)i) % V;
            // Another tenant's: nothing is found.
            cr_assert_eq(begin(&w, w.kv[1], 1 + i, ids, 260), 0);
            run(&w, w.kv[1], ids, 260, w.want);
            cr_assert_eq(begin(&w, w.kv[2], 0, ids, 260), at[i]);
            run(&w, w.kv[2], ids, 260, w.got);
            same_rows(&w, at[i], 260);
            cr_assert(sd_kv_equal(w.kv[1], w.kv[2], 260));
            sd_kv_truncate(w.kv[1], 0), sd_prefix_end(w.kv[2], ids);
            check(&w);
        }
        close_world(&w);
    }
}

// What a window's pages are gone for is found as far as they are there, or not at all.
Test(prefix_cache, a_window_is_found_where_its_pages_are) {
    world w = open_world(SD_KV_F16, (const int[LAYERS]){0, 100, 100}, 2);
    sd_kv *a = w.kv[0], *b = w.kv[1], *c = w.kv[2];
    // A window and a step need five pages, two sequences ten: of ten pages of one text all are there.
    cr_assert_eq(sd_kv_pool_left(w.pool, 1), 10);
    begin(&w, a, 0, w.ids, T);
    run(&w, a, w.ids, T, w.want);
    sd_prefix_end(a, w.ids);
    cr_assert_eq(begin(&w, b, 0, w.ids, T - 1), T - 1);
    sd_kv_truncate(b, 0);
    cr_assert_eq(begin(&w, b, 0, w.ids, 300), 300, "in its midst too");
    sd_kv_truncate(b, 0);
    // Another text takes the pages that were unread for longest.
    int32_t other[T];
    for (int t = 0; t < T; t++) other[t] = token(8, t);
    begin(&w, c, 1, other, T);
    run(&w, c, other, 130, w.got);
    int here = begin(&w, b, 0, w.ids, 400);
    cr_assert(here == 400 || here % PAGE == 0, "%d", here);
    run(&w, b, w.ids, 450, w.got);
    same_rows(&w, here, 450);
    sd_kv_truncate(b, 0);
    sd_prefix_end(c, other);
    // All of them: the text is known by its tokens, but none of its windows is there.
    begin(&w, c, 2, other, T);
    run(&w, c, other, T, w.got);
    sd_prefix_end(c, other);
    here = begin(&w, b, 0, w.ids, 400);
    cr_assert_lt(here, 400);
    run(&w, b, w.ids, 450, w.got);
    same_rows(&w, here, 450);
    sd_kv_truncate(b, 0);
    check(&w);
    close_world(&w);
}

// Above the few pages of a window stands the whole text: there are nodes for all that sequences hold.
Test(prefix_cache, a_long_text_is_found_where_every_layer_has_a_window) {
    enum { LENGTH = 3000, LONG_CTX = 3200 };
    world w = open_world(SD_KV_F16, all, 1);
    const sd_kv_pool_size size = {SEQUENCES, LONG_CTX, STEP, 0};
    sd_kv_pool *pool;
    sd_kv *kv[SEQUENCES];
    sd_row row[STEP];
    int32_t *ids = sd_alloc((size_t)SEQUENCES * LENGTH, sizeof *ids);
    cr_assert_eq(sd_kv_pool_open(&pool, w.cx, &size, NULL), SD_OK);
    cr_assert_eq(sd_prefix_open(pool, NULL), SD_OK);
    for (int i = 0; i < SEQUENCES; i++) {
        for (int t = 0; t < LENGTH; t++) ids[i * LENGTH + t] = token(100 + (uint64_t)i, t);
        cr_assert_eq(sd_kv_open_in(&kv[i], pool, LONG_CTX, NULL), SD_OK);
        sd_prefix_begin(kv[i], &(sd_prefix_owner){.tenant = 0});
    }
    for (int at = 0; at < LENGTH; at += STEP)
        for (int i = 0; i < SEQUENCES; i++) {
            cr_assert(sd_kv_reserve(kv[i], at + STEP));
            for (int k = 0; k < STEP; k++)
                row[k] = (sd_row){.token = ids[i * LENGTH + at + k], .pos = at + k, .kv = kv[i]};
            cr_assert_eq(sd_forward(w.cx, row, STEP, NULL, NULL), SD_OK);
            kv[i]->len += STEP;
            sd_prefix_publish(kv[i], ids + i * LENGTH);
            cr_assert_eq(kv[i]->published, kv[i]->len / PAGE, "sequence %d at %d", i, at);
        }
    cr_assert(sd_prefix_sound(pool, kv, SEQUENCES));
    for (int i = 0; i < SEQUENCES; i++) {
        sd_prefix_end(kv[i], ids + i * LENGTH);
        sd_prefix_begin(kv[i], &(sd_prefix_owner){.tenant = 0});
        cr_assert_eq(sd_prefix_take(kv[i], ids + i * LENGTH, LENGTH - 1), LENGTH - 1);
        cr_assert(sd_prefix_sound(pool, kv, SEQUENCES));
    }
    for (int i = 0; i < SEQUENCES; i++) sd_kv_close(kv[i]);
    sd_kv_pool_close(pool);
    free(ids);
    close_world(&w);
}

// A sequence that is behind goes on with what another one has computed meanwhile.
Test(prefix_cache, what_comes_to_be_known_while_a_sequence_runs_is_taken) {
    world w = open_world(SD_KV_INT8, none, 3);
    sd_kv *a = w.kv[0], *b = w.kv[1];
    begin(&w, a, 0, w.ids, T), begin(&w, b, 0, w.ids, T);
    run(&w, b, w.ids, 70, w.got);
    run(&w, a, w.ids, 300, w.want);
    cr_assert_eq(sd_prefix_take(b, w.ids, 299), 256);
    check(&w);
    run(&w, b, w.ids, 300, w.got);
    same_rows(&w, 256, 300);
    cr_assert_eq(sd_prefix_take(b, w.ids, 290), 300, "it has more");
    cr_assert(sd_kv_equal(a, b, 300));
    close_world(&w);
}

Test(prefix_cache, keys_that_turn_by_another_context_are_not_found) {
    world w = open_world(SD_KV_F16, none, 3);
    sd_kv *other = NULL;
    cr_assert_eq(sd_kv_open_in(&other, w.pool, CTX - 1, NULL), SD_OK);
    begin(&w, w.kv[0], 0, w.ids, T);
    run(&w, w.kv[0], w.ids, 200, w.want);
    sd_prefix_begin(other, &(sd_prefix_owner){0});
    cr_assert_eq(sd_prefix_take(other, w.ids, 199), 0);
    sd_kv_close(other);
    close_world(&w);
}

// A draft's rows are behind what is committed: nothing of them is ever found.
Test(prefix_cache, what_was_not_committed_is_not_found) {
    world w = open_world(SD_KV_F16, none, 3);
    sd_kv *a = w.kv[0];
    begin(&w, a, 0, w.ids, T);
    run(&w, a, w.ids, 120, w.want);
    cr_assert(sd_kv_reserve(a, 130));
    sd_row row[10];
    for (int i = 0; i < 10; i++)
        row[i] = (sd_row){.token = w.ids[120 + i], .pos = 120 + i, .kv = a};
    cr_assert_eq(sd_forward(w.cx, row, 10, NULL, NULL), SD_OK);
    sd_prefix_publish(a, w.ids);
    cr_assert_eq(begin(&w, w.kv[1], 0, w.ids, 200), 64);
    sd_prefix_end(a, w.ids);
    sd_kv_truncate(w.kv[1], 0);
    cr_assert_eq(begin(&w, w.kv[1], 0, w.ids, 200), 120);
    close_world(&w);
}
