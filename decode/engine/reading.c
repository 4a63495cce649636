// Requests that read: a prompt goes in, and what its last row gives, or all its rows, comes back as numbers.
//
// Such a request is all prompt, to its last row: it never decodes, is drafted for by nobody, and its
// row stands in a step among the prompt rows of others. So many short questions about one long text,
// whose pages they find in the prefix cache, are a few rows of one step each.
#include "base/clock.h"
#include "decode/engine/private.h"
#include "model/infer/backend.h"

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
    SD_CHECK(
        read->kind == SD_READ_TOKENS || e->hidden, err, SD_EINVAL,
        "this model does not say how its rows become a vector; use one that states its pooling");
    SD_CHECK(read->kind == SD_READ_TOKENS || !sd_context_backend(e->cx)->own_memory, err, SD_EINVAL,
             "vectors are not given by this device; start the server with --device cpu");
    if (read->kind != SD_READ_TOKENS) goto out;
    SD_CHECK(read->n_tokens >= 1 && read->n_tokens <= SD_MAX_READ_TOKENS && read->token, err,
             SD_EINVAL, "%d tokens are read; 1 to %d are possible", read->n_tokens,
             SD_MAX_READ_TOKENS);
    for (int i = 0; i < read->n_tokens; i++)
        SD_CHECK(read->token[i] >= 0 && read->token[i] < V, err, SD_EINVAL,
                 "token %d to be read is %d, outside the vocabulary of %d", i, read->token[i], V);
out:
    return st;
}

sd_status sd_reading_open(sd_engine_request *j, const sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_request_reading *read = &j->r.reading;
    const bool tokens = read->kind == SD_READ_TOKENS;
    const size_t C = (size_t)e->model->hp.C, n = tokens ? (size_t)read->n_tokens : 0;
    j->r.spec = SD_SPEC_OFF;
    j->n_values = tokens ? read->n_tokens : e->model->hp.C;
    j->read_token = sd_alloc(n, sizeof *j->read_token);
    j->values = sd_alloc((size_t)j->n_values, sizeof *j->values);
    j->sum = sd_alloc(read->kind == SD_READ_MEAN ? C : 0, sizeof *j->sum);
    SD_CHECK_ALLOC(j->read_token && j->values && j->sum, err);
    if (n) memcpy(j->read_token, read->token, n * sizeof *j->read_token);
    read->token = j->read_token;
out:
    return st;
}

void sd_reading_close(sd_engine_request *j) {
    free(j->read_token);
    free(j->values);
    free(j->sum);
}

// One that gave its slot back begins with its first row again.
void sd_slot_begin_reading(const sd_engine *e, sd_slot *s) {
    s->read_out = false;
    if (s->request->r.reading.kind == SD_READ_MEAN)
        memset(s->request->sum, 0, (size_t)e->model->hp.C * sizeof *s->request->sum);
}

void sd_slot_read_row(const sd_engine *e, sd_slot *s, sd_row *row, sd_rows *b) {
    const sd_read_kind kind = s->request->r.reading.kind;
    const bool last = row->pos == s->n - 1;
    s->read_out |= last;
    if (kind == SD_READ_TOKENS && last) {
        row->want_logits = true;
        s->first_logits = b->logits++;
    } else if (kind == SD_READ_MEAN || (kind == SD_READ_LAST && last)) {
        row->hidden = e->hidden + (size_t)b->hidden++ * (size_t)e->model->hp.C;
    }
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

// Rows are added in the order of their places, so the sum's bits do not depend on how they came.
static void add_rows(const sd_engine *e, sd_slot *s) {
    const int C = e->model->hp.C;
    const float *row = e->hidden + (size_t)s->first_hidden * (size_t)C;
    for (int k = 0; k < s->rows; k++, row += C)
        for (int c = 0; c < C; c++) s->request->sum[c] += (double)row[c];
}

static bool read_vector(const sd_engine *e, const sd_slot *s) {
    const sd_engine_request *j = s->request;
    const float *row = e->hidden + (size_t)s->first_hidden * (size_t)e->model->hp.C;
    bool finite = true;
    for (int c = 0; c < j->n_values; c++) {
        j->values[c] = j->r.reading.kind == SD_READ_MEAN ? (float)(j->sum[c] / s->n) : row[c];
        finite &= isfinite(j->values[c]) != 0;
    }
    return finite;
}

void sd_slot_read(sd_engine *e, sd_slot *s) {
    const sd_read_kind kind = s->request->r.reading.kind;
    if (kind == SD_READ_MEAN && s->rows > 0) add_rows(e, s);
    if (!s->read_out) return;
    s->read_out = false;
    s->first_token = s->last_token = sd_now_s();
    if (kind == SD_READ_TOKENS ? read_tokens(e, s) : read_vector(e, s)) {
        s->finish = SD_FINISH_STOP;
        return;
    }
    s->finish = SD_FINISH_ERROR;
    s->why = "what the model gives are not finite numbers, so there is nothing to read; check the "
             "model and the adapter for NaN or infinite weights";
    e->stats.nonfinite++;
}
