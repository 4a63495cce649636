// Records out of every kind of file, and what must be refused.
#include "datasets/read/format.h"
#include "datasets/read/reader.h"
#include "datasets/read/record_json.h"
#include "tests/unit/support/files.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char three[] =
    "{\"text\": \"one\"}\n\n{\"text\": \"zw\xC3\xB6lf\"}\r\n{\"text\": \"3\"}";

// The texts of all records, joined by '|'; the status at the end.
static sd_status texts(const char *path, char *out, size_t size, int64_t *last_line,
                       sd_error *err) {
    sd_reader *r = NULL;
    sd_status st = sd_reader_open(&r, path, err);
    size_t n = 0;
    out[0] = '\0';
    while (st == SD_OK) {
        const sd_record *rec;
        st = sd_reader_next(r, &rec, err);
        if (st != SD_OK || !rec) break;
        const char *t =
            rec->json ? json_string_value(json_object_get(rec->json, "text")) : rec->bytes;
        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "|" : "", t ? t : "(no text)");
        if (last_line) *last_line = rec->line;
    }
    if (st == SD_OK)
        cr_assert(sd_reader_position(r) > 0 && sd_reader_position(r) <= sd_reader_size(r));
    sd_reader_close(r);
    return st;
}

static void expect(const char *path, const char *want) {
    char got[256];
    sd_error err = {0};
    cr_assert_eq(texts(path, got, sizeof got, NULL, &err), SD_OK, "%s", err.message);
    cr_assert_str_eq(got, want);
}

static void expect_error(const char *path, sd_status want, const char *part) {
    char got[256];
    sd_error err = {0};
    cr_assert_eq(texts(path, got, sizeof got, NULL, &err), want, "%s", err.message);
    cr_assert(strstr(err.message, part), "'%s' has no '%s'", err.message, part);
}

Test(reader, json_lines_skip_blank_lines_and_count_them) {
    char got[256];
    int64_t line;
    const char *path = temp_text("a.jsonl", three);
    cr_assert_eq(texts(path, got, sizeof got, &line, NULL), SD_OK);
    cr_assert_str_eq(got, "one|zw\xC3\xB6lf|3");
    cr_assert_eq(line, 4);
    expect(temp_text("bom.jsonl", "\xEF\xBB\xBF{\"text\":\"b\"}\n"), "b");
}

Test(reader, a_json_array_and_objects_in_sequence_give_the_same_records) {
    expect(temp_text("a.json", "\n [ {\"text\":\"a]}\\\"\"},\n{\"text\":\"b\", \"x\":[{}]} ]\n"),
           "a]}\"|b");
    expect(temp_text("b.json", "{\"text\":\"a\"}\n{\"text\":\"b\"}"), "a|b");
    expect(temp_text("c.json", "{\n\"text\":\"only\"\n}"), "only");
}

Test(reader, malformed_json_is_named_with_file_and_line) {
    expect_error(temp_text("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\n"), SD_EFORMAT, "line 2");
    expect_error(temp_text("b.jsonl", "{}\n[1]\n"), SD_EFORMAT, "is not an object");
    expect_error(temp_text("c.jsonl", "{\"a\":1,\"a\":2}\n"), SD_EFORMAT, "duplicate");
    expect_error(temp_text("d.jsonl", "{\"a\":\"\xFF\"}\n"), SD_EFORMAT, "line 1");
    expect_error(temp_text("e.json", "[{\"text\":\"a\"}\n{\"text\":\"b\"}]"), SD_EFORMAT, "line 2");
    expect_error(temp_text("f.json", "[{\"text\":\"a\"}]\n["), SD_EFORMAT, "should end");
    expect_error(temp_text("g.json", "[{\"text\":\"a\"},"), SD_EFORMAT, "no end");
    expect_error(temp_text("h.json", "[{\"text\":\"a\""), SD_EFORMAT, "no end");
    expect_error(temp_text("i.json", "[{\"text\":\"a\"},5]"), SD_EFORMAT, "'5'");
    expect_error(temp_text("empty.jsonl", " \n"), SD_EFORMAT, "holds no record");
    expect_error(temp_text("latin1.txt", "caf\xE9 au lait"), SD_EFORMAT, "0xe9");
}

