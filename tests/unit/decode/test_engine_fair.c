// One client against the others: who gets the slots, the prompt rows, the places in the queue and the
// pages, and that no answer changes by it.
#include "base/rng.h"
#include "decode/engine/private.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <string.h>

enum { PROMPT = 40, N = 60 };

static sd_model *tiny(void) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

static sd_request request(uint64_t client, const int32_t *prompt, int n, int max_tokens) {
    return (sd_request){.prompt = prompt,
                        .n_prompt = n,
                        .max_tokens = max_tokens,
                        .sampling = {.temperature = 1, .top_p = 1, .seed = 17},
                        .ignore_end = true,
                        .logprobs = -1,
                        .client = client};
}

static uint64_t submit(sd_engine *e, sd_request r, test_answer *a) {
    uint64_t id = 0;
    r.on_event = test_collect, r.ctx = a;
    cr_assert_eq(sd_engine_submit(e, &r, &id, NULL), SD_OK);
    return id;
}

// Steps until the answer has ended; how many.
static int steps_until_end(sd_engine *e, const test_answer *a) {
    int n = 0;
    for (; !a->finish && n < 10000; n++) sd_engine_step(e);
    return n;
}

static void finish(sd_engine *e) {
    while (sd_engine_step(e)) {
    }
}

static sd_engine_stats stats_of(sd_engine *e) {
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    return s;
}

// A mix of what may be lost on the way: noise, greedy, stop strings, text held back, drafts.
static sd_request mixed(const int32_t *prompt, int i) {
    sd_request r = request(1, prompt, PROMPT - i, i ? N + 7 * i : 6);
    r.sampling.seed = (uint64_t)i;
    if (i % 3 == 1) r.sampling.temperature = 0;
    r.stop[0] = "never said by anyone", r.n_stop = 1;
    r.logprobs = i % 2 ? 2 : -1;
    return r;
}

Test(fair, an_answer_that_gave_its_slot_back_is_the_one_it_would_have_been) {
    enum { HELD = 4 };
    sd_model *m = tiny();
    int32_t prompt[PROMPT];
    test_repetitive(prompt, PROMPT, 5, 200);
    for (int length = 0; length <= 3; length += 3) {
        sd_engine_options o = {.slots = HELD, .spec_length = length, .threads = 1};
        if (!length) o.spec = SD_SPEC_OFF;
        test_answer alone[HELD] = {0}, got[HELD] = {0}, others[6] = {0};
        sd_engine *e = test_engine_open(m, &o);
        for (int i = 0; i < HELD; i++) {
            sd_request r = mixed(prompt, i + 1);
            test_run(e, &r, &alone[i]);
        }
        for (int i = 0; i < HELD; i++) submit(e, mixed(prompt, i + 1), &got[i]);
        for (int k = 0; k < 6; k++) { // newcomers, one after the other
            for (int i = 0; i < 9; i++) sd_engine_step(e);
            submit(e, request(2 + (uint64_t)k % 2, prompt, 3, 5), &others[k]);
        }
        finish(e);
        cr_assert_geq(stats_of(e).preemptions, 3);
        for (int i = 0; i < HELD; i++) {
            cr_assert_eq(got[i].ids.n, alone[i].ids.n);
            cr_assert_eq(memcmp(got[i].ids.id, alone[i].ids.id, (size_t)got[i].ids.n * 4), 0);
            cr_assert_eq(memcmp(got[i].logprob, alone[i].logprob, sizeof alone[i].logprob), 0);
            cr_assert_eq(got[i].text.len, alone[i].text.len);
            cr_assert_eq(memcmp(got[i].text.data, alone[i].text.data, got[i].text.len), 0);
            cr_assert_eq(got[i].stats.prompt_tokens, alone[i].stats.prompt_tokens);
            cr_assert_eq(got[i].stats.generated, alone[i].stats.generated);
            test_answer_free(&alone[i]), test_answer_free(&got[i]);
        }
        for (int k = 0; k < 6; k++) test_answer_free(&others[k]);
        sd_engine_close(e);
    }
    sd_model_release(m);
}

