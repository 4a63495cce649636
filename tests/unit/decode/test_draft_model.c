// The draft model: drafters of several requests together propose what each proposes alone, in one
// forward for each position; its pages come and go; an adapter of its own.
#include "decode/draft/private.h"
#include "decode/engine/private.h"
#include "tests/unit/support/counting_backend.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CTX = 200, MANY = 8, ROUNDS = 10, PROMPT = 40, N = 40 };

static int draw(int i, int below) {
    uint32_t r[4];
    sd_philox(r, 31, SD_STREAM_INIT, (uint64_t)i);
    return (int)(r[0] % (uint32_t)below);
}

static sd_model *open_tiny(const sd_arch *arch, sd_dtype dtype) {
    sd_tiny_model t = sd_tiny_default(arch);
    t.dtype = dtype;
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

// ---- drafters without an engine

typedef struct {
    void *shared;
    sd_drafter *drafter[MANY];
} set;

static set open_set(sd_model *target, sd_model *draft, int n, int64_t kv_positions) {
    set s = {0};
    bool present = false;
    sd_error err = {0};
    sd_draft d = {.kind = SD_DRAFT_MODEL, .model = draft};
    sd_context_options context = {0};
    sd_draft_setup setup = {.target = target,
                            .draft = &d,
                            .context = &context,
                            .drafters = n,
                            .ctx = CTX,
                            .kv_positions = kv_positions};
    cr_assert_eq(sd_drafter_model.share(&s.shared, &present, &setup, &err), SD_OK, "%s",
                 err.message);
    cr_assert(present);
    for (int i = 0; i < n; i++)
        cr_assert_eq(sd_drafter_model.open(&s.drafter[i], s.shared, CTX, &err), SD_OK);
    return s;
}

static void close_set(set *s, int n) {
    for (int i = 0; i < n; i++) sd_drafter_close(s->drafter[i]);
    sd_drafter_model.unshare(s->shared);
}

static const sd_sampling laws[MANY] = {{.top_p = 1},
                                       {.temperature = .7f, .top_p = 1, .seed = 1},
                                       {.temperature = 1, .top_k = 3, .top_p = 1, .seed = 2},
                                       {.temperature = 1.5f, .top_p = .5f, .seed = 3},
                                       {.top_p = 1},
                                       {.temperature = 1, .top_p = 1, .min_p = .1f, .seed = 4},
                                       {.temperature = .3f, .top_p = 1, .seed = 5},
                                       {.temperature = 1, .top_p = 1, .seed = 6}};

static void make_ready(set *together, set *alone) {
    const sd_drafter_kind *kind = &sd_drafter_model;
    bool ready[MANY] = {false};
    for (int all = 0, calls = 0; all < MANY; calls++) {
        cr_assert_lt(calls, 200);
        kind->prepare_many(together->drafter, ready, MANY, 50);
        for (int i = all = 0; i < MANY; i++) all += ready[i];
    }
    for (int i = 0; i < MANY; i++)
        while (!kind->prepare(alone->drafter[i], 7)) {
        }
}

// One position: some ask together, the others not at all. Returns how many proposals were compared.
static int compare_position(set *together, set *alone, sd_proposal *last, int seed) {
    sd_drafter *asked[MANY];
    sd_proposal got[MANY], want;
    bool made[MANY];
    int who[MANY], n = 0;
    for (int i = 0; i < MANY; i++)
        if (draw(seed + i, 4) > 0) who[n] = i, asked[n++] = together->drafter[i];
    if (n == 0) return 0;
    sd_drafter_model.peek_many(asked, got, made, n);
    for (int k = 0; k < n; k++) {
        cr_assert_eq(made[k], sd_drafter_model.peek(alone->drafter[who[k]], &want));
        cr_assert(made[k]);
        cr_assert(got[k].token == want.token && got[k].bucket == want.bucket);
        cr_assert_eq(memcmp(&got[k].confidence, &want.confidence, sizeof want.confidence), 0);
        last[who[k]] = want;
    }
    return n;
}

static void proposals_together(const sd_arch *arch) {
    sd_model *target = open_tiny(arch, SD_F32), *draft = open_tiny(arch, SD_Q8_0);
    set together = open_set(target, draft, MANY, 0), alone = open_set(target, draft, MANY, 0);
    static int32_t text[MANY][CTX];
    int n[MANY], compared = 0, right = 0;
    for (int i = 0; i < MANY; i++) {
        test_repetitive(text[i], CTX, 50 + i, 250);
        n[i] = 1 + i * 13 % 90;
        sd_draft_start start = {.timeline = text[i], .n = n[i], .sampling = &laws[i]};
        sd_drafter_model.begin(together.drafter[i], &start);
        sd_drafter_model.begin(alone.drafter[i], &start);
    }
    for (int round = 0; round < ROUNDS; round++) {
        sd_proposal last[MANY] = {{0}};
        int32_t drafted[MANY][6];
        make_ready(&together, &alone);
        for (int i = 0; i < MANY; i++) {
            sd_drafter_model.rewind(together.drafter[i]);
            sd_drafter_model.rewind(alone.drafter[i]);
        }
        for (int j = 0; j < 6; j++) {
            compared += compare_position(&together, &alone, last, (round * 6 + j) * MANY);
            for (int i = 0; i < MANY; i++) {
                int32_t token = draw(round * 99 + j * 9 + i, 5) ? last[i].token : 7;
                drafted[i][j] = token;
                sd_drafter_model.advance(together.drafter[i], token);
                sd_drafter_model.advance(alone.drafter[i], token);
            }
        }
        for (int i = 0; i < MANY; i++) { // some of the draft holds, and a token behind it
            int held = draw(round * 7 + i, 7);
            memcpy(text[i] + n[i], drafted[i], (size_t)held * sizeof **drafted);
            right += held;
            n[i] += held + 1;
            sd_drafter_model.observe(together.drafter[i], n[i]);
            sd_drafter_model.observe(alone.drafter[i], n[i]);
            const sd_kv *a = sd_drafter_model_kv(together.drafter[i]),
                        *b = sd_drafter_model_kv(alone.drafter[i]);
            cr_assert(a->len == b->len && a->len < n[i]);
            cr_assert(sd_kv_equal(a, b, a->len), "drafter %d, round %d", i, round);
        }
    }
    cr_assert(compared > 200 && right > 100, "%d compared, %d held", compared, right);
    close_set(&together, MANY), close_set(&alone, MANY);
    sd_model_release(target), sd_model_release(draft);
}

Test(draft_model, proposals_made_together_are_those_made_alone) {
    proposals_together(&sd_arch_qwen2);
}
Test(draft_model, and_where_its_layers_have_windows) {
    proposals_together(&sd_arch_gemma3);
}

Test(draft_model, a_request_without_a_page_waits_and_drafts_when_another_has_ended) {
    sd_model *m = open_tiny(&sd_arch_qwen2, SD_F32);
    set s = open_set(m, m, 3, CTX); // pages for one timeline
    static int32_t text[CTX];
    bool ready[3];
    test_repetitive(text, CTX, 5, 250);
    for (int i = 0; i < 3; i++) {
        sd_draft_start start = {.timeline = text, .n = CTX - 20, .sampling = &laws[0]};
        sd_drafter_model.begin(s.drafter[i], &start);
    }
    const sd_kv *kv = sd_drafter_model_kv(s.drafter[0]);
    int all = sd_kv_pool_left(kv->pool, 0);
    cr_assert_eq(all, sd_kv_pages(CTX));
    sd_drafter_model.prepare_many(s.drafter, ready, 3, 3 * CTX);
    cr_assert_eq(ready[0] + ready[1] + ready[2], 1, "one has them all");
    int first = ready[0] ? 0 : ready[1] ? 1 : 2, other = first == 0 ? 1 : 0;
    sd_proposal p;
    cr_assert(sd_drafter_model.peek(s.drafter[first], &p));
    cr_assert_not(sd_drafter_model.prepare(s.drafter[other], CTX));
    for (int i = 0; i < 3; i++)
        if (i != other) sd_drafter_model.end(s.drafter[i]);
    cr_assert(sd_drafter_model.prepare(s.drafter[other], CTX));
    sd_proposal q;
    cr_assert(sd_drafter_model.peek(s.drafter[other], &q));
    cr_assert(p.token == q.token && p.bucket == q.bucket);
    sd_drafter_model.end(s.drafter[other]);
    cr_assert_eq(sd_kv_pool_left(kv->pool, 0), all, "all pages are back");
    close_set(&s, 3);
    sd_model_release(m);
}

// A target's vocabulary may be larger than its draft model's.
Test(draft_model, a_token_that_it_does_not_know_ends_the_drafts_of_that_request_alone) {
    sd_model *m = open_tiny(&sd_arch_qwen2, SD_F32);
    set s = open_set(m, m, 2, 0);
    static int32_t text[2][CTX];
    bool ready[2];
    sd_proposal p;
    sd_log_set_level(SD_LOG_ERROR);
    for (int i = 0; i < 2; i++) {
        test_repetitive(text[i], CTX, 5, 250);
        if (i == 0) text[i][30] = m->hp.V;
        sd_draft_start start = {.timeline = text[i], .n = 50, .sampling = &laws[0]};
        sd_drafter_model.begin(s.drafter[i], &start);
    }
    for (int calls = 0; calls < 4; calls++) sd_drafter_model.prepare_many(s.drafter, ready, 2, CTX);
    cr_assert(!ready[0] && ready[1]);
    cr_assert(sd_drafter_model.peek(s.drafter[1], &p));
    close_set(&s, 2);
    sd_model_release(m);
}

// ---- in an engine

typedef struct {
    char *dir, *same, *near;
    sd_model *model;
    int32_t prompt[MANY][PROMPT], want[MANY][N];
} world;

static world make_world(sd_adapter *adapter, sd_model *of) {
    world w = {.dir = sd_tiny_dir()};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2), near = t;
    near.dtype = SD_Q8_0;
    w.same = sd_path_join(w.dir, "same.gguf");
    w.near = sd_path_join(w.dir, "near.gguf");
    cr_assert_eq(sd_tiny_write_gguf(w.same, &t, NULL), SD_OK);
    cr_assert_eq(sd_tiny_write_gguf(w.near, &near, NULL), SD_OK);
    if (of)
        w.model = sd_model_acquire(of);
    else
        cr_assert_eq(sd_model_open(&w.model, w.same, NULL), SD_OK);
    for (int i = 0; i < MANY; i++) {
        test_repetitive(w.prompt[i], PROMPT, 90 + i, 250);
        test_plain(w.want[i], NULL, N, w.model, w.prompt[i], PROMPT, &laws[i], adapter, false);
    }
    return w;
}

