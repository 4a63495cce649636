// Traces: what an engine records is read back whole, replayed to the same decisions, and judged under
// other policies as arithmetic says. Lines from outside are refused by number.
#include "decode/draft/replay.h"
#include "decode/engine/private.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/files.h"
#include "tests/unit/support/tiny/model.h"

#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { PROMPT = 50, N = 60, REQUESTS = 6 };

// ---- recorded by an engine

typedef struct {
    char *dir, *draft, *trace;
    sd_model *model;
} world;

static world make_world(void) {
    world w = {.dir = sd_tiny_dir()};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2), near = t;
    near.dtype = SD_Q8_0;
    w.draft = sd_path_join(w.dir, "near.gguf");
    w.trace = sd_path_join(w.dir, "trace.jsonl");
    cr_assert_eq(sd_tiny_write_gguf(w.draft, &near, NULL), SD_OK);
    w.model = sd_tiny_open(&t, true);
    sd_log_set_level(SD_LOG_ERROR);
    return w;
}

static void free_world(world *w) {
    sd_model_release(w->model);
    free(w->draft), free(w->trace);
    sd_tiny_remove(w->dir);
}

static sd_request request_of(const int32_t *prompt, int i, test_answer *a) {
    return (sd_request){.prompt = prompt,
                        .n_prompt = PROMPT,
                        .max_tokens = N - i * 3,
                        .sampling = {.temperature = .1f * (float)i, .top_p = 1, .seed = 4},
                        .ignore_end = true,
                        .logprobs = -1,
                        .spec = i == 1 ? SD_SPEC_OFF : SD_SPEC_AUTO,
                        .on_event = test_collect,
                        .ctx = a};
}

// Six requests, one of them without speculation, on `slots` slots; the trace lies at w->trace.
static void record(const world *w, int slots, int length) {
    sd_trace *t = NULL;
    sd_error err = {0};
    int32_t prompt[REQUESTS][PROMPT];
    uint64_t id[REQUESTS];
    test_answer *a = calloc(REQUESTS, sizeof *a);
    cr_assert_eq(sd_trace_create(&t, w->trace, 0, &err), SD_OK, "%s", err.message);
    sd_engine *e = test_engine_open(w->model, &(sd_engine_options){.ctx = 200,
                                                                   .slots = slots,
                                                                   .threads = 1,
                                                                   .prefill_chunk = 20,
                                                                   .spec_length = length,
                                                                   .draft = w->draft,
                                                                   .trace = t});
    for (int i = 0; i < REQUESTS; i++) {
        test_repetitive(prompt[i], PROMPT, 7 + i, 250);
        sd_request r = request_of(prompt[i], i, &a[i]);
        cr_assert_eq(sd_engine_submit(e, &r, &id[i], NULL), SD_OK);
    }
    sd_request first = request_of(prompt[0], 0, NULL);
    cr_assert(sd_engine_step(e));
    cr_assert_eq(sd_engine_trace_answer(e, &first, 1, prompt[0], 3, NULL), SD_EINVAL, "it runs");
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < REQUESTS; i++) {
        sd_request r = request_of(prompt[i], i, NULL);
        cr_assert_eq(sd_engine_trace_answer(e, &r, id[i], a[i].ids.id, a[i].ids.n, &err), SD_OK);
        test_answer_free(&a[i]);
    }
    cr_assert_eq(sd_trace_commit(t, &err), SD_OK, "%s", err.message);
    sd_engine_close(e);
    sd_trace_close(t);
    free(a);
}

static sd_trace_log read_log(const char *path) {
    sd_trace_log log;
    sd_error err = {0};
    cr_assert_eq(sd_trace_read(&log, path, &err), SD_OK, "%s", err.message);
    return log;
}

static sd_replay replay(const sd_trace_log *log) {
    sd_replay r;
    sd_error err = {0};
    cr_assert_eq(sd_replay_run(&r, log, &err), SD_OK, "%s", err.message);
    return r;
}

static int64_t taken_in(const sd_trace_log *log) {
    int64_t n = 0;
    for (int i = 0; i < log->n_steps; i++)
        for (int k = 0; k < log->step[i].n_requests; k++) n += log->step[i].request[k].taken;
    return n;
}

