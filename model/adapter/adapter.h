// LoRA adapters: y = W x + s * B (A x). Immutable, counted, never merged at run time; a batch row
// carries its adapter.
//
// In memory an adapter lives in the basis of the model it was opened for: for a GGUF of
// architecture llama the rows of B of q and k are permuted as the file's weights are, so a PEFT
// folder is converted on reading and converted back on writing.
#pragma once

#include "kernels/ops.h"
#include "model/model.h"

enum { SD_MAX_RANK = 512 };

typedef struct {
    int r;          // 0: this map has no adapter
    const float *A; // [r, in]
    const float *B; // [out, r]
    float scale;    // alpha / r (alpha / sqrt(r) for rsLoRA)
} sd_lora;

typedef struct sd_adapter {
    char *name;
    char *path;
    uint64_t generation; // unique in this process, from 1 on
    int n_linears;       // of the model that it was opened for
    sd_lora *lora;       // [n_linears]
    int max_r;
    int64_t n_params;
    sd_sha256 sha256;      // of the weights file
    sd_sha256 base_sha256; // of the model it was trained on; zero when the file does not say
    char *base_sketch;     // of that model (base_sketch.h); NULL when the file does not say
    void *owned;
} sd_adapter;

/// A PEFT folder, a GGUF-LoRA file, or a run's folder (its adapter/). Shapes that do not fit the
/// base, values that are not finite, and a recorded base that is another model are refused by name.
/// The same model in another precision is taken with a warning, and any model with any_base. The
/// files are read, not mapped: they may go or change afterwards.
sd_status sd_adapter_open(sd_adapter **out, const char *path, sd_model *base, bool any_base,
                          sd_error *err);
/// rank [base->n_linears] <- of the same adapter's factors, 0 where it has none: from its headers, no
/// value is read. The recorded base is not looked at.
sd_status sd_adapter_ranks(int *rank, const char *path, const sd_model *base, sd_error *err);
/// Bytes that the factors of such ranks take in memory.
size_t sd_adapter_bytes(const int *rank, const sd_model *base);
/// From factors the caller built in the base's basis; copies them. lora [n_linears].
sd_status sd_adapter_from_factors(sd_adapter **out, const char *name, const sd_lora *lora,
                                  const sd_model *base, sd_error *err);
sd_adapter *sd_adapter_acquire(sd_adapter *a);
void sd_adapter_release(sd_adapter *a); // NULL is fine

/// When the last reference goes, gone(ctx, generation) is called on the thread that lets it go: for
/// what was made of the adapter elsewhere. The caller holds a reference; any thread may ask.
sd_status sd_adapter_on_release(const sd_adapter *a, void (*gone)(void *ctx, uint64_t generation),
                                void *ctx, sd_error *err);

// Writers. `dir`/`path` must not exist half-written afterwards: files are written atomically.
/// adapter_config.json and adapter_model.safetensors, as PEFT writes them. base_id: what PEFT loads the
/// base by, a repository's id; NULL: the base's folder, or null for a GGUF file, whose name no loader
/// of PEFT's would find.
sd_status sd_adapter_write_peft(const char *dir, const sd_adapter *a, sd_model *base,
                                const char *base_id, sd_error *err);
sd_status sd_adapter_write_gguf(const char *path, const sd_adapter *a, sd_model *base,
                                sd_error *err);
/// The base with W + s B A in place of W: a Hugging Face folder from a folder, a GGUF from a GGUF,
/// each tensor in its own type. sd_verify_merged (model/infer/compare_logits.h) measures what the file holds.
sd_status sd_adapter_write_merged(const char *path, const sd_adapter *a, sd_model *base,
                                  sd_error *err);
