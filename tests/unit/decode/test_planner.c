// The planner and the controller on rounds whose costs, outcomes and clock are made up: the choices are
// the best that there are, and speculation does not lose where it cannot win.
#include "decode/draft/planner.h"

#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static uint64_t drawn;

static double draw(void) {
    uint32_t r[4];
    sd_philox(r, 5, SD_STREAM_INIT, drawn++);
    return r[0] / 4294967296.0;
}
static int draw_int(int below) {
    return (int)(draw() * below);
}

// Milliseconds of steps: ascending, by a slope that changes.
static sd_step_costs random_costs(void) {
    sd_step_costs t = {0};
    t.ms[0] = 5 + 10 * draw();
    for (int i = 1; i < SD_STEP_COSTS; i++)
        t.ms[i] =
            t.ms[i - 1] + t.ms[0] * draw() * .3 * (sd_step_cost_rows[i] - sd_step_cost_rows[i - 1]);
    return t;
}

// ---- which rows are verified

enum { REQUESTS = 4 };

static double worth(const sd_controller *c, const sd_candidates *k, const int *take, int requests) {
    double gain = 0;
    int rows = requests;
    for (int r = 0; r < requests; r++)
        for (int j = 0; j < take[r]; j++, rows++) gain += (double)k[r].prefix_prob[j];
    return gain - sd_controller_lambda(c, requests) *
                      (sd_controller_cost(c, rows) - sd_controller_cost(c, requests));
}

// The best of all ways to take candidates.
static double best_worth(const sd_controller *c, const sd_candidates *k, int requests, int budget) {
    double best = -HUGE_VAL;
    int ways = 1;
    for (int r = 0; r < requests; r++) ways *= k[r].n + 1;
    for (int way = 0; way < ways; way++) {
        int take[REQUESTS] = {0}, rest = way, sum = 0;
        for (int r = 0; r < requests; r++) {
            take[r] = rest % (k[r].n + 1);
            rest /= k[r].n + 1;
            sum += take[r];
        }
        double w = sum <= budget ? worth(c, k, take, requests) : best;
        if (w > best) best = w;
    }
    return best;
}

Test(planner, the_rows_of_a_batch_are_the_best_that_there_are) {
    enum { MOST = 5 };
    int some = 0, none = 0;
    for (int i = 0; i < 3000; i++) {
        sd_controller c;
        sd_controller_init(&c);
        sd_step_costs t = random_costs();
        sd_controller_load_costs(&c, &t);
        c.speed_up = 1 + 2 * draw();
        float prob[REQUESTS][MOST];
        sd_candidates k[REQUESTS];
        int requests = 1 + draw_int(REQUESTS), budget = draw_int(12), take[REQUESTS] = {0}, sum = 0;
        for (int r = 0; r < requests; r++) {
            float p = 1;
            k[r] = (sd_candidates){prob[r], draw_int(MOST + 1), -1};
            for (int j = 0; j < k[r].n; j++) prob[r][j] = p *= (float)(draw() < .3 ? 1 : draw());
        }
        double best = best_worth(&c, k, requests, budget);
        sd_controller_choose(&c, k, requests, budget);
        for (int r = 0; r < requests; r++) {
            take[r] = k[r].take;
            cr_assert(take[r] >= 0 && take[r] <= k[r].n);
            sum += take[r];
        }
        cr_assert_leq(sum, budget);
        cr_assert_float_eq(worth(&c, k, take, requests), best, 1e-6, "case %d: %g, best %g", i,
                           worth(&c, k, take, requests), best);
        some += sum > 0, none += sum == 0;
    }
    cr_assert(some > 500 && none > 500, "%d and %d", some, none);
}

// ---- a drafter whose proposals are as right as it is told

enum { SEQUENCES = 6, V = 50, RIGHT = 1, WRONG = 2 };

typedef struct {
    double clock, proposal_s; // seconds of a step that makes proposals, for any number
    size_t bytes;
    int prepared[SEQUENCES]; // calls, by drafter
    double right;            // the share of its proposals that hold
    double row_s;            // seconds of a position that it catches up
} script;
static script told;

typedef struct {
    sd_drafter base;
    int id, position, ahead; // position: of its timeline
    int computed;            // of it
} player;

