// Makes a prepared dataset: packed rows of tokens with labels and segments, in an HDF5 file.
//
//     bytes -> records -> messages -> tokens + labels -> packed rows -> file -> batches
//
// A text (not a conversation or completion) that is longer than a row is cut into pieces of
// sequence_len; `overlong` is about the others.
#pragma once

#include "base/files/hash.h"
#include "base/pool.h"
#include "datasets/read/loss_mask.h"

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
    int64_t longest;         // tokens of the longest record that is kept, before it is cut
    double efficiency;       // tokens / (rows * sequence_len)
    int64_t overlong, empty; // of the skipped: why
    int64_t truncated;       // of the kept: cut to sequence_len
    int64_t left_out;        // outside keep_from..keep_to; not counted as skipped
} sd_prepare_report;

/// Reads, tokenises, labels, packs, writes `out` and its manifest (`out`.manifest.json) atomically.
sd_status sd_dataset_prepare(const char *out, const sd_prepare_options *o, sd_model *m,
                             sd_prepare_report *report, sd_error *err);

/// One hash of all that the file would be made from: sources (their SHA-256), options, tokenizer
/// and template. A prepared file whose key is this one needs no preparing again.
sd_status sd_dataset_key(sd_sha256 *out, const sd_prepare_options *o, const sd_model *m,
                         sd_error *err);
