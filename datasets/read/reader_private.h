// Inside the reader: one buffer of bytes, which entries.c fills and records.c cuts.
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

// ---- entries.c

/// The kind of file by the name's ending; SD_EFORMAT when it is none that is read.
sd_status sd_reader_kind_of_path(const char *path, reader_kind *k, bool *tabs, bool *compressed,
                                 sd_error *err);
/// libarchive over r->fd.
sd_status sd_reader_open_archive(sd_reader *r, sd_error *err);
/// r->where <- "path: entry", or the path for NULL.
sd_status sd_reader_name_entry(sd_reader *r, const char *entry, sd_error *err);
/// To the next entry that is read; *more false: there is none.
sd_status sd_reader_next_entry(sd_reader *r, bool *more, sd_error *err);
/// Fills an empty buffer; len stays 0 at the end of the entry.
sd_status sd_reader_fill(sd_reader *r, sd_error *err);

// ---- records.c

/// The next record of the current entry into r->record and r->rec; *found false at its end.
sd_status sd_reader_cut(sd_reader *r, bool *found, sd_error *err);
