// Prepared files: what went in comes out, and the same bytes every time.
#include "base/files/map.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "datasets/build/prepare.h"
#include "datasets/dataset.h"
#include "datasets/store/store.h"
#include "tests/unit/datasets/support_dataset.h"
#include "tests/unit/support/files.h"
#include "tests/unit/support/tiny/chat.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// HDF5 leaks what it keeps for the process: it may not clear up at exit.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
}

// Text of a segment of a row; with only_supervised, of its labelled tokens.
static void text_of(char *out, size_t size, const sd_model *m, const sd_dataset_row *r, int segment,
                    bool only_supervised) {
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < r->used; i++) {
        size_t len;
        if (r->segment[i] != segment || (only_supervised && r->label[i] == SD_NO_LABEL)) continue;
        const char *s = sd_tokenizer_bytes(m->tokenizer, r->token[i], &len);
        n += (size_t)snprintf(out + n, size - n, "%.*s", (int)len, s);
    }
}

Test(dataset, rows_hold_the_records_with_labels_segments_and_provenance) {
    sd_model m;
    sd_prepare_report rep;
    sd_dataset_row r;
    char text[256];
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("c.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 56, true);
    const char *path = dataset_prepare("d.h5", &o, &m, &rep);
    sd_dataset *d = dataset_open(path);
    cr_assert(rep.records == 3 && rep.rows == 2 && sd_dataset_rows(d) == 2);
    cr_assert(rep.tokens == sd_dataset_tokens(d) && rep.supervised == sd_dataset_supervised(d));
    cr_assert_float_eq(rep.efficiency, (double)rep.tokens / 112, 1e-9);
    cr_assert_str_eq(sd_dataset_tokenizer(d), sd_tokenizer_encoding(m.tokenizer));
    // The longest record comes first and the two shorter ones share a row.
    cr_assert_eq(sd_dataset_read(d, 0, &r, NULL), SD_OK);
    text_of(text, sizeof text, &m, &r, 0, true);
    cr_assert_str_eq(text, "22<|im_end|>");
    cr_assert_eq(sd_dataset_read(d, 1, &r, NULL), SD_OK);
    text_of(text, sizeof text, &m, &r, 1, false);
    cr_assert_str_eq(text, "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n");
    int32_t place[3][56]; // the padding is in the container alone
    sd_store_reader *store;
    sd_map map;
    cr_assert_eq(sd_map_open(&map, path, NULL), SD_OK);
    cr_assert_eq(sd_store_open(&store, &map, path, NULL), SD_OK);
    cr_assert_eq(sd_store_read_rows(store, 1, 1, place[0], place[1], place[2], NULL), SD_OK);
    sd_store_close(store);
    sd_map_close(&map);
    for (int i = r.used; i < 56; i++)
        cr_assert(place[0][i] == 0 && place[1][i] == SD_NO_LABEL && place[2][i] == -1);
    const char *source;
    int64_t record;
    sd_sha256 hash, want;
    cr_assert_eq(sd_dataset_provenance(d, 1, 1, &source, &record, &hash, NULL), SD_OK);
    cr_assert_str_eq(source, s.path);
    cr_assert_eq(record, 0);
    sd_sha256_of(&want, dataset_conversations, strcspn(dataset_conversations, "\n"), NULL);
    cr_assert(sd_sha256_equal(&hash, &want));
    cr_assert_eq(sd_dataset_provenance(d, 1, 2, &source, &record, &hash, NULL), SD_EINVAL);
    cr_assert_eq(sd_dataset_read(d, 2, &r, NULL), SD_EINVAL);
    sd_dataset_close(d);
    tiny_chat_close(&m);
}

Test(dataset, without_packing_rows_are_records_in_file_order) {
    sd_model m;
    sd_dataset_row r;
    char text[256];
    const char *want[] = {"1<|im_end|>", "22<|im_end|>", "3<|im_end|>"};
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("c.jsonl", dataset_conversations), SD_FORMAT_MESSAGES};
    sd_prepare_options o = dataset_options(&s, 1, 64, false);
    sd_dataset *d = dataset_open(dataset_prepare("d.h5", &o, &m, NULL));
    cr_assert_eq(sd_dataset_rows(d), 3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(sd_dataset_read(d, i, &r, NULL), SD_OK);
        text_of(text, sizeof text, &m, &r, 0, true);
        cr_assert_str_eq(text, want[i]);
    }
    sd_dataset_close(d);
    tiny_chat_close(&m);
}

