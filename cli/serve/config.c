// The configuration file: one key for each long option, and three that say it shorter. Every mistake
// is one sentence with its place.
#include "cli/serve/args.h"

#include "base/files/yaml.h"

#include <string.h>

typedef struct {
    sd_serve_args *a;
    bool *had;
} reader;

static const char *const sections[] = {"listen", "keys", "adapters"};
enum { SECTIONS = sizeof sections / sizeof *sections };

bool sd_serve_config_has(const sd_option *o) {
    static const char *const others[] = {"config", "print-config", "plan", "json"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(o->name, others[i]) == 0) return false;
    return true;
}

void sd_serve_config_key(char out[SD_SERVE_KEY], const sd_option *o) {
    size_t i = 0;
    for (; o->name[i] && i + 1 < SD_SERVE_KEY; i++)
        out[i] = (char)(o->name[i] == '-' ? '_' : o->name[i]);
    out[i] = '\0';
}

static const sd_option *row(const char *name) {
    return sd_option_find(sd_serve_rows, name, strlen(name));
}

// An option's row by its key, which has '_' where the option has '-'.
static const sd_option *row_of_key(const char *key) {
    char name[SD_SERVE_KEY];
    if (strlen(key) >= sizeof name || strchr(key, '-')) return NULL;
    for (size_t i = 0; i <= strlen(key); i++) name[i] = key[i] == '_' ? '-' : key[i];
    return row(name);
}

static sd_status unknown_key(const sd_yaml *n, sd_error *err) {
    char name[SD_MAX_OPTIONS][SD_SERVE_KEY];
    const char *names[SD_MAX_OPTIONS + SECTIONS + 1] = {0};
    int count = 0;
    for (const sd_option *o = sd_serve_rows; o->name; o++) {
        if (!sd_serve_config_has(o)) continue;
        sd_serve_config_key(name[count], o);
        names[count] = name[count];
        count++;
    }
    for (int i = 0; i < SECTIONS; i++) names[count++] = sections[i];
    const char *near = sd_nearest(n->key, names);
    if (near)
        return sd_yaml_fail(err, &n->key_mark, "unknown key '%.60s'; did you mean '%s'?", n->key,
                            near);
    return sd_yaml_fail(err, &n->key_mark, "unknown key '%.60s'; serve --print-config lists them",
                        n->key);
}

// What stands there is a text, and not none.
static sd_status want_text(const sd_yaml *n, const char *key, const char *example, sd_error *err) {
    if (n->kind != SD_YAML_SCALAR)
        return sd_yaml_fail(err, &n->mark, "%s: a plain value is wanted, not a %s; give %s", key,
                            n->kind == SD_YAML_MAP ? "map" : "list", example);
    if (sd_yaml_is_null(n) || !n->text[0])
        return sd_yaml_fail(err, &n->mark, "%s: a value is missing; give %s, or leave the key out",
                            key, example);
    return SD_OK;
}

static sd_status once(const reader *r, const sd_option *o, const sd_yaml *n, sd_error *err) {
    if (!r->had[o - sd_serve_rows]) return SD_OK;
    return sd_yaml_fail(err, &n->key_mark, "%s: another key gives this already; keep one", n->key);
}

// One value of an option, as the command line would take it.
static sd_status take_value(const reader *r, const sd_option *o, const char *key, const sd_yaml *n,
                            sd_error *err) {
    sd_option named = *o;
    named.name = key;
    sd_status st = want_text(n, key, o->value ? o->value : "one", err);
    if (st == SD_OK) st = sd_yaml_set_option(&named, r->a, n, err);
    r->had[o - sd_serve_rows] = true;
    if (o->given) *(bool *)((char *)r->a + o->given) = true;
    return st;
}

static sd_status take_option(const reader *r, const sd_option *o, const sd_yaml *n, sd_error *err) {
    sd_status st = once(r, o, n, err);
    if (st != SD_OK || o->type != SD_OPT_LIST || n->kind != SD_YAML_LIST)
        return st != SD_OK ? st : take_value(r, o, n->key, n, err);
    r->had[o - sd_serve_rows] = true;
    for (const sd_yaml *c = n->first; c && st == SD_OK; c = c->next)
        st = take_value(r, o, n->key, c, err);
    return st;
}