// Drafting and verifying make up the time of each step, and drafting takes some.
static void check_times(const sd_trace_log *log, bool drafts) {
    double drafting = 0;
    for (int i = 0; i < log->n_steps; i++) {
        const sd_traced_step *s = &log->step[i];
        double sum = 0;
        for (int k = 0; k < s->n_draft_s; k++) sum += s->draft_s[k];
        if (s->n_requests > 0) cr_assert_float_eq(sum + s->verify_s, s->seconds, 1e-9);
        drafting += sum;
    }
    if (drafts) cr_assert_gt(drafting, 0);
}

// The tokens of the rounds and of the answers are those of the requests, in order.
static void check_tokens(const sd_trace_log *log) {
    cr_assert_eq(log->n_answers, REQUESTS);
    for (int a = 0; a < log->n_answers; a++) {
        const sd_traced_answer *answer = &log->answer[a];
        int n = -1; // the first comes with the prompt, or in a round of its own
        for (int i = 0; i < log->n_steps; i++)
            for (int k = 0; k < log->step[i].n_requests; k++) {
                const sd_traced_request *q = &log->step[i].request[k];
                if (q->id != answer->request) continue;
                if (n < 0) n = q->generated;
                cr_assert_leq(n, answer->n);
                cr_assert(q->position == PROMPT + n && q->generated == n);
                cr_assert_leq(n + q->n_emitted, answer->n);
                cr_assert_eq(
                    memcmp(q->emitted, answer->token + n, (size_t)q->n_emitted * sizeof(int32_t)),
                    0);
                n += q->n_emitted;
            }
        cr_assert_eq(n, answer->n);
    }
}

Test(trace, a_replay_of_what_was_recorded_takes_as_many_tokens_in_each_round, .timeout = 120) {
    world w = make_world();
    for (int slots = 1; slots <= 4; slots += 3)
        for (int length = 0; length <= 4; length += 4) {
            record(&w, slots, length);
            sd_trace_log log = read_log(w.trace);
            sd_replay r = replay(&log);
            check_tokens(&log);
            check_times(&log, length > 0);
            cr_assert_gt(r.decisions, REQUESTS * N / 8);
            cr_assert_eq(r.same, r.decisions, "%lld of %lld with %d slots, length %d",
                         (long long)r.same, (long long)r.decisions, slots, length);
            cr_assert_eq(r.at_once, slots);
            if (length > 0) cr_assert_gt(taken_in(&log), N);
            // Another outcome of one round, or another time, is another decision.
            for (int i = 0; i < log.n_steps; i++)
                if (log.step[i].n_requests) {
                    log.step[i].request[0].taken++;
                    break;
                }
            cr_assert_eq(replay(&log).same, r.same - 1);
            sd_trace_log_free(&log);
        }
    free_world(&w);
}

Test(trace, the_shadow_of_a_draft_model_is_what_it_proposed_in_rounds) {
    world w = make_world();
    record(&w, 2, 3);
    sd_trace_log log = read_log(w.trace);
    int compared = 0;
    for (int i = 0; i < log.n_steps; i++)
        for (int k = 0; k < log.step[i].n_requests; k++) {
            const sd_traced_request *q = &log.step[i].request[k];
            const sd_traced_answer *a = NULL;
            for (int x = 0; x < log.n_answers; x++)
                if (log.answer[x].request == q->id) a = &log.answer[x];
            for (int p = 0; p < q->n_proposed; p++) {
                const sd_traced_proposal *made = &q->proposed[p];
                if (log.free[made->source] || made->at > 0) continue;
                size_t cell = (size_t)made->source * (size_t)a->n + (size_t)(q->position - PROMPT);
                cr_assert_eq(a->length[cell], 1);
                cr_assert_eq(a->chain[a->first[cell]].token, made->token);
                cr_assert_eq(a->chain[a->first[cell]].bucket, made->bucket);
                compared++;
            }
        }
    cr_assert_gt(compared, 50);
    sd_trace_log_free(&log);
    free_world(&w);
}

// ---- recorded of a planner whose clock is made up

enum { SEQUENCES = 3, ROUNDS = 600 };

static double made_up_clock;
static uint64_t drawn;

static double draw(void) {
    uint32_t r[4];
    sd_philox(r, 21, SD_STREAM_INIT, drawn++);
    return r[0] / 4294967296.0;
}

