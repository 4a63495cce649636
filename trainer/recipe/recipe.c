// YAML tree -> values, by the table. The tree stays in the recipe's arena, since texts point into
// it, and each key remembers where it was given so that later checks (against the model, against
// the data) can still point at the line.
#include "trainer/recipe/recipe.h"

#include "base/files/file.h"
#include "base/memory.h"
#include "trainer/recipe/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const sd_recipe_key *find_key(const char *name) {
    for (const sd_recipe_key *k = sd_recipe_keys; k->o.name; k++)
        if (strcmp(k->o.name, name) == 0) return k;
    return NULL;
}

static bool is_section(const char *name) {
    size_t len = strlen(name);
    for (const sd_recipe_key *k = sd_recipe_keys; k->o.name; k++)
        if (strncmp(k->o.name, name, len) == 0 && k->o.name[len] == '.') return true;
    return false;
}

/// Suggests a key of the same level or, when none is near, one of that last name elsewhere.
static sd_status unknown_key(const char *section, const sd_yaml *n, sd_error *err) {
    enum { MAX = SD_RECIPE_MAX_KEYS, NAME = 48 };
    char level[MAX][NAME];
    const char *names[MAX + 1] = {0};
    int count = 0;
    size_t skip = section[0] ? strlen(section) + 1 : 0;
    const char *elsewhere = NULL;
    for (const sd_recipe_key *k = sd_recipe_keys; k->o.name; k++) {
        const char *leaf = strrchr(k->o.name, '.');
        if (strcmp(leaf ? leaf + 1 : k->o.name, n->key) == 0) elsewhere = k->o.name;
        if (skip && (strncmp(k->o.name, section, skip - 1) != 0 || k->o.name[skip - 1] != '.'))
            continue;
        size_t len = strcspn(k->o.name + skip, ".");
        if (len >= NAME || (count && strlen(level[count - 1]) == len &&
                            memcmp(level[count - 1], k->o.name + skip, len) == 0))
            continue;
        memcpy(level[count], k->o.name + skip, len);
        level[count][len] = '\0';
        names[count] = level[count];
        count++;
    }
    const char *near = sd_nearest(n->key, names), *dot = section[0] ? "." : "";
    if (elsewhere)
        return sd_yaml_fail(err, &n->key_mark, "unknown key '%s%s%.60s'; did you mean '%s'?",
                            section, dot, n->key, elsewhere);
    if (near)
        return sd_yaml_fail(err, &n->key_mark, "unknown key '%s%s%.60s'; did you mean '%s%s%s'?",
                            section, dot, n->key, section, dot, near);
    return sd_yaml_fail(err, &n->key_mark,
                        "unknown key '%s%s%.60s'; specdec train --help-recipe lists the keys",
                        section, dot, n->key);
}

static bool looks_like_number(const char *s) {
    return s[0] && strspn(s, "0123456789+-.eE") == strlen(s);
}

// Other languages' words for null would be taken for a path.
static bool foreign_null(const char *s) {
    return strcmp(s, "None") == 0 || strcmp(s, "none") == 0 || strcmp(s, "nil") == 0;
}

static sd_status set_list(sd_recipe *r, const sd_recipe_key *k, const sd_yaml *n, sd_error *err) {
    sd_strings *l = (sd_strings *)(void *)((char *)r + k->o.offset);
    const sd_yaml *item = n->kind == SD_YAML_LIST ? n->first : n;
    *l = (sd_strings){0};
    if (n->kind == SD_YAML_MAP)
        return sd_yaml_fail(err, &n->mark, "%s: a list is wanted, such as [a, b]", k->o.name);
    for (; item; item = item->next) {
        if (item->kind != SD_YAML_SCALAR || sd_yaml_is_null(item) || !item->text[0])
            return sd_yaml_fail(err, &item->mark, "%s: each item must be a word", k->o.name);
        if (l->n == SD_MAX_LIST)
            return sd_yaml_fail(err, &item->mark, "%s: more than %d items", k->o.name, SD_MAX_LIST);
        for (int i = 0; i < l->n; i++)
            if (strcmp(l->item[i], item->text) == 0)
                return sd_yaml_fail(err, &item->mark, "%s: '%.60s' is given twice; keep one",
                                    k->o.name, item->text);
        if (k->o.value) {
            int word = 0;
            sd_option probe = {.name = k->o.name, .type = SD_OPT_ENUM, .value = k->o.value};
            sd_error e = {0};
            if (sd_option_set(&probe, &word, item->text, &e) != SD_OK)
                return sd_yaml_fail(err, &item->mark, "%s", e.message + strspn(e.message, "-"));
        }
        l->item[l->n++] = item->text;
        if (n->kind != SD_YAML_LIST) break;
    }
    return SD_OK;
}

