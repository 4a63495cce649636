// A request of the engine: what it must be, the copy that the engine keeps of it, and its end.
#include "base/clock.h"
#include "decode/engine/private.h"

#include <math.h>
#include <string.h>

void sd_engine_request_free(sd_engine_request *j) {
    if (!j) return;
    for (int i = 0; i < SD_MAX_STOPS; i++) free(j->stop[i]);
    free(j->prompt);
    free(j->stop_token);
    if (j->carried) {
        sd_buf_free(&j->carried->text);
        free(j->carried->timeline);
        free(j->carried);
    }
    sd_adapter_release(j->r.adapter);
    sd_adapter_release(j->r.draft_adapter);
    sd_corpus_close(j->r.corpus);
    sd_grammar_release(j->r.grammar);
    sd_shape_close(j->shape);
    sd_reasoning_close(j->reasoning);
    sd_reading_close(j);
    free(j);
}

static sd_status check_sampling(const sd_sampling *p, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(isfinite(p->temperature) && p->temperature >= 0 && p->temperature <= 100, err,
             SD_EINVAL, "temperature %g is outside 0 to 100", (double)p->temperature);
    SD_CHECK(p->top_k >= 0, err, SD_EINVAL, "top_k %d is negative; 0 turns it off", p->top_k);
    SD_CHECK(p->top_p >= 0 && p->top_p <= 1, err, SD_EINVAL,
             "top_p %g is outside 0 to 1; 1 turns it off", (double)p->top_p);
    SD_CHECK(p->min_p >= 0 && p->min_p <= 1, err, SD_EINVAL,
             "min_p %g is outside 0 to 1; 0 turns it off", (double)p->min_p);
out:
    return st;
}

static sd_status check_stops(const sd_engine *e, const sd_request *r, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(r->n_stop >= 0 && r->n_stop <= SD_MAX_STOPS, err, SD_EINVAL,
             "%d stop strings; at most %d are possible", r->n_stop, SD_MAX_STOPS);
    SD_CHECK(r->n_stop == 0 || e->model->tokenizer, err, SD_EINVAL,
             "stop strings need a tokenizer and this model has none; use stop tokens");
    for (int i = 0; i < r->n_stop; i++) {
        size_t len = r->stop[i] ? strlen(r->stop[i]) : 0;
        SD_CHECK(len >= 1 && len <= SD_MAX_STOP_BYTES, err, SD_EINVAL,
                 "stop string %d has %zu bytes; 1 to %d are possible", i, len, SD_MAX_STOP_BYTES);
    }
    SD_CHECK(r->n_shown_tokens >= 0 && r->n_shown_tokens <= SD_MAX_SHOWN_TOKENS, err, SD_EINVAL,
             "%d special tokens in the text; at most %d are possible", r->n_shown_tokens,
             SD_MAX_SHOWN_TOKENS);
    SD_CHECK(r->n_stop_token >= 0 && r->n_stop_token <= 4096, err, SD_EINVAL,
             "%d stop tokens; at most 4096 are possible", r->n_stop_token);
out:
    return st;
}

