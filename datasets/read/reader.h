// Records out of files: JSON Lines, JSON arrays, tables (CSV, TSV), plain text and Markdown, each
// as it is, inside .gz .zst .xz, or as an entry of a .tar, .tar.* or .zip.
//
// Everything streams: a record at a time is in memory, archives are never unpacked to disk, and
// entries that are links, folders or of another kind are passed over.
//
//     sd_reader *r;
//     SD_TRY(sd_reader_open(&r, "tickets.jsonl.zst", err));
//     for (const sd_record *rec;;) {
//         SD_TRY(sd_reader_next(r, &rec, err));
//         if (!rec) break;
//     }
//     sd_reader_close(r);
#pragma once

#include "base/files/hash.h"
#include "base/memory.h"

#include <jansson.h>

typedef struct sd_reader sd_reader;

// Caps on what comes out of one file.
enum {
    SD_READER_MAX_RECORD = 64 << 20, // bytes of one record
    SD_READER_MAX_ENTRIES = 100000,  // entries of one archive
    SD_READER_MAX_RATIO = 200        // bytes out per byte of the file, beyond the first MiB
};

typedef struct {
    const char *where; // "path", or "path: entry": what to name in an error
    int64_t line;      // where the record begins in it, from 1
    int64_t number;    // records of this reader before it
    json_t *json;      // an object (of a table: a row's cells as strings); NULL for text
    const char *bytes; // the record as it stands in the file; text: the whole of it, valid UTF-8
    size_t len;
} sd_record;

/// SD_EFORMAT when the name's ending is not one of those above, or the file is not a regular one.
sd_status sd_reader_open(sd_reader **out, const char *path, sd_error *err);
/// The next record, valid until the following call; *rec NULL at the end. Errors name file, entry
/// and line. A file without any record is SD_EFORMAT.
sd_status sd_reader_next(sd_reader *r, const sd_record **rec, sd_error *err);
void sd_reader_close(sd_reader *r); // NULL is fine

int64_t sd_reader_size(const sd_reader *r);     // bytes of the file
int64_t sd_reader_position(const sd_reader *r); // bytes of it read so far

/// Is the file that the reader reads this one, as when it was opened and still now? Bytes that
/// change under the reader change the id.
bool sd_reader_is(const sd_reader *r, const sd_file_id *id);
