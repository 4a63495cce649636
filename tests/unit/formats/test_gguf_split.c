// Split models: all parts are one model, whichever is given; what does not belong together is named.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/adapter/adapter.h"
#include "model/formats/gguf_write.h"
#include "model/infer/forward.h"
#include "model/load/source.h"
#include "model/load/vocabulary.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PARTS = 3 };

// A tiny model as one file and in parts.
typedef struct {
    char *dir, *whole, *part[PARTS];
} split;

// What a part is made otherwise than llama-gguf-split makes it.
typedef struct {
    int says_no, says_count, says_tensors; // of the last part (tensors: of the first); 0: the truth
    bool repeats;                          // the last part has the first tensor once more
    bool bare;                             // the first part has metadata alone
} oddity;

static void put(sd_gguf_writer *w, const char *key, uint32_t v) {
    cr_assert_eq(sd_gguf_put_u32(w, key, v, NULL), SD_OK);
}

static void write_part(const char *path, const sd_gguf *g, int part, const oddity *odd) {
    sd_gguf_writer *w;
    sd_error err = {0};
    int n = sd_gguf_tensor_count(g), with = PARTS - odd->bare, at = part - odd->bare;
    int from = at < 0 ? 0 : n * at / with, to = n * (at + 1) / with;
    bool last = part == PARTS - 1;
    cr_assert_eq(sd_gguf_writer_open(&w, path, &err), SD_OK, "%s", err.message);
    for (int i = 0; part == 0 && i < sd_gguf_key_count(g); i++) {
        sd_gguf_type type;
        size_t bytes;
        const char *key = sd_gguf_key_at(g, i, &type);
        const void *raw = sd_gguf_value_raw(g, i, &bytes);
        if (strcmp(key, "general.alignment") != 0)
            cr_assert_eq(sd_gguf_put_raw(w, key, type, raw, bytes, &err), SD_OK);
    }
    put(w, "split.no", (uint32_t)(last && odd->says_no ? odd->says_no : part));
    put(w, "split.count", (uint32_t)(last && odd->says_count ? odd->says_count : PARTS));
    put(w, "split.tensors.count", (uint32_t)(odd->says_tensors ? odd->says_tensors : n));
    for (int k = 0; k < 2; k++) {
        for (int i = from; i < to + (last && odd->repeats); i++) {
            const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i < to ? i : 0);
            cr_assert_eq(k ? sd_gguf_write_tensor(w, t->data, t->bytes, &err)
                           : sd_gguf_declare(w, t->name, t->dtype, t->n_dims, t->ne, &err),
                         SD_OK, "%s", err.message);
        }
    }
    cr_assert_eq(sd_gguf_writer_commit(w, &err), SD_OK, "%s", err.message);
}

