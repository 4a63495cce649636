// The engine's inside, shared by its aspects:
//   engine.c    opening, waiting, statistics
//   memory.c    what it takes, by part: before it is opened, and now
//   request.c   what a request must be, the engine's copy of it
//   queue.c     who waits, who gets a slot, who gives one back
//   slot.c      a slot takes up a request, or gives it back half done
//   drafters.c  the kinds of drafters there are, and a slot's drafters
//   prompt.c    which prompt rows a step has time for, and whose
//   plan.c      what is drafted for the running requests
//   between.c   what is done between steps: adapters that come, sleeping and waking
//   trace.c     what a trace is told of rounds and answers
//   step.c      pages for a step's rows, rows in, one forward pass, verification
//   output.c    tokens to text, stop strings, events, the end of a request
//   shaping.c   how each row's token is picked: penalties, bans, allowed sets
//   shaping_request.c  what shapes a request's logits: checked, copied, made ready
//   constraint.c a request's grammar: masks of rows, proposals, the end
//   reading.c   requests that read their prompt and say nothing
//   reasoning.c where an answer reasons, and what ends that when its budget is used up
//   bad_words.c words as the sequences of tokens that are banned
//
// Locking: `lock` guards the tenants and their lines, the slots' requests, and what is published.
// All else belongs to the thread that steps.
//
// A running sequence has n tokens, and keys and values of the first kv->len. What is missing is caught up
// with, whether it is a prompt, an answer that begins again, or the one token that was said last:
// then the sequence decodes, and may be drafted for. A hit in the prefix cache leaves less to catch up with.
#pragma once

#include "decode/draft/planner.h"
#include "decode/draft/trace.h"
#include "decode/engine/engine.h"
#include "decode/engine/fair.h"

#include <pthread.h>

enum {
    SD_MAX_STOP_BYTES = 4096,
    SD_DEPTHS = 16 // prices of a prompt row: up to 256 positions, 512, 1024, ...
};

// A client with requests that wait or run.
typedef struct {
    uint64_t client;
    struct sd_engine_request *first, *last; // those that wait
    int waiting, slots;
    uint64_t turn; // when it last got a slot
} sd_tenant;

// The state that a request keeps when its slot is taken from it.
typedef struct {
    int32_t *timeline; // [n]
    int n;
    sd_utf8_stream utf8;
    sd_buf text;
    size_t usable;
    sd_acceptance own;
    sd_request_stats stats;
    int scored;
    double admitted, first_token, last_token;
} sd_carried;

// What shapes a request's logits, made ready when it was submitted: how it is for every row, and
// what depends on a row's place.
typedef struct {
    sd_shaping fixed; // bias, penalties, also_allowed
    bool counts;      // penalties look at what was said
    bool of_prompt;   // and at the prompt
    int min_tokens;
    int32_t *banned;          // [n_always + n_ends] for each row; then what ends an answer
    int n_always, n_ends;     // bad words of one token; the others:
    int32_t *sequences;       // [n_sequences] each behind its length, which is 2 at least
    int n_sequences, n_words; // n_words: how many sequences these are
    int32_t *row_banned;      // [SD_MAX_DRAFT + 1][n_always + n_ends + n_words]; NULL without them
    sd_token_bias *bias;      // owned, as the next
    uint32_t *allowed;
} sd_shape;

// Where an answer's text reasons, made ready when it was submitted.
typedef struct {
    struct {
        char text[SD_MAX_REASONING_MARK];
        int fall[SD_MAX_REASONING_MARK + 1]; // as in Knuth, Morris and Pratt's search
        int n;
    } open, close;
    bool inside, again;
    int budget; // -1: none
    int32_t forced[SD_MAX_FORCED];
    int n_forced;
    const sd_tokenizer *tokenizer;
    uint32_t *mask; // [n_forced][words] each allows one of them
    size_t words;
} sd_reasoning;