static void free_world(world *w) {
    sd_model_release(w->model);
    free(w->same), free(w->near);
    sd_tiny_remove(w->dir);
}

// own: an adapter of the draft model for this request; NULL: the engine's.
static void submit_with(sd_engine *e, const world *w, int i, sd_adapter *adapter, sd_adapter *own,
                        test_answer *a) {
    sd_request r = {.prompt = w->prompt[i],
                    .n_prompt = PROMPT,
                    .max_tokens = N,
                    .sampling = laws[i],
                    .ignore_end = true,
                    .logprobs = -1,
                    .adapter = adapter,
                    .draft_adapter = own,
                    .on_event = test_collect,
                    .ctx = a};
    cr_assert_eq(sd_engine_submit(e, &r, NULL, NULL), SD_OK);
}

static void submit(sd_engine *e, const world *w, int i, sd_adapter *adapter, test_answer *a) {
    submit_with(e, w, i, adapter, NULL, a);
}

static void compare(const world *w, test_answer *a, int n) {
    for (int i = 0; i < n; i++) {
        cr_assert(a[i].ids.n == N && memcmp(a[i].ids.id, w->want[i], sizeof w->want[i]) == 0,
                  "request %d", i);
        test_answer_free(&a[i]);
    }
}

Test(draft_model, eight_requests_take_one_forward_for_each_position_of_a_draft) {
    enum { LENGTH = 3 };
    world w = make_world(NULL, NULL);
    sd_engine *e =
        test_engine_open(w.model, &(sd_engine_options){.ctx = CTX,
                                                       .slots = MANY,
                                                       .threads = 1,
                                                       .prefill_chunk = MANY * PROMPT,
                                                       .spec = SD_SPEC_DRAFT,
                                                       .spec_length = LENGTH,
                                                       .draft = w.near,
                                                       .backend = &test_counting_backend});
    test_answer *a = calloc(MANY, sizeof *a);
    int together = 0;
    for (int i = 0; i < MANY; i++) submit(e, &w, i, NULL, &a[i]);
    for (bool more = true, caught_up = false; more;) {
        int decoding = 0;
        for (int i = 0; i < MANY; i++) decoding += sd_slot_missing(&e->slot[i]) == 1;
        test_counted.forwards = 0;
        more = sd_engine_step(e);
        if (decoding == MANY && caught_up) {
            cr_assert_leq(test_counted.forwards, 1 + LENGTH, "%d forwards", test_counted.forwards);
            together++;
        }
        caught_up = decoding == MANY;
    }
    cr_assert_gt(together, 5);
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    cr_assert(s.spec.accepted > 50 && s.spec.accepted < s.spec.drafted);
    compare(&w, a, MANY);
    free(a);
    sd_engine_close(e);
    free_world(&w);
}

