// A target is the end of a module's path at a point ("q_proj", "layers.0.mlp.up_proj"); a pattern's
// key is a regular expression for such an end (model/adapter/pattern.h). The first key that matches
// counts.
#include "trainer/lora_targets.h"

#include "model/adapter/pattern.h"

#include <stdio.h>
#include <string.h>

enum { PATH = 96 };

static void module_path(char path[PATH], const sd_linear *linear) {
    snprintf(path, PATH, "model.layers.%d.%s", linear->layer, linear->kind->module);
}

static bool ends_at_point(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return m <= n && strcmp(path + n - m, end) == 0 && (m == n || path[n - m - 1] == '.');
}

static sd_status choose(int *rank, const sd_recipe *r, const sd_model *m, sd_error *err) {
    char known[128];
    const sd_strings *t = &r->adapter.target_modules;
    int n = m->n_linears;
    memset(rank, 0, (size_t)n * sizeof *rank);
    for (int k = 0; k < t->n; k++) {
        bool all = strcmp(t->item[k], "all-linear") == 0, found = all;
        for (int i = 0; i < n; i++) {
            char path[PATH];
            module_path(path, &m->linear[i]);
            if (!all && !ends_at_point(path, t->item[k])) continue;
            rank[i] = (int)r->adapter.r;
            found = true;
        }
        if (!found)
            return sd_recipe_fail(r, "adapter.target_modules", err,
                                  "'%.60s' is no linear map of this model's blocks; choose from "
                                  "%s, or all-linear",
                                  t->item[k], sd_linear_names(known, sizeof known, m));
    }
    return SD_OK;
}

typedef struct {
    sd_module_pattern *key[SD_RECIPE_MAX_PATTERN];
    bool used[SD_RECIPE_MAX_PATTERN];
    int n;
} patterns;

static void patterns_free(patterns *p) {
    for (int i = 0; i < p->n; i++) sd_module_pattern_close(p->key[i]);
}

static sd_status patterns_compile(patterns *p, const sd_recipe *r, const char *name,
                                  const sd_recipe_pattern *from, sd_error *err) {
    *p = (patterns){0};
    for (int i = 0; i < from->n; i++) {
        sd_status st = sd_module_pattern_open(&p->key[i], from->key[i]);
        if (st == SD_ENOMEM) return sd_fail(err, st, "out of memory while reading %s", name);
        if (st != SD_OK)
            return sd_recipe_fail(r, name, err,
                                  "'%.60s' is not a regular expression; give e.g. q_proj",
                                  from->key[i]);
        p->n = i + 1;
    }
    return SD_OK;
}

/// The index of the first key that matches, -1: none. A key that takes too long does not match.
static int patterns_find(const patterns *p, const char *path) {
    bool hit;
    for (int i = 0; i < p->n; i++)
        if (sd_module_pattern_match(&hit, p->key[i], path) == SD_OK && hit) return i;
    return -1;
}

/// Calls for each adapted map that a key matches: the key's value becomes its rank or alpha.
static sd_status apply_pattern(int *rank, double *alpha, const sd_recipe *r, const char *name,
                               const sd_recipe_pattern *from, const sd_model *m, sd_error *err) {
    patterns p;
    sd_status st = patterns_compile(&p, r, name, from, err);
    for (int i = 0; i < m->n_linears && st == SD_OK; i++) {
        char path[PATH];
        module_path(path, &m->linear[i]);
        int k = rank[i] ? patterns_find(&p, path) : -1;
        if (k < 0) continue;
        p.used[k] = true;
        if (alpha)
            alpha[i] = from->value[k];
        else
            rank[i] = (int)from->value[k];
    }
    for (int k = 0; k < from->n && st == SD_OK; k++)
        if (!p.used[k])
            st = sd_recipe_fail(r, name, err, "'%.60s' matches no adapted map; remove it",
                                from->key[k]);
    patterns_free(&p);
    return st;
}

sd_status sd_lora_targets(int *rank, double *alpha, const sd_recipe *r, const sd_model *m,
                          sd_error *err) {
    sd_status st = choose(rank, r, m, err);
    for (int i = 0; i < m->n_linears; i++) alpha[i] = r->adapter.alpha;
    if (st == SD_OK)
        st = apply_pattern(rank, NULL, r, "adapter.rank_pattern", &r->adapter.rank_pattern, m, err);
    if (st == SD_OK)
        st = apply_pattern(rank, alpha, r, "adapter.alpha_pattern", &r->adapter.alpha_pattern, m,
                           err);
    return st;
}