// Behind some token of the answer.
typedef struct {
    enum { SD_REASONING_BEFORE, SD_REASONING_INSIDE, SD_REASONING_OUT } at;
    int matched; // bytes of the next mark that the text ends with
    int tokens;  // of reasoning so far
    int forced;  // the next of the forced tokens; -1: none is
} sd_reasoning_state;

// A request as it was submitted, with copies of what it points to.
typedef struct sd_engine_request {
    struct sd_engine_request *next; // in its client's line
    sd_tenant *tenant;
    sd_carried *carried; // NULL: it never ran
    double queued;       // when it came into the line
    int counted, found;  // of its prompt, in the statistics: read; found in the prefix cache up to
    bool wants_pages;    // it gave its slot back for want of pages
    uint64_t begun;      // the engine's turns when it got its slot, and when it began to want pages
    uint64_t wants_since;
    int limit; // tokens of its answer at most
    uint64_t id;
    sd_request r;
    int32_t *prompt, *stop_token;
    char *stop[SD_MAX_STOPS];
    size_t stop_len[SD_MAX_STOPS];
    sd_shape *shape;         // NULL: nothing shapes its logits
    sd_reasoning *reasoning; // NULL: nothing is looked for
    int32_t *read_token;     // of r.reading
    float *values;           // [n_values] what it reads
    int n_values;
    double *sum; // [C] of SD_READ_MEAN: the rows so far
    double submitted;
    bool cancelled;
} sd_engine_request;

// How often each token stands in a slot's timeline, as far as penalties want to know.
typedef struct {
    sd_token_seen *seen; // [n <= ctx] each token once
    int32_t *place;      // [V] where a token stands there, plus 1; 0: nowhere
    int n;
    int counted; // tokens of the timeline that are in it, or are not wanted
} sd_counts;

typedef struct sd_constraint sd_constraint;

typedef struct {
    sd_engine_request *request;           // NULL: the slot is free
    bool fresh;                           // the thread that steps has not begun the request yet
    sd_kv *kv;                            // len: committed positions
    int32_t *timeline;                    // [ctx] prompt and output
    int n;                                // tokens in it
    sd_drafter *drafter[SD_MAX_DRAFTERS]; // by their place in the engine's list
    bool active[SD_MAX_DRAFTERS];         // drafts for this request
    sd_acceptance own;

    // One round.
    sd_planned plan;
    int rows;     // rows in this step
    bool starved; // there is no page for its next row
    int read;     // of them prompt rows, from position read_from
    int read_from;
    // How the tokens of its rows are picked. Row j draws the one behind timeline and draft[0..j).
    sd_pick pick[SD_MAX_DRAFT + 1];
    sd_shaping shaping[SD_MAX_DRAFT + 1];
    sd_token_seen recent[SD_MAX_DRAFT]; // the draft's tokens, counted
    bool shaped;                        // each row has a pick of its own; else all have the first
    int first_picked;                   // index of the first of its rows' tokens; -1: none
    int first_logits; // the same of its rows of logits, which only log probabilities need
    int first_scored; // likewise, of prompt rows whose logits score the next token of the prompt
    int n_scored;     // these rows
    bool read_out;    // the last row that is read is in this step: its logits are at first_logits
    int first_hidden; // of rows that are wanted themselves
    int scored;       // tokens of the prompt that were delivered; the request scores it

    // A constraint's sets of allowed tokens (sd_shaping.allowed): [SD_MAX_DRAFT + 1] places for the
    // rows of a step, in the constraint's memory; NULL: the request has no constraint, and takes no
    // memory for one. The constraint sets it when the slot begins (sd_slot_begin sets NULL) and,
    // before sd_slot_shape, fills allowed[j] with the set behind timeline and draft[0..j); NULL: all.
    // The sets must stay until the step's tokens are picked.
    const uint32_t **allowed;
    sd_constraint *constraint; // made for the slot's first request that has a grammar
    sd_counts counts;
    sd_reasoning_state reasoning; // behind the timeline
    sd_reasoning_state ahead;     // behind the first n_ahead tokens of the draft
    int n_ahead;

    // Output.
    sd_token_info info[SD_MAX_DRAFT + 1]; // the round's tokens
    int n_info;
    sd_utf8_stream utf8;
    sd_buf text;   // text that was not delivered yet
    size_t usable; // of it certainly before any stop string
    sd_finish finish;
    sd_request_stats stats;
    const char *why; // it ended with an error; static
    double admitted, first_token, last_token;
    int begun_at; // tokens in the timeline when this stay began
    // Published, under the lock.
    int left_prompt, said; // rows still to be read; tokens said
    double ends;           // scratch of sd_engine_wait_s
} sd_slot;

