// Adapters that are loaded, replaced and unloaded while the server answers: each answer is that of exactly the
// generation that its header names, and what cannot be loaded changes nothing.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/run.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RUNS = 2, PROMPTS = 4, CLIENTS = 4, ASKED = 60, SWAPS = 40 };

typedef struct {
    live s;
    char *root;
} world;

static char *path_in(const world *w, const char *name) {
    return sd_path_join(w->root, name);
}

static void open_base(sd_model **base, const char *path) {
    sd_error err = {0};
    cr_assert_eq(sd_model_open(base, path, &err), SD_OK, "%s", err.message);
}

// What is ready to start: runs "one" and "two" below the root.
static void prepare(world *w) {
    sd_model *base;
    live_write_model(&w->s);
    w->root = sd_path_join(w->s.dir, "root");
    open_base(&base, w->s.model);
    static const char *const names[RUNS] = {"one", "two"};
    for (int i = 0; i < RUNS; i++) {
        char *run = path_in(w, names[i]);
        test_write_run(run, base, (uint64_t)(1 + 100000 * i), 0.3f, true);
        free(run);
    }
    sd_model_release(base);
    w->s.o.adapter_root = w->root;
    live_give_admin_key(&w->s);
}

// A server with an empty table.
static void start_with_memory(world *w, size_t bytes) {
    prepare(w);
    w->s.o.adapter_memory = bytes;
    live_start_with(&w->s, 512, 4, 64, NULL);
}

static void start(world *w) {
    start_with_memory(w, 0);
}

// Likewise, drafting by a model that has the target's weights.
static void start_with_draft(world *w) {
    prepare(w);
    w->s.o.engine.draft = w->s.model;
    w->s.o.engine.spec = SD_SPEC_DRAFT;
    w->s.o.engine.spec_length = 3;
    live_start_with(&w->s, 512, 4, 64, NULL);
}

static void stop(world *w) {
    live_stop(&w->s);
    free(w->root);
}

// The document of a load of `name` from `path`; fields: further ones.
static json_t *load(const world *w, const char *name, const char *path, const char *fields,
                    int status) {
    char *body = sd_sprintf("{\"lora_name\":\"%s\",\"lora_path\":\"%s\"%s}", name, path, fields);
    json_t *v = live_json(&w->s, "load_lora_adapter", body, status);
    free(body);
    return v;
}

static long long generation_in(const json_t *v) {
    long long g = json_integer_value(json_object_get(v, "generation"));
    cr_assert_gt(g, 0);
    return g;
}

static long long loaded(const world *w, const char *name, const char *path) {
    json_t *v = load(w, name, path, "", 200);
    long long g = generation_in(v);
    json_decref(v);
    return g;
}

static void blamed(const world *w, const char *path, const char *fields, const char *param) {
    json_t *v = load(w, "blamed", path, fields, 400);
    cr_assert_str_eq(live_text_at(v, "error.param"), param);
    json_decref(v);
}

static void refused(const world *w, const char *name, const char *path, const char *fields,
                    int status, const char *words) {
    json_t *v = load(w, name, path, fields, status);
    const char *message = live_text_at(v, "error.message");
    cr_assert(strstr(message, words), "%s: %s", path, message);
    cr_assert_null(strchr(message, '\n'), "one sentence: %s", message);
    json_decref(v);
}

static json_t *unload(const world *w, const char *name, int status) {
    char *body = sd_sprintf("{\"lora_name\":\"%s\"}", name);
    json_t *v = live_json(&w->s, "unload_lora_adapter", body, status);
    free(body);
    return v;
}

static json_t *get_json(const world *w, const char *path) {
    char *out = live_get(&w->s, path), *at = strstr(out, "\r\n\r\n");
    cr_assert(at && strstr(out, " 200 "), "%s", out);
    json_t *v = json_loads(at + 4, 0, NULL);
    cr_assert_not_null(v, "%s", out);
    free(out);
    return v;
}

