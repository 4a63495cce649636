// Decisions over the wire: probabilities that sum to one and are those of completions' log probabilities, one
// computation of the text for all questions, and what is refused.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "decode/serve/api/dialect.h"
#include "model/adapter/adapter.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/thinker.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char three[] =
    "{\"state\":\"The payouts have been failing for three days.\",\"permute\":%d,\"questions\":{"
    "\"urgent\":{\"type\":\"noul\",\"instructions\":\"Is it "
    "urgent?\",\"criteria\":{\"true\":\"today\"}},"
    "\"team\":{\"type\":\"choice\",\"instructions\":\"Whose is "
    "it?\",\"criteria\":{\"billing\":\"money\","
    "\"bills\":null,\"support\":null,\"support level two\":null}},"
    "\"mood\":{\"type\":\"score\",\"instructions\":\"How "
    "angry?\",\"criteria\":[\"calm\",\"cross\",\"angry\"]}}}";

// ---- the same from completions: the log probability of each token of a label where labels part

typedef struct {
    const live *s;
    int32_t ids[4096];
    int n;
} prompt;

static void add_ids(prompt *p, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++)
        p->ids[p->n++] = (int32_t)json_integer_value(json_array_get(list, i));
}

// The prompt of a round, as a chat has it.
static void base_prompt(prompt *p, const live *s, const sd_decide *d, int round) {
    sd_buf text = sd_buf_make(1 << 20);
    cr_assert(sd_decide_prompt(&text, d, round));
    json_t *ask = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", text.data);
    char *body = json_dumps(ask, 0);
    json_t *got = live_json(s, "tokenize", body, 200);
    *p = (prompt){.s = s};
    add_ids(p, json_object_get(got, "tokens"));
    json_decref(ask), json_decref(got);
    free(body);
    sd_buf_free(&text);
}

static void add_text(prompt *p, const char *text) {
    json_t *ask = json_pack("{s:s, s:b}", "prompt", text, "add_special_tokens", 0);
    char *body = json_dumps(ask, 0);
    json_t *got = live_json(p->s, "tokenize", body, 200);
    add_ids(p, json_object_get(got, "tokens"));
    json_decref(ask), json_decref(got);
    free(body);
}

// What a completion says of the token behind the prompt.
static double logprob(const prompt *p, int32_t token) {
    sd_buf body = sd_buf_make(1 << 20);
    sd_buf_adds(&body, "{\"max_tokens\":0,\"echo\":true,\"logprobs\":0,\"prompt\":[");
    for (int i = 0; i < p->n; i++) sd_buf_printf(&body, "%d,", (int)p->ids[i]);
    sd_buf_printf(&body, "%d]}", (int)token);
    json_t *got = live_json(p->s, "completions", body.data, 200);
    char path[64];
    snprintf(path, sizeof path, "choices.0.logprobs.token_logprobs.%d", p->n);
    double x = json_real_value(live_at(got, path));
    json_decref(got);
    sd_buf_free(&body);
    return x;
}

// A label's path of tokens behind the question's beginning.
static int path_of(int32_t *out, const live *s, const char *label) {
    prompt p = {.s = s};
    char text[SD_DECIDE_MAX_LABEL + 2];
    snprintf(text, sizeof text, " %s", label);
    add_text(&p, text);
    memcpy(out, p.ids, (size_t)p.n * sizeof *out);
    return p.n;
}

enum { MOST = 8, LONGEST = 64, END = 287 }; // <|im_end|> ends an answer, and <|endoftext|>, 285

// p [n] <- by walking down: at each place the shares of the tokens that labels have there.
static void walk(double *p, const prompt *at, int32_t path[MOST][LONGEST], const int *len,
                 const int *which, int n, int depth, double share) {
    double x[MOST + 1], sum = 0;
    int32_t next[MOST + 1];
    int n_next = 0;
    if (n == 1) {
        p[which[0]] = share;
        return;
    }
    for (int k = 0; k < n; k++) {
        const int32_t token = len[which[k]] == depth ? END : path[which[k]][depth];
        int i = 0;
        while (i < n_next && next[i] != token) i++;
        if (i == n_next) next[n_next++] = token;
    }
    for (int i = 0; i < n_next && n_next > 1; i++) {
        x[i] = exp(logprob(at, next[i]));
        if (next[i] == END) x[i] += exp(logprob(at, 285));
        sum += x[i];
    }
    for (int i = 0; i < n_next; i++) {
        int those[MOST], m = 0;
        prompt below = *at;
        below.ids[below.n++] = next[i];
        for (int k = 0; k < n; k++)
            if ((len[which[k]] == depth ? END : path[which[k]][depth]) == next[i])
                those[m++] = which[k];
        walk(p, &below, path, len, those, m, depth + 1, n_next > 1 ? share * x[i] / sum : share);
    }
}

