// specdec eval: a suite of prompts with wanted answers, scored. One JSON object a line, either
// {"messages": [..., {"role": "assistant", ...}]}, whose last turn is the wanted answer, or
// {"messages": [...], "want": text or object}. Answers are greedy, unless an option or what stands
// beside a tuned model says otherwise: what is judged is how the server answers by itself. An answer
// counts as exact when its text is the wanted one; as valid when it is one JSON object; a field is
// right when its value equals the wanted one.
#include "base/clock.h"
#include "base/files/file.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/list.h"
#include "base/memory.h"
#include "cli/decoding.h"
#include "cli/verbs.h"
#include "datasets/read/format.h"
#include "datasets/read/record_json.h"

#include <stdio.h>
#include <string.h>

enum { MAX_FIELDS = 64, MAX_SUITE_BYTES = 1 << 30, MAX_LINE = 16 << 20 };

typedef struct {
    sd_model_args common;
    sd_decoding_args decoding;
    const char *suite, *against, *answers;
    int64_t limit, max_tokens, slots;
    bool json;
} args;

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

// clang-format off
static const sd_option rows[] = {
    SD_COMMON_ROWS(args),
    SD_DECODING_ROWS(args),
    SD_KV_POOL_ROWS(args, decoding.kv_memory, decoding.prefix_cache, "on"),
    SD_DEFAULTS_ROW(args),
    {.name = "suite", .type = SD_OPT_STRING, .value = "FILE", .required = true, .offset = offsetof(args, suite),
     .help = "JSONL: messages whose last turn is the wanted answer, or messages and want"},
    {.name = "against", .type = SD_OPT_STRING, .value = "FILE", .offset = offsetof(args, against),
     .help = "an earlier --json result to compare with"},
    {.name = "answers", .type = SD_OPT_STRING, .value = "FILE", .offset = offsetof(args, answers),
     .help = "write every answer here, as JSONL"},
    {.name = "limit", .type = SD_OPT_INT, .def = "0", .min = 0, .max = 1e9, .offset = offsetof(args, limit),
     .help = "the first N records only; 0: all"},
    {.name = "max-tokens", .letter = 'n', .type = SD_OPT_INT, .def = TEXT(SD_JUDGED_MAX_TOKENS), .min = 1, .max = 1 << 24,
     .offset = offsetof(args, max_tokens), .given = offsetof(args, decoding.given[SD_DEFAULT_MAX_TOKENS]), .unit = "tokens", .help = "longest answer"},
    {.name = "slots", .type = SD_OPT_INT, .def = "8", .min = 1, .max = 64, .offset = offsetof(args, slots),
     .help = "records answered at once"},
    SD_JSON_ROW(args, json, "one JSON object on standard output"),
    {0}};
// clang-format on

// ---- the suite

typedef struct {
    json_t *messages;       // without the wanted answer
    json_t *tools, *kwargs; // of the template, or NULL
    json_t *want;           // object when it is one, else a string
    char *want_text;
    sd_buf answer;
    bool failed;
} record;

typedef struct {
    record *item;
    int n, cap, finished;
    int filled, other; // records that got the trained system text, or have another
    int64_t tokens;
    char first_error[256];
} suite;

static void free_record(record *r) {
    json_decref(r->messages);
    json_decref(r->tools);
    json_decref(r->kwargs);
    json_decref(r->want);
    free(r->want_text);
    sd_buf_free(&r->answer);
}