static double now(void *ctx) {
    (void)ctx;
    return told.clock;
}
// Whether the proposal for a position holds; the same whenever it is asked.
static bool holds(int id, int position) {
    uint32_t r[4];
    sd_philox(r, 9 + (uint64_t)id, SD_STREAM_INIT, (uint64_t)position);
    return r[0] / 4294967296.0 < told.right;
}
static size_t play_bytes(const void *shared) {
    (void)shared;
    return told.bytes;
}
static int play_missing(const sd_drafter *d) {
    const player *p = (const player *)d;
    return told.row_s > 0 ? p->position - p->computed : 1;
}
static bool play_prepare(sd_drafter *d, int rows) {
    (void)rows;
    player *p = (player *)d;
    told.prepared[p->id]++;
    told.clock += told.row_s * (play_missing(d) - 1);
    p->computed = p->position - 1;
    return true;
}
static void play_prepare_many(sd_drafter *const *d, bool *ready, int n, int rows) {
    for (int k = 0; k < n; k++) ready[k] = play_prepare(d[k], rows);
}
static void play_rewind(sd_drafter *d) {
    ((player *)d)->ahead = 0;
}
static bool play_peek(sd_drafter *d, sd_proposal *out) {
    const player *p = (const player *)d;
    *out = (sd_proposal){holds(p->id, p->position + p->ahead) ? RIGHT : WRONG, 3, 1};
    return true;
}
static void play_peek_many(sd_drafter *const *d, sd_proposal *out, bool *made, int n) {
    told.clock += told.proposal_s;
    for (int k = 0; k < n; k++) made[k] = play_peek(d[k], &out[k]);
}
static bool play_peek_dearly(sd_drafter *d, sd_proposal *out) {
    told.clock += told.proposal_s;
    return play_peek(d, out);
}
static void play_advance(sd_drafter *d, int32_t token) {
    (void)token;
    ((player *)d)->ahead++;
}
static float play_prior(int bucket) {
    cr_assert_eq(bucket, 3);
    return .7f;
}

static const sd_drafter_kind free_kind = {.name = "free",
                                          .rewind = play_rewind,
                                          .peek = play_peek,
                                          .advance = play_advance,
                                          .prior = play_prior};
static const sd_drafter_kind priced_kind = {.name = "priced",
                                            .read_bytes = play_bytes,
                                            .missing = play_missing,
                                            .prepare = play_prepare,
                                            .rewind = play_rewind,
                                            .peek = play_peek,
                                            .advance = play_advance,
                                            .prior = play_prior,
                                            .prepare_many = play_prepare_many,
                                            .peek_many = play_peek_many};

static const sd_drafter_kind single_kind = {.name = "single",
                                            .read_bytes = play_bytes,
                                            .missing = play_missing,
                                            .prepare = play_prepare,
                                            .rewind = play_rewind,
                                            .peek = play_peek_dearly,
                                            .advance = play_advance,
                                            .prior = play_prior};

// Sequences with one drafter each, and a planner over them.
typedef struct {
    sd_controller control;
    sd_planner *planner;
    sd_draft_source source;
    player player[SEQUENCES];
    sd_drafter *handle[SEQUENCES][1];
    sd_acceptance own[SEQUENCES];
    sd_planned plan[SEQUENCES], *pointer[SEQUENCES];
} table;

static const bool active[1] = {true};

static void open_table(table *t, const sd_drafter_kind *kind, const sd_step_costs *costs) {
    memset(t, 0, sizeof *t);
    t->source.kind = kind;
    sd_controller_init(&t->control);
    if (costs) sd_controller_load_costs(&t->control, costs);
    const sd_planner_options o = {.prepare_rows = 100, .V = V, .target_bytes = 1000, .now = now};
    cr_assert_eq(sd_planner_open(&t->planner, &t->control, &t->source, 1, SEQUENCES, &o, NULL),
                 SD_OK);
    for (int i = 0; i < SEQUENCES; i++) {
        t->player[i] = (player){.base = {kind}, .id = i};
        t->handle[i][0] = &t->player[i].base;
        t->plan[i] = (sd_planned){.drafter = t->handle[i], .active = active, .own = &t->own[i]};
        t->pointer[i] = &t->plan[i];
    }
}

static sd_step_costs linear_costs(double ms, double row) {
    sd_step_costs t;
    for (int i = 0; i < SD_STEP_COSTS; i++) t.ms[i] = ms * (1 + row * (sd_step_cost_rows[i] - 1));
    return t;
}

