// What the server says of the prefix cache, and who finds what: keys and salts keep apart.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PROMPT = 150, MAX_BODY = 8192 };

// A prompt of PROMPT ids with further fields.
static char *body_of(char *body, const char *fields) {
    int n = snprintf(body, MAX_BODY,
                     "{\"max_tokens\":3,\"ignore_eos\":true,\"seed\":1%s,\"prompt\":[", fields);
    for (int i = 0; i < PROMPT; i++)
        n += snprintf(body + n, (size_t)(MAX_BODY - n), "%s%d", i ? "," : "", (i * 37 + 11) % 250);
    snprintf(body + n, (size_t)(MAX_BODY - n), "]}");
    return body;
}

// How many of its prompt's tokens the server says were found; text [64] <- the answer.
static int found(const live *s, const char *source, const char *key, const char *fields,
                 char *text) {
    char head[512], body[MAX_BODY];
    body_of(body, fields);
    int fd = live_dial_from(s, source, 0);
    int n = snprintf(head, sizeof head,
                     "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "%s%s%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "",
                     strlen(body));
    cr_assert(live_send(fd, head, (size_t)n) && live_send(fd, body, strlen(body)));
    char *out = live_read(fd);
    close(fd);
    const char *at = strstr(out, "\"cached_tokens\":"), *said = strstr(out, "\"text\":");
    cr_assert(at && said, "%.600s", out);
    int cached = atoi(at + strlen("\"cached_tokens\":"));
    char got[64] = {0};
    snprintf(got, sizeof got, "%.40s", said);
    if (!text[0]) memcpy(text, got, sizeof got);
    cr_assert_str_eq(got, text, "found or not, the answer is the same");
    free(out);
    return cached;
}

Test(serve_prefix, without_keys_all_find_the_same_but_for_their_salt) {
    live s;
    char text[64] = {0};
    live_start(&s, 512, 2, 8);
    cr_assert_eq(found(&s, "127.0.0.1", NULL, "", text), 0);
    cr_assert_eq(found(&s, "127.0.0.2", NULL, ",\"priority\":3", text), PROMPT - 1);
    cr_assert_eq(found(&s, "127.0.0.1", NULL, ",\"cache_salt\":\"a\"", text), 0);
    cr_assert_eq(found(&s, "127.0.0.2", NULL, ",\"cache_salt\":\"a\"", text), PROMPT - 1);
    cr_assert_eq(found(&s, "127.0.0.1", NULL, ",\"cache_salt\":\"b\"", text), 0);
    cr_assert_eq(found(&s, "127.0.0.1", NULL, ",\"cache_salt\":\"ab\"", text), 0);
    cr_assert_eq(found(&s, "127.0.0.1", NULL, "", text), PROMPT - 1);
    cr_assert_eq(live_metric(&s, "prefix_cache_queries_total"), 7 * PROMPT);
    cr_assert_eq(live_metric(&s, "prefix_cache_hits_total"), 3 * (PROMPT - 1));
    cr_assert_eq(live_metric(&s, "prompt_tokens_total"), 7 * PROMPT);
    live_stop(&s);
}

Test(serve_prefix, a_key_finds_nothing_of_another_one) {
    live s;
    char text[64] = {0};
    static const char keys[] = "key-number-one\nkey-number-two\n";
    live_write_model(&s);
    char *path = sd_path_join(s.dir, "keys");
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(keys, f) >= 0 && fclose(f) == 0);
    s.o.key_file = path;
    live_start_with(&s, 512, 2, 8, NULL);
    for (int again = 0; again < 2; again++)
        for (int salt = 0; salt < 2; salt++) {
            const char *fields = salt ? ",\"cache_salt\":\"a\"" : "";
            int want = again ? PROMPT - 1 : 0;
            cr_assert_eq(found(&s, "127.0.0.1", "key-number-one", fields, text), want);
            cr_assert_eq(found(&s, "127.0.0.1", "key-number-two", fields, text), want);
            // From elsewhere it is the same key.
            cr_assert_eq(found(&s, "127.0.0.3", "key-number-two", fields, text), PROMPT - 1);
        }
    live_stop(&s);
    free(path);
}
