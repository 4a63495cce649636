// The costs of steps beside the packed form: timed once, found again, and never believed when they
// are not whole.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "decode/draft/controller.h"
#include "decode/engine/engine.h"
#include "model/infer/weight_cache/cache.h"
#include "model/infer/weight_cache/care.h"
#include "model/infer/weight_cache/place.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    char *dir, *model, *cache;
    sd_tiny_model t;
} place;

static place make_place(void) {
    if (sd_ops_best()->layout == 0) cr_skip_test("no packed form on this processor");
    place p = {.dir = sd_tiny_dir(), .t = sd_tiny_default(&sd_arch_qwen2)};
    sd_error err;
    sd_log_set_level(SD_LOG_ERROR);
    p.model = sd_path_join(p.dir, "tiny.gguf");
    p.cache = sd_path_join(p.dir, "cache/packed");
    cr_assert_eq(sd_tiny_write_gguf(p.model, &p.t, &err), SD_OK, "%s", err.message);
    return p;
}
static void drop_place(place *p) {
    sd_tiny_remove(p->dir);
    free(p->model);
    free(p->cache);
}

static sd_model *open_model(const place *p, const char *cache) {
    sd_model *m;
    sd_error err = {0};
    cr_assert_eq(sd_model_open(&m, p->model, &err), SD_OK, "%s", err.message);
    if (cache) sd_weight_cache_attach(m, cache);
    return m;
}

// What a fresh start with caches of this kind gets; false when it gets none.
static bool get_of(sd_step_costs *out, const place *p, const char *cache, int threads, int max_rows,
                   sd_kv_type kv) {
    sd_error err = {0};
    sd_model *m = open_model(p, cache);
    sd_context *cx;
    sd_pool *pool;
    cr_assert_eq(sd_pool_open(&pool, threads, &err), SD_OK);
    sd_context_options o = {.max_rows = max_rows, .kv = kv, .cache = {.dir = cache}};
    cr_assert_eq(sd_context_open(&cx, m, pool, &o, &err), SD_OK, "%s", err.message);
    bool known = sd_step_costs_get(out, cx);
    sd_context_close(cx);
    sd_pool_close(pool);
    sd_model_release(m);
    return known;
}

static bool get(sd_step_costs *out, const place *p, const char *cache, int threads, int max_rows) {
    return get_of(out, p, cache, threads, max_rows, SD_KV_AUTO);
}

static sd_step_costs must_get(const place *p, int threads) {
    sd_step_costs t;
    cr_assert(get(&t, p, p->cache, threads, SD_STEP_COST_MOST));
    for (int i = 0; i < SD_STEP_COSTS; i++)
        cr_assert(isfinite(t.ms[i]) && t.ms[i] > 0, "%d rows: %g ms", sd_step_cost_rows[i],
                  t.ms[i]);
    return t;
}

