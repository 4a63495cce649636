// Whole runs by a recipe on the emulated device: from data to a verified adapter, and on from a checkpoint.
#include "tests/cuda/model/pass.h"
#include "tests/unit/trainer/support_run.h"

#include "base/files/file.h"
#include "base/files/path.h"
#include "base/memory.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static const char *const ON_CUDA[] = {"device.kind=cuda",      "train.max_steps=4",
                                      "train.batch_tokens=96", "data.sequence_len=96",
                                      "data.val_size=0",       "checkpoint.every=2"};
static const char *const ON_CPU[] = {"device.kind=cpu",       "train.max_steps=4",
                                     "train.batch_tokens=96", "data.sequence_len=96",
                                     "data.val_size=0",       "checkpoint.every=2"};
static const char *const AUTO[] = {"device.kind=auto",      "train.max_steps=4",
                                   "train.batch_tokens=96", "data.sequence_len=96",
                                   "data.val_size=0",       "checkpoint.every=2"};
enum { KEYS = 6 };
// The same, going on from where the other device stopped.
static const char *const THEN_CUDA[] = {
    "device.kind=cuda", "train.max_steps=4",  "train.batch_tokens=96", "data.sequence_len=96",
    "data.val_size=0",  "checkpoint.every=2", "checkpoint.kernels=any"};
static const char *const THEN_CPU[] = {
    "device.kind=cpu", "train.max_steps=4",  "train.batch_tokens=96", "data.sequence_len=96",
    "data.val_size=0", "checkpoint.every=2", "checkpoint.kernels=any"};

static run_result trained(const char *name, const char *const *keys) {
    run_result r = run_train(name, keys, KEYS);
    must(r.st, &r.err);
    return r;
}
static bool says(const run_result *r, const char *file, const char *text) {
    char *path = sd_path_join(r->out, file), *page = NULL;
    size_t len = 0;
    check(path && sd_file_read(&page, &len, path, 1 << 20, NULL) == SD_OK, "no %s", file);
    const bool found = strstr(page, text) != NULL;
    free(path), free(page);
    return found;
}

TEST("a run on the device learns what one on the CPU learns, and its adapter loads again") {
    run_set_up();
    run_result cuda = trained("cuda", ON_CUDA), cpu = trained("cpu", ON_CPU);
    check(strcmp(cuda.report.device, "cuda:0") == 0 && strcmp(cpu.report.device, "cpu") == 0,
          "'%s' and '%s'", cuda.report.device, cpu.report.device);
    check(cuda.report.last_loss < cuda.report.first_loss, "%.6g, then %.6g", cuda.report.first_loss,
          cuda.report.last_loss);
    check(fabs(cuda.report.first_loss - cpu.report.first_loss) <= 1e-5 * cpu.report.first_loss &&
              fabs(cuda.report.last_loss - cpu.report.last_loss) <= 1e-3 * cpu.report.last_loss,
          "losses %.7g and %.7g, the CPU's %.7g and %.7g", cuda.report.first_loss,
          cuda.report.last_loss, cpu.report.first_loss, cpu.report.last_loss);
    check(fabs(cuda.report.verified.trainer_loss - cuda.report.verified.reloaded_loss) <= 1e-4,
          "the adapter loaded again has another loss");
    check(run_exists(&cuda, "manifest.json") && says(&cuda, "recipe.resolved.yaml", "kind: cuda"),
          "the recipe does not say where the run was made");
    check(strncmp(cuda.report.plan.kernels, "cuda-sm90-fp32-", 15) == 0, "kernels '%s'",
          cuda.report.plan.kernels);
    free(cuda.out), free(cpu.out);
    run_tear_down();
}

static volatile int stop;
static void *stop_behind(void *path) {
    while (access(path, F_OK) != 0) usleep(200);
    stop = 1;
    return NULL;
}

TEST("a run that is interrupted goes on from its checkpoint to the same bytes") {
    run_set_up();
    run_result whole = trained("whole", ON_CUDA);
    char *first = sd_sprintf("%s/cut/checkpoints/step-%08d", run_dir, 2);
    pthread_t id;
    check(first && pthread_create(&id, NULL, stop_behind, first) == 0, "no thread");
    run_result cut = run_train_with("cut", ON_CUDA, KEYS, 1, &stop, NULL);
    pthread_join(id, NULL);
    check(cut.st == SD_EINTERRUPTED && cut.report.state.step < 4, "it was never interrupted: %s",
          cut.err.message);
    run_result on_cpu = run_train("cut", ON_CPU, KEYS);
    check(on_cpu.st == SD_EINVAL && strstr(on_cpu.err.message, "device.kind"), "%s",
          on_cpu.err.message);
    run_result rest = trained("cut", AUTO); // adopts the checkpoint's device
    check(rest.report.started_at >= 2, "it began anew");
    const sd_sha256 a = run_adapter(&whole), b = run_adapter(&rest);
    check(strcmp(a.hex, b.hex) == 0, "the adapters differ");
    free(first), free(whole.out), free(cut.out), free(on_cpu.out), free(rest.out);
    run_tear_down();
}

// The finished run as an end behind one of its steps would have left it: without a manifest, and without the checkpoints of later steps.
static void undo(const run_result *r, int step) {
    char *manifest = sd_path_join(r->out, "manifest.json"),
         *last = sd_sprintf("%s/checkpoints/step-%08d", r->out, 4);
    check(manifest && last && unlink(manifest) == 0, "no manifest");
    if (step < 4) check(sd_remove_tree(last, NULL) == SD_OK, "no %s", last);
    free(manifest), free(last);
}

