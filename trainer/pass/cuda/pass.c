// A micro-batch: its arrays go to the device in one copy, the blocks upwards, the head, the blocks downwards to the lowest adapted one, and its loss
// comes back. The host goes on as soon as all of it is queued.
#include "trainer/pass/cuda/private.h"

#include "base/list.h"

#include <string.h>

// ---- what goes there

static void write_batch(sd_cuda_train *t) {
    const sd_train_rows *r = &t->rows;
    const sd_cuda_batch *here = &t->mem.here[t->at];
    t->tiles = 0;
    for (int i = 0; i < r->n_segments; i++)
        t->tiles +=
            t->dev->flash_tiles(here->tile + t->tiles, r->segment[i].start, r->segment[i].len);
    for (int n = 0; n < r->N; n++) here->place[n] = -1;
    for (int i = 0; i < r->n_supervised; i++) {
        here->place[r->row[i]] = i;
        if (t->weight) here->weight[i] = t->weight[sd_train_segment_of(r, r->row[i])];
    }
}

// The set that they are written to on the device was read by a micro-batch that the host has waited for.
static sd_status send(sd_cuda_train *t, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_train_memory *m = &t->mem;
    sd_cuda_event *sent = t->flight[t->at].sent;
    write_batch(t);
    CUDA_TRY(t->dev->copy(m->batch_there[t->at], m->batch_here[t->at], m->batch_bytes, t->copies),
             "a copy to the device");
    CUDA_TRY(t->dev->event_record(sent, t->copies), "an event");
    CUDA_TRY(t->dev->stream_follow(t->stream, sent), "a copy to the device");
out:
    return st;
}

// ---- what comes back

static sd_status receive(sd_cuda_train *t, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_train_memory *m = &t->mem;
    CUDA_TRY(t->dev->copy(m->total_here + t->at, m->total, sizeof *m->total, t->stream),
             "a copy from the device");
    if (t->logp)
        CUDA_TRY(t->dev->copy(m->loss_here, m->loss, (size_t)t->rows.n_supervised * sizeof *m->loss,
                              t->stream),
                 "a copy from the device");
    CUDA_TRY(t->dev->event_record(t->flight[t->at].done, t->stream), "an event");
out:
    return st;
}

sd_status sd_cuda_train_collect(sd_cuda_train *t, int i, sd_cuda_losses *losses, sd_error *err) {
    sd_status st = SD_OK;
    sd_cuda_flight *f = &t->flight[i];
    if (!f->flying) goto out;
    f->flying = false;
    CUDA_TRY(t->dev->event_wait(f->done), "a micro-batch");
    losses->of[f->number] = t->mem.total_here[i];
out:
    return st;
}

static sd_status take_logp(sd_cuda_train *t, sd_error *err) {
    sd_status st = SD_OK;
    const sd_train_rows *r = &t->rows;
    CUDA_TRY(t->dev->event_wait(t->flight[t->at].done), "a micro-batch");
    for (int i = 0; i < r->n_supervised; i++)
        t->logp[sd_train_segment_of(r, r->row[i])] -= (double)t->mem.loss_here[i];
out:
    return st;
}

// ---- the pass

static sd_status queue(sd_cuda_train *t, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &t->m->hp;
    const float scale = hp->embedding_scale != 0 ? hp->embedding_scale : 1;
    SD_TRY(send(t, err));
    CUDA_TRY(t->dev->embedding(t->mem.acts[0].x, &t->weights.embedding, t->mem.there[t->at].token,
                               t->rows.N, scale, t->stream),
             "the embedding");
    for (int l = 0; l < hp->L; l++) SD_TRY(sd_cuda_block_forward(t, l, err));
    SD_TRY(sd_cuda_train_head(t, err));
    // The gradient of the one before is read by all devices until it has been added.
    if (t->backward && t->added)
        CUDA_TRY(t->dev->stream_follow(t->stream, t->added), "a sum of gradients");
    for (int l = hp->L - 1; t->backward && l >= t->lowest; l--) {
        SD_TRY(sd_cuda_block_recompute(t, l, err));
        SD_TRY(sd_cuda_block_backward(t, l, err));
    }
    SD_TRY(receive(t, err));
out:
    return st;
}

// The rows of b into the set of arrays whose turn it is, once the micro-batch that had it is over.
static sd_status begin(sd_cuda_train *t, const sd_train_batch *b, sd_cuda_losses *losses,
                       sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_batch *here = &t->mem.here[t->at];
    CUDA_TRY(t->dev->choose(t->device), "choosing the device");
    SD_TRY(sd_cuda_train_collect(t, t->at, losses, err));
    t->rows.token = here->token, t->rows.pos = here->pos;
    t->rows.row = here->row, t->rows.label = here->label;
    SD_TRY(sd_train_compact(&t->rows, b, t->m->hp.V, t->o.max_tokens, err));
    if (b->logp) memset(b->logp, 0, sizeof *b->logp * (size_t)t->rows.n_segments);
out:
    return st;
}

sd_status sd_cuda_train_run(sd_cuda_train *t, const sd_train_batch *b, bool backward, bool *queued,
                            sd_train_sum *sum, sd_cuda_losses *losses, sd_error *err) {
    sd_status st = SD_OK;
    *queued = false;
    SD_TRY(begin(t, b, losses, err));
    if (t->rows.n_supervised > 0) {
        SD_CHECK_ALLOC(SD_GROW(losses->of, losses->n + 1, losses->cap), err);
        t->weight = b->weight, t->logp = b->logp, t->backward = backward;
        st = queue(t, err);
        if (st != SD_OK) { // whatever was queued is over before the host's memory is written again
            (void)t->dev->stream_wait(t->copies);
            (void)t->dev->stream_wait(t->stream);
            goto out;
        }
        t->flight[t->at].flying = *queued = true;
        t->flight[t->at].number = losses->n++;
        if (b->logp) SD_TRY(take_logp(t, err));
        t->at = !t->at;
    }
    sum->tokens += t->rows.N;
    sum->supervised += t->rows.n_supervised;
out:
    return st;
}
