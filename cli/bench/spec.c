// specdec bench spec: speculation against plain decoding on real prompts.
//
// Every prompt is answered twice in the same process, plain and speculative, in alternating order,
// so that a machine that slows down slows both. The tokens of both must be the same; how many of N
// were is part of the result, and a difference fails the run. With several clients as many prompts
// are answered at once.
#include "base/clock.h"
#include "base/files/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/bench/bench.h"
#include "cli/decoding.h"
#include "datasets/read/record_json.h"
#include "decode/draft/trace.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_TASKS = 32, MAX_FILE = 256 << 20, MAX_CLIENTS = 64 };

typedef struct {
    sd_model_args common;
    sd_decoding_args decoding;
    int64_t n, limit, repeat, clients;
    const char *task, *trace;
    bool json;
} spec_args;

static const sd_option rows[] = {
    SD_COMMON_ROWS(spec_args),
    SD_DECODING_ROWS(spec_args),
    SD_KV_POOL_ROWS(spec_args, decoding.kv_memory, decoding.prefix_cache, "off"),
    {.name = "tokens",
     .letter = 'n',
     .type = SD_OPT_INT,
     .def = "0",
     .min = 0,
     .max = 1 << 20,
     .unit = "tokens",
     .offset = offsetof(spec_args, n),
     .help = "cap every answer at so many; 0: as the prompt file says"},
    {.name = "limit",
     .type = SD_OPT_INT,
     .def = "0",
     .min = 0,
     .max = 1 << 20,
     .offset = offsetof(spec_args, limit),
     .help = "use the first so many prompts of each task; 0: all"},
    {.name = "task",
     .type = SD_OPT_STRING,
     .value = "NAME",
     .offset = offsetof(spec_args, task),
     .help = "this task only"},
    {.name = "repeat",
     .type = SD_OPT_INT,
     .def = "1",
     .min = 1,
     .max = 100,
     .offset = offsetof(spec_args, repeat),
     .help = "answer everything so many times"},
    {.name = "clients",
     .type = SD_OPT_INT,
     .def = "1",
     .min = 1,
     .max = MAX_CLIENTS,
     .offset = offsetof(spec_args, clients),
     .help = "answer so many prompts of a task at once"},
    {.name = "trace",
     .type = SD_OPT_STRING,
     .value = "FILE",
     .offset = offsetof(spec_args, trace),
     .help = "record each round as JSON lines; --replay FILE, alone, judges them again without a "
             "model"},
    SD_JSON_ROW(spec_args, json, "one JSON object instead of a table"),
    {0}};

// Plain and speculative sums of a task.
typedef struct {
    char name[64];
    int prompts, pairs, identical;
    int64_t prompt_tokens, tokens;
    double decode_s[2], whole_s[2]; // [0] plain, [1] speculative
    double cpu_s[2];                // of decoding, all threads
    int64_t decoded[2];             // tokens after the first
    sd_spec_stats spec;
} task;

typedef struct {
    const spec_args *a;
    sd_decoding d;
    json_t *prompts; // array of objects
    sd_ids *ids;     // [prompts]
    task task[MAX_TASKS];
    int n_tasks;
    sd_hasher *plain; // over the tokens of the plain answers
    sd_sha256 digest;
} bench;

