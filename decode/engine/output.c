// From tokens to what the caller sees: text as complete UTF-8, stop strings cut off, events.
//
// Tokens are taken one at a time, also when a round emitted many, so that the text and the place of
// the end are those of plain decoding. Text that could still become a stop string is held back.
#include "base/clock.h"
#include "decode/engine/private.h"

#include <math.h>
#include <string.h>

static bool is_stop_token(const sd_engine *e, const sd_engine_request *j, int32_t token) {
    for (int i = 0; i < j->r.n_stop_token; i++)
        if (j->stop_token[i] == token) return true;
    for (int i = 0; i < j->r.n_end_tokens && !j->r.ignore_end; i++)
        if (j->r.end_token[i] == token) return true;
    return !j->r.ignore_end && sd_model_is_end(e->model, token);
}

// The earliest place of a stop string in the pending text that ends behind its first `before` bytes;
// text.len when there is none. *which: its number, from 1.
static size_t find_stop(const sd_slot *s, size_t before, int *which) {
    size_t at = s->text.len;
    for (int i = 0; i < s->request->r.n_stop; i++) {
        size_t len = s->request->stop_len[i], from = before >= len ? before - len + 1 : 0;
        const char *p = s->text.len > from ? memmem(s->text.data + from, s->text.len - from,
                                                    s->request->stop[i], len)
                                           : NULL;
        if (p && (size_t)(p - s->text.data) < at) at = (size_t)(p - s->text.data), *which = i + 1;
    }
    return at;
}

// Bytes at the end of the pending text that some stop string begins with.
static size_t held_back(const sd_slot *s) {
    size_t most = 0;
    for (int i = 0; i < s->request->r.n_stop; i++) {
        size_t n = s->request->stop_len[i] - 1;
        if (n > s->text.len) n = s->text.len;
        while (n > most && memcmp(s->text.data + s->text.len - n, s->request->stop[i], n) != 0) n--;
        if (n > most) most = n;
    }
    return most;
}

static bool is_shown(const sd_request *r, int32_t token) {
    for (int i = 0; i < r->n_shown_tokens; i++)
        if (r->shown_token[i] == token) return true;
    return false;
}

// The token's text; true when a stop string ended the request, which a forced token does not.
static bool add_text(sd_engine *e, sd_slot *s, int32_t token, bool forced) {
    const sd_tokenizer *t = e->model->tokenizer;
    size_t len = 0;
    if (!t || (sd_tokenizer_is_special(t, token) && !is_shown(&s->request->r, token))) return false;
    const char *bytes = sd_tokenizer_bytes(t, token, &len);
    if (len == 0) return false;
    // The first token's space may be the one that the tokenizer puts before every text.
    size_t drop = 0, before = s->text.len;
    if (s->stats.generated == 1)
        drop = sd_tokenizer_prefix_bytes(t, s->n > 1 ? s->timeline[s->n - 2] : -1, token);
    if (!sd_utf8_stream_add(&s->utf8, bytes + drop, len - drop, &s->text)) {
        s->finish = SD_FINISH_ERROR;
        s->why = "out of memory for the text of one step; ask for fewer tokens";
        return true;
    }
    bool may_end = !forced && s->stats.generated > s->request->r.shaping.min_tokens;
    int which = 0;
    size_t stop = may_end ? find_stop(s, before, &which) : s->text.len;
    if (stop < s->text.len) {
        s->text.len = s->usable = stop;
        s->utf8 = (sd_utf8_stream){0};
        s->stats.stop = which;
        s->finish = SD_FINISH_STOP;
        return true;
    }
    s->usable = s->text.len - held_back(s);
    return false;
}

// want: as sd_request.logprobs.
static void fill_info(sd_token_info *info, int32_t token, const float *logits, int V, int want) {
    info->token = token;
    info->logprob = 0;
    info->n_top = 0;
    if (want < 0) return;
    float total = sd_log_total(logits, V);
    info->logprob = logits[token] - total;
    int32_t top[20];
    info->n_top = want < V ? want : V;
    sd_top_tokens(top, info->n_top, logits, V);
    for (int i = 0; i < info->n_top; i++) {
        info->top[i].token = top[i];
        info->top[i].logprob = logits[top[i]] - total;
    }
}

// ---- the prompt's tokens, scored

static void send_prompt(const sd_slot *s, const sd_token_info *info, int n) {
    const sd_request *r = &s->request->r;
    const sd_event ev = {
        .id = s->request->id, .tokens = info, .n = n, .of_prompt = true, .text = ""};
    if (r->on_event) r->on_event(r->ctx, &ev);
}

// Its prompt is all there is.
static void end_at_prompt(sd_slot *s) {
    s->finish = SD_FINISH_LENGTH;
    s->first_token = s->last_token = sd_now_s();
}

enum { MOST_SCORED = 16 }; // tokens of one event

