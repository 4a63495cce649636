// One buffer of bytes, filled by read() or by libarchive, and three ways to cut records out of it.
//
// Archives come from strangers. Only tar, zip and single compressed files are switched on in
// libarchive; nothing is extracted; the bytes that come out are held against the size of the file
// as they come (a decompression bomb is refused after 200 times its own size, however it is nested
// or its entries overlap).
#include "datasets/reader.h"

#include "base/file.h"
#include "base/log.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { BUFFER = 1 << 16, RATIO_SLACK = 1 << 20 };

typedef enum { KIND_OTHER, KIND_JSONL, KIND_JSON, KIND_TEXT, KIND_ARCHIVE } kind;

struct sd_reader {
    char *path, *where;
    int fd;
    int64_t size, position;
    struct archive *archive; // NULL: a plain file
    bool many;               // tar or zip: entries with names of their own
    kind kind;               // of the current entry
    int entries, used_entries;
    int64_t bytes_out; // decompressed so far

    bool in_entry, entry_done; // entry_done: its last byte is in the buffer
    bool at_start;             // of an entry
    int64_t line;
    char buf[BUFFER];
    size_t pos, len;

    bool begun, in_array, array_closed, array_first; // JSON
    sd_buf record;
    sd_record rec;
    int64_t number;
};

// ---- names -------------------------------------------------------------------------------------

static bool strip_ending(char *name, const char *ending) {
    size_t n = strlen(name), e = strlen(ending);
    if (n <= e || strcasecmp(name + n - e, ending) != 0) return false;
    name[n - e] = '\0';
    return true;
}

static kind kind_of(char *name) {
    if (strip_ending(name, ".jsonl") || strip_ending(name, ".ndjson")) return KIND_JSONL;
    if (strip_ending(name, ".json")) return KIND_JSON;
    if (strip_ending(name, ".txt") || strip_ending(name, ".md") || strip_ending(name, ".markdown"))
        return KIND_TEXT;
    return KIND_OTHER;
}

static sd_status kind_of_path(const char *path, kind *k, bool *compressed, sd_error *err) {
    char *name = sd_strdup(path);
    if (!name) return sd_fail(err, SD_ENOMEM, "out of memory");
    *compressed =
        strip_ending(name, ".gz") || strip_ending(name, ".zst") || strip_ending(name, ".xz");
    if (strip_ending(name, ".tar") ||
        (!*compressed &&
         (strip_ending(name, ".zip") || strip_ending(name, ".tgz") || strip_ending(name, ".txz"))))
        *k = KIND_ARCHIVE;
    else
        *k = kind_of(name);
    free(name);
    if (*k == KIND_OTHER)
        return sd_fail(err, SD_EFORMAT,
                       "%s: the ending is not one that is read; name it .jsonl, .json, .txt or .md "
                       "(also with .gz, .zst, .xz) or .tar, .tar.gz, .tar.zst, .tar.xz or .zip",
                       path);
    return SD_OK;
}

// ---- bytes -------------------------------------------------------------------------------------

static sd_status archive_failed(sd_reader *r, sd_error *err) {
    const char *why = archive_error_string(r->archive);
    return sd_fail(err, SD_EFORMAT, "%s: %s; the file is damaged or not what its name says",
                   r->where, why ? why : "cannot be read as an archive");
}

static sd_status open_archive(sd_reader *r, sd_error *err) {
    r->archive = archive_read_new();
    if (!r->archive) return sd_fail(err, SD_ENOMEM, "out of memory");
    struct archive *a = r->archive;
    int bad = archive_read_support_filter_gzip(a) | archive_read_support_filter_zstd(a) |
              archive_read_support_filter_xz(a);
    if (r->many)
        bad |= archive_read_support_format_tar(a) | archive_read_support_format_zip(a);
    else
        bad |= archive_read_support_format_raw(a) | archive_read_support_format_empty(a);
    if (bad != ARCHIVE_OK)
        return sd_fail(err, SD_EFORMAT, "%s: this libarchive lacks gzip, zstd, xz, tar or zip",
                       r->path);
    if (archive_read_open_fd(a, r->fd, BUFFER) != ARCHIVE_OK) return archive_failed(r, err);
    return SD_OK;
}

