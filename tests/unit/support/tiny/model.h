// Tiny random models of every architecture, written on the fly: as a GGUF file or as a Hugging Face
// folder. The same description gives the same weights in both (q and k rows permuted for a llama
// GGUF, as converters do), so their logits agree up to rounding, and the same seed gives the same
// bytes on every machine.
//
//     char *dir = sd_tiny_dir();                              // a fresh directory under /tmp
//     sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);       // 2 layers, C 64, V 288, F32
//     t.dtype = SD_Q8_0;                                      // of the matrices
//     char *path = sd_path_join(dir, "tiny.gguf");
//     cr_assert_eq(sd_tiny_write_gguf(path, &t, &err), SD_OK, "%s", err.message);
//     ...
//     sd_tiny_remove(dir);
//
// Matrices are uniform with standard deviation 1/sqrt(inputs), so that logits are of order 1 and no
// two are equal; norms lie around 1, biases around 0.
#pragma once

#include "model/arch/arch.h"

typedef struct {
    const sd_arch *arch;
    int L, C, H, G, D, F, V;
    int ctx;        // positions it claims to be trained for
    bool tied;      // no head of its own
    sd_dtype dtype; // of matrices. Folder: F32, F16, BF16. GGUF: any; K types get random blocks, so
                    // they are not the folder's values
    bool noise; // GGUF, K types and Q4_1: random blocks in the place of values, for large models
    uint64_t seed;
    bool tokenizer; // byte-level BPE: 256 bytes, 29 merges, <|endoftext|>, <|im_start|>,
                    // <|im_end|> (ids 285, 286, 287); needs V >= 288
    const char *const
        *added; // GGUF: further tokens, from id 288 on; special where they begin with <
    int n_added;
    const char *chat_template; // NULL: ChatML when there is a tokenizer; "": none
    float rope_base;
    sd_rope_scaling scaling;
    float rope_factor, rope_low, rope_high, rope_beta_fast, rope_beta_slow;
    int rope_orig_ctx;
    int rope_dim;       // of a head's D, its first that turn; 0: all
    bool longrope;      // phi3: LongRoPE, long factors for contexts beyond rope_orig_ctx
    int window;         // gemma3's layers, all of phi3: positions that a row sees, itself among
                        // them; 0: all
    int pattern;        // gemma3: each pattern-th layer has no window; it turns by rope_base and
                        // scaling, the others by local_base
    float local_base;   // gemma3
    float query_scalar; // gemma3, folder: scores are divided by its root; 0: D, as in GGUF files
    int pooling;        // GGUF: pooling_type, with the end token behind each text; 0: none
    int labels;         // GGUF: rows of a classifier, of two labels "yes" and "no"; 0: none
    const char *pair;   // GGUF: how a query and a document are written; NULL: it does not say
    bool
        bare; // folder, tied: saved without its head, as if it had one: no name begins with "model."
    bool old_config; // folder: rope_theta and rope_scaling instead of rope_parameters
} sd_tiny_model;

/// 2 layers, C 64, H 4, G 2, D 16 (qwen3, gemma3: 24), F 96, V 288, ctx 512, F32, tied for qwen3 and
/// gemma3, with a tokenizer, no scaling (the scaling fields hold usable values). gemma3: a layer with
/// a window of 16, one without. phi3: 12 of the 16 turn, no window.
sd_tiny_model sd_tiny_default(const sd_arch *arch);

/// The window of a layer; 0: none.
int sd_tiny_window(const sd_tiny_model *t, int layer);
/// LongRoPE's divisor of the i-th frequency.
float sd_tiny_longrope(const sd_tiny_model *t, bool longer, int i);

/// Tensors that are no matrix of a block.
typedef enum {
    SD_TINY_EMBEDDING,
    SD_TINY_OUT_NORM,
    SD_TINY_HEAD,
    SD_TINY_ATTN_NORM,
    SD_TINY_FFN_NORM,
    SD_TINY_Q_NORM,
    SD_TINY_K_NORM,
    SD_TINY_POST_ATTN_NORM, // gemma3: of what attention adds
    SD_TINY_POST_FFN_NORM
} sd_tiny_tensor;
/// The F32 values as a Hugging Face folder holds them, so gemma3's norms without the 1 that they add:
/// out [rows, cols]; the vectors have one row. The head of a tied model is its embedding.
void sd_tiny_values(float *out, const sd_tiny_model *t, sd_tiny_tensor what, int layer, int rows,
                    int cols);
/// The same of a block's matrix, whatever linear map it is a part of.
void sd_tiny_matrix(float *out, const sd_tiny_model *t, sd_proj p, int layer, int rows, int cols);
/// A weight of the classifier's.
float sd_tiny_label(int label, int col);
/// The same of its bias [n], where the architecture has one.
void sd_tiny_bias(float *out, const sd_tiny_model *t, sd_proj p, int layer, int n);

sd_status sd_tiny_write_gguf(const char *path, const sd_tiny_model *t, sd_error *err);
sd_status sd_tiny_write_folder(const char *dir, const sd_tiny_model *t, sd_error *err);

/// A fresh directory; the caller frees the string and removes the tree (sd_tiny_remove does both).
char *sd_tiny_dir(void);
void sd_tiny_remove(char *dir);
/// Writes it into a fresh directory as GGUF (or folder), opens it, removes the directory; NULL on
/// failure, printed. Release with sd_model_release. Use this one in tests.
sd_model *sd_tiny_open(const sd_tiny_model *t, bool gguf);