// The first `upto` tokens, of which nothing is said.
static void skip_scores(sd_slot *s, int upto) {
    sd_token_info info[MOST_SCORED];
    if (upto > s->request->r.n_prompt) upto = s->request->r.n_prompt;
    while (s->scored < upto) {
        const int n = upto - s->scored < MOST_SCORED ? upto - s->scored : MOST_SCORED;
        for (int k = 0; k < n; k++)
            info[k] = (sd_token_info){.token = s->timeline[s->scored + k], .logprob = NAN};
        s->scored += n;
        send_prompt(s, info, n);
    }
}

void sd_slot_begin_score(sd_slot *s) {
    const sd_request *r = &s->request->r;
    if (r->score && s->scored == 0) skip_scores(s, r->score_from > 1 ? r->score_from : 1);
    if (r->no_answer && (!r->score || s->scored == r->n_prompt)) end_at_prompt(s);
}

void sd_slot_score(sd_engine *e, sd_slot *s) {
    const sd_request *r = &s->request->r;
    const int V = e->model->hp.V;
    sd_token_info info[MOST_SCORED];
    for (int i = 0, n; i < s->n_scored; i += n) {
        n = s->n_scored - i < MOST_SCORED ? s->n_scored - i : MOST_SCORED;
        for (int k = 0; k < n; k++)
            fill_info(&info[k], s->timeline[s->scored + k],
                      e->logits + (size_t)(s->first_scored + i + k) * (size_t)V, V, r->logprobs);
        s->scored += n;
        send_prompt(s, info, n);
    }
    s->n_scored = 0;
    if (r->no_answer && s->scored == r->n_prompt) end_at_prompt(s);
}

// ---- the answer's

bool sd_slot_token(sd_engine *e, sd_slot *s, int32_t token, const float *logits) {
    if (sd_slot_constraint_is_spent(s)) return false;
    if (token < 0 && sd_slot_allows_nothing(e, s, s->n_info)) {
        s->finish = SD_FINISH_ERROR;
        s->why = "no token is allowed here: what the request allows, its bad words and min_tokens "
                 "leave none to go on with; allow more";
        return false;
    }
    if (token < 0) {
        s->finish = SD_FINISH_ERROR;
        s->why = "the model's logits are not finite numbers, so there is no next token; check the "
                 "model and the adapter for NaN or infinite weights";
        e->stats.nonfinite++;
        return false;
    }
    s->last_token = sd_now_s();
    if (s->first_token <= 0) s->first_token = s->last_token;
    s->stats.generated++;
    const bool forced = sd_slot_is_forced(s);
    if (!forced && is_stop_token(e, s->request, token)) {
        s->finish = SD_FINISH_STOP;
        sd_slot_constraint_ended(s);
        return false;
    }
    s->timeline[s->n++] = token;
    sd_slot_reasoning_said(s, token);
    fill_info(&s->info[s->n_info++], token, logits, e->model->hp.V, s->request->r.logprobs);
    bool cut = add_text(e, s, token, forced);
    sd_slot_constraint_said(s, token);
    if (cut || s->finish != SD_FINISH_NONE) return false;
    if (s->n == e->longest ||
        (s->request->r.max_tokens > 0 && s->stats.generated >= s->request->r.max_tokens))
        s->finish = SD_FINISH_LENGTH;
    return s->finish == SD_FINISH_NONE;
}

const float *sd_slot_logits(const sd_engine *e, const sd_slot *s, int j) {
    if (s->request->r.logprobs < 0) return NULL;
    return e->logits + (size_t)(s->first_logits + j) * (size_t)e->model->hp.V;
}

static void send(sd_slot *s, const char *error) {
    const sd_request *r = &s->request->r;
    sd_event ev = {.id = s->request->id,
                   .tokens = s->info,
                   .n = s->n_info,
                   .cached_tokens = s->stats.cached_tokens,
                   .text = s->text.data ? s->text.data : "",
                   .text_len = s->usable,
                   .finish = s->finish,
                   .error = s->finish == SD_FINISH_ERROR ? error : NULL,
                   .stats = s->finish ? &s->stats : NULL};
    if (sd_request_reads(r) && s->finish == SD_FINISH_STOP)
        ev.values = s->request->values, ev.n_values = s->request->n_values;
    if (r->on_event) r->on_event(r->ctx, &ev);
    if (s->usable > 0) memmove(s->text.data, s->text.data + s->usable, s->text.len - s->usable);
    s->text.len -= s->usable;
    s->usable = 0;
    s->n_info = 0;
}

void sd_slot_deliver(sd_engine *e, sd_slot *s, const char *error) {
    if (!s->finish && s->n_info == 0) return;
    if (s->finish) {
        // Text that was held back is delivered after all, unless a stop string cut it off.
        if (s->utf8.n > 0) sd_utf8_stream_add(&s->utf8, NULL, 0, &s->text);
        s->usable = s->text.len;
        s->stats.decode_ms = (s->last_token - s->first_token) * 1e3;
        s->stats.prefill_ms = s->first_token > 0 ? (s->first_token - s->admitted) * 1e3 : 0;
        if (!error) error = s->why;
    }
    send(s, error);
    if (!s->finish) return;
    sd_engine_request *j = s->request;
    sd_queue_leave_slot(e, s);
    sd_engine_request_free(j);
}
