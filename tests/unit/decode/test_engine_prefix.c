// The prefix cache and the pool's budget, seen from requests: what is found, what is never found, and that
// no answer changes by it, whatever is forgotten, cancelled or begun again.
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "decode/engine/private.h"
#include "model/infer/prefix_cache.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/sanitized.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <string.h>

enum { CTX = 512, LONG = 300, N = 20 };

static sd_model *tiny(const sd_arch *arch) {
    sd_tiny_model t = sd_tiny_default(arch);
    t.L = 3, t.ctx = CTX;
    if (t.window) t.window = 70;
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

static void text(int32_t *ids, int n, uint64_t seed) {
    for (int i = 0; i < n; i++) {
        uint32_t r[4];
        sd_philox(r, seed, SD_STREAM_INIT, (uint64_t)i);
        ids[i] = (int32_t)(r[0] % 250);
    }
}

static sd_request request(const int32_t *prompt, int n) {
    return (sd_request){.prompt = prompt,
                        .n_prompt = n,
                        .max_tokens = N,
                        .sampling = {.temperature = 1, .top_p = 1, .seed = 17},
                        .ignore_end = true,
                        .logprobs = 0};
}

static uint64_t submit(sd_engine *e, sd_request r, test_answer *a) {
    uint64_t id = 0;
    r.on_event = test_collect, r.ctx = a;
    cr_assert_eq(sd_engine_submit(e, &r, &id, NULL), SD_OK);
    return id;
}

static void check_counts(sd_engine *e) {
    sd_kv *kv[64];
    for (int i = 0; i < e->n_slots; i++) kv[i] = e->slot[i].kv;
    cr_assert(sd_prefix_sound(e->kv, kv, e->n_slots));
}

static void finish(sd_engine *e) {
    for (int i = 0; sd_engine_step(e); i++) {
        check_counts(e);
        cr_assert_lt(i, 100000, "nobody gets on");
    }
}

static void same_answer(const test_answer *a, const test_answer *b) {
    cr_assert_lt(a->stats.cached_tokens, a->stats.prompt_tokens);
    cr_assert_eq(a->finish, b->finish);
    cr_assert_eq(a->ids.n, b->ids.n);
    cr_assert_eq(memcmp(a->ids.id, b->ids.id, (size_t)a->ids.n * sizeof *a->ids.id), 0);
    cr_assert_eq(memcmp(a->logprob, b->logprob, (size_t)a->ids.n * sizeof *a->logprob), 0);
}

// The answer of an engine that keeps nothing.
static test_answer alone(sd_model *m, sd_kv_type kv, const sd_request *r) {
    sd_engine *e = test_engine_open(
        m, &(sd_engine_options){
               .ctx = CTX, .slots = 1, .kv = kv, .spec = SD_SPEC_OFF, .no_prefix_cache = true});
    test_answer a = {0};
    test_run(e, r, &a);
    cr_assert_eq(a.stats.cached_tokens, 0);
    sd_engine_close(e);
    return a;
}

// Runs r and wants so many of its prompt's tokens to be found, and its answer to be `want`.
static void run_found(sd_engine *e, const sd_request *r, int cached, const test_answer *want) {
    test_answer a = {0};
    submit(e, *r, &a);
    finish(e);
    cr_assert_eq(a.stats.cached_tokens, cached, "%d of %d, not %d", a.stats.cached_tokens,
                 r->n_prompt, cached);
    same_answer(&a, want);
    test_answer_free(&a);
}

Test(prefix, what_was_computed_is_found_and_gives_the_same_bits) {
    static const sd_arch *const archs[] = {&sd_arch_llama, &sd_arch_gemma3, &sd_arch_qwen2};
    for (int k = 0; k < 3; k++) {
        sd_model *m = tiny(archs[k]);
        int32_t ids[LONG], other[LONG];
        text(ids, LONG, 1);
        memcpy(other, ids, sizeof ids);
        text(other + 150, LONG - 150, 2); // its third page differs from the 23rd token on
        other[150] = ids[150] + 1;
        for (int type = SD_SANITIZED ? SD_KV_INT8 : SD_KV_F16; type < SD_KV_TYPES; type++)
            for (int length = 0; length <= 4; length += 4) {
                sd_engine_options o = {.ctx = CTX,
                                       .slots = 6, // pages enough for all windows
                                       .kv = (sd_kv_type)type,
                                       .prefill_chunk = 50,
                                       .spec_length = length};
                if (!length) o.spec = SD_SPEC_OFF;
                sd_request r = request(ids, LONG), q = request(other, LONG);
                test_answer want = alone(m, (sd_kv_type)type, &r),
                            differs = alone(m, (sd_kv_type)type, &q);
                sd_engine *e = test_engine_open(m, &o);
                run_found(e, &r, 0, &want);
                run_found(e, &r, LONG - 1, &want); // the last token is always computed
                run_found(e, &q, 150, &differs);
                run_found(e, &q, LONG - 1, &differs);
                run_found(e, &r, LONG - 1, &want);
                sd_engine_stats s;
                sd_engine_get_stats(e, &s);
                cr_assert_eq(s.prefix_queries, 5 * LONG);
                cr_assert_eq(s.prefix_hits, 3 * (LONG - 1) + 150);
                cr_assert_eq(s.prompt_tokens, 5 * LONG);
                cr_assert_eq(s.kv_used, 0);
                sd_engine_close(e);
                test_answer_free(&want), test_answer_free(&differs);
            }
        sd_model_release(m);
    }
}

Test(prefix, the_next_turn_finds_the_prompt_and_the_answer_before_it) {
    sd_model *m = tiny(&sd_arch_gemma3);
    int32_t ids[LONG + N + 30];
    text(ids, LONG, 1);
    for (int length = 0; length <= 3; length += 3) {
        sd_engine *e = test_engine_open(
            m, &(sd_engine_options){.ctx = CTX, .slots = 1, .spec_length = length});
        sd_request r = request(ids, LONG);
        test_answer a = {0};
        submit(e, r, &a);
        finish(e);
        memcpy(ids + LONG, a.ids.id, N * sizeof *ids);
        text(ids + LONG + N, 30, 3);
        sd_request next = request(ids, LONG + N + 30);
        test_answer want = alone(m, SD_KV_AUTO, &next);
        // The answer's last token was not computed, unless it was an accepted draft.
        test_answer b = {0};
        submit(e, next, &b);
        finish(e);
        cr_assert(b.stats.cached_tokens == LONG + N - 1 || b.stats.cached_tokens == LONG + N, "%d",
                  b.stats.cached_tokens);
        same_answer(&b, &want);
        test_answer_free(&a), test_answer_free(&b), test_answer_free(&want);
        sd_engine_close(e);
    }
    sd_model_release(m);
}

static sd_adapter *adapter_of(sd_model *m, float value) {
    sd_lora *lora = sd_alloc((size_t)m->n_linears, sizeof *lora);
    sd_adapter *a = NULL;
    for (int i = 0; i < m->n_linears; i++) {
        int rows = m->linear[i].w.rows, cols = m->linear[i].w.cols;
        float *f = sd_alloc((size_t)(rows + cols), sizeof *f);
        for (int k = 0; k < rows + cols; k++) f[k] = value * (float)(k % 5 - 2);
        lora[i] = (sd_lora){.r = 1, .A = f, .B = f + cols, .scale = 1};
    }
    cr_assert_eq(sd_adapter_from_factors(&a, "a", lora, m, NULL), SD_OK);
    for (int i = 0; i < m->n_linears; i++) free((void *)(uintptr_t)lora[i].A);
    free(lora);
    return a;
}

Test(prefix, tenants_and_adapters_find_nothing_of_each_other) {
    sd_model *m = tiny(&sd_arch_llama);
    sd_adapter *adapter[] = {NULL, adapter_of(m, .1f), adapter_of(m, .1f)};
    int32_t ids[LONG];
    text(ids, LONG, 1);
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 8});
    for (int again = 0; again < 2; again++)
        for (uint64_t tenant = 0; tenant < 3; tenant++)
            for (int k = 0; k < 3; k++) {
                sd_request r = request(ids, LONG);
                r.tenant = tenant, r.adapter = adapter[k];
                r.client = tenant; // as the tenant of another one: that is not what counts
                test_answer want = alone(m, SD_KV_AUTO, &r);
                run_found(e, &r, again ? LONG - 1 : 0, &want);
                test_answer_free(&want);
            }
    sd_engine_close(e);
    for (int k = 1; k < 3; k++) sd_adapter_release(adapter[k]);
    sd_model_release(m);
}

