// What shapes a request's logits: what it must be, and how it is made ready when it is submitted, so
// that a round neither allocates nor looks anything up.
#include "base/memory.h"
#include "decode/engine/private.h"

#include <math.h>
#include <string.h>

// ---- checks

static sd_status check_penalties(const sd_request_shaping *s, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(s->presence >= -2 && s->presence <= 2, err, SD_EINVAL,
             "a presence penalty of %g is outside -2 to 2; 0 turns it off", (double)s->presence);
    SD_CHECK(s->frequency >= -2 && s->frequency <= 2, err, SD_EINVAL,
             "a frequency penalty of %g is outside -2 to 2; 0 turns it off", (double)s->frequency);
    SD_CHECK(s->repetition == 0 || (s->repetition >= .01f && s->repetition <= 100), err, SD_EINVAL,
             "a repetition penalty of %g is outside 0.01 to 100; 1 turns it off",
             (double)s->repetition);
out:
    return st;
}

static sd_status check_bias(const sd_request_shaping *s, int V, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(s->n_bias >= 0 && s->n_bias <= SD_MAX_BIAS, err, SD_EINVAL,
             "a bias for %d tokens; at most %d are possible", s->n_bias, SD_MAX_BIAS);
    for (int i = 0; i < s->n_bias; i++) {
        SD_CHECK(s->bias[i].token >= 0 && s->bias[i].token < V, err, SD_EINVAL,
                 "a bias for token %d, outside the vocabulary of %d", s->bias[i].token, V);
        SD_CHECK(s->bias[i].bias >= -100 && s->bias[i].bias <= 100, err, SD_EINVAL,
                 "a bias of %g for token %d is outside -100 to 100", (double)s->bias[i].bias,
                 s->bias[i].token);
    }
out:
    return st;
}

static sd_status check_bad_words(const sd_request_shaping *s, int V, sd_error *err) {
    sd_status st = SD_OK;
    int words = 0;
    SD_CHECK(s->n_bad_words >= 0 && (s->n_bad_words == 0 || s->bad_words), err, SD_EINVAL,
             "bad words of %d tokens are not possible", s->n_bad_words);
    for (int i = 0; i < s->n_bad_words; words++) {
        int n = s->bad_words[i++];
        SD_CHECK(n >= 1 && n <= SD_MAX_BAD_WORD_TOKENS && n <= s->n_bad_words - i, err, SD_EINVAL,
                 "a bad word has %d tokens; 1 to %d are possible", n, SD_MAX_BAD_WORD_TOKENS);
        for (int end = i + n; i < end; i++)
            SD_CHECK(s->bad_words[i] >= 0 && s->bad_words[i] < V, err, SD_EINVAL,
                     "a bad word has token %d, outside the vocabulary of %d", s->bad_words[i], V);
    }
    SD_CHECK(words <= 2 * SD_MAX_BAD_WORDS, err, SD_EINVAL,
             "%d sequences of bad words; at most %d are possible", words, 2 * SD_MAX_BAD_WORDS);
out:
    return st;
}

// Some token must be left where the answer begins.
static sd_status check_allowed(const sd_engine *e, const sd_request *r, sd_error *err) {
    const sd_request_shaping *s = &r->shaping;
    const int V = e->model->hp.V;
    sd_status st = SD_OK;
    sd_shape *h = NULL;
    bool left = s->n_allowed == 0;
    SD_CHECK(s->n_allowed >= 0 && (s->n_allowed == 0 || s->allowed), err, SD_EINVAL,
             "%d allowed tokens are not possible", s->n_allowed);
    for (int i = 0; i < s->n_allowed; i++)
        SD_CHECK(s->allowed[i] >= 0 && s->allowed[i] < V, err, SD_EINVAL,
                 "allowed token %d is outside the vocabulary of %d", s->allowed[i], V);
    if (left) goto out;
    SD_TRY(sd_shape_open(&h, e, r, err));
    for (int i = 0; i < h->n_always + h->n_ends; i++)
        if (h->banned[i] >= 0 && h->banned[i] < V)
            h->allowed[h->banned[i] / 32] &= ~(UINT32_C(1) << (h->banned[i] % 32));
    for (int w = 0; w < (V + 31) / 32 && !left; w++) left = h->allowed[w] != 0;
    SD_CHECK(left, err, SD_EINVAL,
             "each of the %d allowed tokens is banned by the bad words or min_tokens; allow more",
             s->n_allowed);
out:
    sd_shape_close(h);
    return st;
}

sd_status sd_shape_check(const sd_engine *e, const sd_request *r, sd_error *err) {
    const sd_request_shaping *s = &r->shaping;
    sd_status st = SD_OK;
    SD_TRY(check_penalties(s, err));
    SD_TRY(check_bias(s, e->model->hp.V, err));
    SD_TRY(check_bad_words(s, e->model->hp.V, err));
    SD_CHECK(s->min_tokens >= 0 && s->min_tokens <= SD_MAX_MIN_TOKENS, err, SD_EINVAL,
             "at least %d tokens; 0 to %d are possible", s->min_tokens, SD_MAX_MIN_TOKENS);
    SD_CHECK(r->max_tokens <= 0 || s->min_tokens <= r->max_tokens, err, SD_EINVAL,
             "at least %d tokens and at most %d were asked for; lower the one or raise the other",
             s->min_tokens, r->max_tokens);
    SD_TRY(check_allowed(e, r, err));
out:
    return st;
}

