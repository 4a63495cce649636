// Prepared files that were changed, damaged or made up are refused, and a failed preparation leaves
// nothing behind.
#include "base/files/file.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "datasets/build/prepare.h"
#include "datasets/dataset.h"
#include "datasets/store/store.h"
#include "tests/unit/datasets/support_dataset.h"
#include "tests/unit/support/files.h"
#include "tests/unit/support/tiny/chat.h"

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

Test(dataset_damage, a_changed_file_or_manifest_is_refused) {
    sd_model m;
    sd_dataset *d;
    sd_error err;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("c.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, true);
    const char *path = dataset_prepare("d.h5", &o, &m, NULL);
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
    sd_dataset_close(dataset_open(path));
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
Test(dataset_damage, damage_under_a_right_hash_is_an_error_and_not_a_crash) {
    sd_model m;
    sd_dataset *d;
    sd_error err;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("c.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, true);
    const char *path = dataset_prepare("d.h5", &o, &m, NULL);
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

Test(dataset_damage, a_source_is_never_replaced_by_what_is_made_of_it) {
    sd_model m;
    sd_error err = {0};
    char *text;
    size_t len;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("own.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, true);
    const char *link = temp_file("link.jsonl");
    cr_assert_eq(symlink(s.path, link), 0);
    cr_assert_eq(sd_dataset_prepare(s.path, &o, &m, NULL, &err), SD_EINVAL);
    cr_assert_eq(sd_dataset_prepare(link, &o, &m, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "link.jsonl"), "%s", err.message);
    cr_assert_eq(sd_file_read(&text, &len, s.path, 1 << 20, NULL), SD_OK);
    cr_assert_str_eq(text, dataset_conversations);
    free(text);
    tiny_chat_close(&m);
}

// A limit on file sizes makes a write fail where a full disk would.
Test(dataset_damage, a_disk_that_fills_up_is_reported_by_the_outputs_name_and_leaves_nothing) {
    sd_model m;
    sd_error err = {0};
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_data_source s = {temp_text("full.jsonl", dataset_conversations), SD_FORMAT_AUTO};
    sd_prepare_options o = dataset_options(&s, 1, 64, true);
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

Test(dataset_damage, contents_that_do_not_fit_together_are_refused) {
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

Test(dataset_damage, links_external_files_and_other_types_are_refused) {
    sd_dataset *d;
    sd_error err = {0};
    const char *path = temp_file("odd.h5");
    for (int what = 0; what <= 6; what++) {
        replace_tokens(path, what);
        cr_assert_eq(sd_dataset_open(&d, path, &err), SD_EFORMAT, "case %d: %s", what, err.message);
        cr_assert(strstr(err.message, "tokens"), "%s", err.message);
    }
}

Test(dataset_damage, tokens_that_the_model_does_not_have_and_files_that_are_none_are_refused) {
    sd_model m;
    sd_error err = {0};
    sd_dataset *d;
    const char *path = temp_file("odd.h5");
    tiny_chat_open(&m, tiny_chatml, NULL);
    write_odd(path, 1); // token 999
    correct_manifest(path, "vocab", json_integer(2000));
    d = dataset_open(path);
    cr_assert_eq(sd_dataset_expect(d, m.tokenizer, &err), SD_EMISMATCH);
    sd_dataset_close(d);
    correct_manifest(path, "tokenizer_sha256", json_string(sd_tokenizer_encoding(m.tokenizer)));
    d = dataset_open(path);
    cr_assert_eq(sd_dataset_expect(d, m.tokenizer, &err), SD_EFORMAT);
    cr_assert(strstr(err.message, "token 999"), "%s", err.message);
    sd_dataset_close(d);
    remove(path);
    cr_assert_eq(mkfifo(path, 0600), 0); // would be waited for
    cr_assert_eq(sd_dataset_open(&d, path, &err), SD_EFORMAT, "%s", err.message);
    tiny_chat_close(&m);
}