Test(draft_model, answers_are_the_same_where_its_memory_is_short_and_no_page_is_lost) {
    world w = make_world(NULL, NULL);
    sd_spec_stats drafted[2];
    size_t bytes[2];
    for (int few = 0; few < 2; few++) {
        sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = CTX,
                                                                      .slots = 4,
                                                                      .threads = 1,
                                                                      .spec = SD_SPEC_DRAFT,
                                                                      .spec_length = 3,
                                                                      .draft = w.near,
                                                                      .draft_kv = few ? 1 : 0});
        sd_kv_pool *pool = sd_drafter_model_kv(e->slot[0].drafter[2])->pool;
        int all = sd_kv_pool_left(pool, 0);
        test_answer *a = calloc(MANY, sizeof *a);
        for (int i = 0; i < MANY; i++) submit(e, &w, i, NULL, &a[i]);
        while (sd_engine_step(e)) {
        }
        cr_assert_eq(sd_kv_pool_left(pool, 0), all);
        sd_engine_stats s;
        sd_engine_get_stats(e, &s);
        drafted[few] = s.spec;
        bytes[few] = s.draft_kv_bytes;
        compare(&w, a, MANY);
        free(a);
        sd_engine_close(e);
    }
    cr_assert_eq(bytes[0], 4 * bytes[1]);
    cr_assert_gt(drafted[1].accepted, 20, "it still drafts");
    cr_assert_lt(drafted[1].accepted, drafted[0].accepted);
    free_world(&w);
}