static int count_listed(const world *w) {
    json_t *v = get_json(w, "/v1/lora_adapters");
    int n = (int)json_array_size(json_object_get(v, "data"));
    json_decref(v);
    return n;
}

// The answer without ids and times, and the generation that it says it is of.
static char *ask(const live *s, const char *model, int prompt, long long *generation) {
    char body[256];
    snprintf(body, sizeof body,
             "{\"model\":\"%s\",\"prompt\":[1,2,%d,4],\"max_tokens\":12,\"temperature\":0,"
             "\"ignore_eos\":true}",
             model, 3 + prompt);
    char *out = live_ask(s, body);
    const char *at = strstr(out, "X-Specdec-Adapter-Generation: ");
    cr_assert(strstr(out, "HTTP/1.1 200 ") && at, "%s", out);
    *generation = atoll(at + strlen("X-Specdec-Adapter-Generation: "));
    char *answer = live_answer(out);
    cr_assert_not_null(answer);
    return answer;
}

Test(serve_adapters, one_is_loaded_replaced_and_unloaded) {
    world w;
    long long base, of[2];
    start(&w);
    char *plain = ask(&w.s, "tiny", 0, &base);
    cr_assert_eq(base, 0);
    long long first = loaded(&w, "mine", "one");
    char *a = ask(&w.s, "mine", 0, &of[0]);
    json_t *v = load(&w, "mine", "two", "", 200);
    long long second = generation_in(v);
    cr_assert_eq(json_integer_value(json_object_get(v, "replaced")), first);
    cr_assert_str_eq(live_text_at(v, "draft"), "index");
    json_decref(v);
    char *b = ask(&w.s, "mine", 0, &of[1]);
    cr_assert(of[0] == first && of[1] == second && second > first);
    cr_assert(strcmp(plain, a) && strcmp(plain, b) && strcmp(a, b));
    v = get_json(&w, "/v1/models");
    cr_assert_str_eq(live_text_at(v, "data.1.id"), "mine");
    cr_assert_str_eq(live_text_at(v, "data.1.parent"), "tiny");
    cr_assert_eq(json_integer_value(live_at(v, "data.1.generation")), second);
    json_decref(v);
    json_decref(unload(&w, "mine", 200));
    json_decref(unload(&w, "mine", 404));
    json_decref(live_json(&w.s, "completions", "{\"model\":\"mine\",\"prompt\":[1]}", 404));
    cr_assert_eq(live_metric(&w.s, "adapter_unloads_total"), 1);
    // The generation that answers is in the body, too.
    long long again = loaded(&w, "mine", "one");
    v = live_json(&w.s, "completions", "{\"model\":\"mine\",\"prompt\":[1],\"max_tokens\":1}", 200);
    cr_assert_eq(json_integer_value(live_at(v, "metrics.adapter_generation")), again);
    json_decref(v);
    free(plain), free(a), free(b);
    stop(&w);
}

Test(serve_adapters, an_expected_generation_that_differs_changes_nothing) {
    world w;
    start(&w);
    char fields[64];
    refused(&w, "mine", "one", ",\"expected_generation\":5", 409, "generation 0, not 5");
    json_decref(load(&w, "mine", "one", ",\"expected_generation\":0", 200));
    refused(&w, "mine", "two", ",\"expected_generation\":0", 409, "decide again");
    json_t *v = get_json(&w, "/v1/lora_adapters");
    long long now = generation_in(json_array_get(json_object_get(v, "data"), 0));
    json_decref(v);
    snprintf(fields, sizeof fields, ",\"expected_generation\":%lld", now);
    json_decref(load(&w, "mine", "two", fields, 200));
    refused(&w, "mine", "one", fields, 409, "decide again");
    char *body = sd_sprintf("{\"lora_name\":\"mine\"%s}", fields);
    json_decref(live_json(&w.s, "unload_lora_adapter", body, 409));
    free(body);
    cr_assert_eq(count_listed(&w), 1);
    stop(&w);
}

