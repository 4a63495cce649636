// The entries of a file and their bytes: the file itself, what a single compressed file unpacks to,
// or the regular files in a tar or zip whose names end in what is read.
//
// Archives come from strangers. Only tar, zip and single compressed files are switched on in
// libarchive; nothing is extracted; the bytes that come out are held against the size of the file
// as they come (a decompression bomb is refused after 200 times its own size, however it is nested
// or its entries overlap).
#include "base/files/path.h"
#include "base/utf8.h"
#include "datasets/read/reader_private.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { RATIO_SLACK = 1 << 20 };

// ---- names -------------------------------------------------------------------------------------

static bool strip_ending(char *name, const char *ending) {
    size_t n = strlen(name), e = strlen(ending);
    if (n <= e || strcasecmp(name + n - e, ending) != 0) return false;
    name[n - e] = '\0';
    return true;
}

static reader_kind kind_of(char *name, bool *tabs) {
    *tabs = false;
    if (strip_ending(name, ".jsonl") || strip_ending(name, ".ndjson")) return KIND_JSONL;
    if (strip_ending(name, ".json")) return KIND_JSON;
    if (strip_ending(name, ".txt") || strip_ending(name, ".md") || strip_ending(name, ".markdown"))
        return KIND_TEXT;
    if (strip_ending(name, ".csv")) return KIND_TABLE;
    *tabs = strip_ending(name, ".tsv");
    return *tabs ? KIND_TABLE : KIND_OTHER;
}

sd_status sd_reader_kind_of_path(const char *path, reader_kind *k, bool *tabs, bool *compressed,
                                 sd_error *err) {
    char *name = sd_strdup(path);
    if (!name) return sd_fail(err, SD_ENOMEM, "out of memory");
    *compressed =
        strip_ending(name, ".gz") || strip_ending(name, ".zst") || strip_ending(name, ".xz");
    if (strip_ending(name, ".tar") ||
        (!*compressed &&
         (strip_ending(name, ".zip") || strip_ending(name, ".tgz") || strip_ending(name, ".txz"))))
        *k = KIND_ARCHIVE;
    else
        *k = kind_of(name, tabs);
    free(name);
    if (*k == KIND_OTHER)
        return sd_fail(
            err, SD_EFORMAT,
            "%s: the ending is not one that is read; name it .jsonl, .json, .csv, .tsv, "
            ".txt or .md (also with .gz, .zst, .xz) or .tar, .tar.gz, .tar.zst, .tar.xz or .zip",
            path);
    return SD_OK;
}

// ---- bytes -------------------------------------------------------------------------------------

// libarchive forgets that an allocation failed: it then takes the file for damaged or of no known
// format, or an entry for one without a name. What malloc left in errno is the only trace of it, so
// each call of libarchive's begins without one.
static struct archive *afresh(sd_reader *r) {
    errno = 0;
    return r->archive;
}

static bool memory_failed(const sd_reader *r) { // to be asked first: it reads errno
    return errno == ENOMEM || archive_errno(r->archive) == ENOMEM || sd_memory_lost();
}

static sd_status archive_failed(sd_reader *r, sd_error *err) {
    if (memory_failed(r)) return sd_fail(err, SD_ENOMEM, "%s: out of memory", r->where);
    const char *why = archive_error_string(r->archive);
    return sd_fail(err, SD_EFORMAT, "%s: %s; the file is damaged or not what its name says",
                   r->where, why ? why : "cannot be read as an archive");
}

sd_status sd_reader_open_archive(sd_reader *r, sd_error *err) {
    r->archive = archive_read_new();
    if (!r->archive) return sd_fail(err, SD_ENOMEM, "out of memory");
    struct archive *a = afresh(r);
    int bad = archive_read_support_filter_gzip(a) | archive_read_support_filter_zstd(a) |
              archive_read_support_filter_xz(a);
    if (r->many)
        bad |= archive_read_support_format_tar(a) | archive_read_support_format_zip(a);
    else
        bad |= archive_read_support_format_raw(a) | archive_read_support_format_empty(a);
    if (bad != ARCHIVE_OK && memory_failed(r)) return sd_fail(err, SD_ENOMEM, "out of memory");
    if (bad != ARCHIVE_OK)
        return sd_fail(err, SD_EFORMAT, "%s: this libarchive lacks gzip, zstd, xz, tar or zip",
                       r->path);
    if (archive_read_open_fd(afresh(r), r->fd, SD_READER_BUFFER) != ARCHIVE_OK)
        return archive_failed(r, err);
    return SD_OK;
}

