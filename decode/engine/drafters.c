// The kinds of drafters that are registered when the engine opens, and those of a slot.
//
// A kind's place in the engine's list is its index in the slot, in the controller's tables and in
// the statistics, which carry its name along.
#include "decode/engine/private.h"

#include <stdio.h>
#include <string.h>

// ---- which kinds a mode of speculation asks for

static const char *mode_word(sd_spec_mode mode) {
#define WORD(spec, kind, word) word,
    static const char *const words[SD_SPEC_COUNT] = {"auto", "off", SD_DRAFTER_LIST(WORD)};
#undef WORD
    return (unsigned)mode < SD_SPEC_COUNT ? words[mode] : "unknown";
}

static bool names(sd_spec_mode mode, const sd_drafter_kind *kind) {
    return mode > SD_SPEC_OFF && strcmp(mode_word(mode), kind->name) == 0;
}

const sd_drafter_kind *const *sd_drafters_listed(const sd_engine *e) {
    return e->o.drafters ? e->o.drafters : sd_drafters;
}

static bool serves(const sd_draft_source *d, const sd_corpus *own) {
    return !d->kind->serves || d->kind->serves(d->shared, own);
}

// The registered kind that a mode asks for; NULL: there is none.
static const sd_draft_source *find(const sd_engine *e, sd_spec_mode mode) {
    for (int i = 0; i < e->n_drafters; i++)
        if (names(mode, e->drafter[i].kind)) return &e->drafter[i];
    return NULL;
}

static sd_status fail_absent(const sd_engine *e, sd_spec_mode mode, sd_error *err) {
    for (int i = 0; sd_drafters_listed(e)[i]; i++)
        if (names(mode, sd_drafters_listed(e)[i]) && sd_drafters_listed(e)[i]->absent)
            return sd_fail(err, SD_EINVAL, "%s", sd_drafters_listed(e)[i]->absent);
    return sd_fail(err, SD_EINVAL,
                   "speculation by \"%s\" was asked for and this engine has no such drafter; give "
                   "another --spec",
                   mode_word(mode));
}

sd_status sd_drafters_check(const sd_engine *e, const sd_request *r, sd_error *err) {
    const sd_draft_source *d = find(e, r->spec);
    bool can = r->spec <= SD_SPEC_OFF || (d && serves(d, r->corpus));
    return can ? SD_OK : fail_absent(e, r->spec, err);
}

// ---- of the engine

static void name_stats(const sd_engine *e, sd_spec_stats *s) {
    for (int i = 0; i < e->n_drafters; i++)
        snprintf(s->by[i].name, sizeof s->by[i].name, "%s", e->drafter[i].kind->name);
}

static sd_status add(sd_engine *e, const sd_drafter_kind *kind, const sd_draft_setup *setup,
                     sd_error *err) {
    sd_status st = SD_OK;
    void *shared = NULL;
    bool present = true;
    SD_CHECK(strlen(kind->name) < SD_DRAFTER_NAME, err, SD_EINVAL,
             "\"%s\" is too long for a drafter's name; at most %d bytes", kind->name,
             SD_DRAFTER_NAME - 1);
    if (kind->share) SD_TRY(kind->share(&shared, &present, setup, err));
    if (!present) goto out;
    SD_CHECK(e->n_drafters < SD_MAX_DRAFTERS, err, SD_EINVAL,
             "\"%s\" is one drafter too many; an engine has at most %d", kind->name,
             SD_MAX_DRAFTERS);
    e->drafter[e->n_drafters++] = (sd_draft_source){kind, shared};
    shared = NULL;
out:
    if (shared && kind->unshare) kind->unshare(shared);
    return st;
}

sd_draft_setup sd_drafters_setup(const sd_engine *e, const sd_context_options *context) {
    return (sd_draft_setup){.target = e->model,
                            .draft = &e->draft,
                            .path = e->o.draft,
                            .pool = e->pool,
                            .context = context,
                            .drafters = e->n_slots,
                            .ctx = e->ctx,
                            .kv_positions = e->o.draft_kv};
}

sd_status sd_drafters_register(sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_context_options context = {.isa = e->o.isa,
                                  .cache = e->o.cache,
                                  .stop = e->o.stop,
                                  .backend = e->o.backend,
                                  .device = e->o.device};
    sd_draft_setup setup = sd_drafters_setup(e, &context);
    for (int i = 0; sd_drafters_listed(e)[i]; i++) {
        setup.asked = names(e->o.spec, sd_drafters_listed(e)[i]);
        SD_TRY(add(e, sd_drafters_listed(e)[i], &setup, err));
    }
    name_stats(e, &e->stats.spec);
    if (e->o.spec > SD_SPEC_OFF && !find(e, e->o.spec)) st = fail_absent(e, e->o.spec, err);
out:
    return st;
}

void sd_drafters_unregister(sd_engine *e) {
    for (int i = 0; i < e->n_drafters; i++)
        if (e->drafter[i].kind->unshare) e->drafter[i].kind->unshare(e->drafter[i].shared);
    e->n_drafters = 0;
}

size_t sd_drafters_kv_bytes(const sd_engine *e) {
    size_t sum = 0;
    for (int i = 0; i < e->n_drafters; i++)
        if (e->drafter[i].kind->kv_bytes) sum += e->drafter[i].kind->kv_bytes(e->drafter[i].shared);
    return sum;
}

sd_context *sd_drafters_context(const sd_engine *e) {
    for (int i = 0; i < e->n_drafters; i++)
        if (e->drafter[i].kind->context) return e->drafter[i].kind->context(e->drafter[i].shared);
    return NULL;
}

// ---- of a slot

sd_status sd_slot_open_drafters(const sd_engine *e, sd_slot *s, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < e->n_drafters; i++)
        SD_TRY(e->drafter[i].kind->open(&s->drafter[i], e->drafter[i].shared, e->ctx, err));
out:
    return st;
}

void sd_slot_begin_drafters(const sd_engine *e, sd_slot *s) {
    const sd_request *r = &s->request->r;
    sd_spec_mode mode = r->spec == SD_SPEC_AUTO ? e->o.spec : r->spec;
    name_stats(e, &s->stats.spec);
    sd_draft_start start = {.timeline = s->timeline,
                            .n = s->n,
                            .sampling = &r->sampling,
                            .corpus = r->corpus,
                            .adapter = r->adapter,
                            .draft_adapter = r->draft_adapter,
                            .grammar = sd_slot_grammar(s),
                            .shaping = s->request->shape || r->grammar || sd_slot_is_bounded(s)
                                           ? sd_slot_shaping_ahead
                                           : NULL,
                            .shaping_ctx = s,
                            .forced = sd_slot_is_bounded(s) ? sd_slot_draft_forced : NULL,
                            .forced_ctx = s};
    for (int i = 0; i < e->n_drafters; i++) {
        const sd_drafter_kind *kind = e->drafter[i].kind;
        s->active[i] =
            (mode == SD_SPEC_AUTO || names(mode, kind)) && serves(&e->drafter[i], r->corpus);
        if (s->active[i]) kind->begin(s->drafter[i], &start);
    }
}

void sd_slot_observe(const sd_engine *e, sd_slot *s) {
    for (int i = 0; i < e->n_drafters; i++)
        if (s->active[i]) e->drafter[i].kind->observe(s->drafter[i], s->n);
}

void sd_slot_end_drafters(const sd_engine *e, sd_slot *s) {
    for (int i = 0; i < e->n_drafters; i++)
        if (s->active[i] && e->drafter[i].kind->end) e->drafter[i].kind->end(s->drafter[i]);
}
