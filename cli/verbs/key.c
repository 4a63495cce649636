// specdec key new ID [--admin]: a random key, and its line for the server's file of keys. The key is
// shown this once: the line has its hash alone.
#include "base/files/path.h"
#include "base/json.h"
#include "cli/common.h"
#include "cli/verbs.h"
#include "decode/serve/http/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/random.h>
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

// One write, so that two at once do not mix. A file whose last line has no end gets one.
static sd_status append(const char *path, const char *line, sd_error *err) {
    sd_status st = SD_OK;
    char text[SD_KEY_LINE + 2], last = '\n';
    sd_path_kind kind;
    int fd = -1;
    SD_TRY(sd_path_look(&kind, path, err));
    SD_CHECK((kind == SD_PATH_NONE || kind == SD_PATH_FILE) && strcmp(path, "-") != 0, err,
             SD_EINVAL, "%s: is no regular file, which a file of keys is; give the path of one",
             path);
    fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    SD_CHECK(fd >= 0, err, SD_EINVAL, "%s: %s; give a file that can be written", path,
             strerror(errno));
    off_t end = lseek(fd, 0, SEEK_END);
    SD_CHECK(end <= 0 || pread(fd, &last, 1, end - 1) == 1, err, SD_EIO, "%s: %s", path,
             strerror(errno));
    int n = snprintf(text, sizeof text, "%s%s\n", last == '\n' ? "" : "\n", line);
    SD_CHECK(write(fd, text, (size_t)n) == n && fsync(fd) == 0, err, SD_EIO, "%s: %s", path,
             strerror(errno));
out:
    if (fd >= 0) close(fd);
    return st;
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

sd_status sd_verb_key(int argc, char **argv, sd_error *err) {
    args a = {0};
    sd_strings rest;
    sd_status st = SD_OK;
    char key[KEY], line[SD_KEY_LINE];
    if (sd_verb_help("key new ID [--admin] [-o FILE]",
                     "A random API key, shown this once, and its line for serve's --api-key-file.",
                     rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n > 0 && strcmp(rest.item[0], "new") == 0, err, SD_EINVAL,
             "key: '%s' is not known; give new ID", rest.n ? rest.item[0] : "");
    SD_CHECK(rest.n == 2, err, SD_EINVAL, "key new: %d IDs are given; give one", rest.n - 1);
    SD_TRY(make_key(key, err));
    SD_TRY(sd_key_line(line, rest.item[1], key, a.admin, err));
    if (a.output) SD_TRY(append(a.output, line, err));
    if (a.json) SD_TRY(print_json(&a, rest.item[1], key, line, err));
    if (!a.json) printf("key:  %s\n", key);
    if (!a.json && !a.output) printf("line: %s\n", line);
out:
    OPENSSL_cleanse(key, sizeof key);
    return st;
}
