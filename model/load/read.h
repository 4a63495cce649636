// What the two readers of models (from_gguf.c, from_folder.c) share: a reader says where tensors come
// from and what they are called, bind.c looks each one up.
#pragma once

#include "model/arch/arch.h"
#include "model/model_private.h"

/// A tensor of either format; a vector has rows 1.
typedef struct {
    const char *name; // in the source's memory
    sd_dtype dtype;
    const char *dtype_name;
    int64_t rows, cols;
    const void *data;
    size_t bytes;
} sd_tensor_ref;

/// Where tensors come from and what they are called there.
typedef struct {
    bool (*find)(const sd_model *m, const char *name, sd_tensor_ref *out);
    const char *(*name_at)(const sd_model *m, int i); // NULL after the last
    const char *embedding, *out_norm, *head;
    const char *classifier, *classifier_bias; // of a model that ranks
    const char *layer;                        // what stands before a layer's number
    bool gguf;              // names inside a layer are those of GGUF, else of Hugging Face
    const char *ignored[4]; // suffixes of tensors that hold nothing the forward needs; NULL: end
} sd_tensor_source;

/// Fills the layers (which stand), embedding, head and norms from the source, every shape checked
/// against m->hp; a tensor that nothing used is refused.
sd_status sd_model_bind(sd_model *m, const sd_tensor_source *source, sd_error *err);
enum { SD_MAX_LABELS = 64 };
/// The classifier's row `yes` less its row `no` (-1: none) is what m ranks by.
void sd_model_rank_by(sd_model *m, int yes, int no);

// ---- pooling.c: what a model makes of its rows, beside answers

sd_status sd_pooling_of_gguf(sd_model *m, sd_gguf_keys *k, sd_error *err);
/// From config.json, whose document this is, and sentence-transformers' modules.json.
sd_status sd_pooling_of_folder(sd_model *m, const json_t *config, sd_error *err);

/// The counts of m->hp against what the forward can run.
sd_status sd_model_check_sizes(const sd_model *m, sd_error *err);
/// All of m->hp.
sd_status sd_model_check_hparams(const sd_model *m, sd_error *err);

sd_status sd_model_read_gguf(sd_model *m, sd_error *err);
sd_status sd_model_read_folder(sd_model *m, sd_error *err);

// ---- tokenizers (vocabulary.c)

/// *t <- the tokenizer, NULL when there is none; *why_not <- why one that is there is not understood,
/// malloc'ed (left as it is otherwise).
sd_status sd_read_gguf_tokenizer(sd_tokenizer **t, char **why_not, const sd_gguf *g, sd_error *err);
sd_status sd_read_folder_tokenizer(sd_tokenizer **t, char **why_not, const char *folder,
                                   sd_error *err);
/// A tokenizer alone: sd_vocabulary_is of an open file, and of a folder.
bool sd_gguf_is_vocabulary(const sd_gguf *g);
sd_status sd_folder_is_vocabulary(bool *alone, const char *folder, sd_error *err);
sd_status sd_refuse_vocabulary(const char *path, sd_error *err); // SD_EINVAL, always
/// What holds no config.json is refused, by what it is (open.c).
sd_status sd_model_check_folder(const char *folder, sd_error *err);