Test(prefix, without_it_nothing_is_found) {
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[LONG];
    text(ids, LONG, 1);
    sd_request r = request(ids, LONG);
    test_answer want = alone(m, SD_KV_AUTO, &r);
    sd_engine *e =
        test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 1, .no_prefix_cache = true});
    for (int i = 0; i < 2; i++) run_found(e, &r, 0, &want);
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    cr_assert(!s.prefix_cache && s.prefix_queries == 0 && s.prefix_hits == 0);
    sd_engine_close(e);
    test_answer_free(&want);
    sd_model_release(m);
}

Test(prefix, requests_that_run_side_by_side_read_a_common_text_once) {
    enum { MANY = 4 };
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[MANY][LONG];
    test_answer want[MANY], got[MANY] = {0};
    sd_engine *e =
        test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = MANY, .prefill_chunk = 32});
    for (int i = 0; i < MANY; i++) {
        text(ids[i], LONG, 1);
        ids[i][LONG - 1] = i;
        sd_request r = request(ids[i], LONG);
        want[i] = alone(m, SD_KV_AUTO, &r);
        submit(e, r, &got[i]);
    }
    finish(e);
    int cached = 0;
    for (int i = 0; i < MANY; i++) {
        same_answer(&got[i], &want[i]);
        cached += got[i].stats.cached_tokens;
        test_answer_free(&got[i]), test_answer_free(&want[i]);
    }
    cr_assert_geq(cached, 2 * LONG, "%d of %d", cached, MANY * LONG);
    sd_engine_close(e);
    sd_model_release(m);
}