// Read as training data is: the same spellings, and the same fields refused.
static sd_status add_record(suite *s, const char *line, size_t len, const char *path, int number,
                            sd_error *err) {
    sd_status st = SD_OK;
    record r = {.answer = sd_buf_make(MAX_LINE)};
    sd_example ex = {0};
    sd_data_format format = SD_FORMAT_MESSAGES;
    json_t *root = NULL, *answer = NULL;
    SD_TRY(sd_json_record(&root, line, len, path, number, err));
    st = sd_example_make(&ex, &(sd_record){.json = root}, &format, err);
    if (st != SD_OK) {
        sd_error_prefix(err, "%s, line %d", path, number);
        goto out;
    }
    const json_t *want = json_object_get(root, "want");
    if (json_is_null(want)) want = NULL;
    size_t n = json_array_size(ex.messages);
    json_t *last = json_array_get(ex.messages, n - 1);
    r.messages = json_incref(ex.messages);
    r.tools = json_incref(ex.tools);
    r.kwargs = json_incref(ex.kwargs);
    if (!want) {
        const char *role = json_string_value(json_object_get(last, "role"));
        SD_CHECK(n > 1 && strcmp(role, "assistant") == 0, err, SD_EFORMAT,
                 "%s, line %d: there is neither want nor a last turn of the assistant", path,
                 number);
        answer = json_incref(last);
        want = json_object_get(last, "content");
        json_array_remove(r.messages, n - 1);
    }
    if (json_is_string(want)) {
        r.want_text = sd_strdup(json_string_value(want));
        SD_CHECK_ALLOC(r.want_text, err);
        SD_TRY(sd_json_load(&r.want, r.want_text, strlen(r.want_text), JSON_REJECT_DUPLICATES, NULL,
                            err));
    } else {
        r.want = json_incref((json_t *)(uintptr_t)want);
    }
    SD_CHECK(r.want_text || json_is_object(r.want), err, SD_EFORMAT,
             "%s, line %d: the wanted answer is neither text nor an object", path, number);
    SD_CHECK_ALLOC(SD_GROW(s->item, s->n + 1, s->cap), err);
    s->item[s->n++] = r;
    r = (record){0};
out:
    json_decref(answer);
    free_record(&r);
    sd_example_free(&ex);
    json_decref(root);
    return st;
}

static sd_status read_suite(suite *s, const char *path, int64_t limit, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    SD_TRY(sd_stream_read(&text, &len, path, MAX_SUITE_BYTES, err));
    int number = 0;
    char *begin = len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? text + 3 : text;
    for (char *line = begin, *end; line < text + len && (!limit || s->n < limit); line = end + 1) {
        end = memchr(line, '\n', (size_t)(text + len - line));
        if (!end) end = text + len;
        number++;
        if (strspn(line, " \t\r") < (size_t)(end - line))
            SD_TRY(add_record(s, line, (size_t)(end - line), path, number, err));
    }
    SD_CHECK(s->n > 0, err, SD_EFORMAT, "%s: holds no records", path);
out:
    free(text);
    return st;
}

static void free_suite(suite *s) {
    for (int i = 0; i < s->n; i++) {
        free_record(&s->item[i]);
    }
    free(s->item);
}

// ---- answering

typedef struct {
    suite *s;
    record *r;
} event_target;

static void on_event(void *ctx, const sd_event *e) {
    event_target *t = ctx;
    t->s->tokens += e->n;
    if (e->text_len && !sd_buf_add(&t->r->answer, e->text, e->text_len)) t->r->failed = true;
    if (e->finish == SD_FINISH_NONE) return;
    if (e->finish == SD_FINISH_ERROR) {
        t->r->failed = true;
        snprintf(t->s->first_error, sizeof t->s->first_error, "%s",
                 e->error ? e->error : "unknown");
    }
    t->s->finished++;
}