static size_t scripted_bytes(const void *shared) {
    (void)shared;
    return 300;
}
static int scripted_missing(const sd_drafter *d) {
    (void)d;
    return drawn % 5 == 0 ? 30 : 1;
}
static bool scripted_prepare(sd_drafter *d, int rows) {
    (void)d, (void)rows;
    made_up_clock += 1e-3 * draw();
    return draw() < .9;
}
static void scripted_prepare_many(sd_drafter *const *d, bool *ready, int n, int rows) {
    for (int k = 0; k < n; k++) ready[k] = scripted_prepare(d[k], rows);
}
static void scripted_rewind(sd_drafter *d) {
    (void)d;
}
// Token 1 is right, for some stretches of rounds more often than for others.
static bool scripted_peek(sd_drafter *d, sd_proposal *out) {
    double right = !d->kind->read_bytes ? .2 : drawn / 2000 % 2 ? .3 : .95;
    *out = (sd_proposal){draw() < right ? 1 : 2, (int)(draw() * 10), 0};
    return draw() < .95;
}
static void scripted_peek_many(sd_drafter *const *d, sd_proposal *out, bool *made, int n) {
    made_up_clock += 3e-3 * (.5 + draw());
    for (int k = 0; k < n; k++) made[k] = scripted_peek(d[k], &out[k]);
}
static void scripted_advance(sd_drafter *d, int32_t token) {
    (void)d, (void)token;
}
static double scripted_now(void *ctx) {
    (void)ctx;
    return made_up_clock;
}

Test(trace, priced_drafters_are_asked_again_where_they_were) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "scripted.jsonl");
    sd_drafter_kind free_kind = {.name = "suffix",
                                 .rewind = scripted_rewind,
                                 .peek = scripted_peek,
                                 .advance = scripted_advance,
                                 .prior = sd_drafter_suffix.prior};
    sd_drafter_kind priced = free_kind;
    priced.name = "draft", priced.prior = sd_drafter_model.prior;
    priced.read_bytes = scripted_bytes;
    priced.missing = scripted_missing, priced.prepare = scripted_prepare;
    priced.prepare_many = scripted_prepare_many, priced.peek_many = scripted_peek_many;
    const sd_draft_source source[2] = {{&free_kind, NULL}, {&priced, NULL}};
    sd_drafter a = {&free_kind}, b = {&priced}, *handle[2] = {&a, &b};
    static const bool active[2] = {true, true};
    sd_acceptance own[SEQUENCES] = {0};
    static sd_planned plan[SEQUENCES];
    sd_planned *pointer[SEQUENCES];
    sd_step_costs costs;
    for (int i = 0; i < SD_STEP_COSTS; i++) costs.ms[i] = 10 + .6 * (sd_step_cost_rows[i] - 1);
    sd_controller c;
    sd_planner *p = NULL;
    sd_trace *t = NULL;
    sd_controller_init(&c);
    sd_controller_load_costs(&c, &costs);
    cr_assert_eq(sd_trace_create(&t, path, 0, NULL), SD_OK);
    const sd_planner_options o = {.prepare_rows = 99,
                                  .V = 9,
                                  .target_bytes = 1000,
                                  .now = scripted_now,
                                  .timed = sd_trace_timed,
                                  .ctx = t};
    cr_assert_eq(sd_planner_open(&p, &c, source, 2, SEQUENCES, &o, NULL), SD_OK);
    sd_trace_head(t, p, &costs);
    int by[2] = {0};
    for (int round = 0; round < ROUNDS; round++) {
        int n = 1 + (int)(draw() * SEQUENCES), rows = n, tokens = 0;
        double begin = made_up_clock;
        for (int k = 0; k < n; k++) {
            plan[k] = (sd_planned){.drafter = handle,
                                   .active = active,
                                   .own = &own[k],
                                   .last = 1,
                                   .room = (int)(draw() * 200),
                                   .generated = round,
                                   .request = (uint64_t)k,
                                   .position = 1 + round};
            pointer[k] = &plan[k];
        }
        double drafting = sd_planner_round(p, pointer, n);
        for (int k = 0; k < n; k++) {
            static const int32_t ones[SD_MAX_DRAFT + 1] = {[0 ... SD_MAX_DRAFT] = 1};
            int held = 0;
            while (held < plan[k].g && plan[k].draft[held] == 1) held++;
            sd_planner_score(p, &plan[k], ones, held + 1);
            rows += plan[k].g, tokens += held + 1;
            for (int j = 0; j < plan[k].g; j++) by[plan[k].source[j]]++;
        }
        made_up_clock += (10 + .6 * (rows - 1)) * 1e-3 * (.9 + .2 * draw());
        double seconds = made_up_clock - begin;
        bool mixed = draw() < .1;
        if (!mixed) sd_controller_timed(&c, n, rows, seconds - drafting);
        if (!mixed) sd_controller_progress(&c, n, tokens, seconds);
        sd_trace_round(t, p,
                       &(sd_trace_step){.n = n,
                                        .sequence = pointer,
                                        .planned = n,
                                        .prompt_rows = mixed ? 5 : 0,
                                        .speculating = true,
                                        .seconds = seconds,
                                        .draft_seconds = drafting});
    }
    cr_assert_eq(sd_trace_commit(t, NULL), SD_OK);
    sd_trace_close(t);
    sd_planner_close(p);
    cr_assert(by[0] > 100 && by[1] > 100, "%d and %d", by[0], by[1]);
    sd_trace_log log = read_log(path);
    sd_replay r = replay(&log);
    cr_assert_gt(r.decisions, ROUNDS);
    cr_assert_eq(r.same, r.decisions, "%lld of %lld", (long long)r.same, (long long)r.decisions);
    // Slower drafts would have been fewer.
    for (int i = 0; i < log.n_steps; i++)
        for (int k = 0; k < log.step[i].n_draft_s; k++) log.step[i].draft_s[k] *= 20;
    cr_assert_lt(replay(&log).same, r.decisions);
    sd_trace_log_free(&log);
    free(path);
    sd_tiny_remove(dir);
}