Test(reader, names_that_are_not_read_are_refused) {
    expect_error(temp_text("a.xlsx", "x"), SD_EFORMAT, "a.xlsx");
    expect_error("/nonexistent/a.jsonl", SD_ENOTFOUND, "/nonexistent/a.jsonl");
    expect_error("/tmp/..jsonl/../", SD_EFORMAT, "ending");
}

Test(reader, compressed_files_give_what_is_inside) {
    size_t n = sizeof three - 1;
    expect(temp_compressed("a.jsonl.gz", "gzip", three, n), "one|zw\xC3\xB6lf|3");
    expect(temp_compressed("a.jsonl.zst", "zstd", three, n), "one|zw\xC3\xB6lf|3");
    expect(temp_compressed("a.jsonl.xz", "xz", three, n), "one|zw\xC3\xB6lf|3");
    expect(temp_compressed("a.md.gz", "gzip", "# Title\n", 8), "# Title\n");
}

Test(reader, archives_give_their_readable_entries_in_order_and_no_links) {
    archive_file files[] = {
        {"x/a.jsonl", "{\"text\":\"a\"}\n", 13, NULL, NULL},
        {"README", "not data", 8, NULL, NULL},
        {"x/link.txt", "", 0, "/etc/passwd", NULL},
        {"x/hard.txt", "", 0, NULL, "/etc/passwd"},
        {"x/._a.jsonl", "junk", 4, NULL, NULL},
        {"../up.txt", "text", 4, NULL, NULL},
        {"b.json", "[{\"text\":\"c\"}]", 14, NULL, NULL},
    };
    expect(temp_archive("a.tar", "ustar", "none", files, 7), "a|text|c");
    expect(temp_archive("a.tar.gz", "ustar", "gzip", files, 7), "a|text|c");
    expect(temp_archive("a.tar.zst", "ustar", "zstd", files, 7), "a|text|c");
    expect(temp_archive("a.tar.xz", "ustar", "xz", files, 7), "a|text|c");
    files[2].symlink = files[3].hardlink = NULL;
    files[2].name = files[3].name = "x/other.bin";
    expect(temp_archive("a.zip", "zip", "none", files, 7), "a|text|c");
    expect_error(temp_archive("none.tar", "ustar", "none", files + 1, 1), SD_EFORMAT,
                 "no entry's name");
}

Test(reader, errors_inside_an_archive_name_the_entry) {
    archive_file files[] = {{"x/a.jsonl", "{}\n{\"text\"\n", 11, NULL, NULL}};
    expect_error(temp_archive("a.tar.gz", "ustar", "gzip", files, 1), SD_EFORMAT,
                 "a.tar.gz: x/a.jsonl, line 2");
}

Test(reader, damaged_archives_are_refused) {
    archive_file files[] = {{"a.jsonl", three, sizeof three - 1, NULL, NULL}};
    const char *path = temp_archive("good.zip", "zip", "none", files, 1);
    char data[4096];
    FILE *f = fopen(path, "rb");
    size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    expect_error(temp_bytes("cut.zip", data, n / 3), SD_EFORMAT, "cut.zip");
    expect_error(temp_text("no.zip", "this is no archive at all"), SD_EFORMAT, "no.zip");
    expect_error(temp_text("no.jsonl.gz", "{\"text\":\"x\"}"), SD_EFORMAT, "is not compressed");
}

