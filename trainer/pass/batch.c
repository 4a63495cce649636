// Padding is left out before anything is computed: a batch of uneven records costs what its tokens
// cost. A segment is a run of one number inside a row; attention, positions and the shift of the
// labels stay inside it.
#include "trainer/pass/batch.h"

#include "datasets/dataset.h"

static sd_status add_token(sd_train_rows *out, const sd_train_batch *b, int row, int t, int V,
                           int max_tokens, sd_error *err) {
    sd_status st = SD_OK;
    size_t i = (size_t)row * (size_t)b->T + (size_t)t;
    SD_CHECK(b->token[i] >= 0 && b->token[i] < V, err, SD_EINVAL,
             "row %d, place %d: token %d is outside the vocabulary of %d; prepare the data with "
             "this model's tokenizer",
             row, t, b->token[i], V);
    SD_CHECK(b->label[i] == SD_NO_LABEL || (b->label[i] >= 0 && b->label[i] < V), err, SD_EINVAL,
             "row %d, place %d: label %d is neither a token nor %d", row, t, b->label[i],
             SD_NO_LABEL);
    SD_CHECK(out->N < max_tokens, err, SD_ELIMIT,
             "a micro-batch of more than %d tokens; raise micro_batch_tokens", max_tokens);
    bool goes_on = t > 0 && b->segment[i - 1] == b->segment[i];
    if (!goes_on) out->segment[out->n_segments++] = (sd_train_segment){out->N, 0};
    sd_train_segment *s = &out->segment[out->n_segments - 1];
    if (goes_on && b->label[i] != SD_NO_LABEL) { // predicted from the token before it
        out->row[out->n_supervised] = out->N - 1;
        out->label[out->n_supervised++] = b->label[i];
    }
    out->token[out->N] = b->token[i];
    out->pos[out->N++] = s->len++;
    if (s->len > out->longest) out->longest = s->len;
out:
    return st;
}

sd_status sd_train_compact(sd_train_rows *out, const sd_train_batch *b, int V, int max_tokens,
                           sd_error *err) {
    sd_status st = SD_OK;
    out->N = out->n_segments = out->n_supervised = out->longest = 0;
    SD_CHECK(b->rows >= 0 && b->T >= 0, err, SD_EINVAL, "a batch of %d rows of %d tokens", b->rows,
             b->T);
    for (int row = 0; row < b->rows; row++) {
        for (int t = 0; t < b->T; t++) {
            int s = b->segment[(size_t)row * (size_t)b->T + (size_t)t];
            SD_CHECK(s >= -1, err, SD_EINVAL, "row %d, place %d: segment %d; -1 is padding", row, t,
                     s);
            if (s >= 0) SD_TRY(add_token(out, b, row, t, V, max_tokens, err));
        }
    }
out:
    return st;
}

int sd_train_segments(const sd_train_batch *b) {
    int n = 0;
    for (int row = 0; row < b->rows; row++) {
        const int32_t *s = b->segment + (size_t)row * (size_t)b->T;
        for (int t = 0; t < b->T; t++) n += s[t] >= 0 && (t == 0 || s[t] != s[t - 1]);
    }
    return n;
}

int sd_train_segment_of(const sd_train_rows *rows, int token) {
    int low = 0, high = rows->n_segments; // [low, high) holds it
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (rows->segment[middle].start <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}