static double memory_of(const world *w, const char *part) {
    char *page = live_get(&w->s, "/metrics"), *word = sd_sprintf("part=\"%s\"} ", part);
    const char *at = strstr(page, word);
    double value = at ? atof(at + strlen(word)) : 0;
    free(page), free(word);
    return value;
}

// ---- what cannot be loaded

static void copy_tree(const char *from, const char *to) {
    char *command = sd_sprintf("cp -r '%s' '%s'", from, to);
    cr_assert_eq(system(command), 0); // NOLINT: paths of this test alone
    free(command);
}

// A copy of the run "one" by another name, and a path in it; the caller frees it.
static char *copy_of_one(const world *w, const char *name, const char *file) {
    char *from = path_in(w, "one"), *to = path_in(w, name);
    copy_tree(from, to);
    char *path = sd_path_join(to, file);
    free(from), free(to);
    return path;
}

static void link_out(const world *w, const char *name, const char *target) {
    char *path = path_in(w, name);
    cr_assert_eq(symlink(target, path), 0);
    free(path);
}

// Each refusal names what is wrong with it, and the one adapter that is there answers as before.
Test(serve_adapters, what_cannot_be_loaded_is_refused_and_nothing_changes) {
    world w;
    long long g, after;
    start(&w);
    char *outside = sd_path_join(w.s.dir, "outside"), *one = path_in(&w, "one");
    copy_tree(one, outside);
    link_out(&w, "link", outside);
    link_out(&w, "up", "../outside");
    link_out(&w, "proc", "/proc/self/cwd");
    link_out(&w, "near", "one");
    char *path = path_in(&w, "fifo");
    cr_assert_eq(mkfifo(path, 0600), 0);
    free(path);
    // Links within a run that lead out of the root.
    path = copy_of_one(&w, "inner", "adapter/adapter_model.safetensors");
    char *weights = sd_path_join(outside, "adapter/adapter_model.safetensors");
    cr_assert(unlink(path) == 0 && symlink(weights, path) == 0);
    free(path);
    path = copy_of_one(&w, "index", "draft/corpus.idx");
    cr_assert(unlink(path) == 0 && symlink("../../../outside/draft/corpus.idx", path) == 0);
    free(path);
    // Damaged ones.
    path = copy_of_one(&w, "short", "adapter/adapter_model.safetensors");
    struct stat sb;
    cr_assert(stat(path, &sb) == 0 && truncate(path, sb.st_size / 2) == 0);
    free(path);
    path = copy_of_one(&w, "huge", "adapter/adapter_model.safetensors");
    cr_assert_eq(truncate(path, (off_t)1 << 40), 0);
    free(path);
    path = copy_of_one(&w, "hugeindex", "draft/corpus.idx");
    cr_assert_eq(truncate(path, (off_t)1 << 40), 0);
    free(path);
    path = copy_of_one(&w, "config", "adapter/adapter_config.json");
    cr_assert_eq(sd_file_write(path, "{\"peft_type\":", 13, NULL), SD_OK);
    free(path);
    path = copy_of_one(&w, "pipe", "adapter/adapter_config.json");
    cr_assert(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    free(path);
    path = copy_of_one(&w, "pair", "draft/corpus.idx"); // made for another adapter
    char *other = path_in(&w, "two/draft/corpus.idx"), *text;
    text = sd_sprintf("cp '%s' '%s'", other, path);
    cr_assert_eq(system(text), 0); // NOLINT
    free(text), free(other), free(path);
    // One of another model, and one with other ranks in its two factors.
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.F = 128;
    t.ctx = 16384;
    sd_model *wide;
    char *wide_path = sd_path_join(w.s.dir, "wide.gguf");
    cr_assert_eq(sd_tiny_write_gguf(wide_path, &t, NULL), SD_OK);
    open_base(&wide, wide_path);
    path = path_in(&w, "foreign");
    test_write_run(path, wide, 7, 0.3f, true);
    sd_model_release(wide);
    free(path);

    char *absolute = sd_sprintf("%s/../outside", w.root);
    long long before = loaded(&w, "kept", "one");
    char *want = ask(&w.s, "kept", 1, &g);
    const struct {
        const char *path, *words;
    } rows[] = {{"../outside", "leads out"},
                {"one/../../outside", "leads out"},
                {outside, "not below"},
                {absolute, "leads out"},
                {"/proc/self/cwd", "not below"},
                {"/etc", "not below"},
                {"link", "leads out"},
                {"up", "leads out"},
                {"proc", "leads out"},
                {"inner", "leads out"},
                {"index", "leads out"},
                {".", "not below"},
                {"none", "no such adapter"},
                {"fifo", "regular file"},
                {"pipe", "regular file"},
                {"one/draft", "adapter_config.json"},
                {"one/adapter/adapter_config.json", ""},
                {"short", ""},
                {"huge", "bytes"},
                {"hugeindex", "bytes"},
                {"config", "JSON"},
                {"pair", "another adapter"},
                {"foreign", ""}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        refused(&w, "kept", rows[i].path, "", 400, rows[i].words);
        refused(&w, "new", rows[i].path, "", 400, rows[i].words);
    }
    refused(&w, "kept", "", "", 400, "lora_path");
    refused(&w, "../x", "one", "", 400, "lora_name");
    refused(&w, "", "one", "", 400, "lora_name");
    refused(&w, "tiny", "one", "", 400, "base");
    refused(&w, "kept", "one", ",\"expected_generation\":-1", 400, "expected_generation");
    refused(&w, "kept", "one", ",\"expected_generation\":\"a\"", 400, "expected_generation");
    refused(&w, "kept", "one", ",\"draft_lora_path\":\"../outside\"", 400, "leads out");
    refused(&w, "kept", "one", ",\"draft_lora_path\":\"two\"", 400, "another adapter");
    refused(&w, "kept", "one", ",\"draft_lora_path\":\"two/adapter\"", 400, "-d");
    blamed(&w, "none", ",\"draft_lora_path\":\"two\"", "lora_path");
    blamed(&w, "one", ",\"draft_lora_path\":\"two\"", "draft_lora_path");
    blamed(&w, "one", ",\"draft_lora_path\":\"../outside\"", "draft_lora_path");
    refused(&w, "kept", "one", ",\"aliases\":[\"tiny\"]", 400, "tiny");
    refused(&w, "kept", "one", ",\"aliases\":[\"kept\"]", 400, "itself");
    refused(&w, "kept", "one", ",\"aliases\":\"a\"", 400, "aliases");
    json_decref(live_json(&w.s, "load_lora_adapter", "[1]", 400));
    json_decref(live_json(&w.s, "load_lora_adapter", "{\"lora_name\":", 400));
    json_decref(live_json(&w.s, "load_lora_adapter", "{}", 400));
    cr_assert_eq(count_listed(&w), 1);
    char *got = ask(&w.s, "kept", 1, &after);
    cr_assert(g == before && after == before);
    cr_assert_str_eq(got, want);
    cr_assert_gt(loaded(&w, "kept", "near"), before,
                 "a link that stays below the root is followed");
    char *inside = sd_sprintf("%s/one", w.root);
    cr_assert_gt(loaded(&w, "kept", inside), before, "the root's own path may stand before it");
    free(inside), free(want), free(got), free(absolute);
    free(outside), free(one), free(weights), free(wide_path);
    stop(&w);
}

Test(serve_adapters, a_server_without_a_root_loads_none) {
    world w;
    live_write_model(&w.s);
    live_give_admin_key(&w.s);
    live_start_with(&w.s, 256, 2, 8, NULL);
    refused(&w, "mine", "one", "", 403, "--adapter-root");
    live_stop(&w.s);
}

Test(serve_adapters, a_load_beyond_their_memory_is_refused) {
    world w;
    start_with_memory(&w, 50 << 10); // a run has 30 KB of factors and an index
    long long first = loaded(&w, "a", "one");
    refused(&w, "b", "two", "", 400, "--adapter-memory");
    cr_assert_gt(loaded(&w, "b", "one"), first, "what is shared takes no more");
    json_decref(unload(&w, "a", 200));
    json_decref(unload(&w, "b", 200));
    cr_assert(live_wait_metric(&w.s, "adapters_draining", 0));
    for (int i = 0; i < 500 && memory_of(&w, "adapter_factors") > 0; i++) usleep(10000);
    cr_assert_gt(loaded(&w, "b", "two"), first);
    stop(&w);
}

// The draft model has the target's weights: with the target's adapter as its own every draft holds.
Test(serve_adapters, a_pair_brings_the_draft_models_adapter) {
    world w;
    start_with_draft(&w);
    json_t *v = load(&w, "alone", "one", "", 200);
    cr_assert_str_eq(live_text_at(v, "pair"), "none");
    json_decref(v);
    v = load(&w, "pair", "one", ",\"draft_lora_path\":\"one/adapter\"", 200);
    cr_assert_str_eq(live_text_at(v, "draft"), "adapter");
    cr_assert_str_eq(live_text_at(v, "pair"), "unknown");
    json_decref(v);
    double rate[2];
    static const char *const names[] = {"alone", "pair"};
    char *want = NULL;
    for (int i = 0; i < 2; i++) {
        char body[160];
        snprintf(body, sizeof body,
                 "{\"model\":\"%s\",\"prompt\":[9,8,7,6],\"max_tokens\":60,\"temperature\":0,"
                 "\"ignore_eos\":true}",
                 names[i]);
        v = live_json(&w.s, "completions", body, 200);
        rate[i] =
            json_number_value(live_at(v, "metrics.speculative_decoding.draft_acceptance_rate"));
        if (i == 0) want = sd_strdup(live_text_at(v, "choices.0.text"));
        cr_assert_str_eq(live_text_at(v, "choices.0.text"), want);
        json_decref(v);
    }
    free(want);
    cr_assert(rate[0] < .9 && rate[1] == 1, "%g, %g", rate[0], rate[1]);
    refused(&w, "pair", "two", ",\"draft_lora_path\":\"none\"", 400, "no such");
    refused(&w, "pair", "two", ",\"draft_lora_path\":\"../x\"", 400, "leads out");
    stop(&w);
}

// ---- swaps under load

// A generation is known only when its load was answered, and clients may see it before: they remember.
typedef struct {
    long long generation;
    int prompt;
    char *answer;
} seen;
typedef struct {
    const world *w;
    int number;
    seen all[ASKED];
} watcher;

static void *ask_and_remember(void *ctx) {
    watcher *c = ctx;
    for (int i = 0; i < ASKED; i++) {
        c->all[i].prompt = (i + c->number) % PROMPTS;
        c->all[i].answer =
            ask(&c->w->s, i % 2 ? "mine" : "prod", c->all[i].prompt, &c->all[i].generation);
    }
    return NULL;
}

Test(serve_adapters, under_load_no_answer_fails_and_none_is_of_two_generations, .timeout = 300) {
    static const char *const runs[RUNS] = {"one", "two"};
    static watcher watchers[CLIENTS];
    static char run_of[SWAPS + 64];
    pthread_t thread[CLIENTS];
    char *want[RUNS][PROMPTS];
    world w;
    start(&w);
    for (int r = 0; r < RUNS; r++) {
        json_t *v = load(&w, "mine", runs[r], ",\"aliases\":[\"prod\"]", 200);
        run_of[generation_in(v)] = (char)(r + 1);
        json_decref(v);
        for (int p = 0; p < PROMPTS; p++) {
            long long g;
            want[r][p] = ask(&w.s, "mine", p, &g);
        }
    }
    for (int i = 0; i < CLIENTS; i++) {
        watchers[i] = (watcher){.w = &w, .number = i};
        cr_assert_eq(pthread_create(&thread[i], NULL, ask_and_remember, &watchers[i]), 0);
    }
    for (int i = 0; i < SWAPS; i++)
        run_of[loaded(&w, "mine", runs[i % RUNS])] = (char)(i % RUNS + 1);
    int generations = 0;
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(thread[i], NULL);
        for (int k = 0; k < ASKED; k++) {
            const seen *x = &watchers[i].all[k];
            int run = run_of[x->generation] - 1;
            cr_assert(run >= 0 && strcmp(x->answer, want[run][x->prompt]) == 0,
                      "generation %lld, run %d: %s", x->generation, run, x->answer);
            generations += k > 0 && x->generation != watchers[i].all[k - 1].generation;
            free(x->answer);
        }
    }
    cr_assert_gt(generations, 0, "clients saw swaps");
    live_wait_metric(&w.s, "adapters_draining", 0);
    cr_assert_eq(count_listed(&w), 1);
    for (int r = 0; r < RUNS; r++)
        for (int p = 0; p < PROMPTS; p++) free(want[r][p]);
    stop(&w);
}

