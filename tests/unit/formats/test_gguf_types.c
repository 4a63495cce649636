// A metadata key of another width is the same number; one that cannot be read as what it should be
// is refused by name, never passed over for a default.
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/formats/gguf_write.h"
#include "model/model.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char *dir, *in, *out;
} files;

static files make_files(void) {
    files f = {.dir = sd_tiny_dir()};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_error err;
    sd_log_set_level(SD_LOG_ERROR);
    t.L = 1;
    t.rope_base = 50000;
    f.in = sd_path_join(f.dir, "in.gguf");
    f.out = sd_path_join(f.dir, "out.gguf");
    cr_assert_eq(sd_tiny_write_gguf(f.in, &t, &err), SD_OK, "%s", err.message);
    return f;
}
static void free_files(files *f) {
    free(f->in);
    free(f->out);
    sd_tiny_remove(f->dir);
}

// The file again, with one key's value replaced, or added; type -1: left out.
static void rewrite(const files *f, const char *key, int type, const void *value, size_t bytes) {
    sd_gguf *g;
    sd_gguf_writer *w;
    sd_error err;
    cr_assert_eq(sd_gguf_open(&g, f->in, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_gguf_writer_open(&w, f->out, &err), SD_OK);
    for (int i = 0; i < sd_gguf_key_count(g); i++) {
        sd_gguf_type t;
        size_t n;
        const char *k = sd_gguf_key_at(g, i, &t);
        const void *raw = sd_gguf_value_raw(g, i, &n);
        if (strcmp(k, key) != 0) cr_assert_eq(sd_gguf_put_raw(w, k, t, raw, n, &err), SD_OK);
    }
    if (type >= 0)
        cr_assert_eq(sd_gguf_put_raw(w, key, (sd_gguf_type)type, value, bytes, &err), SD_OK);
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        cr_assert_eq(sd_gguf_declare(w, t->name, t->dtype, t->n_dims, t->ne, &err), SD_OK);
    }
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        cr_assert_eq(sd_gguf_write_tensor(w, t->data, t->bytes, &err), SD_OK);
    }
    cr_assert_eq(sd_gguf_writer_commit(w, &err), SD_OK, "%s", err.message);
    sd_gguf_close(g);
}

static void put_number(const files *f, const char *key, sd_gguf_type type, double v) {
    union {
        uint8_t u8;
        int16_t i16;
        uint16_t u16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
        float f32;
        double f64;
    } x = {0};
    size_t bytes = 8;
    switch (type) {
    case SD_GGUF_U8:
    case SD_GGUF_BOOL:
        x.u8 = (uint8_t)v, bytes = 1;
        break;
    case SD_GGUF_U16:
        x.u16 = (uint16_t)v, bytes = 2;
        break;
    case SD_GGUF_I16:
        x.i16 = (int16_t)v, bytes = 2;
        break;
    case SD_GGUF_U32:
        x.u32 = (uint32_t)v, bytes = 4;
        break;
    case SD_GGUF_I32:
        x.i32 = (int32_t)v, bytes = 4;
        break;
    case SD_GGUF_F32:
        x.f32 = (float)v, bytes = 4;
        break;
    case SD_GGUF_U64:
        x.u64 = (uint64_t)v;
        break;
    case SD_GGUF_I64:
        x.i64 = (int64_t)v;
        break;
    default:
        x.f64 = v;
    }
    rewrite(f, key, (int)type, &x, bytes);
}

static sd_model *opens(const files *f, const char *what) {
    sd_model *m;
    sd_error err;
    cr_assert_eq(sd_model_open(&m, f->out, &err), SD_OK, "%s: %s", what, err.message);
    return m;
}

static void is_refused(const files *f, const char *key, const char *type) {
    sd_model *m;
    sd_error err;
    cr_assert_eq(sd_model_open(&m, f->out, &err), SD_EFORMAT, "%s", key);
    cr_assert(strstr(err.message, key) && strstr(err.message, type), "%s: %s", key, err.message);
}

