// Recipes: what is accepted means what it says, and every mistake is pointed at.
#include "base/memory.h"
#include "base/rng.h"
#include "trainer/recipe/recipe.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char FULL[] =
    "recipe: 1\n"
    "name: support-bot\n"
    "seed: 7\n"
    "deterministic: true\n"
    "base:       {model: models/base.gguf, sha256: null, compute_dtype: fp32}\n"
    "adapter:    {type: lora, r: 8, alpha: 32, dropout: 0.0, target_modules: [q_proj, v_proj],\n"
    "             rank_pattern: {q_proj: 4}, alpha_pattern: {}, scaling: rslora, init: kaiming,\n"
    "             lr_ratio: 4.0, from: null}\n"
    "data:       {train: [{path: tickets.jsonl.zst, format: messages, weight: 1.0}], eval: [],\n"
    "             val_size: 0.05, chat_template: auto, loss_on: assistant, train_on_eot: turn,\n"
    "             sequence_len: 512, overlong: skip, packing: false, shuffle: true,\n"
    "             prepared: null, on_empty_labels: error}\n"
    "train:      {epochs: 2, max_steps: null, batch_rows: 8, micro_batch_tokens: auto,\n"
    "             optimizer: adamw, learning_rate: 2.0e-4, weight_decay: 0.1,\n"
    "             lr_scheduler: cosine, warmup_ratio: 0.03, min_lr_ratio: 0.0,\n"
    "             max_grad_norm: 1.0, recompute: auto, neftune_alpha: null}\n"
    "eval:       {every: 4/epoch, patience: null, keep_best: true}\n"
    "checkpoint: {every: 100, keep: 3, resume: auto}\n"
    "log:        {every: 1, sinks: [tty, csv, plot]}\n"
    "draft:      {index: true, model: null}\n"
    "export:     [peft, gguf-lora]\n"
    "export_verify: {prompts: 32, max_kl: 1.0e-3, top1: 0.999}\n"
    "device:     {kind: auto, threads: auto, memory_limit: 8GiB}\n";

static sd_status parse(sd_recipe *r, const char *text, sd_error *err) {
    return sd_recipe_parse(r, "r.yaml", text, strlen(text), NULL, 0, err);
}

Test(recipe, every_key_of_schema_1_is_read) {
    sd_recipe r;
    sd_error err = {0};
    cr_assert_eq(parse(&r, FULL, &err), SD_OK, "%s", err.message);
    cr_assert_str_eq(r.name, "support-bot");
    cr_assert(r.seed == 7 && r.base.compute_dtype == SD_TRAIN_FP32 && r.adapter.r == 8);
    cr_assert(r.adapter.alpha == 32 && r.adapter.scaling == 1 && r.adapter.lr_ratio == 4);
    cr_assert_eq(r.adapter.target_modules.n, 2);
    cr_assert(r.adapter.rank_pattern.n == 1 && r.adapter.rank_pattern.value[0] == 4);
    cr_assert(r.data.train.n == 1 && r.data.train.item[0].format == SD_FORMAT_MESSAGES);
    cr_assert(r.data.overlong == SD_OVERLONG_SKIP && !r.data.packing && r.data.val_size == 0.05);
    cr_assert(r.train.batch_rows == 8 && r.train.epochs == 2 && r.train.max_steps == 0);
    cr_assert(r.eval.every.n == 4 && r.eval.every.per_epoch && r.eval.keep_best);
    cr_assert(r.exports.n == 2 && r.device.memory_limit == (int64_t)8 << 30);
    sd_recipe_free(&r);
}