static sd_status name_entry(sd_reader *r, const char *entry, sd_error *err) {
    free(r->where);
    r->where = entry ? sd_sprintf("%s: %s", r->path, entry) : sd_strdup(r->path);
    if (!r->where) return sd_fail(err, SD_ENOMEM, "out of memory");
    return SD_OK;
}

// Takes the entry if it is a regular file of a kind that is read.
static sd_status take_entry(sd_reader *r, struct archive_entry *e, bool *taken, sd_error *err) {
    sd_status st = SD_OK;
    char *copy = NULL;
    *taken = !r->many;
    if (r->many) {
        const char *name = archive_entry_pathname_utf8(e);
        if (!name) name = archive_entry_pathname(e);
        if (!name || archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e) ||
            archive_entry_symlink(e))
            return SD_OK;
        const char *base = strrchr(name, '/');
        base = base ? base + 1 : name;
        copy = sd_strdup(base);
        SD_CHECK_ALLOC(copy, err);
        r->kind = kind_of(copy);
        *taken = base[0] != '.' && r->kind != KIND_OTHER;
        if (*taken) SD_TRY(name_entry(r, name, err));
    }
out:
    free(copy);
    return st;
}

static sd_status next_entry(sd_reader *r, bool *more, sd_error *err) {
    *more = false;
    if (!r->archive) {
        *more = r->entries++ == 0;
    } else {
        for (bool taken = false; !taken;) {
            struct archive_entry *e;
            int rc = archive_read_next_header(r->archive, &e);
            if (rc == ARCHIVE_EOF) return SD_OK;
            if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) return archive_failed(r, err);
            if (!r->many && archive_filter_count(r->archive) < 2) // the file itself counts as one
                return sd_fail(err, SD_EFORMAT,
                               "%s: is not compressed although its name says so; rename it",
                               r->path);
            if (r->entries++ >= SD_READER_MAX_ENTRIES)
                return sd_fail(err, SD_ELIMIT, "%s: more than %d entries; split the archive",
                               r->path, SD_READER_MAX_ENTRIES);
            sd_status st = take_entry(r, e, &taken, err);
            if (st != SD_OK) return st;
        }
        *more = true;
    }
    r->in_entry = *more;
    r->used_entries += *more;
    r->entry_done = r->begun = r->in_array = r->array_closed = false;
    r->at_start = true;
    r->pos = r->len = 0;
    r->line = 1;
    return SD_OK;
}

// Fills an empty buffer; len stays 0 at the end of the entry.
static sd_status fill(sd_reader *r, sd_error *err) {
    r->pos = r->len = 0;
    if (r->entry_done) return SD_OK;
    la_ssize_t n;
    if (r->archive) {
        n = archive_read_data(r->archive, r->buf, BUFFER);
        if (n < 0) return archive_failed(r, err);
        r->position = archive_filter_bytes(r->archive, -1);
    } else {
        do n = read(r->fd, r->buf, BUFFER);
        while (n < 0 && errno == EINTR);
        if (n < 0) return sd_fail(err, SD_EIO, "%s: read: %s", r->path, strerror(errno));
        r->position += n;
    }
    r->len = (size_t)n;
    r->entry_done = n == 0;
    r->bytes_out += n;
    if (r->archive && r->bytes_out > r->size * SD_READER_MAX_RATIO + RATIO_SLACK)
        return sd_fail(err, SD_ELIMIT,
                       "%s: unpacks to more than %d times its size; if it is no mistake, give it "
                       "uncompressed",
                       r->path, SD_READER_MAX_RATIO);
    if (r->at_start && r->len >= 3 && memcmp(r->buf, "\xEF\xBB\xBF", 3) == 0) r->pos = 3;
    if (r->len) r->at_start = false;
    return SD_OK;
}

