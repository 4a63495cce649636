#include "tests/e2e/exact/group.h"

#include "decode/engine/private.h"
#include "model/infer/prefix_cache.h"

#include <stdio.h>
#include <string.h>

enum {
    MOST_JOBS = EXACT_GROUP * (EXACT_MOST_CHOICES + 1),
    WAITING = 40,        // requests that are inside at once
    MOST_STEPS = 100000, // of one run
    LOOK_EVERY = 16      // steps, at the counts of the prefix cache
};

// A request on its way through an engine.
typedef struct {
    const exact_prompt *prompt;
    int choice;
    const exact_answer *want;
    int leaves; // steps after which it is cancelled; -1: it stays
    bool sent, cancelled;
    uint64_t id;
    int64_t begun;
    exact_answer got;
} job;

typedef struct {
    const char *name;
    sd_engine_options o;
    int passes;
    bool leave; // some leave
} way;

typedef struct {
    const exact_world *w;
    const exact_range *range;
    exact_counts *c;
    dice d;
    sd_kv_type kv;
    exact_prompt prompt[EXACT_GROUP];
    exact_answer want[EXACT_GROUP][EXACT_MOST_CHOICES];
    job job[MOST_JOBS];
    int jobs, runs;
    size_t kv_bytes; // of the way "batch"
} group;

// ---- running

static sd_status submit(sd_engine *e, job *j, int64_t step, sd_error *err) {
    sd_request r = j->prompt->r;
    r.sampling.choice = (uint32_t)j->choice;
    if (e->o.spec == SD_SPEC_OFF) r.spec = SD_SPEC_OFF;
    r.on_event = exact_collect, r.ctx = &j->got;
    exact_answer_clear(&j->got);
    j->sent = true, j->cancelled = false, j->begun = step;
    return sd_engine_submit(e, &r, &j->id, err);
}

static bool is_sound(const sd_engine *e) {
    sd_kv *kv[64];
    for (int i = 0; i < e->n_slots; i++) kv[i] = e->slot[i].kv;
    return sd_prefix_sound(e->kv, kv, e->n_slots);
}

// Requests come and leave between the steps. together: all come before the first, and d is not used.
static sd_status run(sd_engine *e, job *j, int n, bool together, dice *d, sd_error *err) {
    sd_status st = SD_OK;
    int next = 0, done = 0;
    for (int64_t step = 0; done < n; step++) {
        SD_CHECK(step < MOST_STEPS, err, SD_EMISMATCH, "%d of %d requests do not come to an end",
                 n - done, n);
        for (int come = together ? n : roll(d, 4); come > 0 && next < n && next - done < WAITING;
             come--)
            SD_TRY(submit(e, &j[next++], step, err));
        for (int i = 0; i < next; i++)
            if (j[i].leaves >= 0 && !j[i].cancelled && step - j[i].begun >= j[i].leaves)
                sd_engine_cancel(e, j[i].id), j[i].cancelled = true;
        sd_engine_step(e);
        SD_CHECK(step % LOOK_EVERY || is_sound(e), err, SD_EMISMATCH,
                 "the prefix cache's counts are wrong after step %lld", (long long)step);
        for (int i = done = 0; i < next; i++) done += j[i].got.finish != SD_FINISH_NONE;
    }
    SD_CHECK(is_sound(e), err, SD_EMISMATCH, "the prefix cache's counts are wrong at the end");
out:
    return st;
}

// ---- counting

static void count_drafts(exact_counts *c, const sd_spec_stats *s) {
    for (int i = 0; i < SD_MAX_DRAFTERS && s->by[i].name[0]; i++) {
        int k = 0;
        while (c->by[k].name[0] && strcmp(c->by[k].name, s->by[i].name) != 0) k++;
        memcpy(c->by[k].name, s->by[i].name, sizeof c->by[k].name);
        c->by[k].accepted += s->by[i].accepted;
        c->by[k].rejected += s->by[i].drafted - s->by[i].accepted;
    }
}

static void count_engine(exact_counts *c, sd_engine *e) {
    sd_engine_stats s;
    sd_engine_get_stats(e, &s);
    count_drafts(c, &s.spec);
    c->looked_for += s.prefix_queries, c->found += s.prefix_hits;
    c->preemptions += s.preemptions;
    c->forgotten += sd_prefix_forgotten(e->kv);
}

static void count_answer(exact_counts *c, const job *j, bool cached) {
    c->answers++;
    c->left += j->got.finish == SD_FINISH_CANCELLED;
    if (!cached) return;
    int found = j->got.stats.cached_tokens;
    c->hits += found > 0, c->misses += found == 0;
    c->in_page += found % SD_KV_PAGE > 0;
}

