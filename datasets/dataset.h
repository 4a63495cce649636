// A prepared dataset, opened: packed rows of tokens with labels and segments, out of a file that is
// verified first (datasets/build/prepare.h makes it).
//
// Rows are [sequence_len]; unused places at the end hold token 0, label SD_NO_LABEL, segment -1. A
// segment (one record, or one record's piece) has its own positions from 0 and attends to itself
// alone. Its first token is never labelled: nothing stands before it that could predict it.
#pragma once

#include "base/files/hash.h"
#include "datasets/store/store.h"
#include "model/model.h"

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
/// The system text that its records carry most often, and how many carry exactly it. NULL and 0: none
/// carries one; NULL and more: it is too long to be kept (SD_MAX_SYSTEM_TEXT); NULL and -1: the file is
/// of a version that did not count.
const char *sd_dataset_system(const sd_dataset *d, int64_t *records);
/// What it was made from, as JSON text.
const char *sd_dataset_sources(const sd_dataset *d);
/// Fingerprint of the tokenizer that made it.
const char *sd_dataset_tokenizer(const sd_dataset *d);
/// SHA-256 of the chat template that was given for it; NULL: the model's own was used.
const char *sd_dataset_chat_template(const sd_dataset *d);
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

/// The origin of segment s of a row: source path, record number (from 0), SHA-256 of its bytes.
sd_status sd_dataset_provenance(const sd_dataset *d, int64_t row, int segment, const char **source,
                                int64_t *record, sd_sha256 *hash, sd_error *err);

/// The row visited at position i of an epoch: a seeded permutation by a counter RNG, nothing
/// stored. shuffle false: i itself.
int64_t sd_dataset_permute(int64_t rows, uint64_t seed, int64_t epoch, int64_t i, bool shuffle);