// ---- an adapter of its own

static atomic_bool told; // the thread that steps, to end

static sd_adapter *random_adapter(const sd_model *m, int seed) {
    enum { R = 4, MOST = 4 * 1024 };
    const sd_hparams *hp = &m->hp;
    sd_lora *lora = calloc((size_t)m->n_linears, sizeof *lora);
    float *factors = calloc(MOST, sizeof *factors);
    for (int i = 0; i < MOST; i++) factors[i] = (float)(draw(seed * MOST + i, 1000) - 500) * 1e-3f;
    for (int i = 0; i < m->n_linears; i++)
        lora[i] = (sd_lora){.r = R, .A = factors, .B = factors + 64, .scale = .5f};
    cr_assert_eq(hp->C, 64);
    sd_adapter *a = NULL;
    sd_error err = {0};
    cr_assert_eq(sd_adapter_from_factors(&a, "random", lora, m, &err), SD_OK, "%s", err.message);
    free(lora), free(factors);
    return a;
}

static char *write_adapter(const world *w, const sd_adapter *a, const char *manifest) {
    sd_error err = {0};
    char *dir = sd_path_join(w->dir, "adapter"), *path = sd_path_join(dir, "manifest.json");
    cr_assert_eq(sd_mkdirs(dir, &err), SD_OK);
    cr_assert_eq(sd_adapter_write_peft(dir, a, w->model, NULL, &err), SD_OK, "%s", err.message);
    if (manifest) cr_assert_eq(sd_file_write(path, manifest, strlen(manifest), &err), SD_OK);
    free(path);
    return dir;
}

