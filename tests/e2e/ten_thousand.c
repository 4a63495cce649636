// ten_thousand [options]: random requests, each answered by plain decoding and in every other way; all
// answers must be the same in every bit. tests/e2e/ten_thousand.py calls it.
//
// Prompts are numbered. A prompt is the same whatever part of them a run takes, and so is its company: a run
// may be cut into parts, and one prompt repeated. What the run was made for must have happened: drafts of
// each kind right and wrong, hits and misses, pages that were forgotten, slots that were given back.
#include "base/clock.h"
#include "base/log.h"
#include "base/option.h"
#include "decode/draft/drafter.h"
#include "tests/e2e/exact/group.h"

#include <stdio.h>
#include <string.h>

enum { ENOUGH = 100 }; // prompts, to expect something of each kind

typedef struct {
    int64_t seed, from, count;
    const char *model, *isa, *again;
} args;

// clang-format off
static const sd_option options[] = {
    {.name = "seed", .type = SD_OPT_INT, .def = "1", .offset = offsetof(args, seed)},
    {.name = "from", .type = SD_OPT_INT, .def = "0", .min = 0, .max = 1e12, .offset = offsetof(args, from), .help = "the first prompt"},
    {.name = "count", .type = SD_OPT_INT, .def = "144", .min = 1, .max = 1e9, .offset = offsetof(args, count), .help = "prompts"},
    {.name = "model", .letter = 'm', .type = SD_OPT_STRING, .offset = offsetof(args, model), .help = "trained weights; default: generated models"},
    {.name = "isa", .type = SD_OPT_STRING, .offset = offsetof(args, isa), .help = "instruction set; default: the best there is"},
    {.name = "again", .type = SD_OPT_STRING, .def = "ten_thousand", .offset = offsetof(args, again), .help = "the command that is shown with a difference"},
    {0}};
// clang-format on

static bool tell(bool ok, const char *what) {
    printf("%s - ten thousand: %s\n", ok ? "ok" : "not ok", what);
    return ok;
}

static void show_counts(const exact_counts *c, double seconds) {
    printf("# %lld prompts, plain answers of %lld tokens, %lld further answers, %.1f s\n",
           (long long)c->prompts, (long long)c->tokens, (long long)c->answers, seconds);
    printf("# with");
    for (int t = 0; t < EXACT_TRAIT_COUNT; t++)
        printf("%s %s %lld", t ? "," : "", exact_trait_name[t], (long long)c->with[t]);
    printf("\n# ended by");
    for (int f = SD_FINISH_STOP; f < SD_FINISH_COUNT; f++)
        printf("%s %s %lld", f > SD_FINISH_STOP ? "," : "", sd_finish_name((sd_finish)f),
               (long long)c->finish[f]);
    printf("\n# drafts accepted and rejected:");
    for (int k = 0; k < SD_MAX_DRAFTERS && c->by[k].name[0]; k++)
        printf("%s %s %lld and %lld", k ? "," : "", c->by[k].name, (long long)c->by[k].accepted,
               (long long)c->by[k].rejected);
    printf(
        "\n# prefix cache: %lld hits (%lld within a page), %lld misses, %lld of %lld tokens found, "
        "%lld pages forgotten\n",
        (long long)c->hits, (long long)c->in_page, (long long)c->misses, (long long)c->found,
        (long long)c->looked_for, (long long)c->forgotten);
    printf("# %lld times a slot was given back, %lld requests cancelled\n",
           (long long)c->preemptions, (long long)c->left);
}

// Whether the run has exercised what it is for; what is missing is named.
static bool has_happened(const exact_counts *c, const sd_drafter_kind *const *kinds) {
    bool all = true;
    const struct {
        const char *what;
        int64_t n;
    } events[] = {{"a hit in the prefix cache", c->hits},
                  {"a hit that ends within a page", c->in_page},
                  {"a miss", c->misses},
                  {"a page that is forgotten", c->forgotten},
                  {"a slot that is given back", c->preemptions},
                  {"a request that is cancelled", c->left},
                  {"an answer that ends by itself", c->finish[SD_FINISH_STOP]}};
    for (int i = 0; i < 7; i++)
        if (events[i].n == 0) all = false, printf("# it never came to %s\n", events[i].what);
    for (int t = 0; t < EXACT_TRAIT_COUNT; t++)
        if (c->with[t] == 0) all = false, printf("# no prompt with %s\n", exact_trait_name[t]);
    for (int i = 0; kinds[i]; i++) {
        int k = 0;
        while (k < SD_MAX_DRAFTERS && strcmp(c->by[k].name, kinds[i]->name) != 0) k++;
        bool both = k < SD_MAX_DRAFTERS && c->by[k].accepted > 0 && c->by[k].rejected > 0;
        if (!both)
            all = false, printf("# drafts of %s were not both right and wrong\n", kinds[i]->name);
    }
    return all;
}

static sd_status run(exact_counts *c, exact_world *worlds, const args *a, sd_error *err) {
    sd_status st = SD_OK;
    const exact_range range = {.seed = (uint64_t)a->seed,
                               .from = a->from,
                               .to = a->from + a->count,
                               .isa = a->isa,
                               .again = a->again};
    int n = a->model ? 1 : EXACT_WORLDS;
    for (int64_t g = a->from / EXACT_GROUP; g * EXACT_GROUP < range.to; g++) {
        exact_world *w = &worlds[g % n];
        if (!w->model && a->model) SD_TRY(exact_world_open(w, a->model, err));
        if (!w->model) SD_TRY(exact_world_generate(w, (int)(g % n), err));
        st = exact_group_run(c, w, g, &range, err);
        if (st != SD_OK) {
            printf("# prompts %lld to %lld (%s) of seed %lld\n", (long long)g * EXACT_GROUP,
                   (long long)(g + 1) * EXACT_GROUP - 1, w->name, (long long)a->seed);
            goto out;
        }
        if (c->prompts % 1200 < EXACT_GROUP && c->prompts < a->count)
            printf("# %lld of %lld prompts, %lld of %lld answers differ\n", (long long)c->prompts,
                   (long long)a->count, (long long)c->differ, (long long)c->answers),
                fflush(stdout);
    }
out:
    return st;
}

int main(int argc, char **argv) {
    sd_error e = {0}, *err = &e;
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    exact_counts c = {0};
    exact_world worlds[EXACT_WORLDS] = {0};
    double begin = sd_now_s();
    bool good = false;
    sd_log_set_level(SD_LOG_ERROR);
    SD_TRY(sd_options_parse(&rest, options, &a, argc - 1, argv + 1, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "ten_thousand takes options alone, not %s", rest.item[0]);
    SD_TRY(run(&c, worlds, &a, err));
    show_counts(&c, sd_now_s() - begin);
    printf("# %lld of %lld answers are those of plain decoding\n",
           (long long)(c.answers - c.differ), (long long)c.answers);
    good =
        tell(c.differ == 0 && c.answers > 0, "every answer is that of plain decoding, bit by bit");
    if (a.count >= ENOUGH)
        good = tell(has_happened(&c, sd_drafters), "all that was to be exercised was") && good;
out:
    if (st != SD_OK) tell(false, e.message);
    for (int i = 0; i < EXACT_WORLDS; i++) exact_world_close(&worlds[i]);
    return good ? 0 : 1;
}