static split make(const oddity *odd) {
    split s = {.dir = sd_tiny_dir()};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_error err = {0};
    sd_gguf *g;
    t.dtype = SD_Q8_0;
    s.whole = sd_path_join(s.dir, "whole.gguf");
    cr_assert_eq(sd_tiny_write_gguf(s.whole, &t, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_gguf_open(&g, s.whole, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < PARTS; i++) {
        s.part[i] = sd_sprintf("%s/tiny-%05d-of-%05d.gguf", s.dir, i + 1, PARTS);
        write_part(s.part[i], g, i, odd);
    }
    sd_gguf_close(g);
    return s;
}

static void drop(split *s) {
    for (int i = 0; i < PARTS; i++) free(s->part[i]);
    free(s->whole);
    sd_tiny_remove(s->dir);
}

static float *logits_of(sd_model *m) {
    enum { N = 9 };
    sd_pool *pool;
    sd_context *cx;
    sd_kv *kv;
    sd_row rows[N];
    float *out = sd_alloc(N * (size_t)m->hp.V, sizeof *out);
    cr_assert_eq(sd_pool_open(&pool, 1, NULL), SD_OK);
    cr_assert_eq(sd_context_open(&cx, m, pool, &(sd_context_options){.max_rows = N}, NULL), SD_OK);
    cr_assert_eq(sd_kv_open(&kv, cx, N, NULL), SD_OK);
    for (int i = 0; i < N; i++) rows[i] = (sd_row){i * 31 % m->hp.V, i, kv, NULL, true, NULL, NULL};
    cr_assert_eq(sd_forward(cx, rows, N, out, NULL), SD_OK);
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_pool_close(pool);
    return out;
}

Test(gguf_split, any_part_opens_the_same_model_as_the_whole_file, .timeout = 60) {
    split s = make(&(oddity){0});
    sd_error err = {0};
    sd_model *whole, *m;
    sd_sha256 sum[PARTS];
    cr_assert_eq(sd_model_open(&whole, s.whole, &err), SD_OK, "%s", err.message);
    float *want = logits_of(whole);
    for (int i = 0; i < PARTS; i++) {
        cr_assert_eq(sd_model_open(&m, s.part[i], &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_model_source_count(m), PARTS);
        for (int k = 0; k < PARTS; k++) cr_assert_str_eq(sd_model_source_path(m, k), s.part[k]);
        cr_assert_eq(sd_model_sha256(m, &sum[i], &err), SD_OK, "%s", err.message);
        cr_assert(sd_sha256_equal(&sum[i], &sum[0]));
        cr_assert_eq(m->n_params, whole->n_params);
        cr_assert_str_eq(sd_tokenizer_fingerprint(m->tokenizer),
                         sd_tokenizer_fingerprint(whole->tokenizer));
        float *got = logits_of(m);
        cr_assert_eq(memcmp(got, want, 9 * (size_t)m->hp.V * sizeof *want), 0, "part %d", i + 1);
        const sd_weight *last = &m->layer[m->hp.L - 1].w[SD_WDOWN];
        cr_assert_not_null(sd_model_map_of(m, last->data, 8), "a weight of no file");
        sd_model_forget(m);
        free(got);
        sd_model_release(m);
    }
    free(want);
    sd_model_release(whole);
    drop(&s);
}

// llama-gguf-split --no-tensor-first-split leaves the first part without a tensor, as a vocabulary is.
Test(gguf_split, a_first_part_without_tensors_is_no_vocabulary, .timeout = 60) {
    split s = make(&(oddity){.bare = true});
    sd_error err = {0};
    sd_model *m;
    for (int i = 0; i < PARTS; i++) {
        bool alone = true;
        cr_assert_eq(sd_vocabulary_is(&alone, s.part[i], &err), SD_OK, "%s", err.message);
        cr_assert_not(alone, "part %d", i + 1);
        cr_assert_eq(sd_model_open(&m, s.part[i], &err), SD_OK, "%s", err.message);
        sd_model_release(m);
    }
    drop(&s);
}

Test(gguf_split, a_part_that_changes_is_noticed, .timeout = 60) {
    split s = make(&(oddity){0});
    sd_error err = {0};
    sd_model *m;
    cr_assert_eq(sd_model_open(&m, s.part[0], &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_model_check(m, &err), SD_OK);
    cr_assert_eq(truncate(s.part[2], 100), 0);
    cr_assert_eq(sd_model_check(m, &err), SD_EIO);
    cr_assert(strstr(err.message, "tiny-00003-of-00003.gguf"), "%s", err.message);
    sd_model_release(m);
    drop(&s);
}

// A merged model is one file, and says nothing of parts.
Test(gguf_split, merging_writes_one_file, .timeout = 60) {
    static float factors[2][1024];
    split s = make(&(oddity){0});
    sd_error err = {0};
    sd_model *m, *merged;
    sd_adapter *a;
    char *out = sd_path_join(s.dir, "merged.gguf");
    cr_assert_eq(sd_model_open(&m, s.part[1], &err), SD_OK, "%s", err.message);
    for (int i = 0; i < 1024; i++) factors[0][i] = factors[1][i] = 0.1f * (float)(i % 5);
    sd_lora *lora = sd_alloc((size_t)m->hp.L * SD_PROJ_COUNT, sizeof *lora);
    lora[SD_WQ] = (sd_lora){.r = 2, .A = factors[0], .B = factors[1], .scale = 2};
    cr_assert_eq(sd_adapter_from_factors(&a, "t", lora, m, &err), SD_OK);
    cr_assert_eq(sd_adapter_write_merged(out, a, m, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_model_open(&merged, out, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_model_source_count(merged), 1);
    cr_assert_not(sd_gguf_has_key(sd_model_gguf(merged), "split.count"));
    cr_assert_eq(merged->n_params, m->n_params);
    sd_model_release(merged);
    sd_adapter_release(a);
    sd_model_release(m);
    free(lora), free(out);
    drop(&s);
}

static void refused(const char *path, sd_status want, const char *a, const char *b) {
    sd_model *m;
    sd_error err = {0};
    cr_assert_eq(sd_model_open(&m, path, &err), want, "%s", err.message);
    cr_assert(!m && strstr(err.message, a) && strstr(err.message, b), "%s", err.message);
}

Test(gguf_split, parts_that_do_not_belong_together_are_named, .timeout = 60) {
    static const struct {
        oddity odd;
        const char *says, *too;
    } rows[] = {
        {{.says_no = 1}, "is part 2 of 3 by what it holds", "part 3 of 3 by its name"},
        {{.says_count = 4}, "is part 3 of 4 by what it holds", "download or split the model again"},
        {{.says_count = 1}, "is 1 of 1 by what it holds", "part 3 of 3 by its name"},
        {{.says_no = 7}, "says it is part 8 of 3", "damaged"},
        {{.says_tensors = 5}, "the first says 5", "hold"},
        {{.repeats = true}, "stands in two of the 3 parts", "00001-of-00003"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        split s = make(&rows[i].odd);
        refused(s.part[0], SD_EFORMAT, rows[i].says, rows[i].too);
        drop(&s);
    }
}

Test(gguf_split, a_missing_part_and_a_name_that_does_not_tell_are_named, .timeout = 60) {
    split s = make(&(oddity){0});
    char *other = sd_path_join(s.dir, "model.gguf");
    unlink(s.part[1]);
    refused(s.part[2], SD_ENOTFOUND, "tiny-00002-of-00003.gguf: part 2 of 3", "is not there");
    cr_assert_eq(rename(s.part[0], other), 0);
    refused(other, SD_EFORMAT, "is part 1 of 3 of a split model", "-00001-of-00003.gguf");
    refused(other, SD_EFORMAT, "name all parts so", "llama-gguf-split --merge");
    free(other);
    drop(&s);
}

// A download that broke off says how much is there.
Test(gguf_split, a_file_that_was_cut_says_how_much_of_it_is_there, .timeout = 60) {
    split s = make(&(oddity){0});
    char *bytes, *path = sd_path_join(s.dir, "cut.gguf"), want[64];
    size_t size;
    cr_assert_eq(sd_file_read(&bytes, &size, s.whole, 1 << 30, NULL), SD_OK);
    cr_assert_eq(sd_file_write(path, bytes, size / 2, NULL), SD_OK);
    sd_gguf *g;
    cr_assert_eq(sd_gguf_open(&g, s.whole, NULL), SD_OK);
    const sd_gguf_tensor *t = sd_gguf_tensor_at(g, sd_gguf_tensor_count(g) - 1);
    size_t end =
        (size_t)((const char *)t->data - (const char *)sd_gguf_file_map(g, 0)->data) + t->bytes;
    sd_gguf_close(g);
    snprintf(want, sizeof want, "(%zu of %zu bytes)", size / 2, end);
    refused(path, SD_EFORMAT, "the file is truncated", want);
    cr_assert_eq(sd_file_write(path, bytes, end - 1, NULL), SD_OK);
    refused(path, SD_EFORMAT, "the file is truncated", "download or copy it again");
    cr_assert_eq(sd_file_write(path, bytes, 100, NULL), SD_OK);
    refused(path, SD_EFORMAT, "the file is truncated: its 100 bytes end before its ", "tensors do");
    free(bytes), free(path);
    drop(&s);
}
