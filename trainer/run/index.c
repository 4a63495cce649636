// The draft index of a run: the completions of its training records, and what they repeat of their prompts.
#include "base/files/path.h"
#include "base/memory.h"
#include "trainer/run/copies.h"
#include "trainer/run/end.h"

/// Each run of supervised tokens of the training records, followed by -1. All records count, also
/// where max_steps or patience ended the run before it had seen each: the index drafts from the
/// domain's text, every draft is verified, and a completion that was not learnt is as likely a
/// pattern of the answers as one that was. Held-out records stay out, so that measurements on them
/// are honest.
static sd_status completions(int32_t **out, int64_t *n, sd_corpus_copies *copies,
                             const sd_rows *rows, const sd_tokenizer *tokenizer, sd_error *err) {
    sd_status st = SD_OK;
    size_t cap = (size_t)rows->labelled * 2 + 1; // at worst every token ends a run
    int32_t *p = sd_alloc(cap, sizeof *p);
    *out = NULL;
    *n = 0;
    SD_CHECK_ALLOC(p, err);
    for (int64_t i = 0; i < rows->n; i++) {
        sd_dataset_row row;
        SD_TRY(sd_dataset_read(rows->data, i, &row, err));
        for (int t = 0, segment = 0, begin = 0; t < row.used; t++) {
            if (row.segment[t] != row.segment[segment]) segment = t;
            if (row.label[t] == SD_NO_LABEL) continue;
            if (t == segment || row.label[t - 1] == SD_NO_LABEL) begin = t;
            p[(*n)++] = row.token[t];
            bool goes_on = t + 1 < row.used && row.label[t + 1] != SD_NO_LABEL &&
                           row.segment[t + 1] == row.segment[t];
            if (goes_on) continue;
            SD_TRY(sd_corpus_find_copies(copies, tokenizer, row.token + segment, begin - segment,
                                         row.token + begin, t + 1 - begin, *n - (t + 1 - begin),
                                         err));
            p[(*n)++] = -1;
        }
    }
    *out = p, p = NULL;
out:
    free(p);
    return st;
}

sd_status sd_run_write_index(sd_run_end *e, const sd_sha256 *adapter, sd_error *err) {
    sd_status st = SD_OK;
    const sd_run_trained *in = e->in;
    int32_t *tokens = NULL;
    sd_corpus_copies copies = {0};
    const sd_tokenizer *tokenizer = in->base->model->tokenizer;
    int64_t n;
    json_t *entry;
    sd_sha256 hash;
    char *dir = sd_path_join(in->dir, "draft");
    char *path = sd_path_join(in->dir, "draft/corpus.idx");
    SD_CHECK_ALLOC(dir, err);
    SD_CHECK_ALLOC(path, err);
    SD_TRY(completions(&tokens, &n, &copies, &in->data->train, tokenizer, err));
    if (n == 0) goto out;
    SD_TRY(sd_mkdirs(dir, err));
    SD_TRY(sd_corpus_write(path, tokens, n, copies.copy, copies.n,
                           sd_tokenizer_fingerprint(tokenizer), adapter, err));
    SD_TRY(sd_sha256_of_file(&hash, path, err));
    SD_TRY(sd_run_add_artefact(&entry, e, "draft", "draft/corpus.idx", &hash, err));
    SD_CHECK(json_object_set_new(entry, "tokens", json_integer((json_int_t)n)) == 0, err, SD_ENOMEM,
             "out of memory");
out:
    free(tokens);
    free(copies.copy);
    free(dir);
    free(path);
    return st;
}
