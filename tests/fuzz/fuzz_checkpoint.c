// A checkpoint's folder. The first byte says what the rest is:
//
//   0  SHA256SUMS of any bytes
//   1  state.json of any bytes, under right sums
//   2  recipe.resolved.yaml of any bytes, under right sums
//   3  a state with one field of any JSON value: the field's number, then the value
//
// What loads holds the parameters that were written, and its state is the same when it is written
// and read again.
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "trainer/checkpoint.h"
#include "trainer/checkpoint_state.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N = 4 };
static const float values[N] = {1, -2, 0.5f, 4};
static const char *const files[] = {"theta.f32", "adam_m.f32", "adam_v.f32",
                                    "best.f32",  "state.json", "recipe.resolved.yaml"};
static const char *const fields[][2] = {{"checkpoint", "1"},
                                        {"parameters", "4"},
                                        {"step", "3"},
                                        {"epoch", "0"},
                                        {"index", "1"},
                                        {"tokens", "9"},
                                        {"supervised", "5"},
                                        {"wall_s", "1.5"},
                                        {"has_best", "true"},
                                        {"best_loss", "1.0"},
                                        {"best_step", "2"},
                                        {"last_eval", "1.0"},
                                        {"evals_without_gain", "0"},
                                        {"stopped", "false"},
                                        {"eval_due", "false"},
                                        {"loss", "1.0"},
                                        {"lr", "0.1"},
                                        {"grad_norm", "1.0"},
                                        {"step_tokens", "3"},
                                        {"step_supervised", "2"},
                                        {"base", "\"\""},
                                        {"data", "\"\""},
                                        {"eval_data", "\"\""},
                                        {"init", "\"\""},
                                        {"version", "\"x\""},
                                        {"kernels", "\"plain\""}};
enum { FIELDS = sizeof fields / sizeof fields[0] };
static char *parent, *folder;

static void put(const char *name, const void *p, size_t n) {
    char *path = sd_path_join(folder, name);
    FILE *f = path ? fopen(path, "wb") : NULL;
    if (!f || (n && fwrite(p, 1, n, f) != n) || fclose(f) != 0) __builtin_trap();
    free(path);
}

static void remove_dir(void) {
    sd_remove_tree(parent, NULL);
    free(parent);
    free(folder);
}

static void begin(void) {
    const char *tmp = getenv("TMPDIR");
    parent = sd_sprintf("%s/fuzz_checkpoint-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!parent || !mkdtemp(parent)) __builtin_trap();
    folder = sd_path_join(parent, "step-00000003");
    if (!folder || sd_mkdirs(folder, NULL) != SD_OK) __builtin_trap();
    for (int i = 0; i < 4; i++) put(files[i], values, sizeof values);
    sd_log_set_level(SD_LOG_ERROR);
    atexit(remove_dir);
}

static void put_state(unsigned other, const uint8_t *value, size_t size) {
    sd_buf b = sd_buf_make(1 << 20);
    for (unsigned i = 0; i < FIELDS; i++) {
        sd_buf_printf(&b, "%s\"%s\": ", i ? ", " : "{", fields[i][0]);
        if (i == other)
            sd_buf_add(&b, value, size);
        else
            sd_buf_adds(&b, fields[i][1]);
    }
    sd_buf_addc(&b, '}');
    put("state.json", b.data, b.len);
    sd_buf_free(&b);
}

static void put_sums(void) {
    sd_buf b = sd_buf_make(1 << 16);
    static sd_sha256 h[sizeof files / sizeof files[0]]; // of the first four: they stay
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = sd_path_join(folder, files[i]);
        if ((i >= 4 || !h[i].hex[0]) && sd_sha256_of_file(&h[i], path, NULL) != SD_OK)
            __builtin_trap();
        sd_buf_printf(&b, "%s  %s\n", h[i].hex, files[i]);
        free(path);
    }
    put("SHA256SUMS", b.data, b.len);
    sd_buf_free(&b);
}

static void check_state(const sd_train_state *s) {
    char *first, *second;
    sd_train_state again;
    size_t n;
    if (sd_train_state_write(&first, s, N, NULL) != SD_OK ||
        sd_train_state_read(&again, &n, first, "again", NULL) != SD_OK || n != N ||
        sd_train_state_write(&second, &again, N, NULL) != SD_OK || strcmp(first, second) != 0)
        __builtin_trap();
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!folder) begin();
    if (size < 2) return 0;
    sd_error err;
    unsigned how = data[0] % 4;
    const uint8_t *rest = data + 1;
    size_t n = size - 1;
    if (how == 1)
        put("state.json", rest, n);
    else
        put_state(how == 3 ? rest[0] % FIELDS : FIELDS, rest + 1, n - 1);
    put("recipe.resolved.yaml", rest, how == 2 ? n : 0);
    if (how == 0)
        put("SHA256SUMS", rest, n);
    else
        put_sums();
    float theta[N], m[N], v[N], best[N];
    sd_checkpoint c = {.n = N, .theta = theta, .m = m, .v = v, .best = best}, d = {0};
    if (sd_checkpoint_load(&c, folder, &err) == SD_OK) {
        if (memcmp(theta, values, sizeof values) != 0 || memcmp(v, values, sizeof values) != 0)
            __builtin_trap();
        if (how == 2 && (c.recipe.len != n || memcmp(c.recipe.data, rest, n) != 0))
            __builtin_trap();
        check_state(&c.state);
    }
    sd_checkpoint_free_recipe(&c);
    if (sd_checkpoint_peek(&d, folder, &err) == SD_OK) check_state(&d.state);
    sd_checkpoint_free_recipe(&d);
    if (n % 8 == 0) { // it reads all of that once more
        char *newest = NULL;
        (void)sd_checkpoint_newest(&newest, NULL, parent, &err);
        free(newest);
    }
    return 0;
}
