// What the writers of a run's artefacts share. Private to trainer/run.
#pragma once

#include "trainer/run/private.h"

#include <jansson.h>

typedef struct {
    const sd_run_trained *in;
    const sd_run_text *text;
    const sd_adapter *own; // what is exported: the trained parameters
    json_t *artefacts;     // those written so far, for the manifest
    sd_defaults defaults;  // for the manifest and beside each export
    sd_run_verification *verified;
} sd_run_end;

// ---- manifest.c

/// Names the file and its hash under `name` in e->artefacts; *entry, which that owns, takes more.
sd_status sd_run_add_artefact(json_t **entry, sd_run_end *e, const char *name, const char *file,
                              const sd_sha256 *hash, sd_error *err);
/// manifest.json, which makes the run a finished one. step: whose parameters were exported.
sd_status sd_run_write_manifest(const sd_run_end *e, int64_t step, sd_error *err);

// ---- export.c: written, loaded again, compared with e->own. SD_EMISMATCH: they differ.

/// adapter/ is always written: it is the run's result. *hash: of its weights.
sd_status sd_run_write_peft(sd_run_end *e, sd_sha256 *hash, sd_error *err);
sd_status sd_run_write_gguf(sd_run_end *e, sd_error *err);
sd_status sd_run_write_merged(sd_run_end *e, sd_error *err);

// ---- index.c

/// draft/corpus.idx, bound to the adapter with this hash; none where nothing was learnt.
sd_status sd_run_write_index(sd_run_end *e, const sd_sha256 *adapter, sd_error *err);
