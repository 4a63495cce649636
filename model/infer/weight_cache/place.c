#include "model/infer/weight_cache/place.h"

#include "base/log.h"
#include "base/memory.h"
#include "model/load/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char suffix[] = ".pack", costs_suffix[] = ".costs";

char *sd_weight_cache_dir(void) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && *xdg == '/') return sd_sprintf("%s/specdec/packed", xdg);
    return home && *home ? sd_sprintf("%s/.cache/specdec/packed", home) : NULL;
}

int64_t sd_weight_cache_bytes(void) {
    enum { DEFAULT_MIB = 64 << 10, MOST_MIB = 1 << 30 };
    const char *text = getenv("SPECDEC_CACHE_MIB");
    char *end = NULL;
    if (!text || !*text) return (int64_t)DEFAULT_MIB << 20;
    errno = 0;
    long long mib = strtoll(text, &end, 10);
    if (errno || *end || mib < 0 || mib > MOST_MIB) {
        sd_log(SD_LOG_WARN, "SPECDEC_CACHE_MIB=%s is not a number of MiB; %d are used", text,
               DEFAULT_MIB);
        mib = DEFAULT_MIB;
    }
    return (int64_t)mib << 20;
}

// The name depends on where the sources are, not on what they are: a changed source replaces its
// file.
char *sd_weight_cache_path(const char *dir, const sd_model *m, const sd_ops *ops) {
    if (!dir || !ops->layout) return NULL;
    sd_hasher *h;
    bool lost = false;
    if (sd_hasher_open(&h, NULL) != SD_OK) return NULL;
    for (int i = 0; i < sd_model_source_count(m); i++) {
        char *whole = realpath(sd_model_source_path(m, i), NULL);
        if (!whole && errno == ENOMEM) lost = true; // the name would be another one
        const char *path = whole ? whole : sd_model_source_path(m, i);
        sd_hasher_add(h, path, strlen(path) + 1);
        free(whole);
    }
    sd_hasher_add(h, &ops->layout, sizeof ops->layout);
    sd_sha256 sum = sd_hasher_close(h);
    if (lost) {
        sd_memory_lost_mark();
        return NULL;
    }
    return sd_sprintf("%s/%.16s%s", dir, sum.hex, suffix);
}

char *sd_weight_cache_costs_path(const char *path) {
    return sd_sprintf("%.*s%s", (int)(strlen(path) - (sizeof suffix - 1)), path, costs_suffix);
}
