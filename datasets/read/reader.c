// Entry by entry (entries.c), record by record (records.c).
#include "datasets/read/reader.h"

#include "base/files/file.h"
#include "base/files/map.h"
#include "base/memory.h"
#include "datasets/read/reader_private.h"

#include <archive.h>
#include <unistd.h>

sd_status sd_reader_next(sd_reader *r, const sd_record **rec, sd_error *err) {
    sd_error own = {0};
    if (!err) err = &own; // peek's callers read the status from it
    *rec = NULL;
    json_decref(r->rec.json);
    r->rec.json = NULL;
    for (;;) {
        bool found = false;
        sd_status st = SD_OK;
        if (r->in_entry) st = sd_reader_cut(r, &found, err);
        if (st != SD_OK) return st;
        if (found) break;
        bool more;
        st = sd_reader_next_entry(r, &more, err);
        if (st != SD_OK) return st;
        if (more) continue;
        if (r->number > 0) return SD_OK;
        return sd_fail(err, SD_EFORMAT, "%s: holds no record%s", r->path,
                       r->many && r->used_entries == 0
                           ? "; no entry's name ends in .jsonl, .json, .csv, .tsv, .txt or .md"
                           : "");
    }
    r->rec.where = r->where;
    r->rec.bytes = r->record.data;
    r->rec.len = r->record.len;
    r->rec.number = r->number++;
    *rec = &r->rec;
    return SD_OK;
}

sd_status sd_reader_open(sd_reader **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    bool compressed = false;
    *out = NULL;
    sd_reader *r = sd_alloc(1, sizeof *r);
    SD_CHECK_ALLOC(r, err);
    r->fd = -1;
    r->record = sd_buf_make(SD_READER_MAX_RECORD);
    r->cell = sd_buf_make(SD_READER_MAX_RECORD);
    r->path = sd_strdup(path);
    SD_CHECK_ALLOC(r->path, err);
    SD_TRY(sd_reader_name_entry(r, NULL, err));
    SD_TRY(sd_reader_kind_of_path(path, &r->kind, &r->tabs, &compressed, err));
    size_t size;
    SD_TRY(sd_open_regular(&r->fd, &size, path, err));
    r->size = (int64_t)size;
    SD_TRY(sd_file_id_of(&r->opened, r->fd, path, err));
    r->many = r->kind == KIND_ARCHIVE;
    if (r->many || compressed) SD_TRY(sd_reader_open_archive(r, err));
    *out = r, r = NULL;
out:
    sd_reader_close(r);
    return st;
}

void sd_reader_close(sd_reader *r) {
    if (!r) return;
    json_decref(r->rec.json);
    if (r->archive) archive_read_free(r->archive);
    if (r->fd >= 0) close(r->fd);
    json_decref(r->header);
    sd_buf_free(&r->cell);
    sd_buf_free(&r->record);
    free(r->where);
    free(r->path);
    free(r);
}

int64_t sd_reader_size(const sd_reader *r) {
    return r->size;
}

bool sd_reader_is(const sd_reader *r, const sd_file_id *id) {
    sd_file_id now;
    return sd_file_id_of(&now, r->fd, r->path, NULL) == SD_OK && sd_file_id_equal(&r->opened, id) &&
           sd_file_id_equal(&r->opened, &now);
}
int64_t sd_reader_position(const sd_reader *r) {
    return r->position;
}