// ---- judged under other policies

enum { RIGHT = 4, CHAIN = 12, LENGTH = 41 };

static double cost_ms(int rows) {
    return 10 + .5 * (rows - 1);
}

// One answer; from each of its tokens on the drafter knows the next four, and is wrong behind them.
static char *write_synthetic(const char *dir) {
    char *path = sd_path_join(dir, "synthetic.jsonl");
    FILE *f = fopen(path, "w");
    fprintf(f, "{\"specdec_trace\":1,\"drafters\":[{\"name\":\"suffix\",\"bytes\":null}],"
               "\"target_bytes\":1000,\"vocabulary\":100,\"length\":0,\"slots\":1,\"costs_ms\":[");
    for (int i = 0; i < SD_STEP_COSTS; i++)
        fprintf(f, "%s%.17g", i ? "," : "", cost_ms(sd_step_cost_rows[i]));
    fprintf(f, "]}\n{\"answer\":1,\"tokens\":[");
    for (int i = 0; i < LENGTH; i++) fprintf(f, "%s%d", i ? "," : "", i);
    fprintf(f, "],\"shadow\":[[");
    for (int n = 1; n < LENGTH; n++) {
        fprintf(f, "%s[", n > 1 ? "," : "");
        for (int j = 0; j < CHAIN; j++)
            fprintf(f, "%s[%d,%d]", j ? "," : "", j < RIGHT ? n + j : 99, 12);
        fprintf(f, "]");
    }
    fprintf(f, "]]}\n");
    fclose(f);
    return path;
}

Test(trace, policies_cost_what_arithmetic_says) {
    char *dir = sd_tiny_dir(), *path = write_synthetic(dir);
    sd_trace_log log = read_log(path);
    sd_replay r = replay(&log);
    static const int lengths[] = {0, -1, 2, 4, 8};
    cr_assert(r.answers == 1 && r.decisions == 0 && r.at_once == 1);
    for (int i = 0; i < SD_REPLAY_POLICIES; i++) {
        const sd_replay_policy *p = &r.policy[i];
        int rounds = 0, rows = 0, accepted = 0, g = lengths[i];
        double seconds = 0;
        cr_assert_eq(p->tokens, LENGTH - 1);
        if (g < 0) continue;
        for (int n = 1; n < LENGTH; rounds++) {
            int held = g < RIGHT ? g : RIGHT;
            if (held > LENGTH - n) held = LENGTH - n;
            accepted += held;
            n += held + 1;
            rows += 1 + g;
            seconds += cost_ms(1 + g) * 1e-3;
        }
        cr_assert(p->rounds == rounds && p->rows == rows && p->accepted == accepted,
                  "%s: %lld rounds, want %d; %lld rows, want %d", p->name, (long long)p->rounds,
                  rounds, (long long)p->rows, rows);
        cr_assert_float_eq(p->seconds, seconds, .01 * seconds, "%s: %g, want %g", p->name,
                           p->seconds, seconds);
        cr_assert_float_eq(p->speed_up, r.policy[0].seconds / seconds, .02);
    }
    // Rows are cheap and the first four tokens always hold: it finds that out.
    cr_assert_str_eq(r.policy[1].name, "auto");
    cr_assert_gt(r.policy[1].speed_up, 2);
    cr_assert_gt(r.policy[1].speed_up, r.policy[2].speed_up);
    sd_trace_log_free(&log);
    free(path);
    sd_tiny_remove(dir);
}