static bool same(const sd_step_costs *a, const sd_step_costs *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

// The only entry of the cache, its paths malloc'ed.
static sd_weight_cache_entry only_entry(const place *p) {
    sd_weight_cache_entry *e, one;
    int n;
    cr_assert_eq(sd_weight_cache_list(&e, &n, p->cache, NULL), SD_OK);
    cr_assert_eq(n, 1);
    one = e[0];
    free(e);
    return one;
}

static char *costs_file(const place *p) {
    sd_weight_cache_entry e = only_entry(p);
    char *path = sd_weight_cache_costs_path(e.path);
    free(e.path), free(e.source);
    return path;
}

static int64_t size_of(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0 ? sb.st_size : -1;
}

// A machine whose steps of n rows take n ms and what its first calls of that size take on top.
typedef struct {
    double per_row, on_top;
    int calls, fails_at, of[SD_STEP_COST_MOST + 1];
} machine;
static sd_status machine_step(double *ms, void *ctx, int n, sd_error *err) {
    machine *m = ctx;
    if (++m->calls == m->fails_at) return sd_fail(err, SD_EIO, "call %d", m->calls);
    *ms = m->per_row * n + m->on_top / ++m->of[n];
    return SD_OK;
}

Test(step_cost, the_least_time_of_each_number_of_rows_counts) {
    machine m = {.per_row = 1, .on_top = 6};
    sd_step_costs t;
    sd_error err;
    cr_assert_eq(sd_step_costs_measure(&t, machine_step, &m, &err), SD_OK);
    for (int i = 0; i < SD_STEP_COSTS; i++) {
        int n = sd_step_cost_rows[i], times = n <= 8 ? 3 : 2;
        cr_assert_eq(m.of[n], times, "%d rows were timed %d times", n, m.of[n]);
        cr_assert_float_eq(t.ms[i], n + 6.0 / times, 1e-9, "%d rows: %g ms", n, t.ms[i]);
    }
}

Test(step_cost, a_slow_machine_is_timed_once) {
    machine m = {.per_row = 100, .on_top = 100};
    sd_step_costs t;
    sd_error err;
    cr_assert_eq(sd_step_costs_measure(&t, machine_step, &m, &err), SD_OK);
    cr_assert_eq(m.calls, SD_STEP_COSTS);
    cr_assert_float_eq(t.ms[3], 500, 1e-9);
}

Test(step_cost, a_step_that_fails_ends_the_timing) {
    machine m = {.per_row = 1, .fails_at = 23};
    sd_step_costs t;
    sd_error err;
    cr_assert_eq(sd_step_costs_measure(&t, machine_step, &m, &err), SD_EIO);
    cr_assert_eq(m.calls, 23);
}

Test(step_cost, is_timed_once_for_each_number_of_threads) {
    place p = make_place();
    sd_step_costs one = must_get(&p, 1), two = must_get(&p, 2);
    cr_assert_not(same(&one, &two));
    for (int i = 0; i < 3; i++) {
        sd_step_costs again = must_get(&p, 1), other = must_get(&p, 2);
        cr_assert(same(&one, &again) && same(&two, &other));
    }
    cr_assert_gt(one.ms[SD_STEP_COSTS - 1], 4 * one.ms[0], "64 rows cost more than one");
    drop_place(&p);
}

Test(step_cost, is_timed_once_for_each_kind_of_cache) {
    place p = make_place();
    sd_step_costs one = must_get(&p, 1), int8, again;
    cr_assert(get_of(&int8, &p, p.cache, 1, SD_STEP_COST_MOST, SD_KV_INT8));
    cr_assert_not(same(&one, &int8));
    cr_assert(get_of(&again, &p, p.cache, 1, SD_STEP_COST_MOST, SD_KV_INT8));
    cr_assert(same(&int8, &again));
    again = must_get(&p, 1);
    cr_assert(same(&one, &again));
    drop_place(&p);
}

Test(step_cost, a_context_of_few_rows_finds_costs_but_times_none) {
    place p = make_place();
    sd_step_costs t, kept;
    cr_assert_not(get(&t, &p, p.cache, 1, SD_STEP_COST_MOST - 1));
    kept = must_get(&p, 1);
    cr_assert(get(&t, &p, p.cache, 1, 1) && same(&t, &kept));
    drop_place(&p);
}

Test(step_cost, without_a_cache_nothing_is_timed) {
    place p = make_place();
    sd_step_costs t;
    char *below_a_file = sd_path_join(p.model, "packed");
    cr_assert_not(get(&t, &p, NULL, 1, SD_STEP_COST_MOST));
    cr_assert_not(get(&t, &p, below_a_file, 1, SD_STEP_COST_MOST));
    free(below_a_file);
    drop_place(&p);
}

Test(step_cost, a_place_that_cannot_be_written_is_no_failure) {
    place p = make_place();
    sd_step_costs t = must_get(&p, 1);
    char *path = costs_file(&p);
    cr_assert(unlink(path) == 0 && mkdir(path, 0700) == 0);
    cr_assert_not(get(&t, &p, p.cache, 1, SD_STEP_COST_MOST));
    free(path);
    drop_place(&p);
}

Test(step_cost, a_model_that_changed_is_timed_anew) {
    place p = make_place();
    sd_step_costs old = must_get(&p, 1);
    p.t.seed += 1;
    cr_assert_eq(sd_tiny_write_gguf(p.model, &p.t, NULL), SD_OK);
    sd_step_costs now = must_get(&p, 1), again = must_get(&p, 1);
    cr_assert(!same(&old, &now) && same(&now, &again));
    drop_place(&p);
}

// The file as this program writes it, around any JSON.
static void write_costs(const char *path, const char *json) {
    sd_sha256 sum;
    cr_assert_eq(sd_sha256_of(&sum, json, strlen(json), NULL), SD_OK);
    char *text = sd_sprintf("%s\n%s", sum.hex, json);
    cr_assert_eq(sd_file_write(path, text, strlen(text), NULL), SD_OK);
    free(text);
}

static const char *this_program(void) {
    static char by[160];
    sd_step_costs_by(by, sizeof by, sd_ops_best());
    return by;
}

// A file that is whole but for its one table's `first` of SD_STEP_COSTS times, or for its `pack`.
static char *table_json(const char *pack, const char *by, const char *first, int count) {
    sd_buf b = sd_buf_make(1 << 20);
    char *head = sd_sprintf("{\"pack\":\"%s\",\"tables\":[{\"by\":\"%s\",\"compute\":\"auto\","
                            "\"kv\":\"%s\",\"threads\":1,\"ms\":[%s",
                            pack, by, sd_kv_name(sd_ops_best()->kv), first);
    sd_buf_add(&b, head, strlen(head));
    for (int i = 1; i < count; i++) sd_buf_add(&b, ",2", 2);
    sd_buf_add(&b, "]}]}", 5);
    free(head);
    return b.data;
}

Test(step_cost, values_that_cannot_be_are_made_again) {
    place p = make_place();
    sd_step_costs t;
    must_get(&p, 1);
    char *path = costs_file(&p);
    sd_model *m = open_model(&p, p.cache);
    sd_sha256 pack;
    cr_assert(sd_weight_cache_identity(&pack, p.cache, m, sd_ops_best()));
    sd_model_release(m);
    static const char *const bad[] = {"0",    "-1", "1e7",  "null", "\"1\"", "true",
                                      "[1]",  "{}", "-0.0", "NaN",  "1e999", "18446744073709551617",
                                      "1e6,1"};
    char *json = table_json(pack.hex, this_program(), "1.5", SD_STEP_COSTS);
    write_costs(path, json);
    t = must_get(&p, 1);
    cr_assert(t.ms[0] == 1.5 && t.ms[1] == 2, "a good file of this form is read");
    free(json);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json = table_json(pack.hex, this_program(), bad[i], SD_STEP_COSTS);
        write_costs(path, json);
        t = must_get(&p, 1);
        cr_assert(t.ms[1] != 2, "%s was believed", bad[i]);
        free(json);
    }
    pack.hex[5] ^= 1;
    for (int i = 0; i < 3; i++) { // another packed form's; too few values; too many
        if (i) pack.hex[5] ^= i == 1;
        json = table_json(pack.hex, this_program(), "1.5", SD_STEP_COSTS + (i == 1 ? -1 : i == 2));
        write_costs(path, json);
        t = must_get(&p, 1);
        cr_assert(t.ms[1] != 2, "file %d was believed", i);
        free(json);
    }
    json = table_json(pack.hex, sd_ops_best()->name, "1.5", SD_STEP_COSTS);
    write_costs(path, json);
    t = must_get(&p, 1);
    cr_assert(t.ms[1] != 2, "another program's times were believed");
    free(json);
    static const char *const odd[] = {"", "[]", "{}", "{\"pack\":1,\"tables\":{}}", "null", "[[[["};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        write_costs(path, odd[i]);
        must_get(&p, 1);
    }
    free(path);
    drop_place(&p);
}

