// A model ready to run, as the verbs that only read logits need it: model, pool, context, adapter.
#pragma once

#include "cli/common.h"
#include "model/infer/forward.h"
#include "model/load/vocabulary.h"

typedef struct {
    sd_model *model;
    sd_pool *pool;
    sd_context *cx;
    sd_adapter *adapter; // NULL: the base
    char *cache_dir;     // where packed weights are kept; NULL: nowhere
} sd_run_model;

/// The model of -m. *cache_dir <- where its packed form is kept, malloc'ed; NULL: nowhere, as with
/// --no-pack-cache.
sd_status sd_open_model(sd_model **out, char **cache_dir, const sd_model_args *args, sd_error *err);
/// Opens all of it by the common options; adapter may be NULL. max_rows: rows of one step.
sd_status sd_run_model_open(sd_run_model *r, const sd_model_args *args, const char *adapter,
                            int max_rows, sd_error *err);
void sd_run_model_close(sd_run_model *r); // a zeroed one is fine

/// "1,2,3" or "1 2 3" (brackets allowed), each 0 <= id < V when V > 0.
sd_status sd_parse_ids(sd_ids *out, const char *text, int V, sd_error *err);
/// The model's tokenizer, or why it has none.
sd_status sd_need_tokenizer(const sd_model *m, sd_error *err);
/// The tokenizer of a model, or of a vocabulary without weights; v->tokenizer is there.
sd_status sd_open_vocabulary(sd_vocabulary **v, const char *path, sd_error *err);
/// text, or standard input for "-" (every byte of it), in malloc'ed memory.
sd_status sd_text_argument(char **out, size_t *len, const char *text, sd_error *err);