Test(gguf_types, a_key_of_another_width_is_the_same_number) {
    static const sd_gguf_type widths[] = {SD_GGUF_U16, SD_GGUF_I16, SD_GGUF_U32, SD_GGUF_I32,
                                          SD_GGUF_U64, SD_GGUF_I64, SD_GGUF_F32, SD_GGUF_F64};
    files f = make_files();
    const struct {
        const char *key;
        double value;
    } keys[] = {{"llama.block_count", 1},
                {"llama.embedding_length", 64},
                {"llama.feed_forward_length", 96},
                {"llama.attention.head_count", 4},
                {"llama.attention.head_count_kv", 2},
                {"llama.context_length", 512},
                {"llama.rope.dimension_count", 16},
                {"llama.rope.freq_base", 5000},
                {"tokenizer.ggml.eos_token_id", 287},
                {"llama.rope.scaling.factor", 1}};
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
            put_number(&f, keys[k].key, widths[i], keys[k].value);
            sd_model *m = opens(&f, keys[k].key);
            bool base = strcmp(keys[k].key, "llama.rope.freq_base") == 0;
            cr_assert_eq(m->hp.rope[0].base, base ? 5000 : 50000, "%s", keys[k].key);
            cr_assert(m->hp.ctx_train == 512 && m->hp.F == 96 && sd_model_is_end(m, 287));
            sd_model_release(m);
        }
    }
    put_number(&f, "tokenizer.ggml.add_bos_token", SD_GGUF_U8, 1);
    sd_model *m = opens(&f, "add_bos_token");
    sd_ids ids = {0};
    cr_assert_eq(sd_tokenizer_encode(m->tokenizer, "a", 1, SD_TOK_ADD_BOS, &ids, NULL), SD_OK);
    cr_assert_eq(ids.n, 2);
    sd_ids_free(&ids);
    sd_model_release(m);
    free_files(&f);
}

// Every key that the readers ask for, as a string (or, where it is one, as a number).
Test(gguf_types, a_key_that_cannot_be_read_is_refused_by_name_and_type) {
    files f = make_files();
    static const char *const numbers[] = {"general.alignment",
                                          "split.count",
                                          "llama.block_count",
                                          "llama.embedding_length",
                                          "llama.context_length",
                                          "llama.feed_forward_length",
                                          "llama.attention.head_count",
                                          "llama.attention.head_count_kv",
                                          "llama.attention.key_length",
                                          "llama.attention.value_length",
                                          "llama.rope.dimension_count",
                                          "llama.attention.layer_norm_rms_epsilon",
                                          "llama.rope.freq_base",
                                          "llama.rope.scaling.factor",
                                          "llama.rope.scale_linear",
                                          "llama.rope.scaling.original_context_length",
                                          "llama.rope.scaling.yarn_beta_fast",
                                          "llama.rope.scaling.yarn_beta_slow",
                                          "llama.expert_count",
                                          "llama.attention.sliding_window",
                                          "tokenizer.ggml.eos_token_id",
                                          "tokenizer.ggml.eot_token_id",
                                          "tokenizer.ggml.eom_token_id"};
    static const char *const strings[] = {"general.architecture", "general.name",
                                          "llama.rope.scaling.type", "tokenizer.chat_template"};
    static const char text[] = "\3\0\0\0\0\0\0\0"
                               "500";
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        rewrite(&f, numbers[i], SD_GGUF_STRING, text, 11);
        is_refused(&f, numbers[i], "a string (\"500\")");
    }
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        put_number(&f, strings[i], SD_GGUF_U32, 500);
        is_refused(&f, strings[i], "u32 (500)");
    }
    put_number(&f, "llama.rope.freq_base", SD_GGUF_U32, 16777217);
    is_refused(&f, "llama.rope.freq_base", "u32 (16777217)");
    put_number(&f, "llama.rope.freq_base", SD_GGUF_F64, (double)NAN);
    is_refused(&f, "llama.rope.freq_base", "f64");
    put_number(&f, "llama.block_count", SD_GGUF_F32, 1.5);
    is_refused(&f, "llama.block_count", "f32 (1.5)");
    put_number(&f, "tokenizer.ggml.eos_token_id", SD_GGUF_U32, 288);
    is_refused(&f, "tokenizer.ggml.eos_token_id", "288");
    free_files(&f);
}

// A damaged key that only the tokenizer needs leaves the model without a tokenizer, and says why.
Test(gguf_types, a_tokenizer_key_that_cannot_be_read_is_named) {
    files f = make_files();
    static const char *const keys[] = {"tokenizer.ggml.model",        "tokenizer.ggml.pre",
                                       "tokenizer.ggml.tokens",       "tokenizer.ggml.token_type",
                                       "tokenizer.ggml.merges",       "tokenizer.ggml.bos_token_id",
                                       "tokenizer.ggml.add_bos_token"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        put_number(&f, keys[i], SD_GGUF_F32, 0.5);
        sd_model *m = opens(&f, keys[i]);
        cr_assert(!m->tokenizer && m->tokenizer_error && strstr(m->tokenizer_error, keys[i]) &&
                      strstr(m->tokenizer_error, "f32 (0.5)"),
                  "%s: %s", keys[i], m->tokenizer_error);
        sd_model_release(m);
    }
    free_files(&f);
}

