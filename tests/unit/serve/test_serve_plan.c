// serve --plan against a server: /metrics has the parts that the plan promised, to the byte where they are
// taken at the start, and never more where they grow.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "decode/serve/plan/plan.h"
#include "tests/unit/support/counting_backend.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/run.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Bytes of a part on the page; 0: it is not there.
static size_t part_of(const char *page, const char *key) {
    char want[96];
    snprintf(want, sizeof want, ",part=\"%s\"} ", key);
    const char *at = strstr(page, want);
    return at ? (size_t)strtod(at + strlen(want), NULL) : 0;
}

static void compare(const live *s, const sd_serve_plan *p, bool worked) {
    char *page = live_get(s, "/metrics");
    int exact = 0, growing = 0;
    for (int i = 0; i < p->n; i++) {
        const sd_serve_plan_row *r = &p->row[i];
        size_t now = part_of(page, r->key);
        if (strcmp(r->key, "program") == 0) continue; // measured, of another moment
        if (r->grows) {
            cr_expect_leq(now, r->bytes, "%s", r->key);
            growing += now > 0;
        } else {
            cr_expect_eq(now, r->bytes, "%s: %zu, not %zu", r->key, now, r->bytes);
            exact++;
        }
    }
    cr_assert_geq(exact, 8);
    cr_assert_geq(growing, worked ? 3 : 0);
    free(page);
}

static void ask(const live *s, const char *body) {
    char *answer = live_ask(s, body);
    cr_assert(strstr(answer, " 200 OK"), "%s", answer);
    free(answer);
}

static void make_plan(sd_serve_plan *p, const live *s, int ctx, int slots, int queue,
                      const sd_strings *adapters) {
    sd_serve_options o = s->o;
    sd_error err = {0};
    o.model = s->model, o.adapters = adapters;
    // As live_start_with sets them.
    o.engine = (sd_engine_options){.ctx = ctx, .slots = slots, .queue = queue, .threads = 2};
    cr_assert_eq(sd_serve_plan_make(p, &o, &err), SD_OK, "%s", err.message);
}

Test(serve_plan, a_server_takes_what_its_plan_says) {
    live s;
    sd_serve_plan p;
    sd_error err = {0};
    sd_model *base;
    live_write_model(&s);
    cr_assert_eq(sd_model_open(&base, s.model, &err), SD_OK, "%s", err.message);
    char *one = sd_path_join(s.dir, "one"), *two = sd_path_join(s.dir, "two");
    test_write_run(one, base, 1, 0.3f, true);
    test_write_run(two, base, 77, 0.3f, true);
    sd_model_release(base);
    char *first = sd_sprintf("first=%s", one), *second = sd_sprintf("second=%s/adapter", two);
    sd_strings adapters = {.item = {first, second}, .n = 2};
    make_plan(&p, &s, 4096, 3, 8, &adapters);
    live_start_with(&s, 4096, 3, 8, &adapters);
    compare(&s, &p, false);
    ask(&s, "{\"model\":\"first\",\"prompt\":[1,2,3],\"max_tokens\":4}");
    ask(&s, "{\"model\":\"second\",\"prompt\":[1,2,3],\"max_tokens\":4}");
    ask(&s, "{\"prompt\":\"a\",\"max_tokens\":20,\"guided_regex\":\"[ab]{1,50}\"}");
    compare(&s, &p, true);
    live_stop(&s);
    free(one), free(two), free(first), free(second);
}

static const sd_serve_plan_row *row_of(const sd_serve_plan *p, const char *key) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->row[i].key, key) == 0) return &p->row[i];
    return NULL;
}