// ---- who is drafted for

Test(planner, a_step_of_a_draft_model_is_for_those_sequences_that_make_it_worth_the_most) {
    int parts = 0;
    for (int i = 0; i < 400; i++) {
        table t;
        sd_step_costs costs = random_costs();
        told = (script){.bytes = (size_t)(50 + 1200 * draw())};
        open_table(&t, &priced_kind, &costs);
        sd_controller *c = &t.control;
        int n = 1 + draw_int(SEQUENCES), asked = 0;
        for (int k = 0; k < n; k++) {
            t.plan[k].room = 1;
            t.own[k].of[0][3] = (sd_tally){.hit = (float)(200 * draw()), .seen = 200};
        }
        double lambda = sd_controller_lambda(c, n), best = 0,
               alone = sd_controller_cost(c, 1) * (double)told.bytes / 1001;
        double row = sd_controller_cost(c, n + 1) - sd_controller_cost(c, n), is = 0;
        for (int set = 0; set < 1 << n; set++) {
            double sum = 0;
            int m = 0;
            for (int k = 0; k < n; k++)
                if (set >> k & 1)
                    sum += sd_controller_mean_accept_prob(c, &t.own[k], 0) - lambda * row, m++;
            sum -= lambda * sd_controller_draft_cost(c, 0, m, alone);
            if (sum > best) best = sum;
        }
        sd_planner_round(t.planner, t.pointer, n);
        for (int k = 0; k < n; k++)
            if (told.prepared[k])
                is += sd_controller_mean_accept_prob(c, &t.own[k], 0) - lambda * row, asked++;
        is -= lambda * sd_controller_draft_cost(c, 0, asked, alone);
        cr_assert_float_eq(is, best, 1e-9, "case %d: %g, best %g", i, is, best);
        parts += asked > 0 && asked < n;
        sd_planner_close(t.planner);
    }
    cr_assert_gt(parts, 30, "%d", parts);
}

Test(planner, what_proposals_cost_together_is_learnt_by_their_number) {
    sd_controller c;
    sd_step_costs costs = linear_costs(10, .1);
    sd_controller_init(&c);
    sd_controller_load_costs(&c, &costs);
    cr_assert_float_eq(sd_controller_draft_cost(&c, 1, 8, 2e-3), 2e-3 * 1.7, 1e-5,
                       "untimed, it has the shape of the target's steps");
    for (int i = 0; i < 100; i++) {
        sd_controller_drafted(&c, 1, 1, 3e-3);
        sd_controller_drafted(&c, 1, 8, 4e-3);
    }
    cr_assert_float_eq(sd_controller_draft_cost(&c, 1, 1, 9), 3e-3, 1e-5);
    cr_assert_float_eq(sd_controller_draft_cost(&c, 1, 8, 9), 4e-3, 4e-5);
    cr_assert_float_eq(sd_controller_draft_cost(&c, 1, 2, 9), 3e-3 * 1.1, 4e-5,
                       "of another number");
    cr_assert_float_eq(sd_controller_draft_cost(&c, 0, 1, 9), 9, 1e-9, "of another drafter");
    cr_assert_eq(sd_controller_draft_cost(&c, 1, 0, 9), 0);
}

// ---- runs

typedef struct {
    int tokens;
    double seconds, plain;
    int64_t drafted, accepted;
} outcome;

// Decodes `tokens` of n sequences; steps take costs' time, and `busy` times that from `from` on.
static void run(table *t, outcome *o, int n, int tokens, const sd_step_costs *costs) {
    sd_controller fixed; // what steps cost
    sd_controller_init(&fixed);
    sd_controller_load_costs(&fixed, costs);
    for (int made = 0; made < tokens;) {
        int rows = n, emitted = 0;
        double begin = told.clock;
        for (int k = 0; k < n; k++) {
            t->plan[k].room = SD_MAX_DRAFT;
            t->plan[k].generated = t->player[k].position;
        }
        double drafting = sd_planner_round(t->planner, t->pointer, n);
        for (int k = 0; k < n; k++) rows += t->plan[k].g;
        double verify = sd_controller_cost(&fixed, rows);
        told.clock += verify;
        for (int k = 0; k < n; k++) {
            int32_t out[SD_MAX_DRAFT + 1];
            int held = 0;
            while (held < t->plan[k].g && t->plan[k].draft[held] == RIGHT) held++;
            for (int j = 0; j <= held; j++) out[j] = RIGHT;
            sd_planner_score(t->planner, &t->plan[k], out, held + 1);
            t->player[k].position += held + 1;
            emitted += held + 1;
            o->drafted += t->plan[k].g;
            o->accepted += held;
        }
        cr_assert_float_eq(told.clock - begin, drafting + verify, 1e-9);
        sd_controller_timed(&t->control, n, rows, verify);
        sd_controller_progress(&t->control, n, emitted, told.clock - begin);
        made += emitted;
        o->tokens += emitted;
        o->plain += emitted * sd_controller_cost(&fixed, n) / n;
    }
    o->seconds = told.clock;
}