typedef struct {
    const world *w;
    long long generation;
} loader;

static void *load_one(void *ctx) {
    loader *l = ctx;
    l->generation = loaded(l->w, "mine", "one");
    return NULL;
}

Test(serve_adapters, concurrent_loads_of_one_name_have_a_generation_each) {
    enum { LOADERS = 6 };
    loader l[LOADERS];
    pthread_t thread[LOADERS];
    world w;
    long long most = 0;
    start(&w);
    for (int i = 0; i < LOADERS; i++) {
        l[i] = (loader){.w = &w};
        cr_assert_eq(pthread_create(&thread[i], NULL, load_one, &l[i]), 0);
    }
    for (int i = 0; i < LOADERS; i++) {
        pthread_join(thread[i], NULL);
        for (int k = 0; k < i; k++) cr_assert_neq(l[i].generation, l[k].generation);
        if (l[i].generation > most) most = l[i].generation;
    }
    json_t *v = get_json(&w, "/v1/lora_adapters");
    cr_assert_eq(json_array_size(json_object_get(v, "data")), 1);
    cr_assert_eq(json_integer_value(live_at(v, "data.0.generation")), most);
    json_decref(v);
    stop(&w);
}

// ---- draining

// A stream of many tokens that has begun.
static int begin_long(const world *w, const char *model) {
    char body[160];
    int fd = live_dial(&w->s, 0);
    snprintf(body, sizeof body,
             "{\"model\":\"%s\",\"prompt\":[1,2],\"max_tokens\":400,\"stream\":true,"
             "\"ignore_eos\":true,\"speculative\":{\"enabled\":false},\"seed\":3}",
             model);
    cr_assert(fd >= 0 && live_post(fd, body) && live_began(fd));
    return fd;
}

