// A target is the end of a module's path at a point ("q_proj", "layers.0.mlp.up_proj"); a pattern's
// key is a regular expression for such an end, as PEFT matches it: (.*\.)?(KEY)$ from the path's
// start. The first key that matches counts.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "trainer/lora_targets.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

enum { PATH = 96 };

static void module_path(char path[PATH], int layer, int p) {
    snprintf(path, PATH, "model.layers.%d.%s", layer, sd_proj_module((sd_proj)p));
}

static bool ends_at_point(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return m <= n && strcmp(path + n - m, end) == 0 && (m == n || path[n - m - 1] == '.');
}

static sd_status choose(int *rank, const sd_recipe *r, const sd_hparams *hp, sd_error *err) {
    const sd_strings *t = &r->adapter.target_modules;
    int n = hp->L * SD_PROJ_COUNT;
    memset(rank, 0, (size_t)n * sizeof *rank);
    for (int k = 0; k < t->n; k++) {
        bool all = strcmp(t->item[k], "all-linear") == 0, found = all;
        for (int i = 0; i < n; i++) {
            char path[PATH];
            module_path(path, i / SD_PROJ_COUNT, i % SD_PROJ_COUNT);
            if (!all && !ends_at_point(path, t->item[k])) continue;
            rank[i] = (int)r->adapter.r;
            found = true;
        }
        if (!found)
            return sd_recipe_fail(r, "adapter.target_modules", err,
                                  "'%.60s' is no linear map of this model's blocks; choose from "
                                  "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj, or "
                                  "all-linear",
                                  t->item[k]);
    }
    return SD_OK;
}

typedef struct {
    pcre2_code *code[SD_RECIPE_MAX_PATTERN];
    pcre2_match_data *match;
    pcre2_match_context *limits;
    bool used[SD_RECIPE_MAX_PATTERN];
    int n;
} patterns;

static void patterns_free(patterns *p) {
    for (int i = 0; i < p->n; i++) pcre2_code_free(p->code[i]);
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->limits);
}

static sd_status patterns_compile(patterns *p, const sd_recipe *r, const char *name,
                                  const sd_recipe_pattern *from, sd_error *err) {
    sd_status st = SD_OK;
    *p = (patterns){.match = pcre2_match_data_create(1, NULL),
                    .limits = pcre2_match_context_create(NULL)};
    SD_CHECK(p->match && p->limits, err, SD_ENOMEM, "out of memory while reading %s", name);
    pcre2_set_match_limit(p->limits, 100000);
    for (int i = 0; i < from->n; i++) {
        int code = 0;
        PCRE2_SIZE at = 0;
        char text[512];
        int len = snprintf(text, sizeof text, "^(?:.*\\.)?(?:%s)$", from->key[i]);
        bool fits = len > 0 && (size_t)len < sizeof text;
        p->code[i] =
            fits ? pcre2_compile((PCRE2_SPTR)text, (PCRE2_SIZE)len, 0, &code, &at, NULL) : NULL;
        p->n = i + 1;
        if (!p->code[i])
            return sd_recipe_fail(r, name, err,
                                  "'%.60s' is not a regular expression; give e.g. q_proj",
                                  from->key[i]);
    }
out:
    return st;
}

/// The index of the first key that matches, -1: none.
static int patterns_find(patterns *p, const char *path) {
    for (int i = 0; i < p->n; i++)
        if (pcre2_match(p->code[i], (PCRE2_SPTR)path, PCRE2_ZERO_TERMINATED, 0, 0, p->match,
                        p->limits) >= 0)
            return i;
    return -1;
}

/// Calls for each adapted map that a key matches: the key's value becomes its rank or alpha.
static sd_status apply_pattern(int *rank, double *alpha, const sd_recipe *r, const char *name,
                               const sd_recipe_pattern *from, int n, sd_error *err) {
    patterns p;
    sd_status st = patterns_compile(&p, r, name, from, err);
    for (int i = 0; i < n && st == SD_OK; i++) {
        char path[PATH];
        module_path(path, i / SD_PROJ_COUNT, i % SD_PROJ_COUNT);
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

sd_status sd_targets_of(int *rank, double *alpha, const sd_recipe *r, const sd_hparams *hp,
                        sd_error *err) {
    int n = hp->L * SD_PROJ_COUNT;
    sd_status st = choose(rank, r, hp, err);
    for (int i = 0; i < n; i++) alpha[i] = r->adapter.alpha;
    if (st == SD_OK)
        st = apply_pattern(rank, NULL, r, "adapter.rank_pattern", &r->adapter.rank_pattern, n, err);
    if (st == SD_OK)
        st = apply_pattern(rank, alpha, r, "adapter.alpha_pattern", &r->adapter.alpha_pattern, n,
                           err);
    return st;
}
