// A model: immutable after loading, counted, shared by all sessions and by the trainer. Weights
// point into read-only mappings.
//
//     sd_model *m;
//     SD_TRY(sd_model_open(&m, "base.gguf", err)); // or a Hugging Face folder
//     printf("%d layers\n", m->hp.L);
//     sd_model_release(m);
#pragma once

#include "base/files/hash.h"
#include "kernels/ops.h"
#include "model/template/template.h"
#include "model/tokenizer/tokenizer.h"

typedef struct sd_arch sd_arch; // model/arch/arch.h

typedef enum {
    SD_ROPE_NONE,
    SD_ROPE_LINEAR,
    SD_ROPE_LLAMA3,
    SD_ROPE_YARN,
    SD_ROPE_LONG
} sd_rope_scaling;

/// How fast the pairs of a head turn with the position.
typedef struct {
    float base;
    sd_rope_scaling scaling;
    float factor, low, high, attn_factor, beta_fast, beta_slow;
    int orig_ctx;
    const float
        *factors; // [rope_dim/2] a divisor of each frequency, in the model's memory; NULL: none
    const float
        *long_factors; // [rope_dim/2] of LongRoPE: in place of factors for sequences that may
                       // go beyond orig_ctx
} sd_rotation;

enum { SD_MAX_ROPES = 2 };

typedef enum { SD_ACT_SILU, SD_ACT_GELU_TANH } sd_activation; // of the gate

typedef struct {
    const sd_arch *arch;
    int L, C, H, G, D, F, V;
    int ctx_train;         // positions the model was trained for
    float eps;             // of RMSNorm
    int rope_dim;          // of a head's D, its first
    bool rope_interleaved; // pairs (2i, 2i+1): GGUF llama, whose q and k rows are permuted; else
                           // (i, i + rope_dim/2)
    sd_rotation rope[SD_MAX_ROPES]; // a layer names its own
    int ropes;
    float embedding_scale; // of what the embedding gives; 0: none
    float attn_scale;      // of the scores; 0: 1/sqrt(D)
    sd_activation act;
    bool qkv_bias, qk_norm, tied_head;
} sd_hparams;

// The seven matrices of a block, in the order in which it multiplies with them.
typedef enum { SD_WQ, SD_WK, SD_WV, SD_WO, SD_WGATE, SD_WUP, SD_WDOWN, SD_PROJ_COUNT } sd_proj;

/// A linear map by its names: one matrix of the block, or several that lie one below another.
typedef struct {
    const char *leaf;   // what recipes and PEFT's target_modules say: "q_proj"
    const char *module; // inside a layer, in Hugging Face's models: "self_attn.q_proj"
    const char *gguf;   // inside a block, in GGUF files: "attn_q"
    sd_proj first;      // it holds the matrices [first, first + matrices)
    int matrices;
} sd_linear_kind;

/// A linear map as files hold it and as LoRA adapts it. Adapters, gradients and exports count these.
typedef struct {
    const sd_linear_kind *kind;
    int layer;
    sd_weight w;       // [out, in]
    const float *bias; // [out]; NULL: none
    const char *name;  // what the source calls w
} sd_linear;

// A block is
//
//     x += norm'(Wo attention(rope(qk_norm(Wqkv norm(x)))))
//     x += norm'(Wdown (act(Wgate norm(x)) * Wup norm(x)))
//
// and what a layer lacks of it is NULL. norm' stands in few architectures.
typedef struct {
    int rope;                     // number of its rotation
    int window;                   // positions a row attends to, its own included; 0: all below it
    const float *attn_norm;       // [C]
    const float *ffn_norm;        // [C]
    const float *post_attn_norm;  // [C] of what attention adds; NULL: none
    const float *post_ffn_norm;   // [C] of what the feed-forward adds; NULL: none
    const float *q_norm, *k_norm; // [D] of each head; NULL without QK-norm
    // The block's matrices and biases: rows of its linear maps. q [H*D, C], k, v [G*D, C], o
    // [C, H*D], gate, up [F, C], down [C, F].
    sd_weight w[SD_PROJ_COUNT];
    const float *bias[SD_PROJ_COUNT]; // [rows]; NULL: none
} sd_layer;

// How the rows of a prompt become one vector, where a model says so.
typedef enum {
    SD_POOL_NONE,
    SD_POOL_MEAN, // of all rows
    SD_POOL_LAST, // the last row
    SD_POOL_OTHER // some other way, which is not computed here
} sd_pooling;

typedef struct {
    sd_pooling pooling;
    bool unit;    // the vector is made as long as 1
    bool no_head; // the files have no head: it says nothing
    const float
        *rank; // [C] the relevance of a pair is the logistic function of the vector times this, and
    float rank_bias; // the bias; NULL: it does not rank
    int labels;      // of its classifier; 0: none. Of more than one rank may be NULL
    char *pair;      // how a pair is written, with {query} and {document}; NULL: it does not say
} sd_output;