// ---- from outside

static const char head[] =
    "{\"specdec_trace\":1,\"drafters\":[{\"name\":\"suffix\",\"bytes\":null}],\"target_bytes\":9,"
    "\"vocabulary\":100,\"length\":0,\"slots\":1,\"costs_ms\":null}";
#define ROUND(rows, request)                                                                       \
    "{\"round\":1,\"planned\":1,\"rows\":" rows                                                    \
    ",\"prompt_rows\":0,\"speculating\":true,\"draft_s\":[],"                                      \
    "\"verify_s\":0.01,\"seconds\":0.01,\"requests\":[" request "]}"
#define REQUEST(proposed, taken, accepted, emitted)                                                \
    "{\"request\":1,\"position\":5,\"last\":1,\"room\":9,\"generated\":1,\"active\":[1],"          \
    "\"missing\":[-1],\"ready\":[0],\"lacking\":[-1],\"proposed\":" proposed ",\"source\":[],"     \
    "\"bucket\":[],\"probability\":[],\"taken\":" taken ",\"accepted\":" accepted                  \
    ",\"emitted\":" emitted "}"

static sd_status read_text(const char *dir, const char *text, size_t len, sd_error *err) {
    char *path = sd_path_join(dir, "hostile.jsonl");
    sd_trace_log log;
    cr_assert_eq(sd_file_write(path, text, len, NULL), SD_OK);
    sd_status st = sd_trace_read(&log, path, err);
    if (st == SD_OK) {
        sd_replay r;
        cr_assert_eq(sd_replay_run(&r, &log, err), SD_OK, "%s", err->message);
        sd_trace_log_free(&log);
    }
    free(path);
    return st;
}

