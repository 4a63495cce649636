// specdec logits: the logits of every position as a NumPy file, [T, V] float32, for comparisons
// with other implementations.
//
// NPY 1.0: 6 bytes magic, 2 version, u16 header length, a Python dict padded with spaces to a
// multiple of 64 and ended by a newline, then the array in C order.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "cli/open_model.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    sd_model_args common;
    const char *adapter, *tokens, *text, *output;
} args;

static const sd_option rows[] = {
    SD_COMMON_ROWS(args),
    {.name = "adapter",
     .letter = 'a',
     .type = SD_OPT_STRING,
     .offset = offsetof(args, adapter),
     .value = "ADAPTER",
     .help = "PEFT folder, GGUF-LoRA file or run"},
    {.name = "tokens",
     .type = SD_OPT_STRING,
     .offset = offsetof(args, tokens),
     .value = "IDS",
     .help = "1,2,3; needs no tokenizer"},
    {.name = "text",
     .type = SD_OPT_STRING,
     .offset = offsetof(args, text),
     .value = "TEXT",
     .help = "a file with the text, - for standard input, else the text itself"},
    SD_OUTPUT_ROW(args, output, "OUT.npy", true, "the file to write"),
    {0}};

static sd_status text_ids(sd_ids *ids, const sd_model *m, const char *text, sd_error *err) {
    enum { MAX_TEXT = 64 << 20 };
    sd_status st = SD_OK;
    char *bytes = NULL;
    size_t len;
    SD_TRY(sd_need_tokenizer(m, err));
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, text, err));
    if (strcmp(text, "-") != 0 && kind != SD_PATH_NONE)
        SD_TRY(sd_stream_read(&bytes, &len, text, MAX_TEXT, err));
    else
        SD_TRY(sd_text_argument(&bytes, &len, text, err));
    SD_TRY(
        sd_tokenizer_encode(m->tokenizer, bytes, len, SD_TOK_SPECIAL | SD_TOK_ADD_BOS, ids, err));
out:
    free(bytes);
    return st;
}

static void write_header(FILE *f, int T, int V) {
    char dict[128], header[256];
    int n = snprintf(dict, sizeof dict,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", T, V);
    int total = (10 + n + 1 + 63) / 64 * 64;
    snprintf(header, sizeof header, "%-*s\n", total - 11, dict);
    uint16_t len = (uint16_t)(total - 10);
    fwrite("\x93NUMPY\x01\x00", 1, 8, f);
    fwrite(&len, 2, 1, f);
    fwrite(header, 1, len, f);
}

static sd_status run(FILE *f, const sd_run_model *r, const sd_ids *ids, int chunk, sd_error *err) {
    sd_status st = SD_OK;
    size_t V = (size_t)r->model->hp.V;
    sd_kv *kv = NULL;
    sd_row *row = sd_alloc((size_t)chunk, sizeof *row);
    float *logits = sd_alloc((size_t)chunk, V * sizeof *logits);
    SD_CHECK_ALLOC(row, err);
    SD_CHECK_ALLOC(logits, err);
    SD_TRY(sd_kv_open(&kv, r->cx, ids->n, err));
    for (int at = 0; at < ids->n; at += chunk) {
        int n = ids->n - at < chunk ? ids->n - at : chunk;
        for (int i = 0; i < n; i++)
            row[i] = (sd_row){.token = ids->id[at + i],
                              .pos = at + i,
                              .kv = kv,
                              .adapter = r->adapter,
                              .want_logits = true};
        SD_TRY(sd_forward(r->cx, row, n, logits, err));
        kv->len = at + n;
        fwrite(logits, sizeof *logits, (size_t)n * V, f); // errors are found at the commit
    }
out:
    sd_kv_close(kv);
    free(row);
    free(logits);
    return st;
}

sd_status sd_verb_logits(int argc, char **argv, sd_error *err) {
    if (sd_verb_help("logits -m MODEL [-a ADAPTER] --tokens IDS|--text TEXT -o OUT.npy",
                     "Writes the logits of every position, [T, V] float32.", rows, argc, argv))
        return SD_OK;
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    sd_run_model r = {0};
    sd_ids ids = {0};
    sd_replace file = {0};
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(!sd_same_file(a.output, a.common.model), err, SD_EINVAL,
             "%s: is both the model and the file to write; give another --output", a.output);
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "'%s' is not expected; give --tokens or --text",
             rest.item[0]);
    SD_CHECK(!a.tokens != !a.text, err, SD_EINVAL, "give --tokens IDS or --text TEXT, one of them");
    SD_TRY(sd_run_model_open(&r, &a.common, a.adapter, (int)a.common.prefill_chunk, err));
    SD_TRY(a.tokens ? sd_parse_ids(&ids, a.tokens, r.model->hp.V, err)
                    : text_ids(&ids, r.model, a.text, err));
    SD_CHECK(ids.n > 0, err, SD_EINVAL, "there is no token; give at least one");
    SD_TRY(sd_replace_open(&file, a.output, err));
    write_header(file.f, ids.n, r.model->hp.V);
    SD_TRY(run(file.f, &r, &ids, (int)a.common.prefill_chunk, err));
    SD_TRY(sd_replace_commit(&file, err));
out:
    sd_replace_abort(&file);
    sd_ids_free(&ids);
    sd_run_model_close(&r);
    return st;
}
