// Four ways to cut records out of an entry's bytes: lines, elements of an array, rows of a table,
// and the whole of a text.
#include "datasets/read/reader_private.h"
#include "datasets/read/record_json.h"

#include <string.h>

enum { MAX_COLUMNS = 4096 };

/// The next byte, not taken; -1 at the end of the entry, -2 on an error.
static int peek(sd_reader *r, sd_error *err) {
    while (r->pos == r->len) {
        if (r->entry_done) return -1;
        if (sd_reader_fill(r, err) != SD_OK) return -2;
    }
    return (unsigned char)r->buf[r->pos];
}

static sd_status add(sd_reader *r, const char *bytes, size_t n, sd_error *err) {
    if (sd_buf_add(&r->record, bytes, n)) return SD_OK;
    if (r->record.len + n > r->record.max)
        return sd_fail(err, SD_ELIMIT, "%s, line %lld: one record is longer than %d MiB; split it",
                       r->where, (long long)r->rec.line, SD_READER_MAX_RECORD >> 20);
    return sd_fail(err, SD_ENOMEM, "out of memory");
}

static sd_status parse(sd_reader *r, sd_error *err) {
    return sd_json_record(&r->rec.json, r->record.data, r->record.len, r->where, r->rec.line, err);
}

static bool blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", s[i]) || !s[i]) return false;
    return true;
}

static sd_status next_line(sd_reader *r, bool *found, sd_error *err) {
    *found = false;
    while (!*found) {
        sd_buf_clear(&r->record);
        r->rec.line = r->line;
        int c;
        bool any = false;
        while ((c = peek(r, err)) >= 0) {
            any = true;
            const char *nl = memchr(r->buf + r->pos, '\n', r->len - r->pos);
            size_t n = nl ? (size_t)(nl - r->buf) - r->pos : r->len - r->pos;
            sd_status st = add(r, r->buf + r->pos, n, err);
            if (st != SD_OK) return st;
            r->pos += n + (nl != NULL);
            if (nl) {
                r->line++;
                break;
            }
        }
        if (c == -2) return err->status;
        if (!any) return SD_OK;
        *found = !blank(r->record.data, r->record.len);
    }
    while (r->record.len && r->record.data[r->record.len - 1] == '\r')
        r->record.data[--r->record.len] = '\0';
    return parse(r, err);
}

static int skip_space(sd_reader *r, sd_error *err) {
    int c;
    while ((c = peek(r, err)) == ' ' || c == '\t' || c == '\r' || c == '\n') {
        r->line += c == '\n';
        r->pos++;
    }
    return c;
}

// Copies from '{' to the '}' that closes it; jansson judges the bytes between.
static sd_status cut_object(sd_reader *r, sd_error *err) {
    int64_t depth = 0;
    bool in_string = false, escaped = false;
    sd_buf_clear(&r->record);
    r->rec.line = r->line;
    for (;;) {
        int c = peek(r, err);
        if (c == -2) return err->status;
        if (c == -1)
            return sd_fail(err, SD_EFORMAT, "%s, line %lld: the record that begins here has no end",
                           r->where, (long long)r->rec.line);
        size_t from = r->pos;
        bool done = false;
        while (r->pos < r->len && !done) { // a buffer at a time
            char b = r->buf[r->pos++];
            r->line += b == '\n';
            if (in_string) {
                if (escaped)
                    escaped = false;
                else if (b == '\\')
                    escaped = true;
                else if (b == '"')
                    in_string = false;
            } else if (b == '"') {
                in_string = true;
            } else if (b == '{' || b == '[') {
                depth++;
            } else if (b == '}' || b == ']') {
                done = --depth <= 0;
            }
        }
        sd_status st = add(r, r->buf + from, r->pos - from, err);
        if (st != SD_OK) return st;
        if (done) return SD_OK;
    }
}

