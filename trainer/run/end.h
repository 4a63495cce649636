// What the parts of a run's end share. Private to trainer/run.
#pragma once

#include "trainer/run/private.h"

#include <jansson.h>

typedef struct {
    sd_run *r;
    const float *theta; // what is exported
    sd_adapter *own;    // from theta
    int32_t *text;      // [n] pieces of the training records
    int n;
    json_t *artefacts;
} sd_run_end;

// ---- manifest.c

/// Names the file and its hash under `name` in f->artefacts; *entry, which it owns, takes more.
sd_status sd_run_add_artefact(json_t **entry, sd_run_end *f, const char *name, const char *file,
                              const sd_sha256 *hash, sd_error *err);
/// manifest.json, which makes the run a finished one.
sd_status sd_run_write_manifest(sd_run_end *f, sd_error *err);

// ---- export.c: written, loaded again, compared with f->own. SD_EMISMATCH: they differ.

/// adapter/ is always written: it is the run's result. *hash: of its weights.
sd_status sd_run_write_peft(sd_run_end *f, sd_sha256 *hash, sd_error *err);
sd_status sd_run_write_gguf(sd_run_end *f, sd_error *err);
sd_status sd_run_write_merged(sd_run_end *f, sd_error *err);

// ---- index.c

/// draft/corpus.idx, bound to the adapter with this hash; none where nothing was learnt.
sd_status sd_run_write_index(sd_run_end *f, const sd_sha256 *adapter, sd_error *err);
