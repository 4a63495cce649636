// The options: a row for each input of economics/input.h, and those that name files, APIs and outputs.
#include "cli/cost/args.h"

#include "base/files/path.h"
#include "cli/common.h"
#include "economics/read/prices.h"

#include <string.h>

// clang-format off
static const sd_option own_rows[] = {
    {.name = "watts", .type = SD_OPT_STRING, .value = "IDLE,ACTIVE", .unit = "W",
     .offset = offsetof(sd_cost_args, watts), .help = "power of a bought GPU without work and at full use"},
    {.name = "usage", .type = SD_OPT_STRING, .value = "FILE", .offset = offsetof(sd_cost_args, usage),
     .help = "the load out of a usage log (JSON lines; -: standard input)"},
    {.name = "metrics", .type = SD_OPT_STRING, .value = "FILE", .offset = offsetof(sd_cost_args, metrics),
     .help = "load and speed out of a server's page of metrics (-: standard input); no URL is fetched: curl -s URL/metrics | specdec cost --metrics - ..."},
    {.name = "bench", .type = SD_OPT_LIST, .value = "FILE", .offset = offsetof(sd_cost_args, bench),
     .help = "speeds out of what bench model --json (prompts) and bench spec --clients N --json (answers) printed; one of each"},
    {.name = "api", .type = SD_OPT_LIST, .value = "NAME=IN,OUT[,CACHED]", .offset = offsetof(sd_cost_args, api),
     .help = "an API and its USD for 10^6 tokens; with --prices also MODEL alone; several times"},
    {.name = "decision", .type = SD_OPT_LIST, .value = "NAME=IN,OUT", .offset = offsetof(sd_cost_args, decision),
     .help = "an API that answers with labels and probabilities, priced as --api; several times"},
    {.name = "prices", .type = SD_OPT_STRING, .value = "FILE", .offset = offsetof(sd_cost_args, prices),
     .help = "a price file in LiteLLM's format; its SHA-256 and date are printed"},
    {.name = "prices-sha256", .type = SD_OPT_STRING, .value = "HEX", .offset = offsetof(sd_cost_args, prices_sha256),
     .help = "refuse a price file with another SHA-256"},
    {.name = "prices-date", .type = SD_OPT_STRING, .value = "YYYY-MM-DD", .offset = offsetof(sd_cost_args, prices_date),
     .help = "the day of its prices; left out: of its last change on this disk"},
    {.name = "tier", .type = SD_OPT_ENUM, .def = "standard", .value = SD_TIER_WORDS, .offset = offsetof(sd_cost_args, tier),
     .help = "which of the price file's rates hold"},
    {.name = "token-ratio", .type = SD_OPT_LIST, .value = "NAME=R", .offset = offsetof(sd_cost_args, token_ratio),
     .help = "the API NAME counts R tokens where the own model counts one"},
    {.name = "by-hour", .type = SD_OPT_STRING, .value = "N0,...,N23", .offset = offsetof(sd_cost_args, by_hour),
     .help = "requests in each hour of a day: how many replicas serve, with the API above them, at the least cost"},
    {.name = "busy", .type = SD_OPT_FLOAT, .value = "SHARE", .offset = offsetof(sd_cost_args, busy), .min = 0, .max = 1,
     .given = offsetof(sd_cost_args, busy_given), .help = "share of the time in which the GPU has work, as nvidia-smi shows it"},
    {.name = "local-share", .type = SD_OPT_FLOAT, .value = "SHARE", .offset = offsetof(sd_cost_args, local_share), .min = 0, .max = 1,
     .given = offsetof(sd_cost_args, local_given), .help = "also a hybrid: this share is answered here, the rest by the first API"},
    {.name = "escalate", .type = SD_OPT_FLOAT, .value = "SHARE", .offset = offsetof(sd_cost_args, escalate), .min = 0, .max = 1,
     .given = offsetof(sd_cost_args, escalate_given), .help = "also a cascade: all is answered here, this share asked of the first API again"},
    SD_JSON_ROW(sd_cost_args, json, "one JSON object instead of text"),
    {.name = "html", .type = SD_OPT_STRING, .value = "FILE", .offset = offsetof(sd_cost_args, html),
     .help = "also a page with plots"}};
// clang-format on

enum { OWN = sizeof own_rows / sizeof *own_rows, MAX_ROWS = SD_COST_INPUT_COUNT + OWN + 1 };

// rows [MAX_ROWS], ended by a row without a name.
static void make_rows(sd_option *rows) {
    int n = 0;
    memset(rows, 0, MAX_ROWS * sizeof *rows);
    for (size_t i = 0; i < SD_COST_INPUT_COUNT; i++) {
        const sd_cost_row *r = &sd_cost_rows[i];
        if (r->half) continue;
        rows[n++] = (sd_option){.name = r->name,
                                .type = SD_OPT_FLOAT,
                                .offset = offsetof(sd_cost_args, in) + r->offset,
                                .given = offsetof(sd_cost_args, given) + i * sizeof(bool),
                                .def = r->def_text,
                                .unit = r->unit,
                                .help = r->help};
    }
    memcpy(rows + n, own_rows, sizeof own_rows);
}