// What another thread wants done between two steps, while it waits.
typedef struct sd_errand {
    sd_status (*run)(sd_engine *e, const struct sd_errand *x, sd_error *err);
    const sd_adapter *adapter, *of_draft;
    sd_status status;
    sd_error err;
    double seconds;
    bool done;
    struct sd_errand *next;
} sd_errand;

// The rows of a step.
typedef struct {
    int rows, picked, logits; // picked: rows that want a token; logits: those that want theirs too
    int hidden;               // rows that are wanted themselves
    int running, decode_rows; // requests that decode, and their rows
    int reading, prompt_rows; // requests whose prompt is read, and their rows
    bool speculating;         // a running request may be drafted for
} sd_rows;

// A speed of late: both sums fade.
typedef struct {
    double amount, seconds;
} sd_speed;

struct sd_engine {
    sd_model *model;
    sd_pool *pool;
    sd_context *cx;
    sd_engine_options o;
    int ctx, max_rows, max_picked;
    int longest; // tokens of a sequence at most: ctx, or what the pool holds
    int n_slots; // the ordinary ones and the reserve
    sd_kv_pool *kv;
    sd_slot *slot;     // [n_slots]
    sd_row *rows;      // [max_rows]
    sd_picked *picked; // [max_picked]
    float *logits;     // [max_picked, V]
    float *hidden;     // [max_rows, C] of a model that gives vectors; else NULL
    sd_controller control;
    sd_draft draft;                           // options.draft, opened
    sd_draft_source drafter[SD_MAX_DRAFTERS]; // [n_drafters]
    int n_drafters;
    sd_planner *planner;
    sd_planned **planned;             // [n_slots] of the slots that decode
    int n_planned;                    // in this step
    double draft_seconds;             // in this step, of drafters that are not free
    sd_gspend mask_budget, mask_left; // of a step's masks; what they may still take

    pthread_mutex_t lock;
    pthread_cond_t wakeup;
    bool locks_made, woken;
    sd_errand *errands; // under the lock, as what follows
    bool no_errands;    // nobody runs them any more
    pthread_cond_t errand_done;
    double idle_since;  // of the thread that steps; 0: it has work
    sd_tenant **tenant; // [max_tenants]
    int n_tenants, max_tenants;
    int waiting; // requests, with the sums of their prompts' and answers' lengths
    int64_t waiting_prompt, waiting_limit;
    bool cancelled_waiting;
    uint64_t next_id, turns;
    double answer_share; // how much of its limit an answer has of late
    struct {
        double prompt, decode; // rows a second of one prompt; tokens a second of one answer
    } rate;
    sd_engine_stats published, stats;

    // Dealing prompt rows: the thread that steps.
    const sd_tenant **readers;     // [2 * n_slots]
    int *positions;                // [n_slots + 2] scratch of the queue
    uint64_t last_reader;          // client
    double prompt_cost[SD_DEPTHS]; // seconds of a row by depth; 0: not known
    int score_left;                // rows of this step whose logits may still score a prompt
    sd_speed prompt_speed, decode_speed;
};

