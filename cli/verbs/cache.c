// specdec cache: the packed forms that are kept (model/infer/weight_cache/cache.h).
#include "base/files/replace.h"
#include "base/json.h"
#include "cli/common.h"
#include "cli/verbs.h"
#include "model/infer/weight_cache/care.h"
#include "model/infer/weight_cache/place.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    bool json, stale;
} args;

static const sd_option rows[] = {SD_JSON_ROW(args, json, "one JSON object on standard output"),
                                 {.name = "stale",
                                  .type = SD_OPT_FLAG,
                                  .offset = offsetof(args, stale),
                                  .help = "clear: only those whose model has changed or gone"},
                                 {0}};

static sd_status list(const sd_weight_cache_entry *e, int n, const char *dir, bool json,
                      sd_error *err) {
    sd_status st = SD_OK;
    json_t *all = json_array();
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        bytes += e[i].bytes;
        json_array_append_new(all, json_pack("{s:s, s:s, s:I, s:I, s:s}", "path", e[i].path,
                                             "model", e[i].source ? e[i].source : "", "bytes",
                                             (json_int_t)e[i].bytes, "used", (json_int_t)e[i].used,
                                             "state", sd_weight_cache_state_word(e[i].state)));
        if (json) continue;
        char when[32] = "";
        time_t used = (time_t)e[i].used;
        struct tm tm;
        if (localtime_r(&used, &tm)) strftime(when, sizeof when, "%Y-%m-%d %H:%M", &tm);
        printf("%8.1f MiB  %-7s  %s  %s\n", (double)e[i].bytes / (1 << 20),
               sd_weight_cache_state_word(e[i].state), when, e[i].source ? e[i].source : e[i].path);
    }
    if (!json)
        printf("%d packed models, %.1f MiB of at most %lld MiB (SPECDEC_CACHE_MIB) in %s\n", n,
               (double)bytes / (1 << 20), (long long)(sd_weight_cache_bytes() >> 20), dir);
    if (!json) goto out;
    json_t *o = json_pack("{s:s, s:I, s:O}", "dir", dir, "most_bytes",
                          (json_int_t)sd_weight_cache_bytes(), "files", all);
    st = sd_json_print(stdout, o, JSON_COMPACT, err);
    json_decref(o);
    if (st == SD_OK) putchar('\n');
out:
    json_decref(all);
    return st;
}

static sd_status clear(const sd_weight_cache_entry *e, int n, const char *dir, bool stale,
                       sd_error *err) {
    sd_status st = SD_OK;
    int64_t bytes = 0;
    int gone = 0;
    for (int i = 0; i < n; i++) {
        if (stale && e[i].state == SD_WEIGHT_CACHE_CURRENT) continue;
        SD_TRY(sd_weight_cache_remove(e[i].path, err));
        bytes += e[i].bytes;
        gone++;
    }
    // What a killed save left behind; a save that runs now only warns.
    if (!stale) SD_TRY(sd_replace_sweep(dir, err));
    printf("removed %d packed models, %.1f MiB\n", gone, (double)bytes / (1 << 20));
out:
    return st;
}

sd_status sd_verb_cache(int argc, char **argv, sd_error *err) {
    if (sd_verb_help(
            "cache list|clear [--stale] [--json]",
            "The packed forms of models that are kept for fast starts. All together have at most\n"
            "$SPECDEC_CACHE_MIB MiB, 65536 (64 GiB) unless it is set; the least recently "
            "used go first.",
            rows, argc, argv))
        return SD_OK;
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    sd_weight_cache_entry *e = NULL;
    int n = 0;
    char *dir = sd_weight_cache_dir();
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 1, err, SD_EINVAL, "cache: give list or clear");
    SD_CHECK(dir, err, SD_EINVAL, "cache: neither XDG_CACHE_HOME nor HOME is set; set one");
    bool clears = strcmp(rest.item[0], "clear") == 0;
    SD_CHECK(clears || strcmp(rest.item[0], "list") == 0, err, SD_EINVAL,
             "cache: '%s' is not known; give list or clear", rest.item[0]);
    SD_TRY(sd_weight_cache_list(&e, &n, dir, err));
    st = clears ? clear(e, n, dir, a.stale, err) : list(e, n, dir, a.json, err);
out:
    sd_weight_cache_list_free(e, n);
    free(dir);
    return st;
}