static task *find_task(bench *b, const char *name) {
    for (int i = 0; i < b->n_tasks; i++)
        if (strcmp(b->task[i].name, name) == 0) return &b->task[i];
    if (b->n_tasks == MAX_TASKS) return NULL;
    task *t = &b->task[b->n_tasks++];
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

// Training records serve as prompts too: the answer they end with is left out.
static void drop_answer(json_t *messages) {
    size_t n = json_array_size(messages);
    const char *role =
        n ? json_string_value(json_object_get(json_array_get(messages, n - 1), "role")) : NULL;
    if (role && strcmp(role, "assistant") == 0) json_array_remove(messages, n - 1);
}

static sd_status parse_line(bench *b, const char *path, int line, const char *text, size_t len,
                            sd_error *err) {
    sd_status st = SD_OK;
    json_t *o = NULL;
    SD_TRY(sd_json_record(&o, text, len, path, line, err));
    json_t *messages = json_object_get(o, "messages");
    SD_CHECK(json_array_size(messages) > 0 || json_string_length(json_object_get(o, "prompt")) > 0,
             err, SD_EFORMAT, "%s: line %d has neither `messages` nor `prompt`", path, line);
    drop_answer(messages);
    const char *name = json_string_value(json_object_get(o, "task"));
    if (!name) json_object_set_new(o, "task", json_string(name = "all"));
    if (b->a->task && strcmp(name, b->a->task) != 0) goto out;
    task *t = find_task(b, name);
    SD_CHECK(t, err, SD_ELIMIT, "%s: more than %d tasks", path, MAX_TASKS);
    if (b->a->limit > 0 && t->prompts >= b->a->limit) goto out;
    t->prompts++;
    json_array_append(b->prompts, o);
out:
    json_decref(o);
    return st;
}

static sd_status read_prompts(bench *b, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *data = NULL;
    size_t len;
    SD_CHECK(b->d.model->tokenizer, err, SD_EINVAL,
             "%s: this model has no tokenizer; it cannot read prompts", b->d.model->path);
    SD_TRY(sd_stream_read(&data, &len, path, MAX_FILE, err));
    b->prompts = json_array();
    SD_CHECK_ALLOC(b->prompts, err);
    int line = 1;
    for (char *p = data, *end = data + len; p < end; line++) {
        char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl ? nl : end) - p);
        if (n > 0) SD_TRY(parse_line(b, path, line, p, n, err));
        p += n + 1;
    }
    size_t count = json_array_size(b->prompts);
    SD_CHECK(count > 0, err, SD_EINVAL, "%s: no prompts%s%s", path, b->a->task ? " of task " : "",
             b->a->task ? b->a->task : "");
    b->ids = sd_alloc(count, sizeof *b->ids);
    SD_CHECK_ALLOC(b->ids, err);
    for (size_t i = 0; i < count; i++) {
        json_t *o = json_array_get(b->prompts, i), *messages = json_object_get(o, "messages");
        json_t *text = json_object_get(o, "prompt");
        if (messages)
            SD_TRY(sd_model_chat_ids(b->d.model, messages, NULL, NULL, true, &b->ids[i], err));
        else
            SD_TRY(sd_tokenizer_encode(b->d.model->tokenizer, json_string_value(text),
                                       json_string_length(text), SD_TOK_SPECIAL | SD_TOK_ADD_BOS,
                                       &b->ids[i], err));
    }
out:
    free(data);
    return st;
}

// Processor time of all threads: on a machine with other work it says more than the clock.
static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    sd_ids ids;
    bool full;
    sd_finish finish;
    sd_request_stats stats;
    double cpu_first, cpu_end;
    char error[512];
} answer;

static void on_event(void *ctx, const sd_event *ev) {
    answer *a = ctx;
    if (a->ids.n == 0) a->cpu_first = cpu_now();
    for (int i = 0; i < ev->n; i++) a->full |= !sd_ids_add(&a->ids, &ev->tokens[i].token, 1);
    if (!ev->finish) return;
    a->finish = ev->finish;
    a->cpu_end = cpu_now();
    a->stats = *ev->stats;
    if (ev->error) snprintf(a->error, sizeof a->error, "%s", ev->error);
}

static int64_t cap_of(const bench *b, size_t i) {
    int64_t n = json_integer_value(json_object_get(json_array_get(b->prompts, i), "max_tokens"));
    if (n <= 0) n = 256;
    return b->a->n > 0 && b->a->n < n ? b->a->n : n;
}

static sd_request request_of(const bench *b, size_t i, bool plain, answer *out) {
    return (sd_request){.prompt = b->ids[i].id,
                        .n_prompt = b->ids[i].n,
                        .max_tokens = (int)cap_of(b, i),
                        .sampling = sd_decoding_sampling(&b->a->decoding),
                        .logprobs = -1,
                        .adapter = b->d.adapter,
                        .corpus = b->d.corpus,
                        .spec = plain ? SD_SPEC_OFF : (sd_spec_mode)b->a->decoding.spec,
                        .on_event = on_event,
                        .ctx = out};
}

