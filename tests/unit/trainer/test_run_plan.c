// A plan counts what a run would take, refuses what the run would refuse, and leaves nothing
// behind.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "tests/unit/trainer/support_run.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

TestSuite(run_plan, .init = run_set_up, .fini = run_tear_down, .timeout = 300);

static sd_status plan(const char *name, const char *extra, const char *resume, sd_run_report *r,
                      sd_error *err) {
    char *model = sd_sprintf("base.model=%s", run_model),
         *data = sd_sprintf("data.train.0.path=%s", run_data), *out = sd_path_join(run_dir, name);
    const char *override[] = {model, data, extra};
    sd_run_options o = {.recipe = run_recipe,
                        .override = override,
                        .n_overrides = extra ? 3 : 2,
                        .out = out,
                        .threads = 1,
                        .resume = resume};
    sd_status st = sd_run_plan(&o, r, err);
    free(model), free(data), free(out);
    return st;
}

static size_t part(const sd_run_report *r, const char *name) {
    for (int i = 0; i < r->plan.n; i++)
        if (strcmp(r->plan.row[i].part, name) == 0) return r->plan.row[i].bytes;
    return 0;
}

Test(run_plan, the_plan_counts_the_data_without_padding_and_all_five_vectors_of_parameters) {
    sd_run_report r;
    sd_error err = {0};
    cr_assert_eq(plan("p", "data.packing=false", NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert_eq(part(&r, "adapter, gradient, optimiser"), 5 * 4 * (size_t)r.parameters);
    size_t tokens = (size_t)r.data.tokens * 12,
           records = (size_t)(r.data.records + r.data.eval_records);
    size_t data = part(&r, "prepared data"), padded = (size_t)r.data.rows * 128 * 12;
    cr_assert(data > tokens && data < tokens * 2 + records * 80 && data < padded,
              "%zu bytes of data for %zu of tokens", data, tokens);
}

Test(run_plan, the_plan_holds_and_a_memory_limit_shrinks_the_micro_batches) {
    char *model = sd_sprintf("base.model=%s", run_model),
         *data = sd_sprintf("data.train.0.path=%s", run_data), *out = sd_path_join(run_dir, "plan");
    const char *override[] = {model, data, "train.batch_tokens=4096", "device.memory_limit=1MiB"};
    sd_run_options o = {.recipe = run_recipe, .override = override, .n_overrides = 3, .out = out};
    sd_run_report r;
    sd_error err = {0};
    cr_assert_eq(sd_run_plan(&o, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.plan.n > 3 && r.plan.total > 0 && r.data.steps > 0);
    int64_t free_choice = r.micro_batch_tokens;
    size_t total = r.plan.total;
    o.n_overrides = 4;
    cr_assert_eq(sd_run_plan(&o, &r, &err), SD_ELIMIT); // not even one row fits 1 MiB
    char *limit = sd_sprintf("device.memory_limit=%zu", total - 1000000);
    override[3] = limit;
    cr_assert_eq(sd_run_plan(&o, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.plan.total <= total - 1000000);
    cr_assert(r.micro_batch_tokens < free_choice || r.plan.recompute != SD_RECOMPUTE_NONE);
    free(model), free(data), free(out), free(limit);
}

Test(run_plan, a_plan_leaves_nothing_behind) {
    sd_run_report r;
    sd_error err = {0};
    char *tmp = sd_path_join(run_dir, "tmp"), *new = sd_path_join(run_dir, "new"),
         *prepared = sd_sprintf("data.prepared=%s/shared.h5", run_dir),
         *shared = sd_path_join(run_dir, "shared.h5");
    cr_assert_eq(sd_mkdirs(tmp, NULL), SD_OK);
    setenv("TMPDIR", tmp, 1);
    cr_assert_eq(plan("new/run", NULL, NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.data.records > 40 && r.data.eval_records > 3);
    cr_assert(access(new, F_OK) != 0 && rmdir(tmp) == 0, "a folder is left");
    cr_assert_eq(sd_mkdirs(tmp, NULL), SD_OK);
    cr_assert_eq(plan("new", prepared, NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert(access(shared, F_OK) != 0 && rmdir(tmp) == 0, "a prepared file is left");
    cr_assert_eq(sd_mkdirs(tmp, NULL), SD_OK);
    run_result u = run_unfinished("u");
    cr_assert_eq(plan("u", NULL, "never", &r, &err), SD_OK, "%s", err.message);
    cr_assert(run_exists(&u, "checkpoints"), "a plan has removed the checkpoints");
    cr_assert_eq(plan("u", NULL, NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.started_at > 0 && !r.done_before);
    free(tmp), free(new), free(prepared), free(shared), free(u.out);
}

Test(run_plan, a_plan_refuses_what_the_run_would_refuse) {
    sd_run_report r;
    sd_error err = {0};
    char *file = sd_path_join(run_dir, "a-file");
    cr_assert_eq(sd_file_write(file, "x", 1, NULL), SD_OK);
    cr_assert_eq(plan("p", "adapter.from=nowhere", NULL, &r, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "nowhere"), "%s", err.message);
    cr_assert_eq(plan("a-file/run", NULL, NULL, &r, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "a-file"), "%s", err.message);
    cr_assert_neq(plan("p", NULL, "nowhere", &r, &err), SD_OK);
    cr_assert(strstr(err.message, "--resume nowhere"), "%s", err.message);
    run_result u = run_unfinished("u"), whole = run_train("whole", NULL, 0);
    cr_assert_eq(plan("u", "adapter.r=8", NULL, &r, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "adapter.r"), "%s", err.message);
    free(run_write_data("d.jsonl", 60, 1));
    cr_assert_eq(plan("u", NULL, NULL, &r, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "the training data"), "%s", err.message);
    free(run_write_data("d.jsonl", 60, 0));
    cr_assert_eq(plan("whole", NULL, "never", &r, &err), SD_EINVAL);
    cr_assert_eq(plan("whole", NULL, NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.done_before && r.plan.total > 0);
    free(file), free(u.out), free(whole.out);
}
