// The parts of the server that need no socket: routes and who may call them, keys.
#include "base/files/replace.h"
#include "base/memory.h"
#include "decode/serve/routes.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

// ---- routes

static sd_http_head request(const char *method, const char *path, const char *type,
                            const char *authorization) {
    sd_http_head h = {.method = method, .path = path, .query = "", .minor = 1};
    if (type) h.field[h.n_fields++] = (sd_http_field){"Content-Type", type};
    if (authorization) h.field[h.n_fields++] = (sd_http_field){"Authorization", authorization};
    return h;
}

static sd_keys one_key(const char *key) {
    sd_keys k = {.key = sd_alloc(1, sizeof *k.key), .n = 1};
    cr_assert_eq(sd_sha256_of(&k.key->hash, key, strlen(key), NULL), SD_OK);
    return k;
}

Test(routes, every_route_declares_who_may_call_it) {
    int n;
    const sd_route *r = sd_routes(&n);
    cr_assert_gt(n, 0);
    for (int i = 0; i < n; i++) {
        cr_assert(r[i].auth == SD_AUTH_PUBLIC || r[i].auth == SD_AUTH_USER ||
                      r[i].auth == SD_AUTH_ADMIN,
                  "%s has no auth level", r[i].path);
        cr_assert(r[i].run && r[i].path[0] == '/');
        // What makes the engine work or tells of users is never public.
        if (strncmp(r[i].path, "/v1/", 4) == 0 || strcmp(r[i].method, "POST") == 0 ||
            strcmp(r[i].path, "/metrics") == 0)
            cr_assert_neq(r[i].auth, SD_AUTH_PUBLIC, "%s is public", r[i].path);
    }
}

Test(routes, with_keys_every_route_but_the_public_ones_asks_for_one) {
    int n;
    const sd_route *r = sd_routes(&n);
    sd_keys keys = one_key("right-key");
    for (int i = 0; i < n; i++) {
        char allow[64] = "";
        sd_api_error e = {0};
        sd_http_head none = request(r[i].method, r[i].path, "application/json", NULL);
        sd_http_head wrong =
            request(r[i].method, r[i].path, "application/json", "Bearer wrong-key");
        sd_http_head right =
            request(r[i].method, r[i].path, "application/json", "Bearer right-key");
        bool is_public = r[i].auth == SD_AUTH_PUBLIC;
        cr_assert_eq(sd_route_check(&keys, &none, allow, &e) != NULL, is_public);
        cr_assert_eq(sd_route_check(&keys, &wrong, allow, &e) != NULL, is_public);
        if (!is_public) cr_assert_eq(e.status, 401);
        bool is_admins = r[i].auth == SD_AUTH_ADMIN;
        keys.key->admin = false;
        cr_assert_eq(sd_route_check(&keys, &right, allow, &e), is_admins ? NULL : &r[i]);
        if (is_admins) cr_assert_eq(e.status, 403);
        keys.key->admin = true;
        cr_assert_eq(sd_route_check(&keys, &right, allow, &e), &r[i]);
        keys.key->admin = false;
    }
    sd_keys_free(&keys);
}

Test(routes, wrong_paths_methods_and_types_have_their_codes) {
    static const struct {
        const char *method, *path, *type;
        int status;
        const char *allow;
    } rows[] = {
        {"GET", "/nope", NULL, 404, ""},
        {"GET", "/v1/chat/completions", NULL, 405, "Allow: POST\r\n"},
        {"DELETE", "/v1/models", NULL, 405, "Allow: GET, HEAD\r\n"},
        {"POST", "/health", NULL, 405, "Allow: GET, HEAD\r\n"},
        {"POST", "/v1/completions", NULL, 415, ""},
        {"POST", "/v1/completions", "text/plain", 415, ""},
        {"POST", "/v1/completions", "application/jsonp", 415, ""},
        {"POST", "/v1/completions", "application/json; charset=utf-8", 0, ""},
        {"POST", "/v1/completions", "Application/JSON", 0, ""},
        {"HEAD", "/health", NULL, 0, ""},
        {"GET", "/v1/models/any", NULL, 0, ""},
    };
    sd_keys none = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char allow[64] = "";
        sd_api_error e = {0};
        sd_http_head h = request(rows[i].method, rows[i].path, rows[i].type, NULL);
        const sd_route *r = sd_route_check(&none, &h, allow, &e);
        cr_assert_eq(r == NULL, rows[i].status != 0, "%s %s", rows[i].method, rows[i].path);
        cr_assert_eq(e.status, rows[i].status, "%s %s: %d", rows[i].method, rows[i].path, e.status);
        cr_assert_str_eq(allow, rows[i].allow);
    }
}

Test(routes, a_server_without_keys_knows_local_hosts) {
    static const char *const local[] = {"localhost", "LocalHost:8080", "127.0.0.1:80",
                                        "[::1]:80",  "10.0.0.5",       "app.localhost",
                                        NULL};
    static const char *const foreign[] = {
        "evil.example",     "localhost.evil.example", "xlocalhost",
        "evil.example:127", "127.0.0.1.evil.example", ""};
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        cr_assert(sd_route_host_is_local(local[i]), "%s", local[i] ? local[i] : "none");
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        cr_assert_not(sd_route_host_is_local(foreign[i]), "%s", foreign[i]);
}

// ---- keys

static sd_status load_keys(sd_keys *k, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/specdec_keys_%d", (int)getpid());
    cr_assert_eq(sd_file_write(path, text, strlen(text), NULL), SD_OK);
    sd_status st = sd_keys_load(k, NULL, path, NULL);
    unlink(path);
    return st;
}

Test(keys, are_read_one_a_line_and_kept_as_hashes) {
    sd_keys k;
    cr_assert_eq(load_keys(&k, "# people\n\nalice-key-1\r\nbob-key-22\n"), SD_OK);
    cr_assert_eq(k.n, 2);
    cr_assert_geq(sd_keys_find(&k, "Bearer alice-key-1"), 0);
    cr_assert_geq(sd_keys_find(&k, "bearer bob-key-22"), 0);
    cr_assert_lt(sd_keys_find(&k, "Bearer alice-key-2"), 0);
    cr_assert_lt(sd_keys_find(&k, "Bearer alice-key-1 "), 0);
    cr_assert_lt(sd_keys_find(&k, "Bearer # people"), 0);
    cr_assert_lt(sd_keys_find(&k, "Basic alice-key-1"), 0);
    cr_assert_lt(sd_keys_find(&k, "Bearer"), 0);
    cr_assert_lt(sd_keys_find(&k, ""), 0);
    cr_assert_lt(sd_keys_find(&k, NULL), 0);
    for (int i = 0; i < k.n; i++) cr_assert_null(strstr(k.key[i].hash.hex, "key"));
    sd_keys_free(&k);
}

Test(keys, a_file_that_would_let_everyone_in_is_refused) {
    sd_keys k;
    cr_assert_eq(load_keys(&k, ""), SD_EINVAL);
    cr_assert_eq(load_keys(&k, "# nothing\n\n"), SD_EINVAL);
    cr_assert_eq(load_keys(&k, "short\n"), SD_EINVAL);
    cr_assert_eq(load_keys(&k, "two words here\n"), SD_EINVAL);
    cr_assert_eq(sd_keys_load(&k, NULL, "/nonexistent/keys", NULL), SD_ENOTFOUND);
}
