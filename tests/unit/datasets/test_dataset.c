// Prepared files: what went in comes out, the same bytes every time, and damage is refused.
#include "base/files/file.h"
#include "datasets/build/prepare.h"
#include "datasets/dataset.h"
#include "datasets/store/store.h"
#include "tests/unit/support/files.h"
#include "tests/unit/support/tiny_chat.h"

#include <criterion/criterion.h>
#include <hdf5.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// HDF5 leaks what it keeps for the process: it may not clear up at exit.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
}

static const char conversations[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"one\"},{\"role\":\"assistant\",\"content\":"
    "\"1\"}]}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"twenty-two\"},{\"role\":\"assistant\","
    "\"content\":\"22\"}]}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"three\"},{\"role\":\"assistant\",\"content\":"
    "\"3\"}]}\n";

static sd_prepare_options options(const sd_data_source *s, int n, int T, bool packing) {
    return (sd_prepare_options){
        .source = s, .n_sources = n, .sequence_len = T, .train_on_eot = true, .packing = packing};
}

static const char *prepare(const char *name, const sd_prepare_options *o, sd_model *m,
                           sd_prepare_report *r) {
    const char *path = temp_file(name);
    sd_error err = {0};
    cr_assert_eq(sd_dataset_prepare(path, o, m, r, &err), SD_OK, "%s", err.message);
    return path;
}

static sd_dataset *open_file(const char *path) {
    sd_dataset *d;
    sd_error err = {0};
    cr_assert_eq(sd_dataset_open(&d, path, &err), SD_OK, "%s", err.message);
    return d;
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
    sd_data_source s = {temp_text("c.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 56, true);
    const char *path = prepare("d.h5", &o, &m, &rep);
    sd_dataset *d = open_file(path);
    cr_assert(rep.records == 3 && rep.rows == 2 && sd_dataset_rows(d) == 2);
    cr_assert(rep.tokens == sd_dataset_tokens(d) && rep.supervised == sd_dataset_supervised(d));
    cr_assert_float_eq(rep.efficiency, (double)rep.tokens / 112, 1e-9);
    cr_assert_str_eq(sd_dataset_tokenizer(d), sd_tokenizer_fingerprint(m.tokenizer));
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
    sd_sha256_of(&want, conversations, strcspn(conversations, "\n"), NULL);
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
    sd_data_source s = {temp_text("c.jsonl", conversations), SD_FORMAT_MESSAGES};
    sd_prepare_options o = options(&s, 1, 64, false);
    sd_dataset *d = open_file(prepare("d.h5", &o, &m, NULL));
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
    sd_prepare_options o = options(&s, 1, 128, true);
    cr_assert_eq(sd_sha256_of_file(&one, prepare("one.h5", &o, &m, NULL), NULL), SD_OK);
    sd_pool_open(&pool, 4, NULL);
    o.pool = pool;
    cr_assert_eq(sd_sha256_of_file(&two, prepare("two.h5", &o, &m, NULL), NULL), SD_OK);
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
    sd_data_source s = {temp_text("c.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 64, true);
    cr_assert_eq(sd_dataset_key(&key, &o, &m, &err), SD_OK);
    sd_dataset *d = open_file(prepare("d.h5", &o, &m, NULL));
    cr_assert(sd_sha256_equal(&key, sd_dataset_made_from(d)));
    sd_dataset_close(d);
    sd_data_source moved = {temp_text("moved.jsonl", conversations), SD_FORMAT_AUTO};
    o.source = &moved;
    sd_dataset_key(&again, &o, &m, &err);
    cr_assert(sd_sha256_equal(&key, &again));
    sd_dataset_key(&again, &o, &other, &err);
    cr_assert_not(sd_sha256_equal(&key, &again));
    o.sequence_len = 65;
    sd_dataset_key(&again, &o, &m, &err);
    cr_assert_not(sd_sha256_equal(&key, &again));
    o.sequence_len = 64;
    temp_text("moved.jsonl", conversations + 1);
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
    sd_data_source s = {temp_text("c.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 30, true);
    expect_refused(&o, &m, SD_ELIMIT, "line 2");
    o.overlong = SD_OVERLONG_SKIP;
    prepare("skip.h5", &o, &m, &rep);
    cr_assert(rep.records == 2 && rep.skipped == 1 && rep.overlong == 1 && rep.longest > 30);
    o.overlong = SD_OVERLONG_TRUNCATE;
    o.sequence_len = 32;
    prepare("cut.h5", &o, &m, &rep);
    cr_assert(rep.records == 3 && rep.truncated == 1 && rep.skipped == 0);

    s.path =
        temp_text("user.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}\n"
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":"
                                "\"assistant\",\"content\":\"a\"}]}\n");
    o.sequence_len = 64;
    expect_refused(&o, &m, SD_EFORMAT, "no token of this record is supervised");
    o.skip_empty_labels = true;
    prepare("some.h5", &o, &m, &rep);
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
    sd_prepare_options o = options(&s, 1, 64, true);
    expect_refused(&o, &m, SD_EFORMAT, "c.jsonl, line 2");
    o.skip_empty_labels = true;
    expect_refused(&o, &m, SD_EFORMAT, "c.jsonl, line 3: messages: is a number");
    o.max_records = 1; // what lies beyond is not looked at
    prepare("first.h5", &o, &m, NULL);
    tiny_chat_close(&m);
}

Test(dataset, a_long_text_is_cut_into_pieces_that_together_are_the_text) {
    sd_model m;
    char text[400], got[400] = "", piece[400];
    tiny_chat_open(&m, NULL, NULL);
    for (int i = 0; i < 300; i++) text[i] = (char)('a' + i % 23);
    text[300] = '\0';
    sd_data_source s = {temp_text("t.txt", text), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 64, false);
    sd_dataset *d = open_file(prepare("d.h5", &o, &m, NULL));
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
        sd_prepare_options o = options(&s, 1, 8, false);
        sd_dataset *d = open_file(prepare("d.h5", &o, &m, &now));
        for (int64_t i = 0; i < sd_dataset_rows(d); i++) {
            sd_dataset_row r;
            cr_assert_eq(sd_dataset_read(d, i, &r, NULL), SD_OK);
            cr_assert_gt(r.used, 1);
        }
        cr_assert_eq(now.tokens, sd_dataset_tokens(d));
        cr_assert_eq(now.supervised, sd_dataset_supervised(d));
        sd_dataset_close(d);
        o.version = 1; // as 0.4 cut it
        prepare("e.h5", &o, &m, &then);
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
    sd_prepare_options o = options(&s, 1, 64, true);
    o.keep_to = 0.2;
    prepare("a.h5", &o, &m, &a);
    o.source = &(sd_data_source){temp_bytes("down.jsonl", down.data, down.len), SD_FORMAT_AUTO};
    prepare("c.h5", &o, &m, &c);
    o.keep_from = 0.2, o.keep_to = 1;
    prepare("b.h5", &o, &m, &b);
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
    sd_data_source s = {temp_text("grows.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 64, true);
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
    sd_data_source s = {temp_text("v.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 64, false);
    cr_assert_eq(sd_dataset_key(&now, &o, &m, NULL), SD_OK);
    o.version = 1;
    cr_assert_eq(sd_dataset_key(&old, &o, &m, NULL), SD_OK);
    cr_assert_not(sd_sha256_equal(&now, &old));
    sd_dataset *d = open_file(prepare("v.h5", &o, &m, NULL));
    cr_assert(sd_sha256_equal(&old, sd_dataset_made_from(d)));
    cr_assert_eq(sd_dataset_read(d, 0, &r, NULL), SD_OK);
    text_of(text, sizeof text, &m, &r, 0, true);
    cr_assert_str_eq(text, "1<|im_end|>\n");
    sd_dataset_close(d);
    tiny_chat_close(&m);
}

// ---- damage ------------------------------------------------------------------------------------

// The file's own manifest with its present hash, and with `text` in place of "what" when it is
// given.
static void correct_manifest(const char *path, const char *what, json_t *value) {
    sd_sha256 hash;
    char name[256];
    snprintf(name, sizeof name, "%s.manifest.json", path);
    json_t *j = json_load_file(name, 0, NULL);
    cr_assert(j);
    cr_assert_eq(sd_sha256_of_file(&hash, path, NULL), SD_OK);
    json_object_set_new(j, "sha256", json_string(hash.hex));
    if (what) json_object_set_new(j, what, value);
    cr_assert_eq(json_dump_file(j, name, 0), 0);
    json_decref(j);
}

Test(dataset, a_changed_file_or_manifest_is_refused) {
    sd_model m;
    sd_dataset *d;
    sd_error err;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("c.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 64, true);
    const char *path = prepare("d.h5", &o, &m, NULL);
    char *data, name[256];
    size_t len;
    sd_file_read(&data, &len, path, 1 << 24, NULL);
    for (size_t i = 0; i < len; i += 97) {
        data[i] ^= 1;
        sd_file_write(path, data, len, NULL);
        cr_assert_eq(sd_dataset_open(&d, path, &err), SD_EMISMATCH);
        data[i] ^= 1;
    }
    sd_file_write(path, data, len, NULL);
    sd_dataset_close(open_file(path));
    snprintf(name, sizeof name, "%s.manifest.json", path);
    sd_file_write(name, "{}", 2, NULL);
    cr_assert_eq(sd_dataset_open(&d, path, &err), SD_EFORMAT);
    remove(name);
    cr_assert_eq(sd_dataset_open(&d, path, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "prepare the data again"));
    free(data);
    tiny_chat_close(&m);
}

// A container with a right hash whose bytes were flipped: no crash, and
// nothing that is not a dataset comes out.
Test(dataset, damage_under_a_right_hash_is_an_error_and_not_a_crash) {
    sd_model m;
    sd_dataset *d;
    sd_error err;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("c.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 64, true);
    const char *path = prepare("d.h5", &o, &m, NULL);
    char *data;
    size_t len;
    sd_file_read(&data, &len, path, 1 << 24, NULL);
    int refused = 0, tried = 0;
    for (size_t i = 0; i < len; i += 61, tried++) {
        data[i] ^= 0x11;
        sd_file_write(path, data, len, NULL);
        correct_manifest(path, NULL, NULL);
        if (sd_dataset_open(&d, path, &err) != SD_OK)
            refused++;
        else
            sd_dataset_close(d);
        data[i] ^= 0x11;
    }
    cr_assert(refused > tried / 100, "%d of %d", refused,
              tried); // most of it is attributes, for others
    free(data);
    tiny_chat_close(&m);
}

Test(dataset, a_source_is_never_replaced_by_what_is_made_of_it) {
    sd_model m;
    sd_error err = {0};
    char *text;
    size_t len;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("own.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 64, true);
    const char *link = temp_file("link.jsonl");
    cr_assert_eq(symlink(s.path, link), 0);
    cr_assert_eq(sd_dataset_prepare(s.path, &o, &m, NULL, &err), SD_EINVAL);
    cr_assert_eq(sd_dataset_prepare(link, &o, &m, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "link.jsonl"), "%s", err.message);
    cr_assert_eq(sd_file_read(&text, &len, s.path, 1 << 20, NULL), SD_OK);
    cr_assert_str_eq(text, conversations);
    free(text);
    tiny_chat_close(&m);
}

// A limit on file sizes makes a write fail where a full disk would.
Test(dataset, a_disk_that_fills_up_is_reported_by_the_outputs_name_and_leaves_nothing) {
    sd_model m;
    sd_error err = {0};
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("full.jsonl", conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = options(&s, 1, 64, true);
    const char *out = temp_file("full.h5"), *first = "full.h5: ";
    char line[2048];
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 0; limit < 6000; limit += 700) {
        int fd[2];
        cr_assert_eq(pipe(fd), 0);
        pid_t child = fork();
        if (child == 0) {
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
            sd_status st = sd_dataset_prepare(out, &o, &m, NULL, &err);
            if (write(fd[1], err.message, strlen(err.message)) < 0) _exit(9);
            _exit(st);
        }
        close(fd[1]);
        ssize_t n = read(fd[0], line, sizeof line - 1);
        line[n > 0 ? n : 0] = '\0';
        close(fd[0]);
        int status = 0;
        waitpid(child, &status, 0);
        cr_assert_eq(WEXITSTATUS(status), SD_EIO, "limit %d: %s", (int)limit, line);
        cr_assert(strstr(line, first) && !strstr(line, ".tmp.") && strstr(line, "free space"),
                  "limit %d: %s", (int)limit, line);
        cr_assert(access(out, F_OK) != 0);
    }
    tiny_chat_close(&m);
}

// Builds a container like ours but for one thing.
static void write_odd(const char *path, int what) {
    sd_store *s;
    int32_t token[8] = {1, 2, 3, 0, 1, 2, 3, 4}, label[8] = {-100, 2, 3, -100, -100, 2, 3, 4};
    int32_t segment[8] = {0, 0, 0, -1, 0, 0, 0, 0};
    sd_store_doc doc[2] = {{0, 0, 0, 0, 0, {0}}, {1, 0, 0, 0, 1, {0}}};
    if (what == 1) token[1] = label[1] = 999;      // not in the vocabulary
    if (what == 2) label[1] = 3;                   // another token's label
    if (what == 3) segment[3] = 0, segment[1] = 2; // segments out of order
    if (what == 4) doc[1].row = 5;
    if (what == 5) doc[0].source = 7;
    if (what == 6) label[0] = 1; // a first token that is labelled
    if (what == 7) token[1] = label[1] = -3;
    cr_assert_eq(sd_store_create(&s, path, path, 2, 4, NULL), SD_OK);
    cr_assert_eq(sd_store_write_rows(s, 0, 2, token, label, segment, NULL), SD_OK);
    cr_assert_eq(sd_store_write_docs(s, doc, 2, NULL), SD_OK);
    if (what == 8) sd_store_set_int(s, "vocab", 10, NULL); // attributes are for others
    cr_assert_eq(sd_store_finish(s, NULL), SD_OK);
    char name[256], text[1024], hash[65] = {0};
    memset(hash, '0', 64);
    snprintf(name, sizeof name, "%s.manifest.json", path);
    snprintf(text, sizeof text,
             "{\"kind\":\"specdec dataset\",\"version\":2,\"rows\":%d,\"sequence_len\":4,"
             "\"records\":2,\"tokens\":%d,\"supervised\":5,\"vocab\":10,%s\"recipe\":{},"
             "\"sources\":%s,\"made_from_sha256\":\"%s\"}",
             what == 11 ? 3 : 2, what == 8 ? 8 : 7, what == 9 ? "" : "\"tokenizer_sha256\":\"x\",",
             what == 10 ? "{}" : "[{\"path\":\"p\"}]", hash);
    cr_assert_eq(sd_file_write(name, text, strlen(text), NULL), SD_OK);
    correct_manifest(path, NULL, NULL);
}

Test(dataset, contents_that_do_not_fit_together_are_refused) {
    sd_dataset *d;
    sd_error err = {0};
    const char *path = temp_file("odd.h5");
    write_odd(path, 0);
    cr_assert_eq(sd_dataset_open(&d, path, &err), SD_OK, "%s", err.message);
    sd_dataset_close(d);
    for (int what = 1; what <= 11; what++) {
        write_odd(path, what);
        cr_assert_eq(sd_dataset_open(&d, path, &err), SD_EFORMAT, "case %d: %s", what, err.message);
    }
}

// Replaces /tokens of a good file by something else.
static void replace_tokens(const char *path, int what) {
    write_odd(path, 0);
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), d = -1, type = -1;
    hsize_t dims[2] = {2, 4};
    hid_t space = H5Screate_simple(2, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    cr_assert(f >= 0 && H5Ldelete(f, "tokens", H5P_DEFAULT) >= 0);
    switch (what) {
    case 0:
        H5Lcreate_external("other.h5", "/tokens", f, "tokens", H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 1:
        H5Lcreate_soft("/labels", f, "tokens", H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 2:
        H5Pset_external(plist, "/etc/passwd", 0, 32);
        d = H5Dcreate2(f, "tokens", H5T_STD_I32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
        break;
    case 3:
        type = H5Tvlen_create(H5T_STD_I32LE);
        H5Pset_chunk(plist, 2, dims);
        d = H5Dcreate2(f, "tokens", type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
        break;
    case 4:
        H5Pset_chunk(plist, 2, dims);
        H5Pset_deflate(plist, 1);
        d = H5Dcreate2(f, "tokens", H5T_STD_I32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
        break;
    case 5:
        H5Pset_chunk(plist, 2, dims);
        d = H5Dcreate2(f, "tokens", H5T_STD_I64LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
        break;
    default: // missing
        break;
    }
    if (d >= 0) H5Dclose(d);
    if (type >= 0) H5Tclose(type);
    H5Pclose(plist);
    H5Sclose(space);
    cr_assert(H5Fclose(f) >= 0);
    correct_manifest(path, NULL, NULL);
}

Test(dataset, links_external_files_and_other_types_are_refused) {
    sd_dataset *d;
    sd_error err = {0};
    const char *path = temp_file("odd.h5");
    for (int what = 0; what <= 6; what++) {
        replace_tokens(path, what);
        cr_assert_eq(sd_dataset_open(&d, path, &err), SD_EFORMAT, "case %d: %s", what, err.message);
        cr_assert(strstr(err.message, "tokens"), "%s", err.message);
    }
}

Test(dataset, tokens_that_the_model_does_not_have_and_files_that_are_none_are_refused) {
    sd_model m;
    sd_error err = {0};
    sd_dataset *d;
    const char *path = temp_file("odd.h5");
    tiny_chat_open(&m, tiny_chatml, NULL);
    write_odd(path, 1); // token 999
    correct_manifest(path, "vocab", json_integer(2000));
    d = open_file(path);
    cr_assert_eq(sd_dataset_expect(d, m.tokenizer, &err), SD_EMISMATCH);
    sd_dataset_close(d);
    correct_manifest(path, "tokenizer_sha256", json_string(sd_tokenizer_fingerprint(m.tokenizer)));
    d = open_file(path);
    cr_assert_eq(sd_dataset_expect(d, m.tokenizer, &err), SD_EFORMAT);
    cr_assert(strstr(err.message, "token 999"), "%s", err.message);
    sd_dataset_close(d);
    remove(path);
    cr_assert_eq(mkfifo(path, 0600), 0); // would be waited for
    cr_assert_eq(sd_dataset_open(&d, path, &err), SD_EFORMAT, "%s", err.message);
    tiny_chat_close(&m);
}
