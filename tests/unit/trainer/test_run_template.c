// Runs of a base model that has no chat template, with one that the recipe gives.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "datasets/dataset.h"
#include "model/adapter/chat_template.h"
#include "tests/unit/support/tiny/model.h"
#include "tests/unit/trainer/support_run.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

static const char chatml[] =
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
static const char brackets[] = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}"
                               "<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant] "
                               "{% endif %}";

static char *one, *two, *talks; // template= and path= overrides

static void set_up(void) {
    sd_error err = {0};
    run_set_up();
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.chat_template = "";
    SD_ASSERT(sd_tiny_write_gguf(run_model, &t, &err) == SD_OK);
    sd_buf b = sd_buf_make(1 << 20);
    for (int i = 0; i < 40; i++)
        sd_buf_printf(&b,
                      "{\"messages\": [{\"role\": \"user\", \"content\": \"item %d\"}, {\"role\": "
                      "\"assistant\", \"content\": \"it is %d\"}]}\n",
                      i, i * 7919 % 1000);
    SD_ASSERT(sd_file_write(run_data, b.data, b.len, NULL) == SD_OK);
    sd_buf_free(&b);
    one = sd_sprintf("data.chat_template=%s/one.jinja", run_dir);
    two = sd_sprintf("data.chat_template=%s/two.jinja", run_dir);
    talks = sd_sprintf("data.prepared=%s/talks.h5", run_dir);
    SD_ASSERT(sd_file_write(strchr(one, '=') + 1, chatml, strlen(chatml), NULL) == SD_OK);
    SD_ASSERT(sd_file_write(strchr(two, '=') + 1, brackets, strlen(brackets), NULL) == SD_OK);
}
static void tear_down(void) {
    free(one), free(two), free(talks);
    run_tear_down();
}
TestSuite(run_template, .init = set_up, .fini = tear_down, .timeout = 300);

static run_result train(const char *name, const char *a, const char *b, const char *c) {
    const char *more[4] = {"train.max_steps=3"};
    int n = 1;
    if (a) more[n++] = a;
    if (b) more[n++] = b;
    if (c) more[n++] = c;
    return run_train(name, more, n);
}

static sd_sha256 made_from(const run_result *r) {
    char *path = sd_path_join(r->out, "data/train.h5");
    sd_dataset *d;
    sd_error err = {0};
    cr_assert_eq(sd_dataset_open(&d, path, &err), SD_OK, "%s", err.message);
    sd_sha256 key = *sd_dataset_made_from(d);
    sd_dataset_close(d);
    free(path);
    return key;
}

static json_t *manifest(const run_result *r) {
    char *path = sd_path_join(r->out, "manifest.json");
    json_t *j = json_load_file(path, 0, NULL);
    cr_assert(j);
    free(path);
    return j;
}

Test(run_template, without_one_conversations_are_refused_with_the_remedy) {
    run_result r = train("a", NULL, NULL, NULL);
    cr_assert_eq(r.st, SD_EINVAL);
    cr_assert(strstr(r.err.message, "data.chat_template"), "%s", r.err.message);
    free(r.out);
}

Test(run_template, trains_and_goes_into_adapter_and_manifest) {
    run_result r = train("a", one, NULL, NULL);
    sd_template *t;
    sd_error err = {0};
    sd_sha256 hash;
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    cr_assert_eq(sd_adapter_template(&t, r.out, &err), SD_OK, "%s", err.message);
    cr_assert(t);
    cr_assert_str_eq(sd_template_source(t), chatml);
    sd_template_close(t);
    json_t *j = manifest(&r);
    const char *sum = json_string_value(json_object_get(
        json_object_get(json_object_get(j, "artefacts"), "chat_template"), "sha256"));
    cr_assert_eq(sd_sha256_of(&hash, chatml, strlen(chatml), &err), SD_OK);
    cr_assert_str_eq(sum, hash.hex);
    json_decref(j);
    run_result again = train("a", one, NULL, NULL);
    cr_assert(again.st == SD_OK && again.report.done_before);
    free(r.out), free(again.out);
}