Test(serve_adapters, what_is_in_use_drains_and_its_requests_end_on_it) {
    world w;
    start(&w);
    long long first = loaded(&w, "mine", "one");
    int fd = begin_long(&w, "mine");
    json_t *v = unload(&w, "mine", 200);
    cr_assert_eq(generation_in(v), first);
    cr_assert_str_eq(live_text_at(v, "state"), "draining");
    json_decref(v);
    // The name is free at once, and what is loaded under it is another one.
    cr_assert_gt(loaded(&w, "mine", "two"), first);
    char *out = live_read(fd), head[64];
    close(fd);
    snprintf(head, sizeof head, "X-Specdec-Adapter-Generation: %lld\r\n", first);
    cr_assert(strstr(out, head) && strstr(out, "[DONE]"), "%.300s", out);
    free(out);
    cr_assert(live_wait_metric(&w.s, "adapters_draining", 0));
    cr_assert_eq(count_listed(&w), 1);
    stop(&w);
}

Test(serve_adapters, a_server_that_drains_loads_none) {
    world w;
    start(&w);
    long long first = loaded(&w, "mine", "one");
    cr_assert_gt(first, 0);
    int load_fd = live_dial(&w.s, 0);
    int fd = begin_long(&w, "mine");
    kill(getpid(), SIGTERM);
    while (1) { // until it drains
        char *health = live_get(&w.s, "/health");
        bool draining = strstr(health, " 503 ") != NULL || !*health;
        free(health);
        if (draining) break;
        usleep(2000);
    }
    if (live_post_to(load_fd, "load_lora_adapter", "{\"lora_name\":\"a\",\"lora_path\":\"one\"}")) {
        char *out = live_read(load_fd);
        cr_assert_null(strstr(out, " 200 "), "%s", out);
        free(out);
    }
    close(load_fd);
    char *out = live_read(fd);
    cr_assert(strstr(out, "[DONE]"), "%.300s", out);
    free(out);
    close(fd);
    live_join(&w.s);
    free(w.root);
}

