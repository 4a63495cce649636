// The engine's thread: opens the models while the event loop already answers "loading", then steps
// until told to stop. `loaded` publishes what it opened.
#include "decode/serve/server.h"

// A newcomer has a slot at once, and a stream's next tokens come within STEP_MS under prompts of
// others.
enum { RESERVE = 1, STEP_MS = 100 };

static sd_status load(sd_server *s, sd_error *err) {
    sd_status st = SD_OK;
    const sd_serve_options *o = s->o;
    sd_models_options models = {.model = o->model,
                                .pack_dir = o->pack_dir,
                                .other_base = o->other_base,
                                .has_draft = o->engine.draft != NULL,
                                .adapters = o->adapters,
                                .served_names = o->served_names};
    SD_TRY(sd_models_open(&s->models, &models, &s->stop, err));
    bool index = o->engine.draft != NULL;
    for (int i = 0; i < s->models.n; i++) index |= s->models.row[i].corpus != NULL;
    SD_CHECK(o->engine.spec != SD_SPEC_INDEX || index, err, SD_EINVAL,
             "--spec index needs a corpus index; give one with -d, or a run's folder with -a");
    sd_engine_options engine = o->engine;
    if (engine.reserve == 0) engine.reserve = RESERVE;
    if (engine.step_ms <= 0) engine.step_ms = STEP_MS;
    SD_TRY(sd_engine_open(&s->engine, s->models.model, &engine, err));
out:
    return st;
}

void *sd_engine_thread(void *server) {
    sd_server *s = server;
    sd_status st = load(s, &s->load_error);
    atomic_store(&s->loaded, st == SD_OK ? 1 : -1);
    sd_wakeup_signal(&s->loaded_wakeup);
    while (st == SD_OK && !atomic_load(&s->stop)) {
        if (!sd_engine_step(s->engine)) sd_engine_wait(s->engine, 1000);
        sd_outbox_wait(s);
    }
    return NULL;
}