Test(recipe, the_written_recipe_loads_again_to_the_same_text) {
    const char *odd = "name: a.b\nbase: {model: \"a b\\u00e4\\u2028\\\"x: y\"}\n"
                      "train: {learning_rate: 0.1, warmup_steps: 20}\n"
                      "data: {train: [{path: \"null\"}, \"#c.jsonl\"]}\n"
                      "adapter: {rank_pattern: {\"layers\\\\.[0-3]\": 8}, alpha: 1e5}\n";
    const char *text[] = {FULL, odd, ""};
    for (int i = 0; i < 3; i++) {
        sd_recipe a, b;
        sd_error err = {0};
        sd_buf x = sd_buf_make(1 << 20), y = sd_buf_make(1 << 20);
        cr_assert_eq(parse(&a, text[i], &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_recipe_text(&a, &x, &err), SD_OK);
        cr_assert_eq(parse(&b, x.data, &err), SD_OK, "%s\n%s", err.message, x.data);
        cr_assert_eq(sd_recipe_text(&b, &y, &err), SD_OK);
        cr_assert_str_eq(x.data, y.data);
        if (i == 1) cr_assert_str_eq(b.data.train.item[0].path, "null");
        if (i == 1) cr_assert_str_eq(b.base.model, a.base.model);
        sd_recipe_free(&a), sd_recipe_free(&b);
        sd_buf_free(&x), sd_buf_free(&y);
    }
}

Test(recipe, mistakes_are_pointed_at_with_the_nearest_key) {
    static const struct {
        const char *text, *where, *what;
    } bad[] = {
        {"train:\n  learning_rte: 1\n", "r.yaml:2:3:", "train.learning_rate"},
        {"learning_rate: 1\n", "r.yaml:1:1:", "train.learning_rate"},
        {"train: {epochs: many}\n", "r.yaml:1:17:", "not a number"},
        {"train: {epochs: 0}\n", "r.yaml:1:17:", "out of range"},
        {"train: {epochs: \"3\"}\n", "r.yaml:1:17:", "without quotes"},
        {"train: {epochs: 1.5}\n", "r.yaml:1:17:", "whole number"},
        {"train: {epochs: null}\n", "r.yaml:1:17:", "null is not possible"},
        {"train: {learning_rate: nan}\n", "r.yaml:1:24:", "not a number"},
        {"data: {packing: maybe}\n", "r.yaml:1:17:", "neither true nor false"},
        {"seed: 1\nseed: 2\n", "r.yaml:2:1:", "twice"},
        {"seed: &a 1\n", "r.yaml:1:7:", "anchors"},
        {"seed: *a\n", "r.yaml:1:7:", "aliases"},
        {"seed: !!int 1\n", "r.yaml:1:7:", "tags"},
        {"a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n", "r.yaml:1:", "deeper"},
        {"train: {epochs: [1}\n", "r.yaml:1:", "check the indentation"},
        {"- a\n", "r.yaml:1:1:", "a map of keys"},
        {"seed: 1\n---\nseed: 2\n", "r.yaml:2:1:", "second document"},
        {"name: ../x\n", "r.yaml:1:7:", "folder"},
        {"adapter: {dropout: 0.1}\n", "r.yaml:1:20:", "not built"},
        {"adapter: {type: dora}\n", "r.yaml:1:17:", "not built"},
        {"train: {neftune_alpha: 5}\n", "r.yaml:1:24:", "not built"},
        {"train: {optimizer: adamw_8bit}\n", "r.yaml:1:20:", "not built"},
        {"log: {sinks: [csv, tensorboard]}\n", "r.yaml:1:14:", "not built"},
        {"data: {train: [{path: a, weight: 2}]}\n", "r.yaml:1:34:", "not built"},
        {"data: {train: [{pth: a}]}\n", "r.yaml:1:17:", "path"},
        {"data: {train: [{format: text}]}\n", "r.yaml:1:16:", "path is missing"},
        {"train: {batch_rows: 8, batch_tokens: 9}\n", "r.yaml:1:21:", "keep one"},
        {"device: {memory_limit: lots}\n", "r.yaml:1:24:", "size"},
        {"eval: {every: 4/day}\n", "r.yaml:1:15:", "epoch"},
        {"export: [peft, onnx]\n", "r.yaml:1:16:", "peft|gguf-lora|merged"},
        {"name: \"a\\0b\"\n", "r.yaml:1:7:", "0 byte"},
        {"name: \xff\n", "r.yaml:1:7:", "UTF-8"},
        {"\xEF\xBB\xBFname: \xff\n", "r.yaml:1:7:", "UTF-8"},
        {"\xFF\xFEname: x\n", "r.yaml:1:1:", "UTF-16"},
        {"seed: 1\nname: 'x\ndata: {}\n", "r.yaml:2:7:", "quoted scalar"}, // where it was opened
        {"seed: |\n  x\n  y\n", "r.yaml:1:7:", "is a text"},
        {"adapter: {rank_pattern: {<<: 1}}\n", "r.yaml:1:26:", "merge keys"},
        {"train: {max_steps: 010}\n", "r.yaml:1:20:", "begins with a zero"},
        {"base: {sha256: None}\n", "r.yaml:1:16:", "write null"},
        {"data: {packing: y}\n", "r.yaml:1:17:", "neither true nor false"},
        {"data: {packing: 1}\n", "r.yaml:1:17:", "neither true nor false"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_recipe r;
        sd_error err = {0};
        cr_expect_eq(parse(&r, bad[i].text, &err), SD_EFORMAT, "accepted: %s", bad[i].text);
        cr_expect(strncmp(err.message, bad[i].where, strlen(bad[i].where)) == 0, "%s -> %s",
                  bad[i].text, err.message);
        cr_expect(strstr(err.message, bad[i].what), "%s -> %s", bad[i].text, err.message);
        cr_expect(!strchr(err.message, '\n'), "%s -> %s", bad[i].text, err.message);
        sd_recipe_free(&r);
    }
}

Test(recipe, booleans_and_null_are_the_words_of_yaml_and_a_byte_order_mark_is_no_text) {
    static const char *const on[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"};
    static const char *const off[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "OFF"};
    static const char *const null[] = {"null", "Null", "NULL", "~", ""};
    char text[128];
    sd_recipe r;
    sd_error err = {0};
    for (size_t i = 0; i < sizeof on / sizeof *on; i++) {
        snprintf(text, sizeof text, "data: {packing: %s, shuffle: %s}\n", on[i], off[i % 8]);
        cr_assert_eq(parse(&r, text, &err), SD_OK, "%s", err.message);
        cr_assert(r.data.packing && !r.data.shuffle);
        sd_recipe_free(&r);
    }
    for (size_t i = 0; i < sizeof null / sizeof *null; i++) {
        snprintf(text, sizeof text, "train:\n  max_steps: %s\n", null[i]);
        cr_assert_eq(parse(&r, text, &err), SD_OK, "%s", err.message);
        cr_assert_eq(r.train.max_steps, 0);
        sd_recipe_free(&r);
    }
    cr_assert_eq(parse(&r, "\xEF\xBB\xBFname: n\r\nseed: 7\r\n", &err), SD_OK, "%s", err.message);
    cr_assert(r.seed == 7 && strcmp(r.name, "n") == 0);
    sd_recipe_free(&r);
    cr_assert_eq(parse(&r, "\xEF\xBB\xBFname: n\r\nseed: x\r\n", &err), SD_EFORMAT);
    cr_assert(strncmp(err.message, "r.yaml:2:7:", 11) == 0, "%s", err.message);
    sd_recipe_free(&r);
}

Test(recipe, a_key_that_is_missing_is_reported_with_the_files_name) {
    sd_recipe r;
    sd_error err = {0};
    cr_assert_eq(parse(&r, "", &err), SD_OK, "%s", err.message);
    sd_recipe_fail(&r, "base.model", &err, "is missing");
    cr_assert_str_eq(err.message, "r.yaml: base.model: is missing");
    sd_recipe_free(&r);
}

Test(recipe, a_key_that_is_given_its_default_is_no_mistake_even_when_unbuilt) {
    sd_recipe r;
    sd_error err = {0};
    cr_assert_eq(
        parse(&r, "adapter: {dropout: 0.000, type: lora}\ntrain: {neftune_alpha: ~}\n", &err),
        SD_OK, "%s", err.message);
    sd_recipe_free(&r);
}

Test(recipe, overrides_replace_and_add) {
    const char *o[] = {"train.learning_rate=1e-4",
                       "data.train.0.path=x.jsonl",
                       "data.train.1={path: y.txt, format: text}",
                       "export=[peft, merged]",
                       "adapter.rank_pattern.q_proj=2",
                       "train.max_steps=null"};
    sd_recipe r;
    sd_error err = {0};
    const char *text = "train: {learning_rate: 3, max_steps: 9}\n";
    cr_assert_eq(sd_recipe_parse(&r, "r.yaml", text, strlen(text), o, 6, &err), SD_OK, "%s",
                 err.message);
    cr_assert_eq(r.train.learning_rate, 1e-4);
    cr_assert_eq(r.train.max_steps, 0);
    cr_assert_eq(r.data.train.n, 2);
    cr_assert_str_eq(r.data.train.item[0].path, "x.jsonl");
    cr_assert_eq(r.data.train.item[1].format, SD_FORMAT_TEXT);
    cr_assert_eq(r.exports.n, 2);
    cr_assert_eq(r.adapter.rank_pattern.n, 1);
    sd_recipe_free(&r);
}

Test(recipe, of_two_keys_that_exclude_each_other_the_command_lines_wins) {
    const char *o[] = {"train.batch_rows=8", "train.warmup_steps=20"};
    sd_recipe r;
    sd_error err = {0};
    const char *text = "train: {batch_tokens: 512, warmup_ratio: 0.1}\n";
    cr_assert_eq(sd_recipe_parse(&r, "r.yaml", text, strlen(text), o, 2, &err), SD_OK, "%s",
                 err.message);
    cr_assert(r.train.batch_rows == 8 && r.train.batch_tokens == 0);
    cr_assert(r.train.warmup_steps == 20 && r.train.warmup_ratio == 0);
    sd_recipe_free(&r);
    const char *back = "train.batch_tokens=512";
    text = "train: {batch_rows: 4}\n";
    cr_assert_eq(sd_recipe_parse(&r, "r.yaml", text, strlen(text), &back, 1, &err), SD_OK, "%s",
                 err.message);
    cr_assert(r.train.batch_rows == 0 && r.train.batch_tokens == 512);
    sd_recipe_free(&r);
}

Test(recipe, a_wrong_override_is_named) {
    const char *bad[] = {"train.lerning_rate=1",
                         "train=1",
                         "=1",
                         "train",
                         "train..x=1",
                         "train=null",
                         "train={max_steps: 1}",
                         "base.sha256.x=1",
                         "data.train.3.path=x",
                         "train.epochs.x=1",
                         "seed=[",
                         "seed=a: b: c"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_recipe r;
        sd_error err = {0};
        sd_status st = sd_recipe_parse(&r, "r.yaml", "train: {epochs: 1}", 18, &bad[i], 1, &err);
        cr_expect_eq(sd_status_exit_code(st), 2, "accepted %s", bad[i]);
        cr_expect(strstr(err.message, bad[i]), "%s -> %s", bad[i], err.message);
        sd_recipe_free(&r);
    }
}

Test(recipe, a_key_that_is_given_twice_is_refused_in_the_file_and_on_the_command_line) {
    const char *twice[] = {"seed=1", "train.epochs=2", "seed=1"};
    sd_recipe r;
    sd_error err = {0};
    cr_assert_eq(sd_recipe_parse(&r, "r.yaml", "", 0, twice, 3, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "seed is given twice"), "%s", err.message);
    sd_recipe_free(&r);
    cr_assert_neq(parse(&r, "seed: 1\ntrain: {epochs: 1, epochs: 1}\n", &err), SD_OK);
    cr_assert(strstr(err.message, "'epochs' is given twice"), "%s", err.message);
    sd_recipe_free(&r);
}

Test(recipe, a_difference_that_changes_the_numbers_is_found_and_auto_is_adopted) {
    sd_recipe a, b;
    sd_error err = {0};
    sd_buf x = sd_buf_make(4096), y = sd_buf_make(4096);
    cr_assert_eq(parse(&a, "train: {micro_batch_tokens: 512}\nbase: {compute_dtype: fp32}\n", &err),
                 SD_OK);
    cr_assert_eq(parse(&b, "log: {every: 5}\ndevice: {threads: 3}\n", &err), SD_OK);
    cr_assert_str_eq(sd_recipe_difference(&a, &b, &x, &y), "base.compute_dtype");
    sd_recipe_adopt_auto(&b, &a);
    cr_assert_null(sd_recipe_difference(&a, &b, &x, &y));
    b.train.learning_rate = 1;
    cr_assert_str_eq(sd_recipe_difference(&a, &b, &x, &y), "train.learning_rate");
    cr_assert_str_eq(y.data, "1");
    sd_recipe_free(&a), sd_recipe_free(&b);
    sd_buf_free(&x), sd_buf_free(&y);
}

/// One random edit of the text: a byte changed, removed, doubled, or a piece moved.
static size_t mutate(char *text, size_t len, const uint32_t w[4]) {
    size_t at = w[1] % len;
    static const char special[] = "{}[]:,&*!|>'\"%@`#-?\t\n \\0123456789.eabz\x80\xff";
    switch (w[0] % 5) {
    case 0:
        text[at] = special[w[2] % (sizeof special - 1)];
        return len;
    case 1:
        memmove(text + at, text + at + 1, len - at - 1);
        return len - 1;
    case 2:
        memmove(text + at + 1, text + at, len - at);
        return len + 1;
    case 3: { // a line twice
        size_t end = at;
        while (end < len && text[end] != '\n') end++;
        size_t n = end - at;
        memmove(text + end + n, text + end, len - end);
        memcpy(text + end, text + at, n);
        return len + n;
    }
    default: { // cut a piece
        size_t n = 1 + w[2] % 12;
        if (at + n > len) n = len - at;
        memmove(text + at, text + at + n, len - at - n);
        return len - n;
    }
    }
}

Test(recipe, a_thousand_mutants_are_refused_with_their_place_or_are_harmless) {
    int refused = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        char text[4 * sizeof FULL];
        uint32_t w[4];
        size_t len = sizeof FULL - 1;
        memcpy(text, FULL, len);
        for (uint64_t edit = 0; edit < 1 + i % 3; edit++) {
            sd_philox(w, 11, i, edit);
            len = mutate(text, len, w);
        }
        sd_recipe r, again;
        sd_error err = {0};
        sd_status st = sd_recipe_parse(&r, "r.yaml", text, len, NULL, 0, &err);
        if (st != SD_OK) {
            int line = 0, column = 0;
            refused++;
            cr_expect_eq(sd_status_exit_code(st), 2);
            cr_expect(sscanf(err.message, "r.yaml:%d:%d: ", &line, &column) == 2 && line > 0 &&
                          column > 0,
                      "mutant %d: %s", (int)i, err.message);
        } else { // harmless: means one thing, and still means it when written out
            sd_buf x = sd_buf_make(1 << 20);
            cr_expect_eq(sd_recipe_text(&r, &x, &err), SD_OK);
            cr_expect_eq(parse(&again, x.data, &err), SD_OK, "mutant %d: %s", (int)i, err.message);
            sd_recipe_free(&again);
            sd_buf_free(&x);
        }
        sd_recipe_free(&r);
    }
    cr_assert(refused > 600, "only %d of 1000 mutants were refused", refused);
}
