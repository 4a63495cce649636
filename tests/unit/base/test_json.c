// Documents in a process whose allocations fail one by one: an error or the whole document, never a
// document with a hole, a crash or a leak.
//
// malloc is this program's own: the countdown lets the n-th allocation of the thread fail.
#include "base/json.h"
#include "base/memory.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <string.h>

static _Thread_local long countdown; // 0: off
static _Thread_local bool for_good;

void *malloc(size_t n) {
    static void *(*next)(size_t); // libc's, or a sanitizer's
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "malloc");
    if (countdown && --countdown == 0) {
        if (for_good) countdown = 1;
        return NULL;
    }
    return next(n);
}

static void fail_at(long n, bool good) {
    for_good = good;
    countdown = n;
}

// Runs until no allocation is left to fail; returns how many there were.
static long sweep(bool good, bool (*once)(const void *), const void *ctx) {
    long n = 1;
    for (;; n++) {
        sd_memory_lost_clear();
        fail_at(n, good);
        bool done = once(ctx);
        bool used = good ? countdown == 1 && for_good && !done : countdown == 0;
        fail_at(0, false);
        if (done && !used) break;
        cr_assert_lt(n, 100000);
    }
    sd_memory_lost_clear();
    return n - 1;
}

typedef struct {
    const char *text;
    size_t len;
    json_t *whole;
} doc;

static bool load_once(const void *ctx) {
    const doc *d = ctx;
    json_t *v;
    json_error_t why;
    sd_error err = {0};
    sd_status st = sd_json_load(&v, d->text, d->len, JSON_REJECT_DUPLICATES, &why, &err);
    long left = countdown;
    fail_at(0, false);
    if (st == SD_OK) {
        cr_assert(v && json_equal(v, d->whole), "a document with a hole");
    } else {
        cr_assert_eq(st, SD_ENOMEM, "%s", err.message);
        cr_assert_null(v);
    }
    json_decref(v);
    countdown = left;
    return st == SD_OK;
}

static void check_loads(const char *text, size_t len) {
    doc d = {text, len, NULL};
    cr_assert_eq(sd_json_load(&d.whole, text, len, 0, NULL, NULL), SD_OK);
    cr_assert_not_null(d.whole);
    cr_assert_gt(sweep(false, load_once, &d), 0);
    cr_assert_gt(sweep(true, load_once, &d), 0);
    json_decref(d.whole);
}