static void from_completions(double *p, const live *s, const sd_decide *d,
                             const sd_decide_question *q) {
    int32_t path[MOST][LONGEST];
    int len[MOST], all[MOST];
    memset(p, 0, (size_t)q->n_labels * sizeof *p);
    for (int round = 0; round < d->permute; round++) {
        prompt at;
        double own[MOST];
        base_prompt(&at, s, d, round);
        add_text(&at, q->begin);
        for (int k = 0; k < q->n_labels; k++)
            len[k] = path_of(path[k], s, q->label[k].text), all[k] = k;
        walk(own, &at, path, len, all, q->n_labels, 0, 1);
        for (int k = 0; k < q->n_labels; k++) p[k] += own[k] / d->permute;
    }
}

// Log probabilities come with nine digits, so each is off by less than 1e-8, and a path has at most 24 of them;
// the answer's own digits add 1e-9.
static const double WIRE = 24 * 2e-8 + 1e-9;

static void compare(const live *s, int permute) {
    char body[2048];
    sd_api_request r;
    sd_api_error e;
    snprintf(body, sizeof body, three, permute);
    cr_assert_eq(sd_systemone.parse(&r, body, strlen(body), &e), 0, "%s", e.message);
    json_t *got = live_json(s, "systemone", body, 200);
    cr_assert_eq(json_integer_value(live_at(got, "usage.output_tokens")), 0);
    for (int i = 0; i < 3; i++) {
        const sd_decide_question *q = &r.decide->question[i];
        double want[MOST], sum = 0;
        char path[64];
        from_completions(want, s, r.decide, q);
        for (int k = 0; k < q->n_labels; k++) {
            snprintf(path, sizeof path, "answers.%s.probabilities.%s", q->name, q->label[k].text);
            double p = json_real_value(live_at(got, i == 0 ? "answers.urgent.noul" : path));
            if (i == 0 && k == 1) p = 1 - p; // of "no" what "yes" leaves
            cr_assert_float_eq(p, want[k], WIRE, "%s %s: %.10g, completions say %.10g", q->name,
                               q->label[k].text, p, want[k]);
            sum += p;
        }
        cr_assert_float_eq(sum, 1, 1e-6);
    }
    cr_assert_str_eq(live_text_at(got, "answers.mood.legend.2"), "angry");
    json_decref(got);
    sd_api_request_free(&r);
}

Test(serve_decisions, probabilities_are_those_of_completions) {
    live s;
    live_start(&s, 2048, 4, 64);
    compare(&s, 1);
    live_stop(&s);
}

Test(serve_decisions, permuted_probabilities_are_the_mean_of_the_rounds) {
    live s;
    live_start(&s, 2048, 4, 64);
    compare(&s, 3);
    live_stop(&s);
}