static void count_prompt(exact_counts *c, const exact_prompt *p, const exact_answer *want) {
    c->prompts++;
    for (int t = 0; t < EXACT_TRAIT_COUNT; t++) c->with[t] += p->traits >> t & 1;
    for (int i = 0; i < p->choices; i++) c->finish[want[i].finish]++, c->tokens += want[i].n;
}

// ---- comparing

static bool is_wanted(const group *g, const exact_prompt *p) {
    return p->number >= g->range->from && p->number < g->range->to;
}

static void show(const group *g, const way *by, int pass, const job *j, int at) {
    const exact_prompt *p = j->prompt;
    printf("# prompt %lld, choice %d (%s), differs at token %d:", (long long)p->number, j->choice,
           g->w->name, at);
    exact_print("plain", g->w->model->tokenizer, j->want, at);
    exact_print("here", g->w->model->tokenizer, &j->got, at);
    printf("\n#   %s, pass %d: %d slots, %d threads, chunks of %d, drafts of %d, mode %d, kv %d "
           "in %zu bytes, cache %s; %d of %d tokens cached; with",
           by->name, pass + 1, by->o.slots, by->o.threads, by->o.prefill_chunk, by->o.spec_length,
           (int)p->r.spec, (int)by->o.kv, by->o.kv_memory, by->o.no_prefix_cache ? "off" : "on",
           j->got.stats.cached_tokens, p->prompt.n);
    for (int t = 0; t < EXACT_TRAIT_COUNT; t++)
        if (p->traits >> t & 1) printf(" %s;", exact_trait_name[t]);
    printf("\n# again: %s --seed %llu --from %lld --count 1\n", g->range->again,
           (unsigned long long)g->range->seed, (long long)p->number);
    fflush(stdout);
}

static void compare(group *g, const way *by, int pass) {
    for (int i = 0; i < g->jobs; i++) {
        const job *j = &g->job[i];
        if (!is_wanted(g, j->prompt)) continue;
        count_answer(g->c, j, !by->o.no_prefix_cache);
        bool cut = j->leaves >= 0 && j->got.finish == SD_FINISH_CANCELLED;
        int at = exact_difference(j->want, &j->got, j->prompt->r.logprobs, cut);
        if (at < 0) continue;
        if (g->c->differ++ < 10) show(g, by, pass, j, at);
    }
}

// ---- the ways

static void add_job(group *g, int k, int choice, int leaves) {
    job *j = &g->job[g->jobs++];
    exact_answer kept = j->got; // its memory
    *j = (job){.prompt = &g->prompt[k],
               .choice = choice,
               .want = &g->want[k][choice],
               .leaves = leaves,
               .got = kept};
}

// All choices of all prompts, and some once more that leave, in a random order.
static void fill_jobs(group *g, bool leave, int n) {
    g->jobs = 0;
    for (int k = 0; k < n; k++) {
        for (int i = 0; i < g->prompt[k].choices; i++) add_job(g, k, i, -1);
        if (leave && one_in(&g->d, 3)) add_job(g, k, 0, roll(&g->d, 30));
    }
    for (int i = g->jobs - 1; i > 0; i--) {
        int other = roll(&g->d, i + 1);
        job swap = g->job[i];
        g->job[i] = g->job[other], g->job[other] = swap;
    }
}

// Options that no answer may show.
static sd_engine_options draw_options(group *g) {
    static const int chunks[] = {5, 33, 64, 100, 512}, lengths[] = {0, 0, 1, 2, 3, 5, 8, 48};
    dice *d = &g->d;
    int draft = one_in(d, 3);
    sd_engine_options o = {.ctx = EXACT_CTX,
                           .slots = roll_in(d, 3, 8),
                           .threads = one_in(d, 4) ? 2 : 1,
                           .prefill_chunk = chunks[roll(d, 5)],
                           .kv = g->kv,
                           .isa = g->range->isa,
                           .spec_length = lengths[roll(d, g->w->real ? 7 : 8)],
                           .draft = g->w->draft[draft],
                           .draft_kv = one_in(d, 4) ? EXACT_CTX : 0};
    if (draft == 0 && one_in(d, 3)) o.draft_adapter = g->w->draft_adapter;
    return o;
}

// Pages for the longest request, and a few more.
static size_t tight_memory(group *g, const sd_engine_options *o) {
    int longest = 0, all = o->slots * (EXACT_CTX / SD_KV_PAGE);
    for (int k = 0; k < EXACT_GROUP; k++) {
        int n = g->prompt[k].prompt.n + g->prompt[k].r.max_tokens + 1;
        if (n > longest) longest = n;
    }
    int pages = sd_kv_pages(longest) + roll(&g->d, 4);
    bool windows = false;
    for (int l = 0; l < g->w->model->hp.L; l++) windows |= g->w->model->layer[l].window > 0;
    // A window's layers must suffice for one sequence.
    if (windows && pages < EXACT_CTX / SD_KV_PAGE) pages = EXACT_CTX / SD_KV_PAGE;
    return (size_t)((double)g->kv_bytes * pages / all + 1);
}