Test(step_cost, damaged_bytes_are_never_believed) {
    place p = make_place();
    sd_step_costs kept = must_get(&p, 1), t;
    char *path = costs_file(&p), *whole;
    size_t len;
    unsigned seed = 11;
    cr_assert_eq(sd_file_read(&whole, &len, path, 1 << 20, NULL), SD_OK);
    for (int i = 0; i < 60; i++) {
        seed = seed * 1103515245 + 12345;
        char *bytes = sd_alloc(len, 1);
        memcpy(bytes, whole, len);
        bytes[(seed >> 8) % len] ^= (char)(1 + (seed >> 4) % 255);
        cr_assert_eq(sd_file_write(path, bytes, len, NULL), SD_OK);
        t = must_get(&p, 1);
        cr_assert_not(same(&t, &kept), "change %d was not seen", i);
        free(bytes);
    }
    for (size_t cut = 0; cut < len; cut += 37) {
        cr_assert_eq(sd_file_write(path, whole, cut, NULL), SD_OK);
        t = must_get(&p, 1);
        cr_assert_not(same(&t, &kept), "cut to %zu bytes", cut);
    }
    cr_assert_eq(truncate(path, 1 << 24), 0);
    must_get(&p, 1);
    cr_assert_lt(size_of(path), 1 << 16);
    free(whole), free(path);
    drop_place(&p);
}