// The two dialects ask the same questions, and get the same numbers.
Test(serve_decisions, both_dialects_say_the_same) {
    static const char ours
        [] = "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"It "
             "fails.\"}]}],"
             "\"questions\":[{\"type\":\"predicate\",\"name\":\"urgent\",\"instructions\":\"Is "
             "it?\"},"
             "{\"type\":\"choice\",\"name\":\"t\",\"instructions\":\"Who?\",\"choices\":[{"
             "\"value\":\"a\","
             "\"description\":\"x\"},{\"value\":true},{\"value\":\"true story\"}]},"
             "{\"type\":\"score\",\"name\":\"m\",\"instructions\":\"How?\",\"levels\":[{\"label\":"
             "\"low\"},"
             "{\"label\":\"high\"}]}]}",
    theirs[] =
        "{\"state\":\"It fails.\",\"questions\":{"
        "\"urgent\":{\"type\":\"noul\",\"instructions\":\"Is it?\"},"
        "\"t\":{\"type\":\"choice\",\"instructions\":\"Who?\",\"criteria\":{\"a\":\"x\","
        "\"true\":null,\"true story\":null}},"
        "\"m\":{\"type\":\"score\",\"instructions\":\"How?\",\"criteria\":[\"low\",\"high\"]}}}";
    live s;
    live_start(&s, 1024, 2, 8);
    json_t *a = live_json(&s, "decisions", ours, 200), *b = live_json(&s, "systemone", theirs, 200);
#define NUMBER(v, path) json_number_value(live_at(v, path))
    cr_assert_eq(NUMBER(a, "answers.0.probability"), NUMBER(b, "answers.urgent.noul"));
    cr_assert_eq(NUMBER(a, "answers.1.probabilities.0.probability"),
                 NUMBER(b, "answers.t.probabilities.a"));
    cr_assert_eq(NUMBER(a, "answers.1.probabilities.1.probability"),
                 NUMBER(b, "answers.t.probabilities.true"));
    cr_assert(json_is_true(live_at(a, "answers.1.probabilities.1.value")));
    cr_assert_eq(NUMBER(a, "answers.1.confidence"), NUMBER(b, "answers.t.confidence"));
    cr_assert_eq(NUMBER(a, "answers.2.score"), NUMBER(b, "answers.m.score"));
    cr_assert_str_eq(live_text_at(a, "answers.2.probabilities.1.label"), "high");
    cr_assert_eq(json_integer_value(live_at(a, "answers.2.probabilities.1.value")), 1);
    cr_assert_eq(NUMBER(a, "usage.input_tokens"), NUMBER(b, "usage.input_tokens"));
    cr_assert_eq(NUMBER(a, "usage.output_tokens"), 0);
    json_decref(a), json_decref(b);
    live_stop(&s);
}

// ---- many questions about one text

// The first LETTERS of them have names without a common beginning.
enum { LETTERS = 52 };
static char *many(int questions, int state, const char *word) {
    sd_buf b = sd_buf_make(1 << 20);
    sd_buf_adds(&b, "{\"state\":\"");
    for (int i = 0; i < state; i++) sd_buf_printf(&b, "%s %d. ", word, i % 7);
    sd_buf_adds(&b, "\",\"questions\":{");
    for (int i = 0; i < questions; i++) {
        char name[16];
        const int letter = i < 26 ? 'a' + i : 'A' + i - 26;
        snprintf(name, sizeof name, i < LETTERS ? "%c" : "q%d", i < LETTERS ? letter : i);
        sd_buf_printf(&b, "%s\"%s\":{\"type\":\"noul\",\"instructions\":\"Is it so?\"}",
                      i ? "," : "", name);
    }
    sd_buf_adds(&b, "}}");
    return b.data;
}

// A step tells its counts when its answers are out, and before the next step: the answer of another one, of a token or
// two, says that all before it are told.
enum { ANOTHER = 2 };
static double computed(const live *s) {
    json_t *v = live_json(s, "completions", "{\"prompt\":[7],\"max_tokens\":1}", 200);
    json_decref(v);
    return live_metric(s, "prompt_tokens_total") - live_metric(s, "prefix_cache_hits_total");
}

// Each row once: what is not found of the text and its questions, and what each question adds.
Test(serve_decisions, the_text_is_computed_once_and_the_questions_are_found_again) {
    static const char *const words[] = {"word", "other", "third", "last"};
    live s;
    live_start(&s, 8192, 16, 32);
    for (int i = 0; i < 4; i++) {
        char *body = many(LETTERS, 100 + 3 * i, words[i]);
        const double before = computed(&s);
        json_t *got = live_json(&s, "systemone", body, 200);
        const double tokens = NUMBER(got, "usage.input_tokens"),
                     cached = NUMBER(got, "usage.cached_tokens"), rows = computed(&s) - before;
        printf("# %g tokens, %g of them found, %g rows computed\n", tokens, cached, rows);
        cr_assert_eq(json_object_size(live_at(got, "answers")), LETTERS);
        cr_assert(rows <= tokens - cached + ANOTHER, "%g rows were computed for %g tokens", rows,
                  tokens - cached);
        // What stands in front of the text.
        cr_assert(i == 0 ? cached == 0 : cached > LETTERS * 20 && cached < tokens, "%g", cached);
        json_decref(got);
        free(body);
    }
    live_stop(&s);
}