Test(trace, a_line_that_is_not_one_of_a_trace_is_refused_by_its_number) {
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"{", "no JSON object"},
        {"[1]", "no JSON object"},
        {"{}", "`prefill`"},
        {"{\"prefill\":1,\"prefill\":2,\"seconds\":1}", "no JSON object"},
        {"{\"prefill\":0,\"seconds\":1}", "`prefill`"},
        {"{\"prefill\":4,\"seconds\":1e99}", "`seconds`"},
        {"{\"prefill\":4,\"seconds\":\"1\"}", "`seconds`"},
        {ROUND("1", ""), "`requests`"},
        {ROUND("2", REQUEST("[]", "0", "0", "[1]")), "`rows`"},
        {ROUND("1", REQUEST("[]", "0", "0", "[]")), "`emitted`"},
        {ROUND("1", REQUEST("[]", "0", "0", "[1,2]")), "2 tokens were emitted of a draft of 0"},
        {ROUND("1", REQUEST("[]", "0", "0", "[100]")), "`emitted`"},
        {ROUND("1", REQUEST("[]", "0", "1", "[1]")), "`accepted`"},
        {ROUND("50", REQUEST("[]", "49", "0", "[1]")), "`taken`"},
        {ROUND("1", REQUEST("[[[1,2,3]]]", "0", "0", "[1]")), "`proposed`"},
        {ROUND("1", REQUEST("[[[0,2,40]]]", "0", "0", "[1]")), "`proposed`"},
        {ROUND("1", REQUEST("[[[0,-1,3]]]", "0", "0", "[1]")), "`proposed`"},
        {ROUND("1", REQUEST("[[[0,1,3],[0,1,3]]]", "0", "0", "[1]")), "`proposed`"},
        {ROUND("1", REQUEST("[0]", "0", "0", "[1]")), "`proposed`"},
        {ROUND("2", REQUEST("[]", "0", "0", "[1]") "," REQUEST("[]", "0", "0", "[1]")),
         "`requests`"},
        {"{\"answer\":1,\"tokens\":[1,2],\"shadow\":[]}", "`shadow`"},
        {"{\"answer\":1,\"tokens\":[1,2],\"shadow\":[[]]}", "`shadow`"},
        {"{\"answer\":1,\"tokens\":[1,2],\"shadow\":[[[[1]]]]}", "`shadow`"},
        {"{\"answer\":1,\"tokens\":[1,-2],\"shadow\":[[[]]]}", "`tokens`"},
        {"{\"answer\":-1,\"tokens\":[1,2],\"shadow\":[[[]]]}", "`answer`"}};
    static const char *const good[] = {"{\"prefill\":4,\"seconds\":1}",
                                       ROUND("1", REQUEST("[[[0,1,3]],[]]", "0", "0", "[1]")),
                                       ROUND("2", REQUEST("[[[0,1,3]]]", "1", "1", "[1,7]")),
                                       "{\"answer\":1,\"tokens\":[1,2],\"shadow\":[[[[1,2]]]]}",
                                       "{\"answer\":1,\"tokens\":[],\"shadow\":[[]]}"};
    char *dir = sd_tiny_dir(), text[4096];
    sd_error err = {0};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int n = snprintf(text, sizeof text, "%s\n%s\n", head, good[i]);
        cr_assert_eq(read_text(dir, text, (size_t)n, &err), SD_OK, "%s", err.message);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int n = snprintf(text, sizeof text, "%s\n{\"prefill\":4,\"seconds\":1}\n%s\n", head,
                         bad[i].line);
        cr_assert_eq(read_text(dir, text, (size_t)n, &err), SD_EFORMAT, "%s", bad[i].line);
        cr_assert_not_null(strstr(err.message, ": line 3: "), "%s", err.message);
        cr_assert_not_null(strstr(err.message, bad[i].says), "%s: %s", bad[i].line, err.message);
    }
    cr_assert_eq(read_text(dir, "", 0, &err), SD_EFORMAT);
    cr_assert_eq(read_text(dir, "{\"specdec_trace\":2}\n", 20, &err), SD_EFORMAT);
    cr_assert_not_null(strstr(err.message, "line 1: is not the first line of a trace"));
    sd_tiny_remove(dir);
}

Test(trace, a_drafter_that_this_program_has_not_is_named) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "strange.jsonl"), *text = strdup(head);
    memcpy(strstr(text, "suffix"), "strang", 6);
    cr_assert_eq(sd_file_write(path, text, strlen(text), NULL), SD_OK);
    sd_trace_log log = read_log(path);
    sd_replay r;
    sd_error err = {0};
    cr_assert_eq(sd_replay_run(&r, &log, &err), SD_EINVAL);
    cr_assert_not_null(strstr(err.message, "\"strang\" is none of this program's"));
    sd_trace_log_free(&log);
    free(path), free(text);
    sd_tiny_remove(dir);
}

Test(trace, a_damaged_trace_is_refused_or_replayed_and_nothing_else, .timeout = 120) {
    world w = make_world();
    char *data;
    size_t len;
    int refused = 0;
    record(&w, 2, 0);
    cr_assert_eq(sd_file_read(&data, &len, w.trace, 1 << 24, NULL), SD_OK);
    for (int i = 0; i < 150; i++) {
        char *copy = malloc(len);
        memcpy(copy, data, len);
        uint32_t r[4];
        for (int k = 0; k < 3; k++) {
            sd_philox(r, 77, SD_STREAM_INIT, (uint64_t)(i * 3 + k));
            copy[r[0] % len] = "0123456789[]{},-\"x\n\0"[r[1] % 20];
        }
        sd_error err = {0};
        sd_status st = read_text(w.dir, copy, i % 3 ? len : r[2] % len, &err);
        cr_assert(st == SD_OK || (st == SD_EFORMAT && strstr(err.message, "line")), "%s",
                  err.message);
        refused += st != SD_OK;
        free(copy);
    }
    cr_assert_gt(refused, 50);
    free(data);
    free_world(&w);
}
