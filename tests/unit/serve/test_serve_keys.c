// The file of API keys: both forms of a line, what is refused and where; and what an administrator's key
// may: its priority counts among all clients.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "decode/serve/http/auth.h"
#include "tests/unit/support/live.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sd_status load_bytes(sd_keys *k, const char *text, size_t len, sd_error *err) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/specdec_keys_of_%d", (int)getpid());
    cr_assert_eq(sd_file_write(path, text, len, NULL), SD_OK);
    sd_status st = sd_keys_load(k, NULL, path, err);
    unlink(path);
    return st;
}

static const char *hash_of(const char *key) {
    static sd_sha256 hash;
    cr_assert_eq(sd_sha256_of(&hash, key, strlen(key), NULL), SD_OK);
    return hash.hex;
}

static void check_key(const sd_keys *k, const char *sent, const char *id, bool admin) {
    char field[128];
    snprintf(field, sizeof field, "Bearer %s", sent);
    int i = sd_keys_find(k, field);
    cr_assert_geq(i, 0, "%s", sent);
    cr_assert_str_eq(k->key[i].id, id);
    cr_assert_eq(k->key[i].admin, admin);
}

Test(serve_keys, a_key_comes_in_either_field) {
    sd_keys k;
    cr_assert_eq(load_bytes(&k, "first-key\nsecond-key\n", 21, NULL), SD_OK);
    cr_expect_eq(sd_keys_find_either(&k, NULL, "second-key"), 1);
    cr_expect_eq(sd_keys_find_either(&k, "Bearer first-key", NULL), 0);
    cr_expect_eq(sd_keys_find_either(&k, "Bearer first-key", "second-key"), 0);
    cr_expect_eq(sd_keys_find_either(&k, "Bearer other-key", "second-key"), 1);
    cr_expect_eq(sd_keys_find_either(&k, "Bearer other-key", "Bearer second-key"), -1);
    cr_expect_eq(sd_keys_find_either(&k, NULL, NULL), -1);
    cr_expect_eq(sd_keys_find_either(&k, NULL, ""), -1);
    sd_keys_free(&k);
    cr_expect_eq(sd_keys_find_either(&k, NULL, "x"), -1);
}

Test(serve_keys, a_line_is_a_key_or_a_name_with_its_hash) {
    sd_keys k;
    char text[1024];
    int n = snprintf(text, sizeof text, "# people\nbare-key-1\r\n\n  alice sha256:%s\r\n",
                     hash_of("key-of-alice"));
    n += snprintf(text + n, sizeof text - (size_t)n, "\tops_1.x-y\t sha256:%s \t admin  \n",
                  hash_of("key-of-ops"));
    n += snprintf(text + n, sizeof text - (size_t)n, "bare-key-1\nadmin-key-bare");
    cr_assert_eq(load_bytes(&k, text, (size_t)n, NULL), SD_OK);
    cr_assert_eq(k.n, 5);
    check_key(&k, "key-of-alice", "alice", false);
    check_key(&k, "key-of-ops", "ops_1.x-y", true);
    char id[9];
    snprintf(id, sizeof id, "%.8s", hash_of("bare-key-1"));
    check_key(&k, "bare-key-1", id, false);
    snprintf(id, sizeof id, "%.8s", hash_of("admin-key-bare"));
    check_key(&k, "admin-key-bare", id, false);
    // Whoever has the file has no key.
    snprintf(text, sizeof text, "Bearer sha256:%s", hash_of("key-of-alice"));
    cr_assert_eq(sd_keys_find(&k, text), -1);
    snprintf(text, sizeof text, "Bearer %s", hash_of("key-of-alice"));
    cr_assert_eq(sd_keys_find(&k, text), -1);
    sd_keys_free(&k);
}

// The error names line `line` and says `what`.
static void refused(const char *text, size_t len, int line, const char *what) {
    sd_keys k;
    sd_error err = {0};
    char where[16];
    cr_assert_eq(load_bytes(&k, text, len, &err), SD_EINVAL, "%s", text);
    snprintf(where, sizeof where, ":%d: ", line);
    cr_assert(strstr(err.message, where) && strstr(err.message, what), "%s: %s", text, err.message);
}
#define REFUSED(text, line, what) refused(text, sizeof(text) - 1, line, what)

#define H "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define G "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