Test(serve_decisions, one_slot_and_a_queue_of_one_answer_as_well) {
    live s;
    live_write_model(&s);
    live_start_with(&s, 4096, 1, 1, NULL);
    char *body = many(20, 10, "word");
    json_t *a = live_json(&s, "systemone", body, 200);
    live_stop(&s);
    live_start(&s, 4096, 6, 64);
    json_t *b = live_json(&s, "systemone", body, 200);
    cr_assert(json_equal(json_object_get(a, "answers"), json_object_get(b, "answers")));
    json_decref(a), json_decref(b);
    free(body);
    live_stop(&s);
}

Test(serve_decisions, a_client_that_leaves_frees_its_slots) {
    live s;
    live_start(&s, 8192, 2, 8);
    char *body = many(64, 200, "word");
    for (int i = 0; i < 4; i++) {
        int fd = live_dial(&s, 0);
        cr_assert(live_post_to(fd, "systemone", body));
        usleep(30000);
        close(fd);
    }
    cr_assert(live_wait_metric(&s, "num_requests_running", 0));
    json_t *got = live_json(&s, "systemone", body, 200);
    json_decref(got);
    free(body);
    live_stop(&s);
}

// ---- what is refused

#define Q(type, rest) "{\"state\":\"s\",\"questions\":{\"q\":{\"type\":\"" type "\"" rest "}}}"
#define ASKED ",\"instructions\":\"i\""
#define D(question) "{\"input\":\"s\",\"questions\":[" question "]}"
static const struct {
    const char *names, *body;
} bad_systemone[] =
    {{"", "{"},
     {"state", "{}"},
     {"state", "{\"state\":7}"},
     {"state", "{\"state\":{\"a\":99999999999999999999},\"questions\":{\"q\":{}}}"},
     {"questions", "{\"state\":\"s\"}"},
     {"questions", "{\"state\":\"s\",\"questions\":{}}"},
     {"questions", "{\"state\":\"s\",\"questions\":[]}"},
     {"questions.q", "{\"state\":\"s\",\"questions\":{\"q\":7}}"},
     {"questions.q.type", Q("box", ASKED)},
     {"questions.q.instructions", Q("noul", "")},
     {"questions.q.instructions", Q("noul", ",\"instructions\":7")},
     {"questions.q.instructions", Q("noul", ",\"instructions\":\"a\\u0000b\"")},
     {"questions.q.criteria", Q("noul", ASKED ",\"criteria\":[]")},
     {"questions.q.criteria", Q("noul", ASKED ",\"criteria\":{\"true\":7}")},
     {"questions.q.criteria has 'maybe'; give true and false",
      Q("noul", ASKED ",\"criteria\":{\"maybe\":\"x\"}")},
     {"state is a number; give a string", "{\"state\":5,\"questions\":{}}"},
     {"state is missing; give a string", "{\"questions\":{}}"},
     {"criteria has the label 'b\nc' of 3 bytes; give one line of 1 to 256",
      Q("choice", ASKED ",\"criteria\":{\"a\":null,\"b\\nc\":null}")},
     {"criteria.a is not a string", Q("choice", ASKED ",\"criteria\":{\"a\":7,\"b\":null}")},
     {"criteria[1] is not a string", Q("score", ASKED ",\"criteria\":[\"a\",7]")},
     {"questions.q.criteria", Q("choice", ASKED)},
     {"questions.q.criteria", Q("choice", ASKED ",\"criteria\":{\"a\":null}")},
     {"questions.q.criteria", Q("choice", ASKED ",\"criteria\":{\"a\":null,\"\":null}")},
     {"questions.q.criteria", Q("choice", ASKED ",\"criteria\":{\"a\":null,\"b\\nc\":null}")},
     {"questions.q.criteria", Q("choice", ASKED ",\"criteria\":{\"a\":7,\"b\":null}")},
     {"questions.q.criteria", Q("score", ASKED ",\"criteria\":[\"a\"]")},
     {"questions.q.criteria", Q("score", ASKED ",\"criteria\":[\"a\",7]")},
     {"questions.q.criteria", Q("score", ASKED ",\"criteria\":[1,2,3,4,5,6,7,8,9,10,11]")},
     {"permute",
      "{\"state\":\"s\",\"permute\":9,\"questions\":{\"q\":{\"type\":\"noul\"" ASKED "}}}"},
     {"model", "{\"state\":\"s\",\"model\":7,\"questions\":{\"q\":{\"type\":\"noul\"" ASKED "}}}"}},
  bad_decisions[] = {
      {"input", "{\"questions\":[]}"},
      {"input", "{\"input\":[]}"},
      {"input[0].role", "{\"input\":[{\"role\":\"assistant\",\"content\":\"a\"}]}"},
      {"input[0].content", "{\"input\":[{\"role\":\"user\"}]}"},
      {"input[0].content[0]", "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_"
                              "image\",\"image_url\":\"x\"}]}]}"},
      {"questions", "{\"input\":\"s\",\"questions\":{}}"},
      {"questions[0]", D("7")},
      {"questions[0].name", D("{\"name\":7}")},
      {"questions[0].instructions", D("{\"type\":\"predicate\"}")},
      {"questions[0].type", D("{\"type\":\"noul\"" ASKED "}")},
      {"questions[0].choices", D("{\"type\":\"choice\"" ASKED "}")},
      {"questions[0].choices[0] is not an object; give {\"value\"",
       D("{\"type\":\"choice\"" ASKED ",\"choices\":[\"a\",\"b\"]}")},
      {"questions[0].choices[1].value is neither a string nor a boolean",
       D("{\"type\":\"choice\"" ASKED ",\"choices\":[{\"value\":\"a\"},{\"value\":7}]}")},
      {"questions[0].choices[1].value is missing",
       D("{\"type\":\"choice\"" ASKED ",\"choices\":[{\"value\":\"a\"},{}]}")},
      {"questions[0].choices[1].value has the label '' of 0 bytes",
       D("{\"type\":\"choice\"" ASKED ",\"choices\":[{\"value\":\"a\"},{\"value\":\"\"}]}")},
      {"questions[0].choices[0].description is not a string",
       D("{\"type\":\"choice\"" ASKED ",\"choices\":[{\"value\":\"a\",\"description\":7},{}]}")},
      {"questions[0].levels[0] is not an object; give {\"label\"",
       D("{\"type\":\"score\"" ASKED ",\"levels\":[\"a\",\"b\"]}")},
      {"questions[0].levels[1].label is missing",
       D("{\"type\":\"score\"" ASKED ",\"levels\":[{\"label\":\"a\"},{}]}")},
      {"questions[0].choices", D("{\"type\":\"choice\"" ASKED ",\"choices\":[{\"value\":\"a\"}]}")},
      {"questions[0].choices",
       D("{\"type\":\"choice\"" ASKED ",\"choices\":[{\"value\":\"a\"},{\"value\":7}]}")},
      {"questions[0].choices",
       D("{\"type\":\"choice\"" ASKED ",\"choices\":[{\"value\":\"a\",\"description\":7},{}]}")},
      {"questions[0].levels", D("{\"type\":\"score\"" ASKED ",\"levels\":[{\"label\":\"a\"}]}")},
      {"questions[0].levels", D("{\"type\":\"score\"" ASKED ",\"levels\":[{\"label\":\"a\"},{}]}")},
      {"questions[0].levels",
       D("{\"type\":\"score\"" ASKED ",\"levels\":[{\"label\":\"a\",\"description\":7},{}]}")}};

