// A prepared dataset: packed rows of tokens with labels and segments, in an HDF5 file that is
// verified before it is opened.
//
//     bytes -> records -> messages -> tokens + labels -> packed rows -> file -> batches
//
// Rows are [sequence_len]; unused places at the end hold token 0, label SD_NO_LABEL, segment -1. A
// segment (one record, or one record's piece) has its own positions from 0 and attends to itself
// alone. Its first token is never labelled: nothing stands before it that could predict it.
//
// A text (not a conversation or completion) that is longer than a row is cut into pieces of
// sequence_len; `overlong` is about the others.
#pragma once

#include "base/files/hash.h"
#include "base/pool.h"
#include "model/model.h"

enum { SD_NO_LABEL = -100 };

typedef enum {
    SD_FORMAT_AUTO,
    SD_FORMAT_MESSAGES,
    SD_FORMAT_ALPACA,
    SD_FORMAT_COMPLETION,
    SD_FORMAT_TEXT
} sd_data_format;
#define SD_DATA_FORMATS "auto|messages|alpaca|completion|text"
typedef enum { SD_LOSS_ASSISTANT, SD_LOSS_LAST, SD_LOSS_ALL } sd_loss_on;
#define SD_LOSS_ON "assistant|last|all"
typedef enum { SD_OVERLONG_ERROR, SD_OVERLONG_SKIP, SD_OVERLONG_TRUNCATE } sd_overlong;
#define SD_OVERLONG "error|skip|truncate"

typedef struct {
    const char *path; // .jsonl .json .csv .tsv .txt .md, plain or inside .gz .zst .tar .tar.* .zip
    sd_data_format format;
} sd_data_source;

typedef struct {
    const sd_data_source *source;
    int n_sources;
    int sequence_len;
    sd_loss_on loss_on;
    bool train_on_eot; // the end-of-turn token is supervised
    sd_overlong overlong;
    bool packing;           // first-fit decreasing; else one record a row, in file order
    int64_t max_records;    // 0: all
    bool skip_empty_labels; // else a record without any supervised token is an error
    // A part of the records, chosen by the SHA-256 of their bytes as a number in [0, 1), so it does
    // not change when files are reordered: kept when keep_from <= it < keep_to. Both 0: all.
    double keep_from, keep_to;
    int version;   // 0: this program's rules for labels; 1: those of specdec 0.4, for its runs
    sd_pool *pool; // NULL: one thread; the result does not depend on it
    void (*progress)(void *ctx, int64_t records, int64_t bytes_read, int64_t bytes_total);
    void *progress_ctx;
} sd_prepare_options;

typedef struct {
    int64_t records, skipped, tokens, supervised, rows;
    int64_t longest;         // tokens of the longest record
    double efficiency;       // tokens / (rows * sequence_len)
    int64_t overlong, empty; // of the skipped: why
    int64_t truncated;       // of the kept: cut to sequence_len
    int64_t left_out;        // outside keep_from..keep_to; not counted as skipped
} sd_prepare_report;

/// Reads, tokenises, labels, packs, writes `out` and its manifest (`out`.manifest.json) atomically.
sd_status sd_dataset_prepare(const char *out, const sd_prepare_options *o, sd_model *m,
                             sd_prepare_report *report, sd_error *err);

/// What the file would be made from, as one hash: sources (their SHA-256), options, tokenizer and
/// template. A prepared file whose key is this one needs no preparing again.
sd_status sd_dataset_key(sd_sha256 *out, const sd_prepare_options *o, const sd_model *m,
                         sd_error *err);

typedef struct sd_dataset sd_dataset;
/// Verifies the manifest, then opens. Everything is read into memory, without the padding, when it
/// is under 1 GB.
sd_status sd_dataset_open(sd_dataset **out, const char *path, sd_error *err);
void sd_dataset_close(sd_dataset *d);

int64_t sd_dataset_rows(const sd_dataset *d);
int sd_dataset_sequence_len(const sd_dataset *d);
int64_t sd_dataset_tokens(const sd_dataset *d);             // used places of all rows
int64_t sd_dataset_supervised(const sd_dataset *d);         // labelled places of all rows
const sd_sha256 *sd_dataset_sha256(const sd_dataset *d);    // of the file
const sd_sha256 *sd_dataset_made_from(const sd_dataset *d); // see sd_dataset_key
int64_t sd_dataset_records(const sd_dataset *d);
/// How it was made, as JSON text: options and sources.
const char *sd_dataset_recipe(const sd_dataset *d);
const char *sd_dataset_sources(const sd_dataset *d);
/// Fingerprint of the tokenizer that made it.
const char *sd_dataset_tokenizer(const sd_dataset *d);
/// SD_EMISMATCH when another tokenizer made it; SD_EFORMAT when a row holds a token that this one
/// does not have, now or at a later read. To be asked before its tokens are used.
sd_status sd_dataset_expect(sd_dataset *d, const sd_tokenizer *t, sd_error *err);

typedef struct {
    const int32_t *token;   // [used]
    const int32_t *label;   // [used]  the token at the same place when it is supervised, else
                            // SD_NO_LABEL (shift by one at use)
    const int32_t *segment; // [used]  0, 1, ...
    int used;               // places before the padding, which is not there
} sd_dataset_row;
/// The arrays stay valid until the dataset is closed, or (when it is too large for memory) until
/// the next read; one thread at a time then.
sd_status sd_dataset_read(const sd_dataset *d, int64_t row, sd_dataset_row *out, sd_error *err);

size_t sd_dataset_memory(const sd_dataset *d); // bytes that it holds while it is open

/// Where segment s of a row came from: source path, record number (from 0), SHA-256 of its bytes.
sd_status sd_dataset_provenance(const sd_dataset *d, int64_t row, int segment, const char **source,
                                int64_t *record, sd_sha256 *hash, sd_error *err);

/// The row visited at position i of an epoch: a seeded permutation by a counter RNG, nothing
/// stored. shuffle false: i itself.
int64_t sd_dataset_permute(int64_t rows, uint64_t seed, int64_t epoch, int64_t i, bool shuffle);