sd_status sd_engine_request_check(const sd_engine *e, const sd_request *r, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(r->n_prompt >= 1 && r->prompt, err, SD_EINVAL,
             "the prompt has no tokens; at least one is needed");
    SD_CHECK(r->n_prompt < e->ctx, err, SD_EINVAL,
             "the prompt has %d tokens and the context %d; shorten it or raise --ctx", r->n_prompt,
             e->ctx);
    SD_CHECK(r->n_prompt < e->longest, err, SD_EINVAL,
             "the prompt has %d tokens and the memory for keys and values holds %d; shorten it or "
             "raise --kv-memory",
             r->n_prompt, e->longest);
    for (int i = 0; i < r->n_prompt; i++)
        SD_CHECK(r->prompt[i] >= 0 && r->prompt[i] < e->model->hp.V, err, SD_EINVAL,
                 "prompt token %d is %d, outside the vocabulary of %d", i, r->prompt[i],
                 e->model->hp.V);
    SD_TRY(check_sampling(&r->sampling, err));
    SD_TRY(check_stops(e, r, err));
    SD_TRY(sd_shape_check(e, r, err));
    SD_TRY(sd_reasoning_check(e, r, err));
    SD_TRY(sd_reading_check(e, r, err));
    SD_CHECK(r->logprobs >= -1 && r->logprobs <= 20, err, SD_EINVAL,
             "logprobs %d is outside -1 to 20", r->logprobs);
    SD_CHECK(!r->score || r->logprobs >= 0, err, SD_EINVAL,
             "a prompt is scored by log probabilities; ask for logprobs");
    SD_CHECK(r->score_from >= 0 && (r->score || r->score_from == 0), err, SD_EINVAL,
             "a prompt is scored from token %d on; give 0 or more, and score", r->score_from);
    SD_CHECK(r->max_draft >= 0 && r->max_draft <= SD_MAX_DRAFT, err, SD_EINVAL,
             "drafts of %d tokens are outside 0 to %d", r->max_draft, SD_MAX_DRAFT);
    SD_CHECK((unsigned)r->spec < SD_SPEC_COUNT, err, SD_EINVAL, "speculation mode %d is unknown",
             (int)r->spec);
    SD_TRY(sd_drafters_check(e, r, err));
    SD_CHECK(!r->grammar || e->model->tokenizer, err, SD_EINVAL,
             "a constraint needs a tokenizer and this model has none");
    SD_CHECK(!r->adapter || r->adapter->n_linears == e->model->n_linears, err, SD_EINVAL,
             "adapter %s is for %d linear maps, the model has %d", r->adapter->name,
             r->adapter->n_linears, e->model->n_linears);
    SD_CHECK(!r->draft_adapter ||
                 (e->draft.model && e->draft.model->n_linears == r->draft_adapter->n_linears),
             err, SD_EINVAL, "adapter %s is not for this engine's draft model",
             r->draft_adapter->name);
out:
    return st;
}

sd_status sd_engine_request_copy(sd_engine_request **out, const sd_engine *e, const sd_request *r,
                                 sd_error *err) {
    sd_status st = SD_OK;
    sd_engine_request *j = sd_alloc(1, sizeof *j);
    SD_CHECK_ALLOC(j, err);
    j->r = *r;
    j->r.adapter = sd_adapter_acquire(r->adapter);
    j->r.draft_adapter = sd_adapter_acquire(r->draft_adapter);
    j->r.corpus = sd_corpus_acquire(r->corpus);
    j->r.grammar = r->grammar ? sd_grammar_acquire(r->grammar) : NULL;
    j->r.constraint = (sd_grammar_spec){0}; // its text is the caller's
    j->prompt = sd_alloc((size_t)r->n_prompt, sizeof *j->prompt);
    j->stop_token = sd_alloc((size_t)r->n_stop_token, sizeof *j->stop_token);
    SD_CHECK_ALLOC(j->prompt && j->stop_token, err);
    memcpy(j->prompt, r->prompt, (size_t)r->n_prompt * sizeof *j->prompt);
    if (r->n_stop_token)
        memcpy(j->stop_token, r->stop_token, (size_t)r->n_stop_token * sizeof *j->stop_token);
    for (int i = 0; i < r->n_stop; i++) {
        j->stop[i] = sd_strdup(r->stop[i]);
        SD_CHECK_ALLOC(j->stop[i], err);
        j->stop_len[i] = strlen(j->stop[i]);
    }
    j->r.prompt = j->prompt, j->r.stop_token = j->stop_token;
    SD_TRY(sd_shape_open(&j->shape, e, &j->r, err));
    SD_TRY(sd_reasoning_open(&j->reasoning, e, &j->r, err));
    if (sd_request_reads(r)) SD_TRY(sd_reading_open(j, e, err));
    j->r.reasoning = (sd_request_reasoning){0};
    j->r.shaping = (sd_request_shaping){.min_tokens = r->shaping.min_tokens};
    j->submitted = sd_now_s();
    *out = j, j = NULL;
out:
    sd_engine_request_free(j);
    return st;
}

void sd_engine_request_end(sd_engine_request *j, sd_finish f, const char *error) {
    sd_request_stats stats = {.prompt_tokens = j->r.n_prompt,
                              .queue_ms = (sd_now_s() - j->submitted) * 1e3};
    sd_event ev = {.id = j->id, .text = "", .finish = f, .error = error, .stats = &stats};
    if (j->r.on_event) j->r.on_event(j->r.ctx, &ev);
}