// The prompts item [n] at once: out [n]. *seconds, *cpu: from the first's begin to the last's end.
static sd_status ask(bench *b, const size_t *item, int n, bool plain, answer *out, double *seconds,
                     double *cpu, sd_error *err) {
    sd_status st = SD_OK;
    uint64_t id[MAX_CLIENTS];
    double begin = sd_now_s(), cpu_begin = cpu_now();
    for (int k = 0; k < n; k++) {
        sd_request r = request_of(b, item[k], plain, &out[k]);
        SD_TRY(sd_engine_submit(b->d.engine, &r, &id[k], err));
    }
    while (sd_engine_step(b->d.engine))
        for (int k = 0; sd_interrupted && k < n; k++) sd_engine_cancel(b->d.engine, id[k]);
    *seconds = sd_now_s() - begin;
    *cpu = cpu_now() - cpu_begin;
    SD_CHECK(!sd_interrupted, err, SD_EINTERRUPTED, "interrupted");
    for (int k = 0; k < n; k++) {
        SD_CHECK(out[k].finish != SD_FINISH_ERROR, err, SD_EIO, "prompt %zu: %s", item[k],
                 out[k].error);
        SD_CHECK(!out[k].full, err, SD_ENOMEM, "out of memory for an answer");
        sd_request r = request_of(b, item[k], plain, &out[k]);
        if (!plain && b->d.trace)
            SD_TRY(
                sd_engine_trace_answer(b->d.engine, &r, id[k], out[k].ids.id, out[k].ids.n, err));
    }
out:
    return st;
}

static void add_answer(bench *b, task *t, size_t i, const answer *plain, const answer *spec) {
    const answer *a[2] = {plain, spec};
    int32_t end = -1;
    t->pairs++;
    t->identical += plain->ids.n == spec->ids.n && plain->finish == spec->finish &&
                    (plain->ids.n == 0 || memcmp(plain->ids.id, spec->ids.id,
                                                 (size_t)plain->ids.n * sizeof(int32_t)) == 0);
    sd_hasher_add(b->plain, plain->ids.id, (size_t)plain->ids.n * sizeof(int32_t));
    sd_hasher_add(b->plain, &end, sizeof end);
    t->prompt_tokens += b->ids[i].n;
    t->tokens += plain->ids.n;
    for (int k = 0; k < 2; k++)
        t->decoded[k] += a[k]->stats.generated > 0 ? a[k]->stats.generated - 1 : 0;
    sd_spec_stats_add(&t->spec, &spec->stats.spec, 1);
}

// The prompts item [n] of one task, plain and speculative.
static sd_status run_pair(bench *b, const size_t *item, int n, bool plain_first, sd_error *err) {
    sd_status st = SD_OK;
    answer a[2][MAX_CLIENTS];
    double seconds[2], cpu[2];
    memset(a, 0, sizeof a);
    for (int k = 0; k < 2; k++) {
        int which = plain_first ? k : 1 - k;
        SD_TRY(ask(b, item, n, which == 0, a[which], &seconds[which], &cpu[which], err));
    }
    task *t = find_task(
        b, json_string_value(json_object_get(json_array_get(b->prompts, item[0]), "task")));
    for (int k = 0; k < n; k++) add_answer(b, t, item[k], &a[0][k], &a[1][k]);
    for (int k = 0; k < 2; k++) {
        const answer *one = &a[k][0];
        bool alone = b->a->clients == 1;
        // One answer's decoding is timed from its first token on; that of several, which begin at
        // different times, with their prompts.
        t->decode_s[k] += alone ? one->stats.decode_ms / 1e3 : seconds[k];
        t->cpu_s[k] += alone ? one->cpu_end - one->cpu_first : cpu[k];
        t->whole_s[k] += alone ? (one->stats.decode_ms + one->stats.prefill_ms) / 1e3 : seconds[k];
    }
out:
    for (int k = 0; k < n; k++) sd_ids_free(&a[0][k].ids), sd_ids_free(&a[1][k].ids);
    return st;
}

