// What stands at a path decides how an output is written there: devices, pipes and links stay what they are.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "tests/unit/support/files.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

enum { NULL_MINOR = 3, FULL_MINOR = 7 }; // of the memory devices, whose major number is 1

static mode_t kind_of(const char *path) {
    struct stat sb;
    return lstat(path, &sb) == 0 ? sb.st_mode & S_IFMT : 0;
}

static bool says(const char *path, const char *want) {
    char *data;
    size_t len;
    if (sd_file_read(&data, &len, path, 1 << 20, NULL) != SD_OK) return false;
    bool same = len == strlen(want) && memcmp(data, want, len) == 0;
    free(data);
    return same;
}

static sd_status write_text(const char *path, const char *text, sd_error *err) {
    return sd_file_write(path, text, strlen(text), err);
}

// A device of one's own beside the system's: nothing in /dev is at stake. NULL: not allowed here.
static const char *device(const char *name, unsigned minor) {
    const char *path = temp_file(name);
    int fd = mknod(path, S_IFCHR | 0600, makedev(1, minor)) == 0 ? open(path, O_WRONLY) : -1;
    if (fd < 0) return NULL;
    close(fd);
    return path;
}

Test(replace, a_device_is_written_to_and_stays) {
    const char *null = device("null", NULL_MINOR), *full = device("full", FULL_MINOR);
    sd_error err = {0};
    if (!null || !full) cr_skip_test("devices cannot be made here");
    cr_assert_eq(write_text(null, "x", &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_check_writable(null, &err), SD_OK, "%s", err.message);
    cr_assert_eq(write_text(full, "x", &err), SD_EIO);
    cr_assert(strstr(err.message, full) && strstr(err.message, "full"), "%s", err.message);
    cr_assert(kind_of(null) == S_IFCHR && kind_of(full) == S_IFCHR);
    const char *link = temp_file("link");
    cr_assert_eq(symlink(full, link), 0);
    cr_assert_eq(write_text(link, "x", &err), SD_EIO);
    cr_assert(kind_of(link) == S_IFLNK && kind_of(full) == S_IFCHR);
}

// More than a pipe holds: the writer waits for the reader.
enum { LONG = 300000 };

static void *read_pipe(void *path) {
    char *data;
    size_t len;
    if (sd_stream_read(&data, &len, path, 1 << 20, NULL) != SD_OK) return NULL;
    bool whole = len == LONG;
    for (size_t i = 0; i < len; i++) whole = whole && data[i] == 'x';
    free(data);
    return whole ? path : NULL;
}

Test(replace, a_pipe_carries_the_bytes_and_stays) {
    const char *path = temp_file("pipe");
    static char text[LONG];
    pthread_t reader;
    void *got;
    sd_error err = {0};
    memset(text, 'x', sizeof text);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_eq(sd_check_writable(path, &err), SD_OK); // does not wait for a reader
    cr_assert_eq(pthread_create(&reader, NULL, read_pipe, (void *)(uintptr_t)path), 0);
    cr_assert_eq(sd_file_write(path, text, sizeof text, &err), SD_OK, "%s", err.message);
    cr_assert_eq(pthread_join(reader, &got), 0);
    cr_assert(got == path && kind_of(path) == S_IFIFO);
}

Test(replace, what_must_be_a_file_is_refused_where_a_pipe_stands) {
    const char *path = temp_file("pipe"), *link = temp_file("link");
    sd_replace r;
    sd_error err = {0};
    cr_assert(mkfifo(path, 0600) == 0 && symlink(path, link) == 0);
    cr_assert_eq(sd_replace_open_whole(&r, path, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "is a pipe or a device"), "%s", err.message);
    cr_assert_eq(sd_check_writable_whole(link, &err), SD_EINVAL);
    cr_assert(kind_of(path) == S_IFIFO && kind_of(link) == S_IFLNK);
}

Test(replace, a_link_stays_and_its_file_is_replaced_or_made) {
    const char *file = temp_text("file", "old"), *first = temp_file("first"),
               *second = temp_file("second"), *loop = temp_file("loop");
    sd_error err = {0};
    cr_assert(symlink("file", second) == 0 &&
              symlink(second, first) == 0); // beside it; by its path
    cr_assert_eq(write_text(first, "new", &err), SD_OK, "%s", err.message);
    cr_assert(says(file, "new") && kind_of(first) == S_IFLNK && kind_of(second) == S_IFLNK);
    cr_assert_eq(unlink(file), 0);
    cr_assert_eq(write_text(first, "made", &err), SD_OK, "%s", err.message);
    cr_assert(says(file, "made") && kind_of(file) == S_IFREG && kind_of(first) == S_IFLNK);
    cr_assert_eq(symlink("loop", loop), 0);
    cr_assert_eq(write_text(loop, "x", &err), SD_EINVAL);
    cr_assert(strstr(err.message, "links without end"), "%s", err.message);
}

Test(replace, a_file_of_the_programs_own_takes_a_links_place) {
    const char *file = temp_text("file", "old"), *link = temp_file("link");
    sd_replace r;
    cr_assert_eq(symlink(file, link), 0);
    cr_assert_eq(sd_replace_open_own(&r, link, 0644, NULL), SD_OK);
    cr_assert_eq(sd_replace_commit(&r, NULL), SD_OK);
    cr_assert(kind_of(link) == S_IFREG && says(link, "") && says(file, "old"));
}

Test(replace, a_files_mode_stays_whatever_the_umask_is) {
    static const mode_t modes[] = {0600, 0640, 0664, 0666, 0755};
    const char *path = temp_text("file", "old");
    struct stat sb;
    umask(022);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        cr_assert_eq(chmod(path, modes[i]), 0);
        cr_assert_eq(write_text(path, "new", NULL), SD_OK);
        cr_assert(stat(path, &sb) == 0 && (sb.st_mode & 07777) == modes[i], "%o", sb.st_mode);
    }
}

