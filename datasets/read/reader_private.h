// Inside the reader: one buffer of bytes, which reader.c fills and records.c cuts.
#pragma once

#include "datasets/read/reader.h"

enum { SD_READER_BUFFER = 1 << 16 };

typedef enum { KIND_OTHER, KIND_JSONL, KIND_JSON, KIND_TEXT, KIND_TABLE, KIND_ARCHIVE } reader_kind;

struct sd_reader {
    char *path, *where;
    int fd;
    sd_file_id opened; // the file as it was when it was opened
    int64_t size, position;
    struct archive *archive; // NULL: a plain file
    bool many;               // tar or zip: entries with names of their own
    reader_kind kind;        // of the current entry
    bool tabs;               // a table's cells stand between tabs
    int entries, used_entries;
    int64_t bytes_out; // of raw entries, decompressed so far

    bool in_entry, entry_done; // entry_done: its last byte is in the buffer
    bool at_start;             // of an entry
    int64_t line;
    char buf[SD_READER_BUFFER];
    size_t pos, len;

    bool begun, in_array, array_closed, array_first; // JSON
    char separator;                                  // of a table's cells
    json_t *header;                                  // a table's first row: an array of names
    sd_buf cell;
    sd_buf record;
    sd_record rec;
    int64_t number;
};

/// Fills an empty buffer; len stays 0 at the end of the entry.
sd_status sd_reader_fill(sd_reader *r, sd_error *err);

/// The next byte, not taken; -1 at the end of the entry, -2 on an error.
static inline int peek(sd_reader *r, sd_error *err) {
    while (r->pos == r->len) {
        if (r->entry_done) return -1;
        if (sd_reader_fill(r, err) != SD_OK) return -2;
    }
    return (unsigned char)r->buf[r->pos];
}

/// The next record of the current entry into r->record and r->rec; *found false at its end.
sd_status sd_reader_cut(sd_reader *r, bool *found, sd_error *err);