enum { SD_MAX_END_TOKENS = 8 };

typedef struct sd_model {
    sd_hparams hp;
    sd_weight embedding;   // [V, C]
    sd_weight head;        // [V, C]; the embedding when tied
    const float *out_norm; // [C]
    sd_layer *layer;       // [L]
    sd_linear *linear;     // [n_linears] all of the blocks, layer after layer, in the block's order
    int n_linears;         // a multiple of L
    sd_output output;      // beside answers

    char *path;              // as given
    char *name;              // general.name, or the folder's last component
    sd_tokenizer *tokenizer; // NULL when the source has none (random test models)
    char *tokenizer_error;   // why tokenizer is NULL although the source has one; NULL otherwise
    sd_template *chat;       // NULL when the source has none
    char *chat_error;        // why chat is NULL although a template is there; NULL otherwise
    int32_t end_token[SD_MAX_END_TOKENS]; // generation stops here: eos, eot, generation_config, the
                                          // template's end of turn
    int n_end_tokens;
    int64_t n_params;
    size_t weight_bytes;

    struct sd_model_owned *owned; // private: its files, their hash, the count of references
} sd_model;

/// A GGUF file, or a folder with config.json and safetensors. Maps the weights, copies only small
/// vectors that are not fp32. What the forward does not compute exactly is refused by name: unknown
/// tensors, experts, other activations, windows where the architecture has none, unknown RoPE
/// scalings.
sd_status sd_model_open(sd_model **out, const char *path, sd_error *err);
/// The same; once *stop is set, hashing the files ends with SD_EINTERRUPTED.
sd_status sd_model_open_stoppable(sd_model **out, const char *path, const atomic_bool *stop,
                                  sd_error *err);
sd_model *sd_model_acquire(sd_model *m);
void sd_model_release(sd_model *m); // NULL is fine

/// SHA-256 of the file, or of a folder's weight files in name order. Computed at the first call (1
/// s per 2 GB), then kept. SD_EIO when a file changed meanwhile. Thread-safe.
sd_status sd_model_sha256(sd_model *m, sd_sha256 *out, sd_error *err);

/// Hands in the hash of the files in the very state that they were opened in, so that the first
/// sd_model_sha256 need not read them. Thread-safe.
void sd_model_know_sha256(sd_model *m, const sd_sha256 *sum);

/// SD_EIO when the files were cut, could not be read, or hold other bytes than when they were
/// opened. Callers ask after long reading (packing, an export, steps of training), before they
/// believe the result. Costs an fstat a file; a touched file whose hash is known is hashed anew.
/// Thread-safe.
sd_status sd_model_check(const sd_model *m, sd_error *err);

const char *sd_arch_name(const sd_arch *a);    // "llama"
const sd_arch *sd_arch_find(const char *name); // by GGUF's name; NULL: not known
const sd_arch *sd_arch_at(int i);              // in a fixed order; NULL after the last
/// The leaves of a layer's linear maps, for messages: "q_proj, k_proj, ... and down_proj".
const char *sd_linear_names(char *room, size_t size, const sd_model *m);
/// Rows and columns of a block's matrix.
void sd_proj_shape(const sd_hparams *hp, sd_proj p, int *out_rows, int *in_cols);
bool sd_model_is_end(const sd_model *m, int32_t token);
bool sd_model_is_gguf(const sd_model *m); // false: a Hugging Face folder, or made in memory

/// Inverse frequencies with r's scaling applied, for sequences of at most `ctx` positions: inv [dim/2];
/// *attn_scale multiplies cos and sin (YaRN, LongRoPE), else 1. LongRoPE takes its long factors where
/// ctx is more than the original context, whatever the sequence's length now: so a position's bits
/// never depend on what follows it.
void sd_rope_frequencies(const sd_rotation *r, int dim, int ctx, double *inv, double *attn_scale);
/// What the scores of attention are multiplied with.
double sd_attention_scale(const sd_hparams *hp);

/// The rendered prompt's ids for a conversation: template, then tokens with special tokens
/// recognised. bos is whatever the template writes.
sd_status sd_model_chat_ids(const sd_model *m, const json_t *messages, const json_t *tools,
                            const json_t *extra, bool add_generation_prompt, sd_ids *out,
                            sd_error *err);
/// The same; the rendering ends when a bound (NULL: none) is reached.
sd_status sd_model_chat_ids_within(const sd_model *m, const json_t *messages, const json_t *tools,
                                   const json_t *extra, bool add_generation_prompt,
                                   const sd_template_bounds *bounds, sd_ids *out, sd_error *err);
