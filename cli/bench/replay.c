// specdec bench spec --replay: a recorded trace, judged again without a model.
#include "decode/draft/replay.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/bench/bench.h"
#include "cli/common.h"

#include <string.h>

typedef struct {
    const char *trace;
    bool json;
} replay_args;

static const sd_option rows[] = {
    {.name = "replay",
     .type = SD_OPT_STRING,
     .value = "FILE",
     .required = true,
     .offset = offsetof(replay_args, trace),
     .help = "a trace that bench spec --trace recorded"},
    SD_JSON_ROW(replay_args, json, "one JSON object instead of a table"),
    {0}};

bool sd_bench_wants_replay(int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--replay") == 0 || strncmp(argv[i], "--replay=", 9) == 0) return true;
    return false;
}

static double over(double a, double b) {
    return b > 0 ? a / b : 0;
}

static json_t *policy_json(const sd_replay_policy *p) {
    return json_pack("{s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "policy", p->name, "tau",
                     over((double)p->tokens, (double)p->rounds), "tokens", (json_int_t)p->tokens,
                     "rounds", (json_int_t)p->rounds, "rows", (json_int_t)p->rows, "drafted",
                     (json_int_t)p->drafted, "accepted", (json_int_t)p->accepted, "seconds",
                     p->seconds, "draft_s", p->draft_seconds, "speed_up", p->speed_up);
}

static sd_status print_json(const sd_replay *r, const char *path, sd_error *err) {
    json_t *policies = json_array();
    for (int i = 0; i < SD_REPLAY_POLICIES && r->policy[i].name[0]; i++)
        json_array_append_new(policies, policy_json(&r->policy[i]));
    json_t *o = json_pack("{s:s, s:I, s:I, s:i, s:i, s:o}", "trace", path, "decisions",
                          (json_int_t)r->decisions, "as_recorded", (json_int_t)r->same, "at_once",
                          r->at_once, "answers", r->answers, "policies", policies);
    sd_status st = sd_json_print(stdout, o, JSON_COMPACT, err);
    json_decref(o);
    if (st == SD_OK) fputc('\n', stdout);
    return st;
}

static void print_table(const sd_replay *r) {
    printf("%lld of %lld decisions as recorded; %d answers again, %d at once\n", (long long)r->same,
           (long long)r->decisions, r->answers, r->at_once);
    printf("%-8s %5s  %8s  %8s  %7s  %9s  %9s  %8s\n", "policy", "tau", "tokens", "rows", "accept",
           "seconds", "drafting", "speed-up");
    for (int i = 0; i < SD_REPLAY_POLICIES && r->policy[i].name[0]; i++) {
        const sd_replay_policy *p = &r->policy[i];
        printf("%-8s %5.2f  %8lld  %8lld  %6.1f%%  %9.3f  %9.3f  %7.2fx\n", p->name,
               over((double)p->tokens, (double)p->rounds), (long long)p->tokens, (long long)p->rows,
               100 * over((double)p->accepted, (double)p->drafted), p->seconds, p->draft_seconds,
               p->speed_up);
    }
}

sd_status sd_bench_replay(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    replay_args a = {0};
    sd_strings rest;
    sd_trace_log log = {0};
    sd_replay r;
    if (sd_verb_help(
            "bench spec --replay FILE",
            "A recorded trace again, without a model: what the controller decides now, and "
            "what that costs beside no and fixed drafts.",
            rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL,
             "bench spec --replay: '%s' is not an option; a trace needs nothing beside it",
             rest.item[0]);
    SD_TRY(sd_trace_read(&log, a.trace, err));
    SD_TRY(sd_replay_run(&r, &log, err));
    if (a.json)
        st = print_json(&r, a.trace, err);
    else
        print_table(&r);
out:
    sd_trace_log_free(&log);
    return st;
}
