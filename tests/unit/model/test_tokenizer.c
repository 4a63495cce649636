// The tokenizer: goldens from Hugging Face's tokenizers (tests/data/make_token_golden.py), limits,
// refusals, streaming.
#include "base/clock.h"
#include "base/files/file.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "model/tokenizer/bpe.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

static sd_tokenizer *open_small(void) {
    sd_error err;
    char *text;
    size_t len;
    sd_tokenizer *t;
    cr_assert_eq(sd_file_read(&text, &len, TEST_DATA "/tokenizer_small.json", 1 << 20, &err),
                 SD_OK);
    cr_assert_eq(sd_tokenizer_from_json(&t, text, len, &err), SD_OK, "%s", err.message);
    free(text);
    return t;
}

static sd_ids ids_of(const sd_tokenizer *t, const char *text, size_t len, int flags) {
    sd_ids ids = {0};
    sd_error err;
    cr_assert_eq(sd_tokenizer_encode(t, text, len, flags, &ids, &err), SD_OK, "%s", err.message);
    return ids;
}

Test(tokenizer, ids_equal_those_of_hugging_face) {
    sd_tokenizer *t = open_small();
    json_error_t why;
    json_t *rows = json_load_file(TEST_DATA "/token_golden.json", JSON_ALLOW_NUL, &why), *row;
    size_t i;
    cr_assert(json_array_size(rows) >= 20);
    json_array_foreach(rows, i, row) {
        const json_t *text = json_object_get(row, "text"), *want = json_object_get(row, "ids");
        sd_ids ids = ids_of(t, json_string_value(text), json_string_length(text), SD_TOK_SPECIAL);
        cr_expect_eq((size_t)ids.n, json_array_size(want), "text %zu: %d ids", i, ids.n);
        for (int k = 0; k < ids.n && (size_t)k < json_array_size(want); k++)
            cr_expect_eq(ids.id[k], json_integer_value(json_array_get(want, k)), "text %zu id %d",
                         i, k);
        sd_ids_free(&ids);
    }
    json_decref(rows);
    sd_tokenizer_close(t);
}

Test(tokenizer, decoding_gives_the_text_back) {
    static const char text[] = "the table  of\n\tGr\xC3\xB6\xC3\x9F"
                               "e \xF0\x9F\x98\x80<|end|>";
    sd_tokenizer *t = open_small();
    sd_ids ids = ids_of(t, text, sizeof text - 1, SD_TOK_SPECIAL);
    sd_buf b = sd_buf_make(1000);
    cr_assert_eq(sd_tokenizer_decode(t, ids.id, ids.n, false, &b, NULL), SD_OK);
    cr_assert_str_eq(b.data, text);
    sd_buf_clear(&b);
    cr_assert_eq(sd_tokenizer_decode(t, ids.id, ids.n, true, &b, NULL), SD_OK);
    cr_assert_eq(b.len, sizeof text - 1 - strlen("<|end|>"));
    sd_buf_free(&b);
    sd_ids_free(&ids);
    sd_tokenizer_close(t);
}

Test(tokenizer, a_special_token_is_plain_text_unless_asked_for) {
    sd_tokenizer *t = open_small();
    sd_ids with = ids_of(t, "<|end|>", 7, SD_TOK_SPECIAL), without = ids_of(t, "<|end|>", 7, 0);
    cr_assert_eq(with.n, 1);
    cr_assert_eq(with.id[0], sd_tokenizer_find(t, "<|end|>"));
    cr_assert(sd_tokenizer_is_special(t, with.id[0]));
    cr_assert(without.n > 1);
    sd_ids_free(&with);
    sd_ids_free(&without);
    sd_tokenizer_close(t);
}

Test(tokenizer, invalid_utf8_is_replaced_once_for_each_maximal_part) {
    sd_tokenizer *t = open_small();
    sd_ids bad = ids_of(t, "a\xF0\x9F\x98z\xFF\xC0", 7, 0);
    sd_ids good = ids_of(t, "a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD", 11, 0);
    cr_assert_eq(bad.n, good.n);
    cr_assert_arr_eq(bad.id, good.id, (size_t)good.n * sizeof *good.id);
    sd_ids_free(&bad);
    sd_ids_free(&good);
    sd_tokenizer_close(t);
}