static sd_status set_pattern(sd_recipe *r, const sd_recipe_key *k, const sd_yaml *n,
                             sd_error *err) {
    sd_recipe_pattern *p = (sd_recipe_pattern *)(void *)((char *)r + k->o.offset);
    *p = (sd_recipe_pattern){0};
    if (sd_yaml_is_null(n)) return SD_OK;
    if (n->kind != SD_YAML_MAP)
        return sd_yaml_fail(err, &n->mark, "%s: a map is wanted, such as {q_proj: 8}", k->o.name);
    for (const sd_yaml *c = n->first; c; c = c->next) {
        if (p->n == SD_RECIPE_MAX_PATTERN)
            return sd_yaml_fail(err, &c->mark, "%s: more than %d entries", k->o.name,
                                SD_RECIPE_MAX_PATTERN);
        char *end = NULL;
        double v = 0;
        bool ok = c->kind == SD_YAML_SCALAR && c->plain && looks_like_number(c->text);
        if (ok) v = strtod(c->text, &end), ok = !*end && v >= k->o.min && v <= k->o.max;
        bool whole = strstr(k->o.name, "rank") != NULL;
        if (!ok || (whole && v != floor(v)))
            return sd_yaml_fail(err, &c->mark, "%s: %.60s: give a %snumber from %.16g to %.16g",
                                k->o.name, c->key, whole ? "whole " : "", k->o.min, k->o.max);
        p->key[p->n] = c->key;
        p->value[p->n++] = v;
    }
    return SD_OK;
}

static sd_status set_source(sd_recipe_source *s, const sd_recipe_key *k, const sd_yaml *n,
                            sd_error *err) {
    *s = (sd_recipe_source){.weight = 1};
    if (n->kind == SD_YAML_SCALAR && !sd_yaml_is_null(n)) {
        s->path = n->text;
        return SD_OK;
    }
    if (n->kind != SD_YAML_MAP)
        return sd_yaml_fail(err, &n->mark, "%s: each item is a map such as {path: F, format: auto}",
                            k->o.name);
    for (const sd_yaml *c = n->first; c; c = c->next) {
        if (c->kind != SD_YAML_SCALAR)
            return sd_yaml_fail(err, &c->mark, "%s: %.60s: a plain value is wanted", k->o.name,
                                c->key);
        if (strcmp(c->key, "path") == 0) {
            if (!sd_yaml_is_null(c)) s->path = c->text;
        } else if (strcmp(c->key, "format") == 0) {
            sd_option probe = {.name = "format", .type = SD_OPT_ENUM, .value = SD_DATA_FORMATS};
            sd_error e = {0};
            if (sd_option_set(&probe, &s->format, c->text, &e) != SD_OK)
                return sd_yaml_fail(err, &c->mark, "%s: %s", k->o.name,
                                    e.message + strspn(e.message, "-"));
        } else if (strcmp(c->key, "weight") == 0) {
            char *end;
            s->weight = strtod(c->text, &end);
            if (!looks_like_number(c->text) || *end || s->weight != 1)
                return sd_yaml_fail(err, &c->mark,
                                    "%s: weight %.40s: weights other than 1 are not built; repeat "
                                    "the file's records instead",
                                    k->o.name, c->text);
        } else {
            return sd_yaml_fail(err, &c->key_mark,
                                "unknown key '%s.%.60s'; a file has path, format and weight",
                                k->o.name, c->key);
        }
    }
    if (!s->path || !s->path[0])
        return sd_yaml_fail(err, &n->mark, "%s: the path is missing; give path: FILE", k->o.name);
    return SD_OK;
}

static sd_status set_sources(sd_recipe *r, const sd_recipe_key *k, const sd_yaml *n,
                             sd_error *err) {
    sd_recipe_sources *s = (sd_recipe_sources *)(void *)((char *)r + k->o.offset);
    *s = (sd_recipe_sources){0};
    if (sd_yaml_is_null(n)) return SD_OK;
    if (n->kind != SD_YAML_LIST)
        return sd_yaml_fail(err, &n->mark, "%s: a list is wanted, such as [{path: data.jsonl}]",
                            k->o.name);
    for (const sd_yaml *c = n->first; c; c = c->next) {
        if (s->n == SD_RECIPE_MAX_SOURCES)
            return sd_yaml_fail(err, &c->mark, "%s: more than %d files; put them in an archive",
                                k->o.name, SD_RECIPE_MAX_SOURCES);
        sd_status st = set_source(&s->item[s->n], k, c, err);
        if (st != SD_OK) return st;
        s->n++;
    }
    return SD_OK;
}

