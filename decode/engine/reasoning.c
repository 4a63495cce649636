// Where an answer reasons, token by token, and what ends that when its budget is used up.
//
// The state behind a token is a function of the answer's tokens up to it: it counts them by their place and never
// by steps. So row j, whose state is that behind the timeline and draft[0..j), is forced exactly where plain
// decoding would be, and a draft that goes on reasoning there is not accepted.
#include "base/memory.h"
#include "decode/engine/private.h"

#include <string.h>

// ---- requests

static sd_status check_mark(const char *mark, const char *what, sd_error *err) {
    sd_status st = SD_OK;
    size_t n = mark ? strlen(mark) : 0;
    SD_CHECK(n >= 1 && n <= SD_MAX_REASONING_MARK, err, SD_EINVAL,
             "the mark that %s reasoning has %zu bytes; 1 to %d are possible", what, n,
             SD_MAX_REASONING_MARK);
out:
    return st;
}

sd_status sd_reasoning_check(const sd_engine *e, const sd_request *r, sd_error *err) {
    const sd_request_reasoning *h = &r->reasoning;
    sd_status st = SD_OK;
    SD_CHECK(h->open || !h->bounded, err, SD_EINVAL,
             "a budget for reasoning, and nothing says where that is");
    if (!h->open) return SD_OK;
    SD_TRY(check_mark(h->open, "begins", err));
    SD_TRY(check_mark(h->close, "ends", err));
    SD_CHECK(e->model->tokenizer, err, SD_EINVAL,
             "reasoning is found by its text, and this model has no tokenizer");
    SD_CHECK(!h->bounded || (h->budget >= 0 && h->n_forced >= 1 && h->n_forced <= SD_MAX_FORCED),
             err, SD_EINVAL,
             "a budget of %d tokens that %d tokens end; give 0 or more, and 1 to %d", h->budget,
             h->n_forced, SD_MAX_FORCED);
    for (int i = 0; h->bounded && i < h->n_forced; i++)
        SD_CHECK(h->forced[i] >= 0 && h->forced[i] < e->model->hp.V, err, SD_EINVAL,
                 "token %d that ends reasoning is %d, outside the vocabulary of %d", i,
                 h->forced[i], e->model->hp.V);
out:
    return st;
}

// fall[k]: the longest proper end of the first k bytes that begins the mark.
static int find_falls(char *text, int *fall, const char *mark) {
    int n = (int)strlen(mark);
    memcpy(text, mark, (size_t)n);
    fall[0] = fall[1] = 0;
    for (int k = 1; k < n; k++) {
        int f = fall[k];
        while (f > 0 && mark[f] != mark[k]) f = fall[f];
        fall[k + 1] = f + (mark[f] == mark[k]);
    }
    return n;
}

sd_status sd_reasoning_open(sd_reasoning **out, const sd_engine *e, const sd_request *r,
                            sd_error *err) {
    const sd_request_reasoning *h = &r->reasoning;
    sd_status st = SD_OK;
    sd_reasoning *own = NULL;
    *out = NULL;
    if (!h->open) return SD_OK;
    own = sd_alloc(1, sizeof *own);
    SD_CHECK_ALLOC(own, err);
    own->open.n = find_falls(own->open.text, own->open.fall, h->open);
    own->close.n = find_falls(own->close.text, own->close.fall, h->close);
    own->tokenizer = e->model->tokenizer;
    own->inside = h->inside, own->again = h->again;
    own->budget = h->bounded ? h->budget : -1;
    own->n_forced = h->bounded ? h->n_forced : 0;
    own->words = ((size_t)e->model->hp.V + 31) / 32;
    if (h->bounded) {
        own->mask = calloc((size_t)own->n_forced * own->words, sizeof *own->mask);
        SD_CHECK_ALLOC(own->mask, err);
    }
    for (int i = 0; i < own->n_forced; i++) {
        int32_t token = own->forced[i] = h->forced[i];
        own->mask[(size_t)i * own->words + (size_t)token / 32] |= 1u << token % 32;
    }
    *out = own, own = NULL;
out:
    sd_reasoning_close(own);
    return st;
}

void sd_reasoning_close(sd_reasoning *r) {
    if (r) free(r->mask);
    free(r);
}

// ---- the state behind each token

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// Bytes of a mark that the text ends with, behind one byte more.
static int search(const char *mark, const int *fall, int matched, char c) {
    while (matched > 0 && mark[matched] != c) matched = fall[matched];
    return matched + (mark[matched] == c);
}