// How many of its drafts hold for requests with the adapter.
static double acceptance(const world *w, sd_adapter *adapter, const char *draft_adapter) {
    sd_engine *e = test_engine_open(w->model, &(sd_engine_options){.ctx = CTX,
                                                                   .slots = 4,
                                                                   .threads = 1,
                                                                   .spec = SD_SPEC_DRAFT,
                                                                   .spec_length = 3,
                                                                   .draft = w->same,
                                                                   .draft_adapter = draft_adapter});
    test_answer *a = calloc(MANY, sizeof *a);
    for (int i = 0; i < MANY; i++) submit(e, w, i, adapter, &a[i]);
    while (sd_engine_step(e)) {
    }
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    compare(w, a, MANY);
    free(a);
    sd_engine_close(e);
    return (double)s.spec.accepted / (double)s.spec.drafted;
}

static void *step_until_told(void *ctx) {
    sd_engine *e = ctx;
    while (!atomic_load(&told)) {
        if (!sd_engine_step(e)) sd_engine_wait(e, 1000);
    }
    sd_engine_stop_errands(e);
    return NULL;
}

// Half of the requests bring their pair's other half, in one batch with those that do not.
Test(draft_model, a_request_may_bring_an_adapter_of_the_draft_that_was_taken_between_steps) {
    sd_model *m = open_tiny(&sd_arch_qwen2, SD_F32);
    sd_adapter *adapter = random_adapter(m, 1);
    world w = make_world(adapter, m);
    sd_engine *e = test_engine_open(w.model, &(sd_engine_options){.ctx = CTX,
                                                                  .slots = 4,
                                                                  .threads = 1,
                                                                  .spec = SD_SPEC_DRAFT,
                                                                  .spec_length = 3,
                                                                  .draft = w.same});
    sd_model *draft = sd_engine_draft_model(e);
    sd_adapter *own = random_adapter(draft, 1);
    pthread_t thread;
    sd_error err = {0};
    double waited = -1, rate[2];
    atomic_store(&told, false);
    cr_assert_eq(pthread_create(&thread, NULL, step_until_told, e), 0);
    cr_assert_eq(sd_engine_take_adapters(e, adapter, own, &waited, &err), SD_OK, "%s", err.message);
    cr_assert_geq(waited, 0);
    atomic_store(&told, true);
    sd_engine_wake(e);
    pthread_join(thread, NULL);
    cr_assert_eq(sd_engine_take_adapters(e, adapter, own, &waited, &err), SD_EINTERRUPTED);
    test_answer *a = calloc(MANY, sizeof *a);
    for (int with = 0; with < 2; with++) {
        sd_engine_stats before, after;
        sd_engine_get_stats(e, &before);
        for (int i = 0; i < MANY; i++) submit_with(e, &w, i, adapter, with ? own : NULL, &a[i]);
        while (sd_engine_step(e)) {
        }
        sd_engine_get_stats(e, &after);
        rate[with] = (double)(after.spec.accepted - before.spec.accepted) /
                     (double)(after.spec.drafted - before.spec.drafted);
        compare(&w, a, MANY);
        memset(a, 0, MANY * sizeof *a);
    }
    cr_assert_lt(rate[0], .9, "%g", rate[0]);
    cr_assert_eq(rate[1], 1, "%g", rate[1]);
    for (int i = 0; i < MANY; i++) submit_with(e, &w, i, adapter, i % 2 ? own : NULL, &a[i]);
    while (sd_engine_step(e)) {
    }
    compare(&w, a, MANY);
    free(a);
    sd_engine_close(e);
    sd_adapter_release(own);
    free_world(&w);
    sd_adapter_release(adapter);
    sd_model_release(m);
}

