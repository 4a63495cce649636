// specdec key new ID [--admin]: a random key, and its line for the server's file of keys. The key is
// shown this once: the line has its hash alone.
#include "base/files/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/common.h"
#include "cli/verbs.h"
#include "decode/serve/http/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    bool admin, json;
    const char *output;
} args;

static const sd_option rows[] = {
    {.name = "admin",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, admin),
     .help = "an administrator's: it may also load and unload adapters"},
    SD_OUTPUT_ROW(args, output, "FILE", false,
                  "append the line to this file of keys, which is made where there is none; only "
                  "the key is printed"),
    SD_JSON_ROW(args, json, "one JSON object on standard output"),
    {0}};

enum { RANDOM = 24, KEY = 3 + 2 * RANDOM + 1 };

// "sk-" and 48 digits: 192 random bits.
static sd_status make_key(char out[KEY], sd_error *err) {
    sd_status st = SD_OK;
    unsigned char random[RANDOM];
    SD_CHECK(getrandom(random, sizeof random, 0) == sizeof random, err, SD_EIO,
             "no random numbers: %s", strerror(errno));
    memcpy(out, "sk-", 3);
    for (int i = 0; i < RANDOM; i++) snprintf(out + 3 + 2 * i, 3, "%02x", random[i]);
    OPENSSL_cleanse(random, sizeof random);
out:
    return st;
}

// ---- the file of keys

// It is held from its reading to the end, so that two at once do not make a file that neither has checked.
typedef struct {
    const char *path;
    int fd;
    bool made, written;
    size_t size; // before
} key_file;

// Held, and still there: one that failed to make it takes it away again.
static bool hold(key_file *f, const char *path, struct stat *now) {
    enum { FLAGS = O_RDWR | O_APPEND | O_CLOEXEC | O_NONBLOCK, TRIES = 1000 };
    for (int i = 0; i < TRIES; i++) {
        *f = (key_file){.path = path, .fd = open(path, FLAGS)};
        if (f->fd < 0 && errno == ENOENT) {
            f->fd = open(path, FLAGS | O_CREAT | O_EXCL, 0600);
            f->made = f->fd >= 0;
        }
        if (f->fd < 0 && errno == EEXIST) continue; // another has just made it
        if (f->fd < 0 || flock(f->fd, LOCK_EX) != 0 || fstat(f->fd, now) != 0) return false;
        if (now->st_nlink > 0) return true;
        close(f->fd), f->fd = -1;
    }
    return false;
}

static sd_status open_keys(key_file *f, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    SD_CHECK(strcmp(path, "-") != 0, err, SD_EINVAL,
             "-: a file of keys has a name; give one, or leave -o out");
    if (!hold(f, path, &sb)) return sd_fail_errno(err, path, "open");
    SD_CHECK(S_ISREG(sb.st_mode), err, SD_EINVAL,
             "%s: is no regular file, which a file of keys is; give the path of one", path);
    SD_CHECK(sb.st_size <= SD_MAX_KEY_FILE - SD_KEY_LINE - 1, err, SD_ELIMIT,
             "%s: has %lld bytes, and serve reads %d; give another file", path,
             (long long)sb.st_size, SD_MAX_KEY_FILE);
    f->size = (size_t)sb.st_size;
out:
    return st;
}

// The whole file must be one that serve reads, the new line with it. *ended: its last line has its end.
static sd_status check_keys(bool *ended, const key_file *f, const char *line, sd_error *err) {
    sd_status st = SD_OK;
    sd_keys k = {0};
    char *text = sd_alloc(f->size + 1, 1);
    SD_CHECK_ALLOC(text, err);
    ssize_t n = pread(f->fd, text, f->size, 0);
    SD_CHECK(n == (ssize_t)f->size, err, SD_EIO, "%s: could not be read; try again", f->path);
    *ended = n == 0 || text[n - 1] == '\n';
    SD_TRY(sd_keys_read(&k, text, f->size, f->path, err));
    st = sd_keys_add(&k, line, strlen(line), 0, err);
    if (st != SD_OK) sd_error_prefix(err, "%s", f->path);
out:
    if (text) OPENSSL_cleanse(text, f->size); // it may have keys as they are sent
    free(text);
    sd_keys_free(&k);
    return st;
}

static sd_status append(key_file *f, const char *path, const char *line, sd_error *err) {
    sd_status st = SD_OK;
    char text[SD_KEY_LINE + 2];
    bool ended = false;
    SD_TRY(open_keys(f, path, err));
    SD_TRY(check_keys(&ended, f, line, err));
    int n = snprintf(text, sizeof text, "%s%s\n", ended ? "" : "\n", line);
    f->written = true;
    errno = ENOSPC; // where less was written
    if (write(f->fd, text, (size_t)n) != n || fsync(f->fd) != 0)
        st = sd_fail_errno(err, path, "write");
out:
    return st;
}

// What failed leaves the file as it was, or none.
static void close_keys(key_file *f, bool failed) {
    if (f->fd < 0) return;
    if (failed && f->made && f->size == 0) // another may have been first
        unlink(f->path);
    else if (failed && f->written && ftruncate(f->fd, (off_t)f->size) != 0)
        sd_log(SD_LOG_WARN, "%s: could not be cut back; remove its last line", f->path);
    close(f->fd);
}

static sd_status print_json(const args *a, const char *id, const char *key, const char *line,
                            sd_error *err) {
    json_t *j =
        json_pack("{s:s, s:s, s:b, s:s}", "id", id, "key", key, "admin", a->admin, "line", line);
    if (!j) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = sd_json_print(stdout, j, JSON_COMPACT, err);
    if (st == SD_OK) putchar('\n');
    json_decref(j);
    return st;
}

static sd_status print(const args *a, const char *id, const char *key, const char *line,
                       sd_error *err) {
    sd_status st = SD_OK;
    if (a->json) SD_TRY(print_json(a, id, key, line, err));
    if (!a->json) printf("key:  %s\n", key);
    if (!a->json && !a->output) printf("line: %s\n", line);
    SD_CHECK(fflush(stdout) == 0 && !ferror(stdout), err, SD_EIO,
             "standard output: write failed, so no key was made; is the disk full?");
out:
    return st;
}

// The line comes first and goes again where the key cannot be shown: a key that nobody has seen is none.
sd_status sd_verb_key(int argc, char **argv, sd_error *err) {
    args a = {0};
    sd_strings rest;
    sd_status st = SD_OK;
    char key[KEY], line[SD_KEY_LINE];
    key_file f = {.fd = -1};
    if (sd_verb_help("key new ID [--admin] [-o FILE]",
                     "A random API key, shown this once, and its line for serve's --api-key-file.",
                     rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n > 0, err, SD_EINVAL, "key: what to do is missing; give new ID");
    SD_CHECK(strcmp(rest.item[0], "new") == 0, err, SD_EINVAL,
             "key: '%.80s' is not known; give new ID", rest.item[0]);
    SD_CHECK(rest.n == 2, err, SD_EINVAL, "key new: %d IDs are given; give one", rest.n - 1);
    SD_TRY(make_key(key, err));
    SD_TRY(sd_key_line(line, rest.item[1], key, a.admin, err));
    if (a.output) sd_outlive_broken_pipes(); // a reader that has gone is a write that failed
    if (a.output) SD_TRY(append(&f, a.output, line, err));
    SD_TRY(print(&a, rest.item[1], key, line, err));
out:
    close_keys(&f, st != SD_OK);
    OPENSSL_cleanse(key, sizeof key);
    return st;
}