Test(prefix, a_prompt_that_was_cancelled_halfway_is_found_as_far_as_it_came) {
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[LONG];
    text(ids, LONG, 1);
    sd_request r = request(ids, LONG);
    test_answer want = alone(m, SD_KV_AUTO, &r), a = {0};
    sd_engine *e =
        test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 1, .prefill_chunk = 40});
    uint64_t id = submit(e, r, &a);
    for (int i = 0; i < 5; i++) sd_engine_step(e);
    sd_engine_cancel(e, id);
    finish(e);
    cr_assert_eq(a.finish, SD_FINISH_CANCELLED);
    run_found(e, &r, 200, &want);
    sd_engine_close(e);
    test_answer_free(&a), test_answer_free(&want);
    sd_model_release(m);
}

// ---- the budget

// Bytes of a pool of so many pages, each of which is a page of every layer.
static size_t budget(sd_model *m, int pages) {
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 1});
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    sd_engine_close(e);
    return s.kv_bytes / (CTX / SD_KV_PAGE) * (size_t)pages;
}

Test(prefix, what_nobody_reads_is_forgotten_when_pages_run_out_the_oldest_first) {
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[3][LONG];
    test_answer want[3];
    // Two texts of five pages and what one more needs.
    sd_engine *e = test_engine_open(
        m, &(sd_engine_options){.ctx = CTX, .slots = 2, .kv_memory = budget(m, 12)});
    cr_assert_eq(e->stats.kv_total, 12 * SD_KV_PAGE);
    for (int i = 0; i < 3; i++) {
        text(ids[i], LONG, 1 + (uint64_t)i);
        sd_request r = request(ids[i], LONG);
        want[i] = alone(m, SD_KV_AUTO, &r);
    }
    sd_request r[3];
    for (int i = 0; i < 3; i++) r[i] = request(ids[i], LONG);
    run_found(e, &r[0], 0, &want[0]);
    run_found(e, &r[1], 0, &want[1]);
    run_found(e, &r[0], LONG - 1, &want[0]); // it is the younger one now
    run_found(e, &r[2], 0, &want[2]);        // takes the end of the other
    run_found(e, &r[0], LONG - 1, &want[0]);
    test_answer a = {0};
    submit(e, r[1], &a);
    finish(e);
    cr_assert_lt(a.stats.cached_tokens, LONG - 1, "some of it went");
    same_answer(&a, &want[1]);
    cr_assert_eq(e->stats.preemptions, 0);
    sd_engine_close(e);
    test_answer_free(&a);
    for (int i = 0; i < 3; i++) test_answer_free(&want[i]);
    sd_model_release(m);
}