Test(reader, a_decompression_bomb_is_refused) {
    size_t n = 16 << 20;
    char *zeros = malloc(n);
    memset(zeros, ' ', n);
    expect_error(temp_compressed("bomb.jsonl.gz", "gzip", zeros, n), SD_ELIMIT, "200 times");
    expect_error(temp_compressed("bomb.txt.zst", "zstd", zeros, n), SD_ELIMIT, "200 times");
    // Compressed twice: libarchive peels both, the ratio is that of the whole.
    archive_file files[] = {{"a.txt", zeros, n, NULL, NULL}};
    expect_error(temp_archive("bomb.tar.xz", "ustar", "xz", files, 1), SD_ELIMIT, "200 times");
    expect_error(temp_archive("bomb.zip", "zip", "none", files, 1), SD_ELIMIT, "200 times");
    free(zeros);
}

// A passed-over entry is unpacked on the way to the next one, so it counts as well: a tar's before
// it is unpacked at all. A zip's entries stand alone and cost nothing when they are passed over.
Test(reader, a_passed_over_entry_counts_for_the_ratio_where_it_must_be_unpacked) {
    size_t n = 16 << 20;
    char *zeros = calloc(n, 1);
    archive_file files[] = {{"first.jsonl", three, sizeof three - 1, NULL, NULL},
                            {"log.bin", zeros, n, NULL, NULL},
                            {"last.jsonl", three, sizeof three - 1, NULL, NULL}};
    expect_error(temp_archive("over.tar.zst", "ustar", "zstd", files, 3), SD_ELIMIT, "200 times");
    expect_error(temp_archive("over.tar.gz", "ustar", "gzip", files + 1, 2), SD_ELIMIT,
                 "200 times");
    expect(temp_archive("over.tar", "ustar", "none", files, 3),
           "one|zw\xC3\xB6lf|3|one|zw\xC3\xB6lf|3");
    expect(temp_archive("over.zip", "zip", "none", files, 3),
           "one|zw\xC3\xB6lf|3|one|zw\xC3\xB6lf|3");
    free(zeros);
}

Test(reader, a_record_over_the_limit_is_refused) {
    size_t n = (size_t)SD_READER_MAX_RECORD + 10;
    char *text = malloc(n);
    memset(text, 'x', n);
    expect_error(temp_bytes("long.txt", text, n), SD_ELIMIT, "64 MiB");
    expect_error(temp_bytes("long.jsonl", text, n), SD_ELIMIT, "64 MiB");
    free(text);
}

