// What a trace is told (decode/draft/trace.h): each step, and of an answer what each drafter would
// have proposed at each of its tokens, whoever was asked while it was made.
#include "decode/engine/private.h"

#include <string.h>

enum { BEYOND = 8 }; // tokens of a chain behind its first wrong one

void sd_engine_trace_step(sd_engine *e, const sd_rows *b, double seconds) {
    if (b->running == 0) {
        if (b->prompt_rows > 0) sd_trace_prefill(e->o.trace, b->prompt_rows, seconds);
        return;
    }
    sd_trace_round(e->o.trace, e->planner,
                   &(sd_trace_step){.n = b->running,
                                    .sequence = e->planned,
                                    .planned = e->n_planned,
                                    .prompt_rows = b->prompt_rows,
                                    .speculating = b->speculating,
                                    .seconds = seconds,
                                    .draft_seconds = e->draft_seconds});
}

// What the drafter would draft from the end of its timeline on; `truth` [n] is what follows there.
static int draft_alone(sd_proposal *out, sd_drafter *d, int most, const int32_t *truth, int n) {
    const sd_drafter_kind *kind = d->kind;
    int made = 0, wrong = 0;
    kind->rewind(d);
    while (made < most && wrong <= BEYOND && kind->peek(d, &out[made])) {
        if (wrong > 0 || made >= n || out[made].token != truth[made]) wrong++;
        kind->advance(d, out[made++].token);
    }
    return made;
}

// The chains of one drafter over the slot's timeline, whose last n tokens are the answer.
static void shadow(sd_engine *e, sd_slot *s, const sd_request *r, int i, int n) {
    const sd_drafter_kind *kind = e->drafter[i].kind;
    sd_drafter *d = s->drafter[i];
    sd_proposal chain[SD_MAX_DRAFT];
    const int n_prompt = r->n_prompt;
    sd_draft_start start = {.timeline = s->timeline,
                            .n = n_prompt,
                            .sampling = &r->sampling,
                            .corpus = r->corpus,
                            .adapter = r->adapter};
    sd_trace_shadow(e->o.trace);
    if (n > 1) kind->begin(d, &start);
    for (int k = 1; k < n; k++) {
        int at = n_prompt + k, made = 0;
        kind->observe(d, at);
        bool ready = !kind->prepare || kind->prepare(d, e->ctx);
        if (ready)
            made =
                draft_alone(chain, d, kind->read_bytes ? 1 : SD_MAX_DRAFT, s->timeline + at, n - k);
        sd_trace_chain(e->o.trace, chain, made);
    }
    if (n > 1 && kind->end) kind->end(d);
}

sd_status sd_engine_trace_answer(sd_engine *e, const sd_request *r, uint64_t id,
                                 const int32_t *answer, int n, sd_error *err) {
    sd_status st = SD_OK;
    sd_slot *s = &e->slot[0];
    SD_CHECK(e->o.trace, err, SD_EINVAL, "this engine records no trace");
    for (int i = 0; i < e->n_slots; i++)
        SD_CHECK(!e->slot[i].request, err, SD_EINVAL, "an answer is traced when no request runs");
    SD_CHECK(n >= 0 && r->n_prompt >= 1 && n <= e->ctx - r->n_prompt, err, SD_EINVAL,
             "an answer of %d tokens behind %d is not one of this engine's", n, r->n_prompt);
    memcpy(s->timeline, r->prompt, (size_t)r->n_prompt * sizeof *s->timeline);
    memcpy(s->timeline + r->n_prompt, answer, (size_t)n * sizeof *s->timeline);
    sd_trace_answer(e->o.trace, id, answer, n);
    for (int i = 0; i < e->n_drafters; i++) shadow(e, s, r, i, n);
    sd_trace_answer_end(e->o.trace);
out:
    return st;
}