Test(prefix, a_request_gives_way_when_pages_run_out_and_its_answer_is_the_same) {
    enum { MANY = 4, EACH = 120 };
    static const sd_arch *const archs[] = {&sd_arch_llama, &sd_arch_gemma3};
    for (int k = 0; k < 2; k++)
        for (int length = 0; length <= 3; length += 3) {
            sd_model *m = tiny(archs[k]);
            int32_t ids[MANY][EACH];
            test_answer want[MANY], got[MANY] = {0};
            sd_engine_options o = {.ctx = CTX, .slots = MANY, .spec_length = length};
            sd_engine *e = test_engine_open(m, &o);
            size_t all = e->stats.kv_bytes;
            sd_engine_close(e);
            o.kv_memory = all / 4 + all / 32; // nine pages of 32
            e = test_engine_open(m, &o);
            for (int i = 0; i < MANY; i++) {
                text(ids[i], EACH, 1 + (uint64_t)i);
                sd_request r = request(ids[i], EACH);
                r.max_tokens = 150, r.client = (uint64_t)i % 2;
                want[i] = alone(m, SD_KV_AUTO, &r);
                submit(e, r, &got[i]);
            }
            finish(e);
            cr_assert_gt(e->stats.preemptions, 0);
            for (int i = 0; i < MANY; i++) {
                same_answer(&got[i], &want[i]);
                cr_assert_eq(got[i].stats.prompt_tokens, EACH);
                test_answer_free(&got[i]), test_answer_free(&want[i]);
            }
            cr_assert_eq(e->stats.prompt_tokens, MANY * EACH);
            sd_engine_close(e);
            sd_model_release(m);
        }
}

Test(prefix, what_a_request_finds_again_after_it_gave_way_is_counted_once) {
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[LONG], other[LONG];
    test_answer warm = {0}, got = {0}, beside = {0};
    sd_engine *e =
        test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 2, .spec = SD_SPEC_OFF});
    text(ids, LONG, 1);
    text(other, LONG, 2);
    sd_request r = request(ids, LONG), q = request(other, LONG);
    r.max_tokens = q.max_tokens = 30;
    r.client = q.client = 1, r.priority = 5;
    submit(e, r, &warm);
    finish(e);
    submit(e, q, &beside);
    while (beside.ids.n < 5) sd_engine_step(e);
    submit(e, r, &got);
    sd_queue_admit(e); // it has found its prompt, and no row of it has run
    cr_assert_eq(e->stats.prefix_hits, LONG - 1);
    cr_assert(sd_queue_make_room(e), "the less urgent gives way");
    cr_assert_eq(e->waiting, 1);
    finish(e);
    cr_assert_eq(e->stats.prefix_hits, LONG - 1);
    cr_assert_eq(got.stats.cached_tokens, LONG - 1);
    same_answer(&got, &warm);
    test_answer_free(&warm), test_answer_free(&got), test_answer_free(&beside);
    sd_engine_close(e);
    sd_model_release(m);
}

// Short requests of others that end one by one never leave the pages of a long one together.
Test(prefix, a_request_that_gave_way_gets_its_pages_however_many_others_come) {
    enum { SHORTS = 4, SHORT = 70 };
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[LONG], other[SHORTS + 1][SHORT];
    test_answer got = {0}, beside = {0}, shorts[SHORTS] = {0};
    sd_engine_options o = {.ctx = CTX, .slots = SHORTS + 1, .spec = SD_SPEC_OFF};
    o.kv_memory = budget(m, 9);
    sd_engine *e = test_engine_open(m, &o);
    text(ids, LONG, 1);
    text(other[SHORTS], SHORT, 2);
    sd_request r = request(ids, LONG), q = request(other[SHORTS], SHORT);
    r.max_tokens = 100, r.client = 1, r.priority = 5;
    q.max_tokens = 50, q.client = 1;
    test_answer want = alone(m, SD_KV_AUTO, &r);
    submit(e, r, &got), submit(e, q, &beside);
    while (got.ids.n < 5) sd_engine_step(e);
    cr_assert(sd_queue_make_room(e), "the less urgent of the client with the most slots");
    cr_assert_eq(e->waiting, 1);
    double begin = sd_now_s();
    for (uint64_t k = 0; !got.finish; k++) {
        for (int i = 0; i < SHORTS; i++) {
            if (k > 0 && !shorts[i].finish) continue;
            test_answer_free(&shorts[i]);
            text(other[i], SHORT, 1000 + 10 * k + (uint64_t)i);
            q = request(other[i], SHORT);
            q.client = 2 + (uint64_t)i, q.max_tokens = k > 0 ? 40 : 10 + 10 * i;
            submit(e, q, &shorts[i]);
        }
        sd_engine_step(e);
        check_counts(e);
        cr_assert_lt(sd_now_s() - begin, 30, "it waits for ever");
    }
    cr_assert_gt(sd_now_s() - begin, .9, "the others went before it for a while");
    same_answer(&got, &want);
    finish(e);
    test_answer_free(&got), test_answer_free(&beside), test_answer_free(&want);
    for (int i = 0; i < SHORTS; i++) test_answer_free(&shorts[i]);
    sd_engine_close(e);
    sd_model_release(m);
}