static void take_byte(sd_reasoning_state *x, const sd_reasoning *r, char c) {
    if (x->at == SD_REASONING_OUT) return;
    if (x->at == SD_REASONING_INSIDE) {
        x->matched = search(r->close.text, r->close.fall, x->matched, c);
        if (x->matched < r->close.n) return;
        x->at = r->again ? SD_REASONING_BEFORE : SD_REASONING_OUT;
        x->matched = 0;
        return;
    }
    if (r->again) {
        x->matched = search(r->open.text, r->open.fall, x->matched, c);
    } else if (x->matched > 0 || !is_space(c)) {
        if (r->open.text[x->matched] != c) {
            x->at = SD_REASONING_OUT;
            return;
        }
        x->matched++;
    }
    if (x->matched < r->open.n) return;
    x->at = SD_REASONING_INSIDE;
    x->matched = 0;
}

static void force_when_used_up(sd_reasoning_state *x, const sd_reasoning *r) {
    if (r->budget >= 0 && x->at == SD_REASONING_INSIDE && x->tokens >= r->budget) x->forced = 0;
}

static void begin(sd_reasoning_state *x, const sd_reasoning *r) {
    *x = (sd_reasoning_state){.at = r->inside ? SD_REASONING_INSIDE : SD_REASONING_BEFORE,
                              .forced = -1};
    force_when_used_up(x, r);
}

static void take(sd_reasoning_state *x, const sd_reasoning *r, int32_t token) {
    size_t len = 0;
    if (x->forced >= 0) {
        if (++x->forced < r->n_forced) return;
        x->forced = -1, x->matched = 0;
        x->at = r->again ? SD_REASONING_BEFORE : SD_REASONING_OUT;
        return;
    }
    bool inside = x->at == SD_REASONING_INSIDE;
    const char *bytes = sd_tokenizer_bytes(r->tokenizer, token, &len);
    for (size_t i = 0; i < len; i++) take_byte(x, r, bytes[i]);
    x->tokens += inside && x->at == SD_REASONING_INSIDE;
    force_when_used_up(x, r);
}

// ---- a slot's

void sd_slot_begin_reasoning(sd_slot *s) {
    const sd_reasoning *r = s->request->reasoning;
    if (!r) return;
    begin(&s->reasoning, r);
    // What was said before the slot was taken away.
    for (int i = s->request->r.n_prompt; i < s->n; i++) take(&s->reasoning, r, s->timeline[i]);
    sd_slot_plan_reasoning(s);
}

void sd_slot_plan_reasoning(sd_slot *s) {
    s->ahead = s->reasoning;
    s->n_ahead = 0;
}

static const uint32_t *mask_of(const sd_reasoning *r, const sd_reasoning_state *x) {
    return x->forced < 0 ? NULL : r->mask + (size_t)x->forced * r->words;
}

const uint32_t *sd_slot_forced(sd_slot *s, int j) {
    const sd_reasoning *r = s->request->reasoning;
    if (!sd_slot_is_bounded(s)) return NULL;
    if (s->n_ahead > j) sd_slot_plan_reasoning(s);
    for (; s->n_ahead < j; s->n_ahead++) take(&s->ahead, r, s->plan.draft[s->n_ahead]);
    return mask_of(r, &s->ahead);
}

// The state behind the timeline and ahead [n], which is the plan's draft as a rule.
static sd_reasoning_state state_ahead(sd_slot *s, const int32_t *ahead, int n) {
    sd_reasoning_state x = s->reasoning;
    if (n > 0 && memcmp(ahead, s->plan.draft, (size_t)n * sizeof *ahead) == 0) {
        sd_slot_forced(s, n);
        return s->ahead;
    }
    for (int i = 0; i < n; i++) take(&x, s->request->reasoning, ahead[i]);
    return x;
}

const uint32_t *sd_slot_forced_ahead(sd_slot *s, const int32_t *ahead, int n) {
    if (!sd_slot_is_bounded(s)) return NULL;
    sd_reasoning_state x = state_ahead(s, ahead, n);
    return mask_of(s->request->reasoning, &x);
}

int32_t sd_slot_draft_forced(void *ctx, const int32_t *ahead, int n) {
    sd_slot *s = ctx;
    if (!sd_slot_is_bounded(s)) return -1;
    sd_reasoning_state x = state_ahead(s, ahead, n);
    return x.forced < 0 ? -1 : s->request->reasoning->forced[x.forced];
}

bool sd_slot_reasoning_allows(sd_slot *s, int j, int32_t token) {
    return !sd_slot_forced(s, j) || s->request->reasoning->forced[s->ahead.forced] == token;
}

void sd_slot_reasoning_said(sd_slot *s, int32_t token) {
    const sd_reasoning *r = s->request->reasoning;
    if (!r) return;
    take(&s->reasoning, r, token);
    s->stats.reasoning = s->reasoning.tokens;
}