// The bytes that came out of the file so far, passed-over entries included, and those that the next
// entry announces must stay within the ratio. zip's passed-over entries are never unpacked.
static sd_status check_ratio(const sd_reader *r, int64_t more, sd_error *err) {
    int64_t limit = r->size * SD_READER_MAX_RATIO + RATIO_SLACK, out = r->bytes_out;
    if (!r->archive) return SD_OK;
    int64_t stream = archive_filter_bytes(r->archive, 0);
    if (stream > out) out = stream;
    if (out <= limit && more <= limit - out) return SD_OK;
    return sd_fail(err, SD_ELIMIT,
                   "%s: unpacks to more than %d times its size; if it is no mistake, give it "
                   "uncompressed",
                   r->path, SD_READER_MAX_RATIO);
}

static bool is_tar(const sd_reader *r) {
    return (archive_format(r->archive) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
}

sd_status sd_reader_name_entry(sd_reader *r, const char *entry, sd_error *err) {
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
        errno = 0;
        const char *name = archive_entry_pathname_utf8(e);
        if (!name) name = archive_entry_pathname(e);
        SD_CHECK(name || !memory_failed(r), err, SD_ENOMEM, "%s: out of memory", r->path);
        if (!name || archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e) ||
            archive_entry_symlink(e))
            return SD_OK;
        const char *base = sd_path_name(name);
        copy = sd_strdup(base);
        SD_CHECK_ALLOC(copy, err);
        r->kind = kind_of(copy, &r->tabs);
        *taken = base[0] != '.' && r->kind != KIND_OTHER;
        if (*taken) SD_TRY(sd_reader_name_entry(r, name, err));
    }
out:
    free(copy);
    return st;
}

sd_status sd_reader_next_entry(sd_reader *r, bool *more, sd_error *err) {
    *more = false;
    if (!r->archive) {
        *more = r->entries++ == 0;
    } else {
        for (bool taken = false; !taken;) {
            struct archive_entry *e;
            int rc = archive_read_next_header(afresh(r), &e);
            if (rc == ARCHIVE_EOF) return SD_OK;
            if (rc != ARCHIVE_OK && (rc != ARCHIVE_WARN || memory_failed(r)))
                return archive_failed(r, err);
            if (!r->many && archive_filter_count(r->archive) < 2) // the file itself counts as one
                return sd_fail(err, SD_EFORMAT,
                               "%s: is not compressed although its name says so; rename it",
                               r->path);
            if (r->entries++ >= SD_READER_MAX_ENTRIES)
                return sd_fail(err, SD_ELIMIT, "%s: more than %d entries; split the archive",
                               r->path, SD_READER_MAX_ENTRIES);
            sd_status st = take_entry(r, e, &taken, err);
            // A tar's entry that is passed over is unpacked by the next call, in one go.
            if (st == SD_OK && r->many)
                st = check_ratio(r, !taken && is_tar(r) ? archive_entry_size(e) : 0, err);
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

sd_status sd_reader_fill(sd_reader *r, sd_error *err) {
    sd_status st = SD_OK;
    la_ssize_t n;
    r->pos = r->len = 0;
    if (r->entry_done) return SD_OK;
    if (r->archive) {
        n = archive_read_data(afresh(r), r->buf, SD_READER_BUFFER);
        if (n < 0) return archive_failed(r, err);
        r->position = archive_filter_bytes(r->archive, -1);
    } else {
        do n = read(r->fd, r->buf, SD_READER_BUFFER);
        while (n < 0 && errno == EINTR);
        if (n < 0) return sd_fail(err, SD_EIO, "%s: read: %s", r->path, strerror(errno));
        r->position += n;
    }
    r->len = (size_t)n;
    r->entry_done = n == 0;
    r->bytes_out += n;
    SD_TRY(check_ratio(r, 0, err));
    if (r->at_start && r->len) {
        const char *encoding = sd_odd_encoding(r->buf, r->len);
        SD_CHECK(!encoding, err, SD_EFORMAT,
                 "%s: is %s, want UTF-8; convert the file (iconv -f %s -t UTF-8)", r->where,
                 encoding, encoding);
        if (r->len >= 3 && memcmp(r->buf, "\xEF\xBB\xBF", 3) == 0) r->pos = 3;
        r->at_start = false;
    }
out:
    return st;
}