// The older one of a client has no page, as when it gave way to a newcomer; the younger one has all.
Test(prefix, one_that_gets_no_page_holds_up_none_that_has_its_pages) {
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[LONG];
    test_answer a[2] = {0};
    sd_engine_options o = {.ctx = CTX, .slots = 2, .prefill_chunk = 1, .kv_memory = budget(m, 3)};
    sd_engine *e = test_engine_open(m, &o);
    text(ids, LONG, 1);
    submit(e, request(ids, 20), &a[0]), submit(e, request(ids + 30, 165), &a[1]);
    sd_engine_step(e);
    sd_kv_truncate(e->slot[0].kv, 0);
    cr_assert(sd_kv_reserve(e->slot[1].kv, 165) && sd_kv_pool_left(e->kv, 0) == 0);
    finish(e);
    for (int i = 0; i < 2; test_answer_free(&a[i++])) cr_assert_eq(a[i].ids.n, N);
    sd_engine_close(e);
    sd_model_release(m);
}

Test(prefix, what_no_pool_can_hold_is_refused_and_one_alone_has_all_of_it) {
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[LONG];
    text(ids, LONG, 1);
    sd_error err;
    sd_engine *e = test_engine_open(
        m, &(sd_engine_options){.ctx = CTX, .slots = 2, .kv_memory = budget(m, 3)});
    sd_request r = request(ids, 3 * SD_KV_PAGE);
    cr_assert_eq(sd_engine_submit(e, &r, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "192 tokens") && strstr(err.message, "--kv-memory"), "%s",
              err.message);
    r.n_prompt = 3 * SD_KV_PAGE - 5; // five more tokens, the last of which needs no page
    test_answer a = {0};
    submit(e, r, &a);
    finish(e);
    cr_assert(a.finish == SD_FINISH_LENGTH && a.ids.n == 5, "%d", a.ids.n);
    test_answer_free(&a);
    sd_engine_close(e);
    e = NULL;
    cr_assert_eq(sd_engine_open(&e, m, &(sd_engine_options){.ctx = CTX, .kv_memory = 5000}, &err),
                 SD_EINVAL);
    cr_assert(strstr(err.message, "give 1 or more"), "%s", err.message);
    sd_model_release(m);
}

// ---- priorities

// The order in which the answers end.
static void note_end(void *ctx, const sd_event *ev) {
    int **next = ctx;
    if (ev->finish) *(*next)++ = (int)ev->stats->prompt_tokens;
}

Test(prefix, a_lower_priority_goes_first_within_a_client_and_an_administrators_anywhere) {
    sd_model *m = tiny(&sd_arch_llama);
    int32_t ids[LONG];
    text(ids, LONG, 1);
    // client, priority, administrator; known by the length of its prompt.
    static const struct {
        uint64_t client;
        int priority;
        bool admin;
    } given[] = {{1, 0, false}, {1, 5, false}, {1, -5, false}, {1, 5, false},
                 {2, 9, false}, {3, 7, true},  {4, -1, true}};
    static const int want[] = {10, 16, 12, 14, 11, 13, 15};
    int got[7] = {0}, *next = got;
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = CTX, .slots = 1});
    for (int i = 0; i < 7; i++) {
        sd_request r = request(ids, 10 + i);
        r.max_tokens = 3, r.client = given[i].client, r.priority = given[i].priority;
        r.admin_priority = given[i].admin, r.on_event = note_end, r.ctx = &next;
        cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
        if (i == 0) sd_engine_step(e); // it has the slot
    }
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < 7; i++) cr_assert_eq(got[i], want[i], "place %d: %d", i, got[i]);
    sd_engine_close(e);
    sd_model_release(m);
}

// ---- anything at any time

enum { KINDS = 14, LIVE = 24, STEPS = SD_SANITIZED ? 300 : 1500 };

typedef struct {
    test_answer answer;
    uint64_t id;
    int kind;
    bool used, cancelled;
} flight;

static uint32_t draw(uint64_t seed, uint64_t *at, uint32_t below) {
    uint32_t r[4];
    sd_philox(r, seed, SD_STREAM_INIT, (*at)++);
    return r[0] % below;
}

typedef struct {
    int32_t ids[KINDS][LONG];
    sd_request r[KINDS];
    test_answer want[KINDS];
} kinds;

