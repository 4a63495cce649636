#include "tests/unit/support/files.h"

#include "base/files/path.h"
#include "base/files/replace.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];
static pid_t owner;

static void remove_folder(void) {
    if (getpid() == owner) sd_remove_tree(folder, NULL);
}

const char *temp_file(const char *name) {
    if (owner != getpid()) {
        strcpy(folder, "/tmp/specdec_test_XXXXXX");
        if (!mkdtemp(folder)) abort();
        owner = getpid();
        atexit(remove_folder);
    }
    static char path[64][160]; // a test holds a handful at a time
    static int next;
    char *p = path[next++ % 64];
    if (snprintf(p, sizeof path[0], "%s/%s", folder, name) >= (int)sizeof path[0]) abort();
    return p;
}

const char *temp_bytes(const char *name, const void *data, size_t len) {
    const char *path = temp_file(name);
    if (sd_file_write(path, data, len, NULL) != SD_OK) abort();
    return path;
}

const char *temp_text(const char *name, const char *text) {
    return temp_bytes(name, text, strlen(text));
}

static struct archive *start(const char *path, const char *format, const char *filter) {
    struct archive *a = archive_write_new();
    if (strcmp(filter, "none") != 0 && archive_write_add_filter_by_name(a, filter) != ARCHIVE_OK)
        abort();
    if (archive_write_set_format_by_name(a, format) != ARCHIVE_OK) abort();
    if (archive_write_open_filename(a, path) != ARCHIVE_OK) abort();
    return a;
}

const char *temp_archive(const char *name, const char *format, const char *filter,
                         const archive_file *files, int n) {
    const char *path = temp_file(name);
    struct archive *a = start(path, format, filter);
    for (int i = 0; i < n; i++) {
        struct archive_entry *e = archive_entry_new();
        archive_entry_set_pathname(e, files[i].name);
        archive_entry_set_mode(e, 0100644);
        archive_entry_set_size(e, (la_int64_t)files[i].len);
        if (files[i].symlink) {
            archive_entry_set_mode(e, 0120777);
            archive_entry_set_symlink(e, files[i].symlink);
        }
        if (files[i].hardlink) archive_entry_set_hardlink(e, files[i].hardlink);
        if (archive_write_header(a, e) != ARCHIVE_OK) abort();
        if (files[i].len && archive_write_data(a, files[i].data, files[i].len) < 0) abort();
        archive_entry_free(e);
    }
    if (archive_write_free(a) != ARCHIVE_OK) abort();
    return path;
}

const char *temp_compressed(const char *name, const char *filter, const void *data, size_t len) {
    const char *path = temp_file(name);
    struct archive *a = start(path, "raw", filter);
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_filetype(e, AE_IFREG);
    if (archive_write_header(a, e) != ARCHIVE_OK) abort();
    if (len && archive_write_data(a, data, len) < 0) abort();
    archive_entry_free(e);
    if (archive_write_free(a) != ARCHIVE_OK) abort();
    return path;
}