Test(step_cost, tables_are_bounded) {
    place p = make_place();
    for (int threads = 1; threads <= 40; threads++) must_get(&p, threads);
    char *path = costs_file(&p);
    cr_assert_lt(size_of(path), 1 << 16);
    sd_step_costs last = must_get(&p, 40), again = must_get(&p, 40);
    cr_assert(same(&last, &again));
    free(path);
    drop_place(&p);
}

Test(step_cost, the_cache_counts_and_removes_it) {
    place p = make_place();
    must_get(&p, 1);
    char *path = costs_file(&p);
    sd_weight_cache_entry e = only_entry(&p);
    cr_assert(e.state == SD_WEIGHT_CACHE_CURRENT && e.bytes == size_of(e.path) + size_of(path));
    cr_assert_eq(unlink(e.path), 0);
    sd_weight_cache_entry alone = only_entry(&p); // without its packed form it is a damaged entry
    cr_assert(!alone.source && alone.state == SD_WEIGHT_CACHE_DAMAGED &&
              strcmp(alone.path, path) == 0);
    cr_assert_eq(sd_weight_cache_remove(alone.path, NULL), SD_OK);
    cr_assert(access(path, F_OK) != 0);
    must_get(&p, 1);
    cr_assert_eq(sd_weight_cache_remove(e.path, NULL), SD_OK);
    cr_assert(access(e.path, F_OK) != 0 && access(path, F_OK) != 0);
    cr_assert_eq(sd_weight_cache_remove(e.path, NULL), SD_OK, "what has gone is gone");
    free(e.path), free(e.source), free(alone.path), free(path);
    drop_place(&p);
}

// Whatever the table says, the tokens are the same; a table of a lie is the strongest case.
Test(step_cost, tokens_do_not_depend_on_it) {
    place p = make_place();
    int32_t prompt[40];
    test_answer want = {0};
    test_repetitive(prompt, 40, 5, 200);
    sd_request r = {.prompt = prompt,
                    .n_prompt = 40,
                    .max_tokens = 80,
                    .sampling = {.temperature = 1, .top_p = 1, .seed = 3},
                    .ignore_end = true,
                    .logprobs = -1};
    must_get(&p, 1);
    char *path = costs_file(&p);
    for (int i = 0; i < 4; i++) {
        sd_model *m = open_model(&p, i ? p.cache : NULL);
        sd_sha256 pack;
        test_answer got = {0};
        if (i > 1) { // a row costs nothing; a million times the step
            cr_assert(sd_weight_cache_identity(&pack, p.cache, m, sd_ops_best()));
            char *json =
                table_json(pack.hex, this_program(), i == 2 ? "1e6" : "1e-6", SD_STEP_COSTS);
            write_costs(path, json);
            free(json);
        }
        sd_engine *e = test_engine_open(
            m,
            &(sd_engine_options){.slots = 1, .threads = 1, .cache = {.dir = i ? p.cache : NULL}});
        test_run(e, &r, i ? &got : &want);
        cr_assert_eq(want.ids.n, 80);
        if (i) {
            cr_assert_eq(got.ids.n, 80);
            cr_assert_eq(memcmp(got.ids.id, want.ids.id, 80 * sizeof(int32_t)), 0, "case %d", i);
        }
        sd_engine_close(e);
        sd_model_release(m);
        test_answer_free(&got);
    }
    test_answer_free(&want);
    free(path);
    drop_place(&p);
}