// ---- made ready

void sd_shape_close(sd_shape *h) {
    if (!h) return;
    free(h->banned);
    free(h->sequences);
    free(h->row_banned);
    free(h->bias);
    free(h->allowed);
    free(h);
}

static bool shapes(const sd_request_shaping *s) {
    return s->presence != 0 || s->frequency != 0 || (s->repetition != 0 && s->repetition != 1) ||
           s->n_bias > 0 || s->n_allowed > 0 || s->n_bad_words > 0 || s->min_tokens > 0;
}

// Words of one token are banned for each row, the others where all but their last token were said.
static sd_status take_bad_words(sd_shape *h, const sd_request_shaping *s, sd_error *err) {
    sd_status st = SD_OK;
    h->sequences = sd_alloc((size_t)s->n_bad_words + 1, sizeof *h->sequences);
    SD_CHECK_ALLOC(h->sequences, err);
    for (int i = 0, n; i < s->n_bad_words; i += 1 + n) {
        n = s->bad_words[i];
        if (n == 1) {
            h->banned[h->n_always++] = s->bad_words[i + 1];
            continue;
        }
        memcpy(h->sequences + h->n_sequences, s->bad_words + i, (size_t)(1 + n) * sizeof(int32_t));
        h->n_sequences += 1 + n;
        h->n_words++;
    }
out:
    return st;
}

// What would end the answer, as sd_slot_token sees it.
static void take_ends(sd_shape *h, const sd_model *m, const sd_request *r) {
    int32_t *ends = h->banned + h->n_always;
    for (int i = 0; i < r->n_stop_token; i++) ends[h->n_ends++] = r->stop_token[i];
    if (r->ignore_end) return;
    for (int i = 0; i < r->n_end_tokens; i++) ends[h->n_ends++] = r->end_token[i];
    for (int i = 0; i < m->n_end_tokens; i++) ends[h->n_ends++] = m->end_token[i];
}

static sd_status take_bans(sd_shape *h, const sd_engine *e, const sd_request *r, sd_error *err) {
    const sd_request_shaping *s = &r->shaping;
    sd_status st = SD_OK;
    int ends = r->n_stop_token + r->n_end_tokens + e->model->n_end_tokens;
    if (s->n_bad_words == 0 && s->min_tokens == 0) goto out;
    h->min_tokens = s->min_tokens;
    h->banned = sd_alloc((size_t)(2 * SD_MAX_BAD_WORDS + ends), sizeof *h->banned);
    SD_CHECK_ALLOC(h->banned, err);
    if (s->n_bad_words > 0) SD_TRY(take_bad_words(h, s, err));
    if (s->min_tokens > 0) take_ends(h, e->model, r);
    if (h->n_words == 0) goto out;
    h->row_banned = sd_alloc((SD_MAX_DRAFT + 1) * (size_t)(h->n_always + h->n_ends + h->n_words),
                             sizeof *h->row_banned);
    SD_CHECK_ALLOC(h->row_banned, err);
out:
    return st;
}

static sd_status take_lists(sd_shape *h, const sd_request_shaping *s, int V, sd_error *err) {
    sd_status st = SD_OK;
    if (s->n_bias > 0) {
        h->bias = sd_alloc((size_t)s->n_bias, sizeof *h->bias);
        SD_CHECK_ALLOC(h->bias, err);
        memcpy(h->bias, s->bias, (size_t)s->n_bias * sizeof *h->bias);
        h->fixed.bias = h->bias, h->fixed.n_bias = s->n_bias;
    }
    if (s->n_allowed > 0) {
        h->allowed = sd_alloc(((size_t)V + 31) / 32, sizeof *h->allowed);
        SD_CHECK_ALLOC(h->allowed, err);
        for (int i = 0; i < s->n_allowed; i++)
            h->allowed[s->allowed[i] / 32] |= UINT32_C(1) << (s->allowed[i] % 32);
        h->fixed.also_allowed = h->allowed;
    }
out:
    return st;
}

sd_status sd_shape_open(sd_shape **out, const sd_engine *e, const sd_request *r, sd_error *err) {
    const sd_request_shaping *s = &r->shaping;
    sd_status st = SD_OK;
    sd_shape *h = NULL;
    *out = NULL;
    if (!shapes(s)) goto out;
    h = sd_alloc(1, sizeof *h);
    SD_CHECK_ALLOC(h, err);
    h->of_prompt = s->repetition != 0 && s->repetition != 1;
    h->counts = h->of_prompt || s->presence != 0 || s->frequency != 0;
    h->fixed = (sd_shaping){.repetition = h->of_prompt ? s->repetition : 0,
                            .frequency = s->frequency,
                            .presence = s->presence};
    SD_TRY(take_lists(h, s, e->model->hp.V, err));
    SD_TRY(take_bans(h, e, r, err));
    *out = h, h = NULL;
out:
    sd_shape_close(h);
    return st;
}
