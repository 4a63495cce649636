// The engine's thread: opens the model while the event loop already answers "loading", then steps
// until told to stop. Loading is the only writer of the server's model fields, and `loaded`
// publishes them.
#include "decode/serve/server.h"
#include "model/infer/weight_cache/cache.h"

#include <unistd.h>

// A newcomer has a slot at once, and a stream's next tokens come within STEP_MS under prompts of
// others.
enum { RESERVE = 1, STEP_MS = 100 };

static sd_status load(sd_server *s, sd_error *err) {
    sd_status st = SD_OK;
    int n = s->o->adapters ? s->o->adapters->n : 0;
    SD_TRY(sd_model_open(&s->model, s->o->model, err));
    s->model->any_adapter = s->o->other_base;
    s->model->stop = &s->stop; // a signal ends the hashing, packing and timing that follow
    if (s->o->pack_dir)
        SD_TRY(sd_model_use_pack_cache(s->model, s->o->pack_dir, SD_PACK_LEAST, err));
    s->served = sd_alloc((size_t)n + 1, sizeof *s->served);
    SD_CHECK_ALLOC(s->served, err);
    SD_TRY(sd_server_name_base(s, err));
    for (int i = 0; i < n && !atomic_load(&s->stop); i++)
        SD_TRY(sd_server_open_adapter(s, s->o->adapters->item[i], err));
    bool index = s->o->engine.draft != NULL;
    for (int i = 0; i < s->n_served; i++) index |= s->served[i].corpus != NULL;
    SD_CHECK(s->o->engine.spec != SD_SPEC_INDEX || index, err, SD_EINVAL,
             "--spec index needs a corpus index; give one with -d, or a run's folder with -a");
    sd_engine_options o = s->o->engine;
    if (o.reserve == 0) o.reserve = RESERVE;
    if (o.step_ms <= 0) o.step_ms = STEP_MS;
    SD_TRY(sd_engine_open(&s->engine, s->model, &o, err));
    const sd_tokenizer *tok = s->model->tokenizer;
    for (int i = 0; tok && i < sd_tokenizer_size(tok); i++) {
        size_t len;
        sd_tokenizer_bytes(tok, i, &len);
        if (len > s->longest_token) s->longest_token = len;
    }
out:
    return st;
}

void *sd_engine_thread(void *server) {
    sd_server *s = server;
    sd_status st = load(s, &s->load_error);
    atomic_store(&s->loaded, st == SD_OK ? 1 : -1);
    uint64_t one = 1;
    if (write(s->wake_fd, &one, sizeof one) < 0) return NULL; // full is awake
    while (st == SD_OK && !atomic_load(&s->stop)) {
        if (!sd_engine_step(s->engine)) sd_engine_wait(s->engine, 1000);
        sd_outbox_wait(s);
    }
    return NULL;
}