// Long answers of client 1 in all slots and in the queue.
static void flood(sd_engine *e, const int32_t *prompt, test_answer *a, int n) {
    for (int i = 0; i < n; i++) submit(e, request(1, prompt, PROMPT, 400), &a[i]);
    for (int i = 0; i < 5; i++) sd_engine_step(e);
}

Test(fair, a_newcomer_has_a_slot_at_once_whoever_has_them_all) {
    sd_model *m = tiny();
    int32_t prompt[PROMPT];
    test_repetitive(prompt, PROMPT, 5, 200);
    for (int reserve = 0; reserve < 2; reserve++) {
        sd_engine *e =
            test_engine_open(m, &(sd_engine_options){.slots = 2, .reserve = reserve, .threads = 1});
        test_answer held[6] = {0}, a = {0}, b = {0};
        flood(e, prompt, held, 6);
        cr_assert_eq(stats_of(e).running, 2, "the reserve is not for a client that has slots");
        submit(e, request(2, prompt, 3, 2), &a);
        cr_assert_leq(steps_until_end(e, &a), 3);
        cr_assert_eq(stats_of(e).preemptions, 1 - reserve, "nobody has to give while one is spare");
        // Two at once: the second takes its slot from the client that holds two.
        submit(e, request(2, prompt, 3, 9), &b);
        test_answer_free(&a);
        submit(e, request(3, prompt, 3, 9), &a);
        cr_assert_leq(steps_until_end(e, &a), 30);
        cr_assert_leq(steps_until_end(e, &b), 30);
        finish(e);
        for (int i = 0; i < 6; i++) {
            cr_assert_eq(held[i].ids.n, 400);
            test_answer_free(&held[i]);
        }
        test_answer_free(&a), test_answer_free(&b);
        sd_engine_close(e);
    }
    sd_model_release(m);
}

Test(fair, clients_share_the_slots_as_they_become_free) {
    sd_model *m = tiny();
    int32_t prompt[PROMPT];
    test_repetitive(prompt, PROMPT, 5, 200);
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.slots = 4, .threads = 1});
    test_answer mine[20] = {0}, other[4] = {0};
    for (int i = 0; i < 20; i++) submit(e, request(1, prompt, PROMPT, 20), &mine[i]);
    for (int i = 0; i < 4; i++) submit(e, request(2, prompt, PROMPT, 20), &other[i]);
    for (int i = 0; i < 4; i++) steps_until_end(e, &other[i]);
    int done = 0;
    for (int i = 0; i < 20; i++) done += mine[i].finish != SD_FINISH_NONE;
    cr_assert_leq(done, 6, "%d of the other's 20 came first", done);
    finish(e);
    for (int i = 0; i < 20; i++) test_answer_free(&mine[i]);
    for (int i = 0; i < 4; i++) test_answer_free(&other[i]);
    sd_engine_close(e);
    sd_model_release(m);
}

Test(fair, a_short_prompt_does_not_wait_for_long_ones_of_others_or_its_own_client) {
    enum { LONG = 400 };
    sd_model *m = tiny();
    int32_t prompt[LONG];
    test_repetitive(prompt, LONG, 5, 200);
    for (uint64_t client = 1; client <= 2; client++) {
        sd_engine *e =
            test_engine_open(m, &(sd_engine_options){.slots = 6, .prefill_chunk = 8, .threads = 1});
        test_answer longs[4] = {0}, a = {0};
        for (int i = 0; i < 4; i++) submit(e, request(1, prompt, LONG, 1), &longs[i]);
        for (int i = 0; i < 5; i++) sd_engine_step(e);
        submit(e, request(client, prompt, 8, 1), &a);
        cr_assert_leq(steps_until_end(e, &a), 3);
        // The one that came first gets on while others have fewer rows left.
        for (int i = 0; i < 400 && !longs[0].finish; i++) {
            test_answer_free(&a);
            submit(e, request(1, prompt, 8, 1), &a);
            sd_engine_step(e);
            if (!a.finish) steps_until_end(e, &a);
        }
        cr_assert(longs[0].finish);
        finish(e);
        for (int i = 0; i < 4; i++) test_answer_free(&longs[i]);
        test_answer_free(&a);
        sd_engine_close(e);
    }
    sd_model_release(m);
}

