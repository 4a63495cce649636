// What a context takes of the device, by sizes that can be told before it is there.
#include "model/infer/cuda/private.h"

#include "base/memory.h"

enum { DEFAULT_ROWS = 512, MAX_ROWS = 65535 }; // rows of a grid
enum { LOGIT_ROWS = 128 };                     // rows that the head gives at a time, at most

sd_status sd_cuda_grow(sd_context *cx, sd_cuda_room *r, size_t bytes, bool device, bool host,
                       const char *what, sd_error *err) {
    sd_status st = SD_OK;
    if (bytes <= r->bytes) goto out;
    sd_cuda_free_room(cx, r);
    if (device) CUDA_TRY(cx->dev->alloc(&r->device, bytes), what);
    if (host) CUDA_TRY(cx->dev->host_alloc(&r->host, bytes), what);
    r->bytes = bytes;
out:
    if (st != SD_OK) sd_cuda_free_room(cx, r);
    return st;
}

void sd_cuda_free_room(sd_context *cx, sd_cuda_room *r) {
    if (r->device) cx->dev->free(r->device);
    if (r->host) cx->dev->host_free(r->host);
    *r = (sd_cuda_room){0};
}

// ---- options

// Keys and values have the type of what enters the products, or are codes.
static sd_status check_kv(const sd_context *cx, sd_kv_type kv, sd_error *err) {
    const sd_kv_type own = cx->real == SD_CUDA_F32 ? SD_KV_F32 : SD_KV_BF16;
    if (kv == SD_KV_AUTO || kv == SD_KV_INT8 || kv == own) return SD_OK;
    return sd_fail(err, SD_EINVAL,
                   "keys and values of %s are not there on a CUDA device, which has %s or int8 "
                   "here; take auto, or the CPU",
                   sd_kv_name(kv), sd_kv_name(own));
}

sd_status sd_cuda_configure(sd_context *cx, const sd_model *m, const sd_context_options *o,
                            sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &m->hp;
    cx->real = o->compute == SD_COMPUTE_FP32 ? SD_CUDA_F32 : SD_CUDA_BF16;
    cx->max_rows = o->max_rows ? o->max_rows : DEFAULT_ROWS;
    cx->max_picked = o->max_picked;
    cx->device = o->device;
    cx->stop = o->stop;
    SD_CHECK(cx->max_rows > 0 && cx->max_rows <= MAX_ROWS, err, SD_EINVAL,
             "%d rows a step, 1 to %d are allowed", cx->max_rows, MAX_ROWS);
    SD_CHECK(o->max_picked >= 0 && o->max_picked <= cx->max_rows, err, SD_EINVAL,
             "tokens of %d rows a step, 0 to %d are possible", o->max_picked, cx->max_rows);
    SD_CHECK(hp->D % 8 == 0 && hp->D <= SD_CUDA_MOST_D, err, SD_EINVAL,
             "%s: heads of %d values; on a CUDA device they have a multiple of 8, at most %d; run "
             "it on the CPU",
             m->path, hp->D, SD_CUDA_MOST_D);
    SD_CHECK(hp->C % 4 == 0 && hp->F % 4 == 0, err, SD_EINVAL,
             "%s: %d channels and %d of the feed-forward; on a CUDA device both are multiples of "
             "4; run it on the CPU",
             m->path, hp->C, hp->F);
    SD_TRY(check_kv(cx, o->kv, err));
    cx->codes = o->kv == SD_KV_INT8;
    cx->logit_rows = cx->max_rows < LOGIT_ROWS ? cx->max_rows : LOGIT_ROWS;
    cx->linears = m->n_linears / hp->L;
out:
    return st;
}

// ---- sums

// A piece of memory taken for steps: where its pointer is, and its bytes.
typedef struct {
    size_t bytes;
    void **to;
    bool host;
} part;
enum { STEP_PARTS = 11 };

static bool has_post_norms(const sd_model *m) {
    for (int l = 0; l < m->hp.L; l++)
        if (m->layer[l].post_attn_norm || m->layer[l].post_ffn_norm) return true;
    return false;
}

static void list_steps(part out[STEP_PARTS], sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    const size_t N = (size_t)cx->max_rows, real = sd_cuda_real_bytes(cx->real), f = sizeof(float),
                 Q = (size_t)hp->H * hp->D, qkv = Q + 2 * (size_t)hp->G * hp->D,
                 rows = (size_t)cx->logit_rows, C = (size_t)hp->C, F = (size_t)hp->F;
    const size_t read = C > F ? C : F, written = qkv > 2 * F ? qkv : 2 * F;
    const part all[STEP_PARTS] = {
        {N * C * f, (void **)&cx->x, false},
        {N * C * f, (void **)&cx->kept_x, false},
        {N * (read > Q ? read : Q) * real, &cx->h, false},
        {N * written * f, (void **)&cx->wide, false},
        {N * Q * real, &cx->q, false},
        {N * Q * real, &cx->kept_q, false},
        {has_post_norms(cx->model) ? N * C * f : 0, (void **)&cx->d, false},
        {cx->codes ? sd_key_scales(hp) * f : 0, (void **)&cx->key_scale, false},
        {rows * (size_t)hp->V * f, (void **)&cx->logits, false},
        {rows * sizeof(int32_t), (void **)&cx->token, false},
        {rows * sizeof(int32_t), (void **)&cx->token_host, true}};
    for (int i = 0; i < STEP_PARTS; i++) out[i] = all[i];
}

size_t sd_cuda_step_sum(const sd_context *cx) {
    sd_context seen = *cx;
    part all[STEP_PARTS];
    size_t sum = 0;
    list_steps(all, &seen);
    for (int i = 0; i < STEP_PARTS; i++) sum += all[i].bytes;
    return sum;
}

sd_status sd_cuda_take_steps(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    part all[STEP_PARTS];
    list_steps(all, cx);
    for (int i = 0; i < STEP_PARTS; i++) {
        if (!all[i].bytes) continue;
        SD_TRY(all[i].host ? sd_cuda_take_host(&cx->owned, all[i].to, all[i].bytes, "steps", err)
                           : sd_cuda_take(&cx->owned, all[i].to, all[i].bytes, "steps", err));
        cx->step_bytes += all[i].bytes;
    }
out:
    return st;
}

// Only LongRoPE turns otherwise in sequences that may go beyond the original context.
static int tables_of(const sd_rotation *r) {
    return r->scaling == SD_ROPE_LONG ? 2 : 1;
}

int sd_cuda_turn_tables(const sd_hparams *hp) {
    int n = 0;
    for (int i = 0; i < hp->ropes; i++) n += tables_of(&hp->rope[i]);
    return n;
}

int sd_cuda_turn_table(const sd_context *cx, int l, int beyond) {
    const sd_hparams *hp = &cx->model->hp;
    const int rope = cx->model->layer[l].rope;
    int at = 0;
    for (int i = 0; i < rope; i++) at += tables_of(&hp->rope[i]);
    return at + (tables_of(&hp->rope[rope]) > 1 ? beyond : 0);
}