static sd_status run_way(group *g, const way *by, int n, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine *e = NULL;
    SD_TRY(sd_engine_open(&e, g->w->model, &by->o, err));
    g->kv_bytes = e->stats.kv_bytes;
    for (int pass = 0; pass < by->passes; pass++) {
        fill_jobs(g, by->leave, n);
        // Lengths that are chosen by time change how often it is rolled.
        dice d = dice_for(g->range->seed, DICE_RUN, g->prompt[0].number * 64 + g->runs++);
        SD_TRY(run(e, g->job, g->jobs, by->o.slots == 1 || one_in(&g->d, 2), &d, err));
        compare(g, by, pass);
    }
    count_engine(g->c, e);
out:
    sd_engine_close(e);
    return st;
}

static sd_status run_ways(group *g, int n, sd_error *err) {
    sd_status st = SD_OK;
    bool real = g->w->real; // then each second group is spared a way
    way by = {.name = "batch", .o = draw_options(g), .passes = real ? 1 : 2, .leave = real};
    SD_TRY(run_way(g, &by, n, err));
    by.name = "tight", by.passes = 1, by.leave = true;
    by.o.kv_memory = tight_memory(g, &by.o);
    SD_TRY(run_way(g, &by, n, err));
    by = (way){.name = "alone", .o = draw_options(g), .passes = 1};
    by.o.slots = 1, by.o.no_prefix_cache = one_in(&g->d, 2);
    if (!real || one_in(&g->d, 3)) SD_TRY(run_way(g, &by, n, err));
    by = (way){.name = "plain", .o = draw_options(g), .passes = 1, .leave = true};
    by.o.spec = SD_SPEC_OFF, by.o.spec_length = 0, by.o.draft = by.o.draft_adapter = NULL;
    by.o.no_prefix_cache = one_in(&g->d, 3);
    if (!real || one_in(&g->d, 3)) SD_TRY(run_way(g, &by, n, err));
out:
    return st;
}

// ---- a group

// Each by itself, since a later one may go on from an earlier one's answer.
static sd_status make_references(group *g, int64_t first, int n, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine *e = NULL;
    sd_engine_options o = {.ctx = EXACT_CTX,
                           .slots = 1,
                           .threads = 1,
                           .prefill_chunk = EXACT_CTX,
                           .kv = g->kv,
                           .isa = g->range->isa,
                           .spec = SD_SPEC_OFF,
                           .no_prefix_cache = true};
    if (g->w->real) o.threads = 0;
    SD_TRY(sd_engine_open(&e, g->w->model, &o, err));
    for (int k = 0; k < n; k++) {
        exact_prompt *p = &g->prompt[k];
        SD_TRY(exact_prompt_make(p, g->w, g->range->seed, first + k, k ? p - 1 : NULL,
                                 k ? g->want[k - 1] : NULL, err));
        for (int i = 0; i < p->choices; i++) {
            job j = {.prompt = p, .choice = i, .leaves = -1};
            int logprobs = p->r.logprobs;
            if (logprobs < 0) p->r.logprobs = 0;
            st = run(e, &j, 1, true, NULL, err);
            p->r.logprobs = logprobs;
            g->want[k][i] = j.got;
            if (st != SD_OK) goto out;
        }
        if (is_wanted(g, p)) count_prompt(g->c, p, g->want[k]);
    }
out:
    sd_engine_close(e);
    return st;
}

sd_status exact_group_run(exact_counts *c, const exact_world *w, int64_t number,
                          const exact_range *range, sd_error *err) {
    static const sd_kv_type types[] = {SD_KV_AUTO, SD_KV_F16, SD_KV_BF16, SD_KV_INT8};
    sd_status st = SD_OK;
    group *g = sd_alloc(1, sizeof *g);
    SD_CHECK_ALLOC(g, err);
    g->w = w, g->c = c, g->range = range;
    g->d = dice_for(range->seed, DICE_GROUP, number);
    g->kv = types[roll(&g->d, 4)];
    SD_TRY(make_references(g, number * EXACT_GROUP, EXACT_GROUP, err));
    SD_TRY(run_ways(g, EXACT_GROUP, err));
out:
    for (int k = 0; g && k < EXACT_GROUP; k++) {
        exact_prompt_free(&g->prompt[k]);
        for (int i = 0; i < EXACT_MOST_CHOICES; i++) exact_answer_free(&g->want[k][i]);
    }
    for (int i = 0; g && i < MOST_JOBS; i++) exact_answer_free(&g->job[i].got);
    free(g);
    return st;
}