Test(replace, a_folder_a_socket_and_the_sign_of_standard_output_are_refused) {
    const char *path = temp_file("s");
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    sd_error err = {0};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_lt(strlen(path), sizeof at.sun_path);
    memcpy(at.sun_path, path, strlen(path));
    cr_assert(s >= 0 && bind(s, (struct sockaddr *)&at, sizeof at) == 0);
    cr_assert_eq(write_text(path, "x", &err), SD_EINVAL);
    cr_assert(strstr(err.message, "is a socket"), "%s", err.message);
    cr_assert_eq(sd_check_writable(path, &err), SD_EINVAL);
    close(s);
    cr_assert_eq(write_text("/tmp", "x", &err), SD_EINVAL);
    cr_assert(strstr(err.message, "/tmp: is a folder"), "%s", err.message);
    cr_assert_eq(write_text("-", "x", &err), SD_EINVAL);
    cr_assert(strstr(err.message, "standard output"), "%s", err.message);
}

// /dev/stdout leads to such a link. A file that is open must not lose what else goes there.
Test(replace,
     what_a_process_has_open_is_written_to_where_it_is_a_pipe_and_refused_where_it_is_a_file) {
    const char *file = temp_text("file", "old");
    char path[64], got[8] = {0};
    int ends[2], fd = open(file, O_WRONLY);
    sd_error err = {0};
    cr_assert(fd >= 0 && pipe(ends) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    cr_assert_eq(write_text(path, "new", &err), SD_EINVAL);
    cr_assert(says(file, "old") && strstr(err.message, "open already"), "%s", err.message);
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[1]);
    cr_assert_eq(write_text(path, "new", &err), SD_OK, "%s", err.message);
    cr_assert(read(ends[0], got, sizeof got - 1) == 3 && strcmp(got, "new") == 0);
    close(fd), close(ends[0]), close(ends[1]);
}