// -1 at the end of the entry, -2 on an error.
static inline int peek(sd_reader *r, sd_error *err) {
    while (r->pos == r->len) {
        if (r->entry_done) return -1;
        if (fill(r, err) != SD_OK) return -2;
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

// ---- records -----------------------------------------------------------------------------------

static sd_status parse(sd_reader *r, sd_error *err) {
    json_error_t je;
    r->rec.json = json_loadb(r->record.data, r->record.len, JSON_REJECT_DUPLICATES, &je);
    if (!r->rec.json)
        return sd_fail(err, SD_EFORMAT, "%s, line %lld: is not JSON: %s", r->where,
                       (long long)(r->rec.line + je.line - 1), je.text);
    if (!json_is_object(r->rec.json))
        return sd_fail(err, SD_EFORMAT,
                       "%s, line %lld: is not an object; each record is one JSON object", r->where,
                       (long long)r->rec.line);
    return SD_OK;
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
        if (c == -2) return err ? err->status : SD_EIO;
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

// From its '{' to the '}' that closes it; jansson judges what stands between.
static sd_status cut_object(sd_reader *r, sd_error *err) {
    int64_t depth = 0;
    bool in_string = false, escaped = false;
    sd_buf_clear(&r->record);
    r->rec.line = r->line;
    for (;;) {
        int c = peek(r, err);
        if (c == -2) return err ? err->status : SD_EIO;
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
    if (c == -2) return err ? err->status : SD_EIO;
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
    if (c == -2) return err ? err->status : SD_EIO;
    size_t at;
    if (!sd_valid_utf8(r->record.data, r->record.len, &at))
        return sd_fail(err, SD_EFORMAT,
                       "%s: byte %zu (0x%02x) is not UTF-8; convert the text to UTF-8", r->where,
                       at, (unsigned char)r->record.data[at]);
    *found = !blank(r->record.data, r->record.len);
    return SD_OK;
}

static sd_status next_in_entry(sd_reader *r, bool *found, sd_error *err) {
    switch (r->kind) {
    case KIND_JSONL:
        return next_line(r, found, err);
    case KIND_JSON:
        return next_element(r, found, err);
    default:
        return next_text(r, found, err);
    }
}

sd_status sd_reader_next(sd_reader *r, const sd_record **rec, sd_error *err) {
    sd_error own = {0};
    if (!err) err = &own; // peek's callers read the status from it
    *rec = NULL;
    json_decref(r->rec.json);
    r->rec.json = NULL;
    for (;;) {
        bool found = false;
        sd_status st = SD_OK;
        if (r->in_entry) st = next_in_entry(r, &found, err);
        if (st != SD_OK) return st;
        if (found) break;
        bool more;
        st = next_entry(r, &more, err);
        if (st != SD_OK) return st;
        if (more) continue;
        if (r->number > 0) return SD_OK;
        return sd_fail(err, SD_EFORMAT, "%s: holds no record%s", r->path,
                       r->many && r->used_entries == 0
                           ? "; no entry's name ends in .jsonl, .json, .txt or .md"
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
    r->path = sd_strdup(path);
    SD_CHECK_ALLOC(r->path, err);
    SD_TRY(name_entry(r, NULL, err));
    SD_TRY(kind_of_path(path, &r->kind, &compressed, err));
    size_t size;
    SD_TRY(sd_open_regular(&r->fd, &size, path, err));
    r->size = (int64_t)size;
    r->many = r->kind == KIND_ARCHIVE;
    if (r->many || compressed) SD_TRY(open_archive(r, err));
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
    sd_buf_free(&r->record);
    free(r->where);
    free(r->path);
    free(r);
}

int64_t sd_reader_size(const sd_reader *r) {
    return r->size;
}
int64_t sd_reader_position(const sd_reader *r) {
    return r->position;
}

bool sd_valid_utf8(const char *s, size_t len, size_t *at) {
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < len;) {
        unsigned c = p[i], need = c < 0x80 ? 0 : c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
        *at = i;
        if (c >= 0x80 && (c < 0xC2 || c > 0xF4)) return false;
        if (len - i <= need) return false;
        for (unsigned k = 1; k <= need; k++)
            if ((p[i + k] & 0xC0) != 0x80) return false;
        if (need > 1) { // overlong forms, surrogates, beyond U+10FFFF
            unsigned d = p[i + 1];
            if ((c == 0xE0 && d < 0xA0) || (c == 0xED && d > 0x9F) || (c == 0xF0 && d < 0x90) ||
                (c == 0xF4 && d > 0x8F))
                return false;
        }
        i += need + 1;
    }
    return true;
}