// The elements of one array, or objects one behind the other.
static sd_status next_element(sd_reader *r, bool *found, sd_error *err) {
    *found = false;
    bool fresh = !r->begun;
    r->begun = true;
    int c = skip_space(r, err);
    if (fresh && c == '[') {
        r->in_array = r->array_first = true;
        r->pos++;
        c = skip_space(r, err);
    }
    if (r->in_array && c == ']') {
        r->in_array = false;
        r->array_closed = true;
        r->pos++;
        c = skip_space(r, err);
    } else if (r->in_array && !r->array_first) {
        if (c >= 0 && c != ',') goto unexpected;
        if (c == ',') r->pos++;
        c = skip_space(r, err);
    }
    if (c == -2) return err->status;
    if (c == -1 && !r->in_array) return SD_OK;
    if (c == -1)
        return sd_fail(err, SD_EFORMAT, "%s, line %lld: the array has no end", r->where,
                       (long long)r->line);
    if (c != '{' || r->array_closed) goto unexpected;
    r->array_first = false;
    sd_status st = cut_object(r, err);
    if (st != SD_OK) return st;
    *found = true;
    return parse(r, err);
unexpected:
    return sd_fail(err, SD_EFORMAT, "%s, line %lld: found '%c' where %s", r->where,
                   (long long)r->line, c >= 32 && c < 127 ? c : '?',
                   r->array_closed ? "the file should end"
                                   : "the next record (an object) should begin");
}

static sd_status next_text(sd_reader *r, bool *found, sd_error *err) {
    *found = false;
    sd_buf_clear(&r->record);
    r->rec.line = 1;
    int c;
    while ((c = peek(r, err)) >= 0) {
        sd_status st = add(r, r->buf + r->pos, r->len - r->pos, err);
        if (st != SD_OK) return st;
        r->pos = r->len;
    }
    if (c == -2) return err->status;
    size_t at;
    if (!sd_valid_utf8(r->record.data, r->record.len, &at))
        return sd_fail(err, SD_EFORMAT,
                       "%s: byte %zu (0x%02x) is not UTF-8; convert the text to UTF-8", r->where,
                       at, (unsigned char)r->record.data[at]);
    *found = !blank(r->record.data, r->record.len);
    return SD_OK;
}

// ---- tables ------------------------------------------------------------------------------------

// Commas, unless the header has none: then semicolons (spreadsheets write them where the comma is
// the decimal point) or tabs.
static char separator_of(const sd_reader *r) {
    int commas = 0, semicolons = 0, tabs = 0;
    bool quoted = false;
    if (r->tabs) return '\t';
    for (size_t i = r->pos; i < r->len; i++) {
        char c = r->buf[i];
        if (c == '"') quoted = !quoted;
        if (quoted) continue;
        if (c == '\n' || c == '\r') break;
        commas += c == ',', semicolons += c == ';', tabs += c == '\t';
    }
    return commas ? ',' : semicolons ? ';' : tabs ? '\t' : ',';
}

static sd_status row_fault(const sd_reader *r, sd_error *err, const char *what) {
    return sd_fail(err, SD_EFORMAT, "%s, line %lld: %s", r->where, (long long)r->rec.line, what);
}

// The cell that begins here (RFC 4180: quotes around it, doubled inside) into r->cell. *end: what
// ended it, the separator, '\n', or -1 at the end of the entry. The bytes go to r->record as well.
static sd_status cut_cell(sd_reader *r, int *end, bool *quoted, sd_error *err) {
    sd_status st = SD_OK;
    bool inside = false;
    int c;
    sd_buf_clear(&r->cell);
    *quoted = false;
    for (bool first = true;; first = false) {
        c = peek(r, err);
        if (c == -2) return err->status;
        if (c == -1) break;
        char b = (char)c;
        r->pos++;
        r->line += b == '\n';
        SD_TRY(add(r, &b, 1, err));
        if (first && b == '"') {
            inside = *quoted = true;
            continue;
        }
        if (inside && b == '"') {
            inside = peek(r, err) == '"';
            if (!inside) continue;
            SD_TRY(add(r, "\"", 1, err));
            r->pos++;
        } else if (!inside && (b == r->separator || b == '\n')) {
            break;
        } else if (!inside && b == '\r' && (peek(r, err) == '\n' || peek(r, err) == -1)) {
            continue;
        } else if (!inside && *quoted) {
            return row_fault(r, err,
                             "a cell goes on behind its closing quote; write quotes inside a cell "
                             "twice");
        }
        SD_CHECK(sd_buf_addc(&r->cell, b), err, SD_ENOMEM, "out of memory");
    }
    if (inside) return row_fault(r, err, "a quote that is opened in this row is never closed");
    *end = c;
out:
    return st;
}