// ---- names, keys, memory

Test(serve_adapters, aliases_follow_what_they_stand_for_and_can_be_moved) {
    world w;
    sd_strings aliases = {.item = {"plain=tiny"}, .n = 1};
    long long g, first, second;
    prepare(&w);
    w.s.o.aliases = &aliases;
    live_start_with(&w.s, 512, 4, 64, NULL);
    free(ask(&w.s, "plain", 0, &g));
    cr_assert_eq(g, 0);
    json_t *v = load(&w, "v1", "one", ",\"aliases\":[\"prod\",\"old\"]", 200);
    first = generation_in(v);
    json_decref(v);
    free(ask(&w.s, "prod", 0, &g));
    cr_assert_eq(g, first);
    v = load(&w, "v2", "two", ",\"aliases\":[\"prod\"]", 200);
    second = generation_in(v);
    json_decref(v);
    free(ask(&w.s, "prod", 0, &g));
    cr_assert_eq(g, second);
    free(ask(&w.s, "old", 0, &g));
    cr_assert_eq(g, first);
    v = get_json(&w, "/v1/models/prod");
    cr_assert_str_eq(live_text_at(v, "parent"), "v2");
    cr_assert_eq(json_integer_value(live_at(v, "generation")), second);
    json_decref(v);
    v = get_json(&w, "/v1/models");
    cr_assert_eq(json_array_size(json_object_get(v, "data")), 6, "tiny v1 v2 plain prod old");
    json_decref(v);
    refused(&w, "prod", "one", "", 400, "alias");
    refused(&w, "v3", "one", ",\"aliases\":[\"v1\"]", 400, "v1");
    json_decref(unload(&w, "v2", 200));
    json_decref(live_json(&w.s, "completions", "{\"model\":\"prod\",\"prompt\":[1]}", 404));
    stop(&w);
}