// HOST:PORT, an IPv6 address in brackets.
static sd_status take_listen(const reader *r, const sd_yaml *n, sd_error *err) {
    static const char example[] = "HOST:PORT, such as 127.0.0.1:8080 or \"[::1]:8080\"";
    sd_status st = want_text(n, "listen", example, err);
    if (st != SD_OK) return st;
    const char *colon = strrchr(n->text, ':'), *host = n->text;
    size_t len = colon ? (size_t)(colon - host) : 0;
    bool in_brackets = len > 2 && host[0] == '[' && host[len - 1] == ']';
    if (in_brackets) host++, len -= 2;
    if (len == 0 || (!in_brackets && memchr(host, ':', len)) || memchr(host, '[', len) ||
        memchr(host, ']', len))
        return sd_yaml_fail(err, &n->mark, "listen: '%.80s' is not %s", n->text, example);
    sd_yaml part = *n;
    part.plain = true;
    part.text = sd_arena_strndup(r->a->arena, host, len);
    if (!part.text) return sd_fail(err, SD_ENOMEM, "out of memory");
    const char *const names[] = {"host", "port"};
    for (int i = 0; i < 2 && st == SD_OK; i++) {
        st = once(r, row(names[i]), n, err);
        if (st == SD_OK) st = take_value(r, row(names[i]), "listen", &part, err);
        part.text = colon + 1;
    }
    return st;
}

// A map of two parts that are joined, or a list of what is written whole.
static sd_status join(char **out, const reader *r, const sd_yaml *c, const char *key,
                      const char *between, const char *example, sd_error *err) {
    sd_status st = want_text(c, key, example, err);
    if (st != SD_OK) return st;
    sd_buf b = sd_buf_make(SD_YAML_MAX_BYTES);
    bool ok = (!c->key || (sd_buf_adds(&b, c->key) && sd_buf_adds(&b, between))) &&
              sd_buf_adds(&b, c->text);
    *out = ok ? sd_arena_strndup(r->a->arena, b.data, b.len) : NULL;
    sd_buf_free(&b);
    return *out ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory");
}

static sd_status want_section(const sd_yaml *n, const char *example, sd_error *err) {
    if (n->kind != SD_YAML_SCALAR) return SD_OK;
    return sd_yaml_fail(err, &n->mark, "%s: a map is wanted, such as {%s}", n->key, example);
}

static sd_status take_adapters(const reader *r, const sd_yaml *n, sd_error *err) {
    const sd_option *o = row("adapter");
    sd_status st = want_section(n, "NAME: PATH", err);
    if (st == SD_OK) st = once(r, o, n, err);
    for (const sd_yaml *c = n->first; c && st == SD_OK; c = c->next) {
        char *text;
        if (c->key && strchr(c->key, '='))
            return sd_yaml_fail(err, &c->key_mark, "adapters: the name '%.60s' has a '='", c->key);
        st = join(&text, r, c, "adapters", "=", "NAME: PATH", err);
        sd_yaml whole = *c;
        if (st == SD_OK) whole.text = text, st = take_value(r, o, "adapters", &whole, err);
    }
    r->had[o - sd_serve_rows] = true;
    return st;
}

static sd_status take_keys(const reader *r, const sd_yaml *n, sd_error *err) {
    static const char example[] = "ID: sha256:HEX, or ID: sha256:HEX admin (specdec key new)";
    sd_status st = want_section(n, "ID: sha256:HEX", err);
    for (const sd_yaml *c = n->first; c && st == SD_OK; c = c->next) {
        char *line;
        sd_error e = {0};
        st = join(&line, r, c, "keys", " ", example, err);
        if (st == SD_OK && sd_keys_add(&r->a->keys, line, strlen(line), c->mark.line, &e) != SD_OK)
            st = sd_yaml_fail(err, &c->mark, "keys: %s", e.message);
    }
    return st;
}

sd_status sd_serve_config_parse(sd_serve_args *a, bool *had, const char *path, const char *data,
                                size_t len, sd_error *err) {
    sd_status st = SD_OK;
    sd_yaml *root;
    const reader r = {a, had};
    if (!a->arena) a->arena = sd_alloc(1, sizeof *a->arena);
    SD_CHECK_ALLOC(a->arena, err);
    SD_TRY(sd_yaml_parse(&root, a->arena, path, data, len, err));
    if (root->kind != SD_YAML_MAP)
        return sd_yaml_fail(err, &root->mark, "a map of options is wanted, such as port: 8080");
    for (const sd_yaml *n = root->first; n; n = n->next) {
        const sd_option *o = row_of_key(n->key);
        if (strcmp(n->key, "listen") == 0)
            SD_TRY(take_listen(&r, n, err));
        else if (strcmp(n->key, "keys") == 0)
            SD_TRY(take_keys(&r, n, err));
        else if (strcmp(n->key, "adapters") == 0)
            SD_TRY(take_adapters(&r, n, err));
        else if (o && sd_serve_config_has(o))
            SD_TRY(take_option(&r, o, n, err));
        else if (o)
            return sd_yaml_fail(err, &n->key_mark, "%s is for the command line alone; remove it",
                                n->key);
        else
            SD_TRY(unknown_key(n, err));
    }
out:
    return st;
}