static const char mixed[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a text that is longer than sixteen and "
    "\\\"quoted\\\" \\u00e9\"}, []], \"n\": 1234567890123456, \"m\": 123456789012345, \"x\": "
    "0.1234567890123456789e-3, \"t\": [true, false, null, {}, [[[[1]]]]], \"a long name of a "
    "member, longer than thirty-two\": -1}";

Test(json, a_parse_without_memory_is_an_error_or_the_whole_document) {
    check_loads(mixed, sizeof mixed - 1);
}

// Their buffers double beyond what the small reserve holds, at every length near a power of two.
Test(json, long_tokens_survive_a_buffer_that_cannot_grow) {
    for (size_t len = 32 * 1024 - 20; len < 70000; len += len < 32800 ? 1 : 7919) {
        char *text = sd_alloc(len + 64, 1);
        size_t n = (size_t)sprintf(text, "[\"");
        for (size_t i = 0; i < len; i++) text[n++] = i % 977 == 5 ? '\\' : i % 977 == 6 ? '"' : 'a';
        if (text[n - 1] == '\\') text[n++] = 'n';
        n += (size_t)sprintf(text + n, "\", 12345678901234567, {\"k\": \"v\"}]");
        check_loads(text, n);
        free(text);
    }
}

Test(json, a_wide_array_survives_a_table_that_cannot_grow) {
    sd_buf b = sd_buf_make(1 << 20);
    sd_buf_adds(&b, "[[]");
    for (int i = 0; i < 5000; i++) sd_buf_adds(&b, ",[]");
    sd_buf_adds(&b, "]");
    doc d = {b.data, b.len, NULL};
    cr_assert_eq(sd_json_load(&d.whole, b.data, b.len, 0, NULL, NULL), SD_OK);
    for (long n = 1; n < 11000; n += n < 40 ? 1 : 37)
        for (int good = 0; good < 2; good++) {
            fail_at(n, good);
            load_once(&d);
            fail_at(0, false);
        }
    json_decref(d.whole);
    sd_buf_free(&b);
}

Test(json, malformed_text_is_told_apart_from_a_lack_of_memory) {
    json_t *v;
    json_error_t why;
    cr_assert_eq(sd_json_load(&v, "{\"a\": 1,}", 9, 0, &why, NULL), SD_OK);
    cr_assert_null(v);
    cr_assert_eq(why.line, 1);
    cr_assert_eq(why.column, 9);
    cr_assert_eq(sd_json_load(&v, "", 0, 0, &why, NULL), SD_OK);
    cr_assert_null(v);
    fail_at(1, true);
    cr_assert_eq(sd_json_load(&v, "{}", 2, 0, &why, NULL), SD_ENOMEM);
    fail_at(0, false);
    cr_assert_null(v);
}

Test(json, a_documents_memory_has_a_limit) {
    sd_buf b = sd_buf_make(1 << 22);
    sd_error err = {0};
    json_t *v;
    sd_buf_adds(&b, "[0");
    for (int i = 0; i < 100000; i++) sd_buf_adds(&b, ",{}");
    sd_buf_adds(&b, "]");
    cr_assert_eq(sd_json_load_within(&v, b.data, b.len, 0, 4 << 20, NULL, &err), SD_ELIMIT);
    cr_assert_null(v);
    cr_assert(strstr(err.message, "4 MB"), "%s", err.message);
    cr_assert_eq(sd_json_load_within(&v, b.data, b.len, 0, 64 << 20, NULL, &err), SD_OK);
    cr_assert_eq(json_array_size(v), 100001);
    json_decref(v);
    sd_buf_free(&b);
}

static bool build_once(const void *ctx) {
    const char *want = ctx;
    char *text = NULL;
    json_t *list = json_array();
    for (int i = 0; i < 20; i++) json_array_append_new(list, json_integer(i));
    json_t *v = json_pack("{s:s, s:o, s:{s:f}}", "name", "value", "list", list, "in", "x", 0.5);
    json_object_set_new(v, "more", json_string("text"));
    sd_status st = sd_json_dump(&text, v, JSON_COMPACT | JSON_SORT_KEYS, NULL);
    long left = countdown;
    fail_at(0, false);
    json_decref(v);
    if (st == SD_OK)
        cr_assert_str_eq(text, want);
    else
        cr_assert(st == SD_ENOMEM && !text);
    free(text);
    countdown = left;
    return st == SD_OK;
}

Test(json, a_document_that_lost_a_part_while_it_was_built_is_not_written) {
    const char *want = "{\"in\":{\"x\":0.5},\"list\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,"
                       "18,19],\"more\":\"text\",\"name\":\"value\"}";
    cr_assert_gt(sweep(false, build_once, want), 30);
    cr_assert_gt(sweep(true, build_once, want), 30);
}

Test(json, a_failed_print_leaves_nothing_on_the_stream) {
    char *bytes = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&bytes, &n);
    json_t *v = json_pack("{s:i}", "a", 1);
    fail_at(1, true);
    json_t *lost = json_integer(2);
    fail_at(0, false);
    cr_assert_null(lost);
    cr_assert_eq(sd_json_print(f, v, 0, NULL), SD_ENOMEM);
    sd_memory_lost_clear();
    cr_assert_eq(sd_json_print(f, v, JSON_COMPACT, NULL), SD_OK);
    fclose(f);
    cr_assert_str_eq(bytes, "{\"a\":1}");
    json_decref(v);
    free(bytes);
}