static int models_listed(const world *w) {
    json_t *v = get_json(w, "/v1/models");
    int n = (int)json_array_size(json_object_get(v, "data"));
    json_decref(v);
    return n;
}

static void not_unloaded(const world *w, const char *name, const char *words) {
    json_t *v = unload(w, name, 400);
    cr_assert(strstr(live_text_at(v, "error.message"), words), "%s",
              live_text_at(v, "error.message"));
    json_decref(v);
}

Test(serve_adapters, a_loads_aliases_are_all_that_the_adapter_has) {
    world w;
    sd_strings aliases = {.item = {"plain=tiny"}, .n = 1};
    prepare(&w);
    w.s.o.aliases = &aliases;
    live_start_with(&w.s, 512, 4, 64, NULL);
    json_decref(load(&w, "v1", "one", ",\"aliases\":[\"prod\",\"old\"]", 200));
    json_decref(load(&w, "v2", "two", ",\"aliases\":[\"next\"]", 200));
    cr_assert_eq(models_listed(&w), 7, "tiny v1 v2 plain prod old next");
    json_decref(load(&w, "v1", "one", "", 200));
    cr_assert_eq(models_listed(&w), 7, "absent: they stay");
    json_decref(load(&w, "v1", "one", ",\"aliases\":[\"prod\"]", 200));
    cr_assert_eq(models_listed(&w), 6);
    json_decref(live_json(&w.s, "completions", "{\"model\":\"old\",\"prompt\":[1]}", 404));
    not_unloaded(&w, "prod", "'prod' is an alias of adapter 'v1'");
    not_unloaded(&w, "plain", "'plain' is an alias of the base");
    json_decref(load(&w, "v1", "one", ",\"aliases\":[]", 200));
    cr_assert_eq(models_listed(&w), 5, "tiny v1 v2 plain next");
    json_decref(live_json(&w.s, "completions", "{\"model\":\"prod\",\"prompt\":[1]}", 404));
    stop(&w);
}

