// Opening and the order of a pass: embed, blocks upwards, head, blocks downwards to the lowest
// adapted one.
#include "trainer/pass/state.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

// ---- open and close

static void rope_tables(sd_train *t, double *inverse) {
    const sd_hparams *hp = &t->m->hp;
    int half = hp->rope_dim / 2;
    const int ctx = t->o.context > 0 ? t->o.context : t->o.max_tokens;
    real *cosine = t->mem.cosine, *sine = t->mem.sine;
    for (int r = 0; r < hp->ropes; r++) {
        double scale = 1;
        sd_rope_frequencies(&hp->rope[r], hp->rope_dim, ctx, inverse, &scale);
        for (int p = 0; p < t->o.max_tokens; p++)
            for (int i = 0; i < half; i++) {
                *cosine++ = (real)(cos(p * inverse[i]) * scale);
                *sine++ = (real)(sin(p * inverse[i]) * scale);
            }
    }
}

sd_status sd_train_open(sd_train **out, sd_model *m, const sd_lora_layout *lay, sd_pool *pool,
                        const sd_train_options *o, sd_error *err) {
    sd_status st = SD_OK;
    double *inverse = NULL;
    sd_train *t = sd_alloc(1, sizeof *t);
    *out = NULL;
    SD_CHECK_ALLOC(t, err);
    sd_train_plan_report plan;
    int threads = sd_pool_threads(pool);
    SD_TRY(sd_lora_layout_copy(&t->lay, lay, err));
    SD_TRY(sd_train_plan(&plan, m, lay, o, threads, err));
    t->m = sd_model_acquire(m);
    t->pool = pool;
    t->o = *o;
    t->recompute = plan.recompute;
    // The double build is the reference: its products never round to bf16, whatever auto chose.
    t->gemm = sd_gemm_packed_best(!SD_REAL_IS_DOUBLE && plan.compute == SD_TRAIN_BF16);
    t->lowest = sd_lora_lowest(lay);
    t->causal = (sd_causal){m->hp.H, m->hp.G, m->hp.D, (real)sd_attention_scale(&m->hp), 0};
    sd_train_carve(&t->mem, NULL, m, lay, t->gemm, o->max_tokens, t->recompute, t->lowest, threads);
    t->block = sd_alloc(t->mem.bytes, 1);
    inverse = sd_alloc((size_t)m->hp.rope_dim / 2 + 1, sizeof *inverse);
    SD_CHECK_ALLOC(inverse, err);
    SD_CHECK(t->block, err, SD_ENOMEM,
             "%zu MiB for the training pass are not there; lower micro_batch_tokens",
             t->mem.bytes >> 20);
    sd_train_carve(&t->mem, t->block, m, lay, t->gemm, o->max_tokens, t->recompute, t->lowest,
                   threads);
    rope_tables(t, inverse);
    t->in_W[0].layer = t->in_W[1].layer = -1;
    *out = t;
    t = NULL;
out:
    free(inverse);
    sd_train_close(t);
    return st;
}

void sd_train_close(sd_train *t) {
    if (!t) return;
    sd_lora_layout_free(&t->lay);
    sd_model_release(t->m);
    free(t->block);
    free(t);
}

// ---- a pass

static void embed_tile(sd_train *t, int layer, int n0, int n1, int worker) {
    const int C = t->m->hp.C;
    const real scale = (real)t->m->hp.embedding_scale;
    for (int n = n0; n < n1; n++) {
        real *x = t->mem.acts[layer].x + (size_t)n * C;
        sd_train_dequantise(x, &t->m->embedding, t->mem.rows.token[n], t->mem.worker[worker].rows);
        for (int c = 0; scale != 0 && c < C; c++) x[c] *= scale;
    }
}

static sd_status run_pass(sd_train *t, const real *theta, real *grad, const sd_train_batch *b,
                          sd_train_sum *sum, sd_error *err) {
    sd_status st = SD_OK;
    sd_train_rows *rows = &t->mem.rows;
    SD_TRY(sd_train_compact(rows, b, t->m->hp.V, t->o.max_tokens, err));
    sum->tokens += rows->N;
    sum->supervised += rows->n_supervised;
    if (b->logp) memset(b->logp, 0, sizeof *b->logp * (size_t)rows->n_segments);
    if (rows->n_supervised == 0) return SD_OK; // nothing to learn or to measure
    t->theta = theta;
    t->grad = grad;
    t->weight = b->weight;
    t->logp = b->logp;
    sd_train_run(&(sd_train_work){.t = t, .tile = embed_tile, .next = {0, SD_STACK_QKV, false}});
    for (int l = 0; l < t->m->hp.L; l++) sd_train_forward(t, l);
    sum->loss += sd_train_loss_head(t);
    if (!grad) return SD_OK;
    for (int l = t->m->hp.L - 1; l >= t->lowest; l--) {
        sd_train_recompute(t, l);
        sd_train_backward(t, l);
    }
out:
    return st;
}

// The frozen weights are read from the model's file in every pass: what was computed counts when
// they are still those of the start.
sd_status sd_train_accumulate(sd_train *t, const real *theta, real *grad, const sd_train_batch *b,
                              sd_train_sum *sum, sd_error *err) {
    sd_status st = run_pass(t, theta, grad, b, sum, err);
    return st == SD_OK ? sd_model_check(t->m, err) : st;
}

sd_status sd_train_loss(sd_train *t, const real *theta, const sd_train_batch *b, sd_train_sum *sum,
                        sd_error *err) {
    sd_status st = run_pass(t, theta, NULL, b, sum, err);
    return st == SD_OK ? sd_model_check(t->m, err) : st;
}