/// Tokens of a running sequence without keys and values. 1: it decodes; more: it reads.
static inline int sd_slot_missing(const sd_slot *s) {
    return s->request && !s->fresh ? s->n - s->kv->len : 0;
}
/// Whether it reads and will say nothing.
static inline bool sd_request_reads(const sd_request *r) {
    return r->reading.kind != SD_READ_NOTHING;
}
static inline bool sd_slot_decodes(const sd_slot *s) {
    return sd_slot_missing(s) == 1 && !sd_request_reads(&s->request->r);
}
static inline bool sd_slot_reads_prompt(const sd_slot *s) {
    return sd_slot_missing(s) > 0 && !sd_slot_decodes(s);
}

// engine.c
/// e's options, checked and complete, for a model, and the sizes that follow from them.
sd_status sd_engine_configure(sd_engine *e, const sd_engine_options *o, const sd_model *m,
                              sd_error *err);
static inline sd_kv_pool_size sd_engine_pool_size(const sd_engine *e) {
    return (sd_kv_pool_size){
        .sequences = e->n_slots, .ctx = e->ctx, .step = e->max_rows, .bytes = e->o.kv_memory};
}
// between.c
/// What other threads want done between two steps.
void sd_engine_run_errands(sd_engine *e);
/// A step is over: it sleeps when it has had nothing to do for long enough.
void sd_engine_rest(sd_engine *e, bool has_work);
/// There are requests: it wakes. False: it cannot, and they end with *err.
bool sd_engine_be_awake(sd_engine *e, sd_error *err);
// memory.c
void sd_engine_get_memory(const sd_engine *e, sd_engine_memory *out);
// request.c
/// SD_EINVAL names what is wrong with r.
sd_status sd_engine_request_check(const sd_engine *e, const sd_request *r, sd_error *err);
/// A checked request, with copies of all that it points to.
sd_status sd_engine_request_copy(sd_engine_request **out, const sd_engine *e, const sd_request *r,
                                 sd_error *err);
void sd_engine_request_free(sd_engine_request *j);
/// The only event of a request that never had a slot.
void sd_engine_request_end(sd_engine_request *j, sd_finish f, const char *error);
// queue.c
sd_status sd_queue_add(sd_engine *e, sd_engine_request *j, uint64_t *id,
                       sd_error *err); // takes j when SD_OK