static sd_status submit(const sd_decoding *d, const args *a, event_target *t, int index,
                        sd_error *err) {
    sd_status st = SD_OK;
    sd_ids ids = {0};
    uint64_t id;
    sd_system_use use;
    SD_TRY(sd_defaults_fill_system(&use, t->r->messages, &d->defaults, err));
    t->s->filled += use == SD_SYSTEM_FILLED;
    t->s->other += use == SD_SYSTEM_OTHER;
    SD_TRY(sd_model_chat_ids(d->model, t->r->messages, t->r->tools, t->r->kwargs, true, &ids, err));
    sd_request r = {.prompt = ids.id,
                    .n_prompt = ids.n,
                    .max_tokens = (int)a->max_tokens,
                    .sampling = sd_decoding_sampling(&a->decoding),
                    .logprobs = -1,
                    .adapter = d->adapter,
                    .corpus = d->corpus,
                    .spec = (sd_spec_mode)a->decoding.spec,
                    .on_event = on_event,
                    .ctx = t};
    SD_TRY(sd_engine_submit(d->engine, &r, &id, err));
out:
    if (st != SD_OK) sd_error_prefix(err, "%s, record %d", a->suite, index + 1);
    sd_ids_free(&ids);
    return st;
}

// Closes the engine in every case: requests still inside name their targets, so it must go first.
static sd_status answer_all(suite *s, sd_decoding *d, const args *a, double *seconds,
                            sd_engine_stats *stats, sd_error *err) {
    sd_status st = SD_OK;
    double start = sd_now_s();
    // The queue takes 64, which is also the most slots.
    int next = 0, in_flight = 2 * a->slots < 64 ? 2 * (int)a->slots : 64;
    event_target *targets = sd_alloc((size_t)s->n, sizeof *targets);
    SD_CHECK_ALLOC(targets, err);
    while (s->finished < s->n) {
        for (; next < s->n && next - s->finished < in_flight; next++) {
            targets[next] = (event_target){s, &s->item[next]};
            SD_TRY(submit(d, a, &targets[next], next, err));
        }
        int before = s->finished;
        sd_engine_step(d->engine);
        if (s->finished != before) sd_progress("evaluating", s->finished, s->n, sd_now_s() - start);
        SD_CHECK(!sd_interrupted, err, SD_EINTERRUPTED, "interrupted after %d of %d records",
                 s->finished, s->n);
    }
    *seconds = sd_now_s() - start;
    sd_engine_get_stats(d->engine, stats);
out:
    sd_engine_close(d->engine);
    d->engine = NULL;
    free(targets);
    return st;
}

// ---- scoring

typedef struct {
    char name[64];
    int right, total;
} field_score;

typedef struct {
    int n, exact, valid, all_fields, failed, with_fields;
    field_score field[MAX_FIELDS];
    int n_fields;
} score;

static field_score *field_of(score *sc, const char *name) {
    for (int i = 0; i < sc->n_fields; i++)
        if (strcmp(sc->field[i].name, name) == 0) return &sc->field[i];
    if (sc->n_fields == MAX_FIELDS) return NULL;
    field_score *f = &sc->field[sc->n_fields++];
    snprintf(f->name, sizeof f->name, "%s", name);
    return f;
}

static sd_status score_record(score *sc, const record *r, sd_error *err) {
    const char *text = r->answer.data ? r->answer.data : "";
    json_t *got;
    sd_status st = sd_json_load(&got, text, strlen(text), JSON_REJECT_DUPLICATES, NULL, err);
    if (st != SD_OK) return st;
    bool all = json_is_object(got);
    sc->n++;
    sc->failed += r->failed;
    sc->exact += r->want_text ? strcmp(text, r->want_text) == 0 : json_equal(got, r->want);
    sc->valid += json_is_object(got);
    if (json_is_object(r->want)) {
        const char *key;
        json_t *value;
        sc->with_fields++;
        json_object_foreach(r->want, key, value) {
            field_score *f = field_of(sc, key);
            bool right = json_equal(json_object_get(got, key), value);
            all = all && right;
            if (f) f->total++, f->right += right;
        }
        all = all && json_object_size(got) == json_object_size(r->want);
        sc->all_fields += all;
    }
    json_decref(got);
    return SD_OK;
}

// How was it asked?
typedef struct {
    double value[SD_DEFAULTS];
    const char *from[SD_DEFAULTS];
} manner;