static sd_status set_size(sd_recipe *r, const sd_recipe_key *k, const sd_yaml *n, sd_error *err) {
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1},         {"B", 1},        {"KiB", 0x1p10}, {"MiB", 0x1p20},
                 {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"K", 0x1p10},   {"M", 0x1p20},
                 {"G", 0x1p30},   {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9}};
    size_t digits = strspn(n->text, "0123456789.");
    char number[32] = {0};
    if (digits && digits < sizeof number) {
        memcpy(number, n->text, digits);
        char *end;
        double v = strtod(number, &end);
        const char *unit = n->text + digits + strspn(n->text + digits, " ");
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
            if (!*end && strcmp(unit, units[i].unit) == 0 && v * units[i].factor >= 0x1p20 &&
                v * units[i].factor <= 0x1p50) {
                int64_t bytes = (int64_t)(v * units[i].factor);
                memcpy((char *)r + k->o.offset, &bytes, sizeof bytes);
                return SD_OK;
            }
    }
    return sd_yaml_fail(err, &n->mark,
                        "%s: '%.40s' is not a size from 1MiB; give e.g. 8GiB or auto", k->o.name,
                        n->text);
}

static sd_status set_every(sd_recipe *r, const sd_recipe_key *k, const char *text,
                           const sd_yaml_mark *mark, sd_error *err) {
    sd_recipe_every e = {0};
    size_t digits = strspn(text, "0123456789");
    if (digits && digits < 10) e.n = strtoll(text, NULL, 10);
    e.per_epoch = strcmp(text + digits, "/epoch") == 0;
    if (e.n < 1 || (text[digits] && !e.per_epoch))
        return sd_yaml_fail(err, mark,
                            "%s: '%.40s' is neither steps nor N/epoch; give 50 or 4/epoch",
                            k->o.name, text);
    memcpy((char *)r + k->o.offset, &e, sizeof e);
    return SD_OK;
}

static sd_status check_unbuilt(const sd_recipe *r, const sd_recipe_key *k, const sd_yaml *n,
                               sd_error *err) {
    if (!k->unbuilt) return SD_OK;
    sd_recipe *plain = calloc(1, sizeof *plain);
    sd_buf given = sd_buf_make(4096), def = sd_buf_make(4096);
    sd_status st = SD_OK;
    SD_CHECK_ALLOC(plain, err);
    if (k->o.def) SD_TRY(sd_option_set(&k->o, plain, k->o.def, err));
    SD_CHECK(sd_recipe_value_text(k, r, &given) && sd_recipe_value_text(k, plain, &def), err,
             SD_ENOMEM, "out of memory while reading the recipe");
    if (strcmp(given.data, def.data) != 0)
        st = sd_yaml_fail(err, &n->mark, "%s: %.80s: %s", k->o.name, given.data, k->unbuilt);
out:
    sd_buf_free(&given);
    sd_buf_free(&def);
    free(plain);
    return st;
}

static sd_status set_key(sd_recipe *r, const sd_recipe_key *k, const sd_yaml *n, sd_error *err) {
    sd_status st = SD_OK;
    bool scalar = k->kind == SD_KEY_PLAIN || k->kind == SD_KEY_SIZE || k->kind == SD_KEY_EVERY;
    r->mark[k - sd_recipe_keys] = n->mark;
    if (scalar && n->kind != SD_YAML_SCALAR)
        return sd_yaml_fail(err, &n->mark, "%s: a plain value is wanted, not a %s", k->o.name,
                            n->kind == SD_YAML_MAP ? "map" : "list");
    if (scalar && (sd_yaml_is_null(n) || (k->empty && n->plain && !strcmp(n->text, k->empty)))) {
        if (!k->empty || (sd_yaml_is_null(n) && strcmp(k->empty, "null") != 0))
            return sd_yaml_fail(err, &n->mark, "%s: null is not possible; give %s", k->o.name,
                                k->empty ? k->empty : "a value or leave the key out");
        memset((char *)r + k->o.offset, 0, k->o.type == SD_OPT_ENUM ? sizeof(int) : 8);
        return SD_OK;
    }
    switch (k->kind) {
    case SD_KEY_PLAIN:
        if (k->o.type == SD_OPT_STRING && k->empty && n->plain && foreign_null(n->text))
            return sd_yaml_fail(err, &n->mark,
                                "%s: '%.60s' is no value; write null, or put quotes around a name",
                                k->o.name, n->text);
        st = sd_yaml_set_option(&k->o, r, n, err);
        break;
    case SD_KEY_LIST:
        st = set_list(r, k, n, err);
        break;
    case SD_KEY_PATTERN:
        st = set_pattern(r, k, n, err);
        break;
    case SD_KEY_SOURCES:
        st = set_sources(r, k, n, err);
        break;
    case SD_KEY_SIZE:
        st = set_size(r, k, n, err);
        break;
    case SD_KEY_EVERY:
        st = set_every(r, k, n->text, &n->mark, err);
        break;
    }
    return st != SD_OK ? st : check_unbuilt(r, k, n, err);
}