static void refuse(const sd_dialect *d, const char *names, const char *body) {
    sd_api_request r;
    sd_api_error e;
    cr_expect_eq(d->parse(&r, body, strlen(body), &e), 400, "accepted: %s", body);
    cr_expect(strstr(e.message, names), "'%s' does not name %s: %s", e.message, names, body);
    cr_expect(!r.root && !r.decide);
}

Test(serve_decisions, every_bad_field_is_a_400_that_names_it) {
    for (size_t i = 0; i < sizeof bad_systemone / sizeof *bad_systemone; i++)
        refuse(&sd_systemone, bad_systemone[i].names, bad_systemone[i].body);
    for (size_t i = 0; i < sizeof bad_decisions / sizeof *bad_decisions; i++)
        refuse(&sd_openai_decisions, bad_decisions[i].names, bad_decisions[i].body);
    char *body = many(65, 1, "a");
    refuse(&sd_systemone, "questions", body);
    free(body);
}

// A quoted label is cut to 60 bytes, here within a character, and what remains is a text all the same.
Test(serve_decisions, a_message_that_quotes_a_part_of_a_label_is_unicode) {
    char body[512];
    sd_api_request r;
    sd_api_error e;
    int n = snprintf(body, sizeof body,
                     "{\"state\":\"s\",\"questions\":{\"q\":{\"type\":\"choice\"" ASKED
                     ",\"criteria\":{\"b\":null,\"a\\n");
    for (int i = 0; i < 40; i++) n += snprintf(body + n, sizeof body - (size_t)n, "\u20ac");
    n += snprintf(body + n, sizeof body - (size_t)n, "\":null}}}}");
    cr_assert_eq(sd_systemone.parse(&r, body, (size_t)n, &e), 400);
    json_t *v = sd_error_json(&e);
    const char *message = live_text_at(v, "error.message");
    cr_assert(strstr(message, "has the label 'a\n\u20ac") &&
                  strstr(message, "\u20ac...' of 122 bytes"),
              "%s", message);
    json_decref(v);
}