static manner manner_of(const args *a, const sd_defaults *d) {
    static const char *const sources[] = {"default", "model", "adapter", "run"};
    const sd_decoding_args *o = &a->decoding;
    manner m = {
        .value = {o->temperature, o->top_p, (double)o->top_k, o->min_p, (double)a->max_tokens}};
    for (int i = 0; i < SD_DEFAULTS; i++) m.from[i] = o->given[i] ? "option" : sources[d->from[i]];
    return m;
}

static void print_manner(const manner *m, const suite *s, const sd_defaults *d) {
    printf("  asked with");
    for (int i = 0; i < SD_DEFAULTS; i++)
        printf("%s %s %.10g (%s)", i ? "," : "", sd_default_name[i], m->value[i], m->from[i]);
    putchar('\n');
    if (sd_defaults_fills_system(d))
        printf("  the trained system text: put before %d records, another one stands before %d\n",
               s->filled, s->other);
}

static json_t *manner_json(const manner *m, const suite *s) {
    json_t *value = json_object(), *from = json_object();
    for (int i = 0; i < SD_DEFAULTS; i++) {
        json_object_set_new(value, sd_default_name[i], json_real(m->value[i]));
        json_object_set_new(from, sd_default_name[i], json_string(m->from[i]));
    }
    return json_pack("{s:o, s:o, s:i, s:i}", "sampling", value, "from", from, "system_filled",
                     s->filled, "system_other", s->other);
}

static json_t *score_json(const score *sc, const args *a, double seconds, int64_t tokens,
                          const sd_engine_stats *es, json_t *asked) {
    json_t *fields = json_object();
    for (int i = 0; i < sc->n_fields; i++)
        json_object_set_new(
            fields, sc->field[i].name,
            json_pack("{s:i, s:i}", "right", sc->field[i].right, "total", sc->field[i].total));
    json_t *o =
        json_pack("{s:s, s:s?, s:s, s:i, s:i, s:i, s:i, s:i}", "model", a->common.model, "adapter",
                  a->decoding.adapter, "suite", a->suite, "records", sc->n, "exact", sc->exact,
                  "json_valid", sc->valid, "all_fields", sc->all_fields, "failed", sc->failed);
    json_object_set_new(o, "fields", fields);
    json_object_set_new(o, "tokens", json_integer(tokens));
    json_object_set_new(o, "seconds", json_real(seconds));
    json_object_set_new(o, "tok_s", json_real(seconds > 0 ? (double)tokens / seconds : 0));
    json_object_set_new(o, "speculation", sd_spec_json(&es->spec));
    json_object_set_new(o, "asked", asked);
    return o;
}

static int old_count(const json_t *old, const char *key) {
    const json_t *v = json_object_get(old, key);
    return json_is_object(v) ? (int)json_integer_value(json_object_get(v, "right"))
                             : (int)json_integer_value(v);
}

static void print_line(const char *label, int right, int total, const json_t *old, const char *key,
                       int old_total) {
    printf("  %-22s", label);
    if (old) printf(" %5d of %-5d ->", old_count(old, key), old_total);
    printf(" %5d of %-5d (%.1f %%)\n", right, total, total ? 100.0 * right / total : 0.0);
}

static void print_table(const score *sc, const json_t *old, const args *a, double seconds,
                        int64_t tokens) {
    int old_n = (int)json_integer_value(json_object_get(old, "records"));
    const json_t *old_fields = json_object_get(old, "fields");
    printf("%s%s%s on %s: %d records in %.1f s, %.1f tok/s\n", a->common.model,
           a->decoding.adapter ? " + " : "", a->decoding.adapter ? a->decoding.adapter : "",
           a->suite, sc->n, seconds, seconds > 0 ? (double)tokens / seconds : 0.0);
    print_line("exact", sc->exact, sc->n, old, "exact", old_n);
    print_line("valid JSON", sc->valid, sc->n, old, "json_valid", old_n);
    if (sc->with_fields)
        print_line("all fields right", sc->all_fields, sc->with_fields, old, "all_fields", old_n);
    for (int i = 0; i < sc->n_fields; i++)
        print_line(sc->field[i].name, sc->field[i].right, sc->field[i].total, old_fields,
                   sc->field[i].name, old_n);
    if (sc->failed) printf("  %d records ended with an error\n", sc->failed);
}