// Cells of one row as an array of strings; *row NULL at the end of the entry.
static sd_status cut_row(sd_reader *r, json_t **row, sd_error *err) {
    sd_status st = SD_OK;
    json_t *cells = json_array();
    bool quoted = false;
    size_t at;
    *row = NULL;
    SD_CHECK_ALLOC(cells, err);
    for (int end = '\n'; !*row;) {
        if (json_array_size(cells) == 0) {
            sd_buf_clear(&r->record);
            r->rec.line = r->line;
            int c = peek(r, err);
            if (c == -2) return json_decref(cells), err->status;
            if (c == -1) goto out;
        }
        SD_TRY(cut_cell(r, &end, &quoted, err));
        const char *text = r->cell.data ? r->cell.data : "";
        if (end != r->separator && json_array_size(cells) == 0 && !quoted && r->cell.len == 0)
            continue; // an empty line
        SD_CHECK(json_array_size(cells) < MAX_COLUMNS, err, SD_ELIMIT,
                 "%s, line %lld: more than %d cells; leave out columns", r->where,
                 (long long)r->rec.line, MAX_COLUMNS);
        if (!sd_valid_utf8(text, r->cell.len, &at)) {
            st = sd_fail(err, SD_EFORMAT, "%s, line %lld: is not UTF-8; convert the file to UTF-8",
                         r->where, (long long)r->rec.line);
            goto out;
        }
        SD_CHECK(json_array_append_new(cells, json_stringn(text, r->cell.len)) == 0, err, SD_ENOMEM,
                 "out of memory");
        if (end != r->separator) *row = cells, cells = NULL;
    }
out:
    json_decref(cells);
    return st;
}

static sd_status read_header(sd_reader *r, sd_error *err) {
    sd_status st = SD_OK;
    if (peek(r, err) == -2) return err->status;
    r->separator = separator_of(r);
    SD_TRY(cut_row(r, &r->header, err));
    for (size_t i = 0; i < json_array_size(r->header); i++)
        for (size_t k = 0; k < i; k++) {
            const char *name = json_string_value(json_array_get(r->header, i));
            SD_CHECK(!name[0] || strcmp(name, json_string_value(json_array_get(r->header, k))) != 0,
                     err, SD_EFORMAT, "%s: two columns are named '%.60s'; rename one", r->where,
                     name);
        }
out:
    return st;
}

// Each row is an object: the header's names, and every cell a string.
static sd_status next_row(sd_reader *r, bool *found, sd_error *err) {
    sd_status st = SD_OK;
    json_t *row = NULL, *object = NULL;
    *found = false;
    if (!r->begun) {
        r->begun = true;
        json_decref(r->header);
        r->header = NULL;
        SD_TRY(read_header(r, err));
    }
    if (!r->header) goto out;
    SD_TRY(cut_row(r, &row, err));
    if (!row) goto out;
    size_t n = json_array_size(row), want = json_array_size(r->header);
    SD_CHECK(n == want, err, SD_EFORMAT,
             "%s, line %lld: %zu cells, but the first row names %zu columns; put quotes around "
             "cells that hold the separator '%s'",
             r->where, (long long)r->rec.line, n, want,
             r->separator == '\t' ? "tab" : (char[]){r->separator, 0});
    object = json_object();
    SD_CHECK_ALLOC(object, err);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(r->header, i));
        if (name[0])
            SD_CHECK(json_object_set(object, name, json_array_get(row, i)) == 0, err, SD_ENOMEM,
                     "out of memory");
    }
    r->rec.json = object, object = NULL;
    *found = true;
out:
    json_decref(row);
    json_decref(object);
    return st;
}

sd_status sd_reader_cut(sd_reader *r, bool *found, sd_error *err) {
    switch (r->kind) {
    case KIND_JSONL: {
        if (r->begun) return next_line(r, found, err);
        r->begun = true;
        int c = skip_space(r, err);
        if (c == -2) return err->status;
        if (c != '[') return next_line(r, found, err);
        r->kind = KIND_JSON; // an array under this name
        r->begun = false;
        return next_element(r, found, err);
    }
    case KIND_JSON:
        return next_element(r, found, err);
    case KIND_TABLE:
        return next_row(r, found, err);
    default:
        return next_text(r, found, err);
    }
}