Test(fair, a_full_queue_still_takes_a_share_of_another_client) {
    sd_model *m = tiny();
    int32_t prompt[PROMPT];
    test_repetitive(prompt, PROMPT, 5, 200);
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.slots = 1, .queue = 8, .threads = 1});
    test_answer mine = {0}, other = {0};
    for (int i = 0; i < 9; i++) submit(e, request(1, prompt, PROMPT, 2), &mine);
    cr_assert_not(sd_engine_has_room(e, 1, 1));
    cr_assert(sd_engine_has_room(e, 2, 4) && !sd_engine_has_room(e, 2, 5));
    for (int i = 0; i < 4; i++) submit(e, request(2, prompt, PROMPT, 2), &other);
    cr_assert_not(sd_engine_has_room(e, 2, 1));
    cr_assert(sd_engine_has_room(e, 3, 3) && !sd_engine_has_room(e, 3, 4));
    // However many clients there are, what waits has a bound.
    for (uint64_t c = 3; c < 60; c++)
        if (sd_engine_has_room(e, c, 1)) submit(e, request(c, prompt, PROMPT, 2), &other);
    cr_assert_leq(stats_of(e).waiting, 2 * (8 + 1));
    finish(e);
    cr_assert(sd_engine_has_room(e, 1, 9));
    test_answer_free(&mine), test_answer_free(&other);
    sd_engine_close(e);
    sd_model_release(m);
}

Test(fair, the_wait_for_room_is_that_of_the_tokens_before_it) {
    sd_model *m = tiny();
    int32_t prompt[PROMPT];
    test_repetitive(prompt, PROMPT, 5, 200);
    sd_engine *e = test_engine_open(
        m, &(sd_engine_options){.slots = 2, .queue = 4, .threads = 1, .spec = SD_SPEC_OFF});
    test_answer a[6] = {0};
    cr_assert_eq(sd_engine_wait_s(e, 1, 1), 0, "there is room");
    for (int i = 0; i < 6; i++) submit(e, request(1, prompt, PROMPT, 300), &a[i]);
    for (int i = 0; i < 50; i++) sd_engine_step(e);
    double one = sd_engine_wait_s(e, 1, 1), three = sd_engine_wait_s(e, 1, 3);
    cr_assert_gt(one, 0);
    // Two run side by side, so the third place is free when a second pair has begun.
    cr_assert(three > 1.5 * one && three < 4 * one, "%g %g", one, three);
    cr_assert_eq(sd_engine_wait_s(e, 2, 1), 0, "another client has its share");
    finish(e);
    for (int i = 0; i < 6; i++) test_answer_free(&a[i]);
    sd_engine_close(e);
    sd_model_release(m);
}

Test(fair, a_step_with_prompt_rows_keeps_to_its_time) {
    // Not by the clock of a busy machine: rows that cost more than a step has time for come one by
    // one, cheap ones as many as the chunk.
    enum { LONG = 300 };
    sd_model *m = tiny();
    int32_t prompt[LONG];
    test_repetitive(prompt, LONG, 5, 200);
    for (int slow = 0; slow < 2; slow++) {
        sd_engine *e = test_engine_open(
            m, &(sd_engine_options){
                   .slots = 2, .prefill_chunk = 64, .threads = 1, .step_ms = slow ? 1e-6 : 1e6});
        test_answer a = {0};
        submit(e, request(1, prompt, LONG, 1), &a);
        int steps = steps_until_end(e, &a);
        if (slow)
            cr_assert_gt(steps, LONG / 4); // the first steps have no price yet
        else
            cr_assert_leq(steps, LONG / 64 + 2);
        test_answer_free(&a);
        sd_engine_close(e);
    }
    sd_model_release(m);
}

// ---- random arrivals and departures