static double over(double a, double b) {
    return b > 0 ? a / b : 0;
}

static json_t *task_json(const task *t) {
    double plain = over((double)t->decoded[0], t->decode_s[0]);
    double spec = over((double)t->decoded[1], t->decode_s[1]);
    const sd_spec_stats *s = &t->spec;
    json_t *o = json_pack("{s:s, s:i, s:i, s:i, s:I, s:I}", "task", t->name, "prompts", t->prompts,
                          "answers", t->pairs, "identical", t->identical, "prompt_tokens",
                          (json_int_t)t->prompt_tokens, "tokens", (json_int_t)t->tokens);
    json_t *decode =
        json_pack("{s:f, s:f, s:f, s:f}", "plain_tok_s", plain, "spec_tok_s", spec, "cpu_speed_up",
                  over(t->cpu_s[0], t->cpu_s[1]), "speed_up", over(spec, plain));
    json_t *whole = json_pack(
        "{s:f, s:f, s:f}", "plain_tok_s", over((double)t->tokens, t->whole_s[0]), "spec_tok_s",
        over((double)t->tokens, t->whole_s[1]), "speed_up", over(t->whole_s[0], t->whole_s[1]));
    json_object_set_new(o, "decode", decode);
    json_object_set_new(o, "request", whole);
    json_object_set_new(o, "tau", json_real(over((double)t->decoded[1], (double)s->rounds)));
    json_object_set_new(o, "acceptance", json_real(over((double)s->accepted, (double)s->drafted)));
    json_t *at = json_array();
    for (int i = 0; i < SD_MAX_DRAFT && s->accepted_at[i] > 0; i++)
        json_array_append_new(at, json_integer(s->accepted_at[i]));
    json_object_set_new(o, "accepted_at", at);
    json_object_set_new(o, "speculation", sd_spec_json(s));
    return o;
}

static void print_task(const task *t) {
    double plain = over((double)t->decoded[0], t->decode_s[0]);
    double spec = over((double)t->decoded[1], t->decode_s[1]);
    const sd_spec_stats *s = &t->spec;
    printf("%-10s %4d  %8.1f %8.1f  %5.2fx  %5.2fx  %6.2fx  %5.2f  %6.1f%%  ", t->name, t->pairs,
           plain, spec, over(spec, plain), over(t->cpu_s[0], t->cpu_s[1]),
           over(t->whole_s[0], t->whole_s[1]), over((double)t->decoded[1], (double)s->rounds),
           100 * over((double)s->accepted, (double)s->drafted));
    for (int i = 0; i < SD_MAX_DRAFTERS && s->by[i].name[0]; i++)
        if (s->by[i].drafted)
            printf("%s %lld/%lld  ", s->by[i].name, (long long)s->by[i].accepted,
                   (long long)s->by[i].drafted);
    printf("%d of %d identical\n", t->identical, t->pairs);
}

static sd_status report(const bench *b, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    int pairs = 0, identical = 0;
    for (int i = 0; i < b->n_tasks; i++)
        pairs += b->task[i].pairs, identical += b->task[i].identical;
    if (b->a->json) {
        json_t *tasks = json_array();
        for (int i = 0; i < b->n_tasks; i++) json_array_append_new(tasks, task_json(&b->task[i]));
        json_t *o = json_pack("{s:s, s:s, s:f, s:I, s:o, s:i, s:i, s:s}", "model",
                              b->d.model->name ? b->d.model->name : "", "prompts", path,
                              "temperature", b->a->decoding.temperature, "clients",
                              (json_int_t)b->a->clients, "tasks", tasks, "answers", pairs,
                              "identical", identical, "plain_tokens_sha256", b->digest.hex);
        st = sd_json_print(stdout, o, JSON_COMPACT, err);
        json_decref(o);
        if (st != SD_OK) goto out;
        fputc('\n', stdout);
    } else {
        printf("%-10s %4s  %8s %8s  %6s  %6s  %7s  %5s  %7s\n", "task", "n", "plain/s", "spec/s",
               "decode", "cpu", "request", "tau", "accept");
        for (int i = 0; i < b->n_tasks; i++) print_task(&b->task[i]);
        printf("%d of %d answers identical\n", identical, pairs);
    }
    SD_CHECK(identical == pairs, err, SD_EMISMATCH,
             "%d of %d answers differ between plain and speculative decoding; this is a bug",
             pairs - identical, pairs);
out:
    return st;
}

