// Opening what drafts, by what a path is: a second model, or a corpus index. One rule says whether
// an index fits, wherever it comes from: its tokens are numbers of the target's very tokenizer, and
// one that comes along with an adapter was written for that adapter.
//
//     sd_draft d;
//     SD_TRY(sd_draft_open(&d, "runs/triage", target, NULL, err));
//     if (d.kind == SD_DRAFT_CORPUS) ... d.corpus ...
//     sd_draft_close(&d);
#pragma once

#include "datasets/corpus/corpus_index.h"
#include "model/adapter/adapter.h"

#include <stdatomic.h>

typedef enum { SD_DRAFT_NONE, SD_DRAFT_MODEL, SD_DRAFT_CORPUS } sd_draft_kind;

typedef struct {
    sd_draft_kind kind;
    sd_model *model;     // one of these two, by kind
    sd_corpus *corpus;   //
    sd_adapter *adapter; // of the model; NULL: none
    sd_sha256 aligned;   // the target's adapter that it was trained for; zero: not said
} sd_draft;

/// Without opening it: a file with GGUF's magic is a model, any other file an index; a folder is an
/// index when it holds corpus.idx or draft/corpus.idx (then *file, malloc'ed, leads to it), and a
/// model otherwise. file may be NULL. SD_ENOTFOUND when nothing is there.
sd_status sd_draft_look(sd_draft_kind *kind, char **file, const char *path, sd_error *err);

/// What was asked for must fit: SD_EINVAL names both tokenizers of an index that does not. A
/// model's tokenizer is compared when it is opened for drafting (sd_draft_model_open).
/// stop: as in sd_model_open_stoppable.
sd_status sd_draft_open(sd_draft *out, const char *path, const sd_model *target,
                        const atomic_bool *stop, sd_error *err);
/// An adapter of the draft model: as sd_adapter_open. Where manifest.json in the folder `path` has
/// "draft": {"target_adapter": SHA-256}, that is the target's adapter whose answers it was trained on.
/// SD_EINVAL where d is no model.
sd_status sd_draft_take_adapter(sd_draft *d, const char *path, sd_error *err);
/// An adapter of the draft model `m`; *aligned as in sd_draft.
sd_status sd_draft_open_adapter(sd_adapter **out, sd_sha256 *aligned, const char *path, sd_model *m,
                                sd_error *err);
void sd_draft_close(sd_draft *d); // a zeroed one is fine

/// *out <- folder/draft/corpus.idx, the index of the run that the adapter `a` was opened from; NULL
/// where there is none. Nobody asked for it, and answers are the same without it: one that does not
/// fit or cannot be read is left out with a warning that begins with `who`, and SD_ENOMEM alone is an
/// error. who NULL: each is one.
sd_status sd_draft_of_run(sd_corpus **out, const char *folder, const char *who, const sd_adapter *a,
                          const sd_model *target, sd_error *err);
/// The index at `path` (or in the folder there), which must fit the model and the adapter.
sd_status sd_draft_open_corpus(sd_corpus **out, const char *path, const sd_adapter *a,
                               const sd_model *target, sd_error *err);