static double speed_up(const outcome *o) {
    return o->plain / o->seconds;
}

Test(planner, a_free_drafter_is_never_slower_than_plain_and_as_fast_as_its_drafts_allow) {
    static const double rows[] = {.05, .2, .5, .9}, right[] = {0, .1, .3, .6, .9, 1};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 6; j++)
            for (int n = 1; n <= 4; n += 3) {
                table t;
                outcome o = {0};
                sd_step_costs costs = linear_costs(10, rows[i]);
                told = (script){.right = right[j]};
                open_table(&t, &free_kind, &costs);
                run(&t, &o, n, 3000, &costs);
                double best = 1; // of the fixed lengths
                for (int g = 1; g <= SD_MAX_DRAFT; g++) {
                    double tau = 1, p = 1;
                    for (int k = 0; k < g; k++) tau += p *= right[j];
                    double s = tau * (1 + rows[i] * (n - 1)) / (1 + rows[i] * (n * (1 + g) - 1));
                    if (n * g <= SD_DRAFT_ROWS && s > best) best = s;
                }
                cr_assert_gt(speed_up(&o), .995, "rows %g, right %g, %d at once: %g", rows[i],
                             right[j], n, speed_up(&o));
                cr_assert_gt(speed_up(&o), .95 * best, "rows %g, right %g, %d at once: %g, best %g",
                             rows[i], right[j], n, speed_up(&o), best);
                sd_planner_close(t.planner);
            }
}

Test(planner, a_draft_model_that_does_not_pay_is_probed_one_round_in_64) {
    table t;
    outcome o = {0};
    sd_step_costs costs = linear_costs(10, .1);
    told = (script){.bytes = 900, .proposal_s = 9e-3, .right = .3};
    open_table(&t, &priced_kind, &costs);
    run(&t, &o, 1, 1000, &costs); // it finds out
    int before = told.prepared[0];
    int64_t rounds = t.planner->rounds;
    run(&t, &o, 1, 64 * 100, &costs);
    double share = (told.prepared[0] - before) / (double)(t.planner->rounds - rounds);
    cr_assert_float_eq(share, 1. / 64, .2 / 64, "%g of the rounds", share * 64);
    cr_assert_gt(speed_up(&o), .98, "%g", speed_up(&o));
    // When it has become good and cheap, the probes say so.
    told.right = .95;
    told.proposal_s = .5e-3;
    outcome better = {0};
    told.clock = 0;
    run(&t, &better, 1, 20000, &costs);
    cr_assert_gt(speed_up(&better), 1.5, "%g", speed_up(&better));
    sd_planner_close(t.planner);
}

Test(planner, a_draft_model_that_is_too_dear_one_by_one_pays_together) {
    // A proposal costs .3 of a step: for six sequences one by one 1.8 of a step, together .3. The
    // best fixed draft, of two tokens, is then 1.38 times as fast as none.
    double drafted[2], fast[2];
    for (int together = 0; together < 2; together++) {
        table t;
        outcome o = {0};
        sd_step_costs costs = linear_costs(10, .02);
        told = (script){.bytes = 300, .proposal_s = 3e-3, .right = .8};
        open_table(&t, together ? &priced_kind : &single_kind, &costs);
        run(&t, &o, SEQUENCES, 6000, &costs);
        drafted[together] = (double)o.drafted / (double)o.tokens;
        fast[together] = speed_up(&o);
        sd_planner_close(t.planner);
    }
    cr_assert(drafted[0] < .1 && fast[0] > .98, "%g drafted, %gx", drafted[0], fast[0]);
    cr_assert(drafted[1] > .5 && fast[1] > 1.33, "%g drafted, %gx", drafted[1], fast[1]);
}