Test(serve_keys, what_is_neither_form_is_refused_by_its_line) {
    REFUSED("long-enough\na sha256:" H " root\n", 2, "'admin'");
    REFUSED("a sha256:" H " admin more\n", 1, "without blanks");
    REFUSED("\n\ntwo words-of-it\n", 3, "without blanks");
    REFUSED("a sha256:" H "0\n", 1, "65 characters");
    REFUSED("a sha256:\n", 1, "0 characters");
    REFUSED("a sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef\n", 1,
            "64 digits");
    REFUSED("a SHA256:" H "\n", 1, "without blanks");
    REFUSED("sha256:" H "\n", 1, "no ID before it");
    REFUSED("sha256:" H " admin\n", 1, "no ID before it");
    REFUSED("a/b sha256:" H "\n", 1, "letters, digits");
    REFUSED("\xc3\xa4 sha256:" H "\n", 1, "letters, digits");
    REFUSED("a0123456789012345678901234567890123456789012345678901234567890123 sha256:" H "\n", 1,
            "at most 64");
    REFUSED("a sha256:" H "\nb sha256:" G "\na sha256:" G "\n", 3, "the ID a stands in line 1");
    REFUSED("a sha256:" H "\na sha256:" G "\n", 2, "the ID a stands in line 1");
    REFUSED("a sha256:" H "\nb sha256:" H " admin\n", 2, "stands in line 1");
    REFUSED("short\n", 1, "5 bytes");
    REFUSED("long-enough\nlong\0enough\n", 2, "printable");
    REFUSED("long-enough\nlong-\x7f-enough\n", 2, "printable");
    char text[256];
    int n = snprintf(text, sizeof text, "some-bare-key\nme sha256:%s admin\n",
                     hash_of("some-bare-key"));
    refused(text, (size_t)n, 2, "stands in line 1");
    REFUSED("a sha256:" H " admin\0\n", 1, "'admin'");
}

Test(serve_keys, any_bytes_are_read_to_an_end) {
    uint64_t x = 88172645463325252u;
    char text[300];
    static const char alphabet[] = "a \t\n\r#sha256:admin0123456789abcdef\0\xff";
    for (int round = 0; round < 500; round++) {
        size_t n = 0;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        const size_t len = x % sizeof text;
        for (; n < len; n++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            text[n] = alphabet[x % sizeof alphabet];
        }
        sd_keys k;
        if (load_bytes(&k, text, n, NULL) == SD_OK) sd_keys_free(&k);
    }
}

Test(serve_keys, a_level_is_for_those_whose_key_has_it) {
    sd_keys k;
    char text[512], line[SD_KEY_LINE];
    cr_assert_eq(sd_key_line(line, "ops", "key-of-ops", true, NULL), SD_OK);
    int n = snprintf(text, sizeof text, "key-of-user\n%s\n", line);
    cr_assert_eq(load_bytes(&k, text, (size_t)n, NULL), SD_OK);
    static const struct {
        sd_auth level;
        const char *key;
        int want, without; // of a server with these keys; of one without any
    } rows[] = {
        {SD_AUTH_PUBLIC, NULL, 0, 0},
        {SD_AUTH_PUBLIC, "wrong-key", 0, 0},
        {SD_AUTH_USER, NULL, 401, 0},
        {SD_AUTH_USER, "wrong-key", 401, 0},
        {SD_AUTH_USER, "key-of-user", 0, 0},
        {SD_AUTH_USER, "key-of-ops", 0, 0},
        {SD_AUTH_ADMIN, NULL, 401, 403},
        {SD_AUTH_ADMIN, "wrong-key", 401, 403},
        {SD_AUTH_ADMIN, "key-of-user", 403, 403},
        {SD_AUTH_ADMIN, "key-of-ops", 0, 403},
        {SD_AUTH_UNSET, "key-of-user", 403, 403}, // a route that forgot it
    };
    const sd_keys none = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(sd_keys_check(&k, rows[i].level, NULL, rows[i].key), rows[i].want, "%zu", i);
        cr_expect_eq(sd_keys_check(&none, rows[i].level, NULL, rows[i].key), rows[i].without,
                     "%zu, without keys", i);
    }
    sd_keys_free(&k);
}

Test(serve_keys, a_line_that_is_made_is_one_that_is_read) {
    sd_keys k;
    char line[SD_KEY_LINE], longest[SD_MAX_KEY_ID + 2];
    memset(longest, 'x', sizeof longest - 1), longest[sizeof longest - 1] = '\0';
    cr_expect_eq(sd_key_line(line, longest, "long-enough", true, NULL), SD_EINVAL);
    cr_expect_eq(sd_key_line(line, "a b", "long-enough", true, NULL), SD_EINVAL);
    cr_expect_eq(sd_key_line(line, "", "long-enough", true, NULL), SD_EINVAL);
    cr_expect_eq(sd_key_line(line, "a", "short", true, NULL), SD_EINVAL);
    longest[SD_MAX_KEY_ID] = '\0';
    for (int admin = 0; admin < 2; admin++) {
        cr_assert_eq(sd_key_line(line, longest, "long-enough", admin, NULL), SD_OK);
        cr_assert_eq(load_bytes(&k, line, strlen(line), NULL), SD_OK);
        check_key(&k, "long-enough", longest, admin);
        sd_keys_free(&k);
    }
}

