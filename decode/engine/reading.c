// Requests that read: a prompt goes in, and what its last row gives comes back as numbers.
//
// Such a request is all prompt, to its last row: it never decodes, is drafted for by nobody, and its
// row stands in a step among the prompt rows of others. So many short questions about one long text,
// whose pages they find in the prefix cache, are a few rows of one step each.
#include "base/clock.h"
#include "decode/engine/private.h"

#include <math.h>
#include <string.h>

sd_status sd_reading_check(const sd_engine *e, const sd_request *r, sd_error *err) {
    sd_status st = SD_OK;
    const sd_request_reading *read = &r->reading;
    const int V = e->model->hp.V;
    SD_CHECK((unsigned)read->kind < SD_READ_KINDS, err, SD_EINVAL,
             "what a request reads has the kind %d, which is unknown", (int)read->kind);
    if (!sd_request_reads(r)) goto out;
    SD_CHECK(!r->score && !r->no_answer && !r->grammar && r->logprobs < 0, err, SD_EINVAL,
             "a request that reads its prompt has no answer; leave out what asks for one");
    SD_CHECK(read->n_tokens >= 1 && read->n_tokens <= SD_MAX_READ_TOKENS && read->token, err,
             SD_EINVAL, "%d tokens are read; 1 to %d are possible", read->n_tokens,
             SD_MAX_READ_TOKENS);
    for (int i = 0; i < read->n_tokens; i++)
        SD_CHECK(read->token[i] >= 0 && read->token[i] < V, err, SD_EINVAL,
                 "token %d to be read is %d, outside the vocabulary of %d", i, read->token[i], V);
out:
    return st;
}

sd_status sd_reading_open(sd_engine_request *j, sd_error *err) {
    sd_status st = SD_OK;
    sd_request_reading *read = &j->r.reading;
    const size_t n = (size_t)read->n_tokens;
    j->r.spec = SD_SPEC_OFF;
    j->n_values = read->n_tokens;
    j->read_token = sd_alloc(n, sizeof *j->read_token);
    j->values = sd_alloc(n, sizeof *j->values);
    SD_CHECK_ALLOC(j->read_token && j->values, err);
    memcpy(j->read_token, read->token, n * sizeof *j->read_token);
    read->token = j->read_token;
out:
    return st;
}

void sd_reading_close(sd_engine_request *j) {
    free(j->read_token);
    free(j->values);
}

void sd_slot_read_row(sd_slot *s, sd_row *row, sd_rows *b) {
    if (row->pos != s->n - 1) return;
    row->want_logits = true;
    s->read_out = true;
    s->first_logits = b->logits++;
}

static bool read_tokens(const sd_engine *e, const sd_slot *s) {
    const sd_engine_request *j = s->request;
    const int V = e->model->hp.V;
    const float *logits = e->logits + (size_t)s->first_logits * (size_t)V;
    const float total = sd_log_total(logits, V);
    bool finite = true;
    for (int i = 0; i < j->n_values; i++) {
        j->values[i] = logits[j->read_token[i]] - total;
        finite &= isfinite(j->values[i]) != 0;
    }
    return finite;
}

void sd_slot_read(sd_engine *e, sd_slot *s) {
    if (!s->read_out) return;
    s->read_out = false;
    s->first_token = s->last_token = sd_now_s();
    if (read_tokens(e, s)) {
        s->finish = SD_FINISH_STOP;
        return;
    }
    s->finish = SD_FINISH_ERROR;
    s->why = "the model's logits are not finite numbers, so there is nothing to read; check the "
             "model and the adapter for NaN or infinite weights";
    e->stats.nonfinite++;
}