// Quadratic merging would take minutes; the bound leaves room for a sanitizer on a busy machine.
Test(tokenizer, a_megabyte_of_one_letter_takes_no_quadratic_time) {
    sd_tokenizer *t = open_small();
    size_t n = 1 << 20;
    char *text = malloc(n);
    memset(text, 'a', n);
    double start = sd_now_s();
    sd_ids ids = ids_of(t, text, n, 0);
    cr_assert(sd_now_s() - start < 20);
    cr_assert(ids.n > 1000);
    size_t len, total = 0;
    for (int i = 0; i < ids.n; i++) {
        sd_tokenizer_bytes(t, ids.id[i], &len);
        total += len;
    }
    cr_assert_eq(total, n);
    free(text);
    sd_ids_free(&ids);
    sd_tokenizer_close(t);
}

Test(tokenizer, what_is_not_supported_is_refused_by_name) {
    static const struct {
        const char *json, *named;
    } bad[] = {
        {"{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}", "WordPiece"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}, "
         "\"pre_tokenizer\": {\"type\": \"Metaspace\"}}",
         "Metaspace"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}, "
         "\"normalizer\": {\"type\": \"Lowercase\"}}",
         "Lowercase"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}",
         "merge 0"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 99999999}, \"merges\": []}}",
         "99999999"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}",
         "twice"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}, "
         "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a&&b]\"}, "
         "\"behavior\": \"Isolated\"}}",
         "intersects"},
        {"{", "line 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sd_error err = {0};
        sd_tokenizer *t = NULL;
        cr_expect_eq(sd_tokenizer_from_json(&t, bad[i].json, strlen(bad[i].json), &err),
                     SD_EFORMAT);
        cr_expect(strstr(err.message, bad[i].named) != NULL, "case %zu: %s", i, err.message);
        cr_expect_null(t);
    }
}

Test(tokenizer, the_fingerprint_depends_on_the_tokens) {
    sd_tokenizer *t = open_small();
    char *text, *hit;
    size_t len;
    sd_tokenizer *other;
    cr_assert_eq(strlen(sd_tokenizer_fingerprint(t)), 64);
    cr_assert_eq(sd_file_read(&text, &len, TEST_DATA "/tokenizer_small.json", 1 << 20, NULL),
                 SD_OK);
    cr_assert_not_null(hit = strstr(text, "<tool>"));
    hit[1] = 'p';
    cr_assert_eq(sd_tokenizer_from_json(&other, text, len, NULL), SD_OK);
    cr_assert_str_neq(sd_tokenizer_fingerprint(t), sd_tokenizer_fingerprint(other));
    free(text);
    sd_tokenizer_close(t);
    sd_tokenizer_close(other);
}

Test(tokenizer, a_stream_holds_unfinished_code_points_back) {
    // U+1F600, a stray byte, U+00E9 cut in two: given in pieces of every size, the text is the
    // same.
    static const char in[] = "a\xF0\x9F\x98\x80\xFFz\xC3\xA9\xE2\x82";
    static const char want[] = "a\xF0\x9F\x98\x80\xEF\xBF\xBDz\xC3\xA9\xEF\xBF\xBD";
    for (size_t step = 1; step < sizeof in; step++) {
        sd_utf8_stream s = {0};
        sd_buf b = sd_buf_make(100);
        for (size_t i = 0; i < sizeof in - 1; i += step) {
            size_t n = sizeof in - 1 - i < step ? sizeof in - 1 - i : step;
            cr_assert(sd_utf8_stream_add(&s, in + i, n, &b));
            if (b.len) cr_assert_eq(sd_utf8_valid_prefix(b.data, b.len), b.len);
        }
        cr_assert(sd_utf8_stream_add(&s, NULL, 0, &b));
        cr_assert_str_eq(b.data, want, "step %zu", step);
        sd_buf_free(&b);
    }
}

// Texts of 64-bit words in pairs. The top bit of a word, multiplied by an odd number, stays the top
// bit, whatever a hash has gathered before; so one that multiplies and shifts by 32 is the same with
// two bits of the next word, and 2^n texts of n pairs would stand in one chain of the table.
Test(tokenizer, texts_made_to_collide_take_no_quadratic_time, .timeout = 20) {
    enum { PAIRS = 17, N = 1 << PAIRS };
    sd_bpe b;
    sd_error err;
    cr_assert_eq(sd_bpe_init(&b, N, &err), SD_OK);
    for (int i = 0; i < N; i++) {
        uint64_t word[PAIRS][2] = {{0}};
        for (int k = 0; k < PAIRS; k++)
            if (i >> k & 1) {
                word[k][0] = UINT64_C(1) << 63;
                word[k][1] = UINT64_C(1) << 63 | UINT64_C(1) << 31;
            }
        cr_assert_eq(sd_bpe_set(&b, i, (const char *)word, sizeof word, true, &err), SD_OK);
        cr_assert_eq(sd_bpe_find(&b, (const char *)word, sizeof word), i);
    }
    sd_bpe_free(&b);
}