enum { KINDS = 12, LIVE = 40 };

typedef struct {
    test_answer answer;
    int kind;
    uint64_t id;
    bool used, cancelled;
} flight;

static uint32_t draw(uint64_t seed, uint64_t *at) {
    uint32_t r[4];
    sd_philox(r, seed, SD_STREAM_INIT, (*at)++);
    return r[0];
}

static void check_flight(const flight *f, const test_answer *want) {
    const test_answer *a = &f->answer;
    cr_assert(a->finish == SD_FINISH_LENGTH || (f->cancelled && a->finish == SD_FINISH_CANCELLED));
    if (a->finish == SD_FINISH_LENGTH) cr_assert_eq(a->ids.n, want->ids.n);
    cr_assert_leq(a->ids.n, want->ids.n);
    if (a->ids.n) cr_assert_eq(memcmp(a->ids.id, want->ids.id, (size_t)a->ids.n * 4), 0);
}

Test(fair, whatever_comes_and_goes_each_answer_is_its_own_and_ends_once) {
    sd_model *m = tiny();
    int32_t prompt[PROMPT];
    test_repetitive(prompt, PROMPT, 5, 200);
    test_answer want[KINDS] = {0};
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.slots = 3,
                                                            .reserve = 1,
                                                            .queue = 10,
                                                            .prefill_chunk = 24,
                                                            .threads = 1,
                                                            .step_ms = .4});
    for (int i = 0; i < KINDS; i++) {
        sd_request r = mixed(prompt, i);
        test_run(e, &r, &want[i]);
    }
    uint64_t at = 0;
    int ended = 0, refused = 0;
    flight *live = calloc(LIVE, sizeof *live);
    for (int step = 0; step < 4000 || stats_of(e).running + stats_of(e).waiting > 0; step++) {
        flight *f = &live[draw(1, &at) % LIVE];
        uint32_t what = draw(1, &at) % 8;
        if (step < 4000 && !f->used && what < 5) {
            // Short ones of others come in between.
            bool other = draw(1, &at) % 8 == 0;
            f->kind = other ? 0 : (int)(draw(1, &at) % KINDS);
            sd_request r = mixed(prompt, f->kind);
            if (other) r.client = 2 + draw(1, &at) % 4;
            bool room = sd_engine_has_room(e, r.client, 1);
            refused += !room;
            if (room) f->id = submit(e, r, &f->answer), f->used = true;
        } else if (f->used && what == 7) {
            sd_engine_cancel(e, f->id);
            f->cancelled = true;
        }
        sd_engine_step(e);
        cr_assert_leq(stats_of(e).waiting, 2 * (10 + 3) + 4);
        for (int i = 0; i < LIVE; i++) {
            if (!live[i].used || !live[i].answer.finish) continue;
            check_flight(&live[i], &want[live[i].kind]);
            test_answer_free(&live[i].answer);
            live[i] = (flight){0};
            ended++;
        }
    }
    sd_engine_stats s = stats_of(e);
    cr_assert(s.preemptions > 10 && ended > 200 && refused > 0, "%d %d %d", (int)s.preemptions,
              ended, refused);
    cr_assert(s.kv_used == 0 && sd_engine_has_room(e, 9, 13));
    for (int i = 0; i < LIVE; i++) cr_assert_not(live[i].used);
    free(live);
    for (int i = 0; i < KINDS; i++) test_answer_free(&want[i]);
    sd_engine_close(e);
    sd_model_release(m);
}

