// What a tenant can see of another one through the prefix cache: nothing of its texts.
//
// Two worlds differ in the texts of tenant A alone: in one they are those of B, in the other each token is
// another one. What equals what among A's own texts is the same in both. Then all that B can observe must
// be the same: what was found of its prompts, the rows that were computed, the order of what happens. That
// holds when pages run out too: B sees how much room others took, never for which text.
#include "base/rng.h"
#include "decode/engine/private.h"
#include "tests/unit/support/counting_backend.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/sanitized.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <string.h>

enum { CTX = 512, TEXTS = 4, LENGTH = 400, EVENTS = SD_SANITIZED ? 60 : 200, RANK = 2, V = 250 };

// One event, as seen from outside.
typedef struct {
    int cached_b, preemptions;
    int64_t rows, rows_b; // of the event's steps; those of B's prompt that were read
} seen;

static uint32_t draw(uint64_t seed, int i, uint32_t below) {
    uint32_t r[4];
    sd_philox(r, seed, SD_STREAM_INIT, (uint64_t)i);
    return r[0] % below;
}

// Text k of both tenants; other: as the second world's A has it. Texts begin alike and part at different
// places.
static void text(int32_t *ids, int k, bool other) {
    for (int i = 0; i < LENGTH; i++) {
        int common = 50 + 90 * k;
        int32_t t = (int32_t)draw(i < common ? 1 : 2 + (uint64_t)k, i, V);
        ids[i] = other ? (t + 101) % V : t; // one to one
    }
}

static sd_adapter *adapter_of(sd_model *m) {
    static const float factor[RANK * 1024];
    sd_lora lora[64];
    sd_adapter *a;
    cr_assert_leq(m->n_linears, 64);
    for (int i = 0; i < m->n_linears; i++) lora[i] = (sd_lora){RANK, factor, factor, 1};
    cr_assert_eq(sd_adapter_from_factors(&a, "a", lora, m, NULL), SD_OK);
    return a;
}

typedef struct {
    sd_engine *e;
    sd_adapter *adapter;
    bool other;
    uint64_t seed;
} world;

static void submit(world *w, int event, int who, test_answer *a) {
    int32_t ids[LENGTH];
    const uint64_t seed = w->seed + 1000 * (uint64_t)(who + 1);
    text(ids, (int)draw(seed, event, TEXTS), who == 0 && w->other);
    sd_request r = {.prompt = ids,
                    .n_prompt = 20 + (int)draw(seed + 1, event, LENGTH - 20),
                    .max_tokens = 1,
                    .ignore_end = true,
                    .logprobs = -1,
                    .client = 1 + (uint64_t)who,
                    .tenant = 1 + (uint64_t)who,
                    .adapter = draw(seed + 2, event, 3) == 0 ? w->adapter : NULL,
                    .on_event = test_collect,
                    .ctx = a};
    cr_assert_eq(sd_engine_submit(w->e, &r, NULL, NULL), SD_OK);
}

// A alone, B alone, or both at once.
static seen run_event(world *w, int event) {
    test_answer a = {0}, b = {0};
    const uint32_t kind = draw(w->seed, event, 3);
    const int64_t rows = test_counted.rows;
    if (kind != 1) submit(w, event, 0, &a);
    if (kind != 0) submit(w, event, 1, &b);
    while (sd_engine_step(w->e)) {
    }
    seen s = {.cached_b = b.stats.cached_tokens,
              .preemptions = (int)w->e->stats.preemptions,
              .rows = test_counted.rows - rows,
              .rows_b = b.stats.prompt_tokens - b.stats.cached_tokens};
    cr_assert(kind == 0 || b.finish == SD_FINISH_LENGTH);
    test_answer_free(&a), test_answer_free(&b);
    return s;
}

static void run_world(seen *out, sd_model *m, size_t kv_memory, uint64_t seed, bool other) {
    world w = {.adapter = adapter_of(m), .other = other, .seed = seed};
    w.e = test_engine_open(m, &(sd_engine_options){.ctx = CTX,
                                                   .slots = 2,
                                                   .spec = SD_SPEC_OFF,
                                                   .kv_memory = kv_memory,
                                                   .backend = &test_counting_backend});
    for (int i = 0; i < EVENTS; i++) out[i] = run_event(&w, i);
    sd_engine_close(w.e);
    sd_adapter_release(w.adapter);
}

static void same_in_both(const sd_arch *arch, int pages, uint64_t seed) {
    static seen one[EVENTS], two[EVENTS];
    sd_tiny_model t = sd_tiny_default(arch);
    t.L = 2, t.ctx = CTX;
    if (t.window) t.window = 70;
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    size_t page = (size_t)SD_KV_PAGE * t.L * 2 * (size_t)(t.G * t.D) * 2;
    run_world(one, m, (size_t)pages * page, seed, false);
    run_world(two, m, (size_t)pages * page, seed, true);
    int found = 0;
    for (int i = 0; i < EVENTS; i++) {
        cr_assert_eq(memcmp(&one[i], &two[i], sizeof one[i]), 0,
                     "event %d: found %d and %d, rows %lld and %lld", i, one[i].cached_b,
                     two[i].cached_b, (long long)one[i].rows, (long long)two[i].rows);
        found += one[i].cached_b > 0;
    }
    cr_assert_gt(found, EVENTS / 20, "B finds its own");
    sd_model_release(m);
}

Test(tenants, nothing_that_one_sees_depends_on_the_texts_of_another) {
    for (uint64_t seed = 0; seed < (SD_SANITIZED ? 1 : 3); seed++)
        same_in_both(&sd_arch_llama, 0, seed);
}

Test(tenants, nor_when_pages_run_out) {
    for (uint64_t seed = 0; seed < (SD_SANITIZED ? 1 : 3); seed++) {
        same_in_both(&sd_arch_llama, 14, seed);
        same_in_both(&sd_arch_gemma3, 14, seed);
    }
}

// The work for a request of B's is that of an engine where nobody was before, to the row.
Test(tenants, a_request_that_equals_anothers_costs_all_of_its_rows) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.ctx = CTX;
    sd_model *m = sd_tiny_open(&t, true);
    sd_adapter *adapter = adapter_of(m);
    int32_t ids[LENGTH];
    text(ids, 0, false);
    for (int with = 0; with < 2; with++) {
        int64_t rows[3];
        sd_engine *e = test_engine_open(
            m, &(sd_engine_options){
                   .ctx = CTX, .slots = 2, .spec = SD_SPEC_OFF, .backend = &test_counting_backend});
        sd_request r = {.prompt = ids,
                        .n_prompt = 300,
                        .max_tokens = 1,
                        .ignore_end = true,
                        .logprobs = -1,
                        .adapter = with ? adapter : NULL,
                        .on_event = test_collect};
        for (int i = 0; i < 3; i++) { // A, B, and B again
            test_answer a = {0};
            const int64_t before = test_counted.rows, hits = e->stats.prefix_hits;
            r.ctx = &a, r.tenant = i == 0 ? 1 : 2, r.client = r.tenant;
            test_run(e, &r, &a);
            rows[i] = test_counted.rows - before;
            cr_assert_eq(a.stats.cached_tokens, i == 2 ? 299 : 0);
            cr_assert_eq(e->stats.prefix_hits - hits, i == 2 ? 299 : 0);
            test_answer_free(&a);
        }
        cr_assert(rows[0] == 300 && rows[1] == 300 && rows[2] == 1, "%lld %lld %lld",
                  (long long)rows[0], (long long)rows[1], (long long)rows[2]);
        sd_engine_close(e);
    }
    sd_adapter_release(adapter);
    sd_model_release(m);
}