// ---- the controller's use of it

static int take(const sd_controller *c, float accept_prob) {
    float prefix_prob[SD_MAX_DRAFT], s = 1;
    for (int i = 0; i < SD_MAX_DRAFT; i++) prefix_prob[i] = s *= accept_prob;
    sd_candidates k = {prefix_prob, SD_MAX_DRAFT, -1};
    sd_controller_choose(c, &k, 1, 64);
    return k.take;
}

// Eight rows for the price of one and a half, then a stair: what no straight line says.
static sd_step_costs stairs(void) {
    sd_step_costs t;
    for (int i = 0; i < SD_STEP_COSTS; i++) {
        int n = sd_step_cost_rows[i];
        t.ms[i] = 10 * (1 + .07 * (n - 1)) + 8 * ((n - 1) / 8);
    }
    return t;
}

Test(controller, a_table_gives_prices_before_the_first_step) {
    sd_controller c, blind;
    sd_step_costs t = stairs();
    sd_controller_init(&blind);
    sd_controller_init(&c);
    cr_assert_eq(take(&blind, .9f), 0);
    sd_controller_load_costs(&c, &t);
    for (int i = 0; i < SD_STEP_COSTS; i++)
        cr_assert_float_eq(sd_controller_cost(&c, sd_step_cost_rows[i]), t.ms[i] * 1e-3,
                           t.ms[i] * 1e-8, "%d rows", sd_step_cost_rows[i]);
    double between = sd_controller_cost(&c, 28);
    cr_assert(between > t.ms[16] * 1e-3 && between < t.ms[17] * 1e-3);
    cr_assert_gt(sd_controller_cost(&c, 100), sd_controller_cost(&c, 64));
    cr_assert_eq(take(&c, .6f), 5, "the sixth guess holds in .047 of all cases, its row costs .07");
    cr_assert_eq(take(&c, .75f), 7, "the eighth would be worth .07, but not a stair");
}

Test(controller, the_first_step_sets_the_tables_scale) {
    sd_controller c;
    sd_step_costs t = stairs();
    sd_controller_init(&c);
    sd_controller_load_costs(&c, &t);
    sd_controller_timed(&c, 1, 5, 3 * sd_controller_cost(&c, 5)); // a machine three times as slow
    for (int i = 0; i < SD_STEP_COSTS; i++)
        cr_assert_float_eq(sd_controller_cost(&c, sd_step_cost_rows[i]), 3 * t.ms[i] * 1e-3,
                           t.ms[i] * 1e-6);
}

Test(controller, steps_correct_a_table_that_is_wrong) {
    sd_controller c;
    sd_step_costs t = stairs();
    sd_controller_init(&c);
    sd_controller_load_costs(&c, &t);
    for (int i = 0; i < 200; i++)
        for (int n = 1; n <= 1 + SD_MAX_DRAFT; n++) sd_controller_timed(&c, 1, n, .010 * n);
    for (int n = 1; n <= 1 + SD_MAX_DRAFT; n++)
        cr_assert_float_eq(sd_controller_cost(&c, n), .010 * n, .0008 * n, "%d rows: %g", n,
                           sd_controller_cost(&c, n));
    cr_assert_eq(take(&c, .8f), 0);
}

Test(controller, a_table_of_nonsense_is_bounded) {
    sd_controller c;
    sd_step_costs t;
    for (int i = 0; i < SD_STEP_COSTS; i++) t.ms[i] = i % 2 ? 1e6 : 1e-6;
    sd_controller_init(&c);
    sd_controller_load_costs(&c, &t);
    for (int n = 1; n <= 200; n++) {
        double cost = sd_controller_cost(&c, n) / sd_controller_cost(&c, 1);
        cr_assert(cost > .99 && cost < 1.01 * n, "%d rows: %g", n, cost);
    }
}
