// specdec pack: the packed form that the first start would make and keep, now, with the costs of
// steps (model/infer/step_cost.h); one that is there is checked byte by byte, which a start cannot
// afford.
#include "base/clock.h"
#include "base/memory.h"
#include "cli/open_model.h"
#include "cli/verbs.h"
#include "model/infer/step_cost.h"
#include "model/infer/weight_cache/cache.h"
#include "model/infer/weight_cache/care.h"
#include "model/infer/weight_cache/place.h"

#include <stdlib.h>
#include <sys/stat.h>

typedef struct {
    int64_t threads;
} args;

static const sd_option rows[] = {SD_THREADS_ROW(args, threads, "one per processor"), {0}};

static double mib(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0 ? (double)sb.st_size / (1 << 20) : 0;
}

static void print_costs(const sd_step_costs *t, int threads) {
    printf("a step with %d threads: 1 row %.2f ms; cost of n rows ", threads, t->ms[0]);
    for (int i = 1; i < SD_STEP_COSTS; i++)
        if ((sd_step_cost_rows[i] & (sd_step_cost_rows[i] - 1)) == 0)
            printf(" %d: %.2f", sd_step_cost_rows[i], t->ms[i] / t->ms[0]);
    putchar('\n');
}

sd_status sd_verb_pack(int argc, char **argv, sd_error *err) {
    if (sd_verb_help(
            "pack MODEL",
            "Makes a model's packed form now, so that the next start reads it; one that is "
            "kept already\nis checked byte by byte and made again when it is damaged.",
            rows, argc, argv))
        return SD_OK;
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    sd_run_model r = {0};
    char *path = NULL;
    sd_sha256 source;
    sd_step_costs costs;
    double begun = sd_now_s();
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 1, err, SD_EINVAL, "pack: give one model, a GGUF file or a folder");
    SD_TRY(sd_open_model(&r.model, &r.cache_dir, &(sd_model_args){.model = rest.item[0]}, err));
    SD_CHECK(r.cache_dir, err, SD_EINVAL,
             "pack: neither XDG_CACHE_HOME nor HOME is set; set one, the cache stands below it");
    path = sd_weight_cache_path(r.cache_dir, r.model, sd_ops_best());
    SD_CHECK(path || !sd_memory_lost(), err, SD_ENOMEM, "out of memory");
    SD_CHECK(path, err, SD_EINVAL,
             "pack: this processor uses the weights as they are stored; there is nothing to pack");
    SD_TRY(sd_pool_open(&r.pool, (int)a.threads, err));
    bool kept =
        sd_weight_cache_has(r.cache_dir, r.model, sd_ops_best()); // of the model as it is now
    sd_status bad = kept ? sd_weight_cache_verify(path, r.pool, err) : SD_OK;
    if (bad == SD_ENOMEM) SD_TRY(bad); // nothing is wrong with it
    if (bad != SD_OK) {
        printf("%s; it is made again\n", err->message);
        kept = false;
        SD_TRY(sd_weight_cache_remove(path, err));
    }
    sd_context_options o = {.max_rows = SD_STEP_COST_MOST, .cache = {.dir = r.cache_dir}};
    SD_TRY(sd_context_open(&r.cx, r.model, r.pool, &o, err));
    SD_CHECK(kept || sd_weight_cache_source_sha256(r.cache_dir, r.model, &source), err, SD_EIO,
             "pack: nothing could be kept in %s", r.cache_dir);
    double took = sd_now_s() - begun;
    bool costs_kept = sd_step_costs_get(&costs, r.cx);
    printf("%s  %.1f MiB  %s in %.1f s\n", path, mib(path), kept ? "checked" : "made", took);
    // A library that lacks memory may not say so.
    SD_CHECK(
        costs_kept, err, SD_EIO,
        "pack: the times of steps could not be taken or kept in %s; the packed form is kept, the "
        "first server measures them",
        r.cache_dir);
    print_costs(&costs, sd_pool_threads(r.pool));
out:
    sd_run_model_close(&r);
    free(path);
    return st;
}