// ---- over HTTP

static int ask(const live *s, const char *key, int prompt, int tokens, int priority) {
    char head[512];
    const size_t room = 128 + (size_t)prompt * 4;
    char *body = malloc(room);
    cr_assert_not_null(body);
    int n = snprintf(body, room, "{\"max_tokens\":%d,\"priority\":%d,\"ignore_eos\":true,", tokens,
                     priority);
    n += snprintf(body + n, room - (size_t)n, "\"prompt\":[");
    for (int i = 0; i < prompt; i++)
        n += snprintf(body + n, room - (size_t)n, "%s%d", i ? "," : "", i % 99);
    n += snprintf(body + n, room - (size_t)n, "]}");
    int fd = live_dial(s, 0);
    int m = snprintf(head, sizeof head,
                     "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
                     "Content-Length: %d\r\n\r\n",
                     key, n);
    cr_assert(live_send(fd, head, (size_t)m) && live_send(fd, body, (size_t)n));
    free(body);
    return fd;
}

static char *ask_models(const live *s, const char *key) {
    char text[256];
    int fd = live_dial(s, 0);
    int n = snprintf(text, sizeof text,
                     "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "x-api-key: %s\r\n\r\n",
                     key);
    cr_assert(live_send(fd, text, (size_t)n));
    char *page = live_read(fd);
    close(fd);
    return page;
}

static bool is_known(const live *s, const char *key) {
    char *page = ask_models(s, key);
    bool known = strstr(page, " 200 OK") != NULL;
    cr_assert(known || strstr(page, " 401 "), "%.200s", page);
    free(page);
    return known;
}

// A signal is handled some time after it was sent.
static bool becomes_known(const live *s, const char *key, bool wanted) {
    for (int i = 0; i < 1500; i++) {
        if (is_known(s, key) == wanted) return true;
        usleep(10000);
    }
    return false;
}

Test(serve_keys, sighup_reads_the_keys_anew_and_no_request_is_dropped) {
    enum { TOKENS = 3000 };
    live s;
    live_write_model(&s);
    char *path = sd_path_join(s.dir, "keys");
    cr_assert_eq(sd_file_write(path, "first-key\nkept-key-1\n", 21, NULL), SD_OK);
    s.o.key_file = path;
    live_start_with(&s, 4096, 2, 8, NULL);
    int fd = ask(&s, "first-key", 1, TOKENS, 0);
    cr_assert(is_known(&s, "first-key") && !is_known(&s, "second-key"));
    // The first key goes while its request runs, a new one comes, and one moves to another line.
    cr_assert_eq(sd_file_write(path, "second-key\n\nkept-key-1\n", 23, NULL), SD_OK);
    kill(getpid(), SIGHUP);
    cr_assert(becomes_known(&s, "second-key", true));
    cr_expect(!is_known(&s, "first-key"));
    cr_expect(is_known(&s, "kept-key-1"));
    // A mistake changes nothing: not the known line, not the ones before the mistake.
    cr_assert_eq(sd_file_write(path, "third-key-1\nshort\n", 18, NULL), SD_OK);
    kill(getpid(), SIGHUP);
    usleep(100000);
    cr_expect(!is_known(&s, "third-key-1"));
    cr_expect(is_known(&s, "second-key"));
    unlink(path);
    kill(getpid(), SIGHUP);
    usleep(100000);
    cr_expect(is_known(&s, "second-key"), "a file that is gone opens no door and closes none");
    char *answer = live_read(fd);
    char want[64];
    snprintf(want, sizeof want, "\"completion_tokens\":%d", TOKENS);
    cr_assert(strstr(answer, " 200 OK") && strstr(answer, want), "%.300s", answer);
    free(answer), free(path);
    close(fd);
    live_stop(&s);
}