Test(draft_model, with_the_targets_weights_and_its_adapter_it_is_always_right) {
    sd_model *m = open_tiny(&sd_arch_qwen2, SD_F32);
    sd_adapter *adapter = random_adapter(m, 1);
    world w = make_world(adapter, m);
    char *dir = write_adapter(&w, adapter, NULL);
    double without = acceptance(&w, adapter, NULL), with = acceptance(&w, adapter, dir);
    cr_assert_lt(without, .9, "%g", without);
    cr_assert_eq(with, 1, "%g", with);
    free(dir);
    free_world(&w);
    sd_adapter_release(adapter);
    sd_model_release(m);
}

// Standard error of one run into a string.
static char *warnings_of(const world *w, sd_adapter *adapter, const char *draft_adapter) {
    char *path = sd_path_join(w->dir, "log"), *text = calloc(1, 4096);
    fflush(stderr);
    int old = dup(2);
    FILE *f = freopen(path, "w", stderr);
    cr_assert_not_null(f);
    acceptance(w, adapter, draft_adapter);
    fflush(stderr);
    dup2(old, 2);
    close(old);
    f = fopen(path, "r");
    size_t got = fread(text, 1, 4095, f);
    cr_assert_lt(got, 4095);
    fclose(f);
    free(path);
    return text;
}

Test(draft_model, an_adapter_of_another_pair_is_named_once) {
    sd_model *m = open_tiny(&sd_arch_qwen2, SD_F32);
    sd_adapter *adapter = random_adapter(m, 1);
    memset(adapter->sha256.hex, 'a', 64);
    world w = make_world(adapter, m);
    for (int other = 0; other < 2; other++) {
        char manifest[160], hash[65] = {0};
        memset(hash, other ? 'b' : 'a', 64);
        // A finished run's manifest names its adapter too; that of a PEFT folder need not.
        snprintf(manifest, sizeof manifest, "{\"draft\": {\"target_adapter\": \"%s\"}}", hash);
        char *dir = write_adapter(&w, adapter, manifest);
        char *said = warnings_of(&w, adapter, dir), *at = strstr(said, "bbbbbbbbbbbb");
        cr_assert_eq(at != NULL, other == 1, "%s", said);
        if (at) cr_assert_null(strstr(at + 13, "bbbbbbbbbbbb"), "once, for eight requests");
        free(said), free(dir);
    }
    free_world(&w);
    sd_adapter_release(adapter);
    sd_model_release(m);
}

Test(draft_model, an_adapter_without_a_draft_model_and_a_damaged_manifest_are_refused) {
    world w = make_world(NULL, NULL);
    sd_adapter *adapter = random_adapter(w.model, 2);
    char *dir = write_adapter(&w, adapter, NULL);
    static const char *const bad[] = {"{\"draft\": {\"target_adapter\": \"12\"}}",
                                      "{\"draft\": {\"target_adapter\": 7}}", "{\"draft\": 1}",
                                      "not json"};
    for (int i = -1; i < 4; i++) {
        sd_draft d = {0};
        sd_error err = {0};
        if (i >= 0) free(write_adapter(&w, adapter, bad[i]));
        if (i >= 0) cr_assert_eq(sd_draft_open(&d, w.same, w.model, NULL, &err), SD_OK);
        sd_status st = sd_draft_take_adapter(&d, dir, &err);
        cr_assert_eq(st, i < 0 ? SD_EINVAL : SD_EFORMAT, "%d: %s", i, err.message);
        cr_assert_not_null(strstr(err.message, i < 0 ? "needs a draft model" : "manifest.json"));
        sd_draft_close(&d);
    }
    free(dir);
    sd_adapter_release(adapter);
    free_world(&w);
}