// Prompts of the same task, from i on, that no group has had.
static int next_group(const bench *b, size_t *item, size_t i, bool *had) {
    size_t count = json_array_size(b->prompts);
    const char *name = json_string_value(json_object_get(json_array_get(b->prompts, i), "task"));
    int n = 0;
    for (; i < count && n < b->a->clients; i++) {
        const json_t *o = json_array_get(b->prompts, i);
        if (had[i] || strcmp(json_string_value(json_object_get(o, "task")), name) != 0) continue;
        had[i] = true;
        item[n++] = i;
    }
    return n;
}

static sd_status run_all(bench *b, sd_error *err) {
    sd_status st = SD_OK;
    size_t count = json_array_size(b->prompts), item[MAX_CLIENTS];
    double start = sd_now_s();
    bool *had = sd_alloc(count, sizeof *had);
    SD_CHECK_ALLOC(had, err);
    for (int64_t r = 0; r < b->a->repeat; r++) {
        memset(had, 0, count * sizeof *had);
        int64_t done = 0;
        for (size_t i = 0, group = 0; i < count; i++) {
            if (had[i]) continue;
            int n = next_group(b, item, i, had);
            SD_TRY(run_pair(b, item, n, (group++ + (size_t)r) % 2 == 0, err));
            done += n;
            sd_progress("prompts", done, (int64_t)count, sd_now_s() - start);
        }
    }
out:
    free(had);
    return st;
}

sd_status sd_bench_spec(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    spec_args a = {0};
    sd_strings rest;
    if (sd_bench_wants_replay(argc, argv)) return sd_bench_replay(argc, argv, err);
    bench *b = sd_alloc(1, sizeof *b);
    SD_CHECK_ALLOC(b, err);
    if (sd_verb_help("bench spec -m MODEL [-a ADAPTER] [-d DRAFT] [--trace FILE] PROMPTS.jsonl",
                     "Speculation against plain decoding. Each line of the file: {\"task\", "
                     "\"max_tokens\", \"messages\"|\"prompt\"}.",
                     rows, argc, argv))
        goto out;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 1, err, SD_EINVAL, "bench spec: give one file of prompts (JSON lines)");
    b->a = &a;
    SD_TRY(sd_decoding_load(&b->d, &a.common, &a.decoding, err));
    SD_TRY(read_prompts(b, rest.item[0], err));
    int64_t need = 0;
    for (size_t i = 0; i < json_array_size(b->prompts); i++)
        if (b->ids[i].n + cap_of(b, i) + 1 > need) need = b->ids[i].n + cap_of(b, i) + 1;
    if (a.trace) SD_TRY(sd_trace_create(&b->d.trace, a.trace, 0, err));
    SD_TRY(sd_decoding_start(&b->d, &a.common, &a.decoding, (int)a.clients, need, err));
    sd_decoding_announce(&b->d);
    sd_catch_interrupts();
    SD_TRY(sd_hasher_open(&b->plain, err));
    SD_TRY(run_all(b, err));
    b->digest = sd_hasher_close(b->plain), b->plain = NULL;
    if (b->d.trace) SD_TRY(sd_trace_commit(b->d.trace, err));
    SD_TRY(report(b, rest.item[0], err));
out:
    if (b) {
        sd_trace *trace = b->d.trace; // longer than the engine
        if (b->plain) sd_hasher_close(b->plain);
        for (size_t i = 0; b->ids && i < json_array_size(b->prompts); i++) sd_ids_free(&b->ids[i]);
        free(b->ids);
        json_decref(b->prompts);
        sd_decoding_close(&b->d);
        sd_trace_close(trace);
    }
    free(b);
    return st;
}