// A request that begins with a prompt of so many tokens.
static void begin_request(table *t, int prompt) {
    t->player[0].position = prompt;
    t->player[0].computed = 0;
    t->own[0] = (sd_acceptance){0};
}

Test(planner, what_a_draft_model_must_read_first_is_part_of_its_price) {
    // A row of the draft costs a thirtieth of a step: 2000 of them are more than an answer of 200
    // tokens can win back, 60 are not.
    static const int prompts[] = {2000, 60};
    double fast[2];
    for (int i = 0; i < 2; i++) {
        table t;
        outcome o = {0};
        sd_step_costs costs = linear_costs(10, .1);
        told = (script){.bytes = 330, .proposal_s = 3e-3, .right = .8, .row_s = .33e-3};
        open_table(&t, &priced_kind, &costs);
        for (int request = 0; request < 30; request++) {
            begin_request(&t, prompts[i]);
            run(&t, &o, 1, 200, &costs);
        }
        fast[i] = speed_up(&o);
        sd_planner_close(t.planner);
    }
    cr_assert_gt(fast[0], .98, "%g", fast[0]);
    cr_assert_gt(fast[1], 1.15, "%g", fast[1]);
}

Test(planner, probes_take_no_more_than_their_share_whatever_must_be_read_for_them) {
    for (int prompt = 10; prompt <= 3000; prompt *= 5) {
        table t;
        outcome o = {0};
        sd_step_costs costs = linear_costs(10, .1);
        told = (script){.bytes = 330, .proposal_s = 3e-3, .right = .2, .row_s = .33e-3};
        open_table(&t, &priced_kind, &costs);
        run(&t, &(outcome){0}, 1, 600, &costs); // it finds out
        told.clock = 0;
        told.prepared[0] = 0;
        for (int request = 0; request < 60; request++) {
            begin_request(&t, prompt);
            run(&t, &o, 1, 300, &costs);
        }
        cr_assert_gt(speed_up(&o), .98, "prompts of %d: %g", prompt, speed_up(&o));
        cr_assert_gt(told.prepared[0], 3, "it is still probed with prompts of %d", prompt);
        sd_planner_close(t.planner);
    }
}

Test(planner, where_times_lie_the_guard_rests_and_what_is_lost_is_little) {
    // A drafter that holds, then does not, in turns of 300 tokens; the calibration is always late.
    table t;
    outcome o = {0};
    sd_step_costs costs = linear_costs(10, .3);
    told = (script){0};
    open_table(&t, &free_kind, &costs);
    for (int i = 0; i < 20; i++) {
        told.right = i % 2 ? 0 : .9;
        run(&t, &o, 1, 300, &costs);
    }
    cr_assert_gt(speed_up(&o), 1, "%g", speed_up(&o));
    // Drafting that takes three times what it is thought to: nothing but the clock sees it.
    outcome lies = {0};
    told = (script){.bytes = 1, .right = .8};
    sd_planner_close(t.planner);
    open_table(&t, &priced_kind, &costs);
    double seconds = 0;
    for (int i = 0; i < 3000; i++) {
        bool resting = sd_controller_backing_off(&t.control);
        told.proposal_s = 8e-3;
        t.control.proposal_s[0] = 1e-9;
        double before = told.clock;
        run(&t, &lies, 1, 1, &costs);
        if (resting) cr_assert_float_eq(told.clock - before, .01, 1e-9, "no draft while it rests");
        seconds = told.clock;
    }
    cr_assert_gt(t.control.backoffs, 2);
    cr_assert_gt(lies.plain / seconds, .7, "%g", lies.plain / seconds);
    sd_planner_close(t.planner);
}

Test(planner, proposals_that_were_not_verified_are_scored) {
    table t;
    sd_step_costs costs = linear_costs(10, 1); // no row ever pays
    told = (script){.right = 1};
    open_table(&t, &free_kind, &costs);
    outcome o = {0};
    run(&t, &o, 1, 300, &costs);
    cr_assert_eq(o.drafted, 0);
    const sd_tally *of_all = &t.control.all.of[0][3], *own = &t.own[0].of[0][3];
    cr_assert(of_all->seen > 200 && of_all->hit == of_all->seen && own->seen > 50);
    sd_planner_close(t.planner);
}