// The sum of a counter over all of its lines.
static double sum_of(const char *page, const char *name) {
    double sum = 0;
    char line[128];
    const int n = snprintf(line, sizeof line, "\n%s{", name);
    for (const char *at = page; (at = strstr(at, line));) {
        at += n;
        sum += atof(strstr(at, "} ") + 2);
    }
    return sum;
}

static int names_on(const char *page) {
    int n = 0;
    for (const char *at = page; (at = strstr(at, "\nspecdec_adapter_prompt_tokens_total{")); at++)
        n++;
    return n;
}

Test(serve_adapters, the_page_of_metrics_has_the_adapters_there_are_and_its_sums_never_fall) {
    static const char *const sums[] = {
        "specdec_request_success_total",           "specdec_adapter_prompt_tokens_total",
        "specdec_adapter_generation_tokens_total", "specdec_time_to_first_token_seconds_count",
        "specdec_e2e_request_latency_seconds_sum", "specdec_request_prompt_tokens_bucket"};
    enum { SUMS = sizeof sums / sizeof *sums, NAMES = 40 };
    double before[SUMS] = {0};
    long long g;
    world w;
    start(&w);
    for (int i = 0; i < NAMES; i++) {
        char name[16];
        snprintf(name, sizeof name, "a%d", i);
        loaded(&w, name, "one");
        free(ask(&w.s, name, 0, &g));
        json_decref(unload(&w, name, 200));
        cr_assert(live_wait_metric(&w.s, "adapters_draining", 0));
        char *page = live_get(&w.s, "/metrics");
        for (int k = 0; k < SUMS; k++) {
            double sum = sum_of(page, sums[k]);
            cr_assert_gt(sum, before[k], "%s: %g after %g", sums[k], sum, before[k]);
            before[k] = sum;
        }
        cr_assert_eq(names_on(page), 2, "the base and what is gone");
        cr_assert(strstr(page, "adapter=\"(gone)\"") && !strstr(page, "adapter=\"a"));
        free(page);
    }
    cr_assert_eq(before[0], NAMES);
    stop(&w);
}

Test(serve_adapters, an_alias_of_nothing_ends_the_start) {
    static const char *const bad[] = {"x=none", "x", "=tiny", "tiny=tiny", "x="};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        live s;
        sd_error err = {0};
        live_write_model(&s);
        sd_strings aliases = {.item = {bad[i]}, .n = 1};
        s.o.model = s.model;
        s.o.aliases = &aliases;
        cr_assert_eq(sd_serve(&s.o, &err), SD_EINVAL, "%s", bad[i]);
        cr_assert(strstr(err.message, "--alias") || strstr(err.message, "alias"), "%s",
                  err.message);
        free(s.model);
        sd_tiny_remove(s.dir);
    }
}

Test(serve_adapters, weights_of_two_names_are_kept_once) {
    world w;
    start(&w);
    cr_assert_eq(memory_of(&w, "adapter_factors"), 0);
    long long a = loaded(&w, "a", "one");
    double one = memory_of(&w, "adapter_factors");
    cr_assert_gt(one, 0);
    long long b = loaded(&w, "b", "one");
    cr_assert_neq(a, b);
    cr_assert_eq(memory_of(&w, "adapter_factors"), one);
    json_decref(load(&w, "c", "two", "", 200));
    cr_assert_eq(memory_of(&w, "adapter_factors"), 2 * one);
    json_decref(unload(&w, "a", 200));
    cr_assert_eq(memory_of(&w, "adapter_factors"), 2 * one);
    json_decref(unload(&w, "b", 200));
    for (int i = 0; i < 500 && memory_of(&w, "adapter_factors") > one; i++) usleep(10000);
    cr_assert_eq(memory_of(&w, "adapter_factors"), one);
    stop(&w);
}