// A pipe has no end that comes by itself: the server would answer nobody, and not end either.
Test(serve_keys, a_reload_waits_for_no_pipe) {
    live s;
    live_write_model(&s);
    char *path = sd_path_join(s.dir, "keys");
    cr_assert_eq(sd_file_write(path, "first-key\n", 10, NULL), SD_OK);
    s.o.key_file = path;
    live_start_with(&s, 256, 1, 1, NULL);
    cr_assert(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    kill(getpid(), SIGHUP);
    usleep(100000);
    cr_expect(is_known(&s, "first-key"));
    cr_assert(unlink(path) == 0 && sd_file_write(path, "second-key\n", 11, NULL) == SD_OK);
    kill(getpid(), SIGHUP);
    cr_assert(becomes_known(&s, "second-key", true));
    free(path);
    live_stop(&s);
}

static sem_t reloaded;
static sd_error refusal;

// A configuration that has lost its line of keys, and the word that lets everybody in.
static sd_status reload_without_keys(void *ctx, sd_server *server, sd_error *err) {
    sd_serve_options o = ((const live *)ctx)->o;
    o.key_file = NULL, o.insecure_no_key = true;
    sd_status st = sd_serve_apply(server, &o, err);
    refusal = *err;
    sem_post(&reloaded);
    return st;
}

Test(serve_keys, a_server_with_keys_is_not_opened_by_a_reload) {
    live s;
    live_write_model(&s);
    char *path = sd_path_join(s.dir, "keys");
    cr_assert_eq(sd_file_write(path, "first-key\n", 10, NULL), SD_OK);
    s.o.key_file = path, s.o.on_reload = reload_without_keys;
    sem_init(&reloaded, 0, 0);
    live_start_with(&s, 256, 1, 1, NULL);
    kill(getpid(), SIGHUP);
    sem_wait(&reloaded);
    cr_assert(strstr(refusal.message, "no API key is left") && strstr(refusal.message, "restart"),
              "'%s'", refusal.message);
    cr_expect(is_known(&s, "first-key") && !is_known(&s, "other-key"));
    sem_destroy(&reloaded);
    free(path);
    live_stop(&s);
}

// /metrics asks for a key.
static double metric(const live *s, const char *name) {
    char want[128], text[256];
    int fd = live_dial(s, 0);
    int n = snprintf(text, sizeof text,
                     "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Authorization: Bearer key-of-watch\r\n\r\n");
    cr_assert(live_send(fd, text, (size_t)n));
    char *page = live_read(fd);
    close(fd);
    snprintf(want, sizeof want, "\nspecdec_%s{", name);
    const char *at = strstr(page, want);
    cr_assert_not_null(at, "%.300s", page);
    double value = strtod(strchr(at, '}') + 1, NULL);
    free(page);
    return value;
}

static void wait_for(const live *s, const char *name, double value) {
    for (int i = 0; i < 6000; i++) {
        if (metric(s, name) == value) return;
        usleep(10000);
    }
    cr_assert_fail("%s does not become %g", name, value);
}

Test(serve_keys, an_administrators_priority_counts_among_all_clients_and_no_other_does) {
    // So few tokens that no answer's stay has paid for its end before.
    enum { BLOCKERS = 3, WAITING = 3, BLOCK = 6000, TOKENS = 200 };
    live s;
    char text[1024];
    live_write_model(&s);
    char *path = sd_path_join(s.dir, "keys"), log[64];
    snprintf(log, sizeof log, "/tmp/specdec_log_of_%d", (int)getpid());
    int n = snprintf(text, sizeof text,
                     "key-of-watch\nblocker-0\nblocker-1\nblocker-2\n"
                     "key-of-first\nkey-of-second\n");
    snprintf(text + n, sizeof text - (size_t)n, "ops sha256:%s admin\n", hash_of("key-of-ops"));
    cr_assert_eq(sd_file_write(path, text, strlen(text), NULL), SD_OK);
    s.o.key_file = path, s.o.access_log = log;
    live_start_with(&s, 16384, BLOCKERS - 1, 16, NULL); // and one in reserve
    int blocker[BLOCKERS];
    for (int i = 0; i < BLOCKERS; i++) {
        char key[24];
        snprintf(key, sizeof key, "blocker-%d", i);
        blocker[i] = ask(&s, key, BLOCK, 10000, 0);
        wait_for(&s, "num_requests_running", i + 1);
    }
    // An urgent request of the second client stands behind the first one's; the administrator's last.
    int fd[WAITING];
    fd[0] = ask(&s, "key-of-first", 3, TOKENS, 1000);
    wait_for(&s, "num_requests_waiting", 1);
    fd[1] = ask(&s, "key-of-second", 3, TOKENS + 1, -1000);
    wait_for(&s, "num_requests_waiting", 2);
    fd[2] = ask(&s, "key-of-ops", 3, TOKENS + 2, -1);
    wait_for(&s, "num_requests_waiting", 3);
    close(blocker[0]);
    for (int i = 0; i < WAITING; i++) {
        char *answer = live_read(fd[i]);
        cr_assert(strstr(answer, " 200 OK"), "%.300s", answer);
        free(answer);
        close(fd[i]);
    }
    for (int i = 1; i < BLOCKERS; i++) close(blocker[i]);
    // The log has them in the order of their ends, each known by its length.
    char *lines = NULL, *from;
    size_t len;
    live_stop(&s);
    cr_assert_eq(sd_stream_read(&lines, &len, log, 1 << 20, NULL), SD_OK);
    from = lines;
    static const int want[WAITING] = {2, 0, 1};
    for (int k = 0; k < WAITING; k++) {
        snprintf(text, sizeof text, "\"completion_tokens\":%d", TOKENS + want[k]);
        from = strstr(from, text);
        cr_assert_not_null(from, "place %d: %s in %s", k, text, lines);
    }
    free(lines), free(path);
    unlink(log);
}
