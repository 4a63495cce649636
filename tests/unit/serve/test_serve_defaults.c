// What a conversation leaves out is filled from what stands beside its model, field by field, and the
// answer's headers say so; nobody else's defaults are touched.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/adapter/adapter.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char judged[] =
    "{\"serve\":{\"system\":\"be brief\",\"system_share\":1,\"sampling\":{\"temperature\":0,"
    "\"top_p\":1,\"top_k\":0,\"min_p\":0,\"max_tokens\":5}}}";
static const char liked[] = "{\"temperature\":0.6,\"max_new_tokens\":7}";

// A PEFT folder with small factors in every map, and one more file where it is named.
static char *write_adapter(const char *path, sd_model *base, const char *name, const char *text) {
    sd_error err = {0};
    sd_adapter *a;
    sd_lora *lora = sd_alloc((size_t)base->n_linears, sizeof *lora);
    float *f = sd_alloc(4096, sizeof *f);
    for (int i = 0; i < 4096; i++) f[i] = 0.02f * (float)((i * 31 + (int)strlen(path)) % 17 - 8);
    for (int i = 0; i < base->n_linears; i++)
        lora[i] = (sd_lora){.r = 4, .A = f, .B = f + 1024, .scale = 1};
    cr_assert_eq(sd_adapter_from_factors(&a, "x", lora, base, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_write_peft(path, a, base, NULL, &err), SD_OK, "%s", err.message);
    sd_adapter_release(a);
    free(lora), free(f);
    char *file = sd_path_join(path, name ? name : "none");
    if (name) cr_assert_eq(sd_file_write(file, text, strlen(text), &err), SD_OK);
    free(file);
    return sd_strdup(path);
}

typedef struct {
    live s;
    char *path[3], *log;
    sd_strings adapters;
} pair;

// The base and three adapters: tuned, foreign (a generation_config.json), plain. log: with one.
static void start(pair *p, bool no_defaults, bool log) {
    static const char *const names[] = {"tuned", "foreign", "plain"};
    static const char *const files[] = {"specdec.json", "generation_config.json", NULL};
    const char *texts[] = {judged, liked, NULL};
    sd_error err = {0};
    sd_model *base;
    *p = (pair){0};
    live_write_model(&p->s);
    cr_assert_eq(sd_model_open(&base, p->s.model, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < 3; i++) {
        char *path = sd_path_join(p->s.dir, names[i]);
        p->path[i] = write_adapter(path, base, files[i], texts[i]);
        p->adapters.item[p->adapters.n++] = p->path[i];
        free(path);
    }
    sd_model_release(base);
    p->s.o.no_run_defaults = no_defaults;
    if (log) p->s.o.access_log = p->log = sd_path_join(p->s.dir, "log");
    live_start_with(&p->s, 512, 4, 64, &p->adapters);
}
static void stop(pair *p) {
    live_stop(&p->s);
    for (int i = 0; i < 3; i++) free(p->path[i]);
    free(p->log);
}

// Asks by a path of the API and gives the whole answer with its head.
static char *post(const pair *p, const char *path, const char *fields) {
    char *body = sd_sprintf("{%s}", fields);
    char *request = sd_sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                               "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                               path, strlen(body), body);
    int fd = live_dial(&p->s, 0);
    cr_assert(live_send(fd, request, strlen(request)));
    char *answer = live_read(fd);
    close(fd);
    free(body), free(request);
    cr_assert(strstr(answer, "HTTP/1.1 200 "), "%s", answer);
    return answer;
}
static char *chat(const pair *p, const char *model, const char *more) {
    char *fields = sd_sprintf("\"model\":\"%s\",\"ignore_eos\":true%s", model, more);
    char *answer = post(p, "/v1/chat/completions", fields);
    free(fields);
    return answer;
}
#define USER ",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TALK(system)                                                                               \
    ",\"messages\":[{\"role\":\"system\",\"content\":\"" system                                    \
    "\"},{\"role\":\"user\",\"content\":\"hi\"}]"

// The header's value; NULL: it is not there. The caller frees.
static char *header(const char *answer, const char *name) {
    char mark[64];
    snprintf(mark, sizeof mark, "\r\n%s: ", name);
    const char *from = strstr(answer, mark), *end = strstr(answer, "\r\n\r\n");
    if (!from || from > end) return NULL;
    from += strlen(mark);
    return sd_strndup(from, (size_t)(strstr(from, "\r\n") - from));
}
// Has the answer these two headers ("": none), and so many tokens (-1: any)? Frees it.
static void expect(char *answer, const char *defaults, const char *departs, int tokens) {
    char *d = header(answer, "X-Specdec-Defaults"), *e = header(answer, "X-Specdec-Departs");
    char count[64];
    cr_expect_str_eq(d ? d : "", defaults);
    cr_expect_str_eq(e ? e : "", departs);
    snprintf(count, sizeof count, "\"completion_tokens\":%d,", tokens);
    cr_expect(tokens < 0 || strstr(answer, count), "not %d tokens: %s", tokens, answer);
    free(d), free(e), free(answer);
}

// What the model said, without the whole's ids and times.
static char *said(char *answer) {
    char *got = live_answer(answer);
    cr_assert_not_null(got);
    return got;
}

Test(serve_defaults, a_bare_message_is_answered_as_a_whole_request_is) {
    pair p;
    start(&p, false, false);
    char *bare = said(chat(&p, "tuned", USER));
    char *whole = said(chat(
        &p, "tuned",
        TALK(
            "be brief") ",\"temperature\":0,\"top_p\":1,\"top_k\":0,\"min_p\":0,\"max_tokens\":5"));
    cr_assert_str_eq(bare, whole);
    free(bare), free(whole);
    expect(chat(&p, "tuned", USER), "temperature, max_tokens, system", "", 5);
    stop(&p);
}

Test(serve_defaults, given_fields_win_one_by_one_and_departures_are_said) {
    pair p;
    start(&p, false, false);
    expect(chat(&p, "tuned", USER ",\"temperature\":1.0"), "max_tokens, system",
           "temperature=1.0 (0)", 5);
    expect(chat(&p, "tuned", USER ",\"max_completion_tokens\":3,\"top_k\":40"),
           "temperature, system", "top_k=40 (0), max_tokens=3 (5)", 3);
    expect(chat(&p, "tuned", TALK("be long")), "temperature, max_tokens", "system", 5);
    expect(chat(&p, "tuned", TALK("be brief")), "temperature, max_tokens", "", 5);
    expect(chat(&p, "tuned", TALK("")), "temperature, max_tokens", "system", 5);
    expect(chat(&p, "tuned", USER ",\"temperature\":null"), "temperature, max_tokens, system", "",
           5); // null is absent
    expect(chat(&p, "tuned", USER ",\"top_p\":0"), "max_tokens, system", "",
           5); // greedy, by its name
    expect(chat(&p, "tuned", USER ",\"min_tokens\":9"), "temperature, max_tokens, system", "", 9);
    stop(&p);
}

Test(serve_defaults, of_one_model_never_touch_another) {
    pair p;
    start(&p, false, false);
    expect(chat(&p, "foreign", USER), "temperature, max_tokens", "", 7);
    expect(chat(&p, "foreign", USER ",\"temperature\":1"), "max_tokens", "",
           7); // nothing was trained
    expect(chat(&p, "plain", USER ",\"max_tokens\":4"), "", "", 4);
    expect(chat(&p, "tiny", USER ",\"max_tokens\":4"), "", "", 4);
    // The base's prompt has no system text in it: it is as long as with --no-run-defaults.
    char *base = chat(&p, "tiny", USER ",\"max_tokens\":4"), *tuned = chat(&p, "tuned", USER);
    const char *n = "\"prompt_tokens\":";
    cr_assert_lt(atoi(strstr(base, n) + strlen(n)), atoi(strstr(tuned, n) + strlen(n)));
    free(base), free(tuned);
    stop(&p);
}

Test(serve_defaults, stand_in_the_head_of_streams_and_in_the_access_log) {
    pair p;
    start(&p, false, true);
    char *stream = chat(&p, "tuned", USER ",\"stream\":true,\"top_k\":3");
    cr_assert(strstr(stream, "text/event-stream") && strstr(stream, "data: [DONE]"), "%s", stream);
    expect(stream, "temperature, max_tokens, system", "top_k=3 (0)", -1);
    char *path = sd_strdup(p.log), *text = NULL;
    size_t len = 0;
    for (int i = 0; i < 500 && len == 0; i++) { // written by a thread of its own
        free(text);
        cr_assert_eq(sd_file_read(&text, &len, path, 1 << 20, NULL), SD_OK);
        if (len == 0) usleep(10000);
    }
    cr_assert(strstr(text, "\"defaults\":\"temperature, max_tokens, system\"") &&
                  strstr(text, "\"departs\":\"top_k=3 (0)\"") && !strstr(text, "be brief"),
              "%s", text);
    free(path), free(text);
    stop(&p);
}

Test(serve_defaults, a_raw_prompt_is_continued_as_it_stands) {
    pair p;
    start(&p, false, false);
    char *fields = sd_strdup("\"model\":\"tuned\",\"prompt\":[1,2,3],\"ignore_eos\":true");
    expect(post(&p, "/v1/completions", fields), "", "", 16);
    free(fields);
    stop(&p);
}

Test(serve_defaults, are_switched_off) {
    pair p;
    start(&p, true, false);
    expect(chat(&p, "tuned", USER ",\"max_tokens\":6,\"temperature\":1"), "", "", 6);
    char *tuned = said(chat(&p, "tuned", USER ",\"max_tokens\":6,\"seed\":3")),
         *same = said(chat(&p, "tuned", USER ",\"max_tokens\":6,\"seed\":3,\"temperature\":1"));
    cr_assert_str_eq(tuned, same); // the API's own default
    free(tuned), free(same);
    char *card = live_get(&p.s, "/v1/models/tuned");
    cr_assert(!strstr(card, "defaults"), "%s", card);
    free(card);
    stop(&p);
}

Test(serve_defaults, are_shown_with_the_model) {
    pair p;
    start(&p, false, false);
    char *card = live_get(&p.s, "/v1/models/tuned"), *base = live_get(&p.s, "/v1/models/tiny");
    cr_assert(strstr(card,
                     "\"defaults\":{\"system\":\"be brief\",\"system_share\":1.0,\"sampling\":{"
                     "\"temperature\":0,\"top_p\":1,\"top_k\":0,\"min_p\":0,\"max_tokens\":5}}"),
              "%s", card);
    cr_assert(!strstr(base, "defaults"), "%s", base);
    free(card), free(base);
    stop(&p);
}

Test(serve_defaults, that_are_damaged_end_the_start_with_one_sentence) {
    live s;
    sd_error err = {0};
    sd_model *base;
    live_write_model(&s);
    cr_assert_eq(sd_model_open(&base, s.model, &err), SD_OK, "%s", err.message);
    char *path = sd_path_join(s.dir, "bad");
    char *made = write_adapter(path, base, "specdec.json", "{\"serve\":{\"system\":[1]}}");
    sd_model_release(base);
    sd_strings adapters = {.item = {made}, .n = 1};
    s.o.model = s.model;
    s.o.adapters = &adapters;
    s.o.engine = (sd_engine_options){.ctx = 64, .slots = 1, .queue = 1, .threads = 1};
    cr_assert_eq(sd_serve(&s.o, &err), SD_EFORMAT, "%s", err.message);
    cr_assert(strstr(err.message, "bad/specdec.json: system is [1]"), "%s", err.message);
    free(path), free(made), free(s.model);
    sd_tiny_remove(s.dir);
}