Test(reader, utf8_is_judged_as_the_standard_says) {
    size_t at;
    const char *good[] = {"",
                          "a",
                          "\xC3\xB6",
                          "\xE2\x82\xAC",
                          "\xF0\x9F\x98\x80",
                          "\xEF\xBF\xBF",
                          "\xF4\x8F\xBF\xBF"};
    const char *bad[] = {"\x80",         "\xC0\x80",     "\xC1\xBF",         "\xC3",
                         "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
                         "\xF5\x80\x80", "\xE2\x82",     "\xE2\x28\xA1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_assert(sd_valid_utf8(good[i], strlen(good[i]), &at));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(sd_valid_utf8(bad[i], strlen(bad[i]), &at), "%zu", i);
}

// ---- formats -----------------------------------------------------------------------------------

static sd_status make(sd_example *ex, const char *json, sd_data_format *f, sd_error *err) {
    sd_record rec = {.where = "x", .json = json_loads(json, 0, NULL)};
    cr_assert(rec.json, "%s", json);
    sd_status st = sd_example_make(ex, &rec, f, err);
    json_decref(rec.json);
    return st;
}

static const char *content(const sd_example *ex, size_t i, const char *key) {
    return json_string_value(json_object_get(json_array_get(ex->messages, i), key));
}

Test(format, each_format_is_told_by_its_fields) {
    sd_example ex;
    sd_error err;
    sd_data_format f = SD_FORMAT_AUTO;
    cr_assert_eq(make(&ex, "{\"instruction\":\"add\",\"input\":\"1\",\"output\":\"2\"}", &f, &err),
                 SD_OK);
    cr_assert_eq(f, SD_FORMAT_ALPACA);
    cr_assert_str_eq(content(&ex, 0, "content"), "add\n\n1");
    cr_assert_str_eq(content(&ex, 1, "role"), "assistant");
    sd_example_free(&ex);
    f = SD_FORMAT_AUTO;
    cr_assert_eq(make(&ex, "{\"prompt\":\"ab\",\"completion\":\"c\"}", &f, &err), SD_OK);
    cr_assert(f == SD_FORMAT_COMPLETION && ex.prompt_len == 2 && ex.len == 3);
    sd_example_free(&ex);
    f = SD_FORMAT_AUTO;
    cr_assert_eq(make(&ex,
                      "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},"
                      "{\"from\":\"gpt\",\"value\":\"a\"}]}",
                      &f, &err),
                 SD_OK);
    cr_assert_eq(f, SD_FORMAT_MESSAGES);
    cr_assert_str_eq(content(&ex, 0, "role"), "user");
    cr_assert_str_eq(content(&ex, 1, "content"), "a");
    sd_example_free(&ex);
}

Test(format, a_file_holds_one_format) {
    sd_example ex;
    sd_error err;
    sd_data_format f = SD_FORMAT_AUTO;
    cr_assert_eq(make(&ex, "{\"text\":\"a\"}", &f, &err), SD_OK);
    sd_example_free(&ex);
    cr_assert_eq(make(&ex, "{\"prompt\":\"a\",\"completion\":\"b\"}", &f, &err), SD_EFORMAT);
    cr_assert(strstr(err.message, "completion") && strstr(err.message, "text"));
    f = SD_FORMAT_AUTO;
    cr_assert_eq(make(&ex, "{\"prompt\":\"a\",\"completion\":\"b\",\"text\":\"c\"}", &f, &err),
                 SD_EFORMAT);
    cr_assert(strstr(err.message, "both"));
    cr_assert_eq(make(&ex, "{\"question\":\"a\"}", &f, &err), SD_EFORMAT);
}

Test(format, faults_of_a_conversation_are_named_by_field) {
    static const char *const cases[][2] = {
        {"{\"messages\":{}}", "messages: is an object"},
        {"{\"messages\":[]}", "messages: is empty"},
        {"{\"messages\":[5]}", "messages[0]: is a number"},
        {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role: is missing"},
        {"{\"messages\":[{\"role\":\"bot\",\"content\":\"x\"}]}", "\"bot\""},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages[0].content: is null"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content[0]"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"weight\":2}]}",
         "messages[0].weight"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]}",
         "messages[0].tool_calls[0].function.name"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
         "\"arguments\":\"{\"}}]}]}",
         "arguments"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":5}",
         "tools: is a number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sd_example ex;
        sd_error err = {0};
        sd_data_format f = SD_FORMAT_AUTO;
        cr_assert_eq(make(&ex, cases[i][0], &f, &err), SD_EFORMAT, "%s", cases[i][0]);
        cr_assert(strstr(err.message, cases[i][1]), "'%s' has no '%s'", err.message, cases[i][1]);
        sd_example_free(&ex);
    }
}

Test(format, content_parts_are_joined_and_arguments_become_objects) {
    sd_example ex;
    sd_error err;
    sd_data_format f = SD_FORMAT_AUTO;
    cr_assert_eq(
        make(&ex,
             "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
             "{\"type\":\"text\",\"text\":\"b\"}]},{\"role\":\"assistant\",\"weight\":0,"
             "\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
             "\"arguments\":\"{\\\"x\\\": 1}\"}}]}],\"tools\":[]}",
             &f, &err),
        SD_OK, "%s", err.message);
    cr_assert_str_eq(content(&ex, 0, "content"), "ab");
    const json_t *call =
        json_array_get(json_object_get(json_array_get(ex.messages, 1), "tool_calls"), 0);
    const json_t *arguments = json_object_get(json_object_get(call, "function"), "arguments");
    cr_assert_eq(json_integer_value(json_object_get(arguments, "x")), 1);
    cr_assert(ex.unweighted[1] && !ex.unweighted[0] && !ex.tools);
    sd_example_free(&ex);
}