static void refused(const live *s, const char *body, const char *why) {
    json_t *got = live_json(s, "systemone", body, 400);
    cr_assert(strstr(live_text_at(got, "error.message"), why), "%s",
              live_text_at(got, "error.message"));
    json_decref(got);
}

Test(serve_decisions, a_template_that_opens_reasoning_is_a_400) {
    live s;
    thinker_start(&s);
    refused(&s, Q("noul", ASKED), "begins an answer with reasoning");
    live_stop(&s);
}

Test(serve_decisions, a_text_that_does_not_fit_is_a_400) {
    live s;
    live_start(&s, 256, 2, 8);
    char *body = many(2, 100, "word");
    refused(&s, body, "the context holds 256");
    free(body);
    live_stop(&s);
}

// ---- a run's temperatures

static char *write_adapter(const live *s, sd_model *base, const char *name, const char *text) {
    sd_error err = {0};
    sd_adapter *a;
    sd_lora *lora = sd_alloc((size_t)base->n_linears, sizeof *lora);
    float *f = sd_alloc(4096, sizeof *f);
    for (int i = 0; i < 4096; i++) f[i] = 0.02f * (float)(i * 31 % 17 - 8);
    for (int i = 0; i < base->n_linears; i++)
        lora[i] = (sd_lora){.r = 4, .A = f, .B = f + 1024, .scale = 1};
    char *path = sd_path_join(s->dir, name), *file = sd_path_join(path, "specdec.json");
    cr_assert_eq(sd_adapter_from_factors(&a, "x", lora, base, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_write_peft(path, a, base, NULL, &err), SD_OK, "%s", err.message);
    sd_adapter_release(a);
    if (text) cr_assert_eq(sd_file_write(file, text, strlen(text), &err), SD_OK);
    free(lora), free(f), free(file);
    return path;
}

static double odds_of(const live *s, const char *model) {
    char *body = sd_sprintf(
        "{\"model\":\"%s\",\"state\":\"s\",\"questions\":{\"q\":{\"type\":\"noul\"" ASKED "}}}",
        model);
    json_t *got = live_json(s, "systemone", body, 200);
    double p = NUMBER(got, "answers.q.noul");
    free(body);
    json_decref(got);
    return log(p / (1 - p));
}

Test(serve_decisions, a_runs_temperature_divides_the_odds_of_its_own_answers) {
    live s;
    sd_model *base;
    sd_error err = {0};
    sd_strings adapters = {0};
    live_write_model(&s);
    cr_assert_eq(sd_model_open(&base, s.model, &err), SD_OK, "%s", err.message);
    char *plain = write_adapter(&s, base, "plain", NULL),
         *warm = write_adapter(&s, base, "warm",
                               "{\"serve\":{\"decisions\":{\"temperature\":{\"yes_no\":4}}}}");
    sd_model_release(base);
    adapters.item[adapters.n++] = plain, adapters.item[adapters.n++] = warm;
    live_start_with(&s, 1024, 2, 8, &adapters);
    double cold = odds_of(&s, "plain"), tempered = odds_of(&s, "warm");
    // p has nine digits and lies well within (.01, .99) for this model: odds are off by 1e-7 at most.
    cr_assert(fabs(cold) > 1e-3 && fabs(cold) < 4.5, "odds of %g tell nothing", cold);
    cr_assert_float_eq(tempered, cold / 4, 2e-7);
    live_stop(&s);
    free(plain), free(warm);
}