Test(gguf_types, minus_one_is_no_token_in_every_width) {
    files f = make_files();
    uint64_t all = UINT64_MAX;
    sd_model *m;
    put_number(&f, "tokenizer.ggml.bos_token_id", SD_GGUF_U32, 4294967295.0);
    m = opens(&f, "u32");
    cr_assert(m->tokenizer && sd_tokenizer_bos(m->tokenizer) == -1);
    sd_model_release(m);
    rewrite(&f, "tokenizer.ggml.bos_token_id", SD_GGUF_I32, &all, 4);
    m = opens(&f, "i32");
    cr_assert(m->tokenizer && sd_tokenizer_bos(m->tokenizer) == -1);
    sd_model_release(m);
    rewrite(&f, "tokenizer.ggml.eos_token_id", SD_GGUF_U64, &all, 8);
    sd_model_release(opens(&f, "u64"));
    free_files(&f);
}

Test(gguf_types, per_layer_arrays_are_read_in_every_width) {
    files f = make_files();
    struct {
        uint32_t type;
        uint64_t n;
        uint64_t v;
    } __attribute__((packed)) a = {SD_GGUF_U64, 1, 96};
    rewrite(&f, "llama.feed_forward_length", SD_GGUF_ARRAY, &a, sizeof a);
    sd_model *m = opens(&f, "u64");
    cr_assert_eq(m->hp.F, 96);
    sd_model_release(m);
    double d = 96;
    a.type = SD_GGUF_F64;
    memcpy(&a.v, &d, 8);
    rewrite(&f, "llama.feed_forward_length", SD_GGUF_ARRAY, &a, sizeof a);
    sd_model_release(opens(&f, "f64"));
    d = 96.5;
    memcpy(&a.v, &d, 8);
    rewrite(&f, "llama.feed_forward_length", SD_GGUF_ARRAY, &a, sizeof a);
    is_refused(&f, "llama.feed_forward_length", "an array");
    free_files(&f);
}

Test(gguf_types, a_part_of_a_split_file_is_refused_with_the_way_to_join_it) {
    files f = make_files();
    put_number(&f, "split.count", SD_GGUF_U16, 2);
    is_refused(&f, "part 1 of 2", "llama-gguf-split --merge");
    put_number(&f, "split.count", SD_GGUF_U16, 1);
    sd_model_release(opens(&f, "a split into one"));
    free_files(&f);
}

static char *said_without(const char *key) {
    files f = make_files();
    sd_log_set_level(SD_LOG_WARN);
    rewrite(&f, key, -1, NULL, 0);
    FILE *said = tmpfile();
    int before = dup(2);
    static char text[4096];
    cr_assert(said && before >= 0 && dup2(fileno(said), 2) == 2);
    sd_model_release(opens(&f, key));
    fflush(stderr);
    dup2(before, 2);
    rewind(said);
    text[fread(text, 1, sizeof text - 1, said)] = 0;
    fclose(said);
    close(before);
    free_files(&f);
    return text;
}

// A default that decides the text is never taken without a word.
Test(gguf_types, a_missing_pre_tokeniser_is_said) {
    const char *said = said_without("tokenizer.ggml.pre");
    cr_assert(strstr(said, "the pre-tokeniser is not named (tokenizer.ggml.pre)"), "%s", said);
}
Test(gguf_types, a_missing_rotary_base_is_said) {
    const char *said = said_without("llama.rope.freq_base");
    cr_assert(strstr(said, "llama.rope.freq_base is missing; 10000 is taken"), "%s", said);
}
Test(gguf_types, missing_token_types_are_said) {
    const char *said = said_without("tokenizer.ggml.token_type");
    cr_assert(strstr(said, "have no types (tokenizer.ggml.token_type)"), "%s", said);
}
Test(gguf_types, a_whole_file_says_nothing) {
    const char *said = said_without("nothing.of.this.name");
    cr_assert(said[0] == 0, "%s", said);
}
