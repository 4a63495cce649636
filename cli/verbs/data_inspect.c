// Shows what training will see: each token of a row, told apart by colour on a terminal and by
// brackets elsewhere.
#include "base/json.h"
#include "cli/common.h"
#include "cli/verbs/data.h"
#include "datasets/dataset.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *model;
    int64_t row;
    bool json;
} args;

static const sd_option rows[] = {
    SD_MODEL_ROW(args, model, "the model whose tokenizer made the file"),
    {.name = "row",
     .type = SD_OPT_INT,
     .offset = offsetof(args, row),
     .def = "0",
     .min = 0,
     .max = 1e15,
     .help = "which row to show"},
    SD_JSON_ROW(args, json, "the row as one JSON object"),
    {0}};

typedef enum { PLAIN, SUPERVISED, SPECIAL, SUPERVISED_SPECIAL } look;
static const char *const colour[] = {"\033[2m", "\033[32m", "\033[2;35m", "\033[1;35m"};
static const char *const open_mark[] = {"", "[+", "[!", "[+!"};
static const char *const close_mark[] = {"", "+]", "!]", "!+]"};

static look look_of(const sd_dataset_row *r, int i, const sd_tokenizer *t) {
    bool supervised = r->label[i] != SD_NO_LABEL, special = sd_tokenizer_is_special(t, r->token[i]);
    return (look)(supervised + 2 * special);
}

// Text of data can hold anything, so what would steer a terminal is shown, not sent.
static void print_text(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '\n' || c == '\t' || (c >= 32 && c != 127))
            putchar(c);
        else
            printf("\\x%02x", c);
    }
}

static sd_status print_run(const sd_dataset_row *r, int from, int to, look as, bool tty,
                           const sd_tokenizer *t, sd_error *err) {
    sd_buf raw = sd_buf_make((size_t)1 << 30), text = sd_buf_make((size_t)1 << 30);
    sd_utf8_stream stream = {0};
    sd_status st = sd_tokenizer_spell(t, r->token + from, to - from, false, &raw, err);
    if (st == SD_OK && (!sd_utf8_stream_add(&stream, raw.data ? raw.data : "", raw.len, &text) ||
                        !sd_utf8_stream_add(&stream, NULL, 0, &text)))
        st = sd_fail(err, SD_ENOMEM, "out of memory");
    if (st == SD_OK) {
        fputs(tty ? colour[as] : open_mark[as], stdout);
        print_text(text.data ? text.data : "", text.len);
        fputs(tty ? "\033[0m" : close_mark[as], stdout);
    }
    sd_buf_free(&raw);
    sd_buf_free(&text);
    return st;
}

static sd_status print_segment(const sd_dataset *d, int64_t row, const sd_dataset_row *r, int from,
                               int to, const sd_tokenizer *t, sd_error *err) {
    sd_status st = SD_OK;
    bool tty = isatty(STDOUT_FILENO);
    const char *source;
    int64_t record;
    SD_TRY(sd_dataset_provenance(d, row, r->segment[from], &source, &record, NULL, err));
    int supervised = 0;
    for (int i = from; i < to; i++) supervised += r->label[i] != SD_NO_LABEL;
    printf("--- segment %d: record %lld of %s, %d tokens, %d supervised\n", r->segment[from],
           (long long)record, source, to - from, supervised);
    for (int i = from, end; i < to; i = end) {
        look as = look_of(r, i, t);
        for (end = i + 1; end < to && look_of(r, end, t) == as;) end++;
        SD_TRY(print_run(r, i, end, as, tty, t, err));
    }
    putchar('\n');
out:
    return st;
}

static int segment_end(const sd_dataset_row *r, int from) {
    int to = from + 1;
    while (to < r->used && r->segment[to] == r->segment[from]) to++;
    return to;
}

static sd_status print_row(const sd_dataset *d, int64_t row, const sd_dataset_row *r,
                           const sd_tokenizer *t, sd_error *err) {
    printf("row %lld of %lld: %d of %d places used; file: %lld records, %lld tokens, %lld "
           "supervised\n",
           (long long)row, (long long)sd_dataset_rows(d), r->used, sd_dataset_sequence_len(d),
           (long long)sd_dataset_records(d), (long long)sd_dataset_tokens(d),
           (long long)sd_dataset_supervised(d));
    if (isatty(STDOUT_FILENO))
        printf("%ssupervised\033[0m %ssupervised special\033[0m %snot supervised\033[0m %sspecial, "
               "not supervised\033[0m\n",
               colour[SUPERVISED], colour[SUPERVISED_SPECIAL], colour[PLAIN], colour[SPECIAL]);
    else
        printf("[+supervised+] [+!supervised special!+] not supervised [!special!]\n");
    for (int i = 0, to; i < r->used; i = to) {
        to = segment_end(r, i);
        sd_status st = print_segment(d, row, r, i, to, t, err);
        if (st != SD_OK) return st;
    }
    return SD_OK;
}

static sd_status print_json(const sd_dataset *d, int64_t row, const sd_dataset_row *r,
                            sd_error *err) {
    sd_status st = SD_OK;
    json_t *tokens = json_array(), *labels = json_array(), *segments = json_array(), *all = NULL;
    for (int i = 0; i < r->used; i++) {
        json_array_append_new(tokens, json_integer(r->token[i]));
        json_array_append_new(labels, json_integer(r->label[i]));
    }
    for (int i = 0, to; i < r->used; i = to) {
        const char *source;
        int64_t record;
        sd_sha256 hash;
        to = segment_end(r, i);
        SD_TRY(sd_dataset_provenance(d, row, r->segment[i], &source, &record, &hash, err));
        json_array_append_new(segments, json_pack("{s:s, s:I, s:s, s:i, s:i}", "source", source,
                                                  "record", (json_int_t)record, "sha256", hash.hex,
                                                  "begin", i, "end", to));
    }
    all = json_pack("{s:I, s:i, s:i, s:O, s:O, s:O}", "row", (json_int_t)row, "sequence_len",
                    sd_dataset_sequence_len(d), "used", r->used, "segments", segments, "tokens",
                    tokens, "labels", labels);
    SD_CHECK_ALLOC(all, err);
    SD_TRY(sd_json_print(stdout, all, JSON_COMPACT, err));
    putchar('\n');
out:
    json_decref(tokens);
    json_decref(labels);
    json_decref(segments);
    json_decref(all);
    return st;
}

sd_status sd_data_inspect(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    args a = {0};
    sd_strings files;
    sd_dataset *d = NULL;
    sd_model *m = NULL;
    sd_dataset_row r;
    if (sd_verb_help("data inspect FILE -m MODEL [--row N]",
                     "Shows a row of a prepared file token by token.", rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&files, rows, &a, argc, argv, err));
    SD_CHECK(files.n == 1, err, SD_EINVAL, "data inspect: %d files; give one prepared file",
             files.n);
    SD_TRY(sd_dataset_open(&d, files.item[0], err));
    SD_TRY(sd_model_open(&m, a.model, err));
    SD_CHECK(m->tokenizer, err, SD_EINVAL, "%s: the model has no tokenizer; give one that has",
             a.model);
    SD_TRY(sd_dataset_expect(d, m->tokenizer, err));
    SD_TRY(sd_dataset_read(d, a.row, &r, err));
    if (a.json)
        SD_TRY(print_json(d, a.row, &r, err));
    else
        SD_TRY(print_row(d, a.row, &r, m->tokenizer, err));
out:
    sd_dataset_close(d);
    sd_model_release(m);
    return st;
}