// One slot. An answer that has paid for its stay gives it to a client that has waited for long, but not
// where an administrator's priority stands before that.
Test(fair, what_an_administrator_puts_first_gives_its_slot_to_nobody) {
    sd_model *m = tiny();
    int32_t prompt[PROMPT];
    test_repetitive(prompt, PROMPT, 3, 200);
    for (int admin = 0; admin < 2; admin++) {
        test_answer long_one = {0}, other = {0};
        sd_engine *e =
            test_engine_open(m, &(sd_engine_options){.ctx = 512, .slots = 1, .spec = SD_SPEC_OFF});
        sd_request r = request(1, prompt, PROMPT, 400);
        r.priority = -1, r.admin_priority = admin;
        submit(e, r, &long_one);
        sd_engine_step(e);
        submit(e, request(2, prompt, PROMPT, 5), &other);
        cr_assert_eq(e->n_tenants, 2);
        e->tenant[1]->first->queued -= 10;
        while (!long_one.finish && !other.finish) sd_engine_step(e);
        cr_expect_eq(long_one.finish != SD_FINISH_NONE, admin);
        cr_expect_eq(other.finish != SD_FINISH_NONE, !admin);
        finish(e);
        cr_expect(long_one.ids.n == 400 && other.ids.n == 5);
        test_answer_free(&long_one), test_answer_free(&other);
        sd_engine_close(e);
    }
    sd_model_release(m);
}

// ---- pages

static void text(int32_t *ids, int n, uint64_t seed) {
    for (int i = 0; i < n; i++) {
        uint32_t r[4];
        sd_philox(r, seed, SD_STREAM_INIT, (uint64_t)i);
        ids[i] = (int32_t)(r[0] % 250);
    }
}

// Bytes of so many pages.
static size_t budget(sd_model *m, int ctx, int pages) {
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.ctx = ctx, .slots = 1});
    size_t bytes = e->stats.kv_bytes / (size_t)(ctx / SD_KV_PAGE) * (size_t)pages;
    sd_engine_close(e);
    return bytes;
}

// It waits for the one that ran before; a request that leaves it its pages need not wait for either.
Test(fair, a_short_request_goes_before_one_that_waits_for_pages_where_it_leaves_them) {
    enum { SHORT = 70, BIG = 150, LONG = 300 };
    sd_tiny_model small_model = sd_tiny_default(&sd_arch_llama);
    small_model.L = 3, small_model.ctx = 512;
    sd_model *m = sd_tiny_open(&small_model, true);
    int32_t ids[3][LONG], small[SHORT];
    test_answer first = {0}, large = {0}, fits = {0}, big = {0};
    sd_engine_options o = {.ctx = 512, .slots = 4, .spec = SD_SPEC_OFF};
    o.kv_memory = budget(m, 512, 9);
    sd_engine *e = test_engine_open(m, &o);
    for (int i = 0; i < 3; i++) text(ids[i], LONG, 1 + (uint64_t)i);
    text(small, SHORT, 9);
    sd_request r = request(1, ids[0], LONG, 140), q = request(4, ids[1], LONG, 20),
               s = request(2, small, SHORT, 20), // two pages of the four that the large one leaves
        b = request(3, ids[2], BIG, 200);        // six
    submit(e, r, &first);
    while (first.ids.n < 1) sd_engine_step(e);
    submit(e, q, &large);
    sd_engine_step(e);
    for (int i = 0; e->waiting == 0; i++) {
        sd_engine_step(e);
        cr_assert_lt(i, 100, "the pages suffice for both");
    }
    cr_assert(e->n_tenants == 2 && e->tenant[1]->first->wants_pages);
    e->tenant[1]->first->queued -= 10; // it has waited for long
    submit(e, b, &big);
    submit(e, s, &fits);
    while (!fits.finish) sd_engine_step(e);
    cr_assert(!first.finish && large.ids.n == 0 && big.ids.n == 0);
    cr_assert_eq(e->waiting, 2);
    while (!first.finish) sd_engine_step(e);
    cr_assert_eq(big.ids.n, 0, "it would take the large one's pages");
    bool begun = false;
    sd_engine_step(e);
    for (int i = 0; i < e->n_slots; i++)
        begun |= e->slot[i].request && e->slot[i].request->r.n_prompt == LONG;
    cr_assert(begun, "the large one is next");
    while (sd_engine_step(e)) {
    }
    cr_assert(large.ids.n == 20 && big.ids.n == 200);
    test_answer_free(&first), test_answer_free(&large), test_answer_free(&fits);
    test_answer_free(&big);
    sd_engine_close(e);
    sd_model_release(m);
}