/// Ends what was cancelled while it waited, and fills free slots.
void sd_queue_admit(sd_engine *e);
/// The slot's request is over, and is the caller's.
void sd_queue_leave_slot(sd_engine *e, sd_slot *s);
/// A running request gives its slot and its pages back until there are pages for it: one of those that
/// have pages, if they are several. False: none did.
bool sd_queue_make_room(sd_engine *e);
void sd_queue_close(sd_engine *e); // cancels what waits
// prompt.c
/// Adds prompt rows to the step's decoding rows.
void sd_prompt_rows(sd_engine *e, sd_rows *b);
/// A step with prompt rows took so long.
void sd_prompt_learn(sd_engine *e, int decode_rows, double seconds);
// drafters.c
/// The list of the options: those kinds that have something to draft from. The draft is open.
/// SD_EINVAL says what is missing where the engine's mode asks for one that has nothing.
sd_status sd_drafters_register(sd_engine *e, sd_error *err);
void sd_drafters_unregister(sd_engine *e); // after the slots' drafters
size_t sd_drafters_kv_bytes(const sd_engine *e);
sd_context *sd_drafters_context(const sd_engine *e); // of the draft model; NULL: there is none
/// The kinds that options name, NULL behind the last; and what they are told, for `context`.
const sd_drafter_kind *const *sd_drafters_listed(const sd_engine *e);
sd_draft_setup sd_drafters_setup(const sd_engine *e, const sd_context_options *context);
/// SD_EINVAL likewise, for a request's mode and index.
sd_status sd_drafters_check(const sd_engine *e, const sd_request *r, sd_error *err);
sd_status sd_slot_open_drafters(const sd_engine *e, sd_slot *s, sd_error *err);
/// Chooses who drafts for the slot's request, and begins with its timeline.
void sd_slot_begin_drafters(const sd_engine *e, sd_slot *s);
/// The timeline has grown.
void sd_slot_observe(const sd_engine *e, sd_slot *s);
/// Its request is over, or goes on elsewhere.
void sd_slot_end_drafters(const sd_engine *e, sd_slot *s);
// plan.c
sd_status sd_engine_open_planner(sd_engine *e, sd_error *err); // the drafters are registered
/// Fills the plan of each slot that decodes.
void sd_engine_plan(sd_engine *e);
void sd_engine_score(sd_engine *e, sd_slot *s, const int32_t *emitted, int n);
// shaping_request.c
/// SD_EINVAL names what is wrong with r->shaping.
sd_status sd_shape_check(const sd_engine *e, const sd_request *r, sd_error *err);
/// The shape of a checked request, with copies; NULL where nothing shapes its logits.
sd_status sd_shape_open(sd_shape **out, const sd_engine *e, const sd_request *r, sd_error *err);
void sd_shape_close(sd_shape *h); // NULL is fine
// constraint.c: all do nothing for a request without a grammar
/// False: the request cannot begin; s->why says why.
bool sd_slot_begin_constraint(sd_engine *e, sd_slot *s);
void sd_slot_end_constraint(sd_slot *s); // its request is over, or goes on elsewhere
void sd_slot_close_constraint(sd_slot *s);
size_t sd_constraint_bytes(int V); // of one slot
/// The state behind the timeline; NULL: no grammar.
const sd_grammar_state *sd_slot_grammar(const sd_slot *s);
void sd_slot_plan_constraint(sd_slot *s); // a round begins
/// Whether the token may stand behind the plan's draft[0..j).
bool sd_slot_constraint_allows(sd_slot *s, int j, int32_t token);
/// The mask behind the timeline and ahead [n], for a drafter that draws as the target does; NULL: all,
/// or the plan's draft is another one. It stays until the step's rows are filled.
const uint32_t *sd_slot_mask_ahead(sd_slot *s, const int32_t *ahead, int n);
/// A step begins: its masks have the whole budget, and who has waited longest for one comes first.
void sd_engine_begin_masks(sd_engine *e);
/// s->allowed <- the masks of a step's rows; returns for how many of them. 0: the step's budget is used up,
/// and the slot waits for the next one.
int sd_slot_fill_masks(sd_slot *s, int rows);
/// Before each token of a step: whether its row has no mask and never will, so that the request is over.
bool sd_slot_constraint_is_spent(sd_slot *s);
/// The timeline has one token more; the answer may be over with it.
void sd_slot_constraint_said(sd_slot *s, int32_t token);
/// An end token has ended the answer.
void sd_slot_constraint_ended(sd_slot *s);
// reading.c
/// SD_EINVAL names what is wrong with r->reading.
sd_status sd_reading_check(const sd_engine *e, const sd_request *r, sd_error *err);
/// The copy of a checked request that reads gets its own lists.
sd_status sd_reading_open(sd_engine_request *j, const sd_engine *e, sd_error *err);
void sd_reading_close(sd_engine_request *j);
void sd_slot_begin_reading(const sd_engine *e, sd_slot *s);
/// A row of the step, which may give what the request reads.
void sd_slot_read_row(const sd_engine *e, sd_slot *s, sd_row *row, sd_rows *b);
/// After the step: the values of such a row. The request may be over.
void sd_slot_read(sd_engine *e, sd_slot *s);
// reasoning.c: all do nothing for a request that looks for none
/// SD_EINVAL names what is wrong with r->reasoning.
sd_status sd_reasoning_check(const sd_engine *e, const sd_request *r, sd_error *err);
/// The request was checked, and is copied; *out is NULL where nothing is looked for.
sd_status sd_reasoning_open(sd_reasoning **out, const sd_engine *e, const sd_request *r,
                            sd_error *err);