Test(dataset, the_same_data_give_the_same_bytes_for_any_number_of_threads) {
    sd_model m;
    sd_pool *pool;
    sd_sha256 one, two;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_buf many = sd_buf_make(1 << 20);
    for (int i = 0; i < 700; i++)
        sd_buf_printf(&many,
                      "{\"messages\":[{\"role\":\"user\",\"content\":\"%0*d\"},{\"role\":"
                      "\"assistant\",\"content\":\"%d\"}]}\n",
                      i % 37, i, i * i);
    sd_data_source s = {temp_bytes("m.jsonl", many.data, many.len), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 128, true);
    cr_assert_eq(sd_sha256_of_file(&one, dataset_prepare("one.h5", &o, &m, NULL), NULL), SD_OK);
    sd_pool_open(&pool, 4, NULL);
    o.pool = pool;
    cr_assert_eq(sd_sha256_of_file(&two, dataset_prepare("two.h5", &o, &m, NULL), NULL), SD_OK);
    cr_assert(sd_sha256_equal(&one, &two));
    sd_pool_close(pool);
    sd_buf_free(&many);
    tiny_chat_close(&m);
}

Test(dataset, the_key_changes_with_sources_options_and_template_only) {
    sd_model m, other;
    sd_sha256 key, again;
    sd_error err;
    tiny_chat_open(&m, tiny_chatml, NULL);
    tiny_chat_open(&other, "{{ messages[0]['content'] }}", NULL);
    sd_data_source s = {temp_text("c.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, true);
    cr_assert_eq(sd_dataset_key(&key, &o, &m, &err), SD_OK);
    sd_dataset *d = dataset_open(dataset_prepare("d.h5", &o, &m, NULL));
    cr_assert(sd_sha256_equal(&key, sd_dataset_made_from(d)));
    sd_dataset_close(d);
    sd_data_source moved = {temp_text("moved.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    o.source = &moved;
    sd_dataset_key(&again, &o, &m, &err);
    cr_assert(sd_sha256_equal(&key, &again));
    sd_dataset_key(&again, &o, &other, &err);
    cr_assert_not(sd_sha256_equal(&key, &again));
    o.sequence_len = 65;
    sd_dataset_key(&again, &o, &m, &err);
    cr_assert_not(sd_sha256_equal(&key, &again));
    o.sequence_len = 64;
    temp_text("moved.jsonl", dataset_conversations + 1);
    sd_dataset_key(&again, &o, &m, &err);
    cr_assert_not(sd_sha256_equal(&key, &again));
    tiny_chat_close(&m);
    tiny_chat_close(&other);
}

static void expect_refused(const sd_prepare_options *o, sd_model *m, sd_status want,
                           const char *part) {
    sd_error err = {0};
    cr_assert_eq(sd_dataset_prepare(temp_file("bad.h5"), o, m, NULL, &err), want, "%s",
                 err.message);
    cr_assert(strstr(err.message, part), "'%s' has no '%s'", err.message, part);
    cr_assert(access(temp_file("bad.h5"), F_OK) != 0);
}

Test(dataset, overlong_and_unsupervised_records_follow_the_rule_and_are_counted) {
    sd_model m;
    sd_prepare_report rep;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("c.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 30, true);
    expect_refused(&o, &m, SD_ELIMIT, "line 2");
    o.overlong = SD_OVERLONG_SKIP;
    dataset_prepare("skip.h5", &o, &m, &rep);
    cr_assert(rep.records == 2 && rep.skipped == 1 && rep.overlong == 1);
    cr_assert(rep.longest > 0 && rep.longest <= 30, "%d: one that is skipped counts",
              (int)rep.longest);
    o.overlong = SD_OVERLONG_TRUNCATE;
    o.sequence_len = 32;
    dataset_prepare("cut.h5", &o, &m, &rep);
    cr_assert(rep.records == 3 && rep.truncated == 1 && rep.skipped == 0 && rep.longest > 32);

    s.path =
        temp_text("user.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}\n"
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":"
                                "\"assistant\",\"content\":\"a\"}]}\n");
    o.sequence_len = 64;
    expect_refused(&o, &m, SD_EFORMAT, "no token of this record is supervised");
    o.skip_empty_labels = true;
    dataset_prepare("some.h5", &o, &m, &rep);
    cr_assert(rep.records == 1 && rep.empty == 1);
    tiny_chat_close(&m);
}

Test(dataset, the_first_bad_record_is_the_one_that_is_named) {
    sd_model m;
    tiny_chat_open(&m, tiny_chatml, NULL);
    // Line 2 has nothing to learn from, which shows late; line 3 is malformed, which shows early.
    sd_data_source s = {temp_text("c.jsonl",
                                  "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}\n"
                                  "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}\n"
                                  "{\"messages\":5}\n"),
                        SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, true);
    expect_refused(&o, &m, SD_EFORMAT, "c.jsonl, line 2");
    o.skip_empty_labels = true;
    expect_refused(&o, &m, SD_EFORMAT, "c.jsonl, line 3: messages: is a number");
    o.max_records = 1; // what lies beyond is not looked at
    dataset_prepare("first.h5", &o, &m, NULL);
    tiny_chat_close(&m);
}

Test(dataset, a_long_text_is_cut_into_pieces_that_together_are_the_text) {
    sd_model m;
    char text[400], got[400] = "", piece[400];
    tiny_chat_open(&m, NULL, NULL);
    for (int i = 0; i < 300; i++) text[i] = (char)('a' + i % 23);
    text[300] = '\0';
    sd_data_source s = {temp_text("t.txt", text), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, false);
    sd_dataset *d = dataset_open(dataset_prepare("d.h5", &o, &m, NULL));
    cr_assert_eq(sd_dataset_rows(d), 5);
    for (int64_t i = 0; i < 5; i++) {
        sd_dataset_row r;
        sd_dataset_read(d, i, &r, NULL);
        text_of(piece, sizeof piece, &m, &r, 0, false);
        strcat(got, piece);
        cr_assert_eq(r.label[0], SD_NO_LABEL);
    }
    strcat(text, "<|im_end|>");
    cr_assert_str_eq(got, text);
    sd_dataset_close(d);
    tiny_chat_close(&m);
}

Test(dataset, a_token_that_is_left_for_itself_makes_no_row) {
    sd_model m;
    tiny_chat_open(&m, NULL, NULL);
    int before = 0, dropped = 0;
    for (int n = 24; n < 44; n++) { // bytes; the tokens are some less and an end of turn
        char text[64];
        sd_prepare_report now, then;
        for (int i = 0; i < n; i++) text[i] = (char)('a' + i % 23);
        text[n] = '\0';
        sd_data_source s = {temp_text("t.txt", text), SD_FORMAT_AUTO};
        sd_prepare_options o = dataset_options(&s, 1, 8, false);
        sd_dataset *d = dataset_open(dataset_prepare("d.h5", &o, &m, &now));
        for (int64_t i = 0; i < sd_dataset_rows(d); i++) {
            sd_dataset_row r;
            cr_assert_eq(sd_dataset_read(d, i, &r, NULL), SD_OK);
            cr_assert_gt(r.used, 1);
        }
        cr_assert_eq(now.tokens, sd_dataset_tokens(d));
        cr_assert_eq(now.supervised, sd_dataset_supervised(d));
        sd_dataset_close(d);
        o.version = 1; // as 0.4 cut it
        dataset_prepare("e.h5", &o, &m, &then);
        cr_assert_eq(then.supervised, now.supervised);
        dropped += then.tokens != now.tokens;
        before += then.rows > now.rows;
    }
    cr_assert(dropped > 0 && dropped == before, "%d texts, %d rows", dropped, before);
    tiny_chat_close(&m);
}

Test(dataset, a_split_by_hash_is_disjoint_complete_and_stable_under_reordering) {
    sd_model m;
    sd_prepare_report a, b, c;
    tiny_chat_open(&m, NULL, NULL);
    sd_buf up = sd_buf_make(1 << 20), down = sd_buf_make(1 << 20);
    for (int i = 0; i < 500; i++) {
        sd_buf_printf(&up, "{\"text\":\"record %d\"}\n", i);
        sd_buf_printf(&down, "{\"text\":\"record %d\"}\n", 499 - i);
    }
    sd_data_source s = {temp_bytes("up.jsonl", up.data, up.len), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, true);
    o.keep_to = 0.2;
    dataset_prepare("a.h5", &o, &m, &a);
    o.source = &(sd_data_source){temp_bytes("down.jsonl", down.data, down.len), SD_FORMAT_AUTO};
    dataset_prepare("c.h5", &o, &m, &c);
    o.keep_from = 0.2, o.keep_to = 1;
    dataset_prepare("b.h5", &o, &m, &b);
    cr_assert_eq(a.records + b.records, 500);
    cr_assert(a.records > 60 && a.records < 140); // binomial: 100, deviation 9
    cr_assert(c.records == a.records && c.tokens == a.tokens && a.left_out == b.records);
    sd_buf_free(&up);
    sd_buf_free(&down);
    tiny_chat_close(&m);
}

// As another program writes on while the file is read.
static void append_to(void *ctx, int64_t records, int64_t bytes, int64_t total) {
    (void)records, (void)bytes, (void)total;
    FILE *f = fopen(ctx, "a");
    fputs("\n", f);
    fclose(f);
}

Test(dataset, a_source_that_changes_under_the_reader_is_not_found_again_under_its_old_hash) {
    sd_model m;
    sd_error err = {0};
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("grows.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, true);
    o.progress = append_to;
    o.progress_ctx = (void *)(uintptr_t)s.path;
    const char *out = temp_file("grows.h5");
    cr_assert_eq(sd_dataset_prepare(out, &o, &m, NULL, &err), SD_EMISMATCH, "%s", err.message);
    cr_assert(strstr(err.message, "grows.jsonl: changed while it was read"), "%s", err.message);
    cr_assert_eq(access(out, F_OK), -1);
    tiny_chat_close(&m);
}

// A run that version 0.4 began goes on with the labels it began with.
Test(dataset, labels_of_version_1_have_a_key_of_their_own_and_what_follows_the_end_of_turn) {
    sd_model m;
    sd_sha256 now, old;
    sd_dataset_row r;
    char text[256];
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("v.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, false);
    cr_assert_eq(sd_dataset_key(&now, &o, &m, NULL), SD_OK);
    o.version = 1;
    cr_assert_eq(sd_dataset_key(&old, &o, &m, NULL), SD_OK);
    cr_assert_not(sd_sha256_equal(&now, &old));
    sd_dataset *d = dataset_open(dataset_prepare("v.h5", &o, &m, NULL));
    cr_assert(sd_sha256_equal(&old, sd_dataset_made_from(d)));
    cr_assert_eq(sd_dataset_read(d, 0, &r, NULL), SD_OK);
    text_of(text, sizeof text, &m, &r, 0, true);
    cr_assert_str_eq(text, "1<|im_end|>\n");
    sd_dataset_close(d);
    tiny_chat_close(&m);
}

// ---- damage ------------------------------------------------------------------------------------

// ---- the system text of most records

static const char *system_of(const char *records, int version, int64_t *n) {
    static char kept[256];
    sd_model m;
    sd_prepare_report rep;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("s.jsonl", records), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 128, true);
    o.version = version;
    sd_dataset *d = dataset_open(dataset_prepare("s.h5", &o, &m, &rep));
    const char *text = sd_dataset_system(d, n);
    snprintf(kept, sizeof kept, "%s", text ? text : "");
    bool has = text != NULL;
    sd_dataset_close(d);
    tiny_chat_close(&m);
    return has ? kept : NULL;
}

#define TURNS                                                                                      \
    "{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]"
#define WITH(text) "{\"messages\": [{\"role\": \"system\", \"content\": " text "}, " TURNS "}\n"
#define BESIDE(text) "{\"system\": " text ", \"messages\": [" TURNS "}\n"
#define WITHOUT "{\"messages\": [" TURNS "}\n"

Test(dataset, the_system_text_of_most_records_is_counted) {
    int64_t n;
    cr_assert_str_eq(
        system_of(WITH("\"x\"") WITH("\"y\"") WITHOUT WITH("\"y\"") BESIDE("\"y\""), 0, &n), "y");
    cr_assert_eq(n, 3);
    cr_assert_str_eq(system_of(WITH("\"x\"") WITH("\"y\""), 0, &n), "x"); // the first of equals
    cr_assert_eq(n, 1);
    // Exactly the text: a space makes another one. Content parts are one text.
    cr_assert_str_eq(system_of(WITH("\"x \"") WITH("\"x\"")
                                   WITH("[{\"type\": \"text\", \"text\": \"x\"}]"),
                               0, &n),
                     "x");
    cr_assert_eq(n, 2);
    cr_assert_null(system_of(WITHOUT WITHOUT, 0, &n));
    cr_assert_eq(n, 0);
    cr_assert_null(system_of("{\"prompt\": \"a\", \"completion\": \"b\"}\n", 0, &n));
    cr_assert_eq(n, 0);
}

Test(dataset, a_system_text_that_is_too_long_leaves_its_count_alone) {
    int64_t n;
    sd_model m;
    sd_prepare_report rep;
    char *x = sd_alloc((64 << 10) + 2, 1);
    for (int over = 0; over < 2; over++) {
        memset(x, 'x', (size_t)(64 << 10) + (size_t)over);
        char *record = sd_sprintf(
            "{\"messages\": [{\"role\": \"system\", \"content\": \"%s\"}, " TURNS "}\n", x);
        tiny_chat_open(&m, tiny_chatml, NULL);
        sd_data_source s = {temp_text("l.jsonl", record), SD_FORMAT_AUTO};
        sd_prepare_options o = dataset_options(&s, 1, 1 << 17, true);
        sd_dataset *d = dataset_open(dataset_prepare("l.h5", &o, &m, &rep));
        const char *text = sd_dataset_system(d, &n);
        cr_assert_eq(n, 1);
        cr_assert(over ? !text : text && strcmp(text, x) == 0);
        sd_dataset_close(d);
        tiny_chat_close(&m);
        free(record);
    }
    free(x);
}

Test(dataset, a_manifest_without_or_with_an_odd_system_text_is_told_apart) {
    int64_t n;
    static const struct {
        const char *value; // NULL: the key is not there
        bool good;
        int64_t records;
    } cases[] = {{NULL, true, -1},
                 {"{\"text\": null, \"records\": 2}", true, 2},
                 {"{\"text\": \"a\", \"records\": 1}", true, 1},
                 {"{\"text\": 7, \"records\": 1}", false, 0},
                 {"{\"text\": \"a\", \"records\": -1}", false, 0},
                 {"{\"text\": \"a\", \"records\": 99}", false, 0},
                 {"{\"records\": 1}", false, 0},
                 {"\"a\"", false, 0}};
    sd_model m;
    sd_prepare_report rep;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("o.jsonl", WITHOUT WITH("\"a\"") WITH("\"b\"")), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 128, true);
    const char *path = dataset_prepare("o.h5", &o, &m, &rep);
    char *manifest = sd_sprintf("%s.manifest.json", path);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sd_error err = {0};
        sd_dataset *d = NULL;
        json_t *j = json_load_file(manifest, 0, NULL);
        json_object_del(j, "system");
        if (cases[i].value)
            json_object_set_new(j, "system", json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        cr_assert_eq(json_dump_file(j, manifest, 0), 0);
        json_decref(j);
        sd_status st = sd_dataset_open(&d, path, &err);
        cr_assert_eq(st, cases[i].good ? SD_OK : SD_EFORMAT, "%zu: %s", i, err.message);
        if (d) sd_dataset_system(d, &n);
        if (d) cr_assert_eq(n, cases[i].records);
        sd_dataset_close(d);
    }
    free(manifest);
    tiny_chat_close(&m);
}

// Thousands of texts, each once, and one twice, at the end.
Test(dataset, the_commonest_of_very_many_system_texts_is_found) {
    int64_t n;
    sd_buf b = sd_buf_make(4 << 20);
    for (int i = 0; i < 5000; i++)
        sd_buf_printf(&b,
                      "{\"messages\": [{\"role\": \"system\", \"content\": \"%d\"}, " TURNS "}\n",
                      i < 4999 ? i : 4711);
    cr_assert_str_eq(system_of(b.data, 0, &n), "4711");
    cr_assert_eq(n, 2);
    sd_buf_free(&b);
}