static sd_status apply(sd_recipe *r, const sd_yaml *map, const char *section, sd_error *err) {
    for (const sd_yaml *n = map->first; n; n = n->next) {
        char name[128];
        int len = snprintf(name, sizeof name, "%s%s%s", section, section[0] ? "." : "", n->key);
        bool fits = len > 0 && (size_t)len < sizeof name && !strchr(n->key, '.');
        const sd_recipe_key *k = fits ? find_key(name) : NULL;
        sd_status st = SD_OK;
        if (k) {
            st = set_key(r, k, n, err);
        } else if (fits && is_section(name)) {
            if (n->kind == SD_YAML_MAP)
                st = apply(r, n, name, err);
            else if (!sd_yaml_is_null(n))
                st = sd_yaml_fail(err, &n->mark, "%s: a map is wanted, such as {key: value}", name);
        } else {
            st = unknown_key(section, n, err);
        }
        if (st != SD_OK) return st;
    }
    return SD_OK;
}

static sd_status set_defaults(sd_recipe *r, sd_error *err) {
    for (const sd_recipe_key *k = sd_recipe_keys; k->o.name; k++) {
        if (!k->o.def) continue;
        if (k->kind == SD_KEY_PLAIN) {
            SD_ASSERT(sd_option_set(&k->o, r, k->o.def, err) == SD_OK);
        } else if (k->kind == SD_KEY_EVERY) {
            SD_ASSERT(set_every(r, k, k->o.def, NULL, err) == SD_OK);
        } else if (k->kind == SD_KEY_LIST) {
            sd_strings *l = (sd_strings *)(void *)((char *)r + k->o.offset);
            for (const char *w = k->o.def; *w;) {
                size_t len = strcspn(w, ",");
                if (!(l->item[l->n++] = sd_arena_strndup(&r->arena, w, len)))
                    return sd_fail(err, SD_ENOMEM, "out of memory while reading the recipe");
                w += len + (w[len] == ',');
            }
        }
    }
    return SD_OK;
}

sd_status sd_recipe_fail(const sd_recipe *r, const char *key, sd_error *err, const char *fmt, ...) {
    char text[640];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const sd_recipe_key *k = find_key(key);
    const sd_yaml_mark *at = k ? &r->mark[k - sd_recipe_keys] : &r->file;
    return sd_yaml_fail(err, at->origin ? at : &r->file, "%s: %s", key, text);
}

static bool given(const sd_recipe *r, const char *key) {
    return r->mark[find_key(key) - sd_recipe_keys].origin != NULL;
}

/// Checks that concern more than one key.
static sd_status check_together(const sd_recipe *r, sd_error *err) {
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(r->name);
    if (n < 1 || n > 64 || strspn(r->name, safe) != n || r->name[0] == '.')
        return sd_recipe_fail(r, "name", err,
                              "'%.80s' is not a folder's name; use 1 to 64 of A-Z a-z 0-9 . _ -, "
                              "not beginning with a point",
                              r->name);
    if (r->base.sha256 &&
        (strlen(r->base.sha256) != 64 || strspn(r->base.sha256, "0123456789abcdef") != 64))
        return sd_recipe_fail(r, "base.sha256", err,
                              "'%.80s' is not 64 lower-case hexadecimal digits", r->base.sha256);
    if (r->train.batch_rows && r->train.batch_tokens && given(r, "train.batch_tokens"))
        return sd_recipe_fail(r, "train.batch_rows", err,
                              "batch_tokens is given too; keep one of them");
    if (!r->train.batch_rows && !r->train.batch_tokens)
        return sd_recipe_fail(r, "train.batch_tokens", err, "null without batch_rows; give one");
    if (r->train.warmup_steps && given(r, "train.warmup_ratio") && r->train.warmup_ratio > 0)
        return sd_recipe_fail(r, "train.warmup_steps", err,
                              "warmup_ratio is given too; keep one of them");
    if (r->data.eval.n && given(r, "data.val_size") && r->data.val_size > 0)
        return sd_recipe_fail(r, "data.val_size", err,
                              "data.eval is given too; keep one of them, or val_size: 0");
    if (r->adapter.target_modules.n == 0)
        return sd_recipe_fail(r, "adapter.target_modules", err,
                              "nothing to adapt; give all-linear or a list");
    for (int i = 0; i < r->log.sinks.n; i++)
        if (strcmp(r->log.sinks.item[i], "tensorboard") == 0)
            return sd_recipe_fail(r, "log.sinks", err,
                                  "tensorboard event files are not built; use csv, jsonl or plot");
    return SD_OK;
}