Test(run_template, another_one_makes_other_data_and_is_no_resume) {
    run_result a = train("a", one, NULL, NULL), b = train("b", two, NULL, NULL);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    sd_sha256 of_a = made_from(&a), of_b = made_from(&b);
    cr_assert(!sd_sha256_equal(&of_a, &of_b));
    char *path = sd_path_join(a.out, "manifest.json");
    unlink(path); // the run is not finished
    run_result r = train("a", two, NULL, NULL);
    cr_assert_eq(r.st, SD_EINVAL);
    cr_assert(strstr(r.err.message, "the training data has changed"), "%s", r.err.message);
    free(path), free(a.out), free(b.out), free(r.out);
}

Test(run_template, one_that_cannot_be_used_is_refused_by_its_key) {
    static const char bad[] = "{% if %}";
    char *path = sd_sprintf("%s/bad.jinja", run_dir),
         *key = sd_sprintf("data.chat_template=%s", path);
    run_result r = train("a", key, NULL, NULL);
    cr_assert_eq(r.st, SD_EFORMAT, "%s", r.err.message);
    cr_assert(strstr(r.err.message, "data.chat_template: ") &&
                  strstr(r.err.message, "no such file"),
              "%s", r.err.message);
    cr_assert_eq(sd_file_write(path, bad, strlen(bad), NULL), SD_OK);
    run_result s = train("a", key, NULL, NULL);
    cr_assert_eq(s.st, SD_EFORMAT);
    cr_assert(strstr(s.err.message, "bad.jinja: chat template line 1"), "%s", s.err.message);
    free(r.out), free(s.out), free(path), free(key);
}

// The adapter that is gone on from brings its own; a recipe's goes before it.
Test(run_template, an_adapter_that_is_gone_on_from_brings_its_own) {
    run_result a = train("a", one, NULL, NULL);
    char *from = sd_sprintf("adapter.from=%s", a.out);
    run_result b = train("b", from, NULL, NULL), c = train("c", from, two, NULL);
    cr_assert_eq(a.st, SD_OK);
    cr_assert_eq(b.st, SD_OK, "%s", b.err.message);
    cr_assert_eq(c.st, SD_OK, "%s", c.err.message);
    sd_sha256 of_a = made_from(&a), of_b = made_from(&b), of_c = made_from(&c);
    cr_assert(sd_sha256_equal(&of_a, &of_b) && !sd_sha256_equal(&of_a, &of_c));
    sd_template *t;
    cr_assert_eq(sd_adapter_template(&t, c.out, NULL), SD_OK);
    cr_assert_str_eq(sd_template_source(t), brackets);
    sd_template_close(t);
    free(from), free(a.out), free(b.out), free(c.out);
}

// A prepared file without its sources: its manifest says what it was made with.
Test(run_template, a_prepared_file_of_another_one_is_refused) {
    run_result a = train("a", one, talks, "data.val_size=0");
    cr_assert_eq(a.st, SD_OK, "%s", a.err.message);
    char *model = sd_sprintf("base.model=%s", run_model), *out = sd_path_join(run_dir, "b");
    static const char *const says[] = {NULL, "the chat template of SHA-256 ",
                                       "this run has the model's"};
    const char *template[] = {one, two, NULL};
    for (int i = 0; i < 3; i++) {
        const char *override[] = {model, talks, "data.val_size=0", "train.max_steps=1",
                                  template[i]};
        sd_run_report report;
        sd_error err = {0};
        sd_run_options o = {.recipe = run_recipe,
                            .override = override,
                            .n_overrides = template[i] ? 5 : 4,
                            .out = out,
                            .threads = 1};
        sd_status st = sd_run_plan(&o, &report, &err);
        cr_assert_eq(st, says[i] ? SD_EINVAL : SD_OK, "%d: %s", i, err.message);
        if (says[i]) cr_assert(strstr(err.message, says[i]), "%s", err.message);
    }
    free(model), free(out), free(a.out);
}