// Texts that begin alike and differ somewhere, in a page or at its end.
static void make_kinds(kinds *k, sd_model *m, sd_adapter *adapter) {
    static const int same[KINDS] = {0, 64, 100, 128, 200, 31, 63, 65, 250, 127, 192, 10, 0, 280};
    for (int i = 0; i < KINDS; i++) {
        text(k->ids[i], LONG, 1);
        text(k->ids[i] + same[i], LONG - same[i], 100 + (uint64_t)i);
        k->r[i] = request(k->ids[i], same[i] + 1 + (i * 37) % (LONG - same[i] - 1));
        k->r[i].max_tokens = 1 + (i * 29) % 90;
        k->r[i].sampling.temperature = i % 3 ? 1 : 0;
        k->r[i].sampling.seed = (uint64_t)i;
        k->r[i].client = (uint64_t)i % 3;
        k->r[i].tenant = i % 7 == 6;
        k->r[i].adapter = i % 4 == 3 ? adapter : NULL;
        k->r[i].priority = i % 5;
        k->want[i] = alone(m, SD_KV_AUTO, &k->r[i]);
    }
}

static int collect_ended(flight *live, const kinds *k) {
    int ended = 0;
    for (int i = 0; i < LIVE; i++) {
        test_answer *a = &live[i].answer;
        const test_answer *want = &k->want[live[i].kind];
        if (!live[i].used || !a->finish) continue;
        if (a->finish == SD_FINISH_CANCELLED) {
            cr_assert(live[i].cancelled && a->ids.n <= want->ids.n);
            if (a->ids.n) cr_assert_eq(memcmp(a->ids.id, want->ids.id, (size_t)a->ids.n * 4), 0);
        } else {
            same_answer(a, want);
        }
        ended++;
        test_answer_free(a);
        live[i] = (flight){0};
    }
    return ended;
}

// Random arrivals and departures in a pool of `sixteenths` of what all slots would need.
static void fly(sd_model *m, const kinds *k, uint64_t seed, size_t sixteenths, int length) {
    sd_engine_options o = {
        .ctx = CTX, .slots = 4, .queue = 30, .prefill_chunk = 48, .spec_length = length};
    if (seed % 2) o.spec = length ? SD_SPEC_AUTO : SD_SPEC_OFF;
    sd_engine *e = test_engine_open(m, &o);
    o.kv_memory = e->stats.kv_bytes / 16 * sixteenths;
    sd_engine_close(e);
    e = test_engine_open(m, &o);
    flight *live = calloc(LIVE, sizeof *live);
    uint64_t at = 0;
    int ended = 0;
    for (int step = 0; step < STEPS || e->stats.running + e->stats.waiting > 0; step++) {
        flight *f = &live[draw(seed, &at, LIVE)];
        uint32_t what = draw(seed, &at, 8);
        if (step < STEPS && !f->used && what < 5) {
            f->kind = (int)draw(seed, &at, KINDS);
            if (sd_engine_has_room(e, k->r[f->kind].client, 1))
                f->id = submit(e, k->r[f->kind], &f->answer), f->used = true;
        } else if (f->used && what == 7) {
            sd_engine_cancel(e, f->id);
            f->cancelled = true;
        }
        sd_engine_step(e);
        check_counts(e);
        ended += collect_ended(live, k);
        cr_assert_lt(step, 20 * STEPS, "nobody gets on");
    }
    ended += collect_ended(live, k);
    for (int i = 0; i < LIVE; i++) cr_assert_not(live[i].used);
    cr_assert_gt(ended, STEPS / 30);
    cr_assert_gt(e->stats.prefix_hits, 1000);
    if (sixteenths < 16) cr_assert_gt(e->stats.preemptions, SD_SANITIZED ? 0 : 10);
    cr_assert_eq(e->stats.kv_used, 0);
    free(live);
    sd_engine_close(e);
}

Test(prefix, whatever_comes_and_goes_in_few_pages_each_answer_is_its_own) {
    static const sd_arch *const archs[] = {&sd_arch_llama, &sd_arch_gemma3};
    for (int a = 0; a < 2; a++) {
        sd_model *m = tiny(archs[a]);
        sd_adapter *adapter = adapter_of(m, .1f);
        kinds *k = calloc(1, sizeof *k);
        make_kinds(k, m, adapter);
        fly(m, k, 1, 5, 0);
        fly(m, k, 2, 6, 3);
        fly(m, k, 3, 64, 2);
        for (int i = 0; i < KINDS; i++) test_answer_free(&k->want[i]);
        free(k);
        sd_adapter_release(adapter);
        sd_model_release(m);
    }
}
