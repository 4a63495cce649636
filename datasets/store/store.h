// The HDF5 container of packed rows: what is in the file, and nothing of how it was made.
//
//     /tokens /labels /segments   int32 [rows, T], chunks of rows, shuffle + zstd (filter 32015)
//     /docs/row /docs/segment /docs/source /docs/piece   int32 [docs], in order of row and segment
//     /docs/record                int64 [docs], the record's number within its source
//     /docs/sha256                uint8 [docs, 32], of the record's bytes
//     attributes of /             integers and fixed-length strings, see writer.c
//
// The HDF5 library writes it and never reads one: it is not made for files of strangers
// (hdf5_read.h reads them). It is not thread-safe and keeps global state: every call goes through
// one mutex here, its error stack is silent, it may load no plug-ins and runs nothing at exit.
#pragma once

#include "base/files/map.h"
#include "base/status.h"

#include <stdint.h>

// Version 1 supervised what a template writes behind the end-of-turn token.
enum { SD_DATASET_VERSION = 2, SD_NO_LABEL = -100 };

typedef struct {
    int32_t row, segment, source, piece;
    int64_t record;
    uint8_t sha256[32];
} sd_store_doc;

// One column of the documents: its name, its place in sd_store_doc and its bytes (32: the hash).
typedef struct {
    const char *name;
    size_t offset, size;
} sd_store_column;
enum { SD_STORE_COLUMNS = 6 };
extern const sd_store_column sd_store_columns[SD_STORE_COLUMNS];
extern const char *const sd_store_arrays[3]; // tokens, labels, segments

typedef struct sd_store sd_store;

/// Creates (replacing) path with empty /tokens, /labels, /segments of [rows, T]. Messages speak of
/// `name`, which path is going to be renamed to.
sd_status sd_store_create(sd_store **out, const char *path, const char *name, int64_t rows, int T,
                          sd_error *err);
/// Rows [begin, begin + n); arrays [n, T].
sd_status sd_store_write_rows(sd_store *s, int64_t begin, int64_t n, const int32_t *tokens,
                              const int32_t *labels, const int32_t *segments, sd_error *err);
sd_status sd_store_write_docs(sd_store *s, const sd_store_doc *docs, int64_t n, sd_error *err);
sd_status sd_store_set_int(sd_store *s, const char *name, int64_t value, sd_error *err);
sd_status sd_store_set_text(sd_store *s, const char *name, const char *text, sd_error *err);
/// Flushes and closes; a failure here means that the file is not good. Frees s.
sd_status sd_store_finish(sd_store *s, sd_error *err);

void sd_store_abandon(sd_store *s);   // closes without a promise; NULL is fine
int sd_store_step(const sd_store *s); // rows of a chunk: how many are best written at once

typedef struct sd_store_reader sd_store_reader;
/// Checks the description of everything and where each chunk lies: types, shapes, filters, no links
/// to elsewhere, nothing outside the file. The map stays the caller's and must outlive the reader;
/// the bytes must have been verified before. One thread at a time.
sd_status sd_store_open(sd_store_reader **out, const sd_map *map, const char *name, sd_error *err);
int64_t sd_store_rows(const sd_store_reader *s);
int sd_store_length(const sd_store_reader *s); // T
int sd_store_chunk_rows(const sd_store_reader *s);
/// Rows [begin, begin + n) within the file; arrays [n, T].
sd_status sd_store_read_rows(sd_store_reader *s, int64_t begin, int64_t n, int32_t *tokens,
                             int32_t *labels, int32_t *segments, sd_error *err);
/// *docs in malloc'ed memory.
sd_status sd_store_read_docs(sd_store_reader *s, sd_store_doc **docs, int64_t *n, sd_error *err);
void sd_store_close(sd_store_reader *s); // NULL is fine

/// Registers the zstd filter (id 32015) in this process and silences the library. Called by the
/// functions above, inside their mutex.
sd_status sd_store_zstd_register(sd_error *err);