Test(serve_plan, the_sums_are_those_of_the_rows_and_follow_the_options) {
    live s;
    sd_serve_plan small, large;
    live_write_model(&s);
    make_plan(&small, &s, 512, 2, 4, NULL);
    size_t start = 0, most = 0;
    for (int i = 0; i < small.n; i++) {
        most += small.row[i].bytes;
        if (!small.row[i].grows) start += small.row[i].bytes;
        cr_assert(i == 0 || small.row[i - 1].grows <= small.row[i].grows,
                  "those that grow are last");
    }
    cr_assert(start == small.start && most == small.most);
    cr_assert_eq(row_of(&small, "request_bodies")->bytes, SD_BODY_MEMORY);
    s.o.body_memory = (size_t)16 << 20;
    make_plan(&large, &s, 1024, 5, 4, NULL);
    cr_assert_eq(row_of(&large, "request_bodies")->bytes, (size_t)16 << 20);
    // Slots have one in reserve.
    cr_assert_eq(row_of(&large, "kv_pages")->bytes, row_of(&small, "kv_pages")->bytes * 2 * 6 / 3);
    cr_assert_eq(row_of(&large, "weights")->bytes, row_of(&small, "weights")->bytes);
    cr_assert_gt(row_of(&large, "slots")->bytes, 2 * row_of(&small, "slots")->bytes);
    free(s.model);
    sd_tiny_remove(s.dir);
}

Test(serve_plan, a_remedy_names_the_option_of_the_largest_part) {
    sd_serve_plan p = {.n = 2,
                       .row = {{"kv_pages", "", 70, false}, {"request_bodies", "", 50, true}},
                       .most = 120,
                       .available = 120};
    cr_assert_null(sd_serve_plan_remedy(&p));
    p.available = 100;
    cr_assert(strstr(sd_serve_plan_remedy(&p), "--kv-memory"));
    p.row[1].bytes = 80;
    cr_assert(strstr(sd_serve_plan_remedy(&p), "--body-memory"));
    p.available = 0;
    cr_assert_null(sd_serve_plan_remedy(&p), "it is not known");
}

// What the machine has left is no bound of a device's memory.
Test(serve_plan, parts_in_a_devices_memory_are_not_held_against_the_machines) {
    live s;
    sd_serve_plan p, q;
    sd_error err = {0};
    live_write_model(&s);
    sd_serve_options o = s.o;
    sd_backend own = test_counting_backend;
    own.own_memory = true;
    o.model = s.model;
    o.engine = (sd_engine_options){.ctx = 256, .threads = 1, .backend = &test_counting_backend};
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_OK, "%s", err.message);
    o.engine.backend = &own;
    cr_assert_eq(sd_serve_plan_make(&q, &o, &err), SD_OK, "%s", err.message);
    cr_assert(p.available > 0 && q.available == 0 && !sd_serve_plan_remedy(&q));
    cr_assert_eq(p.n, q.n, "the parts are the same");
    free(s.model);
    sd_tiny_remove(s.dir);
}

Test(serve_plan, what_cannot_be_served_is_refused_by_name) {
    live s;
    sd_serve_plan p;
    sd_error err = {0};
    live_write_model(&s);
    sd_serve_options o = s.o;
    char *there = s.model, *none = sd_path_join(s.dir, "nothing"),
         *named = sd_sprintf("a=%s", none);
    sd_strings adapters = {.item = {named}, .n = 1};
    o.model = none;
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "no such model"), "%s", err.message);
    o.model = there, o.adapters = &adapters;
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "no such adapter"), "%s", err.message);
    o.adapters = NULL, o.engine.draft = none;
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_ENOTFOUND);
    o.engine.draft = NULL, o.engine.draft_adapter = none;
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_EINVAL);
    o.engine.draft_adapter = NULL, o.key_file = none;
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_ENOTFOUND);
    o.key_file = NULL, o.chat_template = none;
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_ENOTFOUND);
    o.chat_template = NULL, o.engine.ctx = 1 << 20;
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_EINVAL);
    o.engine.ctx = 0;
    cr_assert_eq(sd_serve_plan_make(&p, &o, &err), SD_OK, "%s", err.message);
    free(none), free(named), free(s.model);
    sd_tiny_remove(s.dir);
}