/// When two keys exclude each other, one from the command line wins over one from the file.
static bool overrides(const sd_recipe *r, const char *key, const char *other) {
    const sd_yaml_mark *k = &r->mark[find_key(key) - sd_recipe_keys];
    const sd_yaml_mark *o = &r->mark[find_key(other) - sd_recipe_keys];
    return k->origin && k->line == 0 && o->origin && o->line > 0;
}

static void let_overrides_win(sd_recipe *r) {
    if (r->train.batch_rows && overrides(r, "train.batch_rows", "train.batch_tokens"))
        r->train.batch_tokens = 0;
    if (r->train.batch_tokens && overrides(r, "train.batch_tokens", "train.batch_rows"))
        r->train.batch_rows = 0;
    if (r->train.warmup_steps && overrides(r, "train.warmup_steps", "train.warmup_ratio"))
        r->train.warmup_ratio = 0;
    if (r->train.warmup_ratio > 0 && overrides(r, "train.warmup_ratio", "train.warmup_steps"))
        r->train.warmup_steps = 0;
}

/// Refuses override i when one before it names the same key.
static sd_status given_once(const char *const *override, int i, sd_error *err) {
    sd_status st = SD_OK;
    size_t n = strcspn(override[i], "=");
    for (int j = 0; j < i; j++)
        SD_CHECK(strcspn(override[j], "=") != n || memcmp(override[i], override[j], n) != 0, err,
                 SD_EINVAL, "%.*s is given twice on the command line; keep one",
                 (int)(n < 80 ? n : 80), override[i]);
out:
    return st;
}

sd_status sd_recipe_parse(sd_recipe *r, const char *origin, const char *text, size_t len,
                          const char *const *override, int n_overrides, sd_error *err) {
    sd_status st = SD_OK;
    sd_yaml *root;
    *r = (sd_recipe){0};
    r->arena.limit = 16u << 20;
    SD_TRY(set_defaults(r, err));
    char *name = sd_arena_strndup(&r->arena, origin, strlen(origin)); // the marks point at it
    SD_CHECK_ALLOC(name, err);
    r->file.origin = name;
    SD_TRY(sd_yaml_parse(&root, &r->arena, name, text, len, err));
    if (root->kind != SD_YAML_MAP) {
        st = sd_yaml_fail(err, &root->mark, "a recipe is a map of keys, such as base: {model: M}");
        goto out;
    }
    for (int i = 0; i < n_overrides; i++) {
        SD_TRY(given_once(override, i, err));
        SD_TRY(sd_yaml_override(root, &r->arena, override[i], err));
    }
    SD_TRY(apply(r, root, "", err));
    let_overrides_win(r);
    SD_TRY(check_together(r, err));
    // Where a thing can be said in two ways, only the one that was taken stays.
    bool only_prepared = r->data.prepared && !r->data.train.n && !given(r, "data.val_size");
    if (r->data.eval.n || only_prepared) r->data.val_size = 0; // a prepared file is not split
    if (r->train.batch_rows) r->train.batch_tokens = 0;
    if (r->train.warmup_steps) r->train.warmup_ratio = 0;
out:
    return st;
}

sd_status sd_recipe_load(sd_recipe *r, const char *path, const char *const *override,
                         int n_overrides, sd_error *err) {
    char *text;
    size_t len;
    *r = (sd_recipe){0};
    sd_status st = sd_stream_read(&text, &len, path, SD_YAML_MAX_BYTES, err);
    if (st != SD_OK) return st;
    st = sd_recipe_parse(r, path, text, len, override, n_overrides, err);
    free(text);
    return st;
}

void sd_recipe_free(sd_recipe *r) {
    sd_arena_free(&r->arena);
    *r = (sd_recipe){0};
}