bool sd_cost_args_help(int argc, char **argv) {
    sd_option rows[MAX_ROWS];
    make_rows(rows);
    return sd_verb_help(
        "cost --requests-day N --in TOKENS --out TOKENS --gpu-hour USD --api NAME=IN,OUT ...",
        "What a load costs in a month on own replicas and at an API, and from which load on the "
        "first is\ncheaper. Needed are the load (--requests-day, --in, --out; or --usage or "
        "--metrics), a replica's speed\n(--prefill-tok-s, --decode-tok-s; or --bench or --metrics) "
        "and its price (--gpu-hour; or --buy, --years).\ndocs/decide.md shows three companies.",
        rows, argc, argv);
}

// Two numbers as A,B.
static sd_status read_watts(sd_cost_args *a, sd_error *err) {
    char *end;
    if (!a->watts) return SD_OK;
    bool both = sd_read_decimal(&a->in.watts_idle, a->watts, &end) && *end == ',' &&
                sd_read_decimal(&a->in.watts_active, end + 1, &end) && !*end;
    if (both && a->in.watts_active > 0) {
        for (int i = 0; i < SD_COST_INPUT_COUNT; i++) a->given[i] |= sd_cost_rows[i].half;
        return SD_OK;
    }
    return sd_fail(err, SD_EINVAL, "--watts: '%s' is not IDLE,ACTIVE, such as 60,400; give both",
                   a->watts);
}

// 0 stands for absent in an input without a default, which a user who types it does not mean.
static sd_status refuse_zeros(sd_cost_args *a, sd_error *err) {
    for (int i = 0; i < SD_COST_INPUT_COUNT; i++) {
        const sd_cost_row *r = &sd_cost_rows[i];
        double v = *sd_cost_at(&a->in, r);
        if (a->given[i] && !r->half && !r->def_text && v == 0 && !sd_cost_takes_zero(r))
            return sd_fail(err, SD_EINVAL, "--%s: 0 is out of range; give %.16g to %.16g", r->name,
                           r->min, r->max);
    }
    return SD_OK;
}

bool sd_cost_is_given(const sd_cost_args *a, const char *option) {
    return a->given[sd_cost_row_of(option) - sd_cost_rows];
}

// What only counts beside another option is not dropped without a word.
static sd_status refuse_unused(const sd_cost_args *a, sd_error *err) {
    static const struct {
        const char *option, *beside, *why;
    } all[] = {{"years", "buy", "what is rented is not written off"},
               {"residual", "buy", "what is rented has no price afterwards"},
               {"pue", "buy", "a rent holds the power already"},
               {"setup-months", "setup-hours", "without hours there is nothing to spread"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (sd_cost_is_given(a, all[i].option) && !sd_cost_is_given(a, all[i].beside))
            return sd_fail(err, SD_EINVAL, "--%s counts beside --%s alone: %s; leave it out",
                           all[i].option, all[i].beside, all[i].why);
    if (sd_cost_is_given(a, "migration-hours") && a->api.n + a->decision.n == 0)
        return sd_fail(err, SD_EINVAL,
                       "--migration-hours are the API's, and none is given; give --api, or leave "
                       "them out");
    return SD_OK;
}

// Standard input ends once.
static sd_status refuse_second_input(const sd_cost_args *a, sd_error *err) {
    const char *path[3 + SD_MAX_LIST] = {a->usage, a->metrics, a->prices};
    int n = 0;
    memcpy(path + 3, a->bench.item, (size_t)a->bench.n * sizeof *path);
    for (int i = 0; i < 3 + a->bench.n; i++) {
        if (path[i] && strcmp(path[i], "-") == 0) n++;
        if (path[i] && a->html && sd_same_file(path[i], a->html))
            return sd_fail(err, SD_EINVAL,
                           "--html: %s is also read from; give the page another path", a->html);
    }
    if (n <= 1) return SD_OK;
    return sd_fail(err, SD_EINVAL, "-: standard input is given for %d files; name all but one", n);
}

sd_status sd_cost_args_read(sd_cost_args *a, int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    sd_option rows[MAX_ROWS];
    sd_strings rest;
    make_rows(rows);
    SD_TRY(sd_options_parse(&rest, rows, a, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "cost: '%s' is not an option; --help lists them",
             rest.item[0]);
    SD_TRY(read_watts(a, err));
    SD_TRY(refuse_zeros(a, err));
    SD_TRY(refuse_unused(a, err));
    SD_TRY(refuse_second_input(a, err));
    SD_CHECK(a->prices || (!a->prices_sha256 && !a->prices_date && a->tier == 0), err, SD_EINVAL,
             "--prices-sha256, --prices-date and --tier need a price file; give --prices FILE");
    if (!a->busy_given) a->busy = -1;
    if (!a->local_given) a->local_share = -1;
    if (!a->escalate_given) a->escalate = -1;
out:
    return st;
}