void sd_reasoning_close(sd_reasoning *r); // NULL is fine
void sd_slot_begin_reasoning(sd_slot *s);
void sd_slot_plan_reasoning(sd_slot *s); // a round begins
/// Whether the token may stand behind the plan's draft[0..j), as far as the budget says.
bool sd_slot_reasoning_allows(sd_slot *s, int j, int32_t token);
/// The set of the one token that is forced behind the plan's draft[0..j); NULL: none is.
const uint32_t *sd_slot_forced(sd_slot *s, int j);
/// The same behind the timeline and ahead [n].
const uint32_t *sd_slot_forced_ahead(sd_slot *s, const int32_t *ahead, int n);
/// The forced token itself; -1: none is. ctx: the slot (a sd_draft_forced_fn).
int32_t sd_slot_draft_forced(void *ctx, const int32_t *ahead, int n);
/// The timeline has one token more.
void sd_slot_reasoning_said(sd_slot *s, int32_t token);
/// Some row may be forced.
static inline bool sd_slot_is_bounded(const sd_slot *s) {
    return s->request->reasoning && s->request->reasoning->budget >= 0;
}
/// The next token is forced.
static inline bool sd_slot_is_forced(const sd_slot *s) {
    return s->request->reasoning && s->reasoning.forced >= 0;
}
// shaping.c
sd_status sd_slot_open_shaping(const sd_engine *e, sd_slot *s, sd_error *err);
void sd_slot_close_shaping(sd_slot *s);
void sd_slot_begin_shaping(sd_slot *s);
/// Makes the picks of the step's `rows` rows of the slot that want a token: behind its timeline, and
/// behind each of draft[0..rows - 1). Costs what the rows bring along, not what was said. Returns how
/// many of the rows the step has: fewer, or none, where a constraint's masks take too long.
int sd_slot_shape(sd_slot *s, int rows);
/// The pick of the j-th of these rows.
static inline const sd_pick *sd_slot_pick(const sd_slot *s, int j) {
    return &s->pick[s->shaped ? j : 0];
}
/// The sd_draft_shaping_fn of a slot whose request is shaped, which is ctx: all but a constraint's
/// sets, which are known only where the draft is.
const sd_shaping *sd_slot_shaping_ahead(void *ctx, sd_shaping *out, sd_token_seen *recent,
                                        const int32_t *ahead, int n);
/// Whether bans and sets leave that row no token.
bool sd_slot_allows_nothing(const sd_engine *e, const sd_slot *s, int j);
// trace.c
/// A step that went well, before its events.
void sd_engine_trace_step(sd_engine *e, const sd_rows *b, double seconds);
// step.c
bool sd_engine_has_work(sd_engine *e); // requests run or wait; the thread that steps
/// A page for one more row of s, which has s->rows; false: s is starved in this step.
bool sd_pages_for_row(sd_slot *s);

// slot.c
void sd_slot_begin(sd_engine *e, sd_slot *s, sd_engine_request *j);
/// What others have computed meanwhile, the slot need not.
void sd_slot_catch_up(sd_engine *e, sd_slot *s);
/// Puts what a later sd_slot_begin needs into its request. False: out of memory, nothing has
/// changed.
bool sd_slot_carry(sd_slot *s);
// output.c
/// One emitted token, or -1 where there is none; true when the request goes on. logits: where the
/// request wants log probabilities.
bool sd_slot_token(sd_engine *e, sd_slot *s, int32_t token, const float *logits);
/// The logits of the j-th row of a slot that wants tokens; NULL where it does not want them.
const float *sd_slot_logits(const sd_engine *e, const sd_slot *s, int j);
/// Whether the row at pos gives logits that score the prompt's next token.
static inline bool sd_slot_scores(const sd_slot *s, int pos) {
    return s->scored > 0 && pos >= s->scored - 1 && pos < s->request->r.n_prompt - 1;
}
/// A request that scores its prompt: its first token is delivered. One without an answer may be over.
void sd_slot_begin_score(sd_slot *s);
/// The prompt's tokens that this step has scored are delivered.
void sd_slot_score(sd_engine *e, sd_slot *s);
/// Delivers the round's tokens and text; ends the request when it has a finish.
void sd_slot_deliver(sd_engine *e, sd_slot *s, const char *error);