TEST("a run goes on elsewhere where that is asked for: its steps are those that it had, and learn "
     "on") {
    run_set_up();
    for (int to_cuda = 0; to_cuda < 2; to_cuda++) {
        const char *const *then = to_cuda ? THEN_CUDA : THEN_CPU;
        const char *name = to_cuda ? "to cuda" : "to cpu";
        run_result whole = trained(name, to_cuda ? ON_CPU : ON_CUDA);
        // Nothing is left to do but the export: parameters cross and come back.
        const sd_sha256 before = run_adapter(&whole);
        undo(&whole, 4);
        run_result again = run_train(name, then, KEYS + 1);
        must(again.st, &again.err);
        const sd_sha256 after = run_adapter(&again);
        check(again.report.started_at == 4 && strcmp(before.hex, after.hex) == 0,
              "%s: began after step %lld, or another adapter", name,
              (long long)again.report.started_at);
        undo(&again, 2);
        run_result rest = run_train(name, then, KEYS + 1);
        must(rest.st, &rest.err);
        check(rest.report.started_at == 2 &&
                  strcmp(rest.report.device, to_cuda ? "cuda:0" : "cpu") == 0 &&
                  (strncmp(rest.report.state.kernels, "cuda-", 5) == 0) == (to_cuda == 1),
              "%s: began after step %lld on %s with the %s kernels", name,
              (long long)rest.report.started_at, rest.report.device, rest.report.state.kernels);
        check(fabs(rest.report.last_loss - whole.report.last_loss) <= 1e-3 * whole.report.last_loss,
              "%s: the last loss is %.7g, elsewhere %.7g", name, rest.report.last_loss,
              whole.report.last_loss);
        free(whole.out), free(again.out), free(rest.out);
    }
    run_tear_down();
}

TEST("a run on two devices writes the bytes of one, and one goes on from it") {
    run_set_up();
    static const char *const keys[] = {
        "device.kind=cuda",     "train.max_steps=4",           "train.batch_tokens=96",
        "data.sequence_len=96", "data.val_size=0.2",           "checkpoint.every=2",
        "eval.every=2",         "train.micro_batch_tokens=96", "device.count=1"};
    enum { COUNT = 8 };
    const char *two[COUNT + 1];
    memcpy(two, keys, sizeof two);
    two[COUNT] = "device.count=2";
    run_result one = run_train("one", keys, COUNT + 1), both = run_train("two", two, COUNT + 1);
    must(one.st, &one.err), must(both.st, &both.err);
    check(strcmp(both.report.device, "cuda:0 to cuda:1") == 0, "'%s'", both.report.device);
    const sd_sha256 a = run_adapter(&one), b = run_adapter(&both);
    check(strcmp(a.hex, b.hex) == 0 && one.report.state.best_loss == both.report.state.best_loss,
          "the adapters differ, or the best losses: %.17g and %.17g", one.report.state.best_loss,
          both.report.state.best_loss);
    // The last checkpoint of two is gone on from by one.
    undo(&both, 2);
    run_result rest = run_train("two", keys, COUNT + 1);
    must(rest.st, &rest.err);
    const sd_sha256 c = run_adapter(&rest);
    check(rest.report.started_at == 2 && strcmp(a.hex, c.hex) == 0, "it began anew");
    free(one.out), free(both.out), free(rest.out);
    // Auto gives each device its part of a step.
    two[COUNT - 1] = "train.batch_tokens=192", two[2] = "train.micro_batch_tokens=auto";
    run_result spread = run_train("spread", two, COUNT + 1);
    must(spread.st, &spread.err);
    check(spread.report.micro_batch_tokens < 192, "micro-batches of %lld tokens in steps of 192",
          (long long)spread.report.micro_batch_tokens);
    const char *on_cpu[] = {"device.kind=cpu", "device.count=2"};
    run_result refused = run_train("cpu", on_cpu, 2);
    check(refused.st != SD_OK && strstr(refused.err.message, "device.count"), "%s",
          refused.err.message);
    free(spread.out), free(refused.out);
    run_tear_down();
}

TEST("auto takes the device, and a device that is not there is refused before any data is read") {
    run_set_up();
    run_result r = {.out = sd_path_join(run_dir, "planned")};
    char *model = sd_sprintf("base.model=%s", run_model),
         *data = sd_sprintf("data.train.0.path=%s", run_data);
    const char *keys[] = {model, data, "device.kind=auto", "device.index=0"};
    const sd_run_options o = {
        .recipe = run_recipe, .override = keys, .n_overrides = 4, .out = r.out, .threads = 1};
    must(sd_run_plan(&o, &r.report, &r.err), &r.err);
    check(strcmp(r.report.device, "cuda:0") == 0, "'%s'", r.report.device);
    size_t sum = 0;
    for (int i = 0; i < r.report.plan.n_total; i++) sum += r.report.plan.row[i].bytes;
    check(sum == r.report.plan.total && r.report.plan.n > r.report.plan.n_total,
          "the device's parts are %zu bytes, its total %zu", sum, r.report.plan.total);
    keys[1] = "data.train.0.path=nowhere.jsonl", keys[2] = "device.kind=cuda",
    keys[3] = "device.index=7";
    check(sd_run_plan(&o, &r.report, &r.err) == SD_EINVAL && strstr(r.err.message, "no device 7"),
          "%s", r.err.message);
    free(model), free(data), free(r.out);
    run_tear_down();
}