static sd_status write_answers(const suite *s, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_replace out = {0};
    SD_TRY(sd_replace_open(&out, path, err));
    for (int i = 0; i < s->n; i++) {
        const record *r = &s->item[i];
        json_t *want = r->want ? json_incref(r->want) : json_string(r->want_text);
        json_t *line = json_pack("{s:i, s:s, s:o}", "record", i, "answer",
                                 r->answer.data ? r->answer.data : "", "want", want);
        char *text = NULL;
        st = sd_json_dump(&text, line, JSON_COMPACT, err);
        json_decref(line);
        if (st != SD_OK) goto out;
        fprintf(out.f, "%s\n", text);
        free(text);
    }
    SD_TRY(sd_replace_commit(&out, err));
out:
    sd_replace_abort(&out);
    return st;
}

static sd_status read_against(json_t **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    json_error_t je;
    SD_TRY(sd_stream_read(&text, &len, path, 1 << 24, err));
    SD_TRY(sd_json_load(out, text, len, JSON_REJECT_DUPLICATES, &je, err));
    SD_CHECK(json_is_object(*out) && json_object_get(*out, "records"), err, SD_EFORMAT,
             "%s: not a result of specdec eval --json (%s)", path,
             *out ? "records is missing" : je.text);
out:
    free(text);
    return st;
}

sd_status sd_verb_eval(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    suite s = {0};
    score sc = {0};
    json_t *old = NULL, *result = NULL;
    sd_decoding d = {0};
    double seconds = 0;
    sd_engine_stats es = {0};
    if (sd_verb_help("eval -m MODEL [-a ADAPTER] --suite FILE [--against OTHER.json] [--json]",
                     "Scores a model on a suite of prompts.", rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "eval: '%s' is not an option; --suite names the file",
             rest.item[0]);
    SD_TRY(read_suite(&s, a.suite, a.limit, err));
    if (a.against) SD_TRY(read_against(&old, a.against, err));
    if (a.answers) SD_TRY(sd_check_writable(a.answers, err));
    SD_TRY(sd_decoding_load(&d, &a.common, &a.decoding, err));
    SD_CHECK(d.model->chat, err, SD_EINVAL,
             "%s: has no chat template that can be used (%s); give one with --chat-template FILE",
             d.model->path, d.model->chat_error ? d.model->chat_error : "none is there");
    // A base is judged greedily, whatever its author likes conversations to be.
    SD_TRY(sd_decoding_defaults(&d, &a.decoding, &a.max_tokens, false, err));
    SD_TRY(sd_decoding_start(&d, &a.common, &a.decoding, (int)a.slots, 0, err));
    sd_catch_interrupts(); // before this a signal ends it at once: there is nothing to say yet
    SD_TRY(answer_all(&s, &d, &a, &seconds, &es, err));
    for (int i = 0; i < s.n; i++) SD_TRY(score_record(&sc, &s.item[i], err));
    if (a.answers) SD_TRY(write_answers(&s, a.answers, err));
    const manner m = manner_of(&a, &d.defaults);
    if (a.json) {
        result = score_json(&sc, &a, seconds, s.tokens, &es, manner_json(&m, &s));
        SD_TRY(sd_json_print(stdout, result, JSON_INDENT(2), err));
        putchar('\n');
    } else {
        print_table(&sc, old, &a, seconds, s.tokens);
        print_manner(&m, &s, &d.defaults);
    }
    SD_CHECK(sc.failed < sc.n, err, SD_EMISMATCH, "every record failed: %s", s.first_error);
out:
    json_decref(result);
    json_decref(old);
    sd_decoding_close(&d);
    free_suite(&s);
    return st;
}
